//! MQTT 3.1.1: rumqttc's packets in the words of [`super::packet`].

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::Error;
use rumqttc::{
    ConnAck, Connect, ConnectReturnCode, LastWill, Login, Packet, Publish, QoS, Subscribe, SubscribeFilter,
    SubscribeReasonCode, Unsubscribe,
};
use smallvec::SmallVec;

use super::codec::{self, Sending, Unread};
use super::cover::WireFilter;
use super::failure::Failure;
use super::packet::{Arrival, Incoming, LARGEST_PACKET, Welcome};
use crate::control::config::model::Broker;
use crate::control::config::secret::Secret;
use crate::message::{Outgoing, Qos};
use crate::topic::{TopicFilter, TopicName};

/// Publishes with QoS 2 on their way at the same time. A broker of 3.1.1 cannot tell its limit, and mosquitto ends the
/// connection beyond its `max_inflight_messages`, 20 by default.
const EXACTLY_ONCE_WINDOW: usize = 10;

/// Takes the next packet out of the buffer.
pub(super) fn decode(broker: &Broker, bytes: &mut BytesMut, connecting: bool) -> Result<Option<Incoming>, Failure> {
    let limit = broker.max_packet;
    let read = |bytes: &mut BytesMut| Packet::read(bytes, limit as usize).map_err(unread);
    match codec::read(bytes, connecting, limit, read)? {
        Some(packet) => incoming(packet).map(Some),
        None => Ok(None),
    }
}

fn unread(error: Error) -> Unread {
    match error {
        Error::InsufficientBytes(more) => Unread::Incomplete(more),
        Error::PayloadSizeLimitExceeded(size) => Unread::TooLarge(size),
        Error::InvalidConnectReturnCode(code) => Unread::Malformed(format!("return code {code}")),
        error => Unread::Malformed(error.to_string()),
    }
}

fn incoming(packet: Packet) -> Result<Incoming, Failure> {
    Ok(match packet {
        Packet::ConnAck(ConnAck { code: ConnectReturnCode::Success, session_present }) => {
            Incoming::Connected(Welcome {
                session_present,
                receive_maximum: u16::MAX,
                exactly_once_window: EXACTLY_ONCE_WINDOW,
                max_packet: LARGEST_PACKET,
                max_qos: Qos::ExactlyOnce,
                retain: true,
                identifiers: false,
                shares: true,
                wildcards: true,
                keep_alive: None,
            })
        }
        Packet::ConnAck(ConnAck { code, .. }) => return Err(refusal(code)),
        Packet::Publish(publish) => Incoming::Arrived(Arrival {
            topic: TopicName::new(publish.topic).map_err(|error| error.to_string()),
            payload: Bytes::copy_from_slice(&publish.payload),
            qos: own_qos(publish.qos),
            retain: publish.retain,
            dup: publish.dup,
            packet: publish.pkid,
            properties: None,
            hops: 0,
            identifiers: SmallVec::new(),
        }),
        Packet::SubAck(suback) => {
            let reasons = suback.return_codes.into_iter().map(|code| match code {
                SubscribeReasonCode::Success(qos) => Ok(own_qos(qos)),
                SubscribeReasonCode::Failure => Err("the broker's access rules refuse it"),
            });
            Incoming::Subscribed { packet: suback.pkid, reasons: reasons.collect() }
        }
        Packet::UnsubAck(unsuback) => Incoming::Unsubscribed { packet: unsuback.pkid, reasons: Vec::new() },
        Packet::PubAck(puback) => Incoming::Acknowledged { packet: puback.pkid, refusal: None },
        Packet::PubRec(pubrec) => Incoming::Received { packet: pubrec.pkid, refusal: None },
        Packet::PubRel(pubrel) => Incoming::Released { packet: pubrel.pkid },
        Packet::PubComp(pubcomp) => Incoming::Completed { packet: pubcomp.pkid },
        Packet::PingResp => Incoming::Pong,
        Packet::Connect(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::PingReq | Packet::Disconnect => {
            Incoming::Misplaced
        }
    })
}

/// Appends CONNECT.
pub(super) fn connect(broker: &Broker, password: Option<&Secret>, bytes: &mut BytesMut) {
    let mut connect = Connect::new(&broker.client_id);
    connect.keep_alive = broker.keep_alive;
    connect.clean_session = broker.clean_session;
    connect.last_will = broker
        .will
        .as_ref()
        .map(|will| LastWill::new(will.topic.as_str(), will.message.clone(), wire_qos(will.qos), will.retain));
    connect.login = broker.username.as_ref().map(|name| Login::new(name, password.map_or("", Secret::expose)));
    written(connect.write(bytes));
}

/// Appends PUBLISH.
pub(super) fn publish(message: &Outgoing, sending: Sending, bytes: &mut BytesMut) {
    let mut publish = Publish::from_bytes(message.topic.as_str(), wire_qos(sending.qos), message.payload.clone());
    (publish.pkid, publish.retain) = (sending.packet, sending.retain);
    written(publish.write(bytes));
}

/// Bytes of a PUBLISH (MQTT 3.1.1 §3.3), with a fixed header of the greatest length.
pub(super) fn publish_size(message: &Outgoing, qos: Qos) -> usize {
    let identifier = if qos == Qos::AtMostOnce { 0 } else { 2 };
    5 + 2 + message.topic.as_str().len() + identifier + message.payload.len()
}

/// Appends SUBSCRIBE.
pub(super) fn subscribe(packet: u16, filters: &[WireFilter], bytes: &mut BytesMut) {
    let filters = filters.iter().map(|wire| SubscribeFilter::new(wire.filter.as_str().to_owned(), wire_qos(wire.qos)));
    written(Subscribe { pkid: packet, filters: filters.collect() }.write(bytes));
}

/// Appends UNSUBSCRIBE.
pub(super) fn unsubscribe(packet: u16, filters: &[TopicFilter], bytes: &mut BytesMut) {
    let topics = filters.iter().map(|filter| filter.as_str().to_owned()).collect();
    written(Unsubscribe { pkid: packet, topics }.write(bytes));
}

/// rumqttc refuses to write only what is never asked of it.
fn written(result: Result<usize, Error>) {
    result.expect("packet identifiers are not 0 and packets not larger than MQTT allows");
}

fn refusal(code: ConnectReturnCode) -> Failure {
    match code {
        ConnectReturnCode::RefusedProtocolVersion => Failure::Protocol { other: "5" },
        ConnectReturnCode::BadClientId => Failure::ClientIdentifier,
        ConnectReturnCode::ServiceUnavailable => Failure::Unavailable("server unavailable"),
        ConnectReturnCode::BadUserNamePassword => Failure::Credentials,
        ConnectReturnCode::NotAuthorized => Failure::NotAuthorised,
        ConnectReturnCode::Success => Failure::Refused("for an unknown reason"),
    }
}

fn wire_qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}

fn own_qos(qos: QoS) -> Qos {
    match qos {
        QoS::AtMostOnce => Qos::AtMostOnce,
        QoS::AtLeastOnce => Qos::AtLeastOnce,
        QoS::ExactlyOnce => Qos::ExactlyOnce,
    }
}
