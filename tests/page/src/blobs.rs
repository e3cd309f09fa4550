//! The list, and one blob's own page.

use gossip_cdn_cluster::{Network, Node, eventually};

use crate::browser::Browser;

#[test]
fn a_blob_written_elsewhere_appears_by_itself_and_spreads_before_ones_eyes() {
    let network = Network::of(3);
    let browser = Browser::at(&network.nodes[0].url("/"));
    browser.says("main", "Nothing is stored yet");
    let path = network.nodes[1].upload("news.txt", b"heard it?");
    browser.says("table.blobs", "news.txt");
    browser.press("news.txt");
    browser.says("h1", "news.txt");
    browser.says(".spread", "on 3 of 3 nodes");
    browser.says("pre", "heard it?");
    assert_eq!(browser.count(".holders .has"), 3);
    let id = path.strip_prefix("/blobs/").unwrap();
    assert!(browser.text(".facts").contains(id) && browser.text(".commands").contains("curl"));
}

#[test]
fn pictures_are_seen_and_the_link_can_be_photographed() {
    let node = Node::alone();
    let code = node.upload("link.txt", b"x");
    let picture = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";
    let path = node.upload("dot.gif", picture);
    let browser = Browser::at(&node.url(&format!("/#{}", path.replace("/blobs/", "/blob/"))));
    browser.eventually("the picture is drawn", "document.querySelector('img.preview')?.naturalWidth === 1");
    browser.go(&node.url(&format!("/#{}", code.replace("/blobs/", "/blob/"))));
    browser.press("QR code");
    browser.eventually("the code is drawn", "document.querySelector('img.qr')?.naturalWidth > 0");
}

#[test]
fn a_blob_is_deleted_after_a_question_and_everywhere() {
    let network = Network::of(2);
    let path = network.nodes[0].upload("secret.txt", b"x");
    let page = network.nodes[0].url(&format!("/#{}", path.replace("/blobs/", "/blob/")));
    let browser = Browser::at(&page);
    browser.press("Delete");
    browser.says("dialog", "Delete secret.txt?");
    browser.press("Keep it");
    browser.eventually("the dialog is gone", "!document.querySelector('dialog')");
    assert_eq!(network.nodes[0].get(&path).status, 200, "who keeps it keeps it");
    browser.press("Delete");
    browser.js("[...document.querySelectorAll('dialog button')].find((button) => button.value === 'yes').click()", vec![]);
    browser.says("#toasts", "is deleted");
    eventually("it is gone elsewhere", || network.nodes[1].get(&path).status == 410);
    browser.says("main", "Nothing is stored yet");
    browser.go(&page);
    browser.says("main", "This blob was deleted");
}

#[test]
fn the_list_is_searched_sorted_and_paged() {
    let node = Node::alone();
    let ids: Vec<String> = (0..60).map(|number| node.upload(&format!("file-{number:02}.txt"), b"x")).collect();
    let browser = Browser::at(&node.url("/"));
    browser.eventually("the first page", "document.querySelectorAll('table.blobs tbody tr').length === 50");
    assert!(browser.text("table.blobs tbody tr").contains("file-59.txt"), "newest first");
    browser.press("Show more");
    browser.eventually("all of them", "document.querySelectorAll('table.blobs tbody tr').length === 60");
    browser.js("const order = document.querySelector('select'); order.value = 'name'; order.dispatchEvent(new Event('change'))", vec![]);
    browser.says("table.blobs tbody tr:first-child", "file-00.txt");
    browser.type_into("input[type=search]", "file-4");
    browser.eventually("those that begin so", "document.querySelectorAll('table.blobs tbody tr').length === 10");
    browser.js("document.querySelector('input[type=search]').value = ''", vec![]);
    browser.type_into("input[type=search]", ids[7].strip_prefix("/blobs/").unwrap());
    browser.eventually("the one of that id", "document.querySelectorAll('table.blobs tbody tr').length === 1");
    browser.says("table.blobs", "file-07.txt");
    browser.js("document.querySelector('input[type=search]').value = ''", vec![]);
    browser.type_into("input[type=search]", "nothing like it");
    browser.says("main", "No blob has a name that begins with");
}
