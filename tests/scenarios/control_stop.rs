//! SIGTERM and SIGINT: what is in progress is finished, what is not stays with the broker, and the exit code is 0.

use std::time::Duration;

use tidegate_tests::config::ECHO;
use tidegate_tests::script::{Request, ScriptedBroker};
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

/// How long a command that waits may take to notice the daemon's end.
const STOPPED: Duration = Duration::from_secs(10);

on_both_protocols!(
    a_stop_finishes_what_is_in_progress_and_leaves_the_rest_to_the_broker,
    a_stop_finishes_qos_0_messages_too,
    what_comes_during_a_stop_stays_with_the_broker,
    what_its_target_does_not_take_in_time_comes_again,
);

fn slow(broker: &Mosquitto, protocol: Protocol, ms: u32) -> Daemon {
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "")
        .guest("slow", "plant", &format!("mode = \"slow\", ms = {ms}"), "instances = 1")
        .subscription("plant", "in/#", 1, "slow", "");
    Daemon::start(&config)
}

/// Over a stop in mid-stream and a new start, each message is handled exactly once: what was taken in is finished and
/// acknowledged, what was not comes to the next daemon.
fn a_stop_finishes_what_is_in_progress_and_leaves_the_rest_to_the_broker(protocol: Protocol) {
    const BEFORE: usize = 200;
    const AWAY: usize = 50;
    let broker = Mosquitto::start();
    let mut daemon = slow(&broker, protocol, 5);
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    let publisher = broker.client(protocol);
    let send = |from: usize, count: usize| {
        publisher.publish_all(&(from..from + count).map(|n| Message::new("in/a", format!("{n}"))).collect::<Vec<_>>());
        from + count
    };
    // A stop that comes too late to show anything is left out.
    let (mut sent, mut came) = (0, Vec::new());
    loop {
        sent = send(sent, BEFORE);
        came.extend(collector.collect(20));
        if collector.waiting() + came.len() < sent {
            break;
        }
        came.extend(collector.collect(sent - came.len()));
    }
    daemon.terminate();
    sent = send(sent, AWAY);
    daemon.restart();

    came.extend(collector.collect(sent - came.len()));
    daemon.wait_metrics("everything reaches its end", |metrics| metrics.in_progress("plant") == 0.0);
    came.extend(collector.rest());
    let numbers: Vec<_> = came.iter().map(|message| message.text().parse::<usize>().expect("a number")).collect();
    assert_eq!(numbers, (0..sent).collect::<Vec<_>>(), "each once, in order");
    daemon.balance();
}

fn a_stop_finishes_qos_0_messages_too(protocol: Protocol) {
    let broker = Mosquitto::start();
    let mut daemon = slow(&broker, protocol, 100);
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    let messages: Vec<_> = (0..5).map(|n| Message::new("in/a", format!("{n}")).qos(0)).collect();
    broker.client(protocol).publish_all(&messages);
    daemon.wait_metrics("all are taken in", |metrics| metrics.received("plant") == 5.0);

    daemon.terminate();

    let came: Vec<_> = collector.collect(5).iter().map(|message| message.text().to_owned()).collect();
    assert_eq!(came, ["0", "1", "2", "3", "4"]);
}

/// The connection stands until what was taken in before is finished; the broker goes on sending meanwhile.
fn what_comes_during_a_stop_stays_with_the_broker(protocol: Protocol) {
    let broker = ScriptedBroker::listen(protocol);
    let config = Config::new()
        .top("shutdown-grace = \"1m\"")
        .broker("plant", broker.port(), protocol, "")
        .guest("echo", "plant", ECHO, "instances = 1")
        .subscription("plant", "in/#", 1, "echo", "");
    let mut daemon = Daemon::launch(&config);
    let mut peer = broker.accept(false);
    peer.grant();
    peer.publish(1, &Message::new("in/a", "early"));
    // Until that has its acknowledgement, its message is in progress.
    let Request::Publish(_, output) = peer.request() else { panic!("the output comes first") };
    daemon.signal("TERM");
    daemon.wait_event("stopping: finishing the messages in progress; a second signal ends at once", &[]);
    peer.publish(2, &Message::new("in/b", "late"));
    daemon.wait_metrics("both have come", |metrics| metrics.received("plant") == 2.0);
    peer.is_silent();

    peer.acknowledge(output);
    let told = [peer.request(), peer.request()];
    assert_eq!(
        told,
        [Request::PubAck(1), Request::Disconnect],
        "what came before the stop is acknowledged, and only that"
    );
    drop(peer);
    assert_eq!(daemon.ended().code(), Some(0));
}

fn what_its_target_does_not_take_in_time_comes_again(protocol: Protocol) {
    let (plant, cloud) = (Mosquitto::start(), ScriptedBroker::listen(protocol));
    let relay = "allow = { publish = [\"cloud:up/#\"] }\nconfig = { broker = \"cloud\", topic = \"up/{topic}\" }";
    let config = Config::new()
        .top("shutdown-grace = \"300ms\"")
        .broker("plant", plant.port(), protocol, "")
        .broker("cloud", cloud.port(), protocol, "")
        .handler("relay", "relay.wasm", relay)
        .subscription("plant", "in/#", 1, "relay", "");
    let mut daemon = Daemon::launch(&config);
    let mut target = cloud.accept(false);
    daemon.wait_broker("plant");
    plant.client(protocol).publish(&Message::new("in/a", "x"));
    let Request::Publish(..) = target.request() else { panic!("the output comes") };
    daemon.terminate();
    drop(target);

    daemon.launch_again();
    let mut target = cloud.accept(false);
    let Request::Publish(again, id) = target.request() else { panic!("the output comes again") };
    assert_eq!(again.topic, "up/in/a");
    target.acknowledge(id);
    daemon.settle("plant", 1);
}

#[test]
fn sigint_stops_as_sigterm_does() {
    let broker = Mosquitto::start();
    let mut daemon = slow(&broker, Protocol::V5, 100);
    let collector = broker.client(Protocol::V5);
    collector.subscribe("out/#", 1);
    broker.client(Protocol::V5).publish(&Message::new("in/a", "x"));
    daemon.wait_metrics("it is taken in", |metrics| metrics.received("plant") == 1.0);
    daemon.signal("INT");
    assert_eq!(daemon.ended().code(), Some(0));
    assert_eq!(collector.collect(1)[0].text(), "x");
}

/// A call that outlasts `shutdown-grace` is left; its message stays unacknowledged.
#[test]
fn a_stop_ends_with_the_grace_period() {
    let broker = Mosquitto::start();
    let config = Config::new()
        .top("shutdown-grace = \"300ms\"")
        .broker("plant", broker.port(), Protocol::V5, "")
        .guest("stuck", "plant", "mode = \"loop\", trigger = \"loop\"", "call-deadline = \"10m\"")
        .subscription("plant", "in/#", 1, "stuck", "");
    let mut daemon = Daemon::start(&config);
    broker.client(Protocol::V5).publish(&Message::new("in/a", "loop"));
    daemon.wait_metrics("it is taken in", |metrics| metrics.in_progress("plant") == 1.0);
    daemon.terminate();

    daemon.restart();
    daemon.wait_metrics("it comes again", |metrics| metrics.in_progress("plant") == 1.0);
    daemon.kill();
}

#[test]
fn a_second_signal_ends_at_once() {
    let broker = Mosquitto::start();
    let config = Config::new()
        .top("shutdown-grace = \"10m\"")
        .broker("plant", broker.port(), Protocol::V5, "")
        .guest("stuck", "plant", "mode = \"loop\"", "call-deadline = \"10m\"")
        .subscription("plant", "in/#", 1, "stuck", "");
    let mut daemon = Daemon::start(&config);
    broker.client(Protocol::V5).publish(&Message::new("in/a", "x"));
    daemon.wait_metrics("it is taken in", |metrics| metrics.in_progress("plant") == 1.0);
    daemon.signal("TERM");
    daemon.wait_event("stopping: finishing the messages in progress; a second signal ends at once", &[]);
    daemon.signal("TERM");
    assert_eq!(daemon.ended().code(), Some(1), "the messages in progress were not finished");
}

#[test]
fn a_stop_does_not_wait_for_a_change_under_way() {
    let broker = Mosquitto::start();
    let config = Config::new().top("shutdown-grace = \"1s\"").broker("plant", broker.port(), Protocol::V5, "");
    let mut daemon = Daemon::start(&config);
    daemon.home().plugin("misbehave.wasm");
    let stuck = "handlers add stuck --plugin misbehave.wasm --config mode=loop --call-deadline 10m --instances 1";
    let subscribe = "subscribe --broker plant --topic in/# --qos 1 --on-message stuck";
    for command in [stuck, subscribe] {
        let ran = daemon.home().run(&command.split(' ').collect::<Vec<_>>());
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    broker.client(Protocol::V5).publish(&Message::new("in/a", "x"));
    daemon.wait_metrics("it is taken in", |metrics| metrics.in_progress("plant") == 1.0);
    // The new instance is there, and waits for the end of the old one's call.
    let mut changing = daemon.home().start(&["handlers", "set", "stuck", "--queue", "5"]);
    daemon.wait_metrics("the change is under way", |metrics| {
        metrics.sum("tidegate_handler_instances", &[("handler", "stuck")]) == 2.0
    });
    daemon.terminate();
    assert_eq!(changing.wait(STOPPED).code(), Some(0), "it is on the disk, and so done");
}
