//! How this node is.

use std::collections::BTreeMap;

use actix_web::web::Data;
use actix_web::{HttpResponse, get};
use gossip_cdn_protocol::io::Counters;
use gossip_cdn_shell::problem::Problem;
use serde::Serialize;
use utoipa::ToSchema;

use super::Context;
use super::errors::Fault;

/// How a node is.
#[derive(Debug, Serialize, ToSchema)]
struct StatusShown {
    /// Its identity.
    id: String,
    /// Its base URL.
    address: String,
    /// Its cluster.
    cluster: String,
    /// The version of this program.
    version: &'static str,
    /// The number of its life.
    incarnation: u64,
    /// Seconds since it started.
    uptime: u64,
    /// Records, tombstones included.
    records: u64,
    /// Live blobs.
    blobs: u64,
    /// Deleted blobs.
    tombstones: u64,
    /// Payloads here.
    payloads: u64,
    /// Their bytes.
    payload_bytes: u64,
    /// What exchanges compare: equal on nodes with the same records.
    root: String,
    /// Payloads wanted and not here yet.
    wanted: usize,
    /// Live members, this one included.
    live_members: usize,
    /// Bodies being received.
    uploads: usize,
    /// Counted since the start.
    counters: BTreeMap<&'static str, u64>,
    /// What peers did that they must not do.
    misbehaviour: Vec<Misbehaved>,
}

/// How often a peer did what it must not do.
#[derive(Debug, Serialize, ToSchema)]
struct Misbehaved {
    /// The peer.
    id: String,
    /// What.
    kind: &'static str,
    /// How often.
    count: u64,
}

/// Tells how this node is.
#[utoipa::path(tag = "node", responses((status = 200, description = "How this node is", body = StatusShown)))]
#[get("/status")]
pub(super) async fn status(context: Data<Context>) -> Result<HttpResponse, Problem> {
    let status = context.driver.status().await.map_err(Fault::from)?;
    let usage = context.store.usage();
    let misbehaved = |((id, kind), count): (&(_, gossip_cdn_protocol::io::Misbehaviour), &u64)| {
        let id: &gossip_cdn_protocol::NodeId = id;
        Misbehaved { id: id.to_string(), kind: kind.name(), count: *count }
    };
    let answer = StatusShown {
        id: status.id.to_string(),
        address: context.settings.address.clone(),
        cluster: status.cluster,
        version: env!("CARGO_PKG_VERSION"),
        incarnation: status.incarnation,
        uptime: context.started.elapsed().as_secs(),
        records: status.root.count,
        blobs: usage.blobs,
        tombstones: usage.tombstones,
        payloads: usage.payloads,
        payload_bytes: status.payload_bytes,
        root: status.root.to_string(),
        wanted: status.wanted,
        live_members: status.live_members,
        uploads: context.uploads_running(),
        counters: named(&status.counters).into_iter().collect(),
        misbehaviour: status.misbehaviour.iter().map(misbehaved).collect(),
    };
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(answer))
}

/// The counters of the core by their names, in JSON and metrics alike.
pub(super) fn named(counters: &Counters) -> [(&'static str, u64); 12] {
    // Taken apart, so that a counter that is added cannot be forgotten here.
    let Counters {
        exchanges,
        exchanges_equal,
        calls_failed,
        writes,
        rumors_sent,
        records_received,
        records_changed,
        conflicts,
        payloads_fetched,
        fetches_failed,
        stamps_far_ahead,
        refutations,
    } = *counters;
    [
        ("exchanges", exchanges),
        ("exchanges_equal", exchanges_equal),
        ("calls_failed", calls_failed),
        ("writes", writes),
        ("rumors_sent", rumors_sent),
        ("records_received", records_received),
        ("records_changed", records_changed),
        ("conflicts", conflicts),
        ("payloads_fetched", payloads_fetched),
        ("fetches_failed", fetches_failed),
        ("stamps_far_ahead", stamps_far_ahead),
        ("refutations", refutations),
    ]
}
