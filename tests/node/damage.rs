//! Bytes that rot on a disk: no reader anywhere gets a wrong one, the copy is replaced from another holder, and it is counted.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use gossip_cdn_cluster::{Network, Node, eventually, node_binary, noise};

/// Some groups of 16 KiB beyond what is kept inside the database.
const LARGE: usize = 3 << 20;

/// Flips a byte of a file.
fn flip(path: &Path, offset: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], offset).unwrap();
}

/// The file of the only large payload of a node.
fn payload_file(node: &Node) -> PathBuf {
    let shelves = std::fs::read_dir(node.data.join("payloads")).unwrap();
    let mut files = shelves.flat_map(|shelf| std::fs::read_dir(shelf.unwrap().path()).unwrap()).map(|file| file.unwrap().path());
    files.find(|path| path.extension().is_none()).unwrap()
}

/// Flips a byte in the middle of each place where the database has these bytes.
fn flip_in_database(node: &Node, bytes: &[u8]) {
    let path = node.data.join("store.redb");
    let all = std::fs::read(&path).unwrap();
    let places: Vec<usize> = (0..all.len() - bytes.len()).filter(|at| all[*at..].starts_with(bytes)).collect();
    assert!(!places.is_empty(), "the bytes stand in the database as they are");
    places.iter().for_each(|at| flip(&path, (at + bytes.len() / 2) as u64));
}

fn damage(node: &Node, name: &str) -> u64 {
    node.status()["damage"][name].as_u64().unwrap()
}

fn metric(node: &Node, name: &str) -> u64 {
    let text = node.get("/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no metric {name}"));
    line.trim().parse().unwrap()
}

fn all_hold(nodes: &[Node], payloads: u64) -> bool {
    nodes.iter().all(|node| node.status()["payloads"] == payloads)
}

#[test]
fn a_byte_flipped_in_a_payload_file_and_one_in_the_database_reach_no_reader_and_are_mended_from_another_node() {
    let mut network = Network::of(3);
    let (large, small) = (noise(LARGE, 1), noise(3000, 2));
    let paths = [network.nodes[0].upload("large.bin", &large), network.nodes[1].upload("small.bin", &small)];
    eventually("all hold both", || all_hold(&network.nodes, 2));
    let node = &mut network.nodes[2];
    assert!(node.server.terminate().success());
    // Deep inside, so that the answer has begun when it is found.
    flip(&payload_file(node), 2 << 20);
    flip_in_database(node, &small);
    node.restart();
    for (path, bytes) in paths.iter().zip([&large, &small]) {
        for node in &network.nodes {
            let answer = node.get(path);
            assert!(answer.status == 200 && answer.body == *bytes, "{path}: {} bytes, status {}", answer.body.len(), answer.status);
        }
    }
    let node = &network.nodes[2];
    eventually("both were replaced", || damage(node, "replaced") == 2);
    assert_eq!([damage(node, "found"), damage(node, "missing")], [2, 0]);
    assert_eq!([metric(node, "gossip_cdn_payloads_found_damaged_total"), metric(node, "gossip_cdn_payloads_replaced_total")], [2, 2]);
    assert_eq!(metric(node, "gossip_cdn_payloads_damaged"), 0);
    assert_eq!(network.nodes[0].status()["misbehaviour"], serde_json::json!([]), "no wrong byte was sent to a peer");
    // It is on the disk, too.
    let node = &mut network.nodes[2];
    node.server.kill();
    node.restart();
    assert_eq!(node.get(&paths[0]).body, large);
    assert_eq!(node.get(&paths[1]).body, small);
    assert_eq!(damage(node, "found"), 0);
}

#[test]
fn a_damaged_payload_that_nobody_else_has_is_missing_until_somebody_brings_it() {
    let mut node = Node::alone();
    let bytes = noise(LARGE, 3);
    let path = node.upload("large.bin", &bytes);
    assert!(node.server.terminate().success());
    flip(&payload_file(&node), 2 << 20);
    node.restart();
    let part = node.get_with(&path, &[("range", "bytes=0-999999")]);
    assert!(part.status == 206 && part.body == bytes[..1_000_000], "a range that touches no damage is served");
    assert_eq!(node.get_with(&path, &[("range", "bytes=2097152-2097152")]).status, 503);
    assert_eq!(node.get(&path).status, 503);
    assert_eq!(node.head(&path).status, 200);
    eventually("it is known to be missing", || damage(&node, "missing") == 1);
    node.server.kill();
    node.restart();
    assert_eq!(damage(&node, "missing"), 1, "for as long as nobody has it");
    assert_eq!(node.get(&path).status, 503);
    node.upload("again.bin", &bytes);
    eventually("it is here", || damage(&node, "missing") == 0);
    assert_eq!(node.get(&path).body, bytes);
}

/// Runs the command line's `scrub` at a node: its exit code, and what it printed.
fn scrub(node: &Node) -> (Option<i32>, serde_json::Value) {
    let output = Command::new(node_binary()).args(["scrub", "--json", "--node", &node.server.url]).output().unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn a_scrub_reads_everything_once_finds_what_rotted_behind_the_nodes_back_and_has_it_replaced() {
    let network = Network::of(2);
    let (large, small) = (noise(LARGE, 4), noise(3000, 5));
    let path = network.nodes[0].upload("large.bin", &large);
    network.nodes[1].upload("small.bin", &small);
    eventually("both hold both", || all_hold(&network.nodes, 2));
    let node = &network.nodes[1];
    let (code, said) = scrub(node);
    assert_eq!((code, said["scrub"]["bad"].as_u64()), (Some(0), Some(0)), "{said}");
    assert_eq!([&said["scrub"]["payloads"], &said["scrub"]["bytes"]], [2, LARGE + 3000]);
    // It runs, and has read everything; no reader would look again.
    flip(&payload_file(node), 1 << 20);
    let (code, said) = scrub(node);
    assert_eq!((code, said["scrub"]["bad"].as_u64()), (Some(0), Some(1)), "{said}");
    assert_eq!([&said["damage"]["found"], &said["damage"]["replaced"], &said["damage"]["missing"]], [1, 1, 0]);
    assert_eq!(metric(node, "gossip_cdn_scrub_bad"), 1);
    assert_eq!(node.get(&path).body, large);
    assert_eq!(scrub(node).1["scrub"]["bad"], 0);
}

#[test]
fn a_scrub_that_was_interrupted_goes_on_where_it_was() {
    let mut node = Node::start(&["--no-bootstrap", "--scrub-rate", "1KiB"]);
    // The pace is waited for behind the first of them, whichever that is.
    for seed in 0..3 {
        node.upload("large.bin", &noise(LARGE, 10 + 2 * seed));
    }
    assert_eq!(node.post_with("/scrub", &[], b"").status, 202);
    eventually("it is under way", || node.status()["scrub"]["bytes"].as_u64().unwrap() > 0);
    assert_eq!(node.status()["scrub"]["running"], true);
    let begun = node.status()["scrub"]["begun"].clone();
    node.server.kill();
    node.restart_with(&["--no-bootstrap"]);
    eventually("it has ended", || node.status()["scrub"]["running"] == false);
    let state = node.status()["scrub"].clone();
    assert_eq!([&state["begun"], &state["payloads"], &state["bad"]], [&begun, &serde_json::json!(3), &serde_json::json!(0)]);
}
