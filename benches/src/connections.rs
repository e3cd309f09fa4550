//! Many connections at once: ten thousand that are idle, readers and writers that take and give next to nothing; and how long everybody else waits.
//!
//! 1. The idle ones are held by a process of its own, and stay within what the node allows: each asks again before it would be closed.
//! 2. A slow reader has asked for more than all buffers hold and takes a hundred bytes a second, a slow writer gives one byte a second.
//! 3. When the slow have been cut and the idle are gone, the node has the open files it had before: else it is an error.
//! 4. All of them come and go several times: what stays of the first round is kept for the next, what grows with each is lost.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gossip_cdn_cluster::interruption::go_on;
use tempfile::TempDir;

use crate::plain;
use crate::served::Served;
use crate::table::{Failed, remark};

/// More than all buffers between a node and a reader.
const LARGE: u64 = 64 << 20;
/// Between two requests of a connection that is held: less than the 20 s after which the node closes an idle one.
const PULSE: Duration = Duration::from_secs(10);
/// Longest wait for the slow to be cut.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between the end of a round and the look at what is left of it.
const SETTLING: Duration = Duration::from_secs(15);
/// How much more than after the first round may be resident after the last: less than a kilobyte for each connection of one.
const FLAT: u64 = 8 << 20;
/// What slow readers ask for.
const SLOWLY: &str = "/blobs/00000000-0000-4000-8000-000000000001";

/// How many, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Connections {
    /// The folder to work in; it is left as it was.
    #[arg(long, default_value = ".")]
    data: PathBuf,
    /// Idle connections.
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Slow readers, and as many slow writers.
    #[arg(long, default_value_t = 200)]
    slow: usize,
    /// How long others are measured before, and during, in seconds.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// How often all of them come and go.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// How long others waited: half of them, and all but one in a hundred.
#[derive(Debug, Clone, Copy)]
struct Waits {
    p50: Duration,
    p99: Duration,
}

/// What a round was like.
struct Round {
    waits: Waits,
    /// Open files and resident bytes while all were there.
    files: usize,
    memory: u64,
    /// Of readers and of writers: whether all were cut, and when.
    cut: [(&'static str, (bool, String)); 2],
    /// Open files and resident bytes afterwards.
    files_after: usize,
    memory_after: u64,
}

/// Prints the figures.
pub(crate) fn measure(how: &Connections) -> Result<(), Failed> {
    let folder = TempDir::new_in(&how.data)?;
    let node = Served::start(folder.path())?;
    let large = folder.path().join("large");
    fs::File::create(&large)?.set_len(LARGE)?;
    plain::put(node.server.authority(), SLOWLY, &large)?;
    let others = Others::new(node.server.authority())?;
    let (files, memory) = (node.open_files()?, node.resident()?);
    let before = others.wait(Duration::from_secs(how.seconds), || Ok(()))?;
    let mut rounds = Vec::new();
    for number in 1..=how.rounds.max(1) {
        let round = round(how, &node, &others, files)?;
        remark(&format!("round {number} of {}: {} MiB are left", how.rounds, round.memory_after >> 20));
        rounds.push(round);
    }
    print(how, (before, files, memory), &rounds)
}

/// All of them come, are slow, are cut, and go.
fn round(how: &Connections, node: &Served, others: &Others, files_before: usize) -> Result<Round, Failed> {
    let authority = node.server.authority();
    let mut held = Held::start(authority, how.idle)?;
    let mut slow = Slow::start(authority, SLOWLY, how.slow)?;
    let waits = others.wait(Duration::from_secs(how.seconds), || slow.go_on())?;
    let (files, memory) = (node.open_files()?, node.resident()?);
    while !slow.are_cut() {
        go_on()?;
        if slow.begin.elapsed() > PATIENCE {
            break;
        }
        slow.go_on()?;
    }
    let cut = [("readers", slow.report(true)), ("writers", slow.report(false))];
    held.end()?;
    drop(slow);
    let begin = Instant::now();
    while node.open_files()? > files_before + 16 {
        if begin.elapsed() > Duration::from_secs(30) {
            return Err(Failed(format!("the node had {files_before} open files, and {} are left", node.open_files()?)));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    // What a node gives back to the system it gives back within this time.
    std::thread::sleep(SETTLING);
    Ok(Round { waits, files, memory, cut, files_after: node.open_files()?, memory_after: node.resident()? })
}

fn print(how: &Connections, (before, files, memory): (Waits, usize, u64), rounds: &[Round]) -> Result<(), Failed> {
    let mut out = io::stdout().lock();
    let held = |is| if is { "yes" } else { "**no**" };
    writeln!(
        out,
        "| quantity | before | with {} idle, {} slow readers and writers; {} rounds | goal | held |",
        how.idle,
        how.slow,
        rounds.len()
    )?;
    writeln!(out, "|---|---|---|---|---|")?;
    // Of the round in which they waited longest.
    let longest = |of: fn(&Waits) -> Duration| rounds.iter().map(|round| of(&round.waits)).max().unwrap_or_default();
    let (p50, p99) = (longest(|waits| waits.p50), longest(|waits| waits.p99));
    for (what, before, during) in [("p50", before.p50, p50), ("p99", before.p99, p99)] {
        let is = held(during <= before * 2);
        let (before, during) = (before.as_micros(), during.as_micros());
        writeln!(out, "| others' GET of 1 KiB, {what} | {before} us | {during} us | at most doubled | {is} |")?;
    }
    for place in 0..2 {
        let told: Vec<_> = rounds.iter().filter_map(|round| round.cut.get(place)).collect();
        let all = told.iter().all(|(_, (all, _))| *all);
        let (who, said) = (told.first().map_or("", |(who, _)| who), joined(told.iter().map(|(_, (_, told))| told.clone())));
        writeln!(out, "| slow {who} cut | | {said} | all | {} |", held(all))?;
    }
    let (open, left) = (joined(rounds.iter().map(|round| round.files)), joined(rounds.iter().map(|round| round.files_after)));
    writeln!(out, "| open files; afterwards | {files} | {open}; {left} | as before | yes |")?;
    let mib = |bytes: u64| bytes >> 20;
    let (open, left) = (joined(rounds.iter().map(|round| mib(round.memory))), joined(rounds.iter().map(|round| mib(round.memory_after))));
    // Beyond the first round nothing is new: what grows is lost.
    let grown = match rounds {
        [first, .., last] => last.memory_after.saturating_sub(first.memory_after),
        [_] | [] => 0,
    };
    writeln!(out, "| resident MiB; afterwards | {} | {open}; {left} | flat | {} |", mib(memory), held(grown <= FLAT))?;
    Ok(())
}

fn joined(values: impl Iterator<Item = impl ToString>) -> String {
    values.map(|value| value.to_string()).collect::<Vec<_>>().join(", ")
}

/// Holds connections open for another process, until its standard input ends: what `hold` does.
pub(crate) fn hold(authority: &str, count: usize) -> Result<(), Failed> {
    // Each is an open file, here and at the node.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    rustix::process::setrlimit(rustix::process::Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit })?;
    static OVER: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(|| {
        // Whatever comes, and when nothing comes any more.
        drop(io::stdin().read(&mut [0]));
        OVER.store(true, Ordering::Relaxed);
    });
    // Each with the moment it asked last; the one that waited longest is the first.
    let mut connections = VecDeque::with_capacity(count);
    while !OVER.load(Ordering::Relaxed) {
        if connections.len() < count {
            let mut connection = Client::new(authority)?;
            connection.get("/healthz")?;
            connections.push_back((connection, Instant::now()));
            if connections.len() == count {
                writeln!(io::stdout(), "holding")?;
            }
        } else {
            std::thread::sleep(Duration::from_millis(5));
        }
        while let Some((mut connection, _)) = connections.pop_front_if(|(_, asked)| asked.elapsed() > PULSE) {
            connection.get("/healthz")?;
            connections.push_back((connection, Instant::now()));
        }
    }
    Ok(())
}

/// The process that holds them.
struct Held(Child);

impl Held {
    fn start(authority: &str, count: usize) -> Result<Self, Failed> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["hold", authority, &count.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut held = Self(command.spawn()?);
        let mut line = String::new();
        if let Some(stdout) = held.0.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        if line.trim() != "holding" {
            return Err(Failed(format!("{count} connections are not held; are so many open files allowed?")));
        }
        remark(&format!("{count} connections are held"));
        Ok(held)
    }

    /// Lets go. An error if a connection was lost before.
    fn end(&mut self) -> Result<(), Failed> {
        let early = self.0.try_wait()?;
        drop(self.0.stdin.take());
        let status = self.0.wait()?;
        if early.is_some() || !status.success() {
            return Err(Failed(format!("the idle connections were not held to the end: {status}")));
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It may have ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A client with one connection.
struct Client {
    reader: BufReader<TcpStream>,
    authority: String,
}

impl Client {
    fn new(authority: &str) -> Result<Self, Failed> {
        let stream = TcpStream::connect(authority)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        // Small, for there are many.
        Ok(Self { reader: BufReader::with_capacity(2048, stream), authority: authority.to_owned() })
    }

    /// Gets a path, and reads the answer to its end.
    fn get(&mut self, path: &str) -> Result<(), Failed> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.authority);
        self.reader.get_mut().write_all(request.as_bytes())?;
        let (status, length) = plain::head(&mut self.reader)?;
        let length = length.filter(|_| status == 200).ok_or_else(|| Failed(format!("{path}: status {status}")))?;
        io::copy(&mut self.reader.by_ref().take(length), &mut io::sink())?;
        Ok(())
    }
}

/// Clients that are neither idle nor slow: each gets 1 KiB again and again, with a pause of a millisecond.
struct Others {
    authority: String,
}

impl Others {
    const PATH: &str = "/blobs/00000000-0000-4000-8000-000000000002";
    const CLIENTS: usize = 4;

    fn new(authority: &str) -> Result<Self, Failed> {
        let folder = TempDir::new()?;
        let small = folder.path().join("small");
        fs::write(&small, [7; 1024])?;
        plain::put(authority, Self::PATH, &small)?;
        Ok(Self { authority: authority.to_owned() })
    }

    /// How long they wait, for so long, while `meanwhile` is done again and again.
    fn wait(&self, length: Duration, mut meanwhile: impl FnMut() -> Result<(), Failed>) -> Result<Waits, Failed> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..Self::CLIENTS).map(|_| scope.spawn(|| self.ask_until(&over))).collect();
            let begin = Instant::now();
            let mut done = Ok(());
            while begin.elapsed() < length && done.is_ok() {
                std::thread::sleep(Duration::from_millis(50));
                done = go_on().map_err(Failed::from).and_then(|()| meanwhile());
            }
            over.store(true, Ordering::Relaxed);
            let mut waits = Vec::new();
            for client in clients {
                waits.extend(client.join().map_err(|_| Failed("a client panicked".to_owned()))??);
            }
            done.map(|()| Waits { p50: quantile(&mut waits, 500), p99: quantile(&mut waits, 990) })
        })
    }

    fn ask_until(&self, over: &AtomicBool) -> Result<Vec<Duration>, Failed> {
        let (mut client, mut waits) = (Client::new(&self.authority)?, Vec::new());
        while !over.load(Ordering::Relaxed) {
            let begin = Instant::now();
            client.get(Self::PATH)?;
            waits.push(begin.elapsed());
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(waits)
    }
}

/// The value below which that many thousandths of the values lie.
fn quantile(values: &mut [Duration], thousandths: usize) -> Duration {
    values.sort_unstable();
    let place = (values.len() * thousandths / 1000).min(values.len().saturating_sub(1));
    values.get(place).copied().unwrap_or_default()
}

/// A reader or a writer that is slow.
struct Laggard {
    stream: TcpStream,
    reads: bool,
    /// When the node's end was found closed.
    cut: Option<Duration>,
}

/// All of them.
struct Slow {
    all: Vec<Laggard>,
    begin: Instant,
    /// When each had its turn last.
    last: Instant,
}

impl Slow {
    fn start(authority: &str, path: &str, count: usize) -> Result<Self, Failed> {
        let begin = Instant::now();
        let laggard = |reads| {
            let mut stream = TcpStream::connect(authority)?;
            if reads {
                write!(stream, "GET {path} HTTP/1.1\r\nHost: {authority}\r\n\r\n")?;
            } else {
                write!(stream, "PUT /slow HTTP/1.1\r\nHost: {authority}\r\nContent-Length: {LARGE}\r\n\r\n")?;
            }
            stream.set_nonblocking(true)?;
            Ok(Laggard { stream, reads, cut: None })
        };
        let all = (0..count).flat_map(|_| [true, false]).map(laggard).collect::<Result<_, Failed>>()?;
        Ok(Self { all, begin, last: begin })
    }

    /// Lets each take or give a little, once a second, and notes who was cut.
    fn go_on(&mut self) -> Result<(), Failed> {
        std::thread::sleep(Duration::from_millis(50));
        if self.last.elapsed() < Duration::from_secs(1) {
            return Ok(());
        }
        self.last = Instant::now();
        let open = open_at_servers()?;
        for laggard in self.all.iter_mut().filter(|laggard| laggard.cut.is_none()) {
            let ports = (laggard.stream.peer_addr().ok(), laggard.stream.local_addr().ok());
            // Without an address the connection is over at this end too.
            let is_open = matches!(ports, (Some(peer), Some(local)) if open.contains(&(peer.port(), local.port())));
            if !is_open {
                laggard.cut = Some(self.begin.elapsed());
            } else if laggard.reads {
                // Nothing there yet, or an end that shows the next time.
                drop(laggard.stream.read(&mut [0; 100]));
            } else {
                laggard.stream.write_all(b"x").ok();
            }
        }
        Ok(())
    }

    fn are_cut(&self) -> bool {
        self.all.iter().all(|laggard| laggard.cut.is_some())
    }

    /// Whether all of a kind were cut, and how many, and when.
    fn report(&self, reads: bool) -> (bool, String) {
        let of_kind: Vec<_> = self.all.iter().filter(|laggard| laggard.reads == reads).collect();
        let cut: Vec<Duration> = of_kind.iter().filter_map(|laggard| laggard.cut).collect();
        let seconds = |time: Option<&Duration>| time.map_or(0, Duration::as_secs);
        let (count, of) = (cut.len(), of_kind.len());
        (count == of, format!("{count} of {of}, after {} to {} s", seconds(cut.iter().min()), seconds(cut.iter().max())))
    }
}

/// The ports, own and other, of all connections of this machine that are open at their own end.
fn open_at_servers() -> Result<HashSet<(u16, u16)>, Failed> {
    const ESTABLISHED: &str = "01";
    let port = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
    let table = fs::read_to_string("/proc/net/tcp")?;
    let ends = table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (own, other, state) = (fields.next()?, fields.next()?, fields.next()?);
        (state == ESTABLISHED).then_some((port(own)?, port(other)?))
    });
    Ok(ends.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let mut values: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(quantile(&mut values, 500), Duration::from_millis(51));
        assert_eq!(quantile(&mut values, 990), Duration::from_millis(100));
        assert_eq!(quantile(&mut [], 990), Duration::ZERO);
    }

    #[test]
    fn a_connection_is_open_until_its_other_end_is_closed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let ends = (listener.local_addr().unwrap().port(), client.local_addr().unwrap().port());
        assert!(open_at_servers().unwrap().contains(&ends));
        drop(server);
        assert!(!open_at_servers().unwrap().contains(&ends));
    }
}
