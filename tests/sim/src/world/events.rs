//! Events: what is going to happen, when, and to whose process.
//!
//! 1. They happen one at a time, in the order of their time and then of their making.
//! 2. What a process handles waits in its inbox while the process is stopped or busy; what is addressed to an earlier life is dropped.
//! 3. After the first broken rule nothing more happens.

use std::time::Duration;

use gossip_cdn_protocol::io::{CallFault, Fetch, OwnCall, TransferId};
use gossip_cdn_protocol::wire::{Answer, Envelope, Introduction, Join, Request};
use gossip_cdn_protocol::{ContentHash, Input};

use super::{NOTABLE_DRIFT, World, micros};
use crate::disk::Bytes;
use crate::faults::{Cpu, FaultKind};

/// Which life of which host; what is addressed to an earlier one is dropped.
pub(super) type Life = (usize, u64);

#[derive(Debug)]
pub(super) enum Event {
    Tick(Life),
    Request {
        to: usize,
        back: Option<(Life, OwnCall)>,
        request: Envelope<Request>,
        bytes: u64,
    },
    Answered(Life, OwnCall, Result<Envelope<Answer>, CallFault>, u64),
    Join {
        from: Life,
        call: OwnCall,
        join: Envelope<Join>,
    },
    Joined(Life, OwnCall, Result<Introduction, CallFault>),
    Serve {
        from: usize,
        to: Life,
        fetch: Fetch,
    },
    Arrive {
        to: Life,
        transfer: TransferId,
        results: Vec<(ContentHash, Arrived)>,
    },
    Synced(Life),
    Input(Life, Box<Input>),
    Start(usize),
    Stop(Life),
    Write,
    Say,
    Trouble,
    Mend(u64),
    Relief(usize),
    Doom(Life),
    BootstrapUp,
    /// The disk of a host is put back to the state that was kept of it.
    PutBack(usize),
    /// Somebody reads everything that is on the disk of a host.
    Scrub(usize),
    /// The identity of a host has ended.
    NewKey(Life),
    /// A host that was stopped or busy goes on.
    Wake(Life),
}

impl Event {
    /// Whose process handles it; `None` where no process does.
    fn handled_by(&self) -> Option<usize> {
        match self {
            Self::Tick((host, _))
            | Self::Request { to: host, .. }
            | Self::Answered((host, _), ..)
            | Self::Joined((host, _), ..)
            | Self::Serve { from: host, .. }
            | Self::Arrive { to: (host, _), .. }
            | Self::Synced((host, _))
            | Self::Input((host, _), _) => Some(*host),
            Self::Join { .. }
            | Self::Start(_)
            | Self::Stop(_)
            | Self::Write
            | Self::Say
            | Self::Trouble
            | Self::Mend(_)
            | Self::Relief(_)
            | Self::Doom(_)
            | Self::BootstrapUp
            | Self::PutBack(_)
            | Self::Scrub(_)
            | Self::NewKey(_)
            | Self::Wake(_) => None,
        }
    }
}

/// What a holder sent for a payload.
#[derive(Debug, Clone, Copy)]
pub(super) enum Arrived {
    Bytes(Bytes),
    Absent,
    /// They ended early.
    Short(Bytes),
    Unreachable,
}

impl World {
    /// Lets one event happen; `false` if there is none.
    pub fn step(&mut self) -> bool {
        let next = self.queue.first_key_value().map(|((at, _), _)| *at).filter(|_| self.checker.failure().is_none());
        next.inspect(|_| self.happen_next()).is_some()
    }

    /// Lets time pass.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + micros(duration);
        self.run_until(end);
    }

    pub(super) fn run_until(&mut self, end: u64) {
        while self.checker.failure().is_none() {
            if self.queue.first_key_value().is_none_or(|((at, _), _)| *at > end) {
                break;
            }
            self.happen_next();
        }
        self.now = end.max(self.now);
    }

    fn happen_next(&mut self) {
        let Some(((at, _), event)) = self.queue.pop_first() else { return };
        self.now = at;
        self.checker.set_now(at);
        self.handled += 1;
        self.come_about(event);
    }

    pub(super) fn at(&mut self, at: u64, event: Event) -> (u64, u64) {
        self.next_event += 1;
        let key = (at, self.next_event);
        self.queue.insert(key, event);
        key
    }

    pub(super) fn lives(&self, (host, life): Life) -> bool {
        self.hosts.get(host).is_some_and(|host| host.life == life && host.core.is_some())
    }

    /// An event happens now, or when the process that handles it has the time.
    pub(super) fn come_about(&mut self, event: Event) {
        let Some(number) = event.handled_by() else { return self.happen(event) };
        let (now, host) = (self.now, &mut self.hosts[number]);
        if host.core.is_none() || host.held_until() <= now && host.inbox.is_empty() {
            return self.happen(event);
        }
        let paused = host.paused_until > now;
        if matches!(event, Event::Tick(_)) {
            host.tick = None;
        }
        host.inbox.push_back(event);
        if host.inbox.len() == 1 {
            let (at, life) = (host.held_until(), host.this_life());
            self.at(at, Event::Wake(life));
        }
        if paused {
            self.acted(FaultKind::Pause);
        }
    }

    /// Handles what came first of what waits, and comes back for the next.
    pub(super) fn wake(&mut self, life: Life) {
        let number = life.0;
        if self.hosts[number].held_until() <= self.now
            && let Some(event) = self.hosts[number].inbox.pop_front()
        {
            self.happen(event);
        }
        // Handling may have ended this life.
        if self.lives(life) && !self.hosts[number].inbox.is_empty() {
            let at = self.hosts[number].held_until().max(self.now);
            self.at(at, Event::Wake(life));
        }
    }

    /// The process of a host has its hands full for a while.
    pub(super) fn occupy(&mut self, number: usize, bytes: u64) {
        if let Some(Cpu { per_message, bytes_per_micro }) = self.plan.cpu {
            self.hosts[number].busy_until = self.now + per_message + bytes / bytes_per_micro;
        }
    }

    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(life) if self.lives(life) => {
                self.hosts[life.0].tick = None;
                if self.hosts[life.0].drifted(self.now) > NOTABLE_DRIFT {
                    self.acted(FaultKind::ClockDrift);
                }
                self.input(life.0, Input::Tick);
            }
            Event::Request { to, back, request, bytes } => self.deliver(to, back, request, bytes),
            Event::Answered(life, call, result, bytes) => self.answered(life, call, result, bytes),
            Event::Join { from, call, join } => self.register(from, call, &join),
            Event::Joined(life, call, result) => self.joined(life, call, result),
            Event::Serve { from, to, fetch } => self.serve(from, to, &fetch),
            Event::Arrive { to, transfer, results } => self.arrive(to, transfer, results),
            Event::Synced(life) if self.lives(life) => self.synced(life.0),
            Event::Input(life, input) if self.lives(life) => self.input(life.0, *input),
            Event::Start(host) => self.start_process(host),
            Event::Stop(life) if self.lives(life) => self.kill(life.0, usize::MAX),
            Event::Doom(life) if self.lives(life) => self.crash_losing(life.0),
            Event::NewKey(life) if self.lives(life) => self.take_key(life.0),
            Event::Wake(life) if self.lives(life) => self.wake(life),
            Event::Tick(_) | Event::Synced(_) | Event::Input(..) | Event::Stop(_) | Event::Doom(_) | Event::NewKey(_) | Event::Wake(_) => {}
            Event::PutBack(host) => self.put_back_by_dice(host),
            Event::Scrub(host) => self.scrub(host),
            Event::Write => self.write_by_dice(),
            Event::Say => self.say_by_dice(),
            Event::Trouble => self.trouble(),
            Event::Mend(cut) => self.mend(cut),
            Event::Relief(host) => {
                self.network.slow_down(host, None);
                let host = &mut self.hosts[host];
                (host.lies, host.slow, host.full, host.doomed) = (false, false, false, false);
            }
            Event::BootstrapUp => self.registry.down = false,
        }
    }
}
