//! What both versions of MQTT say, in one vocabulary.
//!
//! Owns no behaviour. `codec.rs` and its two versions translate packets into it; the poller and the feeder speak it.

use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::message::{Properties, Qos};
use crate::topic::TopicName;

/// Largest packet (MQTT 5 §2.1.4): a fixed header of five bytes and 268,435,455 more.
pub(super) const LARGEST_PACKET: u32 = 268_435_455 + 5;

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
    /// The keep alive that it imposes, if any; zero is none at all.
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
    /// See [`Message::hops`](crate::message::Message::hops); always 0 on 3.1.1.
    pub(super) hops: u8,
    pub(super) identifiers: SmallVec<[u32; 4]>,
}

/// Why the broker does not take a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It never will.
    ForGood(&'static str),
    /// It may later.
    ForNow(&'static str),
}

/// What the broker says. A DISCONNECT of protocol 5 is the end of the connection, not a packet here.
#[derive(Debug)]
pub(super) enum Incoming {
    /// CONNACK.
    Connected(Welcome),
    /// PUBLISH.
    Arrived(Arrival),
    /// SUBACK, with the QoS granted or the reason of the refusal for each filter.
    Subscribed { packet: u16, reasons: Vec<Result<Qos, &'static str>> },
    /// UNSUBACK, on protocol 5 with the reason where a filter stays.
    Unsubscribed { packet: u16, reasons: Vec<Result<(), &'static str>> },
    /// PUBACK, with the reason of a refusal.
    Acknowledged { packet: u16, refusal: Option<Refusal> },
    /// PUBREC, with the reason of a refusal.
    Received { packet: u16, refusal: Option<Refusal> },
    /// PUBREL.
    Released { packet: u16 },
    /// PUBCOMP.
    Completed { packet: u16 },
    /// PINGRESP.
    Pong,
    /// A packet that only a client may send.
    Misplaced,
}
