//! Byte ranges (RFC 9110 section 14).
//!
//! 1. What cannot be read as byte ranges is ignored: the answer is the whole.
//! 2. Several ranges are answered with the whole, as the RFC allows; a single one, of any of the three forms, with just that.
//! 3. No number in a header, however long, overflows: it counts as the largest there is.

use std::ops::Range;

/// What a `Range` header asks of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selection {
    /// Everything: 200.
    Whole,
    /// These bytes, never empty: 206.
    Part(Range<u64>),
    /// Nothing that is here: 416.
    Unsatisfiable,
}

/// Reads a `Range` header for a payload of `size` bytes.
pub(super) fn select(header: &str, size: u64) -> Selection {
    let Some((unit, ranges)) = header.split_once('=') else { return Selection::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Selection::Whole;
    }
    let mut ranges = ranges.split(',').map(str::trim).filter(|range| !range.is_empty());
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return Selection::Whole };
    let Some((first, last)) = range.split_once('-') else { return Selection::Whole };
    match (number(first), number(last)) {
        (Number::Is(first), Number::Is(last)) if last < first => Selection::Whole,
        (Number::Is(first), _) if !matches!(number(last), Number::Not) && first >= size => Selection::Unsatisfiable,
        (Number::Is(first), Number::Is(last)) => Selection::Part(first..last.saturating_add(1).min(size)),
        (Number::Is(first), Number::Absent) => Selection::Part(first..size),
        (Number::Absent, Number::Is(0)) => Selection::Unsatisfiable,
        // The end of nothing is all of it.
        (Number::Absent, Number::Is(_)) if size == 0 => Selection::Whole,
        (Number::Absent, Number::Is(suffix)) => Selection::Part(size.saturating_sub(suffix)..size),
        (Number::Absent, Number::Absent) | (Number::Not, _) | (_, Number::Not) => Selection::Whole,
    }
}

#[derive(Debug, Clone, Copy)]
enum Number {
    Absent,
    Is(u64),
    Not,
}

fn number(text: &str) -> Number {
    let text = text.trim();
    if text.is_empty() {
        Number::Absent
    } else if text.bytes().all(|digit| digit.is_ascii_digit()) {
        Number::Is(text.parse().unwrap_or(u64::MAX))
    } else {
        Number::Not
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_select_what_the_rfc_says() {
        assert_eq!(select("bytes=0-0", 10), Selection::Part(0..1));
        assert_eq!(select("bytes=2-5", 10), Selection::Part(2..6));
        assert_eq!(select("bytes=2-500", 10), Selection::Part(2..10), "a last byte beyond the end is cut");
        assert_eq!(select("bytes=9-", 10), Selection::Part(9..10));
        assert_eq!(select("bytes=-3", 10), Selection::Part(7..10));
        assert_eq!(select("bytes=-300", 10), Selection::Part(0..10), "a suffix longer than the whole is the whole");
        assert_eq!(select("Bytes = 0-1", 10), Selection::Part(0..2), "units are compared without case");
    }

    #[test]
    fn what_is_not_here_is_unsatisfiable() {
        for header in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(select(header, 10), Selection::Unsatisfiable, "{header}");
        }
        assert_eq!(select("bytes=0-", 0), Selection::Unsatisfiable);
        assert_eq!(select("bytes=-5", 0), Selection::Whole);
    }

    #[test]
    fn what_cannot_be_read_is_the_whole() {
        for header in
            ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-2", "bytes=1-x", "bytes=x-1", "items=0-1", "bytes=+1-2", "bytes=1--2"]
        {
            assert_eq!(select(header, 10), Selection::Whole, "{header}");
        }
        assert_eq!(select("bytes=20-x", 10), Selection::Whole, "malformed before unsatisfiable");
    }

    #[test]
    fn several_ranges_are_the_whole_and_long_numbers_do_not_overflow() {
        assert_eq!(select("bytes=0-1,4-5", 10), Selection::Whole);
        assert_eq!(select("bytes=0-1,", 10), Selection::Part(0..2), "an empty element is no range");
        assert_eq!(select("bytes=0-99999999999999999999999", 10), Selection::Part(0..10));
        assert_eq!(select(&format!("bytes=0-{}", u64::MAX), u64::MAX), Selection::Part(0..u64::MAX));
    }
}
