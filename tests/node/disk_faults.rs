//! A disk that is full, nearly or to the last byte, on a file system that the test makes.

use std::io::Write as _;

use gossip_cdn_cluster::{Node, Start, eventually, noise};

const MIB: usize = 1 << 20;

/// A node on a disk of that size.
fn on_small_disk(folder: &tempfile::TempDir, size: &str, flags: &[&str]) -> Node {
    let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    Node::start_as(&folder.path().join("data"), Start { flags, disk: Some(size.to_owned()), ..Start::default() })
}

/// Uploads of that size until one is refused; the paths of those that were not.
fn fill(node: &Node, size: usize) -> Vec<(String, Vec<u8>)> {
    let mut stored = Vec::new();
    for seed in 1.. {
        let bytes = noise(size, seed);
        let answer = node.put("/filling.bin", &bytes);
        if answer.status != 201 {
            answer.problem(507);
            return stored;
        }
        stored.push((answer.header("location").strip_prefix(&node.server.url).unwrap().to_owned(), bytes));
    }
    unreachable!("a disk ends")
}

fn check(node: &Node, stored: &[(String, Vec<u8>)]) {
    for (path, bytes) in stored {
        let answer = node.get(path);
        assert!(answer.status == 200 && answer.body == *bytes, "{path} {}", answer.status);
    }
}

fn is_known(node: &Node, path: &str) -> bool {
    node.get(&format!("{path}/versions")).status == 200
}

#[test]
fn a_disk_at_its_reserve_refuses_uploads_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let node = on_small_disk(&folder, "48m", &["--no-bootstrap", "--reserve", "16MiB"]);
    let other = Node::alone();
    node.introduce(&other);
    let mut stored = fill(&node, 3 * MIB);
    assert!(stored.len() >= 2, "{}", stored.len());
    check(&node, &stored);
    assert_eq!(node.get("/healthz").text(), "ok\n");
    // Records go both ways, and a delete goes on.
    let heard = other.upload("elsewhere.txt", b"elsewhere");
    eventually("a record is heard of", || is_known(&node, &heard));
    for (path, bytes) in &stored {
        eventually("a blob is at the other node", || other.get(path).body == *bytes);
    }
    let freed = 2;
    for (path, _) in stored.drain(..freed) {
        assert_eq!(node.delete(&path).status, 204);
        eventually("a delete is heard of", || other.get(&path).status == 410);
    }
    eventually("an upload is taken again", || node.put("/again.bin", &noise(3 * MIB, 99)).status == 201);
    check(&node, &stored);
    assert_eq!(
        node.get("/metrics").text().lines().find(|line| line.starts_with("gossip_cdn_store_faults_total")),
        Some("gossip_cdn_store_faults_total 0")
    );
}

/// A node whose disk is filled behind its back fails in its next commit that needs room, is read on, and goes on by itself.
fn heals(is_journal_there: bool) {
    let folder = tempfile::tempdir().unwrap();
    let mut node = on_small_disk(&folder, "40m", &["--no-bootstrap", "--found", "--reserve", "4MiB"]);
    let mut stored = vec![(node.upload("a.bin", &noise(2 * MIB, 1)), noise(2 * MIB, 1)), (node.upload("b.txt", b"b"), b"b".to_vec())];
    let say = |node: &Node| node.post_with("/messages", &[("content-type", "text/plain")], &vec![b'a'; 60_000]);
    let mut said = Vec::new();
    if is_journal_there {
        said.push(say(&node).json()["id"].as_str().unwrap().to_owned());
    }
    let ballast = node.folder().join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    let refused = loop {
        let answer = say(&node);
        if answer.status >= 400 {
            break answer;
        }
        said.push(answer.json()["id"].as_str().unwrap().to_owned());
        assert!(said.len() < 1000, "a message needs room at last");
    };
    refused.problem(503);
    assert!(!refused.header("retry-after").is_empty());
    // It lives, says what ails it, and what is here is read.
    node.get("/readyz").problem(503);
    let health = node.get("/healthz");
    assert!(health.status == 200 && health.text().starts_with("ailing: ") && health.text().contains("space"), "{}", health.text());
    eventually("what is here is read", || node.get(&stored[0].0).status == 200);
    check(&node, &stored);
    node.put("/c.txt", b"c").problem(507);
    node.delete(&stored[1].0).problem(503);
    let metrics = node.get("/metrics").text();
    assert!(metrics.contains("gossip_cdn_store_ailing 1") && metrics.contains("gossip_cdn_store_faults_total 1"), "{metrics}");

    drop(file);
    std::fs::remove_file(&ballast).unwrap();
    eventually("it can be written again", || node.get("/readyz").status == 200);
    assert_eq!(node.get("/healthz").text(), "ok\n");
    stored.push((node.upload("c.txt", b"c"), b"c".to_vec()));
    assert!(say(&node).status < 300);
    check(&node, &stored);
    for id in &said {
        eventually("a message that was taken is there", || node.get(&format!("/messages/{id}")).status == 200);
    }
    assert!(node.server.terminate().success());
}

#[test]
fn a_disk_that_is_full_in_a_commit_is_written_again_when_there_is_room() {
    heals(true);
}

#[test]
fn a_disk_that_is_full_at_the_first_message_is_written_again_when_there_is_room() {
    heals(false);
}
