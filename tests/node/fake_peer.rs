//! A peer that lies, stutters, or belongs elsewhere changes nothing, and is counted.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use gossip_cdn_protocol::{ContentHash, NodeId};
use serde_json::{Value, json};

use gossip_cdn_cluster::{Answer, Node, eventually, noise, send};

const STAMP: &str = "0198000000000000";
pub const BLOB: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

/// How the fake answers requests for payloads and exchanges.
#[derive(Clone, Default)]
struct Manners {
    /// The body of an answer to `/gossip/payload` and `/gossip/payloads`, sent as it is.
    payload: Vec<u8>,
    /// Declares more bytes than are sent, and closes.
    cuts_short: bool,
    /// Sent instead of a digest.
    exchange: Option<String>,
}

/// A process of the test's own that speaks the protocol as badly as it is told to.
pub struct FakePeer {
    url: String,
    id: NodeId,
    manners: Arc<Mutex<Manners>>,
}

impl FakePeer {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let manners = Arc::new(Mutex::new(Manners::default()));
        let id = NodeId::from_public_key(&[7; 32]);
        let (served, address) = (Arc::clone(&manners), url.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (manners, address) = (Arc::clone(&served), address.clone());
                std::thread::spawn(move || drop(serve(stream, &manners, id, &address)));
            }
        });
        Self { url, id, manners }
    }

    fn behave(&self, manners: Manners) {
        *self.manners.lock().unwrap() = manners;
    }

    fn member(&self) -> Value {
        json!({"id": self.id, "address": self.url, "incarnation": 1, "state": "alive", "key": "07".repeat(32)})
    }

    fn envelope(&self, body: Value) -> Value {
        envelope(self.id, &body)
    }

    /// Makes itself known to a node.
    pub fn meet(&self, node: &Node) {
        let answer = post(node, "members", &self.envelope(json!({"members": [self.member()], "full": false})));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Tells a node of a blob with that payload.
    pub fn tell(&self, node: &Node, hash: ContentHash, size: usize) {
        let answer = post(node, "rumors", &self.envelope(json!({"records": [record(self.id, hash, size)]})));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn envelope(sender: NodeId, body: &Value) -> Value {
    json!({"v": 1, "c": "gossip-cdn", "n": sender, "i": 1, "b": body})
}

fn record(origin: NodeId, hash: ContentHash, size: usize) -> Value {
    let content = json!({"hash": hash, "sha256": "00".repeat(32), "size": size, "media_type": "text/plain"});
    json!({"id": BLOB, "versions": [{"stamp": STAMP, "origin": origin, "content": content, "clock": {origin.to_string(): STAMP}}]})
}

fn post(node: &Node, kind: &str, message: &Value) -> Answer {
    node.post_with(&format!("/gossip/{kind}"), &[("content-type", "application/json")], message.to_string().as_bytes())
}

fn serve(stream: TcpStream, manners: &Mutex<Manners>, id: NodeId, address: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        while reader.read_line(&mut line)? > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let manners = manners.lock().unwrap().clone();
        let member = json!({"id": id, "address": address, "incarnation": 1, "state": "alive", "key": "07".repeat(32)});
        let answer = match first.split(' ').nth(1).unwrap() {
            "/gossip/exchange" => {
                let root = format!("{}.0", "0".repeat(32));
                manners.exchange.unwrap_or_else(|| envelope(id, &json!({"r": root, "m": "0000000000000000"})).to_string()).into_bytes()
            }
            "/gossip/members" => envelope(id, &json!({"members": [member]})).to_string().into_bytes(),
            "/gossip/records" => envelope(id, &json!({"give": [], "seen": 0})).to_string().into_bytes(),
            "/gossip/partitions" => envelope(id, &json!({"partitions": [], "items": ""})).to_string().into_bytes(),
            "/gossip/payload" | "/gossip/payloads" => manners.payload,
            _ => envelope(id, &json!({})).to_string().into_bytes(),
        };
        let declared = answer.len() + if manners.cuts_short { 1000 } else { 0 };
        write!(writer, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {declared}\r\n\r\n")?;
        writer.write_all(&answer)?;
        if manners.cuts_short {
            return Ok(());
        }
    }
}

/// How often a node counted that kind of misbehaviour, by whomever.
fn counted(node: &Node, kind: &str) -> u64 {
    let metrics = node.get("/metrics").text();
    let lines =
        metrics.lines().filter(|line| line.starts_with("gossip_cdn_misbehaviour_total{") && line.contains(&format!("kind=\"{kind}\"")));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

#[test]
fn wrong_bytes_are_never_served_and_are_counted() {
    let (node, fake) = (Node::alone(), FakePeer::start());
    let hash = ContentHash::of(b"what was promised");
    fake.behave(Manners { payload: frame(b"something else 17"), ..Manners::default() });
    fake.meet(&node);
    fake.tell(&node, hash, 17);
    eventually("the wrong bytes are counted", || counted(&node, "wrong_bytes") > 0);
    eventually("the record is here", || node.get(&format!("/blobs/{BLOB}")).status != 404);
    let answer = node.get(&format!("/blobs/{BLOB}"));
    answer.problem(503);
    assert!(!answer.header("retry-after").is_empty());
    assert_eq!(node.status()["payload_bytes"], 0);

    fake.behave(Manners { payload: frame(b"what was promised"), ..Manners::default() });
    eventually("the right bytes are taken from the same peer", || node.get(&format!("/blobs/{BLOB}")).body == b"what was promised");
}

#[test]
fn wrong_bytes_of_a_large_payload_are_found_and_another_holder_is_asked() {
    let (node, holder, fake) = (Node::alone(), Node::alone(), FakePeer::start());
    let bytes = noise(3 << 20, 5);
    let hash = ContentHash::of(&bytes);
    fake.behave(Manners { payload: noise(1 << 20, 6), ..Manners::default() });
    fake.meet(&node);
    fake.tell(&node, hash, bytes.len());
    eventually("the wrong bytes are counted", || counted(&node, "wrong_bytes") > 0);
    assert_eq!(node.status()["payload_bytes"], 0);

    holder.upload("same.bin", &bytes);
    node.introduce(&holder);
    eventually("the bytes came from the holder", || node.get(&format!("/blobs/{BLOB}")).body == bytes);
}

#[test]
fn a_short_body_is_counted_and_nothing_of_it_is_served() {
    for size in [17, 3 << 20] {
        let (node, fake) = (Node::alone(), FakePeer::start());
        let hash = ContentHash::of(&noise(size, 9));
        fake.behave(Manners { payload: frame(b"short")[..8].to_vec(), cuts_short: true, ..Manners::default() });
        fake.meet(&node);
        fake.tell(&node, hash, size);
        eventually("the record is here", || node.get(&format!("/blobs/{BLOB}")).status != 404);
        eventually("the short body is counted", || counted(&node, "short_body") + counted(&node, "wrong_bytes") > 0);
        node.get(&format!("/blobs/{BLOB}")).problem(503);
        assert_eq!(node.status()["payload_bytes"], 0);
    }
}

#[test]
fn junk_in_an_answer_is_counted_and_changes_nothing() {
    let (node, fake) = (Node::alone(), FakePeer::start());
    node.upload("a.txt", b"a");
    let root = node.root();
    for junk in ["not json", "{}", r#"{"v":1,"c":"gossip-cdn","n":"x","i":1,"b":{}}"#] {
        let before = counted(&node, "malformed");
        fake.behave(Manners { exchange: Some(junk.into()), ..Manners::default() });
        fake.meet(&node);
        eventually("the junk is counted", || counted(&node, "malformed") > before);
    }
    let elsewhere =
        json!({"v": 1, "c": "elsewhere", "n": fake.id, "i": 1, "b": {"r": format!("{}.9", "1".repeat(32)), "m": "0000000000000000"}});
    fake.behave(Manners { exchange: Some(elsewhere.to_string()), ..Manners::default() });
    eventually("the foreign answer is counted", || counted(&node, "foreign") > 0);
    assert_eq!(node.root(), root);
}

#[test]
fn bad_messages_are_refused_each_in_its_way_and_change_nothing() {
    let (node, fake) = (Node::alone(), FakePeer::start());
    node.upload("a.txt", b"a");
    let root = node.root();
    let hash = ContentHash::of(b"x");
    let json = [("content-type", "application/json")];

    node.post_with("/gossip/exchange", &json, b"{\"v\":").problem(400);
    node.post_with("/gossip/rumors", &json, b"\xff\xfe").problem(400);
    node.post_with("/gossip/exchange", &[("content-type", "text/plain")], b"{}").problem(415);
    node.post_with("/gossip/records", &json, &vec![b' '; 5 << 20]).problem(413);

    let message = |change: fn(&mut Value)| {
        let mut message = fake.envelope(json!({"records": [record(fake.id, hash, 1)]}));
        change(&mut message);
        message
    };
    let foreign = post(&node, "rumors", &message(|message| message["c"] = "elsewhere".into()));
    assert!(foreign.problem(409).contains("elsewhere"));
    let newer = post(&node, "rumors", &message(|message| message["v"] = 99.into()));
    assert!(newer.problem(426).contains("99"));
    post(&node, "rumors", &message(|message| message["b"]["records"][0]["versions"][0]["stamp"] = "0198000000000001".into())).problem(400);
    post(&node, "rumors", &message(|message| message["b"]["records"][0]["versions"] = json!([]))).problem(400);
    post(&node, "rumors", &message(|message| message["b"]["records"][0]["id"] = "x".into())).problem(400);
    let mut claim = fake.member();
    claim["key"] = "08".repeat(32).into();
    post(&node, "members", &fake.envelope(json!({"members": [claim]}))).problem(400);
    assert_eq!(send("GET", &node.url("/gossip/exchange"), &[], None).status, 405);

    assert_eq!(node.root(), root);
    assert_eq!(node.get("/members").json()["members"].as_array().unwrap().len(), 1);
    assert!(counted(&node, "malformed") >= 6, "{}", node.get("/metrics").text());
    assert!(counted(&node, "foreign") >= 2);
    assert!(node.status()["misbehaviour"].to_string().contains("127.0.0.1"), "counted by sender: {}", node.status());
}
