//! Messages: said here, seen there.

use gossip_cdn_cluster::{Node, bootstrap, eventually};

use crate::browser::Browser;

fn say(browser: &Browser, text: &str, channel: &str) {
    browser.js("document.querySelector('.say select').value = arguments[0]", vec![channel.into()]);
    browser.type_into(".say textarea", text);
    browser.press("Post");
}

#[test]
fn a_message_posted_here_is_seen_there_with_its_number() {
    let (bootstrap, _folder) = bootstrap();
    let founder = Node::start(&["--bootstrap", &bootstrap.url, "--found"]);
    let other = Node::joined(&bootstrap);
    eventually("both vote", || founder.status()["epoch"]["voters"].as_array().unwrap().len() == 2);
    let (here, there) = (Browser::at(&other.url("/#/messages")), Browser::at(&founder.url("/#/messages")));
    for browser in [&here, &there] {
        browser.says("main", "2 voters");
        browser.says("main", "No message yet");
    }
    say(&here, "<b>hello</b> there", "causal");
    here.says(".say [role=status]", "Delivered");
    for browser in [&here, &there] {
        browser.says(".history .message", "<b>hello</b> there");
        assert_eq!(browser.count(".history b"), 0, "it is text");
    }
    say(&there, "a decision", "ordered");
    for browser in [&here, &there] {
        browser.says(".history .message.ordered", "number 1");
        assert_eq!(browser.count(".history .message:not(.waits)"), 2);
    }
}

#[test]
fn without_a_history_a_message_is_shown_as_pending_and_delivered_when_there_is_one() {
    let node = Node::alone();
    let browser = Browser::at(&node.url("/#/messages"));
    browser.says("main", "no message history yet");
    say(&browser, "is anybody there?", "causal");
    browser.says(".message.waits", "is anybody there?");
    browser.says(".message.waits", "pending");
    let founder = Node::start(&["--no-bootstrap", "--found"]);
    node.introduce(&founder);
    browser.eventually("it is delivered", "document.querySelector('.message:not(.waits)') && !document.querySelector('.message.waits')");
}
