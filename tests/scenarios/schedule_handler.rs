//! Schedules that run a handler.

use serde_json::{Value, json};
use tidegate_tests::{Config, Daemon, Home, Message, Mosquitto, Protocol, ports};

/// A handler of the test guest that runs every second as the schedule `tick`.
fn ticking(port: u16, guest: &str, keys: &str) -> Config {
    Config::new()
        .broker("plant", port, Protocol::V5, "")
        .guest("guest", "plant", guest, &format!("default-broker = \"plant\"\n{keys}"))
        .table("[[schedules]]\nname = \"tick\"\nevery = \"1s\"\non-schedule = \"guest\"")
}

fn runs(daemon: &Daemon, result: &str) -> f64 {
    daemon.metrics().sum("tidegate_schedule_runs_total", &[("schedule", "tick"), ("result", result)])
}

/// The schedule as the API shows it.
fn shown(daemon: &Daemon) -> Value {
    let schedules: Value = serde_json::from_str(&daemon.get("/api/v1/schedules").body).expect("is JSON");
    schedules[0].clone()
}

/// When runs of the test guest were due, in milliseconds since the Unix epoch.
fn dues(messages: &[Message]) -> Vec<u64> {
    let due = |message: &Message| {
        let (trigger, due) = message.text().split_once(' ').expect("a trigger and a number");
        assert_eq!((message.topic.as_str(), trigger), ("out/run/tick", "schedule"));
        due.parse::<u64>().expect("a number") / 1_000_000
    };
    messages.iter().map(due).collect()
}

/// Checks that runs were due whole periods apart. A loaded machine may skip some.
fn assert_whole_periods(dues: &[u64]) {
    for pair in dues.windows(2) {
        // To the few milliseconds by which the two clocks are read apart, a multiple of the period.
        let off = (pair[1] - pair[0]) % 1_000;
        assert!(pair[1] > pair[0] && !(50..=950).contains(&off), "{dues:?}");
    }
}

#[test]
fn a_handler_runs_on_its_schedule_and_publishes_to_its_default_broker() {
    let broker = Mosquitto::start();
    let collector = broker.client(Protocol::V5);
    collector.subscribe("out/#", 1);
    let daemon = Daemon::start(&ticking(broker.port(), "mode = \"echo\"", "instances = 2"));
    assert_whole_periods(&dues(&collector.collect(3)));
    let metrics = daemon.wait_metrics("the runs are counted", |metrics| {
        metrics.sum("tidegate_schedule_runs_total", &[("schedule", "tick"), ("result", "ok")]) >= 3.0
    });
    assert!(metrics.calls("guest", "ok") >= 3.0);
    assert_eq!(metrics.received("plant"), 0.0, "a run is no message");
    let shown = shown(&daemon);
    assert_eq!((&shown["action"], &shown["last-result"]), (&json!("on-schedule guest"), &json!("ok")), "{shown}");
    assert!(shown["next"].is_string() && shown["last-run"].is_string() && shown["last-error"].is_null(), "{shown}");
}

#[test]
fn runs_that_take_longer_than_their_period_do_not_pile_up() {
    let broker = Mosquitto::start();
    let collector = broker.client(Protocol::V5);
    collector.subscribe("out/#", 1);
    let guest = "mode = \"slow\", ms = 2500";
    let daemon = Daemon::start(&ticking(broker.port(), guest, "call-deadline = \"1m\"\ninstances = 1"));
    let dues = dues(&collector.collect(3));
    for pair in dues.windows(2) {
        assert!(pair[1] - pair[0] >= 2_400, "one run is over before the next one is due: {dues:?}");
    }
    let skipped = runs(&daemon, "skipped");
    assert!(skipped >= 4.0, "those that came due meanwhile: {skipped}");
    // A run has ended a little later than its call: what it published is acknowledged first.
    daemon.wait_metrics("each call was of a run that has ended: none waits behind another", |metrics| {
        let made = metrics.sum("tidegate_schedule_runs_total", &[("schedule", "tick"), ("result", "ok")]);
        made >= 3.0 && metrics.calls("guest", "ok") == made
    });
    daemon.wait_log(&["WARN", "runs are skipped", "tick"]);
}

#[test]
fn a_run_is_made_again_only_where_the_handler_asks_for_it() {
    let broker = Mosquitto::start();
    let collector = broker.client(Protocol::V5);
    collector.subscribe("out/#", 1);
    let config =
        ticking(broker.port(), "mode = \"retry\", attempts = 2", "instances = 1\nretry = { backoff = \"50ms\" }");
    let daemon = Daemon::start(&config);
    collector.collect(1);
    let metrics = daemon.wait_metrics("the run has ended", |metrics| {
        metrics.sum("tidegate_schedule_runs_total", &[("schedule", "tick"), ("result", "ok")]) >= 1.0
    });
    assert_eq!(metrics.calls("guest", "retry"), 2.0);
    assert_eq!(metrics.sum("tidegate_handler_retries_total", &[("handler", "guest")]), 2.0);
    assert_eq!(metrics.sum("tidegate_schedule_runs_total", &[("schedule", "tick"), ("result", "retry")]), 0.0);
}

#[test]
fn a_run_that_fails_is_counted_and_told_and_the_next_one_comes() {
    let broker = Mosquitto::start();
    let collector = broker.client(Protocol::V5);
    collector.subscribe("out/#", 1);
    for (mode, error) in
        [("reject", "the handler rejected the run: asked to reject"), ("trap", "the handler trapped: ")]
    {
        let guest = format!("mode = \"{mode}\"");
        let daemon = Daemon::start(&ticking(broker.port(), &guest, "instances = 1"));
        daemon.wait_metrics("two runs fail", |metrics| {
            metrics.sum("tidegate_schedule_runs_total", &[("schedule", "tick"), ("result", mode)]) >= 2.0
        });
        let shown = shown(&daemon);
        assert_eq!(shown["last-result"], mode, "{shown}");
        assert!(shown["last-error"].as_str().is_some_and(|told| told.starts_with(error)), "{shown}");
        daemon.wait_log(&["WARN", "the schedule's run failed", error]);
        assert_eq!(daemon.metrics().sum("tidegate_handler_retries_total", &[("handler", "guest")]), 0.0);
    }
    assert_eq!(collector.rest(), [], "a failed run publishes nothing");
}

#[test]
fn a_plugin_that_does_not_export_on_schedule_is_refused() {
    let config = Config::new()
        .broker("plant", ports::free(), Protocol::V5, "")
        .handler("celsius", "celsius.wasm", "dead-letter = { broker = \"plant\", topic = \"dead\" }")
        .subscription("plant", "in/#", 1, "celsius", "name = \"inputs\"\nsilence = \"5m\"")
        .table("[[schedules]]\nname = \"tick\"\nevery = \"1s\"\non-schedule = \"celsius\"");
    let home = Home::new(&config, ports::free());
    let no = "runs the handler celsius, whose plugin does not export on-schedule";
    let (silence, schedule) = (format!("the silence of inputs {no}"), format!("the schedule tick {no}"));
    let checked = home.run(&["check", "tidegate.toml"]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    let line =
        |start: &str| checked.text().lines().find(|line| line.contains(start)).map(str::to_owned).expect("is told");
    let end = "build the plugin for the world schedule-handler or full-handler";
    assert!(line("schedules[0]: ").contains(&schedule) && line("schedules[0]: ").ends_with(end), "{checked:?}");
    assert!(line("subscriptions[0]: ").contains(&silence), "{checked:?}");
    let ran = home.run(&["run", "-c", "tidegate.toml"]);
    assert!(ran.code == Some(1) && ran.text().contains(&silence), "{ran:?}");
}

#[test]
fn a_change_of_something_else_leaves_a_schedule_alone() {
    let broker = Mosquitto::start();
    let collector = broker.client(Protocol::V5);
    collector.subscribe("out/#", 1);
    let daemon = Daemon::start(&ticking(broker.port(), "mode = \"echo\"", ""));
    let mut came = collector.collect(2);
    let more =
        ["handlers", "add", "more", "--plugin", "misbehave.wasm", "--config", "mode=echo", "--call-deadline", "20s"];
    daemon.done(&more);
    let before = runs(&daemon, "ok");
    came.extend(collector.collect(2));
    daemon.wait_metrics("runs are counted on", |metrics| {
        metrics.sum("tidegate_schedule_runs_total", &[("schedule", "tick"), ("result", "ok")]) > before
    });
    assert_whole_periods(&dues(&came));
}
