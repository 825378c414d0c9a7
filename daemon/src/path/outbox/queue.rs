//! One broker's outbox: what is to be published there, in order, until the broker has it.
//!
//! Pure: no clock, no I/O, no lock. Fed by `admission.rs`; read by the broker's feeder. It does not decide who may
//! come in.

use std::collections::VecDeque;
use std::sync::Arc;

use super::admission::BatchId;
use crate::message::Outgoing;

/// An entry of one broker's outbox: ascending in the order of sending, never reused in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unsent,
    Sent,
    /// Delivered or refused, behind an entry that is neither yet.
    Gone,
}

struct Entry {
    message: Arc<Outgoing>,
    batch: BatchId,
    state: State,
}

/// The outbox of one broker.
#[derive(Default)]
pub struct Outbox {
    /// Without gaps: the entry at place `i` has the number `first + i`.
    entries: VecDeque<Entry>,
    first: u64,
    /// The number of the first entry that may be unsent: all before it are sent or gone.
    cursor: u64,
    messages: usize,
    bytes: usize,
}

impl Outbox {
    /// Messages that are not delivered yet.
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// Bytes of topics and payloads that are not delivered yet.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts a message at the end.
    pub fn push(&mut self, message: Arc<Outgoing>, batch: BatchId) -> EntryId {
        self.messages += 1;
        self.bytes += message.weight();
        self.entries.push_back(Entry { message, batch, state: State::Unsent });
        EntryId(self.first + self.entries.len() as u64 - 1)
    }

    /// Whether [`Self::take_next`] has something to give.
    pub fn has_unsent(&self) -> bool {
        self.unsent().is_some()
    }

    /// The next unsent entry, which is sent from now on.
    pub fn take_next(&mut self) -> Option<(EntryId, Arc<Outgoing>)> {
        let place = self.unsent()?;
        self.cursor = self.first + place as u64 + 1;
        let entry = &mut self.entries[place];
        entry.state = State::Sent;
        Some((EntryId(self.cursor - 1), Arc::clone(&entry.message)))
    }

    /// A sent entry was not sent after all: it is the next one again.
    pub fn put_back(&mut self, id: EntryId) {
        if let Some(entry) = self.entry(id).filter(|entry| entry.state == State::Sent) {
            entry.state = State::Unsent;
            self.cursor = self.cursor.min(id.0);
        }
    }

    /// An entry has reached its end. Its batch, unless it had reached its end before.
    pub fn remove(&mut self, id: EntryId) -> Option<BatchId> {
        let entry = self.entry(id).filter(|entry| entry.state != State::Gone)?;
        entry.state = State::Gone;
        let (batch, weight) = (entry.batch, entry.message.weight());
        self.messages -= 1;
        self.bytes -= weight;
        while self.entries.front().is_some_and(|entry| entry.state == State::Gone) {
            self.entries.pop_front();
            self.first += 1;
        }
        self.cursor = self.cursor.max(self.first);
        Some(batch)
    }

    /// The connection is gone: what was sent and has not reached its end is unsent again, in its old order.
    pub fn connection_lost(&mut self) {
        self.cursor = self.first;
        for entry in self.entries.iter_mut().filter(|entry| entry.state == State::Sent) {
            entry.state = State::Unsent;
        }
    }

    fn place(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }

    fn entry(&mut self, id: EntryId) -> Option<&mut Entry> {
        let place = self.place(id.0)?;
        self.entries.get_mut(place)
    }

    fn unsent(&self) -> Option<usize> {
        let from = self.place(self.cursor)?;
        (from..self.entries.len()).find(|place| self.entries[*place].state == State::Unsent)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::message::Qos;
    use crate::topic::TopicName;

    fn message(number: usize) -> Arc<Outgoing> {
        Arc::new(Outgoing {
            topic: TopicName::new("t").expect("valid"),
            payload: Bytes::from(number.to_string()),
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: None,
        })
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        Take,
        PutBackLast,
        Remove(prop::sample::Index),
        Lose,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Push),
            4 => Just(Step::Take),
            1 => Just(Step::PutBackLast),
            3 => any::<prop::sample::Index>().prop_map(Step::Remove),
            1 => Just(Step::Lose),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// The naive model: a list of (number, sent) in order.
        #[test]
        fn behaves_as_a_plain_list(steps in steps()) {
            let mut outbox = Outbox::default();
            let mut model: Vec<(EntryId, bool)> = Vec::new();
            let mut pushed = 0;
            for step in steps {
                match step {
                    Step::Push => {
                        model.push((outbox.push(message(pushed), BatchId(pushed as u64)), false));
                        pushed += 1;
                    }
                    Step::Take => {
                        let expected = model.iter_mut().find(|(_, sent)| !*sent);
                        let taken = outbox.take_next().map(|(id, _)| id);
                        prop_assert_eq!(taken, expected.as_ref().map(|(id, _)| *id));
                        if let Some((_, sent)) = expected { *sent = true; }
                    }
                    Step::PutBackLast => {
                        if let Some((id, sent)) = model.iter_mut().rev().find(|(_, sent)| *sent) {
                            outbox.put_back(*id);
                            *sent = false;
                        }
                    }
                    Step::Remove(index) => {
                        let sent: Vec<EntryId> = model.iter().filter(|(_, sent)| *sent).map(|(id, _)| *id).collect();
                        if !sent.is_empty() {
                            let id = sent[index.index(sent.len())];
                            model.retain(|(other, _)| *other != id);
                            prop_assert_eq!(outbox.remove(id), Some(BatchId(id.0)));
                            prop_assert_eq!(outbox.remove(id), None);
                        }
                    }
                    Step::Lose => {
                        outbox.connection_lost();
                        model.iter_mut().for_each(|(_, sent)| *sent = false);
                    }
                }
                prop_assert_eq!(outbox.messages(), model.len());
                prop_assert_eq!(outbox.has_unsent(), model.iter().any(|(_, sent)| !sent));
                prop_assert_eq!(outbox.bytes() == 0, model.is_empty());
            }
        }
    }
}
