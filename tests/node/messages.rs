//! The message history: what one node is told, every node delivers, once, in an order that makes sense.

use gossip_cdn_cluster::{Answer, Events, Node, Server, bootstrap, eventually};
use serde_json::Value;

/// A bootstrap node and nodes, the first of which founds a history; all of them vote.
fn founded(count: usize) -> (Vec<Node>, Server, tempfile::TempDir) {
    let (bootstrap, folder) = bootstrap();
    let founder = Node::start(&["--bootstrap", &bootstrap.url, "--found"]);
    let others = (1..count).map(|_| Node::joined(&bootstrap));
    let nodes: Vec<Node> = std::iter::once(founder).chain(others).collect();
    eventually("all of them vote", || nodes.iter().all(|node| voters(node) == count.min(7)));
    (nodes, bootstrap, folder)
}

fn voters(node: &Node) -> usize {
    node.status()["epoch"]["voters"].as_array().map_or(0, Vec::len)
}

fn say(node: &Node, text: &str, query: &str) -> Answer {
    node.post_with(&format!("/messages{query}"), &[("content-type", "text/plain")], text.as_bytes())
}

fn history(node: &Node) -> Vec<Value> {
    node.get("/messages?limit=1000").json()["messages"].as_array().cloned().unwrap_or_default()
}

fn bodies(node: &Node) -> Vec<String> {
    history(node).iter().filter_map(|message| Some(message["body"].as_str()?.to_owned())).collect()
}

#[test]
fn a_message_is_accepted_at_once_delivered_everywhere_and_numbered_alike() {
    let (nodes, _bootstrap, _folder) = founded(3);
    let causal = say(&nodes[0], "a question", "?wait=delivered");
    assert_eq!(causal.status, 201, "{}", causal.text());
    assert_eq!(causal.json()["status"], "delivered");
    eventually("the question is here", || bodies(&nodes[1]) == ["a question"]);
    assert_eq!(say(&nodes[1], "an answer", "").status, 202);
    let ordered = say(&nodes[2], "a decision", "?channel=ordered&wait=delivered");
    assert_eq!((ordered.status, ordered.json()["number"].as_u64()), (201, Some(1)), "{}", ordered.text());
    for node in &nodes {
        eventually("all three are here", || history(node).len() == 3);
        let bodies = bodies(node);
        let place = |body: &str| bodies.iter().position(|found| found == body).expect("delivered");
        assert!(place("a question") < place("an answer"), "{bodies:?}");
        let shown = node.get(&format!("/messages/{}", ordered.json()["id"].as_str().expect("named"))).json();
        assert_eq!((shown["number"].as_u64(), shown["body"].as_str()), (Some(1), Some("a decision")));
        assert_eq!(node.status()["history"]["messages"], 3);
    }
}

#[test]
fn without_a_majority_a_message_stays_pending_and_is_delivered_when_one_is_back() {
    let (mut nodes, _bootstrap, _folder) = founded(3);
    nodes[1].server.kill();
    nodes[2].server.kill();
    let said = say(&nodes[0], "patience", "?wait=delivered&timeout=0.5");
    assert_eq!((said.status, said.json()["status"].as_str()), (202, Some("pending")));
    assert_eq!(say(&nodes[0], "order", "?channel=ordered").status, 202);
    let pending = nodes[0].get("/messages?status=pending").json();
    assert_eq!(pending["messages"].as_array().map(Vec::len), Some(2), "{pending}");
    assert!(bodies(&nodes[0]).is_empty(), "no minority delivers");
    nodes[0].server.kill();
    nodes[0].restart();
    nodes[1].restart();
    for node in &nodes[..2] {
        eventually("both are delivered", || history(node).len() == 2);
    }
    nodes[2].restart();
    eventually("who was away has both and knows that nothing is missing", || {
        history(&nodes[2]).len() == 2 && nodes[2].status()["synchronised"] == true
    });
}

#[test]
fn a_newcomer_gets_the_whole_history_and_a_seat() {
    let (mut nodes, bootstrap, _folder) = founded(2);
    for n in 0..600 {
        let channel = if n % 2 == 0 { "?channel=ordered" } else { "" };
        assert_eq!(say(&nodes[n % 2], &n.to_string(), channel).status, 202);
    }
    nodes.push(Node::joined(&bootstrap));
    eventually("it has all", || history(&nodes[2]).len() == 600);
    eventually("it votes", || nodes[2].status()["epoch"]["role"] == "voter");
    let numbered = |node: &Node| -> Vec<(u64, String)> {
        let number = |message: &Value| Some((message["number"].as_u64()?, message["id"].as_str()?.to_owned()));
        history(node).iter().filter_map(number).collect()
    };
    for node in &nodes {
        eventually("all is delivered", || history(node).len() == 600);
        assert_eq!(numbered(node), numbered(&nodes[0]), "one order");
    }
}

#[test]
fn before_there_is_a_history_messages_are_kept_and_sent_when_one_is_founded() {
    let (bootstrap, _folder) = bootstrap();
    let early = Node::joined(&bootstrap);
    assert_eq!(say(&early, "early", "").status, 202);
    let status = early.status();
    assert_eq!((status["epoch"]["role"].as_str(), status["history"]["pending"].as_u64()), (Some("none"), Some(1)));
    let founder = Node::start(&["--bootstrap", &bootstrap.url, "--found"]);
    for node in [&early, &founder] {
        eventually("it is delivered", || bodies(node) == ["early"]);
    }
}

#[test]
fn a_reader_of_the_stream_misses_nothing_and_goes_on_where_it_was() {
    let (nodes, _bootstrap, _folder) = founded(1);
    say(&nodes[0], "before", "?wait=delivered");
    let mut all = Events::open(&nodes[0].server, "/messages/stream?after=0", None);
    let (first, body) = all.next("message");
    assert_eq!(body["body"], "before");
    say(&nodes[0], "after", "?wait=delivered");
    assert_eq!(all.next("message").1["body"], "after");
    drop(all);
    let mut again = Events::open(&nodes[0].server, "/messages/stream", Some(&first));
    assert_eq!(again.next("message").1["body"], "after", "it goes on behind the last event seen");
}

#[test]
fn what_is_wrong_is_said_and_changes_nothing() {
    let (nodes, _bootstrap, _folder) = founded(1);
    let node = &nodes[0];
    say(node, &"a".repeat((64 << 10) + 1), "").problem(413);
    assert_eq!(say(node, &"a".repeat(64 << 10), "").status, 202);
    let problem = node.post_with("/messages", &[("content-type", "text/plain")], b"\xff\xfe").problem(400);
    assert!(problem.contains("UTF-8"), "{problem}");
    assert!(say(node, "x", "?channel=fifo").problem(400).contains("causal or ordered"));
    say(node, "x", "?wait=forever").problem(400);
    say(node, "x", "?wait=delivered&timeout=-1").problem(400);
    let foreign = "1.53290693-da69-84b6-a0ea-0d38b50f5431";
    assert!(node.get(&format!("/messages?after={foreign}")).problem(400).contains("53290693"), "it names the node");
    node.get("/messages?after=x").problem(400);
    node.get("/messages/nothing").problem(400);
    node.get("/messages/c1.53290693-da69-84b6-a0ea-0d38b50f5431").problem(404);
    eventually("the one that was right is delivered", || history(node).len() == 1);
    let bytes = node.post_with("/messages?wait=delivered", &[("content-type", "image/png")], b"\xff\x00");
    let shown = node.get(&format!("/messages/{}", bytes.json()["id"].as_str().expect("named"))).json();
    assert_eq!((shown["encoding"].as_str(), shown["body"].as_str()), (Some("base64"), Some("/wA=")));
}
