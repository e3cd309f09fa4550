//! Whom this node knows, introducing it to another, and forgetting one that will not come back.

use actix_web::http::header;
use actix_web::web::{Data, Json, Path};
use actix_web::{HttpResponse, delete, get, post};
use gossip_cdn_protocol::io::{CallFault, MemberView};
use gossip_cdn_protocol::member::is_base_url;
use gossip_cdn_protocol::{NodeId, WallTime};
use gossip_cdn_shell::problem::Problem;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Context;
use super::auth::MayWrite;
use super::described::millis;
use super::errors::Fault;

/// The members.
#[derive(Debug, Serialize, ToSchema)]
struct Members {
    /// This node included.
    members: Vec<MemberShown>,
}

/// A member.
#[derive(Debug, Serialize, ToSchema)]
struct MemberShown {
    /// Its identity.
    id: String,
    /// Its base URL.
    address: String,
    /// alive, suspect, dead, left or forgotten.
    state: &'static str,
    /// The number of its life.
    incarnation: u64,
    /// When it was last heard; null if never since this node started.
    last_seen: Option<String>,
    /// Whether it is this node.
    #[serde(rename = "self")]
    is_self: bool,
}

/// Where a node is.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Introduction {
    /// Its base URL, such as `http://127.0.0.1:7702`.
    address: String,
}

/// Lists the members this node knows, itself included.
#[utoipa::path(tag = "node", responses((status = 200, description = "The members", body = Members)))]
#[get("/members")]
pub(super) async fn members(context: Data<Context>) -> Result<HttpResponse, Problem> {
    let now = (context.wall)();
    let members = context.driver.members().await.map_err(Fault::from)?;
    let members = members.iter().map(|member| shown(member, now)).collect();
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(Members { members }))
}

/// Introduces this node to another one.
#[utoipa::path(tag = "node", request_body = Introduction, responses(
    (status = 200, description = "It answered; the member", body = MemberShown),
    (status = 202, description = "It does not answer yet, and is tried again"),
    (status = 400, description = "No base URL, or no node is there", content_type = "application/problem+json"),
    (status = 409, description = "A node of another cluster is there", content_type = "application/problem+json")))]
#[post("/members")]
pub(super) async fn introduce(_may: MayWrite, introduction: Json<Introduction>, context: Data<Context>) -> Result<HttpResponse, Problem> {
    let given = introduction.into_inner().address;
    let address = given.strip_suffix('/').unwrap_or(&given).to_owned();
    if !is_base_url(&address) {
        let detail = "address is a base URL: http:// or https://, host and port, such as http://127.0.0.1:7702.";
        return Err(Fault::Bad("bad-address", detail.to_owned()).into());
    }
    match context.driver.introduce(address.clone()).await.map_err(Fault::from)? {
        Ok(member) => {
            let view = MemberView { member, is_self: false, last_heard: Some(std::time::Duration::ZERO) };
            Ok(HttpResponse::Ok().json(shown(&view, (context.wall)())))
        }
        Err(CallFault::Unreachable | CallFault::Busy) => {
            Ok(HttpResponse::Accepted().insert_header((header::RETRY_AFTER, "5")).json(serde_json::json!({ "address": address })))
        }
        Err(CallFault::Refused(why)) => Err(Fault::OtherCluster(why).into()),
        Err(CallFault::Malformed(why)) => {
            let problem = Problem::from(Fault::Bad("no-node", format!("What answers at {address} is no node of Gossip CDN.")));
            Err(problem.private(why))
        }
    }
}

/// Forgets a member that is dead or has left: it is tried no more, anywhere, until it comes back by itself.
#[utoipa::path(tag = "node", params(("id" = String, Path, description = "The member's node id")), responses(
    (status = 204, description = "Forgotten, or forgotten already"),
    (status = 400, description = "No node id", content_type = "application/problem+json"),
    (status = 404, description = "No member of that id is known", content_type = "application/problem+json"),
    (status = 409, description = "It is alive or suspect, or this node itself", content_type = "application/problem+json")))]
#[delete("/members/{id}")]
pub(super) async fn forget(_may: MayWrite, id: Path<String>, context: Data<Context>) -> Result<HttpResponse, Problem> {
    let id = id.parse::<NodeId>().map_err(Fault::from)?;
    let forgotten = context.driver.forget(id).await.map_err(Fault::from)?;
    forgotten.map_err(|fault| Fault::of_forgetting(fault, id))?;
    Ok(HttpResponse::NoContent().finish())
}

fn shown(view: &MemberView, now: WallTime) -> MemberShown {
    let MemberView { member, is_self, last_heard } = view;
    let ago = last_heard.map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX));
    let ago = if *is_self { Some(0) } else { ago };
    MemberShown {
        id: member.id.to_string(),
        address: member.address.clone(),
        state: member.state.name(),
        incarnation: member.incarnation,
        last_seen: ago.map(|ago| millis(now.0.saturating_sub(ago))),
        is_self: *is_self,
    }
}
