//! What crosses the simulated network must cross a real one: written as JSON, within its bound, it reads back as it was.

use gossip_cdn_protocol::wire::{Answer, Envelope, MAX_BODY, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Whether a request survives the wire.
pub(crate) fn request_survives(request: &Envelope<Request>) -> bool {
    match &request.body {
        Request::Exchange(body) => survives(request, body),
        Request::Partitions(body) => survives(request, body),
        Request::Records(body) => survives(request, body),
        Request::Members(body) => survives(request, body),
        Request::Rumors(body) => survives(request, body),
        Request::Receipts(body) => survives(request, body),
        Request::Holds(body) => survives(request, body),
    }
}

/// Whether an answer survives the wire.
pub(crate) fn answer_survives(answer: &Envelope<Answer>) -> bool {
    match &answer.body {
        Answer::Exchange(body) => survives(answer, body),
        Answer::Partitions(body) => survives(answer, body),
        Answer::Records(body) => survives(answer, body),
        Answer::Members(body) => survives(answer, body),
        Answer::Taken(body) => survives(answer, body),
        Answer::Holds(body) => survives(answer, body),
    }
}

fn survives<A, T: Clone + PartialEq + Serialize + DeserializeOwned>(envelope: &Envelope<A>, body: &T) -> bool {
    let Envelope { version, cluster, sender, incarnation, body: _ } = envelope;
    let (version, sender, incarnation) = (*version, *sender, *incarnation);
    let sent = Envelope { version, cluster: cluster.clone(), sender, incarnation, body: body.clone() };
    let Ok(json) = serde_json::to_vec(&sent) else { return false };
    json.len() <= MAX_BODY && serde_json::from_slice::<Envelope<T>>(&json).is_ok_and(|read| read == sent)
}
