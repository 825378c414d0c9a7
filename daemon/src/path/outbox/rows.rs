//! How a publish stands on the disk: a version, a header, the payload.
//!
//! Pure. Used by `journal.rs` for writing and `loader.rs` for reading. The header is postcard's form of [`Header`]; another
//! version of it gets another first byte, and this one stays readable.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::queue::{EntryId, Stored};
use crate::message::{Outgoing, Properties, Qos};
use crate::store::{Found, Place, Row, Table, number};
use crate::topic::TopicName;

/// The first byte of every row.
const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    qos: u8,
    retain: bool,
    hops: Option<u8>,
    /// When it came in, in milliseconds since 1970.
    came: u64,
    #[serde(borrow)]
    handler: Option<Cow<'a, str>>,
    #[serde(borrow)]
    properties: Option<Box<Written<'a>>>,
}

/// [`Properties`] as they are written.
#[derive(Serialize, Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    content_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    response_topic: Option<Cow<'a, str>>,
    #[serde(borrow)]
    correlation_data: Option<Cow<'a, [u8]>>,
    message_expiry: Option<u32>,
    utf8_payload: bool,
    #[serde(borrow)]
    user: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// Two clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For durations.
    pub monotonic: Instant,
    /// For what outlives the process.
    pub wall: SystemTime,
}

impl Now {
    /// This moment.
    pub fn read() -> Now {
        Now { monotonic: Instant::now(), wall: SystemTime::now() }
    }
}

/// Why a row cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The first byte is another one.
    #[error("it was written by a version of the daemon that this one does not know")]
    Version,
    /// The rest is no publish.
    #[error("it is damaged")]
    Damaged,
}

/// Where a publish stands.
pub fn place(broker: &Arc<str>, entry: EntryId) -> Place {
    Place::numbered(Table::Outbox, Arc::clone(broker), entry.0)
}

/// A publish as it is written.
///
/// # Panics
/// Never: what postcard writes into memory has no way to fail.
pub fn row(broker: &Arc<str>, stored: &Stored, now: Now) -> Row {
    let Stored { id, message, handler, since } = stored;
    let age = now.monotonic.saturating_duration_since(*since);
    let came = now.wall.checked_sub(age).and_then(|came| came.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let header = Header {
        topic: message.topic.as_str().into(),
        qos: message.qos.number(),
        retain: message.retain,
        hops: message.hops,
        came: u64::try_from(came.as_millis()).unwrap_or(u64::MAX),
        handler: handler.as_deref().map(Cow::Borrowed),
        properties: message.properties.as_deref().map(|properties| Box::new(written(properties))),
    };
    let mut body = postcard::to_extend(&header, vec![VERSION]).expect("a vector takes everything");
    body.extend_from_slice(&message.payload);
    Row::Put { at: place(broker, *id), weight: u32::try_from(message.weight()).unwrap_or(u32::MAX), body }
}

fn written(properties: &Properties) -> Written<'_> {
    Written {
        content_type: properties.content_type.as_deref().map(Cow::Borrowed),
        response_topic: properties.response_topic.as_deref().map(Cow::Borrowed),
        correlation_data: properties.correlation_data.as_deref().map(Cow::Borrowed),
        message_expiry: properties.message_expiry,
        utf8_payload: properties.utf8_payload,
        user: properties.user.iter().map(|(key, value)| (key.into(), value.into())).collect(),
    }
}

/// A publish that was read. It is as old as the wall clock says; one that came in the future has just come.
///
/// # Errors
/// The row is none of ours.
pub fn read(found: &Found, now: Now) -> Result<Stored, RowError> {
    let id = EntryId(number(&found.key).ok_or(RowError::Damaged)?);
    let (version, rest) = found.body.split_first().ok_or(RowError::Damaged)?;
    if *version != VERSION {
        return Err(RowError::Version);
    }
    let (header, payload): (Header<'_>, &[u8]) = postcard::take_from_bytes(rest).map_err(|_| RowError::Damaged)?;
    let came = UNIX_EPOCH.checked_add(Duration::from_millis(header.came)).unwrap_or(now.wall);
    let age = now.wall.duration_since(came).unwrap_or_default();
    let message = Outgoing {
        topic: TopicName::new(&*header.topic).map_err(|_| RowError::Damaged)?,
        payload: Bytes::copy_from_slice(payload),
        qos: Qos::from_number(header.qos).ok_or(RowError::Damaged)?,
        retain: header.retain,
        properties: header.properties.map(|properties| Box::new(owned(*properties))),
        hops: header.hops,
    };
    let handler = header.handler.map(Arc::from);
    // Where the monotonic clock began later than that, the age is not known as exactly.
    let since = now.monotonic.checked_sub(age).unwrap_or(now.monotonic);
    Ok(Stored { id, message: Arc::new(message), handler, since })
}

fn owned(written: Written<'_>) -> Properties {
    Properties {
        content_type: written.content_type.map(Cow::into_owned),
        response_topic: written.response_topic.map(Cow::into_owned),
        correlation_data: written.correlation_data.map(|data| Bytes::from(data.into_owned())),
        message_expiry: written.message_expiry,
        utf8_payload: written.utf8_payload,
        user: written.user.into_iter().map(|(key, value)| (key.into_owned(), value.into_owned())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn properties() -> impl Strategy<Value = Properties> {
        let text = || prop::option::of(".{0,8}");
        let data = prop::option::of(prop::collection::vec(any::<u8>(), 0..8));
        let user = prop::collection::vec((".{0,4}", ".{0,4}"), 0..3);
        (text(), text(), data, any::<Option<u32>>(), any::<bool>(), user).prop_map(
            |(content_type, response_topic, data, message_expiry, utf8_payload, user)| Properties {
                content_type,
                response_topic,
                correlation_data: data.map(Bytes::from),
                message_expiry,
                utf8_payload,
                user,
            },
        )
    }

    fn message() -> impl Strategy<Value = Outgoing> {
        let payload = prop::collection::vec(any::<u8>(), 0..64);
        let properties = prop::option::of(properties());
        ("[a-z/ü]{1,9}", payload, 0_u8..3, any::<bool>(), properties, any::<Option<u8>>()).prop_map(
            |(topic, payload, qos, retain, properties, hops)| Outgoing {
                topic: TopicName::new(topic).expect("valid"),
                payload: payload.into(),
                qos: Qos::from_number(qos).expect("valid"),
                retain,
                properties: properties.map(Box::new),
                hops,
            },
        )
    }

    fn found(row: &Row) -> Found {
        let Row::Put { at, weight, body } = row else { panic!("it is written") };
        Found { key: at.key.clone(), weight: *weight, body: body.clone() }
    }

    fn stored(message: Outgoing, now: Now) -> Stored {
        Stored { id: EntryId(7), message: Arc::new(message), handler: Some("h".into()), since: now.monotonic }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(message in message(), handler in prop::option::of("[a-z]{1,5}"), age in 0_u64..10_000) {
            let now = Now::read();
            let since = now.monotonic - Duration::from_millis(age);
            let handler: Option<Arc<str>> = handler.map(Into::into);
            let stored = Stored { handler: handler.clone(), since, ..stored(message, now) };
            let row = row(&"plant".into(), &stored, now);
            let back = read(&found(&row), now).expect("is readable");
            prop_assert_eq!((back.id, &back.message, &back.handler), (stored.id, &stored.message, &handler));
            let error = back.since.max(since) - back.since.min(since);
            prop_assert!(error <= Duration::from_millis(1), "{:?}", error);
        }

        #[test]
        fn what_is_no_publish_is_not_read_and_harms_nothing(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let found = Found { key: Box::new(7_u64.to_be_bytes()), weight: 0, body: bytes };
            _ = read(&found, Now::read());
        }
    }

    /// The first version, as it stands in files that exist.
    #[test]
    fn version_1_stays_as_it_is() {
        let message = Outgoing {
            topic: TopicName::new("a/b").expect("valid"),
            payload: Bytes::from_static(b"xy"),
            qos: Qos::AtLeastOnce,
            retain: true,
            properties: None,
            hops: Some(3),
        };
        let now = Now { monotonic: Instant::now(), wall: UNIX_EPOCH + Duration::from_millis(300) };
        let row = row(&"plant".into(), &stored(message, now), now);
        let body = b"\x01\x03a/b\x01\x01\x01\x03\xac\x02\x01\x01h\x00xy";
        assert_eq!(found(&row).body, body);
        assert_eq!(row.clone(), Row::Put { at: place(&"plant".into(), EntryId(7)), weight: 5, body: body.to_vec() });
    }

    #[test]
    fn a_row_that_is_another_versions_is_told_from_one_that_is_damaged() {
        let check = |body: &[u8], expected| {
            let found = Found { key: Box::new(7_u64.to_be_bytes()), weight: 0, body: body.to_vec() };
            assert_eq!(read(&found, Now::read()).err(), Some(expected));
        };
        check(b"", RowError::Damaged);
        check(b"\x02abc", RowError::Version);
        check(b"\x01\x03a/#\x01\x01\x01\x03\xac\x02\x01\x01h\x00xy", RowError::Damaged);
    }

    /// A clock that was set back since, and one that stood far ahead.
    #[test]
    fn what_came_in_the_future_has_just_come_and_what_came_before_the_machine_ran_is_old_or_new() {
        let message = Outgoing {
            topic: TopicName::new("a").expect("valid"),
            payload: Bytes::new(),
            qos: Qos::AtMostOnce,
            retain: false,
            properties: None,
            hops: None,
        };
        let now = Now::read();
        let row = row(&"plant".into(), &stored(message, now), now);
        let read_at = |wall: SystemTime| read(&found(&row), Now { wall, ..now }).expect("is readable").since;
        assert_eq!(read_at(UNIX_EPOCH), now.monotonic);
        assert!(read_at(now.wall + Duration::from_secs(1 << 40)) <= now.monotonic);
    }
}
