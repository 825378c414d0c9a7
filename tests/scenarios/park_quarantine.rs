//! Handlers that fail again and again: they are left alone, their messages are kept on the disk, and one of these shows when they
//! work again.

use tidegate_tests::metrics::Metrics;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(
    a_failing_handler_is_left_alone_for_longer_and_longer_until_one_trial_succeeds,
    a_resume_ends_a_quarantine,
);

fn config(port: u16, protocol: Protocol, guest: &str, quarantine: &str) -> Config {
    let keys = format!("instances = 2\nretry = {{ max = 0 }}\nquarantine = {quarantine}");
    Config::new()
        .broker("plant", port, protocol, "client-id = \"gateway\"")
        .guest("guest", "plant", guest, &keys)
        .subscription("plant", "in/#", 1, "guest", "")
}

fn failures(metrics: &Metrics) -> f64 {
    metrics.calls("guest", "trap")
}

fn quarantined(metrics: &Metrics) -> f64 {
    metrics.sum("tidegate_handler_quarantined", &[("handler", "guest")])
}

const STAYS: &str = "the handler stays quarantined: the call that was tried failed";

fn a_failing_handler_is_left_alone_for_longer_and_longer_until_one_trial_succeeds(protocol: Protocol) {
    let broker = Mosquitto::start();
    let guest = "mode = \"trap\", trigger = \"bad\"";
    let daemon = Daemon::start(&config(broker.port(), protocol, guest, "{ after = 2, for = \"1s\" }"));
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    let publisher = broker.client(protocol);

    publisher.publish(&Message::new("in/a", "works"));
    collector.collect(1);
    ["bad", "bad"].iter().for_each(|payload| publisher.publish(&Message::new("in/a", *payload)));
    let begins = daemon.wait_event(
        "the handler is quarantined: call after call failed; its messages are parked until one of them is tried",
        &[("handler", "guest"), ("wait", "1s")],
    );
    assert_eq!(begins["failures"], 2);
    // Each of these would be called by an instance of its own.
    let kept = [("in/b", "bad 1"), ("in/c", "bad 2")];
    kept.iter().for_each(|(topic, payload)| publisher.publish(&Message::new(*topic, *payload)));
    daemon.wait_metrics("they are parked", |metrics| {
        metrics.finished("plant", "parked") == 2.0 && metrics.in_progress("plant") == 0.0
    });

    // Tried one after the other, each after a longer time than the one before.
    daemon.wait_event(STAYS, &[("wait", "2s")]);
    daemon.wait_event(STAYS, &[("wait", "4s")]);
    let metrics = daemon.metrics();
    assert_eq!((failures(&metrics), quarantined(&metrics)), (4.0, 1.0), "one call for each trial");
    let shown = daemon.json(&["handlers", "list", "guest"]);
    assert_eq!((&shown["state"], shown["quarantined-until"].is_string()), (&"quarantined".into(), true));
    // Only now is there one that ends it.
    ["good 1", "good 2"].iter().for_each(|payload| publisher.publish(&Message::new("in/d", *payload)));
    let came = collector.collect(2);
    assert_eq!(came.iter().map(Message::text).collect::<Vec<_>>(), ["good 1", "good 2"]);
    daemon.wait_event("the handler's quarantine ends: the call that was tried succeeded", &[("handler", "guest")]);
    let metrics = daemon.wait_metrics("it is over", |metrics| quarantined(metrics) == 0.0);
    assert_eq!(failures(&metrics), 4.0);
    assert_eq!(daemon.balance().finished("plant", "dead_letter"), 2.0);
    publisher.publish(&Message::new("in/a", "goes on"));
    assert_eq!(collector.collect(1)[0].text(), "goes on");
    assert_eq!(collector.rest(), []);
}

fn a_resume_ends_a_quarantine(protocol: Protocol) {
    let broker = Mosquitto::start();
    let guest = "mode = \"trap\", trigger = \"bad\"";
    let daemon = Daemon::start(&config(broker.port(), protocol, guest, "{ after = 1, for = \"10m\" }"));
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    let publisher = broker.client(protocol);
    publisher.publish(&Message::new("in/a", "bad"));
    daemon.wait_metrics("it is quarantined", |metrics| quarantined(metrics) == 1.0);
    publisher.publish(&Message::new("in/a", "good"));
    daemon.wait_metrics("it is parked", |metrics| metrics.finished("plant", "parked") == 1.0);
    daemon.done(&["handlers", "resume", "guest"]);
    assert_eq!(collector.collect(1)[0].text(), "good");
    daemon.wait_event("the handler's quarantine ends: it is resumed by command", &[("handler", "guest")]);
    daemon.wait_metrics("it is over", |metrics| quarantined(metrics) == 0.0);
}

/// A handler that rejects its messages works; so does one with `quarantine = "off"`, as far as the daemon is concerned.
#[test]
fn what_is_no_failure_of_the_handler_leads_to_no_quarantine() {
    const COUNT: usize = 20;
    for (guest, quarantine) in [("mode = \"reject\"", "{ after = 2, for = \"10m\" }"), ("mode = \"trap\"", "\"off\"")] {
        let broker = Mosquitto::start();
        let daemon = Daemon::start(&config(broker.port(), Protocol::V5, guest, quarantine));
        let messages: Vec<_> = (0..COUNT).map(|n| Message::new("in/a", format!("{n}"))).collect();
        broker.client(Protocol::V5).publish_all(&messages);
        let metrics = daemon.settle("plant", COUNT);
        assert_eq!((metrics.finished("plant", "dead_letter"), quarantined(&metrics)), (COUNT as f64, 0.0));
    }
}
