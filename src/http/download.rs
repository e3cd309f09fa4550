//! Downloads: the winner's payload, or another live version's.
//!
//! 1. Preconditions are judged in the order of RFC 9110 section 13.2.2, before a byte of payload is looked at.
//! 2. `HEAD` equals `GET` without the body, and reads no payload. Like every method but `GET` it knows no ranges.
//! 3. A payload that is not here is fetched; meanwhile a large one is passed on as it arrives, verified group by group. The answer is
//!    right or there is none: 503 before the first byte, a closed connection after it. A record may come from a peer that lies: bytes
//!    that are not as many as it says are not served for it.
//! 4. The first reading of a payload since the start is checked as it goes. What turns out to be damaged is not here: the answer goes on
//!    with what another node has of it.
//! 5. A single range is answered with 206, several with 206 and [`Framing`].
//! 6. A reader that takes nothing is not waited for: its socket gives up ([`super::on_connect`]).

use std::ops::Range;

use actix_web::body::{BoxBody, MessageBody as _, SizedStream};
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{Bytes, Data, Path, Query};
use actix_web::{HttpRequest, HttpResponse, options, route};
use futures_util::stream::{self, LocalBoxStream, StreamExt as _};
use gossip_cdn_protocol::store::Store as _;
use gossip_cdn_protocol::{BlobId, Payload, Record, StoreFault, Version, VersionId};
use gossip_cdn_shell::problem::Problem;
use serde::Deserialize;
use tokio::time::Instant;

use super::byteranges::Framing;
use super::conditional::{self, Verdict};
use super::errors::Fault;
use super::heads::{BYTES, EXPOSED, Heads, Subject, media_type, timing};
use super::range::{Selection, select};
use super::wanted::{Fetched, Wanted};
use super::{Context, stream as bytes};
use crate::store::{Arriving, FirstReading, PayloadReader, ReadFault};

/// The bytes were here.
const HIT: &str = "gossip-cdn; hit";
/// They were fetched, and are kept.
const MISS: &str = "gossip-cdn; fwd=uri-miss; stored";

/// What the query of a download says.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DownloadQuery {
    /// This live version instead of the winner.
    version: Option<String>,
    /// Save it, whatever its type.
    download: Option<String>,
}

/// The payload of a blob.
#[utoipa::path(tag = "blobs", params(("id" = String, Path, description = "The blob's GUID"), DownloadQuery),
    responses((status = 200, description = "The payload", body = Vec<u8>, content_type = "*/*"),
        (status = 206, description = "The range asked for, or several as multipart/byteranges", body = Vec<u8>, content_type = "*/*"),
        (status = 304, description = "The client has it"),
        (status = 404, description = "Unknown", content_type = "application/problem+json"),
        (status = 410, description = "Deleted", content_type = "application/problem+json"),
        (status = 412, description = "A precondition does not hold", content_type = "application/problem+json"),
        (status = 416, description = "No byte of the range is here", content_type = "application/problem+json"),
        (status = 503, description = "The bytes are not here and no holder answers", content_type = "application/problem+json")))]
#[route("/blobs/{id}", method = "GET", method = "HEAD")]
pub(super) async fn download(
    request: HttpRequest,
    id: Path<String>,
    query: Query<DownloadQuery>,
    context: Data<Context>,
    heads: Data<Heads>,
) -> Result<HttpResponse, Problem> {
    let shared = |fault| Problem::from(fault).header("Access-Control-Allow-Origin", "*").header("Access-Control-Expose-Headers", EXPOSED);
    serve(&request, &context, &heads, &id, &query).await.map_err(shared)
}

/// Lets scripts of other origins send conditional requests and ranges.
#[utoipa::path(tag = "blobs", params(("id" = String, Path, description = "The blob's GUID")),
    responses((status = 204, description = "Which requests of other origins are answered")))]
#[options("/blobs/{id}")]
pub(super) async fn preflight() -> HttpResponse {
    HttpResponse::NoContent()
        .insert_header((header::ALLOW, "GET, HEAD, PUT, DELETE, OPTIONS"))
        .insert_header((header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"))
        .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD"))
        .insert_header((
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "If-Match, If-Modified-Since, If-None-Match, If-Range, If-Unmodified-Since, Range",
        ))
        .insert_header((header::ACCESS_CONTROL_MAX_AGE, "86400"))
        .finish()
}

/// What is served: one live version of a blob.
struct Selected<'a> {
    record: &'a Record,
    blob: BlobId,
    version: VersionId,
    payload: &'a Payload,
    /// By its own name, so that it never changes.
    pinned: bool,
    /// Saved, whatever its type.
    save: bool,
}

impl Selected<'_> {
    fn subject(&self) -> Subject<'_> {
        let Self { record, blob, version, payload, pinned, save } = *self;
        Subject { blob, version, payload, pinned, save, conflict: record.versions().len() > 1 }
    }
}

async fn serve(request: &HttpRequest, context: &Context, heads: &Heads, id: &str, query: &DownloadQuery) -> Result<HttpResponse, Fault> {
    let started = Instant::now();
    let blob = id.parse::<BlobId>()?;
    let wanted = query.version.as_deref().map(str::parse::<VersionId>).transpose()?;
    let (record, moment) = context.store.moment(blob)?.ok_or(Fault::Unknown(blob))?;
    let version = choose(&record, wanted).ok_or(if wanted.is_some() { Fault::NoSuchVersion } else { Fault::Unknown(blob) })?;
    let payload = version.content.payload().ok_or(Fault::Deleted(version.id()))?;
    let save = query.download.as_deref().is_some_and(is_set);
    let selected = Selected { record: &record, blob, version: version.id(), payload, pinned: wanted.is_some(), save };

    match conditional::of_read(request.headers(), payload.hash, version.stamp) {
        Verdict::Failed => return Err(Fault::Condition(Some(payload.hash))),
        Verdict::NotModified => {
            let mut answer = HttpResponse::NotModified();
            heads.validate(&mut answer, selected.subject());
            return Ok(answer.finish());
        }
        Verdict::Proceed => {}
    }
    if request.method() == Method::HEAD {
        return head(context, heads, &selected, started);
    }
    let parts = parts_of(request.headers(), payload)?;
    let looked_up = started.elapsed();
    // The moment ends here: what is waited for from now on may take long.
    let here = moment.payload(payload.hash)?;
    let found = find(context, &selected, here, parts.first().map_or(0, |part| part.start)).await?;

    let mut answer = HttpResponse::build(if parts.is_empty() { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT });
    heads.describe(&mut answer, selected.subject(), found.cache_status());
    answer.insert_header(timing(looked_up, started.elapsed()));
    let sent = if parts.is_empty() { payload.size } else { parts.iter().map(|part| part.end - part.start).sum() };
    context.metrics.downloaded(sent, found.is_hit());
    Ok(match &parts[..] {
        [] => answer.body(found.body(0..payload.size)),
        [part] => {
            let value = format!("bytes {}-{}/{}", part.start, part.end - 1, payload.size);
            answer.insert_header((header::CONTENT_RANGE, value)).body(found.body(part.clone()))
        }
        _ => {
            let framing = Framing::new(payload, media_type(payload).to_str().unwrap_or(BYTES), parts);
            answer.insert_header((header::CONTENT_TYPE, framing.media_type()));
            answer.body(SizedStream::new(framing.length(), Box::pin(framing.body(move |part| found.stream(part)))))
        }
    })
}

fn choose(record: &Record, wanted: Option<VersionId>) -> Option<&Version> {
    match wanted {
        Some(wanted) => record.version(wanted),
        None => record.winner(),
    }
}

/// `?download`, `?download=1`; not `?download=false`.
pub(super) fn is_set(value: &str) -> bool {
    !matches!(value, "0" | "false" | "no")
}

/// The parts that are asked for; none if that is the whole.
fn parts_of(headers: &HeaderMap, payload: &Payload) -> Result<Vec<Range<u64>>, Fault> {
    let Some(value) = headers.get(header::RANGE).and_then(|value| value.to_str().ok()) else { return Ok(Vec::new()) };
    if !conditional::if_range_holds(headers, payload.hash) {
        return Ok(Vec::new());
    }
    match select(value, payload.size) {
        Selection::Whole => Ok(Vec::new()),
        Selection::Part(part) => Ok(vec![part]),
        Selection::Parts(parts) => Ok(parts),
        Selection::Unsatisfiable => Err(Fault::Range(payload.size)),
    }
}

/// Where the bytes are.
enum Found {
    /// In memory; whether they were here before they were asked for.
    Inline(Bytes, bool),
    /// In a file; whether they were here before they were asked for.
    File(std::sync::Arc<std::fs::File>, bool),
    /// In a file that is checked as it is read, the first time since the start; whom to ask where it is not right; whether they were
    /// here before they were asked for.
    Unread(FirstReading, Wanted, bool),
    /// On their way.
    Arriving(Arriving),
}

impl Found {
    fn of(reader: PayloadReader, wanted: Wanted, hit: bool) -> Self {
        match reader {
            PayloadReader::Unread(reading) => Self::Unread(reading, wanted, hit),
            PayloadReader::Inline(bytes) => Self::Inline(bytes, hit),
            PayloadReader::File { file, .. } => Self::File(file, hit),
        }
    }

    fn is_hit(&self) -> bool {
        matches!(self, Self::Inline(_, true) | Self::File(_, true) | Self::Unread(_, _, true))
    }

    /// What RFC 9211 calls how the request was handled; from which peer the bytes are coming where they are passed on as they come.
    fn cache_status(&self) -> HeaderValue {
        match self {
            Self::Inline(_, true) | Self::File(_, true) | Self::Unread(_, _, true) => HeaderValue::from_static(HIT),
            Self::Inline(_, false) | Self::File(_, false) | Self::Unread(_, _, false) => HeaderValue::from_static(MISS),
            Self::Arriving(arriving) => {
                let from = arriving.source().and_then(|holder| HeaderValue::from_str(&format!("{MISS}; detail=\"{holder}\"")).ok());
                from.unwrap_or(HeaderValue::from_static(MISS))
            }
        }
    }

    fn body(self, part: Range<u64>) -> BoxBody {
        match self {
            Self::Inline(bytes, _) => inline(&bytes, &part).boxed(),
            Self::File(..) | Self::Unread(..) | Self::Arriving(_) => SizedStream::new(part.end - part.start, self.stream(part)).boxed(),
        }
    }

    fn stream(&self, part: Range<u64>) -> LocalBoxStream<'static, std::io::Result<Bytes>> {
        match self {
            Self::Inline(bytes, _) => stream::iter([Ok(inline(bytes, &part))]).boxed_local(),
            Self::File(file, _) => bytes::of_file(std::sync::Arc::clone(file), part.start, part.end).boxed_local(),
            Self::Unread(reading, wanted, _) => bytes::of_unread(reading.clone(), wanted.clone(), part.start, part.end).boxed_local(),
            Self::Arriving(arriving) => bytes::of_arriving(arriving.clone(), part.start, part.end).boxed_local(),
        }
    }
}

/// A part of bytes in memory; what does not fit in memory is not there.
fn inline(bytes: &Bytes, part: &Range<u64>) -> Bytes {
    let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(at(part.start)..at(part.end))
}

/// Takes the payload that is here, or has it fetched and waits for its first byte.
async fn find(context: &Context, selected: &Selected<'_>, here: Option<PayloadReader>, from: u64) -> Result<Found, Fault> {
    let wanted = || Wanted::new(context, selected.payload, selected.blob);
    if let Some(reader) = here {
        // The store checks no more than what is read, and it is too late for a problem once that was promised.
        let is_right = match &reader {
            PayloadReader::Unread(reading) if reading.size() == selected.payload.size && from < reading.size() => {
                let reading = reading.clone();
                match actix_web::web::block(move || reading.read(from, 1)).await.unwrap_or(Err(ReadFault::Damaged)) {
                    Ok(_) => true,
                    Err(ReadFault::Damaged) => false,
                    Err(ReadFault::Local(error)) => return Err(StoreFault(error.to_string()).into()),
                }
            }
            PayloadReader::Unread(_) | PayloadReader::Inline(_) | PayloadReader::File { .. } => true,
        };
        if is_right {
            return right_size(reader, selected, wanted(), true);
        }
    }
    match wanted().fetch(from).await? {
        Fetched::Here(reader) => right_size(reader, selected, wanted(), false),
        Fetched::Arriving(arriving) => Ok(Found::Arriving(arriving)),
    }
}

/// A payload of another length than the record says is none that a right record could name: the record lies.
fn right_size(reader: PayloadReader, selected: &Selected<'_>, wanted: Wanted, hit: bool) -> Result<Found, Fault> {
    if reader.size() != selected.payload.size {
        tracing::warn!(blob = %selected.blob, version = %selected.version, "a record says a wrong size; its payload is not served");
        return Err(Fault::NoHolder);
    }
    Ok(Found::of(reader, wanted, hit))
}

fn head(context: &Context, heads: &Heads, selected: &Selected<'_>, started: Instant) -> Result<HttpResponse, Fault> {
    let hit = context.store.holds(selected.payload.hash)?;
    let mut answer = HttpResponse::Ok();
    heads.describe(&mut answer, selected.subject(), HeaderValue::from_static(if hit { HIT } else { MISS }));
    answer.insert_header(timing(started.elapsed(), started.elapsed()));
    // The length is announced, and no byte is read to be thrown away.
    Ok(answer.body(SizedStream::new(selected.payload.size, stream::empty::<std::io::Result<Bytes>>())))
}

#[cfg(test)]
mod tests {
    use gossip_cdn_protocol::io::RecordChange;
    use gossip_cdn_protocol::item::StateHash;
    use gossip_cdn_protocol::{Content, ContentHash, NodeId, Persist, Sha256Digest, Stamp, VectorClock, WallTime};
    use uuid::Uuid;

    use super::super::wanted::FIRST_BYTE;
    use super::super::{Settings, Tasks};
    use super::*;
    use crate::driver::{self, Inbox};
    use crate::store::{INLINE_MAX, Next, Options, Pin, Reserve, Store, Writer};

    /// What routes work with, in a folder of its own, and a core that never answers. Nothing is committed until the writer runs.
    fn context(dir: &std::path::Path) -> (Context, Writer, Inbox) {
        let options =
            Options { cluster: "test".into(), cache_bytes: 1 << 20, reserve: Reserve::Bytes(0), fresh_key: [7; 32], restored: false };
        let (store, writer) = Store::open(dir, options).unwrap();
        let (driver, inbox) = driver::channel();
        let tasks = Tasks::new(|_| panic!("a download leaves no work behind"));
        (Context::new(store, driver, Settings::default(), tasks, || WallTime(0)), writer, inbox)
    }

    /// What a record says of those bytes, or of so many others.
    fn payload(hash: ContentHash, size: u64) -> Payload {
        Payload { hash, sha256: Sha256Digest([0; 32]), size, media_type: "text/plain".into(), file_name: None }
    }

    /// Stores bytes, and a record that names them.
    async fn stored(context: &Context, writer: Writer, bytes: &[u8]) -> Pin {
        let mut upload = context.store.upload();
        upload.write(Bytes::copy_from_slice(bytes)).await.unwrap();
        let stored = upload.finish().await.unwrap();
        let (stamp, origin) = (Stamp(1), NodeId::from_public_key(&[1; 32]));
        let content = Content::Payload(payload(stored.hash, stored.size));
        let version = Version { stamp, origin, content, clock: VectorClock::from_iter([(origin, stamp)]) };
        let key = context.store.key(BlobId(Uuid::from_u128(1)));
        let change = RecordChange { key, record: Record::from(vec![version]), state: StateHash(0) };
        let durable = context.store.persist(Persist { records: vec![change], ..Persist::default() }).await;
        context.store.close();
        actix_web::rt::task::spawn_blocking(|| writer.run()).await.unwrap().unwrap();
        assert_eq!(durable.await.unwrap(), Ok(()));
        stored.pin
    }

    /// What is found of a payload for a record that says it has `size` bytes.
    async fn found(context: &Context, hash: ContentHash, size: u64) -> Result<Found, Fault> {
        let payload = payload(hash, size);
        let version = VersionId { stamp: Stamp(1), origin: NodeId::from_public_key(&[1; 32]) };
        let record = Record::default();
        let blob = BlobId(Uuid::nil());
        let selected = Selected { record: &record, blob, version, payload: &payload, pinned: false, save: false };
        find(context, &selected, context.store.payload(hash)?, 0).await
    }

    #[tokio::test]
    async fn a_payload_of_another_size_than_its_record_says_is_not_served() {
        for bytes in [vec![1; 100], vec![1; INLINE_MAX + 100]] {
            let dir = tempfile::tempdir().unwrap();
            let (context, writer, _inbox) = context(dir.path());
            let _pin = stored(&context, writer, &bytes).await;
            let (hash, size) = (ContentHash::of(&bytes), bytes.len() as u64);
            assert!(found(&context, hash, size).await.is_ok_and(|found| found.is_hit()));
            for lie in [0, 1, size - 1, size + 1, u64::MAX] {
                assert!(matches!(found(&context, hash, lie).await, Err(Fault::NoHolder)), "{lie}");
            }
        }
    }

    #[tokio::test]
    async fn a_payload_that_arrives_in_another_size_than_its_record_says_is_not_served() {
        let dir = tempfile::tempdir().unwrap();
        let (context, _writer, _inbox) = context(dir.path());
        let hash = ContentHash::of(b"");
        let _incoming = context.store.incoming(hash, 0).unwrap();
        assert!(matches!(found(&context, hash, INLINE_MAX as u64 + 1).await, Err(Fault::NoHolder)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_does_not_wait_for_ever_for_the_first_byte() {
        let dir = tempfile::tempdir().unwrap();
        let (context, _writer, _inbox) = context(dir.path());
        for size in [100, INLINE_MAX as u64 + 100] {
            let started = Instant::now();
            // It is arriving, so they say, but no byte comes; and the core says nothing.
            let _incoming = context.store.incoming(ContentHash([1; 32]), size).unwrap();
            assert!(matches!(found(&context, ContentHash([1; 32]), size).await, Err(Fault::NoHolder)));
            assert_eq!(started.elapsed().as_secs(), FIRST_BYTE.as_secs());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_outlives_a_transfer_that_brought_nothing() {
        let begin = Instant::now();
        let dir = tempfile::tempdir().unwrap();
        let (context, _writer, _inbox) = context(dir.path());
        let (hash, size) = (ContentHash::of(&vec![7; 100_000]), 100_000);
        let first = context.store.incoming(hash, size).unwrap();
        let transfers = async {
            tokio::task::yield_now().await;
            drop(first);
            tokio::task::yield_now().await;
            let mut encoded = Vec::new();
            let holder = tempfile::tempdir().unwrap();
            let (holder, writer, _inbox) = self::context(holder.path());
            let _pin = stored(&holder, writer, &vec![7; 100_000]).await;
            holder.store.encode(hash, 0..size, &mut encoded).unwrap();
            let second = context.store.incoming(hash, size).unwrap();
            let Next::Part(part) = second.next().await else { panic!("nothing is here") };
            part.receive(&encoded[..]).unwrap();
            second
        };
        let (found, _second) = futures_util::future::join(found(&context, hash, size), transfers).await;
        assert!(matches!(found, Ok(Found::Arriving(_))));
        assert_eq!(begin.elapsed().as_secs(), 0, "it does not wait for the one that is over");
    }

    #[test]
    fn a_part_of_memory_never_leaves_it() {
        let bytes = Bytes::from_static(b"0123456789");
        assert_eq!(inline(&bytes, &(2..5)), "234");
        assert_eq!(inline(&bytes, &(0..10)), bytes);
        assert_eq!(inline(&bytes, &(8..99)), "89");
    }

    #[test]
    fn a_flag_is_set_unless_it_says_no() {
        assert!(is_set("") && is_set("1") && is_set("true"));
        assert!(!is_set("0") && !is_set("false"));
    }
}
