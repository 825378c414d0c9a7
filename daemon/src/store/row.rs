//! What a transaction writes: rows, each with its place and its weight.
//!
//! Pure. Bodies are made and read by whoever owns the table; the store looks at none.

use std::sync::Arc;

/// What a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// What waits to be published; grouped by the broker's name.
    Outbox,
    /// What handlers remember; grouped by the handler's name.
    Kv,
    /// Messages that are kept for later: dead letters, and what is parked for a handler.
    Kept,
    /// Small facts about the daemon.
    Marks,
}

impl Table {
    /// All tables, in the order of their declaration.
    pub const ALL: [Table; 4] = [Table::Outbox, Table::Kv, Table::Kept, Table::Marks];

    /// Its name in the file, which must never change.
    pub(super) fn name(self) -> &'static str {
        match self {
            Table::Outbox => "outbox",
            Table::Kv => "kv",
            Table::Kept => "kept",
            Table::Marks => "marks",
        }
    }
}

/// Where a row stands. Within a group rows are ordered by the bytes of their keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// In this table,
    pub table: Table,
    /// in this group,
    pub group: Arc<str>,
    /// under this key.
    pub key: Box<[u8]>,
}

impl Place {
    /// The place of a row that is known by a number: ordered as the numbers are.
    pub fn numbered(table: Table, group: Arc<str>, number: u64) -> Place {
        Place { table, group, key: Box::new(number.to_be_bytes()) }
    }
}

/// The number of a row that is known by one; none where the key is something else.
pub fn number(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}

/// One change of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// There is this from now on, whatever was there before.
    Put {
        /// Where.
        at: Place,
        /// What it counts in its group's total, in bytes.
        weight: u32,
        /// What.
        body: Vec<u8>,
    },
    /// There is nothing any more; without effect where there was nothing.
    Delete {
        /// Where.
        at: Place,
    },
}

impl Row {
    /// Where it stands.
    pub(super) fn place(&self) -> &Place {
        let (Row::Put { at, .. } | Row::Delete { at }) = self;
        at
    }

    /// Whether it only removes.
    pub(super) fn is_removal(&self) -> bool {
        matches!(self, Row::Delete { .. })
    }

    /// Of its key and body.
    pub(super) fn bytes(&self) -> usize {
        let body = if let Row::Put { body, .. } = self { body.len() } else { 0 };
        self.place().key.len() + body
    }
}

/// A row that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Under which key.
    pub key: Box<[u8]>,
    /// What it counts in its group's total, in bytes.
    pub weight: u32,
    /// What.
    pub body: Vec<u8>,
}

/// How much a group holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Rows.
    pub rows: u64,
    /// The sum of their weights, in bytes.
    pub weight: u64,
}
