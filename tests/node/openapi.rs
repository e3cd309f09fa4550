//! `/openapi.json` is what the node does: neither has what the other has not.

use std::collections::BTreeSet;

use crate::expected::GUID;
use gossip_cdn_cluster::{Answer, Node, send};

/// The public routes of http.md that are built.
const ROUTES: [(&str, &str); 30] = [
    ("delete", "/blobs/{id}"),
    ("delete", "/members/{id}"),
    ("get", "/"),
    ("get", "/assets/{name}"),
    ("get", "/blobs"),
    ("get", "/blobs/{id}"),
    ("get", "/blobs/{id}/holders"),
    ("get", "/blobs/{id}/qr"),
    ("get", "/blobs/{id}/versions"),
    ("get", "/events"),
    ("get", "/healthz"),
    ("get", "/members"),
    ("get", "/messages"),
    ("get", "/messages/stream"),
    ("get", "/messages/{id}"),
    ("get", "/metrics"),
    ("get", "/network"),
    ("get", "/openapi.json"),
    ("get", "/readyz"),
    ("get", "/status"),
    ("head", "/blobs/{id}"),
    ("options", "/blobs/{id}"),
    ("post", "/blobs"),
    ("post", "/members"),
    ("post", "/messages"),
    ("post", "/scrub"),
    ("put", "/"),
    ("put", "/blobs/{id}"),
    ("put", "/messages/history/{id}"),
    ("put", "/{file_name}"),
];

fn described(node: &Node) -> serde_json::Value {
    let answer = node.get("/openapi.json");
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    answer.json()
}

/// Every method and path of the description.
fn operations(document: &serde_json::Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().unwrap();
    let methods = ["get", "head", "put", "post", "delete", "patch", "options", "trace"];
    let of = |path: &String, item: &serde_json::Value| {
        let present: Vec<_> = methods.iter().filter(|method| item.get(**method).is_some()).collect();
        present.into_iter().map(|method| ((*method).to_owned(), path.clone())).collect::<Vec<_>>()
    };
    paths.iter().flat_map(|(path, item)| of(path, item)).collect()
}

#[test]
fn the_description_has_every_route_and_no_other() {
    let node = Node::alone();
    let document = described(&node);
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let known: BTreeSet<(String, String)> = ROUTES.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(operations(&document), known);
}

fn is_not_found(answer: &Answer) -> bool {
    answer.status == 405 || answer.body.starts_with(b"{") && answer.json()["type"] == "urn:gossip-cdn:problem:not-found"
}

#[test]
fn everything_described_is_answered_by_its_route() {
    let node = Node::alone();
    // Of HEAD the body is not seen: it is asked of a blob that is there.
    node.put(&format!("/blobs/{GUID}"), b"x");
    for (method, path) in operations(&described(&node)) {
        // A stream has no end, unless it is refused.
        let query = if path.ends_with("/stream") { "?after=x" } else { "" };
        let filled = path.replace("{id}", GUID).replace("{file_name}", "a.txt").replace("{name}", "page.css") + query;
        assert!(!filled.contains('{'), "a parameter that this test does not know: {path}");
        if path == "/events" {
            // It cannot be refused: one that is opened answers.
            drop(gossip_cdn_cluster::Events::open(&node.server, &path, None));
            continue;
        }
        let body = matches!(method.as_str(), "put" | "post").then_some(&b"x"[..]);
        let answer = send(&method.to_uppercase(), &node.url(&filled), &[], body);
        assert!(!is_not_found(&answer), "{method} {path}: {}", answer.text());
        assert!(method != "head" || answer.status != 404);
        node.put(&format!("/blobs/{GUID}"), b"x");
    }
    assert!(is_not_found(&node.get("/nothing/here")), "the test can tell");
}

#[test]
fn every_operation_says_what_it_answers_and_every_reference_leads_somewhere() {
    let node = Node::alone();
    let document = described(&node);
    for (method, path) in operations(&document) {
        let operation = &document["paths"][&path][&method];
        assert!(operation["responses"].as_object().is_some_and(|responses| !responses.is_empty()), "{method} {path}");
        let named: BTreeSet<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let in_path: BTreeSet<&str> = parameters.filter(|parameter| parameter["in"] == "path").filter_map(|p| p["name"].as_str()).collect();
        assert_eq!(in_path, named, "{method} {path}");
    }
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

#[test]
fn a_wrong_method_is_405_with_the_right_ones_and_no_described_one_is() {
    let node = Node::alone();
    for (path, allowed) in [("/status", "GET"), ("/members", "POST"), (&format!("/blobs/{GUID}"), "DELETE"), ("/blobs", "POST")] {
        let answer = send("PATCH", &node.url(path), &[], Some(b"x"));
        answer.problem(405);
        let methods: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
        assert!(methods.contains(&allowed) && methods.contains(&"HEAD"), "{path}: {methods:?}");
    }
}
