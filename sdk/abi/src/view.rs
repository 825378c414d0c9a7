//! Messages and the like as safe borrowed values, whole: every pointer in them is checked, every text read.
//!
//! Used by whoever gets them: plugins read messages, the daemon reads publishes. It copies nothing; the receiver does.

use crate::read::{Fault, read, slice};
use crate::{Bytes, Message, Outgoing, Pair, Properties, Readings, Run};

/// A [`Message`].
#[derive(Clone, Debug)]
pub struct MessageView<'a> {
    /// See [`Message::broker`].
    pub broker: &'a str,
    /// See [`Message::subscription`].
    pub subscription: &'a str,
    /// See [`Message::topic`].
    pub topic: &'a str,
    /// See [`Message::payload`].
    pub payload: &'a [u8],
    /// See [`Message::qos`].
    pub qos: u8,
    /// See [`Message::retain`].
    pub retain: bool,
    /// See [`Message::dup`].
    pub dup: bool,
    /// See [`Message::received`].
    pub received: u64,
    /// See [`Message::attempt`].
    pub attempt: u32,
    /// See [`Message::captures`].
    pub captures: Texts<'a>,
    /// See [`Message::properties`].
    pub properties: Option<PropertiesView<'a>>,
}

impl<'a> MessageView<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// A pointer in it cannot be what it should, or a text is not UTF-8.
    ///
    /// # Safety
    /// As of [`read`] and [`slice()`], for the message and all that it points to.
    pub unsafe fn of(from: *const Message) -> Result<MessageView<'a>, Fault> {
        // SAFETY: as asked of the caller.
        let message = unsafe { read(from) }?;
        Ok(MessageView {
            // SAFETY: as asked of the caller.
            broker: unsafe { message.broker.text() }?,
            // SAFETY: as asked of the caller.
            subscription: unsafe { message.subscription.text() }?,
            // SAFETY: as asked of the caller.
            topic: unsafe { message.topic.text() }?,
            // SAFETY: as asked of the caller.
            payload: unsafe { message.payload.get() }?,
            qos: message.qos,
            retain: message.retain != 0,
            dup: message.dup != 0,
            received: message.received,
            attempt: message.attempt,
            // SAFETY: as asked of the caller.
            captures: unsafe { Texts::of(message.captures, message.capture_count) }?,
            // SAFETY: as asked of the caller.
            properties: unsafe { PropertiesView::or_null(message.properties) }?,
        })
    }
}

/// An [`Outgoing`].
#[derive(Clone, Debug)]
pub struct OutgoingView<'a> {
    /// See [`Outgoing::topic`].
    pub topic: &'a str,
    /// See [`Outgoing::payload`].
    pub payload: &'a [u8],
    /// See [`Outgoing::qos`]. Not checked.
    pub qos: u8,
    /// See [`Outgoing::retain`].
    pub retain: bool,
    /// See [`Outgoing::broker`].
    pub broker: Option<&'a str>,
    /// See [`Outgoing::properties`].
    pub properties: Option<PropertiesView<'a>>,
}

impl<'a> OutgoingView<'a> {
    /// Reads a publish.
    ///
    /// # Errors
    /// As [`MessageView::of`]; or what is reserved is not zero, so that a plugin cannot be in the way of what it is reserved for.
    ///
    /// # Safety
    /// As of [`MessageView::of`].
    pub unsafe fn of(from: *const Outgoing) -> Result<OutgoingView<'a>, Fault> {
        // SAFETY: as asked of the caller.
        let outgoing = unsafe { read(from) }?;
        if outgoing.reserved != [0; 2] {
            return Err(Fault::Reserved);
        }
        Ok(OutgoingView {
            // SAFETY: as asked of the caller.
            topic: unsafe { outgoing.topic.text() }?,
            // SAFETY: as asked of the caller.
            payload: unsafe { outgoing.payload.get() }?,
            qos: outgoing.qos,
            retain: outgoing.retain != 0,
            // SAFETY: as asked of the caller.
            broker: unsafe { outgoing.broker.text_or_absent() }?,
            // SAFETY: as asked of the caller.
            properties: unsafe { PropertiesView::to_send(outgoing.properties) }?,
        })
    }
}

/// A [`Properties`].
#[derive(Clone, Debug)]
pub struct PropertiesView<'a> {
    /// See [`Properties::content_type`].
    pub content_type: Option<&'a str>,
    /// See [`Properties::response_topic`].
    pub response_topic: Option<&'a str>,
    /// See [`Properties::correlation_data`].
    pub correlation_data: Option<&'a [u8]>,
    /// See [`Properties::message_expiry`].
    pub message_expiry: Option<u32>,
    /// See [`Properties::utf8_payload`].
    pub utf8_payload: bool,
    /// See [`Properties::user`].
    pub user: Pairs<'a>,
}

impl<'a> PropertiesView<'a> {
    /// Reads properties, if there are any.
    ///
    /// # Errors
    /// As [`MessageView::of`].
    ///
    /// # Safety
    /// As of [`MessageView::of`], unless it is null.
    pub unsafe fn or_null(from: *const Properties) -> Result<Option<PropertiesView<'a>>, Fault> {
        if from.is_null() {
            return Ok(None);
        }
        // SAFETY: as asked of the caller.
        let properties = unsafe { read(from) }?;
        // SAFETY: as asked of the caller.
        unsafe { PropertiesView::of(&properties) }.map(Some)
    }

    /// As [`Self::or_null`], for properties that a plugin sets.
    ///
    /// # Errors
    /// As [`OutgoingView::of`].
    ///
    /// # Safety
    /// As of [`Self::or_null`].
    unsafe fn to_send(from: *const Properties) -> Result<Option<PropertiesView<'a>>, Fault> {
        if from.is_null() {
            return Ok(None);
        }
        // SAFETY: as asked of the caller.
        let properties = unsafe { read(from) }?;
        if properties.reserved != [0; 6] {
            return Err(Fault::Reserved);
        }
        // SAFETY: as asked of the caller.
        unsafe { PropertiesView::of(&properties) }.map(Some)
    }

    /// # Safety
    /// As of [`Bytes::get`] and [`slice()`], for all that they point to, for `'a`.
    unsafe fn of(properties: &Properties) -> Result<PropertiesView<'a>, Fault> {
        Ok(PropertiesView {
            // SAFETY: as asked of the caller.
            content_type: unsafe { properties.content_type.text_or_absent() }?,
            // SAFETY: as asked of the caller.
            response_topic: unsafe { properties.response_topic.text_or_absent() }?,
            // SAFETY: as asked of the caller.
            correlation_data: unsafe { properties.correlation_data.get_or_absent() }?,
            message_expiry: (properties.has_message_expiry != 0).then_some(properties.message_expiry),
            utf8_payload: properties.utf8_payload != 0,
            // SAFETY: as asked of the caller.
            user: unsafe { Pairs::of(properties.user, properties.user_count) }?,
        })
    }
}

/// A [`Run`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunView<'a> {
    /// See [`Run::trigger`]. Not checked.
    pub trigger: u32,
    /// See [`Run::due`].
    pub due: u64,
    /// See [`Run::name`].
    pub name: &'a str,
}

impl<'a> RunView<'a> {
    /// Reads a run.
    ///
    /// # Errors
    /// As [`MessageView::of`].
    ///
    /// # Safety
    /// As of [`MessageView::of`].
    pub unsafe fn of(from: *const Run) -> Result<RunView<'a>, Fault> {
        // SAFETY: as asked of the caller.
        let run = unsafe { read(from) }?;
        // SAFETY: as asked of the caller.
        let name = unsafe { run.name.text() }?;
        Ok(RunView { trigger: run.trigger, due: run.due, name })
    }
}

/// A [`Readings`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadingsView<'a> {
    /// See [`Readings::cpu_load`].
    pub cpu_load: u32,
    /// See [`Readings::used_memory`].
    pub used_memory: u64,
    /// See [`Readings::free_memory`].
    pub free_memory: u64,
    /// See [`Readings::uptime`].
    pub uptime: u64,
    /// See [`Readings::model`].
    pub model: &'a str,
    /// See [`Readings::serial_number`].
    pub serial_number: &'a str,
    /// See [`Readings::os_version`].
    pub os_version: &'a str,
}

impl<'a> ReadingsView<'a> {
    /// Reads readings.
    ///
    /// # Errors
    /// As [`MessageView::of`].
    ///
    /// # Safety
    /// As of [`MessageView::of`].
    pub unsafe fn of(from: *const Readings) -> Result<ReadingsView<'a>, Fault> {
        // SAFETY: as asked of the caller.
        let readings = unsafe { read(from) }?;
        Ok(ReadingsView {
            cpu_load: readings.cpu_load,
            used_memory: readings.used_memory,
            free_memory: readings.free_memory,
            uptime: readings.uptime,
            // SAFETY: as asked of the caller.
            model: unsafe { readings.model.text() }?,
            // SAFETY: as asked of the caller.
            serial_number: unsafe { readings.serial_number.text() }?,
            // SAFETY: as asked of the caller.
            os_version: unsafe { readings.os_version.text() }?,
        })
    }
}

/// An array of texts, each of which is read as it is asked for.
#[derive(Clone, Debug)]
pub struct Texts<'a>(core::slice::Iter<'a, Bytes>);

impl<'a> Texts<'a> {
    /// Reads an array.
    ///
    /// # Errors
    /// As [`slice()`].
    ///
    /// # Safety
    /// As of [`slice()`], for the array; as of [`Bytes::get`] for each element, all for `'a`.
    pub unsafe fn of(from: *const Bytes, count: usize) -> Result<Texts<'a>, Fault> {
        // SAFETY: as asked of the caller.
        unsafe { slice(from, count) }.map(|texts| Texts(texts.iter()))
    }
}

impl<'a> Iterator for Texts<'a> {
    type Item = Result<&'a str, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        // SAFETY: as asked of the one who made this.
        self.0.next().map(|text| unsafe { text.text() })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Texts<'_> {}

/// An array of pairs of texts, each of which is read as it is asked for.
#[derive(Clone, Debug)]
pub struct Pairs<'a>(core::slice::Iter<'a, Pair>);

impl<'a> Pairs<'a> {
    /// Reads an array.
    ///
    /// # Errors
    /// As [`slice()`].
    ///
    /// # Safety
    /// As of [`slice()`], for the array; as of [`Pair::texts`] for each element, all for `'a`.
    pub unsafe fn of(from: *const Pair, count: usize) -> Result<Pairs<'a>, Fault> {
        // SAFETY: as asked of the caller.
        unsafe { slice(from, count) }.map(|pairs| Pairs(pairs.iter()))
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Result<(&'a str, &'a str), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        // SAFETY: as asked of the one who made this.
        self.0.next().map(|pair| unsafe { pair.texts() })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Pairs<'_> {}

#[cfg(test)]
mod tests {
    extern crate alloc;

    use alloc::string::String;
    use alloc::vec::Vec;
    use core::ptr;

    use super::*;

    fn properties(user: &[Pair]) -> Properties {
        Properties {
            size: size_of::<Properties>() as u32,
            message_expiry: 30,
            has_message_expiry: 1,
            utf8_payload: 1,
            reserved: [0; 6],
            content_type: Bytes::of_text("text/plain"),
            response_topic: Bytes::ABSENT,
            correlation_data: Bytes::of(&[0, 1]),
            user: user.as_ptr(),
            user_count: user.len(),
        }
    }

    fn message(captures: &[Bytes], properties: *const Properties) -> Message {
        Message {
            size: size_of::<Message>() as u32,
            attempt: 2,
            received: 1_000,
            qos: 1,
            retain: 0,
            dup: 1,
            reserved: [0; 5],
            broker: Bytes::of_text("plant"),
            subscription: Bytes::of_text("readings"),
            topic: Bytes::of_text("a/b"),
            payload: Bytes::of(&[0xff, 0]),
            captures: captures.as_ptr(),
            capture_count: captures.len(),
            properties,
        }
    }

    #[test]
    fn a_message_is_seen_with_all_that_it_points_to() {
        // Owned by the heap: Miri then sees each read past its end.
        let key = String::from("room");
        let pairs = [Pair { key: Bytes::of_text(&key), value: Bytes::of_text("7") }];
        let properties = properties(&pairs);
        let captures = [Bytes::of_text("a"), Bytes::of_text("")];
        let message = message(&captures, &raw const properties);
        // SAFETY: all of it lives above.
        let view = unsafe { MessageView::of(&raw const message) }.expect("it is sound");
        assert_eq!(
            (view.broker, view.subscription, view.topic, view.payload),
            ("plant", "readings", "a/b", &[0xff, 0][..])
        );
        assert_eq!((view.qos, view.retain, view.dup, view.received, view.attempt), (1, false, true, 1_000, 2));
        assert_eq!(view.captures.len(), 2);
        assert_eq!(view.captures.collect::<Vec<_>>(), [Ok("a"), Ok("")]);
        let seen = view.properties.expect("there are some");
        assert_eq!((seen.content_type, seen.response_topic), (Some("text/plain"), None));
        assert_eq!(
            (seen.correlation_data, seen.message_expiry, seen.utf8_payload),
            (Some(&[0, 1][..]), Some(30), true)
        );
        assert_eq!(seen.user.collect::<Vec<_>>(), [Ok(("room", "7"))]);
    }

    #[test]
    fn a_message_may_have_neither_captures_nor_properties() {
        let bare = Message { capture_count: 0, captures: ptr::null(), ..message(&[], ptr::null()) };
        // SAFETY: all of it is static.
        let view = unsafe { MessageView::of(&raw const bare) }.expect("it is sound");
        assert!(view.properties.is_none() && view.captures.len() == 0);
    }

    #[test]
    fn a_fault_anywhere_in_a_message_is_found() {
        #[track_caller]
        fn check(change: impl FnOnce(&mut Message, &mut Properties), expected: Fault) {
            let mut properties = properties(&[]);
            let mut message = message(&[], ptr::null());
            change(&mut message, &mut properties);
            message.properties = &raw const properties;
            // SAFETY: what is not null lives above.
            assert_eq!(unsafe { MessageView::of(&raw const message) }.map(|_| ()), Err(expected));
        }
        let gone = Bytes { ptr: ptr::null(), len: 1 };
        check(|message, _| message.topic = Bytes::of(b"\xff"), Fault::NotUtf8 { valid: 0 });
        check(|message, _| message.payload = gone, Fault::Null);
        check(|message, _| (message.captures, message.capture_count) = (ptr::null(), 1), Fault::Null);
        check(|_, properties| properties.content_type = Bytes::of(b"a\xff"), Fault::NotUtf8 { valid: 1 });
        check(|_, properties| properties.correlation_data = gone, Fault::Null);
        check(|_, properties| (properties.user, properties.user_count) = (ptr::null(), 3), Fault::Null);
        let least = size_of::<Properties>() as u32;
        check(|_, properties| properties.size = 4, Fault::TooSmall { size: 4, least });
    }

    #[test]
    fn a_publish_without_a_broker_names_none() {
        let bare = Outgoing {
            size: size_of::<Outgoing>() as u32,
            qos: 2,
            retain: 1,
            reserved: [0; 2],
            topic: Bytes::of_text("t"),
            payload: Bytes::ABSENT,
            broker: Bytes::ABSENT,
            properties: ptr::null(),
        };
        let named = Outgoing { broker: Bytes::of_text("cloud"), ..bare };
        // SAFETY: all of it is static.
        let [bare, named] =
            [bare, named].map(|outgoing| unsafe { OutgoingView::of(&raw const outgoing) }.expect("it is sound"));
        assert_eq!((bare.topic, bare.payload, bare.qos, bare.retain, bare.broker), ("t", &[][..], 2, true, None));
        assert_eq!(named.broker, Some("cloud"));
    }
}
