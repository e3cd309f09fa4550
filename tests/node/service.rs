//! What a node tells of itself: status, members, liveness, metrics, request ids, and who may write.

use std::process::{Command, Stdio};

use crate::expected::{PATH, assert_recent, keys};
use gossip_cdn_cluster::{Network, Node, alive, eventually, node_binary, send};

#[test]
fn status_has_the_fields_that_programs_rely_on() {
    let node = Node::alone();
    let empty = node.status();
    for field in ["id", "address", "cluster", "version", "uptime", "records", "payload_bytes", "root"] {
        assert!(empty.get(field).is_some(), "{field} in {empty}");
    }
    assert_eq!((&empty["id"], &empty["address"]), (&node.id().into(), &node.server.url.as_str().into()));
    assert_eq!((&empty["cluster"], &empty["version"]), (&"gossip-cdn".into(), &env!("CARGO_PKG_VERSION").into()));
    assert_eq!((&empty["records"], &empty["payload_bytes"]), (&0.into(), &0.into()));
    assert!(empty["root"].is_string() && empty["uptime"].is_u64(), "{empty}");
    node.put(PATH, &[7; 1000]);
    let full = node.status();
    assert_eq!((&full["records"], &full["payload_bytes"]), (&1.into(), &1000.into()));
    assert_ne!(full["root"], empty["root"]);
    node.delete(PATH);
    eventually("the bytes of a deleted blob go", || node.status()["payload_bytes"] == 0);
    assert_eq!(node.status()["records"], 1, "a tombstone is a record");
    let named = Node::start(&["--no-bootstrap", "--cluster", "other", "--advertise", "http://node.example:7701"]);
    let status = named.status();
    assert_eq!((&status["cluster"], &status["address"]), (&"other".into(), &"http://node.example:7701".into()));
}

#[test]
fn members_are_listed_with_the_node_itself() {
    let network = Network::of(2);
    for node in &network.nodes {
        let told = node.get("/members").json();
        let members = told["members"].as_array().unwrap();
        assert_eq!(members.len(), 2, "{told}");
        for member in members {
            for field in ["id", "address", "state", "incarnation", "last_seen"] {
                assert!(member.get(field).is_some(), "{field} in {member}");
            }
            let known = network.nodes.iter().find(|node| member["id"] == node.id()).unwrap();
            assert_eq!((&member["address"], &member["state"]), (&known.server.url.as_str().into(), &"alive".into()));
            assert!(member["incarnation"].as_u64().is_some_and(|incarnation| incarnation >= 1));
            assert_recent(member["last_seen"].as_str().unwrap());
        }
    }
}

#[test]
fn two_nodes_are_introduced_by_hand() {
    let (a, b) = (Node::alone(), Node::alone());
    assert_eq!((alive(&a), alive(&b)), (1, 1));
    let introduce = |address: &str| {
        a.post_with("/members", &[("content-type", "application/json")], serde_json::json!({ "address": address }).to_string().as_bytes())
    };
    let met = introduce(&b.server.url);
    assert_eq!(met.status, 200, "{}", met.text());
    assert_eq!((&met.json()["id"], &met.json()["address"]), (&b.id().into(), &b.server.url.as_str().into()));
    for node in [&a, &b] {
        eventually("each knows the other", || alive(node) == 2);
    }
    assert_eq!(introduce(&format!("{}/", b.server.url)).status, 200, "a final slash is no other address");
    for nonsense in ["", "b", "127.0.0.1:1", "ftp://127.0.0.1", "http://127.0.0.1:1/path", "http://a b"] {
        introduce(nonsense).problem(400);
    }
    a.post_with("/members", &[("content-type", "application/json")], b"{}").problem(400);
}

#[test]
fn a_node_alone_is_live_and_ready() {
    // It asks a bootstrap node that is not there: store and listener are up, peers or not.
    let node = Node::start(&["--bootstrap", "http://127.0.0.1:1"]);
    for path in ["/healthz", "/readyz"] {
        let answer = node.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
}

/// The value of a sample of `/metrics`.
fn sample(node: &Node, name: &str) -> u64 {
    let text = node.get("/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(ToOwned::to_owned));
    line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
}

#[test]
fn metrics_are_text_for_prometheus_and_their_counters_move() {
    let node = Node::alone();
    let path = node.upload("a.bin", &[1; 1000]);
    let answer = node.get("/metrics");
    let media_type = answer.header("content-type");
    assert!(media_type.starts_with("application/openmetrics-text; version=1.0.0") || media_type.starts_with("text/plain; version=0.0.4"));
    let text = answer.text();
    assert!(text.ends_with("# EOF\n"));
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        assert!(series.starts_with("gossip_cdn_") && value.parse::<f64>().is_ok(), "{line}");
        let name = series.split('{').next().unwrap();
        let family = name.strip_suffix("_total").unwrap_or(name);
        assert!(text.contains(&format!("# TYPE {family} ")) && text.contains(&format!("# HELP {family} ")), "{line}");
    }
    assert_eq!((sample(&node, "gossip_cdn_uploads_total"), sample(&node, "gossip_cdn_uploaded_bytes_total")), (1, 1000));
    node.get(&path);
    node.get_with(&path, &[("range", "bytes=0-9")]);
    node.head(&path);
    assert_eq!((sample(&node, "gossip_cdn_downloads_total"), sample(&node, "gossip_cdn_downloaded_bytes_total")), (2, 1010));
    assert_eq!((sample(&node, "gossip_cdn_blobs"), sample(&node, "gossip_cdn_tombstones")), (1, 0));
    let writes = sample(&node, "gossip_cdn_writes_total");
    node.delete(&path);
    assert_eq!(sample(&node, "gossip_cdn_writes_total"), writes + 1);
    assert_eq!((sample(&node, "gossip_cdn_blobs"), sample(&node, "gossip_cdn_tombstones")), (0, 1));
}

#[test]
fn every_answer_has_a_request_id_and_a_sane_one_of_the_client_is_kept() {
    let node = Node::alone();
    let mut made = std::collections::BTreeSet::new();
    for path in ["/", "/blobs", "/status", PATH, "/blobs/x", "/nothing/here", "/healthz"] {
        let answer = node.get(path);
        let id = answer.header("x-request-id").to_owned();
        assert!(!id.is_empty(), "{path}");
        if answer.status >= 400 {
            assert_eq!(answer.json()["request_id"], id, "{path}");
        }
        assert!(made.insert(id), "each its own");
        let kept = node.get_with(path, &[("x-request-id", "client-1.a_b")]);
        assert_eq!(kept.header("x-request-id"), "client-1.a_b");
        let replaced = node.get_with(path, &[("x-request-id", "<script>")]);
        assert!(!replaced.header("x-request-id").contains('<'));
    }
    let refused = send("DELETE", &node.url(PATH), &[("origin", "http://evil.example"), ("x-request-id", "r1")], None);
    refused.problem(403);
    assert_eq!(refused.json()["request_id"], "r1");
    assert_eq!(keys(&refused.json()), ["detail", "request_id", "status", "title", "type"]);
}

#[test]
fn the_write_token_guards_uploads_deletes_and_members_and_nothing_else() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "secret\n").unwrap();
    let node = Node::start(&["--no-bootstrap", "--write-token", file.to_str().unwrap()]);
    let writes: [(&str, &str, Option<&[u8]>); 6] = [
        ("PUT", "/a.txt", Some(b"a")),
        ("PUT", "/", Some(b"a")),
        ("POST", "/blobs", Some(b"a")),
        ("PUT", PATH, Some(b"a")),
        ("POST", "/members", Some(b"{\"address\":\"http://127.0.0.1:1\"}")),
        ("DELETE", PATH, None),
    ];
    for (method, path, body) in writes {
        let json = ("content-type", "application/json");
        for shown in ["", "Bearer wrong", "Bearer", "Basic secret", "secret", "Bearer secret2"] {
            let answer = send(method, &node.url(path), &[json, ("authorization", shown)], body);
            answer.problem(401);
            assert!(answer.header("www-authenticate").starts_with("Bearer"), "{method} {path}");
        }
        send(method, &node.url(path), &[json], body).problem(401);
        for shown in ["Bearer secret", "bearer secret"] {
            // A second delete finds a deleted blob.
            let answer = send(method, &node.url(path), &[json, ("authorization", shown)], body);
            assert!(matches!(answer.status, 200..=204 | 410), "{method} {path}: {}", answer.status);
        }
    }
    for path in ["/", "/blobs", "/status", "/members", "/healthz", "/readyz", "/metrics", "/openapi.json"] {
        assert_eq!(node.get(path).status, 200, "{path}");
    }
    node.get(PATH).problem(410);
    node.get(&format!("{PATH}/versions")).json();
    assert!(!node.get("/").text().contains("secret"));

    // Peers are no clients: what one was given, the other gets.
    let friend = Node::alone();
    friend.introduce(&node);
    let path = friend.upload("b.txt", b"b");
    eventually("gossip needs no token", || node.get(&path).body == b"b");
}

/// What a node that listens on every address says on stderr until it serves.
fn logged_at_the_start(flags: &[&str]) -> String {
    let folder = tempfile::TempDir::new().unwrap();
    let mut child = Command::new(node_binary())
        .args(["node", "--listen", "0.0.0.0:0", "--advertise", "http://127.0.0.1:1", "--no-bootstrap", "--data"])
        .arg(folder.path().join("data"))
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
    child.kill().unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap()
}

#[test]
fn a_node_beyond_loopback_without_a_token_warns_that_anybody_can_write() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "secret\n").unwrap();
    let open = logged_at_the_start(&[]);
    assert!(open.contains("WARN") && open.contains("--write-token"), "{open}");
    let guarded = logged_at_the_start(&["--write-token", file.to_str().unwrap()]);
    assert!(!guarded.contains("WARN"), "{guarded}");
}
