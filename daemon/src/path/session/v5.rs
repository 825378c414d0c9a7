//! MQTT 5: rumqttc's packets in the words of [`super::packet`].

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Connect, ConnectProperties, ConnectReturnCode, DisconnectReasonCode, Filter, LastWill, Login, Packet,
    PubAckReason, PubRecReason, Publish, PublishProperties, RetainForwardRule, Subscribe, SubscribeProperties,
    SubscribeReasonCode, UnsubAckReason, Unsubscribe,
};
use rumqttc::v5::mqttbytes::{Error, QoS};
use smallvec::SmallVec;

use super::codec::{self, Sending, Unread};
use super::cover::WireFilter;
use super::failure::{Failure, shortened};
use super::packet::{Arrival, Incoming, LARGEST_PACKET, Refusal, Welcome};
use crate::control::config::model::Broker;
use crate::control::config::secret::Secret;
use crate::message::{HOPS, Outgoing, Properties, Qos};
use crate::topic::{TopicFilter, TopicName};

/// Takes the next packet out of the buffer.
pub(super) fn decode(broker: &Broker, bytes: &mut BytesMut, connecting: bool) -> Result<Option<Incoming>, Failure> {
    if let Some(reason) = short_disconnect(bytes)? {
        return Err(disconnected(broker, reason, None));
    }
    if connecting && refused_by_an_older_version(bytes) {
        return Err(Failure::Protocol { other: "3.1.1" });
    }
    let limit = broker.max_packet;
    let read = |bytes: &mut BytesMut| Packet::read(bytes, Some(limit)).map_err(unread);
    match codec::read(bytes, connecting, limit, read)? {
        Some(packet) => incoming(broker, packet).map(Some),
        None => Ok(None),
    }
}

/// The reason of a DISCONNECT without properties, which rumqttc does not read: with no reason at all it is normal (MQTT 5
/// §3.14.2.1), and with nothing but a reason the length of the properties is left out (§3.14.2.2.1).
fn short_disconnect(bytes: &[u8]) -> Result<Option<DisconnectReasonCode>, Failure> {
    match bytes {
        [0xE0, 0x00, ..] => Ok(Some(DisconnectReasonCode::NormalDisconnection)),
        [0xE0, 0x01, reason, ..] => match DisconnectReasonCode::try_from(*reason) {
            Ok(reason) => Ok(Some(reason)),
            Err(_) => Err(Failure::Disconnected(format!("reason 0x{reason:02x}"))),
        },
        _ => Ok(None),
    }
}

/// A broker of 3.1.1 answers with a CONNACK of its own version: return code 1, no properties (MQTT 3.1.1 §3.2.2.3).
fn refused_by_an_older_version(bytes: &[u8]) -> bool {
    matches!(bytes, [0x20, 0x02, _, 0x01, ..])
}

fn unread(error: Error) -> Unread {
    match error {
        Error::InsufficientBytes(more) => Unread::Incomplete(more),
        Error::PayloadSizeLimitExceeded { pkt_size, .. } => Unread::TooLarge(pkt_size),
        error => Unread::Malformed(error.to_string()),
    }
}

fn incoming(broker: &Broker, packet: Packet) -> Result<Incoming, Failure> {
    Ok(match packet {
        Packet::ConnAck(connack) if connack.code != ConnectReturnCode::Success => return Err(refusal(connack.code)),
        Packet::ConnAck(connack) => {
            let welcome = welcome(&connack);
            if welcome.receive_maximum == 0 || welcome.max_packet == 0 {
                let problem = "a receive maximum or a maximum packet size of 0".to_owned();
                return Err(Failure::BrokenProtocol(problem));
            }
            Incoming::Connected(welcome)
        }
        Packet::Publish(publish) => Incoming::Arrived(arrival(publish)),
        Packet::SubAck(suback) => {
            let reasons = suback.return_codes.into_iter().map(granted).collect();
            Incoming::Subscribed { packet: suback.pkid, reasons }
        }
        Packet::UnsubAck(unsuback) => {
            let reasons = unsuback.reasons.into_iter().map(given_back).collect();
            Incoming::Unsubscribed { packet: unsuback.pkid, reasons }
        }
        Packet::PubAck(puback) => {
            Incoming::Acknowledged { packet: puback.pkid, refusal: publish_refusal(puback.reason) }
        }
        Packet::PubRec(pubrec) => Incoming::Received { packet: pubrec.pkid, refusal: release_refusal(pubrec.reason) },
        Packet::PubRel(pubrel) => Incoming::Released { packet: pubrel.pkid },
        // It can only say that the broker does not know the identifier: the message was delivered before.
        Packet::PubComp(pubcomp) => Incoming::Completed { packet: pubcomp.pkid },
        Packet::PingResp(_) => Incoming::Pong,
        Packet::Disconnect(disconnect) => {
            let text = disconnect.properties.and_then(|properties| properties.reason_string);
            return Err(disconnected(broker, disconnect.reason_code, text));
        }
        Packet::Auth(_) | Packet::Connect(..) | Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::PingReq(_) => {
            Incoming::Misplaced
        }
    })
}

/// Appends CONNECT.
pub(super) fn connect(broker: &Broker, password: Option<&Secret>, bytes: &mut BytesMut) {
    // No topic alias maximum: an alias saves nothing on a received message that is looked at once.
    let mut properties = ConnectProperties::new();
    let expiry = broker.session_expiry.as_secs();
    properties.session_expiry_interval = Some(u32::try_from(expiry).unwrap_or(u32::MAX));
    properties.receive_maximum = Some(broker.receive_maximum.get());
    properties.max_packet_size = Some(broker.max_packet);
    let connect = Connect {
        keep_alive: broker.keep_alive,
        client_id: broker.client_id.clone(),
        clean_start: broker.clean_session,
        properties: Some(properties),
    };
    let will = broker
        .will
        .as_ref()
        .map(|will| LastWill::new(will.topic.as_str(), will.message.clone(), wire_qos(will.qos), will.retain, None));
    let name = broker.username.as_deref();
    let login = (name.is_some() || password.is_some())
        .then(|| Login::new(name.unwrap_or_default(), password.map_or("", Secret::expose)));
    written(Packet::Connect(connect, will, login).write(bytes, None));
}

/// Appends PUBLISH.
pub(super) fn publish(message: &Outgoing, sending: Sending, bytes: &mut BytesMut) {
    let publish = Publish {
        dup: false,
        qos: wire_qos(sending.qos),
        retain: sending.retain,
        topic: Bytes::copy_from_slice(message.topic.as_str().as_bytes()),
        pkid: sending.packet,
        payload: message.payload.clone(),
        properties: wire_properties(message),
    };
    written(publish.write(bytes));
}

/// Bytes of a PUBLISH (MQTT 5 §3.3).
pub(super) fn publish_size(message: &Outgoing, qos: Qos) -> usize {
    let properties = wire_properties(message);
    // The payload is left out of the copy and added: only the length of the lengths can differ, by at most three bytes.
    let mut publish = Publish::new(message.topic.as_str(), wire_qos(qos), Bytes::new(), properties);
    publish.pkid = 1;
    publish.size() + message.payload.len() + 3
}

/// Appends one SUBSCRIBE for all of the filters: with identifiers there must be only one.
pub(super) fn subscribe(packet: u16, filters: &[WireFilter], identifiers: bool, bytes: &mut BytesMut) {
    let id = filters.first().filter(|_| identifiers).map(|wire| wire.identifier as usize);
    let properties = id.is_some().then(|| SubscribeProperties { id, user_properties: Vec::new() });
    let filters = filters.iter().map(|wire| {
        let mut filter = Filter::new(wire.filter.as_str(), wire_qos(wire.qos));
        filter.retain_forward_rule =
            if wire.replay { RetainForwardRule::OnNewSubscribe } else { RetainForwardRule::Never };
        filter
    });
    written(Subscribe { pkid: packet, filters: filters.collect(), properties }.write(bytes));
}

/// Appends UNSUBSCRIBE.
pub(super) fn unsubscribe(packet: u16, filters: &[TopicFilter], bytes: &mut BytesMut) {
    let filters = filters.iter().map(|filter| filter.as_str().to_owned()).collect();
    written(Unsubscribe { pkid: packet, filters, properties: None }.write(bytes));
}

/// rumqttc refuses to write only what is never asked of it.
fn written(result: Result<usize, Error>) {
    result.expect("packet identifiers are not 0 and packets not larger than MQTT allows");
}

fn disconnected(broker: &Broker, code: DisconnectReasonCode, text: Option<String>) -> Failure {
    let leaving = |reason| Failure::Leaving(worded(reason, text.clone()));
    let reason = match code {
        DisconnectReasonCode::SessionTakenOver => return Failure::TakenOver(broker.client_id.clone()),
        DisconnectReasonCode::NotAuthorized => return Failure::NotAuthorised,
        DisconnectReasonCode::ServerBusy => return leaving("it is busy"),
        DisconnectReasonCode::ServerShuttingDown => return leaving("it is shutting down"),
        DisconnectReasonCode::KeepAliveTimeout => return leaving("it has received nothing within the keep alive"),
        DisconnectReasonCode::ReceiveMaximumExceeded => "it was sent more messages than its receive maximum",
        DisconnectReasonCode::PacketTooLarge => "it was sent a packet that is too large for it",
        DisconnectReasonCode::MessageRateTooHigh => return leaving("it was sent messages too fast"),
        DisconnectReasonCode::QuotaExceeded => return leaving("a quota is exceeded"),
        DisconnectReasonCode::AdministrativeAction => return leaving("an administrator closed it"),
        DisconnectReasonCode::ConnectionRateExceeded => return leaving("too many connections in a short time"),
        DisconnectReasonCode::MaximumConnectTime => return leaving("the longest connection time is over"),
        DisconnectReasonCode::UseAnotherServer | DisconnectReasonCode::ServerMoved => {
            return leaving("it has moved to another address");
        }
        _ => return Failure::Disconnected(worded(&format!("{code:?} (0x{:02x})", code as u8), text)),
    };
    Failure::Disconnected(worded(reason, text))
}

/// A reason with what the broker adds to it.
fn worded(reason: &str, text: Option<String>) -> String {
    match text.filter(|text| !text.is_empty()) {
        Some(text) => format!("{reason}: {}", shortened(&text)),
        None => reason.to_owned(),
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
    let (properties, identifiers, hops) = publish.properties.map_or((None, SmallVec::new(), 0), own_properties);
    Arrival {
        topic,
        payload: Bytes::copy_from_slice(&publish.payload),
        qos: own_qos(publish.qos),
        retain: publish.retain,
        dup: publish.dup,
        packet: publish.pkid,
        properties,
        hops,
        identifiers,
    }
}

/// The properties for handlers, if there are any, the subscription identifiers, and the number of hops.
fn own_properties(mut wire: PublishProperties) -> (Option<Box<Properties>>, SmallVec<[u32; 4]>, u8) {
    let hops = take_hops(&mut wire.user_properties);
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
    (properties, identifiers, hops)
}

/// Takes the number of hops out of the user properties (MQTT 5 §3.3.2.3.7), so that a handler that copies these copies no
/// count. Without one that can be read it is 0, of several it is the greatest.
fn take_hops(user: &mut Vec<(String, String)>) -> u8 {
    let mut hops = 0;
    user.retain(|(key, value)| {
        if key != HOPS {
            return true;
        }
        // A number beyond the type's is one beyond every limit.
        let count = value.parse::<u64>().map_or(0, |count| u8::try_from(count).unwrap_or(u8::MAX));
        hops = hops.max(count);
        false
    });
    hops
}

/// The properties of a publish, with the number of hops in place of any that its user properties name.
fn wire_properties(message: &Outgoing) -> Option<PublishProperties> {
    let own = message.properties.as_deref().map(carried_over);
    let Some(hops) = message.hops else { return own };
    let mut properties = own.unwrap_or_default();
    properties.user_properties.retain(|(key, _)| key != HOPS);
    properties.user_properties.push((HOPS.to_owned(), hops.to_string()));
    Some(properties)
}

fn carried_over(own: &Properties) -> PublishProperties {
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

fn publish_refusal(reason: PubAckReason) -> Option<Refusal> {
    Some(Refusal::ForGood(match reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => return None,
        PubAckReason::NotAuthorized => "the broker's access rules refuse it",
        PubAckReason::TopicNameInvalid => "the broker does not accept this topic name",
        PubAckReason::PacketIdentifierInUse => "the packet identifier is in use",
        PubAckReason::QuotaExceeded => return Some(Refusal::ForNow("a quota of the broker is exceeded")),
        PubAckReason::PayloadFormatInvalid => "the payload is not in the format that its properties claim",
        PubAckReason::ImplementationSpecificError => "the broker cannot do it",
        PubAckReason::UnspecifiedError => "the broker gives no reason",
    }))
}

fn release_refusal(reason: PubRecReason) -> Option<Refusal> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], connecting: bool, expected: &str) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tidegate.toml");
        std::fs::write(&file, "[brokers.plant]\naddress = \"mqtt.example\"\n").expect("writes");
        let broker = &crate::control::config::load(&file).expect("is good").config.brokers[0];
        let mut bytes = BytesMut::from(bytes);
        let told = match decode(broker, &mut bytes, connecting) {
            Ok(None) => "more".to_owned(),
            Ok(Some(packet)) => format!("{packet:?}"),
            Err(failure) => failure.to_string(),
        };
        assert!(told.contains(expected), "{told}");
    }

    #[test]
    fn a_disconnect_is_read_in_each_of_its_lengths() {
        let taken_over = "has taken the session over";
        check(&[0xE0, 0x00], false, "the broker ended the connection: NormalDisconnection");
        check(&[0xE0, 0x01, 0x8E], false, taken_over);
        check(&[0xE0, 0x02, 0x8E, 0x00], false, taken_over);
        check(&[0xE0, 0x01, 0x8B], false, "it is shutting down");
        check(&[0xE0, 0x01], false, "more");
    }

    #[test]
    fn a_packet_that_ends_before_its_contents_is_not_waited_for() {
        // A SUBACK without the length of its properties.
        check(&[0x90, 0x02, 0x00, 0x01], false, "a packet that ends early");
        check(&[0x90, 0x04, 0x00, 0x01], false, "more");
        check(&[0x90, 0x04, 0x00, 0x01, 0x00, 0x01], false, "Subscribed");
    }

    fn user(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn hops_are_read_and_taken_out() {
        let check = |pairs: &[(&str, &str)], expected, left: &[(&str, &str)]| {
            let mut pairs = user(pairs);
            assert_eq!(take_hops(&mut pairs), expected);
            assert_eq!(pairs, user(left));
        };
        check(&[("a", "1"), ("b", "2")], 0, &[("a", "1"), ("b", "2")]);
        check(&[("a", "1"), (HOPS, "3"), ("a", "1")], 3, &[("a", "1"), ("a", "1")]);
        check(&[(HOPS, "15"), (HOPS, "2")], 15, &[]);
        check(&[(HOPS, "256")], 255, &[]);
        check(&[(HOPS, "18446744073709551615")], 255, &[]);
        for unreadable in ["", "x", "-1", "1.5", "18446744073709551616"] {
            check(&[(HOPS, unreadable), ("a", "1")], 0, &[("a", "1")]);
        }
    }

    #[test]
    fn hops_are_sent_once_and_counted_in_the_size() {
        let outgoing = |user: Vec<(String, String)>, hops| Outgoing {
            topic: TopicName::new("a/b").expect("is a name"),
            payload: Bytes::from_static(b"payload"),
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: (!user.is_empty()).then(|| Box::new(Properties { user, ..Properties::default() })),
            hops,
        };
        let check = |pairs: &[(&str, &str)], hops, expected: Option<&[(&str, &str)]>| {
            let message = outgoing(user(pairs), hops);
            let sent = wire_properties(&message).map(|properties| properties.user_properties);
            assert_eq!(sent, expected.map(user));
            let mut bytes = BytesMut::new();
            publish(&message, Sending { packet: 1, qos: Qos::AtLeastOnce, retain: false }, &mut bytes);
            let size = publish_size(&message, Qos::AtLeastOnce);
            assert!((bytes.len()..=bytes.len() + 3).contains(&size), "{size} for {}", bytes.len());
        };
        check(&[], None, None);
        check(&[("a", "1")], None, Some(&[("a", "1")]));
        check(&[], Some(1), Some(&[(HOPS, "1")]));
        check(&[(HOPS, "0"), ("a", "1"), (HOPS, "x")], Some(255), Some(&[("a", "1"), (HOPS, "255")]));
    }

    #[test]
    fn limits_of_zero_break_the_protocol() {
        check(
            &[0x20, 0x06, 0x00, 0x00, 0x03, 0x21, 0x00, 0x00],
            true,
            "a receive maximum or a maximum packet size of 0",
        );
        check(
            &[0x20, 0x08, 0x00, 0x00, 0x05, 0x27, 0, 0, 0, 0],
            true,
            "a receive maximum or a maximum packet size of 0",
        );
    }
}
