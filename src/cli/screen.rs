//! What the commands write: results to standard output, everything else to standard error.
//!
//! 1. Standard output carries links, data and tables only, so that it can be piped.
//! 2. Bars appear on a terminal only, on standard error, and never garble a line of output.
//! 3. Text from strangers (file names above all) never reaches a terminal with its control characters.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::fault::Fault;

const BAR: &str = "{msg:30!} {bytes:>11} of {total_bytes:>11} {binary_bytes_per_sec:>13} {eta:>4} {wide_bar}";
const SPINNER: &str = "{msg:30!} {bytes:>11} {binary_bytes_per_sec:>13} {spinner}";

/// Standard output and standard error.
#[derive(Debug)]
pub(crate) struct Screen {
    bars: Option<MultiProgress>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self { bars: io::stderr().is_terminal().then(MultiProgress::new) }
    }

    /// Writes a line of results.
    pub(crate) fn line(&self, text: &str) -> Result<(), Fault> {
        self.raw(&format!("{text}\n"))
    }

    /// Writes results as they are.
    pub(crate) fn raw(&self, text: &str) -> Result<(), Fault> {
        let write = || {
            let mut output = io::stdout().lock();
            output.write_all(text.as_bytes())?;
            output.flush()
        };
        self.aside(write).map_err(|error| Fault::of_output(&error))
    }

    /// Writes a remark for people. There is nobody to tell when even that fails.
    pub(crate) fn note(&self, text: &str) {
        self.aside(|| writeln!(io::stderr(), "gossip-cdn: {text}").ok());
    }

    /// A bar of `total` bytes, or a spinner where the total is unknown; invisible without a terminal.
    pub(crate) fn bar(&self, name: &str, total: Option<u64>) -> ProgressBar {
        let Some(bars) = &self.bars else { return ProgressBar::hidden() };
        let bar = bars.add(total.map_or_else(ProgressBar::no_length, ProgressBar::new));
        if let Ok(style) = ProgressStyle::with_template(if total.is_some() { BAR } else { SPINNER }) {
            bar.set_style(style);
        }
        bar.set_message(printable(name));
        bar.enable_steady_tick(Duration::from_millis(250));
        bar
    }

    /// Does something with the terminal while the bars keep out of the way.
    fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }
}

/// Whether a person looks at standard output.
pub(crate) fn is_watched() -> bool {
    io::stdout().is_terminal()
}

/// `text` without what could move a cursor, colour a terminal or turn the direction of writing.
pub(crate) fn printable(text: &str) -> String {
    let harmful = |c: char| c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if harmful(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Rows with their columns aligned; the last column is not padded.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A number of bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_strangers_cannot_steer_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}gpj.exe\n"), "a\u{fffd}[2Jb\u{fffd}gpj.exe\u{fffd}");
        assert_eq!(printable("été 夏.jpg"), "été 夏.jpg");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["a", "bb"], ["ccc", ""]].map(|row| row.map(String::from).to_vec());
        assert_eq!(table(&rows), "a    bb\nccc\n");
        assert_eq!(table(&[]), "");
    }
}
