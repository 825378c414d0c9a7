//! The task that has dead letters handled again: a bounded number at a time, in the order in which they were asked for.
//!
//! Fed through a bounded channel with what is claimed already (`letters.rs`). A message goes into its handler's queue, and a
//! publish into its broker's outbox; each leaves the store together with what comes of it, or is kept as its new failure. The task
//! waits for the disk, and for the end of what it has begun. It ends when a stop begins: what it has not begun stays as it is.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Running;
use crate::causes::with_causes;
use crate::path::dispatch::{Job, Tries};
use crate::path::handler::Publish;
use crate::path::kept::{Again, AgainEnd, Claim, DEAD, Failure, Kept, KeptMessage, KeptPublish, Record};
use crate::path::outbox::{Command, DropReason, Dropped, Outboxes, PublishEnd};
use crate::path::receipt::{Outcome, Progress, Receipt};

/// Dead letters that are handled again at the same time: they wait beside what comes, in queues that it may fill.
const AT_ONCE: usize = 64;

/// Dead letters that are to be handled again.
pub type Batch = Vec<Claim>;

/// Has dead letters handled again.
pub struct Retries {
    kept: Kept,
    running: watch::Receiver<Arc<Running>>,
    outboxes: Arc<Outboxes>,
    progress: Arc<Progress>,
    /// Cancelled when a stop begins.
    stopping: CancellationToken,
    /// One for each that is handled again at this moment.
    places: Arc<Semaphore>,
}

/// Why a dead letter that was claimed is not begun after all.
#[derive(Debug, thiserror::Error)]
enum NotBegun {
    #[error("the {0} {1} is not configured any more")]
    Gone(&'static str, Arc<str>),
    #[error("what the broker's outbox holds leaves no room for it")]
    NoRoom(#[source] crate::path::outbox::NoRoom),
    #[error("it cannot be read")]
    Unreadable(#[from] crate::path::kept::RecordError),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error("a step was cut short")]
    Cut(#[from] tokio::task::JoinError),
}

impl Retries {
    /// Retries of what is kept, by what runs, until `stopping`.
    pub fn new(
        kept: Kept,
        running: watch::Receiver<Arc<Running>>,
        outboxes: Arc<Outboxes>,
        progress: Arc<Progress>,
        stopping: CancellationToken,
    ) -> Retries {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        Retries { kept, running, outboxes, progress, stopping, places }
    }

    /// Begins what comes, until a stop.
    pub async fn run(self, mut batches: mpsc::Receiver<Batch>) {
        let stopping = self.stopping.clone();
        // Publishes whose end is waited for; dropped at a stop, they stay kept.
        let mut publishes = JoinSet::new();
        tokio::select! {
            biased;
            () = stopping.cancelled() => {}
            () = self.begin_all(&mut batches, &mut publishes) => {}
        }
    }

    async fn begin_all(&self, batches: &mut mpsc::Receiver<Batch>, publishes: &mut JoinSet<()>) {
        while let Some(batch) = batches.recv().await {
            for claim in batch {
                let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
                while publishes.try_join_next().is_some() {}
                let id = claim.id();
                if let Err(error) = self.begin(claim, place, publishes).await {
                    tracing::warn!(id, error = with_causes(&error), "a dead letter is not handled again, and stays");
                }
            }
        }
        // Nobody asks any more.
        while publishes.join_next().await.is_some() {}
    }

    async fn begin(
        &self,
        claim: Claim,
        place: OwnedSemaphorePermit,
        publishes: &mut JoinSet<()>,
    ) -> Result<(), NotBegun> {
        let (kept, id) = (self.kept.clone(), claim.id());
        // Claimed, it goes only where it was gone already.
        let Some(entry) = tokio::task::spawn_blocking(move || kept.get(DEAD, id)).await?? else { return Ok(()) };
        let record = entry.record?;
        let again = claim.again(entry.weight, move |end| {
            tell(id, &end);
            drop(place);
        });
        match record {
            Record::Parked(message) | Record::DeadLetter(message, _) => self.handle(&message, again),
            Record::Publish(publish, _) => {
                let command = self.publish(&publish)?;
                publishes.spawn(until_published(command, publish, again, self.kept.clone()));
                Ok(())
            }
        }
    }

    /// Gives a message to its handler.
    fn handle(&self, kept: &KeptMessage, again: Arc<Again>) -> Result<(), NotBegun> {
        let running = Arc::clone(&self.running.borrow());
        let broker = running.brokers.iter().find(|broker| broker.config.name == kept.broker);
        let broker = broker.ok_or_else(|| NotBegun::Gone("broker", Arc::clone(&kept.broker)))?;
        let handler = running.handlers.iter().find(|handler| handler.handler().name == kept.handler);
        let handler = handler.ok_or_else(|| NotBegun::Gone("handler", Arc::clone(&kept.handler)))?;
        let (message, subscription) = kept.revive(broker.config.id, Instant::now());
        let receipt = Receipt::again(Arc::clone(&again), Arc::clone(&self.progress));
        let part = receipt.split(1).next().expect("split makes as many parts as it is told");
        handler.queue().push(Job {
            message: Arc::new(message),
            subscription: Arc::new(subscription),
            part,
            limit: Arc::clone(&broker.limit),
            tries: Tries::default(),
            again: Some(again),
        });
        Ok(())
    }

    /// Offers a publish to its broker's outbox.
    fn publish(&self, publish: &KeptPublish) -> Result<Command, NotBegun> {
        let running = Arc::clone(&self.running.borrow());
        let broker = running.brokers.iter().find(|broker| broker.config.name == publish.broker);
        let broker = broker.ok_or_else(|| NotBegun::Gone("broker", Arc::clone(&publish.broker)))?;
        let offer = Publish { broker: broker.config.id, message: publish.message.clone() };
        self.outboxes.publish(offer).map_err(NotBegun::NoRoom)
    }
}

/// Says how a dead letter ended.
fn tell(id: u64, end: &AgainEnd) {
    match end {
        AgainEnd::Gone(outcome) => tracing::info!(id, outcome = outcome.label(), "a dead letter was handled again"),
        AgainEnd::FailedAgain(error) => tracing::warn!(id, error, "a dead letter failed again, and stays"),
        AgainEnd::Stays(outcome) => {
            tracing::warn!(id, outcome = outcome.label(), "a dead letter was not handled again, and stays");
        }
    }
}

/// Waits for the end of a publish, and has the disk follow it.
async fn until_published(mut command: Command, publish: KeptPublish, again: Arc<Again>, kept: Kept) {
    let refusal = match command.end().await {
        PublishEnd::Delivered(_) => {
            let gone = Arc::clone(&again);
            return kept.store().submit(vec![again.removal()], move || gone.removed(Outcome::Handled));
        }
        PublishEnd::Refused(words) => Some(words),
        PublishEnd::Poisoned => None,
        PublishEnd::Dropped(Dropped { reason: DropReason::Expired, .. }) => {
            return again.stays(Outcome::DroppedExpired);
        }
        PublishEnd::Dropped(Dropped { reason: DropReason::Displaced, .. }) => {
            return again.stays(Outcome::DroppedOutboxFull);
        }
        PublishEnd::Purged => return again.stays(Outcome::DroppedPurged),
    };
    let failure = Failure::of_publish(&publish.broker, &publish.message, refusal.as_deref(), SystemTime::now());
    let error = failure.error.clone();
    let (row, weight) = again.replacement(&Record::Publish(publish, failure));
    let replaced = Arc::clone(&again);
    kept.store().submit(vec![row], move || replaced.replaced(weight, error));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{BrokerId, Outgoing, Qos};
    use crate::path::dead_letter::Reason;
    use crate::path::kept::Placed;
    use crate::telemetry::metrics::Metrics;
    use crate::topic::TopicName;

    const PLANT: BrokerId = BrokerId(0);

    /// Publishes a dead letter again, which its broker ends like this; how that is told.
    async fn published(kept: &Kept, id: u64, end: impl FnOnce(&Outboxes)) -> AgainEnd {
        let metrics = Metrics::new().expect("well formed");
        let outboxes = Arc::new(Outboxes::new());
        outboxes.add(PLANT, "plant".into(), Default::default(), metrics.broker("plant"));
        let entry = kept.get(DEAD, id).expect("reads").expect("is there");
        let Ok(Record::Publish(publish, _)) = entry.record else { panic!("it is none") };
        let (sender, told) = tokio::sync::oneshot::channel();
        let claim = kept.claim(kept.dead(), id).expect("is free");
        let again = claim.again(entry.weight, move |end| sender.send(end).expect("is waited for"));
        let offer = Publish { broker: PLANT, message: publish.message.clone() };
        let command = outboxes.publish(offer).expect("there is room");
        end(&outboxes);
        until_published(command, publish, again, kept.clone()).await;
        told.await.expect("is told")
    }

    #[tokio::test]
    async fn a_publish_leaves_the_store_once_its_broker_has_it_and_not_before() {
        let (kept, _store) = Kept::testing();
        let topic = TopicName::new("out/a").expect("is a name");
        let (payload, qos) = (bytes::Bytes::from_static(b"x"), Qos::AtLeastOnce);
        let message = Outgoing { topic, payload, qos, retain: true, properties: None, hops: Some(3) };
        let placed = kept.put_publish(Some("celsius".into()), &"plant".into(), &message, Some("first"));
        let Placed { id, rows } = placed.expect("there is room");
        let (sender, written) = tokio::sync::oneshot::channel();
        kept.store().submit(rows, move || sender.send(()).expect("is waited for"));
        written.await.expect("is written");

        let refused = |outboxes: &Outboxes| {
            let (entry, sent) = outboxes.take_next(PLANT).expect("is unsent");
            assert_eq!(*sent, message);
            outboxes.refused(PLANT, entry, "not authorised");
        };
        let error = "the broker plant refuses the publish to out/a: not authorised";
        assert_eq!(published(&kept, id, refused).await, AgainEnd::FailedAgain(error.to_owned()));
        let record = kept.get(DEAD, id).expect("reads").expect("is there").record;
        let Ok(Record::Publish(publish, failure)) = record else { panic!("{record:?}") };
        assert_eq!((failure.reason, &*failure.error), (Reason::PublishRefused, error));
        assert_eq!((publish.handler.as_deref(), publish.message), (Some("celsius"), message.clone()));

        let removed = |outboxes: &Outboxes| assert_eq!(outboxes.remove(PLANT), 1);
        assert_eq!(published(&kept, id, removed).await, AgainEnd::Stays(Outcome::DroppedPurged));

        let delivered = |outboxes: &Outboxes| {
            let (entry, _) = outboxes.take_next(PLANT).expect("is unsent");
            outboxes.delivered(PLANT, entry, Qos::AtLeastOnce);
        };
        assert_eq!(published(&kept, id, delivered).await, AgainEnd::Gone(Outcome::Handled));
        assert!(kept.get(DEAD, id).expect("reads").is_none());
        assert_eq!(kept.held(DEAD).0.rows, 0);
    }
}
