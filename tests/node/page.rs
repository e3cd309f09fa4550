//! The page of a node: useful without a script, and closed to what strangers named their files.

use crate::expected::{FORM, form, part, path_of};
use gossip_cdn_cluster::{Node, eventually};

/// What a stranger may call a file to run a script on the page.
const HOSTILE: &str = "/%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E.html";

#[test]
fn the_page_is_html_without_a_script_under_a_strict_policy() {
    let node = Node::alone();
    let page = node.get("/");
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    let policy = page.header("content-security-policy");
    for directive in policy.split(';').map(str::trim) {
        let (name, sources) = directive.split_once(' ').unwrap_or((directive, ""));
        assert!(!sources.contains("unsafe") && !sources.contains('*') && !sources.contains("data:"), "{directive}");
        assert!(name != "script-src", "there is no script to allow: {policy}");
    }
    for directive in ["default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'", "form-action 'self'"] {
        assert!(policy.split(';').any(|given| given.trim() == directive), "{directive} in {policy}");
    }
    let text = page.text();
    assert!(text.starts_with("<!doctype html>"));
    assert!(!text.to_lowercase().contains("<script") && !text.contains("javascript:"), "{text}");
    assert!(!text.contains("src=\"http") && !text.contains("<link"), "it loads nothing");
}

#[test]
fn a_file_named_like_markup_stays_text() {
    let node = Node::alone();
    let path = path_of(&node.put(HOSTILE, b"<script>alert(1)</script>"));
    assert_eq!(node.get("/blobs").json()["blobs"][0]["file_name"], "<img src=x onerror=alert(1)>.html", "the name is kept");
    let quotes = part("name=\"f\"; filename*=UTF-8''%22%20onmouseover%3D%22alert(1)%27.txt", b"x");
    node.post_with("/blobs", &[FORM], &form(&[quotes]));
    let answered = node.put_with(HOSTILE, &[("accept", "text/html")], b"x");
    for text in [node.get("/").text(), answered.text()] {
        assert!(text.contains("&lt;img src=x onerror=alert(1)&gt;.html"), "{text}");
        assert!(!text.contains("<img"), "{text}");
        assert!(!text.contains("\" onmouseover"), "{text}");
    }
    let blob = node.get(&path);
    assert_eq!(blob.header("content-type"), "text/html", "as stored");
    assert!(blob.header("content-disposition").starts_with("attachment;"));
    assert!(blob.header("content-security-policy").starts_with("sandbox"));
}

#[test]
fn the_page_shows_the_node_its_newest_blobs_and_its_members() {
    let (node, friend) = (Node::alone(), Node::alone());
    node.introduce(&friend);
    let path = node.upload("hello.txt", b"hello");
    eventually("the other member is shown", || node.get("/").text().contains(friend.id()));
    let text = node.get("/").text();
    assert!(text.contains(node.id()) && text.contains("hello.txt"));
    assert!(text.contains(&format!("href=\"{}\"", node.url(&path))), "a link that works");
    assert!(text.contains("enctype=\"multipart/form-data\"") && text.contains("action=\"/blobs\""), "a form without a script");
    node.delete(&path);
    assert!(!node.get("/").text().contains("hello.txt"));
}
