//! The host functions of `sdk/c/tidegate.h`: what crosses the boundary, in both directions.
//!
//! Called by plugins on the threads of their instances. Each reads its arguments, asks `host/`, and answers with a status; what the words
//! of a refusal are, `last_error` tells. None waits, and none lets a panic out.

use std::time::Duration;

use tidegate_abi::{
    ANY_DELAY, Bytes, Call, FOREVER, Host, LOG_DEBUG, LOG_INFO, LOG_TRACE, LOG_WARN, MINOR, Outgoing, OutgoingView,
    Pair, Pairs, PropertiesView, Readings, Status,
};
use tracing::Level;

use super::caller::{Caller, Refusal, Words, answer, with};
use crate::message::{Properties, Qos};
use crate::path::handler::host::{KvError, Line, PublishError, PublishRequest, enabled};

/// The table that plugins get.
pub(super) static HOST: Host = Host {
    size: size_of::<Host>() as u32,
    minor: MINOR,
    log_enabled: Some(log_enabled),
    log: Some(log),
    publish: Some(publish),
    kv_get: Some(kv_get),
    kv_set: Some(kv_set),
    kv_delete: Some(kv_delete),
    kv_keys: Some(kv_keys),
    config_get: Some(config_get),
    config_json: Some(config_json),
    system_read: Some(system_read),
    set_error: Some(set_error),
    last_error: Some(last_error),
};

fn level(number: u32) -> Level {
    match number {
        LOG_TRACE => Level::TRACE,
        LOG_DEBUG => Level::DEBUG,
        LOG_INFO => Level::INFO,
        LOG_WARN => Level::WARN,
        _ => Level::ERROR,
    }
}

unsafe extern "C" fn log_enabled(call: *mut Call, number: u32) -> u32 {
    with(call, 0, |_| enabled(level(number)).into())
}

/// A text that is shown as far as it is one.
///
/// # Safety
/// As of [`Bytes::get`].
unsafe fn shown(text: Bytes) -> String {
    // SAFETY: as asked of the caller.
    String::from_utf8_lossy(unsafe { text.get() }.unwrap_or_default()).into_owned()
}

unsafe extern "C" fn log(call: *mut Call, number: u32, message: Bytes, fields: *const Pair, field_count: usize) {
    with(call, (), |caller| {
        // Before it is read: a line that is not kept costs next to nothing.
        if !enabled(level(number)) {
            return;
        }
        // SAFETY: the header has the plugin pass bytes that it owns, until this returns.
        let message = unsafe { shown(message) };
        // SAFETY: as above, for the fields and what they point to.
        let fields = unsafe { tidegate_abi::slice(fields, field_count) }.unwrap_or_default();
        let pair = |field: &Pair| {
            // SAFETY: as above.
            let key = unsafe { shown(field.key) };
            // SAFETY: as above.
            let value = unsafe { shown(field.value) };
            (key, value)
        };
        let fields: Vec<_> = fields.iter().map(pair).collect();
        caller.host().log.line(&Line { level: level(number), message: &message, fields: &fields, stream: None });
    });
}

unsafe extern "C" fn publish(call: *mut Call, message: *const Outgoing) -> Status {
    answer(call, |caller| {
        // SAFETY: the header has the plugin pass a message that it owns with all that it points to, until this returns.
        let view = unsafe { OutgoingView::of(message) }
            .map_err(|fault| Refusal::invalid("the message, or a part of it,", fault))?;
        let request = PublishRequest {
            topic: view.topic.to_owned(),
            payload: view.payload.to_vec(),
            qos: Qos::from_number(view.qos).ok_or_else(|| Refusal {
                status: Status::INVALID,
                words: format!("the quality of service is {}; it is 0, 1 or 2", view.qos),
            })?,
            retain: view.retain,
            properties: view.properties.map(properties).transpose()?,
        };
        let published = caller.effects(|state| Ok(state.publish(request, view.broker)))?;
        published.map_err(|error| publish_refusal(caller, error))
    })
}

fn properties(view: PropertiesView<'_>) -> Result<Properties, Refusal> {
    let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let user = |pairs: Pairs<'_>| pairs.map(|pair| pair.map(own)).collect::<Result<Vec<_>, _>>();
    Ok(Properties {
        content_type: view.content_type.map(str::to_owned),
        response_topic: view.response_topic.map(str::to_owned),
        correlation_data: view.correlation_data.map(bytes::Bytes::copy_from_slice),
        message_expiry: view.message_expiry,
        utf8_payload: view.utf8_payload,
        user: user(view.user).map_err(|fault| Refusal::invalid("a user property", fault))?,
    })
}

fn publish_refusal(caller: &Caller, error: PublishError) -> Refusal {
    let status = match &error {
        PublishError::Denied(_) => Status::DENIED,
        PublishError::InvalidTopic(_) => Status::INVALID_TOPIC,
        PublishError::TooLarge => Status::TOO_LARGE,
        PublishError::Quota => Status::QUOTA,
        PublishError::UnknownBroker(_) => Status::UNKNOWN_BROKER,
        PublishError::Other(_) => Status::OTHER,
    };
    Refusal { status, words: caller.host().reason(&error) }
}

fn kv_refusal(caller: &Caller, error: KvError) -> Refusal {
    let quota = caller.host().kv().map_or(0, |grant| grant.quota);
    let limit = format!("allow.kv = {quota} bytes of [handlers.{}]", caller.host().name);
    let (status, words) = match error {
        KvError::Quota => (Status::QUOTA, format!("there is no room for it within {limit}; delete keys, or raise it")),
        KvError::TooLarge => {
            (Status::TOO_LARGE, format!("the key is longer than 512 bytes, or the entry alone exceeds {limit}"))
        }
        KvError::Unavailable(words) => (Status::UNAVAILABLE, words),
        KvError::Other(words) => (Status::OTHER, words),
    };
    Refusal { status, words }
}

/// The text of an argument.
///
/// # Safety
/// As of [`Bytes::get`].
unsafe fn text<'a>(argument: &str, bytes: Bytes) -> Result<&'a str, Refusal> {
    // SAFETY: as asked of the caller.
    unsafe { bytes.text() }.map_err(|fault| Refusal::invalid(argument, fault))
}

/// Puts a result where the plugin wants it.
///
/// # Safety
/// A pointer that is neither null nor misaligned points to a `T` that may be written.
unsafe fn put<T>(argument: &str, to: *mut T, value: T) -> Result<(), Refusal> {
    if to.is_null() {
        return Err(Refusal::invalid(argument, tidegate_abi::Fault::Null));
    }
    if !to.is_aligned() {
        return Err(Refusal::invalid(argument, tidegate_abi::Fault::Misaligned));
    }
    // SAFETY: neither null nor misaligned; the rest is asked of the caller.
    unsafe { to.write(value) };
    Ok(())
}

/// A value, or that there is none.
///
/// # Safety
/// As of [`put`].
unsafe fn put_value(caller: &Caller, to: *mut Bytes, value: Option<bytes::Bytes>) -> Result<(), Refusal> {
    let found = value.map(|value| caller.lend(value));
    // SAFETY: as asked of the caller.
    unsafe { put("value", to, found.unwrap_or(Bytes::ABSENT)) }?;
    found.map(|_| ()).ok_or_else(|| Refusal { status: Status::NOT_FOUND, words: String::new() })
}

unsafe extern "C" fn kv_get(call: *mut Call, key: Bytes, value: *mut Bytes) -> Status {
    answer(call, |caller| {
        // SAFETY: the header has the plugin pass bytes that it owns, until this returns.
        let key = unsafe { text("key", key) }?;
        let found = caller.effects(|state| state.kv_get(key).map_err(|error| kv_refusal(caller, error)))?;
        // SAFETY: the header has the plugin pass a place for the result.
        unsafe { put_value(caller, value, found) }
    })
}

unsafe extern "C" fn kv_set(call: *mut Call, key: Bytes, value: Bytes, ttl_ms: u64) -> Status {
    answer(call, |caller| {
        // SAFETY: the header has the plugin pass bytes that it owns, until this returns.
        let key = unsafe { text("key", key) }?;
        // SAFETY: as above.
        let value = unsafe { value.get() }.map_err(|fault| Refusal::invalid("value", fault))?.to_vec();
        let ttl = (ttl_ms != FOREVER).then(|| Duration::from_millis(ttl_ms));
        caller.effects(|state| state.kv_set(key, value, ttl).map_err(|error| kv_refusal(caller, error)))
    })
}

unsafe extern "C" fn kv_delete(call: *mut Call, key: Bytes) -> Status {
    answer(call, |caller| {
        // SAFETY: the header has the plugin pass bytes that it owns, until this returns.
        let key = unsafe { text("key", key) }?;
        caller.effects(|state| state.kv_delete(key).map_err(|error| kv_refusal(caller, error)))
    })
}

unsafe extern "C" fn kv_keys(
    call: *mut Call,
    prefix: Bytes,
    after: Bytes,
    limit: u32,
    keys: *mut *const Bytes,
    key_count: *mut usize,
) -> Status {
    answer(call, |caller| {
        // SAFETY: the header has the plugin pass bytes that it owns, until this returns.
        let prefix = unsafe { text("prefix", prefix) }?;
        // SAFETY: as above.
        let after = unsafe { after.text_or_absent() }.map_err(|fault| Refusal::invalid("after", fault))?;
        let found = caller.effects(|state| {
            let found = state.kv_keys(prefix, after, limit);
            found.map_err(|error| kv_refusal(caller, error))
        })?;
        let (elements, count) = caller.lend_list(found);
        // SAFETY: the header has the plugin pass places for the results.
        unsafe { put("keys", keys, elements) }?;
        // SAFETY: as above.
        unsafe { put("key_count", key_count, count) }
    })
}

unsafe extern "C" fn config_get(call: *mut Call, key: Bytes, value: *mut Bytes) -> Status {
    answer(call, |caller| {
        // SAFETY: the header has the plugin pass bytes that it owns, until this returns.
        let key = unsafe { text("key", key) }?;
        let found = caller.host().config(key).map(bytes::Bytes::from);
        // SAFETY: the header has the plugin pass a place for the result.
        unsafe { put_value(caller, value, found) }
    })
}

unsafe extern "C" fn config_json(call: *mut Call) -> Bytes {
    // The handler's grants are there for as long as the instance.
    with(call, Bytes::ABSENT, |caller| Bytes::of_text(caller.host().config_json()))
}

unsafe extern "C" fn system_read(call: *mut Call, readings: *mut Readings) -> Status {
    answer(call, |caller| {
        let denied = if caller.host().allow_system { Status::OTHER } else { Status::DENIED };
        let read = caller.host().read_system().map_err(|words| Refusal { status: denied, words })?;
        let value = Readings {
            size: size_of::<Readings>() as u32,
            cpu_load: read.cpu_load.into(),
            used_memory: read.used_memory,
            free_memory: read.free_memory,
            uptime: read.uptime,
            model: caller.lend_text(&read.model),
            serial_number: caller.lend_text(&read.serial_number),
            os_version: caller.lend_text(&read.os_version),
        };
        // SAFETY: the header has the plugin pass a place for the readings, with its size.
        unsafe { tidegate_abi::write(readings, &value) }.map_err(|fault| Refusal::invalid("readings", fault))
    })
}

unsafe extern "C" fn set_error(call: *mut Call, words: Bytes, after_ms: u64) {
    with(call, (), |caller| {
        // SAFETY: the header has the plugin pass bytes that it owns, until this returns.
        let said = Some(unsafe { shown(words) });
        caller.says(Words { said, after: (after_ms != ANY_DELAY).then(|| Duration::from_millis(after_ms)) });
    });
}

unsafe extern "C" fn last_error(call: *mut Call) -> Bytes {
    with(call, Bytes::of(b""), Caller::last_error)
}
