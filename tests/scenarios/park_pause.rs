//! Handlers that are paused by command: what comes is kept on the disk and acknowledged, and comes back in order before what is
//! new, whatever happens meanwhile.

use tidegate_tests::config::ECHO;
use tidegate_tests::gate::{AT_W, ECHO as ECHO_IN_C, Gate};
use tidegate_tests::metrics::Metrics;
use tidegate_tests::numbered::{assert_order, collect_all, numbered};
use tidegate_tests::script::{Request, ScriptedBroker};
use tidegate_tests::{Client, Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols, wait};

on_both_protocols!(
    what_comes_for_a_paused_handler_is_acknowledged_and_comes_back_in_order_before_what_is_new,
    a_daemon_killed_while_a_handler_is_paused_loses_nothing_and_it_stays_paused,
    a_daemon_killed_while_messages_come_back_loses_nothing_and_keeps_the_order,
    a_full_park_withholds_acknowledgements_and_the_connection_stays,
    a_message_that_comes_while_its_handler_is_paused_is_acknowledged,
    a_stop_while_messages_come_back_leaves_none_unacknowledged,
    what_came_from_a_broker_that_is_not_configured_stays_parked_until_it_is_again,
);

fn config(port: u16, protocol: Protocol, guest: &str, keys: &str) -> Config {
    Config::new()
        .broker("plant", port, protocol, "client-id = \"gateway\"\nmax-packet = \"4MiB\"")
        .guest("guest", "plant", guest, &format!("instances = 1\n{keys}"))
        .subscription("plant", "in/#", 1, "guest", "")
}

fn parked(metrics: &Metrics) -> f64 {
    metrics.sum("tidegate_handler_parked_messages", &[("handler", "guest")])
}

fn full(metrics: &Metrics) -> bool {
    metrics.sum("tidegate_handler_park_full", &[("handler", "guest")]) == 1.0
}

/// Waits until so many messages are parked, and all that came are acknowledged.
fn wait_parked(daemon: &Daemon, count: usize) {
    daemon.wait_metrics(&format!("{count} messages are parked"), |metrics| {
        parked(metrics) == count as f64 && metrics.in_progress("plant") == 0.0
    });
}

fn wait_open(daemon: &Daemon) {
    daemon.wait_metrics("nothing is parked", |metrics| parked(metrics) == 0.0);
    wait::until("it is open", || match daemon.json(&["handlers", "list", "guest"]) {
        shown if shown["state"] == "open" => Ok(()),
        shown => Err(shown.to_string()),
    });
}

/// So many messages, as long as one after the other comes: a loaded machine takes its time for all of them.
fn collect(collector: &Client, count: usize) -> Vec<Message> {
    (0..count).flat_map(|_| collector.collect(1)).collect()
}

fn pause(daemon: &Daemon) {
    daemon.done(&["handlers", "pause", "guest"]);
}

fn resume(daemon: &Daemon) {
    daemon.done(&["handlers", "resume", "guest"]);
}

fn what_comes_for_a_paused_handler_is_acknowledged_and_comes_back_in_order_before_what_is_new(protocol: Protocol) {
    const TOPICS: usize = 3;
    const BEFORE: usize = 90;
    /// More than are brought back at a time: the last of them are on the disk yet when new ones come.
    const AT_LAST: usize = 1590;
    const COUNT: usize = 1650;
    let broker = Mosquitto::start();
    let daemon = Daemon::start(&config(broker.port(), protocol, "mode = \"slow\", ms = 4", ""));
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    let messages = numbered(COUNT, TOPICS);
    let publisher = broker.client(protocol);

    publisher.publish_all(&messages[..BEFORE]);
    let mut came = collector.collect(10);
    pause(&daemon);
    pause(&daemon);
    publisher.publish_all(&messages[BEFORE..AT_LAST]);
    let metrics = daemon.settle("plant", AT_LAST);
    assert!(metrics.finished("plant", "parked") >= (AT_LAST - BEFORE) as f64, "{}", metrics.page);
    let shown = daemon.json(&["handlers", "list", "guest"]);
    assert_eq!(shown["state"], "paused");
    assert_eq!(shown["parked"]["messages"].as_f64(), Some(metrics.finished("plant", "parked")));
    assert_eq!(metrics.sum("tidegate_handler_paused", &[("handler", "guest")]), 1.0);

    resume(&daemon);
    publisher.publish_all(&messages[AT_LAST..]);
    came.extend(collect(&collector, COUNT - came.len()));
    assert_order(&came);
    wait_open(&daemon);
    let metrics = daemon.settle("plant", COUNT);
    assert_eq!(metrics.finished("plant", "parked") + metrics.finished("plant", "handled"), COUNT as f64);
    assert_eq!(collector.rest(), [], "nothing comes twice");
}

/// Acknowledged is only what is on the disk.
fn a_daemon_killed_while_a_handler_is_paused_loses_nothing_and_it_stays_paused(protocol: Protocol) {
    const COUNT: usize = 1200;
    let broker = Mosquitto::start();
    let mut daemon = Daemon::start(&config(broker.port(), protocol, ECHO, ""));
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    pause(&daemon);
    let messages = numbered(COUNT, 4);
    let publisher = broker.client(protocol);
    std::thread::scope(|scope| {
        scope.spawn(|| publisher.publish_all(&messages));
        daemon.wait_metrics("some are parked", |metrics| metrics.finished("plant", "parked") >= 300.0);
        daemon.kill();
    });

    daemon.restart();
    assert_eq!(daemon.json(&["handlers", "list", "guest"])["state"], "paused");
    daemon.wait_metrics("the rest is parked", |metrics| {
        parked(metrics) >= COUNT as f64 && metrics.in_progress("plant") == 0.0
    });
    assert_eq!(collector.rest(), [], "it is paused");
    resume(&daemon);
    let mut came = Vec::new();
    collect_all(&collector, &messages, &mut came);
    assert_order(&came);
    wait_open(&daemon);
    daemon.balance();
}

fn a_daemon_killed_while_messages_come_back_loses_nothing_and_keeps_the_order(protocol: Protocol) {
    const COUNT: usize = 400;
    let broker = Mosquitto::telling();
    let mut daemon = Daemon::start(&config(broker.port(), protocol, "mode = \"slow\", ms = 2", ""));
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    pause(&daemon);
    let messages = numbered(COUNT, 4);
    broker.client(protocol).publish_all(&messages);
    wait_parked(&daemon, COUNT);
    broker.wait_acknowledged();

    resume(&daemon);
    let mut came = collector.collect(COUNT / 10);
    daemon.kill();
    daemon.restart();
    collect_all(&collector, &messages, &mut came);
    assert_order(&came);
    wait_open(&daemon);
    assert_eq!(daemon.balance().received("plant"), 0.0, "the broker had its acknowledgements");
}

fn a_full_park_withholds_acknowledgements_and_the_connection_stays(protocol: Protocol) {
    const BYTES: usize = 1 << 20;
    /// A few more than 64 MiB hold.
    const COUNT: usize = 70;
    let broker = Mosquitto::start();
    let keys = "max-publish-bytes = \"4MiB\"\nqueue-bytes = \"4MiB\"";
    let daemon = Daemon::start(&config(broker.port(), protocol, ECHO, keys));
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    pause(&daemon);
    let message = |n: usize| {
        let mut payload = format!("{n} ").into_bytes();
        payload.resize(BYTES, b'x');
        Message::new("in/a", payload)
    };
    let publisher = broker.client(protocol);
    (0..COUNT).for_each(|n| publisher.publish(&message(n)));
    let metrics = daemon.wait_metrics("the park is full", |metrics| {
        full(metrics)
            && metrics.received("plant") == COUNT as f64
            && metrics.finished("plant", "parked") == parked(metrics)
    });
    let open = metrics.in_progress("plant");
    assert!(open > 0.0 && parked(&metrics) > 60.0, "{}", metrics.page);
    assert_eq!(parked(&metrics) + open, COUNT as f64);
    daemon.wait_event(
        "no more messages are parked for the handler: those with QoS 1 and 2 wait at their broker, those with QoS 0 are \
         dropped; resume the handler",
        &[("handler", "guest")],
    );

    // What needs no acknowledgement is dropped once the queue is full.
    (0..8).for_each(|n| publisher.publish(&message(COUNT + n).qos(0)));
    daemon.wait_metrics("the queue is full", |metrics| metrics.finished("plant", "dropped_overload") > 0.0);

    resume(&daemon);
    let came = collect(&collector, COUNT);
    let number = |message: &Message| message.text().split(' ').next().map(str::to_owned);
    let numbers: Vec<_> = came.iter().filter_map(number).collect();
    assert_eq!(numbers, (0..COUNT).map(|n| n.to_string()).collect::<Vec<_>>());
    wait_open(&daemon);
    let metrics = daemon.wait_metrics("all ends", |metrics| metrics.in_progress("plant") == 0.0);
    assert!(!full(&metrics));
    assert_eq!(metrics.sum("tidegate_broker_connected", &[("broker", "plant")]), 1.0);
    assert_eq!(metrics.sum("tidegate_broker_disconnects_total", &[("broker", "plant")]), 0.0);
}

fn a_message_that_comes_while_its_handler_is_paused_is_acknowledged(protocol: Protocol) {
    let (broker, gate) = (ScriptedBroker::listen(protocol), Gate::new());
    let keys = "instances = 1\ncall-deadline = \"1m\"\nallow = { publish = [\"plant:out/#\"] }";
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .native("guest", gate.plugin("", &format!("{AT_W}{ECHO_IN_C}")), keys)
        .subscription("plant", "in/#", 1, "guest", "");
    let daemon = Daemon::launch(&config);
    let mut peer = broker.accept(false);
    peer.grant();
    // In a call, and behind it in its topic.
    peer.publish(1, &Message::new("in/a", "wait"));
    gate.wait_reached();
    peer.publish(2, &Message::new("in/a", "2"));
    peer.publish(3, &Message::new("in/b", "3"));
    daemon.wait_metrics("all are taken in", |metrics| metrics.received("plant") == 3.0);
    pause(&daemon);
    gate.open();
    let Request::Publish(output, id) = peer.request() else { panic!("the call ends") };
    assert_eq!(output.text(), "wait");
    peer.acknowledge(id);
    assert_eq!([peer.request(), peer.request(), peer.request()], [1, 2, 3].map(Request::PubAck));
    peer.is_silent();
    resume(&daemon);
    for expected in ["2", "3"] {
        let Request::Publish(output, id) = peer.request() else { panic!("it comes back") };
        assert_eq!(output.text(), expected);
        peer.acknowledge(id);
    }
    peer.is_silent();
    daemon.settle("plant", 3);
}

/// It does not wait for all that is parked, and what waits behind that is parked too.
fn a_stop_while_messages_come_back_leaves_none_unacknowledged(protocol: Protocol) {
    // More than are brought back at a time.
    const COUNT: usize = 2000;
    /// Fewer than the broker sends without an acknowledgement.
    const NEW: usize = 15;
    let broker = Mosquitto::start();
    let mut daemon = Daemon::start(&config(broker.port(), protocol, "mode = \"slow\", ms = 10", ""));
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    pause(&daemon);
    let messages = numbered(COUNT, 4);
    let publisher = broker.client(protocol);
    publisher.publish_all(&messages[..COUNT - NEW]);
    wait_parked(&daemon, COUNT - NEW);
    resume(&daemon);
    publisher.publish_all(&messages[COUNT - NEW..]);
    daemon.wait_metrics("all came", |metrics| metrics.received("plant") == COUNT as f64);
    daemon.terminate();

    daemon.restart_with(&config(broker.port(), protocol, ECHO, ""));
    let mut came = Vec::new();
    collect_all(&collector, &messages, &mut came);
    assert_order(&came);
    wait_open(&daemon);
    assert_eq!(daemon.balance().received("plant"), 0.0, "the broker had its acknowledgements");
    assert_eq!((came.len(), collector.rest()), (COUNT, vec![]), "nothing comes twice");
}

fn what_came_from_a_broker_that_is_not_configured_stays_parked_until_it_is_again(protocol: Protocol) {
    let (plant, cloud) = (Mosquitto::start(), Mosquitto::start());
    let without = Config::new().broker("cloud", cloud.port(), protocol, "").guest(
        "guest",
        "cloud",
        "mode = \"echo\", broker = \"cloud\"",
        "instances = 1",
    );
    let with = without
        .clone()
        .broker("plant", plant.port(), protocol, "client-id = \"gateway\"")
        .subscription("plant", "in/#", 1, "guest", "");
    let mut daemon = Daemon::start(&with);
    let collector = cloud.client(protocol);
    collector.subscribe("out/#", 1);
    pause(&daemon);
    let publisher = plant.client(protocol);
    publisher.publish_all(&[Message::new("in/a", "1"), Message::new("in/a", "2")]);
    wait_parked(&daemon, 2);
    daemon.terminate();

    // This process has never heard of the broker.
    daemon.restart_with(&without);
    resume(&daemon);
    daemon.wait_event("the handler has got all that was parked for it", &[("handler", "guest")]);
    let why = [("handler", "guest"), ("broker", "plant"), ("why", "its broker is not configured")];
    daemon.wait_event("a parked message cannot be handled, and stays parked", &why);
    assert_eq!(parked(&daemon.metrics()), 2.0);
    assert_eq!(collector.rest(), [], "they stay");

    daemon.home().configure(&with, daemon.admin());
    daemon.done(&["reload"]);
    publisher.publish(&Message::new("in/a", "3"));
    let came = collect(&collector, 3);
    assert_eq!(came.iter().map(Message::text).collect::<Vec<_>>(), ["1", "2", "3"]);
    wait_open(&daemon);
    daemon.balance();

    // This one has.
    pause(&daemon);
    publisher.publish_all(&[Message::new("in/a", "4"), Message::new("in/a", "5")]);
    wait_parked(&daemon, 2);
    daemon.home().configure(&without, daemon.admin());
    daemon.done(&["reload"]);
    resume(&daemon);
    wait::until("it is open", || match daemon.json(&["handlers", "list", "guest"]) {
        shown if shown["state"] == "open" => Ok(()),
        shown => Err(shown.to_string()),
    });
    assert_eq!((parked(&daemon.metrics()), collector.rest()), (2.0, vec![]), "they stay");
    daemon.home().configure(&with, daemon.admin());
    daemon.done(&["reload"]);
    publisher.publish(&Message::new("in/a", "6"));
    let came = collect(&collector, 3);
    assert_eq!(came.iter().map(Message::text).collect::<Vec<_>>(), ["4", "5", "6"]);
    wait_open(&daemon);
}
