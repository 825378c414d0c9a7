//! The connection to the source broker is lost while its message is past its call, or between two calls.

use tidegate_tests::script::{Peer, Request, ScriptedBroker};
use tidegate_tests::{Config, Daemon, Message, Protocol, on_both_protocols};

on_both_protocols!(
    what_is_on_its_way_arrives_and_the_message_comes_again,
    what_is_to_be_called_again_is_called_when_the_session_is_gone,
);

/// The next packet is this message; its identifier.
#[track_caller]
fn published(peer: &mut Peer, topic: &str) -> u16 {
    match peer.request() {
        Request::Publish(message, id) if message.topic == topic => id,
        other => panic!("expected a publish to {topic}, got {other:?}"),
    }
}

fn what_is_on_its_way_arrives_and_the_message_comes_again(protocol: Protocol) {
    let (plant, cloud) = (ScriptedBroker::listen(protocol), ScriptedBroker::listen(protocol));
    let config = Config::new()
        .broker("plant", plant.port(), protocol, "")
        .broker("cloud", cloud.port(), protocol, "")
        .handler(
            "relay",
            "relay.wasm",
            "allow = { publish = [\"cloud:up/#\"] }\nconfig = { broker = \"cloud\", topic = \"up/{topic}\" }",
        )
        .subscription("plant", "in/#", 1, "relay", "");
    let daemon = Daemon::launch(&config);
    let mut target = cloud.accept(false);
    let mut source = plant.accept(false);
    source.grant();
    source.publish(1, &Message::new("in/a", "x"));
    let on_its_way = published(&mut target, "up/in/a");
    source.hang_up();
    let mut source = plant.accept(true);
    // On 3.1.1 a session that has its subscriptions is left alone.
    if protocol == Protocol::V5 {
        source.grant();
    }

    target.acknowledge(on_its_way);
    daemon.wait_metrics("its message has ended", |metrics| metrics.finished("plant", "handled") == 1.0);
    source.is_silent();
    source.publish_again(1, &Message::new("in/a", "x"));
    let again = published(&mut target, "up/in/a");
    target.acknowledge(again);
    assert_eq!(source.request(), Request::PubAck(1));
    assert_eq!(daemon.settle("plant", 2).finished("plant", "handled"), 2.0);
}

fn what_is_to_be_called_again_is_called_when_the_session_is_gone(protocol: Protocol) {
    let broker = ScriptedBroker::listen(protocol);
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .guest(
            "flaky",
            "plant",
            "mode = \"retry\", attempts = 1, ms = 3000",
            "instances = 1\nretry = { max = 1, backoff = \"1ms\", max-time = \"1h\" }",
        )
        .subscription("plant", "in/#", 1, "flaky", "");
    let daemon = Daemon::launch(&config);
    let mut peer = broker.accept(false);
    peer.grant();
    peer.publish(1, &Message::new("in/a", "x"));
    daemon.wait_metrics("it waits", |metrics| {
        metrics.sum("tidegate_handler_retrying_messages", &[("handler", "flaky")]) == 1.0
    });
    peer.hang_up();

    let mut peer = broker.accept(false);
    peer.grant();
    let output = published(&mut peer, "out/in/a");
    peer.acknowledge(output);
    let metrics = daemon.settle("plant", 1);
    assert_eq!((metrics.calls("flaky", "retry"), metrics.calls("flaky", "ok")), (1.0, 1.0));
    assert_eq!(metrics.finished("plant", "handled"), 1.0);
    peer.is_silent();
}
