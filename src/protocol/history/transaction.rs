//! What a node is in the middle of, by the names of the founding table.
//!
//! Four things may be under way at once: a transaction as coordinator, one as participant, an update asked for, and updates sent. Each is
//! a line of states; a signal moves the one it concerns. Nothing depends on a state: answers follow from ballots alone. States are for people.

use std::collections::BTreeMap;

use crate::time::Instant;

/// A state of the founding table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing is under way.
    Connected,
    /// A ballot is promised.
    InTransaction,
    /// A batch is stored.
    UpdatedByRemote,
    /// A message is to be ordered.
    IncomingMessageReceived,
    /// Confirmations are awaited.
    StartedTransaction,
    /// Acknowledgements are awaited.
    UpdatingRemote,
    /// What was asked for is being sent.
    SendingUpdateByRequest,
    /// What was asked for is awaited.
    WaitForUpdateByRequest,
}

/// A signal of the founding table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// A coordinator starts, and is promised.
    StartTransactionReceived,
    /// A batch comes, and is taken.
    UpdateReceived,
    /// A slot is decided.
    CommitReceived,
    /// A ballot is given up.
    RollbackReceived,
    /// A message is to be ordered by this node.
    IncomingMessageArrived,
    /// This node starts a ballot.
    StartTransactionSent,
    /// This node proposes a batch.
    UpdateRemoteNodes,
    /// This node gives its ballot up.
    RollbackSent,
    /// This node's batch is decided.
    CommitSent,
    /// Somebody asks for an update.
    UpdateMeRequestReceived,
    /// It has all it asked for.
    UpdateByRequestSent,
    /// This node asks for an update.
    UpdateMeRequestSent,
    /// It has all it asked for.
    UpdateByRequestReceived,
    /// What was awaited did not come. A coordinator's is a rollback, and counted as that.
    Timeout,
}

/// One of the four things that may be under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    Coordinator,
    Participant,
    Asker,
    Sender,
}

/// What is under way at a node: each line moves by its signals, and by nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// As coordinator.
    pub coordinator: State,
    /// As participant.
    pub participant: State,
    /// As asker.
    pub asker: State,
    /// As sender.
    pub sender: State,
    /// When it came into the present [`Self::state`].
    pub since: Instant,
    /// How often each signal came since the start.
    pub signals: BTreeMap<Signal, u64>,
}

impl Signal {
    /// All signals.
    pub const ALL: [Self; 14] = [
        Self::StartTransactionReceived,
        Self::UpdateReceived,
        Self::CommitReceived,
        Self::RollbackReceived,
        Self::IncomingMessageArrived,
        Self::StartTransactionSent,
        Self::UpdateRemoteNodes,
        Self::RollbackSent,
        Self::CommitSent,
        Self::UpdateMeRequestReceived,
        Self::UpdateByRequestSent,
        Self::UpdateMeRequestSent,
        Self::UpdateByRequestReceived,
        Self::Timeout,
    ];

    /// The line that it concerns: `None` if it may be any.
    fn line(self) -> Option<Line> {
        Some(match self {
            Self::StartTransactionReceived | Self::UpdateReceived | Self::CommitReceived | Self::RollbackReceived => Line::Participant,
            Self::IncomingMessageArrived | Self::StartTransactionSent | Self::UpdateRemoteNodes | Self::RollbackSent | Self::CommitSent => {
                Line::Coordinator
            }
            Self::UpdateMeRequestReceived | Self::UpdateByRequestSent => Line::Sender,
            Self::UpdateMeRequestSent | Self::UpdateByRequestReceived => Line::Asker,
            Self::Timeout => return None,
        })
    }

    /// Where it leads from `state`, on its line.
    fn from(self, state: State) -> State {
        use State::{
            Connected, InTransaction, IncomingMessageReceived, SendingUpdateByRequest, StartedTransaction, UpdatedByRemote, UpdatingRemote,
            WaitForUpdateByRequest,
        };
        match self {
            Self::StartTransactionReceived => InTransaction,
            // A steady coordinator skips Start, which is as if it had come.
            Self::UpdateReceived => UpdatedByRemote,
            Self::CommitReceived | Self::RollbackReceived | Self::RollbackSent | Self::CommitSent => Connected,
            Self::IncomingMessageArrived if state == Connected => IncomingMessageReceived,
            // It joins those that are under way already.
            Self::IncomingMessageArrived => state,
            Self::StartTransactionSent => StartedTransaction,
            Self::UpdateRemoteNodes => UpdatingRemote,
            Self::UpdateMeRequestReceived => SendingUpdateByRequest,
            Self::UpdateMeRequestSent => WaitForUpdateByRequest,
            Self::UpdateByRequestSent | Self::UpdateByRequestReceived | Self::Timeout => Connected,
        }
    }
}

impl Transaction {
    /// Nothing is under way.
    pub(super) fn new(now: Instant) -> Self {
        let connected = State::Connected;
        Self { coordinator: connected, participant: connected, asker: connected, sender: connected, since: now, signals: BTreeMap::new() }
    }

    fn line(&mut self, line: Line) -> &mut State {
        match line {
            Line::Coordinator => &mut self.coordinator,
            Line::Participant => &mut self.participant,
            Line::Asker => &mut self.asker,
            Line::Sender => &mut self.sender,
        }
    }

    /// Something happened.
    pub(super) fn on_signal(&mut self, signal: Signal, now: Instant) {
        let before = self.state();
        *self.signals.entry(signal).or_default() += 1;
        if let Some(line) = signal.line() {
            let state = self.line(line);
            *state = signal.from(*state);
        }
        // The slot that this node was about to decide, or had messages for, is decided.
        if signal == Signal::CommitReceived && self.coordinator != State::StartedTransaction {
            self.coordinator = State::Connected;
        }
        self.note_move(before, now);
    }

    /// What was awaited on that line did not come.
    pub(super) fn on_timeout(&mut self, line: Line, now: Instant) {
        let before = self.state();
        self.on_signal(Signal::Timeout, now);
        *self.line(line) = State::Connected;
        self.note_move(before, now);
    }

    /// A majority confirmed, and there is nothing to propose.
    pub(super) fn on_nothing_to_propose(&mut self, now: Instant) {
        let before = self.state();
        if self.coordinator == State::StartedTransaction {
            self.coordinator = State::Connected;
        }
        self.note_move(before, now);
    }

    fn note_move(&mut self, before: State, now: Instant) {
        if self.state() != before {
            self.since = now;
        }
    }

    /// The first line, as coordinator, participant, asker, sender, that is in the middle of something.
    pub fn state(&self) -> State {
        let lines = [self.coordinator, self.participant, self.asker, self.sender];
        lines.into_iter().find(|state| *state != State::Connected).unwrap_or(State::Connected)
    }
}

#[cfg(test)]
mod tests;
