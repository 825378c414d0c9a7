//! The keys of the configuration that requests bring, as the OpenAPI document describes them.
//!
//! Only described here: a request's keys are read by the configuration itself, with all its rules and its own words for what is
//! wrong. A test holds these against `config/reference.toml`.
#![expect(dead_code, reason = "described, not read")]

use std::borrow::Cow;

use serde::Deserialize;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// Keys of a broker. docs/configuration.md and config/reference.toml tell their meaning and defaults.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct BrokerKeys {
    /// IP address or host name, without a prefix and without a port.
    address: Option<String>,
    #[schema(minimum = 1, maximum = 65535)]
    port: Option<u16>,
    protocol: Option<Protocol>,
    client_id: Option<String>,
    username: Option<String>,
    /// Never told again.
    #[schema(format = Password)]
    password: Option<String>,
    password_file: Option<String>,
    password_env: Option<String>,
    /// Seconds.
    #[schema(minimum = 30, maximum = 64800)]
    keep_alive: Option<u16>,
    auto_connect: Option<bool>,
    clean_session: Option<bool>,
    /// Such as `7d`.
    session_expiry: Option<String>,
    #[schema(minimum = 1, maximum = 65535)]
    receive_maximum: Option<u16>,
    /// Such as `1MiB`.
    max_packet: Option<String>,
    #[schema(schema_with = parallel_limit)]
    parallel_limit: Option<ParallelLimit>,
    dispatch: Option<Dispatch>,
    outbox: Option<OutboxKeys>,
    tls: Option<Tls>,
    transport: Option<Transport>,
    will: Option<StatusMessageKeys>,
    birth: Option<StatusMessageKeys>,
    close: Option<StatusMessageKeys>,
}

#[derive(Deserialize, ToSchema)]
enum Protocol {
    #[serde(rename = "5")]
    V5,
    #[serde(rename = "3.1.1")]
    V311,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ParallelLimit {
    Limit(u16),
    Off(Off),
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Off {
    Off,
}

fn parallel_limit() -> Schema {
    let limit = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(3)).maximum(Some(1000));
    let off = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["off"]));
    let none = ObjectBuilder::new().schema_type(Type::Null);
    OneOfBuilder::new().item(limit).item(off).item(none).build().into()
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Dispatch {
    Best,
    All,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct OutboxKeys {
    store: Option<Store>,
    /// In memory no more than 1000000.
    #[schema(minimum = 1, maximum = 10_000_000)]
    max_messages: Option<u32>,
    /// Such as `64MiB`.
    max_bytes: Option<String>,
    /// Such as `10m`, or `off`.
    max_age: Option<String>,
    when_full: Option<WhenFull>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Store {
    Memory,
    Disk,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum WhenFull {
    Block,
    DropOldest,
    Reject,
}

#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
enum Tls {
    On(bool),
    Keys(TlsKeys),
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct TlsKeys {
    ca: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
    alpn: Option<Vec<String>>,
    server_name: Option<String>,
    insecure_skip_verify: Option<bool>,
}

#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
enum Transport {
    Kind(TransportKind),
    Keys(TransportKeys),
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum TransportKind {
    Tcp,
    Websocket,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct TransportKeys {
    kind: Option<TransportKind>,
    path: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct StatusMessageKeys {
    topic: Option<String>,
    message: Option<String>,
    #[schema(minimum = 0, maximum = 2)]
    qos: Option<u8>,
    retain: Option<bool>,
}

/// Keys of a subscription. docs/configuration.md and config/reference.toml tell their meaning and defaults.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct SubscriptionKeys {
    name: Option<String>,
    broker: Option<String>,
    /// A topic filter.
    topic: Option<String>,
    #[schema(minimum = 0, maximum = 2)]
    qos: Option<u8>,
    on_message: Option<OnMessage>,
    when: Option<WhenKeys>,
    /// Such as `5m`.
    silence: Option<String>,
    share: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
enum OnMessage {
    /// A handler.
    Handler(String),
    /// A log line.
    Log(LogKeys),
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LogKeys {
    /// Its template.
    log: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WhenKeys {
    /// A regular expression.
    payload: Option<String>,
    #[schema(minimum = 0, maximum = 268_435_455)]
    min_bytes: Option<u32>,
    retained: Option<bool>,
    otherwise: Option<Otherwise>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Otherwise {
    Stop,
    Next,
}

/// Keys of a handler. docs/configuration.md and config/reference.toml tell their meaning and defaults.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct HandlerKeys {
    /// A file in plugins-dir.
    plugin: Option<String>,
    #[schema(minimum = 1)]
    instances: Option<u16>,
    isolation: Option<Isolation>,
    /// Such as `1s`.
    call_deadline: Option<String>,
    /// Such as `64MiB`.
    max_memory: Option<String>,
    #[schema(minimum = 1, maximum = 1_000_000)]
    queue: Option<u32>,
    /// Such as `16MiB`.
    queue_bytes: Option<String>,
    overload: Option<Overload>,
    retry: Option<RetryKeys>,
    quarantine: Option<QuarantineKeys>,
    reload: Option<ReloadKeys>,
    #[schema(minimum = 1)]
    max_publishes: Option<u32>,
    /// Such as `1MiB`.
    max_publish_bytes: Option<String>,
    dead_letter: Option<DeadLetterKeys>,
    /// For what it publishes on a schedule without naming a broker.
    default_broker: Option<String>,
    allow: Option<AllowKeys>,
    #[schema(value_type = Option<Object>)]
    config: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Isolation {
    Reuse,
    PerMessage,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Overload {
    DropNewest,
    DropOldest,
}

/// Both are needed.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct DeadLetterKeys {
    broker: Option<String>,
    /// A topic name, without wildcards.
    topic: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RetryKeys {
    #[schema(minimum = 0, maximum = 1000)]
    max: Option<u32>,
    /// Such as `100ms..10s`.
    backoff: Option<String>,
    /// Such as `30s`.
    max_time: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
enum QuarantineKeys {
    Off(Off),
    Policy(QuarantinePolicyKeys),
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct QuarantinePolicyKeys {
    #[schema(minimum = 1, maximum = 1000)]
    after: Option<u32>,
    /// Such as `30s`.
    r#for: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ReloadKeys {
    /// A share, or `off`.
    #[schema(schema_with = canary)]
    canary: Option<CanaryKeys>,
    #[schema(minimum = 0, exclusive_maximum = 1)]
    max_failures: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum CanaryKeys {
    Off(Off),
    Share(f64),
}

fn canary() -> Schema {
    let share = ObjectBuilder::new().schema_type(Type::Number).exclusive_minimum(Some(0)).maximum(Some(1));
    let off = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["off"]));
    let none = ObjectBuilder::new().schema_type(Type::Null);
    OneOfBuilder::new().item(share).item(off).item(none).build().into()
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct AllowKeys {
    /// `BROKER:FILTER`.
    publish: Option<Vec<String>>,
    /// How much it may remember, such as `64KiB`.
    kv: Option<String>,
    /// Whether it may read the machine.
    system: Option<bool>,
}

/// A type of the document that another one becomes by what a new object must have.
macro_rules! new_object {
    ($name:ident, $keys:ident, $($required:literal),+) => {
        /// Keys of an object that is added.
        pub(super) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                with_required($keys::schema(), &[$($required),+])
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
                $keys::schemas(schemas);
            }
        }
    };
}

new_object!(NewBroker, BrokerKeys, "name", "address");
new_object!(NewSubscription, SubscriptionKeys, "broker", "topic");
new_object!(NewHandler, HandlerKeys, "name", "plugin");

/// The same keys, of which these texts are not optional.
fn with_required(keys: RefOr<Schema>, required: &[&str]) -> RefOr<Schema> {
    let RefOr::T(Schema::Object(mut object)) = keys else { return keys };
    for name in required {
        let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
        object.properties.insert((*name).to_owned(), RefOr::T(Schema::Object(text.build())));
        object.required.push((*name).to_owned());
    }
    RefOr::T(Schema::Object(object))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str = include_str!("../../../../../config/reference.toml");

    /// Every key that the reference shows is described, with a type that its value has; `the_reference_shows_every_key` sees to
    /// the rest.
    #[test]
    fn every_key_of_the_configuration_is_described() {
        let reference: toml::Table = REFERENCE.parse().expect("is TOML");
        let reference = serde_json::to_value(reference).expect("is JSON as well");
        let each = |list: &str| {
            let values = match &reference[list] {
                serde_json::Value::Object(named) => named.values().cloned().collect(),
                serde_json::Value::Array(values) => values.clone(),
                other => panic!("{list}: {other}"),
            };
            assert!(!values.is_empty());
            values
        };
        for broker in each("brokers") {
            serde_json::from_value::<BrokerKeys>(broker.clone()).unwrap_or_else(|error| panic!("{error}: {broker}"));
        }
        for one in each("subscriptions") {
            serde_json::from_value::<SubscriptionKeys>(one.clone()).unwrap_or_else(|error| panic!("{error}: {one}"));
        }
        for handler in each("handlers") {
            serde_json::from_value::<HandlerKeys>(handler.clone()).unwrap_or_else(|error| panic!("{error}: {handler}"));
        }
    }

    #[test]
    fn a_new_object_must_have_its_name() {
        let schema = serde_json::to_value(NewBroker::schema()).expect("becomes JSON");
        assert_eq!(schema["required"], serde_json::json!(["name", "address"]));
        assert_eq!(schema["properties"]["name"]["type"], "string");
        assert_eq!(schema["additionalProperties"], false);
    }
}
