//! The way of one message, live: what `tidegate trace` shows.

use serde_json::Value;
use tidegate_tests::config::ECHO;
use tidegate_tests::http::Events;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(
    each_step_of_a_message_is_told_from_its_receipt_to_its_end,
    a_denial_is_told_with_its_reason,
    who_reads_nothing_holds_up_nobody,
);

/// The rest of a stream, which ends by itself, as JSON.
fn rest(events: Events) -> Vec<Value> {
    events.map(|event| serde_json::from_str(&event).expect("is JSON")).collect()
}

fn names(steps: &[Value]) -> Vec<&str> {
    steps.iter().map(|step| step["step"].as_str().expect("a name")).collect()
}

fn each_step_of_a_message_is_told_from_its_receipt_to_its_end(protocol: Protocol) {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .guest("echo", "plant", ECHO, "")
        .subscription("plant", "in/+", 1, "echo", "name = \"first\"")
        .table("[[subscriptions]]\nbroker = \"plant\"\nname = \"all\"\ntopic = \"#\"\nqos = 1");
    let daemon = Daemon::start(&config);
    let events = daemon.follow("/api/v1/trace?topic=in/%2B&count=1");
    broker.client(protocol).publish_all(&[
        Message::new("other", "x"),
        Message::new("in/a", "abc"),
        Message::new("in/b", "past the count"),
    ]);
    let steps = rest(events);
    let expected =
        ["received", "matched", "queued", "call-begins", "held-back", "call-ended", "admitted", "published", "ended"];
    assert_eq!(names(&steps), expected);
    let sequence = &steps[0]["sequence"];
    assert!(steps.iter().all(|step| step["sequence"] == *sequence), "{steps:#?}");
    assert!(steps.is_sorted_by_key(|step| step["elapsed"].as_u64()), "{steps:#?}");

    let check = |step: usize, key: &str, expected: Value| assert_eq!(steps[step][key], expected, "{:#}", steps[step]);
    check(0, "broker", "plant".into());
    check(0, "topic", "in/a".into());
    check(0, "bytes", 3.into());
    check(1, "outcome", "runs".into());
    let candidates = steps[1]["subscriptions"].as_array().expect("a list");
    let told: Vec<_> = candidates.iter().map(|one| (one["subscription"].clone(), one["runs"].clone())).collect();
    assert_eq!(told, [("first".into(), true.into()), ("all".into(), false.into())]);
    check(3, "handler", "echo".into());
    check(3, "subscription", "first".into());
    check(3, "attempt", 1.into());
    assert_eq!(steps[3]["version"].as_str().map(str::len), Some(12));
    check(4, "topic", "out/in/a".into());
    check(5, "result", "ok".into());
    check(5, "publishes", 1.into());
    check(7, "result", "delivered".into());
    check(7, "topic", "out/in/a".into());
    check(8, "outcome", "handled".into());
    // The two echoes come back, since "#" matches them too.
    daemon.settle("plant", 3 + 2);
}

fn a_denial_is_told_with_its_reason(protocol: Protocol) {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .guest("strays", "plant", "mode = \"denied\"", "")
        .subscription("plant", "in/+", 1, "strays", "");
    let daemon = Daemon::start(&config);
    let events = daemon.follow("/api/v1/trace?topic=%23&count=1");
    broker.client(protocol).publish(&Message::new("in/a", "x"));
    let steps = rest(events);
    assert_eq!(
        names(&steps),
        ["received", "matched", "queued", "call-begins", "denied", "call-ended", "kept-dead-letter", "ended"]
    );
    assert_eq!(steps[4]["topic"], "forbidden/topic");
    let reason = "handler \"strays\" must not publish to \"plant:forbidden/topic\": allow.publish grants \"plant:out/#\"; \
                  to permit it, add \"plant:forbidden/topic\" or a filter that matches to allow.publish of [handlers.strays]";
    assert_eq!(steps[4]["reason"], reason);
    assert_eq!((&steps[5]["result"], &steps[6]["reason"]), (&"reject".into(), &"reject".into()));
    assert_eq!(steps[7]["outcome"], "dead_letter");
}

fn who_reads_nothing_holds_up_nobody(protocol: Protocol) {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .guest("echo", "plant", ECHO, "")
        .subscription("plant", "in/#", 1, "echo", "");
    let daemon = Daemon::start(&config);
    let (steps, received) = (daemon.follow("/api/v1/trace?topic=%23"), daemon.follow("/api/v1/received/stream"));
    // Far more than sockets hold: 24 MB of messages, and about as much in steps.
    let topic = format!("in/{}", "x".repeat(1_000));
    let sent: Vec<Message> = (0..1_500).map(|n| Message::new(topic.as_str(), format!("{n:016000}"))).collect();
    broker.client(protocol).publish_all(&sent);
    let metrics = daemon.settle("plant", sent.len());
    assert_eq!(metrics.finished("plant", "handled"), sent.len() as f64);
    for mut events in [steps, received] {
        assert!(events.any(|event| event.contains("\"count\":")), "it is told how much it missed");
    }
}
