//! Many blobs, or many records, in little time.
//!
//! Blobs are uploaded by many clients with a connection each, for an acknowledgement follows an fsync that all waiting writes share. A
//! million records without bytes of their own come quicker as one peer gives them to another: in messages of hundreds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gossip_cdn_cluster::interruption::go_on;
use gossip_cdn_cluster::noise;
use gossip_cdn_protocol::records::MAX_PENDING;
use gossip_cdn_protocol::wire::{Entry, Envelope, MAX_RECORDS, VERSION};
use gossip_cdn_protocol::{BlobId, Content, ContentHash, NodeId, Payload, Record, Sha256Digest, Stamp, Version, WallTime};

use crate::agreement::number;
use crate::client::Client;
use crate::report::{Broken, claim, remark};

/// The node takes 256 uploads at once unless told otherwise.
const CLIENTS: usize = 240;
/// How many messages are given before it is asked whether they were taken: as many as may wait for the disk.
const MESSAGES: u64 = (MAX_PENDING / MAX_RECORDS) as u64;
/// The day from which records are stamped, a millisecond each: 1 January 2026.
const DAY: u64 = 1_767_225_600_000;
/// SHA-256 of nothing.
const SHA256_OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The bytes of a blob by its number: all differ, unless there are none.
pub(crate) fn bytes(number: u64, size: usize) -> Vec<u8> {
    let mut bytes = noise(size, number << 1);
    bytes.iter_mut().zip(number.to_le_bytes()).for_each(|(byte, from)| *byte = from);
    bytes
}

/// Uploads the blobs of these numbers; gives the paths by number. All must be acknowledged.
pub(crate) fn upload<F>(connect: F, numbers: std::ops::Range<u64>, size: usize) -> Result<Vec<(u64, String)>, Broken>
where
    F: Fn() -> Result<Client, Broken> + Sync,
{
    let (start, next) = (Instant::now(), AtomicU64::new(numbers.start));
    let written = Mutex::new(Vec::new());
    let work = || -> Result<(), Broken> {
        let mut client = connect()?;
        let mut own = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= numbers.end {
                break;
            }
            go_on()?;
            own.push((number, client.write(&bytes(number, size))?));
            if number > numbers.start && number.is_multiple_of(100_000) {
                remark(&format!("{number} blobs after {:.0} s", start.elapsed().as_secs_f64()));
            }
        }
        written.lock().unwrap_or_else(PoisonError::into_inner).extend(own);
        Ok(())
    };
    let count = usize::try_from(numbers.end - numbers.start)?;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..CLIENTS.min(count)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| Broken::new("a client panicked"))?)
    })?;
    let mut written = written.into_inner().unwrap_or_else(PoisonError::into_inner);
    written.sort_unstable();
    Ok(written)
}

/// Who gives records: a node that is not there, or, so that they are not passed on to it, one that is.
#[derive(Debug, Clone)]
pub(crate) struct Giver {
    id: NodeId,
    incarnation: u64,
    cluster: String,
}

impl Giver {
    /// A node that is not there, in the cluster of this one.
    pub(crate) fn stranger(client: &mut Client) -> Result<Self, Broken> {
        Ok(Self { id: author(), incarnation: 1, ..Self::like(client)? })
    }

    /// The node itself.
    pub(crate) fn like(client: &mut Client) -> Result<Self, Broken> {
        let status = client.status()?;
        let text = |name: &str| status[name].as_str().unwrap_or_default().to_owned();
        Ok(Self { id: text("id").parse()?, incarnation: status["incarnation"].as_u64().unwrap_or_default(), cluster: text("cluster") })
    }

    /// Gives a node the records of these numbers, each of an empty blob, whose bytes it must have; returns what their JSON takes.
    pub(crate) fn give(&self, client: &mut Client, numbers: std::ops::Range<u64>) -> Result<u64, Broken> {
        let (start, mut json) = (Instant::now(), 0);
        let (mut first, before) = (numbers.start, number(client, "records")?);
        let step = MESSAGES * MAX_RECORDS as u64;
        while first < numbers.end {
            let end = numbers.end.min(first + step);
            json += self.give_some(client, first..end, before + end - numbers.start)?;
            if end % 131_072 < step {
                remark(&format!("{end} records after {:.0} s", start.elapsed().as_secs_f64()));
            }
            first = end;
        }
        Ok(json)
    }

    /// Gives these until the node has `count` records: what finds no room while others wait for the disk is not taken.
    fn give_some(&self, client: &mut Client, numbers: std::ops::Range<u64>, count: u64) -> Result<u64, Broken> {
        let entries: Vec<Entry> = numbers.map(record).collect();
        let messages = entries.chunks(MAX_RECORDS).map(|entries| self.message(entries)).collect::<Result<Vec<_>, _>>()?;
        loop {
            for message in &messages {
                go_on()?;
                let status = client.post_json("/gossip/rumors", message)?.status;
                claim(status == 200, || format!("records are refused with {status}"))?;
            }
            if number(client, "records")? >= count {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        entries.iter().try_fold(0, |sum, entry| Ok(sum + serde_json::to_vec(entry)?.len() as u64))
    }

    fn message(&self, entries: &[Entry]) -> Result<Vec<u8>, Broken> {
        let body = serde_json::json!({"records": entries});
        let envelope = Envelope { version: VERSION, cluster: self.cluster.clone(), sender: self.id, incarnation: self.incarnation, body };
        Ok(serde_json::to_vec(&envelope)?)
    }
}

/// Who wrote the records: nobody who is there.
fn author() -> NodeId {
    NodeId::from_public_key(&[77; 32])
}

/// The record of an empty blob by its number.
fn record(number: u64) -> Entry {
    let mut random = [0; 16];
    random.copy_from_slice(&ContentHash::of(&number.to_le_bytes()).0[..16]);
    let (origin, stamp) = (author(), Stamp::at(WallTime(DAY + number)));
    let sha256 = SHA256_OF_NOTHING.parse::<Sha256Digest>().unwrap_or(Sha256Digest([0; 32]));
    let media_type = "application/octet-stream".to_owned();
    let content = Content::Payload(Payload { hash: ContentHash::of(b""), sha256, size: 0, media_type, file_name: None });
    let mut versions = Record::default();
    versions.insert(Version { stamp, origin, content, clock: [(origin, stamp)].into_iter().collect() });
    Entry { id: BlobId(uuid::Builder::from_random_bytes(random).into_uuid()), versions }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn records_that_are_given_are_well_formed_and_all_differ() {
        let records: Vec<Entry> = (0..10_000).map(record).collect();
        assert!(records.iter().all(|entry| entry.versions.validate().is_ok()));
        assert_eq!(records.iter().map(|entry| entry.id).collect::<BTreeSet<_>>().len(), records.len());
        let giver = Giver { id: author(), incarnation: 1, cluster: "c".into() };
        let message = giver.message(&records[..MAX_RECORDS]).unwrap();
        assert!(gossip_cdn_protocol::wire::Kind::Rumors.read_request(&message).is_ok_and(|request| request.body.validate().is_ok()));
    }
}
