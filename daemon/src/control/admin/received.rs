//! Received messages as the HTTP API tells them: one, or a list in pieces.
//!
//! Pure. Fed by `api/`, which asks for the next piece when its client has room for it.

use std::iter;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::limits::PIECE_BYTES;
use super::resource::{Encoding, Received};
use crate::brokers::BrokerNames;
use crate::telemetry::received::{Entry, Listed};

/// Bytes as text where they are UTF-8, else in base64.
pub fn told(bytes: &[u8]) -> (String, Encoding) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), Encoding::Utf8),
        Err(_) => (STANDARD.encode(bytes), Encoding::Base64),
    }
}

/// A message of the ring: its payload as text where it is UTF-8, else in base64.
pub fn received(entry: &Entry, names: &BrokerNames) -> Received {
    let message = &*entry.message;
    let (data, encoding) = told(&message.payload);
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

/// A [`ReceivedList`](super::resource::ReceivedList) as JSON, made piece by piece; a message that was told is let go of.
pub fn pieces(listed: Listed, names: BrokerNames) -> impl Iterator<Item = String> {
    let mut entries = listed.entries.into_iter();
    let mut piece = "{\"messages\":[".to_owned();
    let mut between = "";
    let mut ended = false;
    let next = move || {
        if ended {
            return None;
        }
        while piece.len() < PIECE_BYTES {
            let Some(entry) = entries.next() else {
                piece += &format!("],\"gone\":{}}}", listed.gone);
                ended = true;
                break;
            };
            piece += between;
            between = ",";
            piece += &serde_json::to_string(&received(&entry, &names)).expect("resources have only strings as keys");
        }
        Some(std::mem::take(&mut piece))
    };
    iter::from_fn(next)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use bytes::Bytes;

    use super::*;
    use crate::control::admin::resource::ReceivedList;
    use crate::message::Message;
    use crate::telemetry::received::{Limits, ReceivedRing};
    use crate::telemetry::wanted::Wanted;

    fn message(names: &BrokerNames, payload: Bytes) -> Arc<Message> {
        Arc::new(Message {
            broker: names.number("plant"),
            retain: true,
            received: UNIX_EPOCH + Duration::from_nanos(1_700_000_000_120_999_999),
            ..Message::testing("t/ä", payload)
        })
    }

    async fn check(payload: &'static [u8], expected: serde_json::Value) {
        let names = BrokerNames::default();
        names.number("lab");
        let ring = ReceivedRing::new(Limits { messages: 1, bytes: 1000 });
        ring.push(&message(&names, payload.into()));
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

    /// The list in pieces is the list, whatever its length, and no piece is longer than one message more than its limit.
    #[tokio::test]
    async fn a_list_is_told_in_pieces() {
        let names = BrokerNames::default();
        for (messages, bytes) in [(0, 0), (1, 10), (7, 1000), (3, PIECE_BYTES), (400, 1000)] {
            let ring = ReceivedRing::new(Limits { messages: 400, bytes: 8 << 20 });
            (0..messages).for_each(|_| {
                ring.push(&message(&names, vec![b'x'; bytes].into()));
            });
            let listed = async || ring.list(&Wanted::default(), None).await;
            let made: Vec<String> = pieces(listed().await, names.clone()).collect();
            let (last, others) = made.split_last().expect("a list has an end");
            let long = |piece: &String| piece.len() >= PIECE_BYTES;
            assert!(others.iter().all(long) && !long(last), "{messages} of {bytes} bytes");
            let short = |piece: &String| piece.len() < PIECE_BYTES + bytes + 500;
            assert!(made.iter().all(short), "{messages} of {bytes} bytes");
            let Listed { entries, gone } = listed().await;
            let messages = entries.iter().map(|entry| received(entry, &names)).collect();
            let whole = serde_json::to_string(&ReceivedList { messages, gone }).expect("becomes JSON");
            assert_eq!(made.concat(), whole);
        }
    }
}
