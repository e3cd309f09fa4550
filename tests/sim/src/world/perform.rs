//! What a host does with the outputs of its core, and what the world does with what comes of it.

use std::collections::BTreeSet;

use gossip_cdn_protocol::io::{CallFault, Change, Fetch, FetchFault, OwnCall, PeerCall, Refusal, Reply, Target, TransferId};
use gossip_cdn_protocol::io::{Event as Noted, Misbehaviour};
use gossip_cdn_protocol::item::RecordKey;
use gossip_cdn_protocol::transfer::{MAX_RUNNING, MAX_RUNNING_PER_PEER};
use gossip_cdn_protocol::wire::{Answer, Envelope, Introduction, Join, Kind, Request, SnapshotAnswer, SnapshotRequest};
use gossip_cdn_protocol::{BlobId, Command, Content, ContentHash, Input, Output, Persist};
use rand::RngExt;

use super::host::{Asked, Landing};
use super::{Arrived, BOOTSTRAP_HOST, CHECKED_IN_LARGE_WORLD, CONNECT_TIMEOUT, Event, FETCH_TIMEOUT, JOIN_TIMEOUT, Life};
use super::{SMALL_WORLD, WRITTEN_OUT, World, micros};
use crate::checker::Writing;
use crate::client::Wish;
use crate::disk::{Bytes, Committed, Queued};
use crate::faults::FaultKind;
use crate::network::{Half, Parcel};
use crate::plant::Plant;
use crate::wire::Said;
use crate::{transcript, wire};

/// Up to so many hosts it is noted who met whom.
const MEETINGS_KEPT: usize = 64;

impl World {
    /// One door in, one door out.
    pub(super) fn input(&mut self, host: usize, input: Input) {
        self.input_of_write(host, input, None);
    }

    fn input_of_write(&mut self, number: usize, input: Input, writing: Option<&Writing>) {
        let now = self.hosts[number].now(self.now);
        let mut out = Vec::new();
        let large = self.hosts.len() > SMALL_WORLD;
        if let Some(core) = self.hosts[number].core.as_mut() {
            core.handle(now, input, &mut out);
            if !large || self.handled.is_multiple_of(CHECKED_IN_LARGE_WORLD) {
                core.check();
            }
        }
        for output in out {
            self.perform(number, output, writing);
        }
        self.arm(number);
    }

    fn perform(&mut self, number: usize, output: Output, writing: Option<&Writing>) {
        match output {
            Output::Call(call, target, request) => self.call(number, call, &target, request),
            Output::Join(call, _, join) => self.join(number, call, join),
            Output::Answer(call, answer) => self.answer(number, call, answer),
            Output::Reply(call, reply) => self.on_reply(number, call, reply),
            Output::Persist(persist) => self.persist(number, persist, writing),
            Output::Fetch(fetch) => self.fetch(number, fetch),
            Output::IdentityTaken(conflict) => self.give_up(number, &conflict),
            // Its nodes are on no common segment: heartbeats are off.
            Output::Heartbeat(_) => {}
            Output::Event(event) => {
                if let Noted::Misbehaved(_, Misbehaviour::Malformed | Misbehaviour::Foreign, what) = &event {
                    self.checker.fail(format!("n{number} takes a message of another core for bad: {what}"));
                }
                if self.transcript.is_on() {
                    let text = self.transcript.event(&event);
                    self.note(Some(number), format_args!("notes {text}"));
                }
                self.on_noted(number, &event);
            }
            Output::Stop(fault) => {
                self.note(Some(number), format_args!("core ends: {fault}"));
                let life = self.hosts[number].this_life();
                self.at(self.now, Event::Stop(life));
                self.at(self.now + 100_000, Event::Start(number));
            }
        }
    }

    /// What the report makes of what a core notes.
    fn on_noted(&mut self, number: usize, event: &Noted) {
        match event {
            Noted::MemberChanged(id, state) => self.watch.on_belief(number, *id, *state, self.now, &mut self.report),
            Noted::Refuted(_) => self.report.refutations += 1,
            // A core repairs it, but no core should ever have to.
            Noted::SummaryDisagrees(partition) => {
                self.checker.fail(format!("n{number} has a partition {partition:02x} that does not add up to its summary"));
            }
            Noted::SummaryRepaired(..) => {}
            Noted::Delivered(place) => {
                let checked = self.chronicle.on_delivered(number, *place, &self.hosts[number].disk.history());
                self.require_of_history(checked);
                if let Some(broadcasts) = &mut self.broadcasts {
                    broadcasts.on_delivered(self.hosts[number].id, place.id, self.now);
                }
            }
            Noted::HistoryJoined(_)
            | Noted::HistoriesApart(..)
            | Noted::Conflict(_)
            | Noted::Misbehaved(..)
            | Noted::NoHolder(_)
            | Noted::AddressTaken(..)
            | Noted::Silent(_) => {}
        }
    }

    pub(super) fn ask_for_write(&mut self, number: usize, wish: Wish) -> Option<gossip_cdn_protocol::io::ClientCall> {
        let core = self.hosts.get(number)?.core.as_ref()?;
        let before = wish.write.blob.map(|blob| core.records().record(core.records().key(blob)));
        let before = before.and_then(Result::ok).unwrap_or_default();
        let live = before.winner().and_then(|winner| winner.content.payload()).map(|payload| payload.hash);
        let content = match &wish.write.change {
            Change::Put(payload) => Some(Content::Payload(payload.clone())),
            Change::Delete => Some(Content::Tombstone),
            Change::Restore(version) => before.version(*version).map(|version| version.content.clone()),
        };
        let writing = Writing { allowed: wish.write.condition.holds(live), before, content };
        let call = self.client_call();
        self.tried += 1;
        if self.transcript.is_on() {
            let blob = wish.write.blob.map_or_else(|| "a new blob".into(), transcript::blob);
            let what = match &wish.write.change {
                Change::Put(payload) => format!("put {} ({} bytes)", transcript::hash(payload.hash), payload.size),
                Change::Delete => "delete".into(),
                Change::Restore(version) => format!("restore {}", self.transcript.version_id(*version)),
            };
            self.note(Some(number), format_args!("client c{} asks: {what} as {blob}, copies {}", call.0, wish.write.copies));
        }
        let mut pinned = None;
        if let Some(bytes) = wish.bytes {
            let name = bytes.hash();
            self.hosts[number].disk.pin(name);
            self.hosts[number].disk.queue_payload(name, bytes, None);
            pinned = Some(name);
            self.sync(number);
        }
        self.hosts[number].clients.insert(call, pinned);
        self.input_of_write(number, Input::Command(call, Command::Write(wish.write)), Some(&writing));
        Some(call)
    }

    fn on_reply(&mut self, number: usize, call: gossip_cdn_protocol::io::ClientCall, reply: Reply) {
        if let Some(pinned) = self.hosts[number].clients.remove(&call) {
            pinned.into_iter().for_each(|hash| self.hosts[number].disk.unpin(hash));
            self.sync(number);
        }
        if self.transcript.is_on() {
            let text = match &reply {
                Reply::Write(Ok(written)) => {
                    let (blob, version) = (transcript::blob(written.blob), self.transcript.version_id(written.version));
                    format!("{blob} is {version}, on {} nodes", written.copies)
                }
                Reply::Write(Err(fault)) => format!("not written: {fault:?}"),
                Reply::Want(result) => format!("wanted: {result:?}"),
                Reply::Holders(holders) => format!("{} holders", holders.as_ref().map_or(0, |holders| holders.holders.len())),
                Reply::Introduce(result) => format!("introduced: {}", result.is_ok()),
                Reply::Status(status) => format!("status: {} records", status.root.count),
                Reply::Say(result) => format!("said: {}", result.is_ok()),
                Reply::Undelivered(messages) => format!("{} undelivered", messages.len()),
                Reply::AdoptHistory(result) => format!("adopted: {}", result.is_ok()),
                Reply::Members(members) => format!("{} members", members.len()),
                Reply::Forget(result) => format!("forgotten: {}", result.is_ok()),
                Reply::Concluded => "concluded".into(),
                Reply::Left => "left".into(),
            };
            self.note(Some(number), format_args!("answers c{}: {text}", call.0));
        }
        if let Reply::Say(Ok(said)) = &reply {
            if let Some(broadcasts) = &mut self.broadcasts {
                broadcasts.on_accepted(call, said.id);
            }
            let checked = self.chronicle.on_said(number, *said, &self.hosts[number].disk.history());
            self.require_of_history(checked);
        }
        if let Reply::Write(Ok(written)) = &reply {
            let key = self.hosts[number].core.as_ref().map(|core| core.records().key(written.blob));
            let record = |host: &super::Host| key.map(|key| host.disk.record(key)).unwrap_or_default();
            // The disks of others matter where copies were asked for.
            let others = if written.copies > 1 { self.hosts.as_slice() } else { &[] };
            let others = others.iter().filter(|host| host.number != number);
            let disks: Vec<_> = others.map(|host| (host.number, &host.disk, record(host))).collect();
            let host = &self.hosts[number];
            self.checker.on_acknowledged(number, written, (&host.disk, record(host)), disks);
            self.client.learn(written.blob);
        }
        if matches!(reply, Reply::Left) {
            self.hosts[number].leaving = true;
        }
        let first = self.replies.insert(call, reply).is_none();
        self.checker.require(first, || format!("n{number} answers its client c{} twice", call.0));
    }

    fn persist(&mut self, number: usize, persist: Persist, writing: Option<&Writing>) {
        let own = self.hosts[number].id.0;
        self.checker.on_claims(number, &persist.members);
        for change in &persist.records {
            let host = &self.hosts[number];
            let before = host.shadow.get(&change.key).cloned().unwrap_or_else(|| host.disk.record(change.key));
            self.checker.on_change(number, own, &before, change, writing);
            if self.transcript.is_on() {
                let (blob, record) = (transcript::blob(change.key.blob), self.transcript.record(&change.record));
                self.note(Some(number), format_args!("persists {blob}={record}"));
            }
            self.hosts[number].shadow.insert(change.key, change.record.clone());
        }
        if self.transcript.is_on() && !persist.members.is_empty() {
            let members = self.transcript.members(&persist.members);
            self.note(Some(number), format_args!("persists members [{members}]"));
        }
        if self.settings.plant == Some(Plant::AckBeforePersist) {
            let life = self.hosts[number].this_life();
            self.at(self.now, Event::Input(life, Box::new(Input::Persisted(persist.token, Ok(())))));
        }
        if self.hosts[number].doomed && !persist.records.is_empty() {
            self.hosts[number].doomed = false;
            let at = self.now + self.rng.random_range(0..self.plan.fsync);
            let life = self.hosts[number].this_life();
            self.at(at, Event::Doom(life));
        }
        self.hosts[number].disk.queue(Queued::Persist(persist));
        self.sync(number);
    }

    /// Begins an fsync if one is due.
    fn sync(&mut self, number: usize) {
        if self.hosts[number].disk.begin() {
            let took = self.fsync(number);
            if self.hosts[number].slow {
                self.acted(FaultKind::SlowDisk);
            }
            let life = self.hosts[number].this_life();
            self.at(self.now + took, Event::Synced(life));
        }
    }

    pub(super) fn synced(&mut self, number: usize) {
        let committed = self.hosts[number].disk.finish();
        committed.iter().for_each(|committed| self.check_commit(number, committed));
        let early = self.settings.plant == Some(Plant::AckBeforePersist);
        let life = self.hosts[number].this_life();
        for committed in committed {
            if !self.lives(life) {
                return;
            }
            match committed.queued {
                Queued::Persist(persist) if !early => self.input(number, Input::Persisted(persist.token, Ok(()))),
                Queued::Persist(_) | Queued::File { .. } | Queued::Unlink(_) | Queued::Row { transfer: None, .. } => {}
                Queued::Row { transfer: Some(transfer), .. } => self.landed(number, transfer),
            }
        }
        self.sync(number);
    }

    pub(super) fn check_commit(&mut self, number: usize, committed: &Committed) {
        let persist = match &committed.queued {
            Queued::Persist(persist) => persist,
            Queued::Row { name, .. } => return self.checker.on_bytes(*name),
            Queued::File { .. } | Queued::Unlink(_) => return,
        };
        for change in &persist.records {
            self.checker.on_durable(number, change);
            // What is on the disk needs no shadow.
            if self.hosts[number].shadow.get(&change.key).is_some_and(|record| *record == change.record) {
                self.hosts[number].shadow.remove(&change.key);
            }
        }
        let sound = self.quorums.on_durable(self.hosts[number].id, &persist.history);
        self.require_of_history(sound.map_err(|what| format!("n{number} has {what}")));
        self.checker.on_issued(self.hosts[number].id, persist.incarnation.unwrap_or_default());
        self.report.needed += self.checker.on_fresh(number, &committed.fresh, &mut self.report.spread);
        committed.dropped.iter().for_each(|dropped| self.checker.on_dropped(number, dropped));
    }

    fn check_sent(&mut self, number: usize, incarnation: u64, said: &Said<'_>) {
        self.checker.on_sent(number, said.entries());
        let host = &mut self.hosts[number];
        let (durable, id) = (host.disk.incarnation(), host.id);
        host.told = host.told.max(incarnation);
        let own = said.members().iter().filter(|member| member.id == id);
        let told = own.map(|member| member.incarnation).max().unwrap_or(incarnation);
        self.checker.require(told.max(incarnation) <= durable, || format!("n{number} tells incarnation {told} before it is durable"));
        for receipt in &said.receipts {
            let host = &self.hosts[number];
            let record = host.core.as_ref().map(|core| host.disk.record(core.records().key(receipt.id))).unwrap_or_default();
            self.checker.on_receipt(number, &host.disk, &record, *receipt);
        }
    }

    /// A page of a snapshot leaves nothing out that is durable and may leave.
    fn check_page(&mut self, number: usize, stretch: SnapshotRequest, page: &SnapshotAnswer) {
        let Some(core) = &self.hosts[number].core else { return };
        let records = core.records();
        let (after, next) = (stretch.after.map(|after| records.key(after)), page.next.map(|next| records.key(next)));
        let covers = |key: &RecordKey| {
            (stretch.first..=stretch.last).contains(&key.hash.partition())
                && after.is_none_or(|after| *key > after)
                && next.is_none_or(|next| *key <= next)
        };
        let given: BTreeSet<BlobId> = page.give.iter().map(|entry| entry.id).collect();
        let is_due = |key: &RecordKey| covers(key) && !given.contains(&key.blob) && !matches!(records.shareable(*key), Ok(None));
        let platter = self.hosts[number].disk.platter();
        let left_out = platter.records().map(|(key, _)| *key).find(is_due);
        drop(platter);
        self.checker.require(left_out.is_none(), || format!("n{number} leaves a record out of its snapshot: {left_out:?}"));
    }

    /// Whether this message is written out and read back.
    fn is_sample(&self) -> bool {
        let one_in = if self.hosts.len() > SMALL_WORLD { 16 * WRITTEN_OUT } else { WRITTEN_OUT };
        self.next_event.is_multiple_of(one_in)
    }

    fn call(&mut self, number: usize, call: OwnCall, target: &Target, mut request: Envelope<Request>) {
        let mut said = wire::said_in_request(&mut request.body);
        self.check_sent(number, request.incarnation, &said);
        if self.settings.plant == Some(Plant::SiblingsStayHome) {
            said.winners_only();
        }
        let written = !self.is_sample() || wire::request_survives(&request);
        self.checker.require(written, || format!("n{number} sends a request that does not survive the wire: {request:?}"));
        let to = self.addresses.get(&target.address).copied();
        if self.transcript.is_on() {
            let (whom, text) = (to.map_or_else(|| "nowhere".into(), |to| format!("n{to}")), self.transcript.request(&request.body));
            self.note(Some(number), format_args!("-> {whom}  {text}"));
        }
        let bytes = if self.weighs() { wire::weight(&request) } else { 0 };
        let kind = request.body.kind();
        if self.counts(number) {
            self.report.of(kind).on_request(wire::PATH + kind.name().len() as u64, bytes);
        }
        let life = self.hosts[number].this_life();
        self.hosts[number].calls.insert(call, Some(kind));
        let arrival = to.and_then(|to| {
            if target.id.is_some_and(|id| id != self.hosts[to].id || self.hosts[to].core.is_none() && self.hosts[to].moves) {
                self.tally.acted(FaultKind::NewAddress);
            }
            let parcel = Parcel { from: number, to, half: Half::Request, bytes };
            if self.network.duplicates(&mut self.rng, &mut self.tally)
                && let Some(at) = self.network.carry(parcel, self.now, &mut self.rng, &mut self.tally)
            {
                self.at(at, Event::Request { to, back: None, request: request.clone(), bytes });
            }
            self.network.carry(parcel, self.now, &mut self.rng, &mut self.tally).map(|at| (to, at))
        });
        let patience = if arrival.is_some() { micros(kind.patience()) } else { CONNECT_TIMEOUT };
        self.at(self.now + patience, Event::Answered(life, call, Err(CallFault::Unreachable), 0));
        match arrival {
            Some((to, at)) => drop(self.at(at, Event::Request { to, back: Some((life, call)), request, bytes })),
            None if to.is_none() => self.acted(FaultKind::NewAddress),
            None => {}
        }
    }

    pub(super) fn deliver(&mut self, to: usize, back: Option<(Life, OwnCall)>, mut request: Envelope<Request>, bytes: u64) {
        if self.hosts[to].core.is_none() {
            // Nobody listens there: the caller learns it as fast as an answer would travel.
            if let Some((life, call)) = back
                && let Some(at) = self.network.carry(
                    Parcel { from: to, to: life.0, half: Half::Answer, bytes: 0 },
                    self.now,
                    &mut self.rng,
                    &mut self.tally,
                )
            {
                self.at(at, Event::Answered(life, call, Err(CallFault::Unreachable), 0));
            }
            return;
        }
        self.occupy(to, bytes);
        self.report.copies += wire::said_in_request(&mut request.body).entries().len() as u64;
        if let (Some(broadcasts), Request::History(call)) = (&mut self.broadcasts, &request.body) {
            broadcasts.on_call(request.sender, self.hosts[to].id, call);
        }
        let host = &mut self.hosts[to];
        host.next_peer_call += 1;
        let call = PeerCall(host.next_peer_call);
        let stretch = if let Request::Snapshot(stretch) = &request.body { Some(*stretch) } else { None };
        host.asked.insert(call, Asked { back, kind: request.body.kind(), stretch });
        self.input(to, Input::Request(call, request));
    }

    fn answer(&mut self, number: usize, call: PeerCall, answer: Result<Envelope<Answer>, Refusal>) {
        let Some(Asked { back, kind, stretch }) = self.hosts[number].asked.remove(&call) else {
            self.checker.fail(format!("n{number} answers a request twice, or one that nobody made"));
            return;
        };
        let mut result = match answer {
            Ok(answer) => Ok(answer),
            Err(Refusal::Busy { .. } | Refusal::Stopped { .. }) => {
                self.report.busy += 1;
                Err(CallFault::Busy)
            }
            // It called an address that was another's and is its own now.
            // Or it is one of two that have one key.
            Err(refusal @ Refusal::FromSelf) if self.checker.has_doubts() || back.is_none_or(|((caller, _), _)| caller == number) => {
                Err(CallFault::Refused(refusal.to_string()))
            }
            Err(refusal) => {
                self.checker.fail(format!("n{number} refuses a peer: {refusal}"));
                return;
            }
        };
        if let (Some(stretch), Ok(Envelope { body: Answer::Snapshot(page), .. })) = (stretch, &result) {
            self.check_page(number, stretch, page);
        }
        if let Ok(envelope) = &mut result {
            let mut said = wire::said_in_answer(&mut envelope.body);
            self.check_sent(number, envelope.incarnation, &said);
            if self.settings.plant == Some(Plant::SiblingsStayHome) {
                said.winners_only();
            }
            let written = !self.is_sample() || wire::answer_survives(envelope);
            self.checker.require(written, || format!("n{number} gives an answer that does not survive the wire: {envelope:?}"));
        }
        let bytes = result.as_ref().map_or(0, |envelope| if self.weighs() { wire::weight(envelope) } else { 0 });
        if back.is_none_or(|((caller, _), _)| self.counts(caller)) {
            self.report.of(kind).on_answer(bytes);
        }
        self.occupy(number, bytes);
        let Some((life, call)) = back else { return };
        if kind == Kind::Exchange && self.hosts.len() <= MEETINGS_KEPT {
            self.meetings.entry((life.0, number)).or_insert(self.now);
        }
        let parcel = Parcel { from: number, to: life.0, half: Half::Answer, bytes };
        if let Some(at) = self.network.carry(parcel, self.now, &mut self.rng, &mut self.tally) {
            self.at(at, Event::Answered(life, call, result, bytes));
        }
    }

    pub(super) fn answered(&mut self, life: Life, call: OwnCall, mut result: Result<Envelope<Answer>, CallFault>, bytes: u64) {
        if !self.lives(life) {
            return;
        }
        let Some(kind) = self.hosts[life.0].calls.remove(&call) else { return };
        self.occupy(life.0, bytes);
        if self.transcript.is_on() {
            let (from, text) = match &result {
                Ok(answer) => (self.transcript.node(answer.sender), self.transcript.answer(&answer.body)),
                Err(fault) => ("nobody".into(), format!("{fault:?}")),
            };
            self.note(Some(life.0), format_args!("<- {from}  {text}"));
        }
        if let (Some(kind), Ok(answer)) = (kind, &mut result) {
            if self.counts(life.0) {
                self.report.of(kind).answered += 1;
                if matches!(kind, Kind::Cells | Kind::Partitions | Kind::Sketches | Kind::Items) {
                    self.searched_until = self.now;
                }
            }
            self.report.copies += wire::said_in_answer(&mut answer.body).entries().len() as u64;
            if let (Some(broadcasts), Answer::History(said)) = (&mut self.broadcasts, &answer.body) {
                broadcasts.on_answer(answer.sender, self.hosts[life.0].id, said);
            }
        }
        self.input(life.0, Input::Answered(call, result));
    }

    fn join(&mut self, number: usize, call: OwnCall, join: Envelope<Join>) {
        let mut claim = vec![join.body.member.clone()];
        self.check_sent(number, join.incarnation, &Said { members: Some(&mut claim), ..Said::default() });
        self.report.joins.on_request("/join".len() as u64, if self.weighs() { wire::weight(&join) } else { 0 });
        self.note(Some(number), format_args!("-> bootstrap  join"));
        let life = self.hosts[number].this_life();
        self.hosts[number].calls.insert(call, None);
        self.at(self.now + JOIN_TIMEOUT, Event::Joined(life, call, Err(CallFault::Unreachable)));
        if let Some(at) = self.network.carry(
            Parcel { from: number, to: BOOTSTRAP_HOST, half: Half::Request, bytes: 0 },
            self.now,
            &mut self.rng,
            &mut self.tally,
        ) {
            self.at(at, Event::Join { from: life, call, join });
        }
    }

    pub(super) fn register(&mut self, from: Life, call: OwnCall, join: &Envelope<Join>) {
        if self.registry.down {
            self.acted(FaultKind::BootstrapDown);
            return;
        }
        let claim = &join.body.member;
        if self.registry.members.get(&claim.id).is_none_or(|held| claim.overrides(held)) {
            self.registry.members.insert(claim.id, claim.clone());
        }
        let may = self.registry.names && self.registry.founder.is_none();
        if may && (join.body.may_found || join.body.history.is_some()) {
            self.registry.founder = Some(claim.id);
        }
        let founder = self.registry.founder == Some(claim.id) && join.body.history.is_none();
        let introduction = Introduction { members: self.registry.members.values().cloned().collect(), founder };
        self.report.joins.on_answer(if self.weighs() { wire::weight(&introduction) } else { 0 });
        if let Some(at) = self.network.carry(
            Parcel { from: BOOTSTRAP_HOST, to: from.0, half: Half::Answer, bytes: 0 },
            self.now,
            &mut self.rng,
            &mut self.tally,
        ) {
            self.at(at, Event::Joined(from, call, Ok(introduction)));
        }
    }

    pub(super) fn joined(&mut self, life: Life, call: OwnCall, result: Result<Introduction, CallFault>) {
        if !self.lives(life) || self.hosts[life.0].calls.remove(&call).is_none() {
            return;
        }
        if self.transcript.is_on() {
            let text =
                result.as_ref().map_or_else(|fault| format!("{fault:?}"), |introduction| self.transcript.members(&introduction.members));
            self.note(Some(life.0), format_args!("<- bootstrap  [{text}]"));
        }
        self.report.joins.answered += u64::from(result.is_ok());
        self.input(life.0, Input::Joined(call, result));
    }

    fn fetch(&mut self, number: usize, fetch: Fetch) {
        let to = self.addresses.get(&fetch.from.address).copied();
        if self.transcript.is_on() {
            let wants: Vec<String> = fetch.wants.iter().map(|missing| transcript::hash(missing.hash)).collect();
            let whom = to.map_or_else(|| "nowhere".into(), |to| format!("n{to}"));
            self.note(Some(number), format_args!("-> {whom}  fetch [{}]", wants.join(" ")));
        }
        let host = &mut self.hosts[number];
        for wanted in &fetch.wants {
            let twice = host.landings.values().any(|landing| landing.results.iter().any(|(hash, _)| *hash == wanted.hash));
            self.checker.require(!twice, || format!("n{number} fetches {} twice at once", wanted.hash));
        }
        let life = host.this_life();
        let silence = fetch.wants.iter().map(|missing| (missing.hash, Arrived::Unreachable)).collect();
        let results = fetch.wants.iter().map(|missing| (missing.hash, Err(FetchFault::Unreachable))).collect();
        host.fetches.insert(fetch.transfer);
        host.landings.insert(fetch.transfer, Landing { from: fetch.from.id, open: 0, results });
        let from_there = host.landings.values().filter(|landing| landing.from == fetch.from.id).count();
        let bounded = host.landings.len() <= MAX_RUNNING && from_there <= MAX_RUNNING_PER_PEER;
        self.checker.require(bounded, || format!("n{number} runs more transfers at once than it says it does"));
        self.at(self.now + FETCH_TIMEOUT, Event::Arrive { to: life, transfer: fetch.transfer, results: silence });
        let Some(to) = to else { return };
        if let Some(at) =
            self.network.carry(Parcel { from: number, to, half: Half::Request, bytes: 0 }, self.now, &mut self.rng, &mut self.tally)
        {
            self.at(at, Event::Serve { from: to, to: life, fetch });
        }
    }

    /// A holder reads what it was asked for.
    pub(super) fn serve(&mut self, from: usize, to: Life, fetch: &Fetch) {
        if self.hosts[from].core.is_none() {
            return;
        }
        let lies = self.hosts[from].lies;
        let breaks = self.plan.has(FaultKind::BrokenTransfer) && !self.healing && self.rng.random_ratio(1, 8);
        let whole = if breaks { self.rng.random_range(0..fetch.wants.len()) } else { fetch.wants.len() };
        let short = breaks && self.rng.random_bool(0.5);
        let mut results = Vec::with_capacity(fetch.wants.len());
        let mut total = 0;
        for (n, missing) in fetch.wants.iter().enumerate() {
            self.look_at(from, missing.hash);
            let arrived = match self.hosts[from].disk.bytes(missing.hash) {
                Some(bytes) if n == whole && short => Arrived::Short(bytes),
                _ if n >= whole => Arrived::Unreachable,
                None => Arrived::Absent,
                Some(bytes) if lies => {
                    self.acted(FaultKind::WrongBytes);
                    Arrived::Bytes(Bytes { seed: bytes.seed ^ 1 << 60, ..bytes })
                }
                Some(bytes) => Arrived::Bytes(bytes),
            };
            total += missing.size;
            results.push((missing.hash, arrived));
        }
        if breaks {
            self.acted(FaultKind::BrokenTransfer);
        }
        if let Some(at) =
            self.network.carry(Parcel { from, to: to.0, half: Half::Answer, bytes: total }, self.now, &mut self.rng, &mut self.tally)
        {
            // Ten bytes a microsecond, where the network has no bandwidth of its own.
            let took = if self.plan.weather.bandwidth.is_some() { 0 } else { total / 10 };
            self.at(at + took, Event::Arrive { to, transfer: fetch.transfer, results });
        }
    }

    pub(super) fn arrive(&mut self, to: Life, transfer: TransferId, results: Vec<(ContentHash, Arrived)>) {
        if !self.lives(to) || !self.hosts[to.0].fetches.remove(&transfer) {
            return;
        }
        let plant = self.settings.plant;
        let from = self.hosts[to.0].landings.get(&transfer).and_then(|landing| landing.from);
        let mut landing = Landing { from, ..Landing::default() };
        for (hash, arrived) in results {
            let full = self.hosts[to.0].full;
            self.meter_payload(to.0, hash, arrived);
            let result = match arrived {
                Arrived::Bytes(_) if full => Err(FetchFault::Local),
                Arrived::Bytes(_) if plant == Some(Plant::FetchedWithoutBytes) => Ok(()),
                Arrived::Bytes(bytes) if bytes.hash() == hash || plant == Some(Plant::UnverifiedBytes) => {
                    landing.open += 1;
                    self.hosts[to.0].disk.queue_payload(hash, bytes, Some(transfer));
                    Ok(())
                }
                Arrived::Short(bytes) if plant == Some(Plant::PartTakenForWhole) => {
                    landing.open += 1;
                    self.hosts[to.0].disk.queue_payload(hash, Bytes { size: bytes.size / 2, ..bytes }, Some(transfer));
                    Ok(())
                }
                Arrived::Bytes(_) => Err(FetchFault::WrongBytes),
                Arrived::Short(_) => Err(FetchFault::ShortBody),
                Arrived::Absent => Err(FetchFault::Absent),
                Arrived::Unreachable => Err(FetchFault::Unreachable),
            };
            landing.results.push((hash, result));
        }
        // One more, so that a transfer that brought nothing for the disk ends here too.
        landing.open += 1;
        self.hosts[to.0].landings.insert(transfer, landing);
        self.sync(to.0);
        self.landed(to.0, transfer);
    }

    /// Bytes came for a payload: all of them, or, where it ended early, half of them.
    fn meter_payload(&mut self, number: usize, hash: ContentHash, arrived: Arrived) {
        let Arrived::Bytes(bytes) = arrived else { return };
        self.report.payload_received += bytes.size;
        if bytes.hash() == hash && !self.hosts[number].disk.expects(hash) {
            self.report.payload_stored += bytes.size;
        }
    }

    /// A payload of a transfer is durable; when all are, the core is told.
    fn landed(&mut self, number: usize, transfer: TransferId) {
        let Some(landing) = self.hosts[number].landings.get_mut(&transfer) else { return };
        landing.open -= 1;
        if landing.open > 0 {
            return;
        }
        let Some(landing) = self.hosts[number].landings.remove(&transfer) else { return };
        if self.transcript.is_on() {
            let each = landing.results.iter().map(|(hash, result)| match result {
                Ok(()) => transcript::hash(*hash),
                Err(fault) => format!("{}:{fault:?}", transcript::hash(*hash)),
            });
            let text = each.collect::<Vec<_>>().join(" ");
            self.note(Some(number), format_args!("has fetched [{text}]"));
        }
        self.input(number, Input::Fetched(transfer, landing.results));
    }
}
