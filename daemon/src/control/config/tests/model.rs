//! Good files: what keys mean, what is left out, and what looks wrong without being so.

use std::time::Duration;

use super::super::model::{
    DispatchMode, Isolation, LogFormat, OnMessage, Otherwise, OutboxLimits, OutboxStore, Overload, Protocol,
    QuarantinePolicy, ReloadPolicy, Retry, WhenFull,
};
use super::super::secret::PasswordSource;
use super::*;
use crate::message::Qos;
use crate::telemetry::received::Limits;

const BROKER: &str = "[brokers.plant]\naddress = \"mqtt.example\"\n";

/// Makes a subscription with further keys.
fn subscription_text(topic: &str, keys: &str) -> String {
    format!("[[subscriptions]]\nbroker = \"plant\"\ntopic = \"{topic}\"\n{keys}\n")
}

#[test]
fn brokers_keep_the_order_of_the_file() {
    let loaded = good("[brokers.b]\naddress = \"b\"\n[brokers.a]\naddress = \"a\"\n[brokers.c]\naddress = \"c\"\n");
    let names: Vec<&str> = loaded.config.brokers.iter().map(|broker| &*broker.name).collect();
    assert_eq!(names, ["b", "a", "c"]);
    assert_eq!(loaded.config.broker("c").map(|broker| broker.id.index()), Some(2));
    assert!(loaded.config.broker("d").is_none());
}

#[test]
fn defaults_of_a_broker() {
    let broker = good(BROKER).config.brokers.remove(0);
    assert_eq!(broker.client_id, "tidegate-host-plant");
    assert_eq!(broker.protocol, Protocol::V5);
    assert_eq!(broker.session_expiry, Duration::from_secs(7 * 86_400));
    assert_eq!(broker.parallel_limit, None);
    assert_eq!(broker.password, None);
}

#[test]
fn a_session_that_is_not_kept_does_not_expire() {
    let check = |keys: &str| {
        let broker = good(&format!("{BROKER}{keys}\n")).config.brokers.remove(0);
        assert_eq!(broker.session_expiry, Duration::ZERO, "{keys}");
    };
    check("protocol = \"3.1.1\"");
    check("clean-session = true");
}

#[test]
fn keys_of_a_broker() {
    let keys = r#"
address = "fe80::1%eth0"
port = 0x75b
protocol = "3.1.1"
client-id = "gw-${env:SITE}"
username = "$${literal}"
password-env = "SECRET"
keep-alive = 64800
auto-connect = false
receive-maximum = 65535
max-packet = "256MiB"
parallel-limit = 16
dispatch = "all"
outbox = { max-messages = 1, max-bytes = "4GiB", max-age = "365d", when-full = "reject" }
will = { topic = "gw/state", message = "offline", qos = 1, retain = true }
"#;
    let broker = good(&format!("[brokers.plant]{keys}")).config.brokers.remove(0);
    assert_eq!(broker.address, "fe80::1%eth0");
    assert_eq!(broker.port.get(), 0x75b);
    assert_eq!(broker.protocol, Protocol::V311);
    assert_eq!(broker.client_id, "gw-north");
    assert_eq!(broker.username.as_deref(), Some("${literal}"));
    assert_eq!(broker.password, Some(PasswordSource::Variable("SECRET".into())));
    assert_eq!(broker.keep_alive, 64_800);
    assert!(!broker.auto_connect);
    assert_eq!(broker.receive_maximum.get(), 65_535);
    assert_eq!(broker.max_packet, 268_435_455);
    assert_eq!(broker.parallel_limit, Some(16));
    assert_eq!(broker.dispatch, DispatchMode::All);
    let age = Some(Duration::from_secs(365 * 86_400));
    let (store, when_full) = (OutboxStore::Memory, WhenFull::Reject);
    let outbox = OutboxLimits { store, messages: 1, bytes: 4 << 30, max_age: age, when_full };
    assert_eq!(broker.outbox, outbox);
    let will = broker.will.as_ref().expect("is given");
    assert_eq!(
        (will.topic.as_str(), &*will.message, will.qos, will.retain),
        ("gw/state", &b"offline"[..], Qos::AtLeastOnce, true)
    );
    assert_eq!(broker.birth, None);
}

#[test]
fn keys_of_a_handler() {
    let keys = r#"
instances = 3
isolation = "per-message"
call-deadline = "250ms"
max-memory = "4GiB"
queue = 1
queue-bytes = "2KB"
overload = "drop-oldest"
retry = { max = 5, backoff = "1s..1m", max-time = "10m" }
quarantine = { after = 2, for = "1s" }
reload = { canary = 0.25, max-failures = 0 }
max-publishes = 0
max-publish-bytes = "64MiB"
dead-letter = { broker = "lab", topic = "dead/${env:SITE}" }
allow = { publish = ["plant:a/${env:SITE}/#", "lab:b:c"], kv = "64MiB" }
[handlers.celsius.config]
unit = "${env:SITE}"
limits = [1, -2, 2.5]
since = 1979-05-27T07:32:00Z
deep = { on = true }
[brokers.lab]
address = "lab"
"#;
    let loaded = good(&format!("plugins-dir = \"/plugins\"\n{BROKER_AND_HANDLER}{keys}"));
    let handler = &loaded.config.handlers[0];
    assert_eq!(handler.plugin, Path::new("/plugins/celsius.wasm"));
    assert_eq!(handler.instances.get(), 3);
    assert_eq!(handler.isolation, Isolation::PerMessage);
    assert_eq!(handler.call_deadline, Duration::from_millis(250));
    assert_eq!(handler.max_memory as u64, 4 << 30);
    assert_eq!((handler.queue, handler.queue_bytes, handler.overload), (1, 2_000, Overload::DropOldest));
    let second = Duration::from_secs(1);
    assert_eq!(handler.retry, Retry { max: 5, backoff: second..=60 * second, max_time: 600 * second });
    assert_eq!(handler.quarantine, Some(QuarantinePolicy { after: 2, wait: second }));
    assert_eq!(handler.reload, ReloadPolicy { canary: Some(0.25), max_failures: 0.0 });
    assert_eq!((handler.max_publishes, handler.max_publish_bytes), (0, 64 << 20));
    let dead_letter = handler.dead_letter.as_ref().map(|place| (place.broker.index(), place.topic.as_str()));
    assert_eq!(dead_letter, Some((1, "dead/north")));
    let grants: Vec<_> =
        handler.allow.publish.iter().map(|grant| (grant.broker.index(), grant.filter.as_str())).collect();
    assert_eq!(grants, [(0, "a/north/#"), (1, "b:c")]);
    assert_eq!(handler.allow.kv, Some(64 << 20));
    let config = serde_json::Value::Object(handler.config.clone());
    let expected = r#"{"unit":"north","limits":[1,-2,2.5],"since":"1979-05-27T07:32:00Z","deep":{"on":true}}"#;
    assert_eq!(config, serde_json::from_str::<serde_json::Value>(expected).expect("is JSON"));
}

#[test]
fn a_new_version_runs_without_a_trial_unless_told_otherwise() {
    let reload = |keys: &str| good(&format!("{BROKER_AND_HANDLER}{keys}")).config.handlers[0].reload;
    let default = ReloadPolicy { canary: None, max_failures: 0.05 };
    assert_eq!(reload(""), default);
    assert_eq!(reload("reload = { canary = \"off\" }"), default);
    assert_eq!(reload("reload = { canary = 1 }"), ReloadPolicy { canary: Some(1.0), ..default });
}

#[test]
fn keys_of_a_subscription() {
    let when = "when = { payload = \"a+\", min-bytes = 3, retained = false, otherwise = \"next\" }";
    let loaded = good(&format!(
        "{BROKER_AND_HANDLER}dead-letter = {{ broker = \"plant\", topic = \"dead\" }}\n{}{}",
        subscription_text("a/+", &format!("name = \"first\"\nqos = 2\non-message = \"celsius\"\n{when}")),
        subscription_text("b/#", "on-message = { log = \"{topic}\" }"),
    ));
    let [first, second] = loaded.config.subscriptions.as_slice() else { panic!("{:?}", loaded.config.subscriptions) };
    assert_eq!((&*first.name, first.broker.index(), first.qos), ("first", 0, Qos::ExactlyOnce));
    assert!(matches!(&first.on_message, Some(OnMessage::Handler(handler)) if &*handler.name == "celsius"));
    let when = first.when.as_ref().expect("is given");
    assert!(when.payload.as_ref().expect("is given").is_match(b"\xff aaa"));
    assert_eq!((when.min_bytes, when.retained, when.otherwise), (Some(3), Some(false), Otherwise::Next));
    assert_eq!((&*second.name, second.topic.as_str()), ("plant:b/#", "b/#"));
    assert!(matches!(second.on_message, Some(OnMessage::Log(_))));
    assert_eq!(lines(&loaded.warnings), Vec::<String>::new());
    assert_eq!(loaded.origins.handlers[0].plugin.place.to_string(), "tidegate.toml:4:10");
}

#[test]
fn settings_of_the_daemon() {
    let keys = "state-dir = \"/s\"\nnative = true\nshutdown-grace = \"1m 30s\"\nrecv-buffer = 0\nrecv-bytes = \"1KiB\"\nlog = { level = \"warn\", format = \"json\" }\nadmin.listen = \"[::1]:0\"\n";
    let config = good(&format!("{keys}{BROKER}")).config;
    assert_eq!(config.state_dir, Path::new("/s"));
    assert!(config.native && !good(BROKER).config.native);
    assert_eq!(config.shutdown_grace, Duration::from_secs(90));
    assert_eq!(config.received, Limits { messages: 0, bytes: 1 << 10 });
    assert_eq!((config.log.level, config.log.format), (tracing::Level::WARN, LogFormat::Json));
    assert_eq!(config.admin.listen, "[::1]:0".parse().ok());
    assert_eq!(config.admin.socket, Path::new("/s/admin.sock"));
    assert_eq!(config.admin.token_file, None);
    let admin = "[admin]\nsocket = \"run/a.sock\"\nlisten = \"127.0.0.1:1\"\ntoken-file = \"token\"\n";
    let config = good(&format!("{BROKER}{admin}")).config;
    assert_eq!(config.admin.socket, Path::new("run/a.sock"));
    assert_eq!(config.admin.token_file.as_deref(), Some(Path::new("token")));
}

#[test]
fn the_state_goes_where_systemd_says() {
    let check = |variable: fn(&str) -> Option<OsString>, expected: &str| {
        let loaded = assemble_with(variable, &[SourceFile::new("tidegate.toml", BROKER)]).expect("is good");
        assert_eq!(loaded.config.state_dir, Path::new(expected));
    };
    check(|_| None, "tidegate-state");
    check(|name| (name == "STATE_DIRECTORY").then(|| "/var/lib/a:/var/lib/b".into()), "/var/lib/a");
    check(|name| (name == "STATE_DIRECTORY").then(OsString::new), "tidegate-state");
}

#[test]
fn all_runs_several_handlers_for_one_filter() {
    let log = |name, text| subscription_text("a", &format!("name = \"{name}\"\non-message = {{ log = \"{text}\" }}"));
    check_warnings(&format!("{BROKER}dispatch = \"all\"\n{}{}", log("one", "1"), log("two", "2")), &[]);
}

#[test]
fn equal_filters_with_different_conditions() {
    let log = |name, when| {
        subscription_text("a", &format!("name = \"{name}\"\non-message = {{ log = \"{name}\" }}\nwhen = {{ {when} }}"))
    };
    let next = log("large", "min-bytes = 9, otherwise = \"next\"");
    check_warnings(&format!("{BROKER}{next}{}", log("small", "min-bytes = 1")), &[]);
    check_warnings(
        &format!("{BROKER}{}{next}", log("small", "min-bytes = 1")),
        &[
            "tidegate.toml:11:9: subscriptions[1].topic = \"a\": never runs: the same filter at tidegate.toml:5:9 keeps every \
           message; add otherwise = \"next\" to the \"when\" of that one, or put it last",
        ],
    );
}

#[test]
fn warnings() {
    check_warnings(
        BROKER_AND_HANDLER,
        &[
            "tidegate.toml:3:1: handlers.celsius: no subscription and no schedule runs it; add on-message = \"celsius\" to one",
        ],
    );
    check_warnings(
        &format!("{BROKER}{}", subscription_text("a", "")),
        &[
            "tidegate.toml:3:1: subscriptions[0]: has no on-message: its messages are acknowledged and nothing runs; add \
           on-message = \"HANDLER\" or { log = \"TEMPLATE\" }",
        ],
    );
    check_warnings(
        &format!("{BROKER}password-file = \"no-such-file\"\n"),
        &[
            "tidegate.toml:3:17: brokers.plant.password-file = \"no-such-file\": there is no such file yet; write it before \
           the daemon connects",
        ],
    );
}

#[test]
fn a_subscription_without_on_message_keeps_nothing_from_others() {
    let idle = subscription_text("a", "name = \"idle\"\nwhen = { min-bytes = 1 }");
    let log = subscription_text("a", "name = \"log\"\non-message = { log = \"x\" }");
    let loaded = good(&format!("{BROKER}{idle}{log}"));
    let [warning] = loaded.warnings.as_slice() else { panic!("{:?}", lines(&loaded.warnings)) };
    assert!(warning.message.starts_with("has no on-message"), "{warning}");
}
