//! What clients want.

use crate::ids::{BlobId, NodeId};
use crate::io::{
    Change, ClientCall, Command, Event, Holders, MemberView, Outbox, Output, Persist, RecordChange, Reply, Status, Write, WriteFault,
    Written,
};
use crate::item::{Item, RecordKey};
use crate::member::is_base_url;
use crate::node::{After, Copying, HolderSearch, Node, Purpose};
use crate::planted::{Bug, is_planted};
use crate::record::Record;
use crate::stamp::Stamp;
use crate::store::{Missing, Store, StoreFault};
use crate::time::Now;
use crate::version::{Content, Version};
use crate::wire::{Holds, MembersRequest, Request};

/// How many members are asked whether they hold a payload.
const MAX_ASKED: usize = 32;
/// How many live members are told of a graceful stop.
const FAREWELLS: usize = 8;

impl<S: Store> Node<S> {
    pub(super) fn on_command(&mut self, now: Now, call: ClientCall, command: Command, out: &mut Outbox) -> Result<(), StoreFault> {
        match command {
            Command::Write(write) => {
                let key = write.blob.map(|blob| self.records.key(blob));
                if let Err(fault) = self.on_write(now, call, write, out)? {
                    self.refuse_write(call, key, fault, out);
                }
            }
            Command::Want(missing) => self.on_want(now, call, missing, out)?,
            Command::Holders(blob) => self.on_holders(call, blob, out)?,
            Command::Introduce(address) => self.on_introduce(call, address, out),
            Command::Status => {
                let status = self.status(now)?;
                out.push(Output::Reply(call, Reply::Status(Box::new(status))));
            }
            Command::Say(say) => self.on_say(now, call, say, out),
            Command::Undelivered(after, limit) => {
                out.push(Output::Reply(call, Reply::Undelivered(self.history().undelivered(after, limit))));
            }
            Command::AdoptHistory(id) => self.on_adopt(now, call, id, out),
            Command::Members => out.push(Output::Reply(call, Reply::Members(self.members_seen(now)))),
            Command::Forget(id) => self.on_forget(now, call, id, out),
            Command::Conclude => self.on_conclude(call, out),
            Command::Leave => self.on_leave(call, out),
        }
        Ok(())
    }

    /// Makes a new version and asks for it to be persisted; the reply follows when it is. The inner error is for the client.
    fn on_write(&mut self, now: Now, call: ClientCall, write: Write, out: &mut Outbox) -> Result<Result<(), WriteFault>, StoreFault> {
        if self.records.is_full() || write.copies > 1 && self.copies.is_full() {
            return Ok(Err(WriteFault::Busy));
        }
        let blob = write.blob.unwrap_or_else(|| self.new_blob_id());
        let key = self.records.key(blob);
        let before = self.records.record(key)?;
        let content = match new_content(&write, &before) {
            Ok(content) => content,
            Err(fault) => return Ok(Err(fault)),
        };
        // An upload brings its bytes; a restored version must find them here. Elsewhere they may be deleted meanwhile, as covered.
        // While this record waits for the disk they may be here for the sake of another blob, which is about to let go of them.
        if let (Change::Restore(_), Content::Payload(payload)) = (&write.change, &content)
            && (self.records.is_pending(key) || !self.records.holds(payload.hash)?)
        {
            return Ok(Err(WriteFault::NotHere(payload.hash)));
        }
        let mut clock = before.join();
        if is_planted(Bug::WinnerCoveredAlone) {
            clock = before.winner().map(|winner| winner.clock.clone()).unwrap_or_default();
        }
        let floor = if is_planted(Bug::StampOfTheTime) { Stamp::default() } else { clock.greatest() };
        let stamp = self.clock.stamp(now.wall, floor);
        if stamp >= Stamp::END {
            return Ok(Err(WriteFault::StampsExhausted));
        }
        let origin = self.id();
        clock.include(origin, stamp);
        let version = Version { stamp, origin, content, clock };
        let replaced = before.winner().is_some_and(|winner| winner.content.payload().is_some());
        let written = Written { blob, version: version.id(), payload: version.content.payload().cloned(), replaced, copies: 1 };
        let mut record = before.clone();
        let changed = record.insert(version);
        debug_assert!(changed && record.versions().len() == 1, "a write covers everything it has seen");
        self.counters.writes += 1;
        let write_after = Some((call, written, key, Copying { wanted: write.copies, timeout: write.timeout }));
        self.persist_records(vec![(key, before, record)], true, After { write: write_after, ..After::default() }, out);
        Ok(Ok(()))
    }

    /// A refusal tells of the record. Where that is a change of this node's own that the disk does not have yet, it waits with it.
    fn refuse_write(&mut self, call: ClientCall, key: Option<RecordKey>, fault: WriteFault, out: &mut Outbox) {
        let reply = Reply::Write(Err(fault));
        let change = key.and_then(|key| self.records.own_change(key));
        match change.and_then(|token| self.after.get_mut(&token)) {
            Some(after) => after.replies.push((call, reply)),
            None => out.push(Output::Reply(call, reply)),
        }
    }

    /// Changes records in the overlay and asks for them to be persisted together.
    pub(super) fn persist_records(&mut self, changes: Vec<(RecordKey, Record, Record)>, own: bool, mut after: After, out: &mut Outbox) {
        let token = self.token();
        let mut records = Vec::with_capacity(changes.len());
        for (key, before, record) in changes {
            let state = self.records.hasher().state(&record);
            let before = self.records.item(key, &before);
            self.verification.on_change(key, before, Item { key: key.hash, state });
            self.records.put(key, before, record.clone(), state, token, own);
            after.keys.push(key);
            records.push(RecordChange { key, record, state });
        }
        self.after.insert(token, after);
        out.push(Output::Persist(Persist { token, records, ..Persist::default() }));
    }

    fn new_blob_id(&mut self) -> BlobId {
        use rand::Rng;
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes);
        BlobId(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    fn on_want(&mut self, now: Now, call: ClientCall, missing: Missing, out: &mut Outbox) -> Result<(), StoreFault> {
        if self.records.holds(missing.hash)? {
            out.push(Output::Reply(call, Reply::Want(Ok(()))));
            return Ok(());
        }
        let origin = self.names(&missing)?;
        let Some(origin) = origin.filter(|_| self.membership.live_count() > 0 && !self.leaving) else {
            out.push(Output::Reply(call, Reply::Want(Err(crate::io::NoHolder))));
            return Ok(());
        };
        if !self.transfers.want(missing, &[origin], Some(call), now.instant) {
            out.push(Output::Reply(call, Reply::Want(Err(crate::io::NoHolder))));
        }
        Ok(())
    }

    fn on_holders(&mut self, call: ClientCall, blob: BlobId, out: &mut Outbox) -> Result<(), StoreFault> {
        // As it is on disk: a write of this node's own is not told of before.
        let record = self.records.store().record(self.records.key(blob))?.unwrap_or_default();
        let winner = record.winner().and_then(|winner| Some((winner.id(), winner.content.payload()?.hash)));
        let Some((version, hash)) = winner else {
            out.push(Output::Reply(call, Reply::Holders(None)));
            return Ok(());
        };
        let me = self.membership.me();
        let holders = if self.records.holds(hash)? { vec![(me.id, me.address.clone())] } else { vec![] };
        let asked = self.membership.pick_some(MAX_ASKED, &[], &mut self.rng);
        let found = Holders { version, holders, asked: asked.len(), members: self.membership.live_count() + 1 };
        if asked.is_empty() {
            out.push(Output::Reply(call, Reply::Holders(Some(found))));
            return Ok(());
        }
        self.searches.insert(call, HolderSearch { found, open: asked.len() });
        for target in asked {
            if let Some(id) = target.id {
                self.call(target, Request::Holds(Holds { hash }), Purpose::Holds(id, call), out);
            }
        }
        Ok(())
    }

    fn on_introduce(&mut self, call: ClientCall, address: String, out: &mut Outbox) {
        let address = address.trim_end_matches('/').to_owned();
        if !is_base_url(&address) {
            let fault = crate::io::CallFault::Malformed("an address is a base URL such as http://127.0.0.1:7701".into());
            out.push(Output::Reply(call, Reply::Introduce(Err(fault))));
            return;
        }
        self.introduce(address, Some(call), out);
    }

    /// Exchanges member lists with whoever answers at that address.
    pub(super) fn introduce(&mut self, address: String, call: Option<ClientCall>, out: &mut Outbox) {
        let request = Request::Members(MembersRequest { members: self.membership.list(), full: true });
        let target = crate::io::Target { id: None, address: address.clone() };
        self.call(target, request, Purpose::Introduction(address, call), out);
    }

    /// The reply waits for the disk: what a person was told is not forgotten again.
    fn on_forget(&mut self, now: Now, call: ClientCall, id: NodeId, out: &mut Outbox) {
        match self.membership.forget(id, now.instant) {
            Err(fault) => out.push(Output::Reply(call, Reply::Forget(Err(fault)))),
            Ok(member) => {
                out.push(Output::Event(Event::MemberChanged(id, member.state)));
                self.spread.tell_member(id, None);
                let token = self.token();
                self.after.insert(token, After { forgotten: Some((call, member.clone())), ..After::default() });
                out.push(Output::Persist(Persist { token, members: vec![member], ..Persist::default() }));
            }
        }
    }

    fn on_conclude(&mut self, call: ClientCall, out: &mut Outbox) {
        self.concluding = true;
        self.settle_copies(out);
        self.conclude_sayings(out);
        out.push(Output::Reply(call, Reply::Concluded));
    }

    fn on_leave(&mut self, call: ClientCall, out: &mut Outbox) {
        self.leaving = true;
        self.membership.leave();
        for target in self.membership.pick_some(FAREWELLS, &[], &mut self.rng) {
            let request = Request::Members(MembersRequest { members: vec![self.membership.me().clone()], full: false });
            self.call(target, request, Purpose::Farewell, out);
        }
        self.join_all(out);
        self.let_go(out);
        out.push(Output::Reply(call, Reply::Left));
    }

    fn status(&self, now: Now) -> Result<Status, StoreFault> {
        Ok(Status {
            id: self.id(),
            cluster: self.cluster.clone(),
            incarnation: self.membership.me().incarnation,
            root: self.records.summary().root(),
            payload_bytes: self.records.store().payload_bytes()?,
            wanted: self.transfers.len(),
            live_members: self.membership.live_count() + 1,
            local_health: self.membership.patience(),
            counters: self.counters,
            history: self.history_status(now),
            misbehaviour: self.misbehaviour.clone(),
        })
    }

    fn members_seen(&self, now: Now) -> Vec<MemberView> {
        let me = MemberView { member: self.membership.me().clone(), is_self: true, last_heard: Some(std::time::Duration::ZERO) };
        let others = self.membership.others().map(|(member, heard)| MemberView {
            member: self.as_seen(member),
            is_self: false,
            last_heard: heard.map(|at| now.instant.since(at)),
        });
        std::iter::once(me).chain(others).collect()
    }
}

/// What a write makes of a blob that is `before`; or why it must not. A precondition is looked at only where the write could
/// succeed otherwise (RFC 9110 section 13.2.1).
fn new_content(write: &Write, before: &Record) -> Result<Content, WriteFault> {
    let winner = before.winner();
    let content = match &write.change {
        Change::Put(payload) => Content::Payload(payload.clone()),
        Change::Delete => match winner {
            None => return Err(WriteFault::Unknown),
            Some(winner) if winner.content == Content::Tombstone => return Err(WriteFault::Deleted(winner.id())),
            Some(_) => Content::Tombstone,
        },
        Change::Restore(version) => {
            winner.ok_or(WriteFault::Unknown)?;
            let source = before.version(*version).and_then(|version| version.content.payload());
            Content::Payload(source.ok_or(WriteFault::NoSuchVersion)?.clone())
        }
    };
    let live = winner.and_then(|winner| winner.content.payload()).map(|payload| payload.hash);
    if write.condition.holds(live) { Ok(content) } else { Err(WriteFault::Condition(live)) }
}
