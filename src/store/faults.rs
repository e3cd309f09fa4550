//! Where tests let the disk fail. Outside tests it never fails here.

use std::fs::File;
use std::io;

#[cfg(test)]
pub(super) use planned::Plan;

/// What is about to be done to a file.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(test), expect(dead_code, reason = "only a test looks at what is written"))]
pub(super) enum Operation<'a> {
    Read,
    Resize,
    Sync,
    /// These bytes at that place.
    Write(u64, &'a [u8]),
}

/// Faults to come.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    #[cfg(test)]
    plan: std::sync::Arc<std::sync::Mutex<Plan>>,
}

impl Faults {
    /// Asked before every operation: an error is what the disk says to it.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "a test has something to say")]
    pub(super) fn strike(&self, _: &File, _: Operation<'_>) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod planned {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::{Faults, File, Operation, io};
    use crate::store::lock;

    /// When the disk fails, and how.
    #[derive(Debug, Default)]
    pub(in crate::store) struct Plan {
        /// Operations that change a file or make it durable, so far.
        pub(in crate::store) count: u64,
        /// The first of them that fails, and how many do.
        pub(in crate::store) failing: Option<(u64, u64)>,
        /// Whether reads fail.
        pub(in crate::store) unreadable: bool,
        /// What was written since the last sync, by file: where, and what was there before.
        unsynced: Vec<(u64, u64, Vec<u8>)>,
    }

    impl Faults {
        pub(in crate::store) fn plan(&self, change: impl FnOnce(&mut Plan)) {
            change(&mut lock(&self.plan));
        }

        pub(in crate::store) fn count(&self) -> u64 {
            lock(&self.plan).count
        }

        /// As in memory, where tests of this keep their folders: a disk would not take parts of pages around its cache. A write that fails is done in part. A sync that fails loses what it was to make durable, as a system does that gives up on it.
        pub(in crate::store) fn strike(&self, file: &File, operation: Operation<'_>) -> io::Result<()> {
            let mut plan = lock(&self.plan);
            if let Operation::Read = operation {
                return if plan.unreadable { Err(fault()) } else { Ok(()) };
            }
            plan.count += 1;
            let fails = plan.failing.is_some_and(|(first, many)| (first..first.saturating_add(many)).contains(&plan.count));
            let inode = file.metadata()?.ino();
            match operation {
                Operation::Read | Operation::Resize => {}
                Operation::Write(offset, data) => {
                    let mut before = vec![0; data.len()];
                    let mut known = 0;
                    while let Ok(count @ 1..) = file.read_at(&mut before[known..], offset + known as u64) {
                        known += count;
                    }
                    plan.unsynced.push((inode, offset, before));
                    if fails {
                        file.write_all_at(&data[..data.len() / 2], offset)?;
                    }
                }
                Operation::Sync if fails => {
                    for (_, offset, before) in plan.unsynced.iter().rev().filter(|(of, ..)| *of == inode) {
                        file.write_all_at(before, *offset)?;
                    }
                    plan.unsynced.retain(|(of, ..)| *of != inode);
                }
                Operation::Sync => plan.unsynced.retain(|(of, ..)| *of != inode),
            }
            if fails { Err(fault()) } else { Ok(()) }
        }
    }

    fn fault() -> io::Error {
        io::Error::other("a fault as planned")
    }
}

#[cfg(test)]
mod tests {
    use std::thread::JoinHandle;
    use std::time::Duration;

    use gossip_cdn_protocol::history::disk::{Change, Founding};
    use gossip_cdn_protocol::history::message::{Body, Channel, Frontier, Message, MessageId};
    use gossip_cdn_protocol::{ContentHash, Persist, Record, StoreFault, WallTime};

    use super::super::Store;
    use super::super::fixture::{Fixture, blob, content, copy_dir, files, node, noise, options, persist, start, write};
    use super::*;
    use crate::clock::Clock;
    use crate::scrub::{Pace, Scrubber};

    /// A store on a disk that fails as planned, and what was answered.
    struct Tried {
        dir: tempfile::TempDir,
        faults: Faults,
        store: Store,
        writer: JoinHandle<Result<(), StoreFault>>,
        blobs: Vec<(u128, Vec<u8>)>,
        messages: u64,
        refused: usize,
    }

    fn message(sequence: u64) -> Message {
        let id = MessageId { origin: node(1), channel: Channel::Causal, sequence };
        Message { id, frontier: Frontier::default(), media_type: "text/plain".into(), body: Body::of(vec![b'a'; 300]), sent: WallTime(7) }
    }

    /// In memory, where there is such a place: many folders are made, and the disk's part is played here.
    fn folder() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
    }

    impl Tried {
        fn new() -> Self {
            let (dir, faults) = (folder(), Faults::default());
            let (store, writer) = Store::open_with(dir.path(), options(), faults.clone()).unwrap();
            Self { dir, faults, store, writer: start(writer), blobs: vec![], messages: 0, refused: 0 }
        }

        /// As an upload goes: bytes, and the record that names them unless the store was opened again in between.
        async fn put(&mut self, n: u128, bytes: Vec<u8>) -> Result<(), String> {
            let mut upload = self.store.upload();
            upload.write(bytes.clone().into()).await.map_err(|error| error.to_string())?;
            let stored = upload.finish().await.map_err(|error| error.to_string())?;
            if stored.life != self.store.life() {
                return Err("another life".into());
            }
            let record = write(&Record::default(), 1, 5, content(&bytes, None));
            self.change(persist(&[(blob(n), &record)])).await?;
            self.blobs.push((n, bytes));
            Ok(())
        }

        async fn say(&mut self) -> Result<(), String> {
            let first = Change::Join(Founding { id: uuid::Uuid::from_u128(1), founder: node(1) });
            let change = if self.messages == 0 { vec![first] } else { vec![] };
            let keep = Change::Keep(message(self.messages + 1));
            self.change(Persist { history: change.into_iter().chain([keep]).collect(), ..Persist::default() }).await?;
            self.messages += 1;
            Ok(())
        }

        async fn change(&self, change: Persist) -> Result<(), String> {
            self.store.persist(change).await.await.unwrap().map_err(|fault| fault.0)
        }

        async fn step(&mut self, n: u128) -> Result<(), String> {
            match n % 4 {
                0 => self.put(n, noise(500, u8::try_from(n).unwrap())).await,
                // A file without a tree, and one with it.
                1 => self.put(n, noise(if n % 8 == 1 { 100_000 } else { 1_100_000 }, u8::try_from(n).unwrap())).await,
                _ => self.say().await,
            }
        }

        /// What was answered reads back, with the disk as it is.
        fn check(&self, store: &Store) {
            for (n, bytes) in &self.blobs {
                let record = store.blob(blob(*n)).unwrap().unwrap();
                let hash = ContentHash::of(bytes);
                assert_eq!(record.winner().unwrap().content.payload().unwrap().hash, hash);
                assert!(super::super::fixture::bytes(store, hash).as_ref() == Some(bytes));
            }
            for sequence in 1..=self.messages {
                assert!(store.history().unwrap().unwrap().find(message(sequence).id).unwrap().is_some(), "{sequence}");
            }
        }

        /// Whatever fails is tried again once the store is open again.
        async fn run(&mut self, steps: u128) {
            for n in 0..steps {
                while let Err(why) = self.step(n).await {
                    self.refused += 1;
                    assert!(self.refused < 20, "{why}");
                    if self.store.ailment().is_some() {
                        self.check(&self.store);
                        while self.store.reopen().await.is_err() {
                            self.check(&self.store);
                            self.faults.plan(|plan| plan.failing = None);
                        }
                        self.store.recovered();
                        self.check(&self.store);
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn whatever_was_answered_reads_back_wherever_the_disk_fails() {
        const STEPS: u128 = 8;
        let mut whole = Tried::new();
        let begins = whole.faults.count();
        whole.run(STEPS).await;
        let ends = whole.faults.count();
        whole.store.close();
        drop(whole);
        assert!(ends - begins > 40, "there are places to fail");
        for first in begins + 1..=ends {
            let many = if first % 4 == 0 { 7 } else { 1 };
            let mut tried = Tried::new();
            tried.faults.plan(|plan| plan.failing = Some((first, many)));
            tried.run(STEPS).await;
            tried.faults.plan(|plan| plan.failing = None);
            assert!(tried.refused > 0 || tried.store.ailment().is_none(), "operation {first} fails somebody");
            tried.check(&tried.store);
            assert_eq!((tried.blobs.len(), tried.messages), (4, 4));
            // A power cut now, and an opening by another process.
            let copy = folder();
            copy_dir(tried.dir.path(), copy.path());
            let crashed = Fixture::at(copy).unwrap();
            tried.check(&crashed.store);
            assert!(crashed.files("tmp").is_empty());
            let (rows, found) = (tried.store.usage().payloads, crashed.files("payloads").len());
            assert_eq!((rows, found, files(&tried.dir.path().join("payloads")).len()), (4, 3, 3), "{first} {many}");
            tried.store.close();
            tried.writer.join().unwrap().unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_scrub_goes_on_when_its_store_is_open_again() {
        let mut tried = Tried::new();
        tried.run(4).await;
        let pace = Pace { interval: None, rate: u64::MAX };
        let (scrubber, scrub) = Scrubber::new(tried.store.clone(), Clock::new(), pace).unwrap();
        tried.faults.plan(|plan| plan.failing = Some((plan.count + 1, u64::MAX)));
        scrub.start();
        let mend = async {
            tried.store.ailing().wait_for(Option::is_some).await.unwrap();
            assert!(tried.store.reopen().await.is_err() && scrub.state().running);
            tried.faults.plan(|plan| plan.failing = None);
            tried.store.reopen().await.unwrap();
            tried.store.recovered();
            while scrub.state().running {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            () = scrubber.run() => panic!("it ended"),
            () = mend => {}
        }
        assert_eq!((scrub.state().payloads, scrub.state().bad), (2, 0));
        tried.store.close();
        tried.writer.join().unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_fault_of_a_read_is_noticed_and_what_is_here_is_read_once_the_disk_can_be() {
        let mut tried = Tried::new();
        tried.run(4).await;
        assert_eq!(tried.store.ailment(), None);
        // Nothing is in memory any more.
        tried.store.reopen().await.unwrap();
        tried.faults.plan(|plan| plan.unreadable = true);
        let hidden = tried.store.list(&super::super::ListQuery::default()).is_err() || tried.store.reopen().await.is_err();
        assert!(hidden && tried.store.ailment().is_some_and(|ailment| ailment.why.contains("as planned")));
        tried.faults.plan(|plan| plan.unreadable = false);
        tried.store.reopen().await.unwrap();
        tried.check(&tried.store);
        tried.run(8).await;
        tried.store.close();
        tried.writer.join().unwrap().unwrap();
    }
}
