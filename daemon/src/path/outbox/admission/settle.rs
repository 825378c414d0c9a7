//! What a batch still needs once its publishes to outboxes in memory are safe: to be written, in order; and what of the outboxes is
//! on the disk.
//!
//! Pure, as all of admission. A batch that writes nothing never comes here. One that does is begun in `order.rs` when it is
//! accepted, is *settled* when none of its publishes to memory is open any more, and *written* once all that it rests on is; who
//! owns the store has it synced, and tells. Only then its publishes to outboxes on disk are in these, and may be sent.

use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::{Admission, Batch, BatchId, Change, End, Terms};
use crate::control::config::model::OutboxStore;
use crate::message::{BrokerId, Outgoing};
use crate::path::outbox::effects::Commit;
use crate::path::outbox::queue::{Amount, EntryId, Load, Removed, Stored};
use crate::store::Row;

/// What is written for a batch. On the heap, since most batches write nothing.
#[derive(Default)]
pub(super) struct Writes {
    rows: Vec<Row>,
    /// Publishes to outboxes on disk that have no number yet.
    unnumbered: Vec<(BrokerId, Arc<Outgoing>)>,
    /// Those that have.
    numbered: Vec<(BrokerId, Stored)>,
}

impl Writes {
    pub(super) fn add(&mut self, broker: BrokerId, message: Outgoing) {
        self.unnumbered.push((broker, Arc::new(message)));
    }

    /// What reserved room.
    fn reserved(&self) -> impl Iterator<Item = (BrokerId, usize)> {
        let numbered = self.numbered.iter().map(|(broker, stored)| (*broker, stored.message.weight()));
        self.unnumbered.iter().map(|(broker, message)| (*broker, message.weight())).chain(numbered)
    }
}

/// Something that is to be deleted from the disk.
#[derive(Debug)]
pub struct Removal {
    /// From this broker's outbox.
    pub broker: BrokerId,
    /// Which.
    pub entry: EntryId,
    /// What it held and the handler that published it, where the broker never takes it and nobody else is told.
    pub never_taken: Option<(Arc<Outgoing>, Option<Arc<str>>)>,
}

/// What is to be written for a batch.
pub struct Written<'a> {
    /// What its call writes beside its publishes.
    pub rows: Vec<Row>,
    /// Its publishes to outboxes on disk.
    pub publishes: &'a [(BrokerId, Stored)],
}

impl<T> Admission<T> {
    /// A batch was accepted: what it writes beside its publishes begins.
    pub(super) fn begin_writes(
        &mut self,
        id: BatchId,
        commit: Option<Box<Commit>>,
        terms: Terms,
    ) -> Option<Box<Writes>> {
        let Commit { rows, reads, mut writes } = *commit?;
        writes.extend(terms.order);
        self.order.begin(id, &reads, writes);
        Some(Box::new(Writes { rows, ..Writes::default() }))
    }

    /// A batch that writes nothing beside its publishes waits for room: it takes its place in the order all the same. Whether it has one.
    pub(super) fn begin_waiting(&mut self, id: BatchId, terms: Terms) -> bool {
        let keeps_order = self.durable && terms.order.is_some();
        if keeps_order {
            self.order.begin(id, &[], terms.order.into_iter().collect());
        }
        keeps_order
    }

    /// A batch that writes nothing else, and did not wait, has publishes to an outbox on disk.
    pub(super) fn begin_new_writes(&mut self, id: BatchId, terms: Terms) -> Box<Writes> {
        self.order.begin(id, &[], terms.order.into_iter().collect());
        Box::default()
    }

    /// None of a batch's publishes to memory is open any more: it ends, or is written.
    pub(super) fn settle(&mut self, id: BatchId, changes: &mut Vec<Change<T>>) {
        let Some(batch) = self.batches.get(&id) else { return };
        if batch.writes.is_some() {
            self.order.ready(id, &mut self.settled);
        } else {
            self.end(id, changes);
        }
    }

    /// The batches that are to be written now, in this order. Each once.
    pub fn settled(&mut self) -> Vec<BatchId> {
        let mut settled = std::mem::take(&mut self.settled);
        // One that waited, and turned out to write nothing, had its place in the order alone.
        settled.retain(|id| self.batches.get(id).is_some_and(|batch| batch.writes.is_some()));
        settled
    }

    /// What is to be written for a settled batch, whose publishes have numbers from now on; they are as old as `now`. `handler`:
    /// which one a batch is of.
    pub fn write(
        &mut self,
        id: BatchId,
        now: Instant,
        handler: impl FnOnce(&T) -> Option<Arc<str>>,
    ) -> Option<Written<'_>> {
        let batch = self.batches.get_mut(&id)?;
        let writes = batch.writes.as_mut()?;
        if !writes.unnumbered.is_empty() {
            let handler = handler(&batch.tag);
            for (broker, message) in writes.unnumbered.drain(..) {
                let id = self.slots[broker.index()].outbox.number();
                writes.numbered.push((broker, Stored { id, message, handler: handler.clone(), since: now }));
            }
        }
        Some(Written { rows: std::mem::take(&mut writes.rows), publishes: &writes.numbered })
    }

    /// What a batch that is written was offered with, and the worst end of its publishes.
    pub fn written_for(&self, id: BatchId) -> Option<(&T, End)> {
        self.batches.get(&id).map(|batch| (&batch.tag, batch.worst))
    }

    /// A batch's publishes to outboxes on disk that are being written.
    pub fn written(&self, id: BatchId) -> &[(BrokerId, Stored)] {
        let writes = self.batches.get(&id).and_then(|batch| batch.writes.as_ref());
        writes.map_or(&[], |writes| &writes.numbered)
    }

    /// Reading part of a broker's outbox failed.
    pub fn not_loaded(&mut self, broker: BrokerId, load: Load) {
        self.outbox(broker).not_loaded(load);
    }

    /// What was written for a batch is synced: its publishes are in their outboxes, and it ends, unless somebody waits for theirs.
    pub fn synced(&mut self, id: BatchId, changes: &mut Vec<Change<T>>) {
        if let Some(unwanted) = self.unwanted.remove(&id) {
            for (broker, Stored { id: entry, message, .. }) in unwanted.numbered {
                self.slot(broker).outbox.release(message.weight());
                self.removals.push(Removal { broker, entry, never_taken: None });
                self.touch(broker);
            }
            return self.admit_waiting(changes);
        }
        let Some(batch) = self.batches.get_mut(&id) else { return };
        let followed = batch.terms.followed;
        let Some(writes) = batch.writes.take() else { return };
        let mut came: SmallVec<[BrokerId; 2]> = SmallVec::new();
        for (broker, stored) in writes.numbered {
            let slot = &mut self.slots[broker.index()];
            slot.outbox.release(stored.message.weight());
            if followed && !slot.present {
                // Who waits for it is told that its broker was removed.
                self.removals.push(Removal { broker, entry: stored.id, never_taken: None });
                batch.worst = batch.worst.max(End::Purged);
                continue;
            }
            batch.open += usize::from(followed);
            slot.outbox.push_stored(stored, id, followed, slot.present);
            came.push(broker);
        }
        if batch.open == 0 {
            self.end(id, changes);
        }
        came.into_iter().for_each(|broker| self.unsent_again(broker, changes));
    }

    fn end(&mut self, id: BatchId, changes: &mut Vec<Change<T>>) {
        if let Some(Batch { tag, worst, .. }) = self.batches.remove(&id) {
            changes.push(Change::Ended { batch: id, tag, worst, dropped: None });
        }
    }

    /// A batch is not made after all, nor is what rests on what it would have written. What the latter were offered with. Their
    /// publishes that are in an outbox in memory leave all the same.
    pub(super) fn cancel(&mut self, id: BatchId) -> Vec<(BatchId, T)> {
        let mut cancelled = Vec::new();
        for id in self.order.cancel(id).into_iter().skip(1) {
            if let Some(batch) = self.batches.remove(&id) {
                for (broker, weight) in batch.writes.iter().flat_map(|writes| writes.reserved()) {
                    self.slot(broker).outbox.release(weight);
                    self.touch(broker);
                }
                cancelled.push((id, batch.tag));
            } else if let Some(place) = self.waiting.iter().position(|waiting| waiting.id == id)
                && let Some(waiting) = self.waiting.remove(place)
            {
                self.waits_no_more(&waiting.demand);
                cancelled.push((id, waiting.tag));
            }
        }
        cancelled
    }

    /// Takes back a batch that is being written. Whether it is.
    pub(super) fn take_back_writes(&mut self, id: BatchId) -> bool {
        let writes = self.batches.get_mut(&id).and_then(|batch| batch.writes.take());
        writes.is_some_and(|writes| self.unwanted.insert(id, writes).is_none())
    }

    /// What is to be deleted from the disk, each once.
    pub fn removals(&mut self) -> Vec<Removal> {
        std::mem::take(&mut self.removals)
    }

    /// An entry is in its outbox no more: nor is it on the disk.
    pub(super) fn remove_from_disk(&mut self, broker: BrokerId, removed: Removed, end: End) {
        if !removed.on_disk {
            return;
        }
        let untold = removed.batch.is_none() && matches!(end, End::Refused | End::Poisoned);
        let never_taken = removed.message.filter(|_| untold).map(|message| (message, removed.handler));
        self.removals.push(Removal { broker, entry: removed.id, never_taken });
    }

    /// A broker's outbox has so much on the disk from before, and numbers from `next` on were never used. Before the broker is
    /// added.
    pub fn found(&mut self, broker: BrokerId, amount: Amount, next: u64) {
        let batch = BatchId(self.next);
        self.next += 1;
        self.slot(broker).outbox.found(amount, next, batch);
        self.touch(broker);
    }

    /// What a broker's outbox has in memory is to be written, if the outbox is to be on disk: each entry is given once, with the
    /// handler that published it.
    pub fn begin_storing(
        &mut self,
        broker: BrokerId,
        now: Instant,
        handler: impl Fn(&T) -> Option<Arc<str>>,
    ) -> Vec<Stored> {
        let slot = &mut self.slots[broker.index()];
        if !self.durable || slot.limits.store != OutboxStore::Disk {
            return Vec::new();
        }
        let given = slot.outbox.begin_storing(now);
        let handler = |batch| self.batches.get(&batch).and_then(|batch: &Batch<T>| handler(&batch.tag));
        given.into_iter().map(|(stored, batch)| Stored { handler: handler(batch), ..stored }).collect()
    }

    /// Entries that were in memory are synced: as safe as if the broker had them.
    pub fn stored(
        &mut self,
        broker: BrokerId,
        entries: Vec<(EntryId, Option<Arc<str>>)>,
        changes: &mut Vec<Change<T>>,
    ) {
        for (entry, handler) in entries {
            let outbox = self.outbox(broker);
            let Ok(batch) = outbox.is_stored(entry, handler) else {
                self.removals.push(Removal { broker, entry, never_taken: None });
                continue;
            };
            if self.batches.get(&batch).is_some_and(|batch| batch.terms.followed) {
                continue;
            }
            self.outbox(broker).disown(entry);
            self.publish_ended(batch, End::Delivered, None, changes);
        }
        self.touch(broker);
    }

    /// A broker that is there and part of whose outbox is to be read from the disk: what, from now on being read.
    pub fn next_load(&mut self) -> Option<(BrokerId, Load)> {
        let place = self.slots.iter().position(|slot| slot.present && slot.outbox.wants_load())?;
        Some((BrokerId(place as u32), self.slots[place].outbox.begin_load()))
    }

    /// Whether part of a broker's outbox is to be read.
    pub fn wants_load(&self, broker: BrokerId) -> bool {
        self.slots.get(broker.index()).is_some_and(|slot| slot.present && slot.outbox.wants_load())
    }

    /// Part of a broker's outbox was read, up to below this number. How much was said to be there and is not.
    pub fn loaded(
        &mut self,
        broker: BrokerId,
        load: Load,
        (found, up_to): (Vec<Stored>, u64),
        changes: &mut Vec<Change<T>>,
    ) -> Amount {
        let missing = self.outbox(broker).loaded(load, found, up_to);
        self.touch(broker);
        self.admit_waiting(changes);
        missing
    }

    /// Takes out what is to be published to a broker and is not on its way: it ends as purged. Which numbers are to be deleted
    /// from the disk beside what [`Self::removals`] has, and how much all of it is.
    pub fn purge(&mut self, broker: BrokerId, changes: &mut Vec<Change<T>>) -> ((u64, u64), Amount) {
        let outbox = self.outbox(broker);
        let before = Amount { messages: outbox.messages(), bytes: outbox.bytes() };
        let (removed, numbers) = outbox.purge_unsent();
        let purged = Amount { messages: before.messages - outbox.messages(), bytes: before.bytes - outbox.bytes() };
        self.touch(broker);
        removed.into_iter().for_each(|removed| self.gone(broker, removed, End::Purged, None, changes));
        self.admit_waiting(changes);
        (numbers, purged)
    }
}

#[cfg(test)]
impl<T> Admission<T> {
    /// Whether nothing waits to be written.
    pub(super) fn has_settled_all(&self) -> bool {
        self.order.is_empty() && self.settled.is_empty()
    }
}
