//! One key, one node: data folders that were copied, or put back from a backup.

use std::path::Path;
use std::process::Command;

use gossip_cdn_cluster::{Network, Node, alive, bootstrap, eventually, noise};
use tempfile::TempDir;

/// Who a node is by now.
fn id(node: &Node) -> String {
    node.status()["id"].as_str().unwrap().to_owned()
}

fn keys_taken(node: &Node) -> u64 {
    node.status()["counters"]["keys_taken"].as_u64().unwrap()
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// All nodes of a network but the one that a test is about, and that one.
fn all<'a>(network: &'a Network, node: &'a Node) -> impl Iterator<Item = &'a Node> {
    network.nodes.iter().take(2).chain([node])
}

fn versions(node: &Node, path: &str) -> usize {
    node.get(&format!("{path}/versions")).json()["versions"].as_array().unwrap().len()
}

#[test]
fn a_folder_that_was_copied_makes_two_nodes_and_neither_loses_anything() {
    let mut network = Network::of(3);
    let flags = ["--bootstrap", &network.bootstrap.url.clone()];
    let shared = network.nodes[2].upload("shared.bin", &noise(300_000, 1));
    network.converge();
    assert!(network.nodes[2].server.terminate().success());
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    copy(&network.nodes[2].data, &data);

    network.nodes[2].restart();
    let copied = Node::start_in(&data, &flags);
    // Before they know of each other, perhaps.
    let (one, other) = (network.nodes[2].upload("one.txt", b"one"), copied.upload("other.txt", b"other"));
    let everybody = || network.nodes.iter().chain([&copied]);
    eventually("they are two", || id(&copied) != id(&network.nodes[2]));
    for node in everybody() {
        eventually("everybody knows everybody", || alive(node) == 4);
        eventually("nothing is lost", || {
            node.get(&one).body == b"one" && node.get(&other).body == b"other" && node.get(&shared).body == noise(300_000, 1)
        });
    }
    let ids: Vec<String> = everybody().map(id).collect();
    for (n, node) in everybody().enumerate() {
        let path = node.upload("later.txt", &noise(1000 + n, 2));
        for other in everybody() {
            eventually("later writes are everywhere", || other.get(&path).body == noise(1000 + n, 2));
        }
    }
    assert!(everybody().map(id).eq(ids), "nobody changes its key again");
    let taken = [&network.nodes[2], &copied].map(keys_taken);
    assert!(taken.iter().all(|taken| *taken <= 1) && taken.iter().sum::<u64>() >= 1, "{taken:?}");
    assert_eq!(network.nodes[..2].iter().map(keys_taken).sum::<u64>(), 0);
}

/// Says something. A node that finds out in that moment that it is another has not taken it, and takes it under its new key.
fn say(node: &Node, text: &str, query: &str) {
    let post = || node.post_with(&format!("/messages{query}"), &[("content-type", "text/plain")], text.as_bytes());
    let mut answer = post();
    if answer.status == 503 {
        let problem = answer.problem(503);
        assert!(problem.contains("takes a new key"), "{problem}");
        answer = post();
    }
    assert!([201, 202].contains(&answer.status), "{}", answer.status);
}

/// The bodies of the messages delivered, in the order of their names.
fn bodies(node: &Node) -> Vec<String> {
    let page = node.get("/messages?limit=1000").json();
    let messages = page["messages"].as_array().cloned().unwrap_or_default();
    let mut bodies: Vec<String> = messages.iter().filter_map(|message| Some(message["body"].as_str()?.to_owned())).collect();
    bodies.sort();
    bodies
}

/// Three nodes that vote, the first of which founded the history.
fn voters() -> Network {
    let network = Network::founded(3);
    eventually("all of them vote", || network.nodes.iter().all(|node| seats(node) == 3));
    network
}

fn seats(node: &Node) -> usize {
    node.status()["epoch"]["voters"].as_array().map_or(0, Vec::len)
}

#[test]
fn a_folder_copied_with_a_history_on_it_loses_and_repeats_no_message() {
    let mut network = voters();
    let flags = ["--bootstrap", &network.bootstrap.url.clone()];
    for (text, query) in [("causal", "?wait=delivered"), ("ordered", "?channel=ordered&wait=delivered")] {
        say(&network.nodes[2], text, query);
    }
    // Accepted, and no majority there to deliver it before the copy is made.
    network.nodes[0].server.kill();
    network.nodes[1].server.kill();
    say(&network.nodes[2], "pending", "");
    say(&network.nodes[2], "pending in order", "?channel=ordered");
    network.nodes[2].server.kill();
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    copy(&network.nodes[2].data, &data);

    network.nodes.iter_mut().for_each(Node::restart);
    let copied = Node::start_in(&data, &flags);
    let everybody = || network.nodes.iter().chain([&copied]);
    eventually("they are two", || id(&copied) != id(&network.nodes[2]));
    for node in everybody() {
        eventually("everything said is delivered, once", || bodies(node) == ["causal", "ordered", "pending", "pending in order"]);
    }
    let mut all = bodies(&copied);
    for (n, node) in everybody().enumerate() {
        say(node, &format!("since then {n}"), if n % 2 == 0 { "" } else { "?channel=ordered" });
        all.push(format!("since then {n}"));
    }
    for node in everybody() {
        eventually("and everything said later", || bodies(node) == all);
        eventually("who has another key is another voter", || seats(node) >= 4);
    }
}

#[test]
fn two_copies_that_meet_nobody_but_a_bootstrap_node_find_out_too() {
    let (server, _folder) = bootstrap();
    let mut node = Node::joined(&server);
    let shared = node.upload("shared.txt", b"shared");
    assert!(node.server.terminate().success());
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    copy(&node.data, &data);
    node.restart();
    let copied = Node::start_in(&data, &["--bootstrap", &server.url]);
    for one in [&node, &copied] {
        eventually("both live on", || alive(one) == 2 && one.get(&shared).body == b"shared");
    }
    assert_ne!(id(&node), id(&copied));
}

/// A node of three whose folder is put back to an earlier state, and started with these flags as well.
fn put_back(flags: &[&str]) {
    let mut network = voters();
    let bytes = noise(200_000, 7);
    let replaced = network.nodes[2].upload("replaced.txt", b"before");
    let deleted = network.nodes[2].upload("deleted.txt", b"deleted");
    let elsewhere = network.nodes[0].upload("elsewhere.txt", b"deleted too");
    say(&network.nodes[2], "before", "?wait=delivered");
    network.converge();
    assert!(network.nodes[2].server.terminate().success());
    let folder = TempDir::new().unwrap();
    let backup = folder.path().join("data");
    copy(&network.nodes[2].data, &backup);

    network.nodes[2].restart();
    let was = id(&network.nodes[2]);
    let forgotten = network.nodes[2].upload("forgotten.bin", &bytes);
    assert_eq!(network.nodes[2].put(&replaced, b"after").status, 200);
    for gone in [&deleted, &elsewhere] {
        eventually("it is here", || network.nodes[2].get(gone).status == 200);
        assert_eq!(network.nodes[2].delete(gone).status, 204);
    }
    say(&network.nodes[2], "forgotten", "?wait=delivered");
    say(&network.nodes[2], "forgotten too", "?channel=ordered&wait=delivered");
    network.converge();
    eventually("the bytes are elsewhere", || network.nodes[0].get(&forgotten).body == bytes);
    let mut node = network.nodes.pop().unwrap();
    node.server.kill();
    std::fs::remove_dir_all(&node.data).unwrap();
    copy(&backup, &node.data);
    let flags: Vec<&str> = ["--bootstrap", &network.bootstrap.url].into_iter().chain(flags.iter().copied()).collect();
    node.restart_with(&flags);
    // Before it knows, perhaps.
    say(&node, "since then", "");

    eventually("it has a new key", || id(&node) != was);
    for node in all(&network, &node) {
        eventually("nothing that was deleted is back", || [&deleted, &elsewhere].iter().all(|path| node.get(path).status == 410));
        eventually("nothing is lost", || node.get(&forgotten).body == bytes && node.get(&replaced).body == b"after");
        eventually("all three live", || alive(node) == 3);
        eventually("no message is lost or repeated", || bodies(node) == ["before", "forgotten", "forgotten too", "since then"]);
    }
    // What it writes now takes nothing for seen that it has forgotten, and is taken for what it is.
    for path in [&forgotten, &replaced] {
        assert_eq!(node.put(path, b"since then").status, 200);
        for node in all(&network, &node) {
            eventually("the new write is everywhere", || node.get(path).body == b"since then" && versions(node, path) == 1);
        }
    }
    let unsupervised = !flags.contains(&"--restored");
    assert_eq!(keys_taken(&node), u64::from(unsupervised));
    for node in all(&network, &node) {
        assert_eq!([&deleted, &elsewhere].map(|path| node.get(path).status), [410, 410]);
    }
}

#[test]
fn a_folder_put_back_without_a_word_is_noticed_by_the_node_itself() {
    put_back(&[]);
}

#[test]
fn a_folder_put_back_with_restored_has_a_new_key_from_the_start() {
    put_back(&["--restored"]);
}

#[test]
fn a_node_that_moves_to_another_address_keeps_its_key() {
    let mut network = Network::of(3);
    let was = id(&network.nodes[2]);
    let path = network.nodes[2].upload("a.txt", b"a");
    network.nodes[2].server.kill();
    let moved = Node::start_in(&network.nodes[2].data, &["--bootstrap", &network.bootstrap.url]);
    for node in all(&network, &moved) {
        eventually("it is back", || alive(node) == 3 && node.get(&path).body == b"a");
    }
    assert_eq!((id(&moved), keys_taken(&moved)), (was, 0));
}
