//! What every way to upload is answered with: status, link, headers, and the form that `Accept` chose.

use crate::expected::{FORM, JSON, PATH, assert_recent, assert_version_of, etag, form, keys, part, path_of, repr_digest, sha256};
use gossip_cdn_cluster::{Answer, Node, send_raw};

const BROWSER: (&str, &str) = ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");

/// One file of these bytes, by every way there is to make a blob.
fn by_every_way(node: &Node, headers: &[(&str, &str)], bytes: &[u8]) -> Vec<Answer> {
    let typed = |content_type| [headers, &[content_type]].concat();
    vec![
        node.put_with("/a.txt", headers, bytes),
        node.put_with("/", headers, bytes),
        node.post_with("/blobs", &typed(("content-type", "text/plain")), bytes),
        node.post_with("/blobs", &typed(FORM), &form(&[part("name=\"f\"; filename=\"a.txt\"", bytes)])),
        node.put_with(PATH, headers, bytes),
    ]
}

#[test]
fn every_way_to_upload_is_201_with_the_link_the_location_the_tag_and_the_version() {
    let node = Node::alone();
    let bytes = b"the same bytes by every way";
    for answer in by_every_way(&node, &[], bytes) {
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert!(answer.header("content-type").starts_with("text/plain"));
        let location = answer.header("location");
        assert!(location.starts_with(&node.url("/blobs/")), "{location}");
        assert_eq!(answer.text(), format!("{location}\n"), "the link and a newline, nothing else");
        assert_eq!(answer.header("etag"), etag(bytes));
        assert_version_of(answer.header("version"), &node);
        let read = node.get(&path_of(&answer));
        assert_eq!((read.status, &read.body[..]), (200, &bytes[..]));
        assert_eq!(read.header("etag"), answer.header("etag"));
        assert_eq!(read.header("version"), answer.header("version"));
    }
    assert_eq!(node.get("/blobs").json()["blobs"].as_array().unwrap().len(), 5, "a blob each, though the bytes are equal");
}

#[test]
fn ids_that_the_node_makes_are_random_guids_lower_case_and_hyphenated() {
    let node = Node::alone();
    for _ in 0..8 {
        let path = node.upload("a.txt", b"a");
        let id = path.strip_prefix("/blobs/").unwrap();
        let guid: uuid::Uuid = id.parse().unwrap();
        assert_eq!(guid.get_version_num(), 4, "{id}");
        assert_eq!(guid.hyphenated().to_string(), id);
    }
}

#[test]
fn without_a_wish_and_with_any_wish_an_upload_is_answered_with_the_link() {
    let node = Node::alone();
    let raw = format!("PUT /a.txt HTTP/1.1\r\nhost: {}\r\ncontent-length: 1\r\nconnection: close\r\n\r\na", node.server.authority());
    let answer = send_raw(node.server.authority(), raw.as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(body.starts_with(&node.url("/blobs/")) && body.ends_with('\n') && body.lines().count() == 1, "no Accept: {body:?}");
    for accept in ["*/*", "text/plain", "image/png, */*;q=0.1", "application/json;q=0, */*"] {
        let answer = node.put_with("/a.txt", &[("accept", accept)], b"a");
        assert_eq!(answer.text(), format!("{}\n", answer.header("location")), "{accept}");
    }
}

#[test]
fn a_program_that_accepts_json_gets_the_blob_described() {
    let node = Node::alone();
    let bytes = b"described";
    for answer in by_every_way(&node, &[JSON], bytes) {
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert_eq!(answer.header("content-type"), "application/json");
        let described = answer.json();
        let fields = ["blake3", "created", "etag", "file_name", "id", "media_type", "sha256", "size", "url", "version"];
        assert_eq!(keys(&described), fields, "{described}");
        assert_eq!(described["url"], answer.header("location"));
        assert_eq!(described["url"], node.url(&format!("/blobs/{}", described["id"].as_str().unwrap())));
        assert_eq!(described["etag"], answer.header("etag"));
        assert_eq!(described["version"], answer.header("version"));
        assert_eq!(described["size"], bytes.len());
        assert_eq!(described["blake3"], blake3::hash(bytes).to_hex().as_str());
        assert_eq!(described["sha256"], sha256(bytes));
        assert_recent(described["created"].as_str().unwrap());
    }
    let named = node.put_with("/photo.jpg", &[JSON], bytes).json();
    assert_eq!((&named["file_name"], &named["media_type"]), (&"photo.jpg".into(), &"image/jpeg".into()));
    assert!(node.put_with("/", &[JSON], bytes).json()["file_name"].is_null(), "a blob without a name says so");
}

#[test]
fn a_browser_gets_a_page_with_the_links_that_runs_nothing() {
    let node = Node::alone();
    for answer in by_every_way(&node, &[BROWSER], b"for a browser") {
        assert_eq!(answer.status, 201);
        assert!(answer.header("content-type").starts_with("text/html"), "{}", answer.header("content-type"));
        assert!(answer.text().contains(&format!("href=\"{}\"", answer.header("location"))), "{}", answer.text());
        assert!(!answer.text().contains("<script"));
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && !policy.contains("script-src"), "{policy}");
    }
}

#[test]
fn several_files_get_a_link_a_line_a_list_or_a_page_of_all() {
    let node = Node::alone();
    let files = form(&[
        part("name=\"f\"; filename=\"one.txt\"", b"one"),
        part("name=\"f\"; filename=\"two.txt\"", b"two"),
        part("name=\"g\"; filename=\"three.txt\"", b"three"),
    ]);
    let links = node.post_with("/blobs", &[FORM], &files);
    assert_eq!(links.status, 201, "{}", links.text());
    assert!(links.text().ends_with('\n'));
    let bodies: Vec<Vec<u8>> = links.text().lines().map(|link| node.get(link.strip_prefix(&node.server.url).unwrap()).body).collect();
    assert_eq!(bodies, [&b"one"[..], b"two", b"three"], "in the order of the form");

    let list = node.post_with("/blobs", &[FORM, JSON], &files).json();
    let names: Vec<&str> = list.as_array().unwrap().iter().map(|blob| blob["file_name"].as_str().unwrap()).collect();
    assert_eq!(names, ["one.txt", "two.txt", "three.txt"]);

    let page = node.post_with("/blobs", &[FORM, BROWSER], &files).text();
    assert_eq!(page.matches(&format!("href=\"{}/blobs/", node.server.url)).count() / 2, 3, "each with its link and its code: {page}");
}

#[test]
fn links_are_under_the_host_of_the_request() {
    let node = Node::start(&["--no-bootstrap", "--host", "node.example"]);
    for host in ["localhost:1234", "[::1]:99", "node.example", "192.0.2.7:80"] {
        let answer = node.put_with("/a.txt", &[("host", host)], b"a");
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert!(answer.text().starts_with(&format!("http://{host}/blobs/")), "{}", answer.text());
        assert_eq!(answer.text().trim(), answer.header("location"));
        let described = node.put_with("/a.txt", &[("host", host), JSON], b"a").json();
        assert!(described["url"].as_str().unwrap().starts_with(&format!("http://{host}/blobs/")), "{described}");
        let listed = node.get_with("/blobs?limit=1", &[("host", host)]).json();
        assert!(listed["blobs"][0]["url"].as_str().unwrap().starts_with(&format!("http://{host}/blobs/")), "{listed}");
    }
}

#[test]
fn a_digest_that_is_met_is_stored_and_one_that_is_not_publishes_nothing() {
    let node = Node::alone();
    let (good, bad) = (repr_digest(b"bytes"), repr_digest(b"other"));
    for field in ["content-digest", "repr-digest"] {
        for path in ["/a.txt", "/", PATH] {
            let records = node.status()["records"].clone();
            let refused = node.put_with(path, &[(field, &bad)], b"bytes");
            assert!(refused.problem(400).contains("digest"), "{}", refused.text());
            assert_eq!(node.status()["records"], records, "nothing was published");
            assert!(matches!(node.put_with(path, &[(field, &good)], b"bytes").status, 200 | 201), "{field} {path}");
        }
        node.post_with("/blobs", &[(field, &bad)], b"bytes").problem(400);
        assert_eq!(node.post_with("/blobs", &[(field, &good)], b"bytes").status, 201);
        node.put_with("/a.txt", &[(field, "sha-256=:nonsense:")], b"bytes").problem(400);
        assert_eq!(node.put_with("/a.txt", &[(field, "md5=:AAAA:")], b"bytes").status, 201, "another algorithm is not ours to judge");
    }
}
