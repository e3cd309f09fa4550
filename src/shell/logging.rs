//! The log: on stderr, for people or for programs.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IsTerminal};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// What is logged where nobody says otherwise.
pub const DEFAULT_FILTER: &str = "info,actix_server=warn";

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One line of text each, in colour on a terminal.
    #[default]
    Pretty,
    /// One JSON object each.
    Json,
}

/// A log format that is not `pretty` or `json`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a log format; there are: pretty, json")]
pub struct BadLogFormat;

impl FromStr for LogFormat {
    type Err = BadLogFormat;

    fn from_str(text: &str) -> Result<Self, BadLogFormat> {
        match text {
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err(BadLogFormat),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pretty => "pretty",
            Self::Json => "json",
        })
    }
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter cannot be read.
    #[error("not a log filter: {0}; write for example info, or info,gossip_cdn=debug")]
    BadFilter(String),
    /// This process has a log already.
    #[error("the log is set up already: {0}")]
    Twice(#[from] TryInitError),
}

/// The time of a line: RFC 3339 in UTC, with microseconds.
///
/// Thousands of lines fall into one second, so each thread writes the second once.
#[derive(Debug, Clone, Copy)]
struct Clock;

/// A second, and how it is written: `2026-11-22T02:10:39`.
#[derive(Debug, Default)]
struct Second {
    number: u64,
    text: String,
}

impl Second {
    /// Writes a time, as long since 1970 as that.
    fn write(&mut self, since: Duration, to: &mut impl fmt::Write) -> fmt::Result {
        if self.text.is_empty() || self.number != since.as_secs() {
            self.number = since.as_secs();
            self.text = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(self.number)).to_string();
            // What is written of it goes on behind the second.
            self.text.truncate(self.text.trim_end_matches('Z').len());
        }
        to.write_str(&self.text)?;
        write!(to, ".{:06}Z", since.subsec_micros())
    }
}

impl FormatTime for Clock {
    #[expect(clippy::disallowed_methods, reason = "the log tells what time it is, to people")]
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        thread_local! {
            static SECOND: RefCell<Second> = RefCell::default();
        }
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        SECOND.with_borrow_mut(|second| second.write(since, writer))
    }
}

/// Starts the log of this process. `filter` is a level, and levels of targets: `info`, or `info,gossip_cdn=debug`.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LoggingError> {
    // Whether a line is wanted follows from its place in the code alone, and is found out once.
    let filter = filter.parse::<Targets>().map_err(|error| LoggingError::BadFilter(error.to_string()))?;
    let lines = tracing_subscriber::fmt::layer().with_timer(Clock).with_writer(io::stderr);
    let log = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Pretty => log.with(lines.with_ansi(io::stderr().is_terminal())).try_init()?,
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(true).with_span_list(false);
            log.with(lines).try_init()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_format_reads_back_as_it_was_written() {
        for format in [LogFormat::Pretty, LogFormat::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert_eq!("xml".parse::<LogFormat>(), Err(BadLogFormat));
    }

    #[test]
    fn a_line_tells_its_time_to_the_microsecond_whatever_second_came_before() {
        let mut second = Second::default();
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (7, "1970-01-01T00:00:00.000007Z"),
            (1_795_313_439_678_649, "2026-11-22T02:10:39.678649Z"),
            (1_795_313_439_999_999, "2026-11-22T02:10:39.999999Z"),
            (1_795_313_440_000_000, "2026-11-22T02:10:40.000000Z"),
            (1_795_313_439_000_001, "2026-11-22T02:10:39.000001Z"),
        ] {
            let mut written = String::new();
            second.write(Duration::from_micros(micros), &mut written).unwrap();
            assert_eq!(written, text);
        }
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_refused() {
        assert!(matches!(init(LogFormat::Pretty, "gossip=loud"), Err(LoggingError::BadFilter(_))));
    }
}
