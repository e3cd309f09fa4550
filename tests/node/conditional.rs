//! Preconditions of reads, in the order of RFC 9110 section 13.2.2.

use crate::expected::{OTHER_TAG, PATH, etag};
use gossip_cdn_cluster::{Answer, Node, send};

const LONG_AGO: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const BODY: &[u8] = b"0123456789";

struct Fixture {
    node: Node,
    path: String,
    tag: String,
    modified: String,
}

impl Fixture {
    fn new() -> Self {
        let node = Node::alone();
        let path = node.upload("a.txt", BODY);
        let modified = node.get(&path).header("last-modified").to_owned();
        Self { node, path, tag: etag(BODY), modified }
    }

    /// The answer to GET, after asserting that HEAD is answered alike.
    fn get(&self, headers: &[(&str, &str)]) -> Answer {
        let get = self.node.get_with(&self.path, headers);
        let head = send("HEAD", &self.node.url(&self.path), headers, None);
        if !headers.iter().any(|(name, _)| *name == "range") {
            assert_eq!(head.status, get.status, "{headers:?}");
        }
        get
    }

    fn assert(&self, status: u16, headers: &[(&str, &str)]) {
        assert_eq!(self.get(headers).status, status, "{headers:?}");
    }
}

#[test]
fn what_the_client_has_is_304_with_the_headers_of_the_whole() {
    let fixture = Fixture::new();
    let whole = fixture.get(&[]);
    for headers in [[("if-none-match", fixture.tag.as_str())], [("if-modified-since", &fixture.modified)], [("if-none-match", "*")]] {
        let answer = fixture.get(&headers);
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{headers:?}");
        for header in ["etag", "last-modified", "cache-control", "version", "access-control-allow-origin"] {
            assert!(!answer.header(header).is_empty(), "{header}");
            assert_eq!(answer.header(header), whole.header(header), "{header}");
        }
        assert!(answer.headers.contains_key("date"));
        for absent in ["content-type", "content-range", "content-disposition"] {
            assert!(!answer.headers.contains_key(absent), "{absent}");
        }
    }
    let version = whole.header("version");
    let pinned = fixture.node.get_with(&format!("{}?version={version}", fixture.path), &[("if-none-match", &fixture.tag)]);
    assert_eq!((pinned.status, pinned.header("cache-control")), (304, "public, max-age=31536000, immutable"));
}

#[test]
fn a_demand_that_is_not_met_is_412_and_names_what_is_here() {
    let fixture = Fixture::new();
    for headers in [[("if-match", OTHER_TAG)], [("if-unmodified-since", LONG_AGO)], [("if-match", &format!("W/{}", fixture.tag))]] {
        let answer = fixture.get(&headers);
        answer.problem(412);
        assert_eq!(answer.header("etag"), fixture.tag, "{headers:?}");
    }
}

#[test]
fn if_match_comes_first_then_dates_then_if_none_match() {
    let fixture = Fixture::new();
    let (tag, modified) = (fixture.tag.as_str(), fixture.modified.as_str());
    let weak = format!("W/{tag}");
    // Step 1: If-Match, compared strongly.
    fixture.assert(200, &[("if-match", tag)]);
    fixture.assert(200, &[("if-match", "*")]);
    fixture.assert(200, &[("if-match", &format!("{OTHER_TAG}, {tag}"))]);
    fixture.assert(412, &[("if-match", OTHER_TAG), ("if-none-match", tag)]);
    fixture.assert(304, &[("if-match", tag), ("if-none-match", tag)]);
    // Step 2: If-Unmodified-Since only without If-Match.
    fixture.assert(200, &[("if-unmodified-since", modified)]);
    fixture.assert(412, &[("if-unmodified-since", LONG_AGO)]);
    fixture.assert(200, &[("if-match", tag), ("if-unmodified-since", LONG_AGO)]);
    fixture.assert(412, &[("if-unmodified-since", LONG_AGO), ("if-none-match", tag)]);
    fixture.assert(200, &[("if-unmodified-since", "not a date")]);
    // Step 3: If-None-Match, compared weakly.
    fixture.assert(304, &[("if-none-match", &weak)]);
    fixture.assert(304, &[("if-none-match", &format!("{OTHER_TAG}, {weak}"))]);
    fixture.assert(200, &[("if-none-match", OTHER_TAG)]);
    // Step 4: If-Modified-Since only without If-None-Match.
    fixture.assert(304, &[("if-modified-since", modified)]);
    fixture.assert(200, &[("if-modified-since", LONG_AGO)]);
    fixture.assert(200, &[("if-none-match", OTHER_TAG), ("if-modified-since", modified)]);
    fixture.assert(304, &[("if-none-match", tag), ("if-modified-since", LONG_AGO)]);
    fixture.assert(200, &[("if-modified-since", "not a date")]);
}

#[test]
fn the_range_comes_after_all_of_them() {
    let fixture = Fixture::new();
    let tag = fixture.tag.as_str();
    fixture.assert(304, &[("if-none-match", tag), ("range", "bytes=0-1")]);
    fixture.assert(304, &[("if-none-match", tag), ("range", "bytes=99-")]);
    fixture.assert(412, &[("if-match", OTHER_TAG), ("range", "bytes=99-")]);
    fixture.assert(206, &[("if-match", tag), ("range", "bytes=0-1")]);
    fixture.assert(206, &[("if-none-match", OTHER_TAG), ("range", "bytes=0-1")]);
}

#[test]
fn no_condition_changes_what_is_not_there() {
    let fixture = Fixture::new();
    let Fixture { node, path, tag, .. } = &fixture;
    for headers in [[("if-match", "*")], [("if-none-match", "*")], [("if-modified-since", LONG_AGO)]] {
        node.get_with(PATH, &headers).problem(404);
    }
    node.delete(path);
    for headers in [[("if-none-match", tag.as_str())], [("if-match", tag)]] {
        node.get_with(path, &headers).problem(410);
    }
}

#[test]
fn a_replaced_blob_is_news_and_a_replaced_tag_is_stale() {
    let fixture = Fixture::new();
    fixture.node.put(&fixture.path, b"other");
    let answer = fixture.get(&[("if-none-match", &fixture.tag)]);
    assert_eq!((answer.status, &answer.body[..]), (200, &b"other"[..]));
    fixture.assert(412, &[("if-match", &fixture.tag)]);
}
