//! `PUT /blobs/{id}` and `DELETE`: create, replace, restore, and only under a condition.

use crate::expected::{FORM, JSON, OTHER_TAG, PATH, assert_version_of, etag, form, part};
use gossip_cdn_cluster::{Node, eventually, send};

#[test]
fn a_put_creates_with_201_replaces_with_200_and_writes_over_a_deleted_blob_with_201() {
    let node = Node::alone();
    let created = node.put(PATH, b"one");
    assert_eq!(created.status, 201);
    let replaced = node.put(PATH, b"two");
    assert_eq!(replaced.status, 200);
    assert_eq!(replaced.header("etag"), etag(b"two"));
    assert_ne!(replaced.header("version"), created.header("version"));
    assert_eq!(replaced.text(), format!("{}\n", node.url(PATH)));
    assert_eq!(replaced.header("location"), node.url(PATH));
    assert_eq!(node.put_with(PATH, &[JSON], b"two").status, 200, "equal bytes are a new version too");
    assert_eq!(node.delete(PATH).status, 204);
    let again = node.put(PATH, b"three");
    assert_eq!(again.status, 201);
    assert_eq!(node.get(PATH).body, b"three");
}

#[test]
fn if_none_match_star_creates_and_never_replaces() {
    let node = Node::alone();
    let only_new = [("if-none-match", "*")];
    assert_eq!(node.put_with(PATH, &only_new, b"one").status, 201);
    let refused = node.put_with(PATH, &only_new, b"two");
    refused.problem(412);
    assert_eq!(refused.header("etag"), etag(b"one"), "it names what is here");
    assert_eq!(node.get(PATH).body, b"one");
    assert_eq!(node.delete(PATH).status, 204);
    assert_eq!(node.put_with(PATH, &only_new, b"three").status, 201, "a deleted blob is not here");
}

#[test]
fn of_many_that_create_at_once_one_does() {
    let node = Node::alone();
    let mut statuses: Vec<u16> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|n| {
                let node = &node;
                scope.spawn(move || node.put_with(PATH, &[("if-none-match", "*")], format!("{n}").as_bytes()).status)
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 412, 412, 412, 412, 412, 412, 412]);
    assert_eq!(node.get(&format!("{PATH}/versions")).json()["versions"].as_array().unwrap().len(), 1);
}

#[test]
fn of_many_that_replace_the_same_winner_one_does() {
    let node = Node::alone();
    node.put(PATH, b"first");
    let tag = etag(b"first");
    let mut statuses: Vec<u16> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|n| {
                let (node, tag) = (&node, &tag);
                scope.spawn(move || node.put_with(PATH, &[("if-match", tag)], format!("{n}").as_bytes()).status)
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412]);
}

#[test]
fn if_match_replaces_only_the_winner_it_names() {
    let node = Node::alone();
    let conditional = |tags: &str, body: &[u8]| node.put_with(PATH, &[("if-match", tags)], body);
    conditional("*", b"none").problem(412);
    conditional(OTHER_TAG, b"none").problem(412);
    node.put(PATH, b"one");
    let (one, two) = (etag(b"one"), etag(b"two"));
    conditional(OTHER_TAG, b"two").problem(412);
    conditional(&format!("W/{one}"), b"two").problem(412);
    assert_eq!(node.get(PATH).body, b"one");
    assert_eq!(conditional(&one, b"two").status, 200);
    let stale = conditional(&one, b"three");
    stale.problem(412);
    assert_eq!(stale.header("etag"), two);
    assert_eq!(conditional(&format!("{OTHER_TAG}, {two}"), b"three").status, 200, "one of a list");
    assert_eq!(conditional("*", b"four").status, 200);
    conditional("no tag", b"five").problem(400);
    assert_eq!(node.get(PATH).body, b"four");
    node.delete(PATH);
    conditional("*", b"six").problem(412);
    conditional(&etag(b"four"), b"six").problem(412);
    node.get(PATH).problem(410);
}

#[test]
fn from_version_writes_the_bytes_type_and_name_of_a_live_version_again() {
    let node = Node::alone();
    let first = node.put_with(&format!("{PATH}?name=a.png"), &[], b"one");
    let restore = |version: &str, headers: &[(&str, &str)], body| node.put_with(&format!("{PATH}?from_version={version}"), headers, body);
    let restored = restore(first.header("version"), &[], b"");
    assert_eq!(restored.status, 200, "{}", restored.text());
    assert_eq!(restored.header("etag"), etag(b"one"));
    assert_version_of(restored.header("version"), &node);
    assert_ne!(restored.header("version"), first.header("version"));
    let read = node.get(PATH);
    assert_eq!((&read.body[..], read.header("content-type")), (&b"one"[..], "image/png"));
    assert!(read.header("content-disposition").contains("a.png"));

    restore(first.header("version"), &[], b"").problem(404);
    restore(restored.header("version"), &[], b"a body").problem(400);
    restore("nonsense", &[], b"").problem(400);
    let version = restored.header("version");
    restore(version, &[("if-match", OTHER_TAG)], b"").problem(412);
    assert_eq!(restore(version, &[("if-match", &etag(b"one"))], b"").status, 200);
    node.put_with(&format!("/blobs/00000000-0000-4000-8000-000000000000?from_version={version}"), &[], b"").problem(404);
    node.put_with(&format!("/a.txt?from_version={version}"), &[], b"").problem(400);
    node.post_with(&format!("/blobs?from_version={version}"), &[], b"").problem(400);
}

#[test]
fn a_delete_is_204_names_the_tombstone_and_honours_its_condition() {
    let node = Node::alone();
    let delete = |headers: &[(&str, &str)]| send("DELETE", &node.url(PATH), headers, None);
    delete(&[]).problem(404);
    node.put(PATH, b"one");
    let refused = delete(&[("if-match", OTHER_TAG)]);
    refused.problem(412);
    assert_eq!(refused.header("etag"), etag(b"one"));
    delete(&[("if-match", &format!("W/{}", etag(b"one")))]).problem(412);
    delete(&[("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT")]).problem(412);
    assert_eq!(node.get(PATH).status, 200);
    let deleted = delete(&[("if-match", &etag(b"one"))]);
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    assert_version_of(deleted.header("version"), &node);
    let again = delete(&[]);
    again.problem(410);
    assert_eq!(again.header("version"), deleted.header("version"));
}

#[test]
fn what_is_no_whole_representation_is_refused() {
    let node = Node::alone();
    node.put_with(PATH, &[("content-range", "bytes 0-2/10")], b"abc").problem(400);
    node.put_with(PATH, &[("content-encoding", "gzip")], b"abc").problem(415);
    node.get(PATH).problem(404);
}

#[test]
fn with_the_disk_at_its_reserve_uploads_are_507_and_reads_and_deletes_go_on() {
    let folder = tempfile::TempDir::new().unwrap();
    let mut node = Node::start_in(&folder.path().join("data"), &["--no-bootstrap"]);
    let (kept, dropped) = (node.upload("kept.txt", b"kept"), node.upload("dropped.txt", b"dropped"));
    assert!(node.server.terminate().success());
    let node = Node::start_in(&folder.path().join("data"), &["--no-bootstrap", "--reserve", "900TiB"]);
    node.put("/a.txt", b"a").problem(507);
    node.put(PATH, b"a").problem(507);
    node.post_with("/blobs", &[], b"a").problem(507);
    node.post_with("/blobs", &[FORM], &form(&[part("name=\"f\"; filename=\"a.txt\"", b"a")])).problem(507);
    assert_eq!(node.get(&kept).body, b"kept");
    assert_eq!(node.delete(&dropped).status, 204);
    assert_eq!(node.get("/readyz").status, 200);
    let friend = Node::alone();
    friend.introduce(&node);
    eventually("gossip goes on", || friend.get(&kept).body == b"kept");
}
