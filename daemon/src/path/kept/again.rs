//! A kept message that is handled again, from its beginning to its end.
//!
//! Follows one message: nobody begins it a second time meanwhile, and its room is given back once it is gone. Made by whoever has
//! it handled again; carried by its job and its receipt. Its row goes in one transaction with what follows from it: its effects,
//! or the record of its next failure. Where nothing follows, as at a stop, it stays as it was.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Kept, Record, place, weight};
use crate::path::receipt::Outcome;
use crate::store::Row;

/// Why a kept message cannot be begun: it is in progress already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is in progress already")]
pub struct Busy;

/// How a kept message ended that was handled again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgainEnd {
    /// It is gone, with this outcome.
    Gone(Outcome),
    /// It failed again, for this reason in plain words, and is kept as that.
    FailedAgain(String),
    /// It is kept as it was.
    Stays(Outcome),
}

/// Told how a message ended, outside of all locks.
type Told = Box<dyn FnOnce(AgainEnd) + Send>;

/// A kept message that something is done with: nobody else does anything with it until this is dropped.
pub struct Claim {
    kept: Kept,
    shelf: Arc<str>,
    id: u64,
}

impl Kept {
    /// Claims a message of a shelf, whether it is there or not. Who is to know that it is reads it after this.
    ///
    /// # Errors
    /// Something is done with it already.
    pub fn claim(&self, shelf: &Arc<str>, id: u64) -> Result<Claim, Busy> {
        if !self.0.lock().busy.insert((Arc::clone(shelf), id)) {
            return Err(Busy);
        }
        Ok(Claim { kept: self.clone(), shelf: Arc::clone(shelf), id })
    }
}

impl Claim {
    /// Its number on its shelf.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The message, of so many bytes, is handled again. `told` is told how it ended, if it ends.
    pub fn again(self, weight: u32, told: impl FnOnce(AgainEnd) + Send + 'static) -> Arc<Again> {
        let (kept, shelf, id) = (self.kept.clone(), Arc::clone(&self.shelf), self.id);
        let open = Mutex::new(Some(Open { claim: self, told: Box::new(told) }));
        Arc::new(Again { kept, shelf, id, weight, with_effects: AtomicBool::new(false), open })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.kept.0.lock().busy.remove(&(Arc::clone(&self.shelf), self.id));
    }
}

/// A kept message that is handled again.
pub struct Again {
    kept: Kept,
    shelf: Arc<str>,
    id: u64,
    /// Bytes that it counts on its shelf.
    weight: u32,
    /// Its removal is written with its effects. Written by who hands these on.
    with_effects: AtomicBool,
    /// Taken at its end.
    open: Mutex<Option<Open>>,
}

/// What there is of a message that has not ended.
struct Open {
    claim: Claim,
    told: Told,
}

impl Again {
    /// What is to be written together with the message's effects: it is kept no more.
    pub fn removal_with_effects(&self) -> Row {
        self.with_effects.store(true, Ordering::Release);
        self.removal()
    }

    /// Its effects are not written after all, or without its removal.
    pub fn has_no_effects(&self) {
        self.with_effects.store(false, Ordering::Release);
    }

    /// What is to be written so that it is kept no more.
    pub fn removal(&self) -> Row {
        Kept::removal(&self.shelf, self.id)
    }

    /// Whether it was a dead letter.
    pub fn is_dead_letter(&self) -> bool {
        self.shelf == *self.kept.dead()
    }

    /// What is to be written where it is kept as this record from now on, and what that weighs. Once it is synced,
    /// [`Self::replaced`] is to be told.
    pub fn replacement(&self, record: &Record) -> (Row, u32) {
        let body = record.encode();
        let weight = weight(&body);
        (Row::Put { at: place(&self.shelf, self.id), weight, body }, weight)
    }

    /// It failed again, and its place has another record, of so many bytes. To be told before its end.
    pub fn replaced(&self, weight: u32, error: String) {
        let kept = &self.kept.0;
        let mut shelves = kept.lock();
        shelves.shelf(&self.shelf).replaced(self.weight, weight);
        kept.tell(&shelves, &self.shelf);
        drop(shelves);
        self.tell(AgainEnd::FailedAgain(error));
    }

    /// Its row is gone, with this outcome. To be told before its end.
    pub fn removed(&self, outcome: Outcome) {
        self.kept.removed(&self.shelf, self.weight);
        self.tell(AgainEnd::Gone(outcome));
    }

    /// It is kept as it was, since it ended with this outcome.
    pub fn stays(&self, outcome: Outcome) {
        self.tell(AgainEnd::Stays(outcome));
    }

    /// The message has ended. Where that is the end of it on its shelf too, it is so once that is synced.
    pub fn ended(self: &Arc<Self>, outcome: Outcome) {
        if self.has_ended() {
            return;
        }
        // Only a stop lets go of effects that were handed on.
        if self.with_effects.load(Ordering::Acquire) && outcome != Outcome::DroppedShutdown {
            return self.removed(outcome);
        }
        if !self.goes_with(outcome) {
            return self.stays(outcome);
        }
        let again = Arc::clone(self);
        self.kept.store().submit(vec![self.removal()], move || again.removed(outcome));
    }

    /// Whether a message with this outcome is kept no more. What was parked ends as it would have when it came; a dead letter
    /// that leads to no other stays what it is.
    fn goes_with(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Handled | Outcome::DeadLetter => true,
            Outcome::DroppedFailed | Outcome::DroppedLoop | Outcome::DroppedRefused | Outcome::DroppedPoisoned => {
                !self.is_dead_letter()
            }
            _ => false,
        }
    }

    fn has_ended(&self) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    fn tell(&self, end: AgainEnd) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Open { claim, told }) = open {
            // Whoever is told may have it handled once more.
            drop(claim);
            told(end);
        }
    }
}
