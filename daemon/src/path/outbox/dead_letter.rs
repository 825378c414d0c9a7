//! Dead letters on their way through the outboxes.
//!
//! A dead letter is a batch of one publish. From a runner it waits for room as a call's publishes do. Where a publish has reached
//! its end nothing may wait: there the dead letter of a message that is acknowledged is left to the outboxes, since its broker's
//! receive window bounds how many there can be; that of a QoS 0 message is dropped where there is no room. What a broker sends
//! again after a lost connection gets its dead letter then, so that the windows of many connections do not add up.

use std::collections::VecDeque;
use std::sync::{MutexGuard, PoisonError};

use super::command::PublishEnd;
use super::owner::Owner;
use super::queue::{End, EntryId};
use super::state::State;
use super::{BatchId, Outboxes, Room, Standing};
use crate::message::{BrokerId, Qos};
use crate::path::dead_letter::{Letter, LetterEnd};
use crate::path::receipt::Part;
use crate::path::session::Fate;

/// Dead letters of publishes that have reached their end. One that is published may displace others, whose messages become dead
/// letters in turn: they are published one after the other, not one within the other, so that the stack does not grow with them.
#[derive(Default)]
pub(super) struct Due {
    letters: VecDeque<Letter>,
    /// Somebody publishes them. Written by who does, for as long as there are any.
    busy: bool,
}

impl Outboxes {
    /// Puts a dead letter into its outbox; who waits where there is no room. Its message ends once it is safe, or never will
    /// be.
    pub fn submit_letter(&self, letter: Letter) -> Option<Room<'_>> {
        let Letter { publish, end } = letter;
        let publishes = vec![publish];
        let cause = self.cause(end.message(), &publishes);
        match self.offer(publishes.into(), Owner::Letter { end, cause }, || {}) {
            Standing::Waits(room) => Some(room),
            // A dead letter is not rejected.
            Standing::In(_) | Standing::Ended | Standing::Rejected(..) => None,
        }
    }

    /// The same, where nobody can wait.
    pub(super) fn post(&self, letter: Letter) {
        {
            let mut due = self.due();
            due.letters.push_back(letter);
            if std::mem::replace(&mut due.busy, true) {
                return;
            }
        }
        let _busy = Busy(self);
        while let Some(letter) = self.next_due() {
            self.post_one(letter);
        }
    }

    fn next_due(&self) -> Option<Letter> {
        let mut due = self.due();
        let letter = due.letters.pop_front();
        due.busy = letter.is_some();
        letter
    }

    fn post_one(&self, letter: Letter) {
        let waits = letter.end.message().qos != Qos::AtMostOnce;
        let Some(room) = self.submit_letter(letter) else { return };
        let batch = room.left_to_its_owner();
        if !waits {
            let letters = self.recall_letter(batch);
            letters.for_each(|end| end.dropped("there is no room in the outbox"));
        }
    }

    /// The fate of a lost connection's messages is known: nothing is kept any more of those that the broker sends again, and
    /// their dead letters that wait for room are taken back.
    pub fn fate_decided(&self) {
        let returned = |part: &Part| part.fate() == Fate::Returned;
        let (kept, letters) = {
            let mut state = self.lock();
            let (inside, waiting) = state.admission.tags();
            let kept = inside.filter_map(|owner| match owner {
                Owner::Call(completion) if returned(&completion.part) => completion.kept.take(),
                Owner::Call(_) | Owner::Letter { .. } | Owner::Command(_) | Owner::Run(_) => None,
            });
            let letters = waiting.filter_map(|(batch, owner)| match owner {
                Owner::Letter { end, .. } if returned(end.part()) => Some(batch),
                Owner::Call(_) | Owner::Letter { .. } | Owner::Command(_) | Owner::Run(_) => None,
            });
            (kept.collect::<Vec<_>>(), letters.collect::<Vec<_>>())
        };
        // Outside the lock: what was kept may be the last of a large message.
        drop(kept);
        for batch in letters {
            self.recall_letter(batch).for_each(LetterEnd::returned);
        }
    }

    /// Takes back a dead letter that waits for room: its end, unless it is in. Nothing rests on it.
    fn recall_letter(&self, batch: BatchId) -> impl Iterator<Item = LetterEnd> {
        self.recall(batch).into_iter().filter_map(|(_, owner)| match owner {
            Owner::Letter { end, .. } => Some(end),
            Owner::Call(_) | Owner::Command(_) | Owner::Run(_) => None,
        })
    }

    fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Notes with a call's message that one of its publishes is not taken, for the sentence of its dead letter.
    pub(super) fn blame(&mut self, broker: BrokerId, entry: EntryId, end: &PublishEnd) {
        let refusal = match end {
            PublishEnd::Refused(words) => Some(&**words),
            PublishEnd::Poisoned => None,
            PublishEnd::Delivered(_) | PublishEnd::Dropped(_) | PublishEnd::Purged => return,
        };
        let Some(message) = self.admission.outbox(broker).message(entry).cloned() else { return };
        if let Some(Owner::Call(completion)) = self.admission.tag_mut(broker, entry)
            && let Some(kept) = &mut completion.kept
        {
            kept.blame(broker, &message, refusal);
        }
    }
}

/// Lets others publish what is due where a panic, a defect of the daemon, keeps this one from it.
struct Busy<'a>(&'a Outboxes);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.due().busy = false;
        }
    }
}

/// A dead letter has reached its end.
pub(super) fn ended(end: LetterEnd, worst: End, last: &PublishEnd) {
    match (worst, last) {
        (End::Delivered, _) => end.safe(),
        (End::Expired, _) => end.dropped("it was older than max-age of the outbox"),
        (End::Displaced, _) => end.dropped("it made way for a newer publish in the full outbox"),
        (End::Purged, _) => end.dropped("the broker that it was for was removed"),
        (End::Refused, PublishEnd::Refused(words)) => end.dropped(&format!("the broker refuses it: {words}")),
        (End::Refused, _) => end.dropped("the broker refuses it"),
        (End::Poisoned, _) => end.dropped("the broker ends each connection over it"),
    }
}
