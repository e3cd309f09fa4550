//! The scrub: started here, shown in the status.

use actix_web::web::Data;
use actix_web::{HttpResponse, post};
use gossip_cdn_protocol::{Stamp, WallTime};
use gossip_cdn_shell::problem::Problem;
use serde::Serialize;
use utoipa::ToSchema;

use super::Context;
use super::auth::MayWrite;
use super::described::rfc3339;
use crate::store::ScrubState;

/// How far the scrub is that is under way, or how the last one ended.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ScrubShown {
    /// Whether one is under way.
    running: bool,
    /// Payloads looked at.
    payloads: u64,
    /// Bytes looked at.
    bytes: u64,
    /// Payloads found damaged.
    bad: u64,
    /// Rows of records found damaged; the next start of the node mends them.
    records_bad: u64,
    /// When it began; before the first one, when the data folder was new.
    begun: String,
    /// When the last one ended.
    finished: Option<String>,
}

impl From<ScrubState> for ScrubShown {
    fn from(state: ScrubState) -> Self {
        let ScrubState { running, behind: _, begun, finished, payloads, bytes, bad, records_bad } = state;
        let time = |millis| rfc3339(Stamp::at(WallTime(millis)));
        Self { running, payloads, bytes, bad, records_bad, begun: time(begun), finished: finished.map(time) }
    }
}

/// Begins a scrub, unless one is under way.
#[utoipa::path(tag = "node", responses((status = 202, description = "It is under way; the status shows how far", body = ScrubShown),
    (status = 401, description = "The write token is missing or wrong", content_type = "application/problem+json")))]
#[post("/scrub")]
pub(super) async fn scrub(_may: MayWrite, context: Data<Context>) -> Result<HttpResponse, Problem> {
    context.scrub.start();
    Ok(HttpResponse::Accepted().insert_header(("Cache-Control", "no-store")).json(ScrubShown::from(context.scrub.state())))
}
