//! Who is told how publishes ended: the message whose call made them, or the command.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::admission::Mode;
use super::command::PublishEnd;
use super::condemned::Cause;
use super::queue::End;
use crate::path::receipt::{Outcome, Part};
use crate::telemetry::metrics::HandlerMeters;
use crate::telemetry::trace::Trace;

/// Who is told the end of what was offered.
pub(super) enum Owner {
    /// A handler's call.
    Call(Completion),
    /// A publish by command. Its receiver may be gone.
    Command(oneshot::Sender<PublishEnd>),
}

impl Owner {
    /// What becomes of it where an outbox rejects what finds no room: a call is retried, and an operator asks again.
    pub(super) fn mode(&self) -> Mode {
        match self {
            Owner::Call(_) | Owner::Command(_) => Mode::Rejectable,
        }
    }

    /// Of a call whose publishes can hold up its own message.
    pub(super) fn cause(&self) -> Option<Cause> {
        match self {
            Owner::Call(completion) => completion.cause,
            Owner::Command(_) => None,
        }
    }

    /// Where steps of a call's message are told, if somebody watches it.
    pub(super) fn trace(&self) -> Option<&Arc<Trace>> {
        match self {
            Owner::Call(completion) => completion.part.trace(),
            Owner::Command(_) => None,
        }
    }

    /// All its publishes have ended, `last` with the last of them; `worst` is the worst end of all.
    pub(super) fn end(self, worst: End, last: &PublishEnd) {
        match self {
            Owner::Call(completion) => completion.end(worst),
            // It has one publish alone. An error means that nobody asks any more.
            Owner::Command(told) => drop(told.send(last.clone())),
        }
    }
}

/// What ends once a call's publishes are safe.
pub struct Completion {
    /// The call's part of its message.
    pub part: Part,
    /// Where a publish could hold up the acknowledgement of its own message: see [`Outboxes::cause`](super::Outboxes::cause).
    pub cause: Option<Cause>,
    /// When the message arrived.
    pub arrived: Instant,
    /// The meters of the handler that was called.
    pub meters: Arc<HandlerMeters>,
}

impl Completion {
    pub(super) fn end(self, worst: End) {
        self.meters.end_to_end.observe(self.arrived.elapsed().as_secs_f64());
        self.part.end(match worst {
            End::Delivered => Outcome::Handled,
            End::Expired => Outcome::DroppedExpired,
            End::Displaced => Outcome::DroppedOutboxFull,
            End::Purged => Outcome::DroppedPurged,
            End::Refused => Outcome::DroppedRefused,
            End::Poisoned => Outcome::DroppedPoisoned,
        });
    }
}
