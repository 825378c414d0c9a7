//! `tidegate check`: every problem in one run, each with file, line, column, field, value and remedy; plugins loaded.
//!
//! The table of all problems is in the unit tests of the configuration; these are the ways that a person meets them.

use tidegate_tests::config::ECHO;
use tidegate_tests::{Config, Home, Protocol};

/// `tidegate check` of this file says exactly these lines and exits with 1.
#[track_caller]
fn refused(toml: &str, lines: &[&str]) {
    let home = Home::empty();
    home.write("tidegate.toml", toml);
    home.write("plugins/celsius.wasm", "");
    refused_in(&home, lines);
}

#[track_caller]
fn refused_in(home: &Home, lines: &[&str]) {
    let ran = home.run(&["check", "tidegate.toml"]);
    let said: Vec<_> = ran.stderr.lines().filter(|line| !line.starts_with("warning: ")).collect();
    assert_eq!(said, lines);
    assert_eq!(ran.code, Some(1));
    let problems = if lines.len() == 1 { "1 problem".to_owned() } else { format!("{} problems", lines.len()) };
    assert_eq!(ran.stdout, format!("tidegate.toml: {problems}\n"));
}

/// A plugin that does not load, or does not start, is told at the line that names it, in these words.
#[track_caller]
fn plugin_refused(config: &Config, file: Option<&[u8]>, words: &str) {
    let home = Home::new(config, tidegate_tests::ports::free());
    if let Some(content) = file {
        home.write("plugins/made.wasm", content);
    }
    let ran = home.run(&["check", "tidegate.toml"]);
    let said: Vec<_> = ran.stderr.lines().filter(|line| !line.starts_with("warning: ")).collect();
    assert_eq!(said.len(), 1, "{ran:?}");
    assert!(
        said[0].starts_with("tidegate.toml:") && said[0].contains(".plugin = \"") && said[0].contains(words),
        "{ran:?}"
    );
    assert_eq!(ran.code, Some(1));

    let ran = home.run(&["run", "-c", "tidegate.toml"]);
    assert_eq!(ran.code, Some(1), "a daemon does not start with it");
    assert!(ran.stderr.contains(words), "{ran:?}");
}

/// A handler whose plugin is a file of the test's own.
fn made() -> Config {
    base().table("[handlers.made]\nplugin = \"made.wasm\"").subscription("plant", "in/#", 1, "made", "")
}

/// A handler of the test guest.
fn guest(config: &str, keys: &str) -> Config {
    base().guest("odd", "plant", config, keys).subscription("plant", "in/#", 1, "odd", "")
}

fn base() -> Config {
    Config::new().broker("plant", 1883, Protocol::V5, "auto-connect = false")
}

#[test]
fn a_good_configuration_is_0() {
    let letters = "dead-letter = { broker = \"plant\", topic = \"dead\" }";
    let home = Home::new(&guest(ECHO, letters), tidegate_tests::ports::free());
    let ran = home.run(&["check"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "tidegate.toml: ok\n", ""));
}

#[test]
fn each_example_is_0() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/examples");
    let home = Home::empty();
    home.plugin("relay.wasm");
    for entry in std::fs::read_dir(&folder).expect("is part of the repository") {
        let text = std::fs::read_to_string(entry.expect("can be listed").path()).expect("is text");
        let elsewhere = text.replace("plugins-dir = \"../../target/plugins\"", "plugins-dir = \"plugins\"");
        assert_ne!(elsewhere, text);
        home.write("tidegate.toml", elsewhere);
        let ran = home.run(&["check"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "tidegate.toml: ok\n"), "{text}\n{ran:?}");
        // Its certificates and passwords are the user's.
        assert!(ran.stderr.lines().all(|line| line.contains("there is no such file yet")), "{ran:?}");
    }
}

#[test]
fn a_missing_file_is_told() {
    let ran = Home::empty().run(&["check", "none.toml"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.starts_with("none.toml: "), "{ran:?}");
}

#[test]
fn a_prefix_of_an_address_is_refused_with_what_to_write() {
    refused(
        "[brokers.plant]\naddress = \"tcp://mqtt.example:1884\"\n",
        &[
            "tidegate.toml:2:11: brokers.plant.address = \"tcp://mqtt.example:1884\": must not have a prefix: a name or \
           address alone; use \"mqtt.example\" and port = 1884",
        ],
    );
}

#[test]
fn a_number_out_of_range_is_refused_with_the_nearest() {
    refused(
        "[brokers.plant]\naddress = \"mqtt.example\"\nport = 65536\nparallel-limit = 2\n",
        &[
            "tidegate.toml:3:8: brokers.plant.port = 65536: must be 1 to 65535; use 65535",
            "tidegate.toml:4:18: brokers.plant.parallel-limit = 2: must be 3 to 1000, or \"off\"; use 3",
        ],
    );
}

#[test]
fn a_misspelt_key_is_refused_with_the_nearest() {
    let home = Home::empty();
    home.write("tidegate.toml", "[brokers.plant]\naddress = \"mqtt.example\"\nkeep_alive = 30\n");
    let ran = home.run(&["check"]);
    let beginning = "tidegate.toml:3:1: brokers.plant.keep_alive: unknown key; did you mean \"keep-alive\"?";
    assert!(ran.stderr.starts_with(beginning), "{ran:?}");
    assert_eq!(ran.code, Some(1));
}

#[test]
fn a_bad_filter_is_refused_with_a_good_one() {
    refused(
        "[brokers.plant]\naddress = \"mqtt.example\"\n\n[[subscriptions]]\nbroker = \"plant\"\ntopic = \"a/#/b\"\n",
        &[
            "tidegate.toml:6:9: subscriptions[0].topic = \"a/#/b\": '#' must be the last level (MQTT 5 §4.7.1.2); use \"a/#\"",
        ],
    );
}

#[test]
fn equal_filters_on_one_broker_are_refused() {
    let twice = "[[subscriptions]]\nbroker = \"plant\"\ntopic = \"a/b\"\non-message = { log = \"x\" }\n";
    refused(
        &format!("[brokers.plant]\naddress = \"mqtt.example\"\n{twice}{twice}"),
        &[
            "tidegate.toml:9:9: subscriptions[1].topic = \"a/b\": the same filter as at tidegate.toml:5:9, under the same \
           condition; give them different \"when\" conditions, or set dispatch = \"all\" for the broker to run both",
        ],
    );
}

#[test]
fn a_bad_regular_expression_is_refused() {
    refused(
        "[brokers.plant]\naddress = \"mqtt.example\"\n[[subscriptions]]\nbroker = \"plant\"\ntopic = \"a\"\n\
         on-message = { log = \"x\" }\nwhen = { payload = \"(\" }\n",
        &[
            "tidegate.toml:7:20: subscriptions[0].when.payload = \"(\": not a regular expression: unclosed group; write a \\ \
           before each of .+*?()|[]{}^$\\ that stands for itself",
        ],
    );
}

#[test]
fn a_secret_is_never_repeated() {
    refused(
        "[brokers.plant]\naddress = \"mqtt.example\"\nusername = \"gw\"\npassword = \"hunter2-${env:TIDEGATE_NO_SUCH}\"\n",
        &[
            "tidegate.toml:4:12: brokers.plant.password = ***: the environment variable TIDEGATE_NO_SUCH is not set; set it \
           for the daemon",
        ],
    );
}

#[test]
fn what_is_not_toml_is_told_with_its_place() {
    refused(
        "[brokers.plant]\naddress = \"mqtt.example\"\nport 1883\n",
        &["tidegate.toml:3:6: not valid TOML: key with no value, expected `=`"],
    );
}

#[test]
fn problems_of_all_files_are_told_in_one_run_and_as_json() {
    let home = Home::empty();
    home.write("tidegate.toml", "[brokers.plant]\naddress = \"\"\nkeep-alive = 5\n");
    home.write(
        "conf.d/10-more.toml",
        "[[subscriptions]]\nbroker = \"plnt\"\ntopic = \"a\"\non-message = { log = \"x\" }\n",
    );
    home.write("conf.d/notes.txt", "not read");
    let lines = [
        "tidegate.toml:2:11: brokers.plant.address = \"\": must not be empty; use a host name or an IP address",
        "tidegate.toml:3:14: brokers.plant.keep-alive = 5: must be 30 to 64800 seconds; use 30",
        "conf.d/10-more.toml:2:10: subscriptions[0].broker = \"plnt\": no such broker; did you mean \"plant\"?",
    ];
    refused_in(&home, &lines);

    let ran = home.run(&["check", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!((ran.code, &report["ok"]), (Some(1), &serde_json::Value::Bool(false)));
    let texts: Vec<_> =
        report["errors"].as_array().expect("a list").iter().map(|error| error["text"].clone()).collect();
    assert_eq!(texts, lines);
    assert_eq!(
        (&report["errors"][1]["line"], &report["errors"][1]["field"]),
        (&3.into(), &"brokers.plant.keep-alive".into())
    );
}

#[test]
fn a_missing_plugin_is_told() {
    plugin_refused(&made(), None, "made.wasm");
}

#[test]
fn a_plugin_that_is_not_webassembly_is_told() {
    plugin_refused(&made(), Some(b"#!/bin/sh\n"), "not a WebAssembly component");
}

#[test]
fn a_plugin_that_is_a_module_and_no_component_is_told() {
    plugin_refused(&made(), Some(b"\0asm\x01\0\0\0"), "component");
}

#[test]
fn a_plugin_with_an_import_that_nobody_offers_is_told() {
    plugin_refused(&made(), Some(&component_importing("example:store/table@2.0.0")), "example:store/table@2.0.0");
}

#[test]
fn a_handler_that_refuses_to_start_is_told_in_its_own_words() {
    plugin_refused(&guest("mode = \"init-fails\"", ""), None, "this handler refuses to start");
}

#[test]
fn a_handler_that_traps_at_its_start_is_told() {
    plugin_refused(&guest("mode = \"init-traps\"", ""), None, "init");
}

#[test]
fn a_handler_that_publishes_at_its_start_is_told() {
    plugin_refused(&guest("mode = \"init-publishes\"", ""), None, "must not publish in init");
}

#[test]
fn a_handler_whose_start_never_ends_is_told() {
    plugin_refused(&guest("mode = \"spin-init\"", "call-deadline = \"300ms\""), None, "init");
}

#[test]
fn a_wrong_configuration_of_a_sample_is_told_in_its_own_words() {
    let config = base().handler("relay", "relay.wasm", "config = { broker = \"plant\", topic = \"{device}\" }");
    let config = config.subscription("plant", "in/#", 1, "relay", "");
    plugin_refused(&config, None, "{device} is not known");
}

#[test]
fn a_secret_in_the_configuration_of_a_handler_is_not_repeated() {
    let home = Home::new(
        &base().handler("threshold", "threshold.wasm", "config = { limit = \"${file:secret}\" }").subscription(
            "plant",
            "in/#",
            1,
            "threshold",
            "",
        ),
        tidegate_tests::ports::free(),
    );
    home.write("secret", "hunter2\n");
    for arguments in [&["check", "tidegate.toml"][..], &["check", "--json"], &["run", "-c", "tidegate.toml"]] {
        let ran = home.run(arguments);
        assert_eq!(ran.code, Some(1));
        let said = ran.stdout + &ran.stderr;
        assert!(said.contains("***") && said.contains("limit"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

/// The smallest component that imports an instance of this name, with one function.
fn component_importing(name: &str) -> Vec<u8> {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    // Type section: an instance type with a function type (no parameters, no result) and its export "run".
    let instance = b"\x01\x42\x02\x01\x40\x00\x01\x00\x04\x00\x03run\x01\x00";
    section(&mut bytes, 7, instance);
    // Import section: an instance of type 0 by this name.
    let length = u8::try_from(name.len()).expect("a short name");
    section(&mut bytes, 10, &[&[1, 0, length], name.as_bytes(), &[5, 0]].concat());
    bytes
}

fn section(bytes: &mut Vec<u8>, id: u8, content: &[u8]) {
    bytes.extend([id, u8::try_from(content.len()).expect("a short section")]);
    bytes.extend(content);
}
