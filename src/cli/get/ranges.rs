//! Which range to ask whom for, and what to make of the answer.

use std::ops::Range;

use awc::http::StatusCode;

/// Longest range asked of one node at a time. Twice the number of nodes of them wait in memory at most.
const SEGMENT_MAX: u64 = 4 << 20;
/// Shortest: a request must be worth its head.
const SEGMENT_MIN: u64 = 256 << 10;
/// Ranges per node that a small blob is cut into, so that a slow node does not hold everything up.
const SEGMENTS_PER_NODE: u64 = 4;

/// Cuts the bytes from `start` to `size` into ranges for `nodes` nodes, in order and without gaps.
pub(super) fn plan(start: u64, size: u64, nodes: usize) -> impl Iterator<Item = Range<u64>> {
    let left = size.saturating_sub(start);
    let pieces = u64::try_from(nodes).unwrap_or(1).max(1) * SEGMENTS_PER_NODE;
    let length = left.div_ceil(pieces).clamp(SEGMENT_MIN, SEGMENT_MAX);
    (0..left.div_ceil(length)).map(move |n| start + n * length..size.min(start + (n + 1) * length))
}

/// What the head of an answer to a request for bytes says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The bytes follow, after `skip` that were not asked for.
    Take { skip: u64 },
    /// The node has other bytes under that name.
    Changed,
    /// No bytes; the status says why.
    Refused,
}

/// Judges an answer to a request for the bytes from `start` on of the representation `etag` (without quotes).
///
/// With `If-Range` a node answers 200 with everything when it has another representation, and may do so when it has the same one.
pub(super) fn judge(status: StatusCode, etag: Option<&str>, content_range: Option<&str>, wanted: &str, start: u64) -> Verdict {
    let same = etag.is_some_and(|etag| etag.trim_matches('"') == wanted);
    match status {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT if !same => Verdict::Changed,
        StatusCode::OK => Verdict::Take { skip: start },
        StatusCode::PARTIAL_CONTENT if content_range.and_then(first_byte) == Some(start) => Verdict::Take { skip: 0 },
        StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE => Verdict::Changed,
        _ => Verdict::Refused,
    }
}

/// The first byte position of a `Content-Range` (RFC 9110 section 14.4).
fn first_byte(content_range: &str) -> Option<u64> {
    content_range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_cover_what_is_left_in_order(start in 0..1_u64 << 34, length in 0..1_u64 << 31, nodes in 1..20_usize) {
            let mut next = start;
            for range in plan(start, start + length, nodes) {
                prop_assert_eq!(range.start, next);
                prop_assert!(range.start < range.end && range.end - range.start <= SEGMENT_MAX);
                next = range.end;
            }
            prop_assert_eq!(next, start + length);
        }
    }

    #[test]
    fn nothing_left_is_no_range() {
        assert_eq!(plan(7, 7, 3).count(), 0);
        assert_eq!(plan(8, 7, 3).count(), 0);
    }

    #[test]
    fn a_small_blob_is_shared_and_a_tiny_one_is_not() {
        assert_eq!(plan(0, 8 << 20, 2).count(), 8);
        assert!(plan(0, 1000, 5).eq(std::iter::once(0..1000)));
    }

    #[test]
    fn an_answer_is_taken_only_where_tag_and_place_are_right() {
        let judge = |status: u16, etag, range| judge(StatusCode::from_u16(status).unwrap(), etag, range, "b3-1", 5);
        assert_eq!(judge(206, Some("\"b3-1\""), Some("bytes 5-9/10")), Verdict::Take { skip: 0 });
        assert_eq!(judge(206, Some("\"b3-1\""), Some("bytes 4-9/10")), Verdict::Refused);
        assert_eq!(judge(206, Some("\"b3-1\""), None), Verdict::Refused);
        assert_eq!(judge(200, Some("\"b3-1\""), None), Verdict::Take { skip: 5 }, "a server may ignore the range");
        assert_eq!(judge(200, Some("\"b3-2\""), None), Verdict::Changed);
        assert_eq!(judge(206, Some("\"b3-2\""), Some("bytes 5-9/10")), Verdict::Changed);
        assert_eq!(judge(200, None, None), Verdict::Changed, "without a tag nobody knows");
        assert_eq!([judge(412, None, None), judge(416, None, None)], [Verdict::Changed, Verdict::Changed]);
        assert_eq!([judge(404, None, None), judge(503, None, None)], [Verdict::Refused, Verdict::Refused]);
    }
}
