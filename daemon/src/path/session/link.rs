//! One connection to a broker without regard to the protocol version.
//!
//! Owns: the vocabulary that the adapters `v4.rs` and `v5.rs` translate rumqttc's into. rumqttc's two halves stay two:
//! the [`Client`], of which everyone may have a clone, hands requests over without waiting, and the [`Link`], which the
//! poller owns, does the work. An enum rather than a trait: there are two versions and there will not be a third soon.

use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use super::cover::Batch;
use super::failure::Failure;
use super::ring::Received;
use super::subscribing::Request;
use super::{v4, v5};
use crate::control::config::model::{Broker, Protocol};
use crate::control::config::secret::Secret;
use crate::message::{Outgoing, Properties, Qos};
use crate::topic::TopicName;

/// DNS, TCP and CONNACK together; rumqttc tries the addresses of a name in turn, and a dead one eats its share.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(15);

/// Publishes that rumqttc may have unacknowledged: far above the send window, since at its limit rumqttc holds back
/// acknowledgements and SUBSCRIBE too.
pub(super) const INFLIGHT_LIMIT: u16 = 1024;

/// Largest packet (MQTT 5 §2.1.4): a fixed header of five bytes and 268,435,455 more.
pub(super) const LARGEST_PACKET: u32 = 268_435_455 + 5;

/// Wire filters in one SUBSCRIBE of 3.1.1. On 5 it is one, since the subscription identifier belongs to the packet.
const FILTERS_PER_SUBSCRIBE: usize = 8;

/// The request channel is full, or the connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

/// What the broker said in its CONNACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Welcome {
    /// The broker kept the session.
    pub(super) session_present: bool,
    /// Unacknowledged publishes that it takes.
    pub(super) receive_maximum: u16,
    /// Of these, publishes with QoS 2 that may be on their way.
    pub(super) exactly_once_window: usize,
    /// Largest packet that it takes, in bytes.
    pub(super) max_packet: u32,
    /// The highest QoS that it takes.
    pub(super) max_qos: Qos,
    /// It takes retained messages.
    pub(super) retain: bool,
    /// It takes subscription identifiers; never on 3.1.1.
    pub(super) identifiers: bool,
    /// It takes shared subscriptions; on 3.1.1 it cannot say.
    pub(super) shares: bool,
    /// It takes wildcards in topic filters.
    pub(super) wildcards: bool,
    /// The keep alive that it imposes, if any.
    pub(super) keep_alive: Option<Duration>,
}

/// A message as it came.
#[derive(Debug)]
pub(super) struct Arrival {
    /// Or what is wrong with it: brokers ought to refuse such topics, not all do.
    pub(super) topic: Result<TopicName, String>,
    /// Copied: a slice of the read buffer would hold all of it.
    pub(super) payload: Bytes,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) dup: bool,
    /// 0 at QoS 0.
    pub(super) packet: u16,
    pub(super) properties: Option<Box<Properties>>,
    pub(super) identifiers: SmallVec<[u32; 4]>,
}

/// What happened on a connection.
#[derive(Debug)]
pub(super) enum Event {
    /// The first one.
    Connected(Welcome),
    /// A message came.
    Arrived(Arrival),
    /// SUBACK, with the QoS granted or the reason of the refusal for each filter.
    Subscribed { packet: u16, reasons: Vec<Result<Qos, &'static str>> },
    /// UNSUBACK, on protocol 5 with the reason where a filter stays.
    Unsubscribed { packet: u16, reasons: Vec<Result<(), &'static str>> },
    /// PUBACK or PUBCOMP, with the reason of a refusal.
    Acknowledged { packet: u16, refusal: Option<&'static str> },
    /// PUBREC with the reason of a refusal. rumqttc never frees the publish's place in its window.
    RefusedAtRelease { packet: u16, refusal: &'static str },
    /// A SUBSCRIBE or UNSUBSCRIBE was written.
    SubscribeWritten(u16),
    /// A publish was written; 0 at QoS 0.
    PublishWritten(u16),
    /// An acknowledgement of a received message was written.
    AcknowledgementWritten,
    /// DISCONNECT was written.
    DisconnectWritten,
    /// Nothing that matters here.
    Other,
}

/// What a new connection needs to know.
pub(super) struct Opening<'a> {
    pub(super) broker: &'a Broker,
    pub(super) password: Option<Secret>,
    /// Requests that the channel takes before it is full.
    pub(super) capacity: usize,
    /// Make rumqttc believe that it has received every QoS 2 message, so that it answers the releases of any.
    pub(super) expect_releases: bool,
}

impl Opening<'_> {
    /// The address as rumqttc needs it, which joins it with the port.
    pub(super) fn host(&self) -> String {
        let address = &self.broker.address;
        if address.contains(':') { format!("[{address}]") } else { address.clone() }
    }

    /// The password, empty where there is none.
    pub(super) fn password(&self) -> &str {
        self.password.as_ref().map_or("", Secret::expose)
    }

    /// The keep alive of CONNECT.
    pub(super) fn keep_alive(&self) -> Duration {
        Duration::from_secs(u64::from(self.broker.keep_alive))
    }
}

/// Prepares a new connection; nothing is sent before the first poll.
pub(super) fn open(opening: &Opening<'_>) -> (Client, Link) {
    match opening.broker.protocol {
        Protocol::V311 => {
            let (client, link) = v4::open(opening);
            (Client::V4(client), Link::V4(Box::new(link)))
        }
        Protocol::V5 => {
            let (client, link) = v5::open(opening);
            (Client::V5(client), Link::V5(Box::new(link)))
        }
    }
}

/// Hands requests over to a connection. None of its calls waits. Cheap to clone.
#[derive(Clone)]
pub(super) enum Client {
    V4(v4::Client),
    V5(v5::Client),
}

impl Client {
    /// How many filters go into one packet.
    pub(super) fn batch(&self) -> Batch {
        let subscribe = match self {
            Client::V4(_) => FILTERS_PER_SUBSCRIBE,
            Client::V5(_) => 1,
        };
        // rumqttc's client takes one filter at a time.
        Batch { subscribe, unsubscribe: 1 }
    }

    /// Subscribes or unsubscribes, in one packet.
    pub(super) fn try_request(&self, request: &Request, welcome: &Welcome) -> Result<(), NoRoom> {
        match (self, request) {
            (Client::V4(client), Request::Subscribe(filters)) => client.try_subscribe(filters),
            (Client::V5(client), Request::Subscribe(filters)) => client.try_subscribe(filters, welcome.identifiers),
            (Client::V4(client), Request::Unsubscribe(filters)) => client.try_unsubscribe(filters),
            (Client::V5(client), Request::Unsubscribe(filters)) => client.try_unsubscribe(filters),
        }
    }

    /// Publishes with this quality of service rather than the message's own.
    pub(super) fn try_publish(&self, message: &Outgoing, qos: Qos, retain: bool) -> Result<(), NoRoom> {
        match self {
            Client::V4(client) => client.try_publish(message, qos, retain),
            Client::V5(client) => client.try_publish(message, qos, retain),
        }
    }

    /// Bytes of the packet that such a publish becomes.
    pub(super) fn packet_size(&self, message: &Outgoing, qos: Qos) -> usize {
        match self {
            Client::V4(_) => v4::packet_size(message, qos),
            Client::V5(_) => v5::packet_size(message, qos),
        }
    }

    /// Acknowledges a received message.
    pub(super) fn try_ack(&self, received: Received) -> Result<(), NoRoom> {
        match self {
            Client::V4(client) => client.try_ack(received),
            Client::V5(client) => client.try_ack(received),
        }
    }

    /// Ends the connection after what was handed over before.
    pub(super) fn try_disconnect(&self) -> Result<(), NoRoom> {
        match self {
            Client::V4(client) => client.try_disconnect(),
            Client::V5(client) => client.try_disconnect(),
        }
    }
}

/// Does the work of one connection.
pub(super) enum Link {
    V4(Box<v4::Link>),
    V5(Box<v5::Link>),
}

impl Link {
    /// The next event. Not cancellation safe: a cancelled call may lose an acknowledgement, so it is cancelled only to
    /// end the connection.
    ///
    /// # Errors
    /// The connection has ended. It must not be polled again: rumqttc would connect anew, with the old state.
    pub(super) async fn poll(&mut self) -> Result<Event, Failure> {
        match self {
            Link::V4(link) => link.poll().await,
            Link::V5(link) => link.poll().await,
        }
    }

    /// What had happened before the connection ended and was not polled yet.
    pub(super) fn next_leftover(&mut self) -> Option<Event> {
        match self {
            Link::V4(link) => link.next_leftover(),
            Link::V5(link) => link.next_leftover(),
        }
    }
}
