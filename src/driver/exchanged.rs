//! With whom this node exchanged lately, for those who look at the network.
//!
//! 1. An exchange that this node begins counts when it is answered, one that another begins when it comes.
//! 2. At most [`MOST`] are remembered, the latest, whoever claims to call.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gossip_cdn_protocol::NodeId;
use tokio::time::Instant;

/// Most exchanges remembered: those of two minutes, at one a second begun and one taken.
const MOST: usize = 256;
/// How long one is shown, as on a bootstrap node's map.
const SHOWN: Duration = Duration::from_secs(60);

/// Who called and whom, and when.
#[derive(Debug, Clone, Default)]
pub(super) struct Exchanged(Arc<Mutex<BTreeMap<(NodeId, NodeId), Instant>>>);

impl Exchanged {
    /// `from` called `to`.
    pub(super) fn note(&self, from: NodeId, to: NodeId) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert((from, to), Instant::now());
        while known.len() > MOST {
            let Some(oldest) = known.iter().min_by_key(|(_, at)| **at).map(|(pair, _)| *pair) else { return };
            known.remove(&oldest);
        }
    }

    /// Those of the last minute.
    pub(super) fn shown(&self) -> Vec<(NodeId, NodeId, Instant)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter(|(_, at)| at.elapsed() < SHOWN).map(|((from, to), at)| (*from, *to, *at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_latest_exchanges_are_remembered_for_a_minute_and_no_more_than_there_is_room_for() {
        let (exchanged, me) = (Exchanged::default(), NodeId::from_public_key(&[0; 32]));
        let caller = |number: usize| {
            let mut key = [1; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            NodeId::from_public_key(&key)
        };
        for number in 0..MOST + 10 {
            exchanged.note(caller(number), me);
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        let shown = exchanged.shown();
        assert_eq!(shown.len(), MOST);
        assert!((10..MOST + 10).all(|number| shown.iter().any(|(from, to, _)| (*from, *to) == (caller(number), me))));
        tokio::time::advance(SHOWN).await;
        exchanged.note(me, caller(3));
        assert_eq!(exchanged.shown().iter().map(|(from, to, _)| (*from, *to)).collect::<Vec<_>>(), [(me, caller(3))]);
    }
}
