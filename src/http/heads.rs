//! The heads of answers that carry a payload, or say that the client has it.
//!
//! 1. What a head says of a version follows from that version and from how it was asked for, and from nothing else: it is written once and
//!    given again, and cannot be out of date. Which version is the winner is asked of the store each time.
//! 2. A worker keeps [`SLOTS`] of them at most, whatever is asked for.
//! 3. A head that is kept gives way to one that is asked for twice in a row, of all that share its place: what is asked for once in a
//!    while does not drive out what is asked for again and again, and is not kept for nothing.

use std::cell::RefCell;
use std::time::Duration;

use actix_web::HttpResponseBuilder;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use gossip_cdn_protocol::{BlobId, Payload, VersionId};

use super::conditional;
use super::digests;
use super::disposition::content_disposition;

/// No script, no plug-in, no request: only what the browser itself needs to show an image, a sound or a film.
const CSP: &str = "sandbox; default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'";
/// What a script of another origin may read of an answer.
pub(super) const EXPOSED: &str = "Accept-Ranges, Cache-Status, Content-Disposition, Content-Length, Content-Range, ETag, Last-Modified, \
                                  Repr-Digest, Server-Timing, Version, X-Request-Id";
/// Any bytes.
pub(super) const BYTES: &str = "application/octet-stream";
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const VERSION: HeaderName = HeaderName::from_static("version");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Heads that a worker keeps. A guess: two megabytes, were each slot taken by a usual one.
const SLOTS: usize = 1024;

/// What a head is written of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subject<'a> {
    pub(super) blob: BlobId,
    pub(super) version: VersionId,
    pub(super) payload: &'a Payload,
    /// Asked for by its own name, so that it never changes.
    pub(super) pinned: bool,
    /// Saved, whatever its type.
    pub(super) save: bool,
    /// Concurrent versions exist.
    pub(super) conflict: bool,
}

type Header = (HeaderName, HeaderValue);

/// A head.
#[derive(Debug)]
struct Head {
    /// What RFC 9110 section 15.4.5 asks of a 304, and every answer has.
    validators: [Header; 6],
    /// What a 200 and a 206 have beside.
    rest: Vec<Header>,
}

/// A head that was written, and of what.
#[derive(Debug)]
struct Written {
    blob: BlobId,
    version: VersionId,
    payload: Payload,
    pinned: bool,
    save: bool,
    conflict: bool,
    head: Head,
}

/// The place of a head.
#[derive(Debug, Default)]
struct Slot {
    written: Option<Written>,
    /// The [`mark`] of the last that was asked for and not found here.
    asked: u64,
}

impl Written {
    fn of(subject: Subject<'_>) -> Self {
        let Subject { blob, version, payload, pinned, save, conflict } = subject;
        Self { blob, version, payload: payload.clone(), pinned, save, conflict, head: write(subject) }
    }

    fn subject(&self) -> Subject<'_> {
        let Self { blob, version, payload, pinned, save, conflict, .. } = self;
        Subject { blob: *blob, version: *version, payload, pinned: *pinned, save: *save, conflict: *conflict }
    }
}

/// The heads that are asked for again and again.
#[derive(Debug)]
pub(super) struct Heads(RefCell<Vec<Slot>>);

impl Default for Heads {
    fn default() -> Self {
        Self(RefCell::new(std::iter::repeat_with(Slot::default).take(SLOTS).collect()))
    }
}

impl Slot {
    /// The head that is kept here, if it is that one, or from now on is.
    fn head(&mut self, subject: Subject<'_>, mark: u64) -> Option<&Head> {
        if self.written.as_ref().is_none_or(|written| written.subject() != subject) {
            let again = std::mem::replace(&mut self.asked, mark) == mark;
            if !again && self.written.is_some() {
                return None;
            }
            self.written = Some(Written::of(subject));
        }
        self.written.as_ref().map(|written| &written.head)
    }
}

impl Heads {
    /// Gives an answer that carries the payload its head.
    pub(super) fn describe(&self, answer: &mut HttpResponseBuilder, subject: Subject<'_>, cache_status: HeaderValue) {
        match self.0.borrow_mut().get_mut(place_of(subject)).and_then(|slot| slot.head(subject, mark(subject))) {
            Some(head) => insert(answer, head.validators.iter().chain(&head.rest).cloned()),
            None => {
                let Head { validators, rest } = write(subject);
                insert(answer, validators.into_iter().chain(rest));
            }
        }
        answer.insert_header((CACHE_STATUS, cache_status));
    }

    /// Gives a 304 what it must have.
    pub(super) fn validate(&self, answer: &mut HttpResponseBuilder, subject: Subject<'_>) {
        match self.0.borrow_mut().get_mut(place_of(subject)).and_then(|slot| slot.head(subject, mark(subject))) {
            Some(head) => insert(answer, head.validators.iter().cloned()),
            None => insert(answer, write(subject).validators),
        }
    }
}

/// What tells versions apart, more or less: one that is taken for another by it is kept sooner, and never given for it.
fn mark(subject: Subject<'_>) -> u64 {
    let (high, low) = subject.blob.0.as_u64_pair();
    (high ^ low ^ subject.version.stamp.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Any place would do; versions of one moment and of one blob shall not share one.
fn place_of(subject: Subject<'_>) -> usize {
    usize::try_from(mark(subject) >> 32).unwrap_or_default() % SLOTS
}

fn insert(answer: &mut HttpResponseBuilder, headers: impl IntoIterator<Item = Header>) {
    for header in headers {
        answer.insert_header(header);
    }
}

/// The type as it was stored. A record from a peer may carry one that no header can.
pub(super) fn media_type(payload: &Payload) -> HeaderValue {
    HeaderValue::from_str(&payload.media_type).unwrap_or(HeaderValue::from_static(BYTES))
}

/// A value that was made here of what no header refuses.
fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

fn write(subject: Subject<'_>) -> Head {
    let Subject { blob, version, payload, pinned, save, conflict } = subject;
    let lasting = if pinned { "public, max-age=31536000, immutable" } else { "no-cache" };
    let validators = [
        (header::ETAG, value(conditional::entity_tag(&payload.hash))),
        (header::LAST_MODIFIED, value(httpdate::fmt_http_date(conditional::last_modified(version.stamp)))),
        (header::CACHE_CONTROL, HeaderValue::from_static(lasting)),
        (VERSION, value(version.to_string())),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED)),
    ];
    let mut rest = vec![
        (header::CONTENT_TYPE, media_type(payload)),
        (header::CONTENT_DISPOSITION, content_disposition(&payload.media_type, payload.file_name.as_deref(), save)),
        (digests::REPR_DIGEST, digests::value(&payload.sha256)),
        (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP)),
        (RESOURCE_POLICY, HeaderValue::from_static("cross-origin")),
    ];
    if conflict {
        // A reader who cares finds them there.
        rest.push((header::LINK, value(format!("</blobs/{blob}/versions>; rel=\"version-history\""))));
    }
    Head { validators, rest }
}

/// `Server-Timing`: what the lookup of the record and that of the payload cost.
pub(super) fn timing(record: Duration, all: Duration) -> (HeaderName, HeaderValue) {
    let (record, payload) = (record.as_micros(), all.saturating_sub(record).as_micros());
    let millis = |micros: u128| (micros / 1000, micros % 1000);
    let ((record, of_record), (payload, of_payload)) = (millis(record), millis(payload));
    (SERVER_TIMING, value(format!("record;dur={record}.{of_record:03}, payload;dur={payload}.{of_payload:03}")))
}

#[cfg(test)]
mod tests {
    use actix_web::HttpResponse;
    use gossip_cdn_protocol::{ContentHash, NodeId, Sha256Digest, Stamp};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn payload(byte: u8) -> Payload {
        let (hash, sha256) = (ContentHash([byte; 32]), Sha256Digest([byte; 32]));
        Payload { hash, sha256, size: 1, media_type: "text/plain".into(), file_name: (byte > 1).then(|| format!("{byte}.txt")) }
    }

    fn subject(payload: &Payload, blob: u8, stamp: u8, [pinned, save, conflict]: [bool; 3]) -> Subject<'_> {
        let version = VersionId { stamp: Stamp(u64::from(stamp)), origin: NodeId::from_public_key(&[1; 32]) };
        Subject { blob: BlobId(Uuid::from_u128(u128::from(blob))), version, payload, pinned, save, conflict }
    }

    fn head(heads: &Heads, subject: Subject<'_>) -> Vec<(String, String)> {
        let mut answer = HttpResponse::Ok();
        heads.describe(&mut answer, subject, HeaderValue::from_static("hit"));
        let answer = answer.finish();
        let mut headers: Vec<_> =
            answer.headers().iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        headers.sort();
        headers
    }

    proptest! {
        #[test]
        fn a_head_that_is_given_again_is_the_one_that_would_be_written(
            asked in proptest::collection::vec((0_u8..4, 0_u8..3, 0_u8..3, any::<[bool; 3]>()), 1..60)
        ) {
            let heads = Heads::default();
            for (byte, blob, stamp, how) in asked {
                let payload = payload(byte);
                let subject = subject(&payload, blob, stamp, how);
                prop_assert_eq!(head(&heads, subject), head(&Heads::default(), subject));
            }
        }
    }

    #[test]
    fn no_more_heads_are_kept_than_there_are_slots() {
        let heads = Heads::default();
        let payload = payload(1);
        for n in 0..3 * SLOTS as u128 {
            let subject = Subject { blob: BlobId(Uuid::from_u128(n)), ..subject(&payload, 0, 1, [false; 3]) };
            head(&heads, subject);
        }
        let slots = heads.0.borrow();
        assert_eq!(slots.len(), SLOTS);
        let taken = slots.iter().filter(|slot| slot.written.is_some()).count();
        assert!(taken > SLOTS / 2, "they spread over the slots: {taken}");
    }

    #[test]
    fn what_is_asked_for_once_does_not_drive_out_what_is_asked_for_again() {
        let (heads, payload) = (Heads::default(), payload(1));
        let numbered = |n| Subject { blob: BlobId(Uuid::from_u128(n)), ..subject(&payload, 0, 1, [false; 3]) };
        let kept = |n| heads.0.borrow()[place_of(numbered(n))].written.as_ref().is_some_and(|written| written.subject() == numbered(n));
        head(&heads, numbered(1));
        let rivals: Vec<u128> = (2..).filter(|n| place_of(numbered(*n)) == place_of(numbered(1))).take(3).collect();
        for n in rivals.iter().cycle().take(30) {
            head(&heads, numbered(*n));
            assert!(kept(1));
        }
        head(&heads, numbered(rivals[0]));
        head(&heads, numbered(rivals[0]));
        assert!(kept(rivals[0]), "asked for twice in a row");
    }

    #[test]
    fn a_cost_is_told_in_milliseconds() {
        let (_, value) = timing(Duration::from_micros(42), Duration::from_micros(3050));
        assert_eq!(value, "record;dur=0.042, payload;dur=3.008");
    }
}
