//! Other servers, as their packages bring them, over a folder of files.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gossip_cdn_cluster::eventually;
use tempfile::TempDir;

/// A server that runs.
pub(crate) struct Peer {
    process: Child,
    /// Its base URL.
    pub(crate) url: String,
    _folder: TempDir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Peer {
    /// nginx over these files.
    pub(crate) fn nginx(files: &Path) -> Self {
        Self::start("nginx", |port, folder| {
            let config = format!(
                "daemon off; master_process off; pid {own}/pid; error_log {own}/errors;\n\
                 events {{}}\n\
                 http {{ access_log off; client_body_temp_path {own}; proxy_temp_path {own}; fastcgi_temp_path {own}; uwsgi_temp_path {own};\n\
                 scgi_temp_path {own}; server {{ listen 127.0.0.1:{port}; root {files}; }} }}\n",
                own = folder.display(),
                files = files.display(),
            );
            let path = written(folder, &config);
            let mut command = Command::new("nginx");
            command.arg("-e").arg(folder.join("errors")).arg("-c").arg(path);
            command
        })
    }

    /// Apache httpd over these files.
    pub(crate) fn httpd(files: &Path) -> Self {
        let program = ["apache2", "httpd"].into_iter().find(|name| on_path(name)).unwrap();
        let modules = ["/usr/lib/apache2/modules", "/etc/httpd/modules", "/usr/lib64/httpd/modules"];
        let modules = modules.into_iter().find(|folder| Path::new(folder).exists()).unwrap();
        Self::start(program, |port, folder| {
            let config = format!(
                "ServerName localhost\nListen 127.0.0.1:{port}\nServerRoot {own}\nPidFile {own}/pid\nErrorLog {own}/errors\n\
                 LoadModule mpm_event_module {modules}/mod_mpm_event.so\n\
                 LoadModule authz_core_module {modules}/mod_authz_core.so\n\
                 DefaultRuntimeDir {own}\nMutex pthread\nDocumentRoot {files}\n",
                own = folder.display(),
                files = files.display(),
            );
            let path = written(folder, &config);
            let mut command = Command::new(program);
            command.arg("-X").arg("-f").arg(path);
            command
        })
    }

    fn start(name: &str, command: impl Fn(u16, &Path) -> Command) -> Self {
        let folder = TempDir::new().unwrap();
        // It cannot choose a free port itself, and another process may take this one in between.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut process =
                command(port, folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let mut ended = false;
            eventually(name, || {
                ended = process.try_wait().unwrap().is_some();
                ended || TcpStream::connect(("127.0.0.1", port)).is_ok()
            });
            std::thread::sleep(Duration::from_millis(20));
            if !ended && process.try_wait().unwrap().is_none() {
                return Self { process, url: format!("http://127.0.0.1:{port}"), _folder: folder };
            }
        }
        panic!("{name} does not start: {}", std::fs::read_to_string(folder.path().join("errors")).unwrap_or_default());
    }
}

fn written(folder: &Path, config: &str) -> PathBuf {
    let path = folder.join("config");
    std::fs::write(&path, config).unwrap();
    path
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap();
    // Where administrators' programs are, whoever looks.
    let usual = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
    std::env::split_paths(&path).chain(usual).any(|folder| folder.join(program).exists())
}
