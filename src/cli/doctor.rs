//! `doctor`: what is wrong, and what to do about it.
//!
//! 1. Every check that finds a fault names a remedy.
//! 2. What cannot be found out is said to be unknown; it is neither a fault nor fine.

use std::time::Duration;

use awc::http::{StatusCode, header};
use clap::Args;
use serde_json::{Value, json};

use super::address::NodeUrl;
use super::client::{self, Client};
use super::described::Members;
use super::fault::{Fault, Tally};
use super::screen::{Screen, bytes, printable, table};
use super::{Connection, Outcome};
use crate::clock::Clock;

/// Two clocks further apart than this are worth a warning: the later of two concurrent writes is decided by them.
const CLOCK_WARN: Duration = Duration::from_secs(5);
/// Nodes no longer follow stamps further ahead than this.
const CLOCK_FAIL: Duration = gossip_cdn_protocol::stamp::MAX_AHEAD;
/// How long a check may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Base URL of the bootstrap node
    #[arg(long, value_name = "URL", env = "GOSSIP_CDN_BOOTSTRAP", value_delimiter = ',', default_value = crate::config::BOOTSTRAP)]
    bootstrap: Vec<NodeUrl>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fine,
    Unknown,
    Warning,
    Fault,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    detail: String,
    remedy: Option<String>,
}

impl Finding {
    fn fine(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Fine, detail: detail.into(), remedy: None }
    }

    fn unknown(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Unknown, detail: detail.into(), remedy: None }
    }

    fn warning(check: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warning, detail: detail.into(), remedy: Some(remedy.into()) }
    }

    fn fault(check: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Fault, detail: detail.into(), remedy: Some(remedy.into()) }
    }
}

pub(crate) async fn run(screen: &Screen, arguments: DoctorArgs) -> Outcome {
    let DoctorArgs { bootstrap, json, connection } = arguments;
    let (client, node) = connection.client();
    let mut findings = Vec::new();
    let reached = reachable(&client, &node, &mut findings).await;
    if reached {
        findings.push(ready(&client, &node).await);
        let status = patient(client.json::<Value>(&node, "/status")).await;
        findings.push(version(status.as_ref()));
        findings.push(disk(status.as_ref()));
        findings.push(damage(status.as_ref()));
        findings.push(members(patient(client.json::<Members>(&node, "/members")).await.as_ref()));
    }
    for address in &bootstrap {
        findings.push(bootstrap_node(&client, address).await);
    }
    if json {
        let rows: Vec<_> = findings.iter().map(as_json).collect();
        screen.line(&json!({ "node": node.to_string(), "checks": rows }).to_string())?;
    } else {
        screen.raw(&as_text(&findings))?;
    }
    let mut tally = Tally::default();
    if !reached {
        tally.add(Fault::Unreachable(String::new()));
    }
    if findings.iter().any(|finding| finding.verdict == Verdict::Fault) {
        tally.add(Fault::Failed(String::new()));
    }
    Ok(tally)
}

fn as_json(finding: &Finding) -> Value {
    json!({ "check": finding.check, "verdict": finding.verdict.name(), "detail": finding.detail, "remedy": finding.remedy })
}

fn as_text(findings: &[Finding]) -> String {
    let mut rows = Vec::new();
    for finding in findings {
        rows.push(vec![finding.verdict.name().into(), finding.check.into(), printable(&finding.detail)]);
        if let Some(remedy) = &finding.remedy {
            rows.push(vec![String::new(), String::new(), format!("-> {remedy}")]);
        }
    }
    table(&rows)
}

/// The answer, or what kept it, within [`PATIENCE`].
async fn patient<T>(asked: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let late = |_| Err(Fault::Unreachable(format!("no answer within {} seconds", PATIENCE.as_secs())));
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(late)
}

/// Whether the node answers at all; with the answer comes its clock.
async fn reachable(client: &Client, node: &NodeUrl, findings: &mut Vec<Finding>) -> bool {
    let clock = Clock::new();
    match patient(client.send_any(node, client.read(node, "/healthz"), ())).await {
        Ok(response) => {
            findings.push(Finding::fine("node", format!("{node} answers")));
            let date = client::header_text(&response, header::DATE).and_then(|date| httpdate::parse_http_date(date).ok());
            let theirs = date.and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok());
            let ours = Duration::from_millis(clock.now().wall.0);
            findings.push(theirs.map_or_else(|| Finding::unknown("clock", "the node sends no date"), |theirs| clocks(ours, theirs)));
            true
        }
        Err(fault) => {
            let remedy = "start it with `gossip-cdn node`, or say with --node where it is; a firewall may also be in the way";
            findings.push(Finding::fault("node", fault.to_string(), remedy));
            false
        }
    }
}

/// Compares two clocks, both as time since 1970. A date in a header has whole seconds.
fn clocks(ours: Duration, theirs: Duration) -> Finding {
    let apart = ours.abs_diff(theirs).saturating_sub(Duration::from_secs(1));
    let detail = match apart.as_secs() == 0 {
        true => "the node's and this machine's agree".to_owned(),
        false => format!("the node's is {} s {} this machine's", apart.as_secs(), if theirs > ours { "ahead of" } else { "behind" }),
    };
    let remedy = "synchronise both clocks, by NTP for instance: concurrent writes are decided by them";
    if apart > CLOCK_FAIL {
        Finding::fault("clock", detail, remedy)
    } else if apart > CLOCK_WARN {
        Finding::warning("clock", detail, remedy)
    } else {
        Finding::fine("clock", detail)
    }
}

async fn ready(client: &Client, node: &NodeUrl) -> Finding {
    let remedy = "look into the node's log: its store may still be opening, or its disk may have failed";
    match patient(client.send_any(node, client.read(node, "/readyz"), ())).await {
        Ok(response) if response.status() == StatusCode::OK => Finding::fine("ready", "the node serves"),
        Ok(response) => Finding::fault("ready", client::refusal(response).await.to_string(), remedy),
        Err(fault) => Finding::fault("ready", fault.to_string(), remedy),
    }
}

fn version(status: Result<&Value, &Fault>) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    match status.map(|status| status.get("version").and_then(Value::as_str)) {
        Ok(Some(theirs)) if theirs == ours => Finding::fine("version", format!("node and command line are both {ours}")),
        Ok(Some(theirs)) => Finding::warning(
            "version",
            format!("the node is {theirs}, this command line {ours}"),
            "upgrade the older one: most things work between versions, but not all",
        ),
        Ok(None) => Finding::unknown("version", "the node does not tell its version"),
        Err(fault) => Finding::fault("version", fault.to_string(), "is a Gossip CDN node listening there? Check --node"),
    }
}

fn damage(status: Result<&Value, &Fault>) -> Finding {
    let number = |name| status.ok().and_then(|status| status.get("damage")?.get(name)?.as_u64());
    match (number("missing"), number("found")) {
        (Some(0), Some(0)) => Finding::fine("payloads", "none was found damaged"),
        (Some(0), Some(found)) => Finding::warning(
            "payloads",
            format!("{found} were found damaged since the node's start, and were replaced or are needed no more"),
            "look at the disk under its data folder: what rots once may rot again",
        ),
        (Some(missing), _) => Finding::fault(
            "payloads",
            format!("{missing} are damaged here and no other node has given them back yet"),
            "start a node that has a good copy, or upload the same bytes again; the node goes on asking",
        ),
        (None, _) => Finding::unknown("payloads", "the node does not tell whether any are damaged"),
    }
}

fn disk(status: Result<&Value, &Fault>) -> Finding {
    let number = |name| status.ok().and_then(|status| status.get("disk")?.get(name)?.as_u64());
    let Some(free) = number("free") else { return Finding::unknown("disk", "the node does not tell its room") };
    let reserve = number("reserve").unwrap_or(0);
    let detail = format!("{} free, of which {} are kept in reserve", bytes(free), bytes(reserve));
    let remedy = "delete blobs, or give the data folder a larger disk; --reserve says how much is kept free";
    if free <= reserve {
        Finding::fault("disk", format!("{detail}: uploads are refused"), remedy)
    } else if free < reserve.saturating_mul(2) {
        Finding::warning("disk", detail, remedy)
    } else {
        Finding::fine("disk", detail)
    }
}

fn members(found: Result<&Members, &Fault>) -> Finding {
    let remedy = "see `gossip-cdn members`; check that those nodes run and can be reached at the addresses they advertise (--advertise); `gossip-cdn forget ID` is for those that will not come back";
    let found = match found {
        Ok(found) => &found.members,
        Err(fault) => return Finding::fault("members", fault.to_string(), remedy),
    };
    let count = |state: &str| found.iter().filter(|member| member.state == state).count();
    let detail = format!("{} alive, {} suspect, {} dead, {} left", count("alive"), count("suspect"), count("dead"), count("left"));
    if count("suspect") + count("dead") > 0 {
        Finding::warning("members", detail, remedy)
    } else if found.len() < 2 + count("forgotten") {
        let remedy = "a single node keeps a single copy: start another one with the same --bootstrap and --cluster";
        Finding::warning("members", format!("{detail}: the node is alone"), remedy)
    } else {
        Finding::fine("members", detail)
    }
}

async fn bootstrap_node(client: &Client, address: &NodeUrl) -> Finding {
    match patient(client.send(address, client.read(address, "/healthz"))).await {
        Ok(_) => Finding::fine("bootstrap", format!("{address} answers")),
        // Known members go on without it, so that is no fault of the node.
        Err(_) => Finding::warning(
            "bootstrap",
            format!("{address} does not answer"),
            "newcomers find nobody without it: start gossip-cdn-bootstrap, or say with --bootstrap where it is",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_apart_are_judged() {
        let at = Duration::from_secs;
        let verdict = |ours, theirs| clocks(at(ours), at(theirs)).verdict;
        assert_eq!(verdict(1000, 1000), Verdict::Fine);
        assert_eq!(verdict(1000, 995), Verdict::Fine);
        assert_eq!([verdict(1000, 1010), verdict(1010, 1000)], [Verdict::Warning; 2]);
        assert_eq!([verdict(1000, 1700), verdict(1700, 1000)], [Verdict::Fault; 2]);
        assert!(clocks(at(1010), at(1000)).detail.contains("behind"));
        assert!(clocks(Duration::from_millis(1_001_900), at(1000)).detail.contains("agree"), "a date has whole seconds");
    }

    #[test]
    fn a_full_disk_is_a_fault_and_an_unknown_one_is_not() {
        let verdict = |free: u64| disk(Ok(&json!({"disk": {"free": free, "reserve": 100}}))).verdict;
        assert_eq!([verdict(100), verdict(150), verdict(200)], [Verdict::Fault, Verdict::Warning, Verdict::Fine]);
        assert_eq!(disk(Ok(&json!({}))).verdict, Verdict::Unknown);
    }

    #[test]
    fn damage_that_nobody_mended_is_a_fault() {
        let verdict = |missing: u64, found: u64| damage(Ok(&json!({"damage": {"missing": missing, "found": found}}))).verdict;
        assert_eq!([verdict(0, 0), verdict(0, 2), verdict(1, 0)], [Verdict::Fine, Verdict::Warning, Verdict::Fault]);
        assert_eq!(damage(Ok(&json!({}))).verdict, Verdict::Unknown);
    }

    #[test]
    fn every_fault_has_a_remedy() {
        let fault = Fault::Failed("x".into());
        let mut findings = vec![version(Err(&fault)), members(Err(&fault)), members(Ok(&Members { members: vec![] }))];
        findings.push(version(Ok(&json!({"version": "0.0.0"}))));
        for finding in &findings {
            assert!(finding.remedy.is_some(), "{finding:?}");
        }
        let text = as_text(&findings);
        assert_eq!(text.matches("-> ").count(), findings.len());
    }
}
