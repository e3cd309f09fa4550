//! `get`: downloads.
//!
//! 1. What is kept under the wanted name has the hash that the node's listing of versions names. Until then it is `NAME.part`.
//! 2. A part file is always a prefix of the blob, whatever number of nodes it came from, so its length says where to go on.
//! 3. A failed download leaves the part file for the next attempt, and touches no other file. Only bytes known to be wrong are removed.
//! 4. Under a name chosen by a stranger no file of somebody else is replaced.

mod fetch;
mod part;
mod ranges;

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use gossip_cdn_protocol::{BlobId, ContentHash, VersionId};

use super::address::BlobRef;
use super::client::Client;
use super::described::Versions;
use super::fault::{Fault, Tally};
use super::screen::{Screen, is_watched, printable};
use super::{Connection, NodeUrl, Outcome};
use fetch::Break;
use part::{Part, Pipe};

/// How often a download begins anew because the blob was replaced meanwhile.
const ROUNDS: usize = 3;
/// Longest file name taken from a node, in bytes: file systems stop at 255, and `.part` and an id must fit too.
const NAME_MAX: usize = 200;

/// Arguments of `get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// Ids or links
    #[arg(required = true, value_name = "ID|LINK")]
    blobs: Vec<BlobRef>,
    /// File to write, or a folder for the blobs' own names, or - for standard output (the default)
    #[arg(short, long, value_name = "FILE|DIR")]
    output: Option<PathBuf>,
    /// Nodes to fetch ranges from in parallel, separated by commas
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    from: Vec<NodeUrl>,
    #[command(flatten)]
    connection: Connection,
}

/// What is to be fetched, as the node's listing describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    id: BlobId,
    /// Set where a certain version was asked for, instead of the winner.
    version: Option<VersionId>,
    /// Without quotes.
    etag: String,
    size: u64,
    blake3: Option<ContentHash>,
    media_type: String,
    file_name: Option<String>,
}

/// Where the bytes go.
#[derive(Debug, PartialEq, Eq)]
enum Destination {
    StandardOutput,
    /// A device or pipe: written through, nothing beside it, nothing renamed.
    Device(PathBuf),
    File(PathBuf),
    /// A folder: the blob's own name in it.
    Folder(PathBuf),
}

pub(crate) async fn run(screen: &Screen, arguments: GetArgs) -> Outcome {
    let GetArgs { blobs, output, from, connection } = arguments;
    let destination = destination(output, blobs.len())?;
    let (client, node) = connection.client();
    let mut tally = Tally::default();
    for blob in &blobs {
        let nodes = if from.is_empty() { vec![blob.node_or(&node).clone()] } else { from.clone() };
        match one(screen, &client, nodes, blob, &destination).await {
            Ok(()) => {}
            Err(Fault::ReaderGone) => return Err(Fault::ReaderGone),
            Err(fault) => {
                screen.note(&fault.to_string());
                tally.add(fault);
            }
        }
    }
    Ok(tally)
}

fn destination(output: Option<PathBuf>, blobs: usize) -> Result<Destination, Fault> {
    let destination = match output {
        Some(path) if path.is_dir() => Destination::Folder(path),
        Some(path) if path.as_os_str() == "-" => Destination::StandardOutput,
        // A link is followed, so that the file behind it is replaced and not the link.
        Some(path) if path.is_file() => Destination::File(path.canonicalize().unwrap_or(path)),
        Some(path) if path.exists() => Destination::Device(path),
        Some(path) => Destination::File(path),
        None => Destination::StandardOutput,
    };
    match destination {
        Destination::Folder(_) => Ok(destination),
        Destination::StandardOutput | Destination::Device(_) | Destination::File(_) if blobs > 1 => {
            Err(Fault::Usage("several blobs need a folder that exists: -o DIR".into()))
        }
        Destination::StandardOutput | Destination::Device(_) | Destination::File(_) => Ok(destination),
    }
}

/// Fetches one blob, from the start again where it is replaced in the middle.
async fn one(screen: &Screen, client: &Client, nodes: Vec<NodeUrl>, blob: &BlobRef, destination: &Destination) -> Result<(), Fault> {
    for _ in 0..ROUNDS {
        let wanted = describe(client, &nodes, blob).await?;
        let done = match destination {
            Destination::StandardOutput => {
                if is_watched() && !wanted.media_type.starts_with("text/") {
                    return Err(Fault::Usage(format!("{} is no text and would spoil the terminal: use -o FILE", blob.id)));
                }
                through(screen, client, &nodes, &wanted, Box::new(io::stdout())).await
            }
            Destination::Device(path) => {
                let device = std::fs::OpenOptions::new().write(true).open(path).map_err(|error| Fault::of_file("write", path, &error))?;
                through(screen, client, &nodes, &wanted, Box::new(device)).await
            }
            Destination::File(path) => into_file(screen, client, &nodes, &wanted, path).await,
            Destination::Folder(folder) => {
                let path = place(folder, &wanted).await?;
                let done = into_file(screen, client, &nodes, &wanted, &path).await;
                if done.is_ok() {
                    screen.line(&path.display().to_string())?;
                }
                done
            }
        };
        match done {
            Ok(()) => return Ok(()),
            Err(Break::Fault(fault)) => return Err(fault),
            Err(Break::Changed) => screen.note(&format!("{} was replaced meanwhile; starting over", blob.id)),
        }
    }
    Err(Fault::Conflict(format!("{} is replaced faster than it can be read; ask for one of its versions by ?version=", blob.id)))
}

/// Asks the nodes in turn; the first that knows the blob is believed. (A wrong description cannot be satisfied with wrong bytes.)
async fn describe(client: &Client, nodes: &[NodeUrl], blob: &BlobRef) -> Result<Wanted, Fault> {
    let mut first_fault = None;
    for node in nodes {
        let listing = client.json::<Versions>(node, &format!("/blobs/{}/versions", blob.id)).await;
        match listing.and_then(|listing| Wanted::from_listing(blob, listing)) {
            Ok(wanted) => return Ok(wanted),
            Err(fault) => first_fault.get_or_insert(fault),
        };
    }
    Err(first_fault.unwrap_or_else(|| Fault::Usage("--from names no node".into())))
}

impl Wanted {
    fn from_listing(blob: &BlobRef, listing: Versions) -> Result<Self, Fault> {
        let version = blob.version.unwrap_or(listing.winner);
        let entry = listing.versions.into_iter().find(|entry| entry.version == version);
        let entry = entry.ok_or_else(|| Fault::NotFound(format!("{} has no live version {version}", blob.id)))?;
        if entry.deleted {
            return Err(Fault::NotFound(format!("{} is deleted; `gossip-cdn versions {}` lists what is left of it", blob.id, blob.id)));
        }
        let (Some(size), Some(etag)) = (entry.size, entry.etag) else {
            return Err(Fault::Failed(format!("the node does not say how long {} is and what its entity tag is", blob.id)));
        };
        Ok(Self {
            id: blob.id,
            version: blob.version,
            etag: etag.trim_matches('"').into(),
            size,
            blake3: entry.blake3,
            media_type: entry.media_type.unwrap_or_default(),
            file_name: entry.file_name,
        })
    }

    /// Whether bytes of that hash are the ones: by the whole hash where the listing has it, else by the half of it in the entity tag.
    fn is(&self, hash: ContentHash) -> bool {
        match self.blake3 {
            Some(blake3) => blake3 == hash,
            None => self.etag.strip_prefix("b3-").is_some_and(|tag| tag.len() == 32 && hash.to_string().starts_with(tag)),
        }
    }

    /// Path and query of its bytes.
    fn path(&self) -> String {
        match self.version {
            Some(version) => format!("/blobs/{}?version={version}", self.id),
            None => format!("/blobs/{}", self.id),
        }
    }
}

/// Writes the bytes as they come; they can be judged only at the end.
async fn through(
    screen: &Screen,
    client: &Client,
    nodes: &[NodeUrl],
    wanted: &Wanted,
    output: Box<dyn io::Write + Send>,
) -> Result<(), Break> {
    let bar = screen.bar(&title(wanted), Some(wanted.size));
    let mut pipe = Pipe::new(output, blake3::Hasher::new(), 0);
    let fetched = fetch::fetch(client, nodes, wanted, &mut pipe, &bar).await;
    bar.finish_and_clear();
    let taken = pipe.taken();
    let hash = pipe.finish().await.map_err(|error| Fault::of_output(&error));
    match fetched {
        Err(Break::Changed) if taken > 0 => {
            Err(Fault::Conflict(format!("{} was replaced while it was read: what was written is of no use", wanted.id)).into())
        }
        Err(fault) => Err(fault),
        Ok(()) if wanted.is(hash?) => Ok(()),
        Ok(()) => Err(Fault::Failed(format!("the bytes of {} do not match their hash: do not use what was written", wanted.id)).into()),
    }
}

/// Downloads to `target` by way of its part file.
async fn into_file(screen: &Screen, client: &Client, nodes: &[NodeUrl], wanted: &Wanted, target: &Path) -> Result<(), Break> {
    if holds(target, wanted).await? {
        screen.note(&format!("{} is complete already", target.display()));
        return Ok(());
    }
    loop {
        let part = Part::open(target, wanted.size).await?;
        let resumed = part.length;
        let bar = screen.bar(&title(wanted), Some(wanted.size));
        bar.set_position(resumed);
        let mut pipe = part.pipe()?;
        let fetched = fetch::fetch(client, nodes, wanted, &mut pipe, &bar).await;
        bar.finish_and_clear();
        // Finished in any case: what has come is worth keeping.
        let written = pipe.finish().await.map_err(|error| Fault::of_file("write", &part.path, &error));
        match fetched {
            Err(Break::Changed) => {
                part.remove()?;
                return Err(Break::Changed);
            }
            Err(fault) => {
                part.leave()?;
                return Err(fault);
            }
            Ok(()) => {}
        }
        if wanted.is(written?) {
            return Ok(part.publish(target).await?);
        }
        part.remove()?;
        if resumed == 0 {
            return Err(Fault::Failed(format!("the bytes of {} do not match their hash, so they were thrown away", wanted.id)).into());
        }
        screen.note(&format!("the part of {} was the beginning of something else; starting over", target.display()));
    }
}

/// Whether the file at `path` has the wanted bytes.
async fn holds(path: &Path, wanted: &Wanted) -> Result<bool, Fault> {
    if !path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == wanted.size) {
        return Ok(false);
    }
    Ok(wanted.is(part::hash_of(path).await?))
}

/// Where in `folder` the blob goes: under its own name, unless another file has it; then its id goes before the name.
async fn place(folder: &Path, wanted: &Wanted) -> Result<PathBuf, Fault> {
    let Some(name) = wanted.file_name.as_deref().and_then(safe_name) else { return Ok(folder.join(wanted.id.to_string())) };
    let path = folder.join(&name);
    if !path.exists() || holds(&path, wanted).await? { Ok(path) } else { Ok(folder.join(format!("{}-{name}", wanted.id))) }
}

/// The last part of a name, if it can be the name of a file here.
fn safe_name(name: &str) -> Option<String> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let clean = printable(last).replace(char::REPLACEMENT_CHARACTER, "_");
    let usable = !clean.is_empty() && clean.len() <= NAME_MAX && clean.trim_start_matches('.') == clean && clean.trim() == clean;
    usable.then_some(clean)
}

fn title(wanted: &Wanted) -> String {
    wanted.file_name.clone().unwrap_or_else(|| wanted.id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

    fn listing(extra: &str) -> Versions {
        let json = format!(
            r#"{{"id": "{ID}", "winner": "0000000000000002.{ID}", "reason": "only one", "versions": [
                {{"version": "0000000000000002.{ID}", "deleted": false, "size": 3, "etag": "\"b3-{}\"" {extra}}},
                {{"version": "0000000000000001.{ID}", "deleted": true, "size": null, "etag": null}}]}}"#,
            tag(b"abc")
        );
        serde_json::from_str(&json).unwrap()
    }

    fn tag(bytes: &[u8]) -> String {
        ContentHash::of(bytes).to_string().chars().take(32).collect()
    }

    fn wanted() -> Wanted {
        Wanted::from_listing(&ID.parse().unwrap(), listing("")).unwrap()
    }

    #[test]
    fn the_winner_is_wanted_unless_a_link_names_a_version() {
        assert_eq!(wanted().path(), format!("/blobs/{ID}"));
        let link = |stamp: u8| format!("http://a:1/blobs/{ID}?version=000000000000000{stamp}.{ID}").parse::<BlobRef>().unwrap();
        assert_eq!(Wanted::from_listing(&link(2), listing("")).unwrap().path(), format!("/blobs/{ID}?version=0000000000000002.{ID}"));
        assert_eq!(Wanted::from_listing(&link(1), listing("")).unwrap_err().exit_code(), 3, "a tombstone has no bytes");
        assert_eq!(Wanted::from_listing(&link(3), listing("")).unwrap_err().exit_code(), 3);
    }

    #[test]
    fn bytes_are_known_by_the_whole_hash_or_the_half_in_the_tag() {
        assert!(wanted().is(ContentHash::of(b"abc")));
        assert!(!wanted().is(ContentHash::of(b"abd")));
        let whole = Wanted::from_listing(&ID.parse().unwrap(), listing(&format!(r#", "blake3": "{}""#, ContentHash::of(b"abc")))).unwrap();
        assert!(whole.is(ContentHash::of(b"abc")));
        let strange = Wanted { etag: "b3-".into(), ..wanted() };
        assert!(!strange.is(ContentHash::of(b"abc")), "an empty tag matches nothing");
    }

    #[test]
    fn several_blobs_need_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert!(destination(Some(folder.path().into()), 2).is_ok());
        assert_eq!(destination(None, 2).unwrap_err().exit_code(), 2);
        assert_eq!(destination(Some(folder.path().join("new")), 2).unwrap_err().exit_code(), 2);
        assert_eq!(destination(None, 1), Ok(Destination::StandardOutput));
        assert_eq!(destination(Some("-".into()), 1), Ok(Destination::StandardOutput));
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_written_through_and_a_link_followed() {
        assert_eq!(destination(Some("/dev/null".into()), 1), Ok(Destination::Device("/dev/null".into())));
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::write(root.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(root.join("file"), root.join("link")).unwrap();
        assert_eq!(destination(Some(root.join("link")), 1), Ok(Destination::File(root.join("file"))));
    }

    #[test]
    fn names_of_strangers_stay_in_the_folder() {
        assert_eq!(safe_name("a/b/photo.jpg"), Some("photo.jpg".into()));
        assert_eq!(safe_name("..\\..\\boot.ini"), Some("boot.ini".into()));
        assert_eq!(safe_name("a\u{202e}b\n"), Some("a_b_".into()));
        for bad in ["", "..", ".bashrc", "a/..", "a/", " x", &"x".repeat(201)] {
            assert_eq!(safe_name(bad), None, "{bad:?}");
        }
    }

    #[actix_web::test]
    async fn a_file_of_somebody_else_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = Wanted { file_name: Some("x".into()), ..wanted() };
        let path = folder.path().join("x");
        assert_eq!(place(folder.path(), &wanted).await, Ok(path.clone()));
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(place(folder.path(), &wanted).await, Ok(path.clone()), "the same bytes are no other file");
        std::fs::write(&path, "abd").unwrap();
        assert_eq!(place(folder.path(), &wanted).await, Ok(folder.path().join(format!("{ID}-x"))));
    }
}
