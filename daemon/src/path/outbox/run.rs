//! What a schedule's run does: taken as what a call does for a message, for none.

use super::command::PublishEnd;
use super::owner::Owner;
use super::queue::End;
use super::{Effects, NoRoom, Outboxes, Room, Standing};
use crate::path::schedule::Aftermath;

/// What became of a run's publishes.
#[must_use]
pub enum Offered<'a> {
    /// They are in the outboxes, or have ended.
    Done,
    /// They wait for room.
    Waits(Room<'a>),
    /// An outbox is full and rejects: the run has failed.
    Rejected(NoRoom),
}

impl Outboxes {
    /// Takes what a run did, all or nothing, as [`Outboxes::submit`] does. `accepted` is done once it is sure that no
    /// outbox rejects them; under a lock, so that it must be short.
    pub fn submit_run(&self, effects: Effects, end: Aftermath, accepted: impl FnOnce()) -> Offered<'_> {
        if effects.publishes.is_empty() && effects.commit.is_none() {
            accepted();
            return Offered::Done;
        }
        match self.offer(effects, Owner::Run(end), accepted) {
            Standing::Waits(room) => Offered::Waits(room),
            Standing::Rejected(_, full) => Offered::Rejected(full),
            Standing::In(_) | Standing::Ended => Offered::Done,
        }
    }
}

/// Why something of what a run published is lost, as a clause; none if it is not.
pub(super) fn lost(worst: End, last: &PublishEnd) -> Option<String> {
    let why = match (worst, last) {
        (End::Delivered, _) => return None,
        (End::Refused, PublishEnd::Refused(words)) => return Some(format!("the broker refuses it: {words}")),
        (End::Refused, _) => "the broker refuses it",
        (End::Poisoned, _) => "the broker ends each connection over it",
        (End::Expired, _) => "it was older than max-age of the outbox",
        (End::Displaced, _) => "it made way for a newer publish in the full outbox",
        (End::Purged, _) => "the broker that it was for was removed",
    };
    Some(why.to_owned())
}
