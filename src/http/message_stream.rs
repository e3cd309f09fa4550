//! The history as it grows: one server-sent event for each message delivered here.
//!
//! 1. Nothing is skipped or repeated: an event's id is its cursor, and a reader that comes back with `Last-Event-ID` goes on behind it.
//! 2. A message is read from the store when its reader wants it, [`PAGE`] at a time. A reader that takes nothing for ten seconds is dropped: its last event
//!    says why, and the cursor to go on with ([`gossip_cdn_shell::events`]). If it does not take that either, its connection is cut as any other
//!    ([`super::on_connect`]).

use std::collections::VecDeque;

use actix_web::web::{Data, Query};
use actix_web::{HttpRequest, HttpResponse, get};
use gossip_cdn_protocol::NodeId;
use gossip_cdn_shell::events::{Event, Next, Source};
use gossip_cdn_shell::problem::Problem;
use serde::Deserialize;
use tokio::sync::watch;

use super::Context;
use super::errors::Fault;
use super::messages::{MessageShown, cursor, index_of, node_of};
use crate::store::Store;

/// Messages read from the store at a time: what a reader that stands still holds in memory, at most a megabyte.
const PAGE: usize = 16;

/// Where a stream begins.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Start {
    /// A cursor; `0` is the beginning. From now on if absent. `Last-Event-ID` is stronger.
    after: Option<String>,
}

/// Sends every message that is delivered here from now on, or from a cursor on.
#[utoipa::path(tag = "messages", params(Start, ("Last-Event-ID" = Option<String>, Header, description = "The cursor of the last event seen")),
    responses((status = 200, description = "Events named message, their data as in a page of the history. A reader that takes nothing for ten seconds finds the event dropped, with the reason and the id to go on with, and the end.", body = String, content_type = "text/event-stream"),
        (status = 400, description = "A cursor of another node, or none", content_type = "application/problem+json")))]
#[get("/messages/stream")]
pub(super) async fn follow(request: HttpRequest, start: Query<Start>, context: Data<Context>) -> Result<HttpResponse, Problem> {
    let me = node_of(&context);
    context.driver.settled().await;
    let seen = request.headers().get("last-event-id").and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
    let after = match seen.or_else(|| start.after.clone()) {
        Some(start) if start == "0" => 0,
        Some(start) => index_of(&start, me)?,
        None => context.store.history().map_err(Fault::from)?.map_or(0, |history| history.size().messages),
    };
    let history = Following { store: context.store.clone(), delivered: context.driver.delivered(), me, after, page: VecDeque::new() };
    Ok(context.streams.open(history))
}

/// The history behind a cursor.
struct Following {
    store: Store,
    delivered: watch::Receiver<u64>,
    me: NodeId,
    after: u64,
    page: VecDeque<Event>,
}

impl Source for Following {
    async fn next(&mut self) -> Next {
        loop {
            if let Some(event) = self.page.pop_front() {
                return Next::Event(event);
            }
            self.delivered.mark_unchanged();
            let read = self.store.history().and_then(|history| history.map_or(Ok(vec![]), |history| history.page(self.after, PAGE)));
            let Ok(read) = read else { return Next::Over };
            if read.is_empty() && self.delivered.changed().await.is_err() {
                // The node stops.
                return Next::Over;
            }
            for (place, message) in read {
                self.after = place.index;
                self.page.push_back(event(&MessageShown::new(message, Some(place), self.me), cursor(place.index, self.me)));
            }
        }
    }
}

fn event(message: &MessageShown, cursor: String) -> Event {
    Event { id: Some(cursor), name: "message", data: serde_json::to_string(message).unwrap_or_default() }
}
