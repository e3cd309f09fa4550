//! Where a blob's file name and media type come from.

use crate::expected::{FORM, JSON, PATH, form, part};
use gossip_cdn_cluster::{Answer, Node};

/// Name and type of the blob that an upload was described with.
fn stored(answer: &Answer) -> (Option<String>, String) {
    assert!(matches!(answer.status, 200 | 201), "{} {}", answer.status, answer.text());
    let described = answer.json();
    let described = if described.is_array() { described[0].clone() } else { described };
    (described["file_name"].as_str().map(ToOwned::to_owned), described["media_type"].as_str().unwrap().to_owned())
}

fn name(answer: &Answer) -> Option<String> {
    stored(answer).0
}

fn media_type(answer: &Answer) -> String {
    stored(answer).1
}

#[test]
fn the_name_comes_from_the_path_the_part_the_query_or_the_disposition() {
    let node = Node::alone();
    let disposition = ("content-disposition", "attachment; filename=\"by-header.txt\"");
    let file = form(&[part("name=\"f\"; filename=\"by-part.txt\"", b"x")]);
    for (way, answer, expected) in [
        ("path", node.put_with("/by-path.txt", &[JSON], b"x"), "by-path.txt"),
        ("part", node.post_with("/blobs", &[JSON, FORM], &file), "by-part.txt"),
        ("query of POST", node.post_with("/blobs?name=by-query.txt", &[JSON], b"x"), "by-query.txt"),
        ("query of PUT /", node.put_with("/?name=by-query.txt", &[JSON], b"x"), "by-query.txt"),
        ("query of PUT /blobs/{id}", node.put_with(&format!("{PATH}?name=by-query.txt"), &[JSON], b"x"), "by-query.txt"),
        ("header of POST", node.post_with("/blobs", &[JSON, disposition], b"x"), "by-header.txt"),
        ("header of PUT /", node.put_with("/", &[JSON, disposition], b"x"), "by-header.txt"),
        ("header of PUT /blobs/{id}", node.put_with(PATH, &[JSON, disposition], b"x"), "by-header.txt"),
        ("path before query and header", node.put_with("/by-path.txt?name=q.txt", &[JSON, disposition], b"x"), "by-path.txt"),
        ("query before header", node.post_with("/blobs?name=by-query.txt", &[JSON, disposition], b"x"), "by-query.txt"),
    ] {
        assert_eq!(stored(&answer), (Some(expected.to_owned()), "text/plain".to_owned()), "{way}");
    }
    assert_eq!(name(&node.put_with("/", &[JSON], b"x")), None);
    assert_eq!(name(&node.post_with("/blobs", &[JSON], b"x")), None);
}

#[test]
fn names_beyond_ascii_arrive_by_every_way() {
    let node = Node::alone();
    let wanted = Some("naïve 写真.png".to_owned());
    let encoded = "na%C3%AFve%20%E5%86%99%E7%9C%9F.png";
    let extended = format!("attachment; filename=\"x.png\"; filename*=UTF-8''{encoded}");
    let file = form(&[part("name=\"f\"; filename=\"naïve 写真.png\"", b"x")]);
    assert_eq!(name(&node.put_with(&format!("/{encoded}"), &[JSON], b"x")), wanted);
    assert_eq!(name(&node.post_with(&format!("/blobs?name={encoded}"), &[JSON], b"x")), wanted);
    assert_eq!(name(&node.post_with("/blobs", &[JSON, ("content-disposition", &extended)], b"x")), wanted);
    assert_eq!(name(&node.post_with("/blobs", &[JSON, FORM], &file)), wanted);
}

#[test]
fn separators_controls_and_direction_overrides_never_get_into_a_name() {
    let node = Node::alone();
    for (given, kept) in [
        ("..%2F..%2Fetc%2Fpasswd", Some("passwd")),
        ("C%3A%5Ctemp%5Ca.txt", Some("a.txt")),
        ("a%0D%0ASet-Cookie%3A%20b.txt", Some("aSet-Cookie: b.txt")),
        ("a%00b%1B%7F.txt", Some("ab.txt")),
        ("photo%E2%80%AEgpj.exe", Some("photogpj.exe")),
        ("%E2%81%A6a%E2%81%A9%E2%80%8F%E2%80%8E.txt", Some("a.txt")),
        ("%2E%2E", None),
        ("%E2%80%AE", None),
    ] {
        let answer = node.post_with(&format!("/blobs?name={given}"), &[JSON], b"x");
        assert_eq!(name(&answer).as_deref(), kept, "{given}");
        let path = format!("/blobs/{}", answer.json()["id"].as_str().unwrap());
        let disposition = node.get(&path).header("content-disposition").to_owned();
        assert!(!disposition.contains("%E2%80") && !disposition.contains("%0D") && !disposition.contains(".."), "{disposition}");
        if kept.is_none() {
            assert!(!disposition.contains("filename"), "{disposition}");
        }
    }
}

#[test]
fn without_a_type_the_extension_decides_and_never_the_bytes() {
    let node = Node::alone();
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    for (file, expected) in [
        ("photo.jpg", "image/jpeg"),
        ("photo.JPEG", "image/jpeg"),
        ("photo.webp", "image/webp"),
        ("notes.txt", "text/plain"),
        ("page.html", "text/html"),
        ("film.mp4", "video/mp4"),
        ("song.mp3", "audio/mpeg"),
        ("data.json", "application/json"),
        ("paper.pdf", "application/pdf"),
        ("README", "application/octet-stream"),
        ("what.zzz9", "application/octet-stream"),
    ] {
        assert_eq!(media_type(&node.put_with(&format!("/{file}"), &[JSON], png)), expected, "{file}");
        assert_eq!(media_type(&node.post_with(&format!("/blobs?name={file}"), &[JSON], png)), expected, "{file}");
        let part = part(&format!("name=\"f\"; filename=\"{file}\""), png);
        assert_eq!(media_type(&node.post_with("/blobs", &[JSON, FORM], &form(&[part]))), expected, "{file}");
    }
    assert_eq!(media_type(&node.put_with("/", &[JSON], png)), "application/octet-stream");
    assert_eq!(media_type(&node.put_with("/", &[JSON], b"<html><script>")), "application/octet-stream");
}

#[test]
fn the_form_type_of_curl_is_no_type_on_post_blobs_and_a_type_elsewhere() {
    let node = Node::alone();
    let curl = ("content-type", "application/x-www-form-urlencoded");
    assert_eq!(media_type(&node.post_with("/blobs", &[JSON, curl], b"a=b")), "application/octet-stream");
    assert_eq!(media_type(&node.post_with("/blobs?name=photo.png", &[JSON, curl], b"a=b")), "image/png");
    assert_eq!(media_type(&node.put_with("/a.png", &[JSON, curl], b"a=b")), curl.1);
    assert_eq!(media_type(&node.put_with(PATH, &[JSON, curl], b"a=b")), curl.1);
}

#[test]
fn a_type_that_is_given_is_kept_as_given() {
    let node = Node::alone();
    for given in ["text/plain; charset=utf-8", "application/x-own+json;v=1", "image/png", "Text/HTML"] {
        let declared = ("content-type", given);
        let answer = node.put_with("/a.bin", &[JSON, declared], b"x");
        assert_eq!(media_type(&answer), given);
        assert_eq!(node.get(&format!("/blobs/{}", answer.json()["id"].as_str().unwrap())).header("content-type"), given);
        assert_eq!(media_type(&node.post_with("/blobs?name=a.bin", &[JSON, declared], b"x")), given);
        let part = part(&format!("name=\"f\"; filename=\"a.bin\"\r\nContent-Type: {given}"), b"x");
        assert_eq!(media_type(&node.post_with("/blobs", &[JSON, FORM], &form(&[part]))), given);
    }
    node.put_with("/a.bin", &[("content-type", "nonsense")], b"x").problem(400);
}

#[test]
fn a_file_named_like_a_route_is_a_file() {
    let node = Node::alone();
    for taken in ["status", "blobs", "members", "metrics", "healthz", "openapi.json"] {
        assert_eq!(name(&node.put_with(&format!("/{taken}"), &[JSON], b"x")).as_deref(), Some(taken));
    }
    node.put("/a/b.txt", b"x").problem(404);
    node.put("/blobs/", b"x").problem(404);
}
