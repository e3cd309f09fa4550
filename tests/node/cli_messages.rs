//! `say`, `history` and `adopt-history`, as a person or a script calls them, against real nodes.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command};
use std::sync::mpsc::{Receiver, channel};

use gossip_cdn_cluster::{Node, PATIENCE, eventually};
use serde_json::Value;

use crate::cli::{at, command, feed, run};

const UNKNOWN: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

/// A node that founds a history.
fn founder() -> Node {
    let node = Node::start(&["--no-bootstrap", "--found"]);
    eventually("the history is on disk: until then no message is taken", || node.status()["epoch"]["role"] == "voter");
    node
}

/// A command that goes on, and the lines it prints.
struct Going {
    child: Child,
    lines: Receiver<String>,
}

impl Going {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let out = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let lines: Lines<BufReader<ChildStdout>> = BufReader::new(out).lines();
            lines.map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line comes")
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn what_is_said_is_in_the_history_with_its_number() {
    let node = founder();
    let id = run(at(&node), &["say", "hello", "--wait"]).expect(0).text().trim().to_owned();
    assert_eq!(id, format!("c1.{}", node.id()));
    let decided = run(at(&node), &["say", "decided", "--ordered", "--wait", "20", "--json"]).expect(0).json();
    assert_eq!((decided["status"].as_str(), decided["number"].as_u64()), (Some("delivered"), Some(1)));
    feed(at(&node), &["say", "-", "--type", "application/json", "--wait"], b"{\"a\": 1}").expect(0);
    let ended = run(at(&node), &["history"]).expect(0);
    let lines = ended.lines();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].ends_with("  hello") && lines[1].ends_with("  #1 decided") && lines[2].ends_with("  {\"a\": 1}"), "{lines:?}");
    let json = run(at(&node), &["history", "--json"]).expect(0);
    let first: Value = serde_json::from_str(json.lines()[0]).unwrap();
    let after = run(at(&node), &["history", "--after", first["cursor"].as_str().unwrap()]).expect(0);
    assert_eq!(after.lines(), lines[1..]);
}

#[test]
fn what_cannot_be_said_is_refused_with_a_reason() {
    let node = founder();
    let large = feed(at(&node), &["say", "-"], &"a".repeat((64 << 10) + 1).into_bytes()).expect(1);
    assert!(large.lines().is_empty());
    feed(at(&node), &["say", "-"], b"\xff\xfe").expect(1);
    feed(at(&node), &["say", "-", "--type", "application/octet-stream", "--wait"], b"\xff\xfe").expect(0);
    run(at(&node), &["history", "--after", "nonsense"]).expect(1);
    run(at(&node), &["history", "--follow", "--pending"]).expect(2);
    run("http://127.0.0.1:1", &["say", "nobody hears"]).expect(5);
    let ended = run(at(&node), &["history"]).expect(0);
    let lines = ended.lines();
    assert!(lines.len() == 1 && lines[0].ends_with("(application/octet-stream in base64) //4="), "{lines:?}");
}

#[test]
fn what_waits_is_shown_as_pending_and_who_waits_is_told() {
    let early = Node::alone();
    let id = run(at(&early), &["say", "early"]).expect(0).text().trim().to_owned();
    let said = run(at(&early), &["say", "no majority", "--ordered", "--wait", "0.2", "--json"]).expect(0).json();
    assert_eq!(said["status"], "pending");
    assert!(run(at(&early), &["history"]).expect(0).lines().is_empty());
    let ended = run(at(&early), &["history", "--pending", "--json"]).expect(0);
    let pending: Vec<Value> = ended.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(pending.len(), 2, "{pending:?}");
    assert!(pending[0]["id"] == id.as_str() && pending[0]["body"] == "early" && pending[0]["status"] == "pending", "{pending:?}");
    let founder = Node::start(&["--no-bootstrap", "--found"]);
    early.introduce(&founder);
    eventually("both are delivered", || run(at(&early), &["history"]).expect(0).lines().len() == 2);
    assert!(run(at(&early), &["history", "--pending"]).expect(0).lines().is_empty());
}

#[test]
fn who_follows_sees_everything_once_though_the_node_dies() {
    let mut node = founder();
    run(at(&node), &["say", "before", "--wait"]).expect(0);
    let following = Going::start(command(at(&node), &["history", "--follow"]));
    assert!(following.line().ends_with("  before"));
    run(at(&node), &["say", "while", "--wait"]).expect(0);
    assert!(following.line().ends_with("  while"));
    node.server.kill();
    node.restart();
    for text in ["after", "and on"] {
        run(at(&node), &["say", text, "--ordered", "--wait"]).expect(0);
    }
    assert!(following.line().ends_with("  #1 after"));
    assert!(following.line().ends_with("  #2 and on"));
}

#[test]
fn a_node_adopts_the_history_of_another_one() {
    let (one, other) = (founder(), founder());
    run(at(&one), &["say", "of one", "--wait"]).expect(0);
    run(at(&other), &["say", "of the other", "--wait"]).expect(0);
    run(at(&one), &["adopt-history", UNKNOWN]).expect(3);
    run(at(&one), &["adopt-history", "nonsense"]).expect(2);
    one.introduce(&other);
    let history = |node: &Node| node.status()["epoch"]["history"].as_str().unwrap_or_default().to_owned();
    let (left, adopted) = (history(&one), history(&other));
    let apart =
        |node: &Node, id: &str| node.status()["history"]["apart"].as_array().is_some_and(|apart| apart.iter().any(|found| *found == id));
    eventually("each sees that the other's history is another", || apart(&one, &adopted) && apart(&other, &left));
    run(at(&one), &["adopt-history", &adopted]).expect(0);
    assert_eq!(history(&one), adopted);
    eventually("it has the other's history", || {
        let shown = run(at(&one), &["history"]).expect(0);
        shown.lines().len() == 1 && shown.lines()[0].ends_with("  of the other")
    });
    assert_eq!(one.status()["history"]["set_aside"][0], left.as_str());
    run(at(&one), &["adopt-history", &left]).expect(4);
    run(at(&one), &["say", "of both", "--ordered", "--wait", "30"]).expect(0);
    eventually("what is said then is delivered by both", || run(at(&other), &["history"]).expect(0).lines().len() == 2);
}
