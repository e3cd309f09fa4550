//! curl is a first-class client: what it prints is the link.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::expected::etag;
use gossip_cdn_cluster::{Node, noise};

/// Runs curl in a folder, with something on its standard input.
fn curl(folder: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new("curl")
        .args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "30"])
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// What curl prints when it succeeds.
fn printed(folder: &Path, args: &[&str], input: &[u8]) -> String {
    let output = curl(folder, args, input);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The paths of the links that were printed, a line each.
fn paths(node: &Node, printed: &str) -> Vec<String> {
    assert!(printed.ends_with('\n'), "{printed:?}");
    printed.lines().map(|link| link.strip_prefix(&node.server.url).unwrap_or_else(|| panic!("{link:?}")).to_owned()).collect()
}

fn folder() -> tempfile::TempDir {
    tempfile::TempDir::new().unwrap()
}

#[test]
fn curl_t_file_prints_the_link_of_the_photo_that_shows_the_photo() {
    let (node, folder) = (Node::alone(), folder());
    let bytes = noise(3 << 20, 7);
    std::fs::write(folder.path().join("photo.jpg"), &bytes).unwrap();
    let printed = printed(folder.path(), &["-T", "photo.jpg", &node.url("/")], b"");
    let [path] = &paths(&node, &printed)[..] else { panic!("{printed}") };
    let read = node.get(path);
    assert!(read.body == bytes);
    assert_eq!(read.header("content-type"), "image/jpeg");
    assert_eq!(read.header("content-disposition"), "inline; filename=\"photo.jpg\"");
    assert_eq!(read.header("etag"), etag(&bytes));
}

#[test]
fn curl_t_takes_names_with_spaces_and_beyond_ascii_and_a_name_in_the_url() {
    let (node, folder) = (Node::alone(), folder());
    for name in ["two words.txt", "été.txt", "100%.txt", "a#b?c.txt"] {
        std::fs::write(folder.path().join(name), name).unwrap();
        paths(&node, &printed(folder.path(), &["-T", name, &node.url("/")], b""));
        let listed = node.get("/blobs?limit=1").json();
        assert_eq!(listed["blobs"][0]["file_name"], name);
    }
    paths(&node, &printed(folder.path(), &["-T", "été.txt", &node.url("/other.png")], b""));
    let listed = node.get("/blobs?limit=1").json();
    assert_eq!((&listed["blobs"][0]["file_name"], &listed["blobs"][0]["media_type"]), (&"other.png".into(), &"image/png".into()));
}

#[test]
fn curl_t_stdin_stores_a_blob_without_a_name() {
    let (node, folder) = (Node::alone(), folder());
    let printed = printed(folder.path(), &["-T", "-", &node.url("/")], b"from a pipe");
    let [path] = &paths(&node, &printed)[..] else { panic!("{printed}") };
    let read = node.get(path);
    assert_eq!(read.body, b"from a pipe");
    assert_eq!(read.header("content-type"), "application/octet-stream");
    assert_eq!(read.header("content-disposition"), "attachment");
}

#[test]
fn curl_data_binary_stores_the_bytes_and_not_a_form() {
    let (node, folder) = (Node::alone(), folder());
    let bytes = noise(2 << 20, 8);
    std::fs::write(folder.path().join("a.bin"), &bytes).unwrap();
    let plain = printed(folder.path(), &["--data-binary", "@a.bin", &node.url("/blobs")], b"");
    let [path] = &paths(&node, &plain)[..] else { panic!("{plain}") };
    let read = node.get(path);
    assert!(read.body == bytes);
    assert_eq!(read.header("content-type"), "application/octet-stream");
    let named = printed(folder.path(), &["--data-binary", "@a.bin", &node.url("/blobs?name=photo.jpg")], b"");
    let [path] = &paths(&node, &named)[..] else { panic!("{named}") };
    assert_eq!(node.get(path).header("content-type"), "image/jpeg");
    let typed = printed(folder.path(), &["-H", "Content-Type: text/csv", "--data-binary", "@a.bin", &node.url("/blobs")], b"");
    let [path] = &paths(&node, &typed)[..] else { panic!("{typed}") };
    assert_eq!(node.get(path).header("content-type"), "text/csv");
}

#[test]
fn curl_f_stores_every_file_and_prints_a_link_a_line() {
    let (node, folder) = (Node::alone(), folder());
    std::fs::write(folder.path().join("a.txt"), "a").unwrap();
    std::fs::write(folder.path().join("b.png"), "b").unwrap();
    let args =
        ["-F", "f=@a.txt", "-F", "note=ignored", "-F", "f=@b.png", "-F", "f=@a.txt;type=text/csv;filename=c.csv", &node.url("/blobs")];
    let printed = printed(folder.path(), &args, b"");
    let found: Vec<(Vec<u8>, String, String)> = paths(&node, &printed)
        .iter()
        .map(|path| node.get(path))
        .map(|read| (read.body.clone(), read.header("content-type").to_owned(), read.header("content-disposition").to_owned()))
        .collect();
    let expected = [
        ("a", "text/plain", "inline; filename=\"a.txt\""),
        ("b", "image/png", "inline; filename=\"b.png\""),
        ("a", "text/csv", "attachment; filename=\"c.csv\""),
    ];
    let expected = expected.map(|(body, media_type, name)| (body.into(), media_type.to_owned(), name.to_owned()));
    assert_eq!(found, expected);
}

#[test]
fn curl_saves_under_the_name_resumes_and_fails_as_a_script_expects() {
    let (node, folder) = (Node::alone(), folder());
    let bytes = noise(400_000, 9);
    let link = node.url(&node.upload("saved.bin", &bytes));
    printed(folder.path(), &["-O", "-J", &link], b"");
    assert!(std::fs::read(folder.path().join("saved.bin")).unwrap() == bytes);
    std::fs::write(folder.path().join("part.bin"), &bytes[..150_000]).unwrap();
    printed(folder.path(), &["-C", "-", "-o", "part.bin", &link], b"");
    assert!(std::fs::read(folder.path().join("part.bin")).unwrap() == bytes, "resumed where it was cut");
    let failed = curl(folder.path(), &["--fail", &node.url("/blobs/67e55044-10b1-426f-9247-bb680e5fe0c8")], b"");
    assert_eq!(failed.status.code(), Some(22));
    let shown = printed(folder.path(), &["-I", &link], b"");
    assert!(shown.contains("content-length: 400000\r\n"), "{shown}");
}
