//! The protocol core of Gossip CDN, as a plain value.
//!
//! A [`Node`] is one member of the network without its sockets, files, clock and threads. Everything that happens to it goes in through
//! [`Node::handle`] as an [`Input`]; everything it wants done comes out as an [`Output`]. The shell (the `gossip-cdn` binary, or
//! the simulator) performs the outputs and reports back. The same seed and the same inputs give the same outputs, byte for byte.
//!
//! ```text
//!             Input                                     Output
//!   client command ----\                          /---> Reply      to the client
//!   peer's request -----\      +------------+    /----> Answer     to the peer
//!   peer's answer ------->---->|    Node    |---+-----> Call       another node
//!   persisted ----------/      +------------+    \----> Persist    records, members, incarnation
//!   fetched -----------/             |            \---> Fetch      payloads from a holder
//!   tick --------------             reads          \--> Event      for logs and metrics
//!                                    v
//!                              trait Store (redb, or the simulator's map)
//! ```
//!
//! # The contract
//!
//! 1. After `handle`, ask [`Node::deadline`] and come back with [`Input::Tick`] at that time at the latest; earlier does no harm.
//! 2. A [`Persist`] is made durable as a whole or not at all, in the order given, and reported with [`Input::Persisted`]. Until then
//!    nothing of this node's own making that depends on it leaves the core: no reply, no version, no incarnation.
//! 3. A persist that fails ends the core ([`Output::Stop`]); a new one is built from the store.
//! 4. A core whose identity is used elsewhere ends ([`Output::IdentityTaken`]); a new one is built with a new key.
//! 5. Payload bytes never pass through here: the core only says which hash to fetch from whom.
//!
//! # The rooms
//!
//! | values | machines | doors |
//! |---|---|---|
//! | [`ids`], [`stamp`], [`vector_clock`], [`version`], [`record`], [`item`], [`sketch`], [`summary`], [`member`] | [`records`], [`membership`], [`spread`], [`reconciliation`], [`snapshot`], [`verification`], [`transfer`], [`receipts`], [`lan`], [`identity`] | [`node`], [`io`], [`wire`], [`store`], [`memory`], [`time`] |

pub mod history;
pub mod identity;
pub mod ids;
pub mod io;
pub mod item;
pub mod lan;
pub mod member;
pub mod membership;
pub mod memory;
pub mod node;
pub mod parts;
pub mod planted;
pub mod receipts;
pub mod reconciliation;
pub mod record;
pub mod records;
pub mod sketch;
pub mod snapshot;
pub mod spread;
pub mod stamp;
pub mod store;
pub mod summary;
pub mod time;
pub mod transfer;
pub mod vector_clock;
pub mod verification;
pub mod version;
pub mod wire;

pub use ids::{BlobId, ContentHash, NodeId, PublicKey, Sha256Digest};
pub use io::{Command, Event, Input, Output, Persist, Reply};
pub use member::{Member, MemberState};
pub use node::{Config, Identity, Node};
pub use record::Record;
pub use stamp::Stamp;
pub use store::{Store, StoreFault};
pub use time::{Instant, Now, WallTime};
pub use vector_clock::VectorClock;
pub use version::{Content, Payload, Version, VersionId};
