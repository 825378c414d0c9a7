//! Who is told how publishes ended: the message whose call made them, the command, or the schedule.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::admission::{Mode, Terms};
use super::command::PublishEnd;
use super::condemned::Cause;
use super::dead_letter;
use super::effects::Touch;
use super::queue::End;
use super::run;
use crate::path::dead_letter::{Kept, Letter, LetterEnd};
use crate::path::receipt::{Outcome, Part};
use crate::path::schedule::Aftermath;
use crate::path::session::Fate;
use crate::store::Row;
use crate::telemetry::metrics::HandlerMeters;
use crate::telemetry::trace::Trace;

/// Who is told the end of what was offered.
pub(super) enum Owner {
    /// A handler's call.
    Call(Completion),
    /// A publish by command. Its receiver may be gone.
    Command(oneshot::Sender<PublishEnd>),
    /// A schedule's run.
    Run(Aftermath),
    /// A message that failed.
    Letter {
        /// What follows from the end.
        end: LetterEnd,
        /// As that of a call.
        cause: Option<Cause>,
    },
}

impl Owner {
    /// What it is taken by. A call is retried where an outbox rejects it, and an operator asks again; nobody would make a dead
    /// letter again. What is one publish alone is written as it comes in.
    pub(super) fn terms(&self) -> Terms {
        match self {
            Owner::Call(completion) => Terms { mode: Mode::Rejectable, order: completion.order, followed: false },
            Owner::Command(_) => Terms { mode: Mode::Rejectable, order: None, followed: true },
            Owner::Run(_) => Terms { mode: Mode::Rejectable, order: None, followed: false },
            Owner::Letter { .. } => Terms { mode: Mode::Patient, order: None, followed: false },
        }
    }

    /// The handler whose call it is of.
    pub(super) fn handler(&self) -> Option<Arc<str>> {
        match self {
            Owner::Call(completion) => completion.handler.clone(),
            Owner::Letter { end, .. } => Some(Arc::clone(end.handler())),
            Owner::Command(_) | Owner::Run(_) => None,
        }
    }

    /// Of a call whose publishes can hold up its own message.
    pub(super) fn cause(&self) -> Option<Cause> {
        match self {
            Owner::Call(completion) => completion.cause,
            Owner::Letter { cause, .. } => *cause,
            Owner::Command(_) | Owner::Run(_) => None,
        }
    }

    /// Where steps of a call's message are told, if somebody watches it.
    pub(super) fn trace(&self) -> Option<&Arc<Trace>> {
        match self {
            Owner::Call(completion) => completion.part.trace(),
            Owner::Letter { end, .. } => end.part().trace(),
            Owner::Command(_) | Owner::Run(_) => None,
        }
    }

    /// This is written for it, after its publishes to outboxes in memory ended, `worst` of all. A message from the disk of which one
    /// was not taken stays there until its dead letter takes its place.
    pub(super) fn is_written(&self, worst: End, rows: &mut Vec<Row>) {
        if let Owner::Call(Completion { kept: Some(kept), .. }) = self
            && matches!(worst, End::Refused | End::Poisoned)
        {
            kept.stays(rows);
        }
    }

    /// All its publishes have ended, `last` with the last of them; `worst` is the worst end of all. The dead letter that is to
    /// be published for it.
    pub(super) fn end(self, worst: End, last: &PublishEnd) -> Option<Letter> {
        match self {
            Owner::Call(completion) => return completion.end(worst),
            Owner::Letter { end, .. } => dead_letter::ended(end, worst, last),
            Owner::Run(end) => end.end(run::lost(worst, last)),
            // It has one publish alone. An error means that nobody asks any more.
            Owner::Command(told) => {
                let end = if worst == End::Purged { PublishEnd::Purged } else { last.clone() };
                drop(told.send(end));
            }
        }
        None
    }
}

/// What ends once a call's publishes are safe.
pub struct Completion {
    /// The call's part of its message.
    pub part: Part,
    /// Where a publish could hold up the acknowledgement of its own message: see [`Outboxes::cause`](super::Outboxes::cause).
    pub cause: Option<Cause>,
    /// The message, where it becomes a dead letter if a publish is never taken.
    pub kept: Option<Kept>,
    /// When the message arrived.
    pub arrived: Instant,
    /// How the part ends once all is safe.
    pub outcome: Outcome,
    /// What keeps the handler's calls for one topic in order, where their publishes are written to the disk: of the handler, and
    /// of the message's broker and topic.
    pub order: Option<Touch>,
    /// The handler that was called, where one was.
    pub handler: Option<Arc<str>>,
    /// Its meters.
    pub meters: Arc<HandlerMeters>,
}

impl Completion {
    /// Of a call whose message is not kept, and which is over once its publishes are safe.
    pub fn new(part: Part, arrived: Instant, meters: Arc<HandlerMeters>) -> Completion {
        Completion {
            part,
            cause: None,
            kept: None,
            arrived,
            outcome: Outcome::Handled,
            order: None,
            handler: None,
            meters,
        }
    }

    fn end(self, worst: End) -> Option<Letter> {
        let Completion { part, cause: _, kept, arrived, outcome, order: _, handler: _, meters } = self;
        let outcome = match worst {
            End::Delivered => outcome,
            End::Expired => Outcome::DroppedExpired,
            End::Displaced => Outcome::DroppedOutboxFull,
            End::Purged => Outcome::DroppedPurged,
            End::Refused => Outcome::DroppedRefused,
            End::Poisoned => Outcome::DroppedPoisoned,
        };
        // What was configured to be dropped is no failure.
        let failed = matches!(worst, End::Refused | End::Poisoned);
        if failed && part.fate() == Fate::Returned {
            // The copy that the broker sends again fails as well, and it is that one which is told.
            part.end(Outcome::Returned);
            return None;
        }
        if let Some(kept) = kept.filter(|_| failed) {
            return kept.letter(part, outcome);
        }
        meters.end_to_end.observe(arrived.elapsed().as_secs_f64());
        part.end(outcome);
        None
    }
}
