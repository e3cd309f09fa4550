//! Payload bytes on their way to a client.
//!
//! 1. Memory does not follow size: one chunk is in flight per reader, small at first and growing while the reader keeps up, to 128 KiB of what the
//!    system has in memory and to 1 MiB of what a disk has to be waited for; so many slow readers hold little.
//! 2. What the system has in memory is read on the worker; what would wait for a disk is read on the blocking pool.
//! 3. What was not read since the start is checked on the blocking pool before it leaves. Where it is not right the body goes on with what
//!    another node sends, at the same byte.
//! 4. A body is exactly as long as was said, or it ends with an error that closes the connection.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use actix_web::web::{self, Bytes};
use futures_util::{Stream, stream};

use super::buffers::Buffer;
use super::wanted::{Fetched, Wanted};
use crate::store::{Arriving, FirstReading, PayloadReader, ReadFault};

/// The first chunk of a body.
const FIRST_CHUNK: u64 = 64 << 10;
/// The largest, read from a disk: each costs a turn on the blocking pool.
const MAX_CHUNK: u64 = 1 << 20;
/// The largest of what is in memory: with the copy that the framework makes it stays in the caches of the processor.
const MAX_CACHED: usize = 128 << 10;

/// Where bytes come from.
enum Source {
    /// All of them are here.
    Here(Arc<File>),
    /// All of them are here, and are checked as they are read.
    Unread(FirstReading, Wanted),
    /// They are arriving from another node, and are read as far as they are verified.
    Arriving(Arriving),
}

struct Reader {
    source: Source,
    offset: u64,
    end: u64,
    chunk: u64,
}

/// The bytes of a file from `start` to `end`.
pub(super) fn of_file(file: Arc<File>, start: u64, end: u64) -> impl Stream<Item = io::Result<Bytes>> + 'static {
    chunks(Reader { source: Source::Here(file), offset: start, end, chunk: FIRST_CHUNK })
}

/// The bytes of a payload from `start` to `end`, checked as they are read.
pub(super) fn of_unread(reading: FirstReading, wanted: Wanted, start: u64, end: u64) -> impl Stream<Item = io::Result<Bytes>> + 'static {
    chunks(Reader { source: Source::Unread(reading, wanted), offset: start, end, chunk: FIRST_CHUNK })
}

/// The bytes of a payload from `start` to `end`, as they arrive.
pub(super) fn of_arriving(arriving: Arriving, start: u64, end: u64) -> impl Stream<Item = io::Result<Bytes>> + 'static {
    chunks(Reader { source: Source::Arriving(arriving), offset: start, end, chunk: FIRST_CHUNK })
}

fn chunks(reader: Reader) -> impl Stream<Item = io::Result<Bytes>> + 'static {
    stream::try_unfold(reader, |mut reader| async move {
        if reader.offset >= reader.end {
            return Ok(None);
        }
        let chunk = reader.next().await?;
        Ok(Some((chunk, reader)))
    })
}

impl Reader {
    async fn next(&mut self) -> io::Result<Bytes> {
        let bytes = loop {
            let (file, readable) = match &mut self.source {
                Source::Here(file) => (Arc::clone(file), self.end),
                Source::Unread(reading, wanted) => {
                    let (reading, wanted) = (reading.clone(), wanted.clone());
                    match checked(reading, self.offset, self.length(self.end)?).await {
                        Ok(bytes) => break bytes,
                        Err(ReadFault::Damaged) => self.source = elsewhere(wanted, self.offset).await?,
                        Err(ReadFault::Local(error)) => return Err(error),
                    }
                    continue;
                }
                Source::Arriving(arriving) => {
                    let verified = arriving.wait_beyond(self.offset).await;
                    let stalled = || io::Error::new(io::ErrorKind::TimedOut, "the payload stopped arriving");
                    (arriving.file(), verified.map_err(|_| stalled())?.min(self.end))
                }
            };
            break read(file, self.offset, self.length(readable)?).await?;
        };
        self.offset += bytes.len() as u64;
        self.chunk = (self.chunk * 2).min(MAX_CHUNK);
        Ok(bytes)
    }

    /// How much to read next of what ends at `readable`.
    fn length(&self, readable: u64) -> io::Result<usize> {
        let length = readable.saturating_sub(self.offset).min(self.chunk);
        if length == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the payload is shorter than was said"));
        }
        usize::try_from(length).map_err(io::Error::other)
    }
}

async fn checked(reading: FirstReading, offset: u64, length: usize) -> Result<Bytes, ReadFault> {
    web::block(move || reading.read(offset, length)).await.map_err(io::Error::other)?
}

/// Where a body goes on whose payload turned out to be damaged here.
async fn elsewhere(wanted: Wanted, offset: u64) -> io::Result<Source> {
    let fetched = wanted.fetch(offset).await.map_err(|_| io::Error::other("the payload is damaged here, and no other node sends it"))?;
    Ok(match fetched {
        Fetched::Arriving(arriving) => Source::Arriving(arriving),
        Fetched::Here(PayloadReader::File { file, .. }) => Source::Here(file),
        Fetched::Here(PayloadReader::Unread(reading)) => Source::Unread(reading, wanted),
        Fetched::Here(PayloadReader::Inline(_)) => return Err(io::Error::other("a large payload came as a small one")),
    })
}

/// Reads up to `length` bytes, at least one. The file ending early is an error: its length was announced.
async fn read(file: Arc<File>, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = Buffer::new(length.min(MAX_CACHED));
    if let Some(found) = read_cached(&file, offset, buffer.room()) {
        return Ok(buffer.filled(found));
    }
    drop(buffer);
    let mut buffer = Buffer::new(length);
    let read = move || file.read_exact_at(buffer.room(), offset).map(|()| buffer);
    web::block(read).await.map_err(io::Error::other)?.map(|buffer| buffer.filled(length))
}

/// What the page cache has of it; `None` if that is nothing, or cannot be told.
#[cfg(target_os = "linux")]
fn read_cached(file: &File, offset: u64, buffer: &mut [u8]) -> Option<usize> {
    let mut buffers = [io::IoSliceMut::new(buffer)];
    rustix::io::preadv2(file, &mut buffers, offset, rustix::io::ReadWriteFlags::NOWAIT).ok().filter(|found| *found > 0)
}

#[cfg(not(target_os = "linux"))]
fn read_cached(_: &File, _: u64, _: &mut [u8]) -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use futures_util::TryStreamExt as _;

    use super::*;

    fn file(size: usize) -> (Arc<File>, Vec<u8>) {
        let bytes: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        (Arc::new(file), bytes)
    }

    #[actix_web::test]
    async fn a_body_has_exactly_the_bytes_asked_for_in_growing_chunks() {
        let (file, bytes) = file(5 << 20);
        let chunks: Vec<Bytes> = of_file(file, 3, (5 << 20) - 7).try_collect().await.unwrap();
        assert_eq!(chunks.concat(), bytes[3..(5 << 20) - 7]);
        assert_eq!(chunks[0].len(), 64 << 10);
        assert!(chunks.iter().any(|chunk| chunk.len() >= MAX_CACHED));
        assert!(chunks.iter().all(|chunk| (1..=1 << 20).contains(&chunk.len())));
    }

    #[cfg(target_os = "linux")]
    #[actix_web::test]
    async fn what_is_in_memory_comes_in_chunks_that_stay_in_the_caches() {
        let (file, bytes) = file(1 << 20);
        let mut buffer = vec![0; 1 << 20];
        // In memory it is, for it was just written; where the folder is on a disk that cannot tell, there is nothing to claim.
        if read_cached(&file, 0, &mut buffer).is_some() {
            let chunk = read(file, 0, 1 << 20).await.unwrap();
            assert!(chunk.len() <= MAX_CACHED && chunk[..] == bytes[..chunk.len()]);
        }
    }

    #[actix_web::test]
    async fn a_file_that_ends_early_is_an_error_not_a_short_body() {
        let (file, _) = file(10);
        let body: io::Result<Vec<Bytes>> = of_file(file, 0, 11).try_collect().await;
        assert_eq!(body.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[actix_web::test]
    async fn a_payload_that_arrives_shorter_than_said_is_an_error_not_an_endless_body() {
        let dir = tempfile::tempdir().unwrap();
        let options = crate::store::Options {
            cluster: "test".into(),
            cache_bytes: 1 << 20,
            reserve: crate::store::Reserve::Bytes(0),
            fresh_key: [7; 32],
            restored: false,
        };
        let (store, _writer) = crate::store::Store::open(dir.path(), options).unwrap();
        let hash = gossip_cdn_protocol::ContentHash::of(b"");
        let _incoming = store.incoming(hash, 0).unwrap();
        let body: io::Result<Vec<Bytes>> = of_arriving(store.arriving(hash).unwrap(), 0, 10).try_collect().await;
        assert_eq!(body.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
