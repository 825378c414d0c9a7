//! The task that polls one connection: takes messages in, and matches the broker's answers with what was sent.
//!
//! Fed by the link; feeds the router, the outboxes and the status. It waits for nothing but the link: rumqttc answers
//! pings in between, so a poller that waits for a handler loses its connection. Between two polls it makes only calls
//! that return at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use tokio::sync::oneshot;
use tracing::{error, warn};

use super::ack::{AckToken, Admitted};
use super::connection::{Connection, Origin, Sent, send_window};
use super::cover::Copied;
use super::failure::Failure;
use super::link::{Arrival, Event, INFLIGHT_LIMIT, Link, NoRoom, Welcome};
use super::ring::Received;
use super::subscribing::Request;
use crate::message::{Message, Properties, Qos};
use crate::telemetry::metrics::ConnectResult;
use crate::telemetry::tap::Sighting;

/// Polls a connection until it ends; why it did. The receiver of the CONNACK is told before anything else is taken in.
pub(super) async fn run(connection: Arc<Connection>, link: Link, connected: oneshot::Sender<Welcome>) -> Failure {
    let mut poller = Poller { connection, link, connected: Some(connected), leaks: 0 };
    let failure = poller.poll().await;
    poller.connection.standing.lose();
    // What had come before the end counts: an acknowledgement spares a repetition, a QoS 0 message comes only once.
    while let Some(event) = poller.link.next_leftover() {
        poller.happened(event);
    }
    failure
}

struct Poller {
    connection: Arc<Connection>,
    link: Link,
    connected: Option<oneshot::Sender<Welcome>>,
    /// Publishes that may still be refused by their PUBREC: rumqttc never frees their places in its window, which is
    /// larger than the send window by so many.
    leaks: usize,
}

impl Drop for Poller {
    fn drop(&mut self) {
        // Also when a panic ends the task: no message may start from a connection that nobody polls.
        self.connection.standing.lose();
    }
}

impl Poller {
    async fn poll(&mut self) -> Failure {
        let standing = Arc::clone(&self.connection.standing);
        loop {
            // The poll is cancelled only to end the connection, so it does not matter what a cancelled poll loses.
            let polled = tokio::select! {
                biased;
                polled = self.link.poll() => polled,
                () = standing.over() => Err(Failure::Closed),
            };
            match polled {
                Ok(event) => {
                    if !matches!(event, Event::Other) {
                        self.connection.traffic.fetch_add(1, Ordering::Relaxed);
                    }
                    self.happened(event);
                }
                Err(failure) => return standing.reason().unwrap_or(failure),
            }
            self.connection.events.fetch_add(1, Ordering::Relaxed);
            // The branch above is not reached while a busy broker keeps the link ready.
            if standing.is_over() {
                return standing.reason().unwrap_or(Failure::Closed);
            }
        }
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Arrived(arrival) => return self.arrived(arrival),
            Event::Connected(welcome) => self.accepted(welcome),
            Event::Subscribed { packet, reasons } => self.subscribed(packet, &reasons),
            Event::Unsubscribed { packet, reasons } => self.unsubscribed(packet, &reasons),
            Event::Acknowledged { packet, refusal } => self.acknowledged(packet, refusal),
            Event::RefusedAtRelease { packet, refusal } => self.refused_at_release(packet, refusal),
            Event::SubscribeWritten(packet) => self.connection.flight().subscribing.written(packet),
            Event::PublishWritten(packet) => self.publish_written(packet),
            Event::AcknowledgementWritten => self.connection.standing.acknowledgement_written(),
            Event::DisconnectWritten => self.connection.goodbye.store(true, Ordering::Relaxed),
            Event::Other => {}
        }
        self.connection.progress.notify_one();
    }

    fn accepted(&mut self, welcome: Welcome) {
        let core = &self.connection.core;
        core.meters.connect(ConnectResult::Accepted);
        core.meters.connected.set(1);
        core.cover.connected(&welcome);
        core.decide_lost(welcome.session_present);
        self.leaks = usize::from(welcome.receive_maximum.min(INFLIGHT_LIMIT)).saturating_sub(send_window(&welcome));
        if let Some(connected) = self.connected.take() {
            // Nobody listens when the gateway stops at this very moment.
            let _ = connected.send(welcome);
        }
    }

    fn arrived(&mut self, arrival: Arrival) {
        if self.connection.closing.load(Ordering::Relaxed) {
            return;
        }
        let now = Instant::now();
        // Beyond the receive window: left to the broker, which sends it again on the next connection.
        let Ok(token) = self.admit(&arrival, now) else { return };
        let core = &self.connection.core;
        let topic = match arrival.topic {
            Ok(topic) => topic,
            Err(reason) => {
                error!(broker = %core.broker.name, reason, "message with an invalid topic name dropped");
                // Acknowledged, for it would come again for ever.
                return token.iter().for_each(|token| token.settle());
            }
        };
        let message = Message {
            broker: core.id,
            topic,
            payload: arrival.payload,
            qos: arrival.qos.min(Qos::AtLeastOnce),
            retain: arrival.retain,
            dup: arrival.dup,
            received: SystemTime::now(),
            arrived: now,
            properties: arrival.properties,
        };
        let topic = message.topic.clone();
        let copy = Copied {
            topic: &topic,
            identifiers: &arrival.identifiers,
            acknowledged: arrival.qos > Qos::AtMostOnce,
            again: arrival.dup,
        };
        core.cover.arrived(&copy, |copy| core.router.receive(message, copy, token));
    }

    /// The token of a message that is to be acknowledged, if there is room for it.
    fn admit(&self, arrival: &Arrival, now: Instant) -> Result<Option<AckToken>, NoRoom> {
        if arrival.qos == Qos::AtMostOnce {
            return Ok(None);
        }
        let weight = arrival.topic.as_ref().map_or(0, |topic| topic.as_str().len())
            + arrival.payload.len()
            + arrival.properties.as_deref().map_or(0, Properties::weight);
        let received = Received { packet: arrival.packet, qos: arrival.qos, weight };
        match self.connection.standing.admit(received, now) {
            Admitted::Yes(token) => Ok(Some(token)),
            Admitted::FirstBeyond(token) => {
                let core = &self.connection.core;
                if !core.beyond_said.swap(true, Ordering::Relaxed) {
                    warn!(broker = %core.broker.name, receive_maximum = core.broker.receive_maximum,
                        "the broker sends more unacknowledged messages than receive-maximum; they are taken in while they \
                         take less memory than receive-maximum × max-packet");
                }
                Ok(Some(token))
            }
            Admitted::No => Err(NoRoom),
        }
    }

    fn subscribed(&self, packet: u16, reasons: &[Result<Qos, &'static str>]) {
        match self.answered(packet) {
            Some(Request::Subscribe(filters)) => self.connection.core.cover.subscribed(&filters, reasons),
            _ => self.unexpected("a SUBACK"),
        }
    }

    fn unsubscribed(&self, packet: u16, reasons: &[Result<(), &'static str>]) {
        match self.answered(packet) {
            Some(Request::Unsubscribe(filters)) => self.connection.core.cover.unsubscribed(&filters, reasons),
            _ => self.unexpected("an UNSUBACK"),
        }
    }

    fn answered(&self, packet: u16) -> Option<Request> {
        self.connection.flight().subscribing.acknowledged(packet)
    }

    fn unexpected(&self, answer: &str) {
        self.connection.standing.end(Failure::BrokenProtocol(format!("{answer} that nobody waits for")));
    }

    fn publish_written(&self, packet: u16) {
        let now = Instant::now();
        let written = self.connection.flight().inflight.written(packet, |sent| sent.since = now);
        match written {
            Ok(None) => {}
            Ok(Some(sent)) => self.delivered(sent),
            Err(_) => {
                let problem = "it has not acknowledged a message whose packet identifier is due again".to_owned();
                self.connection.standing.end(Failure::BrokenProtocol(problem));
            }
        }
    }

    fn acknowledged(&self, packet: u16, refusal: Option<&'static str>) {
        let sent = self.connection.flight().inflight.acknowledged(packet);
        match (sent, refusal) {
            (Some(sent), None) => self.delivered(sent),
            (Some(sent), Some(reason)) => self.refused(&sent, reason),
            // rumqttc has checked that a publish with this identifier was unacknowledged.
            (None, _) => {}
        }
    }

    fn refused_at_release(&mut self, packet: u16, reason: &'static str) {
        let sent = self.connection.flight().inflight.acknowledged(packet);
        if let Some(sent) = sent {
            self.refused(&sent, reason);
        }
        match self.leaks.checked_sub(1) {
            Some(left) => self.leaks = left,
            None => self.connection.standing.end(Failure::ReleasesExhausted),
        }
    }

    fn delivered(&self, sent: Sent) {
        let core = &self.connection.core;
        core.meters.published(sent.qos);
        core.tap.report(|| Sighting::Published(core.id, Arc::clone(&sent.message)));
        match sent.origin {
            Origin::Outbox(entry) => core.outboxes.delivered(core.id, entry),
            Origin::Own(_, done) => {
                // Only the close message has somebody waiting, and only for so long.
                let _ = done.map(|done| done.send(()));
            }
        }
    }

    fn refused(&self, sent: &Sent, reason: &'static str) {
        let core = &self.connection.core;
        let (broker, topic) = (&core.broker.name, &sent.message.topic);
        match sent.origin {
            Origin::Outbox(entry) => {
                error!(%broker, %topic, reason, "message refused by the broker");
                core.outboxes.refused(core.id, entry);
            }
            Origin::Own(key, _) => warn!(%broker, key, %topic, reason, "status message refused by the broker"),
        }
    }
}
