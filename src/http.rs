//! The public face of a node: its routes, and what they share.
//!
//! 1. Payload bytes go between client and store, never through the core; the core is asked to write, delete and fetch.
//! 2. Only [`errors`] knows which fault is which status.
//! 3. `/openapi.json` is made from the routes that are registered ([`configure`]), so that neither can have what the other has not.
//! 4. Nothing is published before a body is complete and verified; from then on it is published whatever happens to the connection
//!    ([`Tasks`]).
//!
//! | file | what |
//! |---|---|
//! | [`upload`], [`body`], [`patience`] | new and replaced blobs; bodies, with their bounds; how long clients are waited for |
//! | [`download`], [`heads`], [`stream`], [`buffers`], [`wanted`] | payloads, whole and in part, from here or while they arrive |
//! | [`delete`], [`list`], [`versions`], [`holders`] | the rest of a blob's life |
//! | [`messages`], [`message_stream`] | the message history, and its events as they happen |
//! | [`status`], [`members`], [`network`], [`events`], [`metrics`], [`scrub`], [`page`] | the node |
//! | [`conditional`], [`range`], [`byteranges`], [`disposition`], [`digests`], [`accept`], [`described`] | HTTP's grammar, without the store |
//! | [`auth`], [`errors`] | who may write; what is said when not |

mod accept;
mod auth;
mod body;
mod buffers;
mod byteranges;
mod conditional;
mod delete;
mod described;
mod digests;
mod disposition;
mod download;
pub mod errors;
mod events;
mod heads;
mod holders;
mod list;
mod members;
mod message_stream;
mod messages;
pub mod metrics;
mod network;
mod page;
pub mod patience;
pub mod peers;
mod range;
mod scrub;
mod status;
mod stream;
mod upload;
mod versions;
mod wanted;

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{Extensions, HttpServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::web::{Data, ServiceConfig};
use gossip_cdn_protocol::WallTime;
use gossip_cdn_shell::events::Streams;
use gossip_cdn_shell::{assets, problem, request, service};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use utoipa::openapi::{Components, Info, OpenApi, OpenApiBuilder, Paths};
use utoipa_actix_web::OpenApiFactory;

use crate::driver::Handle;
use crate::peers::Peers;
use crate::peers::reports::Reports;
use crate::scrub::Scrub;
use crate::store::Store;
use metrics::Metrics;
use patience::Patience;
use peers::Strangers;

/// What an operator decides about the public routes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The base URL under which others reach this node.
    pub address: String,
    /// Largest payload taken, in bytes.
    pub max_blob: u64,
    /// Most bodies received at once.
    pub max_uploads: usize,
    /// What a client must show to write, delete and introduce; anybody may if `None`.
    pub write_token: Option<String>,
    /// How long clients are waited for.
    pub patience: Patience,
}

impl Default for Settings {
    /// The defaults of http.md, for a node on loopback that anybody may write to.
    fn default() -> Self {
        Self {
            address: "http://127.0.0.1:7701".to_owned(),
            max_blob: 64 << 30,
            // A guess: some hundred MiB at the most, were every one of them in the middle of a large chunk.
            max_uploads: 256,
            write_token: None,
            patience: Patience::default(),
        }
    }
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where work goes that must end though its request does not: a handler is dropped when its connection resets.
#[derive(Clone)]
pub struct Tasks(Arc<dyn Fn(Task) + Send + Sync>);

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tasks")
    }
}

impl Tasks {
    /// Hands everything to `spawn`, which runs it to its end.
    pub fn new(spawn: impl Fn(Task) + Send + Sync + 'static) -> Self {
        Self(Arc::new(spawn))
    }

    /// Runs `work` to its end. The receiver gives its result; it fails only if the process stops first.
    pub fn spawn<F>(&self, work: F) -> oneshot::Receiver<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        (self.0)(Box::pin(async move {
            // Nobody may be left to hear it; that is what the task is for.
            drop(sender.send(work.await));
        }));
        receiver
    }
}

/// What the routes work with.
#[derive(Clone)]
pub struct Context {
    /// Records and payloads here.
    pub store: Store,
    /// The core.
    pub driver: Handle,
    /// What the operator decided.
    pub settings: Arc<Settings>,
    /// Who sent what is no message of a peer.
    pub strangers: Arc<Strangers>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where commits go.
    pub tasks: Tasks,
    /// The streams of events that are open.
    pub streams: Streams,
    /// The scrub of the store.
    pub scrub: Scrub,
    /// What other nodes say of themselves.
    pub reports: Arc<Reports>,
    /// What time it is, for showing it.
    pub wall: fn() -> WallTime,
    uploads: Arc<Semaphore>,
    started: Instant,
}

impl Context {
    /// The context of a node that starts now.
    pub fn new(store: Store, driver: Handle, settings: Settings, tasks: Tasks, wall: fn() -> WallTime) -> Self {
        Self {
            store,
            driver,
            uploads: Arc::new(Semaphore::new(settings.max_uploads)),
            settings: Arc::new(settings),
            strangers: Arc::default(),
            metrics: Arc::new(Metrics::default()),
            tasks,
            streams: Streams::default(),
            scrub: Scrub::default(),
            reports: Arc::default(),
            wall,
            started: Instant::now(),
        }
    }

    /// How many bodies are being received.
    fn uploads_running(&self) -> usize {
        self.settings.max_uploads.saturating_sub(self.uploads.available_permits())
    }
}

/// Mounts the public routes and their description. The application adds [`service::Ready`] to its data, and
/// [`gossip_cdn_shell::problem::not_found`] as its default service.
pub fn configure(context: Context) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
    let context = Data::new(context);
    move |config| {
        let mut routes = Routes { config, api: OpenApiBuilder::new().info(info()).paths(Paths::new()).build() };
        mount(&mut routes);
        let Routes { config, mut api } = routes;
        config.app_data(Data::new(service::Document::new(&api)));
        // Any path of one segment takes a PUT. For the wrong method elsewhere that is no help: who mistypes /status wants a 404.
        api.paths.paths.remove(upload::NAMED);
        let known = service::routes(&api).and(problem::Routes::new(peers::routes()));
        // Made on the thread that serves, which alone may call with it.
        config.app_data(Data::new(Peers::new())).app_data(Data::new(heads::Heads::default()));
        config.app_data(Data::new(known)).app_data(Data::new(page::ASSETS)).app_data(context.clone());
    }
}

fn mount(routes: &mut Routes<'_>) {
    // Routes are tried in this order, and each that has a name in it costs a pattern: first what comes most often.
    routes.add(messages::say);
    routes.add(page::page);
    routes.add(assets::asset);
    routes.add(list::list);
    routes.add(upload::post);
    routes.add(download::download);
    routes.add(download::preflight);
    routes.add(upload::put);
    routes.add(delete::delete);
    routes.add(versions::versions);
    routes.add(holders::holders);
    routes.add(holders::qr);
    routes.add(status::status);
    routes.add(scrub::scrub);
    routes.add(events::events);
    routes.add(network::network);
    routes.add(members::members);
    routes.add(members::introduce);
    routes.add(members::forget);
    routes.add(messages::list);
    // Before the one of any name.
    routes.add(message_stream::follow);
    routes.add(messages::one);
    routes.add(messages::adopt);
    routes.add(metrics::metrics);
    routes.add(service::healthz);
    routes.add(service::readyz);
    routes.add(service::openapi);
    // Last, so that no other route is hidden by a file's name.
    routes.add(upload::put_unnamed);
    routes.add(upload::put_named);
}

fn info() -> Info {
    let mut info = Info::new("Gossip CDN node", env!("CARGO_PKG_VERSION"));
    info.description = Some("Blobs under GUIDs: upload to any node, download from every node. Errors are problems (RFC 9457).".to_owned());
    info
}

/// Registers a route and describes it in one step.
struct Routes<'a> {
    config: &'a mut ServiceConfig,
    api: OpenApi,
}

impl Routes<'_> {
    fn add<F: HttpServiceFactory + OpenApiFactory + 'static>(&mut self, route: F) {
        self.api.paths.merge(route.paths());
        let mut schemas = Vec::new();
        route.schemas(&mut schemas);
        self.api.components.get_or_insert_with(Components::new).schemas.extend(schemas);
        self.config.service(route);
    }
}

/// For `HttpServer::on_connect`: gives every connection its deadline for readers, and a place for a body that is given up.
///
/// The server does not ask a body for more while its reader takes nothing, so no body can notice; the system can, by the option
/// `TCP_USER_TIMEOUT` (RFC 5482), which also ends a connection whose window stays shut.
pub fn on_connect(idle: Duration) -> impl Fn(&dyn Any, &mut Extensions) + Send + Sync + 'static {
    move |connection, data| {
        data.insert(body::GivenUp::default());
        #[cfg(target_os = "linux")]
        if let Some(stream) = connection.downcast_ref::<actix_web::rt::net::TcpStream>() {
            let millis = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX);
            if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, millis) {
                tracing::debug!(%error, "no deadline for readers");
            }
        }
    }
}

/// Middleware: answers `HEAD` as `GET`, but for payloads, whose own `HEAD` reads none.
pub async fn head<B: MessageBody + 'static>(request: ServiceRequest, next: Next<B>) -> Result<ServiceResponse<B>, actix_web::Error> {
    let is_blob = request.path().strip_prefix("/blobs/").is_some_and(|id| !id.contains('/'));
    if is_blob { next.call(request).await } else { request::head_as_get(request, next).await }
}
