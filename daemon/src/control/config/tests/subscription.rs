//! Errors of `[[subscriptions]]`.

use super::{BROKER_AND_HANDLER, assemble_text, check, check_warnings, good, lines, subscription, topic};

/// What an unknown key may have been.
const SUBSCRIPTION_KEYS: &str = "broker, name, on-message, qos, share, silence, topic, when";

#[test]
fn qos() {
    subscription("qos = 3", &["tidegate.toml:8:7: subscriptions[0].qos = 3: must be 0 to 2 (MQTT 5 §4.3); use 2"]);
    subscription(
        r#"qos = "1""#,
        &[r#"tidegate.toml:8:7: subscriptions[0].qos = "1": expected an integer, got a string; use 1"#],
    );
    subscription(
        "qos = true",
        &[
            "tidegate.toml:8:7: subscriptions[0].qos = true: expected an integer, got a boolean; use a number from 0 to 2 (MQTT 5 §4.3), without quotes",
        ],
    );
}

#[test]
fn unknown_keys() {
    subscription(
        r#"quiet = "5m""#,
        &[&format!("tidegate.toml:8:1: subscriptions[0].quiet: unknown key; known here: {SUBSCRIPTION_KEYS}")],
    );
}

#[test]
fn silence() {
    let loaded = good(&format!(
        "{BROKER_AND_HANDLER}[[subscriptions]]\nbroker = \"plant\"\ntopic = \"a\"\non-message = \"celsius\"\nsilence = \"5m\"\n"
    ));
    assert_eq!(loaded.config.subscriptions[0].silence, Some(std::time::Duration::from_secs(300)));
    let needed = "no handler runs for it; add on-message = \"HANDLER\", whose on-schedule then runs";
    let told = |line: u32| format!("tidegate.toml:{line}:11: subscriptions[0].silence = \"5m\": {needed}");
    subscription("silence = \"5m\"", &[&told(8)]);
    subscription("on-message = { log = \"{topic}\" }\nsilence = \"5m\"", &[&told(9)]);
    subscription(
        "on-message = \"celsius\"\nsilence = \"10ms\"",
        &["tidegate.toml:9:11: subscriptions[0].silence = \"10ms\": must be 1s to 365d; use \"1s\""],
    );
}

/// A broker may end the connection over such a subscription, and over giving it back: again and again.
#[test]
fn characters_that_brokers_refuse() {
    let problem = "over which brokers may end the connection (MQTT 5 §1.5.4); remove it";
    topic(
        r"a/\u001a/b",
        &[&format!(r#"tidegate.toml:5:9: subscriptions[0].topic = "a/\u001a/b": has the character U+001A, {problem}"#)],
    );
    topic(
        r"a/\uFFFF",
        &[&format!(r#"tidegate.toml:5:9: subscriptions[0].topic = "a/\uFFFF": has the character U+FFFF, {problem}"#)],
    );
    subscription(
        r#"share = "a\t""#,
        &[&format!(r#"tidegate.toml:8:9: subscriptions[0].share = "a\t": has the character U+0009, {problem}"#)],
    );
    check(
        "[brokers.plant]\naddress = \"a\"\nwill = { topic = \"a\\n\" }",
        &[&format!(r#"tidegate.toml:3:18: brokers.plant.will.topic = "a\n": has the character U+000A, {problem}"#)],
    );
}

#[test]
fn share() {
    for share in ["", "a/b", "a+", "#", "a\\u0000"] {
        subscription(
            &format!("share = \"{share}\""),
            &[&format!(
                "tidegate.toml:8:9: subscriptions[0].share = \"{share}\": not a share name: it has a character at least, and \
                 none of \"/\", \"+\", \"#\" and U+0000 (MQTT 5 §4.8.2); use the name that all members of the group have"
            )],
        );
    }
    subscription(
        "share = 5",
        &[r#"tidegate.toml:8:9: subscriptions[0].share = 5: expected a string, got an integer; use "5""#],
    );
    let long = "n".repeat(65_530);
    let found = assemble_text(&format!(
        "{BROKER_AND_HANDLER}[[subscriptions]]\nbroker = \"plant\"\ntopic = \"a/b\"\nshare = \"{long}\"\non-message = \"celsius\"\n"
    ));
    let problems = found.expect_err("it is too long");
    assert_eq!(
        lines(&problems.errors),
        [
            r#"tidegate.toml:7:9: subscriptions[0].topic = "a/b": with its share: has 65541 bytes, more than 65535 (MQTT 5 §4.7.3); use a shorter share or topic"#
        ],
    );
    // Under one condition, but for different members.
    let shared = |share: &str| {
        format!(
            "[[subscriptions]]\nbroker = \"plant\"\ntopic = \"a\"\nshare = \"{share}\"\non-message = {{ log = \"x\" }}\n"
        )
    };
    let plant = "[brokers.plant]\naddress = \"mqtt.example\"\n";
    let loaded = good(&format!("{plant}{}{}", shared("g"), shared("h")));
    let names: Vec<&str> = loaded.config.subscriptions.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["plant:$share/g/a", "plant:$share/h/a"]);
    check(
        &format!("{plant}{}{}", shared("g"), shared("g")),
        &[
            r#"tidegate.toml:10:9: subscriptions[1].topic = "a": the same filter as at tidegate.toml:5:9, under the same condition; give them different "when" conditions, or set dispatch = "all" for the broker to run both"#,
        ],
    );
}

/// A file with a broker of this protocol and subscriptions with these topics and shares; the first stands in line 4.
fn file_with(protocol: &str, topics: &[(&str, &str)]) -> String {
    let mut toml = format!("[brokers.plant]\naddress = \"a\"\nprotocol = \"{protocol}\"\n");
    for (topic, share) in topics {
        let share = if share.is_empty() { String::new() } else { format!(", share = \"{share}\"") };
        toml +=
            &format!("[[subscriptions]]\nbroker = \"plant\"\ntopic = \"{topic}\"\non-message = {{ log = \"x\" }}\n");
        if !share.is_empty() {
            toml += &format!("{}\n", &share[2..]);
        }
    }
    toml
}

#[test]
fn on_3_1_1_a_share_overlaps_nothing() {
    let told = |place: &str, topic: &str, other: &str, at: &str| {
        format!(
            "tidegate.toml:{place}.topic = \"{topic}\": overlaps \"{other}\" at tidegate.toml:{at}, and with a share 3.1.1 \
             does not tell whose message it is; use protocol = \"5\", or another [brokers.NAME] with its own client-id"
        )
    };
    let mixed = [("a/#", ""), ("a/+", "g")];
    check(&file_with("3.1.1", &mixed), &[told("10:9: subscriptions[1]", "a/+", "a/#", "6:9")]);
    check(&file_with("5", &mixed), &[] as &[&str]);
    let shares = [("a/#", "g"), ("a/+", "h")];
    check(&file_with("3.1.1", &shares), &[told("11:9: subscriptions[1]", "a/+", "$share/g/a/#", "6:9")]);
    check(&file_with("3.1.1", &[("a/#", "g"), ("b/+", "h"), ("c", "")]), &[] as &[&str]);
}

#[test]
fn on_3_1_1_copies_are_warned_of() {
    let warning = |place: &str, topic: &str, other: &str, at: &str| {
        format!(
            "tidegate.toml:{place}.topic = \"{topic}\": overlaps \"{other}\" at tidegate.toml:{at} in part: what both match may \
             be handled twice on brokers that send a copy for each; use protocol = \"5\""
        )
    };
    let pair = [("a/+", ""), ("+/b", "")];
    check_warnings(&file_with("3.1.1", &pair), &[&warning("10:9: subscriptions[1]", "+/b", "a/+", "6:9")]);
    check_warnings(&file_with("5", &pair), &[]);
    // One filter on the wire covers the others.
    check_warnings(&file_with("3.1.1", &[("a/+", ""), ("+/b", ""), ("#", "")]), &[]);
    check_warnings(&file_with("3.1.1", &[("a/+", ""), ("b/+", ""), ("a/b", "")]), &[]);

    let many: Vec<(String, &str)> = (0..6).map(|level| (format!("{}x/#", "+/".repeat(level)), "")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(topic, share)| (topic.as_str(), *share)).collect();
    let warnings = lines(&good(&file_with("3.1.1", &many)).warnings);
    assert_eq!(warnings.len(), 11, "{warnings:#?}");
    assert!(
        warnings.contains(
            &"tidegate.toml:1:1: brokers.plant: 5 more pairs of its topics overlap in part; use protocol = \"5\""
                .to_owned()
        ),
        "{warnings:#?}"
    );
}

#[test]
fn name() {
    subscription(
        r#"name = """#,
        &[
            r#"tidegate.toml:8:8: subscriptions[0].name = "": not a name: 1 to 256 bytes without control characters; use another name"#,
        ],
    );
    subscription(
        "name = 5",
        &[r#"tidegate.toml:8:8: subscriptions[0].name = 5: expected a string, got an integer; use "5""#],
    );
    subscription(
        r#"name = "a\nb""#,
        &[
            r#"tidegate.toml:8:8: subscriptions[0].name = "a\nb": not a name: 1 to 256 bytes without control characters; use another name"#,
        ],
    );
}

#[test]
fn on_message() {
    subscription(
        r#"on-message = "celcius""#,
        &[r#"tidegate.toml:8:14: subscriptions[0].on-message = "celcius": no such handler; did you mean "celsius"?"#],
    );
    subscription(
        r#"on-message = "nothing-like-it""#,
        &[
            r#"tidegate.toml:8:14: subscriptions[0].on-message = "nothing-like-it": no such handler; use "celsius", or add another [handlers.NAME]"#,
        ],
    );
    subscription(
        "on-message = 5",
        &[
            r#"tidegate.toml:8:14: subscriptions[0].on-message = 5: expected a handler's name or a table, got an integer; use on-message = "HANDLER" or { log = "TEMPLATE" }"#,
        ],
    );
    subscription(
        r#"on-message = { print = "x" }"#,
        &[
            r#"tidegate.toml:8:14: subscriptions[0].on-message.log: missing; add log = "TEMPLATE""#,
            "tidegate.toml:8:16: subscriptions[0].on-message.print: unknown key; known here: log",
        ],
    );
    subscription(
        "on-message = { log = 5 }",
        &[r#"tidegate.toml:8:22: subscriptions[0].on-message.log = 5: expected a string, got an integer; use "5""#],
    );
    subscription(
        r#"on-message = { log = "{data}" }"#,
        &[
            r#"tidegate.toml:8:22: subscriptions[0].on-message.log = "{data}": unknown placeholder {data}; use {payload}, {topic}, {broker}, {subscription}, {qos}, {retain}"#,
        ],
    );
    subscription(
        r#"on-message = { log = "{payload" }"#,
        &[
            r#"tidegate.toml:8:22: subscriptions[0].on-message.log = "{payload": a "{" has no "}"; close it, or write "{{" for a brace"#,
        ],
    );
    subscription(
        r#"on-message = { log = "payload}" }"#,
        &[
            r#"tidegate.toml:8:22: subscriptions[0].on-message.log = "payload}": a "}" has no "{" before it; write "}}" for a brace"#,
        ],
    );
    subscription(
        r#"on-message = { log = "${payload}" }"#,
        &[
            r#"tidegate.toml:8:22: subscriptions[0].on-message.log = "${payload}": "${payload}" names no known source; use "${env:NAME}" or "${file:PATH}", or "$${" for the characters themselves"#,
        ],
    );
    subscription(
        r#"on-message = { log = "{${env:SITE}}" }"#,
        &[
            r#"tidegate.toml:8:22: subscriptions[0].on-message.log = "{${env:SITE}}": has an unknown placeholder; use {payload}, {topic}, {broker}, {subscription}, {qos}, {retain}"#,
        ],
    );
}

#[test]
fn when() {
    subscription(
        r#"when = "x""#,
        &[
            r#"tidegate.toml:8:8: subscriptions[0].when = "x": expected a table, got a string; use when = { payload = "EXPRESSION" }"#,
        ],
    );
    subscription(
        "when = {}",
        &["tidegate.toml:8:8: subscriptions[0].when: has no condition; add payload, min-bytes or retained"],
    );
    subscription(
        r#"when = { otherwise = "next" }"#,
        &["tidegate.toml:8:8: subscriptions[0].when: has no condition; add payload, min-bytes or retained"],
    );
    subscription(
        r#"when = { payload = "(" }"#,
        &[
            r#"tidegate.toml:8:20: subscriptions[0].when.payload = "(": not a regular expression: unclosed group; write a \ before each of .+*?()|[]{}^$\ that stands for itself"#,
        ],
    );
    subscription(
        r#"when = { payload = "a{1000}{1000}" }"#,
        &[
            r#"tidegate.toml:8:20: subscriptions[0].when.payload = "a{1000}{1000}": compiles to more than 1MiB; use smaller repetitions, or \x in place of Unicode classes"#,
        ],
    );
    subscription(
        "when = { payload = 5 }",
        &[r#"tidegate.toml:8:20: subscriptions[0].when.payload = 5: expected a string, got an integer; use "5""#],
    );
    subscription(
        r#"when = { min-bytes = "1KiB" }"#,
        &[
            r#"tidegate.toml:8:22: subscriptions[0].when.min-bytes = "1KiB": expected an integer, got a string; use a number from 0 to 268435455 bytes, without quotes"#,
        ],
    );
    subscription(
        "when = { min-bytes = -1 }",
        &["tidegate.toml:8:22: subscriptions[0].when.min-bytes = -1: must be 0 to 268435455 bytes; use 0"],
    );
    subscription(
        r#"when = { retained = "false" }"#,
        &[
            r#"tidegate.toml:8:21: subscriptions[0].when.retained = "false": expected a boolean, got a string; use false"#,
        ],
    );
    subscription(
        r#"when = { min-bytes = 1, otherwise = "continue" }"#,
        &[
            r#"tidegate.toml:8:37: subscriptions[0].when.otherwise = "continue": not a known value; use "stop" or "next""#,
        ],
    );
    subscription(
        "when = { max-bytes = 1 }",
        &[
            "tidegate.toml:8:8: subscriptions[0].when: has no condition; add payload, min-bytes or retained",
            r#"tidegate.toml:8:10: subscriptions[0].when.max-bytes: unknown key; did you mean "min-bytes"? known here: min-bytes, otherwise, payload, retained"#,
        ],
    );
}

#[test]
fn topics() {
    topic(
        "a/#/b",
        &[
            r#"tidegate.toml:5:9: subscriptions[0].topic = "a/#/b": '#' must be the last level (MQTT 5 §4.7.1.2); use "a/#""#,
        ],
    );
    topic(
        "a/b#",
        &[
            r#"tidegate.toml:5:9: subscriptions[0].topic = "a/b#": '#' must be a level of its own, not part of "b#" (MQTT 5 §4.7.1); use a topic filter such as "a/+/b" or "a/#""#,
        ],
    );
    topic(
        "a+/b",
        &[
            r#"tidegate.toml:5:9: subscriptions[0].topic = "a+/b": '+' must be a level of its own, not part of "a+" (MQTT 5 §4.7.1); use a topic filter such as "a/+/b" or "a/#""#,
        ],
    );
    topic(
        "",
        &[
            r#"tidegate.toml:5:9: subscriptions[0].topic = "": must not be empty (MQTT 5 §4.7.3); use a topic filter such as "a/+/b" or "a/#""#,
        ],
    );
    topic(
        r#"a\u0000"#,
        &[
            r#"tidegate.toml:5:9: subscriptions[0].topic = "a\u0000": has the character U+0000 at byte 1 (MQTT 5 §4.7.3); use a topic filter such as "a/+/b" or "a/#""#,
        ],
    );
    topic(
        "$share/group/a/#",
        &[
            r#"tidegate.toml:5:9: subscriptions[0].topic = "$share/group/a/#": a share has a key of its own; use topic = "a/#" and share = "group""#,
        ],
    );
    topic(
        "$share/group",
        &[
            r#"tidegate.toml:5:9: subscriptions[0].topic = "$share/group": a share has a key of its own; use share = "NAME", and the topic without "$share/…/""#,
        ],
    );
    topic(
        "${env:BAD_FILTER}",
        &[
            r#"tidegate.toml:5:9: subscriptions[0].topic = "${env:BAD_FILTER}": '#' must be the last level (MQTT 5 §4.7.1.2); use a topic filter"#,
        ],
    );
    topic(
        "${env:BAD_LEVEL}",
        &[
            r#"tidegate.toml:5:9: subscriptions[0].topic = "${env:BAD_LEVEL}": '+' must be a level of its own (MQTT 5 §4.7.1); use a topic filter"#,
        ],
    );
    topic(
        "${env:SHARED}",
        &[
            r#"tidegate.toml:5:9: subscriptions[0].topic = "${env:SHARED}": a share has a key of its own; use share = "NAME", and the topic without "$share/…/""#,
        ],
    );
}

#[test]
fn references() {
    check(
        "[brokers.plant]\naddress = \"mqtt.example\"\n[[subscriptions]]",
        &[
            r#"tidegate.toml:3:1: subscriptions[0].broker: missing; add broker = "plant""#,
            r#"tidegate.toml:3:1: subscriptions[0].topic: missing; add topic = "FILTER""#,
        ],
    );
    check(
        "[brokers.plant]\naddress = \"mqtt.example\"\n[[subscriptions]]\nbroker = \"plnt\"\ntopic = \"a\"",
        &[r#"tidegate.toml:4:10: subscriptions[0].broker = "plnt": no such broker; did you mean "plant"?"#],
    );
    check(
        "[brokers.plant]\naddress = \"mqtt.example\"\n[[subscriptions]]\nbroker = \"cloud\"\ntopic = \"a\"\non-message = \"celsius\"",
        &[
            r#"tidegate.toml:4:10: subscriptions[0].broker = "cloud": no such broker; use "plant", or add another [brokers.NAME]"#,
            r#"tidegate.toml:6:14: subscriptions[0].on-message = "celsius": no such handler; add [handlers.NAME]"#,
        ],
    );
    check(
        "[brokers.plant]\naddress = \"mqtt.example\"\n[[subscriptions]]\nbroker = 1\ntopic = 2",
        &[
            r#"tidegate.toml:4:10: subscriptions[0].broker = 1: expected a string, got an integer; use "1""#,
            r#"tidegate.toml:5:9: subscriptions[0].topic = 2: expected a string, got an integer; use "2""#,
        ],
    );
    check(
        "[brokers.plant]\naddress = \"a\"\n[brokers.cloud]\naddress = \"b\"\n[[subscriptions]]\ntopic = \"a\"",
        &[r#"tidegate.toml:5:1: subscriptions[0].broker: missing; add broker = "plant" or "cloud""#],
    );
    check(
        "subscriptions = 5\n[brokers.plant]\naddress = \"mqtt.example\"\n",
        &["tidegate.toml:1:17: subscriptions = 5: expected an array, got an integer; use [[subscriptions]]"],
    );
    check(
        "subscriptions = [\"a\"]\n[brokers.plant]\naddress = \"mqtt.example\"\n",
        &[r#"tidegate.toml:1:18: subscriptions[0] = "a": expected a table, got a string; use [[subscriptions]]"#],
    );
    check(
        "[brokers.plant]\naddress = \"mqtt.example\"\n[[subscriptions]]\nbroker = \"plant\"\ntopic = \"a/b\"\n[[subscriptions]]\nbroker = \"plant\"\ntopic = \"a/b\"\n",
        &[
            r#"tidegate.toml:8:9: subscriptions[1].topic = "a/b": the same filter as at tidegate.toml:5:9, under the same condition; give them different "when" conditions, or set dispatch = "all" for the broker to run both"#,
        ],
    );
    check(
        "[brokers.plant]\naddress = \"mqtt.example\"\n[[subscriptions]]\nbroker = \"plant\"\ntopic = \"a/b\"\nwhen = { min-bytes = 1 }\n[[subscriptions]]\nbroker = \"plant\"\ntopic = \"a/b\"\nwhen = { min-bytes = 1, otherwise = \"next\" }\n",
        &[
            r#"tidegate.toml:9:9: subscriptions[1].topic = "a/b": the same filter as at tidegate.toml:5:9, under the same condition; give them different "when" conditions, or set dispatch = "all" for the broker to run both"#,
        ],
    );
    check(
        "[brokers.plant]\naddress = \"mqtt.example\"\ndispatch = \"all\"\n[[subscriptions]]\nbroker = \"plant\"\ntopic = \"a/b\"\non-message = { log = \"x\" }\n[[subscriptions]]\nbroker = \"plant\"\ntopic = \"a/b\"\non-message = { log = \"x\" }\n",
        &[
            r#"tidegate.toml:10:9: subscriptions[1].topic = "a/b": does the same as the subscription at tidegate.toml:6:9; remove one of the two"#,
        ],
    );
    check(
        "[brokers.plant]\naddress = \"mqtt.example\"\n[[subscriptions]]\nbroker = \"plant\"\ntopic = \"a/b\"\nname = \"x\"\n[[subscriptions]]\nbroker = \"plant\"\ntopic = \"b\"\nname = \"x\"\n",
        &[
            r#"tidegate.toml:10:8: subscriptions[1].name = "x": also the name of the subscription at tidegate.toml:6:8; use another name"#,
        ],
    );
    check(
        "[brokers.plant]\naddress = \"mqtt.example\"\n[[subscriptions]]\nbroker = \"plant\"\ntopic = \"a/b\"\nwhen = { min-bytes = 1, otherwise = \"next\" }\n[[subscriptions]]\nbroker = \"plant\"\ntopic = \"a/b\"\n",
        &[
            r#"tidegate.toml:7:1: subscriptions[1].name: the default, BROKER:TOPIC, is also the name of the subscription at tidegate.toml:5:9; add name = "NAME""#,
        ],
    );
}
