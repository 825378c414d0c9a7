//! `tidegate import routeros`: an export becomes a configuration that loads, and the suggestions for its scripts work.
//!
//! What becomes of which command is in the unit tests of the import; these are the ways that a person meets it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use tidegate_tests::{Config, Daemon, Home, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(suggestions_for_scripts_work_once_uncommented,);

/// As RouterOS writes it: lines broken anywhere, scripts as quoted texts, defaults left out.
const EXPORT: &str = r##"# 2024-05-22 16:57:00 by RouterOS 7.15
# software id = ABCD-EFGH
/interface bridge
add name=bridge1
/iot mqtt brokers
add address=127.0.0.1 auto-connect=yes client-id=knot-7 name="Plant 1" \
    parallel-scripts-limit=4 password="correct \"horse\"" port=PORT username=gw
add address=cloud.example certificate=knot.crt name=cloud port=8883 ssl=yes
add address=10.0.0.9 disabled=yes name=old
/iot mqtt subscriptions
add broker="Plant 1" on-message=\
    ":log info \"Got data {\$msgData} from topic {\$msgTopic}\"" topic=\
    "my/test/#"
add broker="Plant 1" on-message=":if (\$msgData~\"\\\\{\\\"test\\\":\\\"123\\\"\\\\}\
    \") do={:log warning \"Alarm {\$msgData}\"}" qos=1 topic=alarms/+
add broker=cloud on-message="/system script run x" topic=commands
add broker=old topic=x
/system script
add name=publish source="/iot mqtt publish broker=\$broker topic=a message=b"
"##;

#[test]
fn an_export_becomes_a_configuration_that_check_accepts() {
    let home = Home::empty();
    home.write("export.rsc", EXPORT.replace("PORT", "1884"));
    let ran = home.run(&["import", "routeros", "export.rsc", "--out", "tidegate.toml"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    let said: Vec<&str> = ran.stderr.lines().map(|line| line.split(": ").next().unwrap_or_default()).collect();
    let lines = ["6", "8", "9", "11", "14", "16", "17", "19"].map(|line| format!("export.rsc:{line}"));
    assert_eq!(said[..8], lines, "{ran:?}");
    let end = "2 brokers and 3 subscriptions imported, 2 left out as comments; 2 commands of other menus skipped\n";
    assert!(ran.stderr.ends_with(end), "{ran:?}");
    assert!(!ran.text().contains("horse"), "a secret is on the terminal: {ran:?}");
    let file = home.path().join("tidegate.toml");
    let mode = fs::metadata(&file).expect("it is written").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds a password");
    let marked =
        fs::read_to_string(&file).expect("it is text").lines().filter(|line| line.starts_with("# TODO ")).count();
    assert_eq!(ran.stderr.lines().filter(|line| line.contains(": TODO ")).count(), marked);

    let checked = home.run(&["check"]);
    assert_eq!((checked.code, checked.stdout.as_str()), (Some(0), "tidegate.toml: ok\n"), "{checked:?}");

    let again = home.run(&["import", "routeros", "export.rsc", "--out", "tidegate.toml"]);
    assert_eq!(again.code, Some(2), "{again:?}");
    assert!(again.stderr.contains("name another one, or remove it"), "what was there would be lost: {again:?}");
}

#[test]
fn an_export_that_leaves_nothing_to_do_is_0_and_goes_to_standard_output() {
    let home = Home::empty();
    home.write("export.rsc", "/iot mqtt brokers\nadd address=a name=b\n/iot mqtt subscribe broker=b topic=x/#\n");
    let ran = home.run(&["import", "routeros", "export.rsc"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.ends_with("[[subscriptions]]\nbroker = \"b\"\ntopic = \"x/#\"\nqos = 0\n"), "{ran:?}");
}

#[test]
fn an_export_is_read_from_standard_input() {
    let export = b"/iot mqtt brokers\nadd address=a name=b\n/iot mqtt subscriptions\nadd broker=b topic=#/x\n";
    let ran = Home::empty().run_with_input(&["import", "routeros", "-"], export);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("\n[brokers.b]\naddress = \"a\"\n"), "{ran:?}");
    assert!(ran.stderr.starts_with("standard input:4: TODO "), "{ran:?}");
    assert!(ran.stderr.contains("\n1 brokers and 0 subscriptions imported, 1 left out as comments; "), "{ran:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_2() {
    let ran = Home::empty().run(&["import", "routeros", "none.rsc"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.starts_with("error: none.rsc cannot be read: "), "{ran:?}");
}

fn suggestions_for_scripts_work_once_uncommented(protocol: Protocol) {
    let login = Some(("gw".to_owned(), "correct \"horse\"".to_owned()));
    let broker = Mosquitto::with(tidegate_tests::mosquitto::Options { login, ..Default::default() });
    let home = Home::empty();
    let export = EXPORT.replace("PORT", &broker.port().to_string());
    // The cloud is out of reach here.
    home.write("export.rsc", export.replace("name=cloud port=8883 ssl=yes", "disabled=yes name=cloud"));
    let imported = home.run(&["import", "routeros", "export.rsc"]).stdout;
    let chosen = imported.replace("\n# on-message = {", "\non-message = {").replace("\n# when = {", "\nwhen = {");
    let spoken = format!("[brokers.Plant-1]\nprotocol = \"{protocol}\"");
    let daemon = Daemon::start(&Config::new().table(chosen.replace("[brokers.Plant-1]", &spoken)));

    let options = tidegate_tests::Client::options(broker.port(), Protocol::V5).login(Some(("gw", "correct \"horse\"")));
    let client = options.connect().expect("it knows the password");
    client.publish(&Message::new("my/test/topic", "test-message").qos(1));
    daemon.wait_log(&["Got data {test-message} from topic {my/test/topic}"]);
    client.publish(&Message::new("alarms/1", "{\"test\":\"124\"}").qos(1));
    client.publish(&Message::new("alarms/1", "{\"test\":\"123\"}").qos(1));
    daemon.settle("Plant-1", 3);
    daemon.wait_event("Alarm {{\"test\":\"123\"}}", &[]);
    assert!(daemon.log_lines(&["Alarm", "124"]).is_empty(), "RouterOS runs nothing for it");
}
