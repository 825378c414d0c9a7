//! What a dead letter looks like: from a message that failed to the message that tells of it.
//!
//! Pure: no clock, no lock, no I/O. On protocol 5 it is the original with user properties of ours behind its own; on 3.1.1, which
//! has none, a JSON envelope. Used by `mod.rs`, which decides whether there is one. docs/dead-letters.md shows both.

use std::borrow::Cow;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::control::config::model::Protocol;
use crate::message::{Message, Outgoing, Properties, Qos};
use crate::path::dispatch::GivenUp;
use crate::path::handler::CallError;
use crate::topic::{self, TopicName};

/// The user property by which a dead letter is known.
const MARK: &str = "tidegate-reason";

/// Bytes of the sentence about what went wrong.
const LONGEST_ERROR: usize = 1024;

/// Bytes of any other text: the longest that MQTT has (MQTT 5 §1.5.4).
const LONGEST_TEXT: usize = 65_535;

/// Why a message became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The handler said that it will never work.
    Reject,
    /// The handler asked for another attempt once more than is made.
    Retry,
    /// The last call trapped.
    Trap,
    /// The last call took too long.
    Deadline,
    /// The last call needed too much memory.
    Memory,
    /// The last call went past another limit.
    Limit,
    /// A publish of its call was refused for good.
    PublishRefused,
    /// A broker ended one connection after the other over a publish of its call.
    PublishPoisoned,
    /// It came from so many calls that it is given to no handler.
    Loop,
}

impl Reason {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Reason; 9] = [
        Reason::Reject,
        Reason::Retry,
        Reason::Trap,
        Reason::Deadline,
        Reason::Memory,
        Reason::Limit,
        Reason::PublishRefused,
        Reason::PublishPoisoned,
        Reason::Loop,
    ];

    /// The value of the metric label `reason`, and of the dead letter's.
    pub fn label(self) -> &'static str {
        match self {
            Reason::Reject => "reject",
            Reason::Retry => "retry",
            Reason::Trap => "trap",
            Reason::Deadline => "deadline",
            Reason::Memory => "memory",
            Reason::Limit => "limit",
            Reason::PublishRefused => "publish_refused",
            Reason::PublishPoisoned => "publish_poisoned",
            Reason::Loop => "loop",
        }
    }
}

impl From<&CallError> for Reason {
    /// That of a message whose last call ended with this.
    fn from(error: &CallError) -> Reason {
        match error {
            CallError::Reject(_) => Reason::Reject,
            CallError::Retry { .. } | CallError::NoRoom(_) => Reason::Retry,
            CallError::Trap(_) | CallError::Unavailable(_) => Reason::Trap,
            CallError::Deadline(_) | CallError::Stuck(_) => Reason::Deadline,
            CallError::Memory(_) => Reason::Memory,
            CallError::Limit(_) => Reason::Limit,
        }
    }
}

/// A message that failed for good, and all that is told of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed<'a> {
    pub(super) message: &'a Message,
    /// The broker that it came from.
    pub(super) broker: &'a str,
    pub(super) handler: &'a str,
    pub(super) subscription: &'a str,
    pub(super) reason: Reason,
    /// What went wrong, in plain words.
    pub(super) error: &'a str,
    /// Why its call is not made again, where one could have been.
    pub(super) given_up: Option<GivenUp>,
    /// Calls that were made.
    pub(super) attempts: u32,
    /// When it was given up.
    pub(super) time: SystemTime,
}

/// Whether a message is a dead letter by what it carries: on any topic, also on one that no handler has for its dead letters any
/// more.
pub(super) fn is_marked(message: &Message) -> bool {
    let marked =
        message.properties.as_ref().is_some_and(|properties| properties.user.iter().any(|(key, _)| key == MARK));
    marked || is_envelope(&message.payload)
}

/// Whether a payload is an envelope of ours: all of its keys, no others, and a reason that there is.
fn is_envelope(payload: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    struct Keys<'a> {
        #[serde(borrow)]
        reason: Cow<'a, str>,
        #[serde(rename = "broker")]
        _broker: IgnoredAny,
        #[serde(rename = "topic")]
        _topic: IgnoredAny,
        #[serde(rename = "qos")]
        _qos: IgnoredAny,
        #[serde(rename = "retain")]
        _retain: IgnoredAny,
        #[serde(rename = "handler")]
        _handler: IgnoredAny,
        #[serde(rename = "subscription")]
        _subscription: IgnoredAny,
        #[serde(rename = "error")]
        _error: IgnoredAny,
        #[serde(rename = "attempts")]
        _attempts: IgnoredAny,
        #[serde(rename = "time")]
        _time: IgnoredAny,
        #[serde(rename = "properties")]
        _properties: Option<IgnoredAny>,
        #[serde(rename = "payload")]
        _payload: Option<IgnoredAny>,
        #[serde(rename = "payload-base64")]
        _payload_base64: Option<IgnoredAny>,
    }
    let keys = serde_json::from_slice::<Keys<'_>>(payload);
    keys.is_ok_and(|keys| Reason::ALL.iter().any(|reason| reason.label() == keys.reason))
}

/// The dead letter of a message, for a broker of this protocol.
pub(super) fn letter(failed: &Failed<'_>, topic: TopicName, protocol: Protocol) -> Outgoing {
    let (payload, properties) = match protocol {
        Protocol::V5 => (failed.message.payload.clone(), Some(Box::new(properties(failed)))),
        Protocol::V311 => (envelope(failed), None),
    };
    let hops = Some(failed.message.next_hop());
    Outgoing { topic, payload, qos: Qos::AtLeastOnce, retain: false, properties, hops }
}

/// The properties of the original, but for its expiry: a dead letter waits for somebody to look at it.
fn properties(failed: &Failed<'_>) -> Properties {
    let original = failed.message.properties.as_deref();
    let mut user: Vec<(String, String)> = Vec::new();
    for (key, value) in original.into_iter().flat_map(|original| &original.user) {
        user.push((sendable(key, LONGEST_TEXT), sendable(value, LONGEST_TEXT)));
    }
    user.extend(ours(failed).into_iter().map(|(key, value)| (key.to_owned(), value)));
    let Some(original) = original else { return Properties { user, ..Properties::default() } };
    let topic = |text: &&String| TopicName::new(text.as_str()).is_ok() && topic::refusable(text).is_none();
    Properties {
        content_type: original.content_type.as_deref().map(|text| sendable(text, LONGEST_TEXT)),
        response_topic: original.response_topic.as_ref().filter(topic).cloned(),
        correlation_data: original.correlation_data.clone(),
        message_expiry: None,
        // A broker that checks refuses what only claims to be text (MQTT 5 §3.3.2.3.2).
        utf8_payload: original.utf8_payload && std::str::from_utf8(&failed.message.payload).is_ok(),
        user,
    }
}

/// What is told of the original, each under a key of its own.
fn ours(failed: &Failed<'_>) -> Vec<(&'static str, String)> {
    let message = failed.message;
    let mut ours = vec![
        ("tidegate-broker", failed.broker.to_owned()),
        ("tidegate-topic", sendable(message.topic.as_str(), LONGEST_TEXT)),
        ("tidegate-qos", message.qos.to_string()),
        ("tidegate-retain", message.retain.to_string()),
        ("tidegate-handler", failed.handler.to_owned()),
        ("tidegate-subscription", sendable(failed.subscription, LONGEST_TEXT)),
        (MARK, failed.reason.label().to_owned()),
        ("tidegate-error", what_went_wrong(failed)),
        ("tidegate-attempts", failed.attempts.to_string()),
        ("tidegate-time", time(failed.time)),
    ];
    let expiry = message.properties.as_ref().and_then(|properties| properties.message_expiry);
    ours.extend(expiry.map(|seconds| ("tidegate-message-expiry", seconds.to_string())));
    ours
}

/// What 3.1.1 has no place for beside the payload, and the payload.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Envelope<'a> {
    broker: &'a str,
    topic: &'a str,
    qos: u8,
    retain: bool,
    handler: &'a str,
    subscription: &'a str,
    reason: &'a str,
    error: String,
    attempts: u32,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    properties: Option<EnvelopeProperties<'a>>,
    /// Of these two there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

/// The original's; those that it has not are left out.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct EnvelopeProperties<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_data_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_expiry: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    utf8_payload: bool,
    /// Pairs rather than an object, since keys may repeat.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    user: &'a [(String, String)],
}

fn envelope(failed: &Failed<'_>) -> Bytes {
    let message = failed.message;
    let text = std::str::from_utf8(&message.payload).ok();
    let properties = message.properties.as_deref().map(|original| EnvelopeProperties {
        content_type: original.content_type.as_deref(),
        response_topic: original.response_topic.as_deref(),
        correlation_data_base64: original.correlation_data.as_ref().map(|data| STANDARD.encode(data)),
        message_expiry: original.message_expiry,
        utf8_payload: original.utf8_payload,
        user: &original.user,
    });
    let envelope = Envelope {
        broker: failed.broker,
        topic: message.topic.as_str(),
        qos: message.qos.number(),
        retain: message.retain,
        handler: failed.handler,
        subscription: failed.subscription,
        reason: failed.reason.label(),
        error: what_went_wrong(failed),
        attempts: failed.attempts,
        time: time(failed.time),
        properties,
        payload: text,
        payload_base64: text.is_none().then(|| STANDARD.encode(&message.payload)),
    };
    serde_json::to_vec(&envelope).expect("texts and numbers become JSON").into()
}

/// The error, and why that is the end: a long error is cut before that.
pub(super) fn what_went_wrong(failed: &Failed<'_>) -> String {
    let given_up = failed.given_up.map(|given_up| format!("; given up {given_up}")).unwrap_or_default();
    sendable(failed.error, LONGEST_ERROR.saturating_sub(given_up.len())) + &given_up
}

/// RFC 3339, in UTC.
fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// A text that no broker ends the connection over: what one broker lets pass may be what another does not (MQTT 5 §1.5.4).
/// Such characters are escaped as in Rust; what is longer than `most` bytes is cut.
fn sendable(text: &str, most: usize) -> String {
    if text.len() <= most && topic::refusable(text).is_none() {
        return text.to_owned();
    }
    let mut sendable = String::new();
    for character in text.chars() {
        let before = sendable.len();
        if topic::refusable(character.encode_utf8(&mut [0; 4])).is_some() {
            sendable.extend(character.escape_default());
        } else {
            sendable.push(character);
        }
        if sendable.len() > most - '…'.len_utf8() {
            sendable.truncate(before);
            sendable.push('…');
            break;
        }
    }
    sendable
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, UNIX_EPOCH};

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::control::config::model::Retry;
    use crate::message::HOPS;
    use crate::path::dispatch::Tries;

    fn message(payload: &[u8], properties: Option<Properties>) -> Message {
        Message {
            retain: true,
            properties: properties.map(Box::new),
            hops: 3,
            ..Message::testing("sensors/1/temperature", payload)
        }
    }

    fn failed<'a>(message: &'a Message, error: &'a str) -> Failed<'a> {
        Failed {
            message,
            broker: "plant",
            handler: "celsius",
            subscription: "temperatures",
            reason: Reason::Reject,
            error,
            given_up: None,
            attempts: 4,
            time: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        }
    }

    fn of(failed: &Failed<'_>, protocol: Protocol) -> Outgoing {
        letter(failed, TopicName::new("dead").expect("is a name"), protocol)
    }

    fn original() -> Properties {
        Properties {
            content_type: Some("text/plain".to_owned()),
            response_topic: Some("answers/1".to_owned()),
            correlation_data: Some(Bytes::from_static(b"\xff\x00")),
            message_expiry: Some(60),
            utf8_payload: true,
            user: vec![("k".to_owned(), "1".to_owned()), ("k".to_owned(), "2".to_owned())],
        }
    }

    #[test]
    fn on_protocol_5_it_is_the_original_with_what_happened_behind_its_own_properties() {
        let message = message(b"21.5", Some(original()));
        let letter = of(&failed(&message, "the handler rejected the message: no"), Protocol::V5);
        assert_eq!(letter.topic.as_str(), "dead");
        assert_eq!(&letter.payload[..], b"21.5");
        assert_eq!((letter.qos, letter.retain, letter.hops), (Qos::AtLeastOnce, false, Some(4)));
        let properties = *letter.properties.expect("has some");
        let expected = [
            ("k", "1"),
            ("k", "2"),
            ("tidegate-broker", "plant"),
            ("tidegate-topic", "sensors/1/temperature"),
            ("tidegate-qos", "1"),
            ("tidegate-retain", "true"),
            ("tidegate-handler", "celsius"),
            ("tidegate-subscription", "temperatures"),
            ("tidegate-reason", "reject"),
            ("tidegate-error", "the handler rejected the message: no"),
            ("tidegate-attempts", "4"),
            ("tidegate-time", "2023-11-14T22:13:20.123Z"),
            ("tidegate-message-expiry", "60"),
        ];
        let seen: Vec<_> = properties.user.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(seen, expected);
        assert_eq!(properties, Properties { message_expiry: None, user: properties.user.clone(), ..original() });
    }

    fn check_envelope(message: &Message, expected: Value) {
        let letter = of(&failed(message, "no"), Protocol::V311);
        assert_eq!(letter.properties, None);
        assert_eq!((letter.qos, letter.retain), (Qos::AtLeastOnce, false));
        let seen: Value = serde_json::from_slice(&letter.payload).expect("is JSON");
        assert_eq!(seen, expected);
    }

    #[test]
    fn on_3_1_1_it_is_an_envelope() {
        let mut whole = json!({
            "broker": "plant", "topic": "sensors/1/temperature", "qos": 1, "retain": true, "handler": "celsius",
            "subscription": "temperatures", "reason": "reject", "error": "no", "attempts": 4,
            "time": "2023-11-14T22:13:20.123Z", "payload": "21.5",
        });
        check_envelope(&message(b"21.5", None), whole.clone());
        whole["properties"] = json!({
            "content-type": "text/plain", "response-topic": "answers/1", "correlation-data-base64": "/wA=",
            "message-expiry": 60, "utf8-payload": true, "user": [["k", "1"], ["k", "2"]],
        });
        check_envelope(&message(b"21.5", Some(original())), whole.clone());
        whole["properties"] = json!({});
        whole["payload-base64"] = json!("/wA=");
        whole.as_object_mut().expect("is one").remove("payload");
        check_envelope(&message(b"\xff\x00", Some(Properties::default())), whole);
    }

    #[test]
    fn what_another_broker_would_not_take_does_not_reach_it() {
        let claims = Properties {
            content_type: Some("a\nb".to_owned()),
            response_topic: Some("a/#".to_owned()),
            utf8_payload: true,
            user: vec![("k\u{7f}".to_owned(), "\u{fffe}".to_owned())],
            ..Properties::default()
        };
        let message = message(b"\xff", Some(claims));
        let error = format!("line\nline \0 {}", "ü".repeat(LONGEST_ERROR));
        let properties = *of(&failed(&message, &error), Protocol::V5).properties.expect("has some");
        assert_eq!(properties.content_type.as_deref(), Some("a\\nb"));
        assert_eq!((properties.response_topic, properties.utf8_payload), (None, false));
        assert_eq!(properties.user[0], ("k\\u{7f}".to_owned(), "\\u{fffe}".to_owned()));
        let told = &properties.user.iter().find(|(key, _)| key == "tidegate-error").expect("is told").1;
        assert!(told.starts_with("line\\nline \\u{0} üü") && told.ends_with("ü…"), "{told}");
        assert!(told.len() <= LONGEST_ERROR, "{}", told.len());
    }

    #[test]
    fn a_long_error_does_not_hide_why_it_was_given_up() {
        let message = message(b"x", None);
        let retry = Retry { max: 0, backoff: Duration::ZERO..=Duration::ZERO, max_time: Duration::from_secs(1) };
        let mut tries = Tries::default();
        let now = Instant::now();
        tries.begin(now);
        let given_up = tries.again(&retry, now, None, 0.5).err();
        let end = "; given up after 1 call (retry.max = 0)";
        for (error, expected) in [("busy".to_owned(), format!("busy{end}")), ("e".repeat(5000), format!("e…{end}"))] {
            let told = what_went_wrong(&Failed { given_up, ..failed(&message, &error) });
            assert!(told.ends_with(&expected) && told.len() <= LONGEST_ERROR, "{told}");
        }
    }

    #[test]
    fn a_dead_letter_is_known_by_its_mark() {
        let message = message(b"x", None);
        assert!(!is_marked(&message));
        let letter = of(&failed(&message, "no"), Protocol::V5);
        assert!(is_marked(&Message { properties: letter.properties, ..message.clone() }));
        let envelope = of(&failed(&message, "no"), Protocol::V311).payload;
        let mut keys: Value = serde_json::from_slice(&envelope).expect("is JSON");
        assert!(is_marked(&Message { payload: envelope, ..message.clone() }));
        keys["reason"] = "rain".into();
        assert!(!is_envelope(keys.to_string().as_bytes()));
        keys["reason"] = "reject".into();
        assert!(is_envelope(keys.to_string().as_bytes()));
        keys["temperature"] = 21.into();
        assert!(!is_envelope(keys.to_string().as_bytes()));
        assert!(Reason::ALL.iter().all(|reason| !reason.label().is_empty()));
        assert_ne!(MARK, HOPS, "an ordinary message has hops");
    }

    proptest! {
        /// Whatever came in, and whatever is said of it: each text is one that MQTT sends, and the payload is whole.
        #[test]
        fn every_text_can_be_sent(
            user in prop::collection::vec((".{0,40}", any::<String>()), 0..4),
            content_type in prop::option::of(any::<String>()),
            error in any::<String>(),
            long in 0usize..80_000,
            payload in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let user = user.into_iter().chain([("x".repeat(long.min(LONGEST_TEXT)), "\n".repeat(long.min(LONGEST_TEXT)))]);
            let properties = Properties { content_type, user: user.collect(), ..Properties::default() };
            let message = message(&payload, Some(properties));
            let error = format!("{error}{}", "e".repeat(long));
            let letter = of(&failed(&message, &error), Protocol::V5);
            prop_assert_eq!(&letter.payload, &message.payload);
            let properties = letter.properties.expect("has some");
            let texts = properties.user.iter().flat_map(|(key, value)| [key, value]).chain(&properties.content_type);
            for text in texts {
                prop_assert!(text.len() <= LONGEST_TEXT && topic::refusable(text).is_none(), "{text:?}");
            }
            let envelope = of(&failed(&message, &error), Protocol::V311).payload;
            prop_assert!(is_envelope(&envelope));
            let envelope: Value = serde_json::from_slice(&envelope).expect("is JSON");
            let bytes = match (&envelope["payload"], &envelope["payload-base64"]) {
                (Value::String(text), Value::Null) => text.clone().into_bytes(),
                (Value::Null, Value::String(text)) => STANDARD.decode(text).expect("is base64"),
                both => panic!("{both:?}"),
            };
            prop_assert_eq!(bytes, payload);
        }
    }
}
