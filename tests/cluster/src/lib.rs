//! Real processes for tests and measurements, and a plain client to talk to them.
//!
//! Every process listens on a free port of loopback, keeps its data in a folder that is removed afterwards, and is killed when its
//! value is dropped, whatever became of the test.
//!
//! The binaries are those beside whoever uses this: a program's own folder, or the one above it for tests, which cargo puts in `deps`.
//! Whoever builds the user builds them: cargo does for the node's own tests, others ask for `--workspace` or for the packages by name.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the answer")]
#![expect(clippy::disallowed_methods, reason = "waiting needs a clock")]

pub mod interruption;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use ureq::http;

/// How long anything may take before a test gives up: ten times what it takes on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The binary of the node.
pub fn node_binary() -> &'static Path {
    static PATH: LazyLock<PathBuf> = LazyLock::new(|| binary("gossip-cdn"));
    &PATH
}

/// The binary of the bootstrap node.
pub fn bootstrap_binary() -> &'static Path {
    static PATH: LazyLock<PathBuf> = LazyLock::new(|| binary("gossip-cdn-bootstrap"));
    &PATH
}

fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let folder = own.parent().unwrap();
    let folder = if folder.ends_with("deps") { folder.parent().unwrap() } else { folder };
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built: build the packages gossip-cdn and gossip-cdn-bootstrap in the same profile", path.display());
    path
}

/// A process that listens, and says so in its first line on stdout.
pub struct Server {
    child: Child,
    /// Its base URL.
    pub url: String,
    /// What it said of itself behind the URL: `node <id>`, `bootstrap`.
    pub said: String,
}

impl Server {
    /// Starts a command and waits for `listening on <url> ...`.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some((url, said)) = line.trim().strip_prefix("listening on ").and_then(|rest| rest.split_once(' ')) else {
            let status = child.wait();
            panic!("{command:?} said {line:?} and ended with {status:?}");
        };
        Self { url: url.to_owned(), said: said.to_owned(), child }
    }

    /// Ends it at once, as a power cut would the process.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, as a service manager does, and waits until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().unwrap()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `host:port`.
    pub fn authority(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A node and its folder.
pub struct Node {
    /// The process.
    pub server: Server,
    /// Its data folder.
    pub data: PathBuf,
    start: Start,
    _folder: Option<TempDir>,
}

/// How a node is started.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// Where it listens; a free port of loopback if it is empty.
    pub listen: String,
    /// The base URL under which this program reaches it, where it is not the one it says.
    pub reached: Option<String>,
    /// Its flags.
    pub flags: Vec<String>,
    /// Size of a disk of its own, in memory, that its folder is; it goes with the process, and making it needs root.
    pub disk: Option<String>,
}

impl Node {
    /// A node that knows nobody and asks nobody.
    pub fn alone() -> Self {
        Self::start(&["--no-bootstrap"])
    }

    /// A node that asks that bootstrap node.
    pub fn joined(bootstrap: &Server) -> Self {
        Self::start(&["--bootstrap", &bootstrap.url])
    }

    /// A node with these flags, in a folder of its own.
    pub fn start(flags: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("data");
        let mut node = Self::start_in(&data, flags);
        node._folder = Some(folder);
        node
    }

    /// A node with these flags in that folder.
    pub fn start_in(data: &Path, flags: &[&str]) -> Self {
        Self::start_as(data, Start { flags: owned(flags), ..Start::default() })
    }

    /// A node in that folder, started so.
    pub fn start_as(data: &Path, start: Start) -> Self {
        let mut node = Self { server: start.server(data), data: data.to_owned(), start, _folder: None };
        if node.start.listen.is_empty() {
            node.start.listen = node.server.authority().to_owned();
        }
        node
    }

    /// Starts it again on its folder and its port, after it has ended.
    pub fn restart(&mut self) {
        self.server = self.start.server(&self.data);
    }

    /// The same with other flags.
    pub fn restart_with(&mut self, flags: &[&str]) {
        self.start.flags = owned(flags);
        self.restart();
    }

    /// Its folder as the process sees it, which may have a disk of its own.
    pub fn folder(&self) -> PathBuf {
        let within = self.data.strip_prefix("/").unwrap();
        Path::new("/proc").join(self.server.pid().to_string()).join("root").join(within)
    }

    /// Its id.
    pub fn id(&self) -> &str {
        self.server.said.strip_prefix("node ").unwrap()
    }

    /// The URL of a path on it.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.url)
    }

    /// Sends a GET for a path.
    pub fn get(&self, path: &str) -> Answer {
        send("GET", &self.url(path), &[], None)
    }

    /// The same with headers.
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        send("GET", &self.url(path), headers, None)
    }

    /// Sends a HEAD.
    pub fn head(&self, path: &str) -> Answer {
        send("HEAD", &self.url(path), &[], None)
    }

    /// Sends a PUT with a body.
    pub fn put(&self, path: &str, body: &[u8]) -> Answer {
        send("PUT", &self.url(path), &[], Some(body))
    }

    /// The same with headers.
    pub fn put_with(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        send("PUT", &self.url(path), headers, Some(body))
    }

    /// Sends a POST with headers and a body.
    pub fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        send("POST", &self.url(path), headers, Some(body))
    }

    /// Sends a DELETE.
    pub fn delete(&self, path: &str) -> Answer {
        send("DELETE", &self.url(path), &[], None)
    }

    /// Uploads bytes as a new blob; gives its path, `/blobs/<id>`.
    pub fn upload(&self, name: &str, body: &[u8]) -> String {
        let answer = self.put(&format!("/{name}"), body);
        assert_eq!(answer.status, 201, "{}", answer.text());
        let link = answer.text();
        link.trim().strip_prefix(&self.server.url).unwrap().to_owned()
    }

    /// Makes this node and `other` known to each other.
    pub fn introduce(&self, other: &Self) {
        let body = serde_json::json!({"address": other.server.url}).to_string();
        let answer = self.post_with("/members", &[("content-type", "application/json")], body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// `GET /status`.
    pub fn status(&self) -> serde_json::Value {
        self.get("/status").json()
    }

    /// The root of its record set.
    pub fn root(&self) -> String {
        self.status()["root"].as_str().unwrap().to_owned()
    }
}

impl Start {
    fn server(&self, data: &Path) -> Server {
        let listen = if self.listen.is_empty() { "127.0.0.1:0" } else { &self.listen };
        let mut command = match &self.disk {
            None => Command::new(node_binary()),
            Some(size) => {
                std::fs::create_dir_all(data).unwrap();
                let mounted = r#"mount -t tmpfs -o "size=$1" none "$2" && shift 2 && exec "$@""#;
                let mut command = Command::new("unshare");
                command.args(["--mount", "--", "sh", "-ec", mounted, "sh", size]).arg(data).arg(node_binary());
                command
            }
        };
        command
            .args(["node", "--listen", listen, "--data"])
            .arg(data)
            .args(&self.flags)
            .env_remove("RUST_LOG")
            .env("GOSSIP_CDN_LOG", "warn");
        let mut server = Server::start(&mut command);
        if let Some(url) = &self.reached {
            server.url.clone_from(url);
        }
        server
    }
}

fn owned(flags: &[&str]) -> Vec<String> {
    flags.iter().map(|&flag| flag.to_owned()).collect()
}

/// A bootstrap node; its folder lives as long as the value beside it.
pub fn bootstrap() -> (Server, TempDir) {
    let folder = TempDir::new().unwrap();
    let server =
        Server::start(Command::new(bootstrap_binary()).args(["--listen", "127.0.0.1:0", "--data"]).arg(folder.path().join("data")));
    (server, folder)
}

/// A network: a bootstrap node and nodes that have all met.
pub struct Network {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The bootstrap node.
    pub bootstrap: Server,
    _folder: TempDir,
}

impl Network {
    /// Starts it and waits until every node knows every other.
    pub fn of(count: usize) -> Self {
        Self::begun(count, &[])
    }

    /// The same, and the first node founds a message history.
    pub fn founded(count: usize) -> Self {
        Self::begun(count, &["--found"])
    }

    fn begun(count: usize, flags: &[&str]) -> Self {
        let (bootstrap, folder) = bootstrap();
        let flags: Vec<&str> = ["--bootstrap", &bootstrap.url].into_iter().chain(flags.iter().copied()).collect();
        let first = Node::start(&flags);
        let nodes: Vec<Node> = std::iter::once(first).chain((1..count).map(|_| Node::joined(&bootstrap))).collect();
        for node in &nodes {
            eventually("every node knows every other", || alive(node) == count);
        }
        Self { nodes, bootstrap, _folder: folder }
    }

    /// Waits until all nodes have the same records.
    pub fn converge(&self) {
        eventually("all roots are equal", || self.nodes.iter().all(|node| node.root() == self.nodes[0].root()));
    }
}

/// How many members a node believes alive, itself included.
pub fn alive(node: &Node) -> usize {
    let members = node.get("/members").json();
    members["members"].as_array().unwrap().iter().filter(|member| member["state"] == "alive").count()
}

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: http::HeaderMap,
    /// Its body, whole.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|fault| panic!("{fault}: {}", self.text()))
    }

    /// Asserts that it is a problem of that status and gives its detail.
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        for member in ["type", "title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member} in {problem}");
        }
        problem["detail"].as_str().unwrap().to_owned()
    }
}

/// Sends a request and reads the whole answer, whatever its status.
pub fn send(method: &str, url: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .max_redirects(0)
        .allow_non_standard_methods(true)
        .build()
        .into();
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = match body {
        Some(body) => agent.run(request.body(body).unwrap()),
        None => agent.run(request.body(()).unwrap()),
    };
    let (parts, mut body) = response.unwrap_or_else(|fault| panic!("{method} {url}: {fault}")).into_parts();
    let body = body.with_config().limit(1 << 30).read_to_vec().unwrap();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

/// Sends bytes as they are and reads until the server closes the connection or nothing comes for two seconds.
pub fn send_raw(authority: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(authority).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        answer.extend_from_slice(&piece[..count]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// A stream of server-sent events, read as it comes.
pub struct Events {
    connection: TcpStream,
    text: String,
}

impl Events {
    /// Opens a stream; `last` is the id of the last event seen, if any.
    pub fn open(server: &Server, path: &str, last: Option<&str>) -> Self {
        let mut connection = TcpStream::connect(server.authority()).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        let last = last.map(|last| format!("Last-Event-ID: {last}\r\n")).unwrap_or_default();
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{last}\r\n", server.authority());
        connection.write_all(head.as_bytes()).unwrap();
        let mut events = Self { connection, text: String::new() };
        // The comment that every stream begins with: from here on nothing is missed.
        while !events.text.contains(":\n\n") {
            assert!(events.read() > 0, "{}", events.text);
        }
        events
    }

    /// The id and the data of the next event of that name.
    pub fn next(&mut self, name: &str) -> (String, serde_json::Value) {
        let wanted = format!("event: {name}\ndata: ");
        loop {
            if let Some((before, rest)) = self.text.split_once(&wanted)
                && let Some((data, rest)) = rest.split_once('\n')
            {
                let id = before.rsplit_once("id: ").map(|(_, id)| id.trim().to_owned()).unwrap_or_default();
                let data = serde_json::from_str(data).unwrap();
                self.text = rest.to_owned();
                return (id, data);
            }
            assert!(self.read() > 0, "the stream ended: {}", self.text);
        }
    }

    /// Whether the server's end of the connection is open, as the system tells: what it gave up, a reader that does not read need not notice.
    pub fn is_open_at_the_server(&self) -> bool {
        is_open_at_the_server(&self.connection)
    }

    /// Reads until the server ends the stream; gives what was not asked for.
    pub fn end(mut self) -> String {
        while self.read() > 0 {}
        self.text
    }

    fn read(&mut self) -> usize {
        let mut bytes = [0; 4096];
        let count = self.connection.read(&mut bytes).unwrap();
        self.text += &String::from_utf8_lossy(&bytes[..count]);
        count
    }
}

/// Whether the server's end of a connection is open, as the system tells.
pub fn is_open_at_the_server(stream: &TcpStream) -> bool {
    const ESTABLISHED: &str = "01";
    let local = format!(":{:04X}", stream.peer_addr().unwrap().port());
    let remote = format!(":{:04X}", stream.local_addr().unwrap().port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (Some(own), Some(other), Some(state)) = (fields.next(), fields.next(), fields.next()) else { return false };
        own.ends_with(&local) && other.ends_with(&remote) && state == ESTABLISHED
    })
}

/// Waits until `claim` holds.
pub fn eventually(what: &str, mut claim: impl FnMut() -> bool) {
    let start = Instant::now();
    while !claim() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a program says that cannot start: one sentence, and exit code 2. One that starts all the same is ended.
pub fn refusal(command: &mut Command) -> String {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(child.kill());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(output.stdout.is_empty());
    assert_eq!(said.trim().lines().count(), 1, "one sentence: {said}");
    said
}

/// Bytes that look like nothing and are the same each time.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // Marsaglia, "Xorshift RNGs", section 3.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
