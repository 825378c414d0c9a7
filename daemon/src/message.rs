//! The messages that flow through the gateway, in both directions.
//!
//! Owns: the protocol-neutral form of an application message. Fed by `path/session`, which translates from the wire
//! types of both protocol versions; read by every later stage. It deliberately knows neither the wire nor WebAssembly.

use std::fmt;
use std::time::{Instant, SystemTime};

use bytes::Bytes;

use crate::topic::TopicName;

/// A broker's number in this process: assigned at start in the order of the configuration, never reused.
///
/// The name stands in the configuration; stages carry this number because it is copied with every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrokerId(pub u32);

impl BrokerId {
    /// The place of this broker in tables that have an entry for each.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// MQTT quality of service (MQTT 5 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::enum_variant_names, reason = "MQTT's own terms")]
pub enum Qos {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce,
    /// QoS 2.
    ExactlyOnce,
}

impl Qos {
    /// All of them, by number.
    pub const ALL: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

    /// The value of the metric label `qos`.
    pub fn label(self) -> &'static str {
        match self {
            Qos::AtMostOnce => "0",
            Qos::AtLeastOnce => "1",
            Qos::ExactlyOnce => "2",
        }
    }

    /// The number on the wire: 0, 1 or 2.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The quality of service with this number on the wire, if it is one.
    pub fn from_number(number: u8) -> Option<Qos> {
        Qos::ALL.get(usize::from(number)).copied()
    }
}

impl fmt::Display for Qos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// The user property (MQTT 5 §3.3.2.3.7) with the number of handlers' calls that led to a message, one after the other.
pub const HOPS: &str = "tidegate-hops";

/// A message that comes from so many calls, one after the other, goes in a circle: no handler is called for it.
pub const HOP_LIMIT: u8 = 16;

/// The MQTT 5 properties of an application message (MQTT 5 §3.3.2.3). A 3.1.1 session has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// MIME type of the payload.
    pub content_type: Option<String>,
    /// Where an answer is expected.
    pub response_topic: Option<String>,
    /// Tells the asker which request an answer belongs to.
    pub correlation_data: Option<Bytes>,
    /// Seconds left before the message expires.
    pub message_expiry: Option<u32>,
    /// The payload is declared to be UTF-8 (payload format indicator 1).
    pub utf8_payload: bool,
    /// In order; keys may repeat.
    pub user: Vec<(String, String)>,
}

impl Properties {
    /// Bytes of everything that varies in length.
    pub fn weight(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let user: usize = self.user.iter().map(|(key, value)| key.len() + value.len() + USER_PROPERTY_OVERHEAD).sum();
        text(&self.content_type)
            + text(&self.response_topic)
            + self.correlation_data.as_ref().map_or(0, Bytes::len)
            + user
    }
}

/// Bytes that a user property takes in memory beside its text, so that many small ones count too.
const USER_PROPERTY_OVERHEAD: usize = 2 * size_of::<String>();

/// Bytes that a message counts in limits.
fn weight(topic: &TopicName, payload: &Bytes, properties: Option<&Properties>) -> usize {
    topic.as_str().len() + payload.len() + properties.map_or(0, Properties::weight)
}

/// A message received from a broker.
#[derive(Clone, Debug)]
pub struct Message {
    /// The broker that it came from.
    pub broker: BrokerId,
    /// The topic that it was published to.
    pub topic: TopicName,
    /// The application payload. Owns its memory: never a slice of a read buffer.
    pub payload: Bytes,
    /// As received on the wire: never [`Qos::ExactlyOnce`], since subscriptions ask for at most QoS 1.
    pub qos: Qos,
    /// A retained message that the broker replayed because of a new subscription (MQTT 5 §3.3.1.3).
    pub retain: bool,
    /// The broker says that it may have sent this message before (MQTT 5 §3.3.1.1).
    pub dup: bool,
    /// Wall clock time of arrival, for people and handlers.
    pub received: SystemTime,
    /// Monotonic time of arrival, for durations.
    pub arrived: Instant,
    /// Present on protocol 5 when the message carries any.
    pub properties: Option<Box<Properties>>,
    /// Calls that it came from, one after the other, as far as protocol 5 carried their number (`tidegate-hops`).
    pub hops: u8,
}

impl Message {
    /// The number of hops of what a call for this message publishes.
    pub fn next_hop(&self) -> u8 {
        self.hops.saturating_add(1)
    }

    /// Bytes that this message counts in limits: topic, payload and properties.
    pub fn weight(&self) -> usize {
        weight(&self.topic, &self.payload, self.properties.as_deref())
    }
}

#[cfg(test)]
impl Message {
    /// Of the first broker, with QoS 1, at the beginning of time, and nothing else: what a test wants otherwise, it says.
    pub(crate) fn testing(topic: &str, payload: impl AsRef<[u8]>) -> Message {
        Message {
            broker: BrokerId(0),
            topic: TopicName::new(topic).expect("is a name"),
            payload: Bytes::copy_from_slice(payload.as_ref()),
            qos: Qos::AtLeastOnce,
            retain: false,
            dup: false,
            received: SystemTime::UNIX_EPOCH,
            arrived: Instant::now(),
            properties: None,
            hops: 0,
        }
    }
}

/// A message to publish to some broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The topic to publish to.
    pub topic: TopicName,
    /// The application payload.
    pub payload: Bytes,
    /// As asked for; a session without clean start sends QoS 2 as QoS 1.
    pub qos: Qos,
    /// The broker keeps it for later subscribers.
    pub retain: bool,
    /// Sent on protocol 5 only.
    pub properties: Option<Box<Properties>>,
    /// Sent on protocol 5 only: the number of calls that led to it, where one did.
    pub hops: Option<u8>,
}

impl Outgoing {
    /// Bytes that this message counts in limits: topic, payload and properties.
    pub fn weight(&self) -> usize {
        weight(&self.topic, &self.payload, self.properties.as_deref())
    }
}
