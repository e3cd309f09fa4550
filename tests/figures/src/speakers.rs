//! Clients that say ordered messages, many of them on one thread, as [`crate::etcd`] has them: each waits for its answer before it asks again, on a
//! connection of its own.

use std::sync::atomic::AtomicU64;

use tokio::net::TcpStream;

use crate::load;
use crate::report::{Broken, claim};

/// One client and its connection.
struct Speaker {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

/// Lets so many clients speak to these nodes in turn, until `meanwhile` has ended, which may look at how many messages are delivered.
pub(crate) fn under_load<T: Send>(
    urls: &[String],
    clients: usize,
    size: usize,
    meanwhile: impl FnOnce(&AtomicU64) -> Result<T, Broken> + Send,
) -> Result<T, Broken> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let speaker = async |client: usize| Speaker::new(&urls[client % urls.len()], size).await;
    load::under_load(&runtime, clients, speaker, async |speaker, _| speaker.say().await, meanwhile)
}

impl Speaker {
    async fn new(url: &str, size: usize) -> Result<Self, Broken> {
        let authority = url.strip_prefix("http://").unwrap_or(url);
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        let head = "POST /messages?channel=ordered&wait=delivered&timeout=30 HTTP/1.1";
        let mut request = format!("{head}\r\nHost: {authority}\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        request.resize(request.len() + size, b'm');
        Ok(Self { stream, request, answer: Vec::with_capacity(1024) })
    }

    /// Gives one message and waits for its delivery.
    async fn say(&mut self) -> Result<(), Broken> {
        let mut sent = 0;
        while sent < self.request.len() {
            self.stream.writable().await?;
            match self.stream.try_write(&self.request[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.answer.clear();
        while !is_whole(&self.answer) {
            self.stream.readable().await?;
            let mut piece = [0; 1024];
            match self.stream.try_read(&mut piece) {
                Ok(0) => return Err(Broken::new("a node closed a connection")),
                Ok(count) => self.answer.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        let delivered = self.answer.starts_with(b"HTTP/1.1 201");
        claim(delivered, || format!("an ordered message was answered with {}", String::from_utf8_lossy(&self.answer)))
    }
}

/// Whether an answer has its head, and as many bytes behind it as that says.
fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|end| end == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    answer.len() >= head + 4 + length.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_body() {
        for (answer, whole) in [
            ("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n", false),
            ("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n", false),
            ("HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{", false),
            ("HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}", true),
            ("HTTP/1.1 204 No Content\r\n\r\n", true),
        ] {
            assert_eq!(is_whole(answer.as_bytes()), whole, "{answer}");
        }
    }
}
