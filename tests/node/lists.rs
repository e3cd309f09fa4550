//! Lists of blobs, versions, holders and the code of a link: the JSON that programs rely on.

use serde_json::Value;

use crate::expected::{GUID, PATH, assert_recent, assert_version_of, etag, keys, sha256};
use gossip_cdn_cluster::{Network, Node, alive, eventually};

fn names(page: &Value) -> Vec<String> {
    page["blobs"].as_array().unwrap().iter().map(|blob| blob["file_name"].as_str().unwrap().to_owned()).collect()
}

fn ids(page: &Value) -> Vec<String> {
    page["blobs"].as_array().unwrap().iter().map(|blob| blob["id"].as_str().unwrap().to_owned()).collect()
}

/// Follows the cursors of a list to its end; every page but the last is full.
fn all_pages(node: &Node, query: &str, limit: usize) -> Vec<Value> {
    let mut pages: Vec<Value> = Vec::new();
    let mut after = String::new();
    loop {
        let page = node.get(&format!("/blobs?{query}&limit={limit}{after}")).json();
        assert_eq!(keys(&page), ["blobs", "next"]);
        let next = page["next"].as_str().map(ToOwned::to_owned);
        assert!(next.is_none() || page["blobs"].as_array().unwrap().len() == limit, "a page before the last is full");
        pages.push(page);
        let Some(next) = next else { return pages };
        let encoded: String = next.bytes().map(|byte| format!("%{byte:02X}")).collect();
        after = format!("&after={encoded}");
        assert!(pages.len() < 100, "the list ends");
    }
}

#[test]
fn a_list_has_every_blob_once_in_each_order_whatever_the_page() {
    let node = Node::alone();
    // Not in the order of names, and two of one name.
    let uploaded: Vec<String> = (0..25).map(|n| format!("file-{:02}.txt", n * 7 % 25)).collect();
    for name in &uploaded {
        node.upload(name, name.as_bytes());
    }
    let twin = node.upload("file-03.txt", b"twin");
    let newest: Vec<String> = ["file-03.txt".to_owned()].into_iter().chain(uploaded.iter().rev().cloned()).collect();
    let mut by_name = newest.clone();
    by_name.sort();
    for limit in [1, 7, 26, 100] {
        let listed = |order: &str| all_pages(&node, order, limit).iter().flat_map(names).collect::<Vec<_>>();
        assert_eq!(listed("order=newest"), newest, "pages of {limit}");
        assert_eq!(listed(""), newest, "newest first if nothing is said");
        assert_eq!(listed("order=name"), by_name, "pages of {limit}");
        let by_id: Vec<String> = all_pages(&node, "order=id", limit).iter().flat_map(ids).collect();
        assert!(by_id.len() == 26 && by_id.is_sorted(), "{by_id:?}");
        assert!(by_id.iter().any(|id| twin.ends_with(id.as_str())));
    }
}

#[test]
fn a_prefix_of_the_name_selects_in_the_order_of_names() {
    let node = Node::alone();
    for name in ["b.txt", "a2.txt", "A.txt", "a1.txt", "a", "%C3%A9.txt"] {
        node.upload(name, b"x");
    }
    let listed = |query: &str| all_pages(&node, query, 2).iter().flat_map(names).collect::<Vec<_>>();
    assert_eq!(listed("name=a"), ["a", "a1.txt", "a2.txt"]);
    assert_eq!(listed("order=name&name=a1"), ["a1.txt"]);
    assert_eq!(listed("name=%C3%A9"), ["é.txt"]);
    assert_eq!(listed("name=zzz"), [""; 0]);
    node.get("/blobs?order=newest&name=a").problem(400);
}

#[test]
fn an_entry_describes_its_winner() {
    let node = Node::alone();
    node.put(PATH, b"old");
    let answer = node.put_with(&format!("{PATH}?name=a.png"), &[], b"new");
    let page = node.get("/blobs").json();
    assert!(page["next"].is_null());
    let [entry] = &page["blobs"].as_array().unwrap()[..] else { panic!("{page}") };
    let fields = ["blake3", "created", "etag", "file_name", "id", "media_type", "sha256", "size", "url", "version"];
    assert_eq!(keys(entry), fields);
    assert_eq!((&entry["id"], &entry["url"]), (&GUID.into(), &node.url(PATH).into()));
    assert_eq!((&entry["version"], &entry["etag"]), (&answer.header("version").into(), &etag(b"new").into()));
    assert_eq!((&entry["size"], &entry["media_type"], &entry["file_name"]), (&3.into(), &"image/png".into(), &"a.png".into()));
    assert_eq!((&entry["blake3"], &entry["sha256"]), (&blake3::hash(b"new").to_hex().as_str().into(), &sha256(b"new").into()));
    assert_recent(entry["created"].as_str().unwrap());
}

#[test]
fn deleted_blobs_are_in_their_own_list_only() {
    let node = Node::alone();
    let paths: Vec<String> = (0..5).map(|n| node.upload(&format!("{n}.txt"), b"x")).collect();
    let tombstones: Vec<String> = paths[..3].iter().map(|path| node.delete(path).header("version").to_owned()).collect();
    assert_eq!(names(&node.get("/blobs").json()), ["4.txt", "3.txt"]);
    let deleted: Vec<Value> = all_pages(&node, "deleted", 2);
    let entries: Vec<&Value> = deleted.iter().flat_map(|page| page["blobs"].as_array().unwrap()).collect();
    let versions: Vec<&str> = entries.iter().map(|entry| entry["version"].as_str().unwrap()).collect();
    assert_eq!(versions, tombstones.iter().rev().collect::<Vec<_>>(), "the last deleted first");
    assert!(entries.iter().all(|entry| entry.get("etag").is_none() && entry["url"].is_string()));
    assert_eq!(node.put(&paths[0], b"again").status, 201);
    assert_eq!(all_pages(&node, "deleted", 10).iter().flat_map(ids).count(), 2);
    assert_eq!(ids(&node.get("/blobs").json()).len(), 3);
}

#[test]
fn cursors_and_limits_that_are_none_are_400_and_large_limits_are_cut() {
    let node = Node::alone();
    for n in 0..3 {
        node.upload(&format!("{n}.txt"), b"x");
    }
    for query in ["after=x", "limit=0", "limit=-1", "limit=x", "order=size", "order=", "after=%00", "deleted&order=name"] {
        node.get(&format!("/blobs?{query}")).problem(400);
    }
    let cursor = node.get("/blobs?order=newest&limit=1").json()["next"].as_str().unwrap().to_owned();
    let encoded: String = cursor.bytes().map(|byte| format!("%{byte:02X}")).collect();
    node.get(&format!("/blobs?order=id&after={encoded}")).problem(400);
    assert_eq!(names(&node.get("/blobs?limit=100000").json()).len(), 3);
}

#[test]
fn versions_tell_the_winner_its_siblings_and_why() {
    let node = Node::alone();
    let answer = node.put_with(&format!("{PATH}?name=a.png"), &[], b"one");
    let version = answer.header("version");
    let (stamp, origin) = version.split_once('.').unwrap();
    let told = node.get(&format!("{PATH}/versions")).json();
    assert_eq!(keys(&told), ["id", "reason", "versions", "winner"]);
    assert_eq!((&told["id"], &told["winner"]), (&GUID.into(), &version.into()));
    assert!(!told["reason"].as_str().unwrap().is_empty());
    let [only] = &told["versions"].as_array().unwrap()[..] else { panic!("{told}") };
    for field in ["version", "clock", "stamp", "origin", "deleted", "size", "etag", "media_type", "file_name"] {
        assert!(only.get(field).is_some(), "{field} in {only}");
    }
    assert_eq!((&only["version"], &only["stamp"], &only["origin"]), (&version.into(), &stamp.into(), &origin.into()));
    assert_eq!(only["clock"], serde_json::json!({ origin: stamp }));
    assert_eq!((&only["deleted"], &only["size"], &only["etag"]), (&false.into(), &3.into(), &etag(b"one").into()));
    assert_eq!((&only["media_type"], &only["file_name"]), (&"image/png".into(), &"a.png".into()));
    node.delete(PATH);
    let told = node.get(&format!("{PATH}/versions"));
    assert_eq!(told.status, 200, "a deleted blob has its tombstone");
    assert_eq!(told.json()["versions"][0]["deleted"], true);
    assert_version_of(told.json()["winner"].as_str().unwrap(), &node);
}

#[test]
fn holders_are_told_at_any_node() {
    let network = Network::of(3);
    let answer = network.nodes[0].put("/a.bin?copies=3&timeout=20", &[1; 1000]);
    assert_eq!(answer.status, 201);
    let path = answer.header("location").strip_prefix(&network.nodes[0].server.url).unwrap().to_owned();
    let mut everybody: Vec<(String, String)> = network.nodes.iter().map(|node| (node.id().to_owned(), node.server.url.clone())).collect();
    everybody.sort();
    for node in &network.nodes {
        eventually("the record is here", || node.get(&format!("{path}/holders")).status == 200);
        let told = node.get(&format!("{path}/holders")).json();
        assert_eq!(keys(&told), ["asked", "holders", "id", "members", "version"]);
        let mut holders: Vec<(String, String)> = Vec::new();
        for holder in told["holders"].as_array().unwrap() {
            assert_eq!(keys(holder), ["address", "id"]);
            holders.push((holder["id"].as_str().unwrap().to_owned(), holder["address"].as_str().unwrap().to_owned()));
        }
        holders.sort();
        assert_eq!(holders, everybody, "{told}");
        assert_eq!((&told["version"], &told["members"]), (&answer.header("version").into(), &alive(node).into()));
        assert!(told["asked"].as_u64().is_some_and(|asked| (2..=3).contains(&asked)), "{told}");
    }
    network.nodes[0].delete(&path);
    network.nodes[0].get(&format!("{path}/holders")).problem(410);
    network.nodes[0].get(&format!("{PATH}/holders")).problem(404);
}

#[test]
fn the_code_of_a_link_is_an_svg_that_runs_nothing() {
    let node = Node::alone();
    let path = node.upload("a.txt", b"x");
    let code = node.get(&format!("{path}/qr"));
    assert_eq!((code.status, code.header("content-type")), (200, "image/svg+xml"));
    let text = code.text();
    assert!(text.contains("<svg") && text.trim_end().ends_with("</svg>") && !text.contains("<script"), "{text}");
    assert!(code.header("content-security-policy").contains("default-src 'none'"));
    assert_ne!(node.get_with(&format!("{path}/qr"), &[("host", "localhost:1")]).text(), text, "it is the link under the request's host");
    node.get(&format!("{PATH}/qr")).problem(404);
    node.get("/blobs/x/qr").problem(400);
    node.delete(&path);
    node.get(&format!("{path}/qr")).problem(410);
}

#[test]
fn conflicts_are_listed_and_marked() {
    let (one, two) = (Node::alone(), Node::alone());
    one.upload("calm.txt", b"calm");
    let ids = [GUID, "11111111-1111-4111-8111-111111111111"];
    for id in ids {
        one.put(&format!("/blobs/{id}?name=a.txt"), b"one");
        two.put(&format!("/blobs/{id}?name=a.txt"), b"two");
    }
    one.introduce(&two);
    let listed = |query: &str| one.get(&format!("/blobs{query}")).json();
    eventually("the versions have met", || listed("?conflicts")["blobs"].as_array().unwrap().len() == 2);
    let all = listed("");
    let marked: Vec<bool> = all["blobs"].as_array().unwrap().iter().map(|blob| blob["conflict"] == true).collect();
    assert_eq!(marked.iter().filter(|marked| **marked).count(), 2, "{all}");
    let first = listed("?conflicts&limit=1");
    let second = listed(&format!("?conflicts&limit=1&after={}", first["next"].as_str().unwrap()));
    let id = |page: &Value| page["blobs"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(std::collections::BTreeSet::from([id(&first), id(&second)]), ids.map(str::to_owned).into());
    one.put(&format!("/blobs/{}", ids[0]), b"settled");
    assert_eq!(listed("?conflicts")["blobs"].as_array().unwrap().len(), 1);
    let deleted = one.delete(&format!("/blobs/{}", ids[1]));
    assert_eq!(deleted.status, 204);
    assert_eq!(listed("?conflicts")["blobs"].as_array().unwrap().len(), 0);
}
