//! `say`, `history`, `adopt-history`: the message history.

use std::io::Read as _;

use awc::http::{Method, StatusCode, header};
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::address::NodeUrl;
use super::client::{Client, HEAD, chunk, collect, parse, refusal};
use super::fault::{Fault, Tally};
use super::screen::{Screen, printable};
use super::{Connection, Outcome};

/// The most that a node takes, and a byte more to see that it is too much.
const MAX_READ: u64 = (64 << 10) + 1;
/// Messages asked for at a time: the most a node gives.
const PAGE: usize = 1000;
/// How long to wait before a stream that broke is taken up again.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// Arguments of `say`.
#[derive(Debug, Args)]
pub struct SayArgs {
    /// What to say; - reads it from standard input
    #[arg(value_name = "TEXT")]
    text: String,
    /// Give it one number on every node, instead of an order among what its node had seen
    #[arg(long)]
    ordered: bool,
    /// Wait until it is delivered, so many seconds at most
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "10")]
    wait: Option<f64>,
    /// Media type
    #[arg(long = "type", value_name = "TYPE", default_value = "text/plain; charset=utf-8")]
    media_type: String,
    /// Print the node's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Arguments of `history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Go on with what is delivered from now on, until interrupted
    #[arg(long, conflicts_with = "pending")]
    follow: bool,
    /// Go on after this cursor, from the `cursor` of --json
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// List what this node knows and has not delivered
    #[arg(long)]
    pending: bool,
    /// Print the JSON of each message, a line each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Arguments of `adopt-history`.
#[derive(Debug, Args)]
pub struct AdoptArgs {
    /// Id of the history to belong to, from the `apart` of `status`
    #[arg(value_name = "ID")]
    history: Uuid,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Deserialize)]
struct Page {
    messages: Vec<Value>,
    next: Option<String>,
}

pub(crate) async fn say(screen: &Screen, arguments: SayArgs) -> Outcome {
    let SayArgs { text, ordered, wait, media_type, json, connection } = arguments;
    let (client, node) = connection.client();
    let body = if text == "-" { standard_input()? } else { text.into_bytes() };
    let channel = if ordered { "ordered" } else { "causal" };
    let patience = HEAD + std::time::Duration::try_from_secs_f64(wait.unwrap_or_default()).unwrap_or_default();
    let wait = wait.map(|seconds| format!("&wait=delivered&timeout={seconds}")).unwrap_or_default();
    let request =
        client.write(Method::POST, &node, &format!("/messages?channel={channel}{wait}")).insert_header((header::CONTENT_TYPE, media_type));
    let response = Client::send_within(&node, request, body, patience).await?;
    let delivered = response.status() == StatusCode::CREATED;
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    let said: Value = parse(&node, &collect(response).await.map_err(|cut| Fault::Failed(format!("{node}: {cut}")))?)?;
    screen.line(&if json { said.to_string() } else { text_of(&said, "id") })?;
    if !delivered && !wait.is_empty() {
        screen.note("it is durable at that node and not delivered yet");
    }
    Ok(Tally::default())
}

fn standard_input() -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    let read = std::io::stdin().lock().take(MAX_READ).read_to_end(&mut body);
    read.map(|_| body).map_err(|error| Fault::Failed(format!("standard input: {error}")))
}

pub(crate) async fn history(screen: &Screen, arguments: HistoryArgs) -> Outcome {
    let HistoryArgs { follow, mut after, pending, json, connection } = arguments;
    let (client, node) = connection.client();
    let status = if pending { "&status=pending" } else { "" };
    loop {
        let from = after.as_deref().map(|after| format!("&after={}", utf8_percent_encode(after, NON_ALPHANUMERIC))).unwrap_or_default();
        let page: Page = client.json(&node, &format!("/messages?limit={PAGE}{status}{from}")).await?;
        for message in &page.messages {
            show(screen, message, json)?;
        }
        let last = page.messages.last().and_then(|message| message.get("cursor")).and_then(Value::as_str);
        after = page.next.clone().or_else(|| last.map(ToOwned::to_owned)).or(after);
        if page.next.is_none() {
            break;
        }
    }
    if !follow {
        return Ok(Tally::default());
    }
    let mut cursor = after.unwrap_or_else(|| "0".to_owned());
    loop {
        // Who follows wants to see a node come back.
        if let Err(fault) = follow_from(screen, &client, &node, &mut cursor, json).await {
            if !matches!(fault, Fault::Unreachable(_) | Fault::Failed(_)) {
                return Err(fault);
            }
            screen.note(&fault.to_string());
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Shows events until the stream ends; `cursor` names the last one shown.
async fn follow_from(screen: &Screen, client: &Client, node: &NodeUrl, cursor: &mut String, json: bool) -> Result<(), Fault> {
    let request = client.read(node, "/messages/stream").insert_header(("last-event-id", cursor.as_str()));
    let mut response = client.send(node, request).await?;
    let mut text = Vec::new();
    while let Some(bytes) = chunk(&mut response).await.map_err(|cut| Fault::Failed(format!("{node}: {cut}")))? {
        text.extend_from_slice(&bytes);
        while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = text.drain(..end + 2).collect();
            if let Some((id, data)) = event_of(&String::from_utf8_lossy(&event)) {
                show(screen, &parse(node, data.as_bytes())?, json)?;
                *cursor = id;
            }
        }
    }
    Ok(())
}

/// The id and the data of an event that carries a message.
fn event_of(event: &str) -> Option<(String, String)> {
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(ToOwned::to_owned);
    (field("event: ")? == "message").then_some(())?;
    Some((field("id: ")?, field("data: ")?))
}

fn text_of(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).map(printable).unwrap_or_default()
}

fn show(screen: &Screen, message: &Value, json: bool) -> Result<(), Fault> {
    if json {
        return screen.line(&message.to_string());
    }
    let number = message.get("number").and_then(Value::as_u64).map(|number| format!("#{number} ")).unwrap_or_default();
    let body = match message.get("encoding") {
        None => text_of(message, "body"),
        Some(_) => format!("({} in base64) {}", text_of(message, "media_type"), text_of(message, "body")),
    };
    screen.line(&format!("{}  {}  {number}{body}", text_of(message, "sent"), text_of(message, "origin")))
}

pub(crate) async fn adopt(_: &Screen, arguments: AdoptArgs) -> Outcome {
    let (client, node) = arguments.connection.client();
    let request = client.write(Method::PUT, &node, &format!("/messages/history/{}", arguments.history));
    client.send(&node, request).await?;
    Ok(Tally::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_from_other_events() {
        let event = "id: 7.n\nevent: message\ndata: {\"body\": \"x\"}\n\n";
        assert_eq!(event_of(event), Some(("7.n".into(), "{\"body\": \"x\"}".into())));
        assert_eq!(event_of(":\n\n"), None);
        assert_eq!(event_of("event: dropped\ndata: slow\n\n"), None);
    }
}
