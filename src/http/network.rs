//! The network as this node sees it, in the form of the bootstrap node's map: members with what they say of themselves, and who
//! exchanged with this node.

use actix_web::web::Data;
use actix_web::{HttpResponse, get};
use gossip_cdn_bootstrap::registry::Report;
use gossip_cdn_bootstrap::views::{self, Exchange, Map, MemberView, NodeView};
use gossip_cdn_protocol::WallTime;
use gossip_cdn_protocol::io::{self, Status};
use gossip_cdn_protocol::wire::Program;
use gossip_cdn_shell::problem::Problem;
use tokio::time::Instant;

use super::Context;
use super::errors::Fault;
use crate::peers::Peers;
use crate::peers::reports::Said;

/// Shows the members with what they say of themselves.
///
/// Living ones are asked for their `/status`, at most 32 in two seconds, those asked longest ago first: `reported` tells when each said so.
#[utoipa::path(tag = "node", responses((status = 200, description = "The members, and who exchanged with this node in the last minute", body = Map)))]
#[get("/network")]
pub(super) async fn network(context: Data<Context>, peers: Data<Peers>) -> Result<HttpResponse, Problem> {
    let members = context.driver.members().await.map_err(Fault::from)?;
    let mut said = context.reports.survey(&peers, &members).await;
    let status = context.driver.status().await.map_err(Fault::from)?;
    said.insert(status.id, (own(&context, &status), Instant::now()));
    let now = (context.wall)();
    let nodes = members.iter().map(|member| shown(member, said.get(&member.member.id), now)).collect();
    let exchanges = context.driver.exchanged().into_iter().map(|(from, to, at)| Exchange {
        from: from.to_string(),
        to: to.to_string(),
        last_seen: views::time(before(now, at.elapsed())),
    });
    let map = Map { nodes, exchanges: exchanges.collect() };
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(map))
}

fn own(context: &Context, status: &Status) -> Report {
    Report {
        program: Some(Program { version: env!("CARGO_PKG_VERSION").to_owned(), blobs: context.store.usage().live_blobs }),
        records: status.root.count,
        payload_bytes: status.payload_bytes,
        root: status.root,
        wanted: status.wanted as u64,
        messages: status.history.delivered,
        history: status.history.founding.map(|founding| founding.id),
    }
}

fn shown(view: &io::MemberView, said: Option<&Said>, now: WallTime) -> NodeView {
    let io::MemberView { member, is_self, last_heard } = view;
    let member = MemberView {
        id: member.id.to_string(),
        address: member.address.clone(),
        state: member.state.name(),
        incarnation: member.incarnation,
        last_seen: last_heard.map(|ago| views::time(before(now, ago))),
    };
    let said = said.map(|(report, at)| (report.clone(), before(now, at.elapsed())));
    NodeView { is_self: *is_self, ..NodeView::new(member, said) }
}

fn before(now: WallTime, ago: std::time::Duration) -> WallTime {
    WallTime(now.0.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)))
}
