//! Several files, missing files, and what all of them have in common: every problem in one run, and no secret in any.

use std::fs;

use super::*;
use crate::message::BrokerId;

const BROKER: &str = "[brokers.plant]\naddress = \"mqtt.example\"\n";

/// Loads files from a folder and compares the errors, in which `DIR` stands for the folder.
#[track_caller]
fn check_folder(files: &[(&str, &[u8])], expected: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("it has a folder")).expect("creates");
        fs::write(path, content).expect("writes");
    }
    let found = load(&folder.path().join("tidegate.toml")).err().map(|problems| lines(&problems.errors));
    let named = |line: &&str| line.replace("DIR", &folder.path().display().to_string());
    assert_eq!(found.unwrap_or_default(), expected.iter().map(named).collect::<Vec<_>>());
}

#[test]
fn files_that_cannot_be_read() {
    check_folder(
        &[],
        &[
            "DIR/tidegate.toml: cannot be read: it does not exist; write one (config/minimal.toml is an example), or name \
           another with -c FILE",
        ],
    );
    check_folder(
        &[("tidegate.toml/x", b"")],
        &["DIR/tidegate.toml: cannot be read: it is a directory; name the file in it"],
    );
    check_folder(
        &[("tidegate.toml", b"# \xff"), ("conf.d/a.toml", b"\xff")],
        &[
            "DIR/tidegate.toml: is not UTF-8 at byte 2; save it as UTF-8",
            "DIR/conf.d/a.toml: is not UTF-8 at byte 0; save it as UTF-8",
        ],
    );
    check_folder(
        &[("tidegate.toml", BROKER.as_bytes()), ("conf.d", b"")],
        &["DIR/conf.d: cannot be listed: it is not a folder; let the daemon's user read it"],
    );
}

#[test]
fn further_files_are_merged_by_name() {
    let subscription = |topic| format!("[[subscriptions]]\nbroker = \"plant\"\ntopic = \"{topic}\"\n");
    check_folder(
        &[
            ("tidegate.toml", subscription("#/a").as_bytes()),
            ("conf.d/20.toml", subscription("#/20").as_bytes()),
            ("conf.d/10.toml", format!("{BROKER}{}", subscription("#/10")).as_bytes()),
            ("conf.d/30.conf", b"not read"),
        ],
        &[
            "DIR/tidegate.toml:3:9: subscriptions[0].topic = \"#/a\": '#' must be the last level (MQTT 5 §4.7.1.2); use \"#\"",
            "DIR/conf.d/10.toml:5:9: subscriptions[0].topic = \"#/10\": '#' must be the last level (MQTT 5 §4.7.1.2); use \"#\"",
            "DIR/conf.d/20.toml:3:9: subscriptions[0].topic = \"#/20\": '#' must be the last level (MQTT 5 §4.7.1.2); use \"#\"",
        ],
    );
}

#[test]
fn what_two_files_define_names_both() {
    let settings = "shutdown-grace = \"1s\"\nlog.level = \"info\"\n";
    let handler = "[handlers.celsius]\nplugin = \"celsius.wasm\"\n";
    let main = format!("{settings}{BROKER}{handler}");
    check_folder(
        &[
            ("tidegate.toml", main.as_bytes()),
            ("conf.d/a.toml", main.as_bytes()),
            ("conf.d/b.toml", settings.as_bytes()),
        ],
        &[
            "DIR/conf.d/a.toml:1:18: shutdown-grace = \"1s\": also set at DIR/tidegate.toml:1:18; keep one of the two",
            "DIR/conf.d/a.toml:2:1: log: also set at DIR/tidegate.toml:2:1; keep one of the two",
            "DIR/conf.d/a.toml:3:1: brokers.plant: also defined at DIR/tidegate.toml:3:1; keep one of the two",
            "DIR/conf.d/a.toml:5:1: handlers.celsius: also defined at DIR/tidegate.toml:5:1; keep one of the two",
            "DIR/conf.d/b.toml:1:18: shutdown-grace = \"1s\": also set at DIR/tidegate.toml:1:18; keep one of the two",
            "DIR/conf.d/b.toml:2:1: log: also set at DIR/tidegate.toml:2:1; keep one of the two",
        ],
    );
}

#[test]
fn relative_paths_start_from_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tidegate.toml");
    fs::create_dir(folder.path().join("conf.d")).expect("creates");
    fs::write(&file, "state-dir = \"state\"\nplugins-dir = \"plugins\"\n").expect("writes");
    fs::write(folder.path().join("conf.d/secret"), "hunter2\r\n").expect("writes");
    let broker = "[brokers.plant]\naddress = \"a\"\nusername = \"${file:secret}\"\npassword-file = \"secret\"\n[handlers.a]\nplugin = \"a.wasm\"\n\
                  dead-letter = { broker = \"plant\", topic = \"dead\" }\n\
                  [[subscriptions]]\nbroker = \"plant\"\ntopic = \"a\"\non-message = \"a\"\n";
    fs::write(folder.path().join("conf.d/a.toml"), broker).expect("writes");
    let loaded = load(&file).expect("loads");
    assert_eq!(loaded.config.state_dir, folder.path().join("state"));
    assert_eq!(loaded.config.handlers[0].plugin, folder.path().join("plugins/a.wasm"));
    assert_eq!(loaded.config.brokers[0].username.as_deref(), Some("hunter2"));
    let password = loaded.config.brokers[0].password.as_ref().expect("is given");
    assert_eq!(password.read().expect("reads").expose(), "hunter2");
    assert_eq!(loaded.warnings, []);
}

#[test]
fn interpolated_files_have_a_limit() {
    let path = |name: &str| format!("state-dir = \"${{file:{name}}}\"\n{BROKER}");
    let long = [b'x'; interpolate::MAX_FILE + 1];
    check_folder(&[("tidegate.toml", path("a").as_bytes()), ("a", &long[1..])], &[]);
    check_folder(
        &[("tidegate.toml", path("a").as_bytes()), ("a", &long)],
        &["DIR/tidegate.toml:1:13: state-dir = \"${file:a}\": the file a has more than 64KiB; make it shorter"],
    );
    check_folder(
        &[("tidegate.toml", path("a").as_bytes()), ("a", b"\xff")],
        &["DIR/tidegate.toml:1:13: state-dir = \"${file:a}\": the file a is not UTF-8; save it as UTF-8"],
    );
}

/// One mistake of each stage.
const MANY_MISTAKES: &str = r#"state-dir = "${env:NONE}"
watch-plugins = true
[brokers.plant]
address = "tcp://mqtt.example"
port = "1883"
will = { topic = "a/#" }
[[subscriptions]]
broker = "plnt"
topic = "a/#/b"
on-message = "celcius"
[handlers.celsius]
plugin = "celsius.so"
max-memory = 65536
allow = { publish = ["plant"] }
"#;

#[test]
fn one_run_reports_every_problem() {
    let known = "admin, brokers, handlers, log, native, plugins-dir, recv-buffer, recv-bytes, schedules, shutdown-grace, state-dir, subscriptions, watch-config";
    let expected = [
        r#"1:13: state-dir = "${env:NONE}": the environment variable NONE is not set; set it for the daemon"#,
        &format!("2:1: watch-plugins: unknown key; known here: {known}"),
        r#"4:11: brokers.plant.address = "tcp://mqtt.example": must not have a prefix: a name or address alone; use "mqtt.example""#,
        r#"5:8: brokers.plant.port = "1883": expected an integer, got a string; use 1883"#,
        r#"6:18: brokers.plant.will.topic = "a/#": has the wildcard '#' at byte 2, which only a topic filter may have (MQTT 5 §4.7.1); use one topic such as "gateway/state""#,
        r#"8:10: subscriptions[0].broker = "plnt": no such broker; did you mean "plant"?"#,
        r#"9:9: subscriptions[0].topic = "a/#/b": '#' must be the last level (MQTT 5 §4.7.1.2); use "a/#""#,
        r#"10:14: subscriptions[0].on-message = "celcius": no such handler; did you mean "celsius"?"#,
        r#"12:10: handlers.celsius.plugin = "celsius.so": native plugins are not permitted: they run with the daemon's rights, and without limits; use a WebAssembly component (.wasm), or set native = true"#,
        r#"13:14: handlers.celsius.max-memory = 65536: expected a size, got an integer; use "64KiB""#,
        r#"14:22: handlers.celsius.allow.publish[0] = "plant": names no broker; use "BROKER:FILTER", such as "plant:converted/#""#,
    ];
    check(MANY_MISTAKES, &expected.map(|line| format!("tidegate.toml:{line}")));
}

#[test]
fn good_handlers_of_a_bad_file_are_handed_on() {
    let bad_broker = "[brokers.cloud]\naddress = \"\"\n";
    let handlers = "[handlers.a]\nplugin = \"a.wasm\"\nallow.publish = [\"plant:x\"]\n[handlers.b]\nplugin = \"b\"\n";
    let problems = assemble_text(&format!("{bad_broker}{BROKER}{handlers}")).expect_err("has errors");
    assert_eq!(["cloud", "plant"].map(|name| problems.names.find(name)), [0, 1].map(|number| Some(BrokerId(number))));
    let [(handler, origins)] = problems.handlers.as_slice() else { panic!("{:?}", problems.handlers) };
    assert_eq!(&*handler.name, "a");
    assert_eq!(handler.allow.publish[0].broker.index(), 1);
    assert_eq!(
        origins.plugin.problem("cannot be read", "write it").to_string(),
        "tidegate.toml:6:10: handlers.a.plugin = \"a.wasm\": cannot be read; write it"
    );
}

#[test]
fn no_secret_shows_anywhere() {
    let shows_none = |text: &str| assert!(!text.contains("hunter2") && !text.contains("hidden"), "{text}");
    let loaded = good(&format!(
        "{BROKER}username = \"gateway\"\npassword = \"${{env:SECRET}}\"\n[handlers.a]\nplugin = \"a.wasm\"\n\
         config = {{ token = \"hunter2\" }}\n[brokers.lab]\naddress = \"a\"\npassword = \"hunter2\"\n"
    ));
    shows_none(&format!("{loaded:?}"));
    shows_none(&serde_json::to_string(&loaded.warnings).expect("serialises"));
    for mistake in [
        "passwort = \"hunter2\"",
        "password = \"hunter2\" x",
        "password = \"hunter2",
        "password = hunter2",
        "password = \"${env:SECRET}${env:NONE}\"",
        "password = \"hunter2${\"",
        "password = [\"hunter2\"]",
        "password = { text = \"hunter2\" }",
        "password-env = \"hunter2\"",
        "port = \"${env:SECRET}\"",
        "address = \"mqtt://u:hunter2@mqtt.example\"",
        "protocol = \"3.1.1\"\npassword = \"hunter2\"",
        "dispatch = \"${env:SECRET}\"",
        "keep-alive = \"${env:SECRET}\"",
        "max-packet = \"${env:SECRET}\"",
        "session-expiry = \"${env:SECRET}\"",
        "will = { topic = \"${env:BAD_FILTER}\" }",
        "[[subscriptions]]\nbroker = \"${env:SECRET}\"\ntopic = \"${env:BAD_LEVEL}\"\non-message = \"${env:SECRET}\"",
        "[handlers.a]\nplugin = \"${env:SECRET}\"\nconfig = { token = \"hunter2${env:NONE}\", nan = [nan, \"hunter2\"] }",
        "[handlers.a]\nplugin = \"a.wasm\"\nallow.publish = [\"plant:${env:BAD_FILTER}\", \"${env:SECRET}:a\"]",
        "[brokers]\npassword = \"hunter2\"",
        "[handlers]\ntoken = \"hunter2\"",
        "[admin]\nlisten = \"${env:SECRET}\"",
    ] {
        let address = if mistake.starts_with("address") { "" } else { "address = \"mqtt.example\"\n" };
        let problems = assemble_text(&format!("[brokers.plant]\n{address}{mistake}\n")).expect_err(mistake);
        shows_none(&problems.to_string());
        shows_none(&serde_json::to_string(&problems.errors).expect("serialises"));
        shows_none(&format!("{problems:?}"));
    }
}
