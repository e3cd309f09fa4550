//! Listening, and the settings that every HTTP server of ours has.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// How long an idle connection is kept. Longer than clients keep theirs (15 s for awc), so that they never send into a closing one.
pub const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long the head of a connection's first request may take.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to close its end.
pub const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What differs between servers.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Threads that serve; as many as the machine has processors if `None`.
    pub workers: Option<usize>,
    /// How long requests in flight may take after the wish to stop.
    pub drain: Duration,
}

/// Listens on `address`. The error names it.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).map_err(|error| {
        let kind = error.kind();
        let why = if kind == io::ErrorKind::AddrInUse {
            "another process listens there".to_owned()
        } else if kind == io::ErrorKind::PermissionDenied {
            "this user may not".to_owned()
        } else if kind == io::ErrorKind::AddrNotAvailable {
            "this machine has no such address".to_owned()
        } else {
            error.to_string()
        };
        io::Error::new(kind, format!("cannot listen on {address}: {why}"))
    })
}

/// Gives an `HttpServer` the settings that ours have in common, and those of a [`Settings`].
///
/// A macro, because the bounds of `HttpServer` name types that actix-web does not export. Nagle's algorithm is off: it costs 40 ms for
/// a body in two writes. The signals are ours ([`crate::signals`]), because actix-web takes Ctrl-C as the wish to stop at once.
#[macro_export]
macro_rules! tuned {
    ($server:expr, $settings:expr) => {{
        let settings: &$crate::serve::Settings = $settings;
        let server = $server
            .tcp_nodelay(true)
            .disable_signals()
            .keep_alive($crate::serve::KEEP_ALIVE)
            .client_request_timeout($crate::serve::HEAD_TIMEOUT)
            .client_disconnect_timeout($crate::serve::DISCONNECT_TIMEOUT)
            .shutdown_timeout(settings.drain.as_secs());
        match settings.workers {
            Some(workers) => server.workers(workers.max(1)),
            None => server,
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_named() {
        let first = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = first.local_addr().unwrap();
        let error = listen(address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(error.to_string(), format!("cannot listen on {address}: another process listens there"));
    }
}
