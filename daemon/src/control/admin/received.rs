//! A received message as the HTTP API tells it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::resource::{Encoding, Received};
use crate::brokers::BrokerNames;
use crate::telemetry::received::Entry;

/// A message of the ring: its payload as text where it is UTF-8, else in base64.
pub fn received(entry: &Entry, names: &BrokerNames) -> Received {
    let message = &*entry.message;
    let (data, encoding) = match std::str::from_utf8(&message.payload) {
        Ok(text) => (text.to_owned(), Encoding::Utf8),
        Err(_) => (STANDARD.encode(&message.payload), Encoding::Base64),
    };
    Received {
        sequence: entry.sequence,
        time: humantime::format_rfc3339_millis(message.received).to_string(),
        broker: names.name(message.broker).to_string(),
        topic: message.topic.as_str().to_owned(),
        qos: message.qos.number(),
        retain: message.retain,
        dup: message.dup,
        data,
        encoding,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant, UNIX_EPOCH};

    use super::*;
    use crate::message::{Message, Qos};
    use crate::telemetry::received::{Limits, ReceivedRing};
    use crate::telemetry::wanted::Wanted;
    use crate::topic::TopicName;

    async fn check(payload: &'static [u8], expected: serde_json::Value) {
        let names = BrokerNames::default();
        names.number("lab");
        let ring = ReceivedRing::new(Limits { messages: 1, bytes: 1000 });
        ring.push(&Arc::new(Message {
            broker: names.number("plant"),
            topic: TopicName::new("t/ä").expect("valid"),
            payload: payload.into(),
            qos: Qos::AtLeastOnce,
            retain: true,
            dup: false,
            received: UNIX_EPOCH + Duration::from_nanos(1_700_000_000_120_999_999),
            arrived: Instant::now(),
            properties: None,
        }));
        let listed = ring.list(&Wanted::default(), None).await;
        let json = serde_json::to_value(received(&listed.entries[0], &names)).expect("becomes JSON");
        let mut whole = serde_json::json!({
            "sequence": 1, "time": "2023-11-14T22:13:20.120Z", "broker": "plant", "topic": "t/ä", "qos": 1,
            "retain": true, "dup": false,
        });
        whole.as_object_mut().expect("an object").extend(expected.as_object().expect("an object").clone());
        assert_eq!(json, whole);
    }

    #[tokio::test]
    async fn text_stays_text_and_other_bytes_become_base64() {
        check(b"21.5 \xc2\xb0C\n", serde_json::json!({ "data": "21.5 °C\n", "encoding": "utf-8" })).await;
        check(b"", serde_json::json!({ "data": "", "encoding": "utf-8" })).await;
        check(b"\xff\x00", serde_json::json!({ "data": "/wA=", "encoding": "base64" })).await;
    }
}
