//! Schedules that publish: when, what, and to which broker.

use std::time::{Duration, Instant};

use serde_json::Value;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, wait};

/// A schedule that publishes.
fn schedule(name: &str, when: &str, publish: &str) -> String {
    format!("[[schedules]]\nname = \"{name}\"\n{when}\npublish = {{ broker = \"plant\", {publish} }}\n")
}

fn runs(daemon: &Daemon, schedule: &str, result: &str) -> f64 {
    daemon.metrics().sum("tidegate_schedule_runs_total", &[("schedule", schedule), ("result", result)])
}

#[test]
fn a_message_is_published_again_and_again_without_drift() {
    let broker = Mosquitto::start();
    let collector = broker.client(Protocol::V5);
    collector.subscribe("gw/#", 1);
    let begins = Instant::now();
    let config = Config::new().broker("plant", broker.port(), Protocol::V5, "").table(schedule(
        "beat",
        "every = \"1s\"",
        "topic = \"gw/beat\", message = \"on\", qos = 1",
    ));
    let daemon = Daemon::start(&config);
    let came = collector.collect(3);
    let took = begins.elapsed();
    assert!(came.iter().all(|message| message.text() == "on" && message.qos == 1 && !message.retain), "{came:?}");
    assert!(took >= Duration::from_secs(3), "the first comes after a second: {took:?}");
    wait::until("the runs are counted", || match runs(&daemon, "beat", "ok") {
        ok if ok >= 3.0 => Ok(()),
        ok => Err(format!("{ok}")),
    });
    let metrics = daemon.metrics();
    let zeros = ["reject", "retry", "trap", "deadline", "memory", "limit"];
    let labels =
        |result: &str| metrics.sum("tidegate_schedule_runs_total", &[("schedule", "beat"), ("result", result)]);
    assert!(zeros.iter().all(|result| labels(result) == 0.0), "{}", metrics.page);
    let skipped = "tidegate_schedule_runs_total{result=\"skipped\",schedule=\"beat\"}";
    assert!(metrics.page.contains(skipped), "it is there from the start: {}", metrics.page);
}

#[test]
fn a_cron_pattern_is_due_when_the_clock_matches() {
    let broker = Mosquitto::start();
    let collector = broker.client(Protocol::V311);
    collector.subscribe("out/run/#", 1);
    let config = Config::new()
        .broker("plant", broker.port(), Protocol::V311, "")
        .guest("echo", "plant", "mode = \"echo\"", "default-broker = \"plant\"")
        .table("[[schedules]]\nname = \"even\"\ncron = \"*/2 * * * * *\"\ntime-zone = \"Europe/Riga\"\non-schedule = \"echo\"");
    let daemon = Daemon::start(&config);
    let dues: Vec<u64> = collector.collect(2).iter().map(|message| due(message, "schedule")).collect();
    assert!(dues.iter().all(|due| due % 2_000_000_000 == 0), "on whole even seconds: {dues:?}");
    assert!(dues[1] > dues[0], "{dues:?}");
    drop(daemon);
}

/// The instant at which a run of the test guest was due, in nanoseconds since the Unix epoch.
fn due(message: &Message, trigger: &str) -> u64 {
    let (by, due) = message.text().split_once(' ').expect("a trigger and a number");
    assert_eq!(by, trigger);
    due.parse().expect("a number")
}

#[test]
fn system_stats_have_the_keys_of_routeros() {
    let broker = Mosquitto::start();
    let collector = broker.client(Protocol::V5);
    collector.subscribe("gw/#", 0);
    let stats = "topic = \"gw/stats\", payload = { builtin = \"system-stats\" }";
    let config = Config::new().broker("plant", broker.port(), Protocol::V5, "").table(schedule(
        "stats",
        "every = \"1s\"",
        stats,
    ));
    let _daemon = Daemon::start(&config);
    let text = collector.collect(1).remove(0).text().to_owned();
    let stats: Value = serde_json::from_str(&text).expect("is JSON");
    let keys = ["model", "sn", "ros", "cpu", "umem", "fmem", "uptime"];
    let places: Vec<usize> =
        keys.iter().map(|key| text.find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("{key}: {text}"))).collect();
    assert!(places.is_sorted() && stats.as_object().expect("a table").len() == keys.len(), "{text}");
    assert!(!text.contains(": ") && !text.contains(", "), "compact: {text}");
    assert!(["model", "sn", "ros", "uptime"].iter().all(|key| stats[key].is_string()), "{text}");
    assert!(stats["cpu"].as_u64().is_some_and(|cpu| cpu <= 100), "{text}");
    let total = std::fs::read_to_string("/proc/meminfo").expect("Linux has it");
    let total: u64 = total
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().nth(1))
        .expect("a number")
        .parse()
        .expect("a number");
    let sum = stats["umem"].as_u64().expect("a number") + stats["fmem"].as_u64().expect("a number");
    assert_eq!(sum, total * 1024, "used and free are all of the memory: {text}");
    let uptime = stats["uptime"].as_str().expect("a text");
    let clock = &uptime[uptime.len() - 8..];
    assert!(
        clock.chars().enumerate().all(|(at, c)| if at == 2 || at == 5 { c == ':' } else { c.is_ascii_digit() }),
        "{uptime}"
    );
}

#[test]
fn a_broker_that_is_not_connected_is_connected_for_it() {
    let broker = Mosquitto::start();
    let collector = broker.client(Protocol::V5);
    collector.subscribe("gw/#", 1);
    let config = Config::new().broker("plant", broker.port(), Protocol::V5, "auto-connect = false").table(schedule(
        "beat",
        "every = \"1s\"",
        "topic = \"gw/beat\", message = \"on\", qos = 1",
    ));
    let daemon = Daemon::launch(&config);
    assert_eq!(collector.collect(1)[0].text(), "on");
    // Also where it was disconnected by hand.
    daemon.done(&["brokers", "disconnect", "plant"]);
    collector.rest();
    assert_eq!(collector.collect(2)[1].text(), "on");
    assert!(daemon.metrics().connects("plant", "accepted") >= 2.0);
}

#[test]
fn what_is_published_waits_for_a_broker_that_is_away() {
    let mut broker = Mosquitto::start();
    let config = Config::new().broker("plant", broker.port(), Protocol::V5, "").table(schedule(
        "beat",
        "every = \"1s\"",
        "topic = \"gw/beat\", message = \"on\", qos = 1",
    ));
    let daemon = Daemon::start(&config);
    broker.kill();
    let before = runs(&daemon, "beat", "ok");
    daemon.wait_metrics("three runs find their broker away", |metrics| {
        let ran = metrics.sum("tidegate_schedule_runs_total", &[("schedule", "beat"), ("result", "ok")]);
        ran >= before + 3.0 && metrics.sum("tidegate_outbox_messages", &[("broker", "plant")]) >= 3.0
    });
    broker.restart();
    let collector = broker.client(Protocol::V5);
    collector.subscribe("gw/#", 1);
    daemon.wait_metrics("what waited is published", |metrics| metrics.published("plant") >= 3.0);
}

#[test]
fn an_outbox_that_rejects_makes_the_run_fail() {
    let mut broker = Mosquitto::start();
    let outbox = "outbox = { max-messages = 1, when-full = \"reject\" }";
    let config = Config::new().broker("plant", broker.port(), Protocol::V5, outbox).table(schedule(
        "beat",
        "every = \"1s\"",
        "topic = \"gw/beat\", message = \"on\", qos = 1",
    ));
    let daemon = Daemon::start(&config);
    broker.kill();
    daemon.wait_metrics("the second one finds no room", |metrics| {
        metrics.sum("tidegate_schedule_runs_total", &[("schedule", "beat"), ("result", "retry")]) >= 1.0
    });
    let shown: Value = serde_json::from_str(&daemon.get("/api/v1/schedules").body).expect("is JSON");
    let error = shown[0]["last-error"].as_str().expect("a text");
    assert!(error.starts_with("what it publishes has no room: the outbox of plant is full"), "{error}");
    assert_eq!((&shown[0]["name"], &shown[0]["timing"]), (&"beat".into(), &"every 1s".into()), "{shown}");
    assert_eq!(shown[0]["action"], "publish plant:gw/beat", "{shown}");
}

#[test]
fn after_a_restart_schedules_begin_anew() {
    let broker = Mosquitto::start();
    let collector = broker.client(Protocol::V5);
    collector.subscribe("gw/#", 1);
    let config = Config::new().broker("plant", broker.port(), Protocol::V5, "").table(schedule(
        "beat",
        "every = \"1s\"",
        "topic = \"gw/beat\", message = \"on\", qos = 1",
    ));
    let mut daemon = Daemon::start(&config);
    collector.collect(1);
    daemon.terminate();
    collector.rest();
    daemon.restart();
    collector.collect(2);
    wait::until_true("its runs are counted", || runs(&daemon, "beat", "ok") >= 2.0);
    assert_eq!(daemon.log_lines(&["ERROR"]), [""; 0]);
}
