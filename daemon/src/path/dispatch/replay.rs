//! Which parked messages are brought back next, and which are out already.
//!
//! Pure: no I/O, no lock. A message that is out stays in the park until it has ended, so that it is never brought twice, and a
//! message whose end came while the park was being read, and which that reading may still have seen, is not brought either.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::retry::Tries;

/// Messages that are out at the same time: no acknowledgement window bounds them.
pub(super) const MOST_OUT: usize = 512;

/// Their bytes.
const MOST_OUT_BYTES: usize = 4 << 20;

/// A reading of the park that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// The reading's own number: what another one found is of no use.
    generation: u64,
    /// The first number that is read.
    pub(super) from: u64,
    /// The most messages,
    pub(super) messages: usize,
    /// and about the most bytes that are read.
    pub(super) bytes: usize,
}

/// What came of a reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Brought {
    /// It is of no use any more.
    Stale,
    /// These are to be called, in this order.
    Some(Vec<u64>),
    /// There is nothing that has not been brought.
    End,
}

/// What is out of one park.
#[derive(Debug, Default)]
pub(super) struct Replay {
    generation: u64,
    /// The first number that has not been read.
    next: u64,
    /// What is out, with its bytes.
    out: BTreeMap<u64, usize>,
    bytes: usize,
    /// What ended since the latest reading began.
    ended: BTreeSet<u64>,
    /// The calls that were made for messages which are parked.
    tries: HashMap<u64, Tries>,
}

impl Replay {
    /// The park is read from its beginning; what is being read is of no use.
    pub(super) fn restart(&mut self) {
        self.generation += 1;
        self.next = 0;
    }

    /// What is being read is of no use, and is read again.
    pub(super) fn interrupt(&mut self) {
        self.generation += 1;
    }

    /// What to read next; none while enough is out.
    pub(super) fn read(&mut self) -> Option<Reading> {
        let (messages, bytes) = (MOST_OUT.saturating_sub(self.out.len()), MOST_OUT_BYTES.saturating_sub(self.bytes));
        if messages == 0 || bytes == 0 {
            return None;
        }
        self.generation += 1;
        self.ended.clear();
        Some(Reading { generation: self.generation, from: self.next, messages, bytes })
    }

    /// A reading found these numbers with their bytes, ascending. What of them is to be called counts as out from now on: no
    /// more than `most`, and none that `takes` does not name, which is passed over.
    pub(super) fn found(
        &mut self,
        reading: Reading,
        found: &[(u64, usize)],
        most: usize,
        takes: impl Fn(u64) -> bool,
    ) -> Brought {
        if reading.generation != self.generation {
            return Brought::Stale;
        }
        if found.is_empty() {
            return Brought::End;
        }
        let mut brought = Vec::new();
        for (number, bytes) in found {
            if brought.len() >= most {
                break;
            }
            self.next = number.saturating_add(1);
            if !self.out.contains_key(number) && !self.ended.contains(number) && takes(*number) {
                self.out.insert(*number, *bytes);
                self.bytes += bytes;
                brought.push(*number);
            }
        }
        Brought::Some(brought)
    }

    /// A message that was out has ended, or stays in the park. Whether there was no room for another one before.
    pub(super) fn back(&mut self, number: u64) -> bool {
        let full = self.out.len() >= MOST_OUT || self.bytes >= MOST_OUT_BYTES;
        if let Some(bytes) = self.out.remove(&number) {
            self.bytes -= bytes;
            self.ended.insert(number);
        }
        full
    }

    /// A message that was out has ended, and is in the park no more. As [`Self::back`].
    pub(super) fn ended(&mut self, number: u64) -> bool {
        self.tries.remove(&number);
        self.back(number)
    }

    /// A message that is parked was called so often.
    pub(super) fn tried(&mut self, number: u64, tries: Tries) {
        if tries.begun() > 0 {
            self.tries.insert(number, tries);
        }
    }

    /// The calls that were made for a message that is parked.
    pub(super) fn tries(&self, number: u64) -> Tries {
        self.tries.get(&number).copied().unwrap_or_default()
    }

    /// Messages that are out.
    pub(super) fn out(&self) -> usize {
        self.out.len()
    }
}
