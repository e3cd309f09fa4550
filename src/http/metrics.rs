//! What is counted, for Prometheus.
//!
//! The routes count as they go; what the core and the store know is asked for when somebody looks.

use std::sync::atomic::{AtomicU64, Ordering};

use actix_web::web::Data;
use actix_web::{HttpResponse, get};
use gossip_cdn_protocol::io::Status;
use gossip_cdn_shell::problem::Problem;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::errors::Fault;
use super::{Context, status};
use crate::store::{DamageCounts, TrafficCounts, Usage};

type Count = Counter<u64, AtomicU64>;

/// The counters of the public routes.
#[derive(Debug, Default)]
pub struct Metrics {
    uploads: Count,
    uploaded_bytes: Count,
    bodies_stalled: Count,
    downloads: Count,
    downloads_missed: Count,
    downloaded_bytes: Count,
}

impl Metrics {
    /// A payload was published.
    pub(super) fn uploaded(&self, bytes: u64) {
        self.uploads.inc();
        self.uploaded_bytes.inc_by(bytes);
    }

    /// The body of an upload or a message came too slowly.
    pub(super) fn body_stalled(&self) {
        self.bodies_stalled.inc();
    }

    /// So many bytes of a payload are being sent. `hit`: they were here before they were asked for.
    pub(super) fn downloaded(&self, bytes: u64, hit: bool) {
        self.downloads.inc();
        if !hit {
            self.downloads_missed.inc();
        }
        self.downloaded_bytes.inc_by(bytes);
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("uploads", "Payloads published by clients", self.uploads.clone());
        registry.register_with_unit("uploaded", "Bytes of payloads published by clients", Unit::Bytes, self.uploaded_bytes.clone());
        registry.register("bodies_stalled", "Uploads and messages given up because they came too slowly", self.bodies_stalled.clone());
        registry.register("downloads", "Payloads, whole or in part, sent to clients", self.downloads.clone());
        registry.register("downloads_missed", "Of them, those that were not here when asked for", self.downloads_missed.clone());
        registry.register_with_unit("downloaded", "Bytes of payloads sent to clients", Unit::Bytes, self.downloaded_bytes.clone());
    }
}

/// What was counted, in the text format of OpenMetrics, which Prometheus reads.
#[utoipa::path(tag = "service", responses((status = 200, description = "Metrics", body = String, content_type = "application/openmetrics-text")))]
#[get("/metrics")]
pub(super) async fn metrics(context: Data<Context>) -> Result<HttpResponse, Problem> {
    let status = context.driver.status().await.map_err(Fault::from)?;
    let mut registry = Registry::with_prefix("gossip_cdn");
    context.metrics.register(&mut registry);
    gauges(&mut registry, &context, &status, &context.store.usage());
    core(&mut registry, &status);
    transfers(&mut registry, &context.store.traffic());
    let commits = Count::default();
    commits.inner().store(context.store.commits(), Ordering::Relaxed);
    registry.register("commits", "Commits to the disk, each synchronised", commits);
    damage(&mut registry, context.store.damage());
    store(&mut registry, &context);
    misbehaviour(&mut registry, &context, &status);
    let mut text = String::new();
    encode(&mut text, &registry).map_err(Problem::internal)?;
    Ok(HttpResponse::Ok()
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .insert_header(("Cache-Control", "no-store"))
        .body(text))
}

fn gauges(registry: &mut Registry, context: &Context, status: &Status, usage: &Usage) {
    let scrub = context.scrub.state();
    let shown = [
        ("blobs", "Live blobs", usage.live_blobs),
        ("tombstones", "Deleted blobs", usage.tombstones),
        ("conflicts", "Blobs with concurrent versions", usage.conflicts),
        ("payloads", "Payloads here", usage.payloads),
        ("payload_bytes", "Bytes of the payloads here", usage.payload_bytes),
        ("payloads_damaged", "Payloads that are missing because their copy here was damaged", usage.damaged),
        ("scrub_running", "Whether a scrub is under way", u64::from(scrub.running)),
        ("scrub_payloads", "Payloads that it looked at, or the last one", scrub.payloads),
        ("scrub_bytes", "Bytes that it looked at, or the last one", scrub.bytes),
        ("scrub_bad", "Payloads that it found damaged, or the last one", scrub.bad),
        ("scrub_records_bad", "Rows of records that the last one found damaged", scrub.records_bad),
        (
            "scrub_finished_seconds",
            "When the last one ended, in seconds since 1970; 0 before the first",
            scrub.finished.unwrap_or_default() / 1000,
        ),
        ("payloads_wanted", "Payloads wanted and not here yet", status.wanted as u64),
        ("members_live", "Live members, this node included", status.live_members as u64),
        ("local_health", "Factor on the patience with others: 1 when well, 8 under strain", u64::from(status.local_health)),
        ("uploads_running", "Bodies being received", context.uploads_running() as u64),
        ("incarnation", "The number of this node's life", status.incarnation),
        ("uptime_seconds", "Seconds since the start", context.started.elapsed().as_secs()),
    ];
    for (name, help, value) in shown {
        let gauge = Gauge::<u64, AtomicU64>::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    }
}

/// How the store is, and how often it failed.
fn store(registry: &mut Registry, context: &Context) {
    let ailing = Gauge::<u64, AtomicU64>::default();
    ailing.set(u64::from(context.store.ailment().is_some()));
    registry.register("store_ailing", "1 while the store cannot be written", ailing);
    let (faults, reopenings) = context.store.faults();
    for (name, help, value) in [
        ("store_faults", "Times that the disk failed the store", faults),
        ("store_reopenings", "Times that the store was opened again after that", reopenings),
    ] {
        let counter = Count::default();
        counter.inner().store(value, Ordering::Relaxed);
        registry.register(name, help, counter);
    }
}

/// The counters that the core keeps.
fn core(registry: &mut Registry, status: &Status) {
    for (name, value) in status::named(&status.counters) {
        let counter = Count::default();
        counter.inner().store(value, Ordering::Relaxed);
        registry.register(name, "Counted by the core, as in /status", counter);
    }
}

/// Payload bytes from other nodes, and what a byte that changed something cost.
fn transfers(registry: &mut Registry, traffic: &TrafficCounts) {
    for (name, help, value) in status::transfers(traffic) {
        let counter = Count::default();
        counter.inner().store(value, Ordering::Relaxed);
        registry.register(name, help, counter);
    }
    let cost = Gauge::<f64, AtomicU64>::default();
    #[expect(clippy::cast_precision_loss, reason = "a ratio that people look at")]
    cost.set(if traffic.kept == 0 { 0.0 } else { traffic.received as f64 / traffic.kept as f64 });
    registry.register("payload_bytes_received_per_byte_kept", "Payload bytes received per byte that changed something", cost);
}

/// Copies that were not what their name says.
fn damage(registry: &mut Registry, counts: DamageCounts) {
    let DamageCounts { payloads, replaced, records, records_righted } = counts;
    let counted = [
        ("payloads_found_damaged", "Copies of payloads found damaged", payloads),
        ("payloads_replaced", "Damaged copies of payloads replaced by a good one of another node", replaced),
        ("records_found_damaged", "Records whose row was damaged at the start", records),
        ("records_righted", "Of them, those that were put right from what was left of them", records_righted),
    ];
    for (name, help, value) in counted {
        let counter = Count::default();
        counter.inner().store(value, Ordering::Relaxed);
        registry.register(name, help, counter);
    }
}

/// What peers did that they must not do, by kind; `/status` tells by whom.
fn misbehaviour(registry: &mut Registry, context: &Context, status: &Status) {
    let family = Family::<[(&'static str, &'static str); 1], Count>::default();
    for (kind, count) in status::misbehaviour_by_kind(context, status) {
        family.get_or_create(&[("kind", kind)]).inc_by(count);
    }
    registry.register("misbehaviour", "What peers did that they must not do", family);
}
