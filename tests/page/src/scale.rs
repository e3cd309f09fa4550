//! A hundred thousand blobs in the list, two hundred members in the drawing: how long it takes, and how smooth it is, in the browser.
//!
//! Each test prints what it measured. How long the list takes is held to ten times its goal; how many pictures a second are drawn is a figure, no
//! claim, for a browser that shares its processors with others draws fewer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gossip_cdn_cluster::{Node, Server, bootstrap, eventually, send};
use gossip_cdn_protocol::summary::Root;
use gossip_cdn_protocol::wire::{Entry, Envelope, Join, MAX_RECORDS, Program, VERSION};
use gossip_cdn_protocol::{
    BlobId, Content, ContentHash, Member, MemberState, NodeId, Payload, PublicKey, Record, Stamp, Version, WallTime,
};
use serde_json::{Value, json};

use crate::browser::Browser;

const BLOBS: u32 = 100_000;
/// A second is the goal for opening and for searching.
const LONGEST: f64 = 10_000.0;

const MEMBERS: u8 = 200;

/// A message of a node that is not there.
fn envelope(sender: NodeId, body: Value) -> Value {
    json!(Envelope { version: VERSION, cluster: "gossip-cdn".to_owned(), sender, incarnation: 1, body })
}

fn post(url: &str, body: &Value) -> u16 {
    send("POST", url, &[("content-type", "application/json")], Some(body.to_string().as_bytes())).status
}

fn blob_id(number: u32) -> BlobId {
    let mut random = [0; 16];
    random.copy_from_slice(&ContentHash::of(&number.to_le_bytes()).0[..16]);
    BlobId(uuid::Builder::from_random_bytes(random).into_uuid())
}

/// The record of an empty blob that another node wrote, a millisecond after the one before.
fn record(number: u32) -> Entry {
    let (origin, stamp) = (NodeId::from_public_key(&[77; 32]), Stamp::at(WallTime(1_767_225_600_000 + u64::from(number))));
    let content = Content::Payload(Payload {
        hash: ContentHash::of(b""),
        sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".parse().unwrap(),
        size: 0,
        media_type: "text/plain".to_owned(),
        file_name: Some(format!("photo {number:06}.txt")),
    });
    let mut versions = Record::default();
    versions.insert(Version { stamp, origin, content, clock: [(origin, stamp)].into_iter().collect() });
    Entry { id: blob_id(number), versions }
}

/// A node with so many blobs, given to it as one node gives records to another.
fn full() -> Node {
    let node = Node::alone();
    node.put("/the-newest", b"");
    let numbers: Vec<u32> = (0..BLOBS).collect();
    for some in numbers.chunks(MAX_RECORDS) {
        let rumor =
            envelope(NodeId::from_public_key(&[77; 32]), json!({ "records": some.iter().copied().map(record).collect::<Vec<_>>() }));
        // What finds no room while others wait for the disk is not taken: it is given again.
        let last = format!("/blobs/{}", blob_id(*some.last().unwrap()));
        eventually("they are taken", || {
            assert_eq!(post(&node.url("/gossip/rumors"), &rumor), 200);
            node.head(&last).status == 200
        });
    }
    eventually("all are there", || node.status()["blobs"] == BLOBS + 1);
    node
}

/// Does something in the page, and gives the milliseconds until an expression holds and is painted.
fn until(browser: &Browser, act: &str, holds: &str) -> f64 {
    let script = format!(
        "const done = arguments[arguments.length - 1]; const start = performance.now(); \
         const look = () => (({holds}) ? setTimeout(() => done(performance.now() - start)) : requestAnimationFrame(look)); {act}; requestAnimationFrame(look);"
    );
    browser.js_later(&script).as_f64().unwrap()
}

#[expect(clippy::print_stdout, reason = "it is what the test is run for by hand")]
fn said(what: &str, mut took: Vec<f64>) {
    took.sort_by(f64::total_cmp);
    let (middle, longest) = (took[took.len() / 2], took[took.len() - 1]);
    println!("{BLOBS} blobs, {what}: {middle:.0} ms ({} times, {longest:.0} ms at most)", took.len());
    assert!(longest < LONGEST, "{what}: {took:?}");
}

#[test]
fn the_list_of_a_hundred_thousand_blobs_opens_and_is_searched() {
    let node = full();
    let browser = Browser::start();
    let first = |name: &str| format!("document.querySelector('table.blobs tbody tr')?.innerText.includes({})", json!(name));
    let newest = format!("photo {:06}", BLOBS - 1);
    let opened = (0..5).map(|_| {
        browser.go(&node.url("/"));
        browser.eventually(
            "the newest are there",
            &format!("document.querySelectorAll('table.blobs tbody tr').length === 50 && {}", first("the-newest")),
        );
        // Since the navigation began: what the browser waits between two looks is in it.
        browser.js("return performance.now()", vec![]).as_f64().unwrap()
    });
    said("the page opened with the newest", opened.collect());
    let search = |text: &str| {
        format!(
            "const field = document.querySelector('input[type=search]'); field.value = {}; field.dispatchEvent(new Event('input'))",
            json!(text)
        )
    };
    let order = |name: &str| {
        format!("const order = document.querySelector('select'); order.value = '{name}'; order.dispatchEvent(new Event('change'))")
    };
    let (mut by_name, mut by_id, mut sorted, mut more) = (vec![], vec![], vec![], vec![]);
    for number in [99_999_u32, 50_000, 7, 33_333, 81_234] {
        let (name, id) = (format!("photo {number:06}"), blob_id(number).to_string());
        let only = |name: &str| format!("document.querySelectorAll('table.blobs tbody tr').length === 1 && {}", first(name));
        by_name.push(until(&browser, &search(&name), &only(&name)));
        browser.js(&search(""), vec![]);
        browser.eventually("all again", &first("the-newest"));
        by_id.push(until(&browser, &search(&id), &only(&name)));
        browser.js(&search(""), vec![]);
        browser.eventually("all again", &first("the-newest"));
        sorted.push(until(&browser, &order("name"), &first("photo 000000")));
        sorted.push(until(&browser, &order("newest"), &first("the-newest")));
        more.push(until(
            &browser,
            "[...document.querySelectorAll('button')].find((button) => button.textContent === 'Show more').click()",
            "document.querySelectorAll('table.blobs tbody tr').length === 100",
        ));
        browser.js(&order("newest"), vec![]);
        browser.eventually("the first page again", "document.querySelectorAll('table.blobs tbody tr').length === 50");
    }
    said("found by the beginning of a name", by_name);
    said("found by id", by_id);
    said("put in another order", sorted);
    said("50 more shown", more);
    browser.says("table.blobs", &newest);
}

/// What a member that is not there tells a bootstrap node.
fn join(number: u8, round: u8) -> Value {
    let id = |number: u8| NodeId::from_public_key(&[number; 32]);
    let member = Member {
        id: id(number),
        address: format!("http://10.0.{}.{number}:7701", number / 50),
        incarnation: 1,
        state: MemberState::Alive,
        key: PublicKey([number; 32]),
    };
    let root = Root { sum: if number.is_multiple_of(60) { 1 } else { 2 }, count: 1000 };
    // A node makes about one exchange a second and tells of them every five.
    let exchanged = (1..=5).map(|step| id(number.wrapping_mul(7).wrapping_add(step * 31).wrapping_add(round) % MEMBERS)).collect();
    let program = Some(Program { version: "0.1.0".to_owned(), blobs: 990 });
    let join = Join {
        member,
        records: 1000,
        payload_bytes: 5 << 30,
        root,
        wanted: 0,
        messages: 0,
        program,
        exchanged,
        history: None,
        may_found: false,
    };
    envelope(id(number), json!(join))
}

/// Tells that it is over, whatever became of the test.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Lets all members renew every five seconds, one after the other, until it is told to stop.
fn renew(bootstrap: &Server, stop: &AtomicBool) {
    let pause = Duration::from_secs(5) / u32::from(MEMBERS);
    for round in 0..u8::MAX {
        for number in 0..MEMBERS {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let start = Instant::now();
            assert_eq!(post(&format!("{}/join", bootstrap.url), &join(number, round)), 200);
            std::thread::sleep(pause.saturating_sub(start.elapsed()));
        }
    }
}

#[test]
fn two_hundred_members_are_drawn() {
    let (bootstrap, _folder) = bootstrap();
    let stop = AtomicBool::new(false);
    (0..MEMBERS).for_each(|number| assert_eq!(post(&format!("{}/join", bootstrap.url), &join(number, 0)), 200));
    std::thread::scope(|scope| {
        scope.spawn(|| renew(&bootstrap, &stop));
        let _end = End(&stop);
        let browser = Browser::at(&bootstrap.url);
        browser.eventually("all are drawn", &format!("document.querySelectorAll('.map .node.alive').length === {MEMBERS}"));
        browser.eventually("pulses are under way", "document.querySelectorAll('.map .pulse').length > 40");
        let count = "const done = arguments[arguments.length - 1]; const times = []; const step = (now) => { times.push(now); \
                     if (now - times[0] < 5000) requestAnimationFrame(step); else done([times.length, now - times[0], Math.max(...times.slice(1).map((time, at) => time - times[at])), document.querySelectorAll('.map .pulse').length]); }; \
                     requestAnimationFrame(step);";
        let told = browser.js_later(count);
        let number = |at: usize| told[at].as_f64().unwrap();
        let rate = (number(0) - 1.0) / number(1) * 1000.0;
        println!(
            "{MEMBERS} members, {} exchanges a second: {rate:.0} pictures a second, {:.0} ms at most between two, {} pulses at the end",
            u32::from(MEMBERS),
            number(2),
            Value::from(number(3))
        );
    });
}
