//! Networks of their own for nodes, between which links can be cut and counted. Needs Linux, root and iproute2.
//!
//! ```text
//!  the hub's namespace:    bridge group0 ──── cable ──── bridge group1
//!                             │     │                       │
//!  a node's namespace:     gossip 10.77.0.N             gossip 10.77.0.N     and loopback, by which this program asks
//! ```
//!
//! 1. Every namespace belongs to a process that this one holds by a pipe: it ends when this one does, whatever that is of, and the
//!    namespace with it. Nothing has a name that could be left behind, and the machine's own network is not touched.
//! 2. What this program asks does not pass the interface that is counted: a thread enters the namespace and connects there.

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gossip_cdn_cluster::interruption::go_on;
use gossip_cdn_cluster::{Node, Start};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::client::Client;
use crate::report::Broken;

/// The port of every node: each has a network of its own.
const PORT: u16 = 7701;
const OWN: &str = "/proc/thread-self/ns/net";

/// A network of its own, and the process that keeps it.
struct Namespace {
    keeper: Child,
    file: File,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.keeper.kill());
        drop(self.keeper.wait());
    }
}

impl Namespace {
    fn new() -> Result<Self, Broken> {
        let own = std::fs::read_link(OWN)?;
        let mut keeper = Command::new("unshare").args(["--net", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let path = format!("/proc/{}/ns/net", keeper.id());
        // Until it has a namespace of its own, what is done there would be done here.
        while std::fs::read_link(&path).is_ok_and(|found| found == own) {
            go_on()?;
            if let Some(status) = keeper.try_wait()? {
                return Err(Broken::new(format!("unshare ended with {status}: namespaces need root")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let namespace = Self { file: File::open(path)?, keeper };
        namespace.run("ip link set lo up")?;
        Ok(namespace)
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Broken> {
        Ok(inside(&self.file, work)?)
    }

    fn run(&self, command: &str) -> Result<(), Broken> {
        let mut words = command.split(' ');
        let mut process = Command::new(words.next().unwrap_or_default());
        process.args(words);
        let output = self.inside(|| process.output())??;
        if output.status.success() {
            return Ok(());
        }
        Err(Broken::new(format!("{command}: {}", String::from_utf8_lossy(&output.stderr))))
    }
}

/// Does work in a namespace, on a thread that goes there. What is opened or started there stays there.
fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let go = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(work())
    };
    std::thread::scope(|scope| scope.spawn(go).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A namespace for a node.
pub(crate) struct Place {
    namespace: Namespace,
    number: u8,
}

/// The namespaces of one measurement.
pub(crate) struct Places {
    places: Vec<Place>,
    hub: Namespace,
}

impl Places {
    /// As many groups as there are numbers, of that many nodes each. Two groups have a cable between them.
    pub(crate) fn of(groups: &[u8]) -> Result<Self, Broken> {
        let hub = Namespace::new()?;
        for group in 0..groups.len() {
            hub.run(&format!("ip link add group{group} type bridge"))?;
            hub.run(&format!("ip link set group{group} up"))?;
        }
        if groups.len() == 2 {
            hub.run("ip link add cable0 type veth peer name cable1")?;
            hub.run("ip link set cable0 master group0 up")?;
            hub.run("ip link set cable1 master group1 up")?;
        }
        let mut places = Vec::new();
        for (group, count) in groups.iter().enumerate() {
            for _ in 0..*count {
                places.push(Place::new(u8::try_from(places.len() + 1)?, &hub, group)?);
            }
        }
        // Who asks for whose hardware address would be counted too.
        for (one, other) in places.iter().flat_map(|one: &Place| places.iter().map(move |other| (one, other))) {
            if one.number != other.number {
                let neighbour = format!("10.77.0.{0} lladdr 02:00:00:00:00:{0:02x}", other.number);
                one.namespace.run(&format!("ip neigh replace {neighbour} dev gossip nud permanent"))?;
            }
        }
        Ok(Self { places, hub })
    }

    /// The places, group by group.
    pub(crate) fn all(&self) -> &[Place] {
        &self.places
    }

    /// Parts the two groups, or joins them.
    pub(crate) fn cable(&self, up: bool) -> Result<(), Broken> {
        self.hub.run(if up { "ip link set cable0 up" } else { "ip link set cable0 down" })
    }
}

impl Place {
    fn new(number: u8, hub: &Namespace, group: usize) -> Result<Self, Broken> {
        let namespace = Namespace::new()?;
        // Talk of neighbours of IPv6 would be counted too; where there is no IPv6 there is nothing to switch off.
        let quiet = || std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        drop(namespace.inside(quiet)?);
        let pid = namespace.keeper.id();
        hub.run(&format!("ip link add node{number} type veth peer name gossip netns {pid}"))?;
        hub.run(&format!("ip link set node{number} master group{group} up"))?;
        namespace.run(&format!("ip link set gossip address 02:00:00:00:00:{number:02x}"))?;
        namespace.run(&format!("ip address add 10.77.0.{number}/24 dev gossip"))?;
        namespace.run("ip link set gossip up")?;
        Ok(Self { namespace, number })
    }

    /// A node there, in that folder, that asks no bootstrap node.
    pub(crate) fn node(&self, data: &Path, flags: &[&str]) -> Result<Node, Broken> {
        let own = ["--no-bootstrap".to_owned(), "--advertise".to_owned(), self.address()];
        let flags = own.into_iter().chain(flags.iter().map(|&flag| flag.to_owned())).collect();
        let start = Start { listen: format!("0.0.0.0:{PORT}"), reached: Some(format!("http://127.0.0.1:{PORT}")), flags, disk: None };
        self.namespace.inside(|| Node::start_as(data, start))
    }

    /// Starts the node there again, after it has ended.
    pub(crate) fn restart(&self, node: &mut Node) -> Result<(), Broken> {
        self.namespace.inside(|| node.restart())
    }

    /// A connection to the node there, by its loopback.
    pub(crate) fn client(&self) -> Result<Client, Broken> {
        let namespace = self.namespace.file.try_clone()?;
        let connect = move |authority: &str| inside(&namespace, || TcpStream::connect(authority))?;
        Ok(Client::by(Box::new(connect), &format!("http://127.0.0.1:{PORT}"))?)
    }

    /// The node's base URL for other nodes.
    pub(crate) fn address(&self) -> String {
        format!("http://10.77.0.{}:{PORT}", self.number)
    }

    /// What went over the interface to other nodes, as the kernel counts it: Ethernet heads included.
    pub(crate) fn traffic(&self) -> Result<Traffic, Broken> {
        let table = std::fs::read_to_string(format!("/proc/{}/net/dev", self.namespace.keeper.id()))?;
        let line = table.lines().find_map(|line| line.trim().strip_prefix("gossip:"));
        let numbers: Vec<u64> = line.unwrap_or_default().split_whitespace().filter_map(|number| number.parse().ok()).collect();
        // Eight columns of what was received, bytes and packets first, then the same of what was sent.
        let flow = |column: usize| Some(Flow { bytes: *numbers.get(column)?, packets: *numbers.get(column + 1)? });
        match (flow(0), flow(8)) {
            (Some(received), Some(sent)) => Ok(Traffic { received, sent }),
            _ => Err(Broken::new("the kernel does not tell what the interface carried")),
        }
    }
}

/// What an interface carried.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traffic {
    pub(crate) received: Flow,
    pub(crate) sent: Flow,
}

/// What went one way.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Flow {
    pub(crate) bytes: u64,
    packets: u64,
}

/// Ethernet 14, IPv4 20, TCP with timestamps 32. (The first packet of a connection has 8 more; an acknowledgement is nothing else.)
const HEADERS: u64 = 66;

impl Flow {
    /// What all nodes have sent.
    pub(crate) fn sent(places: &[Place]) -> Result<Self, Broken> {
        places.iter().try_fold(Self::default(), |sum, place| {
            let sent = place.traffic()?.sent;
            Ok(Self { bytes: sum.bytes + sent.bytes, packets: sum.packets + sent.packets })
        })
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self { bytes: self.bytes - before.bytes, packets: self.packets - before.packets }
    }

    /// Bytes of HTTP: what remains without the heads of packets.
    pub(crate) fn http(self) -> u64 {
        self.bytes.saturating_sub(self.packets * HEADERS)
    }
}
