//! Heartbeats on the local network: the sockets behind them. What they mean is decided by the core.
//!
//! 1. Only what was sent to the group or broadcast address is heard: the socket is bound to it, not to the port alone.
//! 2. Several nodes of one machine hear the same address, each everything: the address is shared.
//! 3. Nothing leaves the segment: multicast has a time to live of 1, and routers do not pass broadcasts on.
//! 4. Sending never waits. A datagram that the system does not take is lost like one on the wire; why is logged once, until one is
//!    taken again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use gossip_cdn_protocol::lan::{Heartbeat, MAX_DATAGRAM};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with, sockopt};
use tokio::net::UdpSocket;

/// Where heartbeats go, and by which interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The multicast group or broadcast address, and the port.
    pub address: SocketAddrV4,
    /// The local address of the interface; unspecified leaves the choice to the system.
    pub interface: Ipv4Addr,
}

impl Segment {
    /// The segment of the interface that a node listens on, or, where that is every one, of the one that it advertises.
    ///
    /// `None` of a node that listens on IPv6 alone: there is no broadcast there.
    pub fn of(address: SocketAddrV4, listening: SocketAddr, advertised: &str) -> Option<Self> {
        let interface = match listening.ip() {
            IpAddr::V4(ip) if !ip.is_unspecified() => ip,
            IpAddr::V6(ip) if !ip.is_unspecified() => ip.to_ipv4_mapped()?,
            IpAddr::V4(_) | IpAddr::V6(_) => {
                let authority = advertised.split_once("://").map_or(advertised, |(_, authority)| authority);
                let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
                // A name says nothing of interfaces.
                host.parse().unwrap_or(Ipv4Addr::UNSPECIFIED)
            }
        };
        Some(Self { address, interface })
    }
}

/// The two sockets of a node on its segment.
#[derive(Debug)]
pub struct Lan {
    segment: Segment,
    hearing: std::net::UdpSocket,
    sending: std::net::UdpSocket,
}

impl Lan {
    /// Opens the sockets.
    pub fn open(segment: Segment) -> io::Result<Self> {
        let Segment { address, interface } = segment;
        let hearing = datagram_socket()?;
        sockopt::set_socket_reuseaddr(&hearing, true)?;
        // What other systems than Linux want for it.
        sockopt::set_socket_reuseport(&hearing, true)?;
        bind(&hearing, &SocketAddr::V4(address))?;
        let sending = datagram_socket()?;
        bind(&sending, &SocketAddr::V4(SocketAddrV4::new(interface, 0)))?;
        if address.ip().is_multicast() {
            sockopt::set_ip_add_membership(&hearing, address.ip(), &interface)?;
            sockopt::set_ip_multicast_if(&sending, &interface)?;
            sockopt::set_ip_multicast_ttl(&sending, 1)?;
            // Other nodes of this machine are to hear it too.
            sockopt::set_ip_multicast_loop(&sending, true)?;
        } else {
            sockopt::set_socket_broadcast(&sending, true)?;
        }
        // Sends nothing, but finds out whether that interface leads there.
        sending.connect(SocketAddr::V4(address))?;
        Ok(Self { segment, hearing, sending })
    }

    /// Makes it usable on the runtime that this is called on.
    pub fn start(self) -> io::Result<RunningLan> {
        let hearing = UdpSocket::from_std(self.hearing)?;
        Ok(RunningLan { segment: self.segment, hearing, sending: self.sending, is_failing: false, buffer: vec![0; MAX_DATAGRAM + 1] })
    }
}

fn datagram_socket() -> io::Result<std::net::UdpSocket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::INET, SocketType::DGRAM, flags, Some(ipproto::UDP))?.into())
}

/// A node's ears and voice on its segment.
#[derive(Debug)]
pub struct RunningLan {
    segment: Segment,
    hearing: UdpSocket,
    sending: std::net::UdpSocket,
    /// Whether the last datagram was not taken.
    is_failing: bool,
    /// One byte longer than any datagram that is taken, so that a longer one is recognised.
    buffer: Vec<u8>,
}

impl RunningLan {
    /// Sends a heartbeat; loses it where the system does not take it at once.
    pub fn send(&mut self, heartbeat: &Heartbeat) {
        let sent = serde_json::to_vec(heartbeat).map_err(io::Error::other).and_then(|datagram| self.sending.send(&datagram));
        match sent {
            Ok(_) => self.is_failing = false,
            Err(error) => {
                if !self.is_failing {
                    tracing::warn!(address = %self.segment.address, "heartbeats cannot be sent: {error}; trying on");
                }
                self.is_failing = true;
            }
        }
    }

    /// The next datagram. Dropped before it resolves, it loses none.
    pub async fn hear(&mut self) -> Vec<u8> {
        loop {
            match self.hearing.recv(&mut self.buffer).await {
                Ok(length) => return self.buffer.iter().take(length).copied().collect(),
                // A fault of one datagram, not of the socket; and a turn for everything else.
                Err(error) => {
                    tracing::debug!(%error, "a datagram was not received");
                    tokio::time::sleep(gossip_cdn_protocol::lan::INTERVAL).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gossip_cdn_protocol::{NodeId, PublicKey};

    use super::*;

    /// A port that is free now; several sockets share it from then on.
    fn free_port() -> u16 {
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    fn heartbeat() -> Heartbeat {
        let key = PublicKey([3; 32]);
        let id = NodeId::from_public_key(&key.0);
        Heartbeat { version: 1, cluster: "c".into(), id, incarnation: 1, address: "http://127.0.0.1:1".into(), key }
    }

    #[tokio::test]
    async fn everybody_on_the_segment_hears_a_heartbeat_the_sender_too() {
        for ip in [Ipv4Addr::new(239, 255, 77, 2), Ipv4Addr::new(127, 255, 255, 255)] {
            let segment = Segment { address: SocketAddrV4::new(ip, free_port()), interface: Ipv4Addr::LOCALHOST };
            let mut nodes: Vec<_> = (0..3).map(|_| Lan::open(segment).unwrap().start().unwrap()).collect();
            nodes[0].send(&heartbeat());
            for node in &mut nodes {
                let datagram = tokio::time::timeout(Duration::from_secs(30), node.hear()).await.unwrap();
                assert_eq!(Heartbeat::read(&datagram, "c").unwrap(), heartbeat());
            }
        }
    }

    #[tokio::test]
    async fn a_datagram_that_is_too_long_is_heard_as_that() {
        let segment =
            Segment { address: SocketAddrV4::new(Ipv4Addr::new(127, 255, 255, 255), free_port()), interface: Ipv4Addr::LOCALHOST };
        let mut node = Lan::open(segment).unwrap().start().unwrap();
        node.sending.send(&[b' '; 3000]).unwrap();
        let datagram = tokio::time::timeout(Duration::from_secs(30), node.hear()).await.unwrap();
        assert!(Heartbeat::read(&datagram, "c").unwrap_err().to_string().contains("bytes"));
    }

    #[test]
    fn the_interface_follows_from_where_a_node_listens() {
        let address = "239.255.77.1:7799".parse().unwrap();
        let interface = |listening: &str, advertised: &str| {
            Segment::of(address, listening.parse().unwrap(), advertised).map(|segment| segment.interface.to_string())
        };
        assert_eq!(interface("127.0.0.1:1", "http://10.0.0.7:1").as_deref(), Some("127.0.0.1"));
        assert_eq!(interface("0.0.0.0:1", "http://10.0.0.7:1").as_deref(), Some("10.0.0.7"));
        assert_eq!(interface("[::]:1", "http://10.0.0.7:1").as_deref(), Some("10.0.0.7"));
        assert_eq!(interface("0.0.0.0:1", "http://cdn.example.org").as_deref(), Some("0.0.0.0"));
        assert_eq!(interface("[::1]:1", "http://[::1]:1"), None);
    }
}
