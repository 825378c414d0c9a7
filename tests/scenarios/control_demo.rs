//! `tidegate demo`: a newcomer sees messages flow, joins in, and finds nothing left behind.

use std::fs;
use std::time::Duration;

use serde_json::json;
use tidegate_tests::process::Process;
use tidegate_tests::{Client, Home, Message, Protocol, http, wait};

/// How long a stop may take on a loaded machine.
const STOP: Duration = Duration::from_secs(20);

fn home() -> Home {
    let home = Home::empty();
    ["celsius.wasm", "envelope.wasm", "relay.wasm", "threshold.wasm"].iter().for_each(|plugin| home.plugin(plugin));
    home
}

#[track_caller]
fn wait_line(demo: &Process, words: &[&str]) -> String {
    wait::until(format!("a line with {words:?}"), || {
        let lines = demo.lines();
        lines.into_iter().find(|line| words.iter().all(|word| line.contains(word))).ok_or("no such line")
    })
}

/// The port in the first line with these words.
#[track_caller]
fn port(demo: &Process, words: &str) -> u16 {
    let line = wait_line(demo, &[words, "127.0.0.1:"]);
    let digits = line.split("127.0.0.1:").nth(1).expect("was looked for").split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no port in {line:?}"))
}

#[test]
fn devices_handlers_and_both_brokers_are_seen_at_work() {
    let home = home();
    let demo = home.start(&["demo", "--plugins-dir", "plugins"]);
    wait_line(&demo, &["plant →", "plant/line-1/temperature", "{\"c\":"]);
    wait_line(&demo, &["celsius", "plant/line-1/temperature", "ok, "]);
    wait_line(&demo, &["→ plant", "plant/line-1/temperature/fahrenheit", "{\"f\":"]);
    wait_line(&demo, &["→ plant", "envelope/plant/pump/pressure"]);
    wait_line(&demo, &["→ cloud", "site-1/alarm/plant/oven/temperature", "\"alarm\":true"]);
    let page = http::get(port(&demo, "metrics"), "/metrics").expect("the metrics are served");
    assert!(page.body.contains("tidegate_handler_calls_total{handler=\"celsius\",result=\"ok\"}"), "{}", page.body);
}

#[test]
fn others_can_join_in_and_nothing_is_left_behind() {
    let home = home();
    let mut demo = home.start(&["demo", "--plugins-dir", "plugins"]);
    let guest = Client::connect(port(&demo, "broker plant"), Protocol::V311);
    guest.subscribe("plant/guest/temperature/fahrenheit", 1);
    // The gateway may still be about to subscribe.
    wait_line(&demo, &["celsius", "ok, "]);
    guest.publish(&Message::new("plant/guest/temperature", "{\"c\": 100}").qos(1));
    assert_eq!(guest.collect(1)[0].json(), json!({ "f": 212.0 }));
    wait_line(&demo, &["celsius", "plant/guest/temperature", "ok, "]);

    demo.signal("INT");
    assert_eq!(demo.wait(STOP).code(), Some(0));
    wait_line(&demo, &["messages in: "]);
    let left: Vec<_> = fs::read_dir(home.path().join("tmp")).expect("the folder is ours").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn it_ends_by_itself_when_told_for_how_long() {
    let home = home();
    let mut demo = home.start(&["demo", "--plugins-dir", "plugins", "--for", "1s"]);
    // Its plugins are compiled first.
    assert_eq!(demo.wait(6 * STOP).code(), Some(0));
}

#[test]
fn without_the_handlers_it_says_what_builds_them() {
    let ran = Home::empty().run(&["demo", "--plugins-dir", "plugins"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("celsius.wasm"), "{ran:?}");
    assert!(ran.stderr.contains("cargo xtask build-plugins"), "{ran:?}");
}

#[test]
fn its_configuration_is_one_to_start_from() {
    let home = home();
    let printed = home.run(&["demo", "--plugins-dir", "plugins", "--print-config"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    home.write("tidegate.toml", printed.stdout);
    let checked = home.run(&["check"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
}
