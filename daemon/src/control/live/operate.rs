//! What an operator does with what runs: connect, disconnect, publish, subscribe (contract: RouterOS' `/iot mqtt` commands).
//!
//! Every step waits for its result, within a named time, and says why it failed. It holds nothing between two commands.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::FutureExt as _;
use serde_json::{Map, Value};

use super::edit::named;
use super::{Changed, Edit, Live, Refusal, RefusalKind, Running, RunningBroker};
use crate::control::admin::resource::{Publication, Published};
use crate::control::config::runtime::Section;
use crate::message::{Outgoing, Qos};
use crate::path::handler::Publish;
use crate::path::outbox::{Command, DropReason, Dropped, NoRoom, PublishEnd};
use crate::path::session::{
    ConnectError, Ended, Kept, Opened, ResetError, SessionState, SessionStatus, Standing, Visit, VisitError,
};
use crate::topic::{TopicName, refusable, refused};

/// How long a command waits for a broker's answer to a publish or a subscription.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// The connection that a publish goes out on.
enum Way {
    /// It need not be made for it, and may be made again for it.
    Forced(Opened),
    /// It was made for this publish alone.
    Visit(Visit),
    /// It stands, and is not to be made for it.
    Standing,
}

impl Way {
    /// There is no room for the publish. Ends a connection that was made for it.
    async fn refused(self, full: &NoRoom) -> Refusal {
        if let Way::Visit(visit) = self {
            visit.leave().await;
        }
        let remedy = "try again later, or raise the limit; with when-full = \"block\" a publish waits for room";
        Refusal::new(RefusalKind::OutboxFull, full.to_string(), remedy)
    }
}

/// Why the end of a publish is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unfinished {
    /// It was not sent in time, and is taken back.
    TakenBack,
    /// The connection was lost before it was sent, and it is taken back.
    Lost,
    /// The broker has not answered in time.
    Sent,
}

impl Live {
    /// Connects a broker and waits for what comes of it. Whether it was connected before.
    ///
    /// # Errors
    /// There is no such broker, or why it is not connected.
    pub async fn connect(&self, broker: &str) -> Result<Opened, Refusal> {
        self.connected(self.running().broker(broker)?).await
    }

    /// Disconnects a broker, which stays so until it is connected by command or by force. Whether it was connected.
    ///
    /// # Errors
    /// There is no such broker, or it is changed at this moment.
    pub async fn disconnect(&self, broker: &str) -> Result<bool, Refusal> {
        let running = self.running();
        let broker = running.broker(broker)?;
        match broker.session.disconnect().await {
            Ok(disconnected) => Ok(disconnected.was_connected),
            Err(Ended) => Err(self.ended(broker)),
        }
    }

    /// Makes a broker forget its session.
    ///
    /// # Errors
    /// There is no such broker, or why its session is not reset.
    pub async fn reset_session(&self, broker: &str) -> Result<(), Refusal> {
        let running = self.running();
        let broker = running.broker(broker)?;
        broker.session.reset().await.map_err(|error| match error {
            ResetError::Ended => self.ended(broker),
            error => cannot_connect(broker, &error.to_string()),
        })
    }

    /// Publishes a message and waits until the broker has it: acknowledged, at QoS 0 written.
    ///
    /// # Errors
    /// Nothing was published unless the refusal says that it may be.
    pub async fn publish(&self, publication: Publication) -> Result<Published, Refusal> {
        let running = self.running();
        let broker = running.broker(&publication.broker)?;
        let message = outgoing(&publication)?;
        let topic = message.topic.to_string();
        let way = self.way(broker, publication.force.unwrap_or(true), publication.disconnect_after).await?;
        let offer = || self.outboxes.publish(Publish { broker: broker.config.id, message });
        let offered = match way {
            // The connection may have ended since.
            Way::Standing => broker.session.while_connected(offer).ok_or_else(|| not_connected(broker))?,
            Way::Forced(_) | Way::Visit(_) => offer(),
        };
        let mut command = match offered {
            Ok(command) => command,
            Err(full) => return Err(way.refused(&full).await),
        };
        let end = end(broker, &mut command, matches!(way, Way::Standing)).await;
        let connected_for_it = matches!(way, Way::Forced(Opened::New) | Way::Visit(_));
        let disconnected = match way {
            // It is sent again until the broker has it.
            Way::Visit(visit) if end == Err(Unfinished::Sent) => {
                visit.stay();
                false
            }
            // Also after a failure: the connection was made for this alone.
            Way::Visit(visit) => visit.leave().await,
            Way::Forced(_) | Way::Standing => false,
        };
        let qos = delivered(broker, end)?;
        Ok(Published {
            broker: publication.broker,
            topic,
            qos: qos.number(),
            acknowledged: true,
            connected_for_it,
            disconnected,
        })
    }

    /// Adds a subscription of these keys of the configuration and waits for the broker's answer; one that is refused is taken
    /// back. What was changed, and the subscription's name.
    ///
    /// # Errors
    /// Nothing was added.
    pub async fn subscribe(&self, keys: Map<String, Value>, force: bool) -> Result<(Changed, String), Refusal> {
        let running = self.running();
        if let Some(broker) = keys.get("broker").and_then(Value::as_str) {
            let broker = running.broker(broker)?;
            // Mistakes are told before anything is connected.
            let edit = Edit::Add { section: Section::Subscriptions, keys: keys.clone() };
            self.check(&running, &edit).await?;
            self.reach(broker, force).await?;
        }
        let name = named(Section::Subscriptions, &keys);
        let changed = self.change(Edit::Add { section: Section::Subscriptions, keys }).await?;
        // The configuration is good, so there is a broker and a topic.
        let name = name.unwrap_or_default();
        match self.granted(&changed.running, &name).await {
            Ok(()) => Ok((changed, name)),
            Err(mut refusal) => {
                let taken_back = Edit::Remove { section: Section::Subscriptions, name, discard: false };
                match self.change(taken_back).await {
                    Ok(_) => {}
                    Err(other) if other.kind == RefusalKind::NotFound => {}
                    Err(other) => refusal.remedy = format!("remove the subscription, which is still there ({other})"),
                }
                Err(refusal)
            }
        }
    }

    /// Whether an edit leads to a good configuration, without making it.
    async fn check(&self, running: &Arc<Running>, edit: &Edit) -> Result<(), Refusal> {
        let text = edit.applied(&running.loaded)?;
        let (running, edit) = (Arc::clone(running), edit.clone());
        let checked = tokio::task::spawn_blocking(move || {
            let candidate = running.loaded.sources.with_runtime(text, &running.loaded.names);
            candidate.map(|_| ()).map_err(|problems| super::edit::refused(&edit, &problems, &running.loaded))
        });
        checked.await.map_err(|_| Refusal::new(RefusalKind::Stopping, "the step was cut short", ""))?
    }

    /// Connects a broker that is not connected, if that is permitted.
    async fn reach(&self, broker: &RunningBroker, force: bool) -> Result<Opened, Refusal> {
        if force {
            return self.connected(broker).await;
        }
        broker.session.while_connected(|| Opened::Already).ok_or_else(|| not_connected(broker))
    }

    /// What a publish goes out on.
    async fn way(&self, broker: &RunningBroker, force: bool, disconnect_after: bool) -> Result<Way, Refusal> {
        match (force, disconnect_after) {
            (false, false) => Ok(Way::Standing),
            (true, false) => self.connected(broker).await.map(Way::Forced),
            (false, true) => {
                broker.session.while_connected(|| ()).ok_or_else(|| not_connected(broker))?;
                Err(kept(broker, Kept::Connected))
            }
            (true, true) => broker.session.visit().await.map(Way::Visit).map_err(|error| match error {
                VisitError::Kept(why) => kept(broker, why),
                VisitError::NotConnected(error) => self.unconnected(broker, &error),
            }),
        }
    }

    /// Waits until the broker has answered for a subscription.
    async fn granted(&self, running: &Running, name: &str) -> Result<(), Refusal> {
        let subscription = running.loaded.config.subscriptions.iter().find(|subscription| *subscription.name == *name);
        let broker =
            subscription.and_then(|found| running.brokers.iter().find(|broker| broker.config.id == found.broker));
        // It was added a moment ago; another command may have removed it or its broker since.
        let Some(broker) = broker else { return Ok(()) };
        let who = &broker.config.name;
        let mut status = broker.session.status();
        let answered = status.wait_for(|status| !matches!(asked(status, name), Asked::Pending));
        let Ok(answered) = tokio::time::timeout(ANSWER_DEADLINE, answered).await else {
            let seconds = ANSWER_DEADLINE.as_secs();
            let detail = format!("the broker {who} has not answered for the subscription {name} within {seconds} s");
            return Err(Refusal::new(RefusalKind::NoAnswer, detail, "see why with tidegate status"));
        };
        let Ok(status) = answered else { return Err(self.ended(broker)) };
        match asked(&status, name) {
            Asked::Refused(reason) => {
                let detail = format!("the broker {who} refuses the subscription {name}: {reason}");
                Err(Refusal::new(RefusalKind::RefusedByBroker, detail, "see the broker's access rules"))
            }
            Asked::Disconnected => {
                let detail =
                    format!("the broker {who} was disconnected by hand before it answered for the subscription {name}");
                Err(Refusal::new(RefusalKind::NotConnected, detail, "connect it and subscribe again"))
            }
            Asked::Granted | Asked::Gone | Asked::Pending => Ok(()),
        }
    }

    async fn connected(&self, broker: &RunningBroker) -> Result<Opened, Refusal> {
        broker.session.connect().await.map_err(|error| self.unconnected(broker, &error))
    }

    fn unconnected(&self, broker: &RunningBroker, error: &ConnectError) -> Refusal {
        match error {
            ConnectError::Ended => self.ended(broker),
            error => cannot_connect(broker, &error.to_string()),
        }
    }

    /// The session has ended while something was done with it.
    fn ended(&self, broker: &RunningBroker) -> Refusal {
        if self.stopping.is_cancelled() {
            return Refusal::new(RefusalKind::Stopping, "the daemon is stopping", "start it again");
        }
        let detail = format!("the broker {} was changed or removed meanwhile", broker.config.name);
        Refusal::new(RefusalKind::Changed, detail, "look at what it is now, and try again")
    }
}

/// Waits for the end of a publish. `standing`: it is not to be sent on any other connection than the one that stands.
async fn end(broker: &RunningBroker, command: &mut Command, standing: bool) -> Result<PublishEnd, Unfinished> {
    let mut status = broker.session.status();
    let ended = async {
        if standing {
            tokio::select! {
                biased;
                end = command.end() => return Ok(end),
                // An error means that the session has ended.
                _ = status.wait_for(|status| status.state != SessionState::Connected) => {}
            }
            if command.take_back() {
                return Err(Unfinished::Lost);
            }
        }
        Ok(command.end().await)
    };
    match tokio::time::timeout(ANSWER_DEADLINE, ended).await {
        Ok(end) => end,
        Err(_) if command.take_back() => Err(Unfinished::TakenBack),
        // It may have ended at this very moment.
        Err(_) => command.end().now_or_never().ok_or(Unfinished::Sent),
    }
}

/// With which QoS the broker has it, or why that is not so.
fn delivered(broker: &RunningBroker, end: Result<PublishEnd, Unfinished>) -> Result<Qos, Refusal> {
    let name = &broker.config.name;
    let refused = |reason: String| {
        let detail = format!("the broker {name} refuses the message: {reason}");
        Err(Refusal::new(RefusalKind::RefusedByBroker, detail, ""))
    };
    match end {
        Ok(PublishEnd::Delivered(qos)) => Ok(qos),
        Ok(PublishEnd::Refused(reason)) => refused(reason),
        Ok(PublishEnd::Poisoned) => refused("it ends the connection whenever it is sent".to_owned()),
        Ok(PublishEnd::Purged) => Err(Refusal::new(
            RefusalKind::Changed,
            format!("the broker {name} was removed before it acknowledged the message"),
            "publish it to another one",
        )),
        Ok(PublishEnd::Dropped(dropped)) => Err(was_dropped(broker, dropped)),
        Err(Unfinished::Lost) => Err(Refusal::new(
            RefusalKind::NotConnected,
            format!("the connection to the broker {name} ended before the message was sent, and it is taken back"),
            "connect the broker, or let this command do so by force",
        )),
        Err(Unfinished::TakenBack) => {
            Err(unanswered(name, "it was not sent, and is taken back", "see why with tidegate status"))
        }
        Err(Unfinished::Sent) => {
            let detail = "it was sent, and stays in the outbox until the broker acknowledges it";
            Err(unanswered(name, detail, "look for it before publishing it again"))
        }
    }
}

/// The outbox has dropped it.
fn was_dropped(broker: &RunningBroker, dropped: Dropped) -> Refusal {
    let name = &broker.config.name;
    let (why, remedy) = match dropped.reason {
        DropReason::Expired => {
            ("it was in the outbox for longer than max-age", "see with tidegate status why it was not sent")
        }
        DropReason::Displaced => {
            ("the outbox is full, and it made way for a newer one", "see with tidegate status why it was not sent")
        }
    };
    let tried = if dropped.tried { "; it was sent on a connection that was lost, and may have come" } else { "" };
    Refusal::new(RefusalKind::Dropped, format!("the message to the broker {name} is dropped: {why}{tried}"), remedy)
}

fn unanswered(broker: &str, what: &str, remedy: &str) -> Refusal {
    let seconds = ANSWER_DEADLINE.as_secs();
    let detail = format!("the broker {broker} has not acknowledged the message within {seconds} s: {what}");
    Refusal::new(RefusalKind::NoAnswer, detail, remedy)
}

fn not_connected(broker: &RunningBroker) -> Refusal {
    Refusal::new(
        RefusalKind::NotConnected,
        format!("the broker {} is not connected", broker.config.name),
        "connect it, or let this command do so by force",
    )
}

/// A connection that something else wants is no publish's to end.
fn kept(broker: &RunningBroker, why: Kept) -> Refusal {
    let what = match why {
        Kept::Connected => "is connected already",
        Kept::Connecting => "is being connected already",
        Kept::Auto => "is kept connected (auto-connect)",
    };
    let detail = format!("the broker {} {what}, and a publish ends only a connection that it made", broker.config.name);
    Refusal::new(RefusalKind::Connected, detail, "publish without disconnect-after")
}

fn cannot_connect(broker: &RunningBroker, why: &str) -> Refusal {
    let again = if broker.config.auto_connect { "it is tried again by itself (auto-connect)" } else { "" };
    Refusal::new(
        RefusalKind::CannotConnect,
        format!("the broker {} is not connected: {why}", broker.config.name),
        again,
    )
}

/// The message that a request describes.
///
/// # Errors
/// It is none, with what to do.
pub fn outgoing(publication: &Publication) -> Result<Outgoing, Refusal> {
    let invalid = |detail: String, remedy: &str| Refusal::new(RefusalKind::Invalid, detail, remedy);
    let topic = TopicName::new(publication.topic.as_str())
        .map_err(|error| invalid(format!("the topic {:?} {error}", publication.topic), "publish to one topic"))?;
    if let Some(character) = refusable(topic.as_str()) {
        return Err(invalid(format!("the topic {:?} {}", publication.topic, refused(character)), "remove it"));
    }
    let qos = Qos::from_number(publication.qos)
        .ok_or_else(|| invalid(format!("there is no QoS {} (MQTT 5 §4.3)", publication.qos), "use 0, 1 or 2"))?;
    let payload = match (&publication.message, &publication.message_base64) {
        (Some(_), Some(_)) => {
            return Err(invalid("both message and message-base64 are given".to_owned(), "give one of the two"));
        }
        (Some(text), None) => Bytes::from(text.clone()),
        (None, Some(text)) => STANDARD.decode(text).map(Bytes::from).map_err(|error| {
            invalid(format!("message-base64 is not base64: {error}"), "use the standard alphabet with padding")
        })?,
        (None, None) => Bytes::new(),
    };
    Ok(Outgoing { topic, payload, qos, retain: publication.retain, properties: None, hops: None })
}

/// How it stands with a subscription that somebody waits for.
enum Asked {
    Pending,
    Granted,
    Refused(&'static str),
    /// Nobody asks the broker any more.
    Disconnected,
    /// It was removed.
    Gone,
}

fn asked(status: &SessionStatus, name: &str) -> Asked {
    match status.subscriptions.iter().find(|(known, _)| **known == *name).map(|(_, standing)| *standing) {
        None => Asked::Gone,
        Some(Standing::Granted(_)) => Asked::Granted,
        Some(Standing::Refused(reason)) => Asked::Refused(reason),
        Some(Standing::Pending) if status.state == SessionState::Disconnected => Asked::Disconnected,
        Some(Standing::Pending) => Asked::Pending,
    }
}
