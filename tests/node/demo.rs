//! The demo: a network in one process that goes on where it was.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use gossip_cdn_cluster::{Answer, bootstrap_binary, eventually, node_binary, noise, refusal, send};

/// A demo that runs.
struct Demo {
    child: Child,
    output: BufReader<ChildStdout>,
    bootstrap: String,
    /// Base URL and id of each node.
    nodes: Vec<(String, String)>,
}

impl Demo {
    /// Starts a demo of three nodes on free ports, and reads its links.
    fn start(data: &Path) -> Self {
        let mut child = demo(&["--base-port", "0", "--data", data.to_str().unwrap()]).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut links = (0..4).map(|_| {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            let (url, who) = line.trim().strip_prefix("listening on ").and_then(|rest| rest.split_once(' ')).expect("a link a line");
            (url.to_owned(), who.to_owned())
        });
        let (bootstrap, who) = links.next().unwrap();
        assert_eq!(who, "bootstrap");
        let nodes = links.map(|(url, who)| (url, who.strip_prefix("node ").unwrap().to_owned())).collect();
        Self { child, output, bootstrap, nodes }
    }

    fn url(&self, node: usize) -> &str {
        &self.nodes[node].0
    }

    fn ids(&self) -> Vec<&str> {
        self.nodes.iter().map(|(_, id)| id.as_str()).collect()
    }

    fn get(&self, node: usize, path: &str) -> Answer {
        send("GET", &format!("{}{path}", self.url(node)), &[], None)
    }

    /// Ctrl-C.
    fn interrupt(mut self) {
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        let mut more = String::new();
        self.output.read_to_string(&mut more).unwrap();
        assert_eq!(more, "", "nothing but the links is on standard output");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn demo(flags: &[&str]) -> Command {
    let mut command = Command::new(node_binary());
    command.arg("demo").args(flags).stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

#[test]
fn an_upload_at_one_node_of_a_demo_is_read_at_the_others_and_a_demo_goes_on_where_it_was() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("demo");
    let demo = Demo::start(&data);
    let mut blobs = Vec::new();
    for (name, bytes) in [("photo.jpg", noise(30_000, 1)), ("film.mp4", noise(3 << 20, 2)), ("note.txt", b"note".to_vec())] {
        let answer = send("PUT", &format!("{}/{name}", demo.url(0)), &[], Some(&bytes));
        assert_eq!(answer.status, 201, "{}", answer.text());
        let path = answer.text().trim().strip_prefix(demo.url(0)).unwrap().to_owned();
        let first = demo.get(0, &path);
        assert!(first.body == bytes && first.header("content-disposition").contains(name));
        for node in 1..3 {
            eventually("the blob is readable at the others", || demo.get(node, &path).status == 200);
            let there = demo.get(node, &path);
            assert!(there.body == bytes, "{name} at {}", demo.url(node));
            for header in ["etag", "content-type", "content-disposition", "version"] {
                assert_eq!(there.header(header), first.header(header), "{header}");
            }
        }
        blobs.push((path, first));
    }
    let page = send("GET", &format!("{}/network", demo.bootstrap), &[], None).json();
    assert_eq!(page["nodes"].as_array().unwrap().len(), 3, "{page}");
    let ids: Vec<String> = demo.ids().into_iter().map(str::to_owned).collect();
    demo.interrupt();

    let again = Demo::start(&data);
    assert_eq!(again.ids(), ids, "the same nodes");
    for (path, first) in &blobs {
        for node in 0..3 {
            let there = again.get(node, path);
            assert_eq!((there.status, there.header("version")), (200, first.header("version")));
            assert!(there.body == first.body);
        }
    }
    let answer = send("PUT", &format!("{}/later.txt", again.url(2)), &[], Some(b"later"));
    let path = answer.text().trim().strip_prefix(again.url(2)).unwrap().to_owned();
    eventually("the nodes have found each other again", || (0..2).all(|node| again.get(node, &path).body == b"later"));
    again.interrupt();
}

#[test]
fn a_demo_beside_another_one_in_the_same_folder_is_refused() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("demo");
    let running = Demo::start(&data);
    let said = refusal(&mut demo(&["--base-port", "0", "--data", data.to_str().unwrap()]));
    assert!(said.contains("--data"), "{said}");
    assert_eq!(running.get(0, "/healthz").status, 200);
    running.interrupt();
}

#[test]
fn a_busy_port_is_named_with_the_remedy() {
    let folder = tempfile::TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();

    let said = refusal(&mut demo(&["--base-port", &address.port().to_string(), "--data", data]));
    assert!(said.contains(&address.to_string()) && said.contains("--base-port") && !said.contains("--listen"), "{said}");
    // Now it is the port of the first node, unless that of the bootstrap node is taken as well.
    let said = refusal(&mut demo(&["--base-port", &(address.port() - 1).to_string(), "--data", data]));
    assert!(said.contains("127.0.0.1:") && said.contains("--base-port") && !said.contains("--listen"), "{said}");
    let said = refusal(Command::new(node_binary()).args(["node", "--listen", &address.to_string(), "--data", data]));
    assert!(said.contains(&address.to_string()) && said.contains("--listen"), "{said}");
    let said = refusal(Command::new(bootstrap_binary()).args(["--listen", &address.to_string(), "--data", data]));
    assert!(said.contains(&address.to_string()) && said.contains("--listen"), "{said}");
}
