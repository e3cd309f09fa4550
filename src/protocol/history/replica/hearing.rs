//! What other nodes say and answer.

use std::collections::BTreeMap;

use super::{Asked, Effect, FAN_OUT, Replica, Then, World};
use crate::history::causal::Tell;
use crate::history::message::Frontier;
use crate::history::ordered::{Step, Vote};
use crate::history::sending;
use crate::history::talk::{Ask, HistoryAnswer, HistoryCall, Letter, Piece};
use crate::history::transaction::{Line, Signal};
use crate::ids::NodeId;
use crate::io::PeerCall;
use crate::planted::{Bug, is_planted};
use crate::store::StoreFault;

impl Replica {
    /// A node says something about a history.
    pub fn on_call(
        &mut self,
        world: &mut World<'_>,
        from: NodeId,
        call: PeerCall,
        said: HistoryCall,
        out: &mut Vec<Effect>,
    ) -> Result<(), StoreFault> {
        let ours = self.founding.is_some_and(|founding| founding.id == said.history || is_planted(Bug::HistoriesMerged));
        if self.joining || !ours {
            out.push(Effect::Answer(call, HistoryAnswer::Elsewhere(self.head())));
            return Ok(());
        }
        let answer = match said.ask {
            Ask::Tell(letter) => Some(HistoryAnswer::Told(self.on_letter(world, from, letter, out))),
            // Nobody's vote before it is known what it was.
            Ask::Step(Step::Start { .. } | Step::Update { .. }) if self.is_silent() => Some(HistoryAnswer::Vote(Vote::Behind)),
            Ask::Settle(_) if self.is_silent() => Some(HistoryAnswer::Busy),
            Ask::Step(step) => {
                let mut effects = Vec::new();
                self.ordered.on_step(world.now.instant, from, call, step, &mut effects);
                self.route_ordered(world, effects, out);
                None
            }
            Ask::HandOver(messages) => {
                let (causal, mut effects) = (&self.causal, Vec::new());
                let ready = |frontier: &Frontier| causal.has(frontier);
                let voted = self.ordered.on_handed(world.now.instant, (from, call), messages, &ready, &mut effects);
                self.route_ordered(world, effects, out);
                (!voted).then(|| HistoryAnswer::Taken(self.ordered.coordinator()))
            }
            Ask::Versions(theirs) => Some(HistoryAnswer::Versions(self.beyond(from, &theirs, world.now.instant))),
            Ask::UpdateMe(request) => Some(if self.sending.admit(from, world.now.instant) {
                self.ordered.transaction_mut().on_signal(Signal::UpdateMeRequestReceived, world.now.instant);
                let update = sending::page(&request, world.store)?;
                self.sending.on_sent(from, update.next.is_none());
                self.ordered.transaction_mut().on_signal(Signal::UpdateByRequestSent, world.now.instant);
                HistoryAnswer::Update(update)
            } else {
                HistoryAnswer::Busy
            }),
            Ask::Seat(slot) => {
                if slot >= self.ordered.decided() && self.causal.epoch().voters.contains(&self.me) {
                    self.seats.on_candidate(from, world.now.instant);
                }
                Some(HistoryAnswer::Taken(self.ordered.coordinator().filter(|node| *node != self.me)))
            }
            Ask::Settle(_) => {
                let holdings = self.holdings();
                self.persist(vec![], Then::Holdings(Some(call), holdings), out);
                None
            }
        };
        out.extend(answer.map(|answer| Effect::Answer(call, answer)));
        self.advance(world, out);
        Ok(())
    }

    /// A call was answered, or was not. Of calls made before [`Effect::Joined`] nothing is to be reported after it: they were of another history.
    pub fn on_answer(&mut self, world: &mut World<'_>, from: NodeId, asked: Asked, answer: Option<HistoryAnswer>, out: &mut Vec<Effect>) {
        if self.joining {
            return;
        }
        if let Some(HistoryAnswer::Elsewhere(Some(head))) = answer {
            self.on_head(from, head, out);
        }
        match (asked, answer) {
            (Asked::Letter, answer) => {
                self.letters.on_ended(from);
                if let Some(HistoryAnswer::Told(tell)) = answer {
                    let letter = Letter { tell, slots: BTreeMap::new() };
                    let reply = self.on_letter(world, from, letter, out);
                    self.tell(from, reply);
                }
            }
            (Asked::Step, Some(HistoryAnswer::Vote(vote))) => {
                let (causal, mut effects) = (&self.causal, Vec::new());
                self.ordered.on_vote(world.now.instant, from, vote, &|frontier| causal.has(frontier), &mut effects);
                self.route_ordered(world, effects, out);
            }
            (Asked::Versions(session), Some(HistoryAnswer::Versions(known))) => self.asking.on_versions(session, from, Some(known)),
            (Asked::Versions(session), _) => self.asking.on_versions(session, from, None),
            (Asked::Page(session), Some(HistoryAnswer::Update(update))) => {
                update.pieces.into_iter().for_each(|piece| self.on_piece(world, piece, out));
                self.ordered.transaction_mut().on_signal(Signal::UpdateByRequestReceived, world.now.instant);
                self.asking.on_page(session, from, update.next);
            }
            (Asked::Page(session), _) => {
                self.ordered.transaction_mut().on_timeout(Line::Asker, world.now.instant);
                self.asking.on_page_failed(session, from);
            }
            (Asked::Seat, Some(HistoryAnswer::Taken(coordinator))) => self.usher = coordinator,
            (Asked::Seat, _) => self.usher = None,
            (Asked::Holdings(epoch), Some(HistoryAnswer::Holdings(holdings))) if epoch == self.causal.epoch().number => {
                let ahead = holdings.slot > self.ordered.decided() || holdings.epoch > epoch;
                if ahead {
                    self.asking.on_ahead(from);
                }
                let epoch = self.causal.epoch().clone();
                self.seats.on_holdings(&epoch, from, holdings);
                self.take_seats(world, out);
            }
            (Asked::HandOver, answer) => {
                let (now, mut effects) = (world.now.instant, Vec::new());
                self.ordered.on_handed_over(now, from, answer.is_some());
                if let Some(HistoryAnswer::Vote(Vote::Received { ballot, slot })) = answer {
                    self.ordered.on_acceptance(now, from, ballot, slot, &mut effects);
                }
                self.route_ordered(world, effects, out);
            }
            (Asked::Step | Asked::Holdings(_), _) => {}
        }
        self.advance(world, out);
    }

    pub(super) fn on_letter(&mut self, world: &mut World<'_>, from: NodeId, letter: Letter, out: &mut Vec<Effect>) -> Tell {
        let Letter { tell, slots } = letter;
        for (slot, batch) in slots {
            if slot > self.ordered.decided() + 1 {
                self.asking.on_ahead(from);
            } else if slot > self.ordered.decided() {
                // Heard for the first time: passed on once.
                for peer in world.network.few(FAN_OUT, world.rng).into_iter().filter(|peer| *peer != from) {
                    self.letters.decided(peer, slot, &batch);
                }
                self.on_piece(world, Piece::Slot(slot, batch), out);
            }
        }
        if tell.epoch > self.causal.epoch().number {
            self.asking.on_ahead(from);
        }
        let (mut effects, mut answer) = (Vec::new(), Tell { epoch: self.causal.epoch().number, ..Tell::default() });
        self.causal.on_tell(world.now.instant, from, tell, &mut effects);
        self.route_causal(world, effects, &mut answer, Some(from), out);
        answer
    }

    pub(super) fn on_piece(&mut self, world: &mut World<'_>, piece: Piece, out: &mut Vec<Effect>) {
        match piece {
            Piece::Message(message) => {
                let mut effects = Vec::new();
                self.causal.on_history(vec![message], &mut effects);
                self.route_causal(world, effects, &mut Tell::default(), None, out);
            }
            Piece::Slot(slot, batch) => {
                let mut effects = Vec::new();
                self.ordered.on_decided(world.now.instant, slot, batch, &mut effects);
                self.route_ordered(world, effects, out);
            }
        }
    }
}
