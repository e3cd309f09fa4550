//! What every download says of its bytes.

use std::time::SystemTime;

use crate::expected::{GUID, JSON, OTHER_TAG, PATH, assert_version_of, etag, path_of, repr_digest};
use crate::middleman::{Hold, Middleman};
use gossip_cdn_cluster::{Answer, Network, Node, eventually, noise, send};

/// Sizes that are kept in different ways: nothing, in the database, in a file.
const SIZES: [usize; 4] = [0, 10, 65_000, 3_000_000];

/// Headers that say when and to whom, not what.
const OF_THE_MOMENT: [&str; 3] = ["date", "server-timing", "x-request-id"];

fn lasting(answer: &Answer) -> Vec<(String, String)> {
    let all = answer.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap().to_owned()));
    let mut kept: Vec<_> = all.filter(|(name, _)| !OF_THE_MOMENT.contains(&name.as_str())).collect();
    kept.sort();
    kept
}

#[test]
fn a_download_has_every_header_that_programs_rely_on() {
    let node = Node::alone();
    for size in SIZES {
        let bytes = noise(size, 5);
        let answer = node.get(&node.upload("film.mp4", &bytes));
        assert_eq!(answer.status, 200);
        assert!(answer.body == bytes);
        assert_eq!(answer.header("content-length"), size.to_string());
        assert_eq!(answer.header("content-type"), "video/mp4");
        assert_eq!(answer.header("etag"), etag(&bytes));
        assert_eq!(answer.header("repr-digest"), repr_digest(&bytes));
        assert_eq!(answer.header("cache-control"), "no-cache");
        assert_eq!(answer.header("accept-ranges"), "bytes");
        assert_eq!(answer.header("cache-status"), "gossip-cdn; hit");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_version_of(answer.header("version"), &node);
        for metric in answer.header("server-timing").split(", ") {
            let (name, duration) = metric.split_once(";dur=").unwrap_or_else(|| panic!("{metric}"));
            assert!(!name.is_empty() && duration.parse::<f64>().is_ok_and(|duration| duration >= 0.0), "{metric}");
        }
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("sandbox;") && policy.contains("default-src 'none'") && !policy.contains("allow-"), "{policy}");
    }
}

#[test]
fn last_modified_is_the_time_of_the_version() {
    let node = Node::alone();
    let described = node.put_with("/a.txt", &[JSON], b"a").json();
    let answer = node.get(&format!("/blobs/{}", described["id"].as_str().unwrap()));
    let shown = httpdate::parse_http_date(answer.header("last-modified")).unwrap();
    let created = humantime::parse_rfc3339(described["created"].as_str().unwrap()).unwrap();
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(seconds(shown), seconds(created));
}

#[test]
fn head_equals_get_without_the_body_and_reads_no_payload() {
    let node = Node::alone();
    let counted = |node: &Node| {
        let text = node.get("/metrics").text();
        text.lines().find(|line| line.starts_with("gossip_cdn_downloads_total")).unwrap().to_owned()
    };
    for size in SIZES {
        let path = node.upload("a.html", &noise(size, 6));
        let version = node.get(&path).header("version").to_owned();
        for query in [String::new(), "?download".to_owned(), format!("?version={version}")] {
            let path = format!("{path}{query}");
            let get = node.get(&path);
            let before = counted(&node);
            let head = node.head(&path);
            assert_eq!((head.status, head.body.len()), (200, 0));
            assert_eq!(lasting(&head), lasting(&get), "{path}");
            assert!(!head.header("server-timing").is_empty());
            assert_eq!(counted(&node), before, "no payload was sent");
        }
        assert_eq!(send("HEAD", &node.url(&path), &[("range", "bytes=0-1")], None).status, 200, "ranges are for GET");
    }
    let path = node.upload("gone.txt", b"x");
    node.delete(&path);
    for (path, status) in [(PATH, 404), (&path, 410), ("/blobs/x", 400)] {
        let (head, get) = (node.head(path), node.get(path));
        assert_eq!((head.status, head.body.len(), get.status), (status, 0, status), "{path}");
    }
    for path in ["/", "/blobs", "/status", "/members", "/healthz", "/readyz", "/metrics", "/openapi.json"] {
        let (head, get) = (node.head(path), node.get(path));
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
    }
}

#[test]
fn a_version_by_name_never_changes_and_says_so() {
    let node = Node::alone();
    let version = node.put(PATH, b"one").header("version").to_owned();
    let pinned = node.get(&format!("{PATH}?version={version}"));
    assert_eq!((pinned.status, &pinned.body[..]), (200, &b"one"[..]));
    assert_eq!(pinned.header("cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(pinned.header("version"), version);
    assert_eq!(node.get(PATH).header("cache-control"), "no-cache");
    node.put(PATH, b"two");
    node.get(&format!("{PATH}?version={version}")).problem(404);
    node.get(&format!("{PATH}?version=nonsense")).problem(400);
    let tombstone = node.delete(PATH).header("version").to_owned();
    let gone = node.get(&format!("{PATH}?version={tombstone}"));
    gone.problem(410);
    assert_eq!(gone.header("version"), tombstone);
}

#[test]
fn every_live_version_is_served_at_every_node() {
    let (a, b) = (Node::alone(), Node::alone());
    let loser = a.put_with(PATH, &[("content-type", "text/plain")], b"from a").header("version").to_owned();
    let winner = b.put_with(PATH, &[("content-type", "image/png")], b"from b").header("version").to_owned();
    a.introduce(&b);
    for node in [&a, &b] {
        for (version, body, media_type) in [(&loser, b"from a", "text/plain"), (&winner, b"from b", "image/png")] {
            let path = format!("{PATH}?version={version}");
            eventually("the version is here", || node.get(&path).status == 200);
            let answer = node.get(&path);
            assert_eq!((&answer.body[..], answer.header("content-type")), (&body[..], media_type));
            assert_eq!((answer.header("etag"), answer.header("version")), (etag(body).as_str(), version.as_str()));
        }
        assert_eq!(node.get(PATH).header("version"), winner);
    }
}

#[test]
fn equal_bytes_have_the_same_tag_at_every_node_so_a_download_resumes_elsewhere() {
    let network = Network::of(2);
    let bytes = noise(2_000_000, 12);
    let path = network.nodes[0].upload("a.bin", &bytes);
    let first = network.nodes[0].get_with(&path, &[("range", "bytes=0-999999")]);
    eventually("the record is at the other node", || network.nodes[1].head(&path).status == 200);
    let rest = network.nodes[1].get_with(&path, &[("range", "bytes=1000000-"), ("if-range", first.header("etag"))]);
    assert_eq!((first.status, rest.status), (206, 206));
    assert!([first.body, rest.body].concat() == bytes);
    let elsewhere = Node::alone();
    assert_eq!(elsewhere.get(&elsewhere.upload("b.txt", &bytes)).header("etag"), etag(&bytes));
}

#[test]
fn scripts_of_other_origins_may_read_blobs_and_nothing_else() {
    let node = Node::alone();
    let path = node.upload("a.txt", b"0123456789");
    let tag = etag(b"0123456789");
    let from = ("origin", "https://app.example");
    for (method, headers, status) in [
        ("GET", vec![from], 200),
        ("HEAD", vec![from], 200),
        ("GET", vec![from, ("range", "bytes=0-1")], 206),
        ("GET", vec![from, ("if-none-match", tag.as_str())], 304),
        ("GET", vec![from, ("if-match", OTHER_TAG)], 412),
        ("GET", vec![from, ("range", "bytes=99-")], 416),
    ] {
        let answer = send(method, &node.url(&path), &headers, None);
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{method} {status}");
        let exposed: Vec<String> =
            answer.header("access-control-expose-headers").split(',').map(|name| name.trim().to_lowercase()).collect();
        for header in
            ["etag", "repr-digest", "version", "cache-status", "server-timing", "accept-ranges", "content-range", "content-disposition"]
        {
            assert!(exposed.iter().any(|exposed| exposed == header), "{header} in {exposed:?}");
        }
    }
    assert_eq!(node.get_with(&format!("/blobs/{GUID}"), &[from]).header("access-control-allow-origin"), "*", "a 404 too");
    let closed = ["/", "/blobs", "/status", "/members", "/metrics", "/openapi.json", "/healthz"].map(ToOwned::to_owned);
    for path in closed.into_iter().chain(["versions", "holders", "qr"].map(|kind| format!("{path}/{kind}"))) {
        let answer = node.get_with(&path, &[from]);
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{path}");
    }
    let uploads = [node.put("/a.txt", b"x"), node.post_with("/blobs", &[], b"x"), node.put(&path, b"x"), node.delete(&path)];
    for answer in uploads {
        assert!(answer.status < 300 && !answer.headers.contains_key("access-control-allow-origin"));
    }
    let asked = [from, ("access-control-request-method", "GET"), ("access-control-request-headers", "range")];
    let preflight = send("OPTIONS", &node.url(&path), &asked, None);
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-methods"), "GET, HEAD");
}

#[test]
fn a_download_through_a_node_without_the_bytes_says_where_they_came_from() {
    let (mut source, through) = (Node::alone(), Node::alone());
    // What others fetch from the source is held after four mebibytes, so that the bytes are surely on their way while they are read.
    let relay = Middleman::start(&source, Hold::After(4 << 20));
    assert!(source.server.terminate().success());
    source.restart_with(&["--no-bootstrap", "--advertise", &relay.url]);
    source.introduce(&through);
    let bytes = noise(16 << 20, 8);
    let path = path_of(&source.put("/large.bin", &bytes));
    eventually("the bytes are on their way", || relay.is_holding());
    // They are asked for when the record comes, which waits for the disk.
    eventually("the record is on disk", || through.head(&path).status == 200);

    let part = through.get_with(&path, &[("range", "bytes=0-9")]);
    assert_eq!((part.status, &part.body[..]), (206, &bytes[..10]));
    assert_eq!(part.header("cache-status"), format!("gossip-cdn; fwd=uri-miss; stored; detail=\"{}\"", source.id()));
    relay.release();
    assert!(through.get(&path).body == bytes);
}
