//! Why a command did not do what it was told, and the exit code that says so.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed |
//! | 2 | called wrongly |
//! | 3 | not found, or deleted |
//! | 4 | conflict: a precondition does not hold |
//! | 5 | the node cannot be reached |

use std::io;

use awc::error::SendRequestError;
use awc::http::StatusCode;

use super::address::NodeUrl;

/// What stopped a command. The text is one or two sentences for a person; the variant is for programs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// It was called wrongly.
    #[error("{0}")]
    Usage(String),
    /// The blob is unknown or deleted.
    #[error("{0}")]
    NotFound(String),
    /// The node refused because of the state of the blob.
    #[error("{0}")]
    Conflict(String),
    /// No node answered.
    #[error("{0}")]
    Unreachable(String),
    /// Everything else.
    #[error("{0}")]
    Failed(String),
    /// Whoever read our output has seen enough (`| head`): no reason to complain, but one to stop.
    #[error("the reader of the output is gone")]
    ReaderGone,
}

impl Fault {
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::ReaderGone => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Conflict(_) => 4,
            Self::Unreachable(_) => 5,
        }
    }

    /// The fault that an HTTP status stands for; `text` is what the node said.
    pub(crate) fn of_status(status: StatusCode, text: String) -> Self {
        match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => Self::NotFound(text),
            StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Self::Conflict(text),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Self::Failed(format!("{text} (writing may need --token or GOSSIP_CDN_TOKEN)"))
            }
            _ => Self::Failed(text),
        }
    }

    /// A request that got no answer.
    pub(crate) fn of_send(node: &NodeUrl, error: &SendRequestError) -> Self {
        if let SendRequestError::Url(url) = error {
            return Self::Usage(format!("{node} is no address of a node: {url}"));
        }
        if let SendRequestError::Body(body) = error {
            return Self::Failed(body.to_string());
        }
        Self::Unreachable(format!("cannot reach {node}: {error}; is the node running? (--node URL or GOSSIP_CDN_NODE says where it is)"))
    }

    /// A local file that could not be used.
    pub(crate) fn of_file(doing: &str, path: &std::path::Path, error: &io::Error) -> Self {
        Self::Failed(format!("cannot {doing} {}: {error}", path.display()))
    }

    /// Output that could not be written.
    pub(crate) fn of_output(error: &io::Error) -> Self {
        match error.kind() == io::ErrorKind::BrokenPipe {
            true => Self::ReaderGone,
            false => Self::Failed(format!("cannot write the output: {error}")),
        }
    }
}

/// The outcome of several things done in a row: the first fault decides, the others were reported when they happened.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    first: Option<Fault>,
}

impl Tally {
    pub(crate) fn add(&mut self, fault: Fault) {
        self.first.get_or_insert(fault);
    }

    /// The exit code: that of the first fault.
    pub(crate) fn exit_code(&self) -> i32 {
        self.first.as_ref().map_or(0, Fault::exit_code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_exit_code() {
        let code = |status: u16| Fault::of_status(StatusCode::from_u16(status).unwrap(), String::new()).exit_code();
        assert_eq!([404, 410].map(code), [3, 3]);
        assert_eq!([409, 412].map(code), [4, 4]);
        assert_eq!([400, 401, 403, 413, 429, 500, 503, 507].map(code), [1; 8]);
    }

    #[test]
    fn a_node_that_does_not_answer_is_5_and_a_bad_address_2() {
        let node: NodeUrl = "http://127.0.0.1:1".parse().unwrap();
        assert_eq!(Fault::of_send(&node, &SendRequestError::Timeout).exit_code(), 5);
        assert_eq!(Fault::of_send(&node, &SendRequestError::Url(awc::error::InvalidUrl::MissingHost)).exit_code(), 2);
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        assert_eq!(Fault::of_output(&io::ErrorKind::BrokenPipe.into()).exit_code(), 0);
        assert_eq!(Fault::of_output(&io::ErrorKind::StorageFull.into()).exit_code(), 1);
    }

    #[test]
    fn the_first_fault_decides() {
        let mut tally = Tally::default();
        assert_eq!(tally.exit_code(), 0);
        tally.add(Fault::NotFound(String::new()));
        tally.add(Fault::Failed(String::new()));
        assert_eq!(tally.exit_code(), 3);
    }
}
