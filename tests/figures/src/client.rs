//! A client that costs little, for it shares the processors with what it measures: one connection, kept while it is in use, and bodies of
//! known length.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection that was not used for so long is replaced: the server closes it after five seconds.
const STALE: Duration = Duration::from_secs(2);

type Connect = Box<dyn Fn(&str) -> io::Result<TcpStream> + Send>;

/// A connection to a node.
pub(crate) struct Client {
    authority: String,
    connect: Connect,
    stream: BufReader<TcpStream>,
    used: Instant,
    request: Vec<u8>,
}

/// What the node answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Client {
    /// Connects to `http://host:port`.
    pub(crate) fn new(url: &str) -> io::Result<Self> {
        Self::by(Box::new(|authority| TcpStream::connect(authority)), url)
    }

    /// The same, for answers that may take so long.
    pub(crate) fn patient(url: &str, patience: Duration) -> io::Result<Self> {
        let client = Self::new(url)?;
        client.stream.get_ref().set_read_timeout(Some(patience))?;
        Ok(client)
    }

    /// The same by other means.
    pub(crate) fn by(connect: Connect, url: &str) -> io::Result<Self> {
        let authority = url.strip_prefix("http://").unwrap_or(url).to_owned();
        let stream = BufReader::new(ready(connect(&authority)?)?);
        Ok(Self { authority, connect, stream, used: Instant::now(), request: Vec::new() })
    }

    /// Sends a request and reads its whole answer.
    pub(crate) fn send(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
        self.call(method, path, "", body)
    }

    /// Posts JSON.
    pub(crate) fn post_json(&mut self, path: &str, body: &[u8]) -> io::Result<Answer> {
        self.call("POST", path, "Content-Type: application/json\r\n", body)
    }

    fn call(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> io::Result<Answer> {
        self.request.clear();
        let (host, length) = (&self.authority, body.len());
        write!(self.request, "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Length: {length}\r\n\r\n")?;
        self.request.extend_from_slice(body);
        self.begin()?;
        let (status, length) = self.head()?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(Answer { status, body })
    }

    /// Sends the head of a request, or all of it.
    fn begin(&mut self) -> io::Result<()> {
        if self.used.elapsed() > STALE {
            self.stream = BufReader::new(ready((self.connect)(&self.authority)?)?);
        }
        self.stream.get_mut().write_all(&self.request)
    }

    /// The status of an answer, and the length of its body.
    fn head(&mut self) -> io::Result<(u16, usize)> {
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| odd("no status"))?;
        let mut length = None;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| odd("a header without a colon"))?;
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok();
            }
        }
        self.used = Instant::now();
        match length {
            Some(length) => Ok((status, length)),
            None if status == 204 || status == 304 => Ok((status, 0)),
            None => Err(odd("a body of unknown length")),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Reads a blob; nothing unless the answer is 200.
    pub(crate) fn read(&mut self, path: &str) -> io::Result<Option<Vec<u8>>> {
        let answer = self.send("GET", path, &[])?;
        Ok((answer.status == 200).then_some(answer.body))
    }

    /// Reads a blob piece by piece, as long as `next` is content with what comes; whether it was to the end.
    pub(crate) fn compare(&mut self, path: &str, size: u64, mut next: impl FnMut(&[u8]) -> io::Result<bool>) -> io::Result<bool> {
        self.request.clear();
        write!(self.request, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.authority)?;
        self.begin()?;
        let (status, mut left) = self.head()?;
        let mut piece = vec![0; 1 << 20];
        let mut same = status == 200 && u64::try_from(left).is_ok_and(|length| length == size);
        while same && left > 0 {
            let piece = &mut piece[..left.min(1 << 20)];
            self.stream.read_exact(piece)?;
            same = next(piece)?;
            left -= piece.len();
        }
        Ok(same)
    }

    /// Writes a blob; gives its path once it is acknowledged.
    pub(crate) fn write(&mut self, body: &[u8]) -> io::Result<String> {
        let answer = self.send("PUT", "/", body)?;
        link(answer)
    }

    /// Writes a large blob out of a file, from its beginning.
    pub(crate) fn write_from(&mut self, file: &mut File, size: u64) -> io::Result<String> {
        file.seek(SeekFrom::Start(0))?;
        self.request.clear();
        write!(self.request, "PUT / HTTP/1.1\r\nHost: {}\r\nContent-Length: {size}\r\n\r\n", self.authority)?;
        self.begin()?;
        io::copy(&mut file.take(size), self.stream.get_mut())?;
        let (status, length) = self.head()?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        link(Answer { status, body })
    }

    /// `GET /status`.
    pub(crate) fn status(&mut self) -> io::Result<serde_json::Value> {
        Ok(serde_json::from_slice(&self.send("GET", "/status", &[])?.body)?)
    }
}

fn ready(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The path of a blob, from the answer to its upload.
fn link(answer: Answer) -> io::Result<String> {
    let link = String::from_utf8(answer.body).map_err(|_| odd("a link that is no text"))?;
    match link.trim().rsplit_once("/blobs/") {
        Some((_, id)) if answer.status == 201 => Ok(format!("/blobs/{id}")),
        Some(_) | None => Err(odd(&format!("an upload was answered with {}: {link}", answer.status))),
    }
}

fn odd(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
