//! The least that an ordered message can take with what nodes are made of: the same calls and the same writes, one after the other, by servers that do
//! nothing else.
//!
//! ```text
//! client ──call──> first: append ──call──> second: append ──answer──> first: append ──answer──> client
//! ```
//!
//! That is three writes and two round trips. Beside what each of them takes alone it has what threads take to wake each other: a server hands a write to
//! a thread for it, as a node does, and waits meanwhile.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::error::ErrorInternalServerError;
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpResponse, HttpServer};
use gossip_cdn_cluster::interruption::go_on;
use rustix::fs::OFlags;
use tokio::sync::oneshot;

use crate::client::Client;
use crate::report::{Broken, claim};

/// Bytes of a block of a node's journal.
const BLOCK: usize = 4096;
/// Blocks of a journal; behind the last the first is written again.
const BLOCKS: usize = 1000;

/// A file that is added to as a node's journal is: it has its size before, and a block goes around the page cache where the file system can do that.
pub(crate) struct Journal {
    file: File,
    direct: Option<File>,
    /// Such writes come from a multiple of a block.
    memory: Vec<u8>,
    next: usize,
}

impl Journal {
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let mut file = File::create(path)?;
        file.write_all(&vec![0; BLOCKS * BLOCK])?;
        file.sync_all()?;
        let around = OFlags::DIRECT | OFlags::DSYNC;
        let direct = File::options().write(true).custom_flags(around.bits().cast_signed()).open(path).ok();
        Ok(Self { file, direct, memory: vec![1; 2 * BLOCK], next: 0 })
    }

    /// Adds a block, durably.
    pub(crate) fn append(&mut self) -> io::Result<()> {
        let start = self.memory.as_ptr().align_offset(BLOCK).min(BLOCK);
        let (block, offset) = (&self.memory[start..start + BLOCK], (self.next % BLOCKS * BLOCK) as u64);
        self.next += 1;
        if self.direct.as_ref().is_none_or(|direct| direct.write_all_at(block, offset).is_err()) {
            self.file.write_all_at(block, offset)?;
            self.file.sync_data()?;
        }
        Ok(())
    }
}

/// The thread that writes a journal.
#[derive(Clone)]
struct Writer(mpsc::Sender<oneshot::Sender<io::Result<()>>>);

impl Writer {
    fn new(mut journal: Journal) -> Self {
        let (sender, asked) = mpsc::channel::<oneshot::Sender<_>>();
        thread::spawn(move || asked.into_iter().for_each(|reply| drop(reply.send(journal.append()))));
        Self(sender)
    }

    async fn append(&self) -> Result<(), actix_web::Error> {
        let (reply, durable) = oneshot::channel();
        self.0.send(reply).map_err(ErrorInternalServerError)?;
        Ok(durable.await.map_err(ErrorInternalServerError)??)
    }
}

/// Another server, as a worker reaches it.
struct Peer {
    client: awc::Client,
    url: String,
}

async fn take(message: Bytes, writer: Data<Writer>, peer: Data<Option<Peer>>) -> Result<HttpResponse, actix_web::Error> {
    writer.append().await?;
    if let Some(Peer { client, url }) = &**peer {
        let mut answer =
            client.post(url).no_decompress().send_body(message).await.map_err(|fault| ErrorInternalServerError(fault.to_string()))?;
        answer.body().await?;
        writer.append().await?;
    }
    Ok(HttpResponse::Created().finish())
}

/// A server on a thread of its own, with one worker. Stopped when it is dropped.
struct Bare {
    url: String,
    handle: ServerHandle,
}

impl Bare {
    fn start(folder: &Path, name: &str, peer: Option<&Self>) -> Result<Self, Broken> {
        let (writer, peer) = (Writer::new(Journal::new(&folder.join(name))?), peer.map(|peer| peer.url.clone()));
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            actix_rt::System::new().block_on(async {
                let app = move || {
                    let client = awc::Client::builder().disable_redirects().no_default_headers().finish();
                    let peer = peer.clone().map(|url| Peer { client, url });
                    App::new().app_data(Data::new(writer.clone())).app_data(Data::new(peer)).route("/", web::post().to(take))
                };
                let server = HttpServer::new(app).workers(1).disable_signals().bind(("127.0.0.1", 0))?;
                let url = server.addrs().first().map(|address| format!("http://{address}/"));
                let server = server.run();
                tell.send((url, server.handle())).ok();
                server.await
            })
        });
        let (url, handle) = told.recv()?;
        Ok(Self { url: url.ok_or_else(|| Broken::new("a server has no address"))?, handle })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // Begun by the call; nobody has to wait for its end.
        drop(self.handle.stop(false));
    }
}

/// How long each message of one client takes, with journals in that folder.
pub(crate) fn one_after_the_other(folder: &Path, count: usize, size: usize) -> Result<Vec<Duration>, Broken> {
    let second = Bare::start(folder, "second", None)?;
    let first = Bare::start(folder, "first", Some(&second))?;
    let mut client = Client::new(first.url.trim_end_matches('/'))?;
    let message = vec![b'm'; size];
    let mut say = || {
        go_on()?;
        let begin = Instant::now();
        let answer = client.send("POST", "/", &message)?;
        claim(answer.status == 201, || format!("a server that does nothing answered {}", answer.status))?;
        Ok(begin.elapsed())
    };
    (0..count).map(|_| say()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_two_writes_of_the_first_server_and_one_of_the_second() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(one_after_the_other(folder.path(), 3, 10).unwrap().len(), 3);
        for (name, blocks) in [("first", 6), ("second", 3)] {
            let written = std::fs::read(folder.path().join(name)).unwrap();
            assert_eq!(written.iter().filter(|byte| **byte == 1).count(), blocks * BLOCK, "{name}");
        }
    }
}
