//! What the daemon owes a broker, packet by packet: acknowledgements in the order of arrival (MQTT-4.6.0-2), each after the
//! outcome is safe, and what becomes of messages whose connection is lost.

use tidegate_tests::config::ECHO;
use tidegate_tests::gate::{AT_W, ECHO as ECHO_IN_C, Gate};
use tidegate_tests::script::{Peer, Request, ScriptedBroker};
use tidegate_tests::{Config, Daemon, Message, Protocol, on_both_protocols};

on_both_protocols!(
    acknowledgements_leave_in_the_order_of_arrival,
    no_acknowledgement_leaves_before_that_of_the_output_came,
    what_comes_again_before_its_acknowledgement_is_handled_once,
    a_message_with_an_invalid_topic_is_counted_and_acknowledged,
    a_message_that_was_not_started_is_left_to_a_resumed_session,
    a_message_that_was_not_started_is_handled_when_the_session_is_gone,
);

fn gateway(broker: &ScriptedBroker, protocol: Protocol, guest: &str, instances: usize) -> Daemon {
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .guest("echo", "plant", guest, &format!("instances = {instances}\ncall-deadline = \"10s\""))
        .subscription("plant", "in/#", 1, "echo", "");
    Daemon::launch(&config)
}

/// Acknowledges the daemon's publishes until `count` of its packets came, which are returned.
fn answer(peer: &mut Peer, count: usize) -> Vec<Request> {
    let next = |peer: &mut Peer| {
        let request = peer.request();
        if let Request::Publish(_, id) = &request {
            peer.acknowledge(*id);
        }
        request
    };
    (0..count).map(|_| next(peer)).collect()
}

/// The topics of the daemon's publishes, and the identifiers of its acknowledgements.
fn told_apart(requests: &[Request]) -> (Vec<String>, Vec<u16>) {
    let mut told = (Vec::new(), Vec::new());
    for request in requests {
        match request {
            Request::Publish(message, _) => told.0.push(format!("{} {}", message.topic, message.text())),
            Request::PubAck(id) => told.1.push(*id),
            other => panic!("unexpected: {other:?}"),
        }
    }
    told
}

fn acknowledgements_leave_in_the_order_of_arrival(protocol: Protocol) {
    const COUNT: u16 = 40;
    let broker = ScriptedBroker::listen(protocol);
    let daemon = gateway(&broker, protocol, "mode = \"slow\", ms = 60, trigger = \"slow\"", 8);
    let mut peer = broker.accept(false);
    peer.grant();
    for id in 1..=COUNT {
        let payload = if id % 8 == 1 { "slow" } else { "fast" };
        peer.publish(id, &Message::new(format!("in/{id}"), payload));
    }

    let (outputs, acknowledged) = told_apart(&answer(&mut peer, 2 * usize::from(COUNT)));
    assert_eq!(acknowledged, (1..=COUNT).collect::<Vec<_>>(), "acknowledged in the order of arrival");
    let id = |output: &String| -> u16 {
        output.split(['/', ' ']).nth(2).and_then(|id| id.parse().ok()).expect("out/in/ and a number")
    };
    assert!(!outputs.iter().map(id).is_sorted(), "calls ended in another order than they began, or this shows nothing");
    daemon.settle("plant", usize::from(COUNT));
}

fn what_comes_again_before_its_acknowledgement_is_handled_once(protocol: Protocol) {
    let broker = ScriptedBroker::listen(protocol);
    let daemon = gateway(&broker, protocol, ECHO, 1);
    let mut peer = broker.accept(false);
    peer.grant();
    let message = Message::new("in/a", "x");
    peer.publish(7, &message);
    let Request::Publish(_, output) = peer.request() else { panic!("the output comes first") };
    peer.publish_again(7, &message);
    peer.publish(8, &Message::new("in/a", "y"));
    let Request::Publish(next, next_output) = peer.request() else { panic!("the next output comes") };
    assert_eq!(next.text(), "y", "the first was taken in once");
    peer.acknowledge(output);
    peer.acknowledge(next_output);
    assert_eq!([peer.request(), peer.request()], [Request::PubAck(7), Request::PubAck(8)]);
    // Its identifier is free: what comes under it now is another message, whatever the flag says.
    peer.publish_again(7, &message);
    let (outputs, acknowledged) = told_apart(&answer(&mut peer, 2));
    assert_eq!((outputs, acknowledged), (vec!["out/in/a x".to_owned()], vec![7]));
    daemon.settle("plant", 3);
}

fn a_message_with_an_invalid_topic_is_counted_and_acknowledged(protocol: Protocol) {
    let broker = ScriptedBroker::listen(protocol);
    let daemon = gateway(&broker, protocol, ECHO, 1);
    let mut peer = broker.accept(false);
    peer.grant();
    peer.publish(7, &Message::new("in/+", "x"));
    assert_eq!(peer.request(), Request::PubAck(7));
    assert_eq!(daemon.settle("plant", 1).finished("plant", "dropped_invalid"), 1.0);
}

fn no_acknowledgement_leaves_before_that_of_the_output_came(protocol: Protocol) {
    let broker = ScriptedBroker::listen(protocol);
    let daemon = gateway(&broker, protocol, ECHO, 1);
    let mut peer = broker.accept(false);
    peer.grant();
    peer.publish(7, &Message::new("in/a", "x"));
    let Request::Publish(_, output) = peer.request() else { panic!("the output comes first") };
    daemon.wait_metrics("the call is over", |metrics| metrics.calls("echo", "ok") == 1.0);
    peer.is_silent();
    peer.acknowledge(output);
    assert_eq!(peer.request(), Request::PubAck(7));
    daemon.settle("plant", 1);
}

/// A connection with a call in progress and a message behind it that was not started; lost, and made anew.
fn lost_in_between(broker: &ScriptedBroker, protocol: Protocol, gate: &Gate, session_present: bool) -> (Daemon, Peer) {
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .native(
            "echo",
            gate.plugin("", &format!("{AT_W}{ECHO_IN_C}")),
            "instances = 1\ncall-deadline = \"1m\"\nallow = { publish = [\"plant:out/#\"] }",
        )
        .subscription("plant", "in/#", 1, "echo", "");
    let daemon = Daemon::launch(&config);
    let mut peer = broker.accept(false);
    peer.grant();
    peer.publish(1, &Message::new("in/a", "wait"));
    peer.publish(2, &Message::new("in/a", "next"));
    gate.wait_reached();
    daemon.wait_metrics("both are taken in", |metrics| metrics.received("plant") == 2.0);
    drop(peer);
    let mut peer = broker.accept(session_present);
    // On 3.1.1 a session that has its subscriptions is left alone: SUBSCRIBE would bring the retained messages again.
    if !(session_present && protocol == Protocol::V311) {
        peer.grant();
    }
    (daemon, peer)
}

fn a_message_that_was_not_started_is_left_to_a_resumed_session(protocol: Protocol) {
    let broker = ScriptedBroker::listen(protocol);
    let gate = Gate::new();
    let (daemon, mut peer) = lost_in_between(&broker, protocol, &gate, true);
    peer.publish(1, &Message::new("in/a", "wait"));
    peer.publish(2, &Message::new("in/a", "next"));
    daemon.wait_metrics("what was not started is left", |metrics| metrics.finished("plant", "returned") == 1.0);
    gate.open();

    // The call that was in progress ends and publishes; both messages come again and are handled.
    let (outputs, acknowledged) = told_apart(&answer(&mut peer, 5));
    let expected = ["out/in/a wait", "out/in/a wait", "out/in/a next"];
    assert_eq!(outputs, expected, "what was begun is published twice, what was not is published once");
    assert_eq!(acknowledged, [1, 2]);
    let metrics = daemon.settle("plant", 4);
    assert_eq!((metrics.finished("plant", "handled"), metrics.finished("plant", "returned")), (3.0, 1.0));
}

fn a_message_that_was_not_started_is_handled_when_the_session_is_gone(protocol: Protocol) {
    let broker = ScriptedBroker::listen(protocol);
    let gate = Gate::new();
    let (daemon, mut peer) = lost_in_between(&broker, protocol, &gate, false);
    gate.open();

    let (outputs, acknowledged) = told_apart(&answer(&mut peer, 2));
    assert_eq!(outputs, ["out/in/a wait", "out/in/a next"]);
    assert!(acknowledged.is_empty(), "there is nothing to acknowledge on the new connection");
    let metrics = daemon.settle("plant", 2);
    assert_eq!(metrics.finished("plant", "handled"), 2.0);
}

#[test]
fn a_publish_that_the_broker_refuses_for_good_is_counted_and_its_input_acknowledged() {
    let broker = ScriptedBroker::listen(Protocol::V5);
    let daemon = gateway(&broker, Protocol::V5, ECHO, 1);
    let mut peer = broker.accept(false);
    peer.grant();
    peer.publish(7, &Message::new("in/a", "x"));
    let Request::Publish(_, output) = peer.request() else { panic!("the output comes first") };
    peer.refuse(output, 0x87);
    assert_eq!(peer.request(), Request::PubAck(7));
    assert_eq!(daemon.settle("plant", 1).finished("plant", "dead_letter"), 1.0);
}
