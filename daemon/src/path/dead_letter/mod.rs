//! Dead letters: what becomes of a message whose calls have failed for good, or whose call's publishes are never taken.
//!
//! Owns: whether there is a dead letter, and how the message ends with it. Fed by a handler's runners, and by the outboxes where
//! a publish is refused; feeds the outboxes where it is published, which tell the end, and the store where it is kept
//! (`keep.rs`). `letter.rs` has what one looks like. A dead letter never begets another: one that fails, or that came in again
//! and fails, ends its message. It decides nothing about attempts.

mod keep;
mod letter;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tracing::field::display;

use self::letter::Failed;
pub use self::letter::Reason;
use crate::brokers::BrokerNames;
use crate::control::config::model::{Config, DeadLetterTopic, Handler, Protocol, Subscription};
use crate::message::{BrokerId, Message, Outgoing, Qos};
use crate::path::dispatch::GivenUp;
use crate::path::handler::{CallError, Publish};
use crate::path::kept::{self, Again};
use crate::path::receipt::{Outcome, Part};
use crate::store::Row;
use crate::telemetry::metrics::HandlerMeters;
use crate::telemetry::occasional::Occasional;
use crate::topic::TopicName;

/// How often a handler's dead letters that could not be kept are said, at most.
const DROP_SAID: Duration = Duration::from_millis(100);

/// Which topics have dead letters, and what the brokers speak, as it is configured now. Cheap to clone; clones share it. Written
/// by the gateway at each change; read only where something has failed.
#[derive(Clone, Default)]
pub struct Places(Arc<RwLock<Known>>);

#[derive(Default)]
struct Known {
    topics: HashSet<(BrokerId, TopicName)>,
    protocols: HashMap<BrokerId, Protocol>,
}

impl Places {
    /// This configuration holds from now on.
    pub fn configure(&self, config: &Config) {
        let topics = config.handlers.iter().filter_map(|handler| handler.dead_letter.as_ref());
        let known = Known {
            topics: topics.map(|place| (place.broker, place.topic.clone())).collect(),
            protocols: config.brokers.iter().map(|broker| (broker.id, broker.protocol)).collect(),
        };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// Whether a message is a dead letter: by its topic, or by what it carries. Dead letters may still come from a topic that was one
    /// for them before a change.
    fn is_dead_letter(&self, message: &Message) -> bool {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        letter::is_marked(message) || known.topics.contains(&(message.broker, message.topic.clone()))
    }

    /// What a broker speaks; of one that is gone it does not matter.
    fn protocol(&self, broker: BrokerId) -> Protocol {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.protocols.get(&broker).copied().unwrap_or(Protocol::V5)
    }
}

/// The dead letters of one handler.
pub struct DeadLetters {
    handler: Arc<str>,
    /// Where they are published; none is the store.
    place: Option<DeadLetterTopic>,
    store: kept::Kept,
    names: BrokerNames,
    places: Places,
    meters: Arc<HandlerMeters>,
    /// Bytes of QoS 0 messages that are kept until their publishes are safe. Nothing else bounds them.
    kept: AtomicUsize,
    /// The most of these: as many as may wait for the handler.
    most_kept: usize,
    /// Limits how often those that could not be kept are said.
    drops: Occasional,
}

/// A message that was given to a handler.
pub struct Input {
    /// The message.
    pub message: Arc<Message>,
    /// By which it came to the handler.
    pub subscription: Arc<Subscription>,
    /// Calls that were made for it.
    pub attempts: u32,
    /// Its place in the store, where it is handled again from there.
    pub again: Option<Arc<Again>>,
}

impl DeadLetters {
    /// Those of a handler: at its dead-letter topic, or in the store where it has none.
    pub fn of(
        handler: &Handler,
        names: BrokerNames,
        places: Places,
        store: kept::Kept,
        meters: Arc<HandlerMeters>,
    ) -> Arc<DeadLetters> {
        Arc::new(DeadLetters {
            handler: Arc::clone(&handler.name),
            place: handler.dead_letter.clone(),
            store,
            names,
            places,
            meters,
            kept: AtomicUsize::new(0),
            most_kept: handler.queue_bytes,
            drops: Occasional::every(DROP_SAID),
        })
    }

    /// The dead letter, to be published, of a message whose calls have failed for good, the last one with this error. `given_up`:
    /// why no further call is made, where one could have been. None where it goes into the store, which has it then, and where
    /// the message is a dead letter itself, which has ended then.
    pub fn of_call(
        self: &Arc<Self>,
        input: Input,
        part: Part,
        error: &CallError,
        given_up: Option<GivenUp>,
    ) -> Option<Letter> {
        self.letter(&input, part, error.into(), (&error.to_string(), given_up), Outcome::DroppedFailed)
    }

    /// The dead letter of a message that is not called, since it goes in a circle. None as in [`DeadLetters::of_call`].
    pub fn of_loop(self: &Arc<Self>, input: Input, part: Part) -> Option<Letter> {
        let error =
            format!("the message goes in a circle: it came from {} calls, one after the other", input.message.hops);
        self.letter(&input, part, Reason::Loop, (&error, None), Outcome::DroppedLoop)
    }

    /// Keeps a message until its publishes are safe; not where too much is kept already.
    pub fn keep(self: &Arc<Self>, input: Input) -> Kept {
        // The others are bounded by their connection's receive window: after its loss they are let go of.
        // What comes from the store is bounded there.
        let droppable = input.message.qos == Qos::AtMostOnce && input.again.is_none();
        let bytes = if droppable { input.message.weight() } else { 0 };
        let before = self.kept.fetch_add(bytes, Ordering::Relaxed);
        let fits = bytes == 0 || before + bytes <= self.most_kept;
        let input = fits.then_some(input);
        // What does not fit counts all the same until it is dropped, so that there is one place that takes it back.
        Kept { bytes, letters: Arc::clone(self), input, blamed: None }
    }

    /// A QoS 0 message failed that was not kept.
    fn not_kept(&self, error: &str) {
        self.meters.dead_letter_dropped();
        if let Some(unsaid) = self.drops.due() {
            tracing::error!(
                handler = %self.handler, error, kept = self.most_kept, unsaid,
                "message dropped: there is no dead letter of it, since too many QoS 0 messages wait for their publishes",
            );
        }
    }

    fn letter(
        self: &Arc<Self>,
        input: &Input,
        part: Part,
        reason: Reason,
        (error, given_up): (&str, Option<GivenUp>),
        otherwise: Outcome,
    ) -> Option<Letter> {
        let message = &input.message;
        let again = input.again.clone();
        let end = LetterEnd { part, letters: Arc::clone(self), message: Arc::clone(message), again, reason, otherwise };
        if self.places.is_dead_letter(message) {
            end.dropped("it is a dead letter, of which there is no other");
            return None;
        }
        let failed = Failed {
            message,
            broker: &self.names.name(message.broker),
            handler: &self.handler,
            subscription: &input.subscription.name,
            reason,
            error,
            given_up,
            attempts: input.attempts,
            time: SystemTime::now(),
        };
        let Some(DeadLetterTopic { broker, topic }) = &self.place else {
            self.keep_failed(&failed, &input.subscription, end);
            return None;
        };
        let message = letter::letter(&failed, topic.clone(), self.places.protocol(*broker));
        if let Some(trace) = end.part.trace() {
            trace.dead_letter(&self.handler, *broker, &message.topic, reason.label());
        }
        Some(Letter { publish: Publish { broker: *broker, message }, end })
    }
}

/// What is kept of a message until its call's publishes are safe.
pub struct Kept {
    letters: Arc<DeadLetters>,
    /// None where there was no room for it.
    input: Option<Input>,
    /// What it counts in [`DeadLetters::kept`].
    bytes: usize,
    /// The publish that it fails for. On the heap, since almost none does.
    blamed: Option<Box<Blamed>>,
}

/// Why a publish is not taken by its broker, which refuses it with these words, or without ends each connection over it.
pub fn not_taken(broker: &str, publish: &Outgoing, refusal: Option<&str>) -> (Reason, String) {
    let topic = &publish.topic;
    match refusal {
        Some(words) => (Reason::PublishRefused, format!("the broker {broker} refuses the publish to {topic}: {words}")),
        None => {
            (Reason::PublishPoisoned, format!("the broker {broker} ends each connection over the publish to {topic}"))
        }
    }
}

/// A publish that its broker does not take.
struct Blamed {
    reason: Reason,
    /// The broker's words, where it has any.
    error: String,
}

impl Kept {
    /// A publish of the call is not taken, for this reason: a broker's refusal with its words, or poison without. The first of the
    /// worst kind counts.
    pub fn blame(&mut self, broker: BrokerId, publish: &Outgoing, refusal: Option<&str>) {
        let reason = if refusal.is_some() { Reason::PublishRefused } else { Reason::PublishPoisoned };
        let known = self.blamed.as_ref().map(|blamed| blamed.reason);
        if known == Some(reason) || known == Some(Reason::PublishPoisoned) {
            return;
        }
        let (reason, error) = not_taken(&self.letters.names.name(broker), publish, refusal);
        self.blamed = Some(Box::new(Blamed { reason, error }));
    }

    /// The message is to stay on the disk, where it is handled again from there, although its effects are written.
    pub fn stays(&self, rows: &mut Vec<Row>) {
        if let Some(again) = self.input.as_ref().and_then(|input| input.again.as_ref()) {
            let removal = again.removal();
            rows.retain(|row| *row != removal);
            again.has_no_effects();
        }
    }

    /// The dead letter of the message, whose part ends with `otherwise` where there is none.
    pub fn letter(mut self, part: Part, otherwise: Outcome) -> Option<Letter> {
        match (self.input.take(), self.blamed.take()) {
            (Some(input), Some(blamed)) => {
                self.letters.letter(&input, part, blamed.reason, (&blamed.error, None), otherwise)
            }
            (_, blamed) => {
                let error = blamed.map(|blamed| blamed.error).unwrap_or_default();
                self.letters.not_kept(&error);
                if let Some(trace) = part.trace() {
                    let why = "too many QoS 0 messages wait for their publishes";
                    trace.no_dead_letter(&self.letters.handler, why);
                }
                part.end(otherwise);
                None
            }
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.letters.kept.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A dead letter that is to be published.
#[must_use]
pub struct Letter {
    /// Where to, and what.
    pub publish: Publish,
    /// What follows from its end.
    pub end: LetterEnd,
}

/// How a message ends with its dead letter. Dropped without an end, as a stop does, it leaves the message unacknowledged.
pub struct LetterEnd {
    part: Part,
    letters: Arc<DeadLetters>,
    message: Arc<Message>,
    again: Option<Arc<Again>>,
    reason: Reason,
    /// How the message ends where its dead letter is not kept.
    otherwise: Outcome,
}

impl LetterEnd {
    /// The message.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The handler that was called.
    pub fn handler(&self) -> &Arc<str> {
        &self.letters.handler
    }

    /// The message's part.
    pub fn part(&self) -> &Part {
        &self.part
    }

    /// Its broker, or the disk, has it.
    pub fn safe(self) {
        self.letters.meters.dead_letter(self.reason);
        self.end(Outcome::DeadLetter);
    }

    /// It is not needed: the broker sends the message again, which will fail again.
    pub fn returned(self) {
        self.part.end(Outcome::Returned);
    }

    /// It is not kept, for this reason in plain words. A message that is in the store already stays there.
    pub fn dropped(self, why: &str) {
        let DeadLetters { handler, place, names, meters, drops, .. } = &*self.letters;
        let stays = self.again.as_ref().is_some_and(|again| again.is_dead_letter());
        if !stays {
            meters.dead_letter_dropped();
        }
        if let Some(trace) = self.part.trace() {
            trace.no_dead_letter(handler, why);
        }
        if let Some(unsaid) = drops.due() {
            let (topic, reason) = (&self.message.topic, self.reason.label());
            let broker = place.as_ref().map(|place| display(names.name(place.broker)));
            let dead = place.as_ref().map(|place| display(&place.topic));
            if stays {
                tracing::warn!(
                    %handler, %topic, reason, dead_letter_broker = broker, dead_letter_topic = dead, why, unsaid,
                    "the message stays in the dead-letter store as it was: there is no other dead letter of it",
                );
            } else {
                tracing::error!(
                    %handler, %topic, reason, dead_letter_broker = broker, dead_letter_topic = dead, why, unsaid,
                    "message dropped: there is no dead letter of it",
                );
            }
        }
        let otherwise = self.otherwise;
        self.end(otherwise);
    }

    fn end(self, outcome: Outcome) {
        self.letters.meters.end_to_end.observe(self.message.arrived.elapsed().as_secs_f64());
        self.part.end(outcome);
    }
}

#[cfg(test)]
mod tests;
