//! Bodies of uploads: bounded, with a deadline, never kept whole in memory.
//!
//! 1. A body that brings nothing, or too little, is given up: [`super::patience`].
//! 2. What is too large, or finds the disk at its reserve, is refused before it is read where its length is known, and as soon as it
//!    shows otherwise.
//! 3. Whatever is given up leaves nothing behind: an [`Upload`] that is dropped takes its bytes with it.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as Waking, Poll};

use actix_multipart::MultipartError;
use actix_web::error::PayloadError;
use actix_web::web::{Bytes, Payload};
use futures_util::{Stream, StreamExt as _, stream};
use gossip_cdn_protocol::Sha256Digest;
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::Context;
use super::errors::Fault;
use super::patience::{Left, Patience};
use crate::store::Upload;

/// How much of a body of unknown length is taken between two looks at the disk.
const ROOM_STEP: u64 = 64 << 20;
/// Most that may follow the last part of a form.
const MAX_EPILOGUE: u64 = 64 << 10;

type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, PayloadError>>>>;

/// A request's body, shared between the form parser that reads it and whoever reads what the parser leaves.
#[derive(Clone)]
pub(super) struct Body(Rc<RefCell<Inner>>);

struct Inner {
    chunks: Chunks,
    /// Of everything read, where somebody wants to know.
    digest: Option<Sha256>,
}

/// The next chunk of a body, or its end; nothing if it does not come before the patience with it runs out.
pub(super) async fn next(payload: &mut Payload, left: &mut Left) -> Option<Option<Result<Bytes, PayloadError>>> {
    left.wait(payload.next(), |chunk| chunk.as_ref().and_then(|chunk| chunk.as_ref().ok()).map_or(0, Bytes::len)).await
}

impl Body {
    /// Reads `payload`, for as long as there is patience with it.
    pub(super) fn new(payload: Payload, patience: Patience) -> Self {
        let chunks = stream::unfold((payload, patience.begin()), |(mut payload, mut left)| async move {
            let chunk = match next(&mut payload, &mut left).await {
                Some(chunk) => chunk?,
                None => Err(PayloadError::Io(io::ErrorKind::TimedOut.into())),
            };
            Some((chunk, (payload, left)))
        });
        // The form parser asks again after the end.
        Self(Rc::new(RefCell::new(Inner { chunks: Box::pin(chunks.fuse()), digest: None })))
    }

    /// Digests everything that is read from now on.
    pub(super) fn digested(self) -> Self {
        self.0.borrow_mut().digest = Some(Sha256::new());
        self
    }

    /// The digest of everything that was read.
    pub(super) fn digest(&self) -> Option<Sha256Digest> {
        self.0.borrow_mut().digest.take().map(|digest| Sha256Digest(digest.finalize().into()))
    }

    /// Reads what follows a form's last part, so that the body is known to be whole.
    pub(super) async fn finish(&mut self, patience: Patience) -> Result<(), Fault> {
        let mut size = 0;
        while let Some(chunk) = self.next().await {
            size += chunk.map_err(|error| cut(error, patience))?.len() as u64;
            if size > MAX_EPILOGUE {
                return Err(Fault::Bad("bad-form", "Too much follows the last part of the form.".to_owned()));
            }
        }
        Ok(())
    }
}

impl Stream for Body {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, waking: &mut Waking<'_>) -> Poll<Option<Self::Item>> {
        let mut inner = self.0.borrow_mut();
        let next = inner.chunks.as_mut().poll_next(waking);
        if let (Poll::Ready(Some(Ok(chunk))), Some(digest)) = (&next, inner.digest.as_mut()) {
            digest.update(chunk);
        }
        next
    }
}

/// Where a connection keeps the body of an upload that was refused, until it is closed.
///
/// A chunked body that is dropped in the middle would be drained by the server for as long as its sender likes, which may be for ever;
/// one that somebody holds makes the server close the connection behind the answer.
#[derive(Default)]
pub(super) struct GivenUp(RefCell<Option<Body>>);

impl GivenUp {
    /// Keeps `body`.
    pub(super) fn hold(&self, body: Body) {
        self.0.replace(Some(body));
    }
}

/// Lets an upload begin. The permit is held until its bytes are on disk, or on their way in the store's own bounds.
pub(super) fn admit(context: &Context, length: Option<u64>) -> Result<OwnedSemaphorePermit, Fault> {
    let most = context.settings.max_blob;
    if length.is_some_and(|length| length > most) {
        return Err(Fault::TooLarge(most));
    }
    admit_form(context, length)
}

/// Lets a form begin: its files are measured one by one.
pub(super) fn admit_form(context: &Context, length: Option<u64>) -> Result<OwnedSemaphorePermit, Fault> {
    check_room(context, length.unwrap_or_default())?;
    std::sync::Arc::clone(&context.uploads).try_acquire_owned().map_err(|_| Fault::TooManyUploads)
}

fn check_room(context: &Context, bytes: u64) -> Result<(), Fault> {
    if context.store.room_for(bytes).map_err(Fault::Disk)? { Ok(()) } else { Err(Fault::DiskFull) }
}

/// Takes one payload to its end. Nothing of it is published yet.
pub(super) async fn receive<S, E>(context: &Context, chunks: &mut S, fault: impl Fn(E, Patience) -> Fault) -> Result<Upload, Fault>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    let most = context.settings.max_blob;
    let mut upload = context.store.upload();
    let (mut size, mut unlooked) = (0_u64, 0_u64);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| fault(error, context.settings.patience))?;
        let length = chunk.len() as u64;
        size = size.saturating_add(length);
        if size > most {
            return Err(Fault::TooLarge(most));
        }
        unlooked += length;
        if unlooked >= ROOM_STEP {
            unlooked = 0;
            check_room(context, 0)?;
        }
        upload.write(chunk).await.map_err(Fault::of_disk)?;
    }
    Ok(upload)
}

/// Why a body ended before its end.
pub(super) fn cut(error: PayloadError, patience: Patience) -> Fault {
    let stalled = matches!(&error, PayloadError::Io(error) if error.kind() == io::ErrorKind::TimedOut);
    if stalled { Fault::BodyStalled(patience) } else { Fault::BodyCut(error.to_string()) }
}

/// Why a form ended before its end, or is none.
pub(super) fn bad_form(error: MultipartError, patience: Patience) -> Fault {
    if let MultipartError::Payload(error) = error {
        cut(error, patience)
    } else if matches!(error, MultipartError::Incomplete) {
        Fault::BodyCut("a form without its end".to_owned())
    } else {
        Fault::Bad("bad-form", format!("The form cannot be read: {error}."))
    }
}
