//! What feeds one connection: subscribes, says the birth message, sends what the outbox holds, and says goodbye.
//!
//! Fed by the outbox and by the poller's progress; feeds the outlet. It owns the order of publishes and the send window. It runs
//! on the poller's task, so that what it hands over is written in the same turn; it never touches the link, and never waits
//! with a lock held.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::{error, warn};

use super::codec::Sending;
use super::connection::{Connection, Flight, Origin, Phase, SUBSCRIBE_WINDOW, Sent, send_window};
use super::cover::Next;
use super::outlet::NoRoom;
use super::packet::{LARGEST_PACKET, Welcome};
use super::subscribing::Request;
use crate::control::config::model::StatusMessage;
use crate::message::{Outgoing, Qos};

/// How long a stop waits for the broker to have the close message.
pub(super) const CLOSE_DEADLINE: Duration = Duration::from_secs(3);

/// How often the end of a connection looks whether what it waits for is gone by itself, such as what has become too old.
const LOOK: Duration = Duration::from_secs(1);

/// Feeds a connection from its CONNACK to its end. When the connection is to end it hands DISCONNECT over and returns.
pub(super) async fn run(connection: Arc<Connection>, welcome: Welcome) {
    let mut feeder = Feeder {
        connection,
        welcome,
        covering: true,
        unasked: None,
        saving: None,
        draining: false,
        retain_said: false,
    };
    let Err(mut interrupt) = feeder.feed().await;
    if let Interrupt::Drain = interrupt {
        interrupt = feeder.drain().await.err().unwrap_or(Interrupt::Leave);
    }
    if let Interrupt::Leave = interrupt {
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
    /// It is to end once what is in hand is finished.
    Drain,
    /// It is to end.
    Leave,
}

/// What came of an attempt to send from the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Sent,
    Empty,
    /// A window or the outlet is full.
    Full,
}

/// What is worth waiting for, beside the end and other subscriptions.
#[derive(Clone, Copy, Debug)]
struct Await {
    /// Something to send in the outbox.
    outbox: bool,
    /// What the poller does: answers that come, room in a window or the outlet.
    progress: bool,
}

struct Feeder {
    connection: Arc<Connection>,
    welcome: Welcome,
    /// The broker has not answered for every subscription, or something is left to give back.
    covering: bool,
    /// A SUBSCRIBE or UNSUBSCRIBE for which there was no room.
    unasked: Option<Request>,
    /// The record is being written. Not given up before it is: what was handed out for saving counts as saved. It has a
    /// deadline of its own.
    saving: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    /// What is in hand is being finished.
    draining: bool,
    retain_said: bool,
}

impl Feeder {
    async fn feed(&mut self) -> Result<Infallible, Interrupt> {
        // The birth message waits for the answers, so that it is true.
        while !self.cover() {
            self.wait(Await { outbox: false, progress: true }).await?;
        }
        let core = Arc::clone(&self.connection.core);
        if let Some(birth) = &core.broker.birth {
            while self.say("birth", birth, None).is_err() {
                self.wait(Await { outbox: false, progress: true }).await?;
            }
        }
        loop {
            // Subscriptions that change while the connection stands hold up no publish.
            self.cover();
            match self.send_next() {
                Attempt::Sent => self.go_on()?,
                idle => self.wait(Await { outbox: idle == Attempt::Empty, progress: idle == Attempt::Full }).await?,
            }
        }
    }

    /// Takes the subscriptions as far as they go without waiting: whether that is to their end.
    fn cover(&mut self) -> bool {
        let core = &self.connection.core;
        self.covering |= core.cover.has_changed();
        while self.covering && self.saving.is_none() {
            if let Some(request) = self.unasked.take() {
                if self.ask(&request).is_err() {
                    self.unasked = Some(request);
                    break;
                }
                continue;
            }
            match core.cover.next(self.connection.outlet.codec().batch()) {
                Next::Save(record) => {
                    let core = Arc::clone(core);
                    self.saving = Some(Box::pin(async move { core.cover.save(record).await }));
                }
                Next::Send(request) => self.unasked = Some(request),
                Next::Wait => break,
                Next::Done => self.covering = false,
            }
        }
        !self.covering
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
            hops: None,
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

    /// Finishes what is in hand: the messages that were taken in, with what they publish, and at the end of a visit all that
    /// waits to be published; then what is on its way to the broker.
    async fn drain(&mut self) -> Result<(), Interrupt> {
        self.draining = true;
        let core = Arc::clone(&self.connection.core);
        while self.connection.has_in_hand() || core.steering.delivers() {
            self.cover();
            match self.send_next() {
                Attempt::Sent => self.go_on()?,
                Attempt::Empty if self.is_drained() => break,
                idle => {
                    // Of what is held back, or has no room yet, the next one may be due with an acknowledgement.
                    let wait = self.wait(Await { outbox: idle == Attempt::Empty, progress: true });
                    if let Ok(waited) = tokio::time::timeout(LOOK, wait).await {
                        waited?;
                    }
                }
            }
        }
        while !self.connection.flight().inflight.is_empty() {
            self.wait(Await { outbox: false, progress: true }).await?;
        }
        Ok(())
    }

    /// Whether there is nothing to wait for where the outbox gives nothing to send: that may be held back, or have no room yet. What
    /// is on the disk is safe there.
    fn is_drained(&self) -> bool {
        let core = &self.connection.core;
        let owes = core.steering.delivers() && core.outboxes.holds_in_memory(core.id);
        !owes && !self.connection.has_in_hand()
    }

    /// Says the close message, waits until the broker has it and every acknowledgement that is due, and disconnects.
    async fn close(&mut self) {
        if let Some(saving) = self.saving.take() {
            saving.await;
        }
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

    /// Whether feeding goes on: it has not come to its end.
    fn go_on(&self) -> Result<(), Interrupt> {
        match self.connection.phase() {
            Phase::Serving => Ok(()),
            Phase::Draining if self.draining => Ok(()),
            Phase::Draining => Err(Interrupt::Drain),
            Phase::Leaving => Err(Interrupt::Leave),
        }
    }

    /// Waits until there may be something to do.
    async fn wait(&mut self, what: Await) -> Result<(), Interrupt> {
        self.go_on()?;
        let Connection { core, standing, progress, .. } = &*self.connection;
        let is_saving = self.saving.is_some();
        let saved = async {
            if let Some(saving) = &mut self.saving {
                saving.await;
            }
        };
        tokio::select! {
            biased;
            () = standing.over() => return Err(Interrupt::Over),
            () = core.told.notified() => {}
            () = saved, if is_saving => self.saving = None,
            () = progress.more(), if what.progress || self.covering => {}
            () = core.outboxes.ready(core.id), if what.outbox => {}
        }
        self.go_on()
    }
}
