//! A member that will not come back is forgotten by a person's word, and only then.

use std::process::Command;

use gossip_cdn_cluster::{Network, Node, alive, eventually, node_binary};

const UNKNOWN: &str = "67e55044-10b1-826f-9247-bb680e5fe0c8";

/// How a node sees another.
fn state(node: &Node, id: &str) -> String {
    let members = node.get("/members").json();
    let found = members["members"].as_array().unwrap().iter().find(|member| member["id"] == id);
    found.map_or_else(String::new, |member| member["state"].as_str().unwrap().to_owned())
}

fn forget(node: &Node, ids: &[&str]) -> (Option<i32>, String) {
    let ended = Command::new(node_binary()).arg("forget").args(ids).args(["--node", &node.server.url]).output().unwrap();
    (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
}

#[test]
fn who_has_left_is_forgotten_everywhere_and_comes_back_by_itself() {
    let mut network = Network::of(3);
    let gone = network.nodes[2].id().to_owned();
    let path = format!("/members/{gone}");
    let live = network.nodes[0].delete(&path).problem(409);
    assert!(live.contains("stop it") && live.contains(&gone), "{live}");
    assert!(network.nodes[2].server.terminate().success());
    eventually("it has left", || state(&network.nodes[0], &gone) == "left");
    let origin = [("origin", "http://evil.example")];
    gossip_cdn_cluster::send("DELETE", &network.nodes[0].url(&path), &origin, None).problem(403);
    for _ in 0..2 {
        let answer = network.nodes[0].delete(&path);
        assert_eq!((answer.status, answer.body.len()), (204, 0));
    }
    for node in &network.nodes[..2] {
        eventually("it is forgotten", || state(node, &gone) == "forgotten");
        assert!(node.get("/").text().contains("<b class=\"forgotten\">forgotten</b>"));
    }
    let members = Command::new(node_binary()).args(["members", "--node", &network.nodes[1].server.url]).output().unwrap();
    assert!(String::from_utf8(members.stdout).unwrap().lines().any(|line| line.contains(&gone) && line.contains("forgotten")));
    network.nodes[2].restart();
    for node in &network.nodes {
        eventually("it is a member again", || alive(node) == 3);
    }
}

#[test]
fn the_dead_is_forgotten_from_the_command_line_and_nobody_else() {
    let mut network = Network::of(2);
    let (dead, own) = (network.nodes[1].id().to_owned(), network.nodes[0].id().to_owned());
    network.nodes[1].server.kill();
    let node = &network.nodes[0];
    eventually("it is dead", || state(node, &dead) == "dead");
    assert_eq!(forget(node, &[&dead]), (Some(0), String::new()));
    assert_eq!(state(node, &dead), "forgotten");
    let (code, said) = forget(node, &[&own]);
    assert!(code == Some(4) && said.contains("another node"), "{said}");
    let (code, said) = forget(node, &[UNKNOWN, &dead]);
    assert!(code == Some(3) && said.contains(UNKNOWN), "{said}");
    assert_eq!(forget(node, &["nonsense"]).0, Some(2));
    node.delete(&format!("/members/{UNKNOWN}")).problem(404);
    node.delete("/members/nonsense").problem(400);
}
