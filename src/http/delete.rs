//! Deleting: a tombstone is written over everything this node has seen of the blob.

use std::time::Duration;

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse, delete};
use gossip_cdn_protocol::BlobId;
use gossip_cdn_protocol::io::{Change, Write};
use gossip_cdn_shell::problem::Problem;

use super::auth::MayWrite;
use super::errors::Fault;
use super::{Context, upload};

/// Deletes a blob.
#[utoipa::path(tag = "blobs", params(("id" = String, Path, description = "The blob's GUID")),
    responses((status = 204, description = "Deleted; the Version header names the tombstone"),
        (status = 404, description = "Unknown", content_type = "application/problem+json"),
        (status = 410, description = "Deleted already", content_type = "application/problem+json"),
        (status = 412, description = "A precondition does not hold", content_type = "application/problem+json")))]
#[delete("/blobs/{id}")]
pub(super) async fn delete(
    _may: MayWrite,
    request: HttpRequest,
    id: Path<String>,
    context: Data<Context>,
) -> Result<HttpResponse, Problem> {
    let blob = id.parse::<BlobId>().map_err(Fault::from)?;
    // An unknown or deleted blob is that, whatever the precondition; so only a live one is judged before the core does.
    let live = context
        .store
        .blob(blob)
        .map_err(Fault::from)?
        .is_some_and(|record| record.winner().is_some_and(|winner| winner.content.payload().is_some()));
    let condition = if live { upload::condition(request.headers(), &context, Some(blob))? } else { Default::default() };
    let write = Write { blob: Some(blob), change: Change::Delete, condition, copies: 1, timeout: Duration::ZERO };
    let written = context.driver.write(write).await.map_err(|fault| Fault::of_write(fault, Some(blob)))?;
    Ok(HttpResponse::NoContent().insert_header(("Version", written.version.to_string())).finish())
}
