//! Preconditions (RFC 9110 section 13), as far as they can be judged without the store.
//!
//! 1. An entity tag is `"b3-<first 32 hexadecimal digits of BLAKE3>"`; every other tag is well-formed and matches nothing.
//! 2. `If-Match` and `If-Range` compare strongly, so a weak tag never matches; `If-None-Match` compares weakly.
//! 3. A write is never done past a precondition that cannot be understood. A read is answered whole instead.

use std::time::{Duration, SystemTime};

use actix_web::http::header::{self, HeaderMap, HeaderName};
use gossip_cdn_protocol::io::{Condition, Tags};
use gossip_cdn_protocol::{ContentHash, Stamp};

/// A precondition that breaks the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// How a read goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As if there were no precondition.
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// The entity tag of a payload.
pub(super) fn entity_tag(hash: &ContentHash) -> String {
    let mut tag = String::with_capacity(38);
    tag.push_str("\"b3-");
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16);
    tag.extend(hash.0.iter().take(16).flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).flatten());
    tag.push('"');
    tag
}

/// When a version was written, in whole seconds as HTTP dates have them.
pub(super) fn last_modified(stamp: Stamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(stamp.wall().0 / 1000)
}

/// The preconditions of a write; `Malformed` refuses it.
///
/// `If-Unmodified-Since` becomes a demand for the winner seen now, so that it too is checked in one step with the write; a winner
/// newer than the date makes it a demand that nothing meets.
pub(super) fn of_write(headers: &HeaderMap, winner: Option<(ContentHash, Stamp)>) -> Result<Condition, Malformed> {
    let if_match = tags(headers, &header::IF_MATCH, Comparison::Strong)?;
    let if_none_match = tags(headers, &header::IF_NONE_MATCH, Comparison::Weak)?;
    let unmodified = || {
        let since = date(headers, &header::IF_UNMODIFIED_SINCE)?;
        let (hash, stamp) = winner?;
        Some(Tags::Of(if last_modified(stamp) <= since { vec![hash.tag()] } else { Vec::new() }))
    };
    Ok(Condition { if_match: if_match.or_else(unmodified), if_none_match })
}

/// Judges the preconditions of a read in the order of RFC 9110 section 13.2.2.
pub(super) fn of_read(headers: &HeaderMap, hash: ContentHash, stamp: Stamp) -> Verdict {
    let modified = last_modified(stamp);
    // A demand that cannot be read is not met; a wish for news that cannot be read is answered with everything.
    let if_match = tags(headers, &header::IF_MATCH, Comparison::Strong).unwrap_or_else(|Malformed| Some(Tags::Of(Vec::new())));
    match if_match {
        Some(tags) if !tags.matches(Some(hash)) => return Verdict::Failed,
        Some(_) => {}
        None if date(headers, &header::IF_UNMODIFIED_SINCE).is_some_and(|since| modified > since) => return Verdict::Failed,
        None => {}
    }
    match tags(headers, &header::IF_NONE_MATCH, Comparison::Weak) {
        Ok(Some(tags)) if tags.matches(Some(hash)) => Verdict::NotModified,
        Ok(Some(_)) | Err(Malformed) => Verdict::Proceed,
        Ok(None) if date(headers, &header::IF_MODIFIED_SINCE).is_some_and(|since| modified <= since) => Verdict::NotModified,
        Ok(None) => Verdict::Proceed,
    }
}

/// Whether a `Range` may be honoured.
///
/// A date never matches: two writes can fall into one second, so it is no strong validator (RFC 9110 section 8.8.2.2).
pub(super) fn if_range_holds(headers: &HeaderMap, hash: ContentHash) -> bool {
    let Some(value) = headers.get(header::IF_RANGE) else { return true };
    value.to_str().is_ok_and(|value| value.trim() == entity_tag(&hash))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

fn tags(headers: &HeaderMap, name: &HeaderName, comparison: Comparison) -> Result<Option<Tags>, Malformed> {
    let mut lines = headers.get_all(name).peekable();
    if lines.peek().is_none() {
        return Ok(None);
    }
    let mut list = Vec::new();
    let mut stars = 0;
    let mut others = 0;
    for line in lines {
        let mut rest = line.to_str().map_err(|_| Malformed)?.trim();
        while !rest.is_empty() {
            if let Some(behind) = rest.strip_prefix('*') {
                stars += 1;
                rest = next_element(behind)?;
                continue;
            }
            let (tag, weak, behind) = one_tag(rest)?;
            others += 1;
            if !(weak && comparison == Comparison::Strong) {
                list.extend(own_tag(tag));
            }
            rest = next_element(behind)?;
        }
    }
    match (stars, others) {
        (1, 0) => Ok(Some(Tags::Any)),
        (0, 1..) => Ok(Some(Tags::Of(list))),
        _ => Err(Malformed),
    }
}

/// Splits `"tag"` or `W/"tag"` off the front.
fn one_tag(text: &str) -> Result<(&str, bool, &str), Malformed> {
    let (weak, quoted) = text.strip_prefix("W/").map_or((false, text), |quoted| (true, quoted));
    let (tag, behind) = quoted.strip_prefix('"').and_then(|open| open.split_once('"')).ok_or(Malformed)?;
    Ok((tag, weak, behind))
}

/// What follows the comma, or nothing.
fn next_element(text: &str) -> Result<&str, Malformed> {
    let text = text.trim_start();
    if text.is_empty() {
        return Ok(text);
    }
    // Empty elements are allowed: `"a", , "b"`.
    text.strip_prefix(',').map(|rest| rest.trim_start_matches([',', ' ', '\t'])).ok_or(Malformed)
}

fn own_tag(tag: &str) -> Option<[u8; 16]> {
    let digits = tag.strip_prefix("b3-").filter(|digits| digits.len() == 32)?;
    // Lower case only: a tag has one spelling, and comparison is octet by octet.
    let lower = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if lower { u128::from_str_radix(digits, 16).ok().map(u128::to_be_bytes) } else { None }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use gossip_cdn_protocol::WallTime;

    use super::*;

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn hash() -> ContentHash {
        ContentHash::of(b"x")
    }

    fn stamp() -> Stamp {
        // Sun, 06 Nov 1994 08:49:37 GMT and a half second.
        Stamp::at(WallTime(784_111_777_500))
    }

    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    #[test]
    fn the_entity_tag_is_the_first_half_of_the_hash_and_is_found_again() {
        let tag = entity_tag(&hash());
        assert_eq!(tag.len(), 37);
        let map = headers(&[(header::IF_MATCH, &tag)]);
        assert_eq!(tags(&map, &header::IF_MATCH, Comparison::Strong), Ok(Some(Tags::Of(vec![hash().tag()]))));
    }

    #[test]
    fn lists_weak_tags_and_commas_inside_tags_are_read() {
        let tag = entity_tag(&hash());
        let map = headers(&[(header::IF_NONE_MATCH, &format!("\"a,b\", , W/{tag} ,\"\""))]);
        assert_eq!(tags(&map, &header::IF_NONE_MATCH, Comparison::Weak), Ok(Some(Tags::Of(vec![hash().tag()]))));
        assert_eq!(tags(&map, &header::IF_NONE_MATCH, Comparison::Strong), Ok(Some(Tags::Of(vec![]))), "weak is not strong");
        for malformed in ["", "*, *", "*, \"a\"", "a", "\"a", "\"a\" \"b\"", "W/", "w/\"a\""] {
            let map = headers(&[(header::IF_MATCH, malformed)]);
            assert_eq!(tags(&map, &header::IF_MATCH, Comparison::Strong), Err(Malformed), "{malformed}");
        }
    }

    #[test]
    fn reads_are_judged_in_the_order_of_the_rfc() {
        let tag = entity_tag(&hash());
        let judge = |lines: &[(HeaderName, &str)]| of_read(&headers(lines), hash(), stamp());
        assert_eq!(judge(&[]), Verdict::Proceed);
        assert_eq!(judge(&[(header::IF_NONE_MATCH, &tag)]), Verdict::NotModified);
        assert_eq!(judge(&[(header::IF_NONE_MATCH, "*")]), Verdict::NotModified);
        assert_eq!(judge(&[(header::IF_NONE_MATCH, "\"b3-other\"")]), Verdict::Proceed);
        assert_eq!(judge(&[(header::IF_MATCH, "\"x\""), (header::IF_NONE_MATCH, &tag)]), Verdict::Failed, "If-Match comes first");
        assert_eq!(
            judge(&[(header::IF_MATCH, &tag), (header::IF_UNMODIFIED_SINCE, BEFORE)]),
            Verdict::Proceed,
            "the tag outranks the date"
        );
        assert_eq!(judge(&[(header::IF_UNMODIFIED_SINCE, BEFORE)]), Verdict::Failed);
        assert_eq!(judge(&[(header::IF_UNMODIFIED_SINCE, THEN)]), Verdict::Proceed);
        assert_eq!(judge(&[(header::IF_MODIFIED_SINCE, THEN)]), Verdict::NotModified);
        assert_eq!(judge(&[(header::IF_MODIFIED_SINCE, BEFORE)]), Verdict::Proceed);
        assert_eq!(judge(&[(header::IF_MODIFIED_SINCE, "yesterday")]), Verdict::Proceed, "not a date: ignored");
        assert_eq!(judge(&[(header::IF_NONE_MATCH, "\"x\""), (header::IF_MODIFIED_SINCE, THEN)]), Verdict::Proceed);
        assert_eq!(judge(&[(header::IF_MATCH, "nonsense")]), Verdict::Failed);
        assert_eq!(judge(&[(header::IF_NONE_MATCH, "nonsense")]), Verdict::Proceed);
    }

    #[test]
    fn a_date_on_a_write_becomes_a_demand_for_the_winner_seen() {
        let map = |date| headers(&[(header::IF_UNMODIFIED_SINCE, date)]);
        let winner = Some((hash(), stamp()));
        assert!(of_write(&map(THEN), winner).unwrap().holds(Some(hash())));
        assert!(!of_write(&map(BEFORE), winner).unwrap().holds(Some(hash())));
        assert!(of_write(&map(BEFORE), None).unwrap().holds(None), "a blob never written has no date");
        assert_eq!(of_write(&headers(&[(header::IF_NONE_MATCH, "\"")]), None), Err(Malformed));
    }

    #[test]
    fn if_range_takes_the_strong_tag_only() {
        let tag = entity_tag(&hash());
        let holds = |value: &str| if_range_holds(&headers(&[(header::IF_RANGE, value)]), hash());
        assert!(if_range_holds(&HeaderMap::new(), hash()));
        assert!(holds(&tag));
        assert!(!holds(&format!("W/{tag}")) && !holds(THEN) && !holds("*") && !holds("\"x\""));
    }
}
