//! The daemon as a component sees it.
//!
//! Owns: the generated bindings of `wit/handler.wit` and the translation between their types and the SDK's. Each interface that a
//! handler may export has bindings of its own: a handler's world is made of those that it exports. Everything above it is the
//! same natively, where [`crate::testing`] stands in its place.

use std::time::Duration;

use bindings::tidegate::handler as imports;
use imports::types;

use crate::clock::whole_millis;
use crate::log::Level;
use crate::system::Readings;
use crate::{Error, KvError, Message, Outgoing, Properties, PublishError, Qos, Run, Trigger, clock, reject};

/// What `wit-bindgen` makes of the contract: what all worlds import.
#[doc(hidden)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "imports",
    });
}

/// What every handler exports.
#[doc(hidden)]
pub mod lifecycle {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package tidegate:sdk; world lifecycle { export tidegate:handler/lifecycle@0.1.0; }",
        world: "tidegate:sdk/lifecycle",
        pub_export_macro: true,
        export_macro_name: "export_lifecycle",
        default_bindings_module: "tidegate_sdk::__private::lifecycle",
    });
}

/// What a handler of messages exports.
#[doc(hidden)]
pub mod on_message {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package tidegate:sdk; world on-message { export tidegate:handler/on-message@0.1.0; }",
        world: "tidegate:sdk/on-message",
        pub_export_macro: true,
        export_macro_name: "export_on_message",
        default_bindings_module: "tidegate_sdk::__private::on_message",
        with: {
            "tidegate:handler/types@0.1.0": crate::wasm::bindings::tidegate::handler::types,
        },
    });
}

/// What a handler of schedules exports.
#[doc(hidden)]
pub mod on_schedule {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package tidegate:sdk; world on-schedule { export tidegate:handler/on-schedule@0.1.0; }",
        world: "tidegate:sdk/on-schedule",
        pub_export_macro: true,
        export_macro_name: "export_on_schedule",
        default_bindings_module: "tidegate_sdk::__private::on_schedule",
        with: {
            "tidegate:handler/types@0.1.0": crate::wasm::bindings::tidegate::handler::types,
        },
    });
}

/// Exports a handler from the crate that expands it.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_component {
    (message_handler $start:expr) => {
        $crate::__private::export_component!(@lifecycle $start);
        $crate::__private::export_component!(@on_message);
    };
    (schedule_handler $start:expr) => {
        $crate::__private::export_component!(@lifecycle $start);
        $crate::__private::export_component!(@on_schedule);
    };
    (full_handler $start:expr) => {
        $crate::__private::export_component!(@lifecycle $start);
        $crate::__private::export_component!(@on_message);
        $crate::__private::export_component!(@on_schedule);
    };
    (@lifecycle $start:expr) => {
        struct Component;
        impl $crate::__private::lifecycle::exports::tidegate::handler::lifecycle::Guest for Component {
            fn init() -> Result<(), String> {
                $crate::__private::init($start)
            }
        }
        $crate::__private::lifecycle::export_lifecycle!(Component with_types_in $crate::__private::lifecycle);
    };
    (@on_message) => {
        impl $crate::__private::on_message::exports::tidegate::handler::on_message::Guest for Component {
            fn handle(
                message: $crate::__private::bindings::tidegate::handler::types::Message,
            ) -> Result<(), $crate::__private::bindings::tidegate::handler::types::Failure> {
                $crate::__private::call(&message.into()).map_err($crate::__private::failure)
            }
        }
        $crate::__private::on_message::export_on_message!(Component with_types_in $crate::__private::on_message);
    };
    (@on_schedule) => {
        impl $crate::__private::on_schedule::exports::tidegate::handler::on_schedule::Guest for Component {
            fn run(
                trigger: $crate::__private::on_schedule::exports::tidegate::handler::on_schedule::Trigger,
                name: String,
                due: u64,
            ) -> Result<(), $crate::__private::bindings::tidegate::handler::types::Failure> {
                $crate::__private::run(&$crate::__private::due(trigger, name, due)).map_err($crate::__private::failure)
            }
        }
        $crate::__private::on_schedule::export_on_schedule!(Component with_types_in $crate::__private::on_schedule);
    };
}

pub(crate) fn publish(message: Outgoing) -> Result<(), PublishError> {
    let Outgoing { topic, payload, qos, retain, broker, properties } = message;
    let properties = properties.map(Into::into);
    let outgoing = types::Outgoing { topic, payload, qos: qos.into(), retain, properties };
    imports::publisher::publish(&outgoing, broker.as_deref()).map_err(Into::into)
}

pub(crate) fn kv_get(key: &str) -> Result<Option<Vec<u8>>, KvError> {
    imports::kv::get(key).map_err(Into::into)
}

pub(crate) fn kv_set(key: &str, value: &[u8], time: Option<Duration>) -> Result<(), KvError> {
    imports::kv::set(key, value, time.map(whole_millis)).map_err(Into::into)
}

pub(crate) fn kv_delete(key: &str) -> Result<(), KvError> {
    imports::kv::delete(key).map_err(Into::into)
}

pub(crate) fn kv_keys(prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, KvError> {
    imports::kv::keys(prefix, after, limit).map_err(Into::into)
}

pub(crate) fn log_enabled(level: Level) -> bool {
    imports::log::enabled(level.into())
}

pub(crate) fn log(level: Level, message: &str, fields: &[(String, String)]) {
    imports::log::log(level.into(), message, fields);
}

pub(crate) fn wall_nanos() -> u64 {
    imports::clock::wall()
}

pub(crate) fn monotonic_nanos() -> u64 {
    imports::clock::monotonic()
}

pub(crate) fn random_bytes(len: u32) -> Vec<u8> {
    imports::random::bytes(len)
}

pub(crate) fn config_json() -> String {
    imports::config::json()
}

pub(crate) fn system() -> crate::Result<Readings> {
    let imports::system::Readings { model, serial_number, os_version, cpu_load, used_memory, free_memory, uptime } =
        imports::system::read().map_err(reject)?;
    Ok(Readings { model, serial_number, os_version, cpu_load, used_memory, free_memory, uptime })
}

/// The failure that the daemon gets for an error.
pub fn failure(error: Error) -> types::Failure {
    match error {
        Error::Reject(reason) => types::Failure::Reject(reason),
        Error::Retry { reason, after } => {
            types::Failure::Retry(types::RetryLater { reason, after_ms: after.map(whole_millis) })
        }
    }
}

impl From<types::Message> for Message {
    fn from(message: types::Message) -> Message {
        Message {
            broker: message.broker,
            subscription: message.subscription,
            topic: message.topic,
            payload: message.payload,
            qos: message.qos.into(),
            retain: message.retain,
            dup: message.dup,
            received: clock::from_unix(message.received),
            attempt: message.attempt,
            captures: message.captures,
            properties: message.properties.map(Into::into),
        }
    }
}

/// What is due, in the SDK's own words.
pub fn due(trigger: on_schedule::exports::tidegate::handler::on_schedule::Trigger, name: String, due: u64) -> Run {
    use on_schedule::exports::tidegate::handler::on_schedule::Trigger as Wire;
    let trigger = match trigger {
        Wire::Schedule => Trigger::Schedule,
        Wire::Silence => Trigger::Silence,
    };
    Run { trigger, name, due: clock::from_unix(due) }
}

impl From<types::Properties> for Properties {
    fn from(properties: types::Properties) -> Properties {
        let types::Properties { content_type, response_topic, correlation_data, message_expiry, utf8_payload, user } =
            properties;
        Properties { content_type, response_topic, correlation_data, message_expiry, utf8_payload, user }
    }
}

impl From<Properties> for types::Properties {
    fn from(properties: Properties) -> types::Properties {
        let Properties { content_type, response_topic, correlation_data, message_expiry, utf8_payload, user } =
            properties;
        types::Properties { content_type, response_topic, correlation_data, message_expiry, utf8_payload, user }
    }
}

impl From<types::Qos> for Qos {
    fn from(qos: types::Qos) -> Qos {
        match qos {
            types::Qos::AtMostOnce => Qos::AtMostOnce,
            types::Qos::AtLeastOnce => Qos::AtLeastOnce,
            types::Qos::ExactlyOnce => Qos::ExactlyOnce,
        }
    }
}

impl From<Qos> for types::Qos {
    fn from(qos: Qos) -> types::Qos {
        match qos {
            Qos::AtMostOnce => types::Qos::AtMostOnce,
            Qos::AtLeastOnce => types::Qos::AtLeastOnce,
            Qos::ExactlyOnce => types::Qos::ExactlyOnce,
        }
    }
}

impl From<Level> for imports::log::Level {
    fn from(level: Level) -> imports::log::Level {
        match level {
            Level::Trace => imports::log::Level::Trace,
            Level::Debug => imports::log::Level::Debug,
            Level::Info => imports::log::Level::Info,
            Level::Warn => imports::log::Level::Warn,
            Level::Error => imports::log::Level::Error,
        }
    }
}

impl From<imports::kv::KvError> for KvError {
    fn from(error: imports::kv::KvError) -> KvError {
        use imports::kv::KvError as Wire;
        match error {
            Wire::Quota => KvError::Quota,
            Wire::TooLarge => KvError::TooLarge,
            Wire::Unavailable(reason) => KvError::Unavailable(reason),
            Wire::Other(reason) => KvError::Other(reason),
        }
    }
}

impl From<imports::publisher::PublishError> for PublishError {
    fn from(error: imports::publisher::PublishError) -> PublishError {
        use imports::publisher::PublishError as Wire;
        match error {
            Wire::Denied(reason) => PublishError::Denied(reason),
            Wire::InvalidTopic(reason) => PublishError::InvalidTopic(reason),
            Wire::TooLarge => PublishError::TooLarge,
            Wire::Quota => PublishError::Quota,
            Wire::UnknownBroker(name) => PublishError::UnknownBroker(name),
            Wire::OutboxFull => PublishError::OutboxFull,
            Wire::Other(reason) => PublishError::Other(reason),
        }
    }
}
