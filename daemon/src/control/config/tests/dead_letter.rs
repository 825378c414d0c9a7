//! Errors of `dead-letter` of a handler, and warnings of dead letters and messages that can go in a circle.

use super::{assemble_text, check, check_warnings, good, handler, lines};

#[test]
fn dead_letter() {
    handler(r#"dead-letter = { broker = "plant", topic = "tidegate/dead/celsius" }"#, &[""; 0]);
    handler(
        r#"dead-letter = "plant:dead""#,
        &[
            r#"tidegate.toml:5:15: handlers.celsius.dead-letter = "plant:dead": expected a table, got a string; use dead-letter = { broker = "BROKER", topic = "TOPIC" }"#,
        ],
    );
    handler(
        "dead-letter = {}",
        &[
            r#"tidegate.toml:5:15: handlers.celsius.dead-letter.broker: missing; add broker = "plant""#,
            r#"tidegate.toml:5:15: handlers.celsius.dead-letter.topic: missing; add topic = "tidegate/dead/celsius""#,
        ],
    );
    handler(
        r#"dead-letter = { broker = "plan", topic = "dead/#" }"#,
        &[
            r#"tidegate.toml:5:26: handlers.celsius.dead-letter.broker = "plan": no such broker; did you mean "plant"?"#,
            r##"tidegate.toml:5:42: handlers.celsius.dead-letter.topic = "dead/#": has the wildcard '#' at byte 5, which only a topic filter may have (MQTT 5 §4.7.1); use one topic such as "tidegate/dead/celsius""##,
        ],
    );
    handler(
        r#"dead-letter = { broker = "plant", topic = "" }"#,
        &[
            r#"tidegate.toml:5:43: handlers.celsius.dead-letter.topic = "": must not be empty (MQTT 5 §4.7.3); use one topic such as "tidegate/dead/celsius""#,
        ],
    );
    handler(
        r#"dead-letter = { broker = "plant", topic = "a\u0001" }"#,
        &[
            r#"tidegate.toml:5:43: handlers.celsius.dead-letter.topic = "a\u0001": has the character U+0001, over which brokers may end the connection (MQTT 5 §1.5.4); remove it"#,
        ],
    );
    handler(
        r#"dead-letter = { broker = 1, topic = "dead", qos = 1 }"#,
        &[
            r#"tidegate.toml:5:26: handlers.celsius.dead-letter.broker = 1: expected a string, got an integer; use "1""#,
            "tidegate.toml:5:45: handlers.celsius.dead-letter.qos: unknown key; known here: broker, topic",
        ],
    );
    check(
        "[handlers.celsius]\nplugin = \"celsius.wasm\"\ndead-letter = { topic = \"dead\" }\n",
        &[
            r#"tidegate.toml:3:15: handlers.celsius.dead-letter.broker: missing; add [brokers.NAME], and broker = "NAME" here"#,
        ],
    );
}

/// A configuration of these handlers and subscriptions: `(NAME, KEYS)` and `(BROKER, FILTER, HANDLER)`, on plant, which speaks
/// 5, and lab, which speaks 3.1.1.
fn acting(handlers: &[(&str, &str)], subscriptions: &[(&str, &str, &str)]) -> String {
    let mut text =
        "brokers.plant.address = \"a\"\nbrokers.lab = { address = \"b\", protocol = \"3.1.1\" }\n".to_owned();
    for (name, keys) in handlers {
        text += &format!("[handlers.{name}]\nplugin = \"p.wasm\"\n{keys}\n");
    }
    for (broker, filter, handler) in subscriptions {
        let keys = format!("broker = \"{broker}\"\ntopic = \"{filter}\"\non-message = {handler}\n");
        text += &format!("[[subscriptions]]\n{keys}");
    }
    text
}

#[test]
fn a_handler_needs_no_dead_letter_topic() {
    let loaded = assemble_text(&acting(&[("a", "")], &[("lab", "a", "\"a\"")])).expect("is good");
    assert_eq!(lines(&loaded.warnings), [""; 0]);
    assert_eq!(loaded.config.handlers[0].dead_letter, None, "which is the store");
    // What is wrong with a dead-letter is an error, not a missing one.
    let broken = assemble_text(&acting(&[("a", "dead-letter = {}")], &[("plant", "a", "\"a\"")]));
    assert_eq!(lines(&broken.expect_err("is broken").warnings), [""; 0]);
    check_warnings(
        &acting(&[("a", "")], &[]),
        &[r#"tidegate.toml:3:1: handlers.a: no subscription and no schedule runs it; add on-message = "a" to one"#],
    );
}

#[test]
fn dead_letters_that_are_handled_again() {
    let handled = |all: &str, more: &[(&str, &str, &str)], expected: &[&str]| {
        let dead = "dead-letter = { broker = \"plant\", topic = \"dead/a\" }";
        let used: Vec<_> = more.iter().copied().chain([("lab", "a", "\"a\"")]).collect();
        check_warnings(&format!("{all}{}", acting(&[("a", dead)], &used)), expected);
    };
    let log = "{ log = \"dead\" }";
    handled("", &[("lab", "#", "\"a\""), ("plant", "dead/+", log)], &[]);
    let warning = r#"tidegate.toml:5:43: handlers.a.dead-letter.topic = "dead/a": the subscription "plant:#" at tidegate.toml:8:9 hands dead letters to a handler again; use a topic that no subscription with a handler gets"#;
    handled("", &[("plant", "#", "\"a\"")], &[warning]);
    // The best match alone runs, and this one only logs.
    handled("", &[("plant", "#", "\"a\""), ("plant", "dead/+", log)], &[]);
    let warning = warning.replace("toml:5", "toml:6").replace("toml:8", "toml:9");
    handled("brokers.plant.dispatch = \"all\"\n", &[("plant", "#", "\"a\""), ("plant", "dead/+", log)], &[&warning]);
    let next = "{ log = \"dead\" }\nwhen = { retained = true, otherwise = \"next\" }";
    handled(
        "",
        &[("plant", "#", "\"a\""), ("plant", "dead/+", next)],
        &[&warning.replace("toml:6", "toml:5").replace("toml:9", "toml:8")],
    );
    // A share gets its own copy.
    let shared = "\"a\"\nshare = \"g\"";
    handled(
        "",
        &[("plant", "#", shared), ("plant", "dead/+", log)],
        &[&warning.replace("toml:6", "toml:5").replace("toml:9", "toml:8").replace("plant:#", "plant:$share/g/#")],
    );
}

#[test]
fn dead_letters_to_a_topic_of_the_brokers_own() {
    let to = |topic: &str| {
        acting(
            &[("a", &format!("dead-letter = {{ broker = \"plant\", topic = \"{topic}\" }}"))],
            &[("lab", "a", "\"a\"")],
        )
    };
    for topic in ["$SYS/dead", "$SYS"] {
        check_warnings(
            &to(topic),
            &[&format!(
                r#"tidegate.toml:5:43: handlers.a.dead-letter.topic = "{topic}": topics under $SYS are the broker's own (MQTT 5 §4.7.2), which may refuse a dead letter there or end the connection over it; use one topic such as "tidegate/dead/a""#
            )],
        );
    }
    // Brokers in the cloud take messages to others of their own.
    for topic in ["$aws/rules/dead/a", "$SYSTEM", "a/$SYS"] {
        check_warnings(&to(topic), &[]);
    }
}

#[test]
fn dead_letters_that_an_outbox_may_drop() {
    let check = |plant: &str, handlers: &[(&str, &str)], expected: &[&str]| {
        let keys: Vec<(&str, String)> = handlers
            .iter()
            .map(|(name, broker)| (*name, format!("dead-letter = {{ broker = \"{broker}\", topic = \"dead\" }}")))
            .collect();
        let handlers: Vec<(&str, &str)> = keys.iter().map(|(name, keys)| (*name, &**keys)).collect();
        let quoted: Vec<String> = handlers.iter().map(|(name, _)| format!("{name:?}")).collect();
        let used: Vec<(&str, &str, &str)> =
            handlers.iter().zip(&quoted).map(|((name, _), quoted)| ("lab", *name, &**quoted)).collect();
        check_warnings(&format!("brokers.plant.outbox = {{ {plant} }}\n{}", acting(&handlers, &used)), expected);
    };
    check("max-messages = 64, max-age = \"off\", when-full = \"block\"", &[("a", "plant")], &[]);
    check("when-full = \"reject\"", &[("a", "plant")], &[]);
    check("max-age = \"1h\"", &[("a", "lab")], &[]);
    check(
        "max-age = \"1h\"",
        &[("a", "plant")],
        &[
            r#"tidegate.toml:6:26: handlers.a.dead-letter.broker = "plant": its outbox may drop dead letters, and their messages are gone then: max-age = "1h" at tidegate.toml:1:36; use a broker whose outbox keeps what waits, or remove that"#,
        ],
    );
    check(
        "max-age = \"1h\", when-full = \"drop-oldest\"",
        &[("a", "plant"), ("b", "lab"), ("c", "plant"), ("d", "plant")],
        &[
            r#"tidegate.toml:6:26: handlers.a.dead-letter.broker = "plant": its outbox may drop dead letters, those of "c", "d" too, and their messages are gone then: max-age = "1h" at tidegate.toml:1:36, when-full = "drop-oldest" at tidegate.toml:1:54; use a broker whose outbox keeps what waits, or remove these"#,
        ],
    );
    let many: Vec<String> = (0..11).map(|number| format!("h{number}")).collect();
    let handlers: Vec<(&str, &str)> = many.iter().map(|name| (&**name, "plant")).collect();
    check(
        "when-full = \"drop-oldest\"",
        &handlers,
        &[
            r#"tidegate.toml:6:26: handlers.h0.dead-letter.broker = "plant": its outbox may drop dead letters, those of "h1", "h2", "h3", "h4", "h5", "h6", "h7", "h8" and 2 more too, and their messages are gone then: when-full = "drop-oldest" at tidegate.toml:1:38; use a broker whose outbox keeps what waits, or remove that"#,
        ],
    );
}

#[test]
fn messages_that_can_go_in_a_circle() {
    let circle = |handlers: &[(&str, &str)], subscriptions: &[(&str, &str, &str)], expected: &[&str]| {
        let dead = "dead-letter = { broker = \"plant\", topic = \"dead\" }\nallow.publish = ";
        let keys: Vec<(&str, String)> =
            handlers.iter().map(|(name, grants)| (*name, format!("{dead}{grants}"))).collect();
        let handlers: Vec<(&str, &str)> = keys.iter().map(|(name, keys)| (*name, &**keys)).collect();
        check_warnings(&acting(&handlers, subscriptions), expected);
    };
    circle(&[("a", "[\"plant:out/#\", \"lab:in/#\"]")], &[("plant", "in/#", "\"a\"")], &[]);
    circle(
        &[("a", "[\"plant:in/out\"]")],
        &[("plant", "in/+", "\"a\"")],
        &[
            r#"tidegate.toml:9:9: subscriptions[0].topic = "in/+": a message can go in a circle by what its handlers may publish, "plant:in/+" -> "plant:in/+": it is stopped after 16 calls; narrow allow.publish of handlers.a"#,
        ],
    );
    // Back by way of another broker, which forgets the count; what has no handler, and what leads into the circle, is not on it.
    circle(
        &[("a", "[\"lab:x/#\"]"), ("b", "[\"plant:in/back\"]"), ("c", "[\"plant:in/#\"]")],
        &[
            ("plant", "into", "\"c\""),
            ("lab", "y", "{ log = \"x\" }"),
            ("plant", "in/#", "\"a\"\nshare = \"g\""),
            ("lab", "x/1", "\"b\""),
        ],
        &[
            r#"tidegate.toml:25:9: subscriptions[2].topic = "in/#": a message can go in a circle by what its handlers may publish, "plant:$share/g/in/#" -> "lab:x/1" -> "plant:$share/g/in/#": nothing stops it, since lab speaks 3.1.1, which carries no count of calls; narrow allow.publish of handlers.a, or of another on the way"#,
        ],
    );
    let many: Vec<(String, String, String)> = (0..12)
        .map(|number| (format!("h{number}"), format!("[\"plant:t/{number}\"]"), format!("t/{number}")))
        .collect();
    let handlers: Vec<(&str, &str)> = many.iter().map(|(name, grants, _)| (&**name, &**grants)).collect();
    let quoted: Vec<String> = many.iter().map(|(name, ..)| format!("{name:?}")).collect();
    let used: Vec<(&str, &str, &str)> =
        many.iter().zip(&quoted).map(|((_, _, filter), quoted)| ("plant", &**filter, &**quoted)).collect();
    let dead = "dead-letter = { broker = \"plant\", topic = \"dead\" }\nallow.publish = ";
    let keys: Vec<(&str, String)> = handlers.iter().map(|(name, grants)| (*name, format!("{dead}{grants}"))).collect();
    let handlers: Vec<(&str, &str)> = keys.iter().map(|(name, keys)| (*name, &**keys)).collect();
    let told = lines(&good(&acting(&handlers, &used)).warnings);
    assert_eq!(told.len(), 11);
    assert!(
        told[10]
            .ends_with(r#""t/10": this and 1 more circles of messages are not told; narrow the grants of the others"#),
        "{told:?}"
    );
}
