//! From a received message to the calls that it causes.
//!
//! Fed by the brokers' pollers, which must never wait: everything here is synchronous and bounded. Feeds the handlers' queues.
//! It does no I/O except for the log lines that subscriptions ask for. The routes of a broker belong to its session, which
//! changes them together with what is subscribed, and brings those that hold for a message.

pub mod explain;
pub mod select;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;

use prometheus::Gauge;

use self::explain::explain_domains;
use self::select::{Facts, Places, Selected, domains, select_all};
pub use self::table::RouteTable;
use crate::control::config::model::{OnMessage, Subscription};
use crate::message::{BrokerId, Message, Qos};
use crate::path::dispatch::{HandlerQueue, Job, ParallelLimit, Tries};
use crate::path::receipt::{Outcome, Progress, Receipt};
use crate::path::schedule::Heard;
use crate::path::session::{AckToken, WireCopy};
use crate::telemetry::metrics::BrokerMeters;
use crate::telemetry::received::ReceivedRing;
use crate::telemetry::tap::{Sighting, Tap};
use crate::telemetry::trace::Tracer;

/// What the router needs for one broker. Immutable: other subscriptions are other routes.
pub struct BrokerRoutes {
    /// Which subscriptions match.
    pub table: RouteTable,
    /// The queue of each subscription's handler, by place; none where it has none.
    pub queues: Vec<Option<Arc<HandlerQueue>>>,
    /// When each subscription's last message came, by place.
    pub last_message: Vec<Gauge>,
    /// Where the silence of each subscription ends, by place; none where nobody asks.
    pub heard: Vec<Option<Arc<Heard>>>,
    /// The broker's meters.
    pub meters: Arc<BrokerMeters>,
    /// How many calls may run for its messages: the same for as long as the broker is there.
    pub limit: Arc<ParallelLimit>,
}

/// Routes the messages of all brokers.
pub struct Router {
    progress: Arc<Progress>,
    received: ReceivedRing,
    tracer: Tracer,
    tap: Tap,
    /// Set once, when the daemon stops.
    closed: AtomicBool,
}

impl Router {
    /// A router that counts, keeps and shows what it takes in.
    pub fn new(progress: Arc<Progress>, received: ReceivedRing, tracer: Tracer, tap: Tap) -> Router {
        Router { progress, received, tracer, tap, closed: AtomicBool::new(false) }
    }

    /// Takes a message in, by the routes of its broker. Never waits: what has no room is dropped by policy (QoS 0) or waits
    /// unacknowledged.
    pub fn receive(&self, routes: &BrokerRoutes, message: Message, copy: &WireCopy<'_>, token: Option<AckToken>) {
        let receipt = Receipt::new(Arc::clone(&routes.meters), Arc::clone(&self.progress), message.qos, token);
        if self.closed.load(Ordering::SeqCst) {
            return receipt.finish(Outcome::DroppedShutdown);
        }
        let mut ranked = routes.table.ranked(&message.topic);
        ranked.retain(|place| copy.concerns(*place));
        let subscriptions = routes.table.subscriptions();
        let mut domains = domains(subscriptions, &ranked);
        let counts = |places: &Places| {
            let deciding = |place: &&usize| subscriptions[**place].on_message.is_some() && copy.decides(**place);
            places.iter().find(deciding).is_none_or(|winner| copy.carries(*winner))
        };
        domains.retain(|places| counts(places));
        if domains.is_empty() && !ranked.is_empty() {
            return receipt.finish(Outcome::Copy);
        }
        domains.iter().for_each(|places| routes.mark(&message, places));
        let message = Arc::new(message);
        let sequence = self.received.push(&message);
        let receipt = receipt.traced(self.tracer.begin(sequence, &message));
        self.tap.report(|| Sighting::Received(Arc::clone(&message)));
        let facts = Facts { payload: &message.payload, retain: message.retain };
        if let Some(trace) = receipt.trace() {
            trace.matched(explain_domains(&routes.table, &message.topic, &ranked, &domains, facts));
        }
        match select_all(subscriptions, &domains, routes.table.broker.dispatch, facts) {
            Selected::Unmatched => receipt.finish(Outcome::Unmatched),
            Selected::Filtered => receipt.finish(Outcome::Filtered),
            Selected::Run(places) => routes.run(&message, &places, receipt),
        }
    }

    /// A message came whose topic is no topic name: it is counted and acknowledged, for it would come again for ever.
    pub fn refuse(&self, meters: &Arc<BrokerMeters>, qos: Qos, token: Option<AckToken>) {
        Receipt::new(Arc::clone(meters), Arc::clone(&self.progress), qos, token).finish(Outcome::DroppedInvalid);
    }

    /// From now on nothing is taken in: the daemon stops. QoS ≥ 1 messages stay unacknowledged.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }
}

impl BrokerRoutes {
    fn mark(&self, message: &Message, ranked: &Places) {
        let now = message.received.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        for place in ranked {
            self.last_message[*place].set(now);
            if let Some(heard) = &self.heard[*place] {
                heard.mark(message.arrived);
            }
        }
    }

    fn run(&self, message: &Arc<Message>, places: &Places, receipt: Receipt) {
        for (place, part) in places.iter().zip(receipt.split(places.len())) {
            let subscription = &self.table.subscriptions()[*place];
            match (&subscription.on_message, &self.queues[*place]) {
                (Some(OnMessage::Handler(handler)), Some(queue)) => {
                    if let Some(trace) = part.trace() {
                        trace.queued(&handler.name, &subscription.name);
                    }
                    let (message, subscription) = (Arc::clone(message), Arc::clone(subscription));
                    let (limit, tries) = (Arc::clone(&self.limit), Tries::default());
                    queue.push(Job { message, subscription, part, limit, tries, again: None });
                }
                (Some(OnMessage::Log(template)), _) => {
                    let line = template.render(message, &self.table.broker.name, &subscription.name);
                    tracing::info!(target: "tidegate::on_message", subscription = %subscription.name, "{line}");
                    part.end(Outcome::Logged);
                }
                // `select` chooses only subscriptions with an action, and the gateway gives each handler a queue.
                (Some(OnMessage::Handler(_)) | None, _) => part.end(Outcome::Unmatched),
            }
        }
    }
}

/// The subscriptions of one broker in the order of the configuration: what their places count.
pub fn of_broker(subscriptions: &[Arc<Subscription>], broker: BrokerId) -> Vec<Arc<Subscription>> {
    subscriptions.iter().filter(|subscription| subscription.broker == broker).cloned().collect()
}
