//! The service routes, the page, and the end.

use std::collections::BTreeSet;

use crate::process::{Bootstrap, Node, run};

#[test]
fn openapi_lists_exactly_the_routes() {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = Bootstrap::start(dir.path());
    let api = bootstrap.get("/openapi.json").json();
    assert!(api["openapi"].as_str().unwrap().starts_with("3.1"), "{api}");
    let mut listed = BTreeSet::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        listed.extend(item.as_object().unwrap().keys().map(|method| format!("{method} {path}")));
        // A stream of events has no end.
        let answer = match (item.get("post").is_some(), path.as_str()) {
            (true, _) => bootstrap.post(path, "application/json", "{}"),
            (false, "/events") => bootstrap.head(path),
            (false, "/assets/{name}") => bootstrap.get("/assets/page.css"),
            (false, _) => bootstrap.get(path),
        };
        assert!(answer.status != 404 && answer.status != 405, "{path} is listed and not there");
    }
    let expected = [
        "post /join",
        "get /members",
        "get /network",
        "get /events",
        "get /assets/{name}",
        "get /",
        "get /healthz",
        "get /readyz",
        "get /metrics",
        "get /openapi.json",
    ];
    assert_eq!(listed, expected.map(str::to_owned).into());
}

#[test]
fn the_page_is_useful_without_its_script_and_under_a_strict_policy() {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = Bootstrap::start_with(&["--cluster", "<b>"], dir.path());
    let mut claim = Node::new(1).claim();
    claim["c"] = "<b>".into();
    assert_eq!(bootstrap.join(&claim).status, 200);
    let page = bootstrap.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 127.0.0.1:") && !policy.contains("unsafe"), "{policy}");
    assert_eq!((page.header("x-content-type-options"), page.header("referrer-policy")), ("nosniff", "same-origin"));
    assert!(page.text.contains(&Node::new(1).address()) && page.text.contains("&lt;b&gt;"));
    assert!(!page.text.contains("style=") && !page.text.contains("<b>"), "{}", page.text);
    for name in page.text.split("\"/assets/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert_eq!(bootstrap.get(&format!("/assets/{name}")).status, 200, "{name}");
    }
}

#[test]
fn the_service_routes_tell_how_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let bootstrap = Bootstrap::start(dir.path());
    bootstrap.join(&Node::new(1).claim());
    bootstrap.post("/join", "application/json", "junk");
    assert_eq!(bootstrap.get("/healthz").text, "ok\n");
    assert_eq!(bootstrap.get("/readyz").text, "ready\n");
    let metrics = bootstrap.get("/metrics").text;
    for line in [
        "gossip_cdn_bootstrap_joins_total{outcome=\"new\"} 1",
        "gossip_cdn_bootstrap_refusals_total{kind=\"malformed\"} 1",
        "gossip_cdn_bootstrap_members{state=\"alive\"} 1",
        "# EOF",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    for path in ["/", "/members", "/network", "/healthz", "/metrics", "/openapi.json"] {
        let (get, head) = (bootstrap.get(path), bootstrap.head(path));
        assert_eq!((head.status, head.text.as_str()), (200, ""), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
    }
}

#[test]
fn both_signals_end_it_gracefully() {
    for signal in ["-INT", "-TERM"] {
        let dir = tempfile::tempdir().unwrap();
        let bootstrap = Bootstrap::start(dir.path());
        bootstrap.join(&Node::new(1).claim());
        assert_eq!(bootstrap.signal(signal).code(), Some(0), "{signal}");
        assert_eq!(Bootstrap::start(dir.path()).members().len(), 1, "{signal}");
    }
}

#[test]
fn help_has_an_example() {
    let dir = tempfile::tempdir().unwrap();
    let help = String::from_utf8(run(&["--help"], dir.path()).stdout).unwrap();
    assert!(help.contains("Example:\n  gossip-cdn-bootstrap --listen"), "{help}");
}
