//! How much a shelf of kept messages may hold, how much it holds, and which number the next one gets.
//!
//! Pure: no clock, no lock, no I/O. Room is taken before a message is written and given back once it is gone, so that a shelf
//! never holds more than it may. Numbers ascend and are never given again, also in the next process: now and then a number is
//! noted on the disk below which all may have been given.

use crate::store::Total;

/// Numbers that may be given before another is noted.
const NOTED_AHEAD: u64 = 256;

/// What a shelf may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Messages.
    pub messages: u64,
    /// Bytes of their rows.
    pub bytes: u64,
}

/// A shelf: its capacity, and what of it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shelf {
    capacity: Capacity,
    held: Total,
    /// The number of the next message.
    next: u64,
    /// All numbers that were given are below this one, as the disk has it.
    noted: u64,
}

/// A place on a shelf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// The message's number.
    pub id: u64,
    /// To be noted on the disk together with the message, if it is to be.
    pub note: Option<u64>,
}

/// Why a shelf takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// It holds as many as it may.
    #[error("{0} messages are kept, which is the limit")]
    Messages(u64),
    /// The message would make it hold more bytes than it may.
    #[error("{held} bytes are kept and {weight} would come to that, where {limit} is the limit")]
    Bytes {
        /// Bytes that are kept.
        held: u64,
        /// Bytes of the message.
        weight: u64,
        /// Bytes that may be kept.
        limit: u64,
    },
}

impl Shelf {
    /// A shelf as the disk has it: what it holds, the number of the last message, and the number that was noted.
    pub fn new(capacity: Capacity, held: Total, last: Option<u64>, noted: Option<u64>) -> Shelf {
        let after_last = last.map_or(1, |last| last.saturating_add(1));
        Shelf { capacity, held, next: after_last.max(noted.unwrap_or(1)), noted: noted.unwrap_or(0) }
    }

    /// Takes room for a message of so many bytes, to be given back by [`Self::give_back`], and a number.
    ///
    /// # Errors
    /// There is none.
    pub fn reserve(&mut self, weight: u32) -> Result<Reserved, Full> {
        self.has_room(weight)?;
        self.take_room(weight);
        let id = self.next;
        self.next += 1;
        let note = (self.next > self.noted).then(|| self.next + NOTED_AHEAD);
        self.noted = note.unwrap_or(self.noted);
        Ok(Reserved { id, note })
    }

    /// Takes room for a message of so many bytes, whatever there is, to be given back by [`Self::give_back`].
    pub fn take_room(&mut self, weight: u32) {
        self.held.rows += 1;
        self.held.weight += u64::from(weight);
    }

    /// Whether there is room for a message of so many bytes.
    ///
    /// # Errors
    /// There is none.
    pub fn has_room(&self, weight: u32) -> Result<(), Full> {
        let Capacity { messages, bytes } = self.capacity;
        if self.held.rows >= messages {
            return Err(Full::Messages(self.held.rows));
        }
        let (held, weight) = (self.held.weight, u64::from(weight));
        if held.saturating_add(weight) > bytes {
            return Err(Full::Bytes { held, weight, limit: bytes });
        }
        Ok(())
    }

    /// A message of so many bytes is gone, or was not written after all.
    pub fn give_back(&mut self, weight: u32) {
        debug_assert!(self.held.rows > 0 && self.held.weight >= u64::from(weight), "what is given back was taken");
        self.held.rows = self.held.rows.saturating_sub(1);
        self.held.weight = self.held.weight.saturating_sub(u64::from(weight));
    }

    /// A message is written anew, with another number of bytes: whatever room there is, since it is there already.
    pub fn replaced(&mut self, before: u32, after: u32) {
        self.held.weight = self.held.weight.saturating_sub(u64::from(before)).saturating_add(u64::from(after));
    }

    /// The number that the next message gets.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// What is taken.
    pub fn held(&self) -> Total {
        self.held
    }

    /// What may be.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// It may hold this from now on; what it holds stays, also where it is more.
    pub fn limit(&mut self, capacity: Capacity) {
        self.capacity = capacity;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const SMALL: Capacity = Capacity { messages: 4, bytes: 100 };

    fn empty() -> Shelf {
        Shelf::new(SMALL, Total::default(), None, None)
    }

    #[test]
    fn a_shelf_takes_what_its_capacity_has_room_for() {
        let mut shelf = empty();
        assert_eq!(shelf.reserve(60).expect("has room").id, 1);
        assert_eq!(shelf.reserve(41), Err(Full::Bytes { held: 60, weight: 41, limit: 100 }));
        assert_eq!(shelf.reserve(40).expect("is just enough").id, 2, "what is refused takes no number");
        shelf.give_back(40);
        for id in 3..6 {
            assert_eq!(shelf.reserve(0).expect("has room").id, id);
        }
        assert_eq!(shelf.reserve(0), Err(Full::Messages(4)));
        assert_eq!(Full::Messages(4).to_string(), "4 messages are kept, which is the limit");
    }

    #[test]
    fn what_is_more_than_a_new_capacity_stays() {
        let mut shelf = empty();
        shelf.reserve(60).expect("has room");
        shelf.limit(Capacity { messages: 1, bytes: 10 });
        assert_eq!(shelf.held(), Total { rows: 1, weight: 60 });
        assert_eq!(shelf.reserve(1), Err(Full::Messages(1)));
        shelf.give_back(60);
        assert_eq!(shelf.reserve(10).expect("has room").id, 2);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Put(u32),
        Remove(prop::sample::Index),
        Replace(prop::sample::Index, u32),
        /// The process ends and another one loads what is on the disk.
        Restart,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => (0_u32..60).prop_map(Event::Put),
            3 => any::<prop::sample::Index>().prop_map(Event::Remove),
            1 => (any::<prop::sample::Index>(), 0_u32..60).prop_map(|(which, weight)| Event::Replace(which, weight)),
            1 => Just(Event::Restart),
        ]
    }

    proptest! {
        /// Beside a shelf runs the disk as it would be.
        #[test]
        fn numbers_ascend_over_restarts_and_totals_are_those_of_the_disk(
            events in proptest::collection::vec(event(), 0..80)
        ) {
            let mut shelf = empty();
            let (mut disk, mut note): (BTreeMap<u64, u32>, Option<u64>) = (BTreeMap::new(), None);
            let mut newest = 0;
            for event in events {
                match event {
                    Event::Put(weight) => {
                        let fits = disk.len() < 4 && disk.values().sum::<u32>() + weight <= 100;
                        let reserved = shelf.reserve(weight);
                        prop_assert_eq!(reserved.is_ok(), fits);
                        if let Ok(Reserved { id, note: noted }) = reserved {
                            prop_assert!(id > newest, "{id} was given before {newest}");
                            newest = id;
                            disk.insert(id, weight);
                            note = noted.or(note);
                        }
                    }
                    Event::Remove(which) if !disk.is_empty() => {
                        let id = *which.get(&disk.keys().copied().collect::<Vec<_>>());
                        shelf.give_back(disk.remove(&id).expect("is there"));
                    }
                    Event::Replace(which, weight) if !disk.is_empty() => {
                        let id = *which.get(&disk.keys().copied().collect::<Vec<_>>());
                        shelf.replaced(disk.insert(id, weight).expect("is there"), weight);
                    }
                    Event::Remove(_) | Event::Replace(..) => {}
                    Event::Restart => {
                        let held = Total { rows: disk.len() as u64, weight: disk.values().map(|w| u64::from(*w)).sum() };
                        shelf = Shelf::new(SMALL, held, disk.keys().last().copied(), note);
                    }
                }
                let weight: u32 = disk.values().sum();
                prop_assert_eq!(shelf.held(), Total { rows: disk.len() as u64, weight: u64::from(weight) });
            }
        }
    }
}
