//! A bootstrap node as a process of its own, and what is said to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// The real binary, killed when dropped.
pub(crate) struct Bootstrap {
    pub(crate) address: SocketAddr,
    child: Child,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// The last part of the problem's type, after everything that every problem has was checked.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        assert_eq!(problem["request_id"], self.header("x-request-id"), "{problem}");
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        problem["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned()
    }
}

pub(crate) fn command(arguments: &[&str], data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gossip-cdn-bootstrap"));
    command.args(arguments).arg("--data").arg(data).stdin(Stdio::null());
    command
}

/// Runs it where it is expected to end by itself.
pub(crate) fn run(arguments: &[&str], data: &Path) -> Output {
    command(arguments, data).output().unwrap()
}

impl Bootstrap {
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_with(&[], data)
    }

    pub(crate) fn start_with(arguments: &[&str], data: &Path) -> Self {
        let mut child =
            command(arguments, data).args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on http://").and_then(|line| line.strip_suffix(" bootstrap\n"));
        Self { address: address.unwrap_or_else(|| panic!("{line:?}")).parse().unwrap(), child }
    }

    pub(crate) fn signal(mut self, signal: &str) -> ExitStatus {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
        self.child.wait().unwrap()
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        read(agent().get(self.url(path)).call())
    }

    pub(crate) fn head(&self, path: &str) -> Answer {
        read(agent().head(self.url(path)).call())
    }

    pub(crate) fn post(&self, path: &str, media_type: &str, body: &str) -> Answer {
        read(agent().post(self.url(path)).header("content-type", media_type).send(body))
    }

    pub(crate) fn join(&self, claim: &Value) -> Answer {
        self.post("/join", "application/json", &claim.to_string())
    }

    pub(crate) fn members(&self) -> Vec<Value> {
        self.get("/members").json()["members"].as_array().unwrap().clone()
    }

    /// A request of the tester's own words; the status line and the rest.
    pub(crate) fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Bootstrap {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(20))).build().into()
}

fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut answer = answer.unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    Answer { status: answer.status().as_u16(), headers: answer.headers().clone(), text }
}

/// A node's claim about itself.
pub(crate) struct Node {
    key: [u8; 32],
    pub(crate) incarnation: u64,
    pub(crate) state: &'static str,
    pub(crate) exchanged: Vec<String>,
}

impl Node {
    pub(crate) fn new(number: u8) -> Self {
        Self { key: [number; 32], incarnation: 1, state: "alive", exchanged: Vec::new() }
    }

    pub(crate) fn id(&self) -> String {
        gossip_cdn_protocol::NodeId::from_public_key(&self.key).to_string()
    }

    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", 40_000 + u16::from(self.key[0]))
    }

    pub(crate) fn claim(&self) -> Value {
        let key: String = self.key.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({
            "v": 1, "c": "gossip-cdn", "n": self.id(), "i": self.incarnation,
            "b": {
                "member": { "id": self.id(), "address": self.address(), "incarnation": self.incarnation, "state": self.state, "key": key },
                "records": 3, "payload_bytes": 4096, "root": format!("{:032x}.3", 7), "exchanged": self.exchanged,
                "wanted": 2, "messages": 5, "program": { "version": "1.2.3", "blobs": 1 },
            }
        })
    }
}
