//! What of an outbox is on the disk: how it comes in there, and from the tail into the head.
//!
//! Pure, as all of the outbox. What is to be written reserves its room first, and is an entry once it is synced: nothing is sent
//! before. An outbox that was in memory has its entries written where they are.

use std::sync::Arc;
use std::time::Instant;

use super::{
    Amount, BatchId, Entry, EntryId, HEAD_BYTES, HEAD_MESSAGES, Load, Outbox, Place, Removed, State, Stored, Tail,
};

impl Outbox {
    /// The outbox has so much on the disk from before; numbers from `next` on were never used. `batch` stands for those who put
    /// it there.
    pub fn found(&mut self, amount: Amount, next: u64, batch: BatchId) {
        debug_assert!(self.messages() == 0, "nothing was in before");
        self.next = self.next.max(next);
        self.tail = if amount.messages > 0 { Tail::found(amount, self.next) } else { Tail::default() };
        self.newest_stored = Some(batch);
    }

    /// What is on the disk, or is being written.
    pub fn on_disk(&self) -> Amount {
        let (stored, reserved, tail) = (self.stored, self.reserved, self.tail.amount);
        Amount {
            messages: stored.messages + reserved.messages + tail.messages,
            bytes: stored.bytes + reserved.bytes + tail.bytes,
        }
    }

    /// When the first entry in memory came in, where that is known.
    pub fn oldest(&self) -> Option<Instant> {
        self.entries.front()?.since
    }

    /// Whether something is on the disk alone.
    pub fn has_tail(&self) -> bool {
        !self.tail.is_empty()
    }

    /// Something of a batch will be written and then be in.
    pub fn reserve(&mut self, weight: usize, batch: BatchId) {
        self.reserved.add(weight);
        self.newest_stored = self.newest_stored.max(Some(batch));
    }

    /// It will not be in, or is in.
    pub fn release(&mut self, weight: usize) {
        self.reserved.remove(weight);
    }

    /// Something is synced, and in from now on; in memory too where there is room, unless nobody sends it. `owned`: its batch is
    /// told of its end.
    pub fn push_stored(&mut self, stored: Stored, batch: BatchId, owned: bool, sends: bool) {
        let weight = stored.message.weight();
        if sends && self.tail.is_empty() && self.entries.len() < HEAD_MESSAGES && self.bytes < HEAD_BYTES {
            self.push_head(stored, batch, owned);
        } else {
            self.tail.push(stored.id, weight, owned.then_some(batch));
        }
    }

    fn push_head(&mut self, Stored { id, message, handler, since }: Stored, batch: BatchId, owned: bool) {
        self.bytes += message.weight();
        self.stored.add(message.weight());
        let (since, place, state) = (Some(since), Place::Disk, State::Unsent);
        self.entries.push_back(Entry { id, message, batch, owned, place, handler, since, state, tried: false });
    }

    /// The entries in memory are to be written where they are. What they hold, with their batches, whose handlers the caller
    /// knows; each is given once.
    pub fn begin_storing(&mut self, now: Instant) -> Vec<(Stored, BatchId)> {
        let mut given = Vec::new();
        for entry in self.entries.iter_mut().filter(|entry| entry.place == Place::Memory) {
            entry.place = Place::Writing;
            self.stored.add(entry.message.weight());
            self.newest_stored = self.newest_stored.max(Some(entry.batch));
            let since = *entry.since.get_or_insert(now);
            let (id, message) = (entry.id, Arc::clone(&entry.message));
            given.push((Stored { id, message, handler: None, since }, entry.batch));
        }
        given
    }

    /// An entry that was in memory is synced. Its batch, which is not told of its end any more unless it is `followed`; or that
    /// the entry has reached its end meanwhile.
    pub fn is_stored(&mut self, id: EntryId, handler: Option<Arc<str>>) -> Result<BatchId, Gone> {
        let place = self.place(id).ok_or(Gone)?;
        let entry = &mut self.entries[place];
        (entry.place, entry.handler) = (Place::Disk, handler);
        Ok(entry.batch)
    }

    /// The batch of an entry is not told of its end any more.
    pub fn disown(&mut self, id: EntryId) {
        if let Some(place) = self.place(id) {
            self.entries[place].owned = false;
        }
    }

    /// Whether part of the tail is to be read.
    pub fn wants_load(&self) -> bool {
        if self.loading || self.tail.is_empty() {
            return false;
        }
        let low = self.entries.len() <= HEAD_MESSAGES / 2 && self.bytes <= HEAD_BYTES / 2;
        low || self.unsent_entries().next().is_none()
    }

    /// Part of the tail is read from now on.
    pub fn begin_load(&mut self) -> Load {
        self.loading = true;
        let room = |all: usize, used: usize| all.saturating_sub(used).max(all / 2);
        let messages = room(HEAD_MESSAGES, self.entries.len());
        let most = Amount { messages, bytes: room(HEAD_BYTES, self.bytes) };
        let (from, end) = self.tail.numbers();
        Load { from, end, most, generation: self.generation }
    }

    /// Part of the tail was read, up to below this number: what belongs to the tail is in memory now. How much was said to be in
    /// the tail and is not, once there is nothing more of it.
    pub fn loaded(&mut self, load: Load, found: Vec<Stored>, up_to: u64) -> Amount {
        if load.generation != self.generation {
            return Amount::default();
        }
        self.loading = false;
        let batch = self.newest_stored.unwrap_or(BatchId(0));
        for stored in found.into_iter().filter(|stored| stored.id.0 < load.end) {
            if let Some(followed) = self.tail.take(stored.id, stored.message.weight()) {
                self.push_head(stored, followed.unwrap_or(batch), followed.is_some());
            }
        }
        self.tail.read(up_to.min(load.end));
        if self.tail.is_empty() { self.tail.exhausted() } else { Amount::default() }
    }

    /// Reading failed, and may be tried again.
    pub fn not_loaded(&mut self, load: Load) {
        if load.generation == self.generation {
            self.loading = false;
        }
    }

    /// Takes out everything that is not on its way, but for what is being written: the entries, and which numbers of the tail are
    /// to be deleted, from the first to below the second.
    pub fn purge_unsent(&mut self) -> (Vec<Removed>, (u64, u64)) {
        let mut removed = Vec::new();
        let mut place = self.entries.len();
        while place > 0 {
            place -= 1;
            if self.entries[place].state == State::Unsent
                && let Some(entry) = self.take_out(place)
            {
                removed.push(entry.removed());
            }
        }
        removed.reverse();
        self.suspicion.ended(false, self.entries.front().map(|entry| entry.id));
        let followed = self.tail.drop_all_followed();
        removed.extend(followed.into_iter().map(Removed::of_tail));
        let numbers = self.tail.numbers();
        self.tail.exhausted();
        (self.loading, self.generation) = (false, self.generation + 1);
        (removed, numbers)
    }
}

/// An entry is there no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;
