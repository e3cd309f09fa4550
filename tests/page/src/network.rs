//! The network, drawn and told: who lives, who is suspected, who is dead, and whether the node itself answers.

use gossip_cdn_cluster::{Network, Node, bootstrap, eventually};

use crate::browser::Browser;

/// Writes down each state of each member that the table shows.
const WATCH: &str = "window.states = new Set(); setInterval(() => { for (const row of document.querySelectorAll('tr[data-id]')) states.add(`${row.dataset.id} ${row.dataset.state}`); }, 20);";

#[test]
fn a_killed_node_is_seen_suspected_and_then_dead() {
    let mut network = Network::of(4);
    let browser = Browser::at(&network.nodes[0].url("/#/network"));
    browser.eventually("all are drawn", "document.querySelectorAll('.map .node.alive').length === 4");
    browser.eventually("an exchange pulses along an edge", "document.querySelectorAll('.map .edges path').length > 0");
    browser.js(WATCH, vec![]);
    let mut lost = network.nodes.pop().unwrap();
    let id = lost.id().to_owned();
    lost.server.kill();
    for state in ["suspect", "dead"] {
        browser.eventually(state, &format!("states.has('{id} {state}')"));
    }
    browser.eventually("it is drawn as dead", "document.querySelectorAll('.map .node.dead').length === 1");
    browser.press("Forget");
    browser.says("dialog", "Forget");
    browser.js("[...document.querySelectorAll('dialog button')].find((button) => button.value === 'yes').click()", vec![]);
    browser.eventually("it is gone", &format!("!document.querySelector('tr[data-id=\"{id}\"]')"));
}

#[test]
fn what_has_the_focus_in_the_table_keeps_it() {
    let mut network = Network::of(3);
    let browser = Browser::at(&network.nodes[0].url("/#/network"));
    let mut lost = network.nodes.pop().unwrap();
    let id = lost.id().to_owned();
    lost.server.kill();
    browser.eventually("it is dead", &format!("document.querySelector('tr[data-id=\"{id}\"] button')"));
    let other = network.nodes[1].id().to_owned();
    browser.js(
        "const real = window.fetch; window.fetch = (path, ...rest) => { if (path === '/network') surveys += 1; return real(path, ...rest); };",
        vec![],
    );
    for focused in [format!("tr[data-id=\"{id}\"] button"), format!("tr[data-id=\"{other}\"] a")] {
        browser.js("window.surveys = 0; document.querySelector(arguments[0]).focus();", vec![focused.clone().into()]);
        // The third begins when the second has been drawn.
        browser.eventually("two surveys are drawn", "surveys >= 3");
        assert_eq!(browser.js("return document.activeElement.matches(arguments[0])", vec![focused.into()]), true);
    }
}

#[test]
fn what_every_member_has_and_lacks_stands_in_the_table() {
    let (bootstrap, _folder) = bootstrap();
    let node = Node::joined(&bootstrap);
    // Its disk has no room for anybody's bytes, so it knows of them and lacks them.
    let full = Node::start(&["--bootstrap", &bootstrap.url, "--reserve", "1000TiB"]);
    node.upload("a.txt", &[7; 5000]);
    eventually("it has heard of the blob", || full.status()["wanted"] == 1);
    for url in [node.url("/#/network"), full.url("/#/network"), format!("{}/", bootstrap.url)] {
        let browser = Browser::at(&url);
        let row = |of: &Node| format!("tr[data-id=\"{}\"]", of.id());
        for (of, bytes, lag) in [(&node, "4.9 KiB", "none"), (&full, "0 bytes", "1 payload")] {
            browser.says(&row(of), bytes);
            browser.says(&format!("{} .lag", row(of)), lag);
            browser.says(&row(of), env!("CARGO_PKG_VERSION"));
            browser.eventually("one blob", &format!("document.querySelector('{} [data-label=Blobs]').innerText === '1'", row(of)));
            browser.eventually("an exchange", &format!("document.querySelector('{} [data-label=\"Last exchange\"] time')", row(of)));
        }
    }
}

#[test]
fn the_bootstrap_node_shows_the_whole_network_live() {
    let mut network = Network::of(3);
    network.nodes[0].upload("a.txt", b"a");
    network.converge();
    let browser = Browser::at(&format!("{}/", network.bootstrap.url));
    browser.eventually("all are drawn", "document.querySelectorAll('.map .node.alive').length === 3");
    browser.eventually("exchanges pulse", "document.querySelectorAll('.map .edges path').length > 0");
    browser.says(".figures", "all alive nodes agree");
    let fourth = Node::joined(&network.bootstrap);
    browser.eventually("a newcomer is drawn", &format!("document.querySelector('tr[data-id=\"{}\"]')", fourth.id()));
    let id = network.nodes[2].id().to_owned();
    network.nodes[2].server.kill();
    browser.eventually("a silent one is dead", &format!("document.querySelector('tr[data-id=\"{id}\"]')?.dataset.state === 'dead'"));
    network.bootstrap.kill();
    browser.says("#banner", "does not answer");
}

#[test]
fn a_lag_told_a_round_ago_says_when_and_midnight_is_the_hour_zero() {
    let node = Node::alone();
    let browser = Browser::at(&node.url("/#/network"));
    browser.says("h1", "Network");
    let told = browser.js_later(
        "const done = arguments[arguments.length - 1]; (async () => { \
         const { compare, showMembers } = await import('/assets/members.js'); const { clock } = await import('/assets/format.js'); \
         const before = (seconds) => new Date(Date.now() - seconds * 1000).toISOString(); \
         const member = (id, seconds) => ({ id, address: `http://${id}:1`, state: 'alive', incarnation: 1, root: 'r', records: 1, wanted: 2, messages: 0, history: null, reported: before(seconds) }); \
         const members = [member('now', 0), member('late', 30)]; const place = document.createElement('div'); \
         compare(members); showMembers(place, members); \
         return [...place.querySelectorAll('td.lag')].map((cell) => cell.textContent).concat(clock('2026-01-02T00:05:00')); \
         })().then(done, (fault) => done([String(fault)]));",
    );
    assert_eq!(told[0], "2 payloads");
    assert_eq!(told[1], "2 payloads as it said 30 s ago");
    assert!(told[2].as_str().unwrap().contains("00:05:00"), "{told}");
}

#[test]
fn a_node_is_introduced_by_its_address() {
    let (one, two) = (Node::alone(), Node::alone());
    let browser = Browser::at(&one.url("/#/network"));
    browser.says("main", "This node knows no other");
    browser.type_into("input[type=url]", &two.server.url);
    browser.press("Introduce");
    browser.eventually("it is a member", &format!("document.querySelector('tr[data-id=\"{}\"]')?.dataset.state === 'alive'", two.id()));
}

#[test]
fn a_node_that_goes_away_is_missed_and_comes_back_by_itself() {
    let mut node = Node::alone();
    node.upload("before.txt", b"x");
    let browser = Browser::at(&node.url("/"));
    browser.says("table.blobs", "before.txt");
    node.server.kill();
    browser.says("#banner", "This node does not answer");
    assert!(browser.text("table.blobs").contains("before.txt"), "what was there stays");
    node.restart();
    node.upload("after.txt", b"x");
    browser.eventually("the banner goes", "document.getElementById('banner').hidden");
    browser.says("table.blobs", "after.txt");
}
