//! One message's way, live: what `tidegate trace` shows.
//!
//! Owns who watches. Asked by the router about each message, which costs one atomic load while nobody watches; a message that
//! somebody watches carries a [`Trace`] from its receipt to its end, and the router, the handlers and the outboxes add steps to it.
//! Read by the admin plane. It never holds up the path: who reads slowly misses steps and is told how many.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use smallvec::SmallVec;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::wanted::Wanted;
use crate::brokers::BrokerNames;
use crate::control::admin::resource::{PublishResult, Step, TraceStep};
use crate::message::{BrokerId, Message, Outgoing};
use crate::path::handler::{CallError, CallResult, Publish};
use crate::path::outbox::{DropReason, Dropped, NoRoom, PublishEnd};
use crate::path::receipt::Outcome;
use crate::path::router::explain::Explanation;
use crate::topic::TopicName;

/// Steps that wait for one who watches; past it steps are missed.
const CAPACITY: usize = 1024;

/// Bytes of a topic, and of what others say, in a step: with [`CAPACITY`] they bound what a slow reader costs.
const LONGEST_TEXT: usize = 1024;

/// Who watches. Cheap to clone; clones share the watches.
#[derive(Clone)]
pub struct Tracer(Arc<Shared>);

struct Shared {
    names: BrokerNames,
    /// As many as there are in `watches`, so that the path need not look.
    watching: AtomicUsize,
    watches: Mutex<Watches>,
}

#[derive(Default)]
struct Watches {
    list: Vec<Registered>,
    /// The number of the next one.
    next: u64,
}

/// A watch that takes on further messages.
struct Registered {
    number: u64,
    wanted: Wanted,
    /// Messages that it still takes on; none is without end.
    left: Option<u32>,
    channel: Channel,
}

/// Where the steps for one watch go. Held by the tracer while the watch takes on messages, and by each message's trace: when
/// the last goes, the watch ends.
#[derive(Clone)]
struct Channel {
    steps: mpsc::Sender<(u64, TraceStep)>,
    /// Steps so far, those that were missed included. Locked while one is sent, so that they are numbered in their order.
    told: Arc<Mutex<u64>>,
}

impl Channel {
    fn tell(&self, step: TraceStep) {
        let mut told = locked(&self.told);
        // A full channel is seen in the numbers. A closed one has nobody who misses anything.
        let _ = self.steps.try_send((*told, step));
        *told += 1;
    }
}

impl Tracer {
    /// Nobody watches yet. Brokers are told by these names.
    pub fn new(names: BrokerNames) -> Tracer {
        Tracer(Arc::new(Shared { names, watching: AtomicUsize::new(0), watches: Mutex::default() }))
    }

    /// Watches the next `count` messages that are wanted, or all from now on. The watch ends when it is dropped.
    pub fn watch(&self, wanted: Wanted, count: Option<u32>) -> Watch {
        let (sender, steps) = mpsc::channel(CAPACITY);
        let told = Arc::new(Mutex::new(0));
        let mut watches = locked(&self.0.watches);
        let number = watches.next;
        watches.next += 1;
        if count != Some(0) {
            let channel = Channel { steps: sender, told: Arc::clone(&told) };
            watches.list.push(Registered { number, wanted, left: count, channel });
        }
        self.counted(&watches);
        Watch { tracer: self.clone(), number, steps, told, expected: 0, behind: None }
    }

    /// The trace of a message that is received now, if somebody watches it.
    pub fn begin(&self, sequence: u64, message: &Message) -> Option<Arc<Trace>> {
        if self.0.watching.load(Ordering::Acquire) == 0 {
            return None;
        }
        let channels = self.choose(message);
        if channels.is_empty() {
            return None;
        }
        let names = self.0.names.clone();
        let trace = Trace { sequence, received: message.received, arrived: message.arrived, names, channels };
        trace.received(message);
        Some(Arc::new(trace))
    }

    /// Where a message's steps go.
    fn choose(&self, message: &Message) -> SmallVec<[Channel; 1]> {
        let mut channels = SmallVec::new();
        let mut watches = locked(&self.0.watches);
        watches.list.retain_mut(|watch| {
            if !watch.wanted.matches(message) {
                return true;
            }
            channels.push(watch.channel.clone());
            watch.left = watch.left.map(|left| left - 1);
            watch.left != Some(0)
        });
        self.counted(&watches);
        channels
    }

    fn counted(&self, watches: &Watches) {
        self.0.watching.store(watches.list.len(), Ordering::Release);
    }
}

/// The way of one message that somebody watches. Each method adds a step.
pub struct Trace {
    sequence: u64,
    received: SystemTime,
    arrived: Instant,
    names: BrokerNames,
    channels: SmallVec<[Channel; 1]>,
}

impl Trace {
    fn received(&self, message: &Message) {
        self.tell(Step::Received {
            broker: self.name(message.broker),
            topic: cut(message.topic.as_str()),
            qos: message.qos.number(),
            retain: message.retain,
            dup: message.dup,
            bytes: message.payload.len() as u64,
        });
    }

    /// These subscriptions match.
    pub fn matched(&self, explanation: Explanation) {
        let Explanation { outcome, mut subscriptions, .. } = explanation;
        for capture in subscriptions.iter_mut().flat_map(|candidate| &mut candidate.captures) {
            *capture = cut(capture);
        }
        self.tell(Step::Matched { outcome, subscriptions });
    }

    /// It goes into a handler's queue. To be told before it does: the call may begin at once.
    pub fn queued(&self, handler: &str, subscription: &str) {
        self.tell(Step::Queued { handler: handler.to_owned(), subscription: subscription.to_owned() });
    }

    /// A handler is called.
    pub fn call_begins(&self, handler: &str, subscription: &str, version: String, attempt: u32) {
        let (handler, subscription) = (handler.to_owned(), subscription.to_owned());
        self.tell(Step::CallBegins { handler, subscription, version, attempt });
    }

    /// The handler that is called publishes.
    pub fn held_back(&self, handler: &str, publish: &Publish) {
        let Publish { broker, message } = publish;
        self.tell(Step::HeldBack {
            handler: handler.to_owned(),
            broker: self.name(*broker),
            topic: cut(message.topic.as_str()),
            qos: message.qos.number(),
            retain: message.retain,
            bytes: message.payload.len() as u64,
        });
    }

    /// The handler that is called must not publish this.
    pub fn denied(&self, handler: &str, broker: Option<String>, topic: String, reason: String) {
        self.tell(Step::Denied { handler: handler.to_owned(), broker, topic, reason });
    }

    /// So many more publishes of the call were denied.
    pub fn denied_more(&self, handler: &str, publishes: u64) {
        self.tell(Step::DeniedMore { handler: handler.to_owned(), publishes });
    }

    /// The call has ended.
    pub fn call_ended(&self, handler: &str, result: &Result<Vec<Publish>, CallError>, took: Duration) {
        let (label, error, publishes) = match result {
            Ok(publishes) => (CallResult::Ok, None, publishes.len() as u64),
            Err(error) => (error.result(), Some(cut(&error.to_string())), 0),
        };
        let (handler, result) = (handler.to_owned(), label.label().to_owned());
        self.tell(Step::CallEnded { handler, result, error, took: micros(took), publishes });
    }

    /// It came from so many calls that the handler is not called.
    pub fn goes_in_a_circle(&self, handler: &str, hops: u8) {
        self.tell(Step::GoesInACircle { handler: handler.to_owned(), hops });
    }

    /// The call failed, and is made again after so long.
    pub fn waits_for_retry(&self, handler: &str, wait: Duration) {
        self.tell(Step::WaitsForRetry { handler: handler.to_owned(), wait: micros(wait) });
    }

    /// Another call changed what the call read before it ended.
    pub fn overtaken(&self, handler: &str) {
        self.tell(Step::Overtaken { handler: handler.to_owned() });
    }

    /// Its dead letter is to be published. To be told before it waits for room.
    pub fn dead_letter(&self, handler: &str, broker: BrokerId, topic: &TopicName, reason: &str) {
        let (broker, topic) = (self.name(broker), cut(topic.as_str()));
        self.tell(Step::DeadLetter { handler: handler.to_owned(), broker, topic, reason: reason.to_owned() });
    }

    /// Its dead letter is to be kept in the store. To be told before it is written.
    pub fn kept_dead_letter(&self, handler: &str, reason: &str) {
        self.tell(Step::KeptDeadLetter { handler: handler.to_owned(), reason: reason.to_owned() });
    }

    /// There is no dead letter of it, for this reason in plain words.
    pub fn no_dead_letter(&self, handler: &str, why: &str) {
        self.tell(Step::NoDeadLetter { handler: handler.to_owned(), reason: cut(why) });
    }

    /// What a call published waits for room.
    pub fn waits_for_room(&self, publishes: usize) {
        self.tell(Step::WaitsForRoom { publishes: publishes as u64 });
    }

    /// An outbox has no room for what a call published, and rejects it.
    pub fn no_room(&self, publishes: usize, full: &NoRoom) {
        self.tell(Step::NoRoom { publishes: publishes as u64, reason: cut(&full.to_string()) });
    }

    /// What a call published is in the outboxes. To be told before any of it can leave.
    pub fn admitted(&self, publishes: usize) {
        self.tell(Step::Admitted { publishes: publishes as u64 });
    }

    /// A publish has reached its end.
    pub fn published(&self, broker: BrokerId, message: &Outgoing, end: &PublishEnd) {
        let (result, qos, reason) = match end {
            PublishEnd::Delivered(qos) => (PublishResult::Delivered, Some(qos.number()), None),
            PublishEnd::Refused(reason) => (PublishResult::Refused, None, Some(cut(reason))),
            PublishEnd::Poisoned => (PublishResult::Poisoned, None, None),
            PublishEnd::Purged => (PublishResult::Purged, None, None),
            PublishEnd::Dropped(Dropped { reason: DropReason::Expired, .. }) => (PublishResult::Expired, None, None),
            PublishEnd::Dropped(Dropped { reason: DropReason::Displaced, .. }) => {
                (PublishResult::Displaced, None, None)
            }
        };
        let (broker, topic) = (self.name(broker), cut(message.topic.as_str()));
        self.tell(Step::Published { broker, topic, result, qos, reason });
    }

    /// A publish is safe on the disk of this machine; the message ends without waiting for its broker.
    pub fn kept_on_disk(&self, broker: BrokerId, message: &Outgoing) {
        let (broker, topic) = (self.name(broker), cut(message.topic.as_str()));
        self.tell(Step::Published { broker, topic, result: PublishResult::Kept, qos: None, reason: None });
    }

    /// The message has ended: the last step.
    pub fn ended(&self, outcome: Outcome) {
        self.tell(Step::Ended { outcome: outcome.label().to_owned() });
    }

    fn name(&self, broker: BrokerId) -> String {
        self.names.name(broker).to_string()
    }

    fn tell(&self, step: Step) {
        let elapsed = self.arrived.elapsed();
        let time = humantime::format_rfc3339_micros(self.received + elapsed).to_string();
        let step = TraceStep { sequence: self.sequence, time, elapsed: micros(elapsed), step };
        self.channels.iter().for_each(|channel| channel.tell(step.clone()));
    }
}

/// A text as a step holds it: cut where it is very long, with a note of how much is missing.
fn cut(text: &str) -> String {
    let kept = &text[..text.floor_char_boundary(LONGEST_TEXT)];
    match text.len() - kept.len() {
        0 => kept.to_owned(),
        more => format!("{kept}… ({more} bytes more)"),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What one who watches is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// A step of some message. Steps of several messages alternate; those of one are in their order.
    Step(TraceStep),
    /// So many steps came here faster than they were read.
    Missed(u64),
}

/// Steps of the messages that somebody watches.
pub struct Watch {
    tracer: Tracer,
    number: u64,
    steps: mpsc::Receiver<(u64, TraceStep)>,
    told: Arc<Mutex<u64>>,
    /// The number of the step that is told of next.
    expected: u64,
    /// The step behind a gap that was told.
    behind: Option<TraceStep>,
}

impl Watch {
    /// The next step; none once all the messages that were asked for have ended. Cancellation safe.
    pub async fn next(&mut self) -> Option<Watched> {
        if let Some(step) = self.behind.take() {
            self.expected += 1;
            return Some(Watched::Step(step));
        }
        match self.next_now() {
            Ok(watched) => Some(watched),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) => match self.steps.recv().await {
                Some((number, step)) => Some(self.told(number, step)),
                // The last step may have been missed meanwhile.
                None => self.next_now().ok(),
            },
        }
    }

    /// What there is without waiting. What was missed is told also where nothing came behind it.
    fn next_now(&mut self) -> Result<Watched, TryRecvError> {
        let told = Arc::clone(&self.told);
        // While it is locked nothing is sent: a step that is counted and not in the channel was missed.
        let told = locked(&told);
        match self.steps.try_recv() {
            Ok((number, step)) => Ok(self.told(number, step)),
            Err(_) if *told > self.expected => Ok(self.missed(*told)),
            Err(none) => Err(none),
        }
    }

    fn told(&mut self, number: u64, step: TraceStep) -> Watched {
        if number > self.expected {
            self.behind = Some(step);
            return self.missed(number);
        }
        self.expected += 1;
        Watched::Step(step)
    }

    fn missed(&mut self, number: u64) -> Watched {
        let missed = number - self.expected;
        self.expected = number;
        Watched::Missed(missed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watches = locked(&self.tracer.0.watches);
        watches.list.retain(|watch| watch.number != self.number);
        self.tracer.counted(&watches);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under these locks leaves nothing half done: a list that lost an entry, or a count.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::received::testing::of_broker;
    use crate::topic::TopicFilter;

    fn tracer() -> Tracer {
        let names = BrokerNames::default();
        names.number("plant");
        names.number("cloud");
        Tracer::new(names)
    }

    fn begin(tracer: &Tracer, sequence: u64, topic: &str) -> Option<Arc<Trace>> {
        tracer.begin(sequence, &of_broker(0, topic, 3))
    }

    fn wanted(topic: &str) -> Wanted {
        Wanted { broker: None, topic: Some(TopicFilter::new(topic).expect("valid")) }
    }

    /// What a watch says now, and whether it has ended.
    fn said(watch: &mut Watch) -> (Vec<Watched>, bool) {
        let mut said = Vec::new();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        loop {
            let next = std::pin::pin!(watch.next());
            match next.poll(&mut context) {
                std::task::Poll::Ready(Some(watched)) => said.push(watched),
                std::task::Poll::Ready(None) => return (said, true),
                std::task::Poll::Pending => return (said, false),
            }
        }
    }

    fn sequences(watch: &mut Watch) -> (Vec<u64>, bool) {
        let (said, ended) = said(watch);
        let sequence = |said| match said {
            Watched::Step(step) => step.sequence,
            Watched::Missed(missed) => panic!("{missed} steps are missed"),
        };
        (said.into_iter().map(sequence).collect(), ended)
    }

    #[test]
    fn a_message_that_nobody_watches_has_no_trace() {
        let tracer = tracer();
        assert!(begin(&tracer, 1, "a").is_none());
        let watch = tracer.watch(wanted("a/+"), None);
        assert!(begin(&tracer, 2, "a").is_none());
        assert!(begin(&tracer, 3, "a/b").is_some());
        drop(watch);
        assert!(begin(&tracer, 4, "a/b").is_none());
        assert_eq!(tracer.0.watching.load(Ordering::Acquire), 0);
        let of_cloud = Wanted { broker: Some(BrokerId(1)), topic: None };
        let _watch = tracer.watch(of_cloud, None);
        assert!(begin(&tracer, 5, "a").is_none());
        assert!(tracer.begin(6, &of_broker(1, "a", 1)).is_some());
    }

    #[test]
    fn steps_come_in_their_order_with_their_time() {
        let tracer = tracer();
        let mut watch = tracer.watch(wanted("a/#"), Some(1));
        let trace = begin(&tracer, 7, "a/b").expect("is watched");
        trace.queued("celsius", "first");
        trace.call_begins("celsius", "first", "0123".to_owned(), 1);
        let error = Err(CallError::Reject("no".to_owned()));
        trace.call_ended("celsius", &error, Duration::from_micros(250));
        trace.ended(Outcome::DroppedFailed);
        drop(trace);
        let mut steps = Vec::new();
        while let Ok(Watched::Step(step)) = watch.next_now() {
            steps.push(step);
        }
        assert!(steps.is_sorted_by_key(|step| step.elapsed));
        for step in &mut steps {
            let at = SystemTime::UNIX_EPOCH + Duration::from_micros(step.elapsed);
            assert_eq!(step.time, humantime::format_rfc3339_micros(at).to_string());
            (step.time, step.elapsed) = (String::new(), 0);
        }
        let step = |rest: serde_json::Value| {
            let mut step = serde_json::json!({ "sequence": 7, "time": "", "elapsed": 0 });
            step.as_object_mut().expect("an object").extend(rest.as_object().expect("an object").clone());
            step
        };
        let expected = [
            step(serde_json::json!({
                "step": "received", "broker": "plant", "topic": "a/b", "qos": 1, "retain": false, "dup": false, "bytes": 3,
            })),
            step(serde_json::json!({ "step": "queued", "handler": "celsius", "subscription": "first" })),
            step(serde_json::json!({
                "step": "call-begins", "handler": "celsius", "subscription": "first", "version": "0123", "attempt": 1,
            })),
            step(serde_json::json!({
                "step": "call-ended", "handler": "celsius", "result": "reject",
                "error": "the handler rejected the message: no", "took": 250, "publishes": 0,
            })),
            step(serde_json::json!({ "step": "ended", "outcome": "dropped_failed" })),
        ];
        assert_eq!(serde_json::to_value(&steps).expect("becomes JSON"), serde_json::json!(expected));
        let read: Vec<TraceStep> = serde_json::from_value(serde_json::json!(expected)).expect("is read back");
        assert_eq!(read, steps);
    }

    #[test]
    fn a_watch_ends_with_the_last_of_its_messages() {
        let tracer = tracer();
        let mut watch = tracer.watch(wanted("a"), Some(2));
        let first = begin(&tracer, 1, "a").expect("is watched");
        assert!(begin(&tracer, 2, "b").is_none());
        let second = begin(&tracer, 3, "a").expect("is watched");
        assert!(begin(&tracer, 4, "a").is_none());
        assert_eq!(sequences(&mut watch), (vec![1, 3], false));
        drop(second);
        first.ended(Outcome::Handled);
        assert_eq!(sequences(&mut watch), (vec![1], false));
        drop(first);
        assert_eq!(sequences(&mut watch), (vec![], true));
        assert_eq!(sequences(&mut tracer.watch(wanted("a"), Some(0))), (vec![], true));
    }

    #[test]
    fn a_long_topic_is_cut() {
        assert_eq!(cut(&"x".repeat(LONGEST_TEXT)), "x".repeat(LONGEST_TEXT));
        assert_eq!(cut(&"é".repeat(LONGEST_TEXT)), format!("{}… (1024 bytes more)", "é".repeat(LONGEST_TEXT / 2)));
        let tracer = tracer();
        let mut watch = tracer.watch(wanted("#"), None);
        begin(&tracer, 1, &"x".repeat(65_535));
        let (said, _) = said(&mut watch);
        let [Watched::Step(TraceStep { step: Step::Received { topic, .. }, .. })] = said.as_slice() else {
            panic!("{said:?}")
        };
        assert_eq!(topic.len(), LONGEST_TEXT + "… (64511 bytes more)".len());
    }

    #[test]
    fn each_who_watches_is_told() {
        let tracer = tracer();
        let (mut all, mut some) = (tracer.watch(wanted("#"), None), tracer.watch(wanted("a"), Some(1)));
        for (sequence, topic) in [(1, "b"), (2, "a"), (3, "a")] {
            begin(&tracer, sequence, topic).expect("is watched").ended(Outcome::Logged);
        }
        assert_eq!(sequences(&mut all), (vec![1, 1, 2, 2, 3, 3], false));
        assert_eq!(sequences(&mut some), (vec![2, 2], true));
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_a_step_and_by_the_end() {
        let tracer = tracer();
        let mut watch = tracer.watch(wanted("a"), Some(1));
        let waiting = tokio::spawn(async move {
            let mut count = 0;
            while watch.next().await.is_some() {
                count += 1;
            }
            count
        });
        tokio::task::yield_now().await;
        let trace = begin(&tracer, 1, "a").expect("is watched");
        tokio::task::yield_now().await;
        trace.ended(Outcome::Handled);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(trace);
        let told = tokio::time::timeout(Duration::from_secs(40), waiting).await.expect("is woken").expect("ends");
        assert_eq!(told, 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        /// However slowly somebody reads: each step is told once, in its order, or counted as missed in its place, the last ones too.
        #[test]
        fn a_slow_one_is_told_what_it_missed(bursts in prop::collection::vec(prop_oneof![1u64..20, 900u64..2100], 1..6)) {
            let tracer = tracer();
            let mut watch = tracer.watch(wanted("a"), Some(1));
            let trace = begin(&tracer, 1, "a").expect("is watched");
            let (mut told, mut expected) = (1, 0);
            for burst in bursts {
                (0..burst).for_each(|step| trace.admitted((told + step) as usize));
                told += burst;
                let room = expected + CAPACITY as u64;
                for said in said(&mut watch).0 {
                    match said {
                        Watched::Step(TraceStep { step: Step::Admitted { publishes }, .. }) => {
                            prop_assert_eq!(publishes, expected);
                        }
                        Watched::Step(TraceStep { step, .. }) => prop_assert!(expected == 0 && matches!(step, Step::Received { .. }), "misplaced"),
                        Watched::Missed(missed) => {
                            prop_assert_eq!(expected, room);
                            expected += missed - 1;
                        }
                    }
                    expected += 1;
                }
                prop_assert_eq!(expected, told);
            }
            drop(trace);
            prop_assert!(said(&mut watch).1);
        }
    }
}
