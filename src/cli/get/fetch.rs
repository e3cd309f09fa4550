//! Bytes from one node, or from several at once.
//!
//! 1. Bytes enter the pipe in order, each exactly once, whatever is interrupted and repeated.
//! 2. A stop in the middle is met by another attempt from the byte where it stopped, [`ATTEMPTS`] in a row without a byte at most.
//! 3. With several nodes, one that lacks the blob or has another version is left out; one that fails keeps failing for its share only.

use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;

use awc::ClientResponse;
use awc::http::header;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use indicatif::ProgressBar;

use super::Wanted;
use super::part::Pipe;
use super::ranges::{self, Verdict};
use crate::cli::address::NodeUrl;
use crate::cli::client::{self, Client, Interrupted};
use crate::cli::fault::Fault;

/// Attempts in a row that may bring nothing.
const ATTEMPTS: u32 = 5;
/// The pause before the second attempt; it doubles with each.
const PAUSE: Duration = Duration::from_millis(500);
/// Ranges under way per node.
const PER_NODE: usize = 2;

/// Why a download stopped.
#[derive(Debug)]
pub(super) enum Break {
    /// The node has other bytes under that name now.
    Changed,
    Fault(Fault),
}

impl From<Fault> for Break {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Why one attempt stopped.
enum Setback {
    Changed,
    /// Another attempt may help, after a pause if the node asked for one.
    Passing(Fault, Option<Duration>),
    Final(Fault),
}

impl From<Interrupted> for Setback {
    fn from(cut: Interrupted) -> Self {
        Self::Passing(Fault::Failed(cut.to_string()), None)
    }
}

/// Fetches everything from where the pipe stands to the end.
pub(super) async fn fetch(client: &Client, nodes: &[NodeUrl], wanted: &Wanted, pipe: &mut Pipe, bar: &ProgressBar) -> Result<(), Break> {
    match nodes {
        [node] => from_one(client, node, wanted, pipe, bar).await,
        _ => from_many(client, nodes, wanted, pipe, bar).await,
    }
}

async fn from_one(client: &Client, node: &NodeUrl, wanted: &Wanted, pipe: &mut Pipe, bar: &ProgressBar) -> Result<(), Break> {
    let mut failures = 0;
    while pipe.taken() < wanted.size {
        let before = pipe.taken();
        let setback = match stretch(client, node, wanted, pipe, bar).await {
            Ok(()) => return Ok(()),
            Err(setback) => setback,
        };
        match setback {
            Setback::Changed => return Err(Break::Changed),
            Setback::Final(fault) => return Err(fault.into()),
            Setback::Passing(fault, pause) => {
                failures = if pipe.taken() > before { 1 } else { failures + 1 };
                if failures >= ATTEMPTS {
                    return Err(fault.into());
                }
                tokio::time::sleep(pause.unwrap_or(PAUSE * 2_u32.pow(failures - 1))).await;
            }
        }
    }
    Ok(())
}

/// One request, from where the pipe stands to the end.
async fn stretch(client: &Client, node: &NodeUrl, wanted: &Wanted, pipe: &mut Pipe, bar: &ProgressBar) -> Result<(), Setback> {
    let mut body = open(client, node, wanted, pipe.taken()..wanted.size).await?;
    while let Some(bytes) = body.next().await? {
        bar.inc(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        pipe.push(bytes).await.map_err(|error| Setback::Final(Fault::of_output(&error)))?;
    }
    Ok(())
}

async fn from_many(client: &Client, nodes: &[NodeUrl], wanted: &Wanted, pipe: &mut Pipe, bar: &ProgressBar) -> Result<(), Break> {
    let crew = Crew::new(nodes);
    let ranges = ranges::plan(pipe.taken(), wanted.size, nodes.len());
    let mut segments = stream::iter(ranges).map(|range| crew.segment(client, wanted, range)).buffered(nodes.len() * PER_NODE);
    while let Some(segment) = segments.next().await {
        for bytes in segment? {
            bar.inc(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            pipe.push(bytes).await.map_err(|error| Fault::of_output(&error))?;
        }
    }
    Ok(())
}

/// The nodes that a download is shared among.
struct Crew {
    hands: RefCell<Vec<Hand>>,
}

struct Hand {
    node: NodeUrl,
    /// Requests under way.
    busy: usize,
    /// Attempts in a row without a byte.
    failures: u32,
    /// Why it is not asked any more.
    out: Option<Break>,
}

impl Crew {
    fn new(nodes: &[NodeUrl]) -> Self {
        let hand = |node: &NodeUrl| Hand { node: node.clone(), busy: 0, failures: 0, out: None };
        Self { hands: RefCell::new(nodes.iter().map(hand).collect()) }
    }

    /// Fetches a range, from as many nodes in turn as it takes.
    async fn segment(&self, client: &Client, wanted: &Wanted, range: Range<u64>) -> Result<Vec<Bytes>, Break> {
        let mut got = Vec::new();
        let mut position = range.start;
        while position < range.end {
            let (hand, node) = self.assign()?;
            let before = position;
            let outcome = piece(client, &node, wanted, position..range.end, &mut got).await;
            position = range.start + got.iter().map(|bytes: &Bytes| u64::try_from(bytes.len()).unwrap_or(0)).sum::<u64>();
            if let Some(pause) = self.report(hand, position > before, outcome) {
                tokio::time::sleep(pause).await;
            }
        }
        Ok(got)
    }

    /// The least busy node still asked, of those the one that failed least; or why there is none left.
    fn assign(&self) -> Result<(usize, NodeUrl), Break> {
        let mut hands = self.hands.borrow_mut();
        let able = hands.iter_mut().enumerate().filter(|(_, hand)| hand.out.is_none());
        if let Some((place, hand)) = able.min_by_key(|(_, hand)| (hand.busy, hand.failures)) {
            hand.busy += 1;
            return Ok((place, hand.node.clone()));
        }
        // A fault tells more than a change, which is what remains when every node answered.
        let fault = hands.iter().find_map(|hand| match &hand.out {
            Some(Break::Fault(fault)) => Some(fault.clone()),
            Some(Break::Changed) | None => None,
        });
        Err(fault.map_or(Break::Changed, Break::Fault))
    }

    /// Notes how an attempt went; gives the pause to make.
    fn report(&self, place: usize, progress: bool, outcome: Result<(), Setback>) -> Option<Duration> {
        let mut hands = self.hands.borrow_mut();
        let hand = hands.get_mut(place)?;
        hand.busy -= 1;
        hand.failures = if progress { 0 } else { hand.failures };
        match outcome {
            Ok(()) => None,
            Err(Setback::Changed) => {
                hand.out = Some(Break::Changed);
                None
            }
            Err(Setback::Final(fault)) => {
                hand.out = Some(fault.into());
                None
            }
            Err(Setback::Passing(fault, pause)) => {
                hand.failures += 1;
                if hand.failures >= ATTEMPTS {
                    hand.out = Some(fault.into());
                }
                Some(pause.unwrap_or(PAUSE))
            }
        }
    }
}

/// One request for a piece of a segment.
async fn piece(client: &Client, node: &NodeUrl, wanted: &Wanted, range: Range<u64>, got: &mut Vec<Bytes>) -> Result<(), Setback> {
    let mut body = open(client, node, wanted, range).await?;
    while let Some(bytes) = body.next().await? {
        got.push(bytes);
    }
    Ok(())
}

/// Asks for a range; whatever else the node answers is a setback.
async fn open(client: &Client, node: &NodeUrl, wanted: &Wanted, range: Range<u64>) -> Result<Body, Setback> {
    let mut request = client.read(node, &wanted.path());
    if range != (0..wanted.size) {
        request = request
            .insert_header((header::RANGE, format!("bytes={}-{}", range.start, range.end - 1)))
            .insert_header((header::IF_RANGE, format!("\"{}\"", wanted.etag)));
    }
    let response = client.send_any(node, request, ()).await.map_err(|fault| Setback::Passing(fault, None))?;
    let text = |name| client::header_text(&response, name);
    match ranges::judge(response.status(), text(header::ETAG), text(header::CONTENT_RANGE), &wanted.etag, range.start) {
        Verdict::Take { skip } => Ok(Body { response, skip, left: range.end - range.start }),
        Verdict::Changed => Err(Setback::Changed),
        Verdict::Refused => match client::busy(&response) {
            Some(pause) => Err(Setback::Passing(client::refusal(response).await, Some(pause))),
            None => Err(Setback::Final(client::refusal(response).await)),
        },
    }
}

/// The bytes of an answer, from the first wanted one to the last.
struct Body {
    response: ClientResponse,
    /// Bytes before the first wanted one.
    skip: u64,
    /// Bytes still to come after those.
    left: u64,
}

impl Body {
    /// `None` after the last byte. An end before it is an interruption: the connection was cut, and nobody says so.
    async fn next(&mut self) -> Result<Option<Bytes>, Interrupted> {
        while self.left > 0 {
            let Some(mut bytes) = client::chunk(&mut self.response).await? else {
                return Err(Interrupted(format!("the connection ended {} bytes early", self.left)));
            };
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            drop(bytes.split_to(skipped));
            self.skip -= u64::try_from(skipped).unwrap_or(0);
            bytes.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            if !bytes.is_empty() {
                self.left -= u64::try_from(bytes.len()).unwrap_or(0);
                return Ok(Some(bytes));
            }
        }
        // The connection can be used again only when the end was seen. A fault now no longer matters: all bytes are here.
        drop(client::chunk(&mut self.response).await);
        Ok(None)
    }
}
