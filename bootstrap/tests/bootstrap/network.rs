//! Joining, renewing, dying, leaving, and what is shown of it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::{Bootstrap, Node};

fn introduced(answer: &Value) -> Vec<&str> {
    answer["b"]["members"].as_array().unwrap().iter().map(|member| member["id"].as_str().unwrap()).collect()
}

fn state(bootstrap: &Bootstrap, node: &Node) -> Option<String> {
    let member = bootstrap.members().into_iter().find(|member| member["id"] == node.id())?;
    Some(member["state"].as_str().unwrap().to_owned())
}

#[test]
fn nodes_that_join_are_told_of_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = Bootstrap::start(dir.path());
    let (one, two) = (Node::new(1), Node::new(2));
    let first = bootstrap.join(&one.claim());
    assert_eq!((first.status, first.header("content-type")), (200, "application/json"));
    assert_eq!(introduced(&first.json()), [""; 0], "nobody is there yet");
    let second = bootstrap.join(&two.claim()).json();
    assert_eq!(introduced(&second), [one.id()]);
    assert_eq!(second["b"]["members"][0], one.claim()["b"]["member"]);
    assert_eq!((&second["v"], &second["c"], &second["i"]), (&json!(1), &json!("gossip-cdn"), &json!(1)));
    assert!(second["n"].as_str().unwrap().parse::<gossip_cdn_protocol::NodeId>().is_ok());
    assert_eq!(introduced(&bootstrap.join(&one.claim()).json()), [two.id()], "a renewal tells too");
    let members = bootstrap.members();
    assert_eq!(members.len(), 2);
    assert!(members.iter().all(|member| member["state"] == "alive" && member["last_seen"].as_str().unwrap().ends_with('Z')));
}

#[test]
fn one_node_is_named_founder_and_nobody_else_after_a_kill_either() {
    let dir = tempfile::tempdir().unwrap();
    let asks = |bootstrap: &Bootstrap, number, may_found| {
        let mut claim = Node::new(number).claim();
        claim["b"]["may_found"] = json!(may_found);
        bootstrap.join(&claim).json()["b"]["founder"] == json!(true)
    };
    let bootstrap = Bootstrap::start(dir.path());
    assert!(!asks(&bootstrap, 1, false) && asks(&bootstrap, 2, true) && !asks(&bootstrap, 3, true));
    // A drop kills it.
    drop(bootstrap);
    let bootstrap = Bootstrap::start(dir.path());
    assert!(!asks(&bootstrap, 4, true) && asks(&bootstrap, 2, true), "the first may not have heard it");
}

#[test]
fn the_network_shows_what_nodes_have_and_who_exchanged_with_whom() {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = Bootstrap::start(dir.path());
    let (mut one, two, unknown) = (Node::new(1), Node::new(2), Node::new(3));
    one.exchanged = vec![two.id(), unknown.id()];
    bootstrap.join(&one.claim());
    bootstrap.join(&two.claim());
    let map = bootstrap.get("/network").json();
    let node = map["nodes"].as_array().unwrap().iter().find(|node| node["id"] == one.id()).unwrap();
    assert_eq!((&node["records"], &node["payload_bytes"], &node["incarnation"]), (&json!(3), &json!(4096), &json!(1)));
    assert_eq!((&node["version"], &node["blobs"], &node["wanted"], &node["messages"]), (&json!("1.2.3"), &json!(1), &json!(2), &json!(5)));
    assert_eq!((&node["state"], &node["address"]), (&json!("alive"), &json!(one.address())));
    assert_eq!(node["root"], format!("{:032x}.3", 7));
    let exchanges = map["exchanges"].as_array().unwrap();
    assert_eq!(exchanges.len(), 1, "an exchange with a node that nobody knows is not shown: {map}");
    assert_eq!((&exchanges[0]["from"], &exchanges[0]["to"]), (&json!(one.id()), &json!(two.id())));
}

#[test]
fn who_left_is_kept_as_left() {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = Bootstrap::start(dir.path());
    let mut node = Node::new(1);
    bootstrap.join(&node.claim());
    let renewal = node.claim();
    node.state = "left";
    assert_eq!(bootstrap.join(&node.claim()).status, 200);
    assert_eq!(state(&bootstrap, &node).as_deref(), Some("left"));
    let late = bootstrap.join(&renewal).json();
    assert_eq!(late["b"]["members"][0]["state"], "left", "it learns what is said of it");
    assert_eq!(state(&bootstrap, &node).as_deref(), Some("left"));
    (node.state, node.incarnation) = ("alive", 2);
    bootstrap.join(&node.claim());
    assert_eq!(state(&bootstrap, &node).as_deref(), Some("alive"));
}

#[test]
fn who_is_silent_for_fifteen_seconds_is_dead_and_who_renews_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = Bootstrap::start(dir.path());
    let (silent, renewing) = (Node::new(1), Node::new(2));
    let start = clock();
    bootstrap.join(&silent.claim());
    let silence = |since: Instant| since.elapsed() < Duration::from_secs(30);
    while state(&bootstrap, &silent).as_deref() == Some("alive") && silence(start) {
        bootstrap.join(&renewing.claim());
        // Not a wait for something to have happened by then, but the pace of the question.
        std::thread::sleep(Duration::from_millis(250));
    }
    assert!(start.elapsed() >= Duration::from_secs(15), "{:?}", start.elapsed());
    assert_eq!(state(&bootstrap, &silent).as_deref(), Some("dead"));
    assert_eq!(state(&bootstrap, &renewing).as_deref(), Some("alive"));
    let told = bootstrap.join(&renewing.claim()).json();
    assert_eq!(told["b"]["members"][0]["state"], "alive", "the word of the member, not our judgement");
    bootstrap.join(&silent.claim());
    assert_eq!(state(&bootstrap, &silent).as_deref(), Some("alive"), "it came back");
}

#[expect(clippy::disallowed_methods, reason = "a test measures how long the process took, by its own clock")]
fn clock() -> Instant {
    Instant::now()
}

#[test]
fn what_was_answered_survives_kill_9_with_the_identity() {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = Bootstrap::start(dir.path());
    let (one, mut two) = (Node::new(1), Node::new(2));
    let sender = bootstrap.join(&one.claim()).json()["n"].clone();
    two.state = "left";
    bootstrap.join(&two.claim());
    bootstrap.kill();
    let bootstrap = Bootstrap::start(dir.path());
    assert_eq!(state(&bootstrap, &one).as_deref(), Some("alive"));
    assert_eq!(state(&bootstrap, &two).as_deref(), Some("left"));
    assert_eq!(bootstrap.get("/network").json()["nodes"][0]["records"], Value::Null, "not said since the start");
    let answer = bootstrap.join(&Node::new(3).claim()).json();
    assert_eq!(answer["n"], sender);
    assert_eq!(introduced(&answer), [one.id(), two.id()], "the living first");
}

#[test]
fn many_at_once_are_all_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = Bootstrap::start(dir.path());
    std::thread::scope(|scope| {
        for part in 0..4 {
            let bootstrap = &bootstrap;
            scope.spawn(move || (1..=50).for_each(|number| assert_eq!(bootstrap.join(&Node::new(part * 50 + number).claim()).status, 200)));
        }
    });
    bootstrap.kill();
    assert_eq!(Bootstrap::start(dir.path()).members().len(), 200);
}
