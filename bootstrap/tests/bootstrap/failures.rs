//! What is refused, and how.

use std::process::Output;

use serde_json::{Value, json};

use crate::process::{Answer, Bootstrap, Node, run};

fn with(path: &str, value: Value) -> Value {
    let mut claim = Node::new(1).claim();
    *claim.pointer_mut(path).unwrap() = value;
    claim
}

fn refused(answer: &Answer, bootstrap: &Bootstrap) -> (u16, String) {
    assert!(bootstrap.members().is_empty(), "a refused claim changes nothing: {answer:?}");
    (answer.status, answer.problem())
}

#[test]
fn a_message_of_another_cluster_or_version_is_refused_as_that_whatever_its_body() {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = Bootstrap::start(dir.path());
    for body in [json!({"anything": true}), Node::new(1).claim()["b"].clone()] {
        let mut other = with("/c", json!("other"));
        other["b"] = body.clone();
        let answer = bootstrap.join(&other);
        assert_eq!(refused(&answer, &bootstrap), (409, "cluster".to_owned()));
        assert!(answer.json()["detail"].as_str().unwrap().contains("--cluster \"gossip-cdn\""));
        let mut unknown = with("/v", json!(2));
        unknown["b"] = body;
        let answer = bootstrap.join(&unknown);
        assert_eq!(refused(&answer, &bootstrap), (426, "version".to_owned()));
        assert_eq!(answer.header("upgrade"), "gossip-cdn/1");
    }
}

#[test]
fn what_is_no_join_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = Bootstrap::start(dir.path());
    let other = Node::new(2);
    for junk in ["", "junk", "{", "[]", "null", "{\"v\":1}", "\u{0}", "{\"v\":-1,\"c\":\"gossip-cdn\"}"] {
        assert_eq!(refused(&bootstrap.post("/join", "application/json", junk), &bootstrap), (400, "malformed".to_owned()), "{junk}");
    }
    let too_many: Vec<String> = (0..1025_u32).map(|number| format!("67e55044-10b1-826f-9247-bb68{number:08x}")).collect();
    for claim in [
        with("/b", json!({})),
        with("/n", json!(other.id())),
        with("/i", json!(7)),
        with("/b/member/id", json!(other.id())),
        with("/b/member/key", json!("00")),
        with("/b/member/address", json!("http://127.0.0.1:7701/path")),
        with("/b/member/address", json!("javascript:alert(1)")),
        with("/b/member/address", json!(format!("http://{}", "x".repeat(300)))),
        with("/b/member/state", json!("dead")),
        with("/b/member/state", json!("suspect")),
        with("/b/member/state", json!("happy")),
        with("/b/records", json!(-1)),
        with("/b/root", json!("é")),
        with("/b/program/version", json!("<b>1</b> \u{202e}")),
        with("/b/program/version", json!("1".repeat(33))),
        with("/b/exchanged", json!(["x"])),
        with("/b/exchanged", json!(too_many)),
    ] {
        assert_eq!(refused(&bootstrap.join(&claim), &bootstrap), (400, "malformed".to_owned()), "{claim}");
    }
}

#[test]
fn what_is_too_large_or_no_json_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = Bootstrap::start(dir.path());
    let claim = Node::new(1).claim().to_string();
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
        assert_eq!(refused(&bootstrap.post("/join", media_type, &claim), &bootstrap), (415, "media-type".to_owned()), "{media_type}");
    }
    let large = " ".repeat(65_537);
    assert_eq!(refused(&bootstrap.post("/join", "application/json", &large), &bootstrap), (413, "too-large".to_owned()));
    assert_eq!(bootstrap.post("/join", "application/json; charset=utf-8", &claim).status, 200);
}

#[test]
fn a_wrong_path_or_method_is_a_problem_too() {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = Bootstrap::start(dir.path());
    let missing = bootstrap.get("/nothing");
    assert_eq!((missing.status, missing.problem().as_str()), (404, "not-found"));
    let wrong = bootstrap.get("/join");
    assert_eq!((wrong.status, wrong.header("allow"), wrong.problem().as_str()), (405, "POST", "method-not-allowed"));
    let wrong = bootstrap.post("/members", "text/plain", "x");
    assert_eq!((wrong.status, wrong.header("allow"), wrong.problem().as_str()), (405, "GET, HEAD", "method-not-allowed"));
    let missing = bootstrap.head("/nothing");
    assert_eq!((missing.status, missing.text.as_str()), (404, ""));
}

#[test]
fn another_host_or_origin_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = Bootstrap::start_with(&["--host", "boot.example"], dir.path());
    let status = |host: &str| bootstrap.raw(&format!("GET /members HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
    for host in ["127.0.0.1", "localhost:7700", "[::1]", "boot.example", "BOOT.EXAMPLE:80"] {
        assert!(status(host).starts_with("HTTP/1.1 200 "), "{host}");
    }
    for host in ["evil.example", "127.0.0.1.evil.example", "boot.example.evil"] {
        let answer = status(host);
        assert!(answer.starts_with("HTTP/1.1 421 ") && answer.contains("urn:gossip-cdn:problem:host"), "{answer}");
    }
    let none = bootstrap.raw("GET /members HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert!(none.starts_with("HTTP/1.1 400 "), "{none}");
    let claim = Node::new(1).claim().to_string();
    let forged = bootstrap.raw(&format!(
        "POST /join HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://evil.example\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{claim}",
        claim.len()
    ));
    assert!(forged.starts_with("HTTP/1.1 403 "), "{forged}");
    assert!(bootstrap.members().is_empty());
}

/// Exit code 2 and one sentence that names the flag.
fn usage(output: &Output, flag: &str) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(output.stdout.is_empty());
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with(&format!("gossip-cdn-bootstrap: {flag}")), "{text}");
    text
}

#[test]
fn what_cannot_start_ends_with_2_and_one_sentence() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bootstrap = Bootstrap::start(dir.path());
    let address = bootstrap.address.to_string();
    let text = usage(&run(&["--listen", &address], &other.path().join("unborn")), "--listen: ");
    assert!(text.contains(&address) && text.contains("another process listens there") && text.contains("port 0"), "{text}");
    assert!(!other.path().join("unborn").exists(), "the folder is untouched");
    usage(&run(&["--listen", "127.0.0.1:0"], dir.path()), "--data ");
    usage(&run(&["--listen", "127.0.0.1:0", "--log", "gossip=loud"], other.path()), "--log: ");
    bootstrap.kill();
    let text = usage(&run(&["--listen", "127.0.0.1:0", "--cluster", "other"], dir.path()), "--data ");
    assert!(text.contains("--cluster \"gossip-cdn\""), "{text}");
    assert_eq!(run(&["--listen", "nowhere"], dir.path()).status.code(), Some(2));
}
