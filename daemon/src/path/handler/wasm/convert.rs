//! Between the daemon's messages and the records of `wit/handler.wit`.
//!
//! Pure. Towards the guest everything is borrowed; from the guest, properties are checked so that no broker refuses what
//! the daemon sends for them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use smallvec::SmallVec;

use super::bindings::tidegate::handler::publisher::PublishError;
use super::bindings::tidegate::handler::types;
use super::host::Host;
use crate::message::{Message, Properties, Qos};
use crate::topic::TopicName;

/// Bytes of one publish's properties, all texts together. None is then longer than MQTT permits (MQTT 5 §1.5.4).
const MAX_PROPERTY_BYTES: usize = 65_535;

/// What a user property takes on the wire beside its texts (MQTT 5 §3.3.2.3.7).
const USER_PROPERTY_OVERHEAD: usize = 5;

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

/// The properties that a guest sets on a publish with this payload.
///
/// # Errors
/// `too-large` past [`MAX_PROPERTY_BYTES`]; `other` with a sentence for what MQTT forbids.
pub(super) fn properties_from_guest(
    properties: Option<types::PropertiesResult>,
    payload: &[u8],
) -> Result<Option<Box<Properties>>, PublishError> {
    let Some(properties) = properties else { return Ok(None) };
    let properties = Properties {
        content_type: properties.content_type,
        response_topic: properties.response_topic,
        correlation_data: properties.correlation_data.map(Into::into),
        message_expiry: properties.message_expiry,
        utf8_payload: properties.utf8_payload,
        user: properties.user,
    };
    if bytes(&properties) > MAX_PROPERTY_BYTES {
        return Err(PublishError::TooLarge);
    }
    check_texts(&properties).map_err(PublishError::Other)?;
    // A broker that checks closes the connection (MQTT 5 §3.3.2.3.2, reason code 0x99).
    if properties.utf8_payload && std::str::from_utf8(payload).is_err() {
        return Err(PublishError::Other("utf8-payload is set, but the payload is not UTF-8".to_owned()));
    }
    Ok((properties != Properties::default()).then(|| Box::new(properties)))
}

fn bytes(properties: &Properties) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    text(&properties.content_type)
        + text(&properties.response_topic)
        + properties.correlation_data.as_ref().map_or(0, bytes::Bytes::len)
        + properties.user.iter().map(|(key, value)| key.len() + value.len() + USER_PROPERTY_OVERHEAD).sum::<usize>()
}

/// Says which text MQTT does not permit.
fn check_texts(properties: &Properties) -> Result<(), String> {
    let nul = |name: &str, text: &str| match text.contains('\0') {
        true => Err(format!("{name} has the character U+0000 (MQTT 5 §1.5.4)")),
        false => Ok(()),
    };
    if let Some(content_type) = &properties.content_type {
        nul("content-type", content_type)?;
    }
    if let Some(topic) = &properties.response_topic {
        TopicName::new(topic.as_str()).map_err(|reason| format!("response-topic {reason}"))?;
    }
    for (key, value) in &properties.user {
        nul("a user property's key", key)?;
        nul("a user property's value", value)?;
    }
    Ok(())
}

fn qos_to_guest(qos: Qos) -> types::Qos {
    match qos {
        Qos::AtMostOnce => types::Qos::AtMostOnce,
        Qos::AtLeastOnce => types::Qos::AtLeastOnce,
        Qos::ExactlyOnce => types::Qos::ExactlyOnce,
    }
}

/// The quality of service that a guest asks for.
pub(super) fn qos_from_guest(qos: types::Qos) -> Qos {
    match qos {
        types::Qos::AtMostOnce => Qos::AtMostOnce,
        types::Qos::AtLeastOnce => Qos::AtLeastOnce,
        types::Qos::ExactlyOnce => Qos::ExactlyOnce,
    }
}

/// Nanoseconds since the Unix epoch; 0 for a clock set before it.
pub(super) fn unix_nanos(time: SystemTime) -> u64 {
    nanos(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Nanoseconds; the largest number past the 584 years that fit.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties() -> types::PropertiesResult {
        types::PropertiesResult {
            content_type: None,
            response_topic: None,
            correlation_data: None,
            message_expiry: None,
            utf8_payload: false,
            user: Vec::new(),
        }
    }

    fn check(change: impl FnOnce(&mut types::PropertiesResult), expected: Result<Option<Properties>, &str>) {
        let mut given = properties();
        change(&mut given);
        let seen = properties_from_guest(Some(given), b"\xff").map(|seen| seen.map(|properties| *properties));
        let seen = seen.map_err(|error| match error {
            PublishError::Other(text) => text,
            other => format!("{other:?}"),
        });
        assert_eq!(seen, expected.map_err(str::to_owned));
    }

    #[test]
    fn properties_are_carried_over() {
        check(|_| {}, Ok(None));
        let pair = ("k".to_owned(), "v".to_owned());
        let user = vec![pair.clone(), pair];
        check(
            |given| {
                given.content_type = Some("text/plain".to_owned());
                given.response_topic = Some("answers/1".to_owned());
                given.correlation_data = Some(vec![0, 1]);
                given.message_expiry = Some(0);
                given.user = user.clone();
            },
            Ok(Some(Properties {
                content_type: Some("text/plain".to_owned()),
                response_topic: Some("answers/1".to_owned()),
                correlation_data: Some(bytes::Bytes::from_static(&[0, 1])),
                message_expiry: Some(0),
                utf8_payload: false,
                user: user.clone(),
            })),
        );
    }

    #[test]
    fn what_a_broker_would_refuse_is_refused() {
        check(
            |given| given.content_type = Some("a\0".into()),
            Err("content-type has the character U+0000 (MQTT 5 §1.5.4)"),
        );
        check(
            |given| given.response_topic = Some("a/#".into()),
            Err("response-topic has the wildcard '#' at byte 2, which only a topic filter may have (MQTT 5 §4.7.1)"),
        );
        check(
            |given| given.user = vec![("k".into(), "\0".into())],
            Err("a user property's value has the character U+0000 (MQTT 5 §1.5.4)"),
        );
        check(|given| given.utf8_payload = true, Err("utf8-payload is set, but the payload is not UTF-8"));
        check(|given| given.correlation_data = Some(vec![0; MAX_PROPERTY_BYTES + 1]), Err("PublishError::TooLarge"));
        check(|given| given.user = vec![(String::new(), String::new()); 20_000], Err("PublishError::TooLarge"));
    }

    #[test]
    fn times_are_nanoseconds_and_never_wrap() {
        assert_eq!(unix_nanos(UNIX_EPOCH + Duration::new(1, 5)), 1_000_000_005);
        assert_eq!(unix_nanos(UNIX_EPOCH - Duration::from_secs(1)), 0);
        assert_eq!(nanos(Duration::MAX), u64::MAX);
    }
}
