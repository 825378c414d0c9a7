//! A publish by command: what an operator publishes, from the offer to the broker's answer.
//!
//! Made by the admin plane; its publish goes the way of every other, behind those that wait already. It knows nothing of
//! connecting: what is offered to a broker that is not connected makes its session connect (`path/session`).

use std::sync::Arc;

use tokio::sync::oneshot;

use super::admission::{BatchId, DropReason, Dropped};
use super::owner::Owner;
use super::queue::End;
use super::{NoRoom, Outboxes, Standing};
use crate::message::{BrokerId, Qos};
use crate::path::handler::Publish;

/// How a publish reached its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishEnd {
    /// The broker has it: acknowledged, at QoS 0 written. As it was sent, which may be less than was asked for.
    Delivered(Qos),
    /// The broker will never take it: its reason, in plain words.
    Refused(String),
    /// The broker ended one connection after the other over it.
    Poisoned,
    /// The outbox dropped it; the broker does not have it, unless it was tried before.
    Dropped(Dropped),
    /// It was taken out before the broker had it: the broker was removed.
    Purged,
}

impl PublishEnd {
    /// Without its particulars.
    pub(super) fn kind(&self) -> End {
        match self {
            PublishEnd::Delivered(_) => End::Delivered,
            PublishEnd::Refused(_) => End::Refused,
            PublishEnd::Poisoned => End::Poisoned,
            PublishEnd::Dropped(Dropped { reason: DropReason::Expired, .. }) => End::Expired,
            PublishEnd::Dropped(Dropped { reason: DropReason::Displaced, .. }) => End::Displaced,
            PublishEnd::Purged => End::Purged,
        }
    }
}

/// A publish by command. Dropped while it waits for room it is withdrawn; once it is in the outbox it stays there.
pub struct Command {
    outboxes: Arc<Outboxes>,
    broker: BrokerId,
    /// None where it ended with its offer.
    batch: Option<BatchId>,
    told: oneshot::Receiver<PublishEnd>,
    end: Option<PublishEnd>,
}

impl Outboxes {
    /// Publishes by command: behind what waits for this broker already, in the outbox or for room in it.
    ///
    /// # Errors
    /// The outbox has no room, and its broker's `when-full` is `reject`.
    pub fn publish(self: &Arc<Self>, publish: Publish) -> Result<Command, NoRoom> {
        let (sender, told) = oneshot::channel();
        let broker = publish.broker;
        let batch = match self.offer(vec![publish].into(), Owner::Command(sender), || {}) {
            Standing::In(batch) => Some(batch),
            Standing::Ended => None,
            Standing::Waits(room) => Some(room.left_to_its_owner()),
            Standing::Rejected(_, full) => return Err(full),
        };
        Ok(Command { outboxes: Arc::clone(self), broker, batch, told, end: None })
    }
}

impl Command {
    /// Waits for its end; what a broker does not take for now is sent again, and goes on waiting. Cancellation safe, and
    /// says the same again when asked again.
    pub async fn end(&mut self) -> PublishEnd {
        if self.end.is_none() {
            // The other side goes without a word only where the publish was taken back.
            self.end = Some((&mut self.told).await.unwrap_or(PublishEnd::Purged));
        }
        self.end.clone().unwrap_or(PublishEnd::Purged)
    }

    /// Takes the publish back, unless it was sent: then the broker has it or may have it, or gets it again. Whether it was
    /// taken back, so that the broker surely never gets it.
    pub fn take_back(&mut self) -> bool {
        self.batch.is_some_and(|batch| self.outboxes.take_back(batch, self.broker))
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        if let Some(batch) = self.batch {
            self.outboxes.withdraw(batch);
        }
    }
}
