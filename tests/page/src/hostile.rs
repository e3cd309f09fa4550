//! What strangers upload and how they call it, looked at: nothing of it runs.

use gossip_cdn_cluster::Node;

use crate::browser::Browser;

const SHOWN: &str = "<img src=x onerror=alert(1)>.html";
const SCRIPT: &[u8] = b"<!doctype html><script>alert(1)</script><img src=x onerror=alert(2)><body onload=alert(3)>";

#[test]
fn a_file_full_of_scripts_with_a_name_of_markup_runs_nothing() {
    let node = Node::alone();
    let folder = tempfile::tempdir().unwrap();
    let evil = folder.path().join(SHOWN);
    std::fs::write(&evil, SCRIPT).unwrap();
    let browser = Browser::at(&node.url("/"));
    browser.type_into("#files", evil.to_str().unwrap());
    browser.says(".result .name", SHOWN);
    assert!(!browser.is_alarmed());
    let stored = node.get("/blobs").json()["blobs"][0].clone();
    assert_eq!((&stored["file_name"], &stored["media_type"]), (&SHOWN.into(), &"text/html".into()));
    let path = format!("/blobs/{}", stored["id"].as_str().unwrap());
    let drawing = br#"<svg xmlns="http://www.w3.org/2000/svg" onload="alert(4)"><script>alert(5)</script></svg>"#;
    node.put_with("/drawing.svg", &[("content-type", "image/svg+xml")], drawing);
    browser.says("table.blobs", SHOWN);
    browser.says("table.blobs", "drawing.svg");
    assert_eq!(browser.count("main img"), 0, "a name is no picture");
    browser.press(SHOWN);
    browser.says("h1", SHOWN);
    browser.says("pre", "<script>alert(1)</script>");
    assert_eq!(browser.count("main img, main iframe, main object, main embed, main script"), 0);
    assert!(!browser.is_alarmed());
    browser.press("Delete");
    browser.says("dialog", SHOWN);
    assert!(!browser.is_alarmed());
    browser.press("Keep it");
    browser.press("← All blobs");
    browser.press("drawing.svg");
    browser.says("pre", "onload=");
    assert!(!browser.is_alarmed());
    // The blob itself, opened: it is saved, not shown, and the page stays where it was.
    browser.js("location.href = arguments[0]", vec![path.into()]);
    browser.says("h1", "drawing.svg");
    assert!(!browser.is_alarmed());
    assert!(browser.address().contains("/#/blob/"), "{}", browser.address());
}

#[test]
fn the_page_can_run_no_script_of_its_own_origin_but_its_modules() {
    let node = Node::alone();
    let sent = node.put_with("/evil.js", &[("content-type", "text/javascript")], b"window.evil = true");
    let path = sent.text().trim().strip_prefix(&node.server.url).unwrap().to_owned();
    let browser = Browser::at(&node.url("/"));
    browser.says("table.blobs", "evil.js");
    let refused = "const name = arguments[0]; try { const script = document.createElement('script'); script.src = name; document.head.append(script); } catch (error) { window.refused = error.name; }";
    browser.js(refused, vec![path.clone().into()]);
    assert_eq!(browser.js("return window.refused", vec![]), "TypeError", "trusted types: a text is no script's address");
    let imported =
        format!("const done = arguments[arguments.length - 1]; import('{path}').then(() => done('ran'), () => done('refused'));");
    assert_eq!(browser.js_later(&imported), "refused");
    assert_eq!(browser.js("return window.evil === undefined", vec![]), true);
}
