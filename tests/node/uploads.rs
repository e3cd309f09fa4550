//! Uploads by people and programs: forms, names and types, the three kinds of answer, refusals in the middle of a body.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use gossip_cdn_cluster::{Node, noise};

const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=B");

fn part(disposition: &str, body: &[u8]) -> Vec<u8> {
    [format!("--B\r\nContent-Disposition: form-data; {disposition}\r\n\r\n").as_bytes(), body, b"\r\n"].concat()
}

#[test]
fn a_form_stores_one_blob_for_each_file_and_ignores_other_fields() {
    let node = Node::alone();
    let large = noise(300_000, 1);
    let form = [
        part("name=\"note\"", b"ignored"),
        part("name=\"f\"; filename=\"../photo.png\"", &large),
        part("name=\"f\"; filename=\"b.txt\"", b"b"),
        part("name=\"g\"; filename=\"\"", b""),
        b"--B--\r\n".to_vec(),
    ];
    let answer = node.post_with("/blobs", &[FORM, ("accept", "application/json")], &form.concat());
    assert_eq!(answer.status, 201, "{}", answer.text());
    let blobs = answer.json();
    assert_eq!(blobs.as_array().map(Vec::len), Some(2));
    assert_eq!(
        (&blobs[0]["file_name"], &blobs[0]["media_type"], &blobs[0]["size"]),
        (&"photo.png".into(), &"image/png".into(), &300_000.into())
    );
    let path = format!("/blobs/{}", blobs[0]["id"].as_str().unwrap());
    let photo = node.get(&path);
    assert_eq!(photo.body, large);
    assert_eq!(photo.header("content-disposition"), "inline; filename=\"photo.png\"");
    assert_eq!(node.get(&format!("/blobs/{}", blobs[1]["id"].as_str().unwrap())).header("content-type"), "text/plain");
}

#[test]
fn a_form_cut_short_publishes_none_of_its_files() {
    let node = Node::alone();
    let whole = part("name=\"f\"; filename=\"a\"", b"whole");
    let cut = [whole.clone(), b"--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"b\"\r\n\r\nhal".to_vec()].concat();
    node.post_with("/blobs", &[FORM], &cut).problem(400);
    node.post_with("/blobs", &[FORM], &part("name=\"note\"", b"no file")).problem(400);
    assert_eq!(node.status()["records"], 0);
}

#[test]
fn an_upload_is_answered_with_a_link_a_description_or_a_page() {
    let node = Node::alone();
    let link = node.put("/a.txt", b"x").text();
    assert!(link.starts_with(&node.url("/blobs/")) && link.ends_with('\n'), "{link}");
    let described = node.put_with("/a.txt", &[("accept", "application/json")], b"x");
    assert_eq!(described.json()["url"], described.header("location"));
    assert_eq!(described.json()["etag"], described.header("etag"));
    let page = node.put_with("/%3Cscript%3E.txt", &[("accept", "text/html,*/*;q=0.8")], b"x");
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.text().contains("&lt;script&gt;.txt") && !page.text().contains("<script"), "{}", page.text());
    assert!(node.get("/").text().contains("&lt;script&gt;.txt"));
}

#[test]
fn an_upload_refused_in_the_middle_of_a_chunked_body_ends_its_connection() {
    let node = Node::alone();
    let mut stream = TcpStream::connect(node.server.authority()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The body never ends; a server that drains it would wait for ever.
    stream.write_all(b"PUT /blobs/no-guid HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server closes the connection");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}
