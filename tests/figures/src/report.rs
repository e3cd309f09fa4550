//! What is printed: rows of a markdown table, and why there are none.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

/// Something that must hold does not, or the measurement cannot be made.
#[derive(Debug)]
pub(crate) struct Broken(String);

impl Broken {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Broken {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// An error unless the claim holds.
pub(crate) fn claim(holds: bool, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken(what())) }
}

/// Something measured, of which less is better.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Amount {
    /// Time.
    Time(Duration),
    /// Bytes.
    Bytes(f64),
    /// Bytes a second.
    Rate(f64),
    /// A quotient.
    Factor(f64),
    /// A number of things.
    Count(u64),
}

impl Amount {
    /// A time in milliseconds.
    pub(crate) fn millis(millis: u64) -> Self {
        Self::Time(Duration::from_millis(millis))
    }

    /// A time in seconds.
    pub(crate) fn seconds(seconds: u64) -> Self {
        Self::Time(Duration::from_secs(seconds))
    }

    fn value(self) -> f64 {
        match self {
            Self::Time(time) => time.as_secs_f64(),
            Self::Bytes(value) | Self::Rate(value) | Self::Factor(value) => value,
            Self::Count(count) => count as f64,
        }
    }
}

impl Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Time(time) if time.as_micros() < 1000 => write!(f, "{} us", time.as_micros()),
            Self::Time(time) if time.as_millis() < 1000 => write!(f, "{:.1} ms", time.as_secs_f64() * 1e3),
            Self::Time(time) => write!(f, "{:.1} s", time.as_secs_f64()),
            Self::Bytes(bytes) if *bytes < 100.0 => write!(f, "{bytes:.1} B"),
            Self::Bytes(bytes) => write!(f, "{bytes:.0} B"),
            Self::Rate(bytes) => write!(f, "{bytes:.0} B/s"),
            Self::Factor(factor) => write!(f, "{factor:.3}"),
            Self::Count(count) => write!(f, "{count}"),
        }
    }
}

/// Figures beside goals.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<String>,
    /// Goals that were missed.
    missed: Vec<String>,
}

impl Report {
    /// A figure, the goal, and their ratio: at most 1 where the goal is met. A goal of nothing is met by nothing, and has no ratio.
    pub(crate) fn row(&mut self, what: &str, figure: Amount, goal: Amount) {
        let (measured, wanted) = (figure.value(), goal.value());
        let ratio = if wanted > 0.0 { format!("{:.2}", measured / wanted) } else { "-".to_owned() };
        if measured > wanted {
            self.missed.push(what.to_owned());
        }
        self.line(what, &figure.to_string(), &goal.to_string(), &ratio);
    }

    /// A figure that has no goal.
    pub(crate) fn note(&mut self, what: &str, figure: &str) {
        self.line(what, figure, "", "");
    }

    fn line(&mut self, what: &str, figure: &str, goal: &str, ratio: &str) {
        remark(&format!("{what}: {figure}"));
        self.rows.push(format!("| {what} | {figure} | {goal} | {ratio} |"));
    }

    /// The goals that were missed, by what was measured.
    #[cfg(test)]
    pub(crate) fn missed(&self) -> &[String] {
        &self.missed
    }

    /// Prints the table.
    pub(crate) fn print(&self) -> Result<(), Broken> {
        let mut out = io::stdout().lock();
        writeln!(out, "| quantity | measured | goal | ratio |\n|---|---|---|---|\n{}", self.rows.join("\n"))?;
        if !self.missed.is_empty() {
            remark(&format!("beyond the goal: {}", self.missed.join("; ")));
        }
        Ok(())
    }
}

/// Tells on standard error how it goes.
pub(crate) fn remark(text: &str) {
    // Whoever closed it does not want to know.
    drop(writeln!(io::stderr(), "figures: {text}"));
}

/// The value below which that many thousandths of the values lie.
pub(crate) fn quantile(values: &mut [Duration], thousandths: usize) -> Duration {
    values.sort_unstable();
    let place = (values.len() * thousandths / 1000).min(values.len().saturating_sub(1));
    values.get(place).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let mut values: Vec<Duration> = (1..=1000).rev().map(Duration::from_millis).collect();
        assert_eq!(quantile(&mut values, 500), Duration::from_millis(501));
        assert_eq!(quantile(&mut values, 990), Duration::from_millis(991));
        assert_eq!(quantile(&mut values, 1000), Duration::from_millis(1000));
        assert_eq!(quantile(&mut [], 500), Duration::ZERO);
    }

    #[test]
    fn a_goal_that_is_missed_is_named_and_one_that_is_met_is_not() {
        let mut report = Report::default();
        report.row("quick", Amount::millis(15), Amount::millis(20));
        report.row("large", Amount::Bytes(513.0), Amount::Bytes(512.0));
        report.row("lost", Amount::Count(0), Amount::Count(0));
        report.note("written", "many");
        assert_eq!(report.missed(), ["large"]);
        assert_eq!(report.rows[0], "| quick | 15.0 ms | 20.0 ms | 0.75 |");
        assert_eq!(report.rows[2], "| lost | 0 | 0 | - |");
        assert_eq!(report.rows[3], "| written | many |  |  |");
    }
}
