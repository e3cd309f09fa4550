//! What is printed: figures of the node beside those of its peer, and the goal.

use std::fmt::Display;
use std::io::{self, Write};

/// A measurement that could not be made, or in which a request failed.
#[derive(Debug)]
pub(crate) struct Failed(pub(crate) String);

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// What is counted of a row; more is better.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Unit {
    /// Requests a second.
    Requests,
    /// Bytes a second.
    Bytes,
}

impl Unit {
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Requests if value >= 10_000.0 => format!("{:.1}k/s", value / 1e3),
            Self::Requests => format!("{value:.0}/s"),
            Self::Bytes => format!("{:.2} GB/s", value / 1e9),
        }
    }
}

/// What is wanted of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    /// So many times what the peer reaches in the same run.
    OfPeer(f64),
    /// So many times what Garage 2.5 reached, in requests a second, when it was measured on a machine of this kind: not in this run.
    OfGarage(f64, f64),
}

/// A row: one load, given to both in turn.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) unit: Unit,
    /// The node's figure and its peer's, turn by turn.
    pub(crate) turns: Vec<(f64, f64)>,
    pub(crate) peer: &'static str,
    pub(crate) goal: Goal,
    /// Most memory the node had in the row, in bytes.
    pub(crate) memory: u64,
}

impl Row {
    fn line(&self) -> String {
        let (ours, peer) = (median(self.turns.iter().map(|turn| turn.0)), median(self.turns.iter().map(|turn| turn.1)));
        let ratio = median(self.turns.iter().map(|(ours, peer)| ours / peer));
        let (held, goal) = match self.goal {
            Goal::OfPeer(factor) => (ratio >= factor, format!("{factor} x {}", self.peer)),
            Goal::OfGarage(factor, garage) => {
                (ours >= factor * garage, format!("{factor} x Garage, recorded: {}", self.unit.show(factor * garage)))
            }
        };
        let (what, ours, theirs) = (&self.what, self.unit.show(ours), self.unit.show(peer));
        let held = if held { "yes" } else { "**no**" };
        format!("| {what} | {ours} | {} {theirs} | {ratio:.2} | {goal} | {held} | {} MiB |", self.peer, self.memory >> 20)
    }
}

/// Rows as they come.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    /// Adds a row, and tells it.
    pub(crate) fn add(&mut self, row: Row) {
        remark(&row.line());
        self.0.push(row);
    }

    /// Prints all.
    pub(crate) fn print(&self) -> Result<(), Failed> {
        let mut out = io::stdout().lock();
        writeln!(out, "| load | node | peer | ratio | goal | held | node's memory |\n|---|---|---|---|---|---|---|")?;
        self.0.iter().try_for_each(|row| writeln!(out, "{}", row.line()))?;
        Ok(())
    }
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match (values.get(values.len().saturating_sub(1) / 2), values.get(values.len() / 2)) {
        (Some(below), Some(above)) => f64::midpoint(*below, *above),
        _ => f64::NAN,
    }
}

/// Tells on standard error how it goes.
pub(crate) fn remark(text: &(impl Display + ?Sized)) {
    // Whoever closed it does not want to know.
    drop(writeln!(io::stderr(), "benches: {text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(turns: &[(f64, f64)], goal: Goal) -> String {
        Row { what: "GET".into(), unit: Unit::Requests, turns: turns.to_vec(), peer: "nginx", goal, memory: 30 << 20 }.line()
    }

    #[test]
    fn the_ratio_is_the_median_of_pairs_and_not_of_lucky_turns() {
        let line = row(&[(50.0, 100.0), (60.0, 100.0), (900.0, 1000.0)], Goal::OfPeer(0.75));
        assert_eq!(line, "| GET | 60/s | nginx 100/s | 0.60 | 0.75 x nginx | **no** | 30 MiB |");
    }

    #[test]
    fn what_was_recorded_elsewhere_is_called_so() {
        let line = row(&[(20_000.0, 2000.0)], Goal::OfGarage(10.0, 1400.0));
        assert_eq!(line, "| GET | 20.0k/s | nginx 2000/s | 10.00 | 10 x Garage, recorded: 14.0k/s | yes | 30 MiB |");
    }

    #[test]
    fn a_median_of_two_lies_between_them() {
        assert!((median([1.0, 2.0].into_iter()) - 1.5).abs() < 1e-9);
        assert!(median([].into_iter()).is_nan());
    }
}
