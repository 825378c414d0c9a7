//! What one call may publish, and what becomes of a call that wants more: nothing of it leaves.

use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol};

#[test]
fn publishes_within_the_limits_leave_together() {
    assert_eq!(published("mode = \"many\", count = 64, bytes = 10", "", "ok"), 64);
}

#[test]
fn a_call_over_max_publishes_publishes_nothing() {
    assert_eq!(published("mode = \"many\", count = 5, bytes = 10", "max-publishes = 4", "limit"), 0);
}

#[test]
fn a_call_over_max_publishes_that_returns_ok_publishes_nothing() {
    assert_eq!(published("mode = \"reckless\", count = 5, bytes = 10", "max-publishes = 4", "limit"), 0);
}

#[test]
fn a_call_over_max_publish_bytes_publishes_nothing() {
    assert_eq!(published("mode = \"many\", count = 5, bytes = 1000", "max-publish-bytes = \"4KiB\"", "limit"), 0);
}

/// How many publishes of one call leave, whose result is this.
fn published(guest: &str, keys: &str, result: &str) -> usize {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "")
        .guest("many", "plant", guest, keys)
        .subscription("plant", "in/#", 1, "many", "");
    let daemon = Daemon::start(&config);
    let collector = broker.client(Protocol::V5);
    collector.subscribe("out/#", 1);
    broker.client(Protocol::V5).publish(&Message::new("in/a", "x"));
    let metrics = daemon.settle("plant", 1);
    let came = collector.rest().len();
    let outcome = if came > 0 { "handled" } else { "dead_letter" };
    assert_eq!(metrics.finished("plant", outcome), 1.0, "{outcome}");
    assert_eq!(metrics.published("plant"), came as f64);
    let calls = metrics.sum("tidegate_handler_calls_total", &[("handler", "many")]);
    assert!(calls > 0.0 && calls == metrics.calls("many", result), "all calls end with the result {result}");
    came
}
