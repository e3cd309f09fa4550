//! Server-sent events (WHATWG HTML, section 9.2): what happens, told to readers for as long as they listen.
//!
//! 1. An event is made ready for a reader only when the one before it was taken: what waits for a slow reader is what its [`Source`] keeps.
//! 2. A [`Feed`] waits for nobody. It keeps the last [`AHEAD`] changes for all readers together; a reader that is further behind is dropped, and
//!    the last event that it reads says so and why.
//! 3. Something is sent at least every [`QUIET`], so that a dead connection is noticed.
//! 4. A reader that took nothing for [`SLOW`] is dropped too. Behind what is on its way to it, it finds the reason and where to go on, and then the end.
//! 5. Streams end before their server does ([`Streams::end`]): a stop waits for no reader.

use std::fmt;
use std::time::Duration;

use actix_web::http::header;
use actix_web::web::Bytes;
use actix_web::{HttpResponse, body};
use futures_util::{StreamExt as _, stream};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

/// Changes that a reader of a [`Feed`] may be behind. A guess: a second of a busy node, in some hundred kilobytes.
pub const AHEAD: usize = 4096;
/// How long a stream may be silent.
pub const QUIET: Duration = Duration::from_secs(15);

/// How long a reader may take nothing before it is dropped.
pub const SLOW: Duration = Duration::from_secs(10);

/// What readers skip (a comment).
const ALIVE: &[u8] = b":\n\n";

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where a reader that comes back goes on.
    pub id: Option<String>,
    /// What it is.
    pub name: &'static str,
    /// Its data; each line of it becomes one.
    pub data: String,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = &self.id {
            writeln!(f, "id: {id}")?;
        }
        writeln!(f, "event: {}", self.name)?;
        self.data.lines().try_for_each(|line| writeln!(f, "data: {line}"))?;
        f.write_str("\n")
    }
}

/// What comes next on a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// An event.
    Event(Event),
    /// Nothing more: the reader is dropped, and is told why.
    Dropped(String),
    /// Nothing more, for nothing happens here any longer.
    Over,
}

/// Where the events of one reader come from.
pub trait Source: 'static {
    /// Waits for the next event. Nothing is lost when the wait is given up and begun anew.
    fn next(&mut self) -> impl Future<Output = Next>;
}

/// The event streams of a server.
#[derive(Debug, Clone)]
pub struct Streams(watch::Sender<bool>);

impl Default for Streams {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Streams {
    /// Ends every stream, and those that are opened later.
    pub fn end(&self) {
        self.0.send_replace(true);
    }

    /// Answers a reader with the events of `source`.
    pub fn open(&self, source: impl Source) -> HttpResponse {
        let reader = Reader { source, ended: self.0.subscribe(), given: Instant::now(), last: None };
        let events = stream::unfold(Some(reader), |reader| async { reader?.next().await });
        // The first bytes tell a reader that it is heard, before anything happens.
        let body = stream::iter([Bytes::from_static(ALIVE)]).chain(events).map(Ok::<Bytes, actix_web::Error>);
        HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, "text/event-stream"))
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .body(body::BodyStream::new(body))
    }
}

/// One reader.
struct Reader<S> {
    source: S,
    ended: watch::Receiver<bool>,
    /// When the server was given something for it.
    given: Instant,
    /// The id of the last event given.
    last: Option<String>,
}

impl<S: Source> Reader<S> {
    /// What it is sent next, and the reader unless that is the last of it. Asked for when what was given before is on its way.
    async fn next(mut self) -> Option<(Bytes, Option<Self>)> {
        let waited = self.given.elapsed();
        if waited >= SLOW {
            tracing::info!(seconds = waited.as_secs(), "a reader of events took nothing for too long and is dropped");
            let go_on = match &self.last {
                Some(last) => format!("go on with Last-Event-ID: {last}"),
                None => "ask for the present state, then listen again".to_owned(),
            };
            let data = format!("You took nothing for {} seconds: {go_on}.", waited.as_secs());
            return Some((Event { id: self.last, name: "dropped", data }.to_string().into(), None));
        }
        let next = tokio::select! {
            biased;
            // The sender is held by the server itself, so an error is an end too.
            _ = self.ended.wait_for(|ended| *ended) => Ok(Next::Over),
            next = tokio::time::timeout(QUIET, self.source.next()) => next,
        };
        self.given = Instant::now();
        match next {
            Ok(Next::Event(event)) => {
                let text = event.to_string();
                self.last = event.id.or(self.last);
                Some((text.into(), Some(self)))
            }
            Ok(Next::Dropped(why)) => Some((Event { id: None, name: "dropped", data: why }.to_string().into(), None)),
            Ok(Next::Over) => None,
            Err(_) => Some((Bytes::from_static(ALIVE), Some(self))),
        }
    }
}

/// Tells what changes to all who listen, and waits for none of them.
#[derive(Debug, Clone)]
pub struct Feed<T>(broadcast::Sender<T>);

impl<T: Clone> Default for Feed<T> {
    fn default() -> Self {
        Self(broadcast::Sender::new(AHEAD))
    }
}

impl<T: Clone> Feed<T> {
    /// Whether anybody listens.
    pub fn is_heard(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Tells a change.
    pub fn tell(&self, change: T) {
        // Nobody may be listening.
        drop(self.0.send(change));
    }

    /// What is told from now on, as events made by `event`.
    pub fn listen(&self, event: fn(&T) -> Event) -> Listener<T> {
        Listener { changes: self.0.subscribe(), event }
    }
}

/// One reader of a [`Feed`].
#[derive(Debug)]
pub struct Listener<T> {
    changes: broadcast::Receiver<T>,
    event: fn(&T) -> Event,
}

impl<T: Clone + 'static> Source for Listener<T> {
    async fn next(&mut self) -> Next {
        match self.changes.recv().await {
            Ok(change) => Next::Event((self.event)(&change)),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::info!(missed, "a reader of events is too slow and is dropped");
                Next::Dropped(format!("You read too slowly and missed {missed} events: ask for the present state, then listen again."))
            }
            Err(broadcast::error::RecvError::Closed) => Next::Over,
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::body::{MessageBody as _, to_bytes};

    use super::*;

    fn number(change: &usize) -> Event {
        Event { id: None, name: "number", data: change.to_string() }
    }

    async fn text(response: HttpResponse) -> String {
        String::from_utf8(to_bytes(response.into_body()).await.unwrap().to_vec()).unwrap()
    }

    #[actix_web::test]
    async fn a_reader_hears_what_is_told_from_then_on() {
        let (feed, streams) = (Feed::default(), Streams::default());
        feed.tell(1);
        let response = streams.open(feed.listen(number));
        feed.tell(2);
        feed.tell(3);
        drop(feed);
        assert_eq!(text(response).await, ":\n\nevent: number\ndata: 2\n\nevent: number\ndata: 3\n\n");
    }

    #[actix_web::test]
    async fn a_reader_that_falls_behind_is_dropped_with_a_reason_and_holds_up_nobody() {
        let feed = Feed::default();
        let (streams, mut quick) = (Streams::default(), feed.listen(number));
        let slow = streams.open(feed.listen(number));
        for told in 0..AHEAD + 7 {
            feed.tell(told);
            assert_eq!(quick.next().await, Next::Event(number(&told)));
        }
        let read = text(slow).await;
        assert!(read.contains("event: dropped\ndata: You read too slowly and missed 7 events"), "{read}");
        assert!(!read.contains("event: number"), "what it would go on with has a gap before it");
    }

    #[actix_web::test]
    async fn every_stream_ends_with_its_server() {
        let (feed, streams) = (Feed::<usize>::default(), Streams::default());
        let open = streams.open(feed.listen(number));
        streams.end();
        assert_eq!(text(open).await, ":\n\n");
        assert_eq!(text(streams.open(feed.listen(number))).await, ":\n\n", "and one that comes late");
    }

    #[actix_web::test]
    async fn a_silent_stream_says_that_it_lives() {
        struct Silent(u8);
        impl Source for Silent {
            async fn next(&mut self) -> Next {
                match self.0.checked_sub(1) {
                    Some(rest) => {
                        self.0 = rest;
                        std::future::pending().await
                    }
                    None => Next::Over,
                }
            }
        }
        tokio::time::pause();
        assert_eq!(text(Streams::default().open(Silent(2))).await, ":\n\n:\n\n:\n\n");
    }

    #[actix_web::test]
    async fn a_reader_that_took_nothing_for_too_long_reads_why_and_where_to_go_on() {
        struct Numbers(u64);
        impl Source for Numbers {
            async fn next(&mut self) -> Next {
                self.0 += 1;
                Next::Event(Event { id: Some(self.0.to_string()), name: "number", data: self.0.to_string() })
            }
        }
        tokio::time::pause();
        let streams = Streams::default();
        let mut body = Box::pin(streams.open(Numbers(0)).into_body());
        let mut next = async || std::future::poll_fn(|context| body.as_mut().poll_next(context)).await.map(Result::unwrap);
        let mut read = Vec::new();
        for wait in [0, 9, 9, 11] {
            tokio::time::advance(Duration::from_secs(wait)).await;
            read.push(String::from_utf8(next().await.unwrap().to_vec()).unwrap());
        }
        assert_eq!(read[..3], [":\n\n", "id: 1\nevent: number\ndata: 1\n\n", "id: 2\nevent: number\ndata: 2\n\n"]);
        assert_eq!(read[3], "id: 2\nevent: dropped\ndata: You took nothing for 11 seconds: go on with Last-Event-ID: 2.\n\n");
        assert_eq!(next().await, None);
    }

    #[test]
    fn data_of_several_lines_cannot_end_its_event() {
        let event = Event { id: Some("7".to_owned()), name: "a", data: "b\n\nevent: c".to_owned() };
        assert_eq!(event.to_string(), "id: 7\nevent: a\ndata: b\ndata: \ndata: event: c\n\n");
    }
}
