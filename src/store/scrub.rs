//! What a scrub needs of the store: which payload is next, whether it is right, how far the scrub is.
//!
//! 1. Every byte that is looked at is read and checked, whether it was verified before or not.
//! 2. How far a scrub is outlives the node.

use std::ops::Bound;
use std::sync::Arc;

use gossip_cdn_protocol::{ContentHash, StoreFault};
use redb::Error;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::damage::Evidence;
use super::fresh::Rows;
use super::payloads::{self, FirstReading, PayloadReader, ReadFault};
use super::verified::Groups;
use super::writer::Request;
use super::{Store, reading, rows, tables};

/// How much of a payload is looked at in one step.
const STEP: u64 = 1 << 20;

/// How far a scrub is, or was when it ended. Times are milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubState {
    /// Whether one is under way.
    pub running: bool,
    /// The payload looked at last, in the order of hashes.
    pub behind: Option<ContentHash>,
    /// When it began; before the first one, when the folder was new.
    pub begun: u64,
    /// When the last one ended.
    pub finished: Option<u64>,
    /// Payloads looked at.
    pub payloads: u64,
    /// Bytes looked at.
    pub bytes: u64,
    /// Payloads found damaged.
    pub bad: u64,
    /// Rows of records found damaged; the next start mends them.
    pub records_bad: u64,
}

/// A payload that is being looked at, from its first byte to its last.
pub enum Inspection {
    /// It is not here any more.
    Gone,
    /// It is damaged, and missing now.
    Damaged,
    /// All of it was looked at: so many bytes.
    Right(u64),
    /// A large one, to be looked at step by step.
    Begun(Steps),
}

/// The steps of a look at a large payload.
pub struct Steps {
    reading: FirstReading,
    offset: u64,
}

impl Steps {
    /// Looks at the next bytes and tells how many they were; 0 at the end. Blocks.
    pub fn step(&mut self) -> Result<u64, ReadFault> {
        let length = STEP.min(self.reading.size() - self.offset);
        if length > 0 {
            self.reading.read(self.offset, usize::try_from(length).map_err(std::io::Error::other)?)?;
            self.offset += length;
        }
        Ok(length)
    }
}

impl Store {
    /// The payload behind that one, in the order of hashes.
    pub fn next_payload(&self, behind: Option<ContentHash>) -> Result<Option<ContentHash>, StoreFault> {
        let start = behind.as_ref().map_or(Bound::Unbounded, |hash| Bound::Excluded(&hash.0));
        reading(|| {
            let bound = behind.map_or(Bound::Unbounded, Bound::Excluded);
            let next = |rows: &Rows| rows.payloads.range((bound, Bound::Unbounded)).next().map(|(hash, _)| *hash).into_iter().collect();
            let (transaction, fresh) = self.shared.beside(next)?;
            let table = transaction.open_table(tables::PAYLOADS)?;
            let stored = table.range::<&[u8; 32]>((start, Bound::Unbounded))?.next().transpose()?;
            let stored = stored.map(|(hash, _)| ContentHash(*hash.value()));
            Ok(fresh.into_iter().chain(stored).min())
        })
    }

    /// Begins to look at a payload. Blocks.
    pub fn inspect(&self, hash: ContentHash) -> Result<Inspection, StoreFault> {
        let shared = &self.shared;
        let mut reading = match payloads::open(shared, hash)? {
            None if shared.damages.is_noted(hash) => return Ok(Inspection::Damaged),
            None => return Ok(Inspection::Gone),
            Some(PayloadReader::Inline(bytes)) if ContentHash::of(&bytes) == hash => return Ok(Inspection::Right(bytes.len() as u64)),
            Some(PayloadReader::Inline(_)) => {
                shared.note_damage(hash, Evidence::Inline);
                return Ok(Inspection::Damaged);
            }
            Some(PayloadReader::Unread(reading)) => reading,
            Some(PayloadReader::File { file, size }) => match FirstReading::of(shared, hash, size, file) {
                Ok(Some(reading)) => reading,
                Ok(None) => return Ok(Inspection::Damaged),
                Err(error) => return Err(StoreFault(format!("the file of payload {hash}: {error}"))),
            },
        };
        reading.groups = Arc::new(Groups::new(reading.size()));
        Ok(Inspection::Begun(Steps { reading, offset: 0 }))
    }

    /// How many rows of records are damaged. Blocks while all are looked at.
    pub fn damaged_rows(&self) -> Result<usize, StoreFault> {
        reading(|| rows::damaged(|| self.shared.database.begin_read(), &self.shared.hasher)).map(|damaged| damaged.len())
    }

    /// How far the scrub was that was kept last.
    pub fn scrub(&self) -> Result<Option<ScrubState>, StoreFault> {
        reading(|| tables::meta(&self.shared.database.begin_read()?, tables::SCRUB))
    }

    /// Keeps how far a scrub is; durable when this returns.
    pub async fn keep_scrub(&self, state: &ScrubState) -> Result<(), StoreFault> {
        let json = tables::to_json(&[], state).map_err(|error: Error| StoreFault(error.to_string()))?;
        let (reply, durable) = oneshot::channel();
        self.shared.queue.send(Request::Scrub(json, reply)).await?;
        durable.await.unwrap_or_else(|_| Err(StoreFault("the writer is gone".to_owned())))
    }
}
