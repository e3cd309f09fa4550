//! Writers that dribble, writers that are slow but honest.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use gossip_cdn_cluster::{Node, eventually, noise};

/// A writer that announces more than it is going to give.
fn begin(node: &Node, request: &str, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(node.server.authority()).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nhost: {}\r\n", node.server.authority()).unwrap();
    stream.write_all(first).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    stream
}

/// What came while nothing was given, and whether the other end is closed.
fn heard(stream: &mut TcpStream, answer: &mut Vec<u8>) -> bool {
    let mut piece = [0; 4096];
    match stream.read(&mut piece) {
        Ok(0) => true,
        Ok(count) => {
            answer.extend_from_slice(&piece[..count]);
            false
        }
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

fn stalled(node: &Node) -> u64 {
    let text = node.get("/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix("gossip_cdn_bodies_stalled_total ")).unwrap();
    line.parse().unwrap()
}

#[test]
fn writers_that_dribble_are_cut_and_leave_nothing_behind() {
    let node = Node::start(&["--no-bootstrap", "--client-idle", "3", "--client-rate", "1000"]);
    // By the time it has answered all its threads have what they need.
    node.upload("first", b"first");
    let files = || std::fs::read_dir(format!("/proc/{}/fd", node.server.pid())).unwrap().count();
    let before = files();
    // Enough of it that a file was begun.
    let body = [b"content-length: 100000000\r\n\r\n".to_vec(), noise(5 << 20, 1)].concat();
    let chunked = b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let form = b"content-type: multipart/form-data; boundary=B\r\ncontent-length: 1000\r\n\r\n--B\r\n";
    let start = Instant::now();
    let mut writers = [
        (begin(&node, "PUT /dribbles.bin", &body), &b"x"[..]),
        (begin(&node, "POST /blobs", chunked), b"1\r\nx\r\n"),
        (begin(&node, "POST /blobs", form), b"-"),
        (begin(&node, "POST /messages", chunked), b"1\r\nx\r\n"),
    ]
    .map(|(stream, drop)| (stream, drop, Vec::new()));
    for (stream, drop, answer) in &mut writers {
        while !heard(stream, answer) {
            assert!(start.elapsed() < Duration::from_secs(60), "a connection is still open");
            // It may be closed by now, which the next look finds.
            stream.write_all(drop).ok();
        }
        let answer = String::from_utf8_lossy(answer);
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body-stalled"), "{answer}");
    }
    assert!(start.elapsed() >= Duration::from_secs(2), "they were given their time: {:?}", start.elapsed());
    assert_eq!(stalled(&node), 4);
    assert_eq!(node.get("/blobs").json()["blobs"].as_array().unwrap().len(), 1);
    assert_eq!(node.status()["payload_bytes"], 5);
    eventually("connections and files are closed", || files() <= before + 1);
}

#[test]
fn a_writer_that_is_slow_but_honest_is_not_cut() {
    let node = Node::start(&["--no-bootstrap", "--client-idle", "2", "--client-rate", "1000"]);
    let mut stream = begin(&node, "PUT /slow.bin", b"content-length: 40000\r\nconnection: close\r\n\r\n");
    // Twice the least, for five times the longest wait.
    let mut answer = Vec::new();
    for _ in 0..20 {
        stream.write_all(&[7; 2000]).unwrap();
        assert!(!heard(&mut stream, &mut answer), "cut: {}", String::from_utf8_lossy(&answer));
        std::thread::sleep(Duration::from_millis(300));
    }
    eventually("the upload is answered", || heard(&mut stream, &mut answer));
    assert!(answer.starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(stalled(&node), 0);
}
