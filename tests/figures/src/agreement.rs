//! What nodes agree about: their records, their payloads, who is alive.

use std::collections::BTreeMap;
use std::time::Duration;

use gossip_cdn_cluster::interruption::go_on;
use serde_json::Value;

use crate::client::Client;
use crate::report::{Broken, claim};
use crate::waiting::wait;

/// What every node must answer in the end, by path: these bytes, or that it is deleted.
pub(crate) type Expected = BTreeMap<String, Option<Vec<u8>>>;

/// How long anything may take before a measurement gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Makes the node at `address` known to that of the client.
pub(crate) fn introduce(client: &mut Client, address: &str) -> Result<(), Broken> {
    let body = serde_json::json!({"address": address}).to_string();
    let status = client.post_json("/members", body.as_bytes())?.status;
    claim(status == 200 || status == 202, || format!("{address} cannot be introduced: {status}"))
}

/// The root of a node's records.
pub(crate) fn root(client: &mut Client) -> Result<String, Broken> {
    Ok(client.status()?["root"].as_str().unwrap_or_default().to_owned())
}

/// A number out of a node's status.
pub(crate) fn number(client: &mut Client, name: &str) -> Result<u64, Broken> {
    client.status()?[name].as_u64().ok_or_else(|| Broken::new(format!("the status has no {name}")))
}

/// A counter out of a node's status.
pub(crate) fn counter(client: &mut Client, name: &str) -> Result<u64, Broken> {
    client.status()?["counters"][name].as_u64().ok_or_else(|| Broken::new(format!("there is no counter {name}")))
}

/// Whether all have the same records.
pub(crate) fn same_records(clients: &mut [Client]) -> Result<bool, Broken> {
    let roots = clients.iter_mut().map(root).collect::<Result<Vec<_>, _>>()?;
    Ok(roots.windows(2).all(|pair| pair[0] == pair[1]))
}

/// Whether all have the same records, and every payload that they name.
pub(crate) fn settled(clients: &mut [Client]) -> Result<bool, Broken> {
    let told = clients.iter_mut().map(Client::status).collect::<Result<Vec<Value>, _>>()?;
    let same = |name: &str| told.windows(2).all(|pair| pair[0][name] == pair[1][name]);
    Ok(same("root") && same("payloads") && told.iter().all(|status| status["wanted"] == 0))
}

/// Waits until every node holds that many alive, itself included.
pub(crate) fn acquainted(clients: &mut [Client], count: u64) -> Result<Duration, Broken> {
    wait(&format!("{count} are alive to each"), PATIENCE, || {
        clients.iter_mut().try_fold(true, |all, client| Ok(all && number(client, "live_members")? == count))
    })
}

/// An error unless every node answers what is expected.
pub(crate) fn check(clients: &mut [Client], expected: &Expected) -> Result<(), Broken> {
    for client in clients {
        for (path, bytes) in expected {
            go_on()?;
            let answer = client.send("GET", path, &[])?;
            let right = match bytes {
                Some(bytes) => answer.status == 200 && answer.body == *bytes,
                None => answer.status == 410,
            };
            let wanted = if bytes.is_some() { "is lost or has other bytes" } else { "was deleted" };
            claim(right, || format!("{path} {wanted}: answered with {} and {} bytes", answer.status, answer.body.len()))?;
        }
    }
    Ok(())
}
