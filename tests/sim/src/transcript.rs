//! What happened, as text: one line for each step, the same bytes for the same seed.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use gossip_cdn_protocol::history::message::{Channel, MessageId};
use gossip_cdn_protocol::history::ordered::{Step, Vote};
use gossip_cdn_protocol::history::talk::{Ask, HistoryAnswer};
use gossip_cdn_protocol::member::Suspicion;
use gossip_cdn_protocol::wire::{Answer, Entry, Request};
use gossip_cdn_protocol::{BlobId, ContentHash, Event, Member, NodeId, Record, Version, VersionId};

/// The lines so far. A silent one formats nothing and costs nothing.
#[derive(Debug, Default)]
pub struct Transcript {
    on: bool,
    text: String,
    names: BTreeMap<NodeId, usize>,
}

impl Transcript {
    /// One that writes down, or one that is silent.
    pub(crate) fn new(on: bool) -> Self {
        Self { on, ..Self::default() }
    }

    /// All lines.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// From now on the node of that id is called `n<host>`.
    pub(crate) fn name(&mut self, id: NodeId, host: usize) {
        self.names.insert(id, host);
    }

    /// Writes a line; `host` is whose doing it is, `None` the world's.
    pub(crate) fn line(&mut self, now: u64, host: Option<usize>, what: fmt::Arguments<'_>) {
        if !self.on {
            return;
        }
        let (seconds, micros) = (now / 1_000_000, now % 1_000_000);
        let who = host.map_or("--".into(), |host| format!("n{host}"));
        // Writing to a string cannot fail.
        let written = writeln!(self.text, "{seconds:>4}.{micros:06} {who}  {what}");
        debug_assert!(written.is_ok());
    }

    /// A node's short name.
    pub(crate) fn node(&self, id: NodeId) -> String {
        self.names.get(&id).map_or_else(|| "n?".into(), |host| format!("n{host}"))
    }

    pub(crate) fn request(&self, request: &Request) -> String {
        match request {
            Request::Exchange(digest) => format!("exchange root {}", root(&digest.root.to_string())),
            Request::Cells(cells) => format!("cells {} to {}", cells.from, cells.to),
            Request::Partitions(_) => "partitions".into(),
            Request::Sketches(sketches) => format!("sketches of {} partitions, {} cells each", sketches.partitions.len(), sketches.cells),
            Request::Items(items) => format!("items of {} partitions from {:016x}", items.partitions.len(), items.from.unwrap_or(0)),
            Request::Records(records) => format!("records give [{}] ask {}", self.entries(&records.give), records.ask.len()),
            Request::Members(list) => {
                format!("{} [{}]", if list.full { "all members" } else { "recent members" }, self.members(&list.members))
            }
            Request::Rumors(rumors) => {
                let wishes =
                    if rumors.receipts.is_empty() { String::new() } else { format!(", wishes {} receipts", rumors.receipts.len()) };
                let mut text = format!("rumors [{}]{wishes}", self.entries(&rumors.records));
                if !rumors.members.is_empty() {
                    text += &format!(" of members [{}]", self.members(&rumors.members));
                }
                for suspicion in &rumors.suspicions {
                    let Suspicion { id, incarnation, by } = suspicion;
                    text += &format!(" {} suspects {}:{incarnation}", self.node(*by), self.node(*id));
                }
                text
            }
            Request::Receipts(receipts) => {
                let each = receipts.receipts.iter().map(|receipt| format!("{}={}", blob(receipt.id), self.version_id(receipt.version)));
                format!("receipts [{}]", each.collect::<Vec<_>>().join(" "))
            }
            Request::Holds(holds) => format!("holds {}?", hash(holds.hash)),
            Request::Probe(probe) => format!("probe {}", self.node(probe.id)),
            Request::Snapshot(asked) => {
                let after = asked.after.map_or_else(String::new, |after| format!(" after {}", blob(after)));
                format!("snapshot {:02x} to {:02x}{after}", asked.first, asked.last)
            }
            Request::History(call) => format!("history: {}", ask(&call.ask)),
        }
    }

    pub(crate) fn answer(&self, answer: &Answer) -> String {
        match answer {
            Answer::Exchange(compared) => {
                let records = compared.root.map_or_else(|| "equal".into(), |theirs| format!("root {}", root(&theirs.to_string())));
                let members = if compared.members.is_some() { ", other members" } else { "" };
                format!("exchange {records}{members}, {} cells", compared.cells.len())
            }
            Answer::Cells(answer) => format!("{} cells", answer.cells.len()),
            Answer::Partitions(_) => "partitions".into(),
            Answer::Sketches(answer) => format!("{} cells of partitions", answer.cells.len()),
            Answer::Items(answer) => format!("{} items", answer.items.len()),
            Answer::Records(records) => format!("records give [{}] seen {}", self.entries(&records.give), records.seen),
            Answer::Members(list) => format!("members [{}]", self.members(&list.members)),
            Answer::Taken(_) => "taken".into(),
            Answer::Snapshot(page) => {
                let next = page.next.map_or_else(String::new, |next| format!(", more after {}", blob(next)));
                format!("snapshot give [{}]{next}", self.entries(&page.give))
            }
            Answer::Holds(answer) => if answer.holds { "held" } else { "not held" }.into(),
            Answer::Probe(probed) => if probed.alive { "alive" } else { "not reached" }.into(),
            Answer::History(answer) => format!("history: {}", history_answer(answer)),
        }
    }

    /// What a core notes, with short names.
    pub(crate) fn event(&self, event: &Event) -> String {
        match event {
            Event::MemberChanged(id, state) => format!("{} is {}", self.node(*id), state.name()),
            Event::Conflict(id) => format!("conflict of {}", blob(*id)),
            Event::Misbehaved(id, kind, _) => format!("{} misbehaves: {}", self.node(*id), kind.name()),
            Event::Refuted(incarnation) => format!("it lives, as incarnation {incarnation}"),
            Event::NoHolder(name) => format!("no holder of {}", hash(*name)),
            Event::Delivered(place) => format!("{} is delivered as {}", self.message(place.id), place.index),
            Event::HistoryJoined(founding) => format!("history of {}", self.node(founding.founder)),
            Event::HistoriesApart(id, founding) => format!("{} belongs to a history of {}", self.node(*id), self.node(founding.founder)),
            Event::Silent(id) => format!("no heartbeat of {}", self.node(*id)),
            Event::SummaryDisagrees(partition) => format!("partition {partition:02x} does not add up"),
            Event::SummaryRepaired(before, after) => {
                format!("summary repaired from {} to {}", root(&before.to_string()), root(&after.to_string()))
            }
            Event::AddressTaken(old, new) => format!("{} answers for {}", self.node(*new), self.node(*old)),
        }
    }

    fn message(&self, id: MessageId) -> String {
        let channel = if id.channel == Channel::Causal { "causal" } else { "ordered" };
        format!("{channel} message {} of {}", id.sequence, self.node(id.origin))
    }

    fn entries(&self, entries: &[Entry]) -> String {
        let each: Vec<String> = entries.iter().map(|entry| format!("{}={}", blob(entry.id), self.record(&entry.versions))).collect();
        each.join(" ")
    }

    /// The live versions of a record, the winner first.
    pub(crate) fn record(&self, record: &Record) -> String {
        record.versions().iter().map(|version| self.version(version)).collect::<Vec<_>>().join("|")
    }

    fn version(&self, version: &Version) -> String {
        let content = version.content.payload().map_or_else(|| "deleted".into(), |payload| hash(payload.hash));
        format!("{}({content})", self.version_id(version.id()))
    }

    /// A version by the last digits of its stamp that matter to a reader and its origin.
    pub(crate) fn version_id(&self, id: VersionId) -> String {
        format!("{}.{}@{}", id.stamp.wall().0 % 10_000_000, id.stamp.0 & 0xffff, self.node(id.origin))
    }

    pub(crate) fn members(&self, members: &[Member]) -> String {
        let each = members.iter().map(|member| format!("{}:{}:{}", self.node(member.id), member.incarnation, member.state.name()));
        each.collect::<Vec<_>>().join(" ")
    }
}

/// The first digits of a GUID.
pub(crate) fn blob(blob: BlobId) -> String {
    format!("b{}", first(&blob.to_string(), 4))
}

/// The first digits of a payload's hash.
pub(crate) fn hash(hash: ContentHash) -> String {
    format!("p{}", first(&hash.to_string(), 4))
}

fn root(text: &str) -> String {
    let count = text.split_once('.').map_or("", |(_, count)| count);
    format!("{}.{count}", first(text, 6))
}

fn first(text: &str, count: usize) -> String {
    text.chars().take(count).collect()
}
/// What is said about a history.
fn ask(ask: &Ask) -> String {
    match ask {
        Ask::Tell(letter) => format!("{} messages, {} slots", letter.tell.messages.len(), letter.slots.len()),
        Ask::Step(step) => match step {
            Step::Start { ballot, slot } => format!("start {} for slot {slot}", ballot.round),
            Step::Update { ballot, slot, batch, commit } => {
                let before = commit.map_or_else(String::new, |commit| format!(", commit of slot {}", commit.slot));
                format!("update {} of slot {slot} with {}{before}", ballot.round, batch.entries.len())
            }
            Step::Commit { ballot, slot, .. } => format!("commit {} of slot {slot}", ballot.round),
            Step::Rollback { ballot } => format!("rollback {}", ballot.round),
        },
        Ask::HandOver(messages) => format!("{} messages handed over", messages.len()),
        Ask::Versions(known) => format!("versions beyond slot {}", known.slot),
        Ask::UpdateMe(update) => format!("update me beyond slot {} from {}", update.slot, update.from),
        Ask::Seat(slot) => format!("a seat, being at slot {slot}"),
        Ask::Settle(epoch) => format!("settle epoch {epoch}"),
    }
}

fn history_answer(answer: &HistoryAnswer) -> String {
    match answer {
        HistoryAnswer::Told(tell) => format!("told {} messages", tell.messages.len()),
        HistoryAnswer::Vote(vote) => match vote {
            Vote::Confirm { ballot, .. } => format!("confirm {}", ballot.round),
            Vote::Received { ballot, slot } => format!("received {} of slot {slot}", ballot.round),
            Vote::Decided { slot, .. } => format!("slot {slot} is decided"),
            Vote::Refused { promised } => format!("refused for {}", promised.round),
            Vote::Ahead { decided } => format!("ahead, at slot {decided}"),
            Vote::Behind => "behind".into(),
            Vote::Taken => "taken".into(),
        },
        HistoryAnswer::Taken(_) => "taken".into(),
        HistoryAnswer::Versions(known) => format!("slot {}, {} origins", known.slot, known.origins.len()),
        HistoryAnswer::Update(update) => format!("{} pieces", update.pieces.len()),
        HistoryAnswer::Holdings(holdings) => format!("holds slot {} in epoch {}", holdings.slot, holdings.epoch),
        HistoryAnswer::Busy => "busy".into(),
        HistoryAnswer::Elsewhere(_) => "belongs elsewhere".into(),
    }
}
