//! Every row of the table of bad input: a clear problem, and nothing changed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use gossip_cdn_cluster::{Node, eventually, node_binary, noise, send_raw};

const UNKNOWN: &str = "/blobs/67e55044-10b1-426f-9247-bb680e5fe0c8";

#[test]
fn an_id_that_is_no_guid_is_400_and_says_what_a_guid_looks_like() {
    let node = Node::alone();
    for id in
        ["x", "67E55044-10B1-426F-9247-BB680E5FE0C8", "67e5504410b1426f9247bb680e5fe0c8", "%00", "67e55044-10b1-426f-9247-bb680e5fe0c8x"]
    {
        let path = format!("/blobs/{id}");
        for answer in [node.get(&path), node.put(&path, b"x"), node.delete(&path), node.get(&format!("{path}/versions"))] {
            let detail = answer.problem(400);
            assert!(detail.contains("67e55044-10b1-426f-9247-bb680e5fe0c8"), "{detail}");
        }
    }
}

#[test]
fn unknown_is_404_and_deleted_is_410_with_the_version_of_the_tombstone() {
    let node = Node::alone();
    for path in [UNKNOWN.to_owned(), format!("{UNKNOWN}/versions"), format!("{UNKNOWN}/holders"), "/nothing/here".to_owned()] {
        node.get(&path).problem(404);
    }
    node.delete(UNKNOWN).problem(404);
    assert_eq!(node.head(UNKNOWN).status, 404);
    let path = node.upload("a.txt", b"a");
    let deleted = node.delete(&path);
    assert_eq!(deleted.status, 204);
    let gone = node.get(&path);
    gone.problem(410);
    assert_eq!(gone.header("version"), deleted.header("version"));
    node.get(&format!("{path}?version=0198000000000000.{}", node.id())).problem(404);
    node.get(&format!("{path}?version=x")).problem(400);
}

#[test]
fn a_body_over_the_limit_is_413_before_it_is_read_where_its_length_is_known() {
    let node = Node::start(&["--no-bootstrap", "--max-blob", "1MiB"]);
    let head = format!("PUT /big.bin HTTP/1.1\r\nhost: {}\r\ncontent-length: 99999999\r\n\r\n", node.server.authority());
    assert!(send_raw(node.server.authority(), head.as_bytes()).starts_with("HTTP/1.1 413"), "not a byte of the body was sent");
    let mut stream = TcpStream::connect(node.server.authority()).unwrap();
    write!(stream, "PUT /big.bin HTTP/1.1\r\nhost: {}\r\ntransfer-encoding: chunked\r\n\r\n", node.server.authority()).unwrap();
    for _ in 0..40 {
        // The node may have closed its end already: that is what it is asked to do.
        let chunk = [format!("{:x}\r\n", 65536).into_bytes(), noise(65536, 1), b"\r\n".to_vec()].concat();
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    assert_eq!(node.put("/fits.bin", &noise(1 << 20, 1)).status, 201);
    assert_eq!(node.put("/over.bin", &noise((1 << 20) + 1, 1)).status, 413);
    assert_eq!(node.get("/blobs").json()["blobs"].as_array().unwrap().len(), 1);
}

#[test]
fn too_many_uploads_at_once_are_asked_to_come_back() {
    let node = Node::start(&["--no-bootstrap", "--max-uploads", "1"]);
    let mut slow = TcpStream::connect(node.server.authority()).unwrap();
    write!(slow, "PUT /slow.bin HTTP/1.1\r\nhost: {}\r\ncontent-length: 10\r\n\r\nhalf", node.server.authority()).unwrap();
    eventually("the slow upload takes the only place", || node.status()["uploads"] == 1);
    let refused = node.put("/second.bin", b"second");
    refused.problem(503);
    assert!(!refused.header("retry-after").is_empty());
    slow.write_all(b" done.").unwrap();
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 201");
    eventually("there is room again", || node.put("/third.bin", b"third").status == 201);
}

#[test]
fn a_body_that_stalls_is_408_and_leaves_nothing_behind() {
    let node = Node::alone();
    let start = Instant::now();
    let mut stream = TcpStream::connect(node.server.authority()).unwrap();
    write!(stream, "PUT /stalls.bin HTTP/1.1\r\nhost: {}\r\ncontent-length: 10\r\n\r\nhalf", node.server.authority()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(start.elapsed() >= Duration::from_secs(25), "it was given its time");
    assert_eq!(node.get("/blobs").json()["blobs"].as_array().unwrap().len(), 0);
}

#[test]
fn failed_preconditions_digests_and_ranges() {
    let node = Node::alone();
    let path = node.upload("a.txt", b"0123456789");
    let tag = node.get(&path).header("etag").to_owned();
    for (name, value) in [("if-match", "\"b3-00000000000000000000000000000000\""), ("if-none-match", "*"), ("if-none-match", &tag)] {
        let answer = node.put_with(&path, &[(name, value)], b"other");
        answer.problem(412);
        assert_eq!(answer.header("etag"), tag, "the winner is named");
    }
    node.put_with(UNKNOWN, &[("if-match", "*")], b"other").problem(412);
    for (name, value) in [
        ("content-digest", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"),
        ("repr-digest", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"),
    ] {
        node.put_with("/b.txt", &[(name, value)], b"other").problem(400);
        assert_eq!(node.put_with("/empty.txt", &[(name, value)], b"").status, 201, "the digest of nothing");
    }
    let unsatisfiable = node.get_with(&path, &[("range", "bytes=10-")]);
    unsatisfiable.problem(416);
    assert_eq!(unsatisfiable.header("content-range"), "bytes */10");
    assert_eq!(node.get_with(&path, &[("range", "lines=1-2")]).status, 200, "another unit is ignored");
    assert_eq!(node.get_with(&path, &[("range", "bytes=x")]).status, 200, "nonsense is ignored");
    assert_eq!(node.get(&path).body, b"0123456789");
}

#[test]
fn a_page_of_another_origin_can_neither_upload_nor_delete() {
    let node = Node::alone();
    let path = node.upload("a.txt", b"a");
    let origin = [("origin", "http://evil.example")];
    node.put_with("/b.txt", &origin, b"b").problem(403);
    node.post_with("/blobs", &[("origin", "http://evil.example"), ("content-type", "text/plain")], b"b").problem(403);
    gossip_cdn_cluster::send("DELETE", &node.url(&path), &origin, None).problem(403);
    assert_eq!(node.get_with(&path, &origin).status, 200, "reading is everybody's");
    assert_eq!(node.put_with("/b.txt", &[("origin", &node.server.url)], b"b").status, 201, "its own page may");

    let rebound = |method: &str, path: &str| {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 1\r\nconnection: close\r\n\r\nb");
        send_raw(node.server.authority(), request.as_bytes())
    };
    for (method, path) in [("PUT", "/c.txt"), ("DELETE", &path), ("GET", &path), ("GET", "/status"), ("POST", "/gossip/exchange")] {
        assert!(rebound(method, path).starts_with("HTTP/1.1 421"), "{method} {path}");
    }
    let allowed = Node::start(&["--no-bootstrap", "--allow-origin", "http://evil.example", "--host", "node.example"]);
    assert_eq!(allowed.put_with("/b.txt", &origin, b"b").status, 201);
    let named = format!("GET /healthz HTTP/1.1\r\nhost: node.example:{}\r\nconnection: close\r\n\r\n", 1);
    assert!(send_raw(allowed.server.authority(), named.as_bytes()).starts_with("HTTP/1.1 200"));
}

#[test]
fn without_the_write_token_nothing_is_written() {
    let folder = tempfile::TempDir::new().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "secret\n").unwrap();
    let node = Node::start(&["--no-bootstrap", "--write-token", token.to_str().unwrap()]);
    let answer = node.put("/a.txt", b"a");
    answer.problem(401);
    assert!(answer.header("www-authenticate").starts_with("Bearer"));
    node.put_with("/a.txt", &[("authorization", "Bearer wrong")], b"a").problem(401);
    node.delete(UNKNOWN).problem(401);
    node.delete(&format!("/members/{}", node.id())).problem(401);
    node.post_with("/members", &[("content-type", "application/json")], b"{\"address\":\"http://127.0.0.1:1\"}").problem(401);
    assert_eq!(node.put_with("/a.txt", &[("authorization", "Bearer secret")], b"a").status, 201);
    assert_eq!(node.get("/blobs").status, 200, "reading needs no token");
}

#[test]
fn the_frameworks_own_errors_are_problems_too() {
    let node = Node::alone();
    let patch = gossip_cdn_cluster::send("PATCH", &node.url("/blobs"), &[], Some(b"x"));
    patch.problem(405);
    assert!(patch.header("allow").contains("GET"), "{}", patch.header("allow"));
    node.get("/blobs?limit=x").problem(400);
    node.get("/blobs?after=nonsense").problem(400);
    node.get("/blobs?order=size").problem(400);
    let json = [("content-type", "application/json")];
    node.post_with("/members", &json, b"{").problem(400);
    node.post_with("/members", &json, b"{\"address\":\"nonsense\"}").problem(400);
    node.put("/a.txt?copies=x", b"a").problem(400);
    let request_id = node.get(UNKNOWN);
    assert_eq!(request_id.json()["request_id"], request_id.header("x-request-id"));
}

#[test]
fn an_address_to_meet_that_does_not_answer_is_202_and_one_of_another_cluster_409() {
    let node = Node::alone();
    let other = Node::start(&["--no-bootstrap", "--cluster", "other"]);
    let introduce = |address: &str| {
        let body = serde_json::json!({"address": address}).to_string();
        node.post_with("/members", &[("content-type", "application/json")], body.as_bytes())
    };
    assert_eq!(introduce("http://127.0.0.1:1").status, 202);
    assert!(introduce(&other.server.url).problem(409).contains("other"));
    let friend = Node::alone();
    let met = introduce(&friend.server.url);
    assert_eq!(met.status, 200);
    assert_eq!(met.json()["id"], friend.id());
}

/// Runs a node that must refuse to start: exit code 2, one sentence on stderr, nothing on stdout.
fn refusal(flags: &[&str]) -> String {
    gossip_cdn_cluster::refusal(Command::new(node_binary()).arg("node").args(flags))
}

#[test]
fn a_node_that_cannot_start_says_why_in_one_sentence_and_touches_nothing() {
    let node = Node::alone();
    let folder = tempfile::TempDir::new().unwrap();
    let elsewhere = folder.path().join("data");
    let data = |path: &std::path::Path| path.to_str().unwrap().to_owned();

    let busy = refusal(&["--listen", node.server.authority(), "--data", &data(&elsewhere), "--no-bootstrap"]);
    assert!(busy.contains(node.server.authority()) && busy.contains("--listen"), "{busy}");
    assert!(!elsewhere.exists(), "the folder was not made");

    let locked = refusal(&["--listen", "127.0.0.1:0", "--data", &data(&node.data), "--no-bootstrap"]);
    assert!(locked.contains("--data"), "{locked}");

    for flags in
        [["--max-blob", "0"], ["--max-uploads", "0"], ["--advertise", "ftp://x"], ["--cluster", ""], ["--write-token", "/does/not/exist"]]
    {
        let said = refusal(&[&flags[..], &["--listen", "127.0.0.1:0", "--data", &data(&elsewhere), "--no-bootstrap"]].concat());
        assert!(said.contains(flags[0]), "{said}");
        assert!(!elsewhere.exists());
    }

    let mut once = Node::start_in(&elsewhere, &["--no-bootstrap"]);
    assert!(once.server.terminate().success());
    let other = refusal(&["--listen", "127.0.0.1:0", "--data", &data(&elsewhere), "--no-bootstrap", "--cluster", "other"]);
    assert!(other.contains("--cluster"), "{other}");

    let card = elsewhere.join("store.json");
    let mut newer: serde_json::Value = serde_json::from_slice(&std::fs::read(&card).unwrap()).unwrap();
    newer["format"] = 99.into();
    let newer = newer.to_string();
    std::fs::write(&card, &newer).unwrap();
    let before = std::fs::read_dir(&elsewhere).unwrap().count();
    let said = refusal(&["--listen", "127.0.0.1:0", "--data", &data(&elsewhere), "--no-bootstrap"]);
    assert!(said.contains("99") && said.contains("newer release"), "{said}");
    assert_eq!(std::fs::read_to_string(&card).unwrap(), newer, "the folder is untouched");
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), before);
}
