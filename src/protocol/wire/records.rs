//! Messages by which two nodes compare their record sets and give each other what is missing.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::hex::{hex64, hex64_option};
use super::{BadMessage, Entry, FIRST_CELLS, MAX_CELLS_SENT, MAX_ITEMS, MAX_RECORDS, at_most, packed, validate_entries};
use crate::history::talk::Head;
use crate::item::{Item, KeyHash};
use crate::sketch::{Cell, MAX_CELLS};
use crate::summary::{PARTITIONS, Root};

/// The digest that opens an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Root of the record set.
    #[serde(rename = "r")]
    pub root: Root,
    /// Fingerprint of the member list.
    #[serde(rename = "m", with = "hex64")]
    pub members: u64,
    /// Fingerprint of the message history; absent of a node that belongs to none.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none", with = "hex64_option")]
    pub history: Option<u64>,
    /// The sender reconciles with somebody else, or waits before it asks again: it has no use for cells.
    #[serde(rename = "o", default, skip_serializing_if = "is_false")]
    pub occupied: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// What differs from a digest; nothing where all is equal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// The answerer's fingerprint of the member list, where it differs.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none", with = "hex64_option")]
    pub members: Option<u64>,
    /// The answerer's message history, where the fingerprints of both differ.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub history: Option<Head>,
    /// The answerer's root, where it differs: of the instant of the cells.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// The number of the sketch that the answerer keeps as it is now; absent if it serves others, or if no cells were wanted.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub sketch: Option<u32>,
    /// Its first [`FIRST_CELLS`] cells.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "packed")]
    pub cells: Vec<Cell>,
}

/// More cells of a sketch that the receiver keeps for the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellsRequest {
    /// Its number.
    #[serde(rename = "s")]
    pub sketch: u32,
    /// The first cell wanted.
    pub from: usize,
    /// The first cell not wanted.
    pub to: usize,
}

/// Cells, as many as were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellsAnswer {
    /// The cells.
    #[serde(with = "packed")]
    pub cells: Vec<Cell>,
}

/// A question for the roots of all partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionsRequest {}

/// The roots of all partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionsAnswer {
    /// One for each of the 256, in order.
    #[serde(with = "packed")]
    pub roots: Vec<Root>,
}

/// A question for sketches of partitions, as they are at that moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SketchesRequest {
    /// Which, in ascending order.
    pub partitions: Vec<u8>,
    /// How many cells of each.
    pub cells: usize,
}

/// Sketches of the first of the partitions asked for, as many as the answerer can read at once. None if the first one alone is too large.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SketchesAnswer {
    /// The cells of one after the other.
    #[serde(with = "packed")]
    pub cells: Vec<Cell>,
}

/// A question for the items of partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemsRequest {
    /// Which, in ascending order.
    pub partitions: Vec<u8>,
    /// Go on from this key hash; absent at first.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hex64_option")]
    pub from: Option<u64>,
}

/// Items of partitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemsAnswer {
    /// In their order.
    #[serde(with = "packed")]
    pub items: Vec<Item>,
    /// Where to go on: all items of lower key hashes are here. Absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hex64_option")]
    pub next: Option<u64>,
}

/// Records given, records asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordsRequest {
    /// What the receiver lacks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub give: Vec<Entry>,
    /// Key hashes of the records wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "packed")]
    pub ask: Vec<KeyHash>,
    /// The sender knows of nothing more to ask: its place is free for another.
    #[serde(default, skip_serializing_if = "is_false")]
    pub last: bool,
}

/// Records asked for; those that did not fit are asked for again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordsAnswer {
    /// As many as fit, in the order asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub give: Vec<Entry>,
    /// How many of the key hashes asked for were looked at.
    pub seen: usize,
}

fn ordered(ordered: bool) -> Result<(), BadMessage> {
    if ordered { Ok(()) } else { Err(BadMessage::Unordered) }
}

fn exactly(found: usize, bound: usize) -> Result<(), BadMessage> {
    if found == bound { Ok(()) } else { Err(BadMessage::TooMany { found, bound }) }
}

impl Compared {
    pub(super) fn validate(&self) -> Result<(), BadMessage> {
        exactly(self.cells.len(), if self.root.is_some() && self.sketch.is_some() { FIRST_CELLS } else { 0 })
    }
}

impl CellsRequest {
    /// Which cells.
    pub fn range(&self) -> Range<usize> {
        self.from..self.to
    }

    pub(super) fn validate(self) -> Result<(), BadMessage> {
        at_most(self.to, MAX_CELLS)?;
        ordered(self.from < self.to)
    }
}

impl CellsAnswer {
    pub(super) fn validate(&self) -> Result<(), BadMessage> {
        at_most(self.cells.len(), MAX_CELLS)
    }
}

impl PartitionsAnswer {
    pub(super) fn validate(&self) -> Result<(), BadMessage> {
        exactly(self.roots.len(), PARTITIONS)
    }
}

impl SketchesRequest {
    pub(super) fn validate(&self) -> Result<(), BadMessage> {
        at_most(self.cells, MAX_CELLS)?;
        at_most(self.partitions.len(), PARTITIONS)?;
        at_most(self.partitions.len() * self.cells, MAX_CELLS_SENT)?;
        ordered(self.partitions.is_sorted_by(|a, b| a < b) && self.cells > 0)
    }
}

impl SketchesAnswer {
    pub(super) fn validate(&self) -> Result<(), BadMessage> {
        at_most(self.cells.len(), MAX_CELLS_SENT)
    }
}

impl ItemsRequest {
    pub(super) fn validate(&self) -> Result<(), BadMessage> {
        at_most(self.partitions.len(), PARTITIONS)?;
        ordered(self.partitions.is_sorted_by(|a, b| a < b))
    }
}

impl ItemsAnswer {
    pub(super) fn validate(&self) -> Result<(), BadMessage> {
        at_most(self.items.len(), MAX_ITEMS)?;
        ordered(self.items.is_sorted())
    }
}

impl RecordsRequest {
    pub(super) fn validate(&self) -> Result<(), BadMessage> {
        at_most(self.ask.len(), MAX_RECORDS)?;
        validate_entries(&self.give)
    }
}

impl RecordsAnswer {
    pub(super) fn validate(&self) -> Result<(), BadMessage> {
        validate_entries(&self.give)
    }
}
