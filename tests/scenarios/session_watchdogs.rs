//! A broker that leaves the protocol's path, packet by packet: the connection ends in time, with a sentence that is said
//! once and a count, and a new one is made.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tidegate_tests::config::ECHO;
use tidegate_tests::script::{Limits, Request, ScriptedBroker};
use tidegate_tests::wait::PATIENCE;
use tidegate_tests::{Config, Daemon, Message, Protocol, on_both_protocols};

on_both_protocols!(
    an_answer_to_connect_that_is_not_mqtt_is_told_once,
    a_connection_that_is_closed_again_and_again_is_told_once,
);

/// Echoes from `in/#` to `out/#` on the broker `plant`.
fn gateway(broker: &ScriptedBroker, protocol: Protocol, keys: &str) -> Daemon {
    let config = Config::new()
        .broker("plant", broker.port(), protocol, keys)
        .guest("echo", "plant", ECHO, "instances = 1")
        .subscription("plant", "in/#", 1, "echo", "");
    Daemon::launch(&config)
}

/// The reasons that were said aloud for a broker that is not connected.
fn said(daemon: &Daemon, broker: &str) -> Vec<String> {
    let of_connections = |event: &Value| event["message"] == "connection lost" || event["message"] == "cannot connect";
    let warnings = daemon.warnings(broker).into_iter().filter(of_connections);
    warnings.map(|event| event["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

/// One silent broker of the scenario below.
struct Silence {
    name: String,
    broker: ScriptedBroker,
    protocol: Protocol,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Connack,
    Suback,
    Puback,
    Pingresp,
    /// It reads nothing.
    Deaf,
    /// It sends more than `max-packet`.
    Loud,
}

/// What the daemon makes of one kind of silence.
struct Expected {
    message: &'static str,
    reason: &'static str,
    /// The label of the count of connections that ended so; none where there was no connection.
    label: Option<&'static str>,
    /// The deadline that is promised, in seconds, with what may pass before the silence begins to count.
    seconds: std::ops::RangeInclusive<u64>,
}

impl Kind {
    const ALL: [(Kind, &'static str); 6] = [
        (Kind::Connack, "connack"),
        (Kind::Suback, "suback"),
        (Kind::Puback, "puback"),
        (Kind::Pingresp, "pingresp"),
        (Kind::Deaf, "deaf"),
        (Kind::Loud, "loud"),
    ];

    fn expected(self) -> Expected {
        let lost =
            |reason, label, seconds| Expected { message: "connection lost", reason, label: Some(label), seconds };
        match self {
            Kind::Connack => Expected {
                message: "cannot connect",
                reason: "no answer to CONNECT within 15 s; is this an MQTT broker?",
                label: None,
                seconds: 14..=15,
            },
            Kind::Suback => lost("the broker has not answered SUBSCRIBE for 30 s", "subscribe_unanswered", 29..=31),
            Kind::Puback => lost("the broker has not acknowledged a message for 30 s", "publish_unanswered", 29..=31),
            Kind::Pingresp => lost("the broker does not answer pings", "keep_alive", 30..=60),
            Kind::Deaf => lost("the broker has taken nothing for 30 s", "write_stuck", 29..=46),
            Kind::Loud => lost("more than max-packet = 4096; set a larger max-packet", "packet_too_large", 0..=1),
        }
    }

    fn keys(self) -> &'static str {
        match self {
            Kind::Pingresp | Kind::Deaf => "keep-alive = 30",
            Kind::Loud => "max-packet = \"4KiB\"",
            _ => "",
        }
    }
}

/// All at once, on both protocols: each broker's silence ends its own connection, and each gets a new one.
#[test]
fn each_silence_has_its_deadline_its_sentence_and_its_count() {
    let silences: Vec<Silence> = [(Protocol::V311, "old"), (Protocol::V5, "new")]
        .into_iter()
        .flat_map(|(protocol, version)| {
            Kind::ALL.map(|(kind, name)| Silence {
                name: format!("{version}-{name}"),
                broker: ScriptedBroker::listen(protocol),
                protocol,
                kind,
            })
        })
        .collect();
    let mut config = Config::new();
    for Silence { name, broker, protocol, kind } in &silences {
        config = config.broker(name, broker.port(), *protocol, kind.keys());
        let guest = match kind {
            Kind::Puback => ECHO,
            // Far more than the buffers of both sockets hold.
            Kind::Deaf => "mode = \"many\", count = 60, bytes = 524288",
            _ => {
                config = config.table(format!("[[subscriptions]]\nbroker = \"{name}\"\ntopic = \"in/#\"\nqos = 1"));
                continue;
            }
        };
        let keys = "instances = 1\ncall-deadline = \"30s\"\nmax-publish-bytes = \"64MiB\"";
        config = config.guest(name, name, guest, keys).subscription(name, "in/#", 1, name, "");
    }
    let launched = Instant::now();
    let daemon = Daemon::launch(&config);
    thread::scope(|scope| {
        for silence in &silences {
            thread::Builder::new()
                .name(silence.name.clone())
                .spawn_scoped(scope, || keep_silent(&daemon, silence, launched))
                .expect("a thread");
        }
    });
}

/// One connection with its silence, until the daemon ends it and makes another.
fn keep_silent(daemon: &Daemon, silence: &Silence, launched: Instant) {
    let Silence { name, broker, kind, .. } = silence;
    let Expected { message, reason, label, seconds } = kind.expected();
    let limit = Duration::from_secs(*seconds.end()) + PATIENCE;
    // Not after the moment from which the daemon counts.
    let (mut peer, since) = match kind {
        Kind::Connack => (broker.meet(), launched),
        _ => {
            let since = Instant::now();
            (broker.accept(false), since)
        }
    };
    match kind {
        Kind::Connack => {}
        Kind::Suback => assert!(matches!(peer.request(), Request::Subscribe(..))),
        Kind::Puback | Kind::Deaf => {
            peer.grant();
            peer.publish(1, &Message::new("in/a", "x"));
        }
        Kind::Pingresp => peer.grant(),
        Kind::Loud => {
            peer.grant();
            peer.publish(1, &Message::new("in/a", vec![b'x'; 5000]));
        }
    }
    let event = daemon.wait_event_within(limit, message, &[("broker", name), ("reason", reason)]);
    let took = since.elapsed();
    assert!(took >= Duration::from_secs(*seconds.start()), "{name}: too early, after {took:?}: {event}");
    if let Some(label) = label {
        daemon.wait_metrics(&format!("{name} ended by {label}"), |metrics| metrics.disconnects(name, label) == 1.0);
    }
    // The socket is closed too, not only forgotten.
    peer.closed();

    // The new connection is a good one.
    let mut peer = broker.accept(matches!(kind, Kind::Loud));
    if matches!(kind, Kind::Loud) {
        // The same message again, as a kept session brings it.
        let before = since.elapsed();
        assert!(
            before >= Duration::from_secs(14),
            "{name}: a person must mend it, so it is retried slowly: {before:?}"
        );
        peer.publish(1, &Message::new("in/a", vec![b'x'; 5000]));
        daemon.wait_metrics(&format!("{name} ended again"), |m| m.disconnects(name, "packet_too_large") == 2.0);
    } else {
        peer.grant();
        daemon.wait_broker(name);
    }
    assert_eq!(said(daemon, name).len(), 1, "{name}: {:?}", said(daemon, name));
}

fn an_answer_to_connect_that_is_not_mqtt_is_told_once(protocol: Protocol) {
    let broker = ScriptedBroker::listen(protocol);
    let daemon = gateway(&broker, protocol, "");
    for _ in 0..3 {
        let mut peer = broker.meet();
        peer.send_raw(b"SSH-2.0-OpenSSH_9.2p1\r\n");
        peer.hang_up();
    }
    daemon.wait_metrics("three attempts fail", |metrics| metrics.connects("plant", "failed") == 3.0);
    daemon.wait_event("cannot connect", &[("reason", "the answer to CONNECT is not MQTT")]);
    assert_eq!(said(&daemon, "plant").len(), 1, "{:?}", said(&daemon, "plant"));
}

fn a_connection_that_is_closed_again_and_again_is_told_once(protocol: Protocol) {
    let broker = ScriptedBroker::listen(protocol);
    let daemon = gateway(&broker, protocol, "");
    for _ in 0..4 {
        broker.accept(false).grant();
    }
    daemon.wait_metrics("all are counted", |metrics| metrics.disconnects("plant", "closed") == 4.0);
    assert_eq!(daemon.metrics().connects("plant", "accepted"), 4.0);
    daemon.wait_event("connection lost", &[("reason", "the broker closed the connection soon after accepting it")]);
    // On a loaded machine one of them may have stood for longer, which is another reason.
    let told = said(&daemon, "plant");
    assert!(told.windows(2).all(|pair| pair[0] != pair[1]), "each change once: {told:?}");
}

/// MQTT 5 §3.14.2.1: each reason in words, once for each change.
#[test]
fn a_disconnect_is_told_with_its_reason() {
    let broker = ScriptedBroker::listen(Protocol::V5);
    let daemon = gateway(&broker, Protocol::V5, "");
    let reasons = [
        (0x8b, "the broker ended the connection: it is shutting down"),
        (0x8b, "the broker ended the connection: it is shutting down"),
        (0x97, "the broker ended the connection: a quota is exceeded"),
        (0x95, "the broker ended the connection: it was sent a packet that is too large for it"),
    ];
    for (reason, sentence) in reasons {
        let mut peer = broker.accept(false);
        peer.grant();
        peer.disconnect(reason);
        daemon.wait_event("connection lost", &[("reason", sentence)]);
    }
    daemon.wait_metrics("all are counted", |metrics| metrics.disconnects("plant", "disconnected") == 4.0);
    assert_eq!(said(&daemon, "plant").len(), 3, "each change once: {:?}", said(&daemon, "plant"));
    let mut peer = broker.accept(false);
    peer.grant();
    peer.disconnect(0x8e);
    daemon.wait_event("connection lost", &[("reason", "has taken the session over; give each its own client-id")]);
    daemon.wait_metrics("it is counted apart", |metrics| metrics.disconnects("plant", "taken_over") == 1.0);
}

/// Server Keep Alive 0 switches the keep alive off (MQTT 5 §3.2.2.3.14); a client that takes it for "ping at once" does
/// nothing else any more.
#[test]
fn a_keep_alive_of_zero_is_no_ping_storm() {
    const LOOK: Duration = Duration::from_secs(2);
    let broker = ScriptedBroker::listen(Protocol::V5);
    let daemon = gateway(&broker, Protocol::V5, "");
    let mut peer = broker.accept_with(false, &Limits { keep_alive: Some(0), ..Limits::default() });
    peer.grant();
    let (start, mut pings, mut rounds) = (Instant::now(), 0, 0_u16);
    while start.elapsed() < LOOK {
        rounds += 1;
        peer.publish(rounds, &Message::new("in/a", "x"));
        loop {
            match peer.packet().expect("the connection stands") {
                Request::Publish(_, id) => peer.acknowledge(id),
                Request::PubAck(id) if id == rounds => break,
                Request::Ping => {
                    pings += 1;
                    peer.pong();
                }
                other => panic!("unexpected: {other:?}"),
            }
        }
    }
    assert!(pings <= 1, "{pings} pings in {LOOK:?} beside {rounds} messages");
    daemon.settle("plant", usize::from(rounds));
}

/// Maximum Packet Size (MQTT 5 §3.2.2.3.6): a larger packet would end the connection, and again on the next.
#[test]
fn a_publish_that_is_larger_than_the_broker_takes_is_refused_before_it_is_sent() {
    let broker = ScriptedBroker::listen(Protocol::V5);
    let daemon = gateway(&broker, Protocol::V5, "");
    let mut peer = broker.accept_with(false, &Limits { max_packet: Some(1000), ..Limits::default() });
    peer.grant();
    peer.publish(1, &Message::new("in/large", vec![b'x'; 2000]));
    assert_eq!(peer.request(), Request::PubAck(1), "there is nothing to wait for");
    peer.publish(2, &Message::new("in/small", "x"));
    let Request::Publish(message, id) = peer.request() else { panic!("the small one is sent") };
    assert_eq!(message.topic, "out/in/small");
    peer.acknowledge(id);
    assert_eq!(peer.request(), Request::PubAck(2));
    let metrics = daemon.settle("plant", 2);
    assert_eq!((metrics.finished("plant", "dead_letter"), metrics.finished("plant", "handled")), (1.0, 1.0));
    let said = daemon.wait_event("message dropped: it is larger than the broker takes", &[("topic", "out/in/large")]);
    assert!(said["bytes"].as_u64() > Some(2000) && said["limit"] == 1000 && said["level"] == "ERROR", "{said}");
}

/// Receive Maximum (MQTT 5 §3.2.2.3.3).
#[test]
fn a_receive_maximum_of_one_is_kept() {
    const COUNT: u16 = 5;
    let broker = ScriptedBroker::listen(Protocol::V5);
    let daemon = gateway(&broker, Protocol::V5, "");
    let mut peer = broker.accept_with(false, &Limits { receive_maximum: Some(1), ..Limits::default() });
    peer.grant();
    for id in 1..=COUNT {
        peer.publish(id, &Message::new("in/a", format!("{id}")));
    }
    daemon.wait_metrics("all calls are over", |metrics| metrics.calls("echo", "ok") == f64::from(COUNT));
    let mut acknowledged = Vec::new();
    for number in 1..=COUNT {
        // The next output, and once there was one before, the acknowledgement of its input: in either order.
        let mut outputs = Vec::new();
        while outputs.is_empty() || acknowledged.len() < usize::from(number) - 1 {
            match peer.request() {
                Request::Publish(message, id) => outputs.push((message.text().to_owned(), id)),
                Request::PubAck(id) => acknowledged.push(id),
                other => panic!("unexpected: {other:?}"),
            }
        }
        peer.is_silent();
        let [(text, id)] = &outputs[..] else { panic!("more than one on its way: {outputs:?}") };
        assert_eq!(*text, number.to_string());
        peer.acknowledge(*id);
    }
    assert_eq!(peer.request(), Request::PubAck(COUNT));
    assert_eq!(acknowledged, (1..COUNT).collect::<Vec<_>>());
    daemon.settle("plant", usize::from(COUNT));
}

/// Maximum QoS and Retain Available (MQTT 5 §3.2.2.3.4 and §3.2.2.3.5), for the session's own messages and for handlers'.
#[test]
fn what_the_broker_does_not_support_is_not_sent() {
    for max_qos in [0, 1] {
        let broker = ScriptedBroker::listen(Protocol::V5);
        let keys = "clean-session = true\nbirth = { topic = \"birth\", qos = 2, retain = true }";
        let daemon = gateway(&broker, Protocol::V5, keys);
        let mut peer =
            broker.accept_with(false, &Limits { max_qos: Some(max_qos), no_retain: true, ..Limits::default() });
        peer.grant();
        peer.publish(1, &Message::new("in/a", "x"));
        for topic in ["birth", "out/in/a"] {
            let Request::Publish(message, id) = peer.request() else { panic!("{topic} comes") };
            assert_eq!((message.topic.as_str(), message.qos, message.retain), (topic, max_qos, false));
            if max_qos > 0 {
                peer.acknowledge(id);
            }
        }
        assert_eq!(peer.request(), Request::PubAck(1));
        daemon.settle("plant", 1);
    }
}
