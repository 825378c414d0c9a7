//! The outboxes and the disk: what is written under their lock, what comes back from the store, and what an operator sees of it.
//!
//! Reads both clocks, for what is written bears the wall clock's time. What is written when, the pure core decides; how a publish
//! stands on the disk, `rows.rs` knows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::Outboxes;
use super::admission::{BatchId, Change, Removal, Written};
use super::command::PublishEnd;
use super::journal::Journal;
use super::loader::{self, Read};
use super::news::News;
use super::owner::Owner;
use super::queue::{Amount, EntryId, Load};
use super::rows::{self, Now};
use super::state::{Side, State};
use crate::control::config::model::OutboxStore;
use crate::message::{BrokerId, Outgoing, Qos};
use crate::path::dead_letter::Reason;
use crate::path::kept::Kept;
use crate::store::{Place, Row, Store, StoreError, Table, Unwritten, number};

/// The group of marks that tell for each broker which numbers were never used.
const MARKS: &str = "outbox";

/// A mark is this far beyond the number that it is written with, so that few are written.
const MARKED: u64 = 1 << 16;

/// Entries that are written at once where an outbox comes to the disk.
const BROUGHT_IN: usize = 256;

/// What the disk has of an outbox from before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Before {
    amount: Amount,
    /// Numbers from this one on were never used.
    next: u64,
}

/// An outbox as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxView {
    /// The broker's name.
    pub name: Arc<str>,
    /// The broker's number, where it is there; otherwise the outbox is an orphan, which has nothing but what is on the disk.
    pub broker: Option<BrokerId>,
    /// Where it is to be.
    pub store: OutboxStore,
    /// It is to be in memory, and what comes waits on the disk all the same until what came before is gone.
    pub draining: bool,
    /// All that waits, what is on its way included.
    pub all: Amount,
    /// What of it is on the disk.
    pub on_disk: Amount,
    /// When the oldest came in that is in memory, where that is known.
    pub oldest: Option<SystemTime>,
}

/// Why not all of what was purged is gone from the disk: what is left comes back with the next daemon.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// The store cannot be read.
    #[error("not all of it is deleted from the disk; purge it again")]
    Store(#[from] StoreError),
    /// The daemon stops.
    #[error("not all of it is deleted from the disk")]
    Stopped(#[from] Unwritten),
    /// A defect of the daemon.
    #[error("not all of it is deleted from the disk: deleting panicked")]
    Panicked(#[from] tokio::task::JoinError),
}

/// What was found on the disk at the start. Blocks on it.
fn found(store: &Store) -> Result<HashMap<Arc<str>, Before>, StoreError> {
    let mut found: HashMap<Arc<str>, Before> = HashMap::new();
    for row in store.read(Table::Marks, MARKS, &[], (usize::MAX, usize::MAX))? {
        if let (Ok(name), Some(next)) = (str::from_utf8(&row.key), number(&row.body)) {
            found.entry(name.into()).or_default().next = next;
        }
    }
    for (name, total) in store.totals(Table::Outbox)? {
        let last = store.last(Table::Outbox, &name)?.as_deref().and_then(number);
        let before = found.entry(name).or_default();
        before.next = before.next.max(last.map_or(0, |last| last + 1));
        let addressable = |number| usize::try_from(number).unwrap_or(usize::MAX);
        before.amount = Amount { messages: addressable(total.rows), bytes: addressable(total.weight) };
    }
    Ok(found)
}

impl Outboxes {
    /// Of no broker yet; what must survive the daemon goes to this store, and what a broker never takes to these dead letters.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn on_disk(store: Store, kept: Kept) -> Result<Arc<Outboxes>, StoreError> {
        let found = found(&store)?;
        Ok(Arc::new_cyclic(|outboxes| Outboxes::with(Journal::new(store, kept, outboxes.clone()), found)))
    }

    /// What was written for a batch is synced.
    pub(super) fn synced(&self, batch: BatchId) {
        self.step(&PublishEnd::Delivered(Qos::AtMostOnce), |state, changes| {
            state.tell_kept(batch);
            state.admission.synced(batch, changes);
        });
    }

    /// Entries that were in memory are synced.
    pub(super) fn stored(&self, broker: BrokerId, entries: Vec<(EntryId, Option<Arc<str>>)>) {
        self.step(&PublishEnd::Delivered(Qos::AtMostOnce), |state, changes| {
            state.admission.stored(broker, entries, changes);
        });
    }

    /// What is to be read next of which broker's outbox, from now on being read.
    pub(super) fn next_load(&self) -> Option<(BrokerId, Arc<str>, Load)> {
        let mut state = self.lock();
        let (broker, load) = state.admission.next_load()?;
        Some((broker, Arc::clone(&state.side(broker).group), load))
    }

    /// It was read.
    pub(super) fn loaded(&self, broker: BrokerId, load: Load, Read { found, up_to }: Read) {
        let missing = self
            .step(&PublishEnd::Purged, |state, changes| state.admission.loaded(broker, load, (found, up_to), changes));
        if missing.messages > 0 {
            let name = Arc::clone(&self.lock().side(broker).group);
            tracing::warn!(broker = %name, messages = missing.messages, "publishes on the disk were left out");
        }
    }

    /// It could not be read, and may be read again.
    pub(super) fn not_loaded(&self, broker: BrokerId, load: Load) {
        self.lock().admission.not_loaded(broker, load);
    }

    /// What of a broker's outbox is on the disk, what is being written included.
    pub fn on_disk_of(&self, broker: BrokerId) -> Amount {
        self.lock().admission.outbox(broker).on_disk()
    }

    /// All outboxes: those of brokers that are there in the order of their numbers, then the orphans by name.
    pub fn list(&self) -> Vec<OutboxView> {
        self.lock().list()
    }

    /// Says what the disk has for brokers that are not there.
    pub fn tell_orphans(&self) {
        for orphan in self.list().into_iter().filter(|outbox| outbox.broker.is_none()) {
            tracing::warn!(
                broker = %orphan.name, messages = orphan.on_disk.messages,
                remedy = %format_args!("add the broker again, or drop them: tidegate outbox purge {}", orphan.name),
                "publishes on the disk are for a broker that is not configured",
            );
        }
    }

    /// Drops what waits in the outbox of a broker of this name and is not on its way, in memory and on the disk, and waits until
    /// the disk has it no more. How much that was; none where there is no such outbox.
    ///
    /// # Errors
    /// Some of it may be left on the disk.
    pub async fn purge(&self, name: &str) -> Result<Option<Amount>, PurgeError> {
        let purged = self.step(&PublishEnd::Purged, |state, changes| state.purge(name, changes));
        let Some((group, numbers, amount)) = purged else { return Ok(None) };
        let store = self.lock().journal.store().cloned();
        if let Some(store) = store {
            delete(store, group, numbers).await?;
        }
        Ok(Some(amount))
    }
}

/// Deletes an outbox' rows from one number to below another.
async fn delete(store: Store, group: Arc<str>, (mut from, end): (u64, u64)) -> Result<(), PurgeError> {
    while from < end {
        let (reader, name) = (store.clone(), Arc::clone(&group));
        let numbers = tokio::task::spawn_blocking(move || loader::numbers(&reader, &name, from, end)).await??;
        let Some(last) = numbers.last() else { break };
        from = last.0 + 1;
        store
            .written(numbers.into_iter().map(|entry| Row::Delete { at: rows::place(&group, entry) }).collect())
            .await?;
    }
    // What is deleted a little later is written with it.
    Ok(store.written(Vec::new()).await?)
}

impl State {
    /// A broker has this name from now on: what the disk has under it is the broker's.
    pub(super) fn adopt(&mut self, broker: BrokerId, name: &Arc<str>) {
        let before = self.found.remove(name);
        let side = self.side(broker);
        side.group = Arc::clone(name);
        if let Some(Before { amount, next }) = before {
            side.marked = next;
            self.admission.found(broker, amount, next);
        }
    }

    /// Has the store write what is settled, and delete what is over. Under the lock, so that it is written in this order. `last`:
    /// how what is over ended, where its broker never takes it.
    pub(super) fn write(&mut self, last: &PublishEnd, changes: &mut Vec<Change<Owner>>) {
        for batch in self.admission.settled() {
            self.write_batch(batch, changes);
        }
        let removals = self.admission.removals();
        if removals.is_empty() {
            return;
        }
        let mut later = Vec::new();
        for Removal { broker, entry, never_taken } in removals {
            let group = Arc::clone(&self.side(broker).group);
            let delete = Row::Delete { at: rows::place(&group, entry) };
            match never_taken {
                Some((message, handler)) => self.bury(group, (&message, handler), last, delete),
                None => later.push(delete),
            }
        }
        if let Some(store) = self.journal.store() {
            store.submit_later(later);
        }
    }

    fn write_batch(&mut self, batch: BatchId, changes: &mut Vec<Change<Owner>>) {
        let now = Now::read();
        let Some(Written { mut rows, publishes }) = self.admission.write(batch, now.monotonic, Owner::handler) else {
            return;
        };
        for (broker, stored) in publishes {
            let side = &mut self.sides[broker.index()];
            rows.extend(side.mark(stored.id));
            rows.push(rows::row(&side.group, stored, now));
        }
        if let Some((owner, worst)) = self.admission.written_for(batch) {
            owner.is_written(worst, &mut rows);
        }
        if !self.journal.write(batch, rows) {
            self.admission.synced(batch, changes);
        }
    }

    /// What a broker's outbox has in memory is written, where the outbox is to be on disk.
    pub(super) fn bring_in(&mut self, broker: BrokerId) {
        let now = Now::read();
        let entries = self.admission.begin_storing(broker, now.monotonic, Owner::handler);
        for chunk in entries.chunks(BROUGHT_IN) {
            let side = &mut self.sides[broker.index()];
            let mut written: Vec<Row> = chunk.iter().map(|stored| rows::row(&side.group, stored, now)).collect();
            written.extend(chunk.last().and_then(|stored| side.mark(stored.id)));
            let brought = chunk.iter().map(|stored| (stored.id, stored.handler.clone())).collect();
            self.journal.bring_in(broker, brought, written);
        }
    }

    /// A publish that was on the disk is never taken by its broker: it becomes a dead letter there, in one transaction.
    fn bury(
        &mut self,
        broker: Arc<str>,
        (message, handler): (&Outgoing, Option<Arc<str>>),
        last: &PublishEnd,
        delete: Row,
    ) {
        let (reason, refusal) = match last {
            PublishEnd::Refused(words) => (Reason::PublishRefused, Some(&**words)),
            _ => (Reason::PublishPoisoned, None),
        };
        let Some(kept) = self.journal.kept() else { return };
        let mut rows = vec![delete];
        match kept.put_publish(handler, &broker, message, refusal) {
            Ok(placed) => rows.extend(placed.rows),
            Err(full) => {
                let topic = message.topic.clone();
                self.unsaid.push(News::NotKept { name: broker, topic, reason: reason.label(), full });
            }
        }
        self.journal.bury(rows);
    }

    /// Tells who watches the message of a batch that its publishes to outboxes on disk are safe.
    pub(super) fn tell_kept(&self, batch: BatchId) {
        let Some((_, owner)) = self.admission.batch(batch) else { return };
        let Some(trace) = owner.trace() else { return };
        for (broker, stored) in self.admission.written(batch) {
            trace.kept_on_disk(*broker, &stored.message);
        }
    }

    fn list(&mut self) -> Vec<OutboxView> {
        let now = Now::read();
        let (mut outboxes, mut orphans) = (Vec::new(), Vec::new());
        for place in 0..self.sides.len() as u32 {
            let broker = BrokerId(place);
            let name = Arc::clone(&self.side(broker).group);
            let (present, store) = (self.admission.is_present(broker), self.admission.limits(broker).store);
            let outbox = self.admission.outbox(broker);
            let on_disk = outbox.on_disk();
            let view = OutboxView {
                name,
                broker: present.then_some(broker),
                store,
                draining: present && store == OutboxStore::Memory && on_disk.messages > 0,
                all: Amount { messages: outbox.messages(), bytes: outbox.bytes() },
                on_disk,
                oldest: outbox.oldest().and_then(|since| now.wall.checked_sub(now.monotonic - since)),
            };
            match present {
                true => outboxes.push(view),
                false if on_disk.messages > 0 => orphans.push(view),
                false => {}
            }
        }
        let found = self.found.iter().filter(|(_, before)| before.amount.messages > 0);
        orphans.extend(found.map(|(name, before)| OutboxView {
            name: Arc::clone(name),
            broker: None,
            store: OutboxStore::Disk,
            draining: false,
            all: before.amount,
            on_disk: before.amount,
            oldest: None,
        }));
        orphans.sort_by(|one, other| one.name.cmp(&other.name));
        outboxes.extend(orphans);
        outboxes
    }

    /// Takes out what waits in the outbox of this name and is not on its way: the name again, the numbers that are to be deleted from
    /// the disk, and how much all of it was.
    fn purge(&mut self, name: &str, changes: &mut Vec<Change<Owner>>) -> Option<(Arc<str>, (u64, u64), Amount)> {
        if let Some((name, before)) = self.found.iter_mut().find(|(known, _)| ***known == *name) {
            let amount = std::mem::take(&mut before.amount);
            return Some((Arc::clone(name), (0, before.next), amount));
        }
        let place = self.sides.iter().position(|side| *side.group == *name)?;
        let (numbers, amount) = self.admission.purge(BrokerId(place as u32), changes);
        Some((Arc::clone(&self.sides[place].group), numbers, amount))
    }
}

impl Side {
    /// A number is in use from now on: what is to be written for that with it.
    fn mark(&mut self, entry: EntryId) -> Option<Row> {
        if entry.0 < self.marked {
            return None;
        }
        self.marked = entry.0 + MARKED;
        let at = Place { table: Table::Marks, group: MARKS.into(), key: self.group.as_bytes().into() };
        let body = self.marked.to_be_bytes().to_vec();
        Some(Row::Put { at, weight: body.len() as u32, body })
    }
}
