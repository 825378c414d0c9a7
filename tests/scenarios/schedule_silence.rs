//! The silence of a subscription runs its handler.

use std::time::{SystemTime, UNIX_EPOCH};

use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(silence_runs_the_handler_until_a_message_comes, silence_counts_while_the_broker_is_away,);

/// The silence of `inputs`, in milliseconds.
const PERIOD: u128 = 2_000;

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
        .subscription("plant", "in/#", 1, "guest", &format!("name = \"inputs\"\nsilence = \"{PERIOD}ms\""))
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
    assert!(told[0] >= begins + PERIOD, "not before it was granted: {told:?}, {begins}");
    let periods = (told[1] - told[0] + PERIOD / 2) / PERIOD;
    let off = (told[1] - told[0]).abs_diff(periods * PERIOD);
    assert!(periods >= 1 && off < PERIOD / 10, "a full period after the last one, or several: {told:?}");
    // A period without a report was not forgotten: its run was skipped, or it failed.
    daemon.wait_metrics("once for each full period", |metrics| {
        let runs = |labels: &[_]| metrics.sum("tidegate_schedule_runs_total", labels);
        let inputs = ("schedule", "silence:inputs");
        runs(&[inputs, ("result", "ok")]) >= 2.0 && runs(&[inputs]) >= (periods + 1) as f64
    });

    let client = plant.client(protocol);
    let sent = now();
    client.publish(&Message::new("in/a", "x"));
    daemon.settle("plant", 1);
    // What was due before the message came may be on its way until now.
    let came = now();
    let after = collector.collect_until("a silence after the message", |report| due(report) >= came).pop();
    let after = due(&after.expect("one at least"));
    assert!(after >= sent + PERIOD, "the message ended the silence: {after}, {sent}");
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
        collector.collect_until("two silences after the end of the broker", |report| due(report) >= killed + PERIOD);
    assert!(!told.is_empty());
}
