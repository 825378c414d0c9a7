//! The messages that a handler gets and sends.
//!
//! Owns: their Rust form. Filled by `wasm.rs`, or by [`crate::testing`] natively; read and made by the author's code.

use std::time::SystemTime;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result, reject};

/// MQTT quality of service (MQTT 5 §4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qos {
    /// QoS 0: it may be lost.
    #[default]
    AtMostOnce,
    /// QoS 1: it may come twice.
    AtLeastOnce,
    /// QoS 2. The daemon sends it as QoS 1 unless the target broker's session is clean.
    ExactlyOnce,
}

/// The MQTT 5 properties of a message (MQTT 5 §3.3.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// MIME type of the payload.
    pub content_type: Option<String>,
    /// Where an answer is expected.
    pub response_topic: Option<String>,
    /// Tells the asker which request an answer belongs to.
    pub correlation_data: Option<Vec<u8>>,
    /// Seconds left before the message expires.
    pub message_expiry: Option<u32>,
    /// The payload is declared to be UTF-8.
    pub utf8_payload: bool,
    /// In order; keys may repeat.
    pub user: Vec<(String, String)>,
}

/// A message that matched a subscription of this handler.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// The name of the configured broker that it came from.
    pub broker: String,
    /// The name of the subscription that won.
    pub subscription: String,
    /// The topic that it was published to.
    pub topic: String,
    /// The application payload: any bytes, also none.
    pub payload: Vec<u8>,
    /// As received on the wire: never [`Qos::ExactlyOnce`].
    pub qos: Qos,
    /// A retained message that the broker replayed to a new subscription. A live message has `false` here, also when it was
    /// published with the retain flag (MQTT 5 §3.3.1.3).
    pub retain: bool,
    /// The broker may have sent it before.
    pub dup: bool,
    /// When the daemon received it.
    pub received: SystemTime,
    /// Which try of this message it is, from 1. It begins at 1 again when the broker sends the message again, after a lost connection
    /// or a restart.
    pub attempt: u32,
    /// What the subscription's wildcards matched, in order: a level for each `+`, and one entry for all that `#` matched,
    /// empty for the parent level itself.
    pub captures: Vec<String>,
    /// MQTT 5 properties; a 3.1.1 session has none.
    pub properties: Option<Properties>,
}

impl Message {
    /// The payload, read as JSON.
    ///
    /// # Errors
    /// A rejection where it is not JSON, or JSON of another shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.payload).map_err(|error| reject(format!("unexpected payload: {error}")))
    }

    /// The payload as text.
    ///
    /// # Errors
    /// A rejection where it is not UTF-8.
    pub fn text(&self) -> Result<&str> {
        str::from_utf8(&self.payload).map_err(|error| reject(format!("unexpected payload: {error}")))
    }

    /// A copy for another topic: payload, QoS, retain and properties stay as they are.
    pub fn copy_to(&self, topic: impl Into<String>) -> Outgoing {
        Outgoing {
            topic: topic.into(),
            payload: self.payload.clone(),
            qos: self.qos,
            retain: self.retain,
            broker: None,
            properties: self.properties.clone(),
        }
    }
}

/// A message to [`publish`](crate::publish).
///
/// ```
/// use tidegate_sdk::{Outgoing, Qos};
///
/// let state = Outgoing::new("plant/state", "on").qos(Qos::AtLeastOnce).retain(true);
/// assert_eq!(state.payload, b"on");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "a message leaves only through `publish`"]
pub struct Outgoing {
    /// The topic name to publish to.
    pub topic: String,
    /// The application payload.
    pub payload: Vec<u8>,
    /// QoS 0 unless set.
    pub qos: Qos,
    /// The broker keeps it for later subscribers.
    pub retain: bool,
    /// The name of a configured broker; `None` is the one that the handled message came from.
    pub broker: Option<String>,
    /// Sent where the target broker's session speaks MQTT 5.
    pub properties: Option<Properties>,
}

impl Outgoing {
    /// A message with this payload: QoS 0, not retained, to the broker that the handled message came from.
    pub fn new(topic: impl Into<String>, payload: impl Into<Vec<u8>>) -> Outgoing {
        Outgoing {
            topic: topic.into(),
            payload: payload.into(),
            qos: Qos::AtMostOnce,
            retain: false,
            broker: None,
            properties: None,
        }
    }

    /// A message with this value as its JSON payload.
    ///
    /// # Errors
    /// A rejection where the value has no JSON form, as a map whose keys are not strings.
    pub fn json(topic: impl Into<String>, value: &impl Serialize) -> Result<Outgoing> {
        Ok(Outgoing::new(topic, serde_json::to_vec(value).map_err(Error::from)?))
    }

    /// With this quality of service.
    pub fn qos(self, qos: Qos) -> Outgoing {
        Outgoing { qos, ..self }
    }

    /// Kept by the broker for later subscribers, or not.
    pub fn retain(self, retain: bool) -> Outgoing {
        Outgoing { retain, ..self }
    }

    /// To the configured broker with this name.
    pub fn to_broker(self, broker: impl Into<String>) -> Outgoing {
        Outgoing { broker: Some(broker.into()), ..self }
    }

    /// With these MQTT 5 properties.
    pub fn properties(self, properties: Properties) -> Outgoing {
        Outgoing { properties: Some(properties), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::message;

    #[track_caller]
    fn check(payload: impl Into<Vec<u8>>, expected: Result<Vec<u32>, &str>) {
        let read = message("t", payload).json::<Vec<u32>>();
        assert_eq!(read, expected.map_err(|reason| reject(format!("unexpected payload: {reason}"))));
    }

    #[test]
    fn json_of_another_shape_is_a_rejection_that_says_where() {
        check("[1, 2]", Ok(vec![1, 2]));
        check("", Err("EOF while parsing a value at line 1 column 0"));
        check("[1, -2]", Err("invalid value: integer `-2`, expected u32 at line 1 column 6"));
        check([0xff], Err("expected value at line 1 column 1"));
    }

    #[test]
    fn a_copy_keeps_all_but_the_topic() {
        let mut original = message("a", "x");
        original.qos = Qos::AtLeastOnce;
        original.retain = true;
        original.properties = Some(Properties { content_type: Some("text/plain".into()), ..Properties::default() });
        let expected = Outgoing::new("b", "x").qos(Qos::AtLeastOnce).retain(true);
        let properties = original.properties.clone().expect("set above");
        assert_eq!(original.copy_to("b"), expected.properties(properties));
    }
}
