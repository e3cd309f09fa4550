//! Messages and their names.
//!
//! 1. An origin numbers its causal and its ordered messages apart, from 1, without gaps: a name is never used twice while the
//!    origin's disk remembers, and a disk that does not is another origin.
//! 2. A message's frontier names what its origin had delivered or sent before it. Order per origin is implied and not written down.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{BadName, NodeId, text_serde};
use crate::time::WallTime;
use crate::version::MAX_TEXT;

/// Largest body of a message, in bytes.
pub const MAX_BODY: usize = 64 << 10;
/// Most names in a frontier. The maximal messages known to a node are at most one for each origin; usually there are 0 to 3.
pub const MAX_FRONTIER: usize = 1024;

/// How a message is ordered among others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// After everything that its origin had delivered or sent before it.
    Causal,
    /// At the same place 1, 2, 3, ... on every node.
    Ordered,
}

impl Channel {
    fn letter(self) -> char {
        match self {
            Self::Causal => 'c',
            Self::Ordered => 'o',
        }
    }
}

/// The name of a message: `c<sequence>.<origin>` or `o<sequence>.<origin>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// The node that took it from a client.
    pub origin: NodeId,
    /// Its channel.
    pub channel: Channel,
    /// Its number among its origin's messages of this channel, from 1.
    pub sequence: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}.{}", self.channel.letter(), self.sequence, self.origin)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MessageId {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = || BadName::message(text);
        let (head, origin) = text.split_once('.').ok_or_else(bad)?;
        let (channel, digits) = match head.strip_prefix('c') {
            Some(digits) => (Channel::Causal, digits),
            None => (Channel::Ordered, head.strip_prefix('o').ok_or_else(bad)?),
        };
        let sequence: u64 = digits.parse().map_err(|_| bad())?;
        // One spelling for each name: no sign, no leading zero.
        if sequence == 0 || sequence.to_string() != digits {
            return Err(bad());
        }
        Ok(Self { origin: origin.parse().map_err(|_| bad())?, channel, sequence })
    }
}

text_serde!(MessageId);

/// What comes before a message.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Frontier {
    /// The last slot delivered at its origin.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub slot: u64,
    /// The newest causal messages delivered or sent there: those that come before no other of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub newest: BTreeSet<MessageId>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(slot: &u64) -> bool {
    *slot == 0
}

/// A message, as it is stored and as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its name.
    pub id: MessageId,
    /// What comes before it.
    #[serde(default)]
    pub frontier: Frontier,
    /// Media type of the body, as its client said.
    pub media_type: String,
    /// The body, at most [`MAX_BODY`] bytes.
    pub body: Body,
    /// When its origin took it, by that node's clock.
    pub sent: WallTime,
}

/// The bytes of a message. Text travels as text; other bytes in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// UTF-8.
    Text(String),
    /// Anything else.
    Base64(#[serde(with = "base64_bytes")] Vec<u8>),
}

impl Body {
    /// The bytes as they travel best.
    pub fn of(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Base64(error.into_bytes()),
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Base64(bytes) => bytes,
        }
    }
}

/// Why a message is not taken from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// Larger than [`MAX_BODY`].
    #[error("the body of a message is larger than {MAX_BODY} bytes")]
    BodyTooLarge,
    /// Longer than [`MAX_TEXT`].
    #[error("the media type of a message is longer than {MAX_TEXT} bytes")]
    MediaTypeTooLong,
    /// It names ordered messages, itself or a successor, or more than [`MAX_FRONTIER`].
    #[error("the frontier of a message names what cannot come before it")]
    BadFrontier,
    /// Sequences begin at 1.
    #[error("a message without a sequence number")]
    NoSequence,
    /// A list of more than is said at once.
    #[error("more than is said at once")]
    TooMany,
    /// Bytes that are valid text must travel as text, so that equal messages are written alike.
    #[error("the body of a message is text and written as base64")]
    NotCanonical,
}

impl Message {
    /// Checks what must hold of every message from outside.
    pub fn validate(&self) -> Result<(), BadMessage> {
        if self.body.bytes().len() > MAX_BODY {
            return Err(BadMessage::BodyTooLarge);
        }
        if self.media_type.len() > MAX_TEXT {
            return Err(BadMessage::MediaTypeTooLong);
        }
        if self.id.sequence == 0 {
            return Err(BadMessage::NoSequence);
        }
        if matches!(&self.body, Body::Base64(bytes) if std::str::from_utf8(bytes).is_ok()) {
            return Err(BadMessage::NotCanonical);
        }
        let earlier = |named: &MessageId| {
            let own = named.origin == self.id.origin && self.id.channel == Channel::Causal;
            named.channel == Channel::Causal && named.sequence > 0 && (!own || named.sequence < self.id.sequence)
        };
        if self.frontier.newest.len() <= MAX_FRONTIER && self.frontier.newest.iter().all(earlier) {
            Ok(())
        } else {
            Err(BadMessage::BadFrontier)
        }
    }
}

impl Message {
    /// Appends bytes that no other message has, and that are the beginning of no other's.
    pub(super) fn append_to(&self, bytes: &mut Vec<u8>) {
        let name = |bytes: &mut Vec<u8>, id: &MessageId| {
            bytes.extend_from_slice(id.origin.0.as_bytes());
            bytes.push(u8::from(id.channel == Channel::Ordered));
            bytes.extend_from_slice(&id.sequence.to_be_bytes());
        };
        let counted = |bytes: &mut Vec<u8>, text: &[u8]| {
            bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
            bytes.extend_from_slice(text);
        };
        name(bytes, &self.id);
        bytes.extend_from_slice(&self.frontier.slot.to_be_bytes());
        bytes.extend_from_slice(&(self.frontier.newest.len() as u64).to_be_bytes());
        self.frontier.newest.iter().for_each(|id| name(bytes, id));
        counted(bytes, self.media_type.as_bytes());
        bytes.push(u8::from(matches!(self.body, Body::Text(_))));
        counted(bytes, self.body.bytes());
        bytes.extend_from_slice(&self.sent.0.to_be_bytes());
    }
}

mod base64_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::record::tests::node;

    /// A message of node `origin`, after `newest`.
    pub(crate) fn message(origin: u8, channel: Channel, sequence: u64, newest: &[MessageId]) -> Message {
        Message {
            id: MessageId { origin: node(origin), channel, sequence },
            frontier: Frontier { slot: 0, newest: newest.iter().copied().collect() },
            media_type: "text/plain".into(),
            body: Body::of(format!("{origin}/{sequence}").into_bytes()),
            sent: WallTime(0),
        }
    }

    #[test]
    fn a_name_has_one_spelling() {
        let id = message(1, Channel::Causal, 12, &[]).id;
        assert_eq!(id.to_string().parse(), Ok(id));
        let origin = id.origin;
        for bad in
            [format!("c012.{origin}"), format!("c+1.{origin}"), format!("c0.{origin}"), format!("x1.{origin}"), "c1".into(), String::new()]
        {
            assert!(bad.parse::<MessageId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn text_travels_as_text_and_other_bytes_in_base64() {
        for bytes in [b"hello".to_vec(), vec![0xff, 0, 1], vec![]] {
            let message = Message { body: Body::of(bytes.clone()), ..message(1, Channel::Ordered, 1, &[]) };
            let json = serde_json::to_string(&message).expect("serialises");
            let read: Message = serde_json::from_str(&json).expect("reads");
            assert_eq!((read.validate(), read.body.bytes()), (Ok(()), &bytes[..]), "{json}");
        }
        let disguised = Message { body: Body::Base64(b"hello".to_vec()), ..message(1, Channel::Ordered, 1, &[]) };
        assert_eq!(disguised.validate(), Err(BadMessage::NotCanonical));
    }

    #[test]
    fn what_cannot_come_before_a_message_is_refused() {
        let later = message(1, Channel::Causal, 3, &[]).id;
        assert_eq!(message(1, Channel::Causal, 3, &[later]).validate(), Err(BadMessage::BadFrontier));
        assert_eq!(message(2, Channel::Causal, 3, &[later]).validate(), Ok(()));
        let ordered = message(1, Channel::Ordered, 3, &[]).id;
        assert_eq!(message(2, Channel::Causal, 3, &[ordered]).validate(), Err(BadMessage::BadFrontier));
        let large = Message { body: Body::of(vec![b'a'; MAX_BODY + 1]), ..message(1, Channel::Causal, 1, &[]) };
        assert_eq!(large.validate(), Err(BadMessage::BodyTooLarge));
    }
}
