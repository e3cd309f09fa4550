//! The routes, and nothing but them: what is mounted here is what `/openapi.json` lists.

#![expect(unreachable_pub, reason = "the routing macros put the handler, with the visibility of its route, into a function")]

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::web::{Bytes, Data, Json, PayloadConfig};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, get, post};
use gossip_cdn_protocol::MemberState;
use gossip_cdn_protocol::wire::{Envelope, Head, Join, Program, VERSION};
use gossip_cdn_shell::events::Streams;
use gossip_cdn_shell::problem::Problem;
use gossip_cdn_shell::{assets, service};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::events::Shown;
use crate::metrics::Metrics;
use crate::network::Network;
use crate::page;
use crate::registry::Taken;
use crate::views::{Map, Members};

/// Largest body of a claim, in bytes: [`MAX_EXCHANGED`] ids of 39 bytes, and what is around them.
pub const MAX_BODY: usize = 64 << 10;
/// Most exchanges in one claim. A node exchanges about once a second and renews every five.
pub const MAX_EXCHANGED: usize = 1024;

/// What the routes share.
#[derive(Clone)]
pub struct Context {
    /// The members.
    pub network: Arc<Network>,
    /// The counters.
    pub metrics: Metrics,
    /// The streams of events that are open.
    pub streams: Streams,
}

/// Mounts all routes.
pub fn configure(context: &Context) -> impl Fn(&mut ServiceConfig<'_>) {
    let context = context.clone();
    move |config| {
        let network = Arc::clone(&context.network);
        config
            .app_data(Data::new(context.clone()))
            .app_data(Data::new(service::Ready::new(move || network.ready())))
            .app_data(PayloadConfig::new(MAX_BODY))
            .service(join)
            .service(members)
            .service(network_map)
            .service(events)
            .app_data(Data::new(page::ASSETS))
            .service(front)
            .service(assets::asset)
            .service(service::healthz)
            .service(service::readyz)
            .service(service::metrics)
            .service(service::openapi);
    }
}

/// A node introduces itself, or renews.
///
/// The body is the envelope of a join, described in the proposals on serialisation and on the bootstrap; so is the answer, with members to talk to.
#[utoipa::path(
    tag = "network",
    request_body(content = Object, content_type = "application/json", description = "Envelope of a join, at most 64 KiB"),
    responses(
        (status = 200, description = "Envelope of a list of at most 256 members, and whether the node is to found the message history", body = Object, content_type = "application/json"),
        (status = 400, description = "Malformed", content_type = "application/problem+json"),
        (status = 409, description = "Of another cluster", content_type = "application/problem+json"),
        (status = 413, description = "Too large", content_type = "application/problem+json"),
        (status = 415, description = "Not JSON", content_type = "application/problem+json"),
        (status = 426, description = "Of an unknown version of the protocol", content_type = "application/problem+json"),
    )
)]
#[post("/join")]
pub async fn join(request: HttpRequest, body: Result<Bytes, actix_web::Error>, context: Data<Context>) -> Result<HttpResponse, Problem> {
    let refused = |problem: Problem| {
        context.metrics.refused(problem.kind());
        problem
    };
    let join = read_join(&request, body, context.network.cluster()).map_err(refused)?;
    let (id, address, incarnation) = (join.member.id, join.member.address.clone(), join.member.incarnation);
    let (taken, mut answer) = context.network.join(join);
    context.metrics.joined(taken);
    if taken != Taken::Renewed {
        tracing::info!(%id, address, incarnation, ?taken, "a member introduces itself");
    }
    save(Arc::clone(&context.network)).await?;
    // A name that the disk does not have could be given twice.
    answer.body.founder &= context.network.ready().is_ok();
    if answer.body.founder {
        tracing::info!(%id, "it is to found the message history");
    }
    Ok(HttpResponse::Ok().json(answer))
}

/// Waits until the changes made so far are durable. A renewal has nothing to wait for, most times.
async fn save(network: Arc<Network>) -> Result<(), Problem> {
    if network.is_saved() {
        return Ok(());
    }
    actix_web::web::block(move || network.save()).await.map_err(Problem::internal)
}

/// Reads a claim; what can be known of a message of another version or cluster is looked at first.
fn read_join(request: &HttpRequest, body: Result<Bytes, actix_web::Error>, cluster: &str) -> Result<Join, Problem> {
    if request.content_type() != "application/json" {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "A join is application/json."));
    }
    let body = body.map_err(|error| {
        let status = error.as_response_error().status_code();
        let kind = if status == StatusCode::PAYLOAD_TOO_LARGE { "too-large" } else { "bad-body" };
        Problem::new(status, kind, format!("The body cannot be read: {error}. A join has at most {MAX_BODY} bytes."))
    })?;
    let malformed = |why: &dyn std::fmt::Display| Problem::new(StatusCode::BAD_REQUEST, "malformed", format!("This is no join: {why}."));
    let head: Head = serde_json::from_slice(&body).map_err(|error| malformed(&error))?;
    if head.version != VERSION {
        let detail = format!("This bootstrap speaks version {VERSION} of the protocol, and the message is of version {}.", head.version);
        return Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "version", detail).header("Upgrade", format_args!("gossip-cdn/{VERSION}")));
    }
    if head.cluster != cluster {
        let detail =
            format!("This bootstrap is of cluster {cluster:?}; start the node with --cluster {cluster:?} or name another bootstrap.");
        return Err(Problem::new(StatusCode::CONFLICT, "cluster", detail));
    }
    let Envelope { sender, incarnation, body, .. } = serde_json::from_slice::<Envelope<Join>>(&body).map_err(|error| malformed(&error))?;
    check(&body).map_err(|why| malformed(&why))?;
    if (sender, incarnation) != (body.member.id, body.member.incarnation) {
        return Err(malformed(&"it speaks of another node than its sender"));
    }
    Ok(body)
}

fn check(claim: &Join) -> Result<(), String> {
    claim.member.validate().map_err(|why| why.to_string())?;
    match claim.member.state {
        MemberState::Alive | MemberState::Left => {}
        MemberState::Suspect | MemberState::Dead | MemberState::Forgotten => {
            return Err("nobody says of itself that it is suspect, dead or forgotten".to_owned());
        }
    }
    if claim.program.as_ref().is_some_and(|program| !program.is_plain()) {
        return Err(format!("its version is no word of at most {} bytes", Program::MAX_VERSION));
    }
    let found = claim.exchanged.len();
    if found > MAX_EXCHANGED { Err(format!("{found} exchanges where {MAX_EXCHANGED} are expected at most")) } else { Ok(()) }
}

/// The members of the network.
#[utoipa::path(tag = "network", responses((status = 200, description = "All members", body = Members)))]
#[get("/members")]
pub async fn members(context: Data<Context>) -> Json<Members> {
    Json(Members::of(&context.network.shown()))
}

/// Who is there, what they have, and who exchanges with whom.
#[utoipa::path(tag = "network", responses((status = 200, description = "The map of the network", body = Map)))]
#[get("/network")]
pub async fn network_map(context: Data<Context>) -> Json<Map> {
    Json(Map::of(&context.network.shown()))
}

/// Tells what changes from now on.
#[utoipa::path(tag = "network", responses((status = 200, body = Shown, content_type = "text/event-stream",
    description = "Events named member and exchanges, with JSON for data. A reader that falls 4096 events behind, or takes nothing for ten seconds, is sent the event dropped, with the reason, and is let go.")))]
#[get("/events")]
pub async fn events(context: Data<Context>) -> HttpResponse {
    context.streams.open(context.network.changes())
}

/// The map as a page.
#[utoipa::path(tag = "network", responses((status = 200, description = "The page", body = String, content_type = "text/html")))]
#[get("/")]
pub async fn front(request: HttpRequest, context: Data<Context>) -> HttpResponse {
    page::respond(&request, context.network.cluster(), &Map::of(&context.network.shown()))
}
