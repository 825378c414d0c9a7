//! What each broker's outbox may hold: what happens when it is full, how long something may wait in it, and that its limits
//! change under running traffic.

use tidegate_tests::metrics::Metrics;
use tidegate_tests::operator::freeze;
use tidegate_tests::process::Process;
use tidegate_tests::script::{Limits, Peer, Request, ScriptedBroker};
use tidegate_tests::wait::PATIENCE;
use tidegate_tests::{Client, Config, Daemon, Home, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(
    calls_wait_while_the_outbox_is_full,
    the_oldest_publishes_make_way_for_newer_ones,
    a_call_that_is_rejected_is_made_again_until_there_is_room,
    a_rejected_call_ends_as_failed_where_it_is_not_retried,
    what_is_too_old_goes_while_its_broker_is_away,
);

/// Messages that an outbox takes here.
const MOST: usize = 5;

/// Messages that are sent.
const SENT: usize = 20;

/// A source, and a target that keeps sessions; the target's subscriber, which is there before everything.
struct World {
    plant: Mosquitto,
    cloud: Mosquitto,
    collector: Client,
    protocol: Protocol,
}

impl World {
    fn new(protocol: Protocol) -> World {
        let (plant, cloud) = (Mosquitto::start(), Mosquitto::persistent());
        let collector = Client::options(cloud.port(), protocol).session("collector").connect().expect("is let in");
        collector.subscribe("up/#", 1);
        World { plant, cloud, collector, protocol }
    }

    /// Copies `up/#` from `plant` to `cloud`, one call at a time.
    fn config(&self, outbox: &str, handler: &str) -> Config {
        let keys = format!(
            "instances = 1\nmax-publishes = 1\n{handler}\nallow = {{ publish = [\"cloud:up/#\"] }}\n\
             config = {{ broker = \"cloud\", topic = \"{{topic}}\" }}"
        );
        let outbox = format!("outbox = {{ max-messages = {MOST}, {outbox} }}");
        Config::new()
            .broker("plant", self.plant.port(), self.protocol, "receive-maximum = 100")
            .broker("cloud", self.cloud.port(), self.protocol, &outbox)
            .handler("relay", "relay.wasm", &keys)
            .subscription("plant", "up/#", 1, "relay", "")
    }

    /// Starts the daemon while the target is away.
    fn away(&mut self, outbox: &str, handler: &str) -> Daemon {
        self.cloud.stop();
        let daemon = Daemon::launch(&self.config(outbox, handler));
        daemon.wait_broker("plant");
        daemon
    }

    fn send(&self) {
        let sent: Vec<_> = (0..SENT).map(|n| Message::new("up/a", format!("{n}"))).collect();
        self.plant.client(self.protocol).publish_all(&sent);
    }

    /// The target comes back, and with it its subscriber.
    fn back(&mut self) {
        self.cloud.restart();
        self.collector.reconnect();
    }

    /// What the target's subscriber gets: these numbers, each once and in order, and nothing else.
    #[track_caller]
    fn gets(&self, numbers: impl IntoIterator<Item = usize>) {
        let expected: Vec<String> = numbers.into_iter().map(|number| number.to_string()).collect();
        let came = self.collector.collect(expected.len());
        assert_eq!(came.iter().map(Message::text).collect::<Vec<_>>(), expected);
        assert_eq!(self.collector.rest(), []);
    }
}

fn outbox(metrics: &Metrics, family: &str) -> f64 {
    metrics.sum(&format!("tidegate_outbox_{family}"), &[("broker", "cloud")])
}

fn dropped(metrics: &Metrics, reason: &str) -> f64 {
    metrics.sum("tidegate_outbox_dropped_total", &[("broker", "cloud"), ("reason", reason)])
}

fn calls_wait_while_the_outbox_is_full(protocol: Protocol) {
    let mut world = World::new(protocol);
    let daemon = world.away("when-full = \"block\"", "");
    world.send();
    let waits =
        |metrics: &Metrics| outbox(metrics, "waiting_calls") == 1.0 && outbox(metrics, "messages") == MOST as f64;
    let metrics = daemon.wait_metrics("the outbox is full and a call waits", waits);
    assert_eq!((outbox(&metrics, "max_messages"), outbox(&metrics, "max_bytes")), (MOST as f64, (64 << 20) as f64));
    assert_eq!(metrics.calls("relay", "ok"), MOST as f64 + 1.0, "those in the outbox and the one that waits");
    let said = daemon.wait_event(
        "the outbox is full: calls that publish to this broker wait for room",
        &[("broker", "cloud"), ("limit", "max-messages = 5")],
    );
    assert_eq!(said["level"], "WARN");
    let shown = daemon.broker("cloud");
    assert_eq!((&shown["outbox"]["messages"], &shown["outbox"]["waiting"]), (&5.into(), &1.into()), "{shown}");
    assert!(daemon.done(&["brokers", "list"]).contains("5 of 5"));

    world.back();
    world.gets(0..SENT);
    let metrics = daemon.settle("plant", SENT);
    assert_eq!(metrics.finished("plant", "handled"), SENT as f64);
    assert_eq!((outbox(&metrics, "waiting_calls"), outbox(&metrics, "messages")), (0.0, 0.0));
}

fn the_oldest_publishes_make_way_for_newer_ones(protocol: Protocol) {
    let mut world = World::new(protocol);
    let daemon = world.away("when-full = \"drop-oldest\"", "");
    world.send();
    let metrics = daemon.wait_metrics("all but the newest made way", |metrics| {
        metrics.finished("plant", "dropped_outbox_full") == (SENT - MOST) as f64
    });
    assert_eq!((dropped(&metrics, "displaced"), outbox(&metrics, "messages")), ((SENT - MOST) as f64, MOST as f64));
    assert_eq!(metrics.in_progress("plant"), MOST as f64);
    daemon.wait_event(
        "the outbox is full: its oldest publishes are dropped for newer ones",
        &[("broker", "cloud"), ("limit", "max-messages = 5")],
    );
    world.back();
    world.gets(SENT - MOST..SENT);
    assert_eq!(daemon.settle("plant", SENT).finished("plant", "handled"), MOST as f64);
}

fn a_call_that_is_rejected_is_made_again_until_there_is_room(protocol: Protocol) {
    let mut world = World::new(protocol);
    let retry = "retry = { max = 1000, backoff = \"10ms..50ms\", max-time = \"1m\" }";
    let daemon = world.away("when-full = \"reject\"", retry);
    world.send();
    let metrics = daemon.wait_metrics("calls fail for want of room", |metrics| metrics.calls("relay", "retry") > 2.0);
    assert_eq!(metrics.calls("relay", "ok"), MOST as f64);
    assert_eq!((outbox(&metrics, "messages"), outbox(&metrics, "waiting_calls")), (MOST as f64, 0.0));
    world.back();
    world.gets(0..SENT);
    let metrics = daemon.settle("plant", SENT);
    assert_eq!((metrics.finished("plant", "handled"), metrics.calls("relay", "ok")), (SENT as f64, SENT as f64));
}

fn a_rejected_call_ends_as_failed_where_it_is_not_retried(protocol: Protocol) {
    let world = World::new(protocol);
    let daemon = Daemon::start(&world.config("when-full = \"reject\"", "retry = { max = 0 }"));
    freeze(world.cloud.id(), true);
    world.send();
    let metrics = daemon.wait_metrics("what finds no room has failed", |metrics| {
        metrics.finished("plant", "dead_letter") == (SENT - MOST) as f64
    });
    assert_eq!(metrics.calls("relay", "ok"), MOST as f64);
    assert_eq!(metrics.calls("relay", "retry"), (SENT - MOST) as f64, "one call, one result");
    let sentence = "the outbox of cloud is full (brokers.cloud.outbox: max-messages = 5, when-full = \"reject\")";
    let shown = daemon.json(&["handlers", "list", "relay"]);
    let failure = shown["last-failure"]["error"].as_str().expect("there is one");
    assert!(failure.ends_with(sentence), "{failure}");
    daemon.wait_event(
        "the outbox is full: calls that publish to this broker fail, and are retried",
        &[("broker", "cloud"), ("limit", "max-messages = 5")],
    );
    let refused = daemon.refused(&["publish", "--broker", "cloud", "--topic", "up/b", "--message", "x", "--qos", "1"]);
    assert!(refused.contains(sentence) && refused.contains("when-full = \"block\""), "{refused}");
    freeze(world.cloud.id(), false);
    world.gets(0..MOST);
    daemon.settle("plant", SENT);
    daemon.done(&["publish", "--broker", "cloud", "--topic", "up/b", "--message", "x", "--qos", "1"]);
}

fn what_is_too_old_goes_while_its_broker_is_away(protocol: Protocol) {
    let mut world = World::new(protocol);
    let mut daemon = world.away("max-age = \"6s\"", "");
    world.send();
    let metrics = daemon.settle("plant", SENT);
    assert_eq!(metrics.finished("plant", "dropped_expired"), SENT as f64);
    assert_eq!((dropped(&metrics, "expired"), outbox(&metrics, "messages")), (SENT as f64, 0.0));
    daemon.wait_event(
        "publishes are dropped: they were in the outbox for longer than max-age",
        &[("broker", "cloud"), ("limit", "max-age = \"6s\"")],
    );
    world.back();
    daemon.wait_connected("cloud", true);
    world.plant.client(protocol).publish(&Message::new("up/a", "99"));
    world.gets([99]);
    daemon.settle("plant", SENT + 1);
    // They were acknowledged: a new connection of the session brings none of them again.
    daemon.terminate();
    daemon.restart();
    world.plant.client(protocol).publish(&Message::new("up/a", "100"));
    world.gets([100]);
    daemon.settle("plant", 1);
}

/// A broker that lets one publish be on its way, and does not acknowledge it before it is told to.
struct Slow {
    daemon: Daemon,
    peer: Peer,
    first: Process,
    id: u16,
}

impl Slow {
    fn new(outbox: &str) -> Slow {
        let broker = ScriptedBroker::listen(Protocol::V5);
        let keys = format!("outbox = {{ {outbox} }}");
        let daemon = Daemon::launch(&Config::new().broker("cloud", broker.port(), Protocol::V5, &keys));
        let mut peer = broker.accept_with(false, &Limits { receive_maximum: Some(1), ..Limits::default() });
        let first = publish(&daemon, "first");
        let Request::Publish(_, id) = peer.request() else { panic!("the first comes") };
        Slow { daemon, peer, first, id }
    }

    /// What is on its way is neither too old nor in the way.
    fn first_is_through(mut self) {
        assert!(self.first.ended().is_none(), "{:?}", self.first.lines());
        self.peer.acknowledge(self.id);
        assert_eq!(self.first.wait(PATIENCE).code(), Some(0), "{:?}", self.first.lines());
    }
}

fn publish(daemon: &Daemon, text: &str) -> Process {
    daemon.begin(&["publish", "--broker", "cloud", "--topic", "t", "--qos", "1", "--message", text])
}

#[track_caller]
fn is_told(mut command: Process, reason: &str) {
    assert_eq!(command.wait(PATIENCE).code(), Some(4));
    let said = command.lines().join("\n");
    assert!(said.contains(&format!("the message to the broker cloud is dropped: {reason}")), "{said}");
}

#[test]
fn a_command_is_told_that_its_message_made_way() {
    let slow = Slow::new("max-messages = 2, when-full = \"drop-oldest\"");
    let second = publish(&slow.daemon, "second");
    slow.daemon.wait_metrics("the second waits", |metrics| outbox(metrics, "messages") == 2.0);
    let _third = publish(&slow.daemon, "third");
    is_told(second, "the outbox is full, and it made way for a newer one");
    assert_eq!(dropped(&slow.daemon.metrics(), "displaced"), 1.0);
    slow.first_is_through();
}

#[test]
fn a_command_is_told_that_its_message_was_too_old() {
    let slow = Slow::new("max-age = \"3s\"");
    let second = publish(&slow.daemon, "second");
    is_told(second, "it was in the outbox for longer than max-age");
    assert_eq!(dropped(&slow.daemon.metrics(), "expired"), 1.0);
    slow.first_is_through();
}

/// The daemon has nothing but what commands gave it.
#[test]
fn limits_change_by_command_without_a_new_connection() {
    let world = World::new(Protocol::V5);
    let daemon = Daemon::start(&Config::new());
    daemon.home().plugin("relay.wasm");
    let (plant, cloud) = (world.plant.port().to_string(), world.cloud.port().to_string());
    daemon.done(&["brokers", "add", "plant", "--address", "127.0.0.1", "--port", &plant, "--auto-connect"]);
    daemon.done(&[
        "brokers",
        "add",
        "cloud",
        "--address",
        "127.0.0.1",
        "--port",
        &cloud,
        "--auto-connect",
        "--outbox-max-messages",
        "5",
    ]);
    daemon.done(&[
        "handlers",
        "add",
        "relay",
        "--plugin",
        "relay.wasm",
        "--instances",
        "1",
        "--max-publishes",
        "1",
        "--allow-publish",
        "cloud:up/#",
        "--config",
        "broker=cloud",
        "--config",
        "topic={topic}",
    ]);
    daemon.wait_connected("cloud", true);
    daemon.done(&["subscribe", "--broker", "plant", "--topic", "up/#", "--qos", "1", "--on-message", "relay"]);
    freeze(world.cloud.id(), true);
    world.send();
    let holds = |count: f64| {
        move |metrics: &Metrics| outbox(metrics, "messages") == count && outbox(metrics, "waiting_calls") == 1.0
    };
    daemon.wait_metrics("the outbox holds as many as it may", holds(5.0));
    daemon.done(&["brokers", "set", "cloud", "--outbox-max-messages", "10"]);
    daemon.wait_metrics("and more once it may", holds(10.0));
    let lower = [
        "brokers",
        "set",
        "cloud",
        "--outbox-max-messages",
        "3",
        "--outbox-max-bytes",
        "2MiB",
        "--outbox-max-age",
        "1h",
    ];
    daemon.done(&lower);
    let metrics = daemon.metrics();
    assert_eq!((outbox(&metrics, "messages"), outbox(&metrics, "max_messages")), (10.0, 3.0), "nothing is dropped");
    let shown = daemon.broker("cloud");
    let limits =
        ["store", "max-messages", "max-bytes", "max-age", "when-full"].map(|key| shown["outbox"][key].to_string());
    assert_eq!(limits, ["\"memory\"", "3", "\"2MiB\"", "\"1h\"", "\"block\""], "{shown}");
    let said = daemon.refused(&["handlers", "set", "relay", "--max-publishes", "4"]);
    assert!(said.contains("one call may publish more than the outbox of cloud holds"), "{said}");

    freeze(world.cloud.id(), false);
    world.gets(0..SENT);
    let metrics = daemon.settle("plant", SENT);
    assert_eq!((metrics.connects("cloud", "accepted"), metrics.connects("plant", "accepted")), (1.0, 1.0));
    assert_eq!(outbox(&metrics, "dropped_total"), 0.0);
}

#[test]
fn an_outbox_that_holds_less_than_a_call_may_publish_is_refused_at_both_places() {
    let check = |outbox: &str, handler: &str| {
        let home = Home::empty();
        home.plugin("relay.wasm");
        home.write(
            "tidegate.toml",
            format!(
                "plugins-dir = \"plugins\"\n[brokers.cloud]\naddress = \"a\"\n{outbox}\n[handlers.relay]\nplugin = \"relay.wasm\"\n\
                 {handler}\ndead-letter = {{ broker = \"cloud\", topic = \"dead\" }}\nallow = {{ publish = [\"cloud:up/#\"] }}\nconfig = {{ broker = \"cloud\", topic = \"up\" }}\n\
                 [[subscriptions]]\nbroker = \"cloud\"\ntopic = \"t\"\non-message = \"relay\"\n"
            ),
        );
        let ran = home.run(&["check"]);
        (ran.code, ran.stderr)
    };
    let (code, said) = check("outbox = { max-messages = 5 }", "max-publishes = 6");
    let beginning = "tidegate.toml:7:17: handlers.relay.max-publishes = 6: one call may publish more than the outbox of cloud \
                     holds: brokers.cloud.outbox.max-messages = 5 at tidegate.toml:4:27; use 5 or less";
    assert!(code == Some(1) && said.lines().any(|line| line.starts_with(beginning)), "{said}");
    let (code, said) = check("outbox = { max-bytes = \"1KiB\" }", "");
    let beginning =
        "tidegate.toml:4:24: brokers.cloud.outbox.max-bytes = \"1KiB\": holds less than one call of relay may publish";
    assert!(code == Some(1) && said.lines().any(|line| line.starts_with(beginning)), "{said}");
    assert_eq!(check("outbox = { max-messages = 6 }", "max-publishes = 6").0, Some(0));
}
