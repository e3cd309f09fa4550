//! Heartbeats on the local network, on loopback: several processes share a port of each test's own.

use std::net::UdpSocket;
use std::process::Command;

use gossip_cdn_cluster::{Node, alive, eventually, node_binary};
use serde_json::json;

/// The broadcast address of loopback with a port that nobody else uses.
fn segment() -> String {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("127.255.255.255:{port}")
}

/// A node of that cluster that has no other way to meet anybody.
fn node(cluster: &str, segment: &str) -> Node {
    Node::start(&["--no-bootstrap", "--cluster", cluster, "--lan", segment])
}

fn counter(node: &Node, name: &str) -> u64 {
    node.status()["counters"][name].as_u64().unwrap()
}

/// How a node sees another.
fn state(node: &Node, of: &Node) -> String {
    let members = node.get("/members").json();
    let found = members["members"].as_array().unwrap().iter().find(|member| member["id"] == of.id());
    found.map_or_else(String::new, |member| member["state"].as_str().unwrap().to_owned())
}

fn broadcast(segment: &str, datagram: &[u8]) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_broadcast(true).unwrap();
    socket.send_to(datagram, segment).unwrap();
}

#[test]
fn nodes_without_any_bootstrap_find_each_other_and_share_their_blobs() {
    let group = segment().replace("127.255.255.255", "239.255.77.3");
    for segment in [segment(), group] {
        let nodes = [(); 3].map(|()| node("lan", &segment));
        for node in &nodes {
            eventually("every node knows every other", || alive(node) == 3);
        }
        let path = nodes[0].upload("a.txt", b"a");
        for node in &nodes {
            eventually("the blob is everywhere", || node.get(&path).body == b"a");
            assert!(counter(node, "heartbeats_sent") > 0 && counter(node, "heartbeats_heard") > 0);
            let metrics = node.get("/metrics").text();
            assert!(["sent", "heard", "ignored"].iter().all(|what| metrics.contains(&format!("gossip_cdn_heartbeats_{what}_total "))));
        }
    }
}

#[test]
fn a_node_that_stands_still_is_suspected_and_trusted_again_when_it_goes_on() {
    let segment = segment();
    let nodes = [(); 3].map(|()| node("lan", &segment));
    for node in &nodes {
        eventually("every node knows every other", || alive(node) == 3);
    }
    nodes[0].server.signal("STOP");
    for node in &nodes[1..] {
        eventually("the silent one is suspected", || state(node, &nodes[0]) == "suspect");
        assert_eq!(state(node, node), "alive");
    }
    nodes[0].server.signal("CONT");
    for node in &nodes {
        eventually("all are trusted again", || nodes.iter().all(|other| state(node, other) == "alive"));
    }
}

#[test]
fn a_node_that_says_goodbye_is_left_and_not_suspected() {
    let segment = segment();
    let [mut gone, stays] = [(); 2].map(|()| node("lan", &segment));
    eventually("both know each other", || alive(&gone) == 2 && alive(&stays) == 2);
    assert!(gone.server.terminate().success());
    eventually("it is left", || {
        let state = state(&stays, &gone);
        assert_ne!(state, "suspect");
        state == "left"
    });
}

#[test]
fn another_cluster_on_the_same_segment_is_not_met() {
    let segment = segment();
    let nodes = [node("one", &segment), node("one", &segment), node("other", &segment)];
    for (node, known) in nodes.iter().zip([2, 2, 1]) {
        eventually("it knows its own", || alive(node) == known);
        let before = counter(node, "heartbeats_ignored");
        eventually("it hears the others and ignores them", || counter(node, "heartbeats_ignored") > before + 10);
        assert_eq!(node.get("/members").json()["members"].as_array().unwrap().len(), known);
    }
}

#[test]
fn hostile_datagrams_change_nothing() {
    let segment = segment();
    let node = node("lan", &segment);
    node.upload("a.txt", b"a");
    let root = node.root();
    let claim = |id: &str, address: &str, version: u32| {
        json!({"v": version, "c": "lan", "n": id, "i": 1, "a": address, "k": "07".repeat(32)}).to_string().into_bytes()
    };
    let id = gossip_cdn_protocol::NodeId::from_public_key(&[7; 32]).to_string();
    let hostile = [
        vec![],
        b"{\"v\":1".to_vec(),
        vec![0xff; 600],
        vec![b'['; 60_000],
        claim(&id, "http://127.0.0.1:1", 99),
        claim(&id, "javascript:alert(1)", 1),
        claim(node.id(), "http://127.0.0.1:1", 1),
    ];
    hostile.iter().for_each(|datagram| broadcast(&segment, datagram));
    eventually("all are ignored", || counter(&node, "heartbeats_ignored") >= hostile.len() as u64);
    assert_eq!(node.get("/members").json()["members"].as_array().unwrap().len(), 1);
    assert_eq!((node.root(), counter(&node, "heartbeats_heard")), (root, 0));
}

#[test]
fn what_cannot_work_is_said_at_the_start() {
    for (flags, said) in [
        (&["--lan"][..], "--cluster"),
        (&["--lan", "nowhere", "--cluster", "lan"], "--lan"),
        // A network kept for documentation: no interface has its address.
        (&["--lan", "192.0.2.255:7799", "--cluster", "lan"], "--lan 192.0.2.255:7799"),
        (&["--lan", "--cluster", "lan", "--listen", "[::1]:0"], "IPv4"),
    ] {
        let folder = tempfile::TempDir::new().unwrap();
        let mut command = Command::new(node_binary());
        command.args(["node", "--no-bootstrap", "--data"]).arg(folder.path().join("data"));
        if !flags.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let ended = command.args(flags).output().unwrap();
        let text = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(2), "{text}");
        assert!(text.contains(said), "{text}");
        assert!(!folder.path().join("data").exists(), "nothing was made");
    }
}
