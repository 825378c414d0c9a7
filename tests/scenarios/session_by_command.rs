//! Sessions that an operator steers with commands, at a real broker: what is not lost, and what the broker forgets.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tidegate_tests::client::stream::Stream;
use tidegate_tests::config::ECHO;
use tidegate_tests::{Client, Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(
    subscriptions_change_under_a_stream_on_one_connection,
    a_stream_goes_on_through_disconnects_by_command,
    a_reset_makes_the_broker_forget_what_it_had_queued,
    what_waits_for_a_disconnected_broker_stays_until_a_command_or_a_new_publish,
);

/// A gateway that echoes `in/#`.
fn start(broker: &Mosquitto, protocol: Protocol) -> Daemon {
    let config = Config::new().broker("plant", broker.port(), protocol, "client-id = \"gateway\"");
    let config = config.guest("echo", "plant", ECHO, "instances = 1");
    Daemon::start(&config.subscription("plant", "in/+", 1, "echo", ""))
}

#[track_caller]
fn done(daemon: &Daemon, arguments: &[&str]) {
    let ran = daemon.home().run(arguments);
    assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
}

fn collector(broker: &Mosquitto, protocol: Protocol) -> Client {
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    collector
}

/// Has a stream of messages echoed while `meanwhile` happens so many times, and none of them missing.
fn stream(broker: &Mosquitto, protocol: Protocol, daemon: &Daemon, meanwhile: &[&[&[&str]]]) {
    const MESSAGES: usize = 3_000;
    let collector = collector(broker, protocol);
    let sent: Vec<_> = (0..MESSAGES).map(|n| Message::new("in/a", format!("{n}"))).collect();
    let mut missing: BTreeSet<Vec<u8>> = sent.iter().map(|message| message.payload.clone()).collect();
    let stream = Stream::start(broker.port(), protocol, sent);
    for commands in meanwhile {
        let some = collector.collect(50);
        some.iter().for_each(|message| _ = missing.remove(&message.payload));
        commands.iter().for_each(|command| done(daemon, command));
    }
    assert!(!missing.is_empty(), "the commands came too late to show anything");
    stream.finish();
    collector.collect_until("the missing messages", |message| {
        missing.remove(&message.payload);
        missing.is_empty()
    });
}

fn subscriptions_change_under_a_stream_on_one_connection(protocol: Protocol) {
    let broker = Mosquitto::start();
    let daemon = start(&broker, protocol);
    daemon.wait_recorded("plant", &[("in/+", "granted")]);
    let wider: &[&str] = &["subscribe", "--broker", "plant", "--topic", "in/#", "--qos", "1", "--on-message", "echo"];
    let crossing: &[&str] = &["subscribe", "--broker", "plant", "--topic", "+/a", "--qos", "1"];
    let no_wider: &[&str] = &["unsubscribe", "--broker", "plant", "--topic", "in/#"];
    let no_crossing: &[&str] = &["unsubscribe", "--broker", "plant", "--topic", "+/a"];
    stream(&broker, protocol, &daemon, &[&[wider], &[crossing], &[no_wider], &[no_crossing]]);
    daemon.wait_recorded("plant", &[("in/+", "granted")]);
    assert_eq!(daemon.metrics().connects("plant", "accepted"), 1.0);
    daemon.balance();
}

fn a_stream_goes_on_through_disconnects_by_command(protocol: Protocol) {
    let broker = Mosquitto::start();
    let daemon = start(&broker, protocol);
    daemon.wait_recorded("plant", &[("in/+", "granted")]);
    let again: &[&[&str]] = &[&["brokers", "disconnect", "plant"], &["brokers", "connect", "plant"]];
    stream(&broker, protocol, &daemon, &[again, again, again]);
    let metrics = daemon.balance();
    assert_eq!((metrics.connects("plant", "accepted"), metrics.disconnects("plant", "stopped")), (4.0, 3.0));
    // What was in hand was acknowledged before each end: nothing was left to the broker.
    assert_eq!(metrics.finished("plant", "returned"), 0.0);
}

fn a_reset_makes_the_broker_forget_what_it_had_queued(protocol: Protocol) {
    let broker = Mosquitto::start();
    let daemon = start(&broker, protocol);
    daemon.wait_recorded("plant", &[("in/+", "granted")]);
    let (publisher, collector) = (broker.client(protocol), collector(&broker, protocol));
    done(&daemon, &["brokers", "disconnect", "plant"]);
    publisher.publish(&Message::new("in/a", "queued"));
    done(&daemon, &["brokers", "connect", "plant"]);
    assert_eq!(collector.collect(1)[0].text(), "queued");

    done(&daemon, &["brokers", "disconnect", "plant"]);
    publisher.publish(&Message::new("in/a", "forgotten"));
    done(&daemon, &["brokers", "reset-session", "plant"]);
    done(&daemon, &["brokers", "connect", "plant"]);
    daemon.wait_recorded("plant", &[("in/+", "granted")]);
    done(&daemon, &["brokers", "reset-session", "plant"]);
    daemon.wait_recorded("plant", &[("in/+", "granted")]);
    publisher.publish(&Message::new("in/a", "after"));
    assert_eq!(collector.collect(1)[0].text(), "after");
    assert_eq!(daemon.metrics().sum("tidegate_broker_sessions_lost_total", &[("broker", "plant")]), 0.0);
}

/// A gateway that copies `up/#` from `plant` to `cloud`, with so many messages of `plant` open at the same time, and the subscriber
/// there.
struct Bridge {
    plant: Mosquitto,
    cloud: Mosquitto,
    collector: Client,
    daemon: Daemon,
}

impl Bridge {
    fn new(protocol: Protocol, open: usize) -> Bridge {
        let (plant, cloud) = (Mosquitto::start(), Mosquitto::persistent());
        let collector = Client::options(cloud.port(), protocol).session("collector").connect().expect("is let in");
        collector.subscribe("up/#", 1);
        let keys = "instances = 1\nallow = { publish = [\"cloud:up/#\"] }\nconfig = { broker = \"cloud\", topic = \"{topic}\" }";
        let config = Config::new()
            .broker("plant", plant.port(), protocol, &format!("receive-maximum = {open}"))
            .broker("cloud", cloud.port(), protocol, "")
            .handler("relay", "relay.wasm", keys)
            .subscription("plant", "up/#", 1, "relay", "");
        Bridge { daemon: Daemon::start(&config), plant, cloud, collector }
    }

    /// While the target is away these messages come, of which so many are taken in; it is disconnected by command, and comes back.
    fn disconnected_with(&mut self, messages: &[&str], taken_in: usize) {
        self.cloud.stop();
        self.daemon.wait_connected("cloud", false);
        let messages: Vec<_> = messages.iter().map(|text| Message::new("up/a", *text)).collect();
        self.plant.client(Protocol::V5).publish_all(&messages);
        self.daemon.wait_metrics("they wait for their broker", |metrics| {
            metrics.sum("tidegate_outbox_messages", &[("broker", "cloud")]) == taken_in as f64
        });
        done(&self.daemon, &["brokers", "disconnect", "cloud"]);
        self.cloud.restart();
        self.collector.reconnect();
        self.stays(taken_in);
    }

    /// Nothing leaves, and nothing more is taken in, for longer than the first waits between two attempts to connect.
    fn stays(&self, open: usize) {
        const LOOK: Duration = Duration::from_secs(1);
        let start = Instant::now();
        while start.elapsed() < LOOK {
            assert_eq!(self.collector.rest(), []);
            assert_eq!(self.daemon.broker("cloud")["state"], "disconnected");
            assert_eq!(self.daemon.metrics().in_progress("plant"), open as f64);
        }
    }

    /// All of them leave, in this order.
    fn arrive(&self, messages: &[&str]) {
        let came = self.collector.collect(messages.len());
        assert_eq!(came.iter().map(Message::text).collect::<Vec<_>>(), messages);
        self.daemon.wait_metrics("all are acknowledged", |metrics| metrics.in_progress("plant") == 0.0);
    }
}

fn what_waits_for_a_disconnected_broker_stays_until_a_command_or_a_new_publish(protocol: Protocol) {
    let mut bridge = Bridge::new(protocol, 64);
    bridge.disconnected_with(&["1", "2"], 2);
    done(&bridge.daemon, &["brokers", "connect", "cloud"]);
    bridge.arrive(&["1", "2"]);
    bridge.disconnected_with(&["3"], 1);
    bridge.plant.client(protocol).publish(&Message::new("up/a", "4"));
    bridge.arrive(&["3", "4"]);
    assert_eq!(bridge.daemon.settle("plant", 4).finished("plant", "handled"), 4.0);
}

/// What would connect the target by force stays with the source, whose window is full of what waits for the target.
#[test]
fn a_source_that_waits_for_a_disconnected_broker_goes_on_by_command() {
    let mut bridge = Bridge::new(Protocol::V5, 2);
    bridge.disconnected_with(&["1", "2", "3"], 2);
    done(&bridge.daemon, &["brokers", "connect", "cloud"]);
    bridge.arrive(&["1", "2", "3"]);
    assert_eq!(bridge.daemon.settle("plant", 3).finished("plant", "handled"), 3.0);
}

/// Of a message that several filters bring, one copy counts: a change that has nothing to do with it changes nothing there.
#[test]
fn a_change_of_other_topics_makes_no_message_run_twice() {
    let broker = Mosquitto::start();
    let config = Config::new().broker("plant", broker.port(), Protocol::V5, "client-id = \"gateway\"");
    let config = ["a/#", "a/b", "+/b"].into_iter().fold(config.guest("echo", "plant", ECHO, ""), |config, topic| {
        config.subscription("plant", topic, 1, "echo", "")
    });
    let daemon = Daemon::start(&config);
    let subscribed: &[(&str, &str)] = &[("+/b", "granted"), ("a/#", "granted")];
    daemon.wait_recorded("plant", subscribed);
    let publisher = broker.client(Protocol::V5);
    let mut sent = 0;
    let mut once = |after: &str| {
        publisher.publish(&Message::new("a/b", "x"));
        sent += 1;
        // Two filters on the wire, two copies.
        let metrics = daemon.settle("plant", 2 * sent);
        let ends = (metrics.calls("echo", "ok"), metrics.finished("plant", "copy"));
        assert_eq!(ends, (sent as f64, sent as f64), "after {after}");
    };
    once("the start");
    for number in 0..4 {
        let topic = format!("zz/{number}");
        done(&daemon, &["subscribe", "--broker", "plant", "--topic", &topic, "--qos", "1"]);
        once("another topic is subscribed");
        if number % 2 == 0 {
            done(&daemon, &["unsubscribe", "--broker", "plant", "--topic", &topic]);
            once("another topic is unsubscribed");
        }
        done(&daemon, &["brokers", "disconnect", "plant"]);
        done(&daemon, &["brokers", "connect", "plant"]);
        once("a reconnect");
    }
}

/// What was not wanted was not long in coming.
#[test]
fn the_time_that_nobody_wanted_a_connection_is_no_part_of_what_it_took() {
    const IDLE: u64 = 5;
    let broker = Mosquitto::start();
    let daemon = Daemon::start(&Config::new().broker("plant", broker.port(), Protocol::V5, "auto-connect = false"));
    let idle = |since: f64| {
        tidegate_tests::wait::until("time passes", || match daemon.json(&["status"])["uptime"].as_f64() {
            Some(uptime) if uptime >= since + IDLE as f64 => Ok(uptime),
            uptime => Err(format!("{uptime:?}")),
        })
    };
    let took = |count: usize| {
        let connected =
            || daemon.events().into_iter().filter(|event| event["message"] == "connected").collect::<Vec<_>>();
        let event = tidegate_tests::wait::until("it is said", || match &connected()[..] {
            all if all.len() == count => Ok(all[count - 1].clone()),
            others => Err(others.len()),
        });
        assert_eq!(event["attempts"], 1, "{event}");
        // Such as "1s 20ms".
        let parts = event["after"].as_str().expect("a duration").split(' ').map(str::to_owned).collect::<Vec<_>>();
        parts.iter().filter_map(|part| part.strip_suffix('s')?.parse::<u64>().ok()).sum::<u64>()
    };
    let uptime = idle(0.0);
    let since = Instant::now();
    done(&daemon, &["publish", "--broker", "plant", "--topic", "t", "--message", "x"]);
    let idle_apart = |took: u64, since: Instant| assert!(took <= since.elapsed().as_secs(), "{took} s");
    idle_apart(took(1), since);
    done(&daemon, &["brokers", "disconnect", "plant"]);
    idle(uptime);
    let since = Instant::now();
    done(&daemon, &["brokers", "connect", "plant"]);
    idle_apart(took(2), since);
}
