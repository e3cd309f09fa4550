//! Readers of a large payload while it arrives.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gossip_cdn_protocol::NodeId;
use gossip_cdn_protocol::parts::WishId;
use tokio::time::Instant;

use super::arrivals::Arrival;

/// How long a reader waits for the next bytes.
const PATIENCE: Duration = Duration::from_secs(30);

/// No bytes came for a long while, or the transfers were given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no more bytes came")]
pub struct Stalled;

/// A reader of a large payload while it arrives.
pub struct Arriving {
    /// Length of the whole payload in bytes.
    pub size: u64,
    arrival: Arc<Arrival>,
}

impl std::fmt::Debug for Arriving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arriving").field("hash", &self.arrival.hash).field("size", &self.size).finish_non_exhaustive()
    }
}

impl Clone for Arriving {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.arrival))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.arrival.readers.fetch_sub(1, Ordering::AcqRel);
        // Transfers may have gone on for its sake alone.
        self.arrival.stirred();
    }
}

/// Bytes that a reader waits for, and that come before others while it does.
struct Wish<'a> {
    arrival: &'a Arrival,
    id: WishId,
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        self.arrival.state().parts.fulfil(self.id);
    }
}

impl Arriving {
    pub(super) fn new(arrival: Arc<Arrival>) -> Self {
        arrival.readers.fetch_add(1, Ordering::AcqRel);
        Self { size: arrival.size, arrival }
    }

    /// Waits until the byte at `offset` is verified, or there is none; says up to where everything from there on is. Gives up when for
    /// 30 s not one byte of the payload has come, wherever.
    pub async fn wait_beyond(&mut self, offset: u64) -> Result<u64, Stalled> {
        let mut changed = self.arrival.changed.subscribe();
        let mut groups = changed.borrow_and_update().groups;
        let mut deadline = Instant::now() + PATIENCE;
        let mut wish = None;
        loop {
            {
                let mut state = self.arrival.state();
                let readable = state.parts.readable(offset);
                if readable > offset || offset >= self.size {
                    return Ok(readable);
                }
                if state.over && state.transfers == 0 {
                    return Err(Stalled);
                }
                wish.get_or_insert_with(|| Wish { arrival: &self.arrival, id: state.parts.wish(offset) });
            }
            match tokio::time::timeout_at(deadline, changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(Stalled),
            }
            let now = changed.borrow_and_update().groups;
            if now != groups {
                groups = now;
                deadline = Instant::now() + PATIENCE;
            }
        }
    }

    /// The holder that it is coming from at present, one of them if there are several; `None` until that is known.
    pub fn source(&self) -> Option<NodeId> {
        self.arrival.state().holders.first().copied()
    }

    /// The file: what is verified may be read with `read_at`, also after it has got its name.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.arrival.data.file)
    }
}
