//! What reconciliation costs: two cores over maps, every message written as JSON and counted with its HTTP heads.
//!
//! In a release build the sets have a million records, as the goals say; in a debug build 50,000, with the same differences.

use std::collections::VecDeque;

use gossip_cdn_protocol::io::{ClientCall, Counters, Outbox, OwnCall, PeerCall, Refusal, Reply};
use gossip_cdn_protocol::item::ItemHasher;
use gossip_cdn_protocol::memory::MemoryStore;
use gossip_cdn_protocol::node::{Config, Identity};
use gossip_cdn_protocol::summary::Root;
use gossip_cdn_protocol::wire::{Answer, Digest, Entry, Envelope, Kind, Request, Rumors};
use gossip_cdn_protocol::{
    BlobId, Command, Content, Input, Instant, Member, MemberState, Node, NodeId, Now, Output, PublicKey, Record, Stamp, VectorClock,
    Version,
};

/// Both HTTP heads of a call between nodes, as `tests/node` measures them, rounded up.
const HEADS: usize = 220;
const RECORDS: u64 = if cfg!(debug_assertions) { 50_000 } else { 1_000_000 };

/// A deleted blob: the smallest record, and one that asks for no payload.
fn record(stamp: u64) -> Record {
    let (origin, stamp) = (NodeId::from_public_key(&[9; 32]), Stamp(stamp));
    let mut clock = VectorClock::default();
    clock.include(origin, stamp);
    Record::from(vec![Version { stamp, origin, content: Content::Tombstone, clock }])
}

/// Puts records of those numbers into a store, last written at that stamp.
fn put(store: &MemoryStore, numbers: std::ops::Range<u64>, stamp: u64) {
    let hasher = ItemHasher::new("test");
    for n in numbers {
        let key = hasher.key(BlobId(uuid::Uuid::from_u128(u128::from(n) << 64 | 7)));
        let record = record(stamp);
        store.put(key, hasher.state(&record), record);
    }
}

struct Side {
    core: Node<MemoryStore>,
    store: MemoryStore,
}

fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

fn member(n: u8) -> Member {
    let id = NodeId::from_public_key(&key(n).0);
    Member { id, address: format!("http://127.0.0.1:770{n}"), incarnation: 1, state: MemberState::Alive, key: key(n) }
}

impl Side {
    /// A node that knows the nodes of those numbers.
    fn new(n: u8, others: &[u8], store: MemoryStore) -> Self {
        let config =
            Config { cluster: "test".into(), address: member(n).address, bootstraps: vec![], heartbeats: false, found: false, voters: 7 };
        let identity = Identity { key: key(n), incarnation: 1 };
        let members = others.iter().map(|other| member(*other)).collect();
        let core = Node::new(config, identity, members, vec![], store.clone(), [n; 32], Now::default()).expect("opens");
        Self { core, store }
    }

    /// Takes an input and makes durable at once what is to be.
    fn take(&mut self, now: Instant, input: Input) -> Outbox {
        let mut all = Outbox::new();
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut out = Outbox::new();
            self.core.handle(Now { instant: now, ..Now::default() }, input, &mut out);
            for output in &out {
                let Output::Persist(persist) = output else { continue };
                for change in &persist.records {
                    self.store.put(change.key, change.state, change.record.clone());
                }
                inputs.push_back(Input::Persisted(persist.token, Ok(())));
            }
            all.extend(out);
        }
        all
    }

    fn counters(&mut self, now: Instant) -> Counters {
        let out = self.take(now, Input::Command(ClientCall(1), Command::Status));
        let counters = out
            .into_iter()
            .find_map(|output| if let Output::Reply(_, Reply::Status(status)) = output { Some(status.counters) } else { None });
        counters.expect("answers")
    }
}

/// What it cost to make two nodes equal.
#[derive(Debug, Default)]
struct Cost {
    /// Exchange and reconciliation, records apart.
    finding: usize,
    finding_calls: usize,
    /// Calls side by side count as one step.
    finding_steps: usize,
    records: usize,
    record_calls: usize,
    counters: Counters,
}

struct Pair {
    ours: Side,
    theirs: Side,
    now: Instant,
    calls: u64,
}

impl Pair {
    /// A node with the first store, and one with the second.
    fn new(ours: MemoryStore, theirs: MemoryStore) -> Self {
        Self { ours: Side::new(1, &[2], ours), theirs: Side::new(2, &[], theirs), now: Instant(0), calls: 0 }
    }

    fn ask(&mut self, request: Envelope<Request>) -> Result<Envelope<Answer>, Refusal> {
        self.calls += 1;
        let out = self.theirs.take(self.now, Input::Request(PeerCall(self.calls), request));
        let answer = out.into_iter().find_map(|output| if let Output::Answer(_, answer) = output { Some(answer) } else { None });
        answer.expect("answers")
    }

    /// The calls that reconcile: what else a node does is none of this test's business.
    fn calls(out: Outbox) -> Vec<(OwnCall, Envelope<Request>)> {
        let calls =
            out.into_iter().filter_map(|output| if let Output::Call(call, _, request) = output { Some((call, request)) } else { None });
        calls.filter(|(_, request)| !matches!(request.body.kind(), Kind::Rumors | Kind::Members)).collect()
    }

    /// Lets the first node open an exchange and follow it to its end.
    fn exchange(&mut self) -> Cost {
        let mut cost = Cost::default();
        // The longest pause between two exchanges, and less than a place is kept for who does not use it.
        self.now = self.now + std::time::Duration::from_millis(1200);
        let out = self.ours.take(self.now, Input::Tick);
        let mut open = Self::calls(out);
        while !open.is_empty() {
            let mut next = Vec::new();
            let mut finding = false;
            for (call, request) in std::mem::take(&mut open) {
                let kind = request.body.kind();
                let sent = serde_json::to_vec(&request).expect("serialises");
                let request = kind.read_request(&sent).expect("reads back");
                let answer = self.ask(request).expect("not refused");
                let came = serde_json::to_vec(&answer).expect("serialises");
                let bytes = HEADS + sent.len() + came.len();
                if kind == Kind::Records {
                    (cost.records, cost.record_calls) = (cost.records + bytes, cost.record_calls + 1);
                } else {
                    (cost.finding, cost.finding_calls, finding) = (cost.finding + bytes, cost.finding_calls + 1, true);
                }
                let answer = kind.read_answer(&came).expect("reads back");
                next.extend(Self::calls(self.ours.take(self.now, Input::Answered(call, Ok(answer)))));
            }
            cost.finding_steps += usize::from(finding);
            open = next;
        }
        cost.counters = self.ours.counters(self.now);
        cost
    }

    fn is_equal(&self) -> bool {
        let root = |side: &Side| side.core.records().summary().root();
        root(&self.ours) == root(&self.theirs)
    }
}

/// Two nodes with [`RECORDS`] in common, `here` more on the one that begins and `there` more on the other.
fn apart(here: u64, there: u64) -> Pair {
    let (ours, theirs) = (MemoryStore::default(), MemoryStore::default());
    let only = RECORDS + here;
    put(&ours, 0..only, 1);
    put(&theirs, 0..RECORDS, 1);
    put(&theirs, only..only + there, 1);
    Pair::new(ours, theirs)
}

/// Reconciles, checks that one exchange made the two equal, and prints what it cost.
#[expect(clippy::print_stdout, reason = "`--nocapture` prints the figures of the proposal")]
fn reconcile(mut pair: Pair, what: &str) -> Cost {
    let cost = pair.exchange();
    assert!(pair.is_equal(), "{what}: still apart");
    let counters = &cost.counters;
    assert_eq!((counters.reconciliations, counters.reconciliations_done, counters.decode_failures), (1, 1, 0), "{what}");
    let Cost { finding, finding_calls, finding_steps, records, record_calls, .. } = &cost;
    println!(
        "{what}: finding {finding} bytes in {finding_calls} calls, {finding_steps} steps; records {records} bytes in {record_calls} calls"
    );
    cost
}

#[test]
fn nothing_to_find_costs_one_small_call() {
    let cost = apart(0, 0).exchange();
    assert!(cost.finding <= 512, "{cost:?}");
    assert_eq!((cost.finding_calls, cost.record_calls, cost.counters.exchanges_equal), (1, 0, 1));
}

#[test]
fn one_difference_is_found_in_one_call_of_2_kilobytes() {
    for (here, there) in [(1, 0), (0, 1)] {
        let cost = reconcile(apart(here, there), "1 difference");
        assert_eq!((cost.finding_calls, cost.record_calls), (1, 1));
        assert!(cost.finding <= 2_000, "{cost:?}");
    }
}

#[test]
fn a_hundred_differences_are_found_in_12_kilobytes() {
    let cost = reconcile(apart(60, 40), "100 differences");
    assert!(cost.finding_steps <= 3 && cost.finding <= 12_000, "{cost:?}");
}

#[test]
fn from_600_to_2800_differences_cost_64_bytes_each() {
    for (here, there) in [(600, 0), (200, 400), (1000, 0), (900, 900), (1000, 1800)] {
        let cost = reconcile(apart(here, there), &format!("{} differences", here + there));
        assert!(cost.finding_steps <= 5 && cost.finding <= 64 * usize::try_from(here + there).expect("small"), "{cost:?}");
    }
}

#[test]
fn a_week_of_changes_is_found_in_ten_steps() {
    let changes = RECORDS / 20;
    let cost = reconcile(apart(changes / 2, changes / 2), &format!("{changes} differences"));
    let most = usize::try_from(changes).expect("small") * 80;
    assert!(cost.finding_steps <= 10 && cost.finding <= most, "{cost:?}");
    assert_eq!(cost.counters.fallbacks, u64::from(!cfg!(debug_assertions)));
    // A deleted blob takes about 280 bytes of JSON, its key hash 11 more where it is asked for.
    assert!(cost.records <= usize::try_from(changes).expect("small") * 320, "{cost:?}");
}

#[test]
fn a_record_that_changed_on_one_side_travels_once() {
    let (ours, theirs) = (MemoryStore::default(), MemoryStore::default());
    put(&ours, 0..RECORDS, 1);
    put(&theirs, 0..RECORDS, 1);
    put(&ours, 0..20, 2);
    put(&theirs, 20..50, 2);
    let cost = reconcile(Pair::new(ours, theirs), "50 changed");
    assert_eq!(cost.counters.differences_found, 100);
    assert!(cost.records <= 50 * 320 + 20 * 320 + 3 * 400, "{cost:?}");
}

#[test]
fn sets_with_nothing_in_common_become_equal_by_their_items() {
    let (ours, theirs) = (MemoryStore::default(), MemoryStore::default());
    put(&ours, 0..3_000, 1);
    put(&theirs, 3_000..9_000, 1);
    let cost = reconcile(Pair::new(ours, theirs), "9000 differences, nothing in common");
    assert_eq!(cost.counters.fallbacks, 1);
    assert!(cost.counters.items_compared > 0 && cost.finding_steps <= 5, "{cost:?}");
}

#[test]
fn a_change_while_cells_are_on_their_way_does_not_mix_instants() {
    let mut pair = apart(200, 200);
    pair.now = Instant(2_000_000);
    let mut open = Pair::calls(pair.ours.take(pair.now, Input::Tick));
    let mut fresh = RECORDS + 1_000;
    while let Some((call, request)) = open.pop() {
        let kind = request.body.kind();
        let answer = pair.ask(request).expect("not refused");
        // Between any two messages both sides learn something new from elsewhere.
        for side in [&mut pair.ours, &mut pair.theirs] {
            let entry = Entry { id: BlobId(uuid::Uuid::from_u128(u128::from(fresh) << 64 | 7)), versions: record(1) };
            fresh += 1;
            let give = Rumors { records: vec![entry], ..Rumors::default() };
            let from = member(3);
            let request = Envelope { version: 1, cluster: "test".into(), sender: from.id, incarnation: 1, body: Request::Rumors(give) };
            side.take(pair.now, Input::Request(PeerCall(1_000 + fresh), request));
        }
        assert!(kind != Kind::Partitions, "cells of two instants do not decode");
        open.extend(Pair::calls(pair.ours.take(pair.now, Input::Answered(call, Ok(answer)))));
    }
    let counters = pair.ours.counters(pair.now);
    assert_eq!((counters.decode_failures, counters.reconciliations_done), (0, 1));
    let cost = pair.exchange();
    assert!(pair.is_equal(), "the next exchange finds what came meanwhile: {cost:?}");
}

#[test]
fn a_few_records_that_do_not_come_are_asked_for_again_and_many_are_waited_for() {
    for (there, again) in [(1, true), (10, true), (100, false)] {
        let mut pair = apart(0, there);
        pair.now = Instant(2_000_000);
        let mut open = Pair::calls(pair.ours.take(pair.now, Input::Tick));
        while let Some((call, request)) = open.pop() {
            // Whoever is asked for records says nothing, and the call is still open.
            if request.body.kind() != Kind::Records {
                let answer = pair.ask(request).expect("not refused");
                open.extend(Pair::calls(pair.ours.take(pair.now, Input::Answered(call, Ok(answer)))));
            }
        }
        assert!(!pair.is_equal());
        for _ in 0..3 {
            pair.exchange();
        }
        assert_eq!(pair.is_equal(), again, "{there} records");
    }
}

#[test]
fn who_finds_no_place_keeps_exchanging_and_comes_back_later() {
    let mut pair = apart(1, 0);
    // Four others hold the places.
    for n in 3..7 {
        let digest = Request::Exchange(Digest { root: Root::default(), members: 0, history: None, occupied: false });
        let from = Envelope { version: 1, cluster: "test".into(), sender: member(n).id, incarnation: 1, body: digest };
        let answer = pair.ask(from).expect("an exchange is never refused");
        let Answer::Exchange(compared) = answer.body else { panic!("{answer:?}") };
        assert!(compared.sketch.is_some());
    }
    let cost = pair.exchange();
    assert_eq!((cost.counters.reconciliations, cost.counters.reconciliations_refused), (0, 1));
    assert_eq!(cost.finding_calls, 1, "a heartbeat all the same");
    assert!(!pair.is_equal());
    let equal = (0..30).find(|_| {
        pair.exchange();
        pair.is_equal()
    });
    assert!(equal.is_some(), "its turn comes");
}

#[test]
fn what_a_giver_leaves_out_of_its_snapshot_is_found_and_brought_all_the_same() {
    let (ours, theirs) = (MemoryStore::default(), MemoryStore::default());
    put(&theirs, 0..5_000, 1);
    let mut pair = Pair::new(ours, theirs);
    pair.now = Instant(2_000_000);
    let mut open = Pair::calls(pair.ours.take(pair.now, Input::Tick));
    let (mut given, mut left_out) = (0, 0);
    while let Some((call, request)) = open.pop() {
        let mut answer = pair.ask(request).expect("not refused");
        if let Answer::Snapshot(page) = &mut answer.body {
            let all = page.give.len() as u64;
            // Its store hands out no tombstones of one kind.
            page.give.retain(|entry| entry.id.0.as_u128() >> 64 & 7 != 0);
            given += page.give.len() as u64;
            left_out += all - page.give.len() as u64;
        }
        open.extend(Pair::calls(pair.ours.take(pair.now, Input::Answered(call, Ok(answer)))));
    }
    assert!(pair.is_equal(), "the exchange that follows a snapshot finds what it lacks");
    let counters = pair.ours.counters(pair.now);
    assert_eq!((counters.snapshots, counters.snapshot_records, given + left_out), (1, given, 5_000));
    assert!(left_out > 500, "{left_out} are left out");
    assert_eq!((counters.reconciliations_done, counters.differences_found), (1, left_out));
}
