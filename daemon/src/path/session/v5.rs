//! MQTT 5 through rumqttc: its options, its client and its events in the words of [`super::link`].

use std::time::Duration;

use bytes::Bytes;
use rumqttc::Outgoing as Sent;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectProperties, ConnectReturnCode, DisconnectReasonCode, Filter, LastWill, Packet, PubAckReason,
    PubRecReason, Publish, PublishProperties, RetainForwardRule, SubscribeProperties, SubscribeReasonCode,
    UnsubAckReason,
};
use rumqttc::v5::mqttbytes::{self, QoS};
use rumqttc::v5::{AsyncClient, ConnectionError, EventLoop, MqttOptions, StateError};
use rumqttc::{NetworkOptions, v5};
use smallvec::SmallVec;

use super::cover::WireFilter;
use super::failure::{Failure, shortened};
use super::link::{Arrival, CONNECT_DEADLINE, Event, INFLIGHT_LIMIT, LARGEST_PACKET, NoRoom, Opening, Welcome};
use super::ring::Received;
use crate::control::config::model::Protocol;
use crate::message::{Outgoing, Properties, Qos};
use crate::topic::{TopicFilter, TopicName};

/// Prepares a connection.
pub(super) fn open(opening: &Opening<'_>) -> (Client, Link) {
    let broker = opening.broker;
    let mut options = MqttOptions::new(&broker.client_id, opening.host(), broker.port.get());
    // No topic alias maximum: rumqttc hands messages out before it has put the topic of an alias back.
    let mut properties = ConnectProperties::new();
    let expiry = broker.session_expiry.as_secs();
    properties.session_expiry_interval = Some(u32::try_from(expiry).unwrap_or(u32::MAX));
    properties.receive_maximum = Some(broker.receive_maximum.get());
    properties.max_packet_size = Some(broker.max_packet);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options
        .set_keep_alive(opening.keep_alive())
        .set_clean_start(broker.clean_session)
        .set_manual_acks(true)
        .set_outgoing_inflight_upper_limit(INFLIGHT_LIMIT)
        .set_connect_properties(properties)
        .set_connection_timeout(CONNECT_DEADLINE.as_secs())
        .set_network_options(network);
    if let Some(username) = &broker.username {
        options.set_credentials(username, opening.password());
    } else if opening.password.is_some() {
        options.set_credentials("", opening.password());
    }
    if let Some(will) = &broker.will {
        let topic = will.topic.as_str();
        options.set_last_will(LastWill::new(topic, will.message.clone(), wire_qos(will.qos), will.retain, None));
    }
    let (client, mut events) = AsyncClient::new(options, opening.capacity);
    if opening.expect_releases {
        expect_releases(&mut events);
    }
    let link = Link {
        events,
        connecting: true,
        host: broker.address.clone(),
        client_id: broker.client_id.clone(),
        keep_alive: opening.keep_alive(),
    };
    (Client(client), link)
}

/// Lets rumqttc answer the PUBREL of any packet identifier. Without it the release of a message that an earlier client
/// received ends the connection, again and again.
fn expect_releases(events: &mut EventLoop) {
    for packet in 1..=u16::MAX {
        let mut publish = Publish::new("-", QoS::ExactlyOnce, Bytes::new(), None);
        publish.pkid = packet;
        if events.state.handle_incoming_packet(Packet::Publish(publish)).is_err() {
            break;
        }
        events.state.events.clear();
    }
}

/// Hands requests over.
#[derive(Clone)]
pub(super) struct Client(AsyncClient);

impl Client {
    /// One packet for all of the filters: with identifiers there must be only one.
    pub(super) fn try_subscribe(&self, filters: &[WireFilter], identifiers: bool) -> Result<(), NoRoom> {
        let properties = SubscribeProperties {
            id: filters.first().filter(|_| identifiers).map(|wire| wire.identifier as usize),
            user_properties: Vec::new(),
        };
        let filters = filters.iter().map(|wire| {
            let mut filter = Filter::new(wire.filter.as_str(), wire_qos(wire.qos));
            filter.retain_forward_rule =
                if wire.replay { RetainForwardRule::OnNewSubscribe } else { RetainForwardRule::Never };
            filter
        });
        self.0.try_subscribe_many_with_properties(filters, properties).map_err(|_| NoRoom)
    }

    pub(super) fn try_unsubscribe(&self, filters: &[TopicFilter]) -> Result<(), NoRoom> {
        filters.iter().try_for_each(|filter| self.0.try_unsubscribe(filter.as_str())).map_err(|_| NoRoom)
    }

    pub(super) fn try_publish(&self, message: &Outgoing, qos: Qos, retain: bool) -> Result<(), NoRoom> {
        let (topic, qos, payload) = (message.topic.as_str(), wire_qos(qos), message.payload.clone());
        match &message.properties {
            None => self.0.try_publish(topic, qos, retain, payload),
            Some(properties) => {
                self.0.try_publish_with_properties(topic, qos, retain, payload, wire_properties(properties))
            }
        }
        .map_err(|_| NoRoom)
    }

    pub(super) fn try_ack(&self, received: Received) -> Result<(), NoRoom> {
        let publish = Publish { qos: wire_qos(received.qos), pkid: received.packet, ..Publish::default() };
        self.0.try_ack(&publish).map_err(|_| NoRoom)
    }

    pub(super) fn try_disconnect(&self) -> Result<(), NoRoom> {
        self.0.try_disconnect().map_err(|_| NoRoom)
    }
}

/// Bytes of a PUBLISH (MQTT 5 §3.3).
pub(super) fn packet_size(message: &Outgoing, qos: Qos) -> usize {
    let properties = message.properties.as_deref().map(wire_properties);
    // The payload is left out of the copy and added: only the length of the lengths can differ, by at most three bytes.
    let mut publish = Publish::new(message.topic.as_str(), wire_qos(qos), Bytes::new(), properties);
    publish.pkid = 1;
    publish.size() + message.payload.len() + 3
}

/// Does the work.
pub(super) struct Link {
    events: EventLoop,
    /// No CONNACK yet.
    connecting: bool,
    host: String,
    client_id: String,
    keep_alive: Duration,
}

impl Link {
    pub(super) async fn poll(&mut self) -> Result<Event, Failure> {
        let event = match self.events.poll().await {
            Ok(event) => translate(event),
            Err(error) => return Err(self.failure(error)),
        };
        if let Event::Connected(welcome) = &event {
            self.connecting = false;
            if welcome.receive_maximum == 0 {
                return Err(Failure::BrokenProtocol("a receive maximum of 0".to_owned()));
            }
            if self.events.options.keep_alive().is_zero() {
                // The broker asks for no keep alive, which rumqttc takes for one ping after the other.
                self.events.options.set_keep_alive(self.keep_alive);
            }
        }
        Ok(event)
    }

    pub(super) fn next_leftover(&mut self) -> Option<Event> {
        self.events.state.events.pop_front().map(translate)
    }

    fn failure(&self, error: ConnectionError) -> Failure {
        match error {
            ConnectionError::ConnectionRefused(code) => refusal(code),
            ConnectionError::Timeout(_) => Failure::NoAnswer(CONNECT_DEADLINE.as_secs()),
            ConnectionError::NotConnAck(_) => Failure::NotMqtt("not a CONNACK".to_owned()),
            ConnectionError::Io(error) => Failure::from_io(&error, self.connecting, &self.host, Protocol::V5),
            ConnectionError::MqttState(error) => self.state_failure(error),
            ConnectionError::RequestsDone => Failure::Closed,
        }
    }

    fn state_failure(&self, error: StateError) -> Failure {
        match error {
            StateError::Io(error) | StateError::Deserialization(mqttbytes::Error::Io(error)) => {
                Failure::from_io(&error, self.connecting, &self.host, Protocol::V5)
            }
            // A broker of 3.1.1 answers with a return code of its own version.
            StateError::Deserialization(mqttbytes::Error::InvalidConnectReturnCode(1)) => {
                Failure::Protocol { other: "3.1.1" }
            }
            StateError::Deserialization(mqttbytes::Error::InvalidConnectReturnCode(_)) if self.connecting => {
                Failure::Refused("for an unknown reason")
            }
            StateError::Deserialization(error) if self.connecting => Failure::NotMqtt(shortened(&error.to_string())),
            StateError::Deserialization(mqttbytes::Error::PayloadSizeLimitExceeded { pkt_size, max }) => {
                Failure::PacketTooLarge { bytes: pkt_size, limit: max }
            }
            StateError::ConnectionAborted if self.connecting => Failure::ClosedOnConnect(Protocol::V5),
            StateError::ConnectionAborted => Failure::Closed,
            StateError::AwaitPingResp | StateError::CollisionTimeout => Failure::KeepAlive,
            StateError::ServerDisconnect { reason_code, reason_string } => {
                self.disconnected(reason_code, reason_string)
            }
            // rumqttc tells the packet only by the event that it has queued before.
            StateError::Unsolicited(_) if self.releases() => Failure::ForeignRelease,
            error => Failure::BrokenProtocol(shortened(&error.to_string())),
        }
    }

    fn releases(&self) -> bool {
        matches!(self.events.state.events.back(), Some(v5::Event::Incoming(Packet::PubRel(_))))
    }

    fn disconnected(&self, code: DisconnectReasonCode, text: Option<String>) -> Failure {
        let reason = match code {
            DisconnectReasonCode::SessionTakenOver => return Failure::TakenOver(self.client_id.clone()),
            DisconnectReasonCode::NotAuthorized => return Failure::NotAuthorised,
            DisconnectReasonCode::ServerBusy => "it is busy",
            DisconnectReasonCode::ServerShuttingDown => "it is shutting down",
            DisconnectReasonCode::KeepAliveTimeout => "it has received nothing within the keep alive",
            DisconnectReasonCode::ReceiveMaximumExceeded => "it was sent more messages than its receive maximum",
            DisconnectReasonCode::PacketTooLarge => "it was sent a packet that is too large for it",
            DisconnectReasonCode::MessageRateTooHigh => "it was sent messages too fast",
            DisconnectReasonCode::QuotaExceeded => "a quota is exceeded",
            DisconnectReasonCode::AdministrativeAction => "an administrator closed it",
            DisconnectReasonCode::ConnectionRateExceeded => "too many connections in a short time",
            DisconnectReasonCode::MaximumConnectTime => "the longest connection time is over",
            DisconnectReasonCode::UseAnotherServer | DisconnectReasonCode::ServerMoved => {
                "it has moved to another address"
            }
            _ => return Failure::Disconnected(worded(&format!("{code:?} (0x{:02x})", code as u8), text)),
        };
        Failure::Disconnected(worded(reason, text))
    }
}

/// A reason with what the broker adds to it.
fn worded(reason: &str, text: Option<String>) -> String {
    match text.filter(|text| !text.is_empty()) {
        Some(text) => format!("{reason}: {}", shortened(&text)),
        None => reason.to_owned(),
    }
}

fn translate(event: v5::Event) -> Event {
    match event {
        v5::Event::Incoming(packet) => translate_packet(packet),
        v5::Event::Outgoing(Sent::Publish(packet)) => Event::PublishWritten(packet),
        v5::Event::Outgoing(Sent::Subscribe(packet) | Sent::Unsubscribe(packet)) => Event::SubscribeWritten(packet),
        v5::Event::Outgoing(Sent::PubAck(_) | Sent::PubRec(_)) => Event::AcknowledgementWritten,
        v5::Event::Outgoing(Sent::Disconnect) => Event::DisconnectWritten,
        v5::Event::Outgoing(_) => Event::Other,
    }
}

fn translate_packet(packet: Packet) -> Event {
    match packet {
        Packet::ConnAck(connack) => Event::Connected(welcome(&connack)),
        Packet::Publish(publish) => Event::Arrived(arrival(publish)),
        Packet::SubAck(suback) => {
            let reasons = suback.return_codes.into_iter().map(granted).collect();
            Event::Subscribed { packet: suback.pkid, reasons }
        }
        Packet::UnsubAck(unsuback) => {
            let reasons = unsuback.reasons.into_iter().map(given_back).collect();
            Event::Unsubscribed { packet: unsuback.pkid, reasons }
        }
        Packet::PubAck(puback) => Event::Acknowledged { packet: puback.pkid, refusal: publish_refusal(puback.reason) },
        Packet::PubRec(pubrec) => match release_refusal(pubrec.reason) {
            Some(refusal) => Event::RefusedAtRelease { packet: pubrec.pkid, refusal },
            None => Event::Other,
        },
        // A PUBCOMP can only say that the broker does not know the identifier: the message was delivered before.
        Packet::PubComp(pubcomp) => Event::Acknowledged { packet: pubcomp.pkid, refusal: None },
        _ => Event::Other,
    }
}

fn welcome(connack: &ConnAck) -> Welcome {
    let properties = connack.properties.as_ref();
    let available = |flag: Option<u8>| flag != Some(0);
    Welcome {
        session_present: connack.session_present,
        exactly_once_window: usize::MAX,
        receive_maximum: properties.and_then(|p| p.receive_max).unwrap_or(u16::MAX),
        max_packet: properties.and_then(|p| p.max_packet_size).unwrap_or(LARGEST_PACKET).min(LARGEST_PACKET),
        max_qos: properties.and_then(|p| p.max_qos).and_then(Qos::from_number).unwrap_or(Qos::ExactlyOnce),
        retain: available(properties.and_then(|p| p.retain_available)),
        identifiers: available(properties.and_then(|p| p.subscription_identifiers_available)),
        shares: available(properties.and_then(|p| p.shared_subscription_available)),
        wildcards: available(properties.and_then(|p| p.wildcard_subscription_available)),
        keep_alive: properties.and_then(|p| p.server_keep_alive).map(|seconds| Duration::from_secs(seconds.into())),
    }
}

fn arrival(publish: Publish) -> Arrival {
    let topic = match std::str::from_utf8(&publish.topic) {
        Ok(topic) => TopicName::new(topic).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let (properties, identifiers) = publish.properties.map_or((None, SmallVec::new()), own_properties);
    Arrival {
        topic,
        payload: Bytes::copy_from_slice(&publish.payload),
        qos: own_qos(publish.qos),
        retain: publish.retain,
        dup: publish.dup,
        packet: publish.pkid,
        properties,
        identifiers,
    }
}

/// The properties for handlers, if there are any, and the subscription identifiers.
fn own_properties(wire: PublishProperties) -> (Option<Box<Properties>>, SmallVec<[u32; 4]>) {
    let identifiers = wire.subscription_identifiers.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
    let properties = Properties {
        content_type: wire.content_type,
        response_topic: wire.response_topic,
        correlation_data: wire.correlation_data.map(|data| Bytes::copy_from_slice(&data)),
        message_expiry: wire.message_expiry_interval,
        utf8_payload: wire.payload_format_indicator == Some(1),
        user: wire.user_properties,
    };
    let properties = (properties != Properties::default()).then(|| Box::new(properties));
    (properties, identifiers)
}

fn wire_properties(own: &Properties) -> PublishProperties {
    PublishProperties {
        payload_format_indicator: own.utf8_payload.then_some(1),
        message_expiry_interval: own.message_expiry,
        topic_alias: None,
        response_topic: own.response_topic.clone(),
        correlation_data: own.correlation_data.clone(),
        user_properties: own.user.clone(),
        subscription_identifiers: Vec::new(),
        content_type: own.content_type.clone(),
    }
}

fn granted(code: SubscribeReasonCode) -> Result<Qos, &'static str> {
    Err(match code {
        SubscribeReasonCode::Success(qos) => return Ok(own_qos(qos)),
        SubscribeReasonCode::NotAuthorized => "the broker's access rules refuse it",
        SubscribeReasonCode::TopicFilterInvalid => "the broker does not accept this topic filter",
        SubscribeReasonCode::PkidInUse => "the packet identifier is in use",
        SubscribeReasonCode::QuotaExceeded => "a quota of the broker is exceeded",
        SubscribeReasonCode::SharedSubscriptionsNotSupported => "the broker has no shared subscriptions",
        SubscribeReasonCode::SubscriptionIdNotSupported => "the broker has no subscription identifiers",
        SubscribeReasonCode::WildcardSubscriptionsNotSupported => "the broker has no wildcard subscriptions",
        SubscribeReasonCode::ImplementationSpecific => "the broker cannot do it",
        SubscribeReasonCode::Failure | SubscribeReasonCode::Unspecified => "the broker gives no reason",
    })
}

fn given_back(reason: UnsubAckReason) -> Result<(), &'static str> {
    Err(match reason {
        UnsubAckReason::Success | UnsubAckReason::NoSubscriptionExisted => return Ok(()),
        UnsubAckReason::NotAuthorized => "the broker's access rules refuse it",
        UnsubAckReason::TopicFilterInvalid => "the broker does not accept this topic filter",
        UnsubAckReason::PacketIdentifierInUse => "the packet identifier is in use",
        UnsubAckReason::ImplementationSpecificError => "the broker cannot do it",
        UnsubAckReason::UnspecifiedError => "the broker gives no reason",
    })
}

fn publish_refusal(reason: PubAckReason) -> Option<&'static str> {
    Some(match reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => return None,
        PubAckReason::NotAuthorized => "the broker's access rules refuse it",
        PubAckReason::TopicNameInvalid => "the broker does not accept this topic name",
        PubAckReason::PacketIdentifierInUse => "the packet identifier is in use",
        PubAckReason::QuotaExceeded => "a quota of the broker is exceeded",
        PubAckReason::PayloadFormatInvalid => "the payload is not in the format that its properties claim",
        PubAckReason::ImplementationSpecificError => "the broker cannot do it",
        PubAckReason::UnspecifiedError => "the broker gives no reason",
    })
}

fn release_refusal(reason: PubRecReason) -> Option<&'static str> {
    publish_refusal(match reason {
        PubRecReason::Success => PubAckReason::Success,
        PubRecReason::NoMatchingSubscribers => PubAckReason::NoMatchingSubscribers,
        PubRecReason::NotAuthorized => PubAckReason::NotAuthorized,
        PubRecReason::TopicNameInvalid => PubAckReason::TopicNameInvalid,
        PubRecReason::PacketIdentifierInUse => PubAckReason::PacketIdentifierInUse,
        PubRecReason::QuotaExceeded => PubAckReason::QuotaExceeded,
        PubRecReason::PayloadFormatInvalid => PubAckReason::PayloadFormatInvalid,
        PubRecReason::ImplementationSpecificError => PubAckReason::ImplementationSpecificError,
        PubRecReason::UnspecifiedError => PubAckReason::UnspecifiedError,
    })
}

fn refusal(code: ConnectReturnCode) -> Failure {
    match code {
        ConnectReturnCode::RefusedProtocolVersion | ConnectReturnCode::UnsupportedProtocolVersion => {
            Failure::Protocol { other: "3.1.1" }
        }
        ConnectReturnCode::BadClientId | ConnectReturnCode::ClientIdentifierNotValid => Failure::ClientIdentifier,
        ConnectReturnCode::BadUserNamePassword => Failure::Credentials,
        ConnectReturnCode::NotAuthorized => Failure::NotAuthorised,
        ConnectReturnCode::ServiceUnavailable | ConnectReturnCode::ServerUnavailable => {
            Failure::Unavailable("server unavailable")
        }
        ConnectReturnCode::ServerBusy => Failure::Unavailable("server busy"),
        ConnectReturnCode::ConnectionRateExceeded => Failure::Unavailable("too many connections in a short time"),
        ConnectReturnCode::QuotaExceeded => Failure::Unavailable("a quota is exceeded"),
        ConnectReturnCode::Banned => Failure::Refused("this client is banned"),
        ConnectReturnCode::BadAuthenticationMethod => Failure::Refused("the authentication method is not supported"),
        ConnectReturnCode::TopicNameInvalid => Failure::Refused("the topic of the will is not accepted"),
        ConnectReturnCode::PacketTooLarge => Failure::Refused("the CONNECT packet is too large for it"),
        ConnectReturnCode::PayloadFormatInvalid => {
            Failure::Refused("the will's payload has another format than declared")
        }
        ConnectReturnCode::RetainNotSupported => {
            Failure::Refused("it keeps no retained messages; set will.retain = false")
        }
        ConnectReturnCode::QoSNotSupported => Failure::Refused("it does not support the will's QoS; lower will.qos"),
        ConnectReturnCode::UseAnotherServer | ConnectReturnCode::ServerMoved => {
            Failure::Refused("it has moved to another address")
        }
        ConnectReturnCode::MalformedPacket
        | ConnectReturnCode::ProtocolError
        | ConnectReturnCode::ImplementationSpecificError
        | ConnectReturnCode::UnspecifiedError
        | ConnectReturnCode::Success => Failure::Refused("it gives no reason"),
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
