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
use super::{Edit, Live, Refusal, RefusalKind, Running, RunningBroker};
use crate::control::admin::resource::{Publication, Published};
use crate::control::config::runtime::Section;
use crate::message::{Outgoing, Qos};
use crate::path::handler::Publish;
use crate::path::outbox::{CAPACITY, PublishEnd};
use crate::path::session::{ConnectError, Opened, ResetError, SessionState, SessionStatus, Standing};
use crate::topic::{TopicName, refusable, refused};

/// How long a command waits for a broker's answer to a publish or a subscription.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

impl Live {
    /// Connects a broker and waits for what comes of it. Whether it was connected before.
    ///
    /// # Errors
    /// There is no such broker, or why it is not connected.
    pub async fn connect(&self, broker: &str) -> Result<Opened, Refusal> {
        connect(self.running().broker(broker)?).await
    }

    /// Disconnects a broker, which stays so until it is connected by command or by force. Whether it was connected.
    ///
    /// # Errors
    /// There is no such broker.
    pub async fn disconnect(&self, broker: &str) -> Result<bool, Refusal> {
        let running = self.running();
        let disconnected = running.broker(broker)?.session.disconnect().await;
        Ok(disconnected.was_connected)
    }

    /// Makes a broker forget its session.
    ///
    /// # Errors
    /// There is no such broker, or why its session is not reset.
    pub async fn reset_session(&self, broker: &str) -> Result<(), Refusal> {
        let running = self.running();
        let broker = running.broker(broker)?;
        broker.session.reset().await.map_err(|error| match error {
            ResetError::Ended => ended(broker),
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
        let opened = self.reach(broker, publication.force.unwrap_or(true)).await?;
        if publication.disconnect_after && opened == Opened::Already {
            return Err(Refusal::new(
                RefusalKind::Connected,
                format!(
                    "the broker {} is connected already, and a publish ends only a connection that it made",
                    publication.broker
                ),
                "publish without disconnect-after",
            ));
        }
        let sent = self.send(broker, message).await;
        // Also after a failure: the connection was made for this alone.
        let disconnect = publication.disconnect_after && opened == Opened::New;
        if disconnect {
            broker.session.disconnect().await;
        }
        let qos = sent?;
        Ok(Published {
            broker: publication.broker,
            topic,
            qos: qos.number(),
            acknowledged: true,
            connected_for_it: opened == Opened::New,
            disconnected: disconnect,
        })
    }

    /// Adds a subscription of these keys of the configuration and waits for the broker's answer; one that is refused is taken
    /// back. What runs, and the subscription's name.
    ///
    /// # Errors
    /// Nothing was added.
    pub async fn subscribe(&self, keys: Map<String, Value>, force: bool) -> Result<(Arc<Running>, String), Refusal> {
        let running = self.running();
        if let Some(broker) = keys.get("broker").and_then(Value::as_str) {
            let broker = running.broker(broker)?;
            // Mistakes are told before anything is connected.
            let edit = Edit::Add { section: Section::Subscriptions, keys: keys.clone() };
            self.check(&running, &edit).await?;
            self.reach(broker, force).await?;
        }
        let name = named(Section::Subscriptions, &keys);
        let running = self.change(Edit::Add { section: Section::Subscriptions, keys }).await?;
        // The configuration is good, so there is a broker and a topic.
        let name = name.unwrap_or_default();
        match granted(&running, &name).await {
            Ok(()) => Ok((running, name)),
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
            return connect(broker).await;
        }
        if broker.session.status().borrow().state == SessionState::Connected {
            return Ok(Opened::Already);
        }
        Err(Refusal::new(
            RefusalKind::NotConnected,
            format!("the broker {} is not connected", broker.config.name),
            "connect it, or let this command do so by force",
        ))
    }

    async fn send(&self, broker: &RunningBroker, message: Outgoing) -> Result<Qos, Refusal> {
        let name = &broker.config.name;
        let mut command = self.outboxes.publish(Publish { broker: broker.config.id, message });
        let end = match tokio::time::timeout(ANSWER_DEADLINE, command.end()).await {
            Ok(end) => end,
            Err(_) if command.take_back() => {
                return Err(unanswered(name, "it was not sent, and is taken back", "see why with tidegate status"));
            }
            // It may have ended at this very moment.
            Err(_) => command.end().now_or_never().ok_or_else(|| {
                let detail = "it was sent, and is sent again until the broker acknowledges it";
                unanswered(name, detail, "look for it before publishing it again")
            })?,
        };
        let refused = |reason: String| {
            Err(Refusal::new(
                RefusalKind::RefusedByBroker,
                format!("the broker {name} refuses the message: {reason}"),
                "",
            ))
        };
        match end {
            PublishEnd::Delivered(qos) => Ok(qos),
            PublishEnd::Refused(reason) => refused(reason),
            PublishEnd::Poisoned => refused("it ends the connection whenever it is sent".to_owned()),
            PublishEnd::Purged => refused("the broker was removed meanwhile".to_owned()),
        }
    }
}

fn unanswered(broker: &str, what: &str, remedy: &str) -> Refusal {
    let seconds = ANSWER_DEADLINE.as_secs();
    let detail = format!("the broker {broker} has not acknowledged the message within {seconds} s: {what}");
    Refusal::new(RefusalKind::NoAnswer, detail, remedy)
}

async fn connect(broker: &RunningBroker) -> Result<Opened, Refusal> {
    broker.session.connect().await.map_err(|error| match error {
        ConnectError::Ended => ended(broker),
        error => cannot_connect(broker, &error.to_string()),
    })
}

fn cannot_connect(broker: &RunningBroker, why: &str) -> Refusal {
    let again = if broker.config.auto_connect { "it is tried again by itself (auto-connect)" } else { "" };
    Refusal::new(
        RefusalKind::CannotConnect,
        format!("the broker {} is not connected: {why}", broker.config.name),
        again,
    )
}

fn ended(broker: &RunningBroker) -> Refusal {
    let detail = format!("the broker {} was removed or changed meanwhile, or the daemon stops", broker.config.name);
    Refusal::new(RefusalKind::Stopping, detail, "try again")
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
    let message = Outgoing { topic, payload, qos, retain: publication.retain, properties: None };
    if message.weight() > CAPACITY.bytes {
        let detail =
            format!("the message has {} bytes, more than an outbox holds ({})", message.weight(), CAPACITY.bytes);
        return Err(invalid(detail, "publish less"));
    }
    Ok(message)
}

/// Waits until the broker has answered for a subscription.
async fn granted(running: &Running, name: &str) -> Result<(), Refusal> {
    let subscription = running.loaded.config.subscriptions.iter().find(|subscription| *subscription.name == *name);
    let broker = subscription.and_then(|found| running.brokers.iter().find(|broker| broker.config.id == found.broker));
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
    let Ok(status) = answered else { return Err(ended(broker)) };
    match asked(&status, name) {
        Asked::Refused(reason) => {
            let detail = format!("the broker {who} refuses the subscription {name}: {reason}");
            Err(Refusal::new(RefusalKind::RefusedByBroker, detail, "see the broker's access rules"))
        }
        Asked::Disconnected => {
            let detail =
                format!("the broker {who} was disconnected by hand before it had answered for the subscription {name}");
            Err(Refusal::new(RefusalKind::NotConnected, detail, "connect it and subscribe again"))
        }
        Asked::Granted | Asked::Gone | Asked::Pending => Ok(()),
    }
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
