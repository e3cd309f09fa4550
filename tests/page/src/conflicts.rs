//! Conflicts, seen and settled.

use std::time::Instant;

use gossip_cdn_cluster::{Node, PATIENCE, eventually};

use crate::browser::Browser;

#[test]
fn a_conflict_made_by_two_nodes_is_seen_at_both_and_settled_by_a_press() {
    let (one, two) = (Node::alone(), Node::alone());
    let path = "/blobs/67e55044-10b1-426f-9247-bb680e5fe0c8";
    for (node, text) in [(&one, "by one"), (&two, "by two")] {
        node.put_with(&format!("{path}?name=plan.txt"), &[("content-type", "text/plain")], text.as_bytes());
    }
    one.introduce(&two);
    let browser = Browser::at(&one.url("/#/conflicts"));
    browser.eventually("two versions, side by side", "document.querySelectorAll('.version').length === 2");
    browser.says(".conflict", "the greatest (stamp, origin) wins");
    browser.says("#views", "1");
    browser.says("pre", "by one");
    browser.says("pre", "by two");
    let there = Browser::at(&two.url("/#/conflicts"));
    there.says(".conflict .wins", &one.get(path).text());
    let winner = one.get(path).text();
    let loser = if winner == "by one" { "by two" } else { "by one" };
    browser.press("Make this the winner");
    browser.says("main", "No conflicts");
    there.says("main", "No conflicts");
    for node in [&one, &two] {
        eventually("the other one wins everywhere", || node.get(path).text() == loser);
        let versions = node.get(&format!("{path}/versions")).json();
        assert_eq!(versions["versions"].as_array().unwrap().len(), 1, "{versions}");
    }
    assert_eq!(one.get(path).header("content-type"), "text/plain", "with its type");
}

/// Two nodes with a conflict that both know.
fn quarrel() -> (Node, Node) {
    let (one, two) = (Node::alone(), Node::alone());
    for (node, text) in [(&one, "by one"), (&two, "by two")] {
        node.put_with("/blobs/67e55044-10b1-426f-9247-bb680e5fe0c8?name=plan.txt", &[("content-type", "text/plain")], text.as_bytes());
    }
    one.introduce(&two);
    eventually("they know of the conflict", || [&one, &two].iter().all(|node| node.status()["conflicts"] == 1));
    (one, two)
}

#[test]
fn conflicts_are_drawn_while_hints_come_faster_than_answers() {
    let (node, _other) = quarrel();
    let browser = Browser::at(&node.url("/#/network"));
    browser.says("h1", "Network");
    // Two answers after each other, as one drawing needs them, take longer than the pause between two hints.
    browser.js(
        "const real = window.fetch; window.fetch = (...all) => new Promise((go) => setTimeout(go, 1500)).then(() => real(...all)); location.hash = '#/conflicts';",
        vec![],
    );
    let start = Instant::now();
    while browser.count(".version") != 2 {
        assert!(start.elapsed() < PATIENCE, "not drawn while others write");
        node.put("/written-meanwhile", b"x");
    }
}

#[test]
fn a_conflict_that_stays_is_not_drawn_anew() {
    let (node, other) = quarrel();
    let browser = Browser::at(&node.url("/#/conflicts"));
    browser.eventually("it is drawn", "document.querySelectorAll('.conflict').length === 1");
    browser.js("window.first = document.querySelector('.conflict'); first.querySelector('button').focus();", vec![]);
    let path = "/blobs/77e55044-10b1-426f-9247-bb680e5fe0c8";
    // While one cannot hear of the other's, each writes the same blob.
    let third = Node::alone();
    for (node, text) in [(&node, "also by one"), (&third, "by three")] {
        assert_eq!(node.put_with(&format!("{path}?name=photo.png"), &[("content-type", "image/png")], text.as_bytes()).status, 201);
    }
    other.introduce(&third);
    browser.eventually("the second stands beside it", "document.querySelectorAll('.conflict').length === 2");
    assert_eq!(browser.js("return first.isConnected && first.contains(document.activeElement)", vec![]), true);
    assert_eq!(browser.count(".version img[loading=lazy]"), 2, "pictures wait until they come into sight");
}
