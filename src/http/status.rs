//! How this node is.

use std::collections::BTreeMap;

use actix_web::web::Data;
use actix_web::{HttpResponse, get};
use gossip_cdn_protocol::history::transaction::{Signal, Transaction};
use gossip_cdn_protocol::io::{Counters, HistoryStatus, Status};
use gossip_cdn_protocol::{NodeId, Stamp, StoreFault};
use gossip_cdn_shell::problem::Problem;
use serde::Serialize;
use utoipa::ToSchema;

use super::Context;
use super::described::rfc3339;
use super::errors::Fault;
use super::scrub::ScrubShown;
use crate::store::{Store, TrafficCounts};

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
    /// Blobs, of both kinds, with concurrent versions.
    conflicts: u64,
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
    /// By how much this node's own strain stretches its patience with others: 1 when well, 8 at worst.
    local_health: u32,
    /// Bodies being received.
    uploads: usize,
    /// Whether all that a majority of the voters of the message history had is here.
    synchronised: bool,
    /// What the node is in the middle of, in the message history.
    transaction: TransactionShown,
    /// Who votes in the message history.
    epoch: EpochShown,
    /// How far the message history is here.
    history: HistoryShown,
    /// Counted since the start.
    counters: BTreeMap<&'static str, u64>,
    /// Payload bytes from other nodes, counted since the start.
    transfers: BTreeMap<&'static str, u64>,
    /// Copies that are not what their name says.
    damage: Damage,
    /// The scrub that is under way, or the last one.
    scrub: ScrubShown,
    /// What peers did that they must not do.
    misbehaviour: Vec<Misbehaved>,
    /// The disk under the data folder; nothing where the system does not tell.
    disk: Option<Disk>,
}

/// What the node is in the middle of, by the names of the founding table.
#[derive(Debug, Serialize, ToSchema)]
struct TransactionShown {
    /// The first of those below that is not Connected.
    state: String,
    /// When the node came into it, in RFC 3339.
    since: String,
    /// As coordinator.
    coordinator: String,
    /// As participant.
    participant: String,
    /// As one that asks for an update.
    asker: String,
    /// As one that sends updates.
    sender: String,
    /// How often each signal came since the start.
    signals: BTreeMap<String, u64>,
}

/// An epoch of the message history.
#[derive(Debug, Serialize, ToSchema)]
struct EpochShown {
    /// Its number; 0 without a history.
    number: u64,
    /// The history; null without one.
    history: Option<String>,
    /// The voters.
    voters: Vec<String>,
    /// Whose ballot this node follows.
    coordinator: Option<String>,
    /// voter, learner or none.
    role: &'static str,
}

/// How far the message history is.
#[derive(Debug, Serialize, ToSchema)]
struct HistoryShown {
    /// Messages delivered here.
    messages: u64,
    /// Bytes of their bodies.
    bytes: u64,
    /// Of them, ordered ones.
    ordered: u64,
    /// The last slot decided here.
    slot: u64,
    /// Messages known here and not delivered.
    pending: usize,
    /// Other histories met, which stay apart.
    apart: Vec<String>,
    /// Histories that this node left.
    set_aside: Vec<String>,
}

fn transaction(told: &HistoryStatus) -> TransactionShown {
    let Transaction { coordinator, participant, asker, sender, since: _, signals } = &told.transaction;
    TransactionShown {
        state: format!("{:?}", told.transaction.state()),
        since: rfc3339(Stamp::at(told.since)),
        coordinator: format!("{coordinator:?}"),
        participant: format!("{participant:?}"),
        asker: format!("{asker:?}"),
        sender: format!("{sender:?}"),
        signals: Signal::ALL.iter().map(|signal| (format!("{signal:?}"), signals.get(signal).map_or(0, |count| *count))).collect(),
    }
}

fn epoch(told: &HistoryStatus, me: NodeId) -> EpochShown {
    EpochShown {
        number: told.epoch.number,
        history: told.founding.map(|founding| founding.id.to_string()),
        voters: told.epoch.voters.iter().map(ToString::to_string).collect(),
        coordinator: told.coordinator.map(|node| node.to_string()),
        role: match told.founding {
            None => "none",
            Some(_) if told.epoch.voters.contains(&me) => "voter",
            Some(_) => "learner",
        },
    }
}

fn history(told: &HistoryStatus, store: &Store) -> Result<HistoryShown, StoreFault> {
    let size = store.history()?.map(|history| history.size()).unwrap_or_default();
    Ok(HistoryShown {
        messages: size.messages,
        bytes: size.bytes,
        ordered: told.number,
        slot: told.slot,
        pending: told.pending,
        apart: told.apart.iter().map(|founding| founding.id.to_string()).collect(),
        set_aside: store.histories_set_aside()?.iter().map(|(founding, _)| founding.id.to_string()).collect(),
    })
}

/// The disk under the data folder.
#[derive(Debug, Serialize, ToSchema)]
struct Disk {
    /// Bytes free, the reserve included.
    free: u64,
    /// Bytes of them that uploads leave alone.
    reserve: u64,
}

/// Copies of payloads that turned out not to be what their name says. They count as missing and are fetched again.
#[derive(Debug, Serialize, ToSchema)]
struct Damage {
    /// Payloads that are missing for it now: no other node has given them back yet.
    missing: u64,
    /// Copies found damaged since the start.
    found: u64,
    /// Payloads replaced by a good copy since the start.
    replaced: u64,
    /// Records whose row was damaged at the start.
    records: u64,
    /// Of them, those that were put right; the others come again from another node.
    records_righted: u64,
}

impl Damage {
    fn of(store: &Store) -> Self {
        let counts = store.damage();
        Self {
            missing: store.usage().damaged,
            found: counts.payloads,
            replaced: counts.replaced,
            records: counts.records,
            records_righted: counts.records_righted,
        }
    }
}

/// How often a peer did what it must not do.
#[derive(Debug, Serialize, ToSchema)]
struct Misbehaved {
    /// The node id of the peer; its IP address where what it sent was no message of this cluster; nothing for those beyond the
    /// number that is told apart.
    sender: Option<String>,
    /// What.
    kind: &'static str,
    /// How often.
    count: u64,
}

/// What the core counted by node id, and the peer routes by address.
fn misbehaviour(context: &Context, told: &Status) -> Vec<Misbehaved> {
    let nodes = told.misbehaviour.iter().map(|((id, kind), count)| {
        let sender = (!id.0.is_nil()).then(|| id.to_string());
        Misbehaved { sender, kind: kind.name(), count: *count }
    });
    let strangers = context.strangers.refused().into_iter().map(|((address, kind), count)| {
        let sender = address.map(|address| address.to_string());
        Misbehaved { sender, kind: kind.name(), count }
    });
    nodes.chain(strangers).collect()
}

/// The same, by kind alone.
pub(super) fn misbehaviour_by_kind(context: &Context, told: &Status) -> BTreeMap<&'static str, u64> {
    let mut kinds: BTreeMap<&'static str, u64> = gossip_cdn_protocol::io::Misbehaviour::ALL.iter().map(|kind| (kind.name(), 0)).collect();
    for misbehaved in misbehaviour(context, told) {
        *kinds.entry(misbehaved.kind).or_default() += misbehaved.count;
    }
    kinds
}

/// Tells how this node is.
#[utoipa::path(tag = "node", responses((status = 200, description = "How this node is", body = StatusShown)))]
#[get("/status")]
pub(super) async fn status(context: Data<Context>) -> Result<HttpResponse, Problem> {
    let told = context.driver.status().await.map_err(Fault::from)?;
    let usage = context.store.usage();
    let misbehaviour = misbehaviour(&context, &told);
    let answer = StatusShown {
        id: told.id.to_string(),
        address: context.settings.address.clone(),
        cluster: told.cluster,
        version: env!("CARGO_PKG_VERSION"),
        incarnation: told.incarnation,
        uptime: context.started.elapsed().as_secs(),
        records: told.root.count,
        blobs: usage.live_blobs,
        tombstones: usage.tombstones,
        conflicts: usage.conflicts,
        payloads: usage.payloads,
        payload_bytes: told.payload_bytes,
        root: told.root.to_string(),
        wanted: told.wanted,
        live_members: told.live_members,
        local_health: told.local_health,
        uploads: context.uploads_running(),
        synchronised: told.history.synchronised,
        transaction: transaction(&told.history),
        epoch: epoch(&told.history, told.id),
        history: history(&told.history, &context.store).map_err(Fault::from)?,
        counters: named(&told.counters).into_iter().chain([("commits", context.store.commits())]).collect(),
        transfers: transfers(&context.store.traffic()).into_iter().map(|(name, _, value)| (name, value)).collect(),
        damage: Damage::of(&context.store),
        scrub: context.scrub.state().into(),
        misbehaviour,
        disk: context.store.disk().ok().map(|disk| Disk { free: disk.free, reserve: disk.reserve }),
    };
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(answer))
}

/// What came of payloads from other nodes: names in JSON and metrics alike, what they mean, how much.
pub(super) fn transfers(traffic: &TrafficCounts) -> [(&'static str, &'static str, u64); 6] {
    let TrafficCounts { received, kept, redundant, wrong, parts, resumed } = *traffic;
    [
        ("payload_bytes_received", "Bytes of bodies that carried payloads from other nodes, framing and proofs included", received),
        ("payload_bytes_kept", "Bytes of payloads from other nodes that were verified and kept", kept),
        (
            "payload_bytes_redundant",
            "Bytes of payloads that came again: here already, or of a part that another transfer had taken over",
            redundant,
        ),
        ("payload_bytes_wrong", "Bytes from other nodes that did not match their hash", wrong),
        ("payload_parts", "Parts of large payloads fetched", parts),
        ("payload_bytes_resumed", "Bytes of payloads left by an earlier life of the node and not fetched again", resumed),
    ]
}

/// The counters of the core by their names, in JSON and metrics alike.
pub(super) fn named(counters: &Counters) -> Vec<(&'static str, u64)> {
    // Taken apart, so that a counter that is added cannot be forgotten here.
    let Counters {
        exchanges,
        exchanges_equal,
        reconciliations,
        reconciliations_done,
        reconciliations_broken,
        reconciliations_refused,
        reconciliation_calls,
        cells_sent,
        items_compared,
        differences_found,
        decode_failures,
        fallbacks,
        calls_failed,
        writes,
        rumors_sent,
        records_received,
        records_changed,
        conflicts,
        fetches,
        payloads_fetched,
        fetches_failed,
        stamps_far_ahead,
        refutations,
        heartbeats_sent,
        heartbeats_heard,
        heartbeats_ignored,
        probes,
        probes_indirect,
        suspicions,
        suspicions_heard,
        confirmations,
        suspicions_false,
        deaths,
        snapshots,
        snapshot_pages,
        snapshot_records,
        snapshot_partitions_skipped,
        snapshot_pages_served,
        partitions_verified,
        summary_disagreements,
        summary_repairs,
        keys_taken,
    } = *counters;
    vec![
        ("exchanges", exchanges),
        ("exchanges_equal", exchanges_equal),
        ("reconciliations", reconciliations),
        ("reconciliations_done", reconciliations_done),
        ("reconciliations_broken", reconciliations_broken),
        ("reconciliations_refused", reconciliations_refused),
        ("reconciliation_calls", reconciliation_calls),
        ("cells_sent", cells_sent),
        ("items_compared", items_compared),
        ("differences_found", differences_found),
        ("decode_failures", decode_failures),
        ("fallbacks", fallbacks),
        ("calls_failed", calls_failed),
        ("writes", writes),
        ("rumors_sent", rumors_sent),
        ("records_received", records_received),
        ("records_changed", records_changed),
        ("conflicts", conflicts),
        ("fetches", fetches),
        ("payloads_fetched", payloads_fetched),
        ("fetches_failed", fetches_failed),
        ("stamps_far_ahead", stamps_far_ahead),
        ("refutations", refutations),
        ("heartbeats_sent", heartbeats_sent),
        ("heartbeats_heard", heartbeats_heard),
        ("heartbeats_ignored", heartbeats_ignored),
        ("probes", probes),
        ("probes_indirect", probes_indirect),
        ("suspicions", suspicions),
        ("suspicions_heard", suspicions_heard),
        ("confirmations", confirmations),
        ("suspicions_false", suspicions_false),
        ("deaths", deaths),
        ("snapshots", snapshots),
        ("snapshot_pages", snapshot_pages),
        ("snapshot_records", snapshot_records),
        ("snapshot_partitions_skipped", snapshot_partitions_skipped),
        ("snapshot_pages_served", snapshot_pages_served),
        ("partitions_verified", partitions_verified),
        ("summary_disagreements", summary_disagreements),
        ("summary_repairs", summary_repairs),
        ("keys_taken", keys_taken),
    ]
}
