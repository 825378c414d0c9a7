//! What is parked for handlers that are paused or quarantined: on the disk, until they get it.
//!
//! Owns: which handlers are paused, a park for each handler by its name, and what of it is out. A park outlives its handler: where
//! that is replaced, the other goes on with it; where it is removed, the park stays on the disk until such a handler is there
//! again. Fed by the handlers' queues, which decide what is parked and when it is brought back (`path/dispatch`); feeds the shelves
//! of `path/kept`. `replay.rs` has what is brought next. It calls nothing and acknowledges nothing by itself.

pub mod replay;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::replay::{Brought, Reading, Replay};
use crate::brokers::BrokerNames;
use crate::message::BrokerId;
use crate::path::dispatch::{Job, ParallelLimit, Tries};
use crate::path::kept::{AgainEnd, Capacity, Entry, Full, Kept, KeptMessage, Record};
use crate::path::receipt::{Outcome, Part, Progress, Receipt};
use crate::store::{Place, Row, StoreError, Table, Total};
use crate::telemetry::occasional::Occasional;

/// What may be parked for one handler.
pub const CAPACITY: Capacity = Capacity { messages: 100_000, bytes: 64 << 20 };

/// Messages that are on their way to the disk at the same time, for one handler.
const MOST_WRITING: usize = 4096;

/// Their bytes.
const MOST_WRITING_BYTES: usize = 8 << 20;

/// What stands before a handler's name in that of its shelf.
const SHELF: &str = "park/";

/// The group of marks that tell which handlers are paused.
const PAUSED: &str = "paused";

/// How often a full park and what cannot be read of it are said.
const SAID: Duration = Duration::from_secs(10);

/// All parks.
pub struct Parks {
    shared: Arc<Shared>,
    /// By their handlers' names. One that was made stays: what is out of it may end later than its handler.
    parks: Mutex<HashMap<Arc<str>, Arc<Park>>>,
    /// Handlers that are paused, as the disk had it at the start.
    paused: HashSet<Box<[u8]>>,
}

/// What all parks share.
struct Shared {
    kept: Kept,
    names: BrokerNames,
    progress: Arc<Progress>,
    /// The parallel limits of brokers.
    limits: Mutex<HashMap<BrokerId, Arc<ParallelLimit>>>,
    /// Brokers that were removed since this process knows them.
    removed: Mutex<HashSet<BrokerId>>,
    /// Cancelled when a stop begins.
    stopping: CancellationToken,
}

impl Parks {
    /// The parks of a store. Blocks on the disk.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn load(
        kept: Kept,
        names: BrokerNames,
        progress: Arc<Progress>,
        stopping: CancellationToken,
    ) -> Result<Parks, StoreError> {
        let marks = kept.store().read(Table::Marks, PAUSED, &[], (usize::MAX, usize::MAX))?;
        let paused = marks.into_iter().map(|mark| mark.key).collect();
        let shared = Shared { kept, names, progress, limits: Mutex::default(), removed: Mutex::default(), stopping };
        Ok(Parks { shared: Arc::new(shared), parks: Mutex::default(), paused })
    }

    /// The park of a handler.
    pub fn of(&self, handler: &Arc<str>) -> Arc<Park> {
        let mut parks = self.parks.lock().unwrap_or_else(PoisonError::into_inner);
        let park = parks.entry(Arc::clone(handler)).or_insert_with(|| {
            let paused = self.paused.contains(handler.as_bytes());
            Arc::new(Park::new(Arc::clone(&self.shared), Arc::clone(handler), paused))
        });
        Arc::clone(park)
    }

    /// The parallel limit of a broker: one for as long as the process lives, also for its messages that come back before it is
    /// there.
    pub fn limit(&self, broker: BrokerId) -> Arc<ParallelLimit> {
        self.shared.limit(broker)
    }

    /// A broker is configured from now on, or not: what came from one that is not stays parked.
    pub fn broker_is_there(&self, broker: BrokerId, there: bool) {
        let mut removed = self.shared.removed.lock().unwrap_or_else(PoisonError::into_inner);
        if there {
            removed.remove(&broker)
        } else {
            removed.insert(broker)
        };
    }

    /// What is parked, by the names of the handlers: also of those that are not configured any more.
    pub fn held(&self) -> Vec<(Arc<str>, Total)> {
        let shelves = self.shared.kept.shelves().into_iter();
        let held = shelves.filter_map(|shelf| {
            let handler = shelf.strip_prefix(SHELF)?;
            Some((Arc::from(handler), self.shared.kept.held(&shelf).0))
        });
        held.collect()
    }
}

impl Shared {
    /// The number of a broker that is configured.
    fn broker(&self, name: &str) -> Option<BrokerId> {
        let removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        self.names.find(name).filter(|broker| !removed.contains(broker))
    }

    fn limit(&self, broker: BrokerId) -> Arc<ParallelLimit> {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(limits.entry(broker).or_insert_with(|| ParallelLimit::new(None)))
    }
}

/// What is parked for one handler.
pub struct Park {
    shared: Arc<Shared>,
    handler: Arc<str>,
    shelf: Arc<str>,
    /// The number that the next message gets.
    next: AtomicU64,
    paused: AtomicBool,
    inner: Mutex<Inner>,
    /// Told when there may be something to write or to read.
    wake: Notify,
    /// Brokers of messages that were passed over, since they are not configured. Held for a memory operation.
    strangers: Mutex<HashSet<Arc<str>>>,
    full_said: Occasional,
    unread_said: Occasional,
}

/// Held for a few memory operations, and the last lock that anybody takes.
struct Inner {
    replay: Replay,
    /// What is on its way to the disk: messages, and bytes.
    writing: (usize, usize),
    /// Messages among them that were called before.
    writing_called: usize,
    /// There was no room for the last message that was to be parked.
    full: bool,
}

/// A message on its way to the disk.
struct Writing {
    part: Part,
    weight: usize,
    called: bool,
}

/// Messages that are to be parked together.
#[derive(Default)]
pub struct Batch {
    rows: Vec<Row>,
    messages: Vec<Writing>,
}

impl Batch {
    /// Whether it is large enough to be written.
    pub fn is_large(&self) -> bool {
        self.messages.len() >= 64 || self.messages.iter().map(|message| message.weight).sum::<usize>() >= 1 << 18
    }

    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

/// What came of a message that was read.
pub enum Revived {
    /// It is to be called.
    Job(Job),
    /// Something is done with it at this moment.
    Busy,
    /// It cannot be called, and stays.
    Stays,
}

impl Park {
    fn new(shared: Arc<Shared>, handler: Arc<str>, paused: bool) -> Park {
        let shelf: Arc<str> = format!("{SHELF}{handler}").into();
        shared.kept.limit(&shelf, CAPACITY);
        let next = shared.kept.next(&shelf);
        Park {
            shared,
            handler,
            shelf,
            next: AtomicU64::new(next),
            paused: AtomicBool::new(paused),
            inner: Mutex::new(Inner { replay: Replay::default(), writing: (0, 0), writing_called: 0, full: false }),
            wake: Notify::new(),
            strangers: Mutex::default(),
            full_said: Occasional::every(SAID),
            unread_said: Occasional::every(SAID),
        }
    }

    /// The handler's name.
    pub fn handler(&self) -> &Arc<str> {
        &self.handler
    }

    /// Whether the handler is paused by command.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// The handler is paused from now on, or not. Whether that is another state than before.
    pub fn set_paused(&self, paused: bool) -> bool {
        self.paused.swap(paused, Ordering::SeqCst) != paused
    }

    /// Has the disk remember whether the handler is paused; `done` once that is synced.
    pub fn remember(&self, done: impl FnOnce() + Send + 'static) {
        let at = Place { table: Table::Marks, group: PAUSED.into(), key: self.handler.as_bytes().into() };
        // Of two commands at a time, the later one's mark is the one that stays.
        let _in_order = self.inner();
        let mark = if self.is_paused() { Row::Put { at, weight: 0, body: Vec::new() } } else { Row::Delete { at } };
        self.shared.kept.store().submit(vec![mark], done);
    }

    /// What is parked, what is on its way to the disk included.
    pub fn held(&self) -> Total {
        self.shared.kept.held(&self.shelf).0
    }

    /// Whether there was no room for the last message that was to be parked.
    pub fn is_full(&self) -> bool {
        self.inner().full
    }

    /// A number, behind all others.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Cancelled when a stop begins.
    pub fn stopping(&self) -> &CancellationToken {
        &self.shared.stopping
    }

    /// There may be something to write or to read.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits until there may be something to write or to read. Cancellation safe; for one waiter.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Whether more may be on its way to the disk.
    pub fn may_write(&self) -> bool {
        let (messages, bytes) = self.inner().writing;
        messages < MOST_WRITING && bytes < MOST_WRITING_BYTES
    }

    /// Adds a message to what is to be parked together; under its number, if it has one. What was called before is parked
    /// whatever room there is: it stands before others that are parked already.
    ///
    /// # Errors
    /// There is no room; the job comes back.
    pub fn put(&self, batch: &mut Batch, number: Option<u64>, job: Job) -> Result<(), (Job, Full)> {
        let called = job.tries.begun() > 0;
        let broker = self.shared.names.name(job.message.broker);
        let message = KeptMessage::of(&job.message, broker, Arc::clone(&self.handler), &job.subscription);
        let number = number.unwrap_or_else(|| self.number());
        let row = match self.shared.kept.put_numbered(&self.shelf, number, &Record::Parked(message), called) {
            Ok(row) => row,
            Err(full) => {
                self.inner().full = true;
                return Err((job, full));
            }
        };
        let mut inner = self.inner();
        inner.full = false;
        inner.replay.tried(number, job.tries.parked());
        let weight = job.message.weight();
        inner.writing.0 += 1;
        inner.writing.1 += weight;
        inner.writing_called += usize::from(called);
        drop(inner);
        batch.rows.push(row);
        batch.rows.extend(job.again.map(|again| again.removal_with_effects()));
        batch.messages.push(Writing { part: job.part, weight, called });
        Ok(())
    }

    /// Writes messages; each ends as parked once it is synced.
    pub fn write(self: &Arc<Self>, batch: Batch) {
        let Batch { rows, messages } = batch;
        let park = Arc::clone(self);
        self.shared.kept.store().submit(rows, move || {
            let mut inner = park.inner();
            inner.writing.0 -= messages.len();
            inner.writing.1 -= messages.iter().map(|message| message.weight).sum::<usize>();
            inner.writing_called -= messages.iter().filter(|message| message.called).count();
            drop(inner);
            messages.into_iter().for_each(|message| message.part.end(Outcome::Parked));
            park.wake();
        });
    }

    /// Whether nothing is on its way to the disk.
    pub fn is_written(&self) -> bool {
        self.inner().writing.0 == 0
    }

    /// Whether nothing is on its way to the disk that stands before others which may be there.
    pub fn order_is_written(&self) -> bool {
        self.inner().writing_called == 0
    }

    /// The park is read from its beginning; what is being read is of no use.
    pub fn restart(&self) {
        self.inner().replay.restart();
    }

    /// Nothing more is parked, and what is parked is read from its beginning.
    pub fn reopen(&self) {
        let mut inner = self.inner();
        inner.full = false;
        inner.replay.restart();
    }

    /// What is being read is of no use, and is read again.
    pub fn interrupt(&self) {
        self.inner().replay.interrupt();
    }

    /// What to read next, if more may be out.
    pub fn reading(&self) -> Option<Reading> {
        self.inner().replay.read()
    }

    /// Reads. Blocks on the disk.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn read(&self, reading: Reading) -> Result<Vec<Entry>, StoreError> {
        self.shared.kept.read(&self.shelf, reading.from.saturating_sub(1), (reading.messages, reading.bytes))
    }

    /// Which of the messages that were read are to be called, see [`Replay::found`].
    pub fn found(&self, reading: Reading, entries: &[Entry], most: usize, takes: impl Fn(&Entry) -> bool) -> Brought {
        let numbers: Vec<(u64, usize)> = entries.iter().map(|entry| (entry.id, entry.weight as usize)).collect();
        let entry = |number| entries.binary_search_by_key(&number, |entry| entry.id).ok().map(|place| &entries[place]);
        let takes = |number| entry(number).is_some_and(&takes);
        self.inner().replay.found(reading, &numbers, most, takes)
    }

    /// The message of an entry and the broker that it came from; none where that is no message, or of a broker that is not known.
    pub fn message<'a>(&self, entry: &'a Entry) -> Option<(&'a KeptMessage, BrokerId)> {
        let (why, broker) = match &entry.record {
            Ok(Record::Parked(message)) => match self.shared.broker(&message.broker) {
                Some(broker) => return Some((message, broker)),
                None => {
                    self.strangers().insert(Arc::clone(&message.broker));
                    ("its broker is not configured".to_owned(), Some(&message.broker))
                }
            },
            Ok(_) => ("it is no parked message".to_owned(), None),
            Err(error) => (error.to_string(), None),
        };
        if let Some(unsaid) = self.unread_said.due() {
            tracing::error!(
                handler = %self.handler, number = entry.id, broker = broker.map(tracing::field::display), why, unsaid,
                "a parked message cannot be handled, and stays parked",
            );
        }
        None
    }

    /// Whether messages of one of these brokers were passed over; they are forgotten by that.
    pub fn has_passed_over(&self, brokers: &HashSet<Arc<str>>) -> bool {
        let mut strangers = self.strangers();
        let before = strangers.len();
        strangers.retain(|broker| !brokers.contains(broker));
        strangers.len() < before
    }

    fn strangers(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a message that is out a job.
    pub fn revive(self: &Arc<Self>, entry: &Entry) -> Revived {
        let Some((message, broker)) = self.message(entry) else {
            self.inner().replay.stays(entry.id);
            return Revived::Stays;
        };
        let Ok(claim) = self.shared.kept.claim(&self.shelf, entry.id) else {
            self.inner().replay.stays(entry.id);
            return Revived::Busy;
        };
        let number = entry.id;
        let park = Arc::clone(self);
        let again = claim.again(entry.weight, move |end| park.ended(number, &end));
        let receipt = Receipt::again(Arc::clone(&again), Arc::clone(&self.shared.progress));
        let part = receipt.split(1).next().expect("one part was asked for");
        let (message, subscription) = message.revive(broker, Instant::now());
        Revived::Job(Job {
            message: Arc::new(message),
            subscription: Arc::new(subscription),
            part,
            limit: self.shared.limit(broker),
            tries: self.inner().replay.tries(number),
            again: Some(again),
        })
    }

    /// These were found and are not brought after all: they are read again.
    pub fn not_brought(&self, numbers: &[u64]) {
        let mut inner = self.inner();
        numbers.iter().for_each(|number| inner.replay.stays(*number));
    }

    /// The calls so far of a message that stays in the park.
    pub fn tried(&self, number: u64, tries: Tries) {
        self.inner().replay.tried(number, tries.parked());
    }

    /// A message that was out has ended.
    fn ended(&self, number: u64, end: &AgainEnd) {
        let mut inner = self.inner();
        let wakes = match end {
            AgainEnd::Stays(_) => {
                inner.replay.stays(number);
                true
            }
            AgainEnd::Gone(_) | AgainEnd::FailedAgain(_) => inner.replay.ended(number) || inner.full,
        };
        drop(inner);
        if wakes {
            self.wake();
        }
    }

    /// Says that there is no room.
    pub fn say_full(&self, full: Full) {
        if let Some(unsaid) = self.full_said.due() {
            tracing::error!(
                handler = %self.handler, why = %full, unsaid,
                "no more messages are parked for the handler: those with QoS 1 and 2 wait at their broker, those with QoS 0 \
                 are dropped; resume the handler",
            );
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics under this lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
