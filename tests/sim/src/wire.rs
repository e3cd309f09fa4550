//! What the simulator must know of each kind of message: whether it survives the wire, what it says, how heavy it is.

use std::io;

use gossip_cdn_protocol::wire::{Answer, Entry, Envelope, MAX_BODY, Receipt, Request};
use gossip_cdn_protocol::{Member, Record};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The head of a request without its path, in bytes: `POST`, `content-length` of three digits, `host` of fifteen characters,
/// `content-type` and `date`. Measured at a socket that the real node called.
pub(crate) const REQUEST_HEAD: u64 = 131;
/// The path of a call between nodes before its kind: `/gossip/`.
pub(crate) const PATH: u64 = 8;
/// The head of an answer, in bytes: status line, `content-length` of three digits, `content-type`, `date`. Measured likewise.
pub(crate) const ANSWER_HEAD: u64 = 109;

/// Whether a request survives the wire: written as JSON, within its bound, it reads back as it was.
pub(crate) fn request_survives(request: &Envelope<Request>) -> bool {
    match &request.body {
        Request::Exchange(body) => survives(request, body),
        Request::Cells(body) => survives(request, body),
        Request::Partitions(body) => survives(request, body),
        Request::Sketches(body) => survives(request, body),
        Request::Items(body) => survives(request, body),
        Request::Records(body) => survives(request, body),
        Request::Members(body) => survives(request, body),
        Request::Rumors(body) => survives(request, body),
        Request::Receipts(body) => survives(request, body),
        Request::Holds(body) => survives(request, body),
        Request::Probe(body) => survives(request, body),
        Request::Snapshot(body) => survives(request, body),
        Request::History(body) => survives(request, body),
    }
}

/// Whether an answer survives the wire.
pub(crate) fn answer_survives(answer: &Envelope<Answer>) -> bool {
    match &answer.body {
        Answer::Exchange(body) => survives(answer, body),
        Answer::Cells(body) => survives(answer, body),
        Answer::Partitions(body) => survives(answer, body),
        Answer::Sketches(body) => survives(answer, body),
        Answer::Items(body) => survives(answer, body),
        Answer::Records(body) => survives(answer, body),
        Answer::Members(body) => survives(answer, body),
        Answer::Taken(body) => survives(answer, body),
        Answer::Holds(body) => survives(answer, body),
        Answer::Probe(body) => survives(answer, body),
        Answer::Snapshot(body) => survives(answer, body),
        Answer::History(body) => survives(answer, body),
    }
}

fn survives<A, T: Clone + PartialEq + Serialize + DeserializeOwned>(envelope: &Envelope<A>, body: &T) -> bool {
    let Envelope { version, cluster, sender, incarnation, body: _ } = envelope;
    let (version, sender, incarnation) = (*version, *sender, *incarnation);
    let sent = Envelope { version, cluster: cluster.clone(), sender, incarnation, body: body.clone() };
    let Ok(json) = serde_json::to_vec(&sent) else { return false };
    json.len() <= MAX_BODY && serde_json::from_slice::<Envelope<T>>(&json).is_ok_and(|read| read == sent)
}

/// What a message says that the checker looks at, and that a planted bug may change.
#[derive(Debug, Default)]
pub(crate) struct Said<'a> {
    pub(crate) entries: Option<&'a mut Vec<Entry>>,
    pub(crate) members: Option<&'a mut Vec<Member>>,
    pub(crate) receipts: Vec<Receipt>,
}

impl Said<'_> {
    pub(crate) fn entries(&self) -> &[Entry] {
        self.entries.as_ref().map_or(&[], |entries| entries.as_slice())
    }

    pub(crate) fn members(&self) -> &[Member] {
        self.members.as_ref().map_or(&[], |members| members.as_slice())
    }

    /// Siblings are left out.
    pub(crate) fn winners_only(&mut self) {
        for entry in self.entries.iter_mut().flat_map(|entries| entries.iter_mut()) {
            entry.versions = Record::from(entry.versions.winner().cloned().into_iter().collect::<Vec<_>>());
        }
    }
}

/// What a request says.
pub(crate) fn said_in_request(request: &mut Request) -> Said<'_> {
    match request {
        Request::Records(records) => Said { entries: Some(&mut records.give), ..Said::default() },
        Request::Rumors(rumors) => Said { entries: Some(&mut rumors.records), members: Some(&mut rumors.members), ..Said::default() },
        Request::Members(list) => Said { members: Some(&mut list.members), ..Said::default() },
        Request::Receipts(receipts) => Said { receipts: receipts.receipts.clone(), ..Said::default() },
        Request::Exchange(_)
        | Request::Cells(_)
        | Request::Partitions(_)
        | Request::Sketches(_)
        | Request::Items(_)
        | Request::Snapshot(_)
        | Request::Holds(_)
        | Request::Probe(_)
        | Request::History(_) => Said::default(),
    }
}

/// What an answer says.
pub(crate) fn said_in_answer(answer: &mut Answer) -> Said<'_> {
    match answer {
        Answer::Records(records) => Said { entries: Some(&mut records.give), ..Said::default() },
        Answer::Snapshot(page) => Said { entries: Some(&mut page.give), ..Said::default() },
        Answer::Members(list) => Said { members: Some(&mut list.members), ..Said::default() },
        Answer::Exchange(_)
        | Answer::Cells(_)
        | Answer::Partitions(_)
        | Answer::Sketches(_)
        | Answer::Items(_)
        | Answer::Taken(_)
        | Answer::Holds(_)
        | Answer::Probe(_)
        | Answer::History(_) => Said::default(),
    }
}

/// How many bytes of JSON a message is.
pub(crate) fn weight(message: &impl Serialize) -> u64 {
    struct Counter(u64);
    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    let written = serde_json::to_writer(&mut counter, message);
    debug_assert!(written.is_ok(), "counting cannot fail");
    counter.0
}
