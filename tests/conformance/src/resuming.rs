//! Downloads that break off because their node dies, and are taken up again by other programs at other nodes.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use gossip_cdn_cluster::{Network, eventually, noise};

/// Long enough to be caught in the middle at [`PACE`].
const SIZE: usize = 24 << 20;
/// How fast the clients read at most, in bytes a second, until their node is dead.
const PACE: &str = "4000000";
/// So much has arrived when a node dies.
const BEGUN: u64 = 1 << 20;

/// Nodes that all hold a file, its bytes, and its link at each of them.
fn spread(nodes: usize) -> (Network, Vec<u8>, Vec<String>) {
    let network = Network::of(nodes);
    let bytes = noise(SIZE, 5);
    let answer = network.nodes[0].put(&format!("/film.mp4?copies={nodes}&timeout=30"), &bytes);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let path = answer.text().trim().strip_prefix(&network.nodes[0].server.url).unwrap().to_owned();
    let links = network.nodes.iter().map(|node| node.url(&path)).collect();
    (network, bytes, links)
}

fn begin(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn size(file: &Path) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}

/// The first node dies in the middle of a download, which is then taken up at the second.
fn taken_up_elsewhere(first: impl Fn(&str, &Path) -> Command, again: impl Fn(&str, &Path) -> Command) {
    let (mut network, bytes, links) = spread(2);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("film.mp4");
    let mut client = begin(&mut first(&links[0], &file));
    eventually("a part is here", || size(&file) > BEGUN);
    network.nodes[0].server.kill();
    assert!(!client.wait().unwrap().success(), "the client notices");
    let had = size(&file);
    assert!(had < SIZE as u64, "{had} bytes");

    let before = served(&network, 1);
    assert!(begin(&mut again(&links[1], &file)).wait().unwrap().success());
    assert!(std::fs::read(&file).unwrap() == bytes);
    let sent = served(&network, 1) - before;
    assert_eq!(sent, SIZE as u64 - had, "only what was missing");
}

/// How many bytes of payloads clients have asked of a node.
fn served(network: &Network, node: usize) -> u64 {
    let metrics = network.nodes[node].get("/metrics").text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("gossip_cdn_downloaded_bytes_total "));
    line.map_or(0, |value| value.parse().unwrap())
}

#[test]
fn curl_goes_on_at_another_node_where_the_first_died() {
    let first = |link: &str, file: &Path| {
        let mut command = Command::new("curl");
        command.args(["-sf", "--limit-rate", PACE, "-o"]).arg(file).arg(link);
        command
    };
    let again = |link: &str, file: &Path| {
        let mut command = Command::new("curl");
        command.args(["-sf", "-C", "-", "-o"]).arg(file).arg(link);
        command
    };
    taken_up_elsewhere(first, again);
}

#[test]
fn wget_goes_on_at_another_node_where_the_first_died() {
    let first = |link: &str, file: &Path| {
        let mut command = Command::new("wget");
        command.args(["-q", "--tries=1", "--no-config"]).arg(format!("--limit-rate={PACE}")).arg("-O").arg(file).arg(link);
        command
    };
    let again = |link: &str, file: &Path| {
        let mut command = Command::new("wget");
        command.args(["-q", "--tries=1", "--no-config", "-c", "-O"]).arg(file).arg(link);
        command
    };
    taken_up_elsewhere(first, again);
}

#[test]
fn aria2_reads_from_three_nodes_at_once_though_one_of_them_dies() {
    let (mut network, bytes, links) = spread(3);
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("aria2c");
    // It counts connections by address, which all of them share.
    command.args(["--no-conf", "-q", "-s", "3", "-x", "3", "-k", "1M", "--uri-selector=inorder", "--file-allocation=none"]);
    command.args(["--max-overall-download-limit", PACE]);
    command.args(["--retry-wait=1", "--connect-timeout=5", "-o", "film.mp4", "-d"]).arg(folder.path()).args(&links);
    let mut client = begin(&mut command);
    eventually("every node serves", || (0..3).all(|node| served(&network, node) > 0));
    network.nodes[0].server.kill();
    assert!(client.try_wait().unwrap().is_none(), "it is not done yet");
    assert!(client.wait().unwrap().success());
    assert!(std::fs::read(folder.path().join("film.mp4")).unwrap() == bytes);
}
