//! What RFC 9110 has a server answer, and how nginx departs from the way in which we read it.
//!
//! A model of its own, which shares no line with the node: without any [`Departure`] it says what a node answers, with all of them what
//! nginx does. Whatever differs between the two is therefore explained by the departures that make a difference.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::asked::{Asked, Date, Tag, Validator};
use crate::seen::Seen;

/// Most ranges that a node answers one by one.
const MOST: usize = 16;

/// One thing that nginx does otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Departure {
    UnmodifiedBesideMatch,
    UnmodifiedUnreadable,
    ModifiedExact,
    ModifiedBesideNoneMatch,
    RangeOfHead,
    RangeIfDate,
    RangeUnreadable,
    RangeEmptyElement,
    RangeReversed,
    RangeOverlong,
    RangeOfNothing,
    RangesApart,
    RangesMany,
}

impl Departure {
    /// All of them, with what nginx does and why a node does not.
    pub(crate) const ALL: [(Self, &'static str, &'static str); 13] = [
        (
            Self::UnmodifiedBesideMatch,
            "judges If-Unmodified-Since beside If-Match",
            "it must be ignored where If-Match is there, which is more exact (13.1.4)",
        ),
        (Self::UnmodifiedUnreadable, "412 for an If-Unmodified-Since that is no date", "it must be ignored (13.1.4)"),
        (
            Self::ModifiedExact,
            "304 only for the very date in If-Modified-Since, by default",
            "not modified since a later date either (13.1.3); a cache that asks with its own Date gets its 304",
        ),
        (
            Self::ModifiedBesideNoneMatch,
            "200 where If-None-Match matches and If-Modified-Since does not",
            "it must be ignored there (13.1.3)",
        ),
        (Self::RangeOfHead, "206 or 416 to HEAD", "Range is defined for GET only, and must be ignored elsewhere (14.2)"),
        (
            Self::RangeIfDate,
            "honours a date in If-Range",
            "two writes may fall into one second, so a date is no strong validator here (8.8.2.2); a node has a strong tag",
        ),
        (Self::RangeUnreadable, "416 for what is no range", "may be ignored (14.2): the whole serves a client that cannot spell"),
        (Self::RangeEmptyElement, "416 for an empty element of the list", "a recipient must take a reasonable number of them (5.6.1.2)"),
        (
            Self::RangeReversed,
            "takes a range whose end is before its start for one that is not there",
            "it is invalid (14.1.1), so ignored as above",
        ),
        (Self::RangeOverlong, "416 for a number that does not fit in 64 bits", "it is a number behind the end like others (14.1.2)"),
        (Self::RangeOfNothing, "200 to a range of an empty file", "no byte of it can be there: 416 (14.1.2), unless a suffix is asked for"),
        (
            Self::RangesApart,
            "sends overlapping ranges twice; the whole if that is more than the file",
            "may be coalesced (15.3.7.2): no byte travels twice",
        ),
        (Self::RangesMany, "as many ranges as are asked for", "17 or more are answered with the whole: a defence that 14.2 recommends"),
    ];

    /// The set of all.
    pub(crate) fn all() -> BTreeSet<Self> {
        Self::ALL.into_iter().map(|(departure, ..)| departure).collect()
    }
}

/// The answer of a server that departs so.
pub(crate) fn answer(asked: &Asked, departures: &BTreeSet<Departure>) -> Seen {
    let departs = |departure| departures.contains(&departure);
    let size = asked.size();
    let empty = Seen { status: 200, parts: Vec::new(), content_range: None, length: None, validated: true };
    if fails(asked, departs) {
        return Seen { status: 412, validated: false, ..empty };
    }
    if is_not_modified(asked, departs) {
        return Seen { status: 304, ..empty };
    }
    let is_head = asked.method == "HEAD";
    let is_honoured = (!is_head || departs(Departure::RangeOfHead)) && if_range_holds(asked, departs);
    let parts = asked.range.as_deref().filter(|_| is_honoured).map_or(Wanted::Whole, |range| wanted(range, size, departs));
    let body = |parts: Vec<Range<usize>>| if is_head { Vec::new() } else { parts };
    match parts {
        Wanted::Whole => Seen { parts: body(std::iter::once(0..size).collect()), length: Some(size), ..empty },
        Wanted::Nothing => Seen { status: 416, content_range: Some(format!("bytes */{size}")), validated: false, ..empty },
        Wanted::Parts(parts) => match &parts[..] {
            [part] => Seen {
                status: 206,
                content_range: Some(format!("bytes {}-{}/{size}", part.start, part.end - 1)),
                length: Some(part.len()),
                parts: body(parts),
                ..empty
            },
            _ => Seen { status: 206, parts: body(parts), ..empty },
        },
    }
}

/// Section 13.2.2, steps 1 and 2.
fn fails(asked: &Asked, departs: impl Fn(Departure) -> bool) -> bool {
    let unmatched = asked.if_match.is_some_and(|tag| !matches!(tag, Tag::Own | Tag::List | Tag::Star));
    let is_judged = asked.if_match.is_none() || departs(Departure::UnmodifiedBesideMatch);
    let modified = match asked.if_unmodified_since.filter(|_| is_judged) {
        Some(Date::Before) => true,
        Some(Date::Malformed) => departs(Departure::UnmodifiedUnreadable),
        Some(Date::Same | Date::After) | None => false,
    };
    unmatched || modified
}

/// Section 13.2.2, steps 3 and 4.
fn is_not_modified(asked: &Asked, departs: impl Fn(Departure) -> bool) -> bool {
    let modified = asked.if_modified_since.map(|date| match date {
        Date::Same => false,
        Date::After => departs(Departure::ModifiedExact),
        Date::Before | Date::Malformed => true,
    });
    match asked.if_none_match {
        Some(tag) => {
            let matches = matches!(tag, Tag::Own | Tag::OwnWeak | Tag::List | Tag::Star);
            matches && !(modified == Some(true) && departs(Departure::ModifiedBesideNoneMatch))
        }
        None => modified == Some(false),
    }
}

/// Section 13.1.5.
fn if_range_holds(asked: &Asked, departs: impl Fn(Departure) -> bool) -> bool {
    match asked.if_range {
        None | Some(Validator::Tag(Tag::Own)) => true,
        Some(Validator::Date(Date::Same)) => departs(Departure::RangeIfDate),
        Some(Validator::Tag(_) | Validator::Date(_)) => false,
    }
}

/// What a `Range` comes to.
enum Wanted {
    Whole,
    Nothing,
    Parts(Vec<Range<usize>>),
}

/// Section 14.
fn wanted(header: &str, size: usize, departs: impl Fn(Departure) -> bool) -> Wanted {
    let Some((unit, list)) = header.split_once('=') else { return Wanted::Whole };
    if !unit.eq_ignore_ascii_case("bytes") || list.is_empty() {
        return Wanted::Whole;
    }
    let elements: Vec<&str> = list.split(',').map(str::trim).collect();
    let full = elements.iter().filter(|element| !element.is_empty()).count();
    if full == 0 && !departs(Departure::RangeEmptyElement) || full > MOST && !departs(Departure::RangesMany) {
        return Wanted::Whole;
    }
    let mut parts = Vec::new();
    for element in elements {
        match part(element, size, &departs) {
            Ok(part) => parts.extend(part),
            Err(instead) => return instead,
        }
    }
    if parts.is_empty() {
        return Wanted::Nothing;
    }
    if !departs(Departure::RangesApart) {
        return Wanted::Parts(coalesced(parts));
    }
    if parts.iter().map(Range::len).sum::<usize>() > size { Wanted::Whole } else { Wanted::Parts(parts) }
}

/// The bytes that one element asks for, if any are there; or what becomes of all of it.
fn part(element: &str, size: usize, departs: impl Fn(Departure) -> bool) -> Result<Option<Range<usize>>, Wanted> {
    let or_whole = |departure| if departs(departure) { Wanted::Nothing } else { Wanted::Whole };
    if element.is_empty() {
        return if departs(Departure::RangeEmptyElement) { Err(Wanted::Nothing) } else { Ok(None) };
    }
    let is_number = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
    let Some((first, last)) = element.split_once('-').filter(|(first, last)| is_number(first) && is_number(last) && element != "-") else {
        return Err(or_whole(Departure::RangeUnreadable));
    };
    // The largest number that is drawn and fits has six digits.
    if first.len().max(last.len()) > 19 && departs(Departure::RangeOverlong) {
        return Err(Wanted::Nothing);
    }
    let number = |text: &str| text.parse().unwrap_or(usize::MAX);
    let part =
        if first.is_empty() { size.saturating_sub(number(last))..size } else { number(first)..number(last).saturating_add(1).min(size) };
    let part = if last.is_empty() { part.start..size } else { part };
    if part.start == 0 && size == 0 && departs(Departure::RangeOfNothing) {
        return Err(Wanted::Whole);
    }
    if !first.is_empty() && !last.is_empty() && number(last) < number(first) {
        return if departs(Departure::RangeReversed) { Ok(None) } else { Err(Wanted::Whole) };
    }
    if first.is_empty() && size == 0 && number(last) > 0 {
        return Err(Wanted::Whole);
    }
    Ok(Some(part).filter(|part| part.start < part.end))
}

/// Each byte once: in the order asked for if no two of them meet, else in that of the file.
fn coalesced(parts: Vec<Range<usize>>) -> Vec<Range<usize>> {
    let is_inside =
        |place: usize, but: usize| parts.iter().enumerate().any(|(other, part)| other != but && (part.start..=part.end).contains(&place));
    if !parts.iter().enumerate().any(|(number, part)| is_inside(part.start, number)) {
        return parts;
    }
    let mut starts: Vec<usize> = parts.iter().map(|part| part.start).collect();
    starts.sort_unstable();
    starts.dedup();
    starts.retain(|start| !parts.iter().any(|part| part.start < *start && *start <= part.end));
    let end = |from: usize| {
        let mut end = from;
        while let Some(further) = parts.iter().filter(|part| part.start <= end && part.end > end).map(|part| part.end).max() {
            end = further;
        }
        end
    };
    starts.iter().map(|start| *start..end(*start)).collect()
}
