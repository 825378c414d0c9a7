//! Dead letters on their way through the outboxes.
//!
//! A dead letter is a batch of one publish. From a runner it waits for room as a call's publishes do. Where a publish has reached
//! its end nothing may wait: there the dead letter of a message that is acknowledged is left to the outboxes, since its broker's
//! receive window bounds how many there can be; that of a QoS 0 message is dropped where there is no room.

use super::command::PublishEnd;
use super::owner::Owner;
use super::queue::{End, EntryId};
use super::state::State;
use super::{Outboxes, Room, Standing};
use crate::message::{BrokerId, Qos};
use crate::path::dead_letter::{Letter, LetterEnd};

impl Outboxes {
    /// Puts a dead letter into its outbox; who waits where there is no room. Its message ends once it is safe, or never will
    /// be.
    pub fn submit_letter(&self, letter: Letter) -> Option<Room<'_>> {
        let Letter { publish, end } = letter;
        let publishes = vec![publish];
        let cause = self.cause(end.message(), &publishes);
        match self.offer(publishes, Owner::Letter { end, cause }, || {}) {
            Standing::Waits(room) => Some(room),
            // A dead letter is not rejected.
            Standing::In(_) | Standing::Ended | Standing::Rejected(..) => None,
        }
    }

    /// The same, where nobody can wait.
    pub(super) fn post(&self, letter: Letter) {
        let waits = letter.end.message().qos != Qos::AtMostOnce;
        let Some(room) = self.submit_letter(letter) else { return };
        if waits {
            return room.leave();
        }
        let batch = room.batch;
        room.leave();
        if let Some(Owner::Letter { end, .. }) = self.recall(batch) {
            end.dropped("there is no room in the outbox");
        }
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
