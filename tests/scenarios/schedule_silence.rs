//! The silence of a subscription runs its handler.

use std::time::{SystemTime, UNIX_EPOCH};

use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(silence_runs_the_handler_until_a_message_comes, silence_counts_while_the_broker_is_away,);

/// The subscription `inputs` of `plant`, whose handler publishes to `reports`.
fn silent(plant: u16, reports: u16, protocol: Protocol) -> Config {
    Config::new()
        .broker("plant", plant, protocol, "")
        .broker("reports", reports, protocol, "")
        .handler(
            "guest",
            "misbehave.wasm",
            "allow = { publish = [\"reports:out/#\"] }\nconfig = { mode = \"echo\", broker = \"reports\" }",
        )
        .subscription("plant", "in/#", 1, "guest", "name = \"inputs\"\nsilence = \"2s\"")
}

/// When the silence was due that this report is of, in milliseconds since the Unix epoch.
fn due(report: &Message) -> u128 {
    let (trigger, due) = report.text().split_once(' ').expect("a trigger and a number");
    assert_eq!((report.topic.as_str(), trigger), ("out/run/inputs", "silence"));
    due.parse::<u128>().expect("a number") / 1_000_000
}

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("is later").as_millis()
}

fn silence_runs_the_handler_until_a_message_comes(protocol: Protocol) {
    let (plant, reports) = (Mosquitto::start(), Mosquitto::start());
    let collector = reports.client(protocol);
    collector.subscribe("out/run/#", 1);
    let begins = now();
    let daemon = Daemon::start(&silent(plant.port(), reports.port(), protocol));

    let told: Vec<u128> = collector.collect(2).iter().map(due).collect();
    assert!(told[0] >= begins + 2_000, "not before it was granted: {told:?}, {begins}");
    assert!((1_950..2_050).contains(&(told[1] - told[0])), "once for each full period: {told:?}");

    let sent = now();
    plant.client(protocol).publish(&Message::new("in/a", "x"));
    daemon.settle("plant", 1);
    // What was due before the message came may still be on its way.
    let after = collector.collect_until("a silence after the message", |report| due(report) >= sent).pop();
    let after = due(&after.expect("one at least"));
    assert!(after >= sent + 2_000, "the message ended the silence: {after}, {sent}");
    let metrics = daemon.metrics();
    let runs = metrics.sum("tidegate_schedule_runs_total", &[("schedule", "silence:inputs"), ("result", "ok")]);
    assert!(runs >= 3.0, "{runs}");
}

fn silence_counts_while_the_broker_is_away(protocol: Protocol) {
    let (mut plant, reports) = (Mosquitto::start(), Mosquitto::start());
    let collector = reports.client(protocol);
    collector.subscribe("out/run/#", 1);
    let daemon = Daemon::start(&silent(plant.port(), reports.port(), protocol));
    plant.kill();
    let killed = now();
    daemon.wait_not_ready();
    let told =
        collector.collect_until("two silences after the end of the broker", |report| due(report) >= killed + 2_000);
    assert!(!told.is_empty());
}
