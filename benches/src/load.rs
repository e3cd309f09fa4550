//! The load: wrk of the system's package, with the same arguments for whoever is measured.

use std::path::Path;
use std::process::Command;

use gossip_cdn_cluster::interruption::go_on;

use crate::table::Failed;

/// What is the same for both.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) connections: usize,
    pub(crate) seconds: u64,
    /// A script of wrk, and its arguments.
    pub(crate) script: Option<(&'a Path, &'a [String])>,
}

impl Load<'_> {
    /// Requests answered in a second. An error if one was refused, broken or late.
    pub(crate) fn give(self, url: &str) -> Result<f64, Failed> {
        go_on()?;
        let mut command = Command::new("wrk");
        command.args(["-t", "2", "-c", &self.connections.to_string(), "-d", &format!("{}s", self.seconds), "--timeout", "30s"]);
        if let Some((script, _)) = self.script {
            command.arg("-s").arg(script);
        }
        command.arg(url);
        if let Some((_, arguments)) = self.script {
            command.arg("--").args(arguments);
        }
        let output = command.output().map_err(|error| Failed(format!("wrk: {error}: install the package wrk")))?;
        let said = String::from_utf8_lossy(&output.stdout);
        rate(&said).map_err(|why| Failed(format!("wrk at {url}: {why}: {said}{}", String::from_utf8_lossy(&output.stderr))))
    }
}

/// What wrk says of a run in which no request failed.
fn rate(said: &str) -> Result<f64, &'static str> {
    if said.contains("Non-2xx or 3xx responses") {
        return Err("requests were refused");
    }
    if said.contains("Socket errors") {
        return Err("requests were broken");
    }
    let rate = said.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok());
    rate.filter(|rate| *rate > 0.0).ok_or("nothing was answered")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "Running 1s test @ http://127.0.0.1/\n  2 threads and 32 connections\nRequests/sec:  73120.55\nTransfer/sec:     90.00MB\n";

    #[test]
    fn a_run_gives_its_requests_a_second() {
        assert_eq!(rate(GOOD), Ok(73_120.55));
    }

    #[test]
    fn a_run_in_which_a_request_failed_gives_none() {
        assert!(rate(&format!("{GOOD}  Non-2xx or 3xx responses: 1\n")).is_err());
        assert!(rate(&format!("  Socket errors: connect 0, read 1, write 0, timeout 0\n{GOOD}")).is_err());
        assert!(rate("unable to connect to 127.0.0.1:1 Connection refused").is_err());
        assert!(rate("Requests/sec:      0.00\n").is_err());
    }
}
