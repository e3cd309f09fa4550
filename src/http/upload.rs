//! Uploads: new blobs and replaced ones.
//!
//! 1. Nothing is published before the whole body is here, durable or queued for the disk, and has the digest its sender claimed. A
//!    form publishes all of its files or none of them.
//! 2. From then on the commit is a task of its own: a connection that resets loses the answer, not the write.
//! 3. Media type and file name are kept as given. Where no type is given it follows from the name's extension, never from the bytes.

use std::time::Duration;

use actix_multipart::{Field, Multipart};
use actix_web::http::header::{self, ContentDisposition, HeaderMap};
use actix_web::mime::Mime;
use actix_web::web::{Data, Path, Payload, Query};
use actix_web::{HttpRequest, HttpResponse, post, put};
use futures_util::future::join_all;
use futures_util::{StreamExt as _, TryStreamExt as _};
use gossip_cdn_protocol::io::{Change, Condition, Write, WriteFault, Written};
use gossip_cdn_protocol::store::Missing;
use gossip_cdn_protocol::version::MAX_TEXT;
use gossip_cdn_protocol::{BlobId, ContentHash, VersionId, wire};
use serde::Deserialize;

use super::auth::MayWrite;
use super::body::Body;
use super::described::{Described, link, origin_of};
use super::disposition::clean_name;
use super::errors::{Fault, refuse_upload};
use super::{Context, accept, body, conditional, digests, page};
use crate::store::{Stored, Upload};

/// The path of [`put_named`].
pub(super) const NAMED: &str = "/{file_name}";

/// Most files in one form.
const MAX_FILES: usize = 1000;
/// Longest that an upload waits for copies.
const MAX_WAIT: Duration = Duration::from_secs(3600);
/// How long it waits if nothing is said.
const WAIT: f64 = 10.0;

/// What the query of an upload says.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct UploadQuery {
    /// The file name.
    name: Option<String>,
    /// Answer when so many nodes hold it durably, this one included.
    copies: Option<usize>,
    /// Seconds to wait for the copies: 10 if absent.
    timeout: Option<f64>,
    /// `PUT /blobs/{id}` without a body: write the bytes, type and name of this live version again, over all others.
    from_version: Option<String>,
}

/// How often a version whose bytes are on their way is tried to be restored.
const RESTORE_TRIES: usize = 5;
/// How long to wait in between.
const RESTORE_PAUSE: Duration = Duration::from_millis(20);

/// On how many nodes an upload is to be durable.
#[derive(Debug, Clone, Copy)]
struct Wish {
    copies: usize,
    timeout: Duration,
    asked: bool,
}

impl UploadQuery {
    fn wish(&self) -> Result<Wish, Fault> {
        let copies = self.copies.unwrap_or(1);
        if !(1..=wire::MAX_MEMBERS).contains(&copies) {
            return Err(Fault::Bad("bad-query", format!("copies is a number from 1 to {}.", wire::MAX_MEMBERS)));
        }
        let timeout = Duration::try_from_secs_f64(self.timeout.unwrap_or(WAIT)).ok().filter(|timeout| *timeout <= MAX_WAIT);
        let timeout =
            timeout.ok_or_else(|| Fault::Bad("bad-query", format!("timeout is a number of seconds up to {}.", MAX_WAIT.as_secs())))?;
        Ok(Wish { copies, timeout, asked: self.copies.is_some() })
    }
}

/// A payload that is here and not published yet.
struct Arrived {
    stored: Stored,
    media_type: String,
    file_name: Option<String>,
}

/// Stores a new blob of that file name; what `curl -T FILE http://node/` sends.
#[utoipa::path(tag = "blobs", params(("file_name" = String, Path, description = "The file's name"), UploadQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(Uploaded))]
#[put("/{file_name}")]
pub(super) async fn put_named(
    _may: MayWrite,
    request: HttpRequest,
    name: Path<String>,
    query: Query<UploadQuery>,
    payload: Payload,
    context: Data<Context>,
) -> HttpResponse {
    let body = Body::new(payload, context.settings.patience);
    let target = Target { blob: None, name: Some(name.into_inner()), form_is_curl: false };
    raw(&request, &context, &query, body.clone(), target).await.unwrap_or_else(|fault| refuse_upload(&request, fault, body))
}

/// Stores a new blob without a file name; what `curl -T - http://node/` sends.
#[utoipa::path(tag = "blobs", params(UploadQuery), request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(Uploaded))]
#[put("/")]
pub(super) async fn put_unnamed(
    _may: MayWrite,
    request: HttpRequest,
    query: Query<UploadQuery>,
    payload: Payload,
    context: Data<Context>,
) -> HttpResponse {
    let body = Body::new(payload, context.settings.patience);
    let target = Target { blob: None, name: None, form_is_curl: false };
    raw(&request, &context, &query, body.clone(), target).await.unwrap_or_else(|fault| refuse_upload(&request, fault, body))
}

/// Stores a new blob from the raw body, or one for each file of a form.
#[utoipa::path(tag = "blobs", params(UploadQuery),
    request_body(content((Vec<u8> = "application/octet-stream"), (Vec<u8> = "multipart/form-data"))),
    responses(Uploaded))]
#[post("/blobs")]
pub(super) async fn post(
    _may: MayWrite,
    request: HttpRequest,
    query: Query<UploadQuery>,
    payload: Payload,
    context: Data<Context>,
) -> HttpResponse {
    let is_form =
        content_type(request.headers()).is_ok_and(|media_type| media_type.is_some_and(|text| essence(text) == "multipart/form-data"));
    let body = Body::new(payload, context.settings.patience);
    let answer = if is_form {
        form(&request, &context, &query, body.clone()).await
    } else {
        raw(&request, &context, &query, body.clone(), Target { blob: None, name: None, form_is_curl: true }).await
    };
    answer.unwrap_or_else(|fault| refuse_upload(&request, fault, body))
}

/// Creates or replaces a blob.
#[utoipa::path(tag = "blobs", params(("id" = String, Path, description = "The blob's GUID"), UploadQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, description = "Created, or written over a deleted blob", body = Described),
        (status = 200, description = "A live version was replaced", body = Described),
        (status = 202, description = "Stored here, on fewer nodes than asked for", body = Described),
        (status = 412, description = "A precondition does not hold", content_type = "application/problem+json"),
        (status = "4XX", description = "A problem", content_type = "application/problem+json")))]
#[put("/blobs/{id}")]
pub(super) async fn put(
    _may: MayWrite,
    request: HttpRequest,
    id: Path<String>,
    query: Query<UploadQuery>,
    payload: Payload,
    context: Data<Context>,
) -> HttpResponse {
    let body = Body::new(payload, context.settings.patience);
    let answer = match (id.parse::<BlobId>(), &query.from_version) {
        (Err(name), _) => Err(name.into()),
        (Ok(blob), Some(version)) => restore(&request, &context, &query, body.clone(), blob, version).await,
        (Ok(blob), None) => {
            raw(&request, &context, &query, body.clone(), Target { blob: Some(blob), name: None, form_is_curl: false }).await
        }
    };
    answer.unwrap_or_else(|fault| refuse_upload(&request, fault, body))
}

/// How the upload of new blobs is answered, for the description of the routes.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it describes answers and is none")]
enum Uploaded {
    /// Stored; a link for each blob, or by Accept the descriptions or a page
    #[response(status = 201)]
    New(Described),
    /// Stored here, on fewer nodes than asked for
    #[response(status = 202)]
    Fewer(Described),
    /// A problem
    #[response(status = "4XX", content_type = "application/problem+json")]
    Problem,
}

/// What a raw body becomes.
struct Target {
    blob: Option<BlobId>,
    /// From the path.
    name: Option<String>,
    /// curl calls everything it posts a form.
    form_is_curl: bool,
}

async fn raw(request: &HttpRequest, context: &Context, query: &UploadQuery, mut body: Body, target: Target) -> Result<HttpResponse, Fault> {
    let headers = request.headers();
    let wish = query.wish()?;
    if query.from_version.is_some() {
        return Err(Fault::Bad("bad-query", "from_version belongs to PUT /blobs/{id}.".to_owned()));
    }
    refuse_partial(headers)?;
    let condition = condition(headers, context, target.blob)?;
    let expected = digests::expected(headers).map_err(bad_digest)?;
    let given = target.name.or_else(|| query.name.clone()).or_else(|| header_name(headers));
    let file_name = file_name(given.as_deref())?;
    let declared = content_type(headers)?.filter(|text| !(target.form_is_curl && essence(text) == "application/x-www-form-urlencoded"));
    let media_type = media_type(declared, file_name.as_deref())?;

    let permit = body::admit(context, content_length(headers))?;
    let upload = body::receive(context, &mut body, body::cut).await?;
    let commit = {
        let context = context.clone();
        async move {
            let stored = finish(upload).await?;
            drop(permit);
            if !expected.is_met_by(stored.sha256) {
                return Err(Fault::Digest);
            }
            publish(&context, target.blob, Arrived { stored, media_type, file_name }, condition, wish).await
        }
    };
    let written = context.tasks.spawn(commit).await.map_err(|_| Fault::Stopped)??;
    Ok(answer(request, context, &[written], wish))
}

async fn form(request: &HttpRequest, context: &Context, query: &UploadQuery, body: Body) -> Result<HttpResponse, Fault> {
    let headers = request.headers();
    let wish = query.wish()?;
    refuse_partial(headers)?;
    let condition = condition(headers, context, None)?;
    let expected = digests::expected(headers).map_err(bad_digest)?;
    let patience = context.settings.patience;
    let permit = body::admit_form(context, content_length(headers))?;

    let mut body = if expected.is_empty() { body } else { body.digested() };
    let arrived = files(context, Multipart::new(headers, body.clone())).await?;
    body.finish(patience).await?;
    if body.digest().is_some_and(|found| !expected.is_met_by(found)) {
        return Err(Fault::Digest);
    }
    drop(permit);
    if arrived.is_empty() {
        return Err(Fault::Bad("no-file", "The form has no file: no part with a file name.".to_owned()));
    }
    let commit = {
        let context = context.clone();
        async move {
            // All at once, so that they share commits.
            let writes = arrived.into_iter().map(|arrived| publish(&context, None, arrived, condition.clone(), wish));
            join_all(writes).await.into_iter().collect::<Result<Vec<_>, Fault>>()
        }
    };
    let written = context.tasks.spawn(commit).await.map_err(|_| Fault::Stopped)??;
    Ok(answer(request, context, &written, wish))
}

/// Receives every file of a form; other fields are read and dropped.
async fn files(context: &Context, mut form: Multipart) -> Result<Vec<Arrived>, Fault> {
    let patience = context.settings.patience;
    let mut arrived = Vec::new();
    while let Some(mut field) = form.try_next().await.map_err(|error| body::bad_form(error, patience))? {
        let Some(given) = part_name(&field) else {
            while field.try_next().await.map_err(|error| body::bad_form(error, patience))?.is_some() {}
            continue;
        };
        if arrived.len() == MAX_FILES {
            return Err(Fault::Bad("too-many-files", format!("A form has at most {MAX_FILES} files.")));
        }
        let expected = digests::expected(field.headers()).map_err(bad_digest)?;
        let file_name = file_name(Some(&given))?;
        let media_type = media_type(content_type(field.headers())?, file_name.as_deref())?;
        let upload = body::receive(context, &mut field, body::bad_form).await?;
        let stored = finish(upload).await?;
        if !expected.is_met_by(stored.sha256) {
            return Err(Fault::Digest);
        }
        arrived.push(Arrived { stored, media_type, file_name });
    }
    Ok(arrived)
}

/// The name of a part that is a file. A browser sends an empty one for a field in which nothing was chosen.
fn part_name(field: &Field) -> Option<String> {
    let disposition = field.content_disposition()?;
    disposition_name(disposition).filter(|name| !name.is_empty())
}

async fn restore(
    request: &HttpRequest,
    context: &Context,
    query: &UploadQuery,
    mut body: Body,
    blob: BlobId,
    version: &str,
) -> Result<HttpResponse, Fault> {
    let wish = query.wish()?;
    let version = version.parse::<VersionId>()?;
    let condition = condition(request.headers(), context, Some(blob))?;
    let patience = context.settings.patience;
    while let Some(chunk) = body.next().await {
        if !chunk.map_err(|error| body::cut(error, patience))?.is_empty() {
            return Err(Fault::Bad("unexpected-body", "from_version takes the bytes from that version; send no body.".to_owned()));
        }
    }
    let write = Write { blob: Some(blob), change: Change::Restore(version), condition, copies: wish.copies, timeout: wish.timeout };
    let mut result = context.driver.write(write.clone()).await;
    for _ in 0..RESTORE_TRIES {
        let Err(WriteFault::NotHere(hash)) = result else { break };
        fetch(context, blob, version, hash).await?;
        result = context.driver.write(write.clone()).await;
    }
    let written = result.map_err(|fault| Fault::of_write(fault, Some(blob)))?;
    Ok(answer(request, context, &[written], wish))
}

/// Has the bytes of a version that is to be restored fetched, if they are not here.
async fn fetch(context: &Context, blob: BlobId, version: VersionId, hash: ContentHash) -> Result<(), Fault> {
    let record = context.store.blob(blob)?.unwrap_or_default();
    if let Some(payload) = record.version(version).and_then(|version| version.content.payload()) {
        context.driver.want(Missing { hash, size: payload.size, key: context.store.key(blob) }).await?;
    }
    // They may be here while the record still waits for the disk, which takes about an fsync.
    tokio::time::sleep(RESTORE_PAUSE).await;
    Ok(())
}

async fn finish(upload: Upload) -> Result<Stored, Fault> {
    upload.finish().await.map_err(Fault::of_disk)
}

async fn publish(context: &Context, blob: Option<BlobId>, arrived: Arrived, condition: Condition, wish: Wish) -> Result<Written, Fault> {
    let Arrived { stored: Stored { hash, sha256, size, life, pin }, media_type, file_name } = arrived;
    let payload = gossip_cdn_protocol::Payload { hash, sha256, size, media_type, file_name };
    let write = Write { blob, change: Change::Put(payload), condition, copies: wish.copies, timeout: wish.timeout };
    let written = context.driver.publish(write, life).await.map_err(|fault| {
        // What there was room for when it began may have filled the disk.
        let is_full = matches!(fault, WriteFault::Store(_)) && matches!(context.store.room_for(0), Ok(false));
        if is_full { Fault::DiskFull } else { Fault::of_write(fault, blob) }
    });
    // From here on the record owns the payload, or nobody does.
    drop(pin);
    let written = written?;
    context.metrics.uploaded(size);
    Ok(written)
}

fn answer(request: &HttpRequest, context: &Context, written: &[Written], wish: Wish) -> HttpResponse {
    let origin = origin_of(request, &context.settings.address);
    let mut answer = if written.iter().any(|written| written.copies < wish.copies) {
        HttpResponse::Accepted()
    } else if written.iter().all(|written| written.replaced) {
        HttpResponse::Ok()
    } else {
        HttpResponse::Created()
    };
    answer.insert_header((header::VARY, "Accept")).insert_header((header::CACHE_CONTROL, "no-store"));
    if let [written] = written {
        answer.insert_header((header::LOCATION, link(&origin, written.blob))).insert_header(("Version", written.version.to_string()));
        if let Some(payload) = &written.payload {
            answer.insert_header((header::ETAG, conditional::entity_tag(&payload.hash)));
        }
    }
    let describe = |written: &Written| {
        let described = Described::new(&origin, written.blob, written.version, written.payload.as_ref());
        described.copies(wish.asked.then_some(written.copies))
    };
    match (accept::form(request.headers()), written) {
        (accept::Form::Json, [written]) => answer.json(describe(written)),
        (accept::Form::Json, written) => answer.json(written.iter().map(describe).collect::<Vec<_>>()),
        (accept::Form::Html, written) => page::uploaded(request, answer, &written.iter().map(describe).collect::<Vec<_>>()),
        (accept::Form::Link, written) => {
            let links: String = written.iter().map(|written| format!("{}\n", link(&origin, written.blob))).collect();
            answer.content_type("text/plain; charset=utf-8").body(links)
        }
    }
}

/// The preconditions; one that fails already is answered before the body is read. The core judges again, in one step with the write.
pub(super) fn condition(headers: &HeaderMap, context: &Context, blob: Option<BlobId>) -> Result<Condition, Fault> {
    let conditional = [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_UNMODIFIED_SINCE].iter().any(|name| headers.contains_key(name));
    if !conditional {
        return Ok(Condition::default());
    }
    let record = match blob {
        Some(blob) => context.store.blob(blob)?,
        None => None,
    };
    let winner = record.as_ref().and_then(|record| record.winner());
    let winner = winner.and_then(|winner| winner.content.payload().map(|payload| (payload.hash, winner.stamp)));
    let condition = conditional::of_write(headers, winner).map_err(|conditional::Malformed| {
        Fault::Bad("bad-precondition", "If-Match and If-None-Match are * or a list of entity tags in quotes.".to_owned())
    })?;
    let hash = winner.map(|(hash, _)| hash);
    if condition.holds(hash) { Ok(condition) } else { Err(Fault::Condition(hash)) }
}

/// Refuses what would be stored as something it is not.
fn refuse_partial(headers: &HeaderMap) -> Result<(), Fault> {
    if headers.contains_key(header::CONTENT_RANGE) {
        // RFC 9110 section 14.5: a server that does not do partial writes must not take a part for the whole.
        return Err(Fault::Bad("partial-upload", "An upload is always whole; Content-Range is not taken.".to_owned()));
    }
    let codings = headers.get_all(header::CONTENT_ENCODING).flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    if codings.into_iter().all(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"identity")) { Ok(()) } else { Err(Fault::Coding) }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

pub(super) fn content_type(headers: &HeaderMap) -> Result<Option<&str>, Fault> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(None) };
    let text = value.to_str().map_err(|_| bad_media_type())?.trim();
    Ok(if text.is_empty() { None } else { Some(text) })
}

pub(super) fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn bad_media_type() -> Fault {
    Fault::Bad("bad-media-type", format!("Content-Type is no media type of at most {MAX_TEXT} bytes, such as image/png."))
}

fn bad_digest(digests::Malformed(field): digests::Malformed) -> Fault {
    Fault::Bad("bad-digest", format!("{field} is written sha-256=:<base64 of 32 bytes>: (RFC 9530)."))
}

/// The media type as declared, or the one of the name's extension.
pub(super) fn media_type(declared: Option<&str>, file_name: Option<&str>) -> Result<String, Fault> {
    match declared {
        Some(text) if text.len() <= MAX_TEXT && text.parse::<Mime>().is_ok() => Ok(text.to_owned()),
        Some(_) => Err(bad_media_type()),
        None => Ok(file_name.map_or_else(
            || "application/octet-stream".to_owned(),
            |name| mime_guess::from_path(name).first_or_octet_stream().essence_str().to_owned(),
        )),
    }
}

fn file_name(given: Option<&str>) -> Result<Option<String>, Fault> {
    let name = given.and_then(clean_name);
    if name.as_ref().is_some_and(|name| name.len() > MAX_TEXT) {
        return Err(Fault::Bad("bad-file-name", format!("The file name is longer than {MAX_TEXT} bytes.")));
    }
    Ok(name)
}

/// The name in the request's own `Content-Disposition`; one that cannot be read is no name.
fn header_name(headers: &HeaderMap) -> Option<String> {
    disposition_name(&ContentDisposition::from_raw(headers.get(header::CONTENT_DISPOSITION)?).ok()?)
}

fn disposition_name(disposition: &ContentDisposition) -> Option<String> {
    let extended = disposition.get_filename_ext().and_then(|name| String::from_utf8(name.value.clone()).ok());
    extended.or_else(|| disposition.get_filename().map(ToOwned::to_owned))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn the_type_follows_the_name_only_where_none_is_declared() {
        let of = |declared, name| media_type(declared, name).ok();
        assert_eq!(of(None, Some("photo.JPG")).as_deref(), Some("image/jpeg"));
        assert_eq!(of(None, Some("no-extension")).as_deref(), Some("application/octet-stream"));
        assert_eq!(of(None, None).as_deref(), Some("application/octet-stream"));
        assert_eq!(of(Some("Text/HTML; charset=x"), Some("a.jpg")).as_deref(), Some("Text/HTML; charset=x"), "kept as given");
        assert_eq!(of(Some("nonsense"), None), None);
        assert_eq!(of(Some(&format!("a/{}", "b".repeat(MAX_TEXT))), None), None);
    }

    #[test]
    fn a_disposition_names_the_file_in_either_form() {
        let name = |value: &str| header_name(&headers(&[(header::CONTENT_DISPOSITION, value)]));
        assert_eq!(name("attachment; filename=\"a b.txt\"").as_deref(), Some("a b.txt"));
        assert_eq!(name("attachment; filename=\"_.txt\"; filename*=UTF-8''%C3%A9.txt").as_deref(), Some("é.txt"));
        assert_eq!(name("inline"), None);
        assert_eq!(file_name(Some(&"x".repeat(MAX_TEXT))).ok(), Some(Some("x".repeat(MAX_TEXT))));
        assert!(file_name(Some(&"x".repeat(MAX_TEXT + 1))).is_err());
    }

    #[test]
    fn parts_and_codings_are_refused() {
        assert!(refuse_partial(&headers(&[])).is_ok());
        assert!(refuse_partial(&headers(&[(header::CONTENT_ENCODING, "identity")])).is_ok());
        assert!(refuse_partial(&headers(&[(header::CONTENT_ENCODING, "identity, gzip")])).is_err());
        assert!(refuse_partial(&headers(&[(header::CONTENT_RANGE, "bytes 0-1/2")])).is_err());
    }

    #[test]
    fn copies_and_timeout_are_bounded() {
        let wish = |copies, timeout| UploadQuery { name: None, copies, timeout, from_version: None }.wish().ok();
        assert_eq!(wish(None, None).map(|wish| (wish.copies, wish.asked)), Some((1, false)));
        assert_eq!(wish(Some(3), Some(0.5)).map(|wish| wish.timeout), Some(Duration::from_millis(500)));
        for (copies, timeout) in [(Some(0), None), (Some(usize::MAX), None), (None, Some(-1.0)), (None, Some(f64::NAN)), (None, Some(1e9))]
        {
            assert!(wish(copies, timeout).is_none(), "{copies:?} {timeout:?}");
        }
    }
}
