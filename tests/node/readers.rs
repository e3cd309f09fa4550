//! Readers that stall, readers that are slow, and what large payloads cost in memory.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use gossip_cdn_cluster::{Node, eventually, is_open_at_the_server, noise};

/// More than all buffers between a node and a reader.
const LARGE: usize = 64 << 20;

fn ask(node: &Node, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(node.server.authority()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", node.server.authority()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

#[test]
fn readers_that_take_nothing_are_cut_at_the_deadline_and_leave_nothing_behind() {
    let node = Node::start(&["--no-bootstrap", "--client-idle", "4"]);
    let path = node.upload("large.bin", &noise(LARGE, 1));
    let files = || std::fs::read_dir(format!("/proc/{}/fd", node.server.pid())).unwrap().count();
    let before = files();
    let start = Instant::now();
    let mut streams: Vec<TcpStream> = (0..8).map(|_| ask(&node, &path)).collect();
    for stream in &mut streams {
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
    }
    while streams.iter().any(is_open_at_the_server) {
        assert!(start.elapsed() < Duration::from_secs(60), "a connection is still open");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(start.elapsed() >= Duration::from_secs(3), "they were given their time: {:?}", start.elapsed());
    let mut rest = Vec::new();
    // A reset or an end, after what was on its way.
    drop(streams.remove(0).read_to_end(&mut rest));
    assert!(rest.len() < LARGE, "the rest was not sent");
    eventually("connections and payloads are closed", || files() <= before + 1);
    assert_eq!(node.head(&path).status, 200, "the node serves on");
}

#[test]
fn a_slow_reader_is_not_cut() {
    let node = Node::alone();
    let bytes = noise(LARGE, 2);
    let path = node.upload("large.bin", &bytes);
    let mut stream = ask(&node, &path);
    let mut answer = Vec::with_capacity(LARGE + 4096);
    let mut piece = vec![0; 256 << 10];
    for _ in 0..20 {
        let count = stream.read(&mut piece).unwrap();
        answer.extend_from_slice(&piece[..count]);
        std::thread::sleep(Duration::from_secs(2));
    }
    stream.read_to_end(&mut answer).unwrap();
    let start = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert!(answer[start..] == bytes);
}

/// The most memory a process has had, in bytes.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() << 10
}

#[test]
fn memory_does_not_follow_the_size_of_an_upload_or_a_download() {
    const SIZE: u64 = 512 << 20;
    let node = Node::alone();
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("large.bin");
    std::fs::File::create(&file).unwrap().set_len(SIZE).unwrap();
    let before = peak(node.server.pid());
    let curl = |args: &[&str]| {
        let output = Command::new("curl").args(["-sS", "--noproxy", "*", "--fail"]).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let link = curl(&["-T", file.to_str().unwrap(), &node.url("/")]);
    curl(&["-o", "/dev/null", &link]);
    assert_eq!(curl(&["-I", "-o", "/dev/null", "-w", "%header{content-length}", &link]), SIZE.to_string());
    let grown = peak(node.server.pid()) - before;
    assert!(grown < SIZE / 4, "{} MiB more", grown >> 20);
}
