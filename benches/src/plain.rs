//! One client with one connection: a large body read or sent as fast as a loop of system calls can, and `dd`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use gossip_cdn_cluster::interruption::go_on;

use crate::table::Failed;

/// What is moved with one system call.
const PIECE: usize = 1 << 20;

/// Gets a path and throws its body away; how many bytes came in a second.
pub(crate) fn get(authority: &str, path: &str, size: u64) -> Result<f64, Failed> {
    go_on()?;
    let begin = Instant::now();
    let mut stream = TcpStream::connect(authority)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n")?;
    let mut reader = BufReader::with_capacity(PIECE, stream);
    let (status, _) = head(&mut reader)?;
    let mut buffer = vec![0; PIECE];
    let mut came = 0;
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            piece => came += piece as u64,
        }
    }
    if status != 200 || came != size {
        return Err(Failed(format!("{path} of {authority}: status {status}, {came} of {size} bytes")));
    }
    Ok(rate(size, begin))
}

/// The same of a server that reads a file and writes it to the connection, and does nothing else: the limit of whoever copies.
pub(crate) fn get_from_a_loop(file: &Path, size: u64) -> Result<f64, Failed> {
    /// What a node reads at once of what is in memory.
    const PIECE: usize = 128 << 10;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let authority = listener.local_addr()?.to_string();
    let mut file = File::open(file)?;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut stream, _) = listener.accept()?;
            head(&mut BufReader::new(&stream))?;
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")?;
            let mut buffer = vec![0; PIECE];
            loop {
                let piece = file.read(&mut buffer)?;
                let Some(bytes) = buffer.get(..piece).filter(|bytes| !bytes.is_empty()) else { return Ok::<_, io::Error>(()) };
                stream.write_all(bytes)?;
            }
        });
        // A loop that fails sends too little.
        get(&authority, "/", size)
    })
}

/// Puts a file under a path; how many bytes a second it took to the answer.
pub(crate) fn put(authority: &str, path: &str, file: &Path) -> Result<f64, Failed> {
    go_on()?;
    let begin = Instant::now();
    let mut file = File::open(file)?;
    let size = file.metadata()?.len();
    let mut stream = TcpStream::connect(authority)?;
    write!(stream, "PUT {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n")?;
    let mut buffer = vec![0; PIECE];
    loop {
        let piece = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..piece).filter(|bytes| !bytes.is_empty()) else { break };
        stream.write_all(bytes)?;
    }
    let (status, _) = head(&mut BufReader::new(stream))?;
    if !matches!(status, 200 | 201 | 204) {
        return Err(Failed(format!("PUT {path} of {authority}: status {status}")));
    }
    Ok(rate(size, begin))
}

/// Puts bytes that are made on the way, other ones for every `seed`; how many bytes a second it took to the answer.
pub(crate) fn put_made(authority: &str, path: &str, size: u64, seed: u64) -> Result<f64, Failed> {
    let begin = Instant::now();
    let mut stream = TcpStream::connect(authority)?;
    write!(stream, "PUT {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n")?;
    let mut piece = vec![0x5a; PIECE];
    let mut left = size;
    while left > 0 {
        go_on()?;
        // Each piece differs from every other, or a clever disk would keep one.
        for (place, byte) in piece.iter_mut().zip([left, seed].map(u64::to_le_bytes).into_iter().flatten()) {
            *place = byte;
        }
        let length = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        stream.write_all(piece.get(..length).unwrap_or_default())?;
        left -= length as u64;
    }
    let (status, _) = head(&mut BufReader::new(stream))?;
    if !matches!(status, 200 | 201 | 204) {
        return Err(Failed(format!("PUT {path} of {authority}: status {status}")));
    }
    Ok(rate(size, begin))
}

/// Copies a file within one call of `dd` that synchronises it; bytes a second.
pub(crate) fn dd(from: &Path, to: &Path) -> Result<f64, Failed> {
    go_on()?;
    let size = from.metadata()?.len();
    let named = |name: &str, path: &Path| format!("{name}={}", path.display());
    let begin = Instant::now();
    let mut command = Command::new("dd");
    let status = command.args([&named("if", from), &named("of", to), "bs=1M", "conv=fsync"]).stderr(Stdio::null()).status()?;
    if !status.success() {
        return Err(Failed(format!("dd ended with {status}")));
    }
    Ok(rate(size, begin))
}

/// Reads the head of an answer: its status, and how long its body is where that is said.
pub(crate) fn head(reader: &mut impl BufRead) -> io::Result<(u16, Option<u64>)> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let mut length = None;
    while !matches!(line.as_str(), "\r\n" | "") {
        line.clear();
        reader.read_line(&mut line)?;
        let field = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        length = field.and_then(|(_, value)| value.trim().parse().ok()).or(length);
    }
    Ok((status, length))
}

#[expect(clippy::cast_precision_loss, reason = "a figure of three digits")]
fn rate(bytes: u64, begin: Instant) -> f64 {
    bytes as f64 / begin.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_an_answer_ends_where_its_body_begins() {
        let mut answer = &b"HTTP/1.1 201 Created\r\nContent-length: 4\r\n\r\nbody"[..];
        assert_eq!(head(&mut answer).unwrap(), (201, Some(4)));
        assert_eq!(answer, b"body");
    }

    #[test]
    fn an_answer_that_is_none_has_no_status() {
        assert_eq!(head(&mut &b""[..]).unwrap(), (0, None));
        assert_eq!(head(&mut &b"nonsense"[..]).unwrap(), (0, None));
    }
}
