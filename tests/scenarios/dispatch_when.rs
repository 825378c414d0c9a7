//! `when`: a subscription's handler runs only under its conditions.

use tidegate_tests::config::ECHO;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(
    a_condition_that_fails_stops_the_message,
    otherwise_next_tries_the_next_rank,
    a_smallest_payload_is_asked_for,
    replayed_retained_messages_are_told_from_live_ones,
);

/// A gateway whose subscription to `alarms/boiler` runs `narrow` under a condition; `alarms/#` runs `wide`. Both count
/// only: what runs is read from the metrics.
fn narrow_and_wide(broker: &Mosquitto, protocol: Protocol, when: &str) -> Daemon {
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .guest("narrow", "plant", ECHO, "")
        .guest("wide", "plant", ECHO, "")
        .subscription("plant", "alarms/boiler", 1, "narrow", when)
        .subscription("plant", "alarms/#", 1, "wide", "");
    Daemon::start(&config)
}

/// Publishes to `alarms/boiler` and looks at how many calls of `narrow` and `wide`, and how many filtered ends it makes.
fn check(protocol: Protocol, when: &str, payloads: &[&[u8]], narrow: usize, wide: usize, filtered: usize) {
    let broker = Mosquitto::start();
    let daemon = narrow_and_wide(&broker, protocol, when);
    let messages: Vec<_> = payloads.iter().map(|payload| Message::new("alarms/boiler", *payload)).collect();
    broker.client(protocol).publish_all(&messages);
    let ends = |outcome| move |metrics: &tidegate_tests::metrics::Metrics| metrics.finished("plant", outcome);
    let metrics = daemon.wait_metrics("every message reaches its end", |metrics| {
        metrics.in_progress("plant") == 0.0
            && ends("handled")(metrics) + ends("filtered")(metrics) >= payloads.len() as f64
    });
    assert_eq!(metrics.calls("narrow", "ok"), narrow as f64, "{when}: calls of narrow");
    assert_eq!(metrics.calls("wide", "ok"), wide as f64, "{when}: calls of wide");
    assert_eq!(metrics.finished("plant", "filtered"), filtered as f64, "{when}: filtered");
    daemon.balance();
}

const ALARMS: [&[u8]; 4] =
    [b"{\"alarm\": true}", b"{\"alarm\": false}", b"\xff\x00 alarm\": true", b"{\"alarm\":true}"];

fn a_condition_that_fails_stops_the_message(protocol: Protocol) {
    check(protocol, r#"when = { payload = "\"alarm\":\\s*true" }"#, &ALARMS, 2, 0, 2);
}

fn otherwise_next_tries_the_next_rank(protocol: Protocol) {
    check(protocol, r#"when = { payload = "\"alarm\":\\s*true", otherwise = "next" }"#, &ALARMS, 2, 2, 0);
}

fn a_smallest_payload_is_asked_for(protocol: Protocol) {
    check(protocol, "when = { min-bytes = 2 }", &[b"", b"1", b"12", b"123"], 2, 0, 2);
}

fn replayed_retained_messages_are_told_from_live_ones(protocol: Protocol) {
    let broker = Mosquitto::start();
    let publisher = broker.client(protocol);
    publisher.publish(&Message::new("alarms/boiler", "before the daemon came").retained());
    let daemon = narrow_and_wide(&broker, protocol, "when = { retained = true, otherwise = \"next\" }");
    daemon.wait_metrics("the retained message is handled", |metrics| metrics.calls("narrow", "ok") == 1.0);

    publisher.publish(&Message::new("alarms/boiler", "live, and kept by the broker").retained());
    publisher.publish(&Message::new("alarms/boiler", "live"));

    let metrics = daemon.wait_metrics("the live messages are handled", |metrics| metrics.calls("wide", "ok") >= 2.0);
    assert_eq!((metrics.calls("narrow", "ok"), metrics.calls("wide", "ok")), (1.0, 2.0));
    daemon.balance();
}
