//! The same generated requests to a node, to nginx and to Apache httpd; prints what differs, how often, and why.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use gossip_cdn_cluster::{Node, noise, send};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::asked::{Asked, SIZES, Validators, any_request};
use crate::model::{self, Departure};
use crate::peers::Peer;
use crate::seen::Seen;

/// How many requests are made.
const REQUESTS: usize = 3000;
/// Files changed in the last minutes have no strong validators with httpd.
const AGE: Duration = Duration::from_secs(7 * 86_400);

/// A server that has the files, and what it says of them.
struct Server {
    links: Vec<String>,
    validators: Vec<Validators>,
}

impl Server {
    fn new(links: Vec<String>) -> Self {
        let validators = links.iter().map(|link| {
            let answer = send("HEAD", link, &[], None);
            assert_eq!(answer.status, 200, "{link}");
            let modified = httpdate::parse_http_date(answer.header("last-modified")).unwrap();
            Validators { tag: answer.header("etag").to_owned(), modified }
        });
        Self { validators: validators.collect(), links }
    }

    fn over(peer: &Peer) -> Self {
        Self::new(SIZES.iter().map(|size| format!("{}/{}", peer.url, name(*size))).collect())
    }

    fn ask(&self, asked: &Asked, file: &[u8]) -> Seen {
        let headers = asked.headers(&self.validators[asked.file]);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Seen::of(&send(asked.method, &self.links[asked.file], &headers, None), asked.method, file)
    }
}

fn name(size: usize) -> String {
    format!("{size}.bin")
}

/// Puts the files into a folder that every server may read.
fn lay_out(folder: &Path, files: &[Vec<u8>]) {
    std::fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    for bytes in files {
        let path = folder.join(name(bytes.len()));
        std::fs::write(&path, bytes).unwrap();
        File::options().write(true).open(path).unwrap().set_modified(SystemTime::now() - AGE).unwrap();
    }
}

/// How often a departure alone made the difference, and what httpd did then.
#[derive(Default)]
struct Row {
    count: usize,
    as_here: usize,
    as_nginx: usize,
    otherwise: usize,
}

#[test]
fn every_difference_from_nginx_is_one_that_is_meant() {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<Vec<u8>> = SIZES.iter().map(|size| noise(*size, 7)).collect();
    lay_out(folder.path(), &files);
    let node = Node::alone();
    let ours = Server::new(files.iter().map(|bytes| node.url(&node.upload(&name(bytes.len()), bytes))).collect());
    let (nginx, httpd) = (Peer::nginx(folder.path()), Peer::httpd(folder.path()));
    let (nginx, httpd) = (Server::over(&nginx), Server::over(&httpd));

    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
    let mut rows: BTreeMap<Departure, Row> = BTreeMap::new();
    let (mut equal, mut several) = (0, 0);
    for _ in 0..REQUESTS {
        let asked = any_request().new_tree(&mut runner).unwrap().current();
        let file = &files[asked.file];
        let (here, there) = (ours.ask(&asked, file), nginx.ask(&asked, file));
        assert_eq!(here, model::answer(&asked, &[].into()), "the node, asked {asked:?}");
        assert_eq!(there, model::answer(&asked, &Departure::all()), "nginx, asked {asked:?}");
        if here == there {
            equal += 1;
            continue;
        }
        let decisive = |departure: &Departure| {
            let others = Departure::all().into_iter().filter(|other| other != departure).collect();
            model::answer(&asked, &others) == here
        };
        let Some(departure) = Departure::all().into_iter().find(decisive) else {
            several += 1;
            continue;
        };
        let row = rows.entry(departure).or_default();
        row.count += 1;
        match httpd.ask(&asked, file) {
            seen if seen.is_alike(&here) => row.as_here += 1,
            seen if seen.is_alike(&there) => row.as_nginx += 1,
            _ => row.otherwise += 1,
        }
    }
    println!("{REQUESTS} requests: {equal} answered alike, {several} unlike for several of these reasons at once");
    for (departure, what, why) in Departure::ALL {
        let Row { count, as_here, as_nginx, otherwise } = rows.remove(&departure).unwrap_or_default();
        println!("{count:4}  nginx: {what}\n      here: {why}\n      httpd: {as_here} as here, {as_nginx} as nginx, {otherwise} otherwise");
        assert!(count > 0, "{departure:?} makes no difference");
    }
}
