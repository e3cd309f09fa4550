//! `status`, `members`, `forget`: who is there, how they are, and who is not waited for any more.

use std::time::Duration;

use awc::http::Method;
use clap::Args;
use gossip_cdn_protocol::NodeId;
use serde_json::Value;

use super::described::Members;
use super::fault::{Fault, Tally};
use super::list::fetch;
use super::screen::{Screen, is_watched, printable, table};
use super::{Connection, Outcome};

/// How often `--watch` asks.
const WATCH: Duration = Duration::from_secs(1);
/// Moves the cursor home and clears what is below it.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print the node's JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Arguments of `members`.
#[derive(Debug, Args)]
pub struct MembersArgs {
    /// Ask again each second, until interrupted
    #[arg(long)]
    watch: bool,
    /// Print the node's JSON, with --watch a line a second
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Arguments of `forget`.
#[derive(Debug, Args)]
pub struct ForgetArgs {
    /// Node ids, as `members` lists them
    #[arg(required = true, value_name = "ID")]
    members: Vec<NodeId>,
    #[command(flatten)]
    connection: Connection,
}

pub(crate) async fn status(screen: &Screen, arguments: StatusArgs) -> Outcome {
    let (client, node) = arguments.connection.client();
    if let Some(status) = fetch::<Value>(screen, &client, &node, "/status", arguments.json).await? {
        let mut rows = Vec::new();
        flatten("", &status, &mut rows);
        screen.raw(&table(&rows))?;
    }
    Ok(Tally::default())
}

/// A row for each value in `value`, named by its path: a newer node's fields are shown like any other.
fn flatten(name: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let name = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
                flatten(&name, value, rows);
            }
        }
        Value::String(text) => rows.push(vec![printable(name), printable(text)]),
        Value::Null => rows.push(vec![printable(name), "-".into()]),
        Value::Array(_) | Value::Bool(_) | Value::Number(_) => rows.push(vec![printable(name), printable(&value.to_string())]),
    }
}

pub(crate) async fn members(screen: &Screen, arguments: MembersArgs) -> Outcome {
    let MembersArgs { watch, json, connection } = arguments;
    let (client, node) = connection.client();
    let mut every = tokio::time::interval(WATCH);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut reached = false;
    loop {
        every.tick().await;
        match fetch::<Members>(screen, &client, &node, "/members", json).await {
            Ok(found) => {
                reached = true;
                if let Some(found) = found {
                    screen.raw(&format!("{}{}", if watch && is_watched() { CLEAR } else { "" }, rows(&found)))?;
                }
            }
            // Who watches wants to see a node come back.
            Err(fault @ Fault::Unreachable(_)) if watch && reached => screen.note(&fault.to_string()),
            Err(fault) => return Err(fault),
        }
        if !watch {
            return Ok(Tally::default());
        }
    }
}

pub(crate) async fn forget(screen: &Screen, arguments: ForgetArgs) -> Outcome {
    let ForgetArgs { members, connection } = arguments;
    let (client, node) = connection.client();
    let mut tally = Tally::default();
    for member in members {
        let request = client.write(Method::DELETE, &node, &format!("/members/{member}"));
        match client.send(&node, request).await {
            Ok(_) => {}
            Err(fault @ Fault::Unreachable(_)) => return Err(fault),
            Err(fault) => {
                screen.note(&format!("{member}: {fault}"));
                tally.add(fault);
            }
        }
    }
    Ok(tally)
}

fn rows(found: &Members) -> String {
    let mut members: Vec<_> = found.members.iter().collect();
    members.sort_by(|one, other| (&one.address, one.id).cmp(&(&other.address, other.id)));
    let row = |member: &&super::described::ListedMember| {
        vec![
            member.id.to_string(),
            printable(&member.address),
            printable(&member.state),
            member.incarnation.to_string(),
            printable(member.last_seen.as_deref().unwrap_or("-")),
        ]
    };
    let head = ["ID", "ADDRESS", "STATE", "INCARNATION", "LAST SEEN"].map(String::from).to_vec();
    table(&std::iter::once(head).chain(members.iter().map(row)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_shown_whatever_is_in_it() {
        let mut rows = Vec::new();
        flatten("", &serde_json::json!({"id": "x", "disk": {"free": 3}, "peers": ["a"], "advertise": null}), &mut rows);
        assert_eq!(table(&rows), "advertise  -\ndisk.free  3\nid         x\npeers      [\"a\"]\n");
    }

    #[test]
    fn members_are_listed_by_address() {
        let member = |port: u16| {
            format!(
                r#"{{"id": "67e55044-10b1-826f-9247-bb680e5fe0c8", "address": "http://a:{port}", "state": "alive", "incarnation": 1, "last_seen": null}}"#
            )
        };
        let found: Members = serde_json::from_str(&format!(r#"{{"members": [{}, {}]}}"#, member(2), member(1))).unwrap();
        let text = rows(&found);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("ID") && lines[1].contains("http://a:1") && lines[2].contains("http://a:2"));
    }
}
