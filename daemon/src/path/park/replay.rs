//! Which parked messages are brought back next, and which are out already.
//!
//! Pure: no I/O, no lock. A message that is out stays in the park until it has ended, so that it is never brought twice, and a
//! message whose end came while the park was being read, and which that reading may still have seen, is not brought either.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::path::dispatch::Tries;

/// Messages that are out at the same time: no acknowledgement window bounds them.
pub(in crate::path) const MOST_OUT: usize = 1024;

/// Their bytes.
const MOST_OUT_BYTES: usize = 4 << 20;

/// A reading of the park that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The reading's own number: what another one found is of no use.
    generation: u64,
    /// The first number that is read.
    pub(in crate::path) from: u64,
    /// The most messages,
    pub(in crate::path) messages: usize,
    /// and about the most bytes that are read.
    pub(in crate::path) bytes: usize,
}

/// What came of a reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Brought {
    /// It is of no use any more.
    Stale,
    /// These are to be called, in this order.
    Some(Vec<u64>),
    /// There is nothing that has not been brought.
    End,
}

/// What is out of one park.
#[derive(Debug, Default)]
pub struct Replay {
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
    pub(in crate::path) fn restart(&mut self) {
        self.generation += 1;
        self.next = 0;
    }

    /// What is being read is of no use, and is read again.
    pub(in crate::path) fn interrupt(&mut self) {
        self.generation += 1;
    }

    /// What to read next; none while enough is out, so that much is read at a time.
    pub(in crate::path) fn read(&mut self) -> Option<Reading> {
        if self.has_enough() {
            return None;
        }
        let (messages, bytes) = (MOST_OUT.saturating_sub(self.out.len()), MOST_OUT_BYTES.saturating_sub(self.bytes));
        self.generation += 1;
        self.ended.clear();
        Some(Reading { generation: self.generation, from: self.next, messages, bytes })
    }

    /// A reading found these numbers with their bytes, ascending. What of them is to be called counts as out from now on: no
    /// more than `most`, and none that `takes` does not name, which is passed over.
    pub(in crate::path) fn found(
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

    fn has_enough(&self) -> bool {
        self.out.len() > MOST_OUT / 2 || self.bytes > MOST_OUT_BYTES / 2
    }

    /// A message that was out stays in the park: it is to be brought again.
    pub(in crate::path) fn stays(&mut self, number: u64) {
        if let Some(bytes) = self.out.remove(&number) {
            self.bytes -= bytes;
            if number < self.next {
                self.next = number;
                self.generation += 1;
            }
        }
    }

    /// A message that was out has ended, and is in the park no more. Whether more may be read now than before, or nothing is out
    /// any more.
    pub(in crate::path) fn ended(&mut self, number: u64) -> bool {
        self.tries.remove(&number);
        let had_enough = self.has_enough();
        if let Some(bytes) = self.out.remove(&number) {
            self.bytes -= bytes;
            self.ended.insert(number);
        }
        self.out.is_empty() || (had_enough && !self.has_enough())
    }

    /// A message that is parked was called so often.
    pub(in crate::path) fn tried(&mut self, number: u64, tries: Tries) {
        if tries.begun() > 0 {
            self.tries.insert(number, tries);
        }
    }

    /// The calls that were made for a message that is parked.
    pub(in crate::path) fn tries(&self, number: u64) -> Tries {
        self.tries.get(&number).copied().unwrap_or_default()
    }

    /// Messages that are out.
    #[cfg(test)]
    pub(in crate::path) fn out(&self) -> usize {
        self.out.len()
    }
}
