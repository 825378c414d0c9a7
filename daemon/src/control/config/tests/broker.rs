//! Errors of `[brokers.NAME]`.

use super::{NONE, address, broker, check};

/// What an unknown key may have been.
const BROKER_KEYS: &str = "address, auto-connect, birth, clean-session, client-id, close, dispatch, keep-alive, max-packet, outbox, parallel-limit, password, password-env, password-file, port, protocol, receive-maximum, session-expiry, tls, transport, username, will";

#[test]
fn port() {
    broker("port = 0", &["tidegate.toml:3:8: brokers.plant.port = 0: must be 1 to 65535; use 1"]);
    broker("port = 65536", &["tidegate.toml:3:8: brokers.plant.port = 65536: must be 1 to 65535; use 65535"]);
    broker("port = -1", &["tidegate.toml:3:8: brokers.plant.port = -1: must be 1 to 65535; use 1"]);
    broker(
        r#"port = "1883""#,
        &[r#"tidegate.toml:3:8: brokers.plant.port = "1883": expected an integer, got a string; use 1883"#],
    );
    broker(
        r#"port = "mqtt""#,
        &[
            r#"tidegate.toml:3:8: brokers.plant.port = "mqtt": expected an integer, got a string; use a number from 1 to 65535, without quotes"#,
        ],
    );
    broker(
        "port = 1883.5",
        &[
            "tidegate.toml:3:8: brokers.plant.port = 1883.5: expected an integer, got a float; use a number from 1 to 65535, without quotes",
        ],
    );
    broker("port = 0x10000", &["tidegate.toml:3:8: brokers.plant.port = 0x10000: must be 1 to 65535; use 65535"]);
    broker(
        "port = [1883]",
        &[
            "tidegate.toml:3:8: brokers.plant.port: expected an integer, got an array; use a number from 1 to 65535, without quotes",
        ],
    );
}

#[test]
fn protocol() {
    broker(
        "protocol = 5",
        &[r#"tidegate.toml:3:12: brokers.plant.protocol = 5: expected a string, got an integer; use "5" or "3.1.1""#],
    );
    broker(
        r#"protocol = "4""#,
        &[r#"tidegate.toml:3:12: brokers.plant.protocol = "4": not a known value; use "5" or "3.1.1""#],
    );
    broker(
        "protocol = 3.1",
        &[r#"tidegate.toml:3:12: brokers.plant.protocol = 3.1: expected a string, got a float; use "5" or "3.1.1""#],
    );
    broker(
        r#"protocol = "3.1""#,
        &[r#"tidegate.toml:3:12: brokers.plant.protocol = "3.1": not a known value; use "5" or "3.1.1""#],
    );
}

#[test]
fn client_id() {
    broker(
        r#"client-id = """#,
        &[
            r#"tidegate.toml:3:13: brokers.plant.client-id = "": must not be empty: a session is kept under it; use a stable identifier, or remove the key"#,
        ],
    );
    broker(
        r#"client-id = "a\u0000b""#,
        &[
            r#"tidegate.toml:3:13: brokers.plant.client-id = "a\u0000b": has the character U+0000 (MQTT 5 §1.5.4); remove it"#,
        ],
    );
    broker(
        "client-id = 7",
        &[r#"tidegate.toml:3:13: brokers.plant.client-id = 7: expected a string, got an integer; use "7""#],
    );
}

#[test]
fn username() {
    broker(
        "username = 7",
        &[r#"tidegate.toml:3:12: brokers.plant.username = 7: expected a string, got an integer; use "7""#],
    );
    broker(
        r#"username = "a\u0000""#,
        &[
            r#"tidegate.toml:3:12: brokers.plant.username = "a\u0000": has the character U+0000 (MQTT 5 §1.5.4); remove it"#,
        ],
    );
}

#[test]
fn password() {
    broker(
        "protocol = \"3.1.1\"\npassword = \"hunter2\"",
        &[
            r#"tidegate.toml:4:12: brokers.plant.password = ***: a password without a user name (MQTT 3.1.1 §3.1.2.9); add username = "…", or use protocol = "5""#,
        ],
    );
    broker(
        "password = 12345",
        &["tidegate.toml:3:12: brokers.plant.password = ***: expected a string, got an integer; write it in quotes"],
    );
    broker(
        r#"password = { a = "hunter2" }"#,
        &["tidegate.toml:3:12: brokers.plant.password: expected a string, got a table; write a text in quotes"],
    );
    broker(
        "password = \"hunter2\"\npassword-file = \"Cargo.toml\"\npassword-env = \"SITE\"",
        &[
            r#"tidegate.toml:4:17: brokers.plant.password-file = "Cargo.toml": the password is also given at tidegate.toml:3:12; keep one of password, password-file and password-env"#,
            r#"tidegate.toml:5:16: brokers.plant.password-env = "SITE": the password is also given at tidegate.toml:3:12; keep one of password, password-file and password-env"#,
        ],
    );
    broker(
        r#"password = "hunter2-${env:NONE}""#,
        &[
            "tidegate.toml:3:12: brokers.plant.password = ***: the environment variable NONE is not set; set it for the daemon",
        ],
    );
    broker(
        r#"password = "hunter2 ${""#,
        &[
            r#"tidegate.toml:3:12: brokers.plant.password = ***: "${" has no closing brace; use "${env:NAME}" or "${file:PATH}", or "$${" for the characters themselves"#,
        ],
    );
}

#[test]
fn unknown_keys() {
    broker(
        r#"passwort = "hunter2""#,
        &[&format!(
            r#"tidegate.toml:3:1: brokers.plant.passwort: unknown key; did you mean "password"? known here: {BROKER_KEYS}"#
        )],
    );
    broker(
        "silence = 1",
        &[&format!("tidegate.toml:3:1: brokers.plant.silence: unknown key; known here: {BROKER_KEYS}")],
    );
}

#[test]
fn password_env() {
    broker(
        r#"password-env = "NO_SUCH_VARIABLE""#,
        &[
            r#"tidegate.toml:3:16: brokers.plant.password-env = "NO_SUCH_VARIABLE": this environment variable is not set; set it for the daemon"#,
        ],
    );
    broker(
        r#"password-env = "hunter2""#,
        &[
            "tidegate.toml:3:16: brokers.plant.password-env = ***: this environment variable is not set; set it for the daemon",
        ],
    );
}

#[test]
fn password_file() {
    broker(
        r#"password-file = """#,
        &[r#"tidegate.toml:3:17: brokers.plant.password-file = "": not a path; use the path of a file or folder"#],
    );
}

#[test]
fn keep_alive() {
    broker(
        "keep-alive = 29",
        &["tidegate.toml:3:14: brokers.plant.keep-alive = 29: must be 30 to 64800 seconds; use 30"],
    );
    broker(
        "keep-alive = 64801",
        &["tidegate.toml:3:14: brokers.plant.keep-alive = 64801: must be 30 to 64800 seconds; use 64800"],
    );
    broker(
        r#"keep-alive = "60s""#,
        &[
            r#"tidegate.toml:3:14: brokers.plant.keep-alive = "60s": expected an integer, got a string; use a number from 30 to 64800 seconds, without quotes"#,
        ],
    );
}

#[test]
fn auto_connect() {
    broker(
        r#"auto-connect = "true""#,
        &[r#"tidegate.toml:3:16: brokers.plant.auto-connect = "true": expected a boolean, got a string; use true"#],
    );
    broker(
        r#"auto-connect = "yes""#,
        &[
            r#"tidegate.toml:3:16: brokers.plant.auto-connect = "yes": expected a boolean, got a string; use true or false, without quotes"#,
        ],
    );
}

#[test]
fn clean_session() {
    broker(
        "clean-session = 1",
        &[
            "tidegate.toml:3:17: brokers.plant.clean-session = 1: expected a boolean, got an integer; use true or false, without quotes",
        ],
    );
}

#[test]
fn session_expiry() {
    broker(
        "session-expiry = 3600",
        &[
            r#"tidegate.toml:3:18: brokers.plant.session-expiry = 3600: expected a duration, got an integer; use "3600ms", "3600s" or "3600m""#,
        ],
    );
    broker(
        r#"session-expiry = "0s""#,
        &[r#"tidegate.toml:3:18: brokers.plant.session-expiry = "0s": must be 1s to 49710d; use "1s""#],
    );
    broker(
        r#"session-expiry = "50000d""#,
        &[r#"tidegate.toml:3:18: brokers.plant.session-expiry = "50000d": must be 1s to 49710d; use "49710d""#],
    );
    broker(
        r#"session-expiry = "1500ms""#,
        &[
            r#"tidegate.toml:3:18: brokers.plant.session-expiry = "1500ms": has a fraction of a second (MQTT 5 §3.1.2.11.2); use whole seconds"#,
        ],
    );
    broker(
        "protocol = \"3.1.1\"\nsession-expiry = \"1h\"",
        &[
            r#"tidegate.toml:4:18: brokers.plant.session-expiry = "1h": only protocol 5 has it; remove it, or use protocol = "5""#,
        ],
    );
    broker(
        "clean-session = true\nsession-expiry = \"1h\"",
        &[
            r#"tidegate.toml:4:18: brokers.plant.session-expiry = "1h": contradicts clean-session = true: no session is kept; remove one of the two"#,
        ],
    );
}

#[test]
fn receive_maximum() {
    broker(
        "receive-maximum = 0",
        &["tidegate.toml:3:19: brokers.plant.receive-maximum = 0: must be 1 to 65535; use 1"],
    );
    broker(
        "receive-maximum = 65536",
        &["tidegate.toml:3:19: brokers.plant.receive-maximum = 65536: must be 1 to 65535; use 65535"],
    );
}

#[test]
fn outbox() {
    broker(r#"outbox = { store = "memory", max-age = "off", when-full = "block" }"#, NONE);
    broker(
        r#"outbox = "memory""#,
        &[
            r#"tidegate.toml:3:10: brokers.plant.outbox = "memory": expected a table, got a string; use outbox = { max-messages = 10000, max-bytes = "64MiB" }"#,
        ],
    );
    broker(
        "outbox = { messages = 5 }",
        &[
            r#"tidegate.toml:3:12: brokers.plant.outbox.messages: unknown key; known here: max-age, max-bytes, max-messages, store, when-full"#,
        ],
    );
    broker(r#"outbox = { store = "disk", max-messages = 10000000, max-bytes = "64GiB" }"#, NONE);
    broker(
        r#"outbox = { store = "ram" }"#,
        &[r#"tidegate.toml:3:20: brokers.plant.outbox.store = "ram": not a known value; use "memory" or "disk""#],
    );
    broker(
        "outbox = { store = true }",
        &[
            r#"tidegate.toml:3:20: brokers.plant.outbox.store = true: expected a string, got a boolean; use "memory" or "disk""#,
        ],
    );
}

#[test]
fn outbox_limits() {
    broker(
        "outbox = { max-messages = 0 }",
        &["tidegate.toml:3:27: brokers.plant.outbox.max-messages = 0: must be 1 to 1000000; use 1"],
    );
    broker(
        "outbox = { max-messages = 1000001 }",
        &["tidegate.toml:3:27: brokers.plant.outbox.max-messages = 1000001: must be 1 to 1000000; use 1000000"],
    );
    broker(
        r#"outbox = { max-messages = 10000001, max-bytes = "65GiB", store = "disk" }"#,
        &[
            "tidegate.toml:3:27: brokers.plant.outbox.max-messages = 10000001: must be 1 to 10000000; use 10000000",
            r#"tidegate.toml:3:49: brokers.plant.outbox.max-bytes = "65GiB": must be 1KiB to 64GiB; use "64GiB""#,
        ],
    );
    broker(
        r#"outbox = { max-bytes = "1B" }"#,
        &[r#"tidegate.toml:3:24: brokers.plant.outbox.max-bytes = "1B": must be 1KiB to 4GiB; use "1KiB""#],
    );
    broker(
        r#"outbox = { max-bytes = "5GiB" }"#,
        &[r#"tidegate.toml:3:24: brokers.plant.outbox.max-bytes = "5GiB": must be 1KiB to 4GiB; use "4GiB""#],
    );
    broker(
        "outbox = { max-bytes = 1024 }",
        &[r#"tidegate.toml:3:24: brokers.plant.outbox.max-bytes = 1024: expected a size, got an integer; use "1KiB""#],
    );
    // What is suggested is within the range.
    broker(
        "outbox = { max-bytes = 5 }",
        &[r#"tidegate.toml:3:24: brokers.plant.outbox.max-bytes = 5: expected a size, got an integer; use "1KiB""#],
    );
    broker(
        r#"outbox = { max-age = "99ms" }"#,
        &[r#"tidegate.toml:3:22: brokers.plant.outbox.max-age = "99ms": must be 100ms to 365d; use "100ms""#],
    );
    broker(
        r#"outbox = { max-age = "2y" }"#,
        &[r#"tidegate.toml:3:22: brokers.plant.outbox.max-age = "2y": must be 100ms to 365d; use "365d""#],
    );
    broker(
        "outbox = { max-age = false }",
        &[
            r#"tidegate.toml:3:22: brokers.plant.outbox.max-age = false: expected a duration or "off", got a boolean; use "off", or a number and a unit, such as "10m""#,
        ],
    );
    broker(
        r#"outbox = { when-full = "drop" }"#,
        &[
            r#"tidegate.toml:3:24: brokers.plant.outbox.when-full = "drop": not a known value; use "block", "drop-oldest" or "reject""#,
        ],
    );
}

#[test]
fn max_packet() {
    broker(
        "max-packet = 1024",
        &[r#"tidegate.toml:3:14: brokers.plant.max-packet = 1024: expected a size, got an integer; use "1KiB""#],
    );
    broker(
        r#"max-packet = "512B""#,
        &[r#"tidegate.toml:3:14: brokers.plant.max-packet = "512B": must be 1KiB to 256MiB; use "1KiB""#],
    );
    broker(
        r#"max-packet = "257MiB""#,
        &[r#"tidegate.toml:3:14: brokers.plant.max-packet = "257MiB": must be 1KiB to 256MiB; use "256MiB""#],
    );
    broker(
        r#"max-packet = "1.5MiB""#,
        &[
            r#"tidegate.toml:3:14: brokers.plant.max-packet = "1.5MiB": not a size; use a whole number and a unit, such as "64KiB""#,
        ],
    );
    broker(
        r#"max-packet = "1024""#,
        &[
            r#"tidegate.toml:3:14: brokers.plant.max-packet = "1024": a size needs a unit; use "1024B", "1024KiB" or "1024MiB""#,
        ],
    );
    broker(
        r#"max-packet = "1 mile""#,
        &[
            r#"tidegate.toml:3:14: brokers.plant.max-packet = "1 mile": not a unit of size; use B, KiB, MiB or GiB, such as "64KiB""#,
        ],
    );
    broker(
        r#"max-packet = "99999999999GiB""#,
        &[r#"tidegate.toml:3:14: brokers.plant.max-packet = "99999999999GiB": too large; use a smaller size"#],
    );
    broker(
        "max-packet = 1.5",
        &[
            r#"tidegate.toml:3:14: brokers.plant.max-packet = 1.5: expected a size, got a float; use a number and a unit, such as "64KiB""#,
        ],
    );
}

#[test]
fn parallel_limit() {
    broker(
        "parallel-limit = 2",
        &[r#"tidegate.toml:3:18: brokers.plant.parallel-limit = 2: must be 3 to 1000, or "off"; use 3"#],
    );
    broker(
        "parallel-limit = 1001",
        &[r#"tidegate.toml:3:18: brokers.plant.parallel-limit = 1001: must be 3 to 1000, or "off"; use 1000"#],
    );
    broker(
        r#"parallel-limit = "none""#,
        &[
            r#"tidegate.toml:3:18: brokers.plant.parallel-limit = "none": expected an integer or "off", got a string; use "off", or a number from 3 to 1000 without quotes"#,
        ],
    );
    broker(
        r#"parallel-limit = "16""#,
        &[
            r#"tidegate.toml:3:18: brokers.plant.parallel-limit = "16": expected an integer or "off", got a string; use "off", or a number from 3 to 1000 without quotes"#,
        ],
    );
    broker(
        "parallel-limit = false",
        &[
            r#"tidegate.toml:3:18: brokers.plant.parallel-limit = false: expected an integer or "off", got a boolean; use "off", or a number from 3 to 1000 without quotes"#,
        ],
    );
}

#[test]
fn dispatch() {
    broker(
        r#"dispatch = "first""#,
        &[r#"tidegate.toml:3:12: brokers.plant.dispatch = "first": not a known value; use "best" or "all""#],
    );
    broker(
        "dispatch = 1",
        &[r#"tidegate.toml:3:12: brokers.plant.dispatch = 1: expected a string, got an integer; use "best" or "all""#],
    );
}

#[test]
fn will() {
    broker(
        r#"will = "offline""#,
        &[
            r#"tidegate.toml:3:8: brokers.plant.will = "offline": expected a table, got a string; use { topic = "TOPIC", message = "TEXT" }"#,
        ],
    );
    broker("will = {}", &[r#"tidegate.toml:3:8: brokers.plant.will.topic: missing; add topic = "TOPIC""#]);
    broker(
        r#"will = { topic = "" }"#,
        &[
            r#"tidegate.toml:3:18: brokers.plant.will.topic = "": must not be empty (MQTT 5 §4.7.3); use one topic such as "gateway/state""#,
        ],
    );
    broker(
        r#"will = { topic = "a/+/b" }"#,
        &[
            r#"tidegate.toml:3:18: brokers.plant.will.topic = "a/+/b": has the wildcard '+' at byte 2, which only a topic filter may have (MQTT 5 §4.7.1); use one topic such as "gateway/state""#,
        ],
    );
    broker(
        r#"will = { topic = "a\u0000" }"#,
        &[
            r#"tidegate.toml:3:18: brokers.plant.will.topic = "a\u0000": has the character U+0000 at byte 1 (MQTT 5 §4.7.3); use one topic such as "gateway/state""#,
        ],
    );
    broker(
        r#"will = { topic = "a", mesage = "x" }"#,
        &[
            r#"tidegate.toml:3:23: brokers.plant.will.mesage: unknown key; did you mean "message"? known here: message, qos, retain, topic"#,
        ],
    );
}

#[test]
fn birth() {
    broker(
        r#"birth = { topic = "a", qos = 3 }"#,
        &["tidegate.toml:3:30: brokers.plant.birth.qos = 3: must be 0 to 2 (MQTT 5 §4.3); use 2"],
    );
    broker(
        r#"birth = { topic = "a", qos = "1" }"#,
        &[r#"tidegate.toml:3:30: brokers.plant.birth.qos = "1": expected an integer, got a string; use 1"#],
    );
}

#[test]
fn close() {
    broker(
        r#"close = { topic = "a", retain = "true", message = 1 }"#,
        &[
            r#"tidegate.toml:3:33: brokers.plant.close.retain = "true": expected a boolean, got a string; use true"#,
            r#"tidegate.toml:3:51: brokers.plant.close.message = 1: expected a string, got an integer; use "1""#,
        ],
    );
}

#[test]
fn addresses() {
    address(
        "",
        &[r#"tidegate.toml:2:11: brokers.plant.address = "": must not be empty; use a host name or an IP address"#],
    );
    address(
        "tcp://mqtt.example",
        &[
            r#"tidegate.toml:2:11: brokers.plant.address = "tcp://mqtt.example": must not have a prefix: a name or address alone; use "mqtt.example""#,
        ],
    );
    address(
        "tcp://mqtt.example:1884",
        &[
            r#"tidegate.toml:2:11: brokers.plant.address = "tcp://mqtt.example:1884": must not have a prefix: a name or address alone; use "mqtt.example" and port = 1884"#,
        ],
    );
    address(
        "mqtt://mqtt.example/",
        &[
            r#"tidegate.toml:2:11: brokers.plant.address = "mqtt://mqtt.example/": must not have a prefix: a name or address alone; use "mqtt.example""#,
        ],
    );
    address(
        "ssl://mqtt.example:8883",
        &[
            r#"tidegate.toml:2:11: brokers.plant.address = "ssl://mqtt.example:8883": must not have a prefix: a name or address alone; use "mqtt.example", port = 8883 and tls = true"#,
        ],
    );
    address(
        "mqtts://mqtt.example",
        &[
            r#"tidegate.toml:2:11: brokers.plant.address = "mqtts://mqtt.example": must not have a prefix: a name or address alone; use "mqtt.example" and tls = true"#,
        ],
    );
    address(
        "wss://mqtt.example/mqtt",
        &[
            r#"tidegate.toml:2:11: brokers.plant.address = "wss://mqtt.example/mqtt": must not have a prefix: a name or address alone; use "mqtt.example", tls = true and transport = "websocket""#,
        ],
    );
    address(
        "foo://mqtt.example",
        &[
            r#"tidegate.toml:2:11: brokers.plant.address = "foo://mqtt.example": must not have a prefix: a name or address alone; use "mqtt.example""#,
        ],
    );
    address(
        "mqtt://user:hunter2@mqtt.example:1884",
        &[
            r#"tidegate.toml:2:11: brokers.plant.address = ***: must not have a prefix: a name or address alone; use "mqtt.example" and port = 1884"#,
        ],
    );
    address(
        "mqtt.example:1884",
        &[
            r#"tidegate.toml:2:11: brokers.plant.address = "mqtt.example:1884": has a port; use "mqtt.example" and port = 1884"#,
        ],
    );
    address(
        "192.0.2.1:1884",
        &[
            r#"tidegate.toml:2:11: brokers.plant.address = "192.0.2.1:1884": has a port; use "192.0.2.1" and port = 1884"#,
        ],
    );
    address("[::1]", &[r#"tidegate.toml:2:11: brokers.plant.address = "[::1]": has brackets; use "::1""#]);
    address(
        "[::1]:1884",
        &[r#"tidegate.toml:2:11: brokers.plant.address = "[::1]:1884": has brackets; use "::1" and port = 1884"#],
    );
    address(
        "user:hunter2@mqtt.example",
        &[r#"tidegate.toml:2:11: brokers.plant.address = ***: has a user name; use "mqtt.example" and username = "…""#],
    );
    address(
        "mqtt.example/mqtt",
        &[r#"tidegate.toml:2:11: brokers.plant.address = "mqtt.example/mqtt": has a path; use "mqtt.example""#],
    );
    address(
        "192.0.2.300",
        &[
            r#"tidegate.toml:2:11: brokers.plant.address = "192.0.2.300": not an IPv4 address; use four numbers from 0 to 255, such as "192.0.2.1""#,
        ],
    );
    address(
        "1.2.3",
        &[
            r#"tidegate.toml:2:11: brokers.plant.address = "1.2.3": not an IPv4 address; use four numbers from 0 to 255, such as "192.0.2.1""#,
        ],
    );
    address(
        "mqtt example",
        &[
            r#"tidegate.toml:2:11: brokers.plant.address = "mqtt example": not a host name or IP address; use a host name such as "mqtt.example" or an IP address"#,
        ],
    );
    address(
        "mqtt..example",
        &[
            r#"tidegate.toml:2:11: brokers.plant.address = "mqtt..example": not a host name or IP address; use a host name such as "mqtt.example" or an IP address"#,
        ],
    );
    address(
        "bücher.example",
        &[
            r#"tidegate.toml:2:11: brokers.plant.address = "bücher.example": not a host name in ASCII; use its form with "xn--""#,
        ],
    );
    address(
        "a:b:c",
        &[
            r#"tidegate.toml:2:11: brokers.plant.address = "a:b:c": not a host name or IP address; use a host name such as "mqtt.example" or an IP address"#,
        ],
    );
    address(
        "${env:SITE}://mqtt.example",
        &[
            r#"tidegate.toml:2:11: brokers.plant.address = "${env:SITE}://mqtt.example": must not have a prefix: a name or address alone; use a host name or an IP address alone"#,
        ],
    );
}

#[test]
fn names_and_clients() {
    check("[brokers.plant]\nport = 1", &[r#"tidegate.toml:1:1: brokers.plant.address: missing; add address = "HOST""#]);
    check(
        "[brokers.\"a b\"]\naddress = \"a\"",
        &[
            r#"tidegate.toml:1:1: brokers."a b": not a name: 1 to 64 letters, digits, "-" and "_"; rename it (a grant "BROKER:FILTER" ends the name at the first colon)"#,
        ],
    );
    check(
        "[brokers.\"plant:1\"]\naddress = \"a\"",
        &[
            r#"tidegate.toml:1:1: brokers."plant:1": not a name: 1 to 64 letters, digits, "-" and "_"; rename it (a grant "BROKER:FILTER" ends the name at the first colon)"#,
        ],
    );
    check(
        "[brokers.\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"]\naddress = \"a\"",
        &[
            r#"tidegate.toml:1:1: brokers.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx: not a name: 1 to 64 letters, digits, "-" and "_"; rename it (a grant "BROKER:FILTER" ends the name at the first colon)"#,
        ],
    );
    check(
        r#"brokers.plant = "mqtt.example""#,
        &[r#"tidegate.toml:1:17: brokers.plant = ***: expected a table, got a string; use [brokers.NAME]"#],
    );
    check(
        "[brokers.a]\naddress = \"mqtt.example\"\nclient-id = \"gw\"\n[brokers.b]\naddress = \"MQTT.example\"\nclient-id = \"gw\"",
        &[
            r#"tidegate.toml:6:13: brokers.b.client-id = "gw": the same client identifier and server as at tidegate.toml:3:13: each session would end the other; use another client-id"#,
        ],
    );
    check(
        "[brokers.a]\naddress = \"mqtt.example\"\nclient-id = \"tidegate-host-b\"\n[brokers.b]\naddress = \"mqtt.example\"",
        &[
            "tidegate.toml:4:1: brokers.b: the same client identifier and server as at tidegate.toml:3:13: each session would end the other; use another client-id",
        ],
    );
}
