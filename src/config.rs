//! What an operator decides: flags, over `GOSSIP_CDN_*` environment variables, over a TOML file, over defaults.
//!
//! 1. Only this module and the command line's definition (by clap) read the environment.
//! 2. A value that cannot be used is refused before anything is opened or made, in one sentence that names the flag and the remedy, and
//!    the process ends with exit code 2. So is a key of the file that nobody knows.
//! 3. A key of the file has the name of its flag, with `_` for `-`; a flag that may be given several times is a list there.

mod file;
mod lan;
mod size;
mod span;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, io};

use clap::Args;
use clap::builder::BoolishValueParser;
use gossip_cdn_protocol::history::epoch::MAX_VOTERS;
use gossip_cdn_protocol::member::{MAX_ADDRESS, is_base_url};
use gossip_cdn_shell::logging::LogFormat;

use crate::http::{
    self,
    patience::{CLIENT_IDLE, CLIENT_RATE, Patience},
};
use crate::scrub::Pace;
use crate::store::Reserve;
use file::File;
pub use lan::Lan;
pub use size::Size;
pub use span::Span;

/// Where a node looks for a bootstrap node unless told otherwise.
pub const BOOTSTRAP: &str = "http://127.0.0.1:7700";
/// The name of the cluster unless told otherwise.
pub const CLUSTER: &str = "gossip-cdn";

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7701);
/// Default bound of a blob: 64 GiB.
const MAX_BLOB: u64 = 64 << 30;
/// Largest bound of a blob: 1 PiB. A guess; it keeps sums of sizes far from overflowing.
const MAX_BLOB_MOST: u64 = 1 << 50;
const MAX_UPLOADS: usize = 256;
/// Each upload has a connection and perhaps a file open; beyond this the process runs out of descriptors first.
const MAX_UPLOADS_MOST: usize = 10_000;
/// Default memory for the database's pages: enough for the upper levels of its trees at a million records.
const CACHE: u64 = 64 << 20;
const CACHE_LEAST: u64 = 1 << 20;
const CACHE_MOST: u64 = 1 << 40;
/// Default time between the beginnings of two scrubs.
const SCRUB_INTERVAL: Duration = Duration::from_secs(30 * 24 * 3600);
/// Default pace of a scrub: 40 TiB in that time, and a tenth of what a slow disk gives. A guess.
const SCRUB_RATE: u64 = 16 << 20;
const SCRUB_RATE_LEAST: u64 = 1 << 10;
const WORKERS_MOST: usize = 256;
/// Longest cluster name, in bytes: it travels in every message.
const CLUSTER_MOST: usize = 100;
/// Longest patience with a client that takes or gives nothing, in seconds.
const CLIENT_IDLE_MOST: usize = 3600;
/// Most that a client may be asked to give, in bytes a second: beyond it honest clients far away would be cut.
const CLIENT_RATE_MOST: u64 = 1 << 20;

/// Flags of `gossip-cdn node`, and the environment variables behind them.
#[derive(Debug, Clone, Default, Args)]
pub struct NodeArgs {
    /// TOML file with any of these settings: a key has its flag's name, with _ for -
    #[arg(long, value_name = "FILE", env = "GOSSIP_CDN_CONFIG")]
    config: Option<PathBuf>,
    /// Address and port to listen on; port 0 takes a free one [default: 127.0.0.1:7701]
    #[arg(long, value_name = "ADDRESS", env = "GOSSIP_CDN_LISTEN", value_parser = parse_listen)]
    listen: Option<SocketAddr>,
    /// Data folder, made if it is not there [default: ./gossip-cdn-data/node-<port>]
    #[arg(long, value_name = "DIR", env = "GOSSIP_CDN_DATA")]
    data: Option<PathBuf>,
    /// Base URL of a bootstrap node; may be given several times [default: http://127.0.0.1:7700]
    #[arg(long, value_name = "URL", env = "GOSSIP_CDN_BOOTSTRAP", value_delimiter = ',')]
    bootstrap: Vec<String>,
    /// Ask no bootstrap node: known members, and introductions by hand (POST /members), remain
    #[arg(long, env = "GOSSIP_CDN_NO_BOOTSTRAP", value_parser = BoolishValueParser::new())]
    no_bootstrap: bool,
    /// Base URL under which other nodes reach this one [default: from --listen]
    #[arg(long, value_name = "URL", env = "GOSSIP_CDN_ADVERTISE")]
    advertise: Option<String>,
    /// Name of the cluster; nodes of other names are refused [default: gossip-cdn]
    #[arg(long, value_name = "NAME", env = "GOSSIP_CDN_CLUSTER")]
    cluster: Option<String>,
    /// Exchange heartbeats on the local network, to a group or broadcast address with its port; needs --cluster [default address: 239.255.77.1:7799]
    #[arg(long, value_name = "ADDRESS", env = "GOSSIP_CDN_LAN", num_args = 0..=1, default_missing_value = "true")]
    lan: Option<Lan>,
    /// Found a message history, if the node belongs to none: for one node of a new network
    #[arg(long, env = "GOSSIP_CDN_FOUND", value_parser = BoolishValueParser::new())]
    found: bool,
    /// Nodes that vote on messages at most, 1 to 7: more outlive the failure of more, fewer say less to each other; alike on all nodes [default: 7]
    #[arg(long, value_name = "N", env = "GOSSIP_CDN_VOTERS")]
    voters: Option<usize>,
    /// Name under which requests may come, beside IP addresses, localhost and the advertised name; may be given several times
    #[arg(long, value_name = "NAME", env = "GOSSIP_CDN_HOST", value_delimiter = ',')]
    host: Vec<String>,
    /// Origin of other web pages that may write here, such as https://example.org; may be given several times
    #[arg(long, value_name = "ORIGIN", env = "GOSSIP_CDN_ALLOW_ORIGIN", value_delimiter = ',')]
    allow_origin: Vec<String>,
    /// File with the token that clients must show for uploads, deletes and introductions [default: anybody may write]
    #[arg(long, value_name = "FILE", env = "GOSSIP_CDN_WRITE_TOKEN")]
    write_token: Option<PathBuf>,
    /// The data folder is a copy or came from a backup: keep the blobs, take a new key. For one start
    #[arg(long)]
    restored: bool,
    /// Largest blob taken [default: 64GiB]
    #[arg(long, value_name = "SIZE", env = "GOSSIP_CDN_MAX_BLOB")]
    max_blob: Option<Size>,
    /// Uploads received at the same time [default: 256]
    #[arg(long, value_name = "N", env = "GOSSIP_CDN_MAX_UPLOADS")]
    max_uploads: Option<usize>,
    /// Seconds that a client may take nothing of a download, or give nothing of an upload [default: 30]
    #[arg(long, value_name = "SECONDS", env = "GOSSIP_CDN_CLIENT_IDLE")]
    client_idle: Option<usize>,
    /// Bytes a second that a client must give of an upload on average, or it is taken for idle; 0 for none [default: 240]
    #[arg(long, value_name = "SIZE", env = "GOSSIP_CDN_CLIENT_RATE")]
    client_rate: Option<Size>,
    /// Disk space that uploads leave free [default: 5 % of the disk or 1GiB, the smaller]
    #[arg(long, value_name = "SIZE", env = "GOSSIP_CDN_RESERVE")]
    reserve: Option<Size>,
    /// From one scrub, in which the node reads and checks every payload it has, to the next; 0 for none but those asked for [default: 30d]
    #[arg(long, value_name = "TIME", env = "GOSSIP_CDN_SCRUB_INTERVAL")]
    scrub_interval: Option<Span>,
    /// Bytes that a scrub reads in a second at most [default: 16MiB]
    #[arg(long, value_name = "SIZE", env = "GOSSIP_CDN_SCRUB_RATE")]
    scrub_rate: Option<Size>,
    /// Memory for the database's pages [default: 64MiB]
    #[arg(long, value_name = "SIZE", env = "GOSSIP_CDN_CACHE")]
    cache: Option<Size>,
    /// Threads that serve HTTP [default: one for each processor]
    #[arg(long, value_name = "N", env = "GOSSIP_CDN_WORKERS")]
    workers: Option<usize>,
    /// How the log on standard error is written: pretty or json [default: pretty]
    #[arg(long, value_name = "FORMAT", env = "GOSSIP_CDN_LOG_FORMAT")]
    log_format: Option<LogFormat>,
    /// What is logged, such as warn, or info,gossip_cdn=debug [default: info]
    #[arg(long, value_name = "FILTER", env = "GOSSIP_CDN_LOG")]
    log: Option<String>,
}

/// Flags of `gossip-cdn demo`. The environment's settings are those of a node and do not count.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Number of nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    nodes: u16,
    /// Port of the bootstrap node; the nodes take the next ones. 0 takes free ports
    #[arg(long, value_name = "PORT", default_value_t = 7700)]
    base_port: u16,
    /// Folder for all data; started again with it, the demo goes on where it was
    #[arg(long, value_name = "DIR", default_value = "gossip-cdn-data")]
    data: PathBuf,
    /// How the log on standard error is written: pretty or json
    #[arg(long, value_name = "FORMAT", default_value_t)]
    log_format: LogFormat,
    /// What is logged, such as info, or info,gossip_cdn=debug
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log: String,
}

/// A setting that cannot be used: one sentence that names the flag and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// A word that must not be seen; `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The word itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// How a node is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The data folder; if `None`, one named after the port, which is known only when it is bound.
    pub data: Option<PathBuf>,
    /// Base URLs of bootstrap nodes; empty with `--no-bootstrap`.
    pub bootstrap: Vec<String>,
    /// The base URL under which others reach this node, where it does not follow from `listen`.
    pub advertise: Option<String>,
    /// The cluster.
    pub cluster: String,
    /// The group or broadcast address of heartbeats on the local network; none are exchanged if `None`.
    pub lan: Option<SocketAddrV4>,
    /// Whether to found a message history, if the node belongs to none.
    pub found: bool,
    /// Nodes that vote on messages at most.
    pub voters: usize,
    /// Names that requests may come under, beside IP addresses, `localhost` and the advertised name.
    pub hosts: Vec<String>,
    /// Other origins whose pages may write here.
    pub allow_origin: Vec<String>,
    /// What clients must show to write; anybody may if `None`.
    pub write_token: Option<Secret>,
    /// Whether the data folder is a copy that needs a new key.
    pub restored: bool,
    /// Largest blob taken, in bytes.
    pub max_blob: u64,
    /// Uploads at the same time.
    pub max_uploads: usize,
    /// How long clients are waited for.
    pub patience: Patience,
    /// Disk space kept free.
    pub reserve: Reserve,
    /// How often everything is read and checked, and how fast.
    pub scrub: Pace,
    /// Memory for the database's pages, in bytes.
    pub cache_bytes: usize,
    /// Threads that serve HTTP; one for each processor if `None`.
    pub workers: Option<usize>,
    /// How the log is written.
    pub log_format: LogFormat,
    /// What is logged.
    pub log: String,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            listen: LISTEN,
            data: None,
            bootstrap: vec![BOOTSTRAP.into()],
            advertise: None,
            cluster: CLUSTER.into(),
            lan: None,
            found: false,
            voters: MAX_VOTERS,
            hosts: Vec::new(),
            allow_origin: Vec::new(),
            write_token: None,
            restored: false,
            max_blob: MAX_BLOB,
            max_uploads: MAX_UPLOADS,
            patience: Patience::default(),
            reserve: Reserve::Usual,
            scrub: Pace { interval: Some(SCRUB_INTERVAL), rate: SCRUB_RATE },
            cache_bytes: usize::try_from(CACHE).unwrap_or(usize::MAX),
            workers: None,
            log_format: LogFormat::default(),
            log: "info".into(),
        }
    }
}

impl NodeConfig {
    /// Puts the layers together. `by_hand` tells of a flag, by its field's name, whether it stood on the command line rather than in the
    /// environment.
    pub fn resolve(flags: NodeArgs, by_hand: impl Fn(&str) -> bool) -> Result<Self, ConfigError> {
        let file = flags.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
        let default = Self::default();
        let bootstrap = bootstraps(&flags, by_hand, &file)?;
        let reserve = flags.reserve.or(file.reserve).map_or(default.reserve, |size| Reserve::Bytes(size.bytes()));
        let token = flags.write_token.or(file.write_token);
        let cluster = flags.cluster.or(file.cluster);
        let lan = flags.lan.or(file.lan).and_then(Lan::address);
        if lan.is_some() && cluster.is_none() {
            return Err(ConfigError(
                "--lan would meet whoever is on the local network under the usual name: name the cluster with --cluster, or leave --lan out".into(),
            ));
        }
        let interval = flags.scrub_interval.or(file.scrub_interval).map_or(SCRUB_INTERVAL, Span::duration);
        let rate = within("--scrub-rate", flags.scrub_rate.or(file.scrub_rate), SCRUB_RATE, SCRUB_RATE_LEAST, u64::MAX)?;
        let config = Self {
            listen: flags.listen.or(file.listen).unwrap_or(default.listen),
            data: flags.data.or(file.data),
            bootstrap,
            advertise: flags.advertise.or(file.advertise).map(|url| base(&url)),
            cluster: cluster.unwrap_or(default.cluster),
            lan,
            found: flags.found || file.found.unwrap_or_default(),
            voters: count("--voters", flags.voters.or(file.voters), MAX_VOTERS)?.unwrap_or(default.voters),
            hosts: stronger(flags.host, file.host),
            allow_origin: stronger(flags.allow_origin, file.allow_origin).iter().map(|url| base(url)).collect(),
            write_token: token.as_deref().map(read_token).transpose()?,
            restored: flags.restored,
            max_blob: within("--max-blob", flags.max_blob.or(file.max_blob), MAX_BLOB, 1, MAX_BLOB_MOST)?,
            max_uploads: count("--max-uploads", flags.max_uploads.or(file.max_uploads), MAX_UPLOADS_MOST)?.unwrap_or(default.max_uploads),
            patience: Patience {
                idle: count("--client-idle", flags.client_idle.or(file.client_idle), CLIENT_IDLE_MOST)?
                    .map_or(CLIENT_IDLE, |seconds| Duration::from_secs(seconds as u64)),
                rate: within("--client-rate", flags.client_rate.or(file.client_rate), CLIENT_RATE, 0, CLIENT_RATE_MOST)?,
            },
            reserve,
            scrub: Pace { interval: Some(interval).filter(|interval| !interval.is_zero()), rate },
            cache_bytes: usize::try_from(within("--cache", flags.cache.or(file.cache), CACHE, CACHE_LEAST, CACHE_MOST)?)
                .map_err(|_| ConfigError("--cache is more than this machine can address: give less".into()))?,
            workers: count("--workers", flags.workers.or(file.workers), WORKERS_MOST)?,
            log_format: flags.log_format.or(file.log_format).unwrap_or_default(),
            log: flags.log.or(file.log).unwrap_or(default.log),
        };
        config.check().map(|()| config)
    }

    /// What is not a matter of a range alone.
    fn check(&self) -> Result<(), ConfigError> {
        if self.data.as_ref().is_some_and(|data| data.as_os_str().is_empty()) {
            return Err(ConfigError("--data is empty: name a folder".into()));
        }
        if self.cluster.is_empty() || self.cluster.len() > CLUSTER_MOST || self.cluster.chars().any(char::is_control) {
            return Err(ConfigError(format!("--cluster must be a name of 1 to {CLUSTER_MOST} bytes on one line: choose another")));
        }
        for (flag, url) in
            self.bootstrap.iter().map(|url| ("--bootstrap", url)).chain(self.advertise.iter().map(|url| ("--advertise", url)))
        {
            if !url.starts_with("http://") || !is_base_url(url) {
                return Err(ConfigError(format!(
                    "{flag} {url:?} is not the address of a node: write a base URL of at most {MAX_ADDRESS} bytes such as http://10.0.0.7:7701"
                )));
            }
        }
        for host in &self.hosts {
            if !is_base_url(&format!("http://{host}")) {
                return Err(ConfigError(format!("--host {host:?} is not the name of a host: write one such as cdn.example.org")));
            }
        }
        for origin in &self.allow_origin {
            if !is_base_url(origin) {
                return Err(ConfigError(format!(
                    "--allow-origin {origin:?} is not an origin: write scheme, host and port such as https://example.org"
                )));
            }
        }
        Ok(())
    }

    /// The bootstrap nodes to ask.
    pub fn bootstraps(&self) -> Vec<String> {
        self.bootstrap.clone()
    }

    /// Whether anybody who reaches this machine over a network may write and delete.
    pub fn is_open(&self) -> bool {
        !self.listen.ip().is_loopback() && self.write_token.is_none()
    }

    /// The part of it that the public routes need; `advertised` is the base URL under which others reach this node.
    pub fn http_settings(&self, advertised: &str) -> http::Settings {
        http::Settings {
            address: advertised.into(),
            max_blob: self.max_blob,
            max_uploads: self.max_uploads,
            write_token: self.write_token.as_ref().map(|token| token.reveal().into()),
            patience: self.patience,
        }
    }
}

/// How a demo is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoConfig {
    /// Number of nodes, 1 to 100.
    pub nodes: u16,
    /// Port of the bootstrap node; 0 takes free ports for all.
    pub base_port: u16,
    /// Folder for all data.
    pub data: PathBuf,
    /// How the log is written.
    pub log_format: LogFormat,
    /// What is logged.
    pub log: String,
}

impl DemoConfig {
    /// Checks the flags.
    pub fn resolve(flags: DemoArgs) -> Result<Self, ConfigError> {
        let DemoArgs { nodes, base_port, data, log_format, log } = flags;
        if base_port.checked_add(nodes).is_none() {
            return Err(ConfigError(format!("--base-port {base_port} leaves no room for {nodes} nodes below 65536: choose a smaller one")));
        }
        Ok(Self { nodes, base_port, data, log_format, log })
    }

    /// The bootstrap node.
    pub fn bootstrap(&self) -> gossip_cdn_bootstrap::Config {
        gossip_cdn_bootstrap::Config::new(self.listen(0), self.data.join("bootstrap"))
    }

    /// The nodes, given where the bootstrap node listens.
    pub fn nodes(&self, bootstrap: SocketAddr) -> impl Iterator<Item = NodeConfig> + '_ {
        (1..=self.nodes).map(move |number| NodeConfig {
            listen: self.listen(number),
            data: Some(self.data.join(format!("node-{number}"))),
            bootstrap: vec![format!("http://{bootstrap}")],
            // One of them begins the message history; started again they go on with it.
            found: number == 1,
            // All of them share one machine.
            cache_bytes: 16 << 20,
            workers: Some(2),
            log_format: self.log_format,
            log: self.log.clone(),
            ..NodeConfig::default()
        })
    }

    fn listen(&self, number: u16) -> SocketAddr {
        let port = if self.base_port == 0 { 0 } else { self.base_port.saturating_add(number) };
        (Ipv4Addr::LOCALHOST, port).into()
    }
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write address and port such as 127.0.0.1:7701, or 0.0.0.0:7701 for all addresses".into())
}

/// The bootstrap nodes of the strongest layer that says anything about them.
fn bootstraps(flags: &NodeArgs, by_hand: impl Fn(&str) -> bool, file: &File) -> Result<Vec<String>, ConfigError> {
    let layer = |hand: bool| {
        let urls = if by_hand("bootstrap") == hand { flags.bootstrap.as_slice() } else { &[] };
        (urls, flags.no_bootstrap && by_hand("no_bootstrap") == hand)
    };
    let in_file = (file.bootstrap.as_deref().unwrap_or_default(), file.no_bootstrap.unwrap_or_default());
    for (urls, none) in [layer(true), layer(false), in_file] {
        match (urls.is_empty(), none) {
            (false, true) => return Err(ConfigError("--bootstrap and --no-bootstrap contradict each other: leave one of them out".into())),
            (false, false) => return Ok(urls.iter().map(|url| base(url)).collect()),
            (true, true) => return Ok(Vec::new()),
            (true, false) => {}
        }
    }
    Ok(vec![BOOTSTRAP.into()])
}

/// A base URL as it is compared: without a slash at its end.
fn base(url: &str) -> String {
    url.trim().trim_end_matches('/').into()
}

/// A list is not merged over the layers: the stronger one replaces the weaker.
fn stronger(flags: Vec<String>, file: Option<Vec<String>>) -> Vec<String> {
    if flags.is_empty() { file.unwrap_or_default() } else { flags }
}

fn within(flag: &str, size: Option<Size>, default: u64, least: u64, most: u64) -> Result<u64, ConfigError> {
    let size = size.map_or(default, Size::bytes);
    if (least..=most).contains(&size) {
        return Ok(size);
    }
    let (least, most) = (Size::new(least), Size::new(most));
    Err(ConfigError(format!("{flag} is {} but must lie between {least} and {most}: change it", Size::new(size))))
}

fn count(flag: &str, count: Option<usize>, most: usize) -> Result<Option<usize>, ConfigError> {
    match count {
        Some(count) if !(1..=most).contains(&count) => {
            Err(ConfigError(format!("{flag} is {count} but must lie between 1 and {most}: change it")))
        }
        Some(_) | None => Ok(count),
    }
}

/// Reads the token from the first line of a file. It is not a flag, because the arguments of a process are everybody's to read.
fn read_token(path: &Path) -> Result<Secret, ConfigError> {
    let bad =
        |what: &str| ConfigError(format!("--write-token {}: {what}; put one line of visible ASCII characters into it", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error: io::Error| bad(&error.to_string()))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(bad("there is no token in the file"));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad("the token has characters that cannot travel in a header"));
    }
    Ok(Secret(token.into()))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches, Parser};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        node: NodeArgs,
    }

    /// Resolves flags as the command line would, without an environment.
    fn resolve(line: &str) -> Result<NodeConfig, String> {
        let words = std::iter::once("node").chain(line.split(' ').filter(|word| !word.is_empty()));
        let command = Cli::command().mut_args(|argument| argument.env(None::<&str>));
        let matches = command.try_get_matches_from(words).map_err(|error| error.to_string())?;
        let cli = Cli::from_arg_matches(&matches).map_err(|error| error.to_string())?;
        let by_hand = |name: &str| matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine);
        NodeConfig::resolve(cli.node, by_hand).map_err(|error| error.to_string())
    }

    fn with_file(toml: &str, line: &str) -> Result<NodeConfig, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.toml");
        std::fs::write(&path, toml).unwrap();
        resolve(&format!("--config {} {line}", path.display()))
    }

    #[test]
    fn without_settings_the_defaults_hold() {
        assert_eq!(resolve(""), Ok(NodeConfig::default()));
    }

    #[test]
    fn a_flag_is_stronger_than_the_file_and_the_file_than_the_default() {
        let toml = "listen = \"127.0.0.1:9000\"\nmax_blob = \"1GiB\"\ncache = 2097152\nhost = [\"a\", \"b\"]\nworkers = 3\nlog_format = \"json\"\n";
        let config = with_file(toml, "--max-blob 2GiB --host c --log debug").unwrap();
        assert_eq!(config.listen.port(), 9000);
        assert_eq!(config.max_blob, 2 << 30);
        assert_eq!(config.cache_bytes, 2 << 20);
        assert_eq!(config.hosts, ["c"]);
        assert_eq!((config.workers, config.log_format, config.log.as_str()), (Some(3), LogFormat::Json, "debug"));
        assert_eq!(config.max_uploads, MAX_UPLOADS);
    }

    #[test]
    fn every_setting_of_a_node_can_come_from_the_environment_but_a_restore() {
        for argument in Cli::command().get_arguments().filter(|argument| !["help", "restored"].contains(&argument.get_id().as_str())) {
            let name = format!("GOSSIP_CDN_{}", argument.get_id().as_str().to_uppercase());
            assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(name.as_str()));
        }
    }

    #[test]
    fn every_key_of_the_file_is_a_flag() {
        let toml = "listen = \"127.0.0.1:1\"\ndata = \"d\"\nbootstrap = [\"http://b:1/\"]\nno_bootstrap = false\nadvertise = \"http://a:1\"\n\
                    cluster = \"c\"\nlan = true\nfound = true\nvoters = 3\nhost = [\"h\"]\nallow_origin = [\"https://o\"]\nmax_blob = 1\nmax_uploads = 1\nclient_idle = 5\nclient_rate = 0\nreserve = 0\nscrub_interval = \"7d\"\nscrub_rate = \"1MiB\"\ncache = \"1MiB\"\n\
                    workers = 1\nlog_format = \"pretty\"\nlog = \"warn\"\n";
        let config = with_file(toml, "").unwrap();
        assert_eq!(config.bootstraps(), ["http://b:1"]);
        assert_eq!(config.reserve, Reserve::Bytes(0));
        assert_eq!(config.scrub, Pace { interval: Some(Duration::from_secs(7 * 24 * 3600)), rate: 1 << 20 });
        assert_eq!(config.patience, Patience { idle: Duration::from_secs(5), rate: 0 });
        assert!(config.lan.is_some());
        let keys: Vec<_> = toml.lines().filter_map(|line| line.split(' ').next()).collect();
        let command = Cli::command();
        let flags: Vec<_> = command.get_arguments().map(|argument| argument.get_id().as_str()).collect();
        assert!(keys.iter().all(|key| flags.contains(key)), "{keys:?}");
    }

    #[test]
    fn the_strongest_layer_decides_about_bootstrap_nodes() {
        assert_eq!(resolve("--no-bootstrap").unwrap().bootstraps(), Vec::<String>::new());
        assert_eq!(resolve("--bootstrap http://a:1,http://b:2 --bootstrap http://c:3").unwrap().bootstraps().len(), 3);
        assert!(resolve("--bootstrap http://a:1 --no-bootstrap").unwrap_err().contains("contradict"));
        assert_eq!(with_file("bootstrap = [\"http://a:1\"]", "--no-bootstrap").unwrap().bootstraps(), Vec::<String>::new());
        assert_eq!(with_file("no_bootstrap = true", "--bootstrap http://a:1").unwrap().bootstraps(), ["http://a:1"]);
        let environment = NodeArgs { bootstrap: vec!["http://a:1".into()], no_bootstrap: true, ..NodeArgs::default() };
        let none_by_hand = NodeConfig::resolve(environment.clone(), |name| name == "no_bootstrap").unwrap();
        assert!(none_by_hand.bootstraps().is_empty(), "the flag is stronger than the environment's list");
        assert!(NodeConfig::resolve(environment, |_| false).is_err());
    }

    #[test]
    fn what_cannot_be_used_names_its_flag() {
        let long = format!("--cluster {}", "x".repeat(101));
        for (line, flag) in [
            ("--max-blob 0", "--max-blob"),
            ("--max-blob 2PiB", "--max-blob"),
            ("--max-uploads 0", "--max-uploads"),
            ("--client-idle 0", "--client-idle"),
            ("--client-rate 1GiB", "--client-rate"),
            ("--cache 1", "--cache"),
            ("--workers 1000", "--workers"),
            ("--bootstrap https://a", "--bootstrap"),
            ("--bootstrap 10.0.0.1:7700", "--bootstrap"),
            ("--advertise http://a/b", "--advertise"),
            ("--host a/b", "--host"),
            ("--allow-origin example.org", "--allow-origin"),
            ("--write-token /nowhere/token", "--write-token"),
            ("--config /nowhere/file", "--config"),
            ("--listen 7701", "--listen"),
            ("--reserve lots", "--reserve"),
            ("--log-format xml", "--log-format"),
            (long.as_str(), "--cluster"),
            ("--lan", "--cluster"),
            ("--cluster c --lan 10.0.0.255", "--lan"),
            ("--cluster c --lan 0.0.0.0:1", "--lan"),
        ] {
            let error = resolve(line).expect_err(line);
            assert!(error.contains(flag), "{line}: {error}");
        }
    }

    #[test]
    fn heartbeats_have_an_address_of_their_own_or_the_usual_one() {
        let lan = |line: &str| resolve(line).unwrap().lan.map(|address| address.to_string());
        assert_eq!(lan("--cluster c"), None);
        assert_eq!(lan("--cluster c --lan").as_deref(), Some("239.255.77.1:7799"));
        assert_eq!(lan("--lan --cluster c --log debug").as_deref(), Some("239.255.77.1:7799"));
        assert_eq!(lan("--lan=10.0.0.255:7 --cluster c").as_deref(), Some("10.0.0.255:7"));
        assert_eq!(with_file("cluster = \"c\"\nlan = \"10.0.0.255:7\"", "--lan=false").unwrap().lan, None);
        assert!(with_file("lan = true", "").unwrap_err().contains("--cluster"));
    }

    #[test]
    fn a_key_that_nobody_knows_is_refused_with_its_line() {
        let error = with_file("cluster = \"x\"\nlisen = \"127.0.0.1:1\"\n", "").unwrap_err();
        assert!(
            error.starts_with("--config ") && error.contains("line 2") && error.contains("lisen") && error.lines().count() == 1,
            "{error}"
        );
        assert!(with_file("max_blob = \"much\"", "").unwrap_err().contains("line 1"));
    }

    #[test]
    fn a_token_is_read_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            resolve(&format!("--listen 0.0.0.0:1 --write-token {}", path.display()))
        };
        let config = read("hunter2\n").unwrap();
        assert_eq!(config.http_settings("http://a:1").write_token.as_deref(), Some("hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(!config.is_open() && resolve("--listen 0.0.0.0:1").unwrap().is_open() && !resolve("").unwrap().is_open());
        assert!(read("\n").is_err() && read("two words").is_err() && read("é").is_err());
    }

    #[test]
    fn a_demo_has_its_ports_in_a_row() {
        let flags = |base_port| DemoArgs { nodes: 2, base_port, data: "d".into(), log_format: LogFormat::Pretty, log: "warn".into() };
        let demo = DemoConfig::resolve(flags(7700)).unwrap();
        let nodes: Vec<_> = demo.nodes(([127, 0, 0, 1], 7700).into()).collect();
        assert_eq!(nodes.iter().map(|node| node.listen.port()).collect::<Vec<_>>(), [7701, 7702]);
        assert_eq!(nodes[1].data.as_deref(), Some(Path::new("d/node-2")));
        assert_eq!(nodes[0].bootstraps(), [BOOTSTRAP]);
        assert!(DemoConfig::resolve(flags(65_534)).is_err());
        let free = DemoConfig::resolve(flags(0)).unwrap();
        assert!(free.nodes(([127, 0, 0, 1], 1).into()).all(|node| node.listen.port() == 0));
    }
}
