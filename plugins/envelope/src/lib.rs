//! Wraps a payload in JSON that says where and when it came from, for systems that see only payloads.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use tidegate_sdk::{Message, Outgoing, Result, config, publish, reject};

/// `[handlers.NAME.config]`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Config {
    /// Goes in front of the topic, with a `/` between.
    #[serde(default = "default_prefix")]
    prefix: String,
}

fn default_prefix() -> String {
    "envelope".into()
}

/// What is added. The payload comes behind it as a last member.
#[derive(Serialize)]
struct Envelope<'a> {
    broker: &'a str,
    topic: &'a str,
    /// RFC 3339, UTC, milliseconds.
    time: String,
    captures: &'a [String],
}

fn init() -> Result {
    let Config { prefix } = config()?;
    if prefix.is_empty() || prefix.contains(['+', '#']) {
        return Err(reject("the handler's config: prefix must be a topic: not empty, without '+' and '#'"));
    }
    Ok(())
}

fn handle(message: &Message) -> Result {
    let Config { prefix } = config()?;
    let envelope = Envelope {
        broker: &message.broker,
        topic: &message.topic,
        time: humantime::format_rfc3339_millis(message.received).to_string(),
        captures: &message.captures,
    };
    let payload = with_payload(serde_json::to_string(&envelope)?, &message.payload)?;
    publish(Outgoing::new(format!("{prefix}/{}", message.topic), payload).qos(message.qos))?;
    Ok(())
}

/// Adds `payload` to a JSON object where it is JSON itself, `text` where it is other text, or else `base64`.
///
/// JSON goes in as it came: reading and writing it anew would round long numbers and lose the order of members.
fn with_payload(object: String, payload: &[u8]) -> Result<String> {
    let (name, value) = match str::from_utf8(payload) {
        Ok(text) if serde_json::from_str::<IgnoredAny>(text).is_ok() => ("payload", text.trim().to_owned()),
        Ok(text) => ("text", serde_json::to_string(text)?),
        Err(_) => ("base64", serde_json::to_string(&BASE64_STANDARD.encode(payload))?),
    };
    let members = object.strip_suffix('}').unwrap_or(&object);
    Ok(format!(r#"{members},"{name}":{value}}}"#))
}

tidegate_sdk::handler!(handle, init = init);

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use serde_json::{Value, json};
    use tidegate_sdk::testing::{Host, message};

    use super::*;

    /// The wrapped form of a payload, as text.
    fn wrap(payload: &[u8]) -> String {
        let mut original = message("site/7", payload);
        original.broker = "plant".into();
        original.captures = vec!["7".into()];
        original.received = SystemTime::UNIX_EPOCH + Duration::from_millis(1_789_034_645_250);
        let outcome = Host::new().call(handle, &original);
        assert_eq!(outcome.result, Ok(()));
        assert_eq!(outcome.publishes[0].topic, "envelope/site/7");
        String::from_utf8(outcome.publishes[0].payload.clone()).expect("an envelope is text")
    }

    #[track_caller]
    fn check(payload: &[u8], member: &str, value: Value) {
        let expected = json!({
            "broker": "plant",
            "topic": "site/7",
            "time": "2026-09-10T10:04:05.250Z",
            "captures": ["7"],
            member: value,
        });
        assert_eq!(serde_json::from_str::<Value>(&wrap(payload)).expect("an envelope is JSON"), expected);
    }

    #[test]
    fn json_is_wrapped_as_json() {
        check(br#"{"c": 21.5}"#, "payload", json!({ "c": 21.5 }));
        check(b" null\n", "payload", Value::Null);
    }

    #[test]
    fn other_text_is_wrapped_as_text() {
        check(b"", "text", json!(""));
        check("21.5 °C \"warm\"".as_bytes(), "text", json!("21.5 °C \"warm\""));
        check(br#"{"c": 21.5"#, "text", json!(r#"{"c": 21.5"#));
    }

    #[test]
    fn bytes_are_wrapped_as_base64() {
        check(&[0, 0xff, 0x10], "base64", json!("AP8Q"));
    }

    #[test]
    fn long_numbers_keep_their_digits() {
        let wrapped = wrap(b"123456789012345678901234567890.10");
        assert!(wrapped.ends_with(r#","payload":123456789012345678901234567890.10}"#), "{wrapped}");
    }

    #[test]
    fn the_prefix_must_be_a_topic() {
        let check = |prefix: &str| Host::new().config(&json!({ "prefix": prefix })).run(init).result;
        assert_eq!(check("a/b"), Ok(()));
        for wrong in ["", "a/#", "+"] {
            let reason = "the handler's config: prefix must be a topic: not empty, without '+' and '#'";
            assert_eq!(check(wrong), Err(reject(reason)), "{wrong:?}");
        }
    }
}
