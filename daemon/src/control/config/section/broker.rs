//! `[brokers.NAME]`.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use toml::de::DeValue;

use super::{Named, address, mqtt_string, named, outbox, path, qos, topic_name, transport};
use crate::control::config::BrokerOrigins;
use crate::control::config::interpolate::Environment;
use crate::control::config::model::{Broker, DispatchMode, Protocol, StatusMessage};
use crate::control::config::problem::{Origin, Place};
use crate::control::config::reader::{Table, Value};
use crate::control::config::secret::{PasswordSource, Secret};

const KEEP_ALIVE: u16 = 60;
const AUTO_CONNECT: bool = true;
const CLEAN_SESSION: bool = false;
const SESSION_EXPIRY: Duration = Duration::from_secs(7 * 86_400);
const RECEIVE_MAXIMUM: NonZeroU16 = NonZeroU16::new(64).expect("not zero");
const MAX_PACKET: u32 = 1024 * 1024;

/// The protocol counts whole seconds in 32 bits, of which the last value means "for ever" (MQTT 5 §3.1.2.11.2).
const LONGEST_EXPIRY: Duration = Duration::from_secs(49_710 * 86_400);

/// Largest remaining length (MQTT 5 §1.5.5).
const LARGEST_PACKET: u32 = 268_435_455;

/// Longest will message (MQTT 5 §3.1.3.3: binary data has a two-byte length).
const MAX_WILL: usize = 65_535;

/// Words of `protocol`.
const PROTOCOLS: [(&str, Protocol); 2] = [("5", Protocol::V5), ("3.1.1", Protocol::V311)];

/// Words of `dispatch`.
const DISPATCHES: [(&str, DispatchMode); 2] = [("best", DispatchMode::Best), ("all", DispatchMode::All)];

/// A broker with the places that later checks need.
pub(in crate::control::config) type Placed = (Arc<Broker>, BrokerOrigins);

/// Reads the brokers of all files, in their order. Each name gets its number.
pub(in crate::control::config) fn read<'a>(roots: &[Table<'a>]) -> Vec<Named<'a, Placed>> {
    let mut clients = Vec::new();
    let entries = named(roots, "brokers");
    // Brokers that are no table have been told by now.
    let absent = |root: &Table<'_>| root.get("brokers").is_none_or(|value| matches!(value.raw(), DeValue::Table(_)));
    if let (true, true, [main, ..]) = (entries.is_empty(), roots.iter().all(absent), roots) {
        main.warn_file(
            "no broker is configured",
            "add [brokers.NAME] with address = \"HOST\", or use tidegate brokers add",
        );
    }
    // First all of them: also a broker with errors may be referred to.
    entries.iter().for_each(|(name, value)| _ = value.reading.names.number(name));
    let brokers = entries.into_iter().map(|(name, value)| {
        let broker = value.table("[brokers.NAME]", |table| broker(name, table, &value, &mut clients)).flatten();
        let placed = broker.map(|(broker, address)| {
            let origins = BrokerOrigins { object: value.object(), address };
            (Arc::new(broker), origins)
        });
        Named { name: name.into(), value, item: placed }
    });
    brokers.collect()
}

/// Who connects where: two sessions with one client identifier end each other for ever (MQTT 5 §3.1.4).
struct Client {
    address: String,
    port: NonZeroU16,
    id: String,
    place: Place,
}

fn broker(name: &str, table: &Table<'_>, value: &Value<'_>, clients: &mut Vec<Client>) -> Option<(Broker, Origin)> {
    let environment = table.reading.environment;
    let flag = |key, default| table.get(key).and_then(|value| value.boolean()).unwrap_or(default);
    let protocol = table.get("protocol").and_then(|value| value.choice(&PROTOCOLS)).unwrap_or(Protocol::V5);
    let clean_session = flag("clean-session", CLEAN_SESSION);
    let username = table.get("username").and_then(|value| mqtt_string(&value));
    let client_id = client_id(name, table, environment);
    let given = table.require("address", || "add address = \"HOST\"".to_owned());
    let address = given.as_ref().and_then(address::read);
    let reach = transport::read(table, number16(table, "port"), address.as_deref());
    let broker = Broker {
        id: table.reading.names.number(name),
        name: name.into(),
        port: reach.port,
        tls: reach.tls,
        transport: reach.transport,
        protocol,
        password: password(table, protocol),
        username,
        keep_alive: table
            .get("keep-alive")
            .and_then(|value| u16::try_from(value.integer(30..=64_800, " seconds")?).ok())
            .unwrap_or(KEEP_ALIVE),
        auto_connect: flag("auto-connect", AUTO_CONNECT),
        clean_session,
        session_expiry: session_expiry(table, protocol, clean_session),
        receive_maximum: number16(table, "receive-maximum").unwrap_or(RECEIVE_MAXIMUM),
        max_packet: table
            .get("max-packet")
            .and_then(|value| value.size(1 << 10..=256 << 20))
            .map_or(MAX_PACKET, |bytes| u32::try_from(bytes).map_or(LARGEST_PACKET, |bytes| bytes.min(LARGEST_PACKET))),
        parallel_limit: parallel_limit(table),
        dispatch: table.get("dispatch").and_then(|value| value.choice(&DISPATCHES)).unwrap_or(DispatchMode::Best),
        outbox: outbox::read(table),
        will: table.get("will").and_then(|value| status_message(&value, Some(MAX_WILL))),
        birth: table.get("birth").and_then(|value| status_message(&value, None)),
        close: table.get("close").and_then(|value| status_message(&value, None)),
        // Only now, so that a missing address hides no other problem.
        address: address?,
        client_id: client_id?,
    };
    refuse_takeover(&broker, table, value, clients);
    Some((broker, given?.origin()))
}

/// A number from 1 to 65535.
fn number16(table: &Table<'_>, key: &'static str) -> Option<NonZeroU16> {
    table
        .get(key)
        .and_then(|value| value.integer(1..=u64::from(u16::MAX), ""))
        .and_then(|number| NonZeroU16::new(u16::try_from(number).ok()?))
}

fn client_id(name: &str, table: &Table<'_>, environment: &Environment) -> Option<String> {
    let Some(value) = table.get("client-id") else {
        return Some(format!("tidegate-{}-{name}", environment.hostname));
    };
    let id = mqtt_string(&value)?;
    if id.is_empty() {
        value.error("must not be empty: a session is kept under it", "use a stable identifier, or remove the key");
        return None;
    }
    Some(id)
}

/// `password`, `password-file` or `password-env`.
fn password(table: &Table<'_>, protocol: Protocol) -> Option<PasswordSource> {
    let literal = table.get("password").map(Value::secret);
    let file = table.get("password-file");
    let variable = table.get("password-env");
    let given: Vec<&Value<'_>> = [&literal, &file, &variable].into_iter().flatten().collect();
    if let [first, others @ ..] = given.as_slice() {
        for other in others {
            other.error(
                format!("the password is also given at {}", first.origin().place),
                "keep one of password, password-file and password-env",
            );
        }
        if protocol == Protocol::V311 && table.get("username").is_none() {
            first.error(
                "a password without a user name (MQTT 3.1.1 §3.1.2.9)",
                "add username = \"…\", or use protocol = \"5\"",
            );
        }
    }
    let literal = literal.and_then(|value| {
        let text = value.text()?.value;
        if text.len() > usize::from(u16::MAX) {
            value.error("has more than 65535 bytes (MQTT 5 §1.5.6)", "use a shorter one");
        }
        Some(PasswordSource::Literal(Secret::new(text)))
    });
    literal
        .or_else(|| file.and_then(|value| password_file(&value)))
        .or_else(|| variable.and_then(|value| password_variable(&value)))
}

fn password_file(value: &Value<'_>) -> Option<PasswordSource> {
    let path = path(value)?;
    if !path.exists() {
        // It may be written later: it is read at each connect.
        value.warn("there is no such file yet", "write it before the daemon connects");
    }
    Some(PasswordSource::File(path))
}

fn password_variable(value: &Value<'_>) -> Option<PasswordSource> {
    let name = value.text()?;
    // Who writes the password itself here must not find it in a log.
    let usual = name.value.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let value = if usual { value.clone() } else { value.clone().secret() };
    if (value.reading.environment.variable)(&name.value).is_none() {
        value.error("this environment variable is not set", "set it for the daemon");
        return None;
    }
    Some(PasswordSource::Variable(name.value))
}

/// Zero where the broker keeps no session, or no limit can be told to it.
fn session_expiry(table: &Table<'_>, protocol: Protocol, clean_session: bool) -> Duration {
    let default = if clean_session || protocol == Protocol::V311 { Duration::ZERO } else { SESSION_EXPIRY };
    let Some(value) = table.get("session-expiry") else { return default };
    if protocol == Protocol::V311 {
        value.error("only protocol 5 has it", "remove it, or use protocol = \"5\"");
        return default;
    }
    if clean_session {
        value.error("contradicts clean-session = true: no session is kept", "remove one of the two");
        return default;
    }
    let expiry = value.duration(Duration::from_secs(1)..=LONGEST_EXPIRY);
    if expiry.is_some_and(|expiry| expiry.subsec_nanos() > 0) {
        value.error("has a fraction of a second (MQTT 5 §3.1.2.11.2)", "use whole seconds");
    }
    expiry.unwrap_or(default)
}

fn parallel_limit(table: &Table<'_>) -> Option<u16> {
    let value = table.get("parallel-limit")?;
    match value.raw() {
        DeValue::String(text) if text == "off" => None,
        DeValue::Integer(_) => u16::try_from(value.integer(3..=1000, ", or \"off\"")?).ok(),
        _ => {
            value.wrong_type("an integer or \"off\"", "use \"off\", or a number from 3 to 1000 without quotes");
            None
        }
    }
}

fn status_message(value: &Value<'_>, longest: Option<usize>) -> Option<StatusMessage> {
    let read = |table: &Table<'_>| {
        let topic = table.require("topic", || "add topic = \"TOPIC\"".to_owned());
        let topic = topic.and_then(|value| topic_name(&value, "gateway/state"));
        let message = table.get("message").and_then(|value| {
            let text = value.text()?.value;
            if longest.is_some_and(|longest| text.len() > longest) {
                value.error("has more than 65535 bytes (MQTT 5 §3.1.3.3)", "use a shorter one");
            }
            Some(text)
        });
        Some(StatusMessage {
            message: Bytes::from(message.unwrap_or_default()),
            qos: qos(table),
            retain: table.get("retain").and_then(|value| value.boolean()).unwrap_or(false),
            topic: topic?,
        })
    };
    value.table("{ topic = \"TOPIC\", message = \"TEXT\" }", read).flatten()
}

fn refuse_takeover(broker: &Broker, table: &Table<'_>, value: &Value<'_>, clients: &mut Vec<Client>) {
    let at = table.get("client-id").unwrap_or_else(|| value.clone());
    let same = |client: &&Client| {
        client.id == broker.client_id
            && client.port == broker.port
            && client.address.eq_ignore_ascii_case(&broker.address)
    };
    if let Some(other) = clients.iter().find(same) {
        at.error(
            format!("the same client identifier and server as at {}: each session would end the other", other.place),
            "use another client-id",
        );
    }
    let place = at.origin().place;
    clients.push(Client { address: broker.address.clone(), port: broker.port, id: broker.client_id.clone(), place });
}
