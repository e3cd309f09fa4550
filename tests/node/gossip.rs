//! What one node is given, every node has.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use gossip_cdn_cluster::{Network, Node, Server, alive, eventually, noise, send};

#[test]
fn an_upload_at_one_node_is_read_at_every_node_with_the_same_bytes_tag_type_and_name() {
    let network = Network::of(3);
    for (name, bytes) in [("photo.jpg", noise(20_000, 1)), ("film.mp4", noise(5 << 20, 2)), ("empty.txt", vec![])] {
        let path = network.nodes[0].upload(name, &bytes);
        let first = network.nodes[0].get(&path);
        assert_eq!(first.body, bytes);
        for node in &network.nodes[1..] {
            eventually("the blob is readable", || node.get(&path).status == 200);
            let answer = node.get(&path);
            assert!(answer.body == bytes, "{name} at {}", node.server.url);
            for header in ["etag", "content-type", "content-disposition", "repr-digest", "version"] {
                assert!(!answer.header(header).is_empty(), "{header}");
                assert_eq!(answer.header(header), first.header(header), "{header}");
            }
        }
    }
    network.converge();
}

#[test]
fn a_delete_is_410_at_every_node_and_stays_so_for_a_node_that_was_away() {
    let mut network = Network::of(3);
    let path = network.nodes[0].upload("a.txt", b"a");
    network.converge();
    network.nodes[2].server.kill();
    assert_eq!(network.nodes[1].delete(&path).status, 204);
    network.nodes[2].restart();
    for node in &network.nodes {
        eventually("the delete is here", || node.get(&path).status == 410);
        assert!(!node.get(&path).header("version").is_empty());
        node.delete(&path).problem(410);
    }
    network.converge();
}

#[test]
fn nodes_that_wrote_the_same_blob_apart_agree_on_the_winner_and_keep_the_loser() {
    let (a, b) = (Node::alone(), Node::alone());
    let path = "/blobs/67e55044-10b1-426f-9247-bb680e5fe0c8";
    assert_eq!(a.put_with(path, &[("content-type", "text/plain")], b"from a").status, 201);
    assert_eq!(b.put_with(path, &[("content-type", "text/plain")], b"from b").status, 201);
    a.introduce(&b);
    eventually("both have both versions", || {
        [&a, &b].iter().all(|node| node.get(&format!("{path}/versions")).json()["versions"].as_array().unwrap().len() == 2)
    });
    let (at_a, at_b) = (a.get(&format!("{path}/versions")).json(), b.get(&format!("{path}/versions")).json());
    assert_eq!(at_a, at_b, "the same winner, the same versions, the same reason");
    assert!(at_a["winner"].as_str().unwrap().ends_with(b.id()), "the later write wins");
    let reason = at_a["reason"].as_str().unwrap();
    for version in at_a["versions"].as_array().unwrap() {
        assert!(version["clock"].as_object().is_some_and(|clock| clock.len() == 1));
        for told in ["stamp", "origin"] {
            assert!(reason.contains(version[told].as_str().unwrap()), "{told} in {reason}");
        }
    }
    let loser = at_a["versions"].as_array().unwrap().iter().find(|version| version["origin"] == a.id()).unwrap();
    let loser_path = format!("{path}?version={}", loser["version"].as_str().unwrap());
    for node in [&a, &b] {
        eventually("the winner is served", || node.get(path).body == b"from b");
        eventually("the loser is served by name", || node.get(&loser_path).body == b"from a");
    }

    let later = a.put_with(path, &[("content-type", "text/plain")], b"later");
    assert_eq!(later.status, 200);
    for node in [&a, &b] {
        eventually("the later write covers both", || {
            let versions = node.get(&format!("{path}/versions")).json();
            versions["versions"].as_array().unwrap().len() == 1 && node.get(path).body == b"later"
        });
        node.get(&loser_path).problem(404);
    }
}

#[test]
fn the_loser_of_a_conflict_can_be_made_the_winner() {
    let (a, b) = (Node::alone(), Node::alone());
    let path = "/blobs/67e55044-10b1-426f-9247-bb680e5fe0c8";
    let first = a.put(path, b"from a");
    b.put(path, b"from b");
    a.introduce(&b);
    eventually("they met", || b.get(&format!("{path}/versions")).json()["versions"].as_array().unwrap().len() == 2);
    let answer = b.put(&format!("{path}?from_version={}", first.header("version")), b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    for node in [&a, &b] {
        eventually("the loser's bytes won", || node.get(path).body == b"from a");
        assert_eq!(node.get(&format!("{path}/versions")).json()["versions"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn copies_are_waited_for_and_told() {
    let network = Network::of(3);
    let json = [("accept", "application/json")];
    let answer = network.nodes[0].put_with("/three.bin?copies=3&timeout=20", &json, &noise(100_000, 3));
    assert_eq!(answer.status, 201, "{}", answer.text());
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let holders = network.nodes[2].get(&format!("/blobs/{id}/holders")).json();
    assert_eq!(holders["holders"].as_array().unwrap().len(), 3, "{holders}");

    let answer = network.nodes[0].put_with("/four.bin?copies=4&timeout=1", &json, b"four");
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(answer.json()["copies"], 3);
}

#[test]
fn without_the_bootstrap_node_writes_go_on_and_a_restarted_node_rejoins_from_its_own_list() {
    let mut network = Network::of(3);
    network.bootstrap.kill();
    let path = network.nodes[0].upload("a.txt", b"a");
    eventually("it spreads", || network.nodes[1].get(&path).status == 200);
    network.nodes[2].server.kill();
    let later = network.nodes[1].upload("b.txt", b"b");
    network.nodes[2].restart();
    for path in [&path, &later] {
        eventually("the restarted node has what it missed", || network.nodes[2].get(path).status == 200);
    }
    assert_eq!(network.nodes[2].put("/c.txt", b"c").status, 201);
    network.converge();
}

#[test]
fn a_node_that_stops_says_so_and_one_that_dies_is_found_out() {
    let mut network = Network::of(3);
    let (stopped, died) = (network.nodes[1].id().to_owned(), network.nodes[2].id().to_owned());
    let state = |node: &Node, id: &str| {
        let members = node.get("/members").json();
        let found = members["members"].as_array().unwrap().iter().find(|member| member["id"] == *id).cloned();
        found.unwrap()["state"].as_str().unwrap().to_owned()
    };
    assert!(network.nodes[1].server.terminate().success());
    eventually("the stopped node has left", || state(&network.nodes[0], &stopped) == "left");
    network.nodes[2].server.kill();
    eventually("the killed node is dead", || state(&network.nodes[0], &died) == "dead");
    network.nodes[1].restart();
    network.nodes[2].restart();
    eventually("both are back", || network.nodes.iter().all(|node| alive(node) == 3));
}

#[test]
fn a_blob_is_read_through_a_node_that_does_not_have_its_bytes_yet() {
    let network = Network::of(2);
    let bytes = noise(40 << 20, 4);
    let path = network.nodes[0].upload("large.bin", &bytes);
    // The record arrives within milliseconds, the bytes take longer: most of the time this reads them through.
    eventually("the record is here", || network.nodes[1].head(&path).status == 200);
    let answer = network.nodes[1].get(&path);
    assert_eq!(answer.status, 200);
    assert!(answer.body == bytes);
    assert!(answer.header("cache-status").starts_with("gossip-cdn"), "{}", answer.header("cache-status"));
    let part = network.nodes[1].get_with(&path, &[("range", "bytes=30000000-30000009")]);
    assert_eq!((part.status, &part.body[..]), (206, &bytes[30_000_000..30_000_010]));
}

#[test]
fn the_bootstrap_shows_who_exchanges_with_whom() {
    let network = Network::of(3);
    eventually("the exchanges are shown", || {
        let shown = send("GET", &format!("{}/network", network.bootstrap.url), &[], None).json();
        shown["nodes"].as_array().unwrap().len() == 3 && shown["exchanges"].as_array().unwrap().len() >= 3
    });
}

#[test]
fn an_upload_cut_short_publishes_nothing_and_leaves_nothing_behind() {
    let node = Node::alone();
    let root = node.root();
    for length in [1000, 50 << 20] {
        let mut stream = TcpStream::connect(node.server.authority()).unwrap();
        write!(stream, "PUT /cut.bin HTTP/1.1\r\nhost: {}\r\ncontent-length: {length}\r\n\r\n", node.server.authority()).unwrap();
        stream.write_all(&noise(length / 2, 1)).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        drop(stream);
    }
    eventually("no temporary file is left", || temporary_files(&node.data) == 0);
    assert_eq!(node.root(), root);
    assert_eq!(node.get("/blobs").json()["blobs"].as_array().unwrap().len(), 0);
}

/// Files under the data folder that are neither the database nor the lock.
fn temporary_files(data: &std::path::Path) -> usize {
    let mut count = 0;
    for folder in ["tmp", "partial"] {
        let Ok(entries) = std::fs::read_dir(data.join(folder)) else { continue };
        count += entries.flatten().filter(|entry| entry.file_type().unwrap().is_file()).count();
    }
    count
}

/// A network whose bootstrap node comes back finds its nodes in it again.
#[test]
fn a_bootstrap_node_that_comes_back_is_joined_again() {
    let (mut bootstrap, folder) = gossip_cdn_cluster::bootstrap();
    let node = Node::joined(&bootstrap);
    let listen = bootstrap.authority().to_owned();
    let data = folder.path().join("data");
    bootstrap.kill();
    std::fs::remove_dir_all(&data).unwrap();
    let again =
        Server::start(std::process::Command::new(gossip_cdn_cluster::bootstrap_binary()).args(["--listen", &listen, "--data"]).arg(&data));
    eventually("the node has registered again", || {
        let members = send("GET", &format!("{}/members", again.url), &[], None).json();
        members["members"].as_array().unwrap().iter().any(|member| member["id"] == node.id() && member["state"] == "alive")
    });
}
