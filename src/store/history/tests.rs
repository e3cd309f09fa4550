use std::collections::{BTreeMap, BTreeSet};

use gossip_cdn_protocol::history::disk::{Change, Order};
use gossip_cdn_protocol::history::epoch::Epoch;
use gossip_cdn_protocol::history::memory::MemoryHistory;
use gossip_cdn_protocol::history::message::{Body, Frontier};
use gossip_cdn_protocol::history::ordered::{Accepted, Ballot};
use gossip_cdn_protocol::{Persist, Record, WallTime};
use proptest::prelude::*;
use redb::ReadableDatabase as _;
use redb::ReadableTableMetadata;

use super::super::fixture::{Fixture, blob, content, node, options, persist, start, write as written};
use super::*;

/// Histories, origins and sequences small enough to meet often.
const ORIGINS: u8 = 3;

fn founding(n: u8) -> Founding {
    Founding { id: Uuid::from_u128(u128::from(n)), founder: node(n) }
}

fn id(origin: u8, channel: Channel, sequence: u64) -> MessageId {
    MessageId { origin: node(origin), channel, sequence }
}

fn message(id: MessageId, word: u8) -> Message {
    let body = if word == 0 { Body::of(vec![0xff, 0]) } else { Body::of(vec![b'a'; usize::from(word)]) };
    let newest = BTreeSet::from([MessageId { origin: node(9), channel: Channel::Causal, sequence: 4 }]);
    Message { id, frontier: Frontier { slot: 2, newest }, media_type: "text/plain".into(), body, sent: WallTime(7) }
}

fn causal(origin: u8, sequence: u64) -> Message {
    message(id(origin, Channel::Causal, sequence), 5)
}

fn ordered(origin: u8, sequence: u64) -> Message {
    message(id(origin, Channel::Ordered, sequence), 5)
}

fn batch(messages: impl IntoIterator<Item = Message>) -> Batch {
    Batch::of(messages.into_iter().map(Entry::Message).collect())
}

fn epoch() -> Epoch {
    Epoch::founding(node(1))
}

fn deliver(index: u64, order: Option<Order>, message: Message) -> Change {
    Change::Deliver(Place { id: message.id, index, order, delivered: WallTime(1000 + index) }, message)
}

async fn change(fixture: &Fixture, history: Vec<Change>) {
    fixture.store.persist(Persist { history, ..Persist::default() }).await.await.unwrap().unwrap();
}

/// A step of a random life; what it changes follows from what was before.
#[derive(Debug, Clone)]
enum Step {
    Keep {
        origin: u8,
        channel: Channel,
        sequence: u64,
        word: u8,
    },
    Withhold(u8, u64),
    Release,
    Forget(u8, u64),
    Promise(u64),
    Accept {
        ahead: u64,
        round: u64,
        messages: Vec<(u8, u64, u8)>,
    },
    /// Messages of those origins, each the next that was not decided or an earlier one.
    Decide {
        messages: Vec<(u8, bool, u8)>,
        epoch: bool,
    },
    /// What was accepted for the next slot, if something was.
    DecideAccepted,
    DeliverCausal {
        origin: u8,
        word: u8,
    },
    DeliverSlot,
    Join(u8),
    /// The persist ends here; with true the commit too.
    End(bool),
    /// A persist that is not of the history alone.
    Settle,
    Reopen,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let origin = || 1..=ORIGINS;
    let channel = prop_oneof![Just(Channel::Causal), Just(Channel::Ordered)];
    let step = prop_oneof![
        4 => (origin(), channel, 1..5u64, 0..3u8).prop_map(|(origin, channel, sequence, word)| Step::Keep { origin, channel, sequence, word }),
        2 => (origin(), 1..5u64).prop_map(|(origin, sequence)| Step::Withhold(origin, sequence)),
        1 => Just(Step::Release),
        2 => (origin(), 1..5u64).prop_map(|(origin, sequence)| Step::Forget(origin, sequence)),
        1 => (0..9u64).prop_map(Step::Promise),
        3 => (0..3u64, 0..9u64, prop::collection::vec((origin(), 1..5u64, 0..3u8), 0..3))
            .prop_map(|(ahead, round, messages)| Step::Accept { ahead, round, messages }),
        4 => (prop::collection::vec((origin(), any::<bool>(), 0..3u8), 0..4), any::<bool>())
            .prop_map(|(messages, epoch)| Step::Decide { messages, epoch }),
        3 => Just(Step::DecideAccepted),
        4 => (origin(), 0..3u8).prop_map(|(origin, word)| Step::DeliverCausal { origin, word }),
        5 => Just(Step::DeliverSlot),
        1 => (1..4u8).prop_map(Step::Join),
        4 => any::<bool>().prop_map(Step::End),
        1 => Just(Step::Settle),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 0..60)
}

/// The sequence that an origin's next ordered message would have in the order.
fn next_ordered(model: &MemoryHistory, origin: u8) -> u64 {
    let slots = model.slots(1, usize::MAX).unwrap();
    let decided = slots.iter().flat_map(|(_, batch)| batch.messages()).filter(|message| message.id.origin == node(origin));
    decided.map(|message| message.id.sequence).max().unwrap_or(0) + 1
}

/// The changes of a step, made in the model too.
fn changes(model: &mut MemoryHistory, step: &Step) -> Vec<Change> {
    let changes = changes_after(model, step);
    changes.iter().for_each(|change| model.apply(change.clone()));
    changes
}

/// The changes of a step after everything in the model.
fn changes_after(model: &MemoryHistory, step: &Step) -> Vec<Change> {
    let before = model.remembered().unwrap();
    match step {
        Step::Keep { origin, channel, sequence, word } => vec![Change::Keep(message(id(*origin, *channel, *sequence), *word))],
        Step::Withhold(origin, sequence) => vec![Change::Withhold(id(*origin, Channel::Ordered, *sequence))],
        Step::Release => vec![Change::Release],
        Step::Forget(origin, sequence) => vec![Change::Forget(id(*origin, Channel::Ordered, *sequence))],
        Step::Promise(round) => vec![Change::Promise(Ballot { round: *round, node: node(1) })],
        Step::Accept { ahead, round, messages } => {
            let messages = messages.iter().map(|(origin, sequence, word)| message(id(*origin, Channel::Ordered, *sequence), *word));
            let ballot = Ballot { round: *round, node: node(2) };
            vec![Change::Accept(before.decided + 1 + ahead, Accepted { ballot, batch: batch(messages) })]
        }
        Step::Decide { messages, epoch: changes } => {
            let mut next = BTreeMap::new();
            let mut entries = Vec::new();
            for (origin, again, word) in messages {
                let next = next.entry(*origin).or_insert_with(|| next_ordered(model, *origin));
                let sequence = if *again && *next > 1 { *next - 1 } else { *next };
                *next = (*next).max(sequence + 1);
                entries.push(Entry::Message(message(id(*origin, Channel::Ordered, sequence), *word)));
            }
            let mut epoch = before.epoch.unwrap_or_else(epoch);
            if *changes {
                epoch.number += 1;
                entries.push(Entry::Epoch(epoch.clone()));
            }
            vec![Change::Decide(before.decided + 1, Batch::of(entries), epoch)]
        }
        Step::DecideAccepted => {
            let Some(accepted) = before.accepted.get(&(before.decided + 1)) else { return vec![] };
            let mut next = BTreeMap::new();
            let without_gaps = accepted.batch.messages().all(|message| {
                let origin = (1..=ORIGINS).find(|origin| node(*origin) == message.id.origin).unwrap();
                let next = next.entry(origin).or_insert_with(|| next_ordered(model, origin));
                let before = *next;
                *next = before.max(message.id.sequence + 1);
                message.id.sequence <= before
            });
            if !without_gaps {
                return vec![];
            }
            vec![Change::Decide(before.decided + 1, accepted.batch.clone(), before.epoch.unwrap_or_else(epoch))]
        }
        Step::DeliverCausal { origin, word } => {
            let last = before.causal.iter().find(|message| message.id.origin == node(*origin)).map_or(0, |message| message.id.sequence);
            vec![deliver(before.index + 1, None, message(id(*origin, Channel::Causal, last + 1), *word))]
        }
        Step::DeliverSlot => {
            let (mut index, mut number, mut last) = (before.index, before.number, before.ordered);
            let Some((slot, batch)) = model.slots(before.slot + 1, 1).unwrap().pop() else { return vec![] };
            let mut changes = Vec::new();
            for message in batch.messages() {
                let last = last.entry(message.id.origin).or_default();
                if message.id.sequence > *last {
                    (index, number, *last) = (index + 1, number + 1, message.id.sequence);
                    changes.push(deliver(index, Some(Order { slot, number }), message.clone()));
                }
            }
            changes.push(Change::Reach(slot));
            changes
        }
        Step::Join(n) => vec![Change::Join(founding(*n))],
        Step::End(_) | Step::Settle | Step::Reopen | Step::Crash => vec![],
    }
}

/// Everything that can be read, against the model.
fn check(history: Option<History>, model: &MemoryHistory) {
    let Some(history) = history else { return assert_eq!(*model, MemoryHistory::default()) };
    assert_eq!(history.remembered().unwrap(), model.remembered().unwrap());
    let slots = model.slots(0, usize::MAX).unwrap();
    for (from, limit) in [(0, usize::MAX), (1, 2), (2, 1), (9, 9)] {
        assert_eq!(history.slots(from, limit).unwrap(), model.slots(from, limit).unwrap());
        assert_eq!(history.places(from, limit).unwrap(), model.places(from, limit).unwrap());
    }
    for slot in 0..6 {
        assert_eq!(history.first_index_after(slot).unwrap(), model.first_index_after(slot).unwrap());
    }
    for origin in 1..=ORIGINS {
        for name in (1..9).flat_map(|sequence| [id(origin, Channel::Causal, sequence), id(origin, Channel::Ordered, sequence)]) {
            // What is decided and waits is known too.
            let decided = || slots.iter().flat_map(|(_, batch)| batch.messages()).find(|message| message.id == name).cloned();
            let known = model.message(name).unwrap().or_else(decided);
            assert_eq!(history.find(name).unwrap(), known.map(|message| (message, model.place(name).unwrap())));
        }
    }
    let delivered: Vec<(Place, Message)> = model.delivered().map(|(place, message)| (*place, message.clone())).collect();
    let mut pages = history.page(0, 2).unwrap();
    while let Some((last, _)) = pages.last()
        && let page = history.page(last.index, 2).unwrap()
        && !page.is_empty()
    {
        pages.extend(page);
    }
    assert_eq!(pages, delivered);
    let bytes = delivered.iter().map(|(_, message)| message.body.bytes().len() as u64).sum();
    assert_eq!(history.size(), HistorySize { messages: delivered.len() as u64, bytes });
    assert_eq!((history.founding(), history.kept().unwrap()), (model.founding(), model.remembered().unwrap().kept));
}

/// What the core reads, against the model.
fn check_store(store: &Store, model: &MemoryHistory) {
    assert_eq!(store.remembered(), model.remembered());
    assert_eq!((store.slots(2, 2), store.places(2, 2)), (model.slots(2, 2), model.places(2, 2)));
    assert_eq!(store.first_index_after(1), model.first_index_after(1));
    for name in [id(1, Channel::Causal, 1), id(2, Channel::Ordered, 1)] {
        assert_eq!(store.place(name), model.place(name));
        let known = store.message(name).unwrap();
        assert!(known == model.message(name).unwrap() || known.is_some_and(|known| known.id == name));
    }
}

/// Rewrites the current history as folders of format 3 have it: slots and places name their messages, which stand in a table of their own.
fn write_as_format_3(database: &redb::Database) {
    let Some(history) = History::current(database.begin_read().unwrap(), &Tail::default()).unwrap() else { return };
    let (slots, page) = (history.slots(0, usize::MAX).unwrap(), history.page(0, usize::MAX).unwrap());
    let transaction = database.begin_write().unwrap();
    {
        let mut messages = rows::MESSAGES.make(&transaction, history.id).unwrap();
        let mut named = |message: &Message| {
            let (name, json) = (rows::name_bytes(message.id), tables::to_json(&[], message).unwrap());
            let before = messages.get(&name).unwrap().map(|row| row.value().to_vec());
            if before.is_none() {
                messages.insert(&name, json.as_slice()).unwrap();
            }
            before.is_none_or(|before| before == json)
        };
        let mut table = rows::SLOTS.make(&transaction, history.id).unwrap();
        for (slot, batch) in slots {
            let said = |entry: &Entry| match entry {
                Entry::Message(message) if named(message) => Said::Name(message.id),
                Entry::Message(message) => Said::Message(message.clone()),
                Entry::Epoch(epoch) => Said::Epoch(epoch.clone()),
            };
            let said: Vec<Said> = batch.entries.iter().map(said).collect();
            table.insert(slot, tables::to_json(&[], &said).unwrap().as_slice()).unwrap();
        }
        let mut places = rows::PLACES.make(&transaction, history.id).unwrap();
        for (place, message) in page {
            let behind = if named(&message) { vec![] } else { tables::to_json(&[], &message).unwrap() };
            places.insert(place.index, rows::place_row(&place, &behind).as_slice()).unwrap();
        }
    }
    transaction.commit().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    /// The first commits may be those of an older build.
    #[test]
    fn every_commit_reads_as_the_model(steps in steps(), mut older in prop_oneof![Just(0), 0..9u8]) {
        let database = redb::Database::builder().create_with_backend(redb::backends::InMemoryBackend::new()).unwrap();
        let mut model = MemoryHistory::default();
        for commit in steps.split(|step| matches!(step, Step::End(true))) {
            let transaction = database.begin_write().unwrap();
            transaction.open_table(tables::META).unwrap();
            let persist: Vec<Change> = commit.iter().flat_map(|step| changes(&mut model, step)).collect();
            write(&transaction, &persist).unwrap();
            transaction.commit().unwrap();
            if older > 0 {
                older -= 1;
                write_as_format_3(&database);
            }
            check(History::current(database.begin_read().unwrap(), &Tail::default()).unwrap(), &model);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]
    #[test]
    fn the_disk_reads_as_the_model_whenever_it_is_opened_again(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut fixture = Fixture::new();
            let (mut model, mut history, mut waiting) = (MemoryHistory::default(), Vec::new(), Vec::new());
            let record = written(&Record::default(), 1, 5, content(b"a", None));
            for step in steps.iter().chain([&Step::End(true), &Step::Crash, &Step::Reopen]) {
                history.extend(changes(&mut model, step));
                let beside = if matches!(step, Step::Settle) { persist(&[(blob(1), &record)]) } else { Persist::default() };
                if matches!(step, Step::End(_) | Step::Settle | Step::Reopen | Step::Crash) {
                    let history = std::mem::take(&mut history);
                    waiting.push(fixture.store.persist(Persist { history, ..beside }).await);
                }
                if matches!(step, Step::End(true) | Step::Settle | Step::Reopen | Step::Crash) {
                    for durable in waiting.drain(..) {
                        durable.await.unwrap().unwrap();
                    }
                    if matches!(step, Step::Crash) {
                        fixture = fixture.after_a_crash();
                    } else if matches!(step, Step::Reopen) {
                        fixture = fixture.reopened();
                    }
                    check(fixture.store.history().unwrap(), &model);
                    check_store(&fixture.store, &model);
                }
            }
        });
    }
}

/// A database in which a node belongs to a history, and nothing more.
fn joined() -> redb::Database {
    let database = redb::Database::builder().create_with_backend(redb::backends::InMemoryBackend::new()).unwrap();
    let transaction = database.begin_write().unwrap();
    write(&transaction, &[Change::Join(founding(1))]).unwrap();
    transaction.commit().unwrap();
    database
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn changes_read_back_as_they_were_written(steps in steps(), cut in 1..40usize) {
        let database = joined();
        let front = || Front::of(database.begin_read().unwrap()).unwrap().unwrap();
        let (mut model, mut writer, mut reader) = (MemoryHistory::default(), front(), front());
        model.apply(Change::Join(founding(1)));
        for record in steps.split(|step| matches!(step, Step::End(true) | Step::Join(_))) {
            let is_none_of_its_own = |step: &&Step| matches!(step, Step::Join(_) | Step::Withhold(..) | Step::Release | Step::Forget(..));
            let record: Vec<Change> = record.iter().filter(|step| !is_none_of_its_own(step)).flat_map(|step| changes(&mut model, step)).collect();
            let mut cutter = front();
            let bytes = to_bytes(&record, &mut writer).unwrap();
            // Short of its end it may still be changes, but never more than it was.
            let cut = read(&bytes[..bytes.len().saturating_sub(cut)], &mut cutter);
            prop_assert!(cut.is_err() || record.starts_with(&cut.unwrap()));
            prop_assert_eq!(read(&bytes, &mut reader).unwrap(), record);
        }
    }

    /// Records with some bytes changed, inserted or removed, and bytes that never were one.
    #[test]
    fn any_bytes_are_changes_that_read_back_or_an_error(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 0..4),
        from in any::<prop::sample::Index>(),
    ) {
        let database = joined();
        let front = || Front::of(database.begin_read().unwrap()).unwrap().unwrap();
        let records: Vec<Vec<u8>> = a_life().iter().scan(front(), |front, change| Some(to_bytes([change], front).unwrap())).collect();
        let mut bytes = records[from.index(records.len()).min(2)..].concat();
        for (at, byte, how) in &damage {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] ^= byte,
                1 => bytes.insert(at, *byte),
                _ => _ = bytes.remove(at),
            }
        }
        for bytes in [bytes, noise] {
            if let Ok(changes) = read(&bytes, &mut front()) {
                let again = to_bytes(&changes, &mut front()).unwrap();
                prop_assert!(again.len() <= bytes.len(), "nothing was made up");
                prop_assert_eq!(read(&again, &mut front()).unwrap(), changes);
            }
        }
    }
}

/// Changes of every kind, each of which may follow the one before.
fn a_life() -> Vec<Change> {
    let other = |sequence| message(id(2, Channel::Ordered, sequence), 0);
    let voters = Epoch { number: 2, voters: BTreeSet::from([node(1), node(2)]) };
    let accepted = |messages: Vec<Message>| Accepted { ballot: Ballot { round: 3, node: node(2) }, batch: batch(messages) };
    let order = |slot, number| Some(Order { slot, number });
    vec![
        Change::Keep(causal(1, 1)),
        Change::Promise(Ballot { round: 300, node: node(1) }),
        deliver(1, None, causal(1, 1)),
        Change::Accept(1, accepted(vec![ordered(1, 1), other(1)])),
        Change::Decide(1, batch([ordered(1, 1), other(1)]), epoch()),
        deliver(2, order(1, 1), ordered(1, 1)),
        deliver(3, order(1, 2), other(1)),
        Change::Reach(1),
        Change::Decide(2, Batch::of(vec![Entry::Message(other(2)), Entry::Epoch(voters.clone())]), voters),
    ]
}

#[test]
fn every_kind_of_change_reads_back_alone_and_with_all_others() {
    let database = joined();
    let front = || Front::of(database.begin_read().unwrap()).unwrap().unwrap();
    let (life, mut writer, mut reader) = (a_life(), front(), front());
    let mut kinds = BTreeSet::new();
    for change in &life {
        let bytes = to_bytes([change], &mut writer).unwrap();
        kinds.insert(bytes[0]);
        assert_eq!(read(&bytes, &mut reader).unwrap(), std::slice::from_ref(change));
    }
    let together = to_bytes(&life, &mut front()).unwrap();
    assert_eq!(read(&together, &mut front()).unwrap(), life);
    // Delivered of a slot that is decided in the same record: where it stands there, not the message again.
    let pair = to_bytes(&life[3..6], &mut front_behind(&life[..3], front())).unwrap();
    let apart = to_bytes(&life[5..6], &mut front_behind(&life[..5], front())).unwrap();
    kinds.extend(pair.iter().rev().nth(PLACED));
    assert!(apart.len() > PLACED + 40, "{}", apart.len());
    assert_eq!(kinds, (0..=7).collect::<BTreeSet<u8>>());
}

/// Bytes of a place of small numbers, and of an entry, as they stand behind their kind.
const PLACED: usize = 6;

fn front_behind(changes: &[Change], mut front: Front) -> Front {
    to_bytes(changes, &mut front).unwrap();
    front
}

#[tokio::test]
async fn what_fills_the_journal_goes_into_the_tables_and_is_read_all_the_while() {
    let fixture = Fixture::new();
    let large = |sequence| Message { body: Body::of(vec![b'a'; 60_000]), ..causal(1, sequence) };
    change(&fixture, vec![Change::Join(founding(1))]).await;
    for index in 1..=200 {
        change(&fixture, vec![deliver(index, None, large(index))]).await;
        let history = fixture.store.history().unwrap().unwrap();
        assert_eq!(history.size().messages, index);
        assert_eq!(history.page(index - 1, 9).unwrap().len(), 1);
        assert_eq!(history.find(large(1).id).unwrap().unwrap().1.unwrap().index, 1);
    }
    let journaled = |fixture: &Fixture| tables::journaled(&fixture.store.shared.database.begin_read().unwrap()).unwrap();
    assert!((60..200).contains(&journaled(&fixture)), "the tables have some of it");
    assert_eq!(fixture.dir().join("journal").metadata().unwrap().len(), crate::store::journal::CAPACITY as u64);
    let crashed = fixture.after_a_crash();
    assert_eq!(journaled(&crashed), 200, "and all of it at the next start");
    for index in 1..=200 {
        assert_eq!(crashed.store.place(large(index).id).unwrap().unwrap().index, index);
    }
}

#[tokio::test]
async fn a_message_is_in_the_journal_before_it_is_answered_and_in_the_tables_later() {
    let fixture = Fixture::new();
    change(&fixture, vec![Change::Join(founding(1))]).await;
    change(&fixture, vec![Change::Keep(causal(1, 1))]).await;
    let history = fixture.store.history().unwrap().unwrap();
    assert!(history.table(&rows::MESSAGES).unwrap().is_empty().unwrap());
    assert_eq!(history.find(causal(1, 1).id).unwrap(), Some((causal(1, 1), None)));
    drop(history);
    // Another part of the store does not wait for the history.
    fixture.persist(&[(blob(1), &written(&Record::default(), 1, 5, content(b"a", None)))]).await;
    assert!(fixture.store.history().unwrap().unwrap().table(&rows::MESSAGES).unwrap().is_empty().unwrap());
    let fixture = fixture.reopened();
    assert_eq!(fixture.store.history().unwrap().unwrap().table(&rows::MESSAGES).unwrap().len().unwrap(), 1);
}

#[tokio::test]
async fn a_node_without_a_history_has_no_tables_for_it_and_reads_nothing() {
    let fixture = Fixture::new();
    fixture.persist(&[(blob(1), &written(&Record::default(), 1, 5, content(b"a", None)))]).await;
    let transaction = fixture.store.shared.database.begin_read().unwrap();
    assert!(transaction.list_tables().unwrap().all(|table| !redb::TableHandle::name(&table).contains(['/', 'h'])));
    drop(transaction);
    assert!(fixture.store.history().unwrap().is_none());
    assert_eq!(fixture.store.histories_set_aside().unwrap(), []);
    check_store(&fixture.store, &MemoryHistory::default());
}

#[tokio::test]
async fn what_was_taken_before_any_history_is_read_and_is_gone_from_there_with_the_first() {
    let fixture = Fixture::new();
    change(&fixture, vec![Change::Keep(causal(1, 1)), Change::Keep(ordered(1, 1))]).await;
    let history = fixture.store.history().unwrap().unwrap();
    assert_eq!((history.founding(), history.kept().unwrap()), (None, vec![causal(1, 1), ordered(1, 1)]));
    drop(history);
    change(&fixture, vec![Change::Join(founding(1)), Change::Keep(causal(1, 1))]).await;
    let history = fixture.store.history().unwrap().unwrap();
    assert_eq!((history.founding(), history.kept().unwrap()), (Some(founding(1)), vec![causal(1, 1)]));
    let tables: Vec<String> = history.transaction.list_tables().unwrap().map(|table| redb::TableHandle::name(&table).to_owned()).collect();
    assert!(tables.iter().all(|table| !table.starts_with(&Uuid::nil().to_string())), "{tables:?}");
    assert!(fixture.store.history_of(Uuid::nil()).unwrap().is_none());
}

#[tokio::test]
async fn a_history_set_aside_stays_readable_as_it_was() {
    let fixture = Fixture::new();
    let (first, second) = (causal(1, 1), causal(2, 1));
    change(&fixture, vec![Change::Join(founding(1)), deliver(1, None, first.clone()), Change::Keep(second.clone())]).await;
    assert_eq!(fixture.store.histories_set_aside().unwrap(), []);
    change(&fixture, vec![Change::Join(founding(2)), deliver(1, None, message(first.id, 9))]).await;
    let fixture = fixture.reopened();
    let size = HistorySize { messages: 1, bytes: 5 };
    assert_eq!(fixture.store.histories_set_aside().unwrap(), [(founding(1), size)]);
    let aside = fixture.store.history_of(founding(1).id).unwrap().unwrap();
    assert_eq!((aside.founding(), aside.size()), (Some(founding(1)), size));
    let page = aside.page(0, 9).unwrap();
    assert_eq!((page.len(), &page[0].1), (1, &first));
    assert_eq!(aside.kept().unwrap(), [second]);
    let current = fixture.store.history().unwrap().unwrap();
    assert_eq!(current.find(first.id).unwrap().unwrap().0, message(first.id, 9));
    assert!(fixture.store.history_of(founding(3).id).unwrap().is_none());
}

#[tokio::test]
async fn a_message_is_found_with_what_became_of_it() {
    let fixture = Fixture::new();
    let (kept, decided) = (causal(1, 1), ordered(2, 1));
    change(&fixture, vec![Change::Join(founding(1)), Change::Keep(kept.clone()), Change::Decide(1, batch([decided.clone()]), epoch())])
        .await;
    let find = |id| fixture.store.history().unwrap().unwrap().find(id).unwrap();
    assert_eq!(find(kept.id), Some((kept.clone(), None)));
    assert_eq!(find(decided.id), Some((decided.clone(), None)), "decided, and not delivered");
    assert_eq!(find(id(3, Channel::Causal, 1)), None);
    let order = Order { slot: 1, number: 1 };
    change(&fixture, vec![deliver(1, Some(order), decided.clone()), Change::Reach(1), deliver(2, None, kept.clone())]).await;
    let place = |id, index, order| Place { id, index, order, delivered: WallTime(1000 + index) };
    assert_eq!(find(decided.id), Some((decided.clone(), Some(place(decided.id, 1, Some(order))))));
    assert_eq!(find(kept.id), Some((kept.clone(), Some(place(kept.id, 2, None)))));
    assert_eq!(fixture.store.history().unwrap().unwrap().kept().unwrap(), []);
}

#[tokio::test]
async fn a_message_that_was_kept_decided_and_delivered_is_stored_once() {
    let fixture = Fixture::new();
    let large = Message { body: Body::of(vec![b'a'; 5000]), ..ordered(1, 1) };
    let ballot = Ballot { round: 1, node: node(1) };
    let accepted = Accepted { ballot, batch: batch([large.clone()]) };
    change(&fixture, vec![Change::Join(founding(1)), Change::Keep(large.clone()), Change::Accept(1, accepted)]).await;
    change(&fixture, vec![Change::Decide(1, batch([large.clone()]), epoch())]).await;
    change(&fixture, vec![deliver(1, Some(Order { slot: 1, number: 1 }), large), Change::Reach(1)]).await;
    // From the journal into the tables.
    let fixture = fixture.reopened();
    let history = fixture.store.history().unwrap().unwrap();
    let transaction = &history.transaction;
    let mut stored = 0;
    for row in history.table(&rows::MESSAGES).unwrap().iter().unwrap() {
        stored += row.unwrap().1.value().len();
    }
    for kind in [rows::ACCEPTED, rows::SLOTS, rows::PLACES] {
        for row in kind.read(transaction, history.id).unwrap().iter().unwrap() {
            stored += row.unwrap().1.value().len();
        }
    }
    assert!((5000..5500).contains(&stored), "{stored}");
}

#[tokio::test]
async fn pages_end_at_their_bytes() {
    let fixture = Fixture::new();
    let large = |sequence| Message { body: Body::of(vec![b'a'; PAGE_BYTES / 2]), ..causal(1, sequence) };
    let mut history = vec![Change::Join(founding(1))];
    history.extend((1..=5).map(|n| deliver(n, None, large(n))));
    change(&fixture, history).await;
    let history = fixture.store.history().unwrap().unwrap();
    let indexes = |after, limit| history.page(after, limit).unwrap().into_iter().map(|(place, _)| place.index).collect::<Vec<_>>();
    assert_eq!(
        (indexes(0, 9), indexes(2, 9), indexes(2, 1), indexes(4, 9), indexes(5, 9)),
        (vec![1, 2], vec![3, 4], vec![3], vec![5], vec![])
    );
}

#[tokio::test]
async fn a_view_stays_as_it_was_while_the_history_goes_on() {
    let fixture = Fixture::new();
    change(&fixture, vec![Change::Join(founding(1)), deliver(1, None, causal(1, 1))]).await;
    let view = fixture.store.history().unwrap().unwrap();
    change(&fixture, vec![deliver(2, None, causal(1, 2)), Change::Join(founding(2))]).await;
    assert_eq!((view.page(0, 9).unwrap().len(), view.size().messages, view.founding()), (1, 1, Some(founding(1))));
}

#[tokio::test]
async fn records_and_history_of_one_persist_are_durable_together_or_not_at_all() {
    let record = written(&Record::default(), 1, 5, content(b"a", None));
    let gaps = [vec![Change::Decide(2, batch([]), epoch())], vec![deliver(2, None, causal(1, 1))], vec![deliver(1, None, causal(1, 2))]];
    for gap in gaps {
        let dir = tempfile::tempdir().unwrap();
        let (store, writer) = Store::open(dir.path(), options()).unwrap();
        let mut bad = Persist { history: vec![Change::Join(founding(1)), Change::Keep(causal(2, 1))], ..persist(&[(blob(1), &record)]) };
        bad.history.extend(gap);
        let durable = store.persist(bad).await;
        let writer = start(writer);
        assert!(durable.await.unwrap().is_err());
        assert!(store.ailment().is_some(), "what contradicts the history is written by nobody");
        assert!(store.history().unwrap().is_none() && store.blob(blob(1)).unwrap().is_none());
        store.close();
        writer.join().unwrap().unwrap();
    }
    let fixture = Fixture::new();
    let good = Persist { history: vec![Change::Join(founding(1)), Change::Keep(causal(2, 1))], ..persist(&[(blob(1), &record)]) };
    fixture.store.persist(good).await.await.unwrap().unwrap();
    let fixture = fixture.after_a_crash();
    assert_eq!(fixture.store.blob(blob(1)).unwrap(), Some(record));
    assert_eq!(fixture.store.remembered().unwrap().kept, [causal(2, 1)]);
}
