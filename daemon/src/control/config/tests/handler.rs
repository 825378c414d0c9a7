//! Errors of `[handlers.NAME]`.

use super::{BROKER_AND_HANDLER, NONE, check, check_warnings, good, handler, plugin};

/// What an unknown key may have been.
const HANDLER_KEYS: &str = "allow, call-deadline, config, dead-letter, default-broker, instances, isolation, max-memory, max-publish-bytes, max-publishes, overload, plugin, quarantine, queue, queue-bytes, reload, retry";

#[test]
fn instances() {
    handler("instances = 0", &["tidegate.toml:5:13: handlers.celsius.instances = 0: must be 1 to 256; use 1"]);
    handler("instances = 257", &["tidegate.toml:5:13: handlers.celsius.instances = 257: must be 1 to 256; use 256"]);
    handler(
        r#"instances = "2""#,
        &[r#"tidegate.toml:5:13: handlers.celsius.instances = "2": expected an integer, got a string; use 2"#],
    );
}

#[test]
fn isolation() {
    handler(
        r#"isolation = "strict""#,
        &[
            r#"tidegate.toml:5:13: handlers.celsius.isolation = "strict": not a known value; use "reuse" or "per-message""#,
        ],
    );
}

#[test]
fn call_deadline() {
    handler(
        "call-deadline = 250",
        &[
            r#"tidegate.toml:5:17: handlers.celsius.call-deadline = 250: expected a duration, got an integer; use "250ms", "250s" or "250m""#,
        ],
    );
    handler(
        r#"call-deadline = "0s""#,
        &[r#"tidegate.toml:5:17: handlers.celsius.call-deadline = "0s": must be 1ms to 1h; use "1ms""#],
    );
    handler(
        r#"call-deadline = "2h""#,
        &[r#"tidegate.toml:5:17: handlers.celsius.call-deadline = "2h": must be 1ms to 1h; use "1h""#],
    );
    handler(
        r#"call-deadline = "250""#,
        &[
            r#"tidegate.toml:5:17: handlers.celsius.call-deadline = "250": a duration needs a unit; use "250ms", "250s" or "250m""#,
        ],
    );
    handler(
        r#"call-deadline = "${env:NUMBER}""#,
        &[
            r#"tidegate.toml:5:17: handlers.celsius.call-deadline = "${env:NUMBER}": a duration needs a unit; change what it stands for"#,
        ],
    );
}

#[test]
fn max_memory() {
    handler(
        "max-memory = 65536",
        &[r#"tidegate.toml:5:14: handlers.celsius.max-memory = 65536: expected a size, got an integer; use "64KiB""#],
    );
    handler(
        r#"max-memory = "32KiB""#,
        &[r#"tidegate.toml:5:14: handlers.celsius.max-memory = "32KiB": must be 64KiB to 4GiB; use "64KiB""#],
    );
    handler(
        r#"max-memory = "5GiB""#,
        &[r#"tidegate.toml:5:14: handlers.celsius.max-memory = "5GiB": must be 64KiB to 4GiB; use "4GiB""#],
    );
    handler(
        r#"max-memory = "64""#,
        &[
            r#"tidegate.toml:5:14: handlers.celsius.max-memory = "64": a size needs a unit; use "64B", "64KiB" or "64MiB""#,
        ],
    );
    handler(
        r#"max-memory = "${env:NUMBER}""#,
        &[
            r#"tidegate.toml:5:14: handlers.celsius.max-memory = "${env:NUMBER}": a size needs a unit; change what it stands for"#,
        ],
    );
}

#[test]
fn queue() {
    handler("queue = 0", &["tidegate.toml:5:9: handlers.celsius.queue = 0: must be 1 to 1000000; use 1"]);
    handler(
        "queue = 1000001",
        &["tidegate.toml:5:9: handlers.celsius.queue = 1000001: must be 1 to 1000000; use 1000000"],
    );
}

#[test]
fn queue_bytes() {
    handler(
        r#"queue-bytes = "1B""#,
        &[r#"tidegate.toml:5:15: handlers.celsius.queue-bytes = "1B": must be 1KiB to 1GiB; use "1KiB""#],
    );
    handler(
        r#"queue-bytes = "2GiB""#,
        &[r#"tidegate.toml:5:15: handlers.celsius.queue-bytes = "2GiB": must be 1KiB to 1GiB; use "1GiB""#],
    );
}

#[test]
fn overload() {
    handler(
        r#"overload = "drop""#,
        &[
            r#"tidegate.toml:5:12: handlers.celsius.overload = "drop": not a known value; use "drop-newest" or "drop-oldest""#,
        ],
    );
}

#[test]
fn max_publishes() {
    handler(
        "max-publishes = 1000001",
        &["tidegate.toml:5:17: handlers.celsius.max-publishes = 1000001: must be 0 to 1000000; use 1000000"],
    );
    handler(
        "max-publishes = -1",
        &["tidegate.toml:5:17: handlers.celsius.max-publishes = -1: must be 0 to 1000000; use 0"],
    );
}

#[test]
fn max_publish_bytes() {
    handler(
        r#"max-publish-bytes = "2GiB""#,
        &[r#"tidegate.toml:5:21: handlers.celsius.max-publish-bytes = "2GiB": must be 1B to 1GiB; use "1GiB""#],
    );
    handler(
        r#"max-publish-bytes = "0B""#,
        &[r#"tidegate.toml:5:21: handlers.celsius.max-publish-bytes = "0B": must be 1B to 1GiB; use "1B""#],
    );
}

#[test]
fn quarantine() {
    handler(
        "quarantine = false",
        &[
            r#"tidegate.toml:5:14: handlers.celsius.quarantine = false: expected a table, got a boolean; use { after = 5, for = "30s" } or "off""#,
        ],
    );
    handler(
        r#"quarantine = "on""#,
        &[r#"tidegate.toml:5:14: handlers.celsius.quarantine = "on": not a known value; use "off""#],
    );
    handler(
        "quarantine = { after = 0 }",
        &["tidegate.toml:5:24: handlers.celsius.quarantine.after = 0: must be 1 to 1000; use 1"],
    );
    handler(
        r#"quarantine = { for = "11m" }"#,
        &[r#"tidegate.toml:5:22: handlers.celsius.quarantine.for = "11m": must be 1ms to 10m; use "10m""#],
    );
    handler(
        "quarantine = { times = 3 }",
        &["tidegate.toml:5:16: handlers.celsius.quarantine.times: unknown key; known here: after, for"],
    );
}

#[test]
fn reload() {
    handler(
        "reload = 0.1",
        &[
            "tidegate.toml:5:10: handlers.celsius.reload = 0.1: expected a table, got a float; use { canary = 0.1, max-failures = 0.05 }",
        ],
    );
    handler(
        "reload = { share = 0.1 }",
        &["tidegate.toml:5:12: handlers.celsius.reload.share: unknown key; known here: canary, max-failures"],
    );
    let canary = |written: &str, told: &str| {
        let line = format!("tidegate.toml:5:21: handlers.celsius.reload.canary = {written}: {told}");
        handler(&format!("reload = {{ canary = {written} }}"), &[&line]);
    };
    canary("true", "expected a number, got a boolean; use a share such as 0.1, or \"off\"");
    canary("\"on\"", "expected a number, got a string; use a share such as 0.1, or \"off\"");
    canary("\"0.25\"", "expected a number, got a string; use 0.25");
    for written in ["0", "0.0", "-0.1", "1.01", "10", "nan", "inf", "99999999999999999999"] {
        canary(written, "must be more than 0 and at most 1; use a share such as 0.1, or \"off\"");
    }
    let failures = |written: &str, told: &str| {
        let line = format!("tidegate.toml:5:27: handlers.celsius.reload.max-failures = {written}: {told}");
        handler(&format!("reload = {{ max-failures = {written} }}"), &[&line]);
    };
    failures("\"off\"", "expected a number, got a string; use a share such as 0.05");
    failures("\"0\"", "expected a number, got a string; use 0");
    for written in ["1", "1.0", "-0.01", "5", "nan"] {
        failures(written, "must be at least 0 and less than 1; use a share such as 0.05");
    }
}

#[test]
fn retry() {
    handler(
        r#"retry = 3"#,
        &[
            r#"tidegate.toml:5:9: handlers.celsius.retry = 3: expected a table, got an integer; use { max = 3, backoff = "100ms..10s", max-time = "30s" }"#,
        ],
    );
    handler(
        "retry = { max = 1001 }",
        &["tidegate.toml:5:17: handlers.celsius.retry.max = 1001: must be 0 to 1000; use 1000"],
    );
    handler(
        r#"retry = { backoff = 100 }"#,
        &[
            r#"tidegate.toml:5:21: handlers.celsius.retry.backoff = 100: expected two durations, got an integer; use "SHORTEST..LONGEST", such as "100ms..10s""#,
        ],
    );
    handler(
        r#"retry = { backoff = "10s..100ms" }"#,
        &[
            r#"tidegate.toml:5:21: handlers.celsius.retry.backoff = "10s..100ms": the shortest comes first; use "100ms..10s""#,
        ],
    );
    handler(
        r#"retry = { backoff = "0s..2h" }"#,
        &[r#"tidegate.toml:5:21: handlers.celsius.retry.backoff = "0s..2h": both must be 1ms to 1h; use "1ms..1h""#],
    );
    handler(
        r#"retry = { backoff = "100..10s" }"#,
        &[
            r#"tidegate.toml:5:21: handlers.celsius.retry.backoff = "100..10s": a duration needs a unit; use "100ms", "100s" or "100m""#,
        ],
    );
    handler(
        r#"retry = { backoff = "2h" }"#,
        &[r#"tidegate.toml:5:21: handlers.celsius.retry.backoff = "2h": must be 1ms to 1h; use "1h""#],
    );
    handler(
        r#"retry = { max-time = "61m" }"#,
        &[r#"tidegate.toml:5:22: handlers.celsius.retry.max-time = "61m": must be 0s to 1h; use "1h""#],
    );
    handler(
        r#"retry = { times = 3 }"#,
        &["tidegate.toml:5:11: handlers.celsius.retry.times: unknown key; known here: backoff, max, max-time"],
    );
}

#[test]
fn default_broker() {
    handler("default-broker = \"plant\"", NONE);
    handler(
        "default-broker = \"plnt\"",
        &[r#"tidegate.toml:5:18: handlers.celsius.default-broker = "plnt": no such broker; did you mean "plant"?"#],
    );
    handler(
        "default-broker = 1",
        &["tidegate.toml:5:18: handlers.celsius.default-broker = 1: expected a string, got an integer; use \"1\""],
    );
}

#[test]
fn allow_system() {
    let handler = |text: &str| good(&format!("{BROKER_AND_HANDLER}{text}")).config.handlers[0].allow.system;
    assert!(handler("allow.system = true"));
    assert!(!handler("allow.publish = []"));
    check(
        &format!("{BROKER_AND_HANDLER}allow = {{ system = \"yes\" }}"),
        &[
            r#"tidegate.toml:5:20: handlers.celsius.allow.system = "yes": expected a boolean, got a string; use true or false, without quotes"#,
        ],
    );
}

#[test]
fn allow() {
    handler(
        r#"allow = "plant:a/#""#,
        &[
            r#"tidegate.toml:5:9: handlers.celsius.allow = "plant:a/#": expected a table, got a string; use allow = { publish = ["BROKER:FILTER"] }"#,
        ],
    );
    handler(
        r#"allow = { publish = "plant:a/#" }"#,
        &[
            r#"tidegate.toml:5:21: handlers.celsius.allow.publish = "plant:a/#": expected an array, got a string; use ["BROKER:FILTER"]"#,
        ],
    );
    handler(
        r#"allow = { publish = ["a/#"] }"#,
        &[
            r#"tidegate.toml:5:22: handlers.celsius.allow.publish[0] = "a/#": names no broker; use "BROKER:FILTER", such as "plant:converted/#""#,
        ],
    );
    handler(
        r#"allow = { publish = ["plnt:a/#"] }"#,
        &[
            r#"tidegate.toml:5:22: handlers.celsius.allow.publish[0] = "plnt:a/#": no such broker; did you mean "plant"?"#,
        ],
    );
    handler(
        r#"allow = { publish = [":a/#"] }"#,
        &[
            r#"tidegate.toml:5:22: handlers.celsius.allow.publish[0] = ":a/#": no such broker; use "plant", or add another [brokers.NAME]"#,
        ],
    );
    handler(
        r#"allow = { publish = ["plant:"] }"#,
        &[
            r#"tidegate.toml:5:22: handlers.celsius.allow.publish[0] = "plant:": must not be empty (MQTT 5 §4.7.3); use a topic filter such as "a/+/b" or "a/#""#,
        ],
    );
    handler(
        r#"allow = { publish = ["plant:a/#/b"] }"#,
        &[
            r#"tidegate.toml:5:22: handlers.celsius.allow.publish[0] = "plant:a/#/b": '#' must be the last level (MQTT 5 §4.7.1.2); use "a/#""#,
        ],
    );
    handler(
        r#"allow = { publish = ["plant:$share/g/a"] }"#,
        &[
            r#"tidegate.toml:5:22: handlers.celsius.allow.publish[0] = "plant:$share/g/a": nothing is published to a shared subscription; use "a" without "$share/…/""#,
        ],
    );
    handler(
        "allow = { publish = [1] }",
        &[r#"tidegate.toml:5:22: handlers.celsius.allow.publish[0] = 1: expected a string, got an integer; use "1""#],
    );
    handler(
        r#"allow = { files = "all" }"#,
        &["tidegate.toml:5:11: handlers.celsius.allow.files: unknown key; known here: kv, publish, system"],
    );
    handler(
        r#"allow = { publish = ["${env:SITE}:a"] }"#,
        &[
            r#"tidegate.toml:5:22: handlers.celsius.allow.publish[0] = "${env:SITE}:a": no such broker; use "plant", or add another [brokers.NAME]"#,
        ],
    );
}

#[test]
fn allow_kv() {
    handler(
        r#"allow = { kv = "1000B" }"#,
        &[r#"tidegate.toml:5:16: handlers.celsius.allow.kv = "1000B": must be 1KiB to 64MiB; use "1KiB""#],
    );
    handler(
        r#"allow = { kv = "65MiB" }"#,
        &[r#"tidegate.toml:5:16: handlers.celsius.allow.kv = "65MiB": must be 1KiB to 64MiB; use "64MiB""#],
    );
    handler(
        "allow = { kv = true }",
        &[
            "tidegate.toml:5:16: handlers.celsius.allow.kv = true: expected a size, got a boolean; use a number and a unit, \
           such as \"64KiB\"",
        ],
    );
}

#[test]
fn config() {
    handler(
        r#"config = "x""#,
        &[
            "tidegate.toml:5:10: handlers.celsius.config = ***: expected a table, got a string; use [handlers.NAME.config]",
        ],
    );
    handler(
        "config = { limit = nan }",
        &[
            "tidegate.toml:5:20: handlers.celsius.config.limit = ***: JSON has no infinity and no NaN; use a finite number, or a string",
        ],
    );
    handler(
        "config = { limits = [1, inf] }",
        &[
            "tidegate.toml:5:25: handlers.celsius.config.limits[1] = ***: JSON has no infinity and no NaN; use a finite number, or a string",
        ],
    );
    handler(
        "config = { id = 99999999999999999999 }",
        &[
            "tidegate.toml:5:17: handlers.celsius.config.id = ***: does not fit into 64 bits (TOML 1.0, integer); use a smaller number, or a string",
        ],
    );
    handler(
        r#"config = { token = "hunter2${env:NONE}" }"#,
        &[
            "tidegate.toml:5:20: handlers.celsius.config.token = ***: the environment variable NONE is not set; set it for the daemon",
        ],
    );
    handler(
        r#"config.deep.token = "hunter2${file:none}""#,
        &[
            "tidegate.toml:5:21: handlers.celsius.config.deep.token = ***: the file none cannot be read: it does not exist; write it where the daemon's user can read it",
        ],
    );
}

#[test]
fn unknown_keys() {
    handler(
        "overlord = {}",
        &[&format!(
            r#"tidegate.toml:5:1: handlers.celsius.overlord: unknown key; did you mean "overload"? known here: {HANDLER_KEYS}"#
        )],
    );
}

#[test]
fn plugins() {
    plugin(
        "",
        &[r#"tidegate.toml:4:10: handlers.celsius.plugin = "": not a file name in plugins-dir; use "NAME.wasm""#],
    );
    plugin(
        "celsius",
        &[
            r#"tidegate.toml:4:10: handlers.celsius.plugin = "celsius": a plugin's name is NAME.wasm, or NAME.so of a native one; use "celsius.wasm""#,
        ],
    );
    plugin(
        "celsius.so",
        &[
            r#"tidegate.toml:4:10: handlers.celsius.plugin = "celsius.so": native plugins are not permitted: they run with the daemon's rights, and without limits; use a WebAssembly component (.wasm), or set native = true"#,
        ],
    );
    plugin(
        "/opt/celsius.wasm",
        &[
            r#"tidegate.toml:4:10: handlers.celsius.plugin = "/opt/celsius.wasm": not a file name in plugins-dir; use "celsius.wasm""#,
        ],
    );
    plugin(
        "../celsius.wasm",
        &[
            r#"tidegate.toml:4:10: handlers.celsius.plugin = "../celsius.wasm": not a file name in plugins-dir; use "celsius.wasm""#,
        ],
    );
    plugin(
        "sub/celsius.wasm",
        &[
            r#"tidegate.toml:4:10: handlers.celsius.plugin = "sub/celsius.wasm": not a file name in plugins-dir; use "celsius.wasm""#,
        ],
    );
    plugin(
        "celsius.wat",
        &[
            r#"tidegate.toml:4:10: handlers.celsius.plugin = "celsius.wat": a plugin's name is NAME.wasm, or NAME.so of a native one; use "celsius.wasm""#,
        ],
    );
    plugin(
        ".wasm",
        &[
            r#"tidegate.toml:4:10: handlers.celsius.plugin = ".wasm": a plugin's name is NAME.wasm, or NAME.so of a native one; use "NAME.wasm""#,
        ],
    );
    plugin(
        "..",
        &[r#"tidegate.toml:4:10: handlers.celsius.plugin = "..": not a file name in plugins-dir; use "NAME.wasm""#],
    );
    plugin(
        "/",
        &[r#"tidegate.toml:4:10: handlers.celsius.plugin = "/": not a file name in plugins-dir; use "NAME.wasm""#],
    );
    plugin(
        "${env:NONE}.wasm",
        &[
            r#"tidegate.toml:4:10: handlers.celsius.plugin = "${env:NONE}.wasm": the environment variable NONE is not set; set it for the daemon"#,
        ],
    );
}

#[test]
fn native_plugins() {
    let native = |file: &str, keys: &str| {
        format!(
            "native = true\n[brokers.plant]\naddress = \"mqtt.example\"\n[handlers.h]\nplugin = \"{file}\"\n{keys}\n[[schedules]]\nname = \"s\"\nevery = \"1h\"\non-schedule = \"h\"\n"
        )
    };
    check_warnings(&native("celsius.so", ""), &[]);
    check_warnings(
        &native("celsius.so", "max-memory = \"64MiB\""),
        &[
            r#"tidegate.toml:6:14: handlers.h.max-memory = "64MiB": does not hold for native plugins, which take what memory they want; remove it"#,
        ],
    );
    check_warnings(&native("celsius.wasm", "max-memory = \"64MiB\""), &[]);
    let errors = |file: &str, expected: &str| check(&native(file, ""), &[expected]);
    errors(
        "/opt/celsius.so",
        r#"tidegate.toml:5:10: handlers.h.plugin = "/opt/celsius.so": not a file name in plugins-dir; use "celsius.so""#,
    );
    errors(
        ".so",
        r#"tidegate.toml:5:10: handlers.h.plugin = ".so": a plugin's name is NAME.wasm, or NAME.so of a native one; use "NAME.so""#,
    );
}

#[test]
fn tables() {
    check(
        "[brokers.plant]\naddress = \"mqtt.example\"\n[handlers.celsius]\ninstances = 0",
        &[
            r#"tidegate.toml:3:1: handlers.celsius.plugin: missing; add plugin = "celsius.wasm""#,
            "tidegate.toml:4:13: handlers.celsius.instances = 0: must be 1 to 256; use 1",
        ],
    );
    check(
        "[brokers.plant]\naddress = \"mqtt.example\"\n[handlers.\"a/b\"]\nplugin = \"a.wasm\"",
        &[
            r#"tidegate.toml:3:1: handlers."a/b": not a name: 1 to 64 letters, digits, "-" and "_"; rename it (a grant "BROKER:FILTER" ends the name at the first colon)"#,
        ],
    );
}
