//! What is kept of the messages received, within bounds.
//!
//! Pure: no clock, no I/O, no lock. Numbers every message, and keeps the newest.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::message::Message;

/// What may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages; zero keeps none.
    pub messages: usize,
    /// Bytes of topics, payloads and properties, as [`Message::weight`] counts them.
    pub bytes: usize,
}

/// A message that was received. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Counts all messages received, from 1 and without gaps; in what is kept there are gaps.
    pub sequence: u64,
    /// The message.
    pub message: Arc<Message>,
    weight: usize,
}

/// Entries that went for a new one: almost always one.
pub(super) type Gone = SmallVec<[Entry; 1]>;

/// The newest messages received.
pub(super) struct Ring {
    limits: Limits,
    /// In the order of their sequence.
    entries: VecDeque<Entry>,
    bytes: usize,
    /// The sequence of the newest message received, kept or not; 0 is none yet.
    newest: u64,
}

impl Ring {
    pub(super) fn new(limits: Limits) -> Ring {
        Ring { limits, entries: VecDeque::new(), bytes: 0, newest: 0 }
    }

    /// These limits hold from now on: what goes for them, oldest first.
    pub(super) fn limit(&mut self, limits: Limits) -> Vec<Entry> {
        self.limits = limits;
        let mut gone = Vec::new();
        while self.entries.len() > limits.messages || self.bytes > limits.bytes {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.weight;
            gone.push(oldest);
        }
        // A ring that was large gives its room back.
        self.entries.shrink_to_fit();
        gone
    }

    /// Takes in a message of so many bytes. What goes for it is put into `gone`. A message that is larger than everything
    /// that may be kept is numbered only, so that it does not drive out all others.
    pub(super) fn push(&mut self, message: Arc<Message>, weight: usize, gone: &mut Gone) -> u64 {
        self.newest += 1;
        if self.limits.messages == 0 || weight > self.limits.bytes {
            return self.newest;
        }
        while self.entries.len() == self.limits.messages || self.bytes + weight > self.limits.bytes {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.weight;
            gone.push(oldest);
        }
        self.bytes += weight;
        self.entries.push_back(Entry { sequence: self.newest, message, weight });
        self.newest
    }

    /// The sequence of the newest message received; 0 is none yet.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// Messages received that are not kept.
    pub(super) fn gone(&self) -> u64 {
        self.newest - self.entries.len() as u64
    }

    /// At most so many entries from before this sequence, the newest of them, oldest first.
    pub(super) fn before(&self, sequence: u64, most: usize) -> Vec<Entry> {
        let end = self.place(sequence);
        self.entries.range(end.saturating_sub(most)..end).cloned().collect()
    }

    /// Entries from this sequence on, oldest first: at most so many, and no more once they hold `bytes`.
    pub(super) fn from(&self, sequence: u64, most: usize, bytes: usize) -> VecDeque<Entry> {
        let mut taken = 0;
        let fits = |entry: &&Entry| {
            let fits = taken < bytes;
            taken += entry.weight;
            fits
        };
        self.entries.range(self.place(sequence)..).take(most).take_while(fits).cloned().collect()
    }

    /// Takes everything out. The numbers go on.
    pub(super) fn clear(&mut self) -> VecDeque<Entry> {
        self.bytes = 0;
        std::mem::take(&mut self.entries)
    }

    /// The place of the first entry with this sequence or a later one.
    fn place(&self, sequence: u64) -> usize {
        self.entries.partition_point(|entry| entry.sequence < sequence)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::received::testing::message;

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Clear,
        Limit(usize, usize),
        Before(u64, usize),
        From(u64, usize, usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            12 => (1usize..40).prop_map(Step::Push),
            1 => Just(Step::Clear),
            1 => (0usize..6, 0usize..100).prop_map(|(messages, bytes)| Step::Limit(messages, bytes)),
            3 => (0u64..60, 0usize..8).prop_map(|(sequence, most)| Step::Before(sequence, most)),
            3 => (0u64..60, 0usize..8, 0usize..80).prop_map(|(sequence, most, bytes)| Step::From(sequence, most, bytes)),
        ];
        prop::collection::vec(step, 0..80)
    }

    fn sequences<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<u64> {
        entries.into_iter().map(|entry| entry.sequence).collect()
    }

    proptest! {
        /// Against a list that is cut after each message: the same entries in the same order, within both limits, numbered
        /// without gaps; what is not kept is counted. Limits may change at any time.
        #[test]
        fn keeps_the_newest_within_its_limits(messages in 0usize..6, bytes in 0usize..100, steps in steps()) {
            let (mut messages, mut bytes) = (messages, bytes);
            let mut ring = Ring::new(Limits { messages, bytes });
            // (sequence, weight)
            let mut model: Vec<(u64, usize)> = Vec::new();
            let mut received = 0;
            for step in steps {
                match step {
                    Step::Push(weight) => {
                        received += 1;
                        let before: Vec<u64> = model.iter().map(|(sequence, _)| *sequence).collect();
                        if weight <= bytes {
                            model.push((received, weight));
                            while model.len() > messages || model.iter().map(|(_, weight)| weight).sum::<usize>() > bytes {
                                model.remove(0);
                            }
                        }
                        let kept: Vec<u64> = model.iter().map(|(sequence, _)| *sequence).collect();
                        let expected: Vec<u64> = before.into_iter().filter(|sequence| !kept.contains(sequence)).collect();
                        let mut gone = Gone::new();
                        let message = message("t", weight - 1);
                        prop_assert_eq!(ring.push(Arc::clone(&message), message.weight(), &mut gone), received);
                        prop_assert_eq!(sequences(&gone), expected);
                    }
                    Step::Clear => {
                        let expected: Vec<u64> = model.drain(..).map(|(sequence, _)| sequence).collect();
                        prop_assert_eq!(sequences(&ring.clear()), expected);
                    }
                    Step::Limit(fewer, less) => {
                        (messages, bytes) = (fewer, less);
                        let mut expected = Vec::new();
                        while model.len() > messages || model.iter().map(|(_, weight)| weight).sum::<usize>() > bytes {
                            expected.push(model.remove(0).0);
                        }
                        prop_assert_eq!(sequences(&ring.limit(Limits { messages, bytes })), expected);
                    }
                    Step::Before(sequence, most) => {
                        let earlier: Vec<u64> = model.iter().map(|(s, _)| *s).filter(|s| *s < sequence).collect();
                        let expected = &earlier[earlier.len().saturating_sub(most)..];
                        prop_assert_eq!(sequences(&ring.before(sequence, most)), expected);
                    }
                    Step::From(sequence, most, bytes) => {
                        let mut expected = Vec::new();
                        let mut taken = 0;
                        for (later, weight) in model.iter().filter(|(s, _)| *s >= sequence) {
                            if expected.len() == most || taken >= bytes {
                                break;
                            }
                            expected.push(*later);
                            taken += weight;
                        }
                        prop_assert_eq!(sequences(&ring.from(sequence, most, bytes)), expected);
                    }
                }
                prop_assert_eq!(ring.newest(), received);
                prop_assert_eq!(ring.gone(), received - model.len() as u64);
                prop_assert_eq!(sequences(&ring.entries), model.iter().map(|(s, _)| *s).collect::<Vec<_>>());
            }
        }
    }
}
