//! Nothing acknowledged is lost.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ureq::http;

use gossip_cdn_cluster::{Network, Node, PATIENCE, eventually, node_binary, noise};

/// Uploads without panicking when the node dies: the link's path, if it was acknowledged.
fn try_upload(url: &str, body: &[u8]) -> Option<String> {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().into();
    let request = http::Request::builder().method("PUT").uri(format!("{url}/x.bin")).body(body).unwrap();
    let mut response = agent.run(request).ok()?;
    assert_eq!(response.status().as_u16(), 201);
    let link = response.body_mut().read_to_string().ok()?;
    Some(link.trim().strip_prefix(url)?.to_owned())
}

#[test]
fn a_node_killed_in_the_middle_of_500_writes_has_every_acknowledged_one() {
    let mut network = Network::of(3);
    let url = network.nodes[0].server.url.clone();
    let next = AtomicUsize::new(0);
    let acknowledged = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    // Small and large ones, so that both ways to the disk are cut.
                    let length = if n.is_multiple_of(10) { 200_000 + n } else { 1000 + n };
                    let Some(path) = (n < 500).then(|| try_upload(&url, &noise(length, n as u64))).flatten() else { return };
                    acknowledged.lock().unwrap().insert(path, (length, n as u64));
                }
            });
        }
        eventually("half of the writes are done", || acknowledged.lock().unwrap().len() >= 250);
        network.nodes[0].server.signal("KILL");
    });
    network.nodes[0].server.kill();
    let missed = network.nodes[1].upload("meanwhile.txt", b"meanwhile");
    network.nodes[0].restart();
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!((250..500).contains(&acknowledged.len()), "{} acknowledged: killed in the middle", acknowledged.len());
    for (path, (length, seed)) in &acknowledged {
        let answer = network.nodes[0].get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.body == noise(*length, *seed), "{path}");
    }
    eventually("it fetches what it missed", || network.nodes[0].get(&missed).body == b"meanwhile");
    network.converge();
}

/// Gives a message without panicking when the node dies: what the node answered, if it did.
fn try_say(url: &str, query: &str, body: &str) -> Option<serde_json::Value> {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().into();
    let mut response = agent.post(format!("{url}/messages{query}")).header("content-type", "text/plain").send(body).ok()?;
    serde_json::from_str(&response.body_mut().read_to_string().ok()?).ok()
}

/// Everything delivered at a node, by pages: each body with its number, if it has one.
fn delivered(node: &Node) -> Vec<(String, Option<u64>)> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = node.get(&format!("/messages?limit=1000{after}")).json();
        let messages = page["messages"].as_array().unwrap();
        all.extend(messages.iter().map(|message| (message["body"].as_str().unwrap().to_owned(), message["number"].as_u64())));
        let Some(next) = page["next"].as_str() else { return all };
        after = format!("&after={next}");
    }
}

#[test]
fn a_node_killed_in_the_middle_of_messages_has_every_acknowledged_one_once() {
    let mut node = Node::start(&["--no-bootstrap", "--found"]);
    let mut acknowledged = BTreeMap::new();
    let mut before = Vec::new();
    for life in 0..4 {
        let url = node.server.url.clone();
        eventually("it founds", || node.status()["epoch"]["voters"].as_array().is_some_and(|voters| voters.len() == 1));
        let said = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            for client in 0..8 {
                let (said, url) = (&said, &url);
                scope.spawn(move || {
                    // Every other client waits for a place, the others for the disk alone. Some messages fill several blocks.
                    let query = if client % 2 == 0 { "?channel=ordered&wait=delivered" } else { "" };
                    for n in 0.. {
                        let body = format!("{life}.{client}.{n} {}", "x".repeat(n % 7 * 1500));
                        let Some(answer) = try_say(url, query, &body) else { return };
                        said.lock().unwrap().insert(body, answer["number"].as_u64());
                    }
                });
            }
            eventually("some are acknowledged", || said.lock().unwrap().len() >= 300);
            node.server.signal("KILL");
        });
        node.server.kill();
        node.restart();
        acknowledged.extend(said.into_inner().unwrap());
        eventually("all that was acknowledged is delivered", || {
            let here: BTreeMap<String, Option<u64>> = delivered(&node).into_iter().collect();
            acknowledged.iter().all(|(body, number)| here.get(body).is_some_and(|found| number.is_none() || found == number))
        });
        let here = delivered(&node);
        let once: std::collections::BTreeSet<&String> = here.iter().map(|(body, _)| body).collect();
        assert_eq!(once.len(), here.len(), "each once");
        assert!(here.starts_with(&before), "what was read before stands where it stood");
        before = here;
    }
    assert!(acknowledged.len() >= 1200);
}

#[test]
fn every_reply_to_a_lone_upload_comes_after_an_fsync() {
    let folder = tempfile::TempDir::new().unwrap();
    let (trace, data) = (folder.path().join("trace"), folder.path().join("data"));
    let mut command = Command::new("strace");
    // -D: the node is the child, so that it ends with the test, and the tracer with it.
    let calls = "trace=openat,pwrite64,fsync,fdatasync,write,writev,sendto,sendmsg";
    command.args(["-D", "-f", "-e", calls, "-s", "16", "-o"]).arg(&trace);
    command.arg(node_binary()).args(["node", "--listen", "127.0.0.1:0", "--no-bootstrap", "--log", "off", "--data"]).arg(&data);
    let server = gossip_cdn_cluster::Server::start(command.stderr(Stdio::null()));
    let sizes = [100, 10_000, 300_000];
    for size in sizes {
        assert!(try_upload(&server.url, &noise(size, 1)).is_some());
    }
    // The tracer writes a call down when it is over, by when its reply may be here already.
    eventually("all replies are traced", || std::fs::read_to_string(&trace).unwrap().matches("HTTP/1.1 201").count() == sizes.len());
    let trace = std::fs::read_to_string(&trace).unwrap();
    let mut synced = 0;
    let mut replies = 0;
    // A file whose writes are on disk when they return: the journal.
    let synchronous = trace.lines().find(|line| line.contains("SYNC|O_DIRECT")).and_then(|line| line.rsplit("= ").next());
    let journaled = synchronous.map(|file| format!("pwrite64({file}, "));
    for line in trace.lines() {
        // A call that other threads interrupt is written in two lines; the second says that it is done.
        let is_sync = (line.contains("fsync") || line.contains("fdatasync")) && line.ends_with("= 0");
        let is_journaled = journaled.as_ref().is_some_and(|call| line.contains(call));
        if is_sync || is_journaled && !line.contains("= -1") {
            synced += 1;
        } else if line.contains("HTTP/1.1 201") {
            assert!(synced > 0, "a reply without an fsync before it:\n{line}");
            (synced, replies) = (0, replies + 1);
        }
    }
    assert_eq!(replies, sizes.len(), "{trace}");
}

#[test]
fn a_node_that_is_stopped_and_started_goes_on_where_it_was() {
    let mut node = Node::alone();
    let id = node.id().to_owned();
    let small = node.upload("small.txt", b"small");
    let large = node.upload("large.bin", &noise(3 << 20, 1));
    let gone = node.upload("gone.txt", b"gone");
    node.delete(&gone);
    let root = node.root();
    assert!(node.server.terminate().success());
    node.restart();
    assert_eq!(node.id(), id);
    assert_eq!(node.root(), root);
    assert_eq!(node.get(&small).body, b"small");
    assert!(node.get(&large).body == noise(3 << 20, 1));
    node.get(&gone).problem(410);
}

#[test]
fn a_node_put_back_from_a_backup_takes_a_new_key_and_keeps_its_blobs() {
    let mut node = Node::alone();
    let path = node.upload("a.txt", b"a");
    assert!(node.server.terminate().success());
    let restored = Node::start_in(&node.data, &["--no-bootstrap", "--restored"]);
    assert_ne!(restored.id(), node.id());
    assert_eq!(restored.get(&path).body, b"a");
}

#[test]
fn a_node_stops_though_a_write_waits_for_copies_that_nobody_will_make() {
    let mut node = Node::alone();
    let url = node.server.url.clone();
    let send = |method: &'static str, path: &'static str| {
        let url = format!("{url}{path}");
        std::thread::spawn(move || gossip_cdn_cluster::send(method, &url, &[("accept", "application/json")], Some(b"x")))
    };
    let writing = send("PUT", "/x.bin?copies=2&timeout=300");
    let saying = send("POST", "/messages?channel=ordered&wait=delivered&timeout=300");
    eventually("the write is on disk", || node.get("/blobs").json()["blobs"].as_array().unwrap().len() == 1);
    eventually("the message is on disk", || node.get("/messages?status=pending").json()["messages"].as_array().unwrap().len() == 1);
    let asked = Instant::now();
    assert!(node.server.terminate().success());
    assert!(asked.elapsed() < Duration::from_secs(8), "it waited for others: {:?}", asked.elapsed());
    let written = writing.join().unwrap();
    assert_eq!((written.status, &written.json()["copies"]), (202, &1.into()));
    let said = saying.join().unwrap();
    assert_eq!((said.status, &said.json()["status"]), (202, &"pending".into()));
    node.restart();
    assert_eq!(node.get("/blobs").json()["blobs"].as_array().unwrap().len(), 1);
}
