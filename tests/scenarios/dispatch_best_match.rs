//! `dispatch = "best"`: of the matching subscriptions exactly one runs, the most specific.

use std::collections::BTreeMap;

use tidegate_tests::config::ECHO;
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(
    the_four_topics_of_the_specification_run_the_best_ranked_handler_once,
    partly_overlapping_filters_run_one_handler_once,
    partly_overlapping_filters_run_one_handler_once_after_a_restart,
    what_was_queued_before_a_filter_was_known_is_handled,
    a_topic_that_no_handler_wants_is_unmatched,
);

/// Filters and the handlers that they run, in an order that is not that of rank.
const FILTERS: [(&str, &str); 4] =
    [("some/sort/of/topic", "first"), ("some/#", "second"), ("some/sort/of/+", "third"), ("some/thing/#", "fourth")];

const WINNERS: [(&str, &str); 4] = [
    ("some/sort/of/topic", "first"),
    ("some/sort/of/thing", "third"),
    ("some/name", "second"),
    ("some/thing/else", "fourth"),
];

fn the_four_topics_of_the_specification_run_the_best_ranked_handler_once(protocol: Protocol) {
    const ROUNDS: usize = 5;
    let broker = Mosquitto::start();
    let mut config = Config::new().broker("plant", broker.port(), protocol, "");
    for (filter, handler) in FILTERS {
        config = config.guest(handler, "plant", ECHO, "").subscription("plant", filter, 1, handler, "");
    }
    let daemon = Daemon::start(&config);
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    let publisher = broker.client(protocol);

    for round in 0..ROUNDS {
        for (topic, _) in WINNERS {
            publisher.publish(&Message::new(topic, format!("{round}")));
        }
    }

    let mut echoes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let came = collector.collect(WINNERS.len() * ROUNDS);
    let all = (WINNERS.len() * ROUNDS) as f64;
    let metrics = daemon.wait_metrics("every copy reaches its end", |metrics| {
        metrics.finished("plant", "handled") >= all && metrics.in_progress("plant") == 0.0
    });
    for message in came.iter().chain(&collector.rest()) {
        echoes.entry(message.topic.clone()).or_default().push(message.text().to_owned());
    }
    let rounds: Vec<_> = (0..ROUNDS).map(|round| round.to_string()).collect();
    for (topic, handler) in WINNERS {
        assert_eq!(echoes.get(&format!("out/{topic}")), Some(&rounds), "echoes of {topic}, once each and in order");
        assert_eq!(metrics.calls(handler, "ok"), ROUNDS as f64, "calls of the handler that {topic} runs");
    }
    assert_eq!(metrics.finished("plant", "handled"), all);
    daemon.balance();
}

/// Neither filter covers the other, so both are on the wire.
fn partly_overlapping_filters_run_one_handler_once(protocol: Protocol) {
    const ROUNDS: usize = 10;
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .guest("right", "plant", ECHO, "")
        .guest("left", "plant", ECHO, "")
        .subscription("plant", "+/b", 1, "right", "")
        .subscription("plant", "a/+", 1, "left", "");
    let daemon = Daemon::start(&config);
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    broker.client(protocol).publish_all(&(0..ROUNDS).map(|n| Message::new("a/b", format!("{n}"))).collect::<Vec<_>>());

    let came = collector.collect(ROUNDS);
    let metrics = daemon.wait_metrics("every copy reaches its end", |metrics| metrics.in_progress("plant") == 0.0);
    assert_eq!(collector.rest(), [], "one echo of each");
    let numbers: Vec<_> = came.iter().map(|message| message.text().parse::<usize>().expect("a number")).collect();
    assert_eq!(numbers, (0..ROUNDS).collect::<Vec<_>>());
    assert_eq!((metrics.calls("left", "ok"), metrics.calls("right", "ok")), (ROUNDS as f64, 0.0));
    daemon.balance();
}

/// The record says that the session has had both filters from its begin.
fn partly_overlapping_filters_run_one_handler_once_after_a_restart(protocol: Protocol) {
    const ROUNDS: usize = 10;
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "client-id = \"gateway\"")
        .guest("right", "plant", ECHO, "")
        .guest("left", "plant", ECHO, "")
        .subscription("plant", "+/b", 1, "right", "")
        .subscription("plant", "a/+", 1, "left", "");
    let mut daemon = Daemon::start(&config);
    daemon.wait_recorded("plant", &[("+/b", "granted"), ("a/+", "granted")]);
    daemon.kill();
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    let numbered = |from: usize| (from..from + ROUNDS).map(|n| Message::new("a/b", format!("{n}"))).collect::<Vec<_>>();
    let publisher = broker.client(protocol);
    publisher.publish_all(&numbered(0));
    daemon.restart();
    publisher.publish_all(&numbered(ROUNDS));
    let came = collector.collect(2 * ROUNDS);
    daemon.wait_metrics("every copy reaches its end", |metrics| metrics.in_progress("plant") == 0.0);
    assert_eq!(collector.rest(), [], "one echo of each");
    let numbers: Vec<_> = came.iter().map(|message| message.text().parse::<usize>().expect("a number")).collect();
    assert_eq!(numbers, (0..2 * ROUNDS).collect::<Vec<_>>());
    daemon.balance();
}

/// A kept session, a daemon that is away, and another filter when it comes back: what was queued meanwhile comes for the old
/// filter alone, though the new one ranks better.
fn what_was_queued_before_a_filter_was_known_is_handled(protocol: Protocol) {
    const QUEUED: usize = 10;
    let broker = Mosquitto::start();
    // So that most of them come after the new filter's SUBACK.
    let slow = "mode = \"slow\", ms = 30";
    let before = Config::new()
        .broker("plant", broker.port(), protocol, "client-id = \"gateway\"\nreceive-maximum = 2")
        .guest("right", "plant", slow, "")
        .subscription("plant", "+/b", 1, "right", "");
    Daemon::start(&before).terminate();
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    let publisher = broker.client(protocol);
    let numbered = |from: usize| (from..from + QUEUED).map(|n| Message::new("a/b", format!("{n}"))).collect::<Vec<_>>();
    publisher.publish_all(&numbered(0));

    let now = before.guest("left", "plant", slow, "").subscription("plant", "a/+", 1, "left", "");
    let daemon = Daemon::start(&now);
    let came = collector.collect(QUEUED);
    let numbers: Vec<_> = came.iter().map(|message| message.text().parse::<usize>().expect("a number")).collect();
    assert_eq!(numbers, (0..QUEUED).collect::<Vec<_>>());
    daemon.settle("plant", QUEUED);

    // The first that both bring may come twice: until then nothing tells that the new filter's copies come.
    publisher.publish_all(&numbered(QUEUED));
    collector.collect(QUEUED);
    daemon.wait_metrics("every copy reaches its end", |metrics| metrics.in_progress("plant") == 0.0);
    assert!(collector.rest().len() <= 1);
    daemon.balance();
}

fn a_topic_that_no_handler_wants_is_unmatched(protocol: Protocol) {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .table("[[subscriptions]]\nbroker = \"plant\"\ntopic = \"quiet/#\"\nqos = 1");
    let daemon = Daemon::start(&config);
    broker.client(protocol).publish(&Message::new("quiet/place", "x"));
    assert_eq!(daemon.settle("plant", 1).finished("plant", "unmatched"), 1.0);
}
