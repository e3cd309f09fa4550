//! How payloads of strangers are offered: opened or saved, and under which name.

use crate::expected::path_of;
use gossip_cdn_cluster::Node;

fn disposition(node: &Node, path: &str) -> String {
    node.get(path).header("content-disposition").to_owned()
}

/// Uploads under a name and a type; gives the path.
fn typed(node: &Node, media_type: &str) -> String {
    path_of(&node.put_with("/a.bin", &[("content-type", media_type)], b"<script>alert(1)</script>"))
}

#[test]
fn common_images_audio_video_and_plain_text_open_in_the_browser() {
    let node = Node::alone();
    for media_type in [
        "image/png",
        "image/jpeg",
        "image/gif",
        "image/webp",
        "image/avif",
        "audio/mpeg",
        "audio/ogg",
        "video/mp4",
        "video/webm",
        "text/plain",
        "text/plain; charset=utf-8",
        "IMAGE/PNG",
    ] {
        assert_eq!(disposition(&node, &typed(&node, media_type)), "inline; filename=\"a.bin\"", "{media_type}");
    }
}

#[test]
fn everything_else_is_saved_and_runs_nowhere() {
    let node = Node::alone();
    for media_type in [
        "text/html",
        "text/html; charset=utf-8",
        "TEXT/HTML",
        "application/xhtml+xml",
        "image/svg+xml",
        "text/xml",
        "application/xml",
        "application/pdf",
        "application/javascript",
        "text/css",
        "multipart/x-mixed-replace",
        "application/octet-stream",
        "application/x-unheard-of",
    ] {
        let path = typed(&node, media_type);
        let answer = node.get(&path);
        assert_eq!(answer.header("content-disposition"), "attachment; filename=\"a.bin\"", "{media_type}");
        assert_eq!(answer.header("content-type"), media_type, "as stored");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert!(answer.header("content-security-policy").starts_with("sandbox;"), "{media_type}");
        let part = node.get_with(&path, &[("range", "bytes=0-3")]);
        assert_eq!(part.status, 206);
        for header in ["content-disposition", "content-type", "x-content-type-options", "content-security-policy"] {
            assert_eq!(part.header(header), answer.header(header), "a part of it is no safer: {header}");
        }
    }
}

#[test]
fn download_saves_whatever_the_type() {
    let node = Node::alone();
    let answer = node.put("/photo.png", b"x");
    let path = path_of(&answer);
    assert_eq!(disposition(&node, &path), "inline; filename=\"photo.png\"");
    for query in ["?download".to_owned(), "?download=1".to_owned(), format!("?version={}&download", answer.header("version"))] {
        assert_eq!(disposition(&node, &format!("{path}{query}")), "attachment; filename=\"photo.png\"", "{query}");
    }
}

#[test]
fn names_beyond_ascii_are_sent_as_rfc_8187_has_it_with_a_plain_one_beside() {
    let node = Node::alone();
    for (encoded, expected) in [
        ("plain.png", "inline; filename=\"plain.png\""),
        ("two%20words.png", "inline; filename=\"two words.png\""),
        ("%C3%A9t%C3%A9.png", "inline; filename=\"_t_.png\"; filename*=UTF-8''%C3%A9t%C3%A9.png"),
        ("%E2%82%AC%20rates.png", "inline; filename=\"_ rates.png\"; filename*=UTF-8''%E2%82%AC%20rates.png"),
        ("a%22b.png", "inline; filename=\"a_b.png\"; filename*=UTF-8''a%22b.png"),
        ("a%0D%0AX-Evil%3A1.png", "inline; filename=\"aX-Evil:1.png\""),
        ("x%E2%80%AEgnp.png", "inline; filename=\"xgnp.png\""),
        ("x%E2%81%A6%E2%81%A9y.png", "inline; filename=\"xy.png\""),
    ] {
        let path = path_of(&node.put(&format!("/{encoded}"), b"x"));
        let answer = node.get(&path);
        assert_eq!(answer.header("content-disposition"), expected, "{encoded}");
        assert!(!answer.headers.contains_key("x-evil"));
    }
}
