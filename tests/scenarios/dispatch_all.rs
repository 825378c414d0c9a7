//! `dispatch = "all"`: each matching subscription's handler runs, a handler at most once.

use tidegate_tests::config::ECHO;
use tidegate_tests::script::{Request, ScriptedBroker};
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(
    every_matching_handler_runs_once,
    a_message_is_acknowledged_when_every_call_is_final_and_one_failure_shows,
    no_acknowledgement_leaves_before_the_last_call_is_final,
);

const ALL: &str = "dispatch = \"all\"";

fn every_matching_handler_runs_once(protocol: Protocol) {
    const ROUNDS: usize = 10;
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), protocol, ALL)
        .guest("wide", "plant", ECHO, "")
        .guest("narrow", "plant", ECHO, "")
        .guest("elsewhere", "plant", ECHO, "")
        .subscription("plant", "a/#", 1, "wide", "")
        .subscription("plant", "a/b/+", 1, "wide", "")
        .subscription("plant", "a/+/c", 1, "narrow", "")
        .subscription("plant", "a/x", 1, "elsewhere", "");
    let daemon = Daemon::start(&config);
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    let publisher = broker.client(protocol);

    for round in 0..ROUNDS {
        publisher.publish(&Message::new("a/b/c", format!("{round}")));
    }

    // On 3.1.1 a broker may send a message twice for partly overlapping filters; mosquitto sends it once.
    let came = collector.collect(2 * ROUNDS);
    let metrics = daemon.wait_metrics("every copy reaches its end", |metrics| metrics.in_progress("plant") == 0.0);
    assert_eq!(collector.rest(), [], "two echoes of each message");
    for round in 0..ROUNDS {
        let echoes = came.iter().filter(|message| message.text() == round.to_string()).count();
        assert_eq!(echoes, 2, "echoes of message {round}");
    }
    for (handler, calls) in [("wide", ROUNDS), ("narrow", ROUNDS), ("elsewhere", 0)] {
        assert_eq!(metrics.calls(handler, "ok"), calls as f64, "calls of {handler}");
    }
    assert_eq!(metrics.finished("plant", "handled"), ROUNDS as f64);
    daemon.balance();
}

fn a_message_is_acknowledged_when_every_call_is_final_and_one_failure_shows(protocol: Protocol) {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), protocol, ALL)
        .guest("works", "plant", ECHO, "")
        .guest("rejects", "plant", "mode = \"reject\"", "")
        .subscription("plant", "a/#", 1, "works", "")
        .subscription("plant", "a/b", 1, "rejects", "");
    let daemon = Daemon::start(&config);
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);

    broker.client(protocol).publish(&Message::new("a/b", "x"));

    assert_eq!(collector.collect(1)[0].topic, "out/a/b");
    let metrics = daemon.wait_metrics("the message reaches its end", |metrics| {
        metrics.finished("plant", "dead_letter") == 1.0 && metrics.in_progress("plant") == 0.0
    });
    assert_eq!(metrics.finished("plant", "handled"), 0.0, "the worst end counts");
    assert_eq!((metrics.calls("works", "ok"), metrics.calls("rejects", "reject")), (1.0, 1.0));
    daemon.balance();
}

fn no_acknowledgement_leaves_before_the_last_call_is_final(protocol: Protocol) {
    let broker = ScriptedBroker::listen(protocol);
    let config = Config::new()
        .broker("plant", broker.port(), protocol, ALL)
        .guest("quick", "plant", ECHO, "")
        .guest("slow", "plant", "mode = \"hold\", ms = 1500, trigger = \"x\"", "call-deadline = \"10s\"")
        .subscription("plant", "a/#", 1, "quick", "")
        .subscription("plant", "a/b", 1, "slow", "");
    let daemon = Daemon::launch(&config);
    let mut peer = broker.accept(false);
    peer.grant();
    peer.publish(7, &Message::new("a/b", "x"));
    for handler in ["quick", "slow"] {
        let request = peer.request();
        let Request::Publish(_, output) = request else { panic!("before the output of {handler} came {request:?}") };
        peer.acknowledge(output);
    }
    assert_eq!(peer.request(), Request::PubAck(7));
    daemon.settle("plant", 1);
}
