//! The message history: what one node is told, every node delivers, once, in an order that makes sense.

use std::time::Duration;

use gossip_cdn_cluster::{Answer, Events, Node, Server, bootstrap, eventually};
use serde_json::Value;

/// A bootstrap node and nodes, the first of which it names founder of a history; all of them vote.
fn founded(count: usize) -> (Vec<Node>, Server, tempfile::TempDir) {
    let (bootstrap, folder) = bootstrap();
    let founder = Node::joined(&bootstrap);
    eventually("it is named and founds", || voters(&founder) == 1);
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
fn who_was_answered_reads_the_message_at_once_as_delivered() {
    let (nodes, _bootstrap, _folder) = founded(3);
    for n in 0..150 {
        let node = &nodes[n % 3];
        let said = say(node, "a decision", "?channel=ordered&wait=delivered").json();
        let (shown, last) = match n % 2 {
            0 => (node.get(&format!("/messages/{}", said["id"].as_str().expect("named"))).json(), None),
            _ => (history(node).pop().expect("it is there"), Some(n + 1)),
        };
        for field in ["id", "status", "slot", "number"] {
            assert_eq!(shown[field], said[field], "{n}: {shown}");
        }
        assert!(said["status"] == "delivered" && last.is_none_or(|last| said["number"] == last), "{said}");
    }
}

#[test]
fn without_a_majority_a_message_stays_pending_and_is_delivered_when_one_is_back() {
    let (mut nodes, _bootstrap, _folder) = founded(3);
    nodes[1].server.kill();
    nodes[2].server.kill();
    // In this order: what comes after a pending one cannot even be tried.
    assert_eq!(say(&nodes[0], "order", "?channel=ordered").status, 202);
    let said = say(&nodes[0], "patience", "?wait=delivered&timeout=0.5");
    assert_eq!((said.status, said.json()["status"].as_str()), (202, Some("pending")));
    let waits = |node: &Node| {
        let shown = pending(node);
        assert_eq!(shown.len(), 2, "{shown:?}");
        for message in shown {
            assert!(message["status"] == "pending" && message["number"].is_null() && message["delivered"].is_null(), "{message}");
            let path = format!("/messages/{}", message["id"].as_str().expect("named"));
            assert_eq!(node.get(&path).json()["status"], "pending");
        }
        let status = node.status();
        assert_eq!(status["history"]["pending"], 2, "{status}");
    };
    let ballots = |node: &Node| node.status()["transaction"]["signals"]["RollbackSent"].as_u64().unwrap_or_default();
    eventually("it has tried to order it, and given up", || ballots(&nodes[0]) >= 2);
    waits(&nodes[0]);
    nodes[0].server.kill();
    nodes[0].restart();
    // From now on it does not even try, before a majority told it what it may have forgotten.
    waits(&nodes[0]);
    assert_eq!(nodes[0].status()["synchronised"], false);
    assert!(bodies(&nodes[0]).is_empty(), "no minority delivers");
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
fn the_status_shows_what_is_under_way_and_how_often_each_signal_came() {
    let (mut nodes, _bootstrap, _folder) = founded(3);
    nodes[1..].iter_mut().for_each(|node| node.server.kill());
    let state = |node: &Node| node.status()["transaction"]["state"].as_str().map(ToOwned::to_owned);
    assert_eq!(say(&nodes[0], "decided by two", "?channel=ordered").status, 202);
    eventually("it has started and awaits confirmations", || state(&nodes[0]).as_deref() == Some("StartedTransaction"));
    assert_eq!(nodes[0].status()["transaction"]["participant"], "Connected", "each part that it can have is shown");
    nodes[1].restart();
    for node in &nodes[..2] {
        eventually("it is delivered", || bodies(node) == ["decided by two"]);
        eventually("nothing is under way", || state(node).as_deref() == Some("Connected"));
    }
    for node in &nodes[..2] {
        let since = || node.status()["transaction"]["since"].as_str().map(ToOwned::to_owned).expect("a time");
        let sent = history(node)[0]["sent"].as_str().map(ToOwned::to_owned).expect("a time");
        // Both as RFC 3339 has them, in UTC and to the millisecond: their order is that of their letters.
        assert!(since().len() == sent.len() && since() > sent, "{} is behind {sent}", since());
        eventually("it stays what it is while the state is the same", || since() == since());
    }
    let coordinated = ["IncomingMessageArrived", "StartTransactionSent", "UpdateRemoteNodes", "CommitSent"];
    let followed = ["StartTransactionReceived", "UpdateReceived", "CommitReceived"];
    // Either may have seen it through. The second counts from its new start, the first has changed epochs before.
    let second = nodes[1].status()["transaction"]["signals"]["CommitSent"].as_u64() > Some(0);
    let (one, other) = if second { (&nodes[1], &nodes[0]) } else { (&nodes[0], &nodes[1]) };
    for (node, signals) in [(one, &coordinated[..]), (other, &followed[..])] {
        let shown = &node.status()["transaction"]["signals"];
        assert_eq!(shown.as_object().map(serde_json::Map::len), Some(14), "each has its count: {shown}");
        assert!(signals.iter().all(|signal| shown[signal].as_u64() > Some(0)), "{signals:?}: {shown}");
    }
}

/// What a node knows and has not delivered.
fn pending(node: &Node) -> Vec<Value> {
    node.get("/messages?status=pending").json()["messages"].as_array().cloned().unwrap_or_default()
}

#[test]
fn an_ordered_message_of_another_node_is_shown_as_pending_too() {
    let (mut nodes, _bootstrap, _folder) = founded(5);
    assert_eq!(say(&nodes[0], "first", "?channel=ordered&wait=delivered").status, 201);
    let coordinator = nodes[0].status()["epoch"]["coordinator"].as_str().expect("one coordinates").to_owned();
    nodes.sort_by_key(|node| node.id() != coordinator);
    nodes[2..].iter_mut().for_each(|node| node.server.kill());
    let said = say(&nodes[1], "waits", "?channel=ordered").json();
    let id = said["id"].as_str().expect("named");
    eventually("it was handed over", || pending(&nodes[0]).iter().any(|message| message["id"] == id && message["body"] == "waits"));
    let path = format!("/messages/{id}");
    assert_eq!(nodes[0].get(&path).json()["status"], "pending", "a node that has it in memory only shows it");
    assert_eq!(pending(&nodes[1]).len(), 1);
    nodes[2].restart();
    for node in &nodes[..3] {
        eventually("it is delivered", || node.get(&path).json()["number"] == 2);
        eventually("nothing is pending", || pending(node).is_empty());
    }
}

#[test]
fn pending_messages_are_listed_in_pages() {
    let node = Node::alone();
    let said: Vec<String> = (0..7).map(|n| say(&node, &n.to_string(), "").json()["id"].as_str().expect("named").to_owned()).collect();
    let (mut listed, mut after) = (Vec::new(), String::new());
    loop {
        let page = node.get(&format!("/messages?status=pending&limit=3{after}")).json();
        let ids: Vec<String> =
            page["messages"].as_array().expect("a list").iter().filter_map(|message| Some(message["id"].as_str()?.to_owned())).collect();
        assert!(ids.len() <= 3);
        listed.extend(ids);
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(listed, said);
    node.get("/messages?status=pending&after=x").problem(400);
    node.get("/messages?status=lost").problem(400);
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
    let early = Node::alone();
    assert_eq!(say(&early, "early", "").status, 202);
    let status = early.status();
    assert_eq!((status["epoch"]["role"].as_str(), status["history"]["pending"].as_u64()), (Some("none"), Some(1)));
    let founder = Node::start(&["--no-bootstrap", "--found"]);
    early.introduce(&founder);
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

/// Delivers more than all buffers between a node and a reader hold; the bodies.
fn say_much(node: &Node) -> Vec<String> {
    let bodies: Vec<String> = (0..300).map(|n| format!("{n:05}{}", "x".repeat(60 << 10))).collect();
    for body in &bodies {
        assert_eq!(say(node, body, "").status, 202);
    }
    eventually("all are delivered", || node.status()["history"]["messages"] == 300);
    bodies
}

#[test]
fn a_reader_of_the_stream_that_stands_still_reads_why_it_is_dropped_and_goes_on_where_it_was() {
    let (nodes, _bootstrap, _folder) = founded(1);
    let node = &nodes[0];
    let bodies = say_much(node);
    let lazy = Events::open(&node.server, "/messages/stream?after=0", None);
    // Longer than a reader may stand still, and less than until its connection is cut.
    std::thread::sleep(Duration::from_secs(15));
    let text = lazy.end();
    assert!(text.ends_with("0\r\n\r\n"), "it is ended, not cut");
    let data = |text: &str| -> Vec<String> {
        let messages = text.lines().filter_map(|line| line.strip_prefix("data: {")).map(|data| format!("{{{data}"));
        messages.map(|data| serde_json::from_str::<Value>(&data).expect("JSON")["body"].as_str().expect("text").to_owned()).collect()
    };
    let mut read = data(&text);
    assert!(!read.is_empty() && read.len() < bodies.len(), "it was sent what was on its way: {}", read.len());
    let (rest, dropped) = text.rsplit_once("event: dropped\ndata: ").expect("it is told");
    let last = rest.rsplit_once("id: ").expect("with where to go on").1.trim();
    assert!(dropped.starts_with("You took nothing for 1") && dropped.contains(&format!("Last-Event-ID: {last}.")), "{dropped}");
    let mut again = Events::open(&node.server, "/messages/stream", Some(last));
    while read.len() < bodies.len() {
        read.push(again.next("message").1["body"].as_str().expect("text").to_owned());
    }
    assert!(read == bodies, "nothing is missing and nothing came twice");
}

#[test]
fn a_reader_of_the_stream_that_takes_nothing_is_cut_and_goes_on_where_it_was() {
    let (nodes, _bootstrap, _folder) = founded(1);
    let node = &nodes[0];
    let bodies = say_much(node);
    let mut lazy = Events::open(&node.server, "/messages/stream?after=0", None);
    let mut last = lazy.next("message").0;
    let start = std::time::Instant::now();
    while lazy.is_open_at_the_server() {
        assert!(start.elapsed() < Duration::from_secs(90), "the connection is still open");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(start.elapsed() >= Duration::from_secs(25), "it was given its time: {:?}", start.elapsed());
    let mut again = Events::open(&node.server, "/messages/stream", Some(&last));
    for body in &bodies[1..] {
        let (id, shown) = again.next("message");
        assert_eq!(shown["body"].as_str(), Some(body.as_str()), "the next one, each once");
        last = id;
    }
    assert!(last.starts_with("300."), "{last}");
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
    for (query, last) in [(format!("?after={foreign}"), None), (String::new(), Some(foreign))] {
        let headers: Vec<(&str, &str)> = last.map(|last| ("last-event-id", last)).into_iter().collect();
        let detail = node.get_with(&format!("/messages/stream{query}"), &headers).problem(400);
        assert!(detail.contains("53290693") && detail.contains(node.id()), "it names both nodes: {detail}");
    }
    let json = node.post_with("/messages", &[("content-type", "application/json")], b"{\"a\": \xff}").problem(400);
    assert!(json.contains("UTF-8"), "{json}");
    say(node, "x", "?status=new&channel=").problem(400);
    let head = format!("POST /messages HTTP/1.1\r\nhost: {}\r\ncontent-length: 99999999\r\n\r\n", node.server.authority());
    assert!(gossip_cdn_cluster::send_raw(node.server.authority(), head.as_bytes()).starts_with("HTTP/1.1 413"), "before it is read");
    node.get("/messages/nothing").problem(400);
    node.get("/messages/c1.53290693-da69-84b6-a0ea-0d38b50f5431").problem(404);
    eventually("the one that was right is delivered", || history(node).len() == 1);
    let bytes = node.post_with("/messages?wait=delivered", &[("content-type", "image/png")], b"\xff\x00");
    let shown = node.get(&format!("/messages/{}", bytes.json()["id"].as_str().expect("named"))).json();
    assert_eq!((shown["encoding"].as_str(), shown["body"].as_str()), (Some("base64"), Some("/wA=")));
}
