//! What of an outbox is on the disk alone, behind what is in memory: how much, and which numbers it has.
//!
//! Pure. What was synced joins it where there is no room for it in memory, and leaves it again when it is read. Its messages are
//! known by their numbers alone, but for those that somebody waits for.

use std::collections::{BTreeMap, BTreeSet};

use super::{BatchId, EntryId};

/// Messages, and the bytes of their topics, payloads and properties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub messages: usize,
    /// Their bytes.
    pub bytes: usize,
}

impl Amount {
    /// One message more.
    pub fn add(&mut self, weight: usize) {
        (self.messages, self.bytes) = (self.messages + 1, self.bytes + weight);
    }

    /// One message less.
    pub fn remove(&mut self, weight: usize) {
        (self.messages, self.bytes) = (self.messages.saturating_sub(1), self.bytes.saturating_sub(weight));
    }
}

/// The tail of an outbox.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) amount: Amount,
    /// The number to read from.
    from: u64,
    /// The last number that belongs to it, and one.
    end: u64,
    /// Messages whose batch is told of their end, with their weight.
    followed: BTreeMap<EntryId, (BatchId, usize)>,
    /// Numbers that were taken out and may be read all the same, since they are deleted later.
    gone: BTreeSet<u64>,
}

impl Tail {
    /// A tail with so much, of which nothing is known but that its numbers are below `end`.
    pub(super) fn found(amount: Amount, end: u64) -> Tail {
        Tail { amount, end, ..Tail::default() }
    }

    /// Whether nothing of it is to be read.
    pub(super) fn is_empty(&self) -> bool {
        self.from >= self.end
    }

    /// A message joins behind all others.
    pub(super) fn push(&mut self, id: EntryId, weight: usize, followed: Option<BatchId>) {
        if self.is_empty() {
            self.from = id.0;
        }
        self.amount.add(weight);
        self.end = id.0 + 1;
        if let Some(batch) = followed {
            self.followed.insert(id, (batch, weight));
        }
    }

    /// A message joins before all others. What has a number between it and them does not belong to the tail.
    pub(super) fn push_front_over_gone(&mut self, id: EntryId, weight: usize) {
        if !self.is_empty() {
            self.gone.extend(id.0 + 1..self.from);
        }
        self.amount.add(weight);
        self.from = id.0;
        self.end = self.end.max(id.0 + 1);
    }

    /// A message was read. Whether it belongs to the tail, and whose batch is told of its end. It is in the tail no more.
    pub(super) fn take(&mut self, id: EntryId, weight: usize) -> Option<Option<BatchId>> {
        if id.0 < self.from || id.0 >= self.end {
            return None;
        }
        self.from = id.0 + 1;
        if self.gone.remove(&id.0) {
            return None;
        }
        self.amount.remove(weight);
        Some(self.followed.remove(&id).map(|(batch, _)| batch))
    }

    /// Everything below this number was read.
    pub(super) fn read(&mut self, up_to: u64) {
        self.from = self.from.max(up_to);
    }

    /// Nothing more of it is to be read. How much was said to be there all the same.
    pub(super) fn exhausted(&mut self) -> Amount {
        let left = std::mem::take(&mut self.amount);
        self.from = self.end;
        self.followed.clear();
        self.gone.clear();
        left
    }

    /// Takes out the message of a batch, if it is there.
    pub(super) fn take_back(&mut self, batch: BatchId) -> Option<EntryId> {
        let (id, weight) =
            self.followed.iter().find(|(_, (other, _))| *other == batch).map(|(id, (_, weight))| (*id, *weight))?;
        self.drop_followed(id, weight);
        Some(id)
    }

    /// Takes out all messages whose batch is told of their end.
    pub(super) fn drop_all_followed(&mut self) -> Vec<(EntryId, BatchId)> {
        let followed: Vec<_> = self.followed.iter().map(|(id, (batch, weight))| (*id, *batch, *weight)).collect();
        followed.iter().for_each(|(id, _, weight)| self.drop_followed(*id, *weight));
        followed.into_iter().map(|(id, batch, _)| (id, batch)).collect()
    }

    fn drop_followed(&mut self, id: EntryId, weight: usize) {
        self.followed.remove(&id);
        self.amount.remove(weight);
        self.gone.insert(id.0);
    }

    /// Which numbers may belong to it: from this one on, and below that one.
    pub(super) fn numbers(&self) -> (u64, u64) {
        (self.from, self.end)
    }
}
