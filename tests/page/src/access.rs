//! Whether everybody can use it: the rules of axe-core (WCAG 2.2 A and AA, and its best practices), the keyboard, the width of a phone.

use std::path::Path;

use gossip_cdn_cluster::{Network, Node, Server, bootstrap, eventually};
use serde_json::Value;
use tempfile::TempDir;

use crate::browser::{Browser, Glass};

/// The rules, as `npm ci` in `tests/page` puts them there; `tests/run` calls it.
fn rules() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("node_modules/axe-core/axe.min.js");
    std::fs::read_to_string(&path).unwrap_or_else(|fault| panic!("{}: {fault}; run tests/run, or npm ci in tests/page", path.display()))
}

/// What breaks a rule on the page that is shown, in words.
fn violations(browser: &Browser, rules: &str) -> Vec<String> {
    browser.js(rules, vec![]);
    let script = "const done = arguments[arguments.length - 1]; axe.run(document, { resultTypes: ['violations'] }).then((found) => done(found.violations), (fault) => done([{ id: String(fault), nodes: [] }]));";
    let found = browser.js_later(script);
    let nodes = |rule: &Value| {
        rule["nodes"].as_array().unwrap().iter().map(|node| format!("{} {}", node["html"], node["failureSummary"])).collect::<Vec<_>>()
    };
    found.as_array().unwrap().iter().map(|rule| format!("{}: {:?}", rule["id"], nodes(rule))).collect()
}

/// A network with something of everything: forty blobs, a conflict, a dead node, a pending message. The dead node is one of two voters, so it stays pending.
struct Busy {
    node: Node,
    bootstrap: Server,
    /// The page of one blob.
    blob: String,
    _other: Node,
    _folder: TempDir,
}

fn busy() -> Busy {
    let (bootstrap, folder) = bootstrap();
    let (node, other) = (Node::joined(&bootstrap), Node::alone());
    let path = "/blobs/67e55044-10b1-426f-9247-bb680e5fe0c8?name=plan.txt";
    node.put(path, b"one");
    other.put(path, b"two");
    let dead = Node::joined(&bootstrap);
    eventually("both vote", || node.status()["epoch"]["voters"].as_array().is_some_and(|voters| voters.len() == 2));
    for number in 0..40 {
        node.upload(&format!("file-{number}.txt"), b"x");
    }
    let blob = node.upload("story.txt", b"Once upon a time").replace("/blobs/", "/#/blob/");
    let believed = |state: &str| {
        let members = node.get("/members").json();
        members["members"].as_array().unwrap().iter().any(|member| member["id"] == dead.id() && member["state"] == state)
    };
    eventually("they have met", || believed("alive"));
    dead.server.signal("KILL");
    node.post_with("/messages", &[("content-type", "text/plain")], b"is anybody there?");
    node.introduce(&other);
    eventually("it is dead", || believed("dead"));
    drop(dead);
    Busy { node, bootstrap, blob, _other: other, _folder: folder }
}

#[test]
fn no_view_breaks_a_rule_of_access_light_or_dark_wide_or_narrow() {
    let rules = rules();
    let Busy { node, bootstrap, blob, .. } = &busy();
    for glass in [(false, false), (false, true), (true, false), (true, true)].map(|(phone, dark)| Glass { phone, dark, plain: false }) {
        let browser = Browser::through(glass);
        let views = [
            (node.url("/"), "table.blobs", "file-39.txt"),
            (node.url(blob), "pre", "Once upon a time"),
            (node.url("/#/conflicts"), ".conflict", "plan.txt"),
            (node.url("/#/network"), ".members .dead", "dead"),
            (node.url("/#/messages"), ".message.waits", "pending"),
            (format!("{}/", bootstrap.url), ".members", "alive"),
        ];
        for (url, place, text) in views {
            browser.go(&url);
            browser.says(place, text);
            let scheme = browser.js("return matchMedia('(prefers-color-scheme: dark)').matches", vec![]);
            assert_eq!(scheme, glass.dark, "the test looks through the glass it means");
            let found = violations(&browser, &rules);
            assert!(found.is_empty(), "{url} {glass:?}: {found:#?}");
            let beyond = browser.js("return document.documentElement.scrollWidth - document.documentElement.clientWidth", vec![]);
            assert_eq!(beyond, 0, "{url} {glass:?} is wider than its window");
        }
        browser.go(&node.url("/"));
        browser.js("const data = new DataTransfer(); data.items.add(new File(['x'], 'x.txt')); const input = document.getElementById('files'); input.files = data.files; input.dispatchEvent(new Event('change'))", vec![]);
        browser.says(".result", "Copy link");
        let found = violations(&browser, &rules);
        assert!(found.is_empty(), "an upload, {glass:?}: {found:#?}");
        browser.go(&node.url(blob));
        browser.press("Delete");
        browser.says("dialog", "Delete");
        let found = violations(&browser, &rules);
        assert!(found.is_empty(), "a question, {glass:?}: {found:#?}");
    }
}

#[test]
fn everything_is_reached_by_the_keyboard_and_every_view_is_announced() {
    let network = Network::of(1);
    let browser = Browser::at(&network.nodes[0].url("/"));
    browser.says("main", "Nothing is stored yet");
    const TAB: &str = "\u{e004}";
    let mut reached = Vec::new();
    for _ in 0..12 {
        browser.type_into("body", TAB);
        let focused =
            browser.js("const on = document.activeElement; return (on.labels?.[0] ?? on).innerText || on.id || on.tagName", vec![]);
        reached.push(focused.as_str().unwrap().trim().to_owned());
    }
    for wanted in ["Skip to the content", "Blobs", "Conflicts", "Network", "Messages", "choose files"] {
        assert!(reached.iter().any(|reached| reached.starts_with(wanted)), "{wanted} is not among {reached:?}");
    }
    browser.press("Network");
    browser.says("#said", "Network");
    assert_eq!(browser.js("return document.activeElement.id", vec![]), "page", "the reader is in the view");
    assert!(browser.js("return document.title", vec![]).as_str().unwrap().starts_with("Network"));
}
