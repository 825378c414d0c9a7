//! Messages that are kept on the disk until somebody, or something, has them handled again: dead letters, and what is parked for
//! handlers.
//!
//! Owns: how much each shelf holds and may hold, and which of its messages are in progress; no message is in memory. Fed by
//! `path/dead_letter`, by the outboxes, and by who parks; feeds the store, which has the rows. `record.rs` has what a row says,
//! `shelf.rs` counts, `again.rs` follows a message that is handled again. Who keeps something writes the row it gets here, with
//! whatever belongs to it, in one transaction; it decides nothing about when a message is handled again.

mod again;
mod record;
mod shelf;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

pub use self::again::{Again, AgainEnd, Busy, Claim};
pub use self::record::{Failure, KeptMessage, KeptPublish, Record, RecordError};
pub use self::shelf::{Capacity, Full, Reserved, Shelf};
use crate::message::Outgoing;
use crate::store::{Found, Place, Row, Store, StoreError, Table, Total, number};
use crate::telemetry::metrics::DeadLetterStoreMeters;

/// The shelf of dead letters.
pub const DEAD: &str = "dead";

/// What the shelf of dead letters may hold.
pub const DEAD_CAPACITY: Capacity = Capacity { messages: 10_000, bytes: 64 << 20 };

/// The group of marks that note, for each shelf, a number below which all may have been given.
const NOTES: &str = "kept";

/// Bytes that a note counts.
const NOTE_WEIGHT: u32 = size_of::<u64>() as u32;

/// All shelves. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct Kept(Arc<Inner>);

struct Inner {
    store: Store,
    dead: Arc<str>,
    meters: DeadLetterStoreMeters,
    shelves: Mutex<Shelves>,
}

/// Written by who puts something on a shelf or takes it off; held for a few memory operations.
struct Shelves {
    by_name: HashMap<Arc<str>, Shelf>,
    /// Messages that something is done with at this moment.
    busy: HashSet<(Arc<str>, u64)>,
}

/// What is to be written so that a message is kept. Its room is taken; it is to be written, or the process ends.
#[derive(Debug)]
#[must_use]
pub struct Placed {
    /// Its number on the shelf.
    #[cfg(test)]
    pub id: u64,
    /// The rows.
    pub rows: Vec<Row>,
}

/// A message that was read from a shelf.
#[derive(Debug)]
pub struct Entry {
    /// Its number on the shelf.
    pub id: u64,
    /// Bytes that it counts there.
    pub weight: u32,
    /// What it is; or why its bytes say nothing.
    pub record: Result<Record, RecordError>,
}

impl Kept {
    /// The shelves as the disk has them. Blocks on the disk.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn load(store: Store, meters: DeadLetterStoreMeters) -> Result<Kept, StoreError> {
        let notes: HashMap<Box<[u8]>, u64> = {
            let found = store.read(Table::Marks, NOTES, &[], (usize::MAX, usize::MAX))?;
            found.into_iter().filter_map(|Found { key, body, .. }| Some((key, number(&body)?))).collect()
        };
        let totals = store.totals(Table::Kept)?;
        let mut by_name = HashMap::new();
        let noted = notes.keys().filter_map(|key| std::str::from_utf8(key).ok().map(Arc::from));
        for name in totals.iter().map(|(name, _)| Arc::clone(name)).chain(noted).chain([DEAD.into()]) {
            let held = totals.iter().find(|(known, _)| *known == name).map_or_else(Total::default, |(_, total)| *total);
            let last = store.last(Table::Kept, &name)?.as_deref().and_then(number);
            let noted = notes.get(name.as_bytes()).copied();
            // Who else has a shelf tells what it may hold.
            by_name.insert(name, Shelf::new(DEAD_CAPACITY, held, last, noted));
        }
        let shelves = Mutex::new(Shelves { by_name, busy: HashSet::new() });
        let kept = Kept(Arc::new(Inner { store, dead: DEAD.into(), meters, shelves }));
        kept.0.tell(&kept.0.lock(), DEAD);
        Ok(kept)
    }

    /// The name of the shelf of dead letters.
    pub fn dead(&self) -> &Arc<str> {
        &self.0.dead
    }

    /// The store that has the rows.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// From now on a shelf may hold this; one that is new is empty. What is on it stays, also where it is more.
    pub fn limit(&self, shelf: &Arc<str>, capacity: Capacity) {
        self.0.lock().shelf(shelf).limit(capacity);
    }

    /// What a shelf holds, what is about to be written included, and what it may.
    pub fn held(&self, shelf: &str) -> (Total, Capacity) {
        let shelves = self.0.lock();
        shelves.by_name.get(shelf).map_or((Total::default(), DEAD_CAPACITY), |shelf| (shelf.held(), shelf.capacity()))
    }

    /// Takes room on a shelf for a record, and makes its rows.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn put(&self, shelf: &Arc<str>, record: &Record) -> Result<Placed, Full> {
        let body = record.encode();
        let weight = weight(&body);
        let mut shelves = self.0.lock();
        let Reserved { id, note } = shelves.shelf(shelf).reserve(weight)?;
        self.0.tell(&shelves, shelf);
        drop(shelves);
        let mut rows = vec![Row::Put { at: place(shelf, id), weight, body }];
        rows.extend(note.map(|note| {
            let at = Place { table: Table::Marks, group: NOTES.into(), key: shelf.as_bytes().into() };
            Row::Put { at, weight: NOTE_WEIGHT, body: note.to_be_bytes().to_vec() }
        }));
        Ok(Placed {
            #[cfg(test)]
            id,
            rows,
        })
    }

    /// Takes room on a shelf whose numbers somebody else gives, and makes the row; `beyond` the shelf's capacity too.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn put_numbered(&self, shelf: &Arc<str>, id: u64, record: &Record, beyond: bool) -> Result<Row, Full> {
        let body = record.encode();
        let weight = weight(&body);
        let mut shelves = self.0.lock();
        let held = shelves.shelf(shelf);
        if !beyond {
            held.has_room(weight)?;
        }
        held.take_room(weight);
        Ok(Row::Put { at: place(shelf, id), weight, body })
    }

    /// The names of all shelves that hold something.
    pub fn shelves(&self) -> Vec<Arc<str>> {
        let shelves = self.0.lock();
        let held = shelves.by_name.iter().filter(|(_, shelf)| shelf.held().rows > 0);
        held.map(|(name, _)| Arc::clone(name)).collect()
    }

    /// The number that the next message of a shelf gets.
    pub fn next(&self, shelf: &Arc<str>) -> u64 {
        self.0.lock().shelf(shelf).next()
    }

    /// What is to be written so that a publish is kept as a dead letter that its broker refuses, with these words, or without
    /// that it ends each connection over. `handler`: whose call made it. To be written together with the end of the publish.
    ///
    /// # Errors
    /// There is no room for it: the publish is lost, which [`Full`] explains.
    pub fn put_publish(
        &self,
        handler: Option<Arc<str>>,
        broker: &Arc<str>,
        message: &Outgoing,
        refusal: Option<&str>,
    ) -> Result<Placed, Full> {
        let failure = Failure::of_publish(broker, message, refusal, SystemTime::now());
        let publish = KeptPublish { handler, broker: Arc::clone(broker), message: message.clone() };
        self.put(self.dead(), &Record::Publish(publish, failure))
    }

    /// What is to be written so that a message is kept no more. Once that is synced, [`Self::removed`] gives its room back.
    pub fn removal(shelf: &Arc<str>, id: u64) -> Row {
        Row::Delete { at: place(shelf, id) }
    }

    /// A message of so many bytes is gone from a shelf.
    pub fn removed(&self, shelf: &Arc<str>, weight: u32) {
        let mut shelves = self.0.lock();
        shelves.shelf(shelf).give_back(weight);
        self.0.tell(&shelves, shelf);
    }

    /// The messages of a shelf behind this number, in order: at least one where there is one, and no more than so many and about
    /// so many bytes. Blocks on the disk.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn read(&self, shelf: &str, after: u64, most: (usize, usize)) -> Result<Vec<Entry>, StoreError> {
        let Some(from) = after.checked_add(1) else { return Ok(Vec::new()) };
        let found = self.0.store.read(Table::Kept, shelf, &from.to_be_bytes(), most)?;
        Ok(found.iter().filter_map(entry).collect())
    }

    /// As [`Self::read`], from the last message before this number backwards.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn read_back(&self, shelf: &str, before: u64, most: (usize, usize)) -> Result<Vec<Entry>, StoreError> {
        let found = self.0.store.read_back(Table::Kept, shelf, &before.to_be_bytes(), most)?;
        Ok(found.iter().filter_map(entry).collect())
    }

    /// The message of a shelf with this number. Blocks on the disk.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn get(&self, shelf: &str, id: u64) -> Result<Option<Entry>, StoreError> {
        let found = self.0.store.read(Table::Kept, shelf, &id.to_be_bytes(), (1, 0))?;
        Ok(found.first().and_then(entry).filter(|entry| entry.id == id))
    }
}

#[cfg(test)]
impl Kept {
    /// Nothing is kept. What will be is as long as the rest of this is.
    pub fn testing() -> (Kept, (crate::store::StoreWriter, tempfile::TempDir)) {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, writer) = Store::open(folder.path()).expect("opens");
        let metrics = crate::telemetry::metrics::Metrics::new().expect("well formed");
        (Kept::load(store, metrics.dead_letter_store()).expect("loads"), (writer, folder))
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Shelves> {
        // A panic under this lock leaves nothing half done: each step is one call of the core.
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the gauges what is on the shelf of dead letters, if that is the one.
    fn tell(&self, shelves: &Shelves, shelf: &str) {
        if shelf == DEAD
            && let Some(shelf) = shelves.by_name.get(shelf)
        {
            let Total { rows, weight } = shelf.held();
            self.meters.holds(rows, weight);
        }
    }
}

impl Shelves {
    fn shelf(&mut self, name: &Arc<str>) -> &mut Shelf {
        let empty = || Shelf::new(DEAD_CAPACITY, Total::default(), None, None);
        self.by_name.entry(Arc::clone(name)).or_insert_with(empty)
    }
}

fn place(shelf: &Arc<str>, id: u64) -> Place {
    Place::numbered(Table::Kept, Arc::clone(shelf), id)
}

fn entry(found: &Found) -> Option<Entry> {
    Some(Entry { id: number(&found.key)?, weight: found.weight, record: Record::decode(&found.body) })
}

/// What a body counts: what it takes on the disk. No packet comes near 4 GiB.
fn weight(body: &[u8]) -> u32 {
    u32::try_from(body.len()).unwrap_or(u32::MAX)
}
