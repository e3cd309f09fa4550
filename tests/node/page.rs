//! The page of a node as it is sent: useful without a script, and closed to what strangers named their files. What its script does is
//! looked at in a browser (`tests/page`).

use crate::expected::{FORM, form, part, path_of};
use gossip_cdn_cluster::{Node, eventually};

/// What a stranger may call a file to run a script on the page.
const HOSTILE: &str = "/%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E.html";

#[test]
fn the_page_may_run_its_own_modules_and_nothing_else() {
    let node = Node::alone();
    let page = node.get("/");
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    let policy = page.header("content-security-policy");
    let modules = format!("{}/assets/", node.server.authority());
    for directive in policy.split(';').map(str::trim) {
        let (name, sources) = directive.split_once(' ').unwrap_or((directive, ""));
        assert!(!sources.contains("unsafe") && !sources.contains('*') && !sources.contains("data:"), "{directive}");
        assert!(!matches!(name, "script-src" | "style-src") || sources == modules, "{directive}");
    }
    for directive in ["default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'", "form-action 'self'", "trusted-types 'none'"] {
        assert!(policy.split(';').any(|given| given.trim() == directive), "{directive} in {policy}");
    }
    let text = page.text();
    assert!(text.starts_with("<!doctype html>"));
    assert!(!text.contains("javascript:") && !text.contains(" style=") && !text.contains(" onclick="), "{text}");
    assert_eq!(text.matches("<script").count(), 1, "{text}");
    assert!(!text.contains("src=\"http") && !text.contains("<style"), "it loads its own files only");
}

#[test]
fn every_file_that_the_page_names_is_there_and_of_its_type() {
    let node = Node::alone();
    let text = node.get("/").text();
    let named: Vec<&str> = text.split("\"/assets/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(named.len() > 10, "{named:?}");
    for name in named {
        let file = node.get(&format!("/assets/{name}"));
        assert_eq!(file.status, 200, "{name}");
        let expected = match name.rsplit_once('.').unwrap().1 {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            _ => "image/svg+xml",
        };
        assert_eq!(file.header("content-type"), expected, "{name}");
        let again = node.get_with(&format!("/assets/{name}"), &[("if-none-match", file.header("etag"))]);
        assert_eq!(again.status, 304, "{name}");
    }
    node.get("/assets/Cargo.toml").problem(404);
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
        assert!(!text.contains("<img src=x"), "{text}");
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
