//! The configuration file: TOML, each key optional, no key unknown.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use gossip_cdn_shell::logging::LogFormat;
use serde::Deserialize;

use super::{ConfigError, Lan, Size, Span};

/// What a file says; the fields are those of [`super::NodeArgs`], without the ones that make sense for a single start only.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) listen: Option<SocketAddr>,
    pub(super) data: Option<PathBuf>,
    pub(super) bootstrap: Option<Vec<String>>,
    pub(super) no_bootstrap: Option<bool>,
    pub(super) advertise: Option<String>,
    pub(super) cluster: Option<String>,
    pub(super) lan: Option<Lan>,
    pub(super) found: Option<bool>,
    pub(super) voters: Option<usize>,
    pub(super) host: Option<Vec<String>>,
    pub(super) allow_origin: Option<Vec<String>>,
    pub(super) write_token: Option<PathBuf>,
    pub(super) max_blob: Option<Size>,
    pub(super) max_uploads: Option<usize>,
    pub(super) client_idle: Option<usize>,
    pub(super) client_rate: Option<Size>,
    pub(super) reserve: Option<Size>,
    pub(super) scrub_interval: Option<Span>,
    pub(super) scrub_rate: Option<Size>,
    pub(super) cache: Option<Size>,
    pub(super) workers: Option<usize>,
    pub(super) log_format: Option<LogFormat>,
    pub(super) log: Option<String>,
}

impl File {
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let bad = |what: String| ConfigError(format!("--config {}: {what}; correct the file or leave the flag out", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
        toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            bad(format!("line {line}: {}", error.message().replace('\n', ", ")))
        })
    }
}
