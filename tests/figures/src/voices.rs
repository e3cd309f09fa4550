//! Clients who give messages to nodes, one after the other, and answer what they read there.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gossip_cdn_cluster::interruption::go_on;
use serde_json::Value;

use crate::client::Client;
use crate::histories::{Posted, page};
use crate::report::{Broken, claim};

/// How long a client that got no answer waits before it connects again.
const AGAIN: Duration = Duration::from_millis(50);

/// What one client does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// Every so many of its messages are ordered; 0 for none.
    pub(crate) ordered: u64,
    /// Every so many answer the last one that it finds in the history of its node; 0 for none.
    pub(crate) answers: u64,
    /// Every so many wait for their delivery; 0 for none.
    pub(crate) waits: u64,
}

/// What is told to all clients, and what they tell.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) over: AtomicBool,
    /// Accepted so far.
    pub(crate) accepted: AtomicU64,
    /// Too many were pending there.
    pub(crate) refused: AtomicU64,
    /// The node was dead, or died on the way.
    pub(crate) unanswered: AtomicU64,
}

fn every(n: u64, of: u64) -> bool {
    of > 0 && n.is_multiple_of(of)
}

/// Lets so many clients speak, each until so many of its messages are accepted, and does something meanwhile; when that has ended, and there is
/// no end to what they say, it is over. What they gave.
pub(crate) fn speak_all<C>(
    clients: usize,
    manner: Manner,
    connect: C,
    tally: &Tally,
    most: u64,
    meanwhile: impl FnOnce() -> Result<(), Broken>,
) -> Result<Vec<Posted>, Broken>
where
    C: Fn(usize) -> Result<Client, Broken> + Sync,
{
    std::thread::scope(|scope| {
        let connect = &connect;
        let speaking: Vec<_> = (0..clients).map(|client| scope.spawn(move || speak(client, manner, connect, tally, most))).collect();
        let done = meanwhile();
        if most == u64::MAX || done.is_err() {
            tally.over.store(true, Ordering::Relaxed);
        }
        let mut posted = Vec::new();
        for speaking in speaking {
            posted.extend(speaking.join().map_err(|_| Broken::new("a client panicked"))??);
        }
        done.map(|()| posted)
    })
}

/// One client's part.
fn speak<C>(client: usize, manner: Manner, connect: &C, tally: &Tally, most: u64) -> Result<Vec<Posted>, Broken>
where
    C: Fn(usize) -> Result<Client, Broken>,
{
    let (mut posted, mut connection, mut cursor, mut accepted) = (Vec::new(), None, None, 0);
    let mut turn = 0;
    while accepted < most && !tally.over.load(Ordering::Relaxed) {
        go_on()?;
        turn += 1;
        let Some(mut connected) = connection.take().or_else(|| connect(client).ok()) else {
            std::thread::sleep(AGAIN);
            continue;
        };
        let question = if every(turn, manner.answers) { question(&mut connected, &mut cursor) } else { Ok(None) };
        let Ok(answers) = question else { continue };
        let mut said = Posted { body: format!("{client}/{turn}"), id: None, answers };
        match say(&mut connected, &said.body, turn, manner) {
            Ok(Some(id)) => {
                accepted += 1;
                tally.accepted.fetch_add(1, Ordering::Relaxed);
                said.id = Some(id);
                posted.push(said);
                connection = Some(connected);
            }
            Ok(None) => {
                tally.refused.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(AGAIN);
                connection = Some(connected);
            }
            Err(_) => {
                tally.unanswered.fetch_add(1, Ordering::Relaxed);
                posted.push(said);
            }
        }
    }
    Ok(posted)
}

/// The last message of what was delivered since the last look.
fn question(client: &mut Client, cursor: &mut Option<String>) -> Result<Option<String>, Broken> {
    Ok(page(client, cursor)?.pop().map(|last| last.id))
}

/// Gives one message; its name, or nothing if it was refused.
fn say(client: &mut Client, body: &str, turn: u64, manner: Manner) -> Result<Option<String>, Broken> {
    let channel = if every(turn, manner.ordered) { "ordered" } else { "causal" };
    let wait = if every(turn, manner.waits) { "&wait=delivered&timeout=2" } else { "" };
    let answer = client.send("POST", &format!("/messages?channel={channel}{wait}"), body.as_bytes())?;
    if answer.status == 503 {
        return Ok(None);
    }
    claim(answer.status == 201 || answer.status == 202, || format!("a message was answered with {}", answer.status))?;
    let taken: Value = serde_json::from_slice(&answer.body)?;
    Ok(taken["id"].as_str().map(ToOwned::to_owned))
}
