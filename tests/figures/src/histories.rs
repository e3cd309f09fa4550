//! The message histories of several nodes, read over HTTP, and what must hold of them together.
//!
//! 1. Every history holds every accepted message once, and nothing that no client gave.
//! 2. An origin's messages stand in their order, without gaps.
//! 3. Nothing stands before what its client had read when it sent it.
//! 4. Ordered messages have the numbers 1, 2, 3, ... in this order, and the same ones everywhere.

use std::collections::{BTreeMap, BTreeSet};

use gossip_cdn_cluster::interruption::go_on;
use serde_json::Value;

use crate::agreement::PATIENCE;
use crate::client::Client;
use crate::report::{Broken, claim};
use crate::waiting::wait;

/// The most that a node gives at once.
const PAGE: usize = 1000;

/// What a client gave to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Posted {
    /// No two are equal.
    pub(crate) body: String,
    /// Its name, if the node said that it is accepted. Without an answer it may be in the histories or not.
    pub(crate) id: Option<String>,
    /// The message that its client had read.
    pub(crate) answers: Option<String>,
}

/// A message as a node shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) body: String,
    origin: String,
    sequence: u64,
    number: Option<u64>,
}

impl Entry {
    fn of(message: &Value) -> Result<Self, Broken> {
        let text = |name: &str| message[name].as_str().map(ToOwned::to_owned).ok_or_else(|| Broken::new(format!("no {name} in {message}")));
        let sequence = message["sequence"].as_u64().ok_or_else(|| Broken::new(format!("no sequence in {message}")))?;
        // Causal and ordered messages are numbered apart.
        let origin = format!("{} {}", text("channel")?, text("origin")?);
        Ok(Self { id: text("id")?, body: text("body")?, origin, sequence, number: message["number"].as_u64() })
    }
}

/// The messages behind a cursor, at most a page of them; moves the cursor on.
pub(crate) fn page(client: &mut Client, cursor: &mut Option<String>) -> Result<Vec<Entry>, Broken> {
    let after = cursor.as_ref().map(|cursor| format!("&after={cursor}")).unwrap_or_default();
    let answer = client.send("GET", &format!("/messages?limit={PAGE}{after}"), &[])?;
    claim(answer.status == 200, || format!("the history cannot be read: {}", answer.status))?;
    let page: Value = serde_json::from_slice(&answer.body)?;
    let messages = page["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    if let Some(last) = messages.last().and_then(|last| last["cursor"].as_str()) {
        *cursor = Some(last.to_owned());
    }
    messages.iter().map(Entry::of).collect()
}

/// A node's whole history, in its order of delivery.
pub(crate) fn read(client: &mut Client) -> Result<Vec<Entry>, Broken> {
    let (mut history, mut cursor) = (Vec::new(), None);
    loop {
        go_on()?;
        let page = page(client, &mut cursor)?;
        if page.is_empty() {
            return Ok(history);
        }
        history.extend(page);
    }
}

/// Waits until all have delivered so many messages or more, the same number, and nothing is pending.
pub(crate) fn settle(clients: &mut [Client], least: u64) -> Result<std::time::Duration, Broken> {
    wait("all have delivered everything", PATIENCE, || {
        let told = clients.iter_mut().map(Client::status).collect::<Result<Vec<Value>, _>>()?;
        let messages = |status: &Value| status["history"]["messages"].as_u64().unwrap_or_default();
        let quiet = |status: &Value| status["history"]["pending"] == 0 && messages(status) == messages(&told[0]);
        Ok(messages(&told[0]) >= least && told.iter().all(quiet))
    })
}

/// How many voters a node knows.
pub(crate) fn voters(client: &mut Client) -> Result<usize, Broken> {
    Ok(client.status()?["epoch"]["voters"].as_array().map_or(0, Vec::len))
}

/// An error unless the histories are as they must be, whatever was posted.
pub(crate) fn check(histories: &[Vec<Entry>], posted: &[Posted]) -> Result<(), Broken> {
    let by_body: BTreeMap<&str, &Posted> = posted.iter().map(|posted| (posted.body.as_str(), posted)).collect();
    claim(by_body.len() == posted.len(), || "two messages with the same body were posted".to_owned())?;
    for (node, history) in histories.iter().enumerate() {
        let places = places(node, history)?;
        for entry in history {
            let posted = by_body.get(entry.body.as_str());
            let known = posted.is_some_and(|posted| posted.id.as_ref().is_none_or(|id| *id == entry.id));
            claim(known, || format!("node {node} shows {} with a body that nobody gave under that name", entry.id))?;
        }
        for Posted { id, answers, .. } in posted {
            let Some(id) = id else { continue };
            let place = places.get(id.as_str()).ok_or_else(|| Broken::new(format!("{id} was accepted and is not at node {node}")))?;
            let first = answers.as_ref().is_none_or(|question| places.get(question.as_str()).is_some_and(|before| before < place));
            claim(first, || format!("at node {node} the answer {id} does not stand after its question"))?;
        }
        origins(node, history)?;
    }
    let all = |history: &[Entry]| history.iter().map(|entry| entry.id.clone()).collect::<BTreeSet<_>>();
    let numbers =
        |history: &[Entry]| history.iter().filter(|entry| entry.number.is_some()).map(|entry| entry.id.clone()).collect::<Vec<_>>();
    for (node, pair) in histories.windows(2).enumerate() {
        claim(all(&pair[0]) == all(&pair[1]), || format!("node {node} and the next one have other messages"))?;
        claim(numbers(&pair[0]) == numbers(&pair[1]), || format!("node {node} and the next one number messages differently"))?;
    }
    Ok(())
}

/// Where each message stands. None stands twice, and numbers begin at 1 and leave nothing out.
fn places(node: usize, history: &[Entry]) -> Result<BTreeMap<&str, usize>, Broken> {
    let (mut places, mut number) = (BTreeMap::new(), 0);
    for (place, entry) in history.iter().enumerate() {
        claim(places.insert(entry.id.as_str(), place).is_none(), || format!("node {node} delivered {} twice", entry.id))?;
        if let Some(found) = entry.number {
            number += 1;
            claim(found == number, || format!("node {node} numbers {} {found}, and it is number {number}", entry.id))?;
        }
    }
    Ok(places)
}

/// Each origin's messages come in their order, none left out.
fn origins(node: usize, history: &[Entry]) -> Result<(), Broken> {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in history {
        let last = last.entry(&entry.origin).or_default();
        claim(entry.sequence == *last + 1, || format!("at node {node} {} comes after the origin's number {last}", entry.id))?;
        *last = entry.sequence;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(channel: char, sequence: u64, number: Option<u64>) -> Entry {
        let id = format!("{channel}{sequence}.a");
        Entry { body: id.clone(), id, origin: format!("{channel} a"), sequence, number }
    }

    /// Two causal messages and two ordered ones; the second causal one answers the first ordered one.
    fn right() -> (Vec<Entry>, Vec<Posted>) {
        let history = vec![entry('c', 1, None), entry('o', 1, Some(1)), entry('c', 2, None), entry('o', 2, Some(2))];
        let posted = |entry: &Entry| {
            let answers = (entry.id == "c2.a").then(|| "o1.a".to_owned());
            Posted { body: entry.body.clone(), id: Some(entry.id.clone()), answers }
        };
        let posted = history.iter().map(posted).collect();
        (history, posted)
    }

    fn verdict(change: impl Fn(&mut Vec<Entry>, &mut Vec<Posted>)) -> String {
        let (history, mut posted) = right();
        let mut other = history.clone();
        change(&mut other, &mut posted);
        check(&[history, other], &posted).map_or_else(|broken| broken.to_string(), |()| "right".to_owned())
    }

    #[test]
    fn what_breaks_a_promise_is_told() {
        assert_eq!(verdict(|_, _| {}), "right");
        assert_eq!(verdict(|_, posted| posted[0].id = None), "right");
        assert!(verdict(|history, _| drop(history.pop())).contains("accepted and is not at node 1"));
        assert!(verdict(|history, _| history.push(entry('c', 1, None))).contains("twice"));
        assert!(verdict(|history, _| history.swap(1, 2)).contains("after its question"));
        assert!(verdict(|history, _| history[3].number = Some(3)).contains("it is number 2"));
        assert!(verdict(|history, _| history[0].body = "invented".to_owned()).contains("nobody gave"));
        assert!(verdict(|history, _| history[2].sequence = 3).contains("after the origin's number 1"));
        let unanswered = verdict(|history, posted| {
            posted[3].id = None;
            history.pop();
        });
        assert!(unanswered.contains("other messages"), "{unanswered}");
    }

    #[test]
    fn numbers_that_differ_are_told() {
        let (one, posted) = right();
        let mut other = one.clone();
        (other[1].id, other[3].id) = (other[3].id.clone(), other[1].id.clone());
        (other[1].sequence, other[3].sequence) = (1, 2);
        let posted: Vec<Posted> = posted.into_iter().map(|posted| Posted { id: None, answers: None, ..posted }).collect();
        let told = check(&[one, other], &posted).map_or_else(|broken| broken.to_string(), |()| String::new());
        assert!(told.contains("number messages differently"), "{told}");
    }
}
