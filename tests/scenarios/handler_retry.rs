//! A call that fails is made again, within the limits of the handler's `retry`: its topic waits, others go on.

use std::time::{Duration, Instant};

use tidegate_tests::script::{Request, ScriptedBroker};
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(
    a_message_is_handled_again_and_only_its_topic_waits,
    acknowledgements_wait_for_a_message_that_is_handled_again,
    of_several_handlers_only_the_one_that_failed_is_called_again,
    what_is_to_be_called_again_comes_back_after_a_lost_connection,
);

/// The handler `flaky` fails `attempts` times for each message that says "bad".
fn flaky(port: u16, protocol: Protocol, mode: &str, attempts: u32, keys: &str) -> Config {
    let guest = format!("mode = \"{mode}\", trigger = \"bad\", attempts = {attempts}");
    Config::new()
        .broker("plant", port, protocol, "")
        .guest("flaky", "plant", &guest, &format!("instances = 1\n{keys}"))
        .subscription("plant", "in/#", 1, "flaky", "")
}

fn a_message_is_handled_again_and_only_its_topic_waits(protocol: Protocol) {
    let broker = Mosquitto::start();
    let daemon = Daemon::start(&flaky(broker.port(), protocol, "retry", 1, "retry = { backoff = \"5s\" }"));
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);

    let sent = [("in/a", "bad"), ("in/a", "behind"), ("in/b", "free"), ("in/a", "last")];
    broker.client(protocol).publish_all(&sent.map(|(topic, payload)| Message::new(topic, payload)));

    let came = collector.collect(sent.len());
    let texts: Vec<_> = came.iter().map(Message::text).collect();
    assert_eq!(texts, ["free", "bad", "behind", "last"]);
    let metrics = daemon.settle("plant", sent.len());
    assert_eq!((metrics.calls("flaky", "retry"), metrics.calls("flaky", "ok")), (1.0, 4.0));
    assert_eq!(metrics.sum("tidegate_handler_retries_total", &[("handler", "flaky")]), 1.0);
    assert_eq!(metrics.sum("tidegate_handler_retrying_messages", &[("handler", "flaky")]), 0.0);
    assert_eq!(metrics.finished("plant", "handled"), 4.0);
    assert_eq!(collector.rest(), [], "a failed call publishes nothing");
    daemon.wait_event("the call failed, it is made again", &[("handler", "flaky")]);
}

fn acknowledgements_wait_for_a_message_that_is_handled_again(protocol: Protocol) {
    let broker = ScriptedBroker::listen(protocol);
    let config = flaky(broker.port(), protocol, "retry", 1, "retry = { backoff = \"5s\" }");
    let daemon = Daemon::launch(&config);
    let mut peer = broker.accept(false);
    peer.grant();
    peer.publish(1, &Message::new("in/a", "bad"));
    peer.publish(2, &Message::new("in/b", "free"));

    ["out/in/b", "out/in/a"].into_iter().for_each(|topic| match peer.request() {
        Request::Publish(message, id) if message.topic == topic => peer.acknowledge(id),
        other => panic!("expected a publish to {topic}, got {other:?}"),
    });
    assert_eq!([peer.request(), peer.request()], [Request::PubAck(1), Request::PubAck(2)]);
    drop(daemon);
}

fn of_several_handlers_only_the_one_that_failed_is_called_again(protocol: Protocol) {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "dispatch = \"all\"")
        .guest("works", "plant", "mode = \"echo\"", "")
        .guest("flaky", "plant", "mode = \"trap\", attempts = 2", "")
        .subscription("plant", "in/#", 1, "works", "")
        .subscription("plant", "in/a", 1, "flaky", "");
    let daemon = Daemon::start(&config);
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);

    broker.client(protocol).publish(&Message::new("in/a", "x"));

    collector.collect(2);
    let metrics = daemon.settle("plant", 1);
    assert_eq!((metrics.calls("works", "ok"), metrics.finished("plant", "handled")), (1.0, 1.0));
    assert_eq!((metrics.calls("flaky", "trap"), metrics.calls("flaky", "ok")), (2.0, 1.0));
    assert_eq!(collector.rest(), []);
}

/// Its calls had no effect, so that it is as one that never began: the broker's own copy is handled instead.
fn what_is_to_be_called_again_comes_back_after_a_lost_connection(protocol: Protocol) {
    let broker = ScriptedBroker::listen(protocol);
    let config =
        flaky(broker.port(), protocol, "retry", 9, "retry = { max = 9, backoff = \"10m\", max-time = \"1h\" }");
    let daemon = Daemon::launch(&config);
    let mut peer = broker.accept(false);
    peer.grant();
    peer.publish(1, &Message::new("in/a", "bad"));
    daemon.wait_metrics("it waits", |metrics| {
        metrics.sum("tidegate_handler_retrying_messages", &[("handler", "flaky")]) == 1.0
    });
    peer.hang_up();

    let mut peer = broker.accept(true);
    if protocol == Protocol::V5 {
        peer.grant();
    }
    peer.publish_again(1, &Message::new("in/a", "bad"));
    let metrics = daemon.wait_metrics("the copy is called", |metrics| metrics.calls("flaky", "retry") == 2.0);
    assert_eq!(metrics.finished("plant", "returned"), 1.0);
    assert_eq!(metrics.in_progress("plant"), 1.0);
    daemon.balance();
}

/// How a message ends that never works, and in how many calls.
#[track_caller]
fn gives_up(guest: &str, keys: &str, expected_calls: f64) {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "")
        .guest("fails", "plant", guest, keys)
        .subscription("plant", "in/#", 1, "fails", "");
    let daemon = Daemon::start(&config);
    broker.client(Protocol::V5).publish(&Message::new("in/a", "x"));
    let metrics = daemon.settle("plant", 1);
    assert_eq!(metrics.finished("plant", "dead_letter"), 1.0);
    assert_eq!(metrics.sum("tidegate_handler_calls_total", &[("handler", "fails")]), expected_calls);
    daemon.wait_event("the call failed, its message becomes a dead letter", &[("handler", "fails")]);
}

#[test]
fn calls_are_made_again_max_times() {
    gives_up("mode = \"retry\"", "retry = { max = 2, backoff = \"1ms\" }", 3.0);
    gives_up("mode = \"trap\"", "retry = { max = 2, backoff = \"1ms\" }", 3.0);
    gives_up("mode = \"retry\"", "retry = { max = 0 }", 1.0);
}

#[test]
fn what_is_rejected_is_not_tried_again() {
    gives_up("mode = \"reject\"", "", 1.0);
}

#[test]
fn a_call_that_could_only_be_made_after_max_time_is_not_waited_for() {
    gives_up("mode = \"retry\"", "retry = { max = 9, backoff = \"2s\", max-time = \"1s\" }", 1.0);
    gives_up("mode = \"retry\", ms = 3600000", "retry = { max = 9, max-time = \"30s\" }", 1.0);
}

/// Messages of one topic wait for each other, and none has less time for that.
#[test]
fn each_message_of_a_topic_has_max_time_of_its_own() {
    let broker = Mosquitto::start();
    let keys = "retry = { max = 1000, backoff = \"100ms\", max-time = \"2s\" }\n\
                dead-letter = { broker = \"plant\", topic = \"dead/it\" }";
    let daemon = Daemon::start(&flaky(broker.port(), Protocol::V5, "retry", 1000, keys));
    let client = broker.client(Protocol::V5);
    client.subscribe("dead/it", 1);
    client.publish_all(&["bad 1", "bad 2", "bad 3"].map(|text| Message::new("in/a", text)));
    let letters = client.collect(3);
    assert_eq!(letters.iter().map(Message::text).collect::<Vec<_>>(), ["bad 1", "bad 2", "bad 3"]);
    let attempts = letters.iter().map(|letter| {
        let attempts = letter.properties.user.iter().find(|(key, _)| key == "tidegate-attempts");
        attempts.and_then(|(_, value)| value.parse::<u32>().ok()).expect("a number of attempts")
    });
    // On a loaded machine one of them may have used up its time in its first call.
    assert!(attempts.filter(|attempts| *attempts > 1).count() >= 2, "{letters:?}");
    daemon.settle("plant", 3);
}

#[test]
fn the_wait_that_the_handler_asks_for_is_kept() {
    const WAIT: Duration = Duration::from_millis(700);
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "")
        .guest("later", "plant", "mode = \"retry\", attempts = 1, ms = 700", "retry = { backoff = \"1ms\" }")
        .subscription("plant", "in/#", 1, "later", "");
    let daemon = Daemon::start(&config);
    let collector = broker.client(Protocol::V5);
    collector.subscribe("out/#", 1);
    let start = Instant::now();
    broker.client(Protocol::V5).publish(&Message::new("in/a", "x"));
    collector.collect(1);
    assert!(start.elapsed() >= WAIT, "not before");
    assert_eq!(daemon.settle("plant", 1).calls("later", "retry"), 1.0);
}

/// A stop does not wait for what is far away; the kept session gets it again.
#[test]
fn a_stop_leaves_what_is_to_be_called_again_to_the_broker() {
    let broker = Mosquitto::persistent();
    let keys = "retry = { max = 9, backoff = \"10m\", max-time = \"1h\" }";
    let mut daemon =
        Daemon::start(&flaky(broker.port(), Protocol::V5, "retry", 9, keys).top("shutdown-grace = \"200ms\""));
    broker.client(Protocol::V5).publish(&Message::new("in/a", "bad"));
    daemon.wait_metrics("it was called", |metrics| metrics.calls("flaky", "retry") == 1.0);
    daemon.terminate();

    daemon.restart();
    daemon.wait_metrics("it is called again", |metrics| metrics.calls("flaky", "retry") == 1.0);
}

/// A stop waits for what is called again within `shutdown-grace`: it does not come again.
#[test]
fn a_stop_calls_again_what_comes_due_before_its_end() {
    let broker = Mosquitto::persistent();
    // Due long after the signal, and long before the end.
    let guest = "mode = \"retry\", attempts = 1, ms = 3000";
    let config = Config::new()
        .top("shutdown-grace = \"30s\"")
        .broker("plant", broker.port(), Protocol::V5, "")
        .guest("later", "plant", guest, "retry = { max = 1, backoff = \"1ms\" }")
        .subscription("plant", "in/#", 1, "later", "");
    let mut daemon = Daemon::start(&config);
    let collector = broker.client(Protocol::V5);
    collector.subscribe("out/#", 1);
    broker.client(Protocol::V5).publish(&Message::new("in/a", "x"));
    daemon.wait_metrics("it was called", |metrics| metrics.calls("later", "retry") == 1.0);
    daemon.terminate();
    assert_eq!(collector.collect(1)[0].text(), "x");

    daemon.restart();
    daemon.wait_broker("plant");
    broker.client(Protocol::V5).publish(&Message::new("in/a", "next"));
    let metrics = daemon.settle("plant", 1);
    assert_eq!(metrics.finished("plant", "handled"), 1.0, "nothing came but the next");
    assert_eq!(collector.collect(1)[0].text(), "next");
    assert_eq!(collector.rest(), []);
}
