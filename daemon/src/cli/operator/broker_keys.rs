//! The options of `brokers add` and `brokers set`: the keys of `[brokers.NAME]`.
//!
//! Owns: what combinations of them mean. A secret is read here, and handed on in the request alone.

use std::io::Read;

use serde_json::{Value, json};

use super::keys::{Key, Keys, Kind, Resource, key};
use crate::cli::client::Failure;

/// `[brokers.NAME]`.
#[derive(Debug)]
pub struct Broker;

/// The three ways to give a password, of which a broker has one.
const PASSWORDS: [&str; 3] = ["password", "password-file", "password-env"];

/// Where `--tls` stands until [`settle`] knows what it means.
const TLS_ON: &[&str] = &["tls", "on"];

/// Longest password in bytes (MQTT 5 §1.5.6: binary data has a two-byte length).
const MAX_PASSWORD: u64 = 65_535;

impl Resource for Broker {
    const TABLES: &'static [&'static str] = &["tls", "transport", "outbox", "will", "birth", "close"];
    const NEEDED: &'static [&'static str] = &["will-topic", "birth-topic", "close-topic"];
    const KEYS: &'static [Key] = {
        use Kind::{Boolean, Choice, Integer, IntegerOrOff, List, Text};
        &[
            key("address", &["address"], Text, "HOST", "IP address or host name, without tcp:// or ssl://"),
            key("port", &["port"], Integer, "PORT", "1 to 65535 [default: 1883, with --tls 8883]"),
            key(
                "tls",
                TLS_ON,
                Boolean,
                "YES",
                "Speak TLS, and verify the broker by the system's authorities [default: false]",
            ),
            key(
                "ca",
                &["tls", "ca"],
                Text,
                "FILE",
                "PEM file with the authorities that the broker is verified by; turns TLS on",
            ),
            key(
                "certificate",
                &["tls", "certificate"],
                Text,
                "FILE",
                "PEM file with the client's certificate; turns TLS on",
            ),
            key("key", &["tls", "key"], Text, "FILE", "PEM file with the client's private key"),
            key("alpn", &["tls", "alpn"], List, "PROTOCOL", "Protocol to offer (ALPN); again for further ones"),
            key(
                "server-name",
                &["tls", "server-name"],
                Text,
                "NAME",
                "The name that the broker's certificate must have [default: the address]",
            ),
            key(
                "insecure-skip-verify",
                &["tls", "insecure-skip-verify"],
                Boolean,
                "YES",
                "Connect whatever certificate the broker has; for tests only [default: false]",
            ),
            key(
                "client-id",
                &["client-id"],
                Text,
                "ID",
                "The session's name at the broker [default: tidegate-HOST-NAME]",
            ),
            key("username", &["username"], Text, "NAME", "The name to log in with"),
            key(
                "password",
                &["password"],
                Text,
                "PASSWORD",
                "The password; - reads it from standard input, since others on this machine can see a command line",
            ),
            key(
                "password-file",
                &["password-file"],
                Text,
                "FILE",
                "The file that the daemon reads the password from at each connect",
            ),
            key(
                "password-env",
                &["password-env"],
                Text,
                "VARIABLE",
                "The daemon's environment variable that holds the password",
            ),
            key(
                "keep-alive",
                &["keep-alive"],
                Integer,
                "SECONDS",
                "Seconds between two pings, 30 to 64800 [default: 60]",
            ),
            key(
                "auto-connect",
                &["auto-connect"],
                Boolean,
                "YES",
                "Connect at start, and for ever after a loss [default of `add`: false]",
            ),
            key(
                "clean-session",
                &["clean-session"],
                Boolean,
                "YES",
                "Let the broker forget the session when the connection ends [default: false]",
            ),
            key(
                "session-expiry",
                &["session-expiry"],
                Text,
                "DURATION",
                "How long the broker keeps the session, such as 7d; protocol 5 only [default: 7d]",
            ),
            key(
                "receive-maximum",
                &["receive-maximum"],
                Integer,
                "COUNT",
                "Unacknowledged messages that are taken in [default: 64]",
            ),
            key("max-packet", &["max-packet"], Text, "SIZE", "Largest packet taken in [default: 1MiB]"),
            key(
                "parallel-limit",
                &["parallel-limit"],
                IntegerOrOff,
                "COUNT",
                "Handler calls for this broker's messages at the same time, 3 to 1000, or off [default: off]",
            ),
            key(
                "dispatch",
                &["dispatch"],
                Choice(&["best", "all"]),
                "MODE",
                "Whether the best-ranked matching subscription runs, or all [default: best]",
            ),
            key(
                "transport",
                &["transport", "kind"],
                Choice(&["tcp", "websocket"]),
                "KIND",
                "What carries MQTT [default: tcp]",
            ),
            key(
                "websocket-path",
                &["transport", "path"],
                Text,
                "PATH",
                "The path of the WebSocket; turns it on [default: /mqtt]",
            ),
            key(
                "outbox-store",
                &["outbox", "store"],
                Choice(&["memory", "disk"]),
                "STORE",
                "Where waits what is to be published: in memory, or on the disk [default: memory]",
            ),
            key(
                "outbox-max-messages",
                &["outbox", "max-messages"],
                Integer,
                "COUNT",
                "Messages that may wait to be published, 1 to 1000000, on the disk to 10000000 [default: 10000]",
            ),
            key(
                "outbox-max-bytes",
                &["outbox", "max-bytes"],
                Text,
                "SIZE",
                "Their bytes, 1KiB to 4GiB [default: 64MiB]",
            ),
            key(
                "outbox-max-age",
                &["outbox", "max-age"],
                Text,
                "DURATION",
                "How long a message may wait, 100ms to 365d, or off: an older one is dropped [default: off]",
            ),
            key(
                "outbox-when-full",
                &["outbox", "when-full"],
                Choice(&["block", "drop-oldest", "reject"]),
                "POLICY",
                "What happens when there is no room: calls wait, the oldest messages are dropped, or calls fail and are retried \
                 [default: block]",
            ),
            key("protocol", &["protocol"], Choice(&["5", "3.1.1"]), "VERSION", "The version of MQTT [default: 5]"),
            key("will-topic", &["will", "topic"], Text, "TOPIC", "Published by the broker when the connection is lost"),
            key("will-message", &["will", "message"], Text, "TEXT", "Its payload [default: empty]"),
            key("will-qos", &["will", "qos"], Integer, "QOS", "Its QoS [default: 0]"),
            key(
                "will-retain",
                &["will", "retain"],
                Boolean,
                "YES",
                "Whether the broker keeps it for later subscribers [default: false]",
            ),
            key("birth-topic", &["birth", "topic"], Text, "TOPIC", "Published after connecting"),
            key("birth-message", &["birth", "message"], Text, "TEXT", "Its payload [default: empty]"),
            key("birth-qos", &["birth", "qos"], Integer, "QOS", "Its QoS [default: 0]"),
            key(
                "birth-retain",
                &["birth", "retain"],
                Boolean,
                "YES",
                "Whether the broker keeps it for later subscribers [default: false]",
            ),
            key("close-topic", &["close", "topic"], Text, "TOPIC", "Published before disconnecting"),
            key("close-message", &["close", "message"], Text, "TEXT", "Its payload [default: empty]"),
            key("close-qos", &["close", "qos"], Integer, "QOS", "Its QoS [default: 0]"),
            key(
                "close-retain",
                &["close", "retain"],
                Boolean,
                "YES",
                "Whether the broker keeps it for later subscribers [default: false]",
            ),
        ]
    };
}

/// Gives combinations of options their meaning: `new` for a broker that is added, else for a change.
///
/// # Errors
/// The options contradict each other, or standard input has no password.
pub fn settle(mut keys: Keys, new: bool, input: &mut dyn Read) -> Result<Keys, Failure> {
    tls(&mut keys, new)?;
    transport(&mut keys)?;
    password(&mut keys, new, input)?;
    Ok(keys)
}

/// `--tls` and the options that turn it on, too.
fn tls(keys: &mut Keys, new: bool) -> Result<(), Failure> {
    let on = keys.take(TLS_ON);
    let alone = keys.get(&["tls"]).is_none_or(|table| *table == json!({}));
    match on.as_ref().and_then(Value::as_bool) {
        Some(false) if !alone => {
            return Err(Failure::WrongUse("--tls=false contradicts the other options of TLS; give either".to_owned()));
        }
        Some(true) if alone && new => keys.put(&["tls"], true),
        // Merged with the settings that it has, which `true` would replace.
        Some(true) if alone => keys.put(&["tls"], json!({})),
        Some(false) => keys.put(&["tls"], false),
        _ => {}
    }
    Ok(())
}

/// `--transport` and `--websocket-path`.
fn transport(keys: &mut Keys) -> Result<(), Failure> {
    let kind = keys.get(&["transport", "kind"]).and_then(Value::as_str);
    let path = keys.get(&["transport", "path"]).is_some();
    match (kind, path) {
        (Some("tcp"), true) => {
            Err(Failure::WrongUse("--transport tcp contradicts --websocket-path; remove one of them".to_owned()))
        }
        (Some("tcp"), false) => {
            keys.put(&["transport"], "tcp");
            Ok(())
        }
        (None, true) => {
            keys.put(&["transport", "kind"], "websocket");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// `--password -`; and a change from one way to give a password to another.
fn password(keys: &mut Keys, new: bool, input: &mut dyn Read) -> Result<(), Failure> {
    let given: Vec<&str> = PASSWORDS.into_iter().filter(|key| keys.get(&[key]).is_some()).collect();
    if given.len() > 1 {
        return Err(Failure::WrongUse(format!("--{} name several passwords; give one", given.join(" and --"))));
    }
    if keys.get(&["password"]).and_then(Value::as_str) == Some("-") {
        keys.put(&["password"], from_input(input)?);
    }
    if !new && !given.is_empty() {
        PASSWORDS.iter().for_each(|other| keys.put_default(&[other], Value::Null));
    }
    Ok(())
}

/// The first line of standard input.
fn from_input(input: &mut dyn Read) -> Result<String, Failure> {
    let mut text = String::new();
    let read = input.take(MAX_PASSWORD + 2).read_to_string(&mut text);
    read.map_err(|error| Failure::WrongUse(format!("the password on standard input cannot be read: {error}")))?;
    let password = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if password.is_empty() || password.contains('\n') {
        return Err(Failure::WrongUse(
            "standard input has no password; give it one line, such as with `< FILE`".to_owned(),
        ));
    }
    Ok(password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(given: Value, new: bool, input: &str, expected: Result<Value, &str>) {
        let mut keys = Keys::default();
        for (key, value) in given.as_object().expect("a table") {
            keys.put(&[key], value.clone());
        }
        let found = settle(keys, new, &mut input.as_bytes()).map(Keys::into_json);
        let found = found.map_err(|failure| failure.lines().join(" "));
        assert_eq!(found, expected.map_err(|reason| format!("error: {reason}")));
    }

    #[test]
    fn tls_is_turned_on_without_losing_its_settings() {
        check(json!({"tls": {"on": true}}), true, "", Ok(json!({"tls": true})));
        check(json!({"tls": {"on": true}}), false, "", Ok(json!({"tls": {}})));
        check(json!({"tls": {"on": false}}), false, "", Ok(json!({"tls": false})));
        check(json!({"tls": {"on": true, "ca": "x"}}), true, "", Ok(json!({"tls": {"ca": "x"}})));
        check(json!({"tls": {"ca": "x"}}), false, "", Ok(json!({"tls": {"ca": "x"}})));
        let reason = "--tls=false contradicts the other options of TLS; give either";
        check(json!({"tls": {"on": false, "ca": "x"}}), true, "", Err(reason));
        check(json!({}), false, "", Ok(json!({})));
    }

    #[test]
    fn a_path_makes_it_a_web_socket() {
        check(json!({"transport": {"kind": "tcp"}}), true, "", Ok(json!({"transport": "tcp"})));
        let socket = json!({"transport": {"kind": "websocket", "path": "/m"}});
        check(json!({"transport": {"path": "/m"}}), true, "", Ok(socket));
        let reason = "--transport tcp contradicts --websocket-path; remove one of them";
        check(json!({"transport": {"kind": "tcp", "path": "/m"}}), true, "", Err(reason));
    }

    #[test]
    fn a_password_replaces_the_one_before() {
        let file = json!({"password-file": "f"});
        check(file.clone(), true, "", Ok(file.clone()));
        check(file, false, "", Ok(json!({"password-file": "f", "password": null, "password-env": null})));
        let reason = "--password and --password-env name several passwords; give one";
        check(json!({"password": "x", "password-env": "Y"}), true, "", Err(reason));
    }

    #[test]
    fn a_password_comes_from_standard_input() {
        let given = || json!({"password": "-"});
        check(given(), true, "pässword \r\n", Ok(json!({"password": "pässword "})));
        let none = "standard input has no password; give it one line, such as with `< FILE`";
        check(given(), true, "", Err(none));
        check(given(), true, "one\ntwo\n", Err(none));
    }
}
