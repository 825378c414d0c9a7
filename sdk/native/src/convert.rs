//! Between the C ABI's structs and the SDK's types.
//!
//! Pure. What comes from the daemon is copied; what goes there is borrowed for the call that takes it.

use std::fmt;
use std::ptr;

use tidegate_abi::{self as abi, Bytes, Fault, MessageView, Pair, PropertiesView, RunView};
use tidegate_sdk::__private::{from_unix, native};

use crate::log::Level;
use crate::{Message, Outgoing, Properties, Qos, Run, Trigger};

/// What the daemon gave is not what the ABI says: its own defect, or another version that breaks it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// A pointer or text.
    Fault(&'static str, Fault),
    /// A number without a meaning.
    Number(&'static str, u32),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Fault(what, fault) => write!(f, "the {what} that the daemon gave {fault}"),
            Unreadable::Number(what, number) => write!(f, "the daemon gave the unknown {what} {number}"),
        }
    }
}

/// Of a message that a fault was found in.
fn message_fault(fault: Fault) -> Unreadable {
    Unreadable::Fault("message", fault)
}

/// A message as the handler gets it.
pub(crate) fn message(view: MessageView<'_>) -> Result<Message, Unreadable> {
    let mut message = native::blank_message();
    message.broker = view.broker.to_owned();
    message.subscription = view.subscription.to_owned();
    message.topic = view.topic.to_owned();
    message.payload = view.payload.to_owned();
    message.qos = qos(view.qos)?;
    message.retain = view.retain;
    message.dup = view.dup;
    message.received = from_unix(view.received);
    message.attempt = view.attempt;
    let captures = view.captures.map(|text| text.map(str::to_owned));
    message.captures = captures.collect::<Result<_, _>>().map_err(message_fault)?;
    message.properties = view.properties.map(properties).transpose()?;
    Ok(message)
}

fn properties(view: PropertiesView<'_>) -> Result<Properties, Unreadable> {
    let user = view.user.map(|pair| pair.map(|(key, value)| (key.to_owned(), value.to_owned())));
    Ok(Properties {
        content_type: view.content_type.map(str::to_owned),
        response_topic: view.response_topic.map(str::to_owned),
        correlation_data: view.correlation_data.map(<[u8]>::to_vec),
        message_expiry: view.message_expiry,
        utf8_payload: view.utf8_payload,
        user: user.collect::<Result<_, _>>().map_err(message_fault)?,
    })
}

fn qos(number: u8) -> Result<Qos, Unreadable> {
    match number {
        abi::AT_MOST_ONCE => Ok(Qos::AtMostOnce),
        abi::AT_LEAST_ONCE => Ok(Qos::AtLeastOnce),
        abi::EXACTLY_ONCE => Ok(Qos::ExactlyOnce),
        other => Err(Unreadable::Number("QoS", other.into())),
    }
}

/// A run as the handler gets it.
pub(crate) fn run(view: RunView<'_>) -> Result<Run, Unreadable> {
    let trigger = match view.trigger {
        abi::SCHEDULE => Trigger::Schedule,
        abi::SILENCE => Trigger::Silence,
        other => return Err(Unreadable::Number("trigger", other)),
    };
    Ok(Run { trigger, name: view.name.to_owned(), due: from_unix(view.due) })
}

/// Lends a publish to whoever takes it.
pub(crate) fn lend<T>(outgoing: &Outgoing, take: impl FnOnce(&abi::Outgoing) -> T) -> T {
    let user = outgoing.properties.as_ref().map(|properties| pairs(&properties.user)).unwrap_or_default();
    let properties = outgoing.properties.as_ref().map(|properties| abi::Properties {
        size: size_of::<abi::Properties>() as u32,
        message_expiry: properties.message_expiry.unwrap_or_default(),
        has_message_expiry: properties.message_expiry.is_some().into(),
        utf8_payload: properties.utf8_payload.into(),
        reserved: [0; 6],
        content_type: Bytes::of_text_or_absent(properties.content_type.as_deref()),
        response_topic: Bytes::of_text_or_absent(properties.response_topic.as_deref()),
        correlation_data: Bytes::or_absent(properties.correlation_data.as_deref()),
        user: user.as_ptr(),
        user_count: user.len(),
    });
    take(&abi::Outgoing {
        size: size_of::<abi::Outgoing>() as u32,
        qos: match outgoing.qos {
            Qos::AtMostOnce => abi::AT_MOST_ONCE,
            Qos::AtLeastOnce => abi::AT_LEAST_ONCE,
            Qos::ExactlyOnce => abi::EXACTLY_ONCE,
        },
        retain: outgoing.retain.into(),
        reserved: [0; 2],
        topic: Bytes::of_text(&outgoing.topic),
        payload: Bytes::of(&outgoing.payload),
        broker: Bytes::of_text_or_absent(outgoing.broker.as_deref()),
        properties: properties.as_ref().map_or(ptr::null(), ptr::from_ref),
    })
}

/// Borrows pairs of texts.
pub(crate) fn pairs(texts: &[(String, String)]) -> Vec<Pair> {
    texts.iter().map(|(key, value)| Pair { key: Bytes::of_text(key), value: Bytes::of_text(value) }).collect()
}

/// The number of a level.
pub(crate) fn level(level: Level) -> u32 {
    match level {
        Level::Trace => abi::LOG_TRACE,
        Level::Debug => abi::LOG_DEBUG,
        Level::Info => abi::LOG_INFO,
        Level::Warn => abi::LOG_WARN,
        Level::Error => abi::LOG_ERROR,
    }
}
