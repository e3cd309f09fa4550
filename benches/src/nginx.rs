//! nginx, as its package brings it, serving a folder of its own.
//!
//! The settings are those that Debian ships where they concern the load: `sendfile` and `tcp_nopush` on, a process for each processor, a log of
//! every request into a file. Files are put by its WebDAV module, which does not synchronise them to the disk.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gossip_cdn_cluster::interruption::go_on;

use crate::table::Failed;

/// How long it may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running nginx. It ends with this value.
#[derive(Debug)]
pub(crate) struct Nginx {
    process: Child,
    /// Host and port.
    pub(crate) authority: String,
    /// What it serves.
    pub(crate) files: PathBuf,
}

impl Nginx {
    /// Starts it in that folder.
    pub(crate) fn start(folder: &Path) -> Result<Self, Failed> {
        let files = folder.join("files");
        fs::create_dir_all(&files)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let configuration = folder.join("nginx.conf");
        fs::write(&configuration, configured(folder, port)?)?;
        let process = Command::new("nginx")
            .arg("-e")
            .arg(folder.join("error.log"))
            .arg("-c")
            .arg(&configuration)
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| Failed(format!("nginx: {error}: install the package nginx")))?;
        let nginx = Self { process, authority: format!("127.0.0.1:{port}"), files };
        let begin = Instant::now();
        while TcpStream::connect(&nginx.authority).is_err() {
            go_on()?;
            if begin.elapsed() > PATIENCE {
                return Err(Failed("nginx does not listen".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Killed outright its master would leave its workers behind.
        let pid = i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended already.
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        }
        drop(self.process.wait());
    }
}

fn configured(folder: &Path, port: u16) -> Result<String, Failed> {
    let folder = folder.canonicalize()?;
    let at = folder.display();
    // Its workers give up the rights of root, and could then not write.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    Ok(format!(
        "{user}
worker_processes auto;
daemon off;
pid {at}/nginx.pid;
events {{ worker_connections 768; }}
http {{
    sendfile on;
    tcp_nopush on;
    default_type application/octet-stream;
    access_log {at}/access.log;
    client_body_temp_path {at}/body;
    proxy_temp_path {at}/proxy;
    fastcgi_temp_path {at}/fastcgi;
    uwsgi_temp_path {at}/uwsgi;
    scgi_temp_path {at}/scgi;
    client_max_body_size 0;
    server {{
        listen 127.0.0.1:{port};
        root {at}/files;
        location / {{ dav_methods PUT DELETE; }}
    }}
}}
"
    ))
}
