//! What a server answered, without what is its own: the spelling of validators, boundaries, error pages.

use std::ops::Range;

use gossip_cdn_cluster::Answer;

/// An answer, as far as servers should agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    /// What came of the file, in its order; all of it stands for a whole answer.
    pub(crate) parts: Vec<Range<usize>>,
    /// `Content-Range` of a 206 or a 416.
    pub(crate) content_range: Option<String>,
    /// `Content-Length` of an answer with bytes of the file, or to a HEAD.
    pub(crate) length: Option<usize>,
    /// Whether `ETag` and `Last-Modified` came with it.
    pub(crate) validated: bool,
}

impl Seen {
    /// Reads the answer to a request for a file of these bytes. Wrong bytes and parts that are not what they say are panics.
    pub(crate) fn of(answer: &Answer, method: &str, file: &[u8]) -> Self {
        let content_range = (!answer.header("content-range").is_empty()).then(|| answer.header("content-range").to_owned());
        let successful = matches!(answer.status, 200 | 206);
        let parts = if method == "HEAD" || !successful {
            Vec::new()
        } else if let Some(boundary) = answer.header("content-type").strip_prefix("multipart/byteranges; boundary=") {
            parts_of(&answer.body, boundary, file)
        } else if let Some(range) = content_range.as_deref().filter(|_| answer.status == 206) {
            let part = part(range, file);
            assert!(answer.body == file[part.clone()], "{range}");
            vec![part]
        } else {
            assert!(answer.body == file);
            std::iter::once(0..file.len()).collect()
        };
        let is_multipart = answer.header("content-type").starts_with("multipart/");
        let length = answer.header("content-length").parse().ok().filter(|_| successful && !is_multipart);
        let validated = !answer.header("etag").is_empty() && !answer.header("last-modified").is_empty();
        Self { status: answer.status, parts, content_range, length, validated: validated && matches!(answer.status, 200 | 206 | 304) }
    }

    /// Whether the client gets the same, whatever else is said of it.
    pub(crate) fn is_alike(&self, other: &Self) -> bool {
        self.status == other.status && self.parts == other.parts
    }
}

/// The range that a `Content-Range` names.
fn part(range: &str, file: &[u8]) -> Range<usize> {
    let (range, size) = range.strip_prefix("bytes ").and_then(|range| range.split_once('/')).unwrap();
    let (first, last) = range.split_once('-').unwrap();
    assert_eq!(size, file.len().to_string());
    first.parse().unwrap()..last.parse::<usize>().unwrap() + 1
}

/// The parts of a body of several, each found to be what its head says (RFC 9110 section 14.6).
fn parts_of(body: &[u8], boundary: &str, file: &[u8]) -> Vec<Range<usize>> {
    let boundary = boundary.trim_matches('"');
    let delimiter = format!("--{boundary}");
    let mut rest = after(body, delimiter.as_bytes());
    let mut parts = Vec::new();
    while !rest.starts_with(b"--") {
        let content = after(rest, b"\r\n\r\n");
        let head = std::str::from_utf8(&rest[..rest.len() - content.len()]).unwrap();
        let range = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-range: ").map(str::to_owned)).unwrap();
        let part = part(&range, file);
        assert!(content[..part.len()] == file[part.clone()], "{range}");
        let behind = &content[part.len()..];
        assert!(behind.starts_with(format!("\r\n{delimiter}").as_bytes()), "{range} ends at the delimiter");
        rest = after(behind, delimiter.as_bytes());
        parts.push(part);
    }
    parts
}

/// What follows the first `needle`.
fn after<'a>(bytes: &'a [u8], needle: &[u8]) -> &'a [u8] {
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    &bytes[at + needle.len()..]
}
