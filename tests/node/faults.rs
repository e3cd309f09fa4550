//! What goes wrong around a node does not go wrong in it.

use std::io::{Read, Write};
use std::net::TcpListener;

use gossip_cdn_protocol::ContentHash;

use crate::fake_peer::{BLOB, FakePeer};
use gossip_cdn_cluster::{Node, alive, eventually, noise};

/// Files that a process has open below a folder.
fn open_files(node: &Node, folder: &str) -> usize {
    let folder = node.data.join(folder).canonicalize().unwrap();
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", node.server.pid())).unwrap();
    let targets = descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.filter(|target| target.starts_with(&folder)).count()
}

#[test]
fn a_record_that_lies_about_its_size_is_503_and_never_other_bytes() {
    for (length, lie) in [(17, 5), (17, 100), (3 << 20, (3 << 20) - 1), (3 << 20, 4 << 20), (3 << 20, 17)] {
        let (node, fake) = (Node::alone(), FakePeer::start());
        let bytes = noise(length, 3);
        let path = node.upload("true.bin", &bytes);
        fake.meet(&node);
        fake.tell(&node, ContentHash::of(&bytes), lie);
        eventually("the record is here", || node.head(&format!("/blobs/{BLOB}")).status != 404);
        for range in [vec![], vec![("range", "bytes=1-3")]] {
            node.get_with(&format!("/blobs/{BLOB}"), &range).problem(503);
        }
        assert!(node.get(&path).body == bytes, "the true record is served");
    }
}

#[test]
fn fetches_that_bring_nothing_keep_no_file_open() {
    let (node, fake) = (Node::alone(), FakePeer::start());
    fake.meet(&node);
    fake.tell(&node, ContentHash::of(b"nowhere"), 3 << 20);
    eventually("the record is here", || node.head(&format!("/blobs/{BLOB}")).status != 404);
    for _ in 0..5 {
        node.get(&format!("/blobs/{BLOB}")).problem(503);
    }
    eventually("no file is left open", || open_files(&node, "tmp") == 0);
}

#[test]
fn a_member_whose_address_another_server_took_is_not_alive() {
    let (node, mut gone) = (Node::alone(), Node::alone());
    node.introduce(&gone);
    assert_eq!(alive(&node), 2);
    gone.server.kill();
    let listener = TcpListener::bind(gone.server.authority()).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // The request is read as far as it comes at once; a server that knows no such route may not care for the rest.
            drop(stream.read(&mut [0; 8192]));
            drop(stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"));
        }
    });
    eventually("the member is not alive", || alive(&node) == 1);
}
