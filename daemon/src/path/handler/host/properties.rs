//! Whether a broker will take the properties of a handler's publish.
//!
//! Pure. Asked by [`super::publish`]: what no broker would take is told to the handler while it can still do something else.

use super::publish::PublishError;
use crate::message::Properties;
use crate::topic::TopicName;

/// Bytes of one publish's properties, all texts together. None is then longer than MQTT permits (MQTT 5 §1.5.4).
const MAX_PROPERTY_BYTES: usize = 65_535;

/// What a user property takes on the wire beside its texts (MQTT 5 §3.3.2.3.7).
const USER_PROPERTY_OVERHEAD: usize = 5;

/// The properties of a publish with this payload; none where they are all absent.
///
/// # Errors
/// Too large past [`MAX_PROPERTY_BYTES`]; a sentence for what MQTT forbids.
pub(super) fn checked(properties: Properties, payload: &[u8]) -> Result<Option<Box<Properties>>, PublishError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut Properties), expected: Result<Option<Properties>, &str>) {
        let mut given = Properties::default();
        change(&mut given);
        let seen = checked(given, b"\xff").map(|seen| seen.map(|properties| *properties));
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
        let given = Properties {
            content_type: Some("text/plain".to_owned()),
            response_topic: Some("answers/1".to_owned()),
            correlation_data: Some(bytes::Bytes::from_static(&[0, 1])),
            message_expiry: Some(0),
            utf8_payload: false,
            user: vec![pair.clone(), pair],
        };
        check(|properties| *properties = given.clone(), Ok(Some(given.clone())));
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
        check(|given| given.correlation_data = Some(vec![0; MAX_PROPERTY_BYTES + 1].into()), Err("TooLarge"));
        check(|given| given.user = vec![(String::new(), String::new()); 20_000], Err("TooLarge"));
    }
}
