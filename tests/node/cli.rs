//! The commands of a client, as a person or a script calls them, against real nodes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use walkdir::WalkDir;

use crate::middleman::{Hold, Middleman};
use gossip_cdn_cluster::{Network, Node, bootstrap_binary, eventually, node_binary, noise};

const UNKNOWN: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    code: i32,
    out: Vec<u8>,
    said: String,
}

impl Ended {
    /// Asserts the exit code. A failure says on standard error why.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.said);
        assert!(code == 0 || !self.said.is_empty() || !self.out.is_empty(), "it says why it failed");
        self
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.out).unwrap()
    }

    pub(crate) fn lines(&self) -> Vec<&str> {
        self.text().lines().collect()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|fault| panic!("{fault}: {}", self.text()))
    }
}

/// A command for the node at `url`.
pub(crate) fn command(url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(node_binary());
    command.args(arguments).env("GOSSIP_CDN_NODE", url).env_remove("GOSSIP_CDN_TOKEN").env_remove("GOSSIP_CDN_BOOTSTRAP");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn run(url: &str, arguments: &[&str]) -> Ended {
    ended(command(url, arguments).spawn().unwrap())
}

fn ended(child: Child) -> Ended {
    let output = child.wait_with_output().unwrap();
    let code = output.status.code().expect("it was not killed");
    Ended { code, out: output.stdout, said: String::from_utf8(output.stderr).unwrap() }
}

/// Runs a command that reads `input`.
pub(crate) fn feed(url: &str, arguments: &[&str], input: &[u8]) -> Ended {
    let mut child = command(url, arguments).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let done = ended(child);
    feeder.join().unwrap().unwrap();
    done
}

/// A node's URL, for short.
pub(crate) fn at(node: &Node) -> &str {
    &node.server.url
}

/// A folder with the file `name` in it, and the file's path.
fn file(name: &str, bytes: &[u8]) -> (TempDir, String) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let path = text(&path);
    (folder, path)
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// The id at the end of a link.
fn id_of(link: &str) -> &str {
    link.rsplit_once("/blobs/").unwrap().1
}

/// Uploads bytes; gives the id.
fn uploaded(node: &Node, name: &str, bytes: &[u8]) -> String {
    id_of(&node.upload(name, bytes)).to_owned()
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_a_folder_and_standard_input_are_put() {
    let node = Node::alone();
    let (_folder, path) = file("photo of a cat.jpg", &noise(300_000, 1));
    let put = run(at(&node), &["put", &path]).expect(0);
    assert!(put.lines().len() == 1 && put.text().starts_with(&format!("{}/blobs/", at(&node))), "{}", put.text());
    let answer = node.get(&format!("/blobs/{}", id_of(put.lines()[0])));
    assert!(answer.body == noise(300_000, 1));
    assert_eq!(answer.header("content-type"), "image/jpeg");
    assert!(answer.header("content-disposition").contains("photo of a cat.jpg"));

    let put = feed(at(&node), &["put", "-", "--name", "piped.txt", "--json"], &noise(200_000, 2)).expect(0);
    let described = put.json();
    assert_eq!((&described["file_name"], &described["size"], &described["path"]), (&"piped.txt".into(), &200_000.into(), &Value::Null));
    assert!(node.get(&format!("/blobs/{}", described["id"].as_str().unwrap())).body == noise(200_000, 2));
    let nameless = feed(at(&node), &["put", "-"], b"").expect(0);
    assert_eq!(node.get(&format!("/blobs/{}", id_of(nameless.lines()[0]))).body, b"");

    let folder = TempDir::new().unwrap();
    let files = [("a.txt", "1"), ("b/c/deep.txt", "22"), ("b/été 夏.txt", "333"), ("z", "")];
    std::fs::create_dir_all(folder.path().join("b/c")).unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let put = run(at(&node), &["put", &text(folder.path()), "--json"]).expect(0);
    let described: Vec<Value> = put.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(described.len(), files.len());
    for (entry, (name, bytes)) in described.iter().zip(files) {
        assert_eq!(entry["path"], text(&folder.path().join(name)), "the path it came from");
        assert_eq!(entry["file_name"], name.rsplit('/').next().unwrap(), "a blob knows no folders");
        assert_eq!(node.get(&format!("/blobs/{}", entry["id"].as_str().unwrap())).text(), bytes);
    }
    let links = run(at(&node), &["put", &text(folder.path())]).expect(0);
    assert!(links.lines().iter().all(|line| line.starts_with(at(&node)) && !line.contains(' ')), "in a pipe a line is a link");
}

#[test]
fn several_files_give_their_links_in_the_order_in_which_they_were_given() {
    let node = Node::alone();
    let folder = TempDir::new().unwrap();
    // The first takes longest, so its link must be waited for.
    let sizes = [6_000_000, 10, 70_000, 0, 1_000_000, 5, 200_000, 1];
    let paths: Vec<String> = sizes.iter().enumerate().map(|(n, _)| text(&folder.path().join(format!("{}.bin", 9 - n)))).collect();
    for (path, size) in paths.iter().zip(sizes) {
        std::fs::write(path, noise(size, 7)).unwrap();
    }
    let put = run(at(&node), &[vec!["put"], paths.iter().map(String::as_str).collect()].concat()).expect(0);
    let links = put.lines();
    assert_eq!(links.len(), sizes.len());
    for (link, size) in links.iter().zip(sizes) {
        assert_eq!(node.head(&format!("/blobs/{}", id_of(link))).header("content-length"), size.to_string());
    }
    // A file that cannot be read is told before anything is sent.
    let before = node.root();
    assert!(run(at(&node), &["put", &paths[0], "/does/not/exist"]).expect(1).said.contains("/does/not/exist"));
    assert_eq!(node.root(), before);
}

#[test]
fn blobs_are_got_into_a_file_to_standard_output_and_several_into_a_folder() {
    let node = Node::alone();
    let folder = TempDir::new().unwrap();
    let bytes = noise(3_000_000, 1);
    let id = uploaded(&node, "film.mp4", &bytes);
    let link = format!("{}/blobs/{id}", at(&node));
    let target = folder.path().join("copy.mp4");
    run(at(&node), &["get", &id, "-o", &text(&target)]).expect(0);
    assert!(std::fs::read(&target).unwrap() == bytes);
    assert!(run(at(&node), &["get", &id, "-o", &text(&target)]).expect(0).said.contains("complete already"));
    assert!(run(at(&node), &["get", &id]).expect(0).out == bytes, "standard output is the default");
    assert!(run("http://127.0.0.1:1", &["get", &link, "-o", "-"]).expect(0).out == bytes, "a link names its node");
    run(at(&node), &["get", &id, "-o", "/dev/null"]).expect(0);

    let twin = uploaded(&node, "film.mp4", b"another one");
    let nameless = id_of(run(at(&node), &["put", "/dev/null"]).expect(0).lines()[0]).to_owned();
    let into = folder.path().join("into");
    std::fs::create_dir(&into).unwrap();
    let got = run(at(&node), &["get", &link, &twin, &nameless, "-o", &text(&into)]).expect(0);
    let paths: Vec<PathBuf> = got.lines().into_iter().map(PathBuf::from).collect();
    assert_eq!(paths[..2], [into.join("film.mp4"), into.join(format!("{twin}-film.mp4"))], "no file is written over");
    assert!(std::fs::read(&paths[0]).unwrap() == bytes);
    assert_eq!(std::fs::read(&paths[1]).unwrap(), b"another one");
    assert_eq!(std::fs::read(&paths[2]).unwrap(), b"");
    assert_eq!(names(&into).len(), 3, "nothing else is left");
    run(at(&node), &["get", &id, &twin]).expect(2);
}

#[test]
fn a_download_that_was_killed_goes_on_where_it_was() {
    let node = Node::alone();
    let bytes = noise(12 << 20, 1);
    let id = uploaded(&node, "big.bin", &bytes);
    let folder = TempDir::new().unwrap();
    let (target, part) = (folder.path().join("big.bin"), folder.path().join("big.bin.part"));
    let length = || std::fs::metadata(&part).map_or(0, |metadata| metadata.len());

    let slow = Middleman::start(&node, Hold::After(6 << 20));
    let mut killed = command(&slow.url, &["get", &id, "-o", &text(&target)]).spawn().unwrap();
    eventually("half of it is on disk", || length() >= 4 << 20);
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(names(folder.path()), ["big.bin.part"]);
    assert!(std::fs::read(&part).unwrap() == bytes[..usize::try_from(length()).unwrap()], "a part is a prefix");

    let resumed_at = length();
    let recorded = Middleman::start(&node, Hold::Never);
    run(&recorded.url, &["get", &id, "-o", &text(&target)]).expect(0);
    assert!(std::fs::read(&target).unwrap() == bytes);
    assert_eq!(names(folder.path()), ["big.bin"]);
    assert!(recorded.requested().contains(&format!("range: bytes={resumed_at}-")), "{}", recorded.requested());

    // A part that is the beginning of something else is found out, and one that is whole only gets its name.
    std::fs::remove_file(&target).unwrap();
    std::fs::write(&part, noise(1 << 20, 99)).unwrap();
    assert!(run(at(&node), &["get", &id, "-o", &text(&target)]).expect(0).said.contains("starting over"));
    std::fs::rename(&target, &part).unwrap();
    run(at(&node), &["get", &id, "-o", &text(&target)]).expect(0);
    assert!(std::fs::read(&target).unwrap() == bytes);
    assert_eq!(names(folder.path()), ["big.bin"]);
}

#[test]
fn a_download_from_several_nodes_survives_the_death_of_one() {
    let mut network = Network::of(3);
    let bytes = noise(24 << 20, 1);
    let answer = network.nodes[0].put("/big.bin?copies=3&timeout=25", &bytes);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let id = id_of(answer.text().trim()).to_owned();
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("big.bin");
    // The third gives two megabytes on each connection, so that it dies in the middle and not after its work.
    let slow = Middleman::start(&network.nodes[2], Hold::After(2 << 20));
    let from = [at(&network.nodes[0]), at(&network.nodes[1]), &slow.url].join(",");
    let mut getting = command(at(&network.nodes[0]), &["get", &id, "-o", &text(&target), "--from", &from]).spawn().unwrap();
    eventually("the third has begun", || slow.is_holding());
    assert!(getting.try_wait().unwrap().is_none(), "it waits for the third");
    network.nodes[2].server.kill();
    slow.release();
    ended(getting).expect(0);
    assert!(std::fs::read(&target).unwrap() == bytes);
    assert_eq!(names(folder.path()), ["big.bin"]);

    // With the dead one first in the list, the others do.
    let from = [&slow.url, at(&network.nodes[1]), at(&network.nodes[0])].join(",");
    let elsewhere = folder.path().join("again.bin");
    run(at(&network.nodes[0]), &["get", &id, "-o", &text(&elsewhere), "--from", &from]).expect(0);
    assert!(std::fs::read(&elsewhere).unwrap() == bytes);
}

#[test]
fn wrong_bytes_never_get_the_final_name() {
    let node = Node::alone();
    let id = uploaded(&node, "film.mp4", &noise(3_000_000, 1));
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("film.mp4");
    let liar = Middleman::start(&node, Hold::SpoilAt(200_000));
    let got = run(&liar.url, &["get", &id, "-o", &text(&target)]).expect(1);
    assert!(got.said.contains("do not match"), "{}", got.said);
    assert!(names(folder.path()).is_empty(), "neither the file nor its part is left");

    std::fs::write(&target, "what was there before").unwrap();
    run(&liar.url, &["get", &id, "-o", &text(&target)]).expect(1);
    run(&liar.url, &["get", &id, "-o", &text(&target), "--from", &[&liar.url, at(&node)].map(String::from).join(",")]).expect(1);
    assert_eq!(std::fs::read(&target).unwrap(), b"what was there before");
    assert_eq!(names(folder.path()), ["film.mp4"]);
    assert!(run(&liar.url, &["get", &id, "-o", "-"]).expect(1).said.contains("do not use"));
}

#[test]
fn a_list_shows_everything_by_pages_by_name_and_what_was_deleted() {
    let node = Node::alone();
    let ids: Vec<String> = (0..25).map(|n| uploaded(&node, &format!("{}-{n:02}.txt", ["a", "b"][n % 2]), b"x")).collect();
    let list = |arguments: &[&str]| run(at(&node), &[&["ls"], arguments].concat()).expect(0);

    let all = list(&["--all"]);
    assert_eq!(all.lines().len(), 25);
    assert!(all.lines()[0].contains(&ids[24]), "the newest first");
    assert!(ids.iter().all(|id| all.text().contains(id)));
    let page = list(&["--limit", "10"]);
    assert_eq!(page.lines().len(), 10);
    let cursor = page.said.split("--after ").nth(1).expect("the note names the cursor").trim();
    let next = list(&["--limit", "10", "--after", cursor]);
    assert!(next.lines().len() == 10 && next.lines().iter().all(|line| !page.lines().contains(line)));

    let named = list(&["--name", "b-", "--all"]);
    assert_eq!(named.lines().len(), 12);
    let places: Vec<&str> = named.lines().iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert!(places.is_sorted() && places.iter().all(|name| name.starts_with("b-")), "{places:?}");
    let json = list(&["--all", "--json"]).json();
    assert_eq!((json["blobs"].as_array().unwrap().len(), &json["next"]), (25, &Value::Null));

    assert_eq!(list(&["--deleted"]).text(), "");
    run(at(&node), &["rm", &ids[3], &format!("http://127.0.0.1:1/blobs/{}", ids[4])]).expect(0);
    let deleted = list(&["--deleted"]);
    assert!(deleted.lines().len() == 2 && deleted.text().contains(&ids[3]) && deleted.text().contains(&ids[4]));
    assert_eq!(list(&["--all"]).lines().len(), 23);
    run(at(&node), &["rm", &ids[3], &ids[5]]).expect(3);
    assert_eq!(list(&["--all"]).lines().len(), 22, "the second was deleted all the same");
    run(at(&node), &["ls", "--after", "nonsense"]).expect(1);
}

#[test]
fn versions_say_why_the_winner_won_and_the_loser_can_be_got() {
    let (a, b) = (Node::alone(), Node::alone());
    let path = format!("/blobs/{UNKNOWN}");
    a.put_with(&path, &[("content-type", "text/plain")], b"from a");
    b.put_with(&path, &[("content-type", "text/plain")], b"from b");
    a.introduce(&b);
    eventually("they met", || a.get(&format!("{path}/versions")).json()["versions"].as_array().unwrap().len() == 2);
    let shown = run(at(&a), &["versions", UNKNOWN]).expect(0);
    assert!(shown.lines()[0].starts_with("winner") && shown.lines()[0].contains(b.id()), "{}", shown.text());
    assert!(shown.lines()[1].starts_with("sibling") && shown.lines()[1].contains(a.id()));
    assert!(shown.said.contains("stamp"), "the reason: {}", shown.said);

    let json = run(at(&a), &["versions", UNKNOWN, "--json"]).expect(0).json();
    for entry in json["versions"].as_array().unwrap() {
        for digest in ["blake3", "sha256"] {
            assert_eq!(entry[digest].as_str().unwrap().len(), 64, "{digest} in {entry}");
        }
    }
    let loser = json["versions"][1]["version"].as_str().unwrap();
    assert_eq!(run(at(&a), &["get", &format!("{}{path}?version={loser}", at(&a))]).expect(0).out, b"from a");
    assert_eq!(run(at(&a), &["get", UNKNOWN]).expect(0).out, b"from b");
}

#[test]
fn holders_members_status_and_doctor_show_the_network() {
    let network = Network::of(2);
    let (a, b) = (&network.nodes[0], &network.nodes[1]);
    let (_folder, path) = file("a.txt", b"a");
    let put = run(at(a), &["put", &path, "--copies", "2", "--timeout", "20"]).expect(0);
    assert_eq!(put.said, "", "both have it");
    let id = id_of(put.lines()[0]);
    let holders = run(at(b), &["holders", id]).expect(0);
    assert!(holders.lines().len() == 2 && holders.text().contains(a.id()) && holders.text().contains(at(b)), "{}", holders.text());
    assert_eq!(run(at(a), &["holders", id, "--json"]).expect(0).json()["holders"].as_array().unwrap().len(), 2);
    let more = run(at(a), &["put", &path, "--copies", "3", "--timeout", "1"]).expect(0);
    assert!(more.said.contains("on 2 of 3 nodes"), "stored, and said that copies are missing: {}", more.said);

    let status = run(at(a), &["status", "--json"]).expect(0).json();
    assert_eq!((status["id"].as_str(), status["live_members"].as_u64()), (Some(a.id()), Some(2)));
    assert!(status["disk"]["free"].as_u64().unwrap() > 0 && status["disk"]["reserve"].as_u64().unwrap() > 0, "{status}");
    assert!(run(at(a), &["status"]).expect(0).text().contains("disk.free"));

    let members = run(at(a), &["members"]).expect(0);
    assert!(members.lines().len() == 3 && members.text().contains(b.id()) && !members.text().contains("dead"), "{}", members.text());
    let mut watch = command(at(a), &["members", "--watch", "--json"]).spawn().unwrap();
    for line in BufReader::new(watch.stdout.take().unwrap()).lines().take(2) {
        let seen: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!(seen["members"].as_array().unwrap().len(), 2);
    }
    watch.kill().unwrap();
    watch.wait().unwrap();

    let bootstrap = ["--bootstrap", &network.bootstrap.url];
    let healthy = run(at(a), &[&["doctor"], &bootstrap[..]].concat()).expect(0);
    for check in ["node", "clock", "ready", "version", "disk", "members", "bootstrap"] {
        assert!(healthy.lines().iter().any(|line| line.starts_with("fine") && line.contains(check)), "{check} in {}", healthy.text());
    }
}

#[test]
fn doctor_names_a_remedy_for_what_is_wrong() {
    let mut network = Network::of(2);
    network.bootstrap.kill();
    network.nodes[1].server.kill();
    let bootstrap = ["--bootstrap", &network.bootstrap.url];
    let findings = |url: &str, code: i32| {
        let done = run(url, &[&["doctor", "--json"], &bootstrap[..]].concat());
        (done.code == code).then(|| done.json())
    };
    let verdict = |json: &Value, check: &str| {
        let found = json["checks"].as_array().unwrap().iter().find(|finding| finding["check"] == check).cloned().unwrap();
        let is_fine = found["verdict"] == "fine";
        assert_eq!(found["remedy"].is_null(), is_fine, "{found}");
        found["verdict"].as_str().unwrap().to_owned()
    };
    eventually("a dead member is worth a warning", || {
        findings(at(&network.nodes[0]), 0)
            .is_some_and(|json| verdict(&json, "members") == "warning" && verdict(&json, "bootstrap") == "warning")
    });
    let dead = findings(at(&network.nodes[1]), 5).expect("a node that does not answer is 5");
    assert_eq!(verdict(&dead, "node"), "fault");
    let full = Node::start(&["--no-bootstrap", "--reserve", "1024TiB"]);
    let json = findings(at(&full), 1).expect("a full disk is 1");
    assert_eq!(verdict(&json, "disk"), "fault");
    let (_folder, path) = file("a.txt", b"a");
    run(at(&full), &["put", &path]).expect(1);
}

#[test]
fn a_node_with_a_write_token_wants_it_for_writing_only() {
    let folder = TempDir::new().unwrap();
    let secret = folder.path().join("token");
    std::fs::write(&secret, "s3cret\n").unwrap();
    let node = Node::start(&["--no-bootstrap", "--write-token", &text(&secret)]);
    let path = folder.path().join("a.bin");
    for bytes in [b"a".to_vec(), noise(20 << 20, 1)] {
        std::fs::write(&path, &bytes).unwrap();
        let path = text(&path);
        let refused = run(at(&node), &["put", &path]).expect(1);
        assert!(refused.said.contains("--token"), "{}", refused.said);
        run(at(&node), &["put", &path, "--token", "wrong"]).expect(1);
        let put = run(at(&node), &["put", &path, "--token", "s3cret"]).expect(0);
        let id = id_of(put.lines()[0]);
        assert!(run(at(&node), &["get", id]).expect(0).out == bytes, "reading needs no token");
        run(at(&node), &["rm", id]).expect(1);
        let removed = ended(command(at(&node), &["rm", id]).env("GOSSIP_CDN_TOKEN", "s3cret").spawn().unwrap());
        assert!(!removed.expect(0).said.contains("s3cret"));
    }
    assert!(!run(at(&node), &["put", "--help"]).expect(0).text().contains("s3cret"));
}

#[test]
fn the_exit_code_says_how_it_went() {
    let mut node = Node::alone();
    let (_folder, path) = file("a.txt", b"a");
    run(at(&node), &["put", &path]).expect(0);
    run(at(&node), &["put", "/does/not/exist"]).expect(1);
    for wrong in [&["fly"][..], &["get"], &["get", "x"], &["put", "-", "-"], &["ls", "--node", "ftp://x"], &["put", &path, "--copies", "0"]]
    {
        run(at(&node), wrong).expect(2);
    }
    for command in ["get", "rm", "versions", "holders"] {
        run(at(&node), &[command, UNKNOWN]).expect(3);
    }
    let id = uploaded(&node, "b.txt", b"b");
    run(at(&node), &["rm", &id]).expect(0);
    for command in ["get", "rm", "holders"] {
        run(at(&node), &[command, &id]).expect(3);
    }
    run(at(&node), &["versions", &id]).expect(0);

    let id = uploaded(&node, "big.bin", &noise(12 << 20, 1));
    let slow = Middleman::start(&node, Hold::After(4 << 20));
    let getting = command(&slow.url, &["get", &id]).stdout(Stdio::null()).spawn().unwrap();
    eventually("it is in the middle", || slow.is_holding());
    assert_eq!(node.put(&format!("/blobs/{id}"), &noise(12 << 20, 2)).status, 200);
    slow.cut();
    let conflict = ended(getting).expect(4);
    assert!(conflict.said.contains("replaced"), "{}", conflict.said);

    node.server.kill();
    for arguments in
        [&["get", UNKNOWN][..], &["put", &path], &["ls"], &["rm", UNKNOWN], &["status"], &["members"], &["forget", UNKNOWN], &["doctor"]]
    {
        run(at(&node), arguments).expect(5);
    }
}

#[test]
fn the_help_of_every_command_has_an_example_and_every_shell_its_completions() {
    let nowhere = "http://127.0.0.1:1";
    let commands =
        ["node", "demo", "put", "get", "ls", "rm", "versions", "holders", "status", "members", "forget", "doctor", "completions"];
    let overview = run(nowhere, &["--help"]).expect(0);
    for command in commands {
        assert!(overview.lines().iter().any(|line| line.trim_start().starts_with(command)), "{command} in {}", overview.text());
        for flag in ["--help", "-h"] {
            let help = run(nowhere, &[command, flag]).expect(0);
            assert!(help.text().contains(&format!("Example: gossip-cdn {command}")), "{}", help.text());
        }
    }
    let version = run(nowhere, &["--version"]).expect(0);
    assert_eq!(version.text().trim(), concat!("gossip-cdn ", env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish"] {
        let script = run(nowhere, &["completions", shell]).expect(0);
        assert!(commands.iter().all(|command| script.text().contains(command)), "{shell}");
    }
    let script = run(nowhere, &["completions", "bash"]).expect(0);
    let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
    bash.stdin.take().unwrap().write_all(&script.out).unwrap();
    assert!(bash.wait().unwrap().success(), "bash reads its completions");
    let help = Command::new(bootstrap_binary()).arg("--help").output().unwrap();
    assert!(help.status.success() && !help.stdout.is_empty());
}

/// Bytes of real files in [`a_folder_of_real_files_put_at_one_node_and_got_from_another_is_the_same`] at most.
const FOLDER_BYTES: u64 = 60 << 20;
/// Files in it.
const FOLDER_FILES: usize = 240;

/// Copies real files of many kinds and sizes of this machine into `folder`, and makes what is lacking.
fn collect(folder: &Path) {
    let mut left = FOLDER_BYTES;
    let mut copied = 0;
    for root in ["/usr/share/doc", "/usr/share", "/usr/bin", "/usr/lib"] {
        // No kind of file and no folder may crowd out the others.
        let mut kinds: BTreeMap<(PathBuf, String), usize> = BTreeMap::new();
        let mut taken = 0;
        for entry in WalkDir::new(root).sort_by_file_name().into_iter().take(20_000).flatten() {
            let kind = entry.path().extension().map_or_else(String::new, |kind| kind.to_string_lossy().into_owned());
            let near: PathBuf = entry.path().components().take(5).collect();
            let size = entry.metadata().map_or(0, |metadata| metadata.len());
            let seen = kinds.entry((near, kind)).or_default();
            if !entry.file_type().is_file() || size > left.min(8 << 20) || *seen >= 2 || taken >= FOLDER_FILES / 4 - 5 {
                continue;
            }
            let target = folder.join(entry.path().strip_prefix("/").unwrap());
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            // Some may not be read by whoever runs the tests; one may be there already, from another root.
            if target.exists() || std::fs::copy(entry.path(), &target).is_err() {
                continue;
            }
            *seen += 1;
            taken += 1;
            copied += 1;
            left -= size;
        }
    }
    std::fs::write(folder.join("empty"), "").unwrap();
    std::fs::write(folder.join("été 夏 & \"quoted\" #1?.txt"), "a name").unwrap();
    for n in copied..FOLDER_FILES {
        let kind = ["txt", "jpg", "mp4", "json", "bin"][n % 5];
        std::fs::write(folder.join(format!("made-{n}.{kind}")), noise(n * n * 3, u64::try_from(n).unwrap())).unwrap();
    }
}

#[test]
fn a_folder_of_real_files_put_at_one_node_and_got_from_another_is_the_same() {
    let network = Network::of(2);
    let (from, into) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    collect(from.path());
    let put = run(at(&network.nodes[0]), &["put", &text(from.path()), "--json", "--copies", "2", "--timeout", "25"]).expect(0);
    let described: Vec<Value> = put.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(described.len() >= 200, "{}", described.len());
    assert_eq!(described.len(), WalkDir::new(from.path()).into_iter().flatten().filter(|entry| entry.file_type().is_file()).count());

    let ids: Vec<&str> = described.iter().map(|entry| entry["id"].as_str().unwrap()).collect();
    let folder = text(into.path());
    let got = run(at(&network.nodes[1]), &[vec!["get", "-o", &folder], ids].concat()).expect(0);
    assert_eq!(got.lines().len(), described.len());
    for (entry, path) in described.iter().zip(got.lines()) {
        let original = entry["path"].as_str().unwrap();
        assert!(std::fs::read(original).unwrap() == std::fs::read(path).unwrap(), "{original} and {path}");
    }
    let mut parts = WalkDir::new(into.path()).into_iter().flatten();
    assert!(!parts.any(|entry| entry.path().extension().is_some_and(|kind| kind == "part")));
    network.converge();
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let node = Node::alone();
    let id = uploaded(&node, "big.bin", &noise(12 << 20, 1));
    let mut getting = command(at(&node), &["get", &id]).spawn().unwrap();
    let mut first = [0; 100];
    let mut output = getting.stdout.take().unwrap();
    output.read_exact(&mut first).unwrap();
    assert_eq!(first, noise(100, 1)[..]);
    drop(output);
    assert_eq!(ended(getting).expect(0).said, "");
}
