//! What a kept session is subscribed to: exactly what the configuration needs, through restarts, crashes and refusals.

use std::collections::BTreeSet;
use std::fs;

use tidegate_tests::client::stream::Stream;
use tidegate_tests::config::ECHO;
use tidegate_tests::script::{Request, ScriptedBroker};
use tidegate_tests::{Client, Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(
    a_topic_that_is_no_longer_configured_is_given_back,
    a_wider_and_a_narrower_topic_leave_no_gap,
    retained_messages_come_once_over_a_restart,
    a_new_filter_is_granted_before_the_old_one_is_given_back,
    what_was_asked_for_before_a_crash_is_given_back,
    what_a_refused_filter_covers_is_subscribed_itself,
    a_filter_stays_while_its_replacement_is_refused,
    a_damaged_record_is_set_aside,
    the_record_of_another_client_id_is_replaced,
    a_session_that_was_lost_meanwhile_is_told,
);

const CLIENT: &str = "client-id = \"gateway\"";

/// A gateway that echoes these topics.
fn config(port: u16, protocol: Protocol, topics: &[&str]) -> Config {
    let config = Config::new().broker("plant", port, protocol, CLIENT).guest("echo", "plant", ECHO, "instances = 1");
    topics.iter().fold(config, |config, topic| config.subscription("plant", topic, 1, "echo", ""))
}

fn collector(broker: &Mosquitto, protocol: Protocol) -> Client {
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    collector
}

fn a_topic_that_is_no_longer_configured_is_given_back(protocol: Protocol) {
    let broker = Mosquitto::start();
    let mut daemon = Daemon::start(&config(broker.port(), protocol, &["in/#", "old/#"]));
    daemon.wait_recorded("plant", &[("in/#", "granted"), ("old/#", "granted")]);
    daemon.terminate();
    daemon.restart_with(&config(broker.port(), protocol, &["in/#"]));
    daemon.wait_event("filters given back", &[("filters", "old/#")]);
    daemon.wait_recorded("plant", &[("in/#", "granted")]);

    let publisher = broker.client(protocol);
    publisher.publish_all(&[Message::new("old/x", "1"), Message::new("in/x", "2")]);
    assert_eq!(daemon.settle("plant", 1).finished("plant", "handled"), 1.0);
}

fn a_wider_and_a_narrower_topic_leave_no_gap(protocol: Protocol) {
    const MESSAGES: usize = 3_000;
    let broker = Mosquitto::start();
    let mut daemon = Daemon::start(&config(broker.port(), protocol, &["a/b"]));
    let collector = collector(&broker, protocol);
    let sent: Vec<_> = (0..MESSAGES).map(|n| Message::new("a/b", format!("{n}"))).collect();
    let mut missing: BTreeSet<Vec<u8>> = sent.iter().map(|message| message.payload.clone()).collect();
    let stream = Stream::start(broker.port(), protocol, sent);
    for topics in [&["a/b", "a/#"][..], &["a/b", "+/b"], &["#"], &["a/b"]] {
        let some = collector.collect(50);
        some.iter().for_each(|message| _ = missing.remove(&message.payload));
        daemon.terminate();
        daemon.restart_with(&config(broker.port(), protocol, topics));
    }
    stream.finish();
    collector.collect_until("the missing messages", |message| {
        missing.remove(&message.payload);
        missing.is_empty()
    });
}

fn retained_messages_come_once_over_a_restart(protocol: Protocol) {
    let broker = Mosquitto::start();
    let publisher = broker.client(protocol);
    publisher.publish(&Message { retain: true, ..Message::new("in/kept", "1") });
    let mut daemon = Daemon::start(&config(broker.port(), protocol, &["in/#"]));
    daemon.settle("plant", 1);
    daemon.terminate();
    daemon.restart();
    publisher.publish(&Message::new("in/live", "2"));
    daemon.settle("plant", 1);
}

/// Of a topic that the session has already, a new subscription gets what is retained too.
#[test]
fn a_covered_topic_that_is_new_gets_its_retained_messages_on_5() {
    let broker = Mosquitto::start();
    let publisher = broker.client(Protocol::V5);
    publisher.publish(&Message { retain: true, ..Message::new("in/kept", "1") });
    let before = config(broker.port(), Protocol::V5, &["in/#"]);
    let mut daemon = Daemon::start(&before);
    daemon.settle("plant", 1);
    daemon.terminate();
    let now = before.guest("new", "plant", ECHO, "").subscription("plant", "in/kept", 1, "new", "");
    daemon.restart_with(&now);
    assert_eq!(daemon.settle("plant", 1).calls("new", "ok"), 1.0);
    daemon.wait_recorded("plant", &[("in/#", "granted"), ("in/kept", "granted")]);

    // Only once, and then one filter is enough.
    daemon.terminate();
    daemon.restart();
    daemon.wait_recorded("plant", &[("in/#", "granted")]);
    publisher.publish(&Message::new("in/kept", "2"));
    assert_eq!(daemon.settle("plant", 1).calls("new", "ok"), 1.0);
}

fn a_new_filter_is_granted_before_the_old_one_is_given_back(protocol: Protocol) {
    let broker = ScriptedBroker::listen(protocol);
    let mut daemon = Daemon::launch(&config(broker.port(), protocol, &["a/b"]));
    let mut peer = broker.accept(false);
    assert_eq!(peer.answer(|_, qos| qos), ["a/b"]);
    daemon.wait_recorded("plant", &[("a/b", "granted")]);
    daemon.kill();
    daemon.launch_again_with(&config(broker.port(), protocol, &["a/b", "a/#"]));
    let mut peer = broker.accept(true);
    let request = peer.request();
    peer.is_silent();
    daemon.wait_recorded("plant", &[("a/#", "asked"), ("a/b", "granted")]);
    peer.grant_request(&request);
    assert_eq!(peer.release(), ["a/b"]);
    daemon.wait_recorded("plant", &[("a/#", "granted")]);
}

fn what_was_asked_for_before_a_crash_is_given_back(protocol: Protocol) {
    let broker = ScriptedBroker::listen(protocol);
    let mut daemon = Daemon::launch(&config(broker.port(), protocol, &["old/#"]));
    let mut peer = broker.accept(false);
    peer.request();
    // The broker has it, perhaps; the daemon dies before it is told.
    daemon.kill();
    daemon.launch_again_with(&config(broker.port(), protocol, &["new/#"]));
    let mut peer = broker.accept(true);
    assert_eq!(peer.answer(|_, qos| qos), ["new/#"]);
    assert_eq!(peer.release(), ["old/#"]);
    daemon.wait_ready();
}

fn what_a_refused_filter_covers_is_subscribed_itself(protocol: Protocol) {
    let broker = ScriptedBroker::listen(protocol);
    let daemon = Daemon::launch(&config(broker.port(), protocol, &["#", "a/b", "c/+"]));
    let mut peer = broker.accept(false);
    let mut asked = BTreeSet::new();
    while asked.len() < 3 {
        asked.extend(peer.answer(|filter, qos| if filter == "#" { 0x80 } else { qos }));
        assert!(asked.contains("#"), "the widest is asked for first: {asked:?}");
    }
    daemon.wait_recorded("plant", &[("a/b", "granted"), ("c/+", "granted")]);
    peer.publish(1, &Message::new("c/d", "1"));
    let request = peer.request();
    let Request::Publish(_, id) = request else { panic!("no echo but {request:?}") };
    peer.acknowledge(id);
    assert_eq!(daemon.settle("plant", 1).calls("echo", "ok"), 1.0);
    assert!(daemon.wait_not_ready().contains("plant:#"));
    let refused = daemon.warnings("plant").into_iter().filter(|event| event["message"] == "subscription refused");
    assert_eq!(refused.map(|event| event["filter"].clone()).collect::<Vec<_>>(), ["#"]);
}

fn a_filter_stays_while_its_replacement_is_refused(protocol: Protocol) {
    let broker = ScriptedBroker::listen(protocol);
    let mut daemon = Daemon::launch(&config(broker.port(), protocol, &["a/b"]));
    let mut peer = broker.accept(false);
    peer.grant();
    daemon.wait_recorded("plant", &[("a/b", "granted")]);
    daemon.kill();
    daemon.launch_again_with(&config(broker.port(), protocol, &["a/b", "a/#"]));
    let mut peer = broker.accept(true);
    assert_eq!(peer.answer(|_, _| 0x80), ["a/#"]);
    if protocol == Protocol::V5 {
        // There what the session has is asked for again, in case the broker has forgotten.
        assert_eq!(peer.answer(|_, qos| qos), ["a/b"]);
    }
    daemon.wait_recorded("plant", &[("a/b", "granted")]);
    peer.is_silent();
}

fn a_damaged_record_is_set_aside(protocol: Protocol) {
    let broker = Mosquitto::start();
    let config = config(broker.port(), protocol, &["in/#"]);
    let mut daemon = Daemon::start(&config);
    daemon.terminate();
    let folder = daemon.home().path().join("state/sessions");
    let text = fs::read(folder.join("plant.json")).expect("it was written");
    daemon.home().write("state/sessions/plant.json", &text[..text.len() / 2]);
    daemon.restart();
    let warning = daemon.wait_event(
        "the record of the session's subscriptions is damaged and was set aside: filters that are no longer configured \
         cannot be given back",
        &[("broker", "plant"), ("aside", "plant.json.damaged")],
    );
    assert_eq!(warning["level"], "WARN");
    assert_eq!(fs::read(folder.join("plant.json.damaged")).expect("it is kept"), &text[..text.len() / 2]);
    broker.client(protocol).publish(&Message::new("in/x", "1"));
    assert_eq!(daemon.settle("plant", 1).finished("plant", "handled"), 1.0);
    daemon.wait_recorded("plant", &[("in/#", "granted")]);
}

fn the_record_of_another_client_id_is_replaced(protocol: Protocol) {
    let broker = Mosquitto::start();
    let with = |client: &str| {
        Config::new()
            .broker("plant", broker.port(), protocol, &format!("client-id = \"{client}\""))
            .guest("echo", "plant", ECHO, "")
            .subscription("plant", "in/#", 1, "echo", "")
    };
    // The other session is there, and has no filter.
    Client::options(broker.port(), protocol).session("other").connect().expect("is let in");
    let mut daemon = Daemon::start(&with("gateway"));
    daemon.terminate();
    daemon.restart_with(&with("other"));
    broker.client(protocol).publish(&Message::new("in/x", "1"));
    daemon.settle("plant", 1);
    let record = daemon.home().path().join("state/sessions/plant.json");
    assert!(fs::read_to_string(record).expect("is there").contains("\"other\""));
}

fn a_session_that_was_lost_meanwhile_is_told(protocol: Protocol) {
    let mut broker = Mosquitto::start();
    let mut daemon = Daemon::start(&config(broker.port(), protocol, &["in/#"]));
    assert_eq!(daemon.metrics().sum("tidegate_broker_sessions_lost_total", &[("broker", "plant")]), 0.0);
    daemon.terminate();
    broker.kill();
    broker.restart();
    daemon.restart();
    let lost = "session lost: the broker no longer keeps it, and with it what was published meanwhile";
    assert_eq!(daemon.wait_event(lost, &[("broker", "plant")])["level"], "WARN");
    assert_eq!(daemon.metrics().sum("tidegate_broker_sessions_lost_total", &[("broker", "plant")]), 1.0);
    broker.client(protocol).publish(&Message::new("in/x", "1"));
    daemon.settle("plant", 1);
}
