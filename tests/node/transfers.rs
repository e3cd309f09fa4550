//! Large payloads from several holders, some of which die, to nodes that die themselves, and many small ones: each byte comes about once,
//! in few requests.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gossip_cdn_cluster::{Node, alive, eventually, noise};
use gossip_cdn_protocol::parts::PART;
use gossip_cdn_protocol::transfer::MAX_BATCH;

/// Enough parts for every holder to bring some before and after one dies.
const SIZE: u64 = 12 * PART + 12_345;
/// What a narrow road lets pass in a second.
const NARROW: u64 = 6 << 20;

/// The road to a node: it may be narrow, and counts the bytes of the node's answers.
struct Road {
    url: String,
    node: Arc<OnceLock<String>>,
    rate: Arc<AtomicU64>,
    passed: Arc<AtomicU64>,
}

impl Road {
    /// A road that leads nowhere yet, and is wide.
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let road = Self { url, node: Arc::default(), rate: Arc::new(u64::MAX.into()), passed: Arc::default() };
        let (node, rate, passed) = (Arc::clone(&road.node), Arc::clone(&road.rate), Arc::clone(&road.passed));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Some(Ok(node)) = node.get().map(TcpStream::connect) else { continue };
                let (asking, answering) = ((client.try_clone().unwrap(), node.try_clone().unwrap()), (node, client));
                let (rate, passed) = (Arc::clone(&rate), Arc::clone(&passed));
                std::thread::spawn(move || carry(asking, &AtomicU64::new(u64::MAX), &AtomicU64::new(0)));
                std::thread::spawn(move || carry(answering, &rate, &passed));
            }
        });
        road
    }

    /// A node at its end, known to others by it.
    fn node(&self) -> Node {
        let node = Node::start(&["--no-bootstrap", "--advertise", &self.url]);
        self.node.set(node.server.authority().to_owned()).unwrap();
        node
    }

    fn narrow(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
}

fn carry((mut from, mut to): (TcpStream, TcpStream), rate: &AtomicU64, passed: &AtomicU64) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        let length_64 = length as u64;
        std::thread::sleep(Duration::from_micros(length_64.saturating_mul(1_000_000) / rate.load(Ordering::Relaxed)));
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
        passed.fetch_add(length_64, Ordering::Relaxed);
    }
    // Whoever hears it may be gone.
    drop(to.shutdown(Shutdown::Both));
    drop(from.shutdown(Shutdown::Both));
}

fn bytes() -> Vec<u8> {
    noise(usize::try_from(SIZE).unwrap(), 7)
}

fn counted(node: &Node, name: &str) -> u64 {
    node.status()["transfers"][format!("payload_{name}")].as_u64().unwrap()
}

/// Requests for payloads that a node has sent.
fn fetches(node: &Node) -> u64 {
    node.status()["counters"]["fetches"].as_u64().unwrap()
}

fn holds(node: &Node) -> bool {
    node.status()["payloads"] == 1
}

/// What may come for so many bytes that are missing: 5 % more, and the part that a holder had under way when it died.
fn most(missing: u64) -> u64 {
    missing + missing / 20 + PART
}

#[test]
fn a_newcomer_takes_each_byte_once_from_several_holders_though_one_is_killed() {
    let roads = [Road::new(), Road::new(), Road::new()];
    let mut holders = [roads[0].node(), roads[1].node(), roads[2].node()];
    let bytes = bytes();
    let path = holders[0].upload("large.bin", &bytes);
    holders[0].introduce(&holders[1]);
    holders[0].introduce(&holders[2]);
    eventually("all three hold it", || holders.iter().all(holds));
    for node in &holders {
        eventually("they know each other", || alive(node) == 3);
    }

    roads.iter().for_each(|road| road.narrow(NARROW));
    let before = [roads[0].passed(), roads[1].passed(), roads[2].passed()];
    let newcomer = Node::alone();
    newcomer.introduce(&holders[2]);
    let brought = |n: usize| roads[n].passed() - before[n];
    eventually("each of them is sending", || (0..3).all(|n| brought(n) > PART / 4));
    assert!(!holds(&newcomer), "in the middle of it");
    holders[0].server.kill();
    eventually("it is here", || holds(&newcomer));
    assert!(newcomer.get(&path).body == bytes);
    let received = counted(&newcomer, "bytes_received");
    assert_eq!(counted(&newcomer, "bytes_kept"), SIZE);
    assert!(received <= most(SIZE), "{received} bytes for {SIZE}");
    assert_eq!((counted(&newcomer, "bytes_wrong"), counted(&newcomer, "bytes_resumed")), (0, 0));
    assert!((1..3).all(|n| brought(n) > 2 * PART), "the others brought the rest: {} and {}", brought(1), brought(2));
}

#[test]
fn a_node_killed_in_the_middle_fetches_only_what_is_missing() {
    let road = Road::new();
    let holder = road.node();
    let bytes = bytes();
    let path = holder.upload("large.bin", &bytes);
    road.narrow(2 * NARROW);
    let mut node = Node::alone();
    node.introduce(&holder);
    eventually("half of it is here", || counted(&node, "bytes_kept") > SIZE / 2);
    assert!(!holds(&node), "in the middle of it");
    let kept = counted(&node, "bytes_kept");
    node.server.kill();
    node.restart();
    eventually("it is here", || holds(&node));
    assert!(node.get(&path).body == bytes);
    let (resumed, received) = (counted(&node, "bytes_resumed"), counted(&node, "bytes_received"));
    assert!(resumed >= kept, "{resumed} of {kept} bytes were found again");
    assert_eq!(resumed + counted(&node, "bytes_kept"), SIZE);
    assert!(received <= most(SIZE - resumed), "{received} bytes for {}", SIZE - resumed);
    assert_eq!(std::fs::read_dir(node.data.join("partial")).unwrap().count(), 0);
}

#[test]
fn a_reader_at_a_node_that_has_little_of_it_gets_all_of_it_in_order_and_the_end_ahead_of_the_middle() {
    let roads = [Road::new(), Road::new()];
    let holders = [roads[0].node(), roads[1].node()];
    let bytes = bytes();
    let path = holders[0].upload("large.bin", &bytes);
    holders[0].introduce(&holders[1]);
    eventually("both hold it", || holders.iter().all(holds));
    roads.iter().for_each(|road| road.narrow(NARROW));
    let node = Node::alone();
    node.introduce(&holders[0]);
    // Bytes may be here before the record is on disk, and so to be read.
    eventually("it has begun", || counted(&node, "bytes_kept") > 0 && node.head(&path).status == 200);
    let start = bytes.len() - 100;
    let end = node.get_with(&path, &[("range", &format!("bytes={start}-"))]);
    assert_eq!(end.status, 206, "{}", end.text());
    assert!(end.body == bytes[start..]);
    assert!(!holds(&node), "the end was here before the middle");
    assert!(node.get(&path).body == bytes);
    eventually("it is here", || holds(&node));
    assert!(counted(&node, "bytes_received") <= most(SIZE));
}

#[test]
fn many_readers_of_what_is_on_its_way_cost_one_transfer() {
    let road = Road::new();
    let holder = road.node();
    let bytes = bytes();
    let path = holder.upload("large.bin", &bytes);
    let node = Node::alone();
    road.narrow(2 * NARROW);
    let before = road.passed();
    node.introduce(&holder);
    eventually("the record is here", || node.head(&path).status == 200);
    std::thread::scope(|scope| {
        let readers = [(); 8].map(|()| scope.spawn(|| node.get(&path)));
        for reader in readers {
            let answer = reader.join().unwrap();
            assert!(answer.body == bytes);
            assert!(answer.header("cache-status").contains("fwd=uri-miss"), "{}", answer.header("cache-status"));
        }
    });
    assert_eq!(fetches(&node), 1);
    let passed = road.passed() - before;
    assert!(passed <= most(SIZE), "{passed} bytes for {SIZE}");
}

#[test]
fn a_flood_of_small_payloads_costs_requests_per_batch() {
    const COUNT: usize = 600;
    let (holder, node) = (Node::alone(), Node::alone());
    (0..COUNT).for_each(|n| drop(holder.upload("small.bin", &n.to_be_bytes())));
    node.introduce(&holder);
    eventually("all are here", || node.status()["payloads"] == COUNT);
    let least = COUNT.div_ceil(MAX_BATCH) as u64;
    // The records come in several messages, and whatever is there is asked for at once.
    assert!(fetches(&node) <= 10 * least, "{} requests for {COUNT} payloads", fetches(&node));
    let (kept, received) = (counted(&node, "bytes_kept"), counted(&node, "bytes_received"));
    assert_eq!((kept, received), ((COUNT * size_of::<usize>()) as u64, (COUNT * (size_of::<usize>() + 4)) as u64));
}
