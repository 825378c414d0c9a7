//! A message as the scenarios see it, in both directions.

use std::fmt;

/// The properties of a protocol 5 message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// Payload format indicator 1.
    pub utf8_payload: bool,
    /// Seconds.
    pub message_expiry: Option<u32>,
    /// MIME type.
    pub content_type: Option<String>,
    /// Where an answer is expected.
    pub response_topic: Option<String>,
    /// For the asker.
    pub correlation_data: Option<Vec<u8>>,
    /// In order.
    pub user: Vec<(String, String)>,
}

/// A message that was received, or is to be published.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic name.
    pub topic: String,
    /// Application payload.
    pub payload: Vec<u8>,
    /// 0, 1 or 2.
    pub qos: u8,
    /// The retain flag.
    pub retain: bool,
    /// Of protocol 5; empty on 3.1.1.
    pub properties: Properties,
}

impl Message {
    /// A message with QoS 1.
    pub fn new(topic: impl Into<String>, payload: impl Into<Vec<u8>>) -> Message {
        let (topic, payload) = (topic.into(), payload.into());
        Message { topic, payload, qos: 1, retain: false, properties: Properties::default() }
    }

    /// The same with this quality of service.
    pub fn qos(self, qos: u8) -> Message {
        Message { qos, ..self }
    }

    /// The same with the retain flag.
    pub fn retained(self) -> Message {
        Message { retain: true, ..self }
    }

    /// The same with these properties.
    pub fn with(self, properties: Properties) -> Message {
        Message { properties, ..self }
    }

    /// The payload as text.
    ///
    /// # Panics
    /// It is not UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("the payload is text")
    }

    /// The payload as JSON.
    ///
    /// # Panics
    /// It is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.payload).unwrap_or_else(|error| panic!("{self:?} is not JSON: {error}"))
    }
}

impl fmt::Debug for Message {
    /// The beginning of the payload, as text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = String::from_utf8_lossy(&self.payload[..self.payload.len().min(80)]);
        write!(f, "{} {head:?} ({} bytes, qos {}", self.topic, self.payload.len(), self.qos)?;
        if self.retain {
            f.write_str(", retained")?;
        }
        if self.properties != Properties::default() {
            write!(f, ", {:?}", self.properties)?;
        }
        f.write_str(")")
    }
}
