//! The network as each node shows it: what every member says of itself.

use gossip_cdn_cluster::{Network, Node, eventually};
use serde_json::Value;

use crate::expected::assert_recent;

fn shown(at: &Node, of: &str) -> Value {
    let map = at.get("/network").json();
    map["nodes"].as_array().unwrap().iter().find(|node| node["id"] == of).cloned().unwrap_or_default()
}

#[test]
fn every_node_shows_what_every_member_has_and_with_whom_it_exchanged() {
    let mut network = Network::of(3);
    network.nodes[0].upload("a.txt", &[7; 1000]);
    let path = network.nodes[1].upload("b.txt", b"b");
    network.nodes[1].delete(&path);
    network.converge();
    for at in &network.nodes {
        for of in &network.nodes {
            eventually("what it has is shown", || {
                let (node, status) = (shown(at, of.id()), of.status());
                let same = |name: &str| node[name] == status[name];
                ["version", "blobs", "records", "payload_bytes", "wanted", "root", "incarnation", "address"].into_iter().all(same)
                    && node["messages"] == status["history"]["messages"]
                    && node["history"] == status["epoch"]["history"]
            });
            let node = shown(at, of.id());
            assert_eq!((&node["blobs"], &node["records"], &node["payload_bytes"]), (&1.into(), &2.into(), &1000.into()));
            assert_eq!(node["self"] == true, of.id() == at.id(), "{node}");
            assert_recent(node["reported"].as_str().unwrap());
        }
        eventually("an exchange is shown", || !at.get("/network").json()["exchanges"].as_array().unwrap().is_empty());
        let map = at.get("/network").json();
        for exchange in map["exchanges"].as_array().unwrap() {
            assert!([&exchange["from"], &exchange["to"]].into_iter().any(|id| id == at.id()), "{exchange}");
            assert_recent(exchange["last_seen"].as_str().unwrap());
        }
    }
    let mut lost = network.nodes.pop().unwrap();
    lost.server.kill();
    let at = &network.nodes[0];
    eventually("it is dead", || shown(at, lost.id())["state"] == "dead");
    assert_eq!(shown(at, lost.id())["blobs"], 1, "what it said last is still shown");
}
