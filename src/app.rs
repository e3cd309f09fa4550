//! Wiring and lifetime: puts a node together, and takes it apart in the right order.
//!
//! The only place that makes threads and runtimes. A node has, beside the HTTP workers, three threads: the store's one writer, the
//! driver of the core, and the courier of payloads.
//!
//! Stopping: streams of events end, nobody waits for other nodes any more, no new connections, requests in flight end, commits in flight end, the core says goodbye, the store is closed last.

mod demo;
mod open_files;

use std::future::Future;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::path::PathBuf;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_rt::{Arbiter, ArbiterHandle};
use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data};
use actix_web::{App, HttpServer};
use gossip_cdn_protocol::{Node, NodeId, PublicKey, StoreFault};
use gossip_cdn_shell::events::Streams;
use gossip_cdn_shell::guard::{self, Hosts, Origins};
use gossip_cdn_shell::service::Ready;
use gossip_cdn_shell::{problem, request, serve};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

pub use self::demo::{RunningDemo, run_demo};
use crate::clock::{self, Clock};
use crate::config::NodeConfig;
use crate::driver::{self, Driver, Handle};
use crate::http::{self, peers::PeerContext};
use crate::lan::{Lan, Segment};
use crate::peers::{Peers, Transfers};
use crate::scrub::{Scrub, Scrubber};
use crate::store::{Ailment, OpenError, Options, Store, Writer};

/// How long requests in flight may take after the wish to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// How long commits in flight may take: a few fsyncs of a slow disk.
const COMMITS: Duration = Duration::from_secs(3);

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port is taken, or not ours to take.
    #[error("{0}; choose another with --listen")]
    Listen(std::io::Error),
    /// One of a demo's ports is taken, or not ours to take.
    #[error("{0}; choose other ports with --base-port, 0 for any free ones")]
    Ports(std::io::Error),
    /// The data folder cannot be used.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The data folder was opened, but what is in it cannot be read.
    #[error("--data: {0}")]
    Unreadable(StoreFault),
    /// The local network cannot be spoken to.
    #[error("--lan {0}: {1}; name another group or broadcast address, or with --listen an interface that has one, or leave --lan out")]
    Lan(SocketAddrV4, std::io::Error),
    /// What the configuration says cannot be.
    #[error("{0}")]
    Config(String),
    /// The bootstrap node of a demo does not start.
    #[error(transparent)]
    Bootstrap(#[from] gossip_cdn_bootstrap::StartError),
    /// The operating system refuses something that every node needs.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// Why a node that ran has ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Its store failed. Started again, the node goes on from what is on disk.
    #[error("{0}; the node has stopped, nothing acknowledged is lost: mend the disk and start it again")]
    Store(#[from] StoreFault),
}

/// A node that runs.
#[derive(Debug)]
pub struct RunningNode {
    id: NodeId,
    address: SocketAddr,
    server: ServerHandle,
    streams: Streams,
    driver: Handle,
    ended: oneshot::Receiver<()>,
    tasks: TaskTracker,
    arbiters: [Arbiter; 2],
    store: Store,
    writer: RunningWriter,
}

/// The store's writer on its thread.
#[derive(Debug)]
struct RunningWriter {
    thread: std::thread::JoinHandle<()>,
    ended: oneshot::Receiver<Result<(), StoreFault>>,
}

/// Whether the node can serve: while its store is well, and until its driver or its writer has ended, even by a panic.
#[derive(Debug, Clone)]
struct Health(Arc<AtomicBool>);

impl Health {
    fn new() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    fn check(&self, ailment: Option<Ailment>) -> Result<(), String> {
        if !self.0.load(Ordering::Relaxed) {
            return Err("The store of this node has failed; its log tells more.".into());
        }
        let ailing = |Ailment { why, .. }| {
            format!(
                "The store cannot be written: {why}. What is here can be read; the node tries again until it can be written, without a restart."
            )
        };
        ailment.map_or(Ok(()), |ailment| Err(ailing(ailment)))
    }

    /// For what the node cannot do without, to be dropped when that ends.
    fn vital(&self) -> Vital {
        Vital(self.clone())
    }
}

/// Takes the node's [`Health`] with it.
#[derive(Debug)]
struct Vital(Health);

impl Drop for Vital {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

impl RunningNode {
    /// Its id.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resolves when what the node cannot do without has ended, which no fault of a disk makes it do. To be asked once.
    pub async fn failed(&mut self) -> StoreFault {
        let fault = tokio::select! {
            _ = &mut self.ended => None,
            ended = &mut self.writer.ended => ended.ok().and_then(Result::err),
        };
        fault.unwrap_or_else(|| StoreFault("the driver or the store's writer has ended".to_owned()))
    }

    /// Stops it: connections, commits, farewells, the store, in this order.
    pub async fn stop(self) {
        self.streams.end();
        // What follows takes as long as the bytes that are on their way. A driver that has ended has nobody waiting.
        self.driver.conclude().await.ok();
        self.server.stop(true).await;
        self.tasks.close();
        drop(tokio::time::timeout(COMMITS, self.tasks.wait()).await);
        if self.driver.leave().await.is_ok() {
            // However it ends, the store is closed next.
            drop(self.ended.await);
        }
        drop(tokio::time::timeout(COMMITS, self.tasks.wait()).await);
        self.store.close();
        let joined = tokio::task::spawn_blocking(move || self.writer.thread.join());
        if !matches!(joined.await, Ok(Ok(()))) {
            tracing::error!("the store's writer did not end as it should");
        }
        for arbiter in self.arbiters {
            arbiter.stop();
        }
    }
}

/// Runs one node until SIGINT or SIGTERM, or until its store fails. `announce` is told when it serves.
pub async fn run_node(config: NodeConfig, announce: impl FnOnce(&RunningNode)) -> Result<(), RunError> {
    let shutdown = gossip_cdn_shell::signals::shutdown().map_err(StartError::System)?;
    let mut node = start(config).await?;
    announce(&node);
    let fault = tokio::select! {
        () = shutdown => None,
        fault = node.failed() => Some(fault),
    };
    node.stop().await;
    fault.map_or(Ok(()), |fault| Err(fault.into()))
}

/// Starts a node. It serves when this returns.
pub async fn start(config: NodeConfig) -> Result<RunningNode, StartError> {
    let open_files = open_files::raise();
    let listener = serve::listen(config.listen).map_err(StartError::Listen)?;
    let address = listener.local_addr()?;
    let advertised = advertised(&config, address)?;
    // Before the folder is touched: what cannot start leaves it as it was.
    let lan = config.lan.map(|lan| open_lan(lan, address, &advertised)).transpose()?;
    let (store, writer) = open(&config, address).await?;
    let health = Health::new();
    let writer = spawn_writer(move || writer.run(), health.vital())?;
    let clock = Clock::new();
    let id = store.identity().id;
    let (handle, inbox) = driver::channel();
    let (transfers, courier) = Transfers::new(store.clone(), config.cluster.clone());
    let arbiters = [Arbiter::new(), Arbiter::new()];
    spawn_on(&arbiters[0].handle(), move || courier.run());
    let (scrubber, scrub) = Scrubber::new(store.clone(), clock, config.scrub).map_err(StartError::Unreadable)?;
    spawn_on(&arbiters[0].handle(), move || scrubber.run());
    let core = Core { config: config.clone(), advertised: advertised.clone(), store: store.clone(), clock, transfers, lan };
    let (ready, ended) = core.spawn(&arbiters[1].handle(), inbox, health.vital())?;
    if let Ok(Err(fault)) = ready.await {
        return Err(StartError::Unreadable(fault));
    }
    let tasks = TaskTracker::new();
    let (server, streams) = serve(&config, listener, &advertised, (&store, scrub), &handle, &tasks, health)?;
    tracing::info!(node = %id, %address, %advertised, open_files, "serving");
    Ok(RunningNode { id, address, server, streams, driver: handle, ended, tasks, arbiters, store, writer })
}

fn open_lan(address: SocketAddrV4, listening: SocketAddr, advertised: &str) -> Result<Lan, StartError> {
    let no_ipv4 = || std::io::Error::other("this node listens on an IPv6 address, and heartbeats go by IPv4");
    let segment = Segment::of(address, listening, advertised).ok_or_else(no_ipv4);
    segment.and_then(Lan::open).map_err(|error| StartError::Lan(address, error))
}

async fn open(config: &NodeConfig, address: SocketAddr) -> Result<(Store, Writer), StartError> {
    let dir = config.data.clone().unwrap_or_else(|| PathBuf::from(format!("gossip-cdn-data/node-{}", address.port())));
    let options = Options {
        cluster: config.cluster.clone(),
        cache_bytes: config.cache_bytes,
        reserve: config.reserve,
        fresh_key: clock::entropy()?,
        restored: config.restored,
    };
    let opening = tokio::task::spawn_blocking(move || Store::open(&dir, options));
    Ok(opening.await.map_err(std::io::Error::other)??)
}

#[expect(clippy::disallowed_methods, reason = "this is the place that makes threads")]
fn spawn_writer(run: impl FnOnce() -> Result<(), StoreFault> + Send + 'static, vital: Vital) -> std::io::Result<RunningWriter> {
    let (end, ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name("store-writer".into()).spawn(move || {
        // Dropped before the end is told, in a panic too.
        let vital = vital;
        let result = run();
        if let Err(fault) = &result {
            tracing::error!("the store's writer has ended: {fault}");
        }
        drop(vital);
        // A node that stops does not listen any more.
        drop(end.send(result));
    })?;
    Ok(RunningWriter { thread, ended })
}

/// Runs a future that is not `Send` on an arbiter's thread.
fn spawn_on<F: Future<Output = ()> + 'static>(arbiter: &ArbiterHandle, make: impl FnOnce() -> F + Send + 'static) {
    let spawned = arbiter.spawn_fn(move || drop(actix_rt::spawn(make())));
    debug_assert!(spawned, "an arbiter that was just made takes work");
}

/// What the core is made of, on its way to its thread.
struct Core {
    config: NodeConfig,
    advertised: String,
    store: Store,
    clock: Clock,
    transfers: Transfers,
    lan: Option<Lan>,
}

type Started = (oneshot::Receiver<Result<(), StoreFault>>, oneshot::Receiver<()>);

impl Core {
    /// Builds and runs the core on an arbiter; the first receiver hears when it is built, the second when it has ended.
    fn spawn(self, arbiter: &ArbiterHandle, inbox: driver::Inbox, vital: Vital) -> Result<Started, StartError> {
        let (ready, is_ready) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        spawn_on(arbiter, move || async move {
            let driver = match self.build() {
                Ok(driver) => driver,
                Err(fault) => return drop(ready.send(Err(fault))),
            };
            // The receivers are gone only when the start was given up.
            drop(ready.send(Ok(())));
            driver.run(inbox).await;
            drop(vital);
            // A node that stops does not listen any more.
            end.send(()).ok();
        });
        Ok((is_ready, ended))
    }

    fn build(self) -> Result<Driver, StoreFault> {
        let Self { config, advertised, store, clock, transfers, lan } = self;
        let config = gossip_cdn_protocol::node::Config {
            bootstraps: config.bootstraps(),
            cluster: config.cluster,
            address: advertised,
            heartbeats: lan.is_some(),
            found: config.found,
            voters: config.voters,
        };
        let read = store.clone();
        let node = move || {
            let identity = read.identity();
            let identity = gossip_cdn_protocol::node::Identity { key: PublicKey(identity.public), incarnation: identity.incarnation };
            let (members, contacts) = (read.members()?, read.contacts()?);
            let seed = clock::entropy().map_err(|error| StoreFault(error.to_string()))?;
            Node::new(config.clone(), identity, members, contacts, read.clone(), seed, clock.now())
        };
        let lan = lan.map(Lan::start).transpose().map_err(|error| StoreFault(format!("the local network: {error}")))?;
        Driver::new(Box::new(node), clock, store, Peers::new(), transfers, lan)
    }
}

fn serve(
    config: &NodeConfig,
    listener: TcpListener,
    advertised: &str,
    (store, scrub): (&Store, Scrub),
    driver: &Handle,
    tasks: &TaskTracker,
    health: Health,
) -> Result<(ServerHandle, Streams), StartError> {
    let tracker = tasks.clone();
    let tasks = http::Tasks::new(move |task| drop(tracker.spawn(task)));
    let settings = config.http_settings(advertised);
    let mut context = http::Context::new(store.clone(), driver.clone(), settings, tasks.clone(), wall);
    context.scrub = scrub;
    let peers = PeerContext::new(driver.clone(), store.clone(), config.cluster.clone(), Arc::clone(&context.strangers), tasks);
    let peers = Data::new(peers);
    let streams = context.streams.clone();
    let public = http::configure(context);
    let hosts = Hosts::new(config.hosts.iter().cloned().chain(host_of(advertised)));
    let origins = Origins::new(config.allow_origin.iter().cloned());
    let watched = store.clone();
    let ready = Ready::new(move || health.check(watched.ailment()));
    let app = move || {
        let peers = Data::clone(&peers);
        App::new()
            .configure(problem::configure)
            .app_data(Data::new(ready.clone()))
            // The peers' first: theirs are few and come often.
            .configure(|config| http::peers::configure(config, peers))
            .configure(public.clone())
            .default_service(web::to(problem::not_found))
            .wrap(from_fn(http::head))
            .wrap(guard::origins(origins.clone()))
            .wrap(guard::hosts(hosts.clone()))
            .wrap(from_fn(request::observe))
    };
    let shared = serve::Settings { workers: config.workers, drain: DRAIN };
    let server =
        gossip_cdn_shell::tuned!(HttpServer::new(app).on_connect(http::on_connect(config.patience.idle)), &shared).listen(listener)?.run();
    let handle = server.handle();
    actix_rt::spawn(server);
    Ok((handle, streams))
}

/// The wall clock for what is shown to people.
fn wall() -> gossip_cdn_protocol::WallTime {
    Clock::new().now().wall
}

/// The base URL under which others reach this node.
fn advertised(config: &NodeConfig, listening: SocketAddr) -> Result<String, StartError> {
    if let Some(advertise) = &config.advertise {
        return Ok(advertise.trim_end_matches('/').to_owned());
    }
    if !listening.ip().is_unspecified() {
        return Ok(format!("http://{listening}"));
    }
    // Connecting a datagram socket sends nothing; it makes the system choose the local address that leads there.
    let bootstraps = config.bootstraps();
    let lan = config.lan.map(|lan| lan.to_string());
    let authorities = bootstraps.iter().map(|url| url.split_once("://").map_or(url.as_str(), |(_, authority)| authority));
    let local = authorities.chain(lan.as_deref()).find_map(|authority| {
        let any = if listening.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(authority).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    });
    match local {
        Some(ip) => {
            let address = SocketAddr::new(ip, listening.port());
            tracing::info!(%address, "listening on all addresses, advertising the one that leads to the bootstrap node or the local network");
            Ok(format!("http://{address}"))
        }
        None => Err(StartError::Config(format!(
            "--listen {listening} is every address of this machine, and neither a bootstrap node nor --lan shows which one others reach: name it with --advertise"
        ))),
    }
}

fn host_of(url: &str) -> Option<String> {
    let authority = url.split_once("://")?.1;
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    Some(host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ready(node: &RunningNode) -> u16 {
        let url = format!("http://{}/readyz", node.address());
        awc::Client::new().get(url).send().await.unwrap().status().as_u16()
    }

    async fn node(dir: &std::path::Path) -> RunningNode {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = NodeConfig { listen, data: Some(dir.to_owned()), bootstrap: vec![], workers: Some(1), ..NodeConfig::default() };
        start(config).await.unwrap()
    }

    #[actix_web::test]
    async fn a_writer_that_ends_is_noticed_without_a_write() {
        let dir = tempfile::tempdir().unwrap();
        let mut node = node(dir.path()).await;
        assert_eq!(ready(&node).await, 200);
        node.store.close();
        let fault = tokio::time::timeout(Duration::from_secs(30), node.failed()).await.unwrap();
        assert!(fault.0.contains("writer"), "{fault}");
        assert_eq!(ready(&node).await, 503);
        node.stop().await;
    }

    #[actix_web::test]
    async fn a_driver_that_ends_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let mut node = node(dir.path()).await;
        node.driver.leave().await.unwrap();
        let fault = tokio::time::timeout(Duration::from_secs(30), node.failed()).await.unwrap();
        assert!(fault.0.contains("driver"), "{fault}");
        assert_eq!(ready(&node).await, 503);
        node.stop().await;
    }

    #[actix_web::test]
    async fn a_fault_of_the_writer_is_told_and_a_panic_is_noticed() {
        let health = Health::new();
        let writer = spawn_writer(|| Err(StoreFault("the disk is on fire".into())), health.vital()).unwrap();
        assert_eq!(writer.ended.await.unwrap(), Err(StoreFault("the disk is on fire".into())));
        assert!(health.check(None).is_err());
        let health = Health::new();
        let writer = spawn_writer(|| panic!("as a test of panics"), health.vital()).unwrap();
        assert!(writer.ended.await.is_err());
        assert!(writer.thread.join().is_err());
        assert!(health.check(None).is_err());
    }
}
