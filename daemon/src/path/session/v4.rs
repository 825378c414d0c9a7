//! MQTT 3.1.1 through rumqttc: its options, its client and its events in the words of [`super::link`].

use bytes::Bytes;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, EventLoop, Incoming, LastWill, MqttOptions, NetworkOptions,
    Outgoing as Sent, Packet, PubAck, Publish, QoS, StateError, SubscribeFilter, SubscribeReasonCode, mqttbytes,
};
use smallvec::SmallVec;

use super::cover::WireFilter;
use super::failure::{Failure, shortened};
use super::link::{Arrival, CONNECT_DEADLINE, Event, INFLIGHT_LIMIT, LARGEST_PACKET, NoRoom, Opening, Welcome};
use super::ring::Received;
use crate::control::config::model::Protocol;
use crate::message::{Outgoing, Qos};
use crate::topic::{TopicFilter, TopicName};

/// Publishes with QoS 2 on their way at the same time. A broker of 3.1.1 cannot tell its limit, and mosquitto ends the
/// connection beyond its `max_inflight_messages`, 20 by default.
const EXACTLY_ONCE_WINDOW: usize = 10;

/// Prepares a connection.
pub(super) fn open(opening: &Opening<'_>) -> (Client, Link) {
    let broker = opening.broker;
    let mut options = MqttOptions::new(&broker.client_id, opening.host(), broker.port.get());
    options
        .set_keep_alive(opening.keep_alive())
        .set_clean_session(broker.clean_session)
        .set_manual_acks(true)
        .set_inflight(INFLIGHT_LIMIT)
        .set_max_packet_size(broker.max_packet as usize, LARGEST_PACKET as usize);
    if let Some(username) = &broker.username {
        options.set_credentials(username, opening.password());
    }
    if let Some(will) = &broker.will {
        let topic = will.topic.as_str();
        options.set_last_will(LastWill::new(topic, will.message.clone(), wire_qos(will.qos), will.retain));
    }
    let (client, mut events) = AsyncClient::new(options, opening.capacity);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_DEADLINE.as_secs());
    events.set_network_options(network);
    if opening.expect_releases {
        expect_releases(&mut events);
    }
    let link = Link { events, connecting: true, host: broker.address.clone(), max_packet: broker.max_packet };
    (Client(client), link)
}

/// Lets rumqttc answer the PUBREL of any packet identifier. Without it the release of a message that an earlier client
/// received ends the connection, again and again.
fn expect_releases(events: &mut EventLoop) {
    for packet in 1..=u16::MAX {
        let mut publish = Publish::new("-", QoS::ExactlyOnce, Vec::new());
        publish.pkid = packet;
        if events.state.handle_incoming_packet(Incoming::Publish(publish)).is_err() {
            break;
        }
        events.state.events.clear();
    }
}

/// Hands requests over.
#[derive(Clone)]
pub(super) struct Client(AsyncClient);

impl Client {
    pub(super) fn try_subscribe(&self, filters: &[WireFilter]) -> Result<(), NoRoom> {
        let filters =
            filters.iter().map(|wire| SubscribeFilter::new(wire.filter.as_str().to_owned(), wire_qos(wire.qos)));
        self.0.try_subscribe_many(filters).map_err(|_| NoRoom)
    }

    pub(super) fn try_unsubscribe(&self, filters: &[TopicFilter]) -> Result<(), NoRoom> {
        filters.iter().try_for_each(|filter| self.0.try_unsubscribe(filter.as_str())).map_err(|_| NoRoom)
    }

    pub(super) fn try_publish(&self, message: &Outgoing, qos: Qos, retain: bool) -> Result<(), NoRoom> {
        let payload = message.payload.to_vec();
        self.0.try_publish(message.topic.as_str(), wire_qos(qos), retain, payload).map_err(|_| NoRoom)
    }

    pub(super) fn try_ack(&self, received: Received) -> Result<(), NoRoom> {
        let mut publish = Publish::new("", wire_qos(received.qos), Vec::new());
        publish.pkid = received.packet;
        self.0.try_ack(&publish).map_err(|_| NoRoom)
    }

    pub(super) fn try_disconnect(&self) -> Result<(), NoRoom> {
        self.0.try_disconnect().map_err(|_| NoRoom)
    }
}

/// Bytes of a PUBLISH (MQTT 3.1.1 §3.3), with a fixed header of the greatest length.
pub(super) fn packet_size(message: &Outgoing, qos: Qos) -> usize {
    let identifier = if qos == Qos::AtMostOnce { 0 } else { 2 };
    5 + 2 + message.topic.as_str().len() + identifier + message.payload.len()
}

/// Does the work.
pub(super) struct Link {
    events: EventLoop,
    /// No CONNACK yet.
    connecting: bool,
    host: String,
    max_packet: u32,
}

impl Link {
    pub(super) async fn poll(&mut self) -> Result<Event, Failure> {
        match self.events.poll().await {
            Ok(event) => {
                self.connecting = false;
                Ok(translate(event))
            }
            Err(error) => Err(self.failure(error)),
        }
    }

    pub(super) fn next_leftover(&mut self) -> Option<Event> {
        self.events.state.events.pop_front().map(translate)
    }

    fn failure(&self, error: ConnectionError) -> Failure {
        match error {
            ConnectionError::ConnectionRefused(code) => refusal(code),
            ConnectionError::NetworkTimeout => Failure::NoAnswer(CONNECT_DEADLINE.as_secs()),
            ConnectionError::FlushTimeout => Failure::WriteStuck(CONNECT_DEADLINE.as_secs()),
            ConnectionError::NotConnAck(_) => Failure::NotMqtt("not a CONNACK".to_owned()),
            ConnectionError::Io(error) => Failure::from_io(&error, self.connecting, &self.host, Protocol::V311),
            ConnectionError::MqttState(error) => self.state_failure(error),
            ConnectionError::RequestsDone => Failure::Closed,
        }
    }

    fn state_failure(&self, error: StateError) -> Failure {
        match error {
            StateError::Io(error) | StateError::Deserialization(mqttbytes::Error::Io(error)) => {
                Failure::from_io(&error, self.connecting, &self.host, Protocol::V311)
            }
            StateError::Deserialization(mqttbytes::Error::InvalidConnectReturnCode(_)) => {
                Failure::Refused("for an unknown reason")
            }
            StateError::Deserialization(error) if self.connecting => Failure::NotMqtt(shortened(&error.to_string())),
            StateError::Deserialization(mqttbytes::Error::PayloadSizeLimitExceeded(bytes)) => {
                Failure::PacketTooLarge { bytes, limit: self.max_packet }
            }
            StateError::ConnectionAborted if self.connecting => Failure::ClosedOnConnect(Protocol::V311),
            StateError::ConnectionAborted => Failure::Closed,
            StateError::AwaitPingResp | StateError::CollisionTimeout => Failure::KeepAlive,
            // rumqttc tells the packet only by the event that it has queued before.
            StateError::Unsolicited(_)
                if matches!(self.events.state.events.back(), Some(rumqttc::Event::Incoming(Packet::PubRel(_)))) =>
            {
                Failure::ForeignRelease
            }
            error => Failure::BrokenProtocol(shortened(&error.to_string())),
        }
    }
}

fn translate(event: rumqttc::Event) -> Event {
    match event {
        rumqttc::Event::Incoming(packet) => translate_packet(packet),
        rumqttc::Event::Outgoing(Sent::Publish(packet)) => Event::PublishWritten(packet),
        rumqttc::Event::Outgoing(Sent::Subscribe(packet) | Sent::Unsubscribe(packet)) => {
            Event::SubscribeWritten(packet)
        }
        rumqttc::Event::Outgoing(Sent::PubAck(_) | Sent::PubRec(_)) => Event::AcknowledgementWritten,
        rumqttc::Event::Outgoing(Sent::Disconnect) => Event::DisconnectWritten,
        rumqttc::Event::Outgoing(_) => Event::Other,
    }
}

fn translate_packet(packet: Packet) -> Event {
    match packet {
        Packet::ConnAck(connack) => Event::Connected(Welcome {
            session_present: connack.session_present,
            receive_maximum: u16::MAX,
            exactly_once_window: EXACTLY_ONCE_WINDOW,
            max_packet: LARGEST_PACKET,
            max_qos: Qos::ExactlyOnce,
            retain: true,
            identifiers: false,
            shares: true,
            wildcards: true,
            keep_alive: None,
        }),
        Packet::Publish(publish) => Event::Arrived(Arrival {
            topic: TopicName::new(publish.topic).map_err(|error| error.to_string()),
            payload: Bytes::copy_from_slice(&publish.payload),
            qos: own_qos(publish.qos),
            retain: publish.retain,
            dup: publish.dup,
            packet: publish.pkid,
            properties: None,
            identifiers: SmallVec::new(),
        }),
        Packet::SubAck(suback) => {
            let reasons = suback.return_codes.into_iter().map(|code| match code {
                SubscribeReasonCode::Success(qos) => Ok(own_qos(qos)),
                SubscribeReasonCode::Failure => Err("the broker's access rules refuse it"),
            });
            Event::Subscribed { packet: suback.pkid, reasons: reasons.collect() }
        }
        Packet::UnsubAck(unsuback) => Event::Unsubscribed { packet: unsuback.pkid, reasons: Vec::new() },
        Packet::PubAck(PubAck { pkid }) => Event::Acknowledged { packet: pkid, refusal: None },
        Packet::PubComp(pubcomp) => Event::Acknowledged { packet: pubcomp.pkid, refusal: None },
        _ => Event::Other,
    }
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
