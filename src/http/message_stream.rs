//! The history as it grows: server-sent events (WHATWG HTML, section 9.2), one for each message delivered here.
//!
//! 1. Nothing is skipped or repeated: an event's id is its cursor, and a reader that comes back with `Last-Event-ID` goes on behind it.
//! 2. A reader that takes nothing for [`PATIENCE`] is dropped, and told so in the last event that it finds when it reads on.
//! 3. What waits for a reader is bounded by [`AHEAD`] events.

use std::time::Duration;

use actix_web::http::header;
use actix_web::web::{Bytes, Data, Query};
use actix_web::{HttpRequest, HttpResponse, get};
use futures_util::stream;
use gossip_cdn_protocol::NodeId;
use gossip_cdn_shell::problem::Problem;
use serde::Deserialize;
use tokio::sync::mpsc::{self, OwnedPermit};

use super::Context;
use super::errors::Fault;
use super::messages::{MessageShown, cursor, index_of, node_of};

/// Events that wait for a reader at most.
const AHEAD: usize = 64;
/// How long a reader may take nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// Something is sent at least so often, so that a dead connection is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Messages read from the store at a time.
const PAGE: usize = 64;

/// Where a stream begins.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Start {
    /// A cursor; `0` is the beginning. From now on if absent. `Last-Event-ID` is stronger.
    after: Option<String>,
}

/// Sends every message that is delivered here from now on, or from a cursor on.
#[utoipa::path(tag = "messages", params(Start, ("Last-Event-ID" = Option<String>, Header, description = "The cursor of the last event seen")),
    responses((status = 200, description = "Events named message, their data as in a page of the history", body = String, content_type = "text/event-stream"),
        (status = 400, description = "A cursor of another node, or none", content_type = "application/problem+json")))]
#[get("/messages/stream")]
pub(super) async fn follow(request: HttpRequest, start: Query<Start>, context: Data<Context>) -> Result<HttpResponse, Problem> {
    let me = node_of(&context);
    let seen = request.headers().get("last-event-id").and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
    let after = match seen.or_else(|| start.after.clone()) {
        Some(start) if start == "0" => 0,
        Some(start) => index_of(&start, me)?,
        None => context.store.history().map_err(Fault::from)?.map_or(0, |history| history.size().messages),
    };
    let (sender, receiver) = mpsc::channel(AHEAD);
    // Kept back from the beginning, so that there is room to say goodbye.
    let goodbye = sender.clone().reserve_owned().await.map_err(Problem::internal)?;
    actix_web::rt::spawn(send(context, me, after, sender, goodbye));
    let body = stream::unfold(receiver, |mut receiver| async move {
        let event = receiver.recv().await?;
        Some((Ok::<Bytes, actix_web::Error>(event), receiver))
    });
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .streaming(body))
}

async fn send(context: Data<Context>, me: NodeId, mut after: u64, sender: mpsc::Sender<Bytes>, goodbye: OwnedPermit<Bytes>) {
    let mut delivered = context.driver.delivered();
    loop {
        delivered.mark_unchanged();
        let page = context.store.history().and_then(|history| history.map_or(Ok(vec![]), |history| history.page(after, PAGE)));
        let Ok(page) = page else { return };
        if page.is_empty() {
            let woken = tokio::time::timeout(KEEP_ALIVE, delivered.changed()).await;
            match woken {
                Ok(Ok(())) => continue,
                // The node stops.
                Ok(Err(_)) => return,
                Err(_) if sender.send_timeout(Bytes::from_static(b":\n\n"), PATIENCE).await.is_err() => return,
                Err(_) => continue,
            }
        }
        for (place, message) in page {
            after = place.index;
            let event = event(&MessageShown::new(message, Some(place), me), &cursor(after, me));
            if let Err(error) = sender.send_timeout(event, PATIENCE).await {
                if matches!(error, mpsc::error::SendTimeoutError::Timeout(_)) {
                    tracing::info!("a reader of the history took nothing for {} s and is dropped", PATIENCE.as_secs());
                    goodbye.send(Bytes::from_static(b"event: dropped\ndata: you read too slowly; come back with Last-Event-ID\n\n"));
                }
                return;
            }
        }
    }
}

fn event(message: &MessageShown, cursor: &str) -> Bytes {
    // JSON has no line breaks, so the data is one line.
    let data = serde_json::to_string(message).unwrap_or_default();
    Bytes::from(format!("id: {cursor}\nevent: message\ndata: {data}\n\n"))
}
