//! What one call may publish, and what becomes of a call that wants more: nothing of it leaves.

use tidegate_tests::component::component;
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

#[test]
fn a_handler_has_max_memory_and_not_a_page_more() {
    // The component has two pages of 64 KiB; it takes so many more at its call, or gives up.
    let grows = |pages: usize| {
        format!(
            "(func $handle (param i32) (result i32)
                (if (i32.lt_s (memory.grow (i32.const {pages})) (i32.const 0)) (then (unreachable))) (i32.const 0x80))"
        )
    };
    let broker = Mosquitto::start();
    let keys = "max-memory = \"1MiB\"\nretry = { max = 0 }\ninstances = 1";
    let config = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "")
        .component("fits", component(&grows(14), ""), keys)
        .component("more", component(&grows(15), ""), keys)
        .subscription("plant", "fits/#", 1, "fits", "")
        .subscription("plant", "more/#", 1, "more", "");
    let daemon = Daemon::start(&config);
    broker.client(Protocol::V5).publish_all(&[Message::new("fits/a", "x"), Message::new("more/a", "x")]);
    let metrics = daemon.settle("plant", 2);
    assert_eq!(metrics.calls("fits", "ok"), 1.0, "all of max-memory");
    assert_eq!(metrics.calls("more", "memory"), 1.0, "a page more than max-memory");
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
