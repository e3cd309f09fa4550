//! `put`: uploads.
//!
//! 1. Nothing is read into memory as a whole: a megabyte per upload in progress, [`AT_ONCE`] of them.
//! 2. Links appear in the order in which the files were given, each as soon as all before it are done.
//! 3. The bytes are hashed on their way out and compared with what the node says it stored.
//! 4. A blob has a file name and no folder. Where a file came from stands beside its link on a terminal and in the JSON; in a pipe a
//!    line is a link and nothing else.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use awc::ClientResponse;
use awc::body::{BodyStream, BoxBody, SizedStream};
use awc::error::SendRequestError;
use awc::http::{Method, header};
use bytes::Bytes;
use clap::Args;
use futures_util::{Stream, StreamExt, stream};
use gossip_cdn_protocol::ContentHash;
use indicatif::ProgressBar;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use walkdir::WalkDir;

use super::client::{self, Client, IDLE};
use super::described::Described;
use super::fault::{Fault, Tally};
use super::screen::{Screen, is_watched, printable};
use super::{Connection, NodeUrl, Outcome};

/// Uploads in progress at the same time.
const AT_ONCE: usize = 4;
/// Bytes read from a file at a time.
const CHUNK: usize = 1 << 20;
/// How often a busy node is asked again.
const ATTEMPTS: usize = 6;
/// Seconds that a node waits for copies where `--timeout` does not say.
const COPIES_TIMEOUT: u64 = 30;

/// Arguments of `put`.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// Files and folders (folders with all files in them), or - for standard input
    ///
    /// A blob's file name is the last part of its path, without folders. On a terminal each link is followed by the path, and --json
    /// has it as "path"; in a pipe a line is a link only
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Nodes that must hold each blob durably before it counts as done
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    copies: Option<u64>,
    /// Seconds to wait for the copies; the blob is stored and spreads in any case
    #[arg(long, value_name = "SECONDS", requires = "copies")]
    timeout: Option<u64>,
    /// File name to give the blob instead of the path's own
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Print a JSON description a line instead of links
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Something to upload.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    /// `None` is standard input.
    path: Option<PathBuf>,
    /// File name of the blob.
    name: Option<String>,
    /// Length, where it is known beforehand: of regular files.
    size: Option<u64>,
}

/// What was uploaded.
struct Done {
    /// Where it came from; nothing for standard input.
    path: Option<String>,
    described: Described,
    /// The node's description as it came, with the path.
    raw: Value,
}

/// What an upload asks of the node.
struct Order {
    node: NodeUrl,
    copies: Option<u64>,
    timeout: u64,
}

pub(crate) async fn run(screen: &Screen, arguments: PutArgs) -> Outcome {
    let PutArgs { paths, copies, timeout, name, json, connection } = arguments;
    if name.is_some() && (paths.len() != 1 || paths[0].is_dir()) {
        return Err(Fault::Usage("--name names one blob: give one file with it".into()));
    }
    if paths.iter().filter(|path| is_standard_input(path)).count() > 1 {
        return Err(Fault::Usage("standard input (-) can be uploaded once only".into()));
    }
    for path in paths.iter().filter(|path| !is_standard_input(path)) {
        std::fs::metadata(path).map_err(|error| Fault::of_file("read", path, &error))?;
    }
    let (client, node) = connection.client();
    let order = Order { node, copies, timeout: timeout.unwrap_or(COPIES_TIMEOUT) };
    // Without a node no further upload is begun; those under way are still told.
    let reachable = Cell::new(true);
    let sources = paths.iter().flat_map(|path| sources(path, name.as_deref())).take_while(|_| reachable.get());
    let mut uploads = stream::iter(sources).map(|source| upload_one(screen, &client, &order, source)).buffered(AT_ONCE);
    let mut tally = Tally::default();
    while let Some(done) = uploads.next().await {
        match done {
            Ok(Done { path, described, raw }) => {
                let link = described.url.clone().unwrap_or_else(|| format!("{}/blobs/{}", order.node, described.id));
                match path {
                    _ if json => screen.line(&raw.to_string())?,
                    Some(path) if is_watched() => screen.line(&format!("{link}  {}", printable(&path)))?,
                    Some(_) | None => screen.line(&link)?,
                }
                if let Some((copies, wanted)) = described.copies.zip(copies).filter(|(copies, wanted)| copies < wanted) {
                    screen.note(&format!("{link} is on {copies} of {wanted} nodes so far, and spreading"));
                }
            }
            Err(fault) => {
                reachable.set(reachable.get() && !matches!(fault, Fault::Unreachable(_)));
                screen.note(&fault.to_string());
                tally.add(fault);
            }
        }
    }
    Ok(tally)
}

fn is_standard_input(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// What there is to upload at `path`: itself, or the files in it in the order of their names.
fn sources(path: &Path, name: Option<&str>) -> Box<dyn Iterator<Item = Result<Source, Fault>>> {
    if is_standard_input(path) {
        return Box::new(std::iter::once(Ok(Source { path: None, name: name.map(Into::into), size: None })));
    }
    if !path.is_dir() {
        let name = name.map(Into::into).or_else(|| path.file_name().map(|name| name.to_string_lossy().into_owned()));
        return Box::new(std::iter::once(file_source(path, name)));
    }
    // Links inside a folder are not followed: they may lead out of it, or in circles.
    let entries =
        WalkDir::new(path).sort_by_file_name().into_iter().filter(|entry| !entry.as_ref().is_ok_and(|entry| entry.file_type().is_dir()));
    Box::new(entries.map(move |entry| {
        let entry = entry.map_err(|error| Fault::Failed(format!("cannot read the folder: {error}")))?;
        if !entry.file_type().is_file() {
            return Err(Fault::Failed(format!("{} is not a regular file, so it was left out", entry.path().display())));
        }
        file_source(entry.path(), Some(entry.file_name().to_string_lossy().into_owned()))
    }))
}

fn file_source(path: &Path, name: Option<String>) -> Result<Source, Fault> {
    let metadata = std::fs::metadata(path).map_err(|error| Fault::of_file("read", path, &error))?;
    Ok(Source { path: Some(path.into()), name, size: metadata.is_file().then_some(metadata.len()) })
}

/// Uploads a source, again as long as the node is busy and the source can be read again.
async fn upload_one(screen: &Screen, client: &Client, order: &Order, source: Result<Source, Fault>) -> Result<Done, Fault> {
    let source = source?;
    let bar = screen.bar(source.name.as_deref().unwrap_or("standard input"), source.size);
    let mut attempts = ATTEMPTS;
    let outcome = loop {
        attempts -= 1;
        bar.set_position(0);
        let (hash, response) = match send(client, order, &source, &bar).await {
            Ok(answered) => answered,
            Err(fault) => break Err(fault),
        };
        match client::busy(&response).filter(|_| attempts > 0 && source.size.is_some()) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => break finish(order, &source, hash, response).await,
        }
    };
    bar.finish_and_clear();
    outcome.map_err(|fault| match (&source.path, fault) {
        (Some(path), Fault::Failed(text)) => Fault::Failed(format!("{}: {text}", path.display())),
        (_, fault) => fault,
    })
}

/// Where the order goes.
fn target(order: &Order, source: &Source) -> String {
    let mut query = Vec::new();
    if let Some(name) = &source.name {
        query.push(format!("name={}", utf8_percent_encode(name, NON_ALPHANUMERIC)));
    }
    if let Some(copies) = order.copies {
        query.push(format!("copies={copies}&timeout={}", order.timeout));
    }
    if query.is_empty() { "/blobs".into() } else { format!("/blobs?{}", query.join("&")) }
}

/// One attempt. Gives the hash of what was sent and the node's answer.
async fn send(client: &Client, order: &Order, source: &Source, bar: &ProgressBar) -> Result<(ContentHash, ClientResponse), Fault> {
    let input: Box<dyn Read + Send> = match &source.path {
        None => Box::new(io::stdin()),
        Some(path) => Box::new(File::open(path).map_err(|error| Fault::of_file("read", path, &error))?),
    };
    let sent = Rc::new(Sent { hash: Cell::new(None), patient: Cell::new(source.size.is_none()) });
    let bytes = read_through(input, source.size, bar.clone(), Rc::clone(&sent));
    let body = match source.size {
        Some(size) => BoxBody::new(SizedStream::new(size, bytes)),
        None => BoxBody::new(BodyStream::new(bytes)),
    };
    let request = client.write(Method::POST, &order.node, &target(order, source)).insert_header((header::ACCEPT, "application/json"));
    let mut answer = std::pin::pin!(request.send_body(body));
    let mut position = None;
    loop {
        match tokio::time::timeout(IDLE + Duration::from_secs(order.timeout), &mut answer).await {
            Ok(Ok(response)) => return Ok((sent.hash.take().unwrap_or_else(|| ContentHash::of(b"")), response)),
            Ok(Err(error)) => return Err(of_upload(order, bar.position(), &error)),
            // Whoever feeds a pipe may take all the time it wants, and bytes that move are no standstill.
            Err(_) if sent.patient.get() || position != Some(bar.position()) => position = Some(bar.position()),
            Err(_) => return Err(Fault::Unreachable(format!("{} stopped taking the upload", order.node))),
        }
    }
}

/// A node that refuses an upload before having read it closes the connection, and its answer is lost on the way.
fn of_upload(order: &Order, sent: u64, error: &SendRequestError) -> Fault {
    if sent > 0 && matches!(error, SendRequestError::Send(_) | SendRequestError::Response(_)) {
        return Fault::Failed(format!(
            "{} broke the upload off ({error}): the file may be larger than its --max-blob, its disk full, or --token missing; `gossip-cdn doctor` and its log tell",
            order.node
        ));
    }
    Fault::of_send(&order.node, error)
}

/// What is known of the bytes that were sent.
struct Sent {
    /// Set at the end of the source.
    hash: Cell<Option<ContentHash>>,
    /// Whether the source may make us wait; not any more once it has ended.
    patient: Cell<bool>,
}

/// The bytes of `input` in chunks, read and hashed on a blocking thread.
fn read_through(
    input: Box<dyn Read + Send>,
    size: Option<u64>,
    bar: ProgressBar,
    sent: Rc<Sent>,
) -> impl Stream<Item = Result<Bytes, io::Error>> + 'static {
    let state = (input, blake3::Hasher::new(), size);
    stream::try_unfold(state, move |(input, hasher, left)| {
        let (bar, sent) = (bar.clone(), Rc::clone(&sent));
        async move {
            let reading = tokio::task::spawn_blocking(move || read_chunk(input, hasher, left));
            let (input, hasher, left, chunk) = reading.await.map_err(io::Error::other)??;
            bar.inc(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
            let ended = chunk.is_empty();
            if ended || left == Some(0) {
                sent.hash.set(Some(ContentHash(*hasher.finalize().as_bytes())));
                sent.patient.set(false);
            }
            Ok((!ended).then_some((chunk, (input, hasher, left))))
        }
    })
}

type Reading = (Box<dyn Read + Send>, blake3::Hasher, Option<u64>, Bytes);

/// The next chunk, empty at the end. A file that became shorter is an error, one that grew is read as far as was announced.
fn read_chunk(mut input: Box<dyn Read + Send>, mut hasher: blake3::Hasher, left: Option<u64>) -> io::Result<Reading> {
    let most = left.map_or(CHUNK, |left| usize::try_from(left).unwrap_or(CHUNK).min(CHUNK));
    let mut chunk = Vec::with_capacity(most);
    input.by_ref().take(u64::try_from(most).unwrap_or(u64::MAX)).read_to_end(&mut chunk)?;
    if left.is_some() && chunk.len() < most {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read"));
    }
    hasher.update(&chunk);
    let left = left.map(|left| left.saturating_sub(u64::try_from(chunk.len()).unwrap_or(u64::MAX)));
    Ok((input, hasher, left, chunk.into()))
}

/// Reads the node's description of what it stored, and compares.
async fn finish(order: &Order, source: &Source, hash: ContentHash, response: ClientResponse) -> Result<Done, Fault> {
    if !response.status().is_success() {
        return Err(client::refusal(response).await);
    }
    let body = client::collect(response).await.map_err(|cut| Fault::Failed(format!("stored, but the link did not arrive: {cut}")))?;
    let described: Described = client::parse(&order.node, &body)?;
    if described.blake3.is_some_and(|stored| stored != hash) {
        return Err(Fault::Failed(format!("the node stored other bytes than were sent, as {}: delete it and try again", described.id)));
    }
    let path = source.path.as_ref().map(|path| path.to_string_lossy().into_owned());
    let mut raw: Value = client::parse(&order.node, &body)?;
    if let Some(members) = raw.as_object_mut() {
        members.insert("path".into(), path.clone().into());
    }
    Ok(Done { path, described, raw })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_its_files_named_without_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("b/c")).unwrap();
        for (name, bytes) in [("b/c/deep.txt", "12345"), ("b/x", "1"), ("a", "")] {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let found: Vec<_> =
            sources(folder.path(), None).map(|source| source.map(|source| (source.name.unwrap(), source.size.unwrap()))).collect();
        assert_eq!(found, [Ok(("a".into(), 0)), Ok(("deep.txt".into(), 5)), Ok(("x".into(), 1))]);
    }

    #[cfg(unix)]
    #[test]
    fn links_in_a_folder_are_told_and_left_out() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("out")).unwrap();
        let found: Vec<_> = sources(folder.path(), None).collect();
        assert!(matches!(found.as_slice(), [Err(Fault::Failed(text))] if text.contains("out")));
    }

    #[test]
    fn names_and_copies_travel_in_the_query() {
        let order = Order { node: "http://a:1".parse().unwrap(), copies: Some(2), timeout: 30 };
        let source = Source { path: None, name: Some("a b/é&.jpg".into()), size: None };
        assert_eq!(target(&order, &source), "/blobs?name=a%20b%2F%C3%A9%26%2Ejpg&copies=2&timeout=30");
        let plain = Order { copies: None, ..order };
        assert_eq!(target(&plain, &Source { name: None, ..source }), "/blobs");
    }

    #[test]
    fn chunks_end_where_the_announced_length_does() {
        let input = |text: &'static str| -> Box<dyn Read + Send> { Box::new(text.as_bytes()) };
        let (rest, hasher, left, chunk) = read_chunk(input("abcdef"), blake3::Hasher::new(), Some(4)).unwrap();
        assert_eq!((chunk.as_ref(), left), (b"abcd".as_slice(), Some(0)));
        assert_eq!(hasher.finalize(), blake3::hash(b"abcd"));
        assert!(read_chunk(rest, hasher, left).unwrap().3.is_empty());
        assert_eq!(read_chunk(input("abc"), blake3::Hasher::new(), Some(4)).err().unwrap().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read_chunk(input("abc"), blake3::Hasher::new(), None).unwrap().3, "abc");
    }
}
