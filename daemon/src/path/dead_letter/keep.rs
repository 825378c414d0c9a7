//! Dead letters that are kept on the disk.
//!
//! Each is a record on the shelf of dead letters, written in one transaction with whatever ends with it: the place of a message
//! that was handled again from the disk. Its message ends, and is acknowledged, once that is synced.

use std::sync::Arc;

use super::letter::{Failed, what_went_wrong};
use super::{DeadLetters, LetterEnd};
use crate::control::config::model::Subscription;
use crate::path::kept::{Failure, Full, KeptMessage, Record};
use crate::path::receipt::Outcome;

impl DeadLetters {
    /// Keeps a message that failed for good. Where the store is full, what is there stays, and this one is dropped.
    pub(super) fn keep_failed(&self, failed: &Failed<'_>, subscription: &Subscription, end: LetterEnd) {
        let broker = self.names.name(failed.message.broker);
        let message = KeptMessage::of(failed.message, broker, Arc::clone(&self.handler), subscription);
        let error = what_went_wrong(failed);
        let Failed { reason, attempts, time, .. } = *failed;
        let record = Record::DeadLetter(message, Failure { reason, error: error.clone(), attempts, time });
        if let Some(trace) = end.part().trace() {
            trace.kept_dead_letter(&self.handler, reason.label());
        }
        let store = self.store.store();
        match end.again.clone() {
            Some(again) if again.is_dead_letter() => {
                let (row, weight) = again.replacement(&record);
                store.submit(vec![row], move || {
                    again.replaced(weight, error);
                    end.safe();
                });
            }
            again => match self.store.put(self.store.dead(), &record) {
                Ok(placed) => {
                    let mut rows = placed.rows;
                    rows.extend(again.as_ref().map(|again| again.removal()));
                    store.submit(rows, move || {
                        if let Some(again) = again {
                            again.removed(Outcome::DeadLetter);
                        }
                        end.safe();
                    });
                }
                Err(full) => end.dropped(&no_room(full)),
            },
        }
    }
}

fn no_room(full: Full) -> String {
    format!("the dead-letter store is full: {full}; make room with tidegate dead-letters retry or clear")
}

#[cfg(test)]
mod tests;
