//! Several parts of a payload in one answer: `multipart/byteranges` (RFC 9110 section 14.6).
//!
//! The boundary is made of the payload's hash, so nobody can write a payload that contains its own.

use std::io;
use std::ops::Range;

use actix_web::web::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use gossip_cdn_protocol::Payload;

/// How the parts of one answer are set apart.
pub(super) struct Framing {
    boundary: String,
    /// Each part, with what stands before it.
    parts: Vec<(Bytes, Range<u64>)>,
    end: Bytes,
}

impl Framing {
    /// The framing of these parts of `payload`; `media_type` is what a header says of it.
    pub(super) fn new(payload: &Payload, media_type: &str, parts: Vec<Range<u64>>) -> Self {
        let boundary: String = payload.hash.to_string().chars().take(32).collect();
        let head = |part: &Range<u64>| {
            let (first, last) = (part.start, part.end.saturating_sub(1));
            format!("\r\n--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: bytes {first}-{last}/{}\r\n\r\n", payload.size)
        };
        let parts = parts.into_iter().map(|part| (Bytes::from(head(&part)), part)).collect();
        let end = Bytes::from(format!("\r\n--{boundary}--\r\n"));
        Self { boundary, parts, end }
    }

    /// The answer's media type.
    pub(super) fn media_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// The answer's length in bytes.
    pub(super) fn length(&self) -> u64 {
        let parts = self.parts.iter().map(|(head, part)| head.len() as u64 + (part.end - part.start));
        parts.sum::<u64>() + self.end.len() as u64
    }

    /// The answer's body; `open` gives the bytes of one part, which is opened when the ones before it are sent.
    pub(super) fn body<S>(self, open: impl Fn(Range<u64>) -> S + 'static) -> impl Stream<Item = io::Result<Bytes>>
    where
        S: Stream<Item = io::Result<Bytes>>,
    {
        let once = |bytes| stream::iter([Ok(bytes)]);
        stream::iter(self.parts).flat_map(move |(head, part)| once(head).chain(open(part))).chain(once(self.end))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;
    use gossip_cdn_protocol::{ContentHash, Sha256Digest};

    use super::*;

    #[actix_web::test]
    async fn the_body_is_as_long_as_it_says() {
        let bytes = Bytes::from_static(b"0123456789");
        let hash = ContentHash::of(&bytes);
        let payload = Payload { hash, sha256: Sha256Digest([0; 32]), size: 10, media_type: String::new(), file_name: None };
        let framing = Framing::new(&payload, "text/plain", vec![0..2, 9..10]);
        let (length, boundary) = (framing.length(), framing.boundary.clone());
        let slice = move |part: Range<u64>| {
            let at = |offset| usize::try_from(offset).unwrap();
            stream::iter([Ok(bytes.slice(at(part.start)..at(part.end)))])
        };
        let body: Vec<Bytes> = framing.body(slice).try_collect().await.unwrap();
        let text = String::from_utf8(body.concat()).unwrap();
        assert_eq!(text.len() as u64, length);
        let part = |range, body| format!("\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {range}/10\r\n\r\n{body}");
        assert_eq!(text, format!("{}{}\r\n--{boundary}--\r\n", part("0-1", "01"), part("9-9", "9")));
    }
}
