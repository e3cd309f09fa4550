//! What must hold of the message history, looked at from outside all nodes.
//!
//! 1. **No creation.** What is delivered was said by its origin's client, word for word.
//! 2. **No duplication.** A node delivers a message once, restarts included, under one name, and gives every index once, in order.
//! 3. **Causal order.** What comes before a message, by what its origin had delivered and said, is delivered before it everywhere.
//! 4. **One order.** The same slot and number stand for the same message on every node that has it, and for the one whose client was told them.
//! 5. **Validity and uniform agreement.** After the healing everything accepted, and everything that anybody delivered, is delivered everywhere.
//!
//! Where two histories were founded these are the properties of each; in the end all nodes belong to one of them, and what was accepted is
//! delivered there, or was delivered in the other one before its node left it.
//!
//! A disk that is put back is a node that failed, and another one that begins with what the disk has. So, of such a host:
//!
//! 6. What it delivered is what its disk says: it delivers again what the disk forgot, from the index it has.
//! 7. What it accepted, and the disk forgot, is asked for only if it was delivered somewhere.
//! 8. What a key's next bears is that key's: a node says under its next key what it had told nobody.
//! 9. What was withheld when a disk was copied, or kept as a backup, is there as told to nobody, whatever the other one says later: it may
//!    be delivered once for each. So may what was undelivered then, where it is sent anew because its history is left.
//! 10. A key that is given up is a voter lost. Where the majority is lost so, nothing more is promised.

use std::collections::{BTreeMap, BTreeSet};

use gossip_cdn_protocol::NodeId;
use gossip_cdn_protocol::history::disk::{Founding, Order, Place};
use gossip_cdn_protocol::history::epoch::Epoch;
use gossip_cdn_protocol::history::memory::MemoryHistory;
use gossip_cdn_protocol::history::message::{Body, Channel, Message, MessageId};
use gossip_cdn_protocol::io::{Said, Standing};

/// What a host has delivered of one history.
#[derive(Debug, Default)]
struct Told {
    index: u64,
    number: u64,
    last: BTreeMap<(Channel, NodeId), u64>,
    bodies: BTreeSet<Vec<u8>>,
}

impl Told {
    fn take(&mut self, place: Place, message: &Message) {
        self.index = place.index;
        self.number = place.order.map_or(self.number, |order| order.number);
        self.last.insert((place.id.channel, place.id.origin), place.id.sequence);
        self.bodies.insert(message.body.bytes().to_vec());
    }

    fn has(&self, id: MessageId) -> bool {
        self.last.get(&(id.channel, id.origin)).is_some_and(|last| id.sequence <= *last)
    }
}

/// Everything that was said and delivered.
#[derive(Debug, Default)]
pub(crate) struct Chronicle {
    /// Bodies by the node that was asked to take them.
    said: BTreeMap<NodeId, BTreeSet<Vec<u8>>>,
    /// Bodies of what was accepted, and the host that did.
    accepted: BTreeMap<Vec<u8>, usize>,
    told: BTreeMap<(usize, Founding), Told>,
    order: BTreeMap<(Founding, u64), (MessageId, Order)>,
    /// What clients were told of the places of their messages before the delivery was on disk.
    answered: BTreeMap<(Founding, MessageId), Order>,
    /// The name of each body in each history, and the body of each name.
    delivered: BTreeMap<(Founding, Vec<u8>), MessageId>,
    names: BTreeMap<(Founding, MessageId), Vec<u8>>,
    /// Withheld on a disk that was copied or kept.
    doubled: BTreeSet<Vec<u8>>,
    /// The keys that nodes gave up for others.
    before: BTreeMap<NodeId, NodeId>,
    next: u64,
}

/// Whether a majority of the voters of each history is among the nodes of these ids and disks. One that went over to another history
/// votes no more.
pub(crate) fn has_majority(disks: &[(usize, NodeId, &MemoryHistory)]) -> bool {
    let mut last: BTreeMap<Founding, (Epoch, BTreeSet<NodeId>)> = BTreeMap::new();
    for (id, founding, epoch) in disks.iter().filter_map(|(_, id, disk)| Some((*id, disk.founding()?, disk.epoch()?))) {
        let (known, here) = last.entry(founding).or_insert_with(|| (epoch.clone(), BTreeSet::new()));
        here.insert(id);
        if known.number < epoch.number {
            *known = epoch;
        }
    }
    last.values().all(|(epoch, here)| epoch.is_majority(here))
}

impl Chronicle {
    /// Another body, unlike all others.
    pub(crate) fn body(&mut self, node: NodeId) -> Body {
        self.next += 1;
        let bytes = format!("message {}", self.next).into_bytes();
        self.said.entry(node).or_default().insert(bytes.clone());
        Body::of(bytes)
    }

    /// How many were said.
    pub(crate) fn said(&self) -> u64 {
        self.next
    }

    /// How many of them were delivered somewhere.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.len() as u64
    }

    /// A client was told that its message is durable.
    pub(crate) fn on_said(&mut self, host: usize, said: Said, disk: &MemoryHistory) -> Result<(), String> {
        use gossip_cdn_protocol::history::disk::HistoryStore as _;
        // What was delivered may stand in a history that the node left in the same moment.
        let delivered = match said.standing {
            Standing::Delivered(place) => disk.at(place).map(|(_, message)| message.clone()),
            Standing::Ordered(order) => {
                let founding = disk.founding().ok_or_else(|| format!("{} was decided in no history", said.id))?;
                self.answered.insert((founding, said.id), order);
                if self.order.get(&(founding, order.number)).is_some_and(|known| *known != (said.id, order)) {
                    return Err(format!("{} is said to be {}, which another one is", said.id, order.number));
                }
                None
            }
            Standing::Pending => None,
        };
        match delivered.or_else(|| disk.message(said.id).ok().flatten()) {
            Some(message) => {
                self.accepted.insert(message.body.bytes().to_vec(), host);
                Ok(())
            }
            None => Err(format!("{} was accepted and is not on disk", said.id)),
        }
    }

    /// That disk was copied or kept, in a world where histories are left or not.
    pub(crate) fn on_copy(&mut self, disk: &MemoryHistory, left: bool) {
        let body = |message: &Message| message.body.bytes().to_vec();
        self.doubled.extend(disk.withheld().map(body));
        if left || disk.founding().is_none() {
            self.doubled.extend(disk.kept().map(body));
        }
    }

    /// A node took another key.
    pub(crate) fn on_key(&mut self, was: NodeId, is: NodeId) {
        self.before.insert(is, was);
    }

    /// The disk of a host was put back.
    pub(crate) fn on_put_back(&mut self, host: usize, disk: &MemoryHistory) {
        self.told.retain(|(of, _), _| *of != host);
        let there: BTreeSet<&[u8]> = disk.said().map(|message| message.body.bytes()).collect();
        self.accepted.retain(|body, by| *by != host || there.contains(&body[..]));
    }

    /// Whether a client of that node, under this key or one before it, said that.
    fn was_said(&self, origin: NodeId, body: &[u8]) -> bool {
        let keys = std::iter::successors(Some(origin), |key| self.before.get(key).copied());
        keys.into_iter().any(|key| self.said.get(&key).is_some_and(|said| said.contains(body)))
    }

    /// A host says that it has delivered, durably.
    pub(crate) fn on_delivered(&mut self, host: usize, place: Place, disk: &MemoryHistory) -> Result<(), String> {
        match disk.at(place) {
            Some((founding, message)) => self.check_delivery(host, founding, place, message),
            None => Err(format!("n{host} delivered {}, which is not on its disk", place.id)),
        }
    }

    /// A host starts with what is on its disk: what it delivered and could not say any more counts too.
    pub(crate) fn on_start(&mut self, host: usize, disk: &MemoryHistory) -> Result<(), String> {
        let Some(founding) = disk.founding() else { return Ok(()) };
        let known = self.told.get(&(host, founding)).map_or(0, |told| told.index);
        let fresh: Vec<(Place, Message)> =
            disk.delivered().filter(|(place, _)| place.index > known).map(|(place, message)| (*place, message.clone())).collect();
        fresh.iter().try_for_each(|(place, message)| self.check_delivery(host, founding, *place, message))
    }

    fn check_delivery(&mut self, host: usize, founding: Founding, place: Place, message: &Message) -> Result<(), String> {
        let id = place.id;
        let fail = |what: &str| Err(format!("n{host} delivers {id} {what}"));
        if !self.was_said(id.origin, message.body.bytes()) {
            return fail("which its origin never said");
        }
        let told = self.told.entry((host, founding)).or_default();
        if place.index != told.index + 1 {
            return fail(&format!("as number {} after {}", place.index, told.index));
        }
        let last = told.last.get(&(id.channel, id.origin)).map_or(0, |last| *last);
        if id.sequence != last + 1 {
            return fail(&format!("after that origin's number {last}"));
        }
        if let Some(before) = message.frontier.newest.iter().find(|before| !told.has(**before)) {
            return fail(&format!("before {before}"));
        }
        if told.bodies.contains(message.body.bytes()) && !self.doubled.contains(message.body.bytes()) {
            return fail(&format!("a second time, under another name: {}", String::from_utf8_lossy(message.body.bytes())));
        }
        if let Some(order) = place.order.filter(|order| order.number != told.number + 1) {
            return fail(&format!("as {} in the common order after {}", order.number, told.number));
        }
        told.take(place, message);
        if let Some(order) = place.order {
            if self.answered.get(&(founding, id)).is_some_and(|answered| *answered != order) {
                return fail("elsewhere than its client was told");
            }
            let (known, at) = self.order.entry((founding, order.number)).or_insert((id, order));
            if (*known, *at) != (id, order) {
                return fail(&format!("where {known} stands elsewhere"));
            }
        }
        // Everything ordered up to the slot of its frontier comes before it.
        let next = self.order.get(&(founding, told.number + 1)).map(|(_, order)| order.slot);
        if next.is_some_and(|slot| slot <= message.frontier.slot) {
            return fail(&format!("before all of slot {}", message.frontier.slot));
        }
        let body = message.body.bytes().to_vec();
        if *self.names.entry((founding, id)).or_insert_with(|| body.clone()) != body {
            return fail("which is another message elsewhere");
        }
        let twice = self.doubled.contains(&body);
        let known = *self.delivered.entry((founding, body)).or_insert(id);
        if known == id || twice { Ok(()) } else { fail(&format!("which was delivered as {known} before")) }
    }

    /// Why the nodes' histories, those of these ids and disks, are not alike and complete.
    pub(crate) fn gap(&self, disks: &[(usize, NodeId, &MemoryHistory)]) -> Option<String> {
        let decides = has_majority(disks);
        let mut common: Option<(usize, Founding)> = None;
        for (host, _, disk) in disks {
            let Some(founding) = disk.founding() else { return Some(format!("n{host} belongs to no history")) };
            let (first, theirs) = *common.get_or_insert((*host, founding));
            if theirs != founding {
                return Some(format!("n{first} and n{host} belong to different histories"));
            }
            let told = self.told.get(&(*host, founding));
            let mut here = self.delivered.iter().filter(|((history, _), _)| *history == founding).map(|(_, id)| id);
            if let Some(id) = here.find(|id| decides && !told.is_some_and(|told| told.has(**id))) {
                return Some(format!("n{host} lacks {id}, which was delivered elsewhere"));
            }
        }
        let delivered: BTreeSet<&Vec<u8>> = self.delivered.keys().map(|(_, body)| body).collect();
        let lost = self.accepted.keys().find(|body| decides && !delivered.contains(body));
        lost.map(|body| format!("nobody delivered {:?}, which was accepted", String::from_utf8_lossy(body)))
    }
}
