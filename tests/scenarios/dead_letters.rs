//! Messages that fail for good: what becomes of them, who is told, and that nothing is acknowledged before that is safe.

use serde_json::{Value, json};
use tidegate_tests::script::{Request, ScriptedBroker};
use tidegate_tests::{Client, Config, Daemon, Message, Mosquitto, Properties, Protocol, on_both_protocols};

on_both_protocols!(
    a_message_that_is_rejected_becomes_a_dead_letter_and_the_others_go_on,
    each_way_to_fail_has_its_reason,
    a_message_is_acknowledged_once_its_dead_letter_is,
    a_dead_letter_waits_for_its_broker_and_outlives_the_daemon,
    a_dead_letter_never_begets_another,
    a_dead_letter_that_is_given_up_ends_its_message,
);

const NOT_AUTHORISED: u8 = 0x87;

/// The key of a handler whose dead letters go there.
fn dead_letter(broker: &str) -> String {
    format!("dead-letter = {{ broker = \"{broker}\", topic = \"dead/it\" }}")
}

/// Why there is no dead letter of one.
const NO_OTHER: &str = "it is a dead letter, of which there is no other";

/// Rejects what contains "bad" and echoes the rest.
const REJECT_BAD: &str = "mode = \"reject\", trigger = \"bad\"";

/// A daemon whose handler `guest` is run for `in/#` of `plant`.
fn config(port: u16, protocol: Protocol, guest: &str, keys: &str) -> Config {
    Config::new()
        .broker("plant", port, protocol, "")
        .guest("guest", "plant", guest, &format!("instances = 1\n{keys}"))
        .subscription("plant", "in/#", 1, "guest", "name = \"inputs\"")
}

/// What a dead letter says, in the words of the envelope of 3.1.1; on protocol 5 from its user properties.
fn told(letter: &Message, protocol: Protocol) -> Value {
    if protocol == Protocol::V311 {
        return letter.json();
    }
    let ours = letter.properties.user.iter().filter_map(|(key, value)| Some((key.strip_prefix("tidegate-")?, value)));
    let mut told: Value = ours.map(|(key, value)| (key.to_owned(), Value::from(value.as_str()))).collect();
    for key in ["qos", "attempts", "retain"] {
        let value = told[key].as_str().unwrap_or_else(|| panic!("there is no {key} in {letter:?}"));
        told[key] = value.parse().expect("a number, true or false");
    }
    told["payload"] = letter.text().into();
    told
}

fn a_message_that_is_rejected_becomes_a_dead_letter_and_the_others_go_on(protocol: Protocol) {
    let broker = Mosquitto::start();
    let daemon = Daemon::start(&config(broker.port(), protocol, REJECT_BAD, &dead_letter("plant")));
    let client = Client::connect(broker.port(), Protocol::V5);
    client.subscribe("dead/#", 1);
    client.subscribe("out/#", 1);
    let steps = daemon.follow("/api/v1/trace?topic=in/b&count=1");
    let properties = Properties {
        content_type: Some("text/plain".to_owned()),
        user: vec![("line".to_owned(), "7".to_owned())],
        ..Properties::default()
    };
    let bad = Message::new("in/b", "a bad one").with(properties.clone());
    client.publish_all(&[Message::new("in/a", "1"), bad, Message::new("in/a", "2")]);

    let metrics = daemon.settle("plant", 3);
    assert_eq!((metrics.finished("plant", "handled"), metrics.finished("plant", "dead_letter")), (2.0, 1.0));
    let counted = [("handler", "guest"), ("reason", "reject")];
    assert_eq!(metrics.sum("tidegate_dead_letters_total", &counted), 1.0);
    assert_eq!(metrics.sum("tidegate_dead_letters_total", &[]), 1.0);
    assert_eq!(metrics.sum("tidegate_dead_letters_dropped_total", &[]), 0.0);
    let came = client.collect(3);
    let (letters, others): (Vec<_>, Vec<_>) = came.iter().partition(|message| message.topic == "dead/it");
    assert_eq!(others.iter().map(|message| message.text()).collect::<Vec<_>>(), ["1", "2"]);
    let [letter] = letters[..] else { panic!("{letters:?}") };
    assert_eq!((letter.qos, letter.retain), (1, false));

    let mut told = told(letter, protocol);
    let time = told["time"].take();
    let time = time.as_str().expect("a time");
    assert!(time.ends_with('Z') && time.len() == "2026-01-02T03:04:05.678Z".len(), "{time}");
    let mut expected = json!({
        "broker": "plant", "topic": "in/b", "qos": 1, "retain": false, "handler": "guest", "subscription": "inputs",
        "reason": "reject", "error": "the handler rejected the message: asked to reject", "attempts": 1, "time": null,
        "payload": "a bad one",
    });
    if protocol == Protocol::V5 {
        expected["hops"] = "1".into();
        assert_eq!(letter.properties.user[0], properties.user[0], "the original's come first");
        assert_eq!(letter.properties.content_type, properties.content_type);
    }
    assert_eq!(told, expected);

    let steps: Vec<Value> = steps.map(|event| serde_json::from_str(&event).expect("is JSON")).collect();
    let names: Vec<&str> = steps.iter().filter_map(|step| step["step"].as_str()).collect();
    let tail = ["call-ended", "dead-letter", "admitted", "published", "ended"];
    assert!(names.ends_with(&tail), "{names:?}");
    let step = &steps[names.len() - 4];
    assert_eq!((&step["topic"], &step["reason"]), (&json!("dead/it"), &json!("reject")), "{step}");
    assert_eq!(steps[names.len() - 1]["outcome"], "dead_letter");
    let shown = daemon.json(&["handlers", "list", "guest"]);
    assert_eq!(shown["dead-letters"], json!({ "reject": 1 }), "{shown}");
    assert_eq!(shown["dead-letter"], json!({ "broker": "plant", "topic": "dead/it" }), "{shown}");
    daemon.wait_event("the call failed, its message becomes a dead letter", &[("handler", "guest"), ("topic", "in/b")]);
}

fn each_way_to_fail_has_its_reason(protocol: Protocol) {
    let ways = [
        ("trap", "mode = \"trap\"", "the handler trapped: "),
        ("deadline", "mode = \"loop\"", "the call took longer than call-deadline = 2s"),
        ("memory", "mode = \"memory\"", "the handler needs more than max-memory = 8388608 bytes"),
        ("limit", "mode = \"many\", count = 65, bytes = 1", "the call publishes more than max-publishes = 64 messages"),
        ("retry", "mode = \"retry\"", "the handler asks for a retry: asked to retry"),
    ];
    let given_up = "; given up after 2 calls (retry.max = 1)";
    let broker = Mosquitto::start();
    let mut config = Config::new().broker("plant", broker.port(), protocol, "");
    for (way, guest, _) in ways {
        // Of the others none is to be slower than this on a loaded machine.
        let deadline = if way == "deadline" { "2s" } else { "30s" };
        let limits = format!("instances = 1\ncall-deadline = \"{deadline}\"\nmax-memory = \"8MiB\"");
        let retry = "retry = { max = 1, backoff = \"10ms..10ms\" }";
        config = config.guest(way, "plant", guest, &format!("{limits}\n{retry}\n{}", dead_letter("plant")));
        config = config.subscription("plant", &format!("in/{way}"), 1, way, "");
    }
    let daemon = Daemon::start(&config);
    let client = Client::connect(broker.port(), Protocol::V5);
    client.subscribe("dead/#", 1);
    client.publish_all(&ways.map(|(way, ..)| Message::new(format!("in/{way}"), way)));
    let letters: Vec<Value> = client.collect(ways.len()).iter().map(|letter| told(letter, protocol)).collect();
    let metrics = daemon.settle("plant", ways.len());
    assert_eq!(metrics.finished("plant", "dead_letter"), ways.len() as f64);
    for (way, _, error) in ways {
        let letter = letters.iter().find(|letter| letter["payload"] == way).unwrap_or_else(|| panic!("{letters:?}"));
        assert_eq!((&letter["reason"], &letter["handler"], &letter["attempts"]), (&json!(way), &json!(way), &json!(2)));
        assert!(
            letter["error"].as_str().is_some_and(|told| told.starts_with(error) && told.ends_with(given_up)),
            "{letter}"
        );
        assert_eq!(metrics.sum("tidegate_dead_letters_total", &[("handler", way), ("reason", way)]), 1.0);
    }
}

#[test]
fn a_wait_that_max_time_has_no_room_for_is_told() {
    let broker = Mosquitto::start();
    let keys = format!("retry = {{ max = 9, max-time = \"30s\" }}\n{}", dead_letter("plant"));
    let config = config(broker.port(), Protocol::V5, "mode = \"retry\", ms = 60000", &keys);
    let daemon = Daemon::start(&config);
    let client = broker.client(Protocol::V5);
    client.subscribe("dead/#", 1);
    client.publish(&Message::new("in/a", "x"));
    let told = told(&client.collect(1)[0], Protocol::V5);
    let wait = "after 1 call: the wait of 1m that it asks for is longer than what is left of retry.max-time = 30s";
    assert_eq!(told["error"], format!("the handler asks for a retry: asked to retry; given up {wait}"));
    let fields = [("handler", "guest"), ("given_up", wait)];
    daemon.wait_event("the call failed, its message becomes a dead letter", &fields);
}

fn a_message_is_acknowledged_once_its_dead_letter_is(protocol: Protocol) {
    let broker = ScriptedBroker::listen(protocol);
    let _daemon = Daemon::launch(&config(broker.port(), protocol, REJECT_BAD, &dead_letter("plant")));
    let mut peer = broker.accept(false);
    peer.grant();
    peer.publish(1, &Message::new("in/a", "bad"));
    let request = peer.request();
    let Request::Publish(letter, id) = request else { panic!("before the dead letter came {request:?}") };
    assert_eq!(letter.topic, "dead/it");
    peer.is_silent();
    peer.acknowledge(id);
    assert_eq!(peer.request(), Request::PubAck(1));
}

fn a_dead_letter_waits_for_its_broker_and_outlives_the_daemon(protocol: Protocol) {
    let (plant, mut cloud) = (Mosquitto::persistent(), Mosquitto::persistent());
    let config =
        config(plant.port(), protocol, REJECT_BAD, &dead_letter("cloud")).broker("cloud", cloud.port(), protocol, "");
    let mut daemon = Daemon::start(&config);
    let mut client = Client::options(cloud.port(), Protocol::V5).session("reader").connect().expect("is let in");
    client.subscribe("dead/#", 1);
    cloud.stop();
    plant.client(protocol).publish(&Message::new("in/a", "bad"));
    daemon.wait_metrics("the call is over", |metrics| metrics.calls("guest", "reject") == 1.0);
    assert_eq!(daemon.metrics().in_progress("plant"), 1.0, "it is not acknowledged");
    daemon.kill();
    daemon.launch_again();
    daemon.wait_metrics("it came again", |metrics| metrics.calls("guest", "reject") == 1.0);
    cloud.restart();
    client.reconnect();
    let letter = client.collect(1).remove(0);
    assert_eq!((letter.topic.as_str(), &told(&letter, protocol)["payload"]), ("dead/it", &json!("bad")));
    assert_eq!(daemon.settle("plant", 1).finished("plant", "dead_letter"), 1.0);
}

fn a_dead_letter_never_begets_another(protocol: Protocol) {
    let broker = Mosquitto::start();
    let config = config(broker.port(), protocol, "mode = \"reject\"", &dead_letter("plant"))
        .subscription("plant", "dead/#", 1, "guest", "");
    let daemon = Daemon::start(&config);
    let client = Client::connect(broker.port(), Protocol::V5);
    client.subscribe("dead/#", 1);
    let steps = daemon.follow("/api/v1/trace?topic=dead/%23&count=1");
    client.publish(&Message::new("in/a", "x"));
    let metrics = daemon.settle("plant", 2);
    let steps: Vec<Value> = steps.map(|event| serde_json::from_str(&event).expect("is JSON")).collect();
    let step = steps.iter().find(|step| step["step"] == "no-dead-letter").unwrap_or_else(|| panic!("{steps:?}"));
    assert_eq!((&step["handler"], &step["reason"]), (&json!("guest"), &json!(NO_OTHER)));
    assert_eq!((metrics.finished("plant", "dead_letter"), metrics.finished("plant", "dropped_failed")), (1.0, 1.0));
    assert_eq!(metrics.sum("tidegate_dead_letters_dropped_total", &[("handler", "guest")]), 1.0);
    assert_eq!(client.rest().len(), 1);
    let said = daemon.wait_event("message dropped: there is no dead letter of it", &[("level", "ERROR")]);
    assert_eq!(said["why"], NO_OTHER, "{said}");
}

/// Its own broker ends the connection whenever the dead letter is sent, and sends the message again.
fn a_dead_letter_that_is_given_up_ends_its_message(protocol: Protocol) {
    const PUBLISH: u8 = 3;
    let broker = ScriptedBroker::listen(protocol);
    let daemon = Daemon::launch(&config(broker.port(), protocol, "mode = \"reject\"", &dead_letter("plant")));
    let mut peer = broker.accept(false);
    peer.grant();
    let mut losses = 0;
    peer.publish(1, &Message::new("in/a", "x"));
    while peer.kind() == PUBLISH {
        losses += 1;
        assert!(losses <= 5, "it is sent for ever");
        daemon.wait_metrics("its call is over", |metrics| metrics.calls("guest", "reject") == f64::from(losses));
        drop(peer);
        peer = broker.accept(true);
        if protocol == Protocol::V5 {
            peer.grant();
        }
        peer.publish(1, &Message::new("in/a", "x"));
    }
    assert_eq!(peer.request(), Request::PubAck(1));
    let metrics = daemon.settle("plant", 6);
    assert_eq!((metrics.finished("plant", "dropped_failed"), metrics.finished("plant", "dead_letter")), (6.0, 0.0));
    assert_eq!(metrics.sum("tidegate_dead_letters_dropped_total", &[("handler", "guest")]), 6.0);
}

#[test]
fn a_publish_that_is_refused_makes_its_message_a_dead_letter() {
    let (plant, cloud) = (Mosquitto::start(), ScriptedBroker::listen(Protocol::V5));
    let keys = "allow = { publish = [\"cloud:up/#\"] }\nconfig = { broker = \"cloud\", topic = \"up/{topic}\" }";
    let config = Config::new()
        .broker("plant", plant.port(), Protocol::V5, "")
        .broker("cloud", cloud.port(), Protocol::V5, "")
        .handler("relay", "relay.wasm", &format!("{keys}\n{}", dead_letter("plant")))
        .subscription("plant", "in/#", 1, "relay", "");
    let daemon = Daemon::launch(&config);
    daemon.wait_broker("plant");
    let mut peer = cloud.accept(false);
    let client = plant.client(Protocol::V5);
    client.subscribe("dead/#", 1);
    client.publish_all(&[Message::new("in/a", "no"), Message::new("in/a", "yes")]);
    for refused in [true, false] {
        let Request::Publish(message, id) = peer.request() else { panic!("only publishes are expected") };
        assert_eq!(message.text(), if refused { "no" } else { "yes" });
        if refused { peer.refuse(id, NOT_AUTHORISED) } else { peer.acknowledge(id) }
    }
    let letter = client.collect(1).remove(0);
    let told = told(&letter, Protocol::V5);
    assert_eq!(
        (&told["payload"], &told["topic"], &told["reason"]),
        (&json!("no"), &json!("in/a"), &json!("publish_refused"))
    );
    let error = "the broker cloud refuses the publish to up/in/a: the broker's access rules refuse it";
    assert_eq!(told["error"], error);
    let metrics = daemon.settle("plant", 2);
    assert_eq!((metrics.finished("plant", "handled"), metrics.finished("plant", "dead_letter")), (1.0, 1.0));
}

#[test]
fn a_dead_letter_that_is_refused_ends_its_message() {
    let broker = ScriptedBroker::listen(Protocol::V5);
    let daemon = Daemon::launch(&config(broker.port(), Protocol::V5, REJECT_BAD, &dead_letter("plant")));
    let mut peer = broker.accept(false);
    peer.grant();
    peer.publish(1, &Message::new("in/a", "bad"));
    let Request::Publish(letter, id) = peer.request() else { panic!("no dead letter") };
    assert_eq!(letter.topic, "dead/it");
    peer.refuse(id, NOT_AUTHORISED);
    assert_eq!(peer.request(), Request::PubAck(1));
    assert_eq!(daemon.settle("plant", 1).finished("plant", "dropped_failed"), 1.0);
    let said =
        daemon.wait_event("message dropped: there is no dead letter of it", &[("level", "ERROR"), ("topic", "in/a")]);
    assert_eq!(said["why"], "the broker refuses it: the broker's access rules refuse it", "{said}");
}
