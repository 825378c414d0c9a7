//! A kept message and the bytes that stand for it on the disk.
//!
//! Pure: no clock, no lock, no I/O. A body is a version, a header in postcard, and the payload as the rest. Everything by name:
//! numbers of brokers mean nothing in the next process. It does not decide what is kept, nor where.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::control::config::model::Subscription;
use crate::message::{BrokerId, Message, Outgoing, Properties, Qos};
use crate::path::dead_letter::{self, Reason};
use crate::topic::{TopicFilter, TopicName};

/// What the first byte of a body says.
const VERSION: u8 = 1;

/// Something that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A message that waits until its handler is called again.
    Parked(KeptMessage),
    /// A message that failed for good.
    DeadLetter(KeptMessage, Failure),
    /// A publish that its broker never took, of a call whose message is acknowledged.
    Publish(KeptPublish, Failure),
}

/// A message that was given to a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptMessage {
    /// The handler that it is for.
    pub handler: Arc<str>,
    /// The subscription that led it there.
    pub subscription: Arc<str>,
    /// What that was subscribed to: captures are taken from it.
    pub filter: TopicFilter,
    /// The broker that it came from.
    pub broker: Arc<str>,
    /// The topic that it was published to.
    pub topic: TopicName,
    /// The application payload.
    pub payload: Bytes,
    /// As received on the wire.
    pub qos: Qos,
    /// A retained message that the broker replayed.
    pub retain: bool,
    /// The broker said that it may have sent it before.
    pub dup: bool,
    /// When it came, to the nanosecond, since 1970.
    pub received: SystemTime,
    /// As received.
    pub properties: Option<Box<Properties>>,
    /// Calls that it came from.
    pub hops: u8,
}

/// A publish that was safe on the disk, and that its broker does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPublish {
    /// Whose call made it; none where no handler did.
    pub handler: Option<Arc<str>>,
    /// The broker that it is for.
    pub broker: Arc<str>,
    /// What is to be published.
    pub message: Outgoing,
}

/// How it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why it is here.
    pub reason: Reason,
    /// What went wrong, in plain words of bounded length, and why it was given up.
    pub error: String,
    /// Calls that were made for it; 0 of a publish.
    pub attempts: u32,
    /// When it was given up, to the nanosecond, since 1970.
    pub time: SystemTime,
}

/// Why a body is no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a newer tidegate.
    #[error("it is written in version {0} of the format, which this tidegate does not know; use the one that wrote it")]
    Version(u8),
    /// The bytes are not what was written.
    #[error("its bytes are damaged ({0}); clear it")]
    Damaged(&'static str),
}

/// All but the payload. Fields and variants are only ever added behind the last one, with another version.
#[derive(Serialize, Deserialize)]
enum Header<'a> {
    Parked(#[serde(borrow)] MessageHeader<'a>),
    DeadLetter(#[serde(borrow)] MessageHeader<'a>, #[serde(borrow)] FailureHeader<'a>),
    Publish(#[serde(borrow)] PublishHeader<'a>, #[serde(borrow)] FailureHeader<'a>),
}

#[derive(Serialize, Deserialize)]
struct MessageHeader<'a> {
    handler: &'a str,
    subscription: &'a str,
    filter: &'a str,
    broker: &'a str,
    topic: &'a str,
    qos: u8,
    retain: bool,
    dup: bool,
    received: u64,
    #[serde(borrow)]
    properties: Option<PropertiesHeader<'a>>,
    hops: u8,
}

#[derive(Serialize, Deserialize)]
struct PublishHeader<'a> {
    handler: Option<&'a str>,
    broker: &'a str,
    topic: &'a str,
    qos: u8,
    retain: bool,
    #[serde(borrow)]
    properties: Option<PropertiesHeader<'a>>,
    hops: Option<u8>,
}

#[derive(Serialize, Deserialize)]
struct PropertiesHeader<'a> {
    content_type: Option<&'a str>,
    response_topic: Option<&'a str>,
    correlation_data: Option<&'a [u8]>,
    message_expiry: Option<u32>,
    utf8_payload: bool,
    #[serde(borrow)]
    user: Vec<(&'a str, &'a str)>,
}

#[derive(Serialize, Deserialize)]
struct FailureHeader<'a> {
    reason: &'a str,
    error: &'a str,
    attempts: u32,
    time: u64,
}

impl Record {
    /// The body of its row.
    pub fn encode(&self) -> Vec<u8> {
        let (header, payload) = match self {
            Record::Parked(message) => (Header::Parked(message.header()), &message.payload),
            Record::DeadLetter(message, failure) => {
                (Header::DeadLetter(message.header(), failure.header()), &message.payload)
            }
            Record::Publish(publish, failure) => {
                (Header::Publish(publish.header(), failure.header()), &publish.message.payload)
            }
        };
        let mut body =
            postcard::to_extend(&header, vec![VERSION]).expect("a header is texts and numbers, and memory grows");
        body.extend_from_slice(payload);
        body
    }

    /// The record of a row's body.
    ///
    /// # Errors
    /// It is none, or one of another version.
    pub fn decode(body: &[u8]) -> Result<Record, RecordError> {
        let (version, rest) = body.split_first().ok_or(RecordError::Damaged("there are none"))?;
        if *version != VERSION {
            return Err(RecordError::Version(*version));
        }
        let damaged = |_| RecordError::Damaged("the header cannot be read");
        let (header, payload) = postcard::take_from_bytes(rest).map_err(damaged)?;
        match header {
            Header::Parked(message) => Ok(Record::Parked(message.read(payload)?)),
            Header::DeadLetter(message, failure) => Ok(Record::DeadLetter(message.read(payload)?, failure.read()?)),
            Header::Publish(publish, failure) => Ok(Record::Publish(publish.read(payload)?, failure.read()?)),
        }
    }

    /// The handler that it is for, or whose call made it.
    pub fn handler(&self) -> Option<&Arc<str>> {
        match self {
            Record::Parked(message) | Record::DeadLetter(message, _) => Some(&message.handler),
            Record::Publish(publish, _) => publish.handler.as_ref(),
        }
    }
}

impl KeptMessage {
    /// Of a message from the broker of this name, for this handler.
    pub fn of(message: &Message, broker: Arc<str>, handler: Arc<str>, subscription: &Subscription) -> KeptMessage {
        KeptMessage {
            handler,
            subscription: Arc::clone(&subscription.name),
            filter: subscription.topic.clone(),
            broker,
            topic: message.topic.clone(),
            payload: message.payload.clone(),
            qos: message.qos,
            retain: message.retain,
            dup: message.dup,
            received: message.received,
            properties: message.properties.clone(),
            hops: message.hops,
        }
    }

    /// The message, to be handled again, and the subscription as it was: it only names what the message came by. `broker` is
    /// the number that its name has now; `now` is from when on durations are counted.
    pub fn revive(&self, broker: BrokerId, now: std::time::Instant) -> (Message, Subscription) {
        let message = Message {
            broker,
            topic: self.topic.clone(),
            payload: self.payload.clone(),
            qos: self.qos,
            retain: self.retain,
            dup: self.dup,
            received: self.received,
            arrived: now,
            properties: self.properties.clone(),
            hops: self.hops,
        };
        let subscription = Subscription {
            name: Arc::clone(&self.subscription),
            broker,
            topic: self.filter.clone(),
            qos: self.qos,
            on_message: None,
            when: None,
            silence: None,
        };
        (message, subscription)
    }

    fn header(&self) -> MessageHeader<'_> {
        MessageHeader {
            handler: &self.handler,
            subscription: &self.subscription,
            filter: self.filter.as_str(),
            broker: &self.broker,
            topic: self.topic.as_str(),
            qos: self.qos.number(),
            retain: self.retain,
            dup: self.dup,
            received: nanoseconds(self.received),
            properties: self.properties.as_deref().map(properties_header),
            hops: self.hops,
        }
    }
}

impl KeptPublish {
    fn header(&self) -> PublishHeader<'_> {
        let message = &self.message;
        PublishHeader {
            handler: self.handler.as_deref(),
            broker: &self.broker,
            topic: message.topic.as_str(),
            qos: message.qos.number(),
            retain: message.retain,
            properties: message.properties.as_deref().map(properties_header),
            hops: message.hops,
        }
    }
}

impl Failure {
    /// Of a publish that this broker refuses, with these words, or without that it ends each connection over.
    pub fn of_publish(broker: &str, message: &Outgoing, refusal: Option<&str>, time: SystemTime) -> Failure {
        let (reason, error) = dead_letter::not_taken(broker, message, refusal);
        Failure { reason, error, attempts: 0, time }
    }

    fn header(&self) -> FailureHeader<'_> {
        FailureHeader {
            reason: self.reason.label(),
            error: &self.error,
            attempts: self.attempts,
            time: nanoseconds(self.time),
        }
    }
}

impl MessageHeader<'_> {
    fn read(self, payload: &[u8]) -> Result<KeptMessage, RecordError> {
        Ok(KeptMessage {
            handler: self.handler.into(),
            subscription: self.subscription.into(),
            filter: TopicFilter::new(self.filter).map_err(|_| RecordError::Damaged("the filter is none"))?,
            broker: self.broker.into(),
            topic: topic(self.topic)?,
            payload: Bytes::copy_from_slice(payload),
            qos: qos(self.qos)?,
            retain: self.retain,
            dup: self.dup,
            received: since_1970(self.received),
            properties: self.properties.map(PropertiesHeader::read),
            hops: self.hops,
        })
    }
}

impl PublishHeader<'_> {
    fn read(self, payload: &[u8]) -> Result<KeptPublish, RecordError> {
        let message = Outgoing {
            topic: topic(self.topic)?,
            payload: Bytes::copy_from_slice(payload),
            qos: qos(self.qos)?,
            retain: self.retain,
            properties: self.properties.map(PropertiesHeader::read),
            hops: self.hops,
        };
        Ok(KeptPublish { handler: self.handler.map(Arc::from), broker: self.broker.into(), message })
    }
}

impl FailureHeader<'_> {
    fn read(self) -> Result<Failure, RecordError> {
        let reason = Reason::ALL.into_iter().find(|reason| reason.label() == self.reason);
        Ok(Failure {
            reason: reason.ok_or(RecordError::Damaged("the reason is none"))?,
            error: self.error.to_owned(),
            attempts: self.attempts,
            time: since_1970(self.time),
        })
    }
}

impl PropertiesHeader<'_> {
    fn read(self) -> Box<Properties> {
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        Box::new(Properties {
            content_type: self.content_type.map(str::to_owned),
            response_topic: self.response_topic.map(str::to_owned),
            correlation_data: self.correlation_data.map(Bytes::copy_from_slice),
            message_expiry: self.message_expiry,
            utf8_payload: self.utf8_payload,
            user: self.user.into_iter().map(owned).collect(),
        })
    }
}

fn properties_header(properties: &Properties) -> PropertiesHeader<'_> {
    PropertiesHeader {
        content_type: properties.content_type.as_deref(),
        response_topic: properties.response_topic.as_deref(),
        correlation_data: properties.correlation_data.as_deref(),
        message_expiry: properties.message_expiry,
        utf8_payload: properties.utf8_payload,
        user: properties.user.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
    }
}

fn topic(text: &str) -> Result<TopicName, RecordError> {
    TopicName::new(text).map_err(|_| RecordError::Damaged("the topic is none"))
}

fn qos(number: u8) -> Result<Qos, RecordError> {
    Qos::from_number(number).ok_or(RecordError::Damaged("the QoS is none"))
}

/// Since 1970; a clock that stood before it counts as that.
fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn since_1970(nanoseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..64).prop_map(Bytes::from)
    }

    fn properties() -> impl Strategy<Value = Properties> {
        let text = || option::of(".{0,20}");
        let user = vec((".{0,9}", ".{0,9}"), 0..4);
        (text(), text(), option::of(bytes()), option::of(any::<u32>()), any::<bool>(), user).prop_map(
            |(content_type, response_topic, correlation_data, message_expiry, utf8_payload, user)| Properties {
                content_type,
                response_topic,
                correlation_data,
                message_expiry,
                utf8_payload,
                user,
            },
        )
    }

    fn time() -> impl Strategy<Value = SystemTime> {
        any::<u64>().prop_map(since_1970)
    }

    fn name() -> impl Strategy<Value = TopicName> {
        "[a-zü/]{1,20}".prop_map(|text| TopicName::new(text).expect("is a name"))
    }

    fn qos_of_any() -> impl Strategy<Value = Qos> {
        proptest::sample::select(Qos::ALL.to_vec())
    }

    fn message() -> impl Strategy<Value = KeptMessage> {
        let names = ("[a-z]{1,9}", ".{1,9}", prop_oneof!["[a-z]{1,9}/#", "[$]share/g/[+]/[a-z]"], "[a-z]{1,9}");
        let flags = (qos_of_any(), any::<bool>(), any::<bool>(), any::<u8>());
        (names, name(), bytes(), flags, time(), option::of(properties())).prop_map(
            |(
                (handler, subscription, filter, broker),
                topic,
                payload,
                (qos, retain, dup, hops),
                received,
                properties,
            )| {
                KeptMessage {
                    handler: handler.into(),
                    subscription: subscription.into(),
                    filter: TopicFilter::new(filter).expect("is a filter"),
                    broker: broker.into(),
                    topic,
                    payload,
                    qos,
                    retain,
                    dup,
                    received,
                    properties: properties.map(Box::new),
                    hops,
                }
            },
        )
    }

    fn failure() -> impl Strategy<Value = Failure> {
        let reason = proptest::sample::select(Reason::ALL.to_vec());
        (reason, ".{0,40}", any::<u32>(), time()).prop_map(|(reason, error, attempts, time)| Failure {
            reason,
            error,
            attempts,
            time,
        })
    }

    fn publish() -> impl Strategy<Value = KeptPublish> {
        let flags = (qos_of_any(), any::<bool>(), option::of(any::<u8>()));
        (option::of("[a-z]{1,9}"), "[a-z]{1,9}", name(), bytes(), flags, option::of(properties())).prop_map(
            |(handler, broker, topic, payload, (qos, retain, hops), properties)| KeptPublish {
                handler: handler.map(Arc::from),
                broker: broker.into(),
                message: Outgoing { topic, payload, qos, retain, properties: properties.map(Box::new), hops },
            },
        )
    }

    fn record() -> impl Strategy<Value = Record> {
        prop_oneof![
            message().prop_map(Record::Parked),
            (message(), failure()).prop_map(|(message, failure)| Record::DeadLetter(message, failure)),
            (publish(), failure()).prop_map(|(publish, failure)| Record::Publish(publish, failure)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(record in record()) {
            prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(&bytes);
            let _ = Record::decode(&[&[VERSION], &bytes[..]].concat());
        }

        #[test]
        fn one_that_is_cut_in_its_header_is_an_error(record in record(), at in any::<prop::sample::Index>()) {
            let body = record.encode();
            let payload = match &record {
                Record::Parked(message) | Record::DeadLetter(message, _) => message.payload.len(),
                Record::Publish(publish, _) => publish.message.payload.len(),
            };
            prop_assert!(Record::decode(&body[..at.index(body.len() - payload)]).is_err());
        }

        #[test]
        fn a_message_comes_back_as_it_was(kept in message()) {
            let now = std::time::Instant::now();
            let (message, subscription) = kept.revive(BrokerId(7), now);
            prop_assert_eq!((message.broker, message.arrived, subscription.broker), (BrokerId(7), now, BrokerId(7)));
            let again = KeptMessage::of(&message, Arc::clone(&kept.broker), Arc::clone(&kept.handler), &subscription);
            prop_assert_eq!(again, kept);
        }
    }

    #[test]
    fn one_of_another_version_says_so() {
        let expected =
            "it is written in version 9 of the format, which this tidegate does not know; use the one that wrote it";
        assert_eq!(Record::decode(&[9, 1, 2]).expect_err("is none").to_string(), expected);
        assert_eq!(Record::decode(&[]), Err(RecordError::Damaged("there are none")));
    }
}
