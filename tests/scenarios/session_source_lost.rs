//! The connection to the source broker is lost while its message is past its call, or between two calls.

use tidegate_tests::script::{Peer, Request, ScriptedBroker};
use tidegate_tests::{Config, Daemon, Message, Protocol, on_both_protocols};

on_both_protocols!(
    what_is_on_its_way_arrives_and_the_message_comes_again,
    what_waits_for_room_arrives_whether_or_not_the_session_is_gone,
    a_dead_letter_arrives_whether_or_not_the_session_is_gone,
    what_is_to_be_called_again_is_called_when_the_session_is_gone,
    what_waits_is_handled_where_its_broker_gets_another_session,
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
    let mut source = lost(source, &plant, protocol, true);

    target.acknowledge(on_its_way);
    daemon.wait_metrics("its message has ended", |metrics| metrics.finished("plant", "handled") == 1.0);
    source.is_silent();
    source.publish_again(1, &Message::new("in/a", "x"));
    let again = published(&mut target, "up/in/a");
    target.acknowledge(again);
    assert_eq!(source.request(), Request::PubAck(1));
    assert_eq!(daemon.settle("plant", 2).finished("plant", "handled"), 2.0);
}

/// The source loses its connection, and makes another one.
fn lost(source: Peer, plant: &ScriptedBroker, protocol: Protocol, session_present: bool) -> Peer {
    source.hang_up();
    let mut source = plant.accept(session_present);
    // On 3.1.1 a session that has its subscriptions is left alone.
    if !(session_present && protocol == Protocol::V311) {
        source.grant();
    }
    source
}

fn what_waits_for_room_arrives_whether_or_not_the_session_is_gone(protocol: Protocol) {
    let texts = ["1", "2"];
    for session_present in [true, false] {
        let (plant, cloud) = (ScriptedBroker::listen(protocol), ScriptedBroker::listen(protocol));
        let config = Config::new()
            .broker("plant", plant.port(), protocol, "")
            .broker("cloud", cloud.port(), protocol, "outbox = { max-messages = 1 }")
            .guest("echo", "cloud", "mode = \"echo\", broker = \"cloud\"", "max-publishes = 1")
            .subscription("plant", "in/#", 1, "echo", "");
        let daemon = Daemon::launch(&config);
        let mut target = cloud.accept(false);
        let mut source = plant.accept(false);
        source.grant();
        (1..).zip(texts).for_each(|(id, text)| source.publish(id, &Message::new("in/a", text)));
        let on_its_way = published(&mut target, "out/in/a");
        daemon.wait_metrics("the second waits for room", |metrics| {
            metrics.sum("tidegate_outbox_waiting_calls", &[("broker", "cloud")]) == 1.0
        });
        let mut source = lost(source, &plant, protocol, session_present);

        target.acknowledge(on_its_way);
        let waited = published(&mut target, "out/in/a");
        target.acknowledge(waited);
        daemon.wait_metrics("both have ended", |metrics| metrics.finished("plant", "handled") == 2.0);
        source.is_silent();
        if session_present {
            (1..).zip(texts).for_each(|(id, text)| source.publish_again(id, &Message::new("in/a", text)));
            for id in 1..=2 {
                let again = published(&mut target, "out/in/a");
                target.acknowledge(again);
                assert_eq!(source.request(), Request::PubAck(id));
            }
        }
        target.is_silent();
        let handled = if session_present { 4 } else { 2 };
        assert_eq!(daemon.settle("plant", handled).finished("plant", "handled"), handled as f64);
    }
}

fn a_dead_letter_arrives_whether_or_not_the_session_is_gone(protocol: Protocol) {
    for session_present in [true, false] {
        let (plant, cloud) = (ScriptedBroker::listen(protocol), ScriptedBroker::listen(protocol));
        let config = Config::new()
            .broker("plant", plant.port(), protocol, "")
            .broker("cloud", cloud.port(), protocol, "")
            .guest("bad", "cloud", "mode = \"reject\"", "dead-letter = { broker = \"cloud\", topic = \"dead\" }")
            .subscription("plant", "in/#", 1, "bad", "");
        let daemon = Daemon::launch(&config);
        let mut target = cloud.accept(false);
        let mut source = plant.accept(false);
        source.grant();
        source.publish(1, &Message::new("in/a", "x"));
        let letter = published(&mut target, "dead");
        let mut source = lost(source, &plant, protocol, session_present);

        target.acknowledge(letter);
        daemon.wait_metrics("its message has ended", |metrics| metrics.finished("plant", "dead_letter") == 1.0);
        source.is_silent();
        if session_present {
            source.publish_again(1, &Message::new("in/a", "x"));
            let again = published(&mut target, "dead");
            target.acknowledge(again);
            assert_eq!(source.request(), Request::PubAck(1));
        }
        target.is_silent();
        let ended = if session_present { 2 } else { 1 };
        assert_eq!(daemon.settle("plant", ended).finished("plant", "dead_letter"), ended as f64);
    }
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
    daemon.wait_metrics("it is to be called again", |metrics| metrics.calls("flaky", "retry") == 1.0);
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

fn what_waits_is_handled_where_its_broker_gets_another_session(protocol: Protocol) {
    const MESSAGES: u16 = 5;
    let (plant, cloud) = (ScriptedBroker::listen(protocol), ScriptedBroker::listen(protocol));
    let config = |client: &str| {
        Config::new()
            .broker("plant", plant.port(), protocol, &format!("client-id = \"{client}\""))
            .broker("cloud", cloud.port(), protocol, "outbox = { max-messages = 1 }")
            .guest("echo", "cloud", "mode = \"echo\", broker = \"cloud\"", "instances = 1\nmax-publishes = 1")
            .subscription("plant", "in/#", 1, "echo", "")
    };
    let daemon = Daemon::launch(&config("before"));
    let mut target = cloud.accept(false);
    let mut source = plant.accept(false);
    source.grant();
    (1..=MESSAGES).for_each(|id| source.publish(id, &Message::new("in/a", id.to_string())));
    daemon.wait_metrics(
        "the first is on its way, the second waits for room, no call has begun for the others",
        |metrics| {
            let waits = metrics.sum("tidegate_outbox_waiting_calls", &[("broker", "cloud")]) == 1.0;
            waits && metrics.received("plant") == f64::from(MESSAGES)
        },
    );
    source.hang_up();
    // The attempt to connect again, which is not answered, shows that the loss was seen.
    let _attempt = plant.meet();
    daemon.home().configure(&config("after"), daemon.admin());
    daemon.done(&["reload"]);
    let mut source = plant.accept(false);
    source.grant();

    for number in 1..=MESSAGES {
        match target.request() {
            Request::Publish(message, id) => {
                assert_eq!(message.text(), number.to_string());
                target.acknowledge(id);
            }
            other => panic!("expected the output of message {number}, got {other:?}"),
        }
    }
    let metrics = daemon.settle("plant", MESSAGES.into());
    assert_eq!(
        (metrics.finished("plant", "handled"), metrics.finished("plant", "returned")),
        (f64::from(MESSAGES), 0.0)
    );
    // They came on a connection that is gone: on this one there is nothing to acknowledge.
    source.is_silent();
}
