//! Byte ranges (RFC 9110 section 14).
//!
//! 1. What cannot be read as byte ranges is ignored: the answer is the whole.
//! 2. Of several ranges those that overlap or touch become one, so that no byte is sent twice. More than [`MAX_RANGES`] are the whole.
//! 3. No number in a header, however long, overflows: it counts as the largest there is.

use std::ops::Range;

/// Most ranges that are answered one by one.
const MAX_RANGES: usize = 16;

/// What a `Range` header asks of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selection {
    /// Everything: 200.
    Whole,
    /// These bytes, never empty: 206.
    Part(Range<u64>),
    /// Two or more of these, apart from each other: 206, as `multipart/byteranges`.
    Parts(Vec<Range<u64>>),
    /// Nothing that is here: 416.
    Unsatisfiable,
}

/// Reads a `Range` header for a payload of `size` bytes.
pub(super) fn select(header: &str, size: u64) -> Selection {
    let Some((unit, ranges)) = header.split_once('=') else { return Selection::Whole };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Selection::Whole;
    }
    let ranges: Vec<&str> = ranges.split(',').map(str::trim).filter(|range| !range.is_empty()).take(MAX_RANGES + 1).collect();
    if ranges.len() > MAX_RANGES {
        return Selection::Whole;
    }
    let mut parts = Vec::new();
    for range in &ranges {
        match one(range, size) {
            One::Part(part) => parts.push(part),
            One::Unsatisfiable => {}
            One::Whole => return Selection::Whole,
        }
    }
    let mut parts = coalesced(parts);
    match parts.len() {
        0 if ranges.is_empty() => Selection::Whole,
        0 => Selection::Unsatisfiable,
        1 => Selection::Part(parts.remove(0)),
        _ => Selection::Parts(parts),
    }
}

/// What one range of a list asks.
enum One {
    Part(Range<u64>),
    Unsatisfiable,
    /// It cannot be read, or asks for the end of nothing.
    Whole,
}

fn one(range: &str, size: u64) -> One {
    let Some((first, last)) = range.split_once('-') else { return One::Whole };
    match (number(first), number(last)) {
        (Number::Is(first), Number::Is(last)) if last < first => One::Whole,
        (Number::Is(first), Number::Is(_) | Number::Absent) if first >= size => One::Unsatisfiable,
        (Number::Is(first), Number::Is(last)) => One::Part(first..last.saturating_add(1).min(size)),
        (Number::Is(first), Number::Absent) => One::Part(first..size),
        (Number::Absent, Number::Is(0)) => One::Unsatisfiable,
        // The end of nothing is all of it.
        (Number::Absent, Number::Is(_)) if size == 0 => One::Whole,
        (Number::Absent, Number::Is(suffix)) => One::Part(size.saturating_sub(suffix)..size),
        (Number::Absent, Number::Absent) | (Number::Not, _) | (_, Number::Not) => One::Whole,
    }
}

/// Makes one of those that overlap or touch. If there are any, the parts are in the order of the payload, else in that of the request
/// (RFC 9110 section 15.3.7.2).
fn coalesced(parts: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut sorted = parts.clone();
    sorted.sort_unstable_by_key(|part| part.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for part in sorted {
        match merged.last_mut() {
            Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
            Some(_) | None => merged.push(part),
        }
    }
    if merged.len() == parts.len() { parts } else { merged }
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
        assert_eq!(select("Bytes=0-1", 10), Selection::Part(0..2), "units are compared without case");
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
        for header in [
            "",
            "bytes",
            "bytes =0-1",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-2",
            "bytes=1-x",
            "bytes=x-1",
            "items=0-1",
            "bytes=+1-2",
            "bytes=1--2",
        ] {
            assert_eq!(select(header, 10), Selection::Whole, "{header}");
        }
        assert_eq!(select("bytes=20-x", 10), Selection::Whole, "malformed before unsatisfiable");
    }

    #[test]
    fn several_ranges_are_parts_in_the_order_asked_for() {
        assert_eq!(select("bytes=0-1,4-5", 10), Selection::Parts(vec![0..2, 4..6]));
        assert_eq!(select("bytes=-1, 0-1 ,4-5", 10), Selection::Parts(vec![9..10, 0..2, 4..6]));
        assert_eq!(select("bytes=0-1,", 10), Selection::Part(0..2), "an empty element is no range");
        assert_eq!(select("bytes=0-1,20-", 10), Selection::Part(0..2), "what is not here is left out");
        assert_eq!(select("bytes=20-,30-", 10), Selection::Unsatisfiable);
        assert_eq!(select("bytes=0-1,x", 10), Selection::Whole, "a list that cannot be read is none");
    }

    #[test]
    fn ranges_that_overlap_or_touch_are_one_and_too_many_are_the_whole() {
        assert_eq!(select("bytes=0-4,2-6", 10), Selection::Part(0..7));
        assert_eq!(select("bytes=5-6,0-1,2-3", 10), Selection::Parts(vec![0..4, 5..7]));
        assert_eq!(select("bytes=0-,-1,3-3", 10), Selection::Part(0..10));
        let list = |count: u64| (0..count).map(|n| format!("{}-{}", 2 * n, 2 * n)).collect::<Vec<_>>().join(",");
        assert!(matches!(select(&format!("bytes={}", list(16)), 100), Selection::Parts(parts) if parts.len() == 16));
        assert_eq!(select(&format!("bytes={}", list(17)), 100), Selection::Whole);
    }

    #[test]
    fn long_numbers_do_not_overflow() {
        assert_eq!(select("bytes=0-99999999999999999999999", 10), Selection::Part(0..10));
        assert_eq!(select(&format!("bytes=0-{}", u64::MAX), u64::MAX), Selection::Part(0..u64::MAX));
    }
}
