//! The message history: taking a message, reading what was delivered, and what is pending.
//!
//! A cursor is `<index>.<node id>`: a place in this node's order of delivery, of no meaning to another node.

use std::time::Duration;

use actix_web::http::{StatusCode, header};
use actix_web::web::{Data, Path, Payload, Query};
use actix_web::{HttpRequest, HttpResponse, get, post, put};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use gossip_cdn_protocol::NodeId;
use gossip_cdn_protocol::history::disk::{Order, Place};
use gossip_cdn_protocol::history::message::{Body, Channel, MAX_BODY, Message, MessageId};
use gossip_cdn_protocol::io::{AdoptFault, Say, Standing};
use gossip_cdn_shell::problem::Problem;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Context;
use super::auth::MayWrite;
use super::body::{self, Body as Incoming};
use super::described::millis;
use super::errors::{Fault, refuse_upload};
use super::patience::Patience;
use super::upload::{content_type, essence, media_type};
use crate::store::History;

/// Messages of a page if nothing is said.
const LIMIT: usize = 100;
/// Most messages of a page; a larger wish is cut.
const MAX_LIMIT: usize = 1000;
/// How long a client waits for the delivery if it does not say.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait that a client may ask for.
const MAX_TIMEOUT: f64 = 300.0;

/// How a message is to be taken.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Manner {
    /// `causal`, after everything its node had delivered or sent before (if absent), or `ordered`, under one number on every node.
    channel: Option<String>,
    /// `delivered`: answer when it is delivered here.
    wait: Option<String>,
    /// How many seconds to wait at most: 10 if absent.
    timeout: Option<f64>,
}

/// A message that was taken.
#[derive(Debug, Serialize, ToSchema)]
struct Taken {
    /// Its name.
    id: String,
    /// The node that took it.
    origin: String,
    /// Its number among the messages of that node and channel.
    sequence: u64,
    /// causal or ordered.
    channel: &'static str,
    /// pending or delivered.
    status: &'static str,
    /// The decision by which it stands in the common order, of a delivered ordered one.
    slot: Option<u64>,
    /// Its number in the common order, likewise.
    number: Option<u64>,
}

/// A message of the history.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MessageShown {
    #[serde(flatten)]
    taken: Taken,
    /// Media type of the body.
    media_type: String,
    /// The body: text, or base64 where `encoding` says so.
    body: String,
    /// `base64`, of what is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    /// When its origin took it, by that node's clock.
    sent: String,
    /// When this node delivered it, by this node's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered: Option<String>,
    /// Where to go on behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// A page of the history.
#[derive(Debug, Serialize, ToSchema)]
struct HistoryPage {
    /// In the order in which this node delivered; of pending ones, in the order of their names.
    messages: Vec<MessageShown>,
    /// The cursor of the next page; null at the end.
    next: Option<String>,
    /// Whether all that a majority of the voters had is here.
    synchronised: bool,
}

/// What the query of a page says.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wish {
    /// The cursor of the page before, or of a message.
    after: Option<String>,
    /// Messages, 1 to 1000: 100 if absent.
    limit: Option<usize>,
    /// `pending`: those that are known here and not delivered.
    status: Option<String>,
}

fn channel_name(channel: Channel) -> &'static str {
    match channel {
        Channel::Causal => "causal",
        Channel::Ordered => "ordered",
    }
}

impl Taken {
    fn new(id: MessageId, delivered: bool, order: Option<Order>) -> Self {
        Self {
            id: id.to_string(),
            origin: id.origin.to_string(),
            sequence: id.sequence,
            channel: channel_name(id.channel),
            status: if delivered { "delivered" } else { "pending" },
            slot: order.map(|order| order.slot),
            number: order.map(|order| order.number),
        }
    }
}

impl MessageShown {
    pub(super) fn new(message: Message, place: Option<Place>, me: NodeId) -> Self {
        let (body, encoding) = match message.body {
            Body::Text(text) => (text, None),
            Body::Base64(bytes) => (STANDARD.encode(bytes), Some("base64")),
        };
        Self {
            taken: Taken::new(message.id, place.is_some(), place.and_then(|place| place.order)),
            media_type: message.media_type,
            body,
            encoding,
            sent: millis(message.sent.0),
            delivered: place.map(|place| millis(place.delivered.0)),
            cursor: place.map(|place| cursor(place.index, me)),
        }
    }
}

/// The node that these routes belong to.
pub(super) fn node_of(context: &Context) -> NodeId {
    NodeId::from_public_key(&context.store.identity().public)
}

/// The cursor behind that index.
pub(super) fn cursor(index: u64, me: NodeId) -> String {
    format!("{index}.{me}")
}

/// The index that a cursor of this node stands for.
pub(super) fn index_of(cursor: &str, me: NodeId) -> Result<u64, Fault> {
    let bad = || Fault::Bad("bad-cursor", "The cursor is none that a node gave for its history.".to_owned());
    let (index, node) = cursor.split_once('.').ok_or_else(bad)?;
    let (index, node) = (index.parse().map_err(|_| bad())?, node.parse::<NodeId>().map_err(|_| bad())?);
    if node == me {
        return Ok(index);
    }
    Err(Fault::Bad("bad-cursor", format!("The cursor is of the node {node}, whose order of delivery is its own; this is {me}.")))
}

/// Takes a message.
#[utoipa::path(tag = "messages", params(Manner), request_body(content = String, content_type = "*/*", description = "The message, up to 64 KiB"),
    responses((status = 201, description = "Delivered here; an ordered one: decided, and read here as delivered", body = Taken), (status = 202, description = "Durable here, and pending", body = Taken),
        (status = 400, description = "Unknown channel, or no UTF-8 where text is claimed", content_type = "application/problem+json"),
        (status = 413, description = "Larger than 64 KiB", content_type = "application/problem+json"),
        (status = 503, description = "Too many messages wait to be delivered", content_type = "application/problem+json")))]
#[post("/messages")]
pub(super) async fn say(
    _may: MayWrite,
    request: HttpRequest,
    manner: Query<Manner>,
    body: Payload,
    context: Data<Context>,
) -> Result<HttpResponse, Problem> {
    let declared = content_type(request.headers())?.filter(|declared| essence(declared) != "application/x-www-form-urlencoded");
    let media_type = declared.map_or_else(|| Ok("text/plain; charset=utf-8".to_owned()), |declared| media_type(Some(declared), None))?;
    let (channel, wait) = understand(&manner)?;
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > MAX_BODY) {
        return Err(Fault::MessageTooLarge.into());
    }
    let patience = context.settings.patience;
    let incoming = Incoming::new(body, patience);
    let body = match read(incoming.clone(), patience).await {
        Ok(body) => Body::of(body),
        Err(fault) => return Ok(refuse_upload(&request, fault, incoming)),
    };
    if matches!(body, Body::Base64(_)) && claims_text(&media_type) {
        return Err(Fault::Bad("not-text", format!("The body is not UTF-8, though {media_type} is text.")).into());
    }
    let said = context.driver.say(Say { channel, media_type, body, wait }).await.map_err(Fault::of_saying)?;
    let (delivered, order) = match said.standing {
        Standing::Pending => (false, None),
        Standing::Ordered(order) => (true, Some(order)),
        Standing::Delivered(place) => (true, place.order),
    };
    let status = if delivered { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    Ok(HttpResponse::build(status)
        .insert_header((header::LOCATION, format!("/messages/{}", said.id)))
        .json(Taken::new(said.id, delivered, order)))
}

fn understand(manner: &Manner) -> Result<(Channel, Option<Duration>), Fault> {
    let bad = |detail: &str| Err(Fault::Bad("bad-query", detail.to_owned()));
    let channel = match manner.channel.as_deref() {
        None | Some("causal") => Channel::Causal,
        Some("ordered") => Channel::Ordered,
        Some(_) => return bad("channel is causal or ordered."),
    };
    let timeout = match manner.timeout {
        None => TIMEOUT,
        Some(seconds) if (0.0..=MAX_TIMEOUT).contains(&seconds) => Duration::from_secs_f64(seconds),
        Some(_) => return bad("timeout is a number of seconds from 0 to 300."),
    };
    match manner.wait.as_deref() {
        None => Ok((channel, None)),
        Some("delivered") => Ok((channel, Some(timeout))),
        Some(_) => bad("wait is delivered, or left out."),
    }
}

fn claims_text(media_type: &str) -> bool {
    let essence = essence(media_type);
    essence.starts_with("text/") || essence == "application/json" || essence.ends_with("+json")
}

async fn read(mut incoming: Incoming, patience: Patience) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    while let Some(chunk) = incoming.next().await {
        let chunk = chunk.map_err(|error| body::cut(error, patience))?;
        if body.len() + chunk.len() > MAX_BODY {
            return Err(Fault::MessageTooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Reads the history, in the order in which this node delivered it.
#[utoipa::path(tag = "messages", params(Wish), responses((status = 200, description = "A page", body = HistoryPage),
    (status = 400, description = "A cursor of another node, or none", content_type = "application/problem+json")))]
#[get("/messages")]
pub(super) async fn list(wish: Query<Wish>, context: Data<Context>) -> Result<HttpResponse, Problem> {
    let told = context.driver.status().await.map_err(Fault::from)?;
    let limit = match wish.limit.unwrap_or(LIMIT) {
        0 => return Err(Fault::Bad("bad-query", "limit is a number from 1.".to_owned()).into()),
        limit => limit.min(MAX_LIMIT),
    };
    context.driver.settled().await;
    let history = context.store.history().map_err(Fault::from)?;
    let (messages, next) = match wish.status.as_deref() {
        None | Some("delivered") => delivered(history.as_ref(), wish.after.as_deref(), limit, told.id)?,
        Some("pending") => pending(&context, wish.after.as_deref(), limit, told.id).await?,
        Some(_) => return Err(Fault::Bad("bad-query", "status is pending or delivered.".to_owned()).into()),
    };
    let page = HistoryPage { messages, next, synchronised: told.history.synchronised };
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(page))
}

type PageOf = (Vec<MessageShown>, Option<String>);

fn delivered(history: Option<&History>, after: Option<&str>, limit: usize, me: NodeId) -> Result<PageOf, Fault> {
    let after = after.map_or(Ok(0), |after| index_of(after, me))?;
    let Some(history) = history else { return Ok((vec![], None)) };
    let page = history.page(after, limit)?;
    let last = page.last().map_or(after, |(place, _)| place.index);
    let next = (last < history.size().messages).then(|| cursor(last, me));
    Ok((page.into_iter().map(|(place, message)| MessageShown::new(message, Some(place), me)).collect(), next))
}

async fn pending(context: &Context, after: Option<&str>, limit: usize, me: NodeId) -> Result<PageOf, Fault> {
    let after = after.map(str::parse::<MessageId>).transpose()?;
    // Not from the disk: an ordered message of another node waits in memory only.
    let page = context.driver.undelivered(after, limit).await?;
    let next = page.last().map(|message| message.id.to_string());
    Ok((page.into_iter().map(|message| MessageShown::new(message, None, me)).collect(), next))
}

/// Shows one message.
#[utoipa::path(tag = "messages", params(("id" = String, Path, description = "The message's name")), responses(
    (status = 200, description = "The message", body = MessageShown), (status = 400, description = "No message's name", content_type = "application/problem+json"),
    (status = 404, description = "Unknown here", content_type = "application/problem+json")))]
#[get("/messages/{id}")]
pub(super) async fn one(id: Path<String>, context: Data<Context>) -> Result<HttpResponse, Problem> {
    let id = id.parse::<MessageId>().map_err(Fault::from)?;
    let me = node_of(&context);
    // In this order: what is delivered meanwhile is found afterwards.
    let before = MessageId { sequence: id.sequence.saturating_sub(1), ..id };
    let undelivered = context.driver.undelivered(Some(before), 1).await.map_err(Fault::from)?.pop().filter(|message| message.id == id);
    context.driver.settled().await;
    let history = context.store.history().map_err(Fault::from)?;
    let found = history.map(|history| history.find(id)).transpose().map_err(Fault::from)?.flatten();
    let (message, place) = found.or(undelivered.map(|message| (message, None))).ok_or(Fault::UnknownMessage(id))?;
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(MessageShown::new(message, place, me)))
}

/// Leaves this node's history for another one that it met. What it was is set aside; what was not delivered in it is sent anew.
#[utoipa::path(tag = "messages", params(("id" = String, Path, description = "The history's id, from `apart` in /status")), responses(
    (status = 204, description = "The node belongs to it, durably"), (status = 400, description = "No id", content_type = "application/problem+json"),
    (status = 404, description = "No node of that history was met", content_type = "application/problem+json"),
    (status = 409, description = "The node left that history before", content_type = "application/problem+json")))]
#[put("/messages/history/{id}")]
pub(super) async fn adopt(_may: MayWrite, id: Path<String>, context: Data<Context>) -> Result<HttpResponse, Problem> {
    let bad = |_| Fault::Bad("bad-name", "The id of a history is a GUID, as /status shows it.".to_owned());
    let id = id.parse::<uuid::Uuid>().map_err(bad)?;
    match context.driver.adopt_history(id).await {
        Ok(_) | Err(AdoptFault::Current) => Ok(HttpResponse::NoContent().finish()),
        Err(fault) => Err(Fault::of_adopting(fault, id).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_of_its_node_alone() {
        let (me, other) = (NodeId::from_public_key(&[1; 32]), NodeId::from_public_key(&[2; 32]));
        assert_eq!(index_of(&cursor(7, me), me).ok(), Some(7));
        let Err(Fault::Bad(kind, detail)) = index_of(&cursor(7, other), me) else { panic!("taken") };
        assert!(kind == "bad-cursor" && detail.contains(&other.to_string()), "{detail}");
        for bad in ["", "7", "x.y", "-1.", &format!("x.{me}")] {
            assert!(index_of(bad, me).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let manner = |channel: &str, wait: &str, timeout| {
            let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            understand(&Manner { channel: text(channel), wait: text(wait), timeout }).ok()
        };
        assert_eq!(manner("", "", None), Some((Channel::Causal, None)));
        assert_eq!(manner("ordered", "delivered", Some(0.5)), Some((Channel::Ordered, Some(Duration::from_millis(500)))));
        assert_eq!(manner("", "delivered", None), Some((Channel::Causal, Some(TIMEOUT))));
        assert_eq!((manner("fifo", "", None), manner("", "forever", None), manner("", "delivered", Some(-1.0))), (None, None, None));
        assert_eq!(manner("", "delivered", Some(f64::NAN)), None);
    }

    #[test]
    fn text_is_claimed_by_text_and_json() {
        for text in ["text/plain; charset=utf-8", "TEXT/html", "application/json", "application/ld+json"] {
            assert!(claims_text(text), "{text}");
        }
        assert!(!claims_text("image/png") && !claims_text("application/octet-stream"));
    }
}
