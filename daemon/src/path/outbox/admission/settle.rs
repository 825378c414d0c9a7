//! What a batch still needs once its publishes to outboxes in memory are safe: to be written, in order.
//!
//! Pure, as all of admission. A batch that writes nothing never comes here. One that does is begun in [`Order`] when it is
//! accepted, is *settled* when none of its publishes is open any more, and *written* once all that it rests on is; who owns the
//! store has it synced, and tells.

use super::{Admission, Batch, BatchId, Change};
use crate::path::outbox::effects::{Commit, Touch};
use crate::path::outbox::queue::End;
use crate::store::Row;

/// What is written for a batch. On the heap, since most batches write nothing.
pub(super) struct Writes {
    commit: Commit,
}

impl<T> Admission<T> {
    /// A batch that writes something was accepted. `order`: what is written for its topic goes in the order of coming.
    pub(super) fn begin_writes(
        &mut self,
        id: BatchId,
        commit: Option<Box<Commit>>,
        order: Option<Touch>,
    ) -> Option<Box<Writes>> {
        let mut commit = *commit?;
        commit.writes.extend(order);
        self.order.begin(id, &commit.reads, std::mem::take(&mut commit.writes));
        Some(Box::new(Writes { commit }))
    }

    /// None of a batch's publishes is open any more: it ends, or is written.
    pub(super) fn settle(&mut self, id: BatchId, changes: &mut Vec<Change<T>>) {
        let Some(batch) = self.batches.get(&id) else { return };
        if batch.writes.is_some() {
            self.order.ready(id, &mut self.settled);
            return;
        }
        if let Some(Batch { tag, worst, .. }) = self.batches.remove(&id) {
            changes.push(Change::Ended { batch: id, tag, worst, dropped: None });
        }
    }

    /// The batches that are to be written now, in this order. Each once.
    pub fn settled(&mut self) -> Vec<BatchId> {
        std::mem::take(&mut self.settled)
    }

    /// What is to be written for a settled batch.
    pub fn rows(&mut self, id: BatchId) -> Vec<Row> {
        let Some(Batch { writes: Some(writes), .. }) = self.batches.get_mut(&id) else { return Vec::new() };
        std::mem::take(&mut writes.commit.rows)
    }

    /// What a batch that is written was offered with, and the worst end of its publishes.
    pub fn written_for(&self, id: BatchId) -> Option<(&T, End)> {
        self.batches.get(&id).map(|batch| (&batch.tag, batch.worst))
    }

    /// What was written for a batch is synced.
    pub fn synced(&mut self, id: BatchId, changes: &mut Vec<Change<T>>) {
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
}

#[cfg(test)]
impl<T> Admission<T> {
    /// Whether nothing waits to be written.
    pub(super) fn has_settled_all(&self) -> bool {
        self.order.is_empty() && self.settled.is_empty()
    }
}
