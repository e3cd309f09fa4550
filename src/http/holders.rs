//! Who holds a blob's payload, and the link as a QR code.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse, get};
use gossip_cdn_protocol::BlobId;
use gossip_cdn_shell::problem::Problem;
use qrcode::QrCode;
use qrcode::render::svg;
use serde::Serialize;
use utoipa::ToSchema;

use super::Context;
use super::described::{link, origin_of};
use super::errors::Fault;

/// The nodes that hold the winner's payload durably.
#[derive(Debug, Serialize, ToSchema)]
struct HoldersShown {
    /// The blob.
    id: String,
    /// Its winner.
    version: String,
    /// Those that said so.
    holders: Vec<Holder>,
    /// How many members were asked.
    asked: usize,
    /// How many live members there are, this one included.
    members: usize,
}

/// A node that holds a payload.
#[derive(Debug, Serialize, ToSchema)]
struct Holder {
    /// Its id.
    id: String,
    /// Its base URL.
    address: String,
}

/// Asks who holds the winner's payload.
#[utoipa::path(tag = "blobs", params(("id" = String, Path, description = "The blob's GUID")),
    responses((status = 200, description = "The holders", body = HoldersShown),
        (status = 404, description = "Unknown", content_type = "application/problem+json"),
        (status = 410, description = "Deleted", content_type = "application/problem+json")))]
#[get("/blobs/{id}/holders")]
pub(super) async fn holders(id: Path<String>, context: Data<Context>) -> Result<HttpResponse, Problem> {
    let blob = live(&context, &id)?;
    let found = context.driver.holders(blob).await.map_err(Fault::from)?.ok_or(Fault::Unknown(blob))?;
    let answer = HoldersShown {
        id: blob.to_string(),
        version: found.version.to_string(),
        holders: found.holders.into_iter().map(|(id, address)| Holder { id: id.to_string(), address }).collect(),
        asked: found.asked,
        members: found.members,
    };
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(answer))
}

/// The link of a blob, to be photographed.
#[utoipa::path(tag = "blobs", params(("id" = String, Path, description = "The blob's GUID")),
    responses((status = 200, description = "The link as a QR code", body = String, content_type = "image/svg+xml"),
        (status = 404, description = "Unknown", content_type = "application/problem+json"),
        (status = 410, description = "Deleted", content_type = "application/problem+json")))]
#[get("/blobs/{id}/qr")]
pub(super) async fn qr(request: HttpRequest, id: Path<String>, context: Data<Context>) -> Result<HttpResponse, Problem> {
    let blob = live(&context, &id)?;
    let code = QrCode::new(link(&origin_of(&request, &context.settings.address), blob)).map_err(Problem::internal)?;
    let image = code.render::<svg::Color<'_>>().min_dimensions(256, 256).build();
    Ok(HttpResponse::Ok()
        .content_type("image/svg+xml")
        .insert_header(("Cache-Control", "no-cache"))
        .insert_header(("Content-Security-Policy", "sandbox; default-src 'none'; style-src 'unsafe-inline'"))
        .insert_header(("X-Content-Type-Options", "nosniff"))
        .body(image))
}

/// The blob of that id, if it is live.
fn live(context: &Context, id: &str) -> Result<BlobId, Fault> {
    let blob = id.parse::<BlobId>()?;
    let record = context.store.blob(blob)?.unwrap_or_default();
    let winner = record.winner().ok_or(Fault::Unknown(blob))?;
    if winner.content.payload().is_some() { Ok(blob) } else { Err(Fault::Deleted(winner.id())) }
}
