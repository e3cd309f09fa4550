//! Uploads: by picker and by drop, watched, cancelled, and found elsewhere.

use std::path::{Path, PathBuf};

use gossip_cdn_cluster::{Network, Node, noise, send};

use crate::browser::{Browser, Glass};

/// A file of that name in a folder.
fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Drops these files, an array in JavaScript, onto the page, as somebody who drags them there does.
fn drop_files(browser: &Browser, files: &str) {
    let drop = "const data = new DataTransfer(); for (const file of FILES) data.items.add(file); \
         for (const kind of ['dragenter', 'dragover', 'drop']) document.body.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: data }));";
    browser.js(&drop.replace("FILES", files), vec![]);
}

/// Writes down each text of progress, for a test to look at when it is over.
const WATCH: &str = "window.seen = []; new MutationObserver(() => { for (const note of document.querySelectorAll('.upload .note')) seen.push(note.textContent); \
    for (const bar of document.querySelectorAll('.upload progress')) seen.push(`bar ${bar.value > 0}`); }) \
    .observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });";

#[test]
fn a_picked_file_shows_its_progress_and_its_link_works_on_another_node() {
    let network = Network::of(3);
    let folder = tempfile::tempdir().unwrap();
    let bytes = noise(96 << 20, 1);
    let path = file(folder.path(), "large picture.png", &bytes);
    let browser = Browser::at(&network.nodes[0].url("/"));
    browser.says("label.button", "choose files");
    browser.js(WATCH, vec![]);
    browser.type_into("#files", path.to_str().unwrap());
    browser.says(".result .name", "large picture.png");
    let seen = browser.js("return seen.join('|')", vec![]);
    let seen = seen.as_str().unwrap();
    assert!(seen.contains("of 96.0 MiB ·") && seen.contains("/s") && seen.contains("bar true"), "{seen}");
    browser.says(".result .spread", "on 3 of 3 nodes");
    let link = browser.text(".result .link");
    let elsewhere = link.replace(&network.nodes[0].server.url, &network.nodes[2].server.url);
    assert_ne!(link, elsewhere);
    let read = send("GET", &elsewhere, &[], None);
    assert_eq!((read.status, read.header("content-type")), (200, "image/png"));
    assert!(read.body == bytes);
    browser.says("table.blobs", "large picture.png");
}

#[test]
fn several_dropped_files_are_uploaded_and_their_codes_can_be_photographed() {
    let node = Node::alone();
    let browser = Browser::at(&node.url("/#/network"));
    browser.says("h1", "Network");
    drop_files(&browser, "['one.txt', 'two.txt'].map((name) => new File([name], name, { type: 'text/plain' }))");
    browser.eventually("both are there", "document.querySelectorAll('.result').length === 2");
    browser.says("h2", "All blobs");
    browser.press("QR code");
    browser.eventually("the code is a picture", "document.querySelector('.qr img')?.naturalWidth > 0");
    let names = node.get("/blobs?order=name").json();
    let names: Vec<_> = names["blobs"].as_array().unwrap().iter().map(|blob| blob["file_name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["one.txt", "two.txt"]);
}

#[test]
fn a_dropped_file_shows_its_progress_too() {
    let node = Node::alone();
    let browser = Browser::at(&node.url("/"));
    browser.says("label.button", "choose files");
    browser.js(WATCH, vec![]);
    drop_files(&browser, "[new File([new Uint8Array(96 << 20)], 'dropped.bin')]");
    browser.says(".result .name", "dropped.bin");
    let seen = browser.js("return seen.join('|')", vec![]);
    let seen = seen.as_str().unwrap();
    assert!(seen.contains("of 96.0 MiB ·") && seen.contains("/s") && seen.contains("bar true"), "{seen}");
    assert_eq!(node.get("/blobs").json()["blobs"][0]["size"], 96 << 20);
}

#[test]
fn a_pasted_picture_is_uploaded() {
    let node = Node::alone();
    let browser = Browser::at(&node.url("/"));
    browser.says("label.button", "choose files");
    browser.js(
        "const data = new DataTransfer(); data.items.add(new File(['pixels'], 'image.png', { type: 'image/png' })); \
         document.body.dispatchEvent(new ClipboardEvent('paste', { bubbles: true, cancelable: true, clipboardData: data }));",
        vec![],
    );
    browser.says(".result .name", "image.png");
    assert_eq!(node.get("/blobs").json()["blobs"][0]["media_type"], "image/png");
}

#[test]
fn an_upload_that_found_nobody_is_tried_again_by_a_press() {
    let mut node = Node::alone();
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "patient.txt", b"patience");
    let browser = Browser::at(&node.url("/"));
    browser.says("label.button", "choose files");
    node.server.kill();
    browser.type_into("#files", path.to_str().unwrap());
    browser.says(".upload .note", "the node does not answer");
    node.restart();
    browser.press("Try again");
    browser.says(".result .name", "patient.txt");
    browser.says(".result .spread", "on 1 of 1 node");
    assert_eq!(node.get("/blobs").json()["blobs"].as_array().unwrap().len(), 1);
}

#[test]
fn a_blob_is_seen_to_spread_and_to_wait_for_a_node_that_hangs() {
    let network = Network::of(3);
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "slow.txt", b"slow");
    let browser = Browser::at(&network.nodes[0].url("/"));
    browser.says("label.button", "choose files");
    network.nodes[2].server.signal("STOP");
    browser.type_into("#files", path.to_str().unwrap());
    browser.says(".result .spread", "on 2 of 3 nodes");
    assert_eq!((browser.count(".result .dots i"), browser.count(".result .dots i.full")), (3, 2));
    network.nodes[2].server.signal("CONT");
    browser.says(".result .spread", "on 3 of 3 nodes");
}

#[test]
fn without_scripts_a_form_uploads_and_links_download() {
    let node = Node::alone();
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "plain & simple.txt", b"no script needed");
    let browser = Browser::through(Glass { plain: true, ..Glass::default() });
    browser.go(&node.url("/"));
    browser.reads("h1", "Gossip CDN node");
    browser.type_into("input[type=file]", path.to_str().unwrap());
    browser.press("Upload");
    browser.reads("h1", "Stored");
    browser.press("Back to the node");
    browser.reads("h1", "Gossip CDN node");
    browser.press("plain & simple.txt");
    browser.reads("body", "no script needed");
}

#[test]
fn a_large_upload_can_be_cancelled_and_leaves_nothing() {
    let node = Node::alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.iso");
    std::fs::File::create(&path).unwrap().set_len(500 << 20).unwrap();
    let browser = Browser::at(&node.url("/"));
    browser.says("label.button", "choose files");
    // On loopback half a gigabyte is gone before a driver could find the button: the first progress presses it.
    browser.js(
        "new MutationObserver((changes, self) => { const upload = [...document.querySelectorAll('.upload')].find((each) => each.innerText.includes('/s')); \
         if (upload) { self.disconnect(); upload.querySelector('button').click(); } }).observe(document.body, { subtree: true, childList: true, characterData: true });",
        vec![],
    );
    browser.type_into("#files", path.to_str().unwrap());
    browser.says(".upload .note", "cancelled");
    assert!(browser.text(".upload").contains("Try again"), "it can be begun anew");
    assert!(node.get("/blobs").json()["blobs"].as_array().unwrap().is_empty());
    gossip_cdn_cluster::eventually("the upload is forgotten", || node.status()["uploads"] == 0);
}

#[test]
fn an_upload_that_is_refused_says_why_and_can_be_tried_again() {
    let node = Node::start(&["--no-bootstrap", "--max-blob", "1KiB"]);
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "too large.bin", &noise(5000, 1));
    let browser = Browser::at(&node.url("/"));
    browser.type_into("#files", path.to_str().unwrap());
    browser.says(".upload .note", "not uploaded");
    assert!(browser.text(".upload").contains("Try again"));
}

#[test]
fn a_node_that_wants_its_token_is_given_it() {
    let folder = tempfile::tempdir().unwrap();
    let token = file(folder.path(), "token", b"a-long-enough-secret-of-this-node");
    let node = Node::start(&["--no-bootstrap", "--write-token", token.to_str().unwrap()]);
    let path = file(folder.path(), "a.txt", b"a");
    let browser = Browser::at(&node.url("/"));
    browser.type_into("#files", path.to_str().unwrap());
    browser.says("dialog", "write token");
    browser.type_into("dialog input", "a-long-enough-secret-of-this-node");
    browser.press("Use it");
    browser.says(".result .name", "a.txt");
}
