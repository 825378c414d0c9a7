//! One broker's outbox: what is to be published there, in order, until the broker has it.
//!
//! Pure: no clock, no I/O, no lock. Fed by `admission.rs`; read by the broker's feeder. Of an outbox on disk its *head* is in
//! memory, which is bounded, and its *tail* (`tail.rs`) on the disk alone: who owns the store brings more of it when asked. It
//! does not decide who may come in.

mod stored;
mod tail;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

pub use self::tail::Amount;
use self::tail::Tail;
use super::admission::BatchId;
use super::suspicion::{Suspicion, Verdict};
use crate::message::{Outgoing, Qos};

/// Messages of an outbox on disk that are in memory.
const HEAD_MESSAGES: usize = if cfg!(test) { 4 } else { 1024 };

/// Bytes of them, about: one message more where that is larger.
const HEAD_BYTES: usize = 4 << 20;

/// An entry of one broker's outbox: ascending in the order of sending, never reused. On the disk it is the entry's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(pub(super) u64);

/// Whether an entry is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Memory,
    /// It is being written.
    Writing,
    Disk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unsent,
    Sent,
}

struct Entry {
    id: EntryId,
    message: Arc<Outgoing>,
    batch: BatchId,
    /// Its batch is told of its end.
    owned: bool,
    place: Place,
    /// The handler that published it, where it was written to the disk.
    handler: Option<Arc<str>>,
    /// When it came in. None where nothing ages.
    since: Option<Instant>,
    state: State,
    /// It was sent on a connection that is gone: the broker may have it.
    tried: bool,
}

/// What is to be in an outbox on disk, or is.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Which.
    pub id: EntryId,
    /// What it holds.
    pub message: Arc<Outgoing>,
    /// The handler that published it; none of a command.
    pub handler: Option<Arc<str>>,
    /// When it came in.
    pub since: Instant,
}

/// What an entry was that is gone.
pub struct Removed {
    /// Which.
    pub id: EntryId,
    /// Its batch, where that is told.
    pub batch: Option<BatchId>,
    /// It is on the disk.
    pub on_disk: bool,
    /// What it held, unless it was on the disk alone.
    pub message: Option<Arc<Outgoing>>,
    /// The handler that published it, where it was written to the disk.
    pub handler: Option<Arc<str>>,
}

/// What is to be read of an outbox' tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// From this number on,
    pub from: u64,
    /// below this one,
    pub end: u64,
    /// and no more than this, but for the last message.
    pub most: Amount,
    /// Of which generation of the outbox.
    generation: u64,
}

/// How an entry reached its end. The order is that of severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The broker has it.
    Delivered,
    /// It was too old, and not on its way.
    Expired,
    /// It made way for a newer one.
    Displaced,
    /// Its broker was removed.
    Purged,
    /// The broker will never take it.
    Refused,
    /// The broker ended one connection after the other over it.
    Poisoned,
}

/// What is suspected at the loss of a connection.
#[derive(Debug)]
pub enum Suspect {
    /// This entry, or one of those that were on their way with it: entries are sent one at a time until they are through.
    OnTrial(Arc<Outgoing>),
    /// This entry surely. It has not reached its end yet.
    Guilty {
        /// Which.
        entry: EntryId,
        /// What it holds.
        message: Arc<Outgoing>,
        /// Lost connections that it was sent on.
        losses: u32,
    },
}

/// The outbox of one broker.
#[derive(Default)]
pub struct Outbox {
    /// In the order of their numbers. What is on its way stands near the front: there entries end, and taking one out moves
    /// few others.
    entries: VecDeque<Entry>,
    /// The number of the next entry.
    next: u64,
    /// The place of the first entry that may be unsent: all before it are sent.
    cursor: usize,
    /// Bytes of the entries.
    bytes: usize,
    /// Entries that are on the disk, or are being written.
    stored: Amount,
    /// What is being written and will be in.
    reserved: Amount,
    /// What is on the disk alone.
    tail: Tail,
    /// The newest batch of which something was to be written.
    newest_stored: Option<BatchId>,
    /// Part of the tail is being read.
    loading: bool,
    /// Grows whenever what is being read is out of date.
    generation: u64,
    suspicion: Suspicion<EntryId>,
    /// How often in a row the broker did not take an entry for now.
    postponed: u32,
}

impl Outbox {
    /// Messages that are not delivered yet, those included that are being written.
    pub fn messages(&self) -> usize {
        self.entries.len() + self.reserved.messages + self.tail.amount.messages
    }

    /// Bytes of their topics, payloads and properties.
    pub fn bytes(&self) -> usize {
        self.bytes + self.reserved.bytes + self.tail.amount.bytes
    }

    /// Puts a message into memory, at the end; its age counts from `since`.
    pub fn push(&mut self, message: Arc<Outgoing>, batch: BatchId, since: Option<Instant>) -> EntryId {
        let id = self.number();
        self.bytes += message.weight();
        let (state, place) = (State::Unsent, Place::Memory);
        let entry = Entry { id, message, batch, owned: true, place, handler: None, since, state, tried: false };
        self.entries.push_back(entry);
        id
    }

    /// The number of the next entry, which is in use from now on.
    pub fn number(&mut self) -> EntryId {
        let id = EntryId(self.next);
        self.next += 1;
        id
    }

    /// From now on entries age, also those that are in memory already. How old one on the disk is, is known.
    pub fn begin_aging(&mut self, now: Instant) {
        let in_memory = self.entries.iter_mut().filter(|entry| entry.place != Place::Disk);
        in_memory.for_each(|entry| entry.since = Some(now));
    }

    /// The oldest entry that is not on its way, and when it came in, where entries age.
    pub fn oldest_unsent(&self) -> Option<(EntryId, Option<Instant>)> {
        self.unsent_entries().next().map(|entry| (entry.id, entry.since))
    }

    /// How many of its oldest unsent entries have to go until no more than so much is left; none if that is not enough.
    pub fn displaced_to(&self, messages: usize, bytes: usize) -> Option<usize> {
        let mut left = (self.messages(), self.bytes());
        let fits = |left: (usize, usize)| left.0 <= messages && left.1 <= bytes;
        if fits(left) {
            return Some(0);
        }
        let mut count = 0;
        self.unsent_entries().find_map(|entry| {
            left = (left.0 - 1, left.1 - entry.message.weight());
            count += 1;
            fits(left).then_some(count)
        })
    }

    /// Whether an entry was sent on a connection that is gone: the broker may have it.
    pub fn is_tried(&self, id: EntryId) -> bool {
        self.entry(id).is_some_and(|entry| entry.tried)
    }

    /// Whether [`Self::take_next`] has something to give.
    pub fn has_unsent(&self) -> bool {
        self.unsent().is_some()
    }

    /// The next unsent entry, which is sent from now on.
    pub fn take_next(&mut self) -> Option<(EntryId, Arc<Outgoing>)> {
        let place = self.unsent()?;
        self.cursor = place + 1;
        let entry = &mut self.entries[place];
        entry.state = State::Sent;
        Some((entry.id, Arc::clone(&entry.message)))
    }

    /// A sent entry was not sent after all: it is the next one again.
    pub fn put_back(&mut self, id: EntryId) {
        let Some(place) = self.place(id) else { return };
        if self.entries[place].state == State::Sent {
            self.entries[place].state = State::Unsent;
            self.cursor = self.cursor.min(place);
        }
    }

    /// The broker does not take a sent entry for now: it is the next one again, and until the broker acknowledges one they
    /// are sent one at a time, so that none overtakes it. How often in a row that happened, this time included.
    pub fn postpone(&mut self, id: EntryId) -> u32 {
        self.put_back(id);
        self.postponed = self.postponed.saturating_add(1);
        self.postponed
    }

    /// An entry has reached its end. What it was, unless it had reached its end before.
    pub fn remove(&mut self, id: EntryId, end: End) -> Option<Removed> {
        let place = self.place(id)?;
        let entry = self.take_out(place)?;
        let acknowledged = end == End::Delivered && entry.message.qos != Qos::AtMostOnce;
        // What was on its way behind a postponed one says nothing about that one.
        if acknowledged && place == 0 {
            self.postponed = 0;
        }
        self.suspicion.ended(acknowledged, self.entries.front().map(|entry| entry.id));
        Some(entry.removed())
    }

    fn take_out(&mut self, place: usize) -> Option<Entry> {
        let entry = self.entries.remove(place)?;
        if place < self.cursor {
            self.cursor -= 1;
        }
        self.bytes -= entry.message.weight();
        if entry.place != Place::Memory {
            self.stored.remove(entry.message.weight());
        }
        Some(entry)
    }

    /// The connection is gone: what was sent and has not reached its end is unsent again, in its old order. `blamed` is the
    /// oldest unacknowledged entry where the broker may have ended the connection over what it was sent.
    pub fn connection_lost(&mut self, blamed: Option<EntryId>) -> Option<Suspect> {
        let newest = self.entries.iter().rfind(|entry| entry.state == State::Sent).map(|entry| entry.id);
        self.cursor = 0;
        self.postponed = 0;
        for entry in self.entries.iter_mut().filter(|entry| entry.state == State::Sent) {
            (entry.state, entry.tried) = (State::Unsent, true);
        }
        let entry = blamed?;
        let message = Arc::clone(self.message(entry)?);
        match self.suspicion.lost(entry, newest?) {
            Verdict::None => None,
            Verdict::Trial => Some(Suspect::OnTrial(message)),
            Verdict::GivenUp(losses) => Some(Suspect::Guilty { entry, message, losses }),
        }
    }

    /// The batch of an entry that has not reached its end, where that is told.
    pub fn batch(&self, id: EntryId) -> Option<BatchId> {
        self.entry(id).filter(|entry| entry.owned).map(|entry| entry.batch)
    }

    /// The batch of the newest entry that has not reached its end. Of what is or was on the disk alone, it may be a newer one.
    pub fn newest(&self) -> Option<BatchId> {
        let beyond = self.reserved.messages > 0 || !self.tail.is_empty();
        if beyond { self.newest_stored } else { self.entries.back().map(|entry| entry.batch) }
    }

    /// Takes an entry of this batch out, unless the broker has it or may have it. What it was.
    pub fn take_back(&mut self, batch: BatchId) -> Option<Removed> {
        if let Some(id) = self.tail.take_back(batch) {
            return Some(Removed::of_tail((id, batch)));
        }
        let unsent =
            |entry: &&Entry| entry.owned && entry.batch == batch && entry.state == State::Unsent && !entry.tried;
        let id = self.entries.iter().find(unsent).map(|entry| entry.id)?;
        self.remove(id, End::Purged)
    }

    /// Takes everything out that is not on the disk, or that somebody waits for; the rest is the tail. What was learned of the
    /// broker is forgotten; numbers are not used again.
    pub fn purge(&mut self) -> Vec<Removed> {
        let mut purged = Vec::new();
        let mut tail = std::mem::take(&mut self.tail);
        let followed = tail.drop_all_followed();
        while let Some(entry) = self.entries.pop_back() {
            if entry.place == Place::Disk && !entry.owned {
                // What stood between may still be on the disk, since rows are deleted a little later.
                tail.push_front_over_gone(entry.id, entry.message.weight());
            } else {
                purged.push(entry.removed());
            }
        }
        purged.reverse();
        purged.extend(followed.into_iter().map(Removed::of_tail));
        let old = std::mem::take(self);
        *self = Outbox {
            next: old.next,
            tail,
            reserved: old.reserved,
            newest_stored: old.newest_stored,
            generation: old.generation + 1,
            ..Outbox::default()
        };
        purged
    }

    /// What an entry holds that has not reached its end.
    pub fn message(&self, id: EntryId) -> Option<&Arc<Outgoing>> {
        self.entry(id).map(|entry| &entry.message)
    }

    /// Whether entries are sent one at a time to find out over which one the broker ends its connections.
    pub fn is_on_trial(&self) -> bool {
        self.suspicion.is_on_trial()
    }

    fn place(&self, id: EntryId) -> Option<usize> {
        // Entries mostly end in their order.
        if self.entries.front()?.id == id {
            return Some(0);
        }
        self.entries.binary_search_by_key(&id, |entry| entry.id).ok()
    }

    fn entry(&self, id: EntryId) -> Option<&Entry> {
        self.place(id).map(|place| &self.entries[place])
    }

    fn unsent(&self) -> Option<usize> {
        let on_its_way = self.entries.front().is_some_and(|entry| entry.state == State::Sent);
        if on_its_way && (self.is_on_trial() || self.postponed > 0) {
            return None;
        }
        (self.cursor..self.entries.len()).find(|place| self.entries[*place].state == State::Unsent)
    }

    fn unsent_entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.range(self.cursor..).filter(|entry| entry.state == State::Unsent)
    }
}

impl Removed {
    /// Of a message on the disk alone whose batch is told.
    fn of_tail((id, batch): (EntryId, BatchId)) -> Removed {
        Removed { id, batch: Some(batch), on_disk: true, message: None, handler: None }
    }
}

impl Entry {
    fn removed(self) -> Removed {
        let Entry { id, message, batch, owned, place, handler, .. } = self;
        Removed { id, batch: owned.then_some(batch), on_disk: place == Place::Disk, message: Some(message), handler }
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
            hops: None,
        })
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        Take,
        PutBackLast,
        Remove(prop::sample::Index),
        TakeBack(prop::sample::Index),
        Lose,
        Purge,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Push),
            4 => Just(Step::Take),
            1 => Just(Step::PutBackLast),
            3 => any::<prop::sample::Index>().prop_map(Step::Remove),
            1 => any::<prop::sample::Index>().prop_map(Step::TakeBack),
            1 => Just(Step::Lose),
        ];
        let step = prop_oneof![60 => step, 1 => Just(Step::Purge)];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// The naive model: a list of (number, sent) in order, and those that were sent on a lost connection.
        #[test]
        fn behaves_as_a_plain_list(steps in steps()) {
            let mut outbox = Outbox::default();
            let mut model: Vec<(EntryId, bool)> = Vec::new();
            let mut tried: Vec<EntryId> = Vec::new();
            let mut pushed = 0;
            for step in steps {
                match step {
                    Step::Push => {
                        model.push((outbox.push(message(pushed), BatchId(pushed as u64), None), false));
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
                            let batch = outbox.remove(id, End::Delivered).and_then(|removed| removed.batch);
                            prop_assert_eq!(batch, Some(BatchId(id.0)));
                            prop_assert!(outbox.remove(id, End::Delivered).is_none());
                        }
                    }
                    Step::TakeBack(index) => {
                        if !model.is_empty() {
                            let (id, sent) = model[index.index(model.len())];
                            let takes = !sent && !tried.contains(&id);
                            prop_assert_eq!(outbox.take_back(BatchId(id.0)).is_some(), takes);
                            model.retain(|(other, _)| !takes || *other != id);
                            prop_assert!(outbox.take_back(BatchId(id.0)).is_none());
                        }
                    }
                    Step::Lose => {
                        prop_assert!(outbox.connection_lost(None).is_none());
                        tried.extend(model.iter().filter(|(_, sent)| *sent).map(|(id, _)| *id));
                        model.iter_mut().for_each(|(_, sent)| *sent = false);
                    }
                    Step::Purge => {
                        let expected: Vec<BatchId> = model.drain(..).map(|(id, _)| BatchId(id.0)).collect();
                        let purged = outbox.purge();
                        let batches: Vec<BatchId> = purged.iter().filter_map(|removed| removed.batch).collect();
                        prop_assert_eq!(batches, expected);
                    }
                }
                prop_assert_eq!(outbox.messages(), model.len());
                prop_assert_eq!(outbox.has_unsent(), model.iter().any(|(_, sent)| !sent));
                prop_assert_eq!(outbox.bytes() == 0, model.is_empty());
            }
        }
    }

    #[test]
    fn what_a_broker_had_before_its_removal_does_not_come_again_with_what_it_had_not() {
        let mut outbox = Outbox::default();
        let stored: Vec<Stored> = (0..3)
            .map(|number| {
                let (id, message) = (outbox.number(), message(number));
                Stored { id, message, handler: None, since: Instant::now() }
            })
            .collect();
        stored.iter().for_each(|stored| outbox.push_stored(stored.clone(), BatchId(0), false, true));
        std::iter::from_fn(|| outbox.take_next()).for_each(drop);
        outbox.remove(stored[1].id, End::Delivered);
        assert!(outbox.purge().is_empty(), "what is on the disk stays there");
        assert_eq!((outbox.messages(), outbox.on_disk().messages), (2, 2));
        // Its row is deleted a little later: it is still read.
        let load = outbox.begin_load();
        assert_eq!(outbox.loaded(load, stored.clone(), load.end), Amount::default());
        let sent: Vec<EntryId> = std::iter::from_fn(|| outbox.take_next().map(|(id, _)| id)).collect();
        assert_eq!(sent, [stored[0].id, stored[2].id]);
        assert_eq!(outbox.messages(), 2);
    }

    #[test]
    fn a_guilty_entry_is_tried_alone_and_what_follows_it_goes_on() {
        let mut outbox = Outbox::default();
        let ids: Vec<EntryId> =
            (0..3).map(|number| outbox.push(message(number), BatchId(number as u64), None)).collect();
        let send_all = |outbox: &mut Outbox| std::iter::from_fn(|| outbox.take_next().map(|(id, _)| id)).count();
        for loss in 1..=3 {
            assert_eq!(send_all(&mut outbox), 3);
            assert_eq!(outbox.connection_lost(Some(ids[0])).is_some(), loss == 3);
        }
        assert!(outbox.is_on_trial());
        assert_eq!(send_all(&mut outbox), 1, "alone");
        assert!(!outbox.has_unsent());
        assert!(outbox.connection_lost(Some(ids[0])).is_none());
        assert_eq!(send_all(&mut outbox), 1);
        let suspect = outbox.connection_lost(Some(ids[0]));
        assert!(matches!(suspect, Some(Suspect::Guilty { entry, losses: 5, .. }) if entry == ids[0]), "{suspect:?}");
        outbox.remove(ids[0], End::Poisoned);
        for id in &ids[1..] {
            assert_eq!(outbox.take_next().map(|(id, _)| id), Some(*id), "alone");
            assert!(!outbox.has_unsent());
            outbox.remove(*id, End::Delivered);
        }
        assert!(!outbox.is_on_trial());
    }

    #[test]
    fn an_entry_that_reached_its_end_is_not_blamed() {
        let mut outbox = Outbox::default();
        let id = outbox.push(message(0), BatchId(0), None);
        outbox.push(message(1), BatchId(1), None);
        outbox.take_next();
        outbox.remove(id, End::Delivered);
        for _ in 0..9 {
            assert!(outbox.connection_lost(Some(id)).is_none());
        }
    }

    #[test]
    fn a_postponed_entry_comes_again_before_those_behind_it_alone() {
        let mut outbox = Outbox::default();
        let ids: Vec<EntryId> =
            (0..3).map(|number| outbox.push(message(number), BatchId(number as u64), None)).collect();
        let take = |outbox: &mut Outbox| outbox.take_next().map(|(id, _)| id);
        assert_eq!((take(&mut outbox), take(&mut outbox)), (Some(ids[0]), Some(ids[1])));
        assert_eq!((outbox.postpone(ids[0]), outbox.postpone(ids[1])), (1, 2));
        assert_eq!((take(&mut outbox), take(&mut outbox)), (Some(ids[0]), None));
        assert_eq!(outbox.postpone(ids[0]), 3);
        assert_eq!((take(&mut outbox), take(&mut outbox)), (Some(ids[0]), None));
        outbox.remove(ids[0], End::Delivered);
        assert_eq!((take(&mut outbox), take(&mut outbox)), (Some(ids[1]), Some(ids[2])));
        assert_eq!(outbox.postpone(ids[2]), 1);
    }
}
