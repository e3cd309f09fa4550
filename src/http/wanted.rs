//! Payloads that are not here, and a reader waits for.
//!
//! 1. A reader waits for [`FIRST_BYTE`] at most; the search for a holder goes on when it has given up.
//! 2. What arrives in another size than the record says is not what is wanted.

use std::time::Duration;

use gossip_cdn_protocol::store::Missing;
use gossip_cdn_protocol::{BlobId, Payload};

use super::Context;
use super::errors::Fault;
use crate::driver::Handle;
use crate::store::{Arriving, INLINE_MAX, PayloadReader, Store};

/// How long a reader waits for the first byte of a payload that is not here. A guess: longer than people do, shorter than proxies.
pub(super) const FIRST_BYTE: Duration = Duration::from_secs(30);

/// A payload, and where to ask for it.
#[derive(Clone)]
pub(super) struct Wanted {
    store: Store,
    driver: Handle,
    missing: Missing,
}

/// Where its bytes are.
pub(super) enum Fetched {
    /// Here, all of them.
    Here(PayloadReader),
    /// On their way.
    Arriving(Arriving),
}

impl Wanted {
    /// The payload that a version of that blob names.
    pub(super) fn new(context: &Context, payload: &Payload, blob: BlobId) -> Self {
        let missing = Missing { hash: payload.hash, size: payload.size, key: context.store.key(blob) };
        Self { store: context.store.clone(), driver: context.driver.clone(), missing }
    }

    /// Asks for the payload and waits for it to come, or to begin coming beyond `from`.
    pub(super) async fn fetch(&self, from: u64) -> Result<Fetched, Fault> {
        tokio::time::timeout(FIRST_BYTE, self.search(from)).await.unwrap_or(Err(Fault::NoHolder))
    }

    async fn search(&self, from: u64) -> Result<Fetched, Fault> {
        let Missing { hash, size, .. } = self.missing;
        let want = self.driver.want(self.missing.clone());
        if size <= INLINE_MAX as u64 {
            want.await?;
            return self.here_now();
        }
        // A problem can be answered until the first byte is here, and no longer. A transfer that ends without one is followed by another.
        let begun = async {
            loop {
                let mut arriving = self.store.next_arriving(hash).await;
                if arriving.wait_beyond(from).await.is_ok() {
                    return arriving;
                }
            }
        };
        tokio::select! {
            // First: a transfer that has failed everywhere may look like one that is about to begin.
            biased;
            wanted = want => {
                wanted?;
                self.here_now()
            }
            arriving = begun => if arriving.size == size { Ok(Fetched::Arriving(arriving)) } else { Err(Fault::NoHolder) },
        }
    }

    /// It was just fetched. It may be gone again only because its version was covered meanwhile.
    fn here_now(&self) -> Result<Fetched, Fault> {
        Ok(Fetched::Here(self.store.payload(self.missing.hash)?.ok_or(Fault::NoHolder)?))
    }
}
