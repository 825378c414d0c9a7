//! A publish over which a broker ends its connections: given up after a few, so that what follows goes on; and nothing
//! that is innocent is given up with it.

use std::time::{Duration, Instant};

use tidegate_tests::config::ECHO;
use tidegate_tests::script::{Peer, Request, ScriptedBroker};
use tidegate_tests::{Client, Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(
    a_publish_that_ends_each_connection_is_given_up_and_what_follows_goes_on,
    what_caused_a_publish_that_is_given_up_becomes_a_dead_letter,
    its_own_broker_gets_the_acknowledgement_of_what_caused_it,
    what_its_own_broker_sends_again_makes_one_dead_letter,
    a_publish_that_is_too_large_for_a_broker_that_does_not_say_so_is_given_up,
    a_broker_that_ends_connections_for_other_reasons_costs_no_publish,
);

/// Relays from `plant` to `up/#` on `cloud`.
fn bridge(plant: &Mosquitto, cloud: &ScriptedBroker, protocol: Protocol, more: &str) -> Daemon {
    let keys = "allow = { publish = [\"cloud:up/#\"] }\nconfig = { broker = \"cloud\", topic = \"up/{topic}\" }";
    let config = Config::new()
        .broker("plant", plant.port(), protocol, "")
        .broker("cloud", cloud.port(), protocol, "")
        .handler("relay", "relay.wasm", &format!("instances = 1\n{keys}\n{more}"))
        .subscription("plant", "in/#", 1, "relay", "");
    Daemon::launch(&config)
}

/// Acknowledges the daemon's publishes until one with the payload `poison` comes, which ends the connection; or until
/// `count` came. Returns what was acknowledged.
fn serve(mut peer: Peer, count: usize) -> Vec<String> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let Request::Publish(message, id) = peer.request() else { panic!("only publishes are expected") };
        if message.text() == "poison" {
            peer.hang_up();
            return taken;
        }
        taken.push(message.text().to_owned());
        peer.acknowledge(id);
    }
    taken
}

fn a_publish_that_ends_each_connection_is_given_up_and_what_follows_goes_on(protocol: Protocol) {
    let (plant, cloud) = (Mosquitto::start(), ScriptedBroker::listen(protocol));
    let daemon = bridge(&plant, &cloud, protocol, "");
    daemon.wait_broker("plant");
    let peer = cloud.accept(false);
    let publisher = plant.client(protocol);
    publisher.publish_all(&["before", "poison", "after", "last"].map(|text| Message::new("in/a", text)));

    // All four are on their way when the connection ends, and again on the next two; then the poison goes alone.
    assert_eq!(serve(peer, 4), ["before"]);
    for loss in 2..=5 {
        assert_eq!(serve(cloud.accept(true), 3), [""; 0], "loss {loss}");
    }
    assert_eq!(serve(cloud.accept(true), 2), ["after", "last"]);

    let metrics = daemon.settle("plant", 4);
    assert_eq!((metrics.finished("plant", "handled"), metrics.finished("plant", "dead_letter")), (3.0, 1.0));
    let given_up = "message dropped: the broker ends the connection whenever it is sent; see the broker's own log for the \
                    reason, and its access rules and limits for this topic";
    let said = daemon.wait_event(given_up, &[("level", "ERROR"), ("broker", "cloud"), ("topic", "up/in/a")]);
    assert_eq!(said["attempts"], 5, "{said}");
    assert_eq!(daemon.metrics().connects("cloud", "accepted"), 6.0);
}

fn what_caused_a_publish_that_is_given_up_becomes_a_dead_letter(protocol: Protocol) {
    let (plant, cloud) = (Mosquitto::start(), ScriptedBroker::listen(protocol));
    let daemon = bridge(&plant, &cloud, protocol, "dead-letter = { broker = \"plant\", topic = \"dead\" }");
    daemon.wait_broker("plant");
    let peer = cloud.accept(false);
    let client = Client::connect(plant.port(), Protocol::V5);
    client.subscribe("dead", 1);
    client.publish_all(&["poison", "after"].map(|text| Message::new("in/a", text)));
    assert_eq!(serve(peer, 2), [""; 0]);
    for loss in 2..=5 {
        assert_eq!(serve(cloud.accept(true), 2), [""; 0], "loss {loss}");
    }
    assert_eq!(serve(cloud.accept(true), 1), ["after"]);
    let letter = client.collect(1).remove(0);
    let error = "the broker cloud ends each connection over the publish to up/in/a";
    if protocol == Protocol::V5 {
        assert_eq!(letter.text(), "poison");
        let has = |key: &str, value: &str| letter.properties.user.contains(&(key.to_owned(), value.to_owned()));
        assert!(has("tidegate-reason", "publish_poisoned") && has("tidegate-error", error), "{letter:?}");
    } else {
        let told = letter.json();
        let seen = [&told["payload"], &told["reason"], &told["error"]];
        assert_eq!(seen, ["poison", "publish_poisoned", error]);
    }
    let metrics = daemon.settle("plant", 2);
    assert_eq!((metrics.finished("plant", "handled"), metrics.finished("plant", "dead_letter")), (1.0, 1.0));
}

fn its_own_broker_gets_the_acknowledgement_of_what_caused_it(protocol: Protocol) {
    given_up_by_its_own_broker(protocol, ECHO, "");
}

/// More than the buffers of both sockets hold: the broker ends the connection before the publish is written to its end.
fn a_publish_that_is_too_large_for_a_broker_that_does_not_say_so_is_given_up(protocol: Protocol) {
    given_up_by_its_own_broker(protocol, "mode = \"many\", count = 1, bytes = 8388608, trigger = \"poison\"", "");
}

/// Though it is handled once more for each of the connections, of which its copies were lost.
fn what_its_own_broker_sends_again_makes_one_dead_letter(protocol: Protocol) {
    let cloud = Mosquitto::start();
    let client = cloud.client(protocol);
    client.subscribe("dead", 1);
    let table = format!("[brokers.cloud]\naddress = \"127.0.0.1\"\nport = {}", cloud.port());
    given_up_by_its_own_broker(protocol, ECHO, &table);
    client.collect(1);
    assert_eq!(client.rest(), [], "one alone");
}

/// The broker that ends the connection is the one that waits for the acknowledgement of the message behind it, and sends
/// that message again on each new connection, whose output is then a copy of the poison.
fn given_up_by_its_own_broker(protocol: Protocol, guest: &str, cloud: &str) {
    const PUBLISH: u8 = 3;
    let broker = ScriptedBroker::listen(protocol);
    let letters = if cloud.is_empty() { "" } else { "dead-letter = { broker = \"cloud\", topic = \"dead\" }" };
    let keys = &format!("instances = 1\ncall-deadline = \"30s\"\nmax-publish-bytes = \"64MiB\"\n{letters}");
    let config = Config::new()
        .table(cloud)
        .broker("plant", broker.port(), protocol, "")
        .guest("guest", "plant", guest, keys)
        .subscription("plant", "in/#", 1, "guest", "");
    let daemon = Daemon::launch(&config);
    let mut peer = broker.accept(false);
    peer.grant();
    let mut losses = 0;
    peer.publish(1, &Message::new("in/a", "poison"));
    while peer.kind() == PUBLISH {
        losses += 1;
        assert!(losses <= 5, "it is sent for ever");
        daemon.wait_metrics("its call is over", |metrics| metrics.calls("guest", "ok") == f64::from(losses));
        drop(peer);
        peer = broker.accept(true);
        if protocol == Protocol::V5 {
            peer.grant();
        }
        peer.publish(1, &Message::new("in/a", "poison"));
    }
    assert_eq!(peer.request(), Request::PubAck(1));
    peer.publish(2, &Message::new("in/a", "good"));
    let Request::Publish(message, id) = peer.request() else { panic!("what follows goes on") };
    assert_eq!(message.text(), "good");
    peer.acknowledge(id);
    assert_eq!(peer.request(), Request::PubAck(2));
    let metrics = daemon.settle("plant", 7);
    let ended = ["handled", "dead_letter", "returned"].map(|outcome| metrics.finished("plant", outcome));
    assert_eq!(ended, [1.0, 1.0, 5.0], "handled, dead_letter, returned");
}

/// A broker that ends connection after connection, most of them with publishes unacknowledged.
fn a_broker_that_ends_connections_for_other_reasons_costs_no_publish(protocol: Protocol) {
    let (plant, cloud) = (Mosquitto::start(), ScriptedBroker::listen(protocol));
    let daemon = bridge(&plant, &cloud, protocol, "");
    daemon.wait_broker("plant");
    plant.client(protocol).publish_all(&["0", "1", "2"].map(|text| Message::new("in/a", text)));

    // Closed while the window is full: three of these put the publishes on trial, nothing more.
    for _ in 0..3 {
        let mut peer = cloud.accept(true);
        assert!(matches!(peer.request(), Request::Publish(..)));
    }
    // Closed soon after it was accepted: the publish under suspicion is not sent so early, and cannot be the cause.
    for _ in 0..2 {
        cloud.accept(true).hang_up_on_silence();
    }
    // On protocol 5 a broker says that it leaves for a reason of its own.
    if protocol == Protocol::V5 {
        for _ in 0..2 {
            let mut peer = cloud.accept(true);
            assert!(matches!(peer.request(), Request::Publish(..)));
            peer.disconnect(0x8b);
        }
    }
    assert_eq!(serve(cloud.accept(true), 3), ["0", "1", "2"]);
    let metrics = daemon.settle("plant", 3);
    assert_eq!(metrics.finished("plant", "handled"), 3.0);
}

/// PUBACK with Quota Exceeded (MQTT 5 §3.4.2.1): it is sent again, ever later, and nothing overtakes it meanwhile.
#[test]
fn a_publish_over_the_brokers_quota_is_sent_again_before_what_follows() {
    const QUOTA_EXCEEDED: u8 = 0x97;
    let broker = ScriptedBroker::listen(Protocol::V5);
    let config = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "")
        .guest("echo", "plant", ECHO, "instances = 1")
        .subscription("plant", "in/#", 1, "echo", "");
    let daemon = Daemon::launch(&config);
    let mut peer = broker.accept(false);
    peer.grant();
    let next = |peer: &mut Peer| match peer.request() {
        Request::Publish(message, id) => (message.text().to_owned(), id),
        other => panic!("unexpected: {other:?}"),
    };
    peer.publish(1, &Message::new("in/a", "first"));
    peer.publish(2, &Message::new("in/a", "second"));
    let both = [next(&mut peer), next(&mut peer)];
    assert_eq!(both.each_ref().map(|(text, _)| text.as_str()), ["first", "second"]);
    let mut refused = Instant::now();
    both.iter().for_each(|(_, id)| peer.refuse(*id, QUOTA_EXCEEDED));
    for seconds in [1, 2] {
        let (came, id) = next(&mut peer);
        let waited = refused.elapsed();
        assert_eq!(came, "first");
        assert!(waited >= Duration::from_millis(seconds * 1000 - 200), "sent again after {waited:?}");
        peer.is_silent();
        refused = Instant::now();
        if seconds == 1 { peer.refuse(id, QUOTA_EXCEEDED) } else { peer.acknowledge(id) }
    }
    // The acknowledgement of the first input and the second output, in either order.
    let (mut outputs, mut acknowledged) = (Vec::new(), Vec::new());
    while outputs.is_empty() || acknowledged.len() < 2 {
        match peer.request() {
            Request::Publish(message, id) => {
                outputs.push(message.text().to_owned());
                peer.acknowledge(id);
            }
            Request::PubAck(id) => acknowledged.push(id),
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert_eq!((outputs, acknowledged), (vec!["second".to_owned()], vec![1, 2]));
    assert_eq!(daemon.settle("plant", 2).finished("plant", "handled"), 2.0);
    assert_eq!(daemon.warnings("plant").len(), 1, "said once: {:?}", daemon.warnings("plant"));
}
