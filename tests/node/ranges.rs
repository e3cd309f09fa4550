//! Parts of payloads (RFC 9110 section 14), of those in the database and of those in files.

use crate::expected::{OTHER_TAG, etag, repr_digest};
use gossip_cdn_cluster::{Answer, Node, noise, send};

/// One payload that is kept in the database, one that is a file of several chunks.
const SIZES: [usize; 2] = [1000, 3_000_000];

#[test]
fn a_single_range_of_any_form_is_206_with_just_that() {
    let node = Node::alone();
    for size in SIZES {
        let bytes = noise(size, 3);
        let path = node.upload("a.mp4", &bytes);
        let last = size - 1;
        for (range, first, end) in [
            ("bytes=0-0".to_owned(), 0, 1),
            ("bytes=10-19".to_owned(), 10, 20),
            (format!("bytes=0-{last}"), 0, size),
            (format!("bytes=5-{}", size * 2), 5, size),
            (format!("bytes={last}-"), last, size),
            ("bytes=500-".to_owned(), 500, size),
            ("bytes=-1".to_owned(), last, size),
            ("bytes=-300".to_owned(), size - 300, size),
            (format!("bytes=-{}", size * 2), 0, size),
            ("bytes=1-99999999999999999999999999".to_owned(), 1, size),
            ("BYTES=2-3".to_owned(), 2, 4),
            (format!("bytes={}-{}", size / 2 - 7, size / 2 + 7), size / 2 - 7, size / 2 + 8),
        ] {
            let answer = node.get_with(&path, &[("range", &range)]);
            assert_eq!(answer.status, 206, "{range} of {size}");
            assert!(answer.body == bytes[first..end], "{range} of {size}");
            assert_eq!(answer.header("content-range"), format!("bytes {first}-{}/{size}", end - 1), "{range}");
            assert_eq!(answer.header("content-length"), (end - first).to_string());
            assert_eq!(answer.header("etag"), etag(&bytes));
            assert_eq!(answer.header("repr-digest"), repr_digest(&bytes), "of the whole, as the RFC has it");
            assert_eq!((answer.header("content-type"), answer.header("accept-ranges")), ("video/mp4", "bytes"));
            assert!(!answer.header("last-modified").is_empty() && !answer.header("cache-control").is_empty());
        }
    }
}

#[test]
fn what_is_beyond_the_end_is_416_with_the_size() {
    let node = Node::alone();
    for size in SIZES {
        let path = node.upload("a.mp4", &noise(size, 3));
        for range in [
            format!("bytes={size}-"),
            format!("bytes={size}-{}", size + 5),
            "bytes=-0".to_owned(),
            "bytes=99999999999999999999999-".to_owned(),
        ] {
            let answer = node.get_with(&path, &[("range", &range)]);
            answer.problem(416);
            assert_eq!(answer.header("content-range"), format!("bytes */{size}"), "{range}");
        }
    }
    let empty = node.upload("empty.txt", b"");
    assert_eq!(node.get_with(&empty, &[("range", "bytes=0-")]).header("content-range"), "bytes */0");
}

#[test]
fn what_is_no_range_of_bytes_is_ignored() {
    let node = Node::alone();
    let path = node.upload("a.txt", b"0123456789");
    for range in ["lines=1-2", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-2", "bytes=1--2", "bytes 0-1", "0-1"] {
        let answer = node.get_with(&path, &[("range", range)]);
        assert_eq!((answer.status, &answer.body[..]), (200, &b"0123456789"[..]), "{range}");
        assert!(!answer.headers.contains_key("content-range"), "{range}");
    }
    let head = send("HEAD", &node.url(&path), &[("range", "bytes=0-1")], None);
    assert_eq!((head.status, head.header("content-length")), (200, "10"), "only GET knows ranges");
}

/// Takes a `multipart/byteranges` answer apart: type, range and bytes of each part.
fn parts(answer: &Answer) -> Vec<(String, String, Vec<u8>)> {
    let boundary = answer.header("content-type").strip_prefix("multipart/byteranges; boundary=").unwrap();
    let (delimiter, end) = (format!("\r\n--{boundary}\r\n").into_bytes(), format!("\r\n--{boundary}--\r\n").into_bytes());
    let mut rest = answer.body.strip_prefix(&delimiter[..]).unwrap().strip_suffix(&end[..]).unwrap();
    let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|window| window == what);
    let mut parts = Vec::new();
    loop {
        let next = find(rest, &delimiter);
        let part = &rest[..next.unwrap_or(rest.len())];
        let head = find(part, b"\r\n\r\n").unwrap();
        let lines = String::from_utf8(part[..head].to_vec()).unwrap();
        let field = |name: &str| lines.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        parts.push((field("Content-Type: "), field("Content-Range: "), part[head + 4..].to_vec()));
        let Some(next) = next else { return parts };
        rest = &rest[next + delimiter.len()..];
    }
}

#[test]
fn several_ranges_are_parts_of_one_answer_in_the_order_asked_for() {
    let node = Node::alone();
    for size in SIZES {
        let bytes = noise(size, 3);
        let path = node.upload("a.mp4", &bytes);
        let answer = node.get_with(&path, &[("range", "bytes=500-899, 0-0, 10-19, -2"), ("if-range", &etag(&bytes))]);
        assert_eq!(answer.status, 206);
        let part =
            |first: usize, end: usize| ("video/mp4".to_owned(), format!("bytes {first}-{}/{size}", end - 1), bytes[first..end].to_vec());
        assert!(parts(&answer) == [part(500, 900), part(0, 1), part(10, 20), part(size - 2, size)], "{size}");
        assert_eq!(answer.header("content-length"), answer.body.len().to_string());
        assert!(!answer.headers.contains_key("content-range"), "that is for the parts");
        assert_eq!((answer.header("etag"), answer.header("repr-digest")), (etag(&bytes).as_str(), repr_digest(&bytes).as_str()));
        assert!(answer.header("content-security-policy").starts_with("sandbox;"));
    }
}

#[test]
fn ranges_that_overlap_or_touch_are_sent_once() {
    let node = Node::alone();
    let path = node.upload("a.txt", b"0123456789");
    let get = |range: &str| node.get_with(&path, &[("range", range)]);
    for (range, expected, body) in [
        ("bytes=0-4,2-6", "bytes 0-6/10", &b"0123456"[..]),
        ("bytes=0-1,2-3", "bytes 0-3/10", b"0123"),
        ("bytes=0-,0-,0-", "bytes 0-9/10", b"0123456789"),
        ("bytes=1-2,50-60", "bytes 1-2/10", b"12"),
    ] {
        let answer = get(range);
        assert_eq!((answer.status, &answer.body[..], answer.header("content-range")), (206, body, expected), "{range}");
    }
    let ranges: Vec<String> = parts(&get("bytes=6-7,0-2,2-3")).into_iter().map(|(_, range, _)| range).collect();
    assert_eq!(ranges, ["bytes 0-3/10", "bytes 6-7/10"]);
    get("bytes=10-,20-30").problem(416);
    assert_eq!(get("bytes=0-1,nonsense").status, 200);
}

#[test]
fn more_than_sixteen_ranges_are_the_whole() {
    let node = Node::alone();
    let bytes = noise(100, 1);
    let path = node.upload("a.txt", &bytes);
    let ranges = |count: usize| format!("bytes={}", (0..count).map(|n| format!("{}-{}", 2 * n, 2 * n)).collect::<Vec<_>>().join(","));
    let sixteen = node.get_with(&path, &[("range", &ranges(16))]);
    assert_eq!((sixteen.status, parts(&sixteen).len()), (206, 16));
    let seventeen = node.get_with(&path, &[("range", &ranges(17))]);
    assert_eq!((seventeen.status, seventeen.body), (200, bytes));
}

#[test]
fn if_range_holds_for_the_strong_tag_and_for_nothing_else() {
    let node = Node::alone();
    let path = node.upload("a.txt", b"0123456789");
    let tag = etag(b"0123456789");
    let modified = node.get(&path).header("last-modified").to_owned();
    let status = |range: &str, value: &str| node.get_with(&path, &[("range", range), ("if-range", value)]).status;
    assert_eq!(status("bytes=0-1", &tag), 206);
    for value in [&format!("W/{tag}"), OTHER_TAG, &modified, "*", "nonsense"] {
        assert_eq!(status("bytes=0-1", value), 200, "{value}");
        assert_eq!(status("bytes=99-", value), 200, "the whole, not 416: {value}");
    }
    assert_eq!(status("bytes=99-", &tag), 416);
    assert_eq!(node.get_with(&path, &[("if-range", OTHER_TAG)]).status, 200);
}

#[test]
fn a_part_of_a_version_by_name_is_cached_for_good() {
    let node = Node::alone();
    let answer = node.put("/a.txt", b"0123456789");
    let path = answer.header("location").strip_prefix(&node.server.url).unwrap().to_owned();
    let part = node.get_with(&format!("{path}?version={}", answer.header("version")), &[("range", "bytes=-4")]);
    assert_eq!((part.status, &part.body[..]), (206, &b"6789"[..]));
    assert_eq!(part.header("cache-control"), "public, max-age=31536000, immutable");
}
