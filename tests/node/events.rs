//! What changes, told as it happens.

use gossip_cdn_cluster::{Events, Network, Node, eventually};

use crate::expected::path_of;

#[test]
fn what_happens_to_a_blob_is_told_at_every_node() {
    let network = Network::of(2);
    let [one, two] = [&network.nodes[0], &network.nodes[1]];
    let mut events = [Events::open(&one.server, "/events", None), Events::open(&two.server, "/events", None)];
    let path = path_of(&one.put("/a.txt", b"hello"));
    let id = path.strip_prefix("/blobs/").unwrap();
    for events in &mut events {
        let (_, record) = events.next("record");
        assert_eq!((&record["id"], &record["deleted"], &record["versions"]), (&id.into(), &false.into(), &1.into()));
    }
    let (_, holder) = events[1].next("holder");
    assert_eq!((&holder["id"], &holder["node"]), (&id.into(), &two.id().into()));
    two.delete(&path);
    for events in &mut events {
        let (_, record) = events.next("record");
        assert_eq!((&record["id"], &record["deleted"]), (&id.into(), &true.into()));
    }
}

#[test]
fn a_conflict_is_told_with_the_number_of_versions() {
    let (one, two) = (Node::alone(), Node::alone());
    let path = format!("/blobs/{}", crate::expected::GUID);
    one.put(&path, b"one");
    two.put(&path, b"two");
    let mut events = Events::open(&one.server, "/events", None);
    one.introduce(&two);
    assert_eq!(events.next("record").1["versions"], 2);
}

#[test]
fn members_and_exchanges_are_told_and_so_is_a_death() {
    let mut network = Network::of(3);
    let lost = network.nodes.pop().unwrap();
    let node = &network.nodes[0];
    let mut events = Events::open(&node.server, "/events", None);
    let (_, exchange) = events.next("exchange");
    let known = [node.id(), network.nodes[1].id(), lost.id()];
    assert!(known.iter().any(|id| exchange["from"] == *id) && known.iter().any(|id| exchange["to"] == *id), "{exchange}");
    let id = lost.id().to_owned();
    drop(lost);
    for state in ["suspect", "dead"] {
        let (_, member) = events.next("member");
        assert_eq!((&member["id"], &member["state"]), (&id.as_str().into(), &state.into()));
    }
}

#[test]
fn the_bootstrap_node_tells_who_comes_and_who_exchanges() {
    let network = Network::of(2);
    let mut events = Events::open(&network.bootstrap, "/events", None);
    let third = Node::joined(&network.bootstrap);
    let (_, member) = events.next("member");
    assert_eq!((&member["id"], &member["state"]), (&third.id().into(), &"alive".into()));
    eventually("an exchange is told", || events.next("exchanges").1["to"].as_array().is_some_and(|to| !to.is_empty()));
}

#[test]
fn a_stop_waits_for_no_reader_of_events() {
    let mut network = Network::of(1);
    let node = &mut network.nodes[0];
    let streams = ["/events", "/messages/stream"].map(|path| Events::open(&node.server, path, None));
    let map = Events::open(&network.bootstrap, "/events", None);
    assert!(node.server.terminate().success());
    assert!(network.bootstrap.terminate().success());
    for stream in streams.into_iter().chain([map]) {
        assert!(stream.end().ends_with("0\r\n\r\n"), "it is ended, not cut");
    }
}
