//! Between the daemon's messages and the records of `wit/handler.wit`.
//!
//! Pure. Towards the guest everything is borrowed. It decides nothing: what a guest asks for is judged in `host/`.

use std::sync::Arc;

use smallvec::SmallVec;

use super::bindings::tidegate::handler::{kv, publisher, system, types};
use crate::message::{Message, Properties, Qos};
use crate::path::handler::host::{Host, KvError, PublishError, PublishRequest, unix_nanos};
use crate::system::Readings;

/// What a record for the guest borrows beside the message. The lists are usually short.
pub(super) struct Lists<'a> {
    broker: Arc<str>,
    captures: SmallVec<[&'a str; 8]>,
    user: SmallVec<[(&'a str, &'a str); 4]>,
}

impl<'a> Lists<'a> {
    /// For this message.
    pub(super) fn new(host: &Host, message: &'a Message, captures: &'a [String]) -> Lists<'a> {
        let user = message.properties.as_ref().map_or(&[][..], |properties| &properties.user);
        Lists {
            broker: host.brokers.name(message.broker),
            captures: captures.iter().map(String::as_str).collect(),
            user: user.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
        }
    }
}

/// The record that the guest gets.
pub(super) fn message_to_guest<'a>(
    message: &'a Message,
    lists: &'a Lists<'_>,
    subscription: &'a str,
    attempt: u32,
) -> types::Message<'a> {
    types::Message {
        broker: &lists.broker,
        subscription,
        topic: message.topic.as_str(),
        payload: &message.payload,
        qos: qos_to_guest(message.qos),
        retain: message.retain,
        dup: message.dup,
        received: unix_nanos(message.received),
        attempt,
        captures: &lists.captures,
        properties: message.properties.as_ref().map(|properties| types::PropertiesParam {
            content_type: properties.content_type.as_deref(),
            response_topic: properties.response_topic.as_deref(),
            correlation_data: properties.correlation_data.as_deref(),
            message_expiry: properties.message_expiry,
            utf8_payload: properties.utf8_payload,
            user: &lists.user,
        }),
    }
}

/// What a guest asks to publish.
pub(super) fn request_from_guest(outgoing: types::Outgoing) -> PublishRequest {
    PublishRequest {
        topic: outgoing.topic,
        payload: outgoing.payload,
        qos: qos_from_guest(outgoing.qos),
        retain: outgoing.retain,
        properties: outgoing.properties.map(|properties| Properties {
            content_type: properties.content_type,
            response_topic: properties.response_topic,
            correlation_data: properties.correlation_data.map(Into::into),
            message_expiry: properties.message_expiry,
            utf8_payload: properties.utf8_payload,
            user: properties.user,
        }),
    }
}

/// Why it is not held back.
pub(super) fn publish_error_to_guest(error: PublishError) -> publisher::PublishError {
    match error {
        PublishError::Denied(reason) => publisher::PublishError::Denied(reason),
        PublishError::InvalidTopic(reason) => publisher::PublishError::InvalidTopic(reason),
        PublishError::TooLarge => publisher::PublishError::TooLarge,
        PublishError::Quota => publisher::PublishError::Quota,
        PublishError::UnknownBroker(name) => publisher::PublishError::UnknownBroker(name),
        PublishError::Other(reason) => publisher::PublishError::Other(reason),
    }
}

/// Why its use of `kv` fails.
pub(super) fn kv_error_to_guest(error: KvError) -> kv::KvError {
    match error {
        KvError::Quota => kv::KvError::Quota,
        KvError::TooLarge => kv::KvError::TooLarge,
        KvError::Unavailable(reason) => kv::KvError::Unavailable(reason),
        KvError::Other(reason) => kv::KvError::Other(reason),
    }
}

/// The readings of the machine.
pub(super) fn readings_to_guest(readings: Readings) -> system::Readings {
    let Readings { model, serial_number, os_version, cpu_load, used_memory, free_memory, uptime } = readings;
    system::Readings {
        model: model.to_string(),
        serial_number: serial_number.to_string(),
        os_version: os_version.to_string(),
        cpu_load,
        used_memory,
        free_memory,
        uptime,
    }
}

fn qos_to_guest(qos: Qos) -> types::Qos {
    match qos {
        Qos::AtMostOnce => types::Qos::AtMostOnce,
        Qos::AtLeastOnce => types::Qos::AtLeastOnce,
        Qos::ExactlyOnce => types::Qos::ExactlyOnce,
    }
}

fn qos_from_guest(qos: types::Qos) -> Qos {
    match qos {
        types::Qos::AtMostOnce => Qos::AtMostOnce,
        types::Qos::AtLeastOnce => Qos::AtLeastOnce,
        types::Qos::ExactlyOnce => Qos::ExactlyOnce,
    }
}
