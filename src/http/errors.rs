//! Faults of the public routes, and the only place that knows which of them is which status.

use std::borrow::Cow;
use std::io;

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use gossip_cdn_protocol::history::message::{MAX_BODY, MessageId};
use gossip_cdn_protocol::ids::BadName;
use gossip_cdn_protocol::io::{AdoptFault, ForgetFault, NoHolder, Refusal, SayFault, WriteFault};
use gossip_cdn_protocol::wire::VERSION;
use gossip_cdn_protocol::{BlobId, ContentHash, NodeId, StoreFault, VersionId};
use gossip_cdn_shell::problem::Problem;

use super::Context;
use super::body::{Body, GivenUp};
use super::conditional::entity_tag;
use super::patience::Patience;
use crate::driver::Stopped;
use crate::store::ListFault;

/// Why a request is not done.
#[derive(Debug)]
pub enum Fault {
    /// A name in the path or the query is not spelled as its kind demands.
    BadName(BadName),
    /// Something else in the request breaks a rule; the text says which.
    Bad(&'static str, String),
    /// That blob was never written, as far as this node knows.
    Unknown(BlobId),
    /// That version is deleted: it is a tombstone.
    Deleted(VersionId),
    /// That version is not live.
    NoSuchVersion,
    /// A precondition does not hold; the winner's payload, if there is one.
    Condition(Option<ContentHash>),
    /// What arrived is not what its digest says.
    Digest,
    /// No byte of that range is here; the payload's size.
    Range(u64),
    /// A body larger than this many bytes.
    TooLarge(u64),
    /// A message larger than is taken.
    MessageTooLarge,
    /// No message of that name is known here.
    UnknownMessage(MessageId),
    /// No node of that history was met.
    UnknownHistory(uuid::Uuid),
    /// A history that this node left is not joined again: its numbers there are taken.
    LeftHistory(uuid::Uuid),
    /// Too many messages wait to be delivered, or the node joins a history at this moment.
    NoMessages(String),
    /// A content coding, which is not stored.
    Coding,
    /// No room on the disk but the reserve.
    DiskFull,
    /// As many uploads as may be at once.
    TooManyUploads,
    /// Too many writes wait for the disk.
    Busy,
    /// The body came too slowly for that patience.
    BodyStalled(Patience),
    /// The body ended before its end.
    BodyCut(String),
    /// No holder of the payload could be reached.
    NoHolder,
    /// The write token was not shown.
    Unauthorised,
    /// No member of that id is known.
    UnknownMember(NodeId),
    /// A member that is alive, or suspect, is not forgotten.
    LiveMember(NodeId),
    /// This node does not forget itself.
    Itself,
    /// The node at that address refused this one.
    OtherCluster(String),
    /// This node takes another key.
    KeyTaken,
    /// This node is stopping.
    Stopped,
    /// The store fails.
    Store(StoreFault),
    /// The disk fails.
    Disk(io::Error),
}

impl Fault {
    /// What a write's fault means for `blob`.
    pub(super) fn of_write(fault: WriteFault, blob: Option<BlobId>) -> Self {
        match fault {
            WriteFault::Condition(winner) => Self::Condition(winner),
            WriteFault::Unknown => blob.map_or(Self::NoSuchVersion, Self::Unknown),
            WriteFault::Deleted(version) => Self::Deleted(version),
            WriteFault::NoSuchVersion => Self::NoSuchVersion,
            WriteFault::NotHere(_) => Self::NoHolder,
            WriteFault::Busy => Self::Busy,
            WriteFault::StampsExhausted => {
                Self::Bad("stamps-exhausted", "A version of this blob bears the last stamp there is; write under another id.".to_owned())
            }
            WriteFault::KeyTaken => Self::KeyTaken,
            WriteFault::Store(fault) => Self::Store(fault),
        }
    }

    /// Why a member is not forgotten.
    pub(super) fn of_forgetting(fault: ForgetFault, member: NodeId) -> Self {
        match fault {
            ForgetFault::Unknown => Self::UnknownMember(member),
            ForgetFault::Myself => Self::Itself,
            ForgetFault::Live => Self::LiveMember(member),
            ForgetFault::Store(fault) => Self::Store(fault),
        }
    }

    /// Why a message is not taken.
    pub(super) fn of_saying(fault: SayFault) -> Self {
        match fault {
            SayFault::Full(full) => Self::NoMessages(full.to_string()),
            SayFault::KeyTaken => Self::KeyTaken,
            SayFault::Store(fault) => Self::Store(fault),
        }
    }

    /// Why another history is not adopted.
    pub(super) fn of_adopting(fault: AdoptFault, id: uuid::Uuid) -> Self {
        match fault {
            AdoptFault::Unknown | AdoptFault::Current => Self::UnknownHistory(id),
            AdoptFault::Left => Self::LeftHistory(id),
            AdoptFault::KeyTaken => Self::KeyTaken,
            AdoptFault::Store(fault) => Self::Store(fault),
        }
    }

    /// The fault of a disk; a full one has an answer of its own.
    pub(super) fn of_disk(error: io::Error) -> Self {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) { Self::DiskFull } else { Self::Disk(error) }
    }

    /// Status, kind and the text for the client.
    fn answer(&self) -> (StatusCode, &'static str, Cow<'static, str>) {
        match self {
            Self::BadName(name) => (StatusCode::BAD_REQUEST, "bad-name", format!("{name}.").into()),
            Self::Bad(kind, detail) => (StatusCode::BAD_REQUEST, kind, detail.clone().into()),
            Self::Unknown(blob) => (StatusCode::NOT_FOUND, "unknown-blob", format!("This node knows no blob {blob}.").into()),
            Self::Deleted(version) => (StatusCode::GONE, "deleted", format!("The blob was deleted, by the version {version}.").into()),
            Self::NoSuchVersion => (
                StatusCode::NOT_FOUND,
                "unknown-version",
                "The blob has no live version of that name with bytes; /blobs/{id}/versions lists those it has.".into(),
            ),
            Self::Condition(_) => (
                StatusCode::PRECONDITION_FAILED,
                "precondition",
                "The precondition does not hold; the ETag header, if there is one, names what is here.".into(),
            ),
            Self::Digest => (
                StatusCode::BAD_REQUEST,
                "digest-mismatch",
                "The body does not have the SHA-256 that its digest field says; nothing was published.".into(),
            ),
            Self::Range(size) => {
                (StatusCode::RANGE_NOT_SATISFIABLE, "range", format!("No byte of that range is here; the payload has {size}.").into())
            }
            Self::TooLarge(most) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                format!("A payload is larger than {most} bytes, the most this node takes (--max-blob).").into(),
            ),
            Self::MessageTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                format!("A message has at most {MAX_BODY} bytes; a blob may have more.").into(),
            ),
            Self::UnknownMessage(id) => (StatusCode::NOT_FOUND, "unknown-message", format!("This node knows no message {id}.").into()),
            Self::UnknownHistory(id) => (
                StatusCode::NOT_FOUND,
                "unknown-history",
                format!("This node met no node of the history {id}; /status lists those it met under apart.").into(),
            ),
            Self::LeftHistory(id) => (
                StatusCode::CONFLICT,
                "left-history",
                format!(
                    "This node left the history {id} before, and cannot send in it again; let the nodes of that history adopt this one's."
                )
                .into(),
            ),
            Self::NoMessages(why) => (StatusCode::SERVICE_UNAVAILABLE, "busy", format!("No message is taken for now: {why}.").into()),
            Self::Coding => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "content-coding",
                "Bytes are stored as they come, without a Content-Encoding; send them decoded.".into(),
            ),
            Self::DiskFull => (
                StatusCode::INSUFFICIENT_STORAGE,
                "disk-full",
                "The disk of this node is full but for its reserve; downloads and deletes go on.".into(),
            ),
            Self::TooManyUploads => (
                StatusCode::SERVICE_UNAVAILABLE,
                "too-many-uploads",
                "As many uploads are under way as this node takes at once (--max-uploads).".into(),
            ),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many writes wait for the disk.".into()),
            Self::BodyStalled(patience) => (
                StatusCode::REQUEST_TIMEOUT,
                "body-stalled",
                format!("The body came too slowly: {patience}; nothing was published.").into(),
            ),
            Self::BodyCut(_) => (StatusCode::BAD_REQUEST, "body-cut", "The body ended before its end; nothing was published.".into()),
            Self::NoHolder => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no-holder",
                "The bytes are not here yet, and no node that has them can be reached.".into(),
            ),
            Self::Unauthorised => {
                (StatusCode::UNAUTHORIZED, "token", "This needs the node's write token: Authorization: Bearer <token>.".into())
            }
            Self::UnknownMember(member) => (
                StatusCode::NOT_FOUND,
                "unknown-member",
                format!("This node knows no member {member}; /members lists those it knows.").into(),
            ),
            Self::LiveMember(member) => (
                StatusCode::CONFLICT,
                "live-member",
                format!(
                    "The member {member} may still be alive; stop it, wait until /members shows it as dead or left, and forget it then."
                )
                .into(),
            ),
            Self::Itself => (StatusCode::CONFLICT, "itself", "This is the node itself; stop it, and let another node forget it.".into()),
            Self::OtherCluster(detail) => (StatusCode::CONFLICT, "other-cluster", format!("{detail}.").into()),
            Self::KeyTaken => (
                StatusCode::SERVICE_UNAVAILABLE,
                "key-taken",
                "This node finds that another has its key, or that its folder is not the latest, and takes a new key; nothing was written."
                    .into(),
            ),
            Self::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopping", "This node is stopping.".into()),
            Self::Store(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "storage",
                "The storage of this node fails and is being opened again; /healthz tells why, its log more under the request id.".into(),
            ),
            Self::Disk(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "storage",
                "The storage of this node fails; its log tells more under the request id.".into(),
            ),
        }
    }

    fn problem(self) -> Problem {
        let (status, kind, detail) = self.answer();
        let problem = Problem::new(status, kind, detail);
        match self {
            Self::Deleted(version) => problem.header("Version", version).member("version", version),
            Self::Condition(Some(winner)) => problem.header("ETag", entity_tag(&winner)),
            Self::Range(size) => problem.header("Content-Range", format!("bytes */{size}")),
            Self::Unauthorised => problem.header("WWW-Authenticate", "Bearer realm=\"gossip-cdn\""),
            Self::TooManyUploads | Self::Busy | Self::KeyTaken | Self::NoMessages(_) => problem.header("Retry-After", 1),
            Self::NoHolder => problem.header("Retry-After", 2),
            Self::Stopped => problem.header("Retry-After", 5),
            Self::BodyCut(why) => problem.private(why),
            Self::Store(fault) => problem.private(fault).header("Retry-After", 5),
            Self::Disk(error) => problem.private(error),
            Self::BadName(_)
            | Self::Bad(..)
            | Self::Unknown(_)
            | Self::NoSuchVersion
            | Self::Condition(None)
            | Self::Digest
            | Self::TooLarge(_)
            | Self::MessageTooLarge
            | Self::UnknownMessage(_)
            | Self::UnknownHistory(_)
            | Self::LeftHistory(_)
            | Self::Coding
            | Self::DiskFull
            | Self::BodyStalled(_)
            | Self::UnknownMember(_)
            | Self::LiveMember(_)
            | Self::Itself
            | Self::OtherCluster(_) => problem,
        }
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        fault.problem()
    }
}

impl From<BadName> for Fault {
    fn from(name: BadName) -> Self {
        Self::BadName(name)
    }
}

impl From<StoreFault> for Fault {
    fn from(fault: StoreFault) -> Self {
        Self::Store(fault)
    }
}

impl From<ListFault> for Fault {
    fn from(fault: ListFault) -> Self {
        match fault {
            ListFault::BadCursor => Self::Bad("bad-cursor", "The cursor is none that this node gave for this order.".to_owned()),
            ListFault::NoIndex => Self::Bad("bad-query", format!("{fault}.")),
            ListFault::Store(fault) => Self::Store(fault),
        }
    }
}

impl From<Stopped> for Fault {
    fn from(Stopped: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<NoHolder> for Fault {
    fn from(NoHolder: NoHolder) -> Self {
        Self::NoHolder
    }
}

/// A peer is asked to come back: a bound is reached, which `why` names.
pub(super) fn busy(why: &str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", why).header("Retry-After", 1)
}

/// Why a peer's message is refused.
pub(super) fn refused(refusal: &Refusal) -> Problem {
    let (status, kind) = match refusal {
        Refusal::OtherCluster { .. } => (StatusCode::CONFLICT, "other-cluster"),
        Refusal::UnknownVersion { .. } => (StatusCode::UPGRADE_REQUIRED, "unknown-version"),
        Refusal::Malformed(_) | Refusal::FromSelf => (StatusCode::BAD_REQUEST, "malformed"),
        Refusal::Busy { .. } => (StatusCode::TOO_MANY_REQUESTS, "busy"),
        Refusal::Stopped { .. } => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    };
    let mut problem = Problem::new(status, kind, refusal.to_string());
    if let Refusal::Busy { retry_after } = refusal {
        problem = problem.header("Retry-After", retry_after);
    }
    // RFC 9110 section 15.5.22 demands to say what to upgrade to.
    if status == StatusCode::UPGRADE_REQUIRED { problem.header("upgrade", format!("gossip-cdn/{VERSION}")) } else { problem }
}

/// A message of a peer that is not JSON by its own word.
pub(super) fn not_json() -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "messages of peers are application/json")
}

/// A message of a peer of more than `most` bytes.
pub(super) fn message_too_large(most: usize) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", format!("messages of peers have at most {most} bytes"))
}

/// What a peer sent is no message of the protocol.
pub(super) fn no_message(fault: &dyn std::fmt::Display) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed", format!("not a message of the protocol: {fault}"))
}

/// A peer asked for a payload that is not here.
pub(super) fn no_payload(hash: ContentHash) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no-payload", format!("the payload {hash} is not here"))
}

/// A peer asked for bytes that the payload does not have: it believes a record that says another size.
pub(super) fn no_range(offset: u64, end: u64, size: u64) -> Problem {
    let detail = format!("the payload has {size} bytes, none of {offset} to {end} beyond them");
    Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "no-such-range", detail)
}

/// This node is stopping.
pub(super) fn stopping(Stopped: &Stopped) -> Problem {
    Fault::Stopped.into()
}

/// The body of a peer's message came too slowly.
pub(super) fn stalled() -> Problem {
    Fault::BodyStalled(Patience::default()).into()
}

/// The store fails.
pub(super) fn store(fault: &StoreFault) -> Problem {
    Fault::Store(fault.clone()).into()
}

/// The answer to an upload or a message, whose body may have been left in the middle.
pub(super) fn refuse_upload(request: &HttpRequest, fault: Fault, body: Body) -> HttpResponse {
    if let (Fault::BodyStalled(_), Some(context)) = (&fault, request.app_data::<Data<Context>>()) {
        context.metrics.body_stalled();
    }
    if let Some(given_up) = request.conn_data::<GivenUp>() {
        given_up.hold(body);
    }
    HttpResponse::from_error(fault.problem())
}
