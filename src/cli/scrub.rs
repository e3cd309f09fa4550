//! `scrub`: has a node read and check every payload it has, and waits for what comes of it.

use std::time::Duration;

use awc::http::Method;
use clap::Args;
use serde_json::Value;

use super::address::NodeUrl;
use super::client::Client;
use super::fault::{Fault, Tally};
use super::screen::{Screen, bytes, is_watched};
use super::{Connection, Outcome};

/// How often the node is asked how far it is.
const ASK: Duration = Duration::from_millis(500);
/// How long damaged payloads may take to come from other nodes, behind the end of the scrub.
const REPLACED_WITHIN: u32 = 60;

/// Arguments of `scrub`.
#[derive(Debug, Args)]
pub struct ScrubArgs {
    /// Print JSON: the scrub and the damage, as the node's status shows them at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

pub(crate) async fn run(screen: &Screen, arguments: ScrubArgs) -> Outcome {
    let ScrubArgs { json, connection } = arguments;
    let (client, node) = connection.client();
    client.send(&node, client.write(Method::POST, &node, "/scrub")).await?;
    let mut status = ended(screen, &client, &node).await?;
    for _ in 0..REPLACED_WITHIN {
        if number(&status, "damage", "missing") == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        status = client.json::<Value>(&node, "/status").await?;
    }
    let part = |name: &str| status.get(name).cloned().unwrap_or_default();
    if json {
        screen.line(&serde_json::json!({ "scrub": part("scrub"), "damage": part("damage") }).to_string())?;
    } else {
        screen.line(&summary(&status))?;
    }
    let mut tally = Tally::default();
    let (missing, records) = (number(&status, "damage", "missing"), number(&status, "scrub", "records_bad"));
    if missing > 0 {
        tally.add(Fault::Failed(format!("{missing} payloads are damaged, and no other node has given them back yet")));
    }
    if records > 0 {
        tally.add(Fault::Failed(format!("{records} records are damaged: start the node again, and it mends them")));
    }
    Ok(tally)
}

/// Waits for the end of the scrub.
async fn ended(screen: &Screen, client: &Client, node: &NodeUrl) -> Result<Value, Fault> {
    loop {
        let status = client.json::<Value>(node, "/status").await?;
        if status.pointer("/scrub/running") != Some(&Value::Bool(true)) {
            return Ok(status);
        }
        if is_watched() {
            screen.note(&summary(&status));
        }
        tokio::time::sleep(ASK).await;
    }
}

fn number(status: &Value, part: &str, name: &str) -> u64 {
    status.get(part).and_then(|part| part.get(name)).and_then(Value::as_u64).unwrap_or_default()
}

fn summary(status: &Value) -> String {
    let of = |name| number(status, "scrub", name);
    format!("checked {} payloads, {}; {} damaged", of("payloads"), bytes(of("bytes")), of("bad"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_scrub_found_is_said_in_a_line() {
        let status = serde_json::json!({"scrub": {"payloads": 3, "bytes": 2048, "bad": 1}});
        let said = summary(&status);
        assert!(said.starts_with("checked 3 payloads, 2") && said.ends_with("; 1 damaged"), "{said}");
    }
}
