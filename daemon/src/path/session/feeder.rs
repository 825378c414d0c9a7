//! What feeds one connection: subscribes, says the birth message, sends what the outbox holds, and says goodbye.
//!
//! Fed by the outbox and by the poller's progress; feeds the outlet. It owns the order of publishes and the send window. It runs
//! on the poller's task, so that what it hands over is written in the same turn; it never touches the link, and never waits
//! with a lock held.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::codec::Sending;
use super::connection::{Connection, Flight, Origin, SUBSCRIBE_WINDOW, Sent, send_window};
use super::cover::Next;
use super::outlet::NoRoom;
use super::packet::{LARGEST_PACKET, Welcome};
use super::subscribing::Request;
use crate::control::config::model::StatusMessage;
use crate::message::{Outgoing, Qos};

/// How long a stop waits for the broker to have the close message.
pub(super) const CLOSE_DEADLINE: Duration = Duration::from_secs(3);

/// Feeds a connection from its CONNACK to its end. When `stop` fires it hands DISCONNECT over and returns.
pub(super) async fn run(connection: Arc<Connection>, welcome: Welcome, stop: CancellationToken) {
    let mut feeder = Feeder { connection, welcome, stop, retain_said: false };
    if let Err(Interrupt::Stop) = feeder.feed().await {
        feeder.close().await;
    }
}

/// The QoS that a message is sent with. Exactly once needs a session that ends with the connection: which publishes were
/// released is forgotten with it, and a broker that remembers would take a new one for the old.
pub(super) fn wire_qos(asked: Qos, clean_session: bool, welcome: &Welcome) -> Qos {
    let highest = if clean_session { Qos::ExactlyOnce } else { Qos::AtLeastOnce };
    asked.min(highest).min(welcome.max_qos)
}

/// Why feeding ended.
#[derive(Clone, Copy, Debug)]
enum Interrupt {
    /// The connection is over.
    Over,
    /// The gateway stops.
    Stop,
}

/// What came of an attempt to send from the outbox.
enum Attempt {
    Sent,
    Empty,
    /// A window or the outlet is full.
    Full,
}

struct Feeder {
    connection: Arc<Connection>,
    welcome: Welcome,
    stop: CancellationToken,
    retain_said: bool,
}

impl Feeder {
    async fn feed(&mut self) -> Result<(), Interrupt> {
        self.subscribe().await?;
        let core = Arc::clone(&self.connection.core);
        if let Some(birth) = &core.broker.birth {
            while self.say("birth", birth, None).is_err() {
                self.progress().await?;
            }
        }
        loop {
            match self.send_next() {
                Attempt::Sent => {}
                Attempt::Full => self.progress().await?,
                Attempt::Empty => self.unless_over(core.outboxes.ready(core.id)).await?,
            }
        }
    }

    /// Subscribes and waits for the answers, so that the birth message is true.
    async fn subscribe(&self) -> Result<(), Interrupt> {
        let core = &self.connection.core;
        let batch = self.connection.outlet.codec().batch();
        loop {
            match core.cover.next(batch) {
                // Not given up at a stop: what was handed out for saving counts as saved. It has a deadline of its own.
                Next::Save(record) => core.cover.save(record).await,
                Next::Send(request) => {
                    while self.ask(&request).is_err() {
                        self.progress().await?;
                    }
                }
                Next::Wait => self.progress().await?,
                Next::Done => return Ok(()),
            }
        }
    }

    /// Sends one SUBSCRIBE or UNSUBSCRIBE.
    fn ask(&self, request: &Request) -> Result<(), NoRoom> {
        let mut flight = self.connection.flight();
        if flight.subscribing.len() >= SUBSCRIBE_WINDOW {
            return Err(NoRoom);
        }
        let packet = flight.next_packet();
        self.connection.outlet.request(packet, request, &self.welcome)?;
        flight.subscribing.asked(packet, request.clone(), Instant::now());
        Ok(())
    }

    fn send_next(&mut self) -> Attempt {
        let core = &self.connection.core;
        let mut flight = self.connection.flight();
        if flight.inflight.unacknowledged() >= send_window(&self.welcome) {
            return Attempt::Full;
        }
        let Some((entry, message)) = core.outboxes.take_next(core.id) else { return Attempt::Empty };
        let qos = wire_qos(message.qos, core.broker.clean_session, &self.welcome);
        if let Some(size) = self.too_large(&message, qos) {
            drop(flight);
            error!(broker = %core.broker.name, topic = %message.topic, bytes = size, limit = self.welcome.max_packet,
                "message dropped: it is larger than the broker takes");
            let limit = self.welcome.max_packet;
            let reason = format!("it makes a packet of {size} bytes, and the broker takes {limit}");
            core.outboxes.refused(core.id, entry, reason);
            return Attempt::Sent;
        }
        if qos == Qos::ExactlyOnce && self.exactly_once(&flight) >= self.welcome.exactly_once_window {
            core.outboxes.put_back(core.id, entry);
            return Attempt::Full;
        }
        let retain = message.retain && self.welcome.retain;
        if retain != message.retain && !self.retain_said {
            self.retain_said = true;
            warn!(broker = %core.broker.name, "the broker keeps no retained messages; they are sent without retain");
        }
        match self.hand_over(&mut flight, Origin::Outbox(entry), &message, qos, retain) {
            Ok(()) => Attempt::Sent,
            Err(NoRoom) => {
                core.outboxes.put_back(core.id, entry);
                Attempt::Full
            }
        }
    }

    /// Publishes with QoS 2 on their way.
    fn exactly_once(&self, flight: &Flight) -> usize {
        flight.inflight.iter().filter(|sent| sent.qos == Qos::ExactlyOnce).count()
    }

    /// The size of the packet that a message becomes, if the broker does not take it. It would end the connection.
    fn too_large(&self, message: &Outgoing, qos: Qos) -> Option<usize> {
        if self.welcome.max_packet == LARGEST_PACKET {
            // Far beyond what an outbox holds: the size needs no counting.
            return None;
        }
        let size = self.connection.outlet.codec().publish_size(message, qos);
        (size > self.welcome.max_packet as usize).then_some(size)
    }

    /// Sends one of the session's own messages, beyond the window.
    fn say(&self, key: &'static str, own: &StatusMessage, done: Option<oneshot::Sender<()>>) -> Result<(), NoRoom> {
        let broker = &self.connection.core.broker;
        let message = Arc::new(Outgoing {
            topic: own.topic.clone(),
            payload: own.message.clone(),
            qos: own.qos,
            retain: own.retain,
            properties: None,
        });
        let qos = wire_qos(own.qos, broker.clean_session, &self.welcome);
        if let Some(size) = self.too_large(&message, qos) {
            error!(broker = %broker.name, key, bytes = size, limit = self.welcome.max_packet,
                "status message left out: it is larger than the broker takes");
            return Ok(());
        }
        let retain = own.retain && self.welcome.retain;
        self.hand_over(&mut self.connection.flight(), Origin::Own(key, done), &message, qos, retain)
    }

    fn hand_over(
        &self,
        flight: &mut Flight,
        origin: Origin,
        message: &Arc<Outgoing>,
        qos: Qos,
        retain: bool,
    ) -> Result<(), NoRoom> {
        let packet = if qos == Qos::AtMostOnce { 0 } else { flight.next_packet() };
        let end = self.connection.outlet.publish(message, Sending { packet, qos, retain })?;
        let sent = Sent { origin, message: Arc::clone(message), qos, written: None };
        if qos == Qos::AtMostOnce {
            flight.inflight.handed_over(end, sent);
        } else {
            flight.inflight.handed_over_as(end, packet, sent);
        }
        Ok(())
    }

    /// Says the close message, waits until the broker has it and every acknowledgement that is due, and disconnects.
    async fn close(&self) {
        let owed = async {
            if let Some(close) = &self.connection.core.broker.close {
                self.say_goodbye(close).await;
            }
            while self.connection.standing.is_acknowledging() {
                self.connection.progress.more().await;
            }
        };
        tokio::select! {
            () = owed => {}
            () = tokio::time::sleep(CLOSE_DEADLINE) => {
                warn!(broker = %self.connection.core.broker.name,
                    "the broker is too slow to take the close message and the last acknowledgements");
            }
            () = self.connection.standing.over() => return,
        }
        self.connection.outlet.disconnect();
    }

    /// Says the close message and waits until the broker has taken or refused it.
    async fn say_goodbye(&self, close: &StatusMessage) {
        loop {
            let (done, told) = oneshot::channel();
            if self.say("close", close, Some(done)).is_ok() {
                // An error means that the broker refused it, which the poller has said.
                return told.await.unwrap_or_default();
            }
            self.connection.progress.more().await;
        }
    }

    /// Waits until something may have room again.
    async fn progress(&self) -> Result<(), Interrupt> {
        self.unless_over(self.connection.progress.more()).await
    }

    async fn unless_over(&self, wait: impl Future<Output = ()>) -> Result<(), Interrupt> {
        tokio::select! {
            biased;
            () = self.connection.standing.over() => Err(Interrupt::Over),
            () = self.stop.cancelled() => Err(Interrupt::Stop),
            () = wait => Ok(()),
        }
    }
}
