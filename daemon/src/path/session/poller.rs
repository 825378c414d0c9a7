//! The task that holds one connection: takes messages in, matches the broker's answers with what was sent, and carries the
//! feeder.
//!
//! Fed by the link; feeds the router, the outboxes and the status. It waits for nothing but the link: a poller that waits for
//! a handler answers no ping and loses its connection. Between two waits it makes only calls that return at once.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Instant, SystemTime};

use tokio::sync::oneshot;
use tracing::{error, warn};

use super::SessionState;
use super::ack::{AckToken, Admitted, Right};
use super::connection::{Connection, Origin, Sent};
use super::cover::Copied;
use super::failure::Failure;
use super::feeder;
use super::link::{Link, Progress};
use super::outlet::{NoRoom, Taken};
use super::packet::{Arrival, Incoming, Refusal, Welcome};
use super::ring::Received;
use super::subscribing::Request;
use super::transport::Transport;
use crate::control::config::secret::Secret;
use crate::message::{Message, Properties, Qos};
use crate::telemetry::metrics::ConnectResult;
use crate::telemetry::tap::Sighting;

/// Holds a connection from its beginning to its end; why it ended. The receiver of the CONNACK is told before anything is
/// taken in.
pub(super) async fn run(
    connection: Arc<Connection>,
    transport: Arc<Transport>,
    password: Option<Secret>,
    connected: oneshot::Sender<Welcome>,
) -> Failure {
    let standing = Arc::clone(&connection.standing);
    let connecting =
        Link::connect(transport, Arc::clone(&connection.outlet), &connection.core.broker, password.as_ref());
    let made = tokio::select! {
        made = connecting => made,
        () = standing.over() => Err(Failure::Closed),
    };
    drop(password);
    let (link, welcome) = match made {
        Ok(made) => made,
        Err(failure) => {
            standing.lose();
            return standing.reason().unwrap_or(failure);
        }
    };
    let mut poller = Poller { connection: Arc::clone(&connection), link };
    poller.accepted(welcome);
    // Nobody listens when the gateway stops at this very moment.
    let _ = connected.send(welcome);
    let failure = {
        let mut feeding = pin!(feeder::run(Arc::clone(&connection), welcome));
        let mut polling = pin!(poller.poll());
        let mut fed = false;
        poll_fn(|context| {
            loop {
                let before = connection.progress.now();
                // The link is polled below in any case: what the feeder hands over must not wake this very task.
                connection.outlet.attend();
                fed = fed || feeding.as_mut().poll(context).is_ready();
                match polling.as_mut().poll(context) {
                    Poll::Ready(failure) => return Poll::Ready(failure),
                    Poll::Pending if connection.progress.now() == before => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
        })
        .await
    };
    standing.lose();
    // What had come before the end counts: an acknowledgement spares a repetition, a QoS 0 message comes only once.
    while let Ok(Some(packet)) = poller.link.next_packet() {
        poller.happened(packet);
    }
    failure
}

/// Bytes that may be taken in before other tasks, and the feeder, get their turn although more are there.
const SHARE: usize = 256 * 1024;

/// A message is not taken in: beyond the receive window it is left to the broker, which sends it again on the next connection;
/// or it is here already.
struct Ignored;

struct Poller {
    connection: Arc<Connection>,
    link: Link,
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
        let mut unshared = 0;
        loop {
            while !standing.is_over() {
                match self.link.next_packet() {
                    Ok(Some(packet)) => self.happened(packet),
                    Ok(None) => break,
                    Err(failure) => return standing.reason().unwrap_or(failure),
                }
            }
            let progress = tokio::select! {
                biased;
                () = standing.over() => Err(Failure::Closed),
                progress = self.link.progress() => progress,
            };
            match progress {
                Ok(Progress::Read(bytes)) => {
                    unshared += bytes;
                    if unshared >= SHARE {
                        unshared = 0;
                        tokio::task::yield_now().await;
                    }
                }
                Ok(Progress::Acknowledging(count)) => self.acknowledging(count),
                Ok(Progress::Written(taken)) => self.written(taken),
                Err(failure) => return standing.reason().unwrap_or(failure),
            }
        }
    }

    fn happened(&mut self, packet: Incoming) {
        if !matches!(packet, Incoming::Pong) {
            self.connection.traffic.fetch_add(1, Ordering::Relaxed);
        }
        match packet {
            Incoming::Arrived(arrival) => return self.arrived(arrival),
            Incoming::Subscribed { packet, reasons } => self.subscribed(packet, &reasons),
            Incoming::Acknowledged { packet, refusal } => self.acknowledged(packet, refusal),
            Incoming::Received { packet, refusal: Some(refusal) } => self.acknowledged(packet, Some(refusal)),
            // Also where the message is not known: the broker asks until it is answered.
            Incoming::Received { packet, refusal: None } => self.answered_with(self.connection.outlet.release(packet)),
            Incoming::Completed { packet } => self.completed(packet),
            // Of any message: an earlier client of this session may have received it.
            Incoming::Released { packet } => self.answered_with(self.connection.outlet.complete(packet)),
            Incoming::Unsubscribed { packet, reasons } => self.unsubscribed(packet, &reasons),
            Incoming::Pong => return,
            Incoming::Connected(_) | Incoming::Misplaced => {
                let problem = "it sent a packet that only a client may send, or a second CONNACK".to_owned();
                self.connection.standing.end(Failure::BrokenProtocol(problem));
            }
        }
        self.connection.progress.made();
    }

    /// So many acknowledgements leave: from the broker's view their places in the window are free once it reads them.
    fn acknowledging(&self, count: usize) {
        self.connection.standing.acknowledgements_leave(count);
        self.connection.progress.made();
    }

    /// What was handed over is written.
    fn written(&mut self, taken: Taken) {
        let connection = &self.connection;
        let now = Instant::now();
        let delivered = connection.flight().inflight.written(taken.end, |sent| sent.written = Some(now));
        if taken.disconnected {
            connection.goodbye.cancel();
        }
        connection.traffic.fetch_add(u64::from(taken.traffic), Ordering::Relaxed);
        delivered.into_iter().for_each(|sent| self.delivered(sent));
        self.connection.progress.made();
    }

    fn accepted(&mut self, welcome: Welcome) {
        let core = &self.connection.core;
        core.meters.connect(ConnectResult::Accepted);
        core.meters.connected.set(1);
        core.cover.connected(&welcome);
        core.decide_lost(welcome.session_present);
        core.outboxes.connected(core.id);
        core.status.send_modify(|status| {
            status.state = SessionState::Connected;
            status.last_error = None;
        });
    }

    fn arrived(&mut self, arrival: Arrival) {
        let Some(hand) = self.connection.hand() else { return };
        let now = Instant::now();
        let Ok(right) = self.admit(&arrival, now) else { return };
        let token = Some(AckToken::new(right, hand));
        let core = &self.connection.core;
        let topic = match arrival.topic {
            Ok(topic) => topic,
            Err(reason) => {
                error!(broker = %core.broker.name, reason, "message with an invalid topic name dropped");
                return core.router.refuse(&core.meters, arrival.qos.min(Qos::AtLeastOnce), token);
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
            hops: arrival.hops,
        };
        let topic = message.topic.clone();
        let copy = Copied {
            topic: &topic,
            identifiers: &arrival.identifiers,
            acknowledged: arrival.qos > Qos::AtMostOnce,
            again: arrival.dup,
        };
        core.cover.arrived(&copy, |routes, copy| core.router.receive(routes, message, copy, token));
    }

    /// The right to acknowledge a message that is to be acknowledged.
    fn admit(&self, arrival: &Arrival, now: Instant) -> Result<Option<Right>, Ignored> {
        if arrival.qos == Qos::AtMostOnce {
            return Ok(None);
        }
        let weight = arrival.topic.as_ref().map_or(0, |topic| topic.as_str().len())
            + arrival.payload.len()
            + arrival.properties.as_deref().map_or(0, Properties::weight);
        let received = Received { packet: arrival.packet, dup: arrival.dup, qos: arrival.qos, weight };
        match self.connection.standing.admit(received, now) {
            Admitted::Yes(right) => Ok(Some(right)),
            Admitted::FirstBeyond(right) => {
                let core = &self.connection.core;
                if !core.beyond_said.swap(true, Ordering::Relaxed) {
                    warn!(broker = %core.broker.name, receive_maximum = core.broker.receive_maximum,
                        "the broker sends more unacknowledged messages than receive-maximum; they are taken in while they \
                         take less memory than receive-maximum × max-packet");
                }
                Ok(Some(right))
            }
            Admitted::No | Admitted::Known => Err(Ignored),
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

    /// A broker that asks again and again and takes no answer is not to fill the memory.
    fn answered_with(&self, answered: Result<(), NoRoom>) {
        if answered.is_err() {
            let problem = "it asks for more answers than it takes".to_owned();
            self.connection.standing.end(Failure::BrokenProtocol(problem));
        }
    }

    /// A PUBCOMP may come twice, or for a message of an earlier client.
    fn completed(&self, packet: u16) {
        let sent = self.connection.flight().inflight.acknowledged(packet);
        if let Some(sent) = sent {
            self.delivered(sent);
        }
    }

    fn answered(&self, packet: u16) -> Option<Request> {
        self.connection.flight().subscribing.answered(packet)
    }

    fn unexpected(&self, answer: &str) {
        self.connection.standing.end(Failure::BrokenProtocol(format!("{answer} that nobody waits for")));
    }

    fn acknowledged(&self, packet: u16, refusal: Option<Refusal>) {
        let sent = self.connection.flight().inflight.acknowledged(packet);
        match (sent, refusal) {
            (Some(sent), None) => self.delivered(sent),
            (Some(sent), Some(refusal)) => self.refused(&sent, refusal),
            (None, _) => {
                let problem = "it acknowledges a message that it was not sent".to_owned();
                self.connection.standing.end(Failure::BrokenProtocol(problem));
            }
        }
    }

    fn delivered(&self, sent: Sent) {
        let core = &self.connection.core;
        core.meters.published(sent.qos);
        core.tap.report(|| Sighting::Published(core.id, Arc::clone(&sent.message)));
        match sent.origin {
            Origin::Outbox(entry) => core.outboxes.delivered(core.id, entry, sent.qos),
            Origin::Own(_, done) => {
                // Only the close message has somebody waiting, and only for so long.
                let _ = done.map(|done| done.send(()));
            }
        }
    }

    fn refused(&self, sent: &Sent, refusal: Refusal) {
        let core = &self.connection.core;
        let (broker, topic) = (&core.broker.name, &sent.message.topic);
        match (&sent.origin, refusal) {
            (Origin::Outbox(entry), Refusal::ForGood(reason)) => {
                error!(%broker, %topic, reason, "message refused by the broker");
                core.outboxes.refused(core.id, *entry, reason);
            }
            (Origin::Outbox(entry), Refusal::ForNow(reason)) => {
                if core.outboxes.postponed(core.id, *entry) {
                    warn!(%broker, %topic, reason,
                        "the broker does not take messages for now; this one and those behind it are sent again later");
                }
            }
            (Origin::Own(key, _), Refusal::ForGood(reason) | Refusal::ForNow(reason)) => {
                warn!(%broker, key, %topic, reason, "status message refused by the broker");
            }
        }
    }
}
