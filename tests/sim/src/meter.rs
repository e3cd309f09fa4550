//! What a run cost and how fast it was: the report, comparable between commits, without any time of the machine it ran on.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use gossip_cdn_protocol::wire::Kind;

use crate::wire::{ANSWER_HEAD, REQUEST_HEAD};

/// Many values, kept to one part in 64: the bucket of a value is its first seven binary digits and its length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Samples {
    buckets: BTreeMap<u64, u64>,
    count: u64,
    sum: u64,
    greatest: u64,
}

const DIGITS: u32 = 6;

impl Samples {
    pub(crate) fn add(&mut self, value: u64) {
        *self.buckets.entry(bucket(value)).or_default() += 1;
        self.count += 1;
        self.sum += value;
        self.greatest = self.greatest.max(value);
    }

    fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.buckets {
            *self.buckets.entry(*bucket).or_default() += count;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.greatest = self.greatest.max(other.greatest);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The greatest of them, exactly.
    pub fn greatest(&self) -> u64 {
        self.greatest
    }

    /// The least value that so many per cent of them do not exceed, at most one part in 64 too great.
    pub fn percentile(&self, percent: u64) -> u64 {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (bucket, count) in &self.buckets {
            seen += count;
            if seen >= rank {
                return upper(*bucket).min(self.greatest);
            }
        }
        self.greatest
    }
}

/// The bucket of a value; buckets are in the order of their values.
fn bucket(value: u64) -> u64 {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(DIGITS + 1);
    u64::from(shift) << (DIGITS + 1) | value >> shift
}

fn upper(bucket: u64) -> u64 {
    let shift = bucket >> (DIGITS + 1);
    let digits = bucket & ((1 << (DIGITS + 1)) - 1);
    (digits << shift) + (1 << shift) - 1
}

/// Microseconds, written as seconds.
pub(crate) fn seconds(micros: u64) -> String {
    format!("{}.{:02}", micros / 1_000_000, micros % 1_000_000 / 10_000)
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [half, most, all] = [self.percentile(50), self.percentile(99), self.greatest].map(seconds);
        write!(f, "p50 {half} s, p99 {most} s, all {all} s ({} of them)", self.count)
    }
}

/// The calls of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Calls made.
    pub calls: u64,
    /// Requests that arrived; twins count again.
    pub delivered: u64,
    /// Calls whose answer came in time.
    pub answered: u64,
    /// Bytes of the requests sent, heads included.
    pub request_bytes: u64,
    /// Bytes of the answers sent, heads included.
    pub answer_bytes: u64,
}

impl Traffic {
    /// Bytes of both directions.
    pub fn bytes(&self) -> u64 {
        self.request_bytes + self.answer_bytes
    }

    /// A request of so many bytes to a path of so many.
    pub(crate) fn on_request(&mut self, path: u64, body: u64) {
        self.calls += 1;
        self.request_bytes += body + path + REQUEST_HEAD;
    }

    pub(crate) fn on_answer(&mut self, body: u64) {
        self.delivered += 1;
        self.answer_bytes += body + ANSWER_HEAD;
    }

    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.delivered += other.delivered;
        self.answered += other.answered;
        self.request_bytes += other.request_bytes;
        self.answer_bytes += other.answer_bytes;
    }
}

/// What a run, or several, cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether messages were weighed.
    pub weighed: bool,
    /// Seconds that all nodes ran, added up.
    pub node_seconds: u64,
    /// Calls between nodes.
    pub calls: BTreeMap<Kind, Traffic>,
    /// Calls to the bootstrap node.
    pub joins: Traffic,
    /// Versions made.
    pub changes: u64,
    /// Versions that reached a disk that had neither them nor a later one, but for their writer's: what has to be sent.
    pub needed: u64,
    /// Records received by running nodes, in whatever message.
    pub copies: u64,
    /// Payload bytes that arrived, wrong and broken ones included.
    pub payload_received: u64,
    /// Payload bytes that arrived and were stored where they had not been.
    pub payload_stored: u64,
    /// From a write to each other disk that got its version.
    pub spread: Samples,
    /// From a process' death to the first suspicion.
    pub suspected: Samples,
    /// From a process' death to the first that believes it.
    pub dead: Samples,
    /// From a process' death to when all running nodes believe it.
    pub known: Samples,
    /// Lives of running nodes of which some node suspected the end.
    pub false_suspicions: u64,
    /// Lives of running nodes of which some node believed the end.
    pub false_deaths: u64,
    /// Incarnations raised.
    pub refutations: u64,
    /// Differences that could not be read from the cells at hand.
    pub decode_failures: u64,
    /// Calls answered with a plea for patience.
    pub busy: u64,
}

impl Report {
    /// Adds another run.
    pub fn merge(&mut self, other: &Self) {
        self.weighed |= other.weighed;
        self.node_seconds += other.node_seconds;
        for (kind, traffic) in &other.calls {
            self.calls.entry(*kind).or_default().add(traffic);
        }
        self.joins.add(&other.joins);
        self.changes += other.changes;
        self.needed += other.needed;
        self.copies += other.copies;
        self.payload_received += other.payload_received;
        self.payload_stored += other.payload_stored;
        self.spread.merge(&other.spread);
        self.suspected.merge(&other.suspected);
        self.dead.merge(&other.dead);
        self.known.merge(&other.known);
        self.false_suspicions += other.false_suspicions;
        self.false_deaths += other.false_deaths;
        self.refutations += other.refutations;
        self.decode_failures += other.decode_failures;
        self.busy += other.busy;
    }

    pub(crate) fn of(&mut self, kind: Kind) -> &mut Traffic {
        self.calls.entry(kind).or_default()
    }

    /// Calls of one kind.
    pub fn traffic(&self, kind: Kind) -> Traffic {
        self.calls.get(&kind).copied().unwrap_or_default()
    }

    /// Bytes of all calls between nodes.
    pub fn bytes(&self) -> u64 {
        self.calls.values().map(Traffic::bytes).sum()
    }

    /// Bytes of one kind of call, for a table.
    fn line(&self, name: &str, traffic: &Traffic) -> String {
        let weight = if self.weighed {
            let each = traffic.bytes() / traffic.calls.max(1);
            format!(", {} bytes, {each} a call", traffic.bytes())
        } else {
            String::new()
        };
        format!("  {name}: {} calls, {} answered{weight}\n", traffic.calls, traffic.answered)
    }
}

/// A quotient with two digits behind the point.
pub(crate) fn ratio(of: u64, by: u64) -> String {
    let hundredths = u128::from(of) * 100 / u128::from(by.max(1));
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = self.traffic(Kind::Exchange).calls;
        writeln!(f, "rounds {rounds}, {} a node and second", ratio(rounds, self.node_seconds))?;
        f.write_str("calls by kind, heads included:\n")?;
        for (kind, traffic) in &self.calls {
            f.write_str(&self.line(kind.name(), traffic))?;
        }
        f.write_str(&self.line("join", &self.joins))?;
        if self.weighed {
            writeln!(f, "bytes a node and second: {}", ratio(self.bytes(), self.node_seconds))?;
        }
        writeln!(f, "changes {}, record copies received for each one needed: {}", self.changes, ratio(self.copies, self.needed))?;
        writeln!(f, "payload bytes received for each one stored: {}", ratio(self.payload_received, self.payload_stored))?;
        writeln!(f, "spread: {}", self.spread)?;
        writeln!(f, "killed, then suspected: {}", self.suspected)?;
        writeln!(f, "killed, then believed dead: {}", self.dead)?;
        writeln!(f, "killed, then known to all: {}", self.known)?;
        writeln!(f, "false suspicions {}, false deaths {}, refutations {}", self.false_suspicions, self.false_deaths, self.refutations)?;
        writeln!(f, "decode failures {}, pleas for patience {}", self.decode_failures, self.busy)?;
        f.write_char('\n')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::PATH;

    #[test]
    fn a_percentile_is_at_most_one_part_in_64_too_great() {
        let mut samples = Samples::default();
        (1..=100_000).for_each(|value| samples.add(value));
        for percent in [1, 50, 90, 99] {
            let (exact, found) = (percent * 1000, samples.percentile(percent));
            assert!(found >= exact && found <= exact + exact / 64, "{percent}: {found}");
        }
        assert_eq!((samples.percentile(100), samples.greatest(), samples.count()), (100_000, 100_000, 100_000));
    }

    #[test]
    fn buckets_are_in_the_order_of_their_values() {
        let mut values: Vec<u64> = (0..64).flat_map(|bits| [(1 << bits) - 1, 1 << bits, (1 << bits) + (1 << bits) / 3]).collect();
        values.sort_unstable();
        assert!(values.windows(2).all(|pair| bucket(pair[0]) <= bucket(pair[1])));
        assert!(values.iter().all(|value| upper(bucket(*value)) >= *value));
    }

    #[test]
    fn reports_add_up_in_any_order() {
        let run = |n: u64| {
            let mut report = Report { changes: n, copies: 3 * n, needed: n, ..Report::default() };
            report.spread.add(n * 1000);
            report.of(Kind::Exchange).on_request(PATH, n);
            report
        };
        let (mut one, mut other) = (run(1), run(2));
        one.merge(&run(2));
        other.merge(&run(1));
        assert_eq!(one.to_string(), other.to_string());
        assert_eq!(one, other);
    }
}
