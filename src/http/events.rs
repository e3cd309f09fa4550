//! What changes at this node, as server-sent events: hints for who shows it live. The present state is asked of the other routes.

use actix_web::web::Data;
use actix_web::{HttpResponse, get};
use gossip_cdn_shell::events::Event;
use gossip_cdn_shell::problem::Problem;
use serde::Serialize;

use super::Context;
use crate::driver::Change;

/// The data of an event. An event is named like its schema, in small letters.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub(super) enum Shown {
    /// A blob was written, deleted or heard of, durably here.
    Record {
        /// The blob.
        id: String,
        /// Its winner now.
        version: String,
        /// Whether that says deleted.
        deleted: bool,
        /// How many live versions there are; with more than one there is a conflict.
        versions: usize,
    },
    /// A node is known to hold a blob's payload now, durably: this one, or one that sent its receipt.
    Holder {
        /// The blob.
        id: String,
        /// The node.
        node: String,
    },
    /// A member is believed in another state, or is new.
    Member {
        /// The node.
        id: String,
        /// alive, suspect, dead, left or forgotten.
        state: &'static str,
    },
    /// A node called another one.
    Exchange {
        /// Who called.
        from: String,
        /// Who answered.
        to: String,
        /// What for: exchange (do our records differ?), records (where?), rumor (something new), payload, members, probe, messages.
        kind: &'static str,
    },
}

/// Tells what changes from now on.
#[utoipa::path(tag = "node", responses((status = 200, body = Shown, content_type = "text/event-stream",
    description = "Events named record, holder, member and exchange, with JSON for data. A reader that falls 4096 events behind, or takes nothing for ten seconds, is sent the event dropped, with the reason, and is let go.")))]
#[get("/events")]
pub(super) async fn events(context: Data<Context>) -> Result<HttpResponse, Problem> {
    Ok(context.streams.open(context.driver.changes().listen(event)))
}

fn event(change: &Change) -> Event {
    let (name, shown) = match change {
        Change::Record { blob, winner, deleted, versions } => {
            ("record", Shown::Record { id: blob.to_string(), version: winner.to_string(), deleted: *deleted, versions: *versions })
        }
        Change::Holder { blob, node } => ("holder", Shown::Holder { id: blob.to_string(), node: node.to_string() }),
        Change::Member { id, state } => ("member", Shown::Member { id: id.to_string(), state: state.name() }),
        Change::Exchange { from, to, kind } => ("exchange", Shown::Exchange { from: from.to_string(), to: to.to_string(), kind }),
    };
    Event { id: None, name, data: serde_json::to_string(&shown).unwrap_or_default() }
}
