//! A handler that misbehaves harms neither its later messages nor any other handler, and the log says what it did.

use tidegate_tests::config::ECHO;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol};

const GOOD: usize = 40;
const BAD: usize = 4;

#[test]
fn a_looping_handler_is_stopped_at_its_call_deadline() {
    check("loop", "deadline", "the call took longer than call-deadline = 2s");
}

#[test]
fn a_trapping_handler_is_replaced() {
    check("trap", "trap", "it panicked or aborted");
}

#[test]
fn a_handler_that_recurses_without_end_is_replaced() {
    check("recurse", "trap", "endless recursion");
}

#[test]
fn a_memory_hungry_handler_is_stopped_at_its_limit() {
    check("memory", "memory", "max-memory");
}

#[test]
fn a_handler_that_rejects_is_called_again() {
    check("reject", "reject", "the handler rejected the message");
}

#[test]
fn a_handler_that_asks_for_a_retry_is_called_again() {
    check("retry", "retry", "the handler asks for a retry");
}

/// Sends messages that make the handler `bad` misbehave, others to it, and others to `good`.
fn check(mode: &str, result: &str, words: &str) {
    // Short only where it is to be missed.
    let deadline = if result == "deadline" { "2s" } else { "30s" };
    let limits =
        format!("instances = 1\ncall-deadline = \"{deadline}\"\nmax-memory = \"16MiB\"\nretry = {{ max = 0 }}");
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "")
        .guest("bad", "plant", &format!("mode = \"{mode}\", trigger = \"now\""), &limits)
        .guest("good", "plant", ECHO, "")
        .subscription("plant", "bad/+", 1, "bad", "")
        .subscription("plant", "good/+", 1, "good", "");
    let daemon = Daemon::start(&config);
    let collector = broker.client(Protocol::V5);
    collector.subscribe("out/#", 1);

    let bad = (0..BAD).flat_map(|n| [Message::new("bad/a", "now"), Message::new("bad/a", format!("{n}"))]);
    let good = (0..GOOD).map(|n| Message::new(format!("good/{}", n % 4), format!("{n}")));
    let messages: Vec<_> = bad.chain(good).collect();
    broker.client(Protocol::V5).publish_all(&messages);

    let came = collector.collect(BAD + GOOD);
    let metrics = daemon.settle("plant", messages.len());
    assert_eq!(collector.rest(), [], "a failed call publishes nothing");
    let of_bad: Vec<_> = came.iter().filter(|message| message.topic == "out/bad/a").map(Message::text).collect();
    assert_eq!(of_bad, ["0", "1", "2", "3"], "the misbehaving handler's other messages");
    assert_eq!(metrics.calls("bad", result), BAD as f64, "calls with result {result}");
    assert_eq!((metrics.calls("bad", "ok"), metrics.calls("good", "ok")), (BAD as f64, GOOD as f64));
    assert_eq!(metrics.finished("plant", "dead_letter"), BAD as f64);
    assert_eq!(metrics.finished("plant", "handled"), (BAD + GOOD) as f64);
    let fields = [("handler", "bad"), ("result", result), ("error", words)];
    daemon.wait_event("the call failed, its message becomes a dead letter", &fields);
}

/// While the handler loops, and long before its deadline, others get their messages.
#[test]
fn a_handler_in_an_endless_loop_holds_up_no_other() {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "")
        .guest("bad", "plant", "mode = \"loop\"", "instances = 3\ncall-deadline = \"10m\"")
        .guest("good", "plant", ECHO, "")
        .subscription("plant", "bad/+", 1, "bad", "")
        .subscription("plant", "good/+", 1, "good", "");
    let mut daemon = Daemon::start(&config);
    let collector = broker.client(Protocol::V5);
    collector.subscribe("out/#", 1);
    let publisher = broker.client(Protocol::V5);

    for n in 0..6 {
        publisher.publish(&Message::new(format!("bad/{n}"), "loop"));
    }
    let good: Vec<_> = (0..GOOD).map(|n| Message::new(format!("good/{}", n % 4), format!("{n}"))).collect();
    publisher.publish_all(&good);

    collector.collect(GOOD);
    let metrics = daemon.balance();
    assert_eq!(metrics.in_progress("plant"), (6 + GOOD) as f64 - metrics.finished_all("plant"));
    assert_eq!(metrics.sum("tidegate_handler_calls_total", &[("handler", "bad")]), 0.0, "the loops go on");
    daemon.kill();
}
