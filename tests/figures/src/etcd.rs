//! etcd, as its package brings it, and clients of its gRPC.
//!
//! Three processes on loopback with data folders of their own, synchronising their log with every commit as they do by default. A put is one call
//! of `etcdserverpb.KV/Put`, written by hand: two fields of a message, five bytes before it.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gossip_cdn_cluster::interruption::go_on;
use h2::client::SendRequest;
use http::Request;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::agreement::PATIENCE;
use crate::load;
use crate::report::{Broken, claim};
use crate::waiting::wait;

/// Clients that share a connection.
const SHARED: usize = 8;

/// Processes of etcd that are one cluster.
pub(crate) struct Etcd {
    processes: Vec<Child>,
    ports: Vec<u16>,
    runtime: Runtime,
    _folder: TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It may have ended already.
            drop(process.kill());
            drop(process.wait());
        }
    }
}

fn free_ports(count: usize) -> Result<Vec<u16>, Broken> {
    let held = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    Ok(held.iter().map(|held| Ok(held.local_addr()?.port())).collect::<Result<_, std::io::Error>>()?)
}

impl Etcd {
    /// Starts as many and waits until each of them puts.
    pub(crate) fn of(count: usize) -> Result<Self, Broken> {
        let (folder, ports, peers) = (TempDir::new()?, free_ports(count)?, free_ports(count)?);
        let cluster: Vec<String> = peers.iter().enumerate().map(|(n, port)| format!("n{n}=http://127.0.0.1:{port}")).collect();
        let cluster = cluster.join(",");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut etcd = Self { processes: vec![], ports, runtime, _folder: folder };
        for (n, (port, peer)) in etcd.ports.clone().into_iter().zip(peers).enumerate() {
            let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
            let process = Command::new("etcd")
                .args(["--name", &format!("n{n}"), "--data-dir"])
                .arg(etcd._folder.path().join(n.to_string()))
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &cluster, "--initial-cluster-state", "new"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            etcd.processes.push(process.map_err(|error| Broken::new(format!("etcd: {error}: install etcd-server")))?);
        }
        for port in etcd.ports.clone() {
            wait("etcd puts", PATIENCE, || Ok(etcd.runtime.block_on(async { Putter::new(port).await?.put(0, 1).await }).is_ok()))?;
        }
        Ok(etcd)
    }

    /// The processes.
    pub(crate) fn pids(&self) -> impl Iterator<Item = u32> {
        self.processes.iter().map(Child::id)
    }

    /// How long each of so many puts takes, one after the other, at each process in turn.
    pub(crate) fn alone(&self, count: usize, size: usize) -> Result<Vec<Duration>, Broken> {
        let mut took = Vec::with_capacity(count);
        for (n, port) in self.ports.iter().enumerate() {
            let puts = self.runtime.block_on(async {
                let mut putter = Putter::new(*port).await?;
                let mut took = Vec::new();
                for key in 0..count / self.ports.len() {
                    go_on()?;
                    let begin = Instant::now();
                    putter.put(key + n * count, size).await?;
                    took.push(begin.elapsed());
                }
                Ok::<_, Broken>(took)
            })?;
            took.extend(puts);
        }
        Ok(took)
    }

    /// Lets so many clients put, one put after the other each, until `meanwhile` has ended, which may look at how many are done.
    pub(crate) fn under_load<T: Send>(
        &self,
        clients: usize,
        size: usize,
        meanwhile: impl FnOnce(&AtomicU64) -> Result<T, Broken> + Send,
    ) -> Result<T, Broken> {
        let mut shared: Option<Putter> = None;
        let putter = async |client: usize| {
            let putter = match shared.take().filter(|_| !client.is_multiple_of(SHARED)) {
                Some(putter) => putter,
                None => Putter::new(self.ports[client / SHARED % self.ports.len()]).await?,
            };
            shared = Some(putter.clone());
            Ok(putter)
        };
        let put = async |putter: &mut Putter, key: u64| putter.put(usize::try_from(key)?, size).await;
        load::under_load(&self.runtime, clients, putter, put, meanwhile)
    }
}

/// A client of one process.
#[derive(Clone)]
struct Putter {
    calls: SendRequest<Bytes>,
    url: String,
}

impl Putter {
    async fn new(port: u16) -> Result<Self, Broken> {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (calls, connection) = h2::client::handshake(stream).await?;
        // It ends with the last of its callers.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { calls, url: format!("http://127.0.0.1:{port}/etcdserverpb.KV/Put") })
    }

    async fn put(&mut self, key: usize, size: usize) -> Result<(), Broken> {
        let message = put_request(format!("key{key}").as_bytes(), &vec![b'v'; size]);
        let request = Request::post(&self.url).header("content-type", "application/grpc").header("te", "trailers").body(())?;
        let mut calls = self.calls.clone().ready().await?;
        let (answer, mut sending) = calls.send_request(request, false)?;
        sending.send_data(message, true)?;
        let mut body = answer.await?.into_body();
        while let Some(piece) = body.data().await {
            body.flow_control().release_capacity(piece?.len())?;
        }
        let trailers = body.trailers().await?.unwrap_or_default();
        let status = trailers.get("grpc-status").map(|status| status.as_bytes().to_vec()).unwrap_or_default();
        claim(status == b"0", || format!("etcd answered with the status {}", String::from_utf8_lossy(&status)))
    }
}

/// A `PutRequest`: field 1 is the key, field 2 the value. Before it, as gRPC has it, a byte that says "not compressed" and its length.
fn put_request(key: &[u8], value: &[u8]) -> Bytes {
    let mut message = Vec::with_capacity(key.len() + value.len() + 16);
    for (tag, field) in [(0x0a, key), (0x12, value)] {
        message.push(tag);
        let mut length = field.len();
        // Base 128, the lowest group first (Protocol Buffers, "Encoding", Base 128 Varints).
        loop {
            let group = u8::try_from(length & 0x7f).unwrap_or_default();
            length >>= 7;
            message.push(if length > 0 { group | 0x80 } else { group });
            if length == 0 {
                break;
            }
        }
        message.extend_from_slice(field);
    }
    let length = u32::try_from(message.len()).unwrap_or_default();
    let mut framed = vec![0];
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(&message);
    framed.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_is_written_as_protocol_buffers_have_it() {
        let put = put_request(b"k", &[b'v'; 300]);
        assert_eq!(&put[..5], [0, 0, 0, 1, 0x32]);
        assert_eq!(&put[5..11], [0x0a, 1, b'k', 0x12, 0xac, 0x02]);
        assert_eq!(put.len(), 5 + 3 + 3 + 300);
    }
}
