//! Errors of outboxes that are smaller than what one call may publish.

use super::{BROKER_AND_HANDLER, NONE, check};

/// A broker with this outbox, on line 3, and a handler on line 4 with these keys, from line 6 on, that may publish to it.
#[track_caller]
fn capacities<E: AsRef<str>>(outbox: &str, keys: &str, expected: &[E]) {
    let grant = "allow = { publish = [\"plant:out/#\", \"plant:other/#\"] }";
    check(
        &format!(
            "[brokers.plant]\naddress = \"mqtt.example\"\n{outbox}\n[handlers.celsius]\nplugin = \"celsius.wasm\"\n{keys}\n{grant}\n"
        ),
        expected,
    );
}

#[test]
fn an_outbox_holds_what_one_call_may_publish() {
    capacities("outbox = { max-messages = 64 }", "", NONE);
    capacities("outbox = { max-messages = 5 }", "max-publishes = 5", NONE);
    capacities(
        "outbox = { max-messages = 5 }",
        "max-publishes = 6",
        &[
            "tidegate.toml:6:17: handlers.celsius.max-publishes = 6: one call may publish more than the outbox of plant holds: \
             brokers.plant.outbox.max-messages = 5 at tidegate.toml:3:27; use 5 or less, or raise that max-messages",
        ],
    );
    capacities(
        "",
        "max-publishes = 10001",
        &[
            "tidegate.toml:6:17: handlers.celsius.max-publishes = 10001: one call may publish more than the outbox of plant \
             holds: brokers.plant.outbox.max-messages = 10000 by default; use 10000 or less, or raise that max-messages",
        ],
    );
    capacities(
        "outbox = { max-messages = 63 }",
        "",
        &[
            "tidegate.toml:3:27: brokers.plant.outbox.max-messages = 63: holds less than one call of celsius may publish: \
             handlers.celsius.max-publishes = 64 by default, for the handler at tidegate.toml:4:1; use 64 or more, or set a \
             lower max-publishes there",
        ],
    );
    capacities(
        r#"outbox = { max-bytes = "512KiB" }"#,
        "",
        &[
            r#"tidegate.toml:3:24: brokers.plant.outbox.max-bytes = "512KiB": holds less than one call of celsius may publish: handlers.celsius.max-publish-bytes = "1MiB" by default, for the handler at tidegate.toml:4:1; use "1MiB" or more, or set a lower max-publish-bytes there"#,
        ],
    );
    capacities(
        r#"outbox = { max-bytes = "512KiB" }"#,
        r#"max-publish-bytes = "513KiB""#,
        &[
            r#"tidegate.toml:6:21: handlers.celsius.max-publish-bytes = "513KiB": one call may publish more than the outbox of plant holds: brokers.plant.outbox.max-bytes = "512KiB" at tidegate.toml:3:24; use "512KiB" or less, or raise that max-bytes"#,
        ],
    );
}

/// Who may not publish to a broker does not care for its outbox.
#[test]
fn an_outbox_need_not_hold_what_cannot_come() {
    let lab = "[brokers.lab]\naddress = \"lab.example\"\noutbox = { max-messages = 1 }\n";
    check(&format!("{BROKER_AND_HANDLER}allow = {{ publish = [\"plant:out/#\"] }}\n{lab}"), NONE);
    check(&format!("{BROKER_AND_HANDLER}max-publishes = 20000\n{lab}"), NONE);
}
