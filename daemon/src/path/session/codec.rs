//! The packets of one connection, without regard to the protocol version.
//!
//! Owns: the choice between `v4.rs` and `v5.rs`, which are the only places that know rumqttc's packets. Pure: bytes in,
//! bytes out. An enum rather than a trait: there are two versions and there will not be a third soon.

use std::sync::Arc;

use bytes::BytesMut;

use super::cover::Batch;
use super::failure::{Failure, shortened};
use super::packet::{Incoming, Welcome};
use super::subscribing::Request;
use super::{v4, v5};
use crate::control::config::model::{Broker, Protocol};
use crate::control::config::secret::Secret;
use crate::message::{Outgoing, Qos};

/// Filters in one SUBSCRIBE or UNSUBSCRIBE of 3.1.1. On 5 a SUBSCRIBE has one, since the subscription identifier belongs to
/// the packet.
const FILTERS_PER_PACKET: usize = 8;

/// How a publish is sent, where that differs from what the message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sending {
    /// 0 at QoS 0.
    pub(super) packet: u16,
    pub(super) qos: Qos,
    pub(super) retain: bool,
}

/// Translates for one broker. Cheap to clone.
#[derive(Clone)]
pub(super) enum Codec {
    V4(Arc<Broker>),
    V5(Arc<Broker>),
}

impl Codec {
    /// For a broker's connections.
    pub(super) fn new(broker: &Arc<Broker>) -> Codec {
        match broker.protocol {
            Protocol::V311 => Codec::V4(Arc::clone(broker)),
            Protocol::V5 => Codec::V5(Arc::clone(broker)),
        }
    }

    /// Takes the next complete packet out of the buffer. None if there is none yet. `connecting`: nothing but a CONNACK may
    /// come.
    ///
    /// # Errors
    /// The bytes are not what a broker may send, or they end the connection: a refusal, a DISCONNECT.
    pub(super) fn decode(&self, bytes: &mut BytesMut, connecting: bool) -> Result<Option<Incoming>, Failure> {
        match self {
            Codec::V4(broker) => v4::decode(broker, bytes, connecting),
            Codec::V5(broker) => v5::decode(broker, bytes, connecting),
        }
    }

    /// Appends CONNECT.
    pub(super) fn connect(&self, password: Option<&Secret>, bytes: &mut BytesMut) {
        match self {
            Codec::V4(broker) => v4::connect(broker, password, bytes),
            Codec::V5(broker) => v5::connect(broker, password, bytes),
        }
    }

    /// Appends PUBLISH.
    pub(super) fn publish(&self, message: &Outgoing, sending: Sending, bytes: &mut BytesMut) {
        match self {
            Codec::V4(_) => v4::publish(message, sending, bytes),
            Codec::V5(_) => v5::publish(message, sending, bytes),
        }
    }

    /// Bytes of the PUBLISH that a message becomes.
    pub(super) fn publish_size(&self, message: &Outgoing, qos: Qos) -> usize {
        match self {
            Codec::V4(_) => v4::publish_size(message, qos),
            Codec::V5(_) => v5::publish_size(message, qos),
        }
    }

    /// How many filters go into one packet at most.
    pub(super) fn batch(&self) -> Batch {
        let subscribe = match self {
            Codec::V4(_) => FILTERS_PER_PACKET,
            Codec::V5(_) => 1,
        };
        Batch { subscribe, unsubscribe: FILTERS_PER_PACKET }
    }

    /// Appends SUBSCRIBE or UNSUBSCRIBE.
    pub(super) fn request(&self, packet: u16, request: &Request, welcome: &Welcome, bytes: &mut BytesMut) {
        match (self, request) {
            (Codec::V4(_), Request::Subscribe(filters)) => v4::subscribe(packet, filters, bytes),
            (Codec::V5(_), Request::Subscribe(filters)) => v5::subscribe(packet, filters, welcome.identifiers, bytes),
            (Codec::V4(_), Request::Unsubscribe(filters)) => v4::unsubscribe(packet, filters, bytes),
            (Codec::V5(_), Request::Unsubscribe(filters)) => v5::unsubscribe(packet, filters, bytes),
        }
    }

    /// Appends DISCONNECT.
    pub(super) fn disconnect(&self, bytes: &mut BytesMut) {
        // The same in both versions, where nothing is told on 5 (MQTT 5 §3.14.2.1).
        bytes.extend_from_slice(&[0xE0, 0x00]);
    }

    /// Appends PINGREQ.
    pub(super) fn ping(&self, bytes: &mut BytesMut) {
        bytes.extend_from_slice(&[0xC0, 0x00]);
    }

    /// Appends PUBACK, PUBREC, PUBREL or PUBCOMP: on 5 without a reason code, which is success (MQTT 5 §3.4.2.1).
    pub(super) fn answer(&self, answer: Answer, packet: u16, bytes: &mut BytesMut) {
        let [high, low] = packet.to_be_bytes();
        bytes.extend_from_slice(&[answer as u8, 0x02, high, low]);
    }
}

/// The first byte of a packet of the acknowledgement flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Answer {
    /// PUBACK.
    Acknowledge = 0x40,
    /// PUBREC.
    Receive = 0x50,
    /// PUBREL; its flags are not 0 (MQTT 5 §3.6.1 [MQTT-3.6.1-1]).
    Release = 0x62,
    /// PUBCOMP.
    Complete = 0x70,
}

/// Why an incomplete or unreadable packet is no problem yet, or one for good. Both versions of rumqttc's packets have such an
/// error type of their own.
pub(super) enum Unread {
    /// More bytes are needed.
    Incomplete(usize),
    /// It is larger than `max-packet`.
    TooLarge(usize),
    /// It is not MQTT.
    Malformed(String),
}

/// Takes one packet of rumqttc's out of the buffer.
///
/// # Errors
/// The bytes cannot become a packet that is taken in.
pub(super) fn read<P>(
    bytes: &mut BytesMut,
    connecting: bool,
    limit: u32,
    read: impl FnOnce(&mut BytesMut) -> Result<P, Unread>,
) -> Result<Option<P>, Failure> {
    let broken = |problem| Err(if connecting { Failure::NotMqtt(problem) } else { Failure::BrokenProtocol(problem) });
    let whole = bytes.len();
    match read(bytes) {
        Ok(packet) => Ok(Some(packet)),
        // rumqttc has taken the packet out, and then found less in it than it announces.
        Err(Unread::Incomplete(_)) if bytes.len() < whole => broken("a packet that ends early".to_owned()),
        Err(Unread::Incomplete(more)) => {
            bytes.reserve(more);
            Ok(None)
        }
        Err(Unread::TooLarge(size)) if connecting => Err(Failure::NotMqtt(format!("a packet of {size} bytes"))),
        Err(Unread::TooLarge(size)) => Err(Failure::PacketTooLarge { bytes: size, limit }),
        Err(Unread::Malformed(problem)) => broken(shortened(&problem)),
    }
}
