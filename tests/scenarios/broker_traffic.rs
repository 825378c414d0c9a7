//! Every make of broker: each message that it sends is handled once, in the order of its topic.

use std::collections::BTreeMap;

use tidegate_tests::config::ECHO;
use tidegate_tests::{Broker, Config, Daemon, Make, Message, Protocol, on_every_broker, with_duplicates};

on_every_broker!(
    qos_0_and_1_pass_once_in_the_order_of_each_topic,
    equal_messages_are_messages_each,
    a_topic_with_a_dollar_runs_no_handler_of_a_wildcard,
    a_topic_that_the_broker_renames_is_handled_under_its_new_name,
);
with_duplicates!(qos_0_and_1_pass_once_in_the_order_of_each_topic);

const TOPICS: usize = 4;
const COUNT: usize = 500;

fn gateway(broker: &dyn Broker, protocol: Protocol, filter: &str) -> Daemon {
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .guest("echo", "plant", ECHO, "instances = 2\ncall-deadline = \"10s\"")
        .subscription("plant", filter, 1, "echo", "");
    Daemon::start(&config)
}

fn qos_0_and_1_pass_once_in_the_order_of_each_topic(make: &Make, protocol: Protocol) {
    let broker = (make.start)();
    let daemon = gateway(&*broker, protocol, "in/#");
    let publisher = broker.client(protocol);
    for (qos, settled) in [(0, COUNT), (1, 2 * COUNT)] {
        let collector = broker.client(protocol);
        collector.subscribe("out/in/#", 1);
        let number = |n: usize| Message::new(format!("in/{}", n % TOPICS), format!("{}", n / TOPICS)).qos(qos);
        publisher.publish_all(&(0..COUNT).map(number).collect::<Vec<_>>());
        let mut orders: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for message in collector.collect(COUNT) {
            assert_eq!((message.qos, message.retain), (qos, false), "{message:?}");
            orders.entry(message.topic.clone()).or_default().push(message.text().parse().expect("a number"));
        }
        let expected: Vec<_> = (0..COUNT / TOPICS).collect();
        let topics = (0..TOPICS).map(|topic| (format!("out/in/{topic}"), expected.clone())).collect();
        assert_eq!(orders, topics, "each once, in order");
        let metrics = daemon.settle("plant", settled);
        assert_eq!(metrics.finished("plant", "handled"), settled as f64);
        assert_eq!(collector.until_own(&Message::new("out/in/end", "").qos(qos)), [], "nothing comes twice");
    }
}

fn equal_messages_are_messages_each(make: &Make, protocol: Protocol) {
    const EQUAL: usize = 7;
    let broker = (make.start)();
    let daemon = gateway(&*broker, protocol, "in/#");
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    broker.client(protocol).publish_all(&vec![Message::new("in/a", "the same"); EQUAL]);
    let came = collector.collect(EQUAL);
    assert!(came.iter().all(|message| message.text() == "the same"), "{came:?}");
    assert_eq!(daemon.settle("plant", EQUAL).finished("plant", "handled"), EQUAL as f64);
    assert_eq!(collector.until_own(&Message::new("out/end", "")), []);
}

/// [MQTT-4.7.2-1], also where the broker does not keep to it.
fn a_topic_with_a_dollar_runs_no_handler_of_a_wildcard(make: &Make, protocol: Protocol) {
    let broker = (make.start)();
    let daemon = gateway(&*broker, protocol, "+/a");
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    let publisher = broker.client(protocol);
    publisher.publish(&Message::new("$w/a", "wild"));
    publisher.publish(&Message::new("w/a", "tame"));
    assert_eq!(collector.collect(1)[0].text(), "tame");
    let sent = if make.wildcards_match_dollar { 2 } else { 1 };
    let metrics = daemon.settle("plant", sent);
    assert_eq!(
        (metrics.finished("plant", "handled"), metrics.finished("plant", "unmatched")),
        (1.0, sent as f64 - 1.0)
    );
}

/// A new name may be none at all: such a message is dropped with an error, and holds up no other.
fn a_topic_that_the_broker_renames_is_handled_under_its_new_name(make: &Make, protocol: Protocol) {
    let broker = (make.start)();
    let daemon = gateway(&*broker, protocol, "in/#");
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    let publisher = broker.client(protocol);
    let mut handled = Vec::new();
    for (from, to) in make.renamed_topics.iter().copied().chain([("in/last", "in/last")]) {
        publisher.publish(&Message::new(from, "x"));
        if to.contains('+') {
            daemon.wait_event("message with an invalid topic name dropped", &[("broker", "plant")]);
        } else {
            handled.push(format!("out/{to}"));
        }
    }
    let came: Vec<_> = collector.collect(handled.len()).into_iter().map(|message| message.topic).collect();
    assert_eq!(came, handled);
}
