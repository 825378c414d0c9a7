//! An outbox on disk: what goes into it is safe there, whatever becomes of the daemon and of the broker that it is for.

use tidegate_tests::config::ECHO;
use tidegate_tests::metrics::Metrics;
use tidegate_tests::mosquitto::Options;
use tidegate_tests::numbered::{assert_order, collect_all, numbered};
use tidegate_tests::script::{Request, ScriptedBroker};
use tidegate_tests::{
    Client, Config, Daemon, Message, Mosquitto, Properties, Protocol, on_both_protocols, ports, wait,
};

on_both_protocols!(
    what_was_acknowledged_while_its_target_was_away_arrives_once_and_in_order,
    what_is_acknowledged_is_on_the_disk_when_the_daemon_is_killed,
    an_outbox_moves_to_the_disk_and_back_under_way,
    a_removed_brokers_messages_stay_until_it_is_there_again_or_they_are_purged,
    the_oldest_on_the_disk_make_way_for_newer_ones,
    what_is_too_old_goes_from_the_disk_as_from_memory,
    a_call_that_finds_no_room_on_the_disk_fails_where_that_is_configured,
    what_is_for_a_broker_in_memory_is_safe_before_anything_is_written,
    a_command_is_told_what_becomes_of_its_publish,
);

/// Messages that are sent at a time.
const SENT: usize = 20;

/// Not authorised (MQTT 5 §3.4.2.1).
const NOT_AUTHORISED: u8 = 0x87;

/// A source, and a target that keeps sessions; the target's subscriber, which is there before everything.
struct World {
    plant: Mosquitto,
    cloud: Mosquitto,
    collector: Client,
    protocol: Protocol,
}

impl World {
    fn new(protocol: Protocol) -> World {
        let (plant, cloud) = (Mosquitto::telling(), Mosquitto::persistent());
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
        let outbox = format!("outbox = {{ store = \"disk\", {outbox} }}");
        Config::new()
            .broker("plant", self.plant.port(), self.protocol, "receive-maximum = 100")
            .broker("cloud", self.cloud.port(), self.protocol, &outbox)
            .handler("relay", "relay.wasm", &keys)
            .subscription("plant", "up/#", 1, "relay", "")
    }

    /// The daemon with all of it added by command, and its outbox in memory.
    fn added(&self) -> Daemon {
        let daemon = Daemon::launch(&Config::new());
        self.add_cloud(&daemon, "memory");
        let (port, protocol) = (self.plant.port().to_string(), self.protocol.to_string());
        let plant = ["brokers", "add", "plant", "--address", "127.0.0.1", "--auto-connect"];
        daemon.done(&[&plant[..], &["--port", &port, "--protocol", &protocol]].concat());
        daemon.home().plugin("relay.wasm");
        let relay =
            ["handlers", "add", "relay", "--plugin", "relay.wasm", "--instances", "1", "--call-deadline", "20s"];
        let keys = ["--allow-publish", "cloud:up/#", "--config", "broker=cloud", "--config", "topic={topic}"];
        daemon.done(&[&relay[..], &keys].concat());
        daemon.done(&["subscribe", "--broker", "plant", "--topic", "up/#", "--qos", "1", "--on-message", "relay"]);
        daemon.wait_granted("plant:up/#");
        daemon
    }

    fn add_cloud(&self, daemon: &Daemon, store: &str) {
        let (port, protocol) = (self.cloud.port().to_string(), self.protocol.to_string());
        let cloud = ["brokers", "add", "cloud", "--address", "127.0.0.1", "--auto-connect", "--outbox-store", store];
        daemon.done(&[&cloud[..], &["--port", &port, "--protocol", &protocol]].concat());
    }

    /// Starts the daemon while the target is away.
    fn away(&mut self, outbox: &str, handler: &str) -> Daemon {
        self.cloud.stop();
        let daemon = Daemon::launch(&self.config(outbox, handler));
        daemon.wait_broker("plant");
        daemon
    }

    fn send(&self, numbers: std::ops::Range<usize>) {
        let sent: Vec<_> = numbers.map(|n| Message::new("up/a", format!("{n}"))).collect();
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

/// The line of `outbox list` for `cloud`.
fn listed(daemon: &Daemon) -> serde_json::Value {
    let list = daemon.json(&["outbox", "list"]);
    let mut all = list.as_array().expect("a list").iter();
    all.find(|outbox| outbox["broker"] == "cloud").cloned().unwrap_or_default()
}

/// Waits until so much waits on the disk for `cloud`, and nothing is unacknowledged.
fn wait_kept(daemon: &Daemon, messages: usize) -> Metrics {
    daemon.wait_metrics("all is on the disk and acknowledged", |metrics| {
        outbox(metrics, "messages") == messages as f64 && metrics.in_progress("plant") == 0.0
    })
}

fn what_was_acknowledged_while_its_target_was_away_arrives_once_and_in_order(protocol: Protocol) {
    let mut world = World::new(protocol);
    let mut daemon = world.away("max-messages = 1000", "");
    let properties = Properties { user: vec![("line".to_owned(), "7".to_owned())], ..Properties::default() };
    let retained = Message { retain: true, ..Message::new("up/kept", "retained") };
    world.plant.client(protocol).publish_all(&[retained.with(properties.clone())]);
    wait_kept(&daemon, 1);
    world.send(0..SENT);
    let metrics = wait_kept(&daemon, SENT + 1);
    assert_eq!(metrics.finished("plant", "handled"), SENT as f64 + 1.0);
    daemon.terminate();
    let left = daemon.log_lines(&["unacknowledged"]);
    assert!(left.is_empty(), "a stop does not wait for a broker that is away: {left:?}");
    daemon.launch_again();
    daemon.wait_broker("plant");
    world.send(SENT..2 * SENT);
    wait_kept(&daemon, 2 * SENT + 1);
    world.plant.wait_acknowledged();
    daemon.kill();
    daemon.launch_again();
    daemon.wait_broker("plant");
    wait_kept(&daemon, 2 * SENT + 1);
    assert_eq!(listed(&daemon)["on-disk"]["messages"], 2 * SENT as u64 + 1);
    world.back();
    let first = world.collector.collect(1).remove(0);
    assert_eq!((&*first.topic, first.qos), ("up/kept", 1));
    if protocol == Protocol::V5 {
        assert!(first.properties.user.contains(&("line".to_owned(), "7".to_owned())), "{first:?}");
    }
    world.gets(0..2 * SENT);
    wait_kept(&daemon, 0);
    daemon.terminate();
    daemon.launch_again();
    daemon.wait_broker("cloud");
    world.gets([]);
}

fn what_is_acknowledged_is_on_the_disk_when_the_daemon_is_killed(protocol: Protocol) {
    const TOPICS: usize = 4;
    const COUNT: usize = 400;
    const KILLS: usize = 3;
    let (plant, cloud_port) = (Mosquitto::start(), ports::free());
    let config = Config::new()
        .broker("plant", plant.port(), protocol, "client-id = \"gateway\"")
        .broker("cloud", cloud_port, protocol, "outbox.store = \"disk\"")
        .handler(
            "relay",
            "relay.wasm",
            "allow = { publish = [\"cloud:out/#\"] }\nconfig = { broker = \"cloud\", topic = \"out/{topic}\" }",
        )
        .subscription("plant", "in/#", 1, "relay", "");
    let mut daemon = Daemon::launch(&config);
    daemon.wait_broker("plant");
    let messages = numbered(COUNT, TOPICS);
    let publisher = plant.client(protocol);
    for part in messages.chunks(COUNT.div_ceil(KILLS)) {
        publisher.publish_all(part);
        daemon.wait_metrics("some are acknowledged", |metrics| metrics.finished("plant", "handled") > 20.0);
        daemon.kill();
        daemon.launch_again();
        daemon.wait_broker("plant");
    }
    daemon.wait_metrics("the rest is acknowledged too", |metrics| {
        outbox(metrics, "messages") > 0.0 && metrics.in_progress("plant") == 0.0
    });
    // Nothing is published to it before the collector is there.
    daemon.kill();
    let cloud = Mosquitto::on(cloud_port, Options::default());
    let collector = Client::connect(cloud.port(), protocol);
    collector.subscribe("out/#", 1);
    daemon.launch_again();
    let mut came = Vec::new();
    collect_all(&collector, &messages, &mut came);
    assert_order(&came);
    daemon.wait_metrics("nothing is left", |metrics| outbox(metrics, "messages") == 0.0);
    daemon.balance();
}

fn an_outbox_moves_to_the_disk_and_back_under_way(protocol: Protocol) {
    let mut world = World::new(protocol);
    let mut daemon = world.added();
    world.cloud.stop();
    world.send(0..SENT);
    let open = |metrics: &Metrics| metrics.in_progress("plant") == SENT as f64;
    daemon.wait_metrics("all of it waits in memory, unacknowledged", open);
    daemon.done(&["brokers", "set", "cloud", "--outbox-store", "disk"]);
    wait_kept(&daemon, SENT);
    world.plant.wait_acknowledged();
    daemon.kill();
    daemon.launch_again();
    daemon.wait_broker("plant");
    world.send(SENT..2 * SENT);
    wait_kept(&daemon, 2 * SENT);

    daemon.done(&["brokers", "set", "cloud", "--outbox-store", "memory"]);
    world.send(2 * SENT..3 * SENT);
    wait_kept(&daemon, 3 * SENT);
    let shown = listed(&daemon);
    assert_eq!((&shown["store"], &shown["draining"]), (&"memory".into(), &true.into()), "{shown}");
    world.plant.wait_acknowledged();
    daemon.kill();
    daemon.launch_again();
    wait_kept(&daemon, 3 * SENT);
    world.back();
    world.gets(0..3 * SENT);
    wait_kept(&daemon, 0);
    wait::until_true("nothing of it is on the disk", || listed(&daemon)["draining"] == false);
    world.cloud.stop();
    world.send(0..SENT);
    daemon.wait_metrics("all of it waits in memory again", open);
    assert_eq!(listed(&daemon)["on-disk"]["messages"], 0);
}

fn a_removed_brokers_messages_stay_until_it_is_there_again_or_they_are_purged(protocol: Protocol) {
    let mut world = World::new(protocol);
    let mut daemon = world.added();
    daemon.done(&["brokers", "set", "cloud", "--outbox-store", "disk"]);
    world.cloud.stop();
    world.send(0..3);
    wait_kept(&daemon, 3);
    assert_eq!(daemon.done(&["outbox", "purge", "cloud"]).trim_end(), "3 messages to broker cloud are dropped");
    assert_eq!(listed(&daemon)["messages"], 0);
    world.send(0..SENT);
    wait_kept(&daemon, SENT);
    daemon.done(&["unsubscribe", "--broker", "plant", "--topic", "up/#"]);
    daemon.done(&["handlers", "remove", "relay"]);
    daemon.done(&["brokers", "remove", "cloud"]);
    let shown = listed(&daemon);
    assert_eq!((&shown["configured"], &shown["messages"]), (&false.into(), &(SENT as u64).into()), "{shown}");
    daemon.kill();
    daemon.launch_again();
    daemon.wait_event("publishes on the disk are for a broker that is not configured", &[("broker", "cloud")]);
    assert_eq!(listed(&daemon)["configured"], false);
    world.back();
    world.add_cloud(&daemon, "disk");
    world.gets(0..SENT);
    daemon.wait_metrics("nothing is left", |metrics| outbox(metrics, "messages") == 0.0);
}

fn the_oldest_on_the_disk_make_way_for_newer_ones(protocol: Protocol) {
    let mut world = World::new(protocol);
    let mut daemon = world.away("max-messages = 5, when-full = \"drop-oldest\"", "");
    world.send(0..SENT);
    daemon.settle("plant", SENT);
    let metrics = wait_kept(&daemon, 5);
    let counted = [("broker", "cloud"), ("reason", "displaced")];
    assert_eq!(metrics.sum("tidegate_outbox_dropped_total", &counted), SENT as f64 - 5.0);
    assert_eq!(metrics.finished("plant", "handled"), SENT as f64, "each was safe before it made way");
    daemon.terminate();
    daemon.launch_again();
    daemon.wait_broker("plant");
    world.send(SENT..SENT + 2);
    daemon.wait_metrics("they are in", |metrics| metrics.finished("plant", "handled") == 2.0);
    world.back();
    world.gets(SENT - 3..SENT + 2);
}

fn what_is_too_old_goes_from_the_disk_as_from_memory(protocol: Protocol) {
    let mut world = World::new(protocol);
    let mut daemon = world.away("max-age = \"365d\"", "");
    world.send(0..SENT);
    wait_kept(&daemon, SENT);
    daemon.terminate();
    daemon.launch_again_with(&world.config("max-age = \"500ms\"", ""));
    let gone = daemon.wait_metrics("all of it is too old", |metrics| outbox(metrics, "messages") == 0.0);
    let counted = [("broker", "cloud"), ("reason", "expired")];
    assert_eq!(gone.sum("tidegate_outbox_dropped_total", &counted), SENT as f64);
    daemon.terminate();
    daemon.launch_again();
    world.back();
    daemon.wait_broker("cloud");
    world.gets([]);
}

fn a_call_that_finds_no_room_on_the_disk_fails_where_that_is_configured(protocol: Protocol) {
    let mut world = World::new(protocol);
    let retry = "retry = { max = 1000, backoff = \"10ms..50ms\", max-time = \"1m\" }";
    let daemon = world.away("max-messages = 5, when-full = \"reject\"", retry);
    world.send(0..SENT);
    let metrics = daemon.wait_metrics("the outbox is full, and calls are rejected again and again", |metrics| {
        let kept = outbox(metrics, "messages") == 5.0 && metrics.finished("plant", "handled") >= 5.0;
        kept && metrics.calls("relay", "retry") > 2.0
    });
    assert_eq!(metrics.finished("plant", "handled"), 5.0);
    world.back();
    world.gets(0..SENT);
}

/// One call publishes to both: to the source's own broker, whose outbox is in memory, and to one whose outbox is on disk.
fn what_is_for_a_broker_in_memory_is_safe_before_anything_is_written(protocol: Protocol) {
    let (plant, cloud) = (ScriptedBroker::listen(protocol), Mosquitto::start());
    let config = Config::new()
        .broker("plant", plant.port(), protocol, "")
        .broker("cloud", cloud.port(), protocol, "outbox.store = \"disk\"")
        .handler(
            "guest",
            "misbehave.wasm",
            &format!(
                "instances = 1\nallow = {{ publish = [\"plant:out/#\", \"cloud:out/#\"] }}\n[handlers.guest.config]\n\
                 {ECHO}\nalso = \"cloud\""
            ),
        )
        .subscription("plant", "in/#", 1, "guest", "");
    let mut daemon = Daemon::launch(&config);
    daemon.wait_broker("cloud");
    let collector = cloud.client(protocol);
    collector.subscribe("out/#", 1);
    let publish_both = |again: bool| {
        let mut peer = plant.accept(again);
        if !again || protocol == Protocol::V5 {
            peer.grant();
        }
        let message = Message::new("in/a", "both");
        if again {
            peer.publish_again(1, &message)
        } else {
            peer.publish(1, &message)
        }
        let Request::Publish(echo, id) = peer.request() else { panic!("only a publish is expected") };
        assert_eq!(echo.topic, "out/in/a");
        (peer, id)
    };
    let (peer, _) = publish_both(false);
    assert_eq!(collector.rest(), [], "the other is not safe yet");
    assert_eq!(outbox(&daemon.metrics(), "messages"), 1.0, "its room is taken");
    daemon.kill();
    drop(peer);
    daemon.launch_again();
    daemon.wait_broker("cloud");
    assert_eq!(outbox(&daemon.metrics(), "messages"), 0.0, "nothing was written");
    let (mut peer, id) = publish_both(true);
    assert_eq!(collector.rest(), [], "the other is not safe yet");
    peer.acknowledge(id);
    assert_eq!(collector.collect(1)[0].text(), "both");
    assert_eq!(peer.request(), Request::PubAck(1));
}

fn a_command_is_told_what_becomes_of_its_publish(protocol: Protocol) {
    let world = World::new(protocol);
    let daemon = Daemon::start(&world.config("max-messages = 9", ""));
    let words = ["publish", "--broker", "cloud", "--topic", "up/a", "--qos", "1", "--message", "told"];
    daemon.done(&words);
    assert_eq!(world.collector.collect(1)[0].text(), "told");
    assert_eq!(outbox(&daemon.metrics(), "messages"), 0.0, "the command waited for the broker, not for the disk");
}

#[test]
fn a_publish_from_the_disk_that_is_refused_is_kept_as_a_dead_letter() {
    let (plant, cloud) = (Mosquitto::start(), ScriptedBroker::listen(Protocol::V5));
    let keys = "allow = { publish = [\"cloud:up/#\"] }\nconfig = { broker = \"cloud\", topic = \"up/{topic}\" }";
    let config = Config::new()
        .broker("plant", plant.port(), Protocol::V5, "")
        .broker("cloud", cloud.port(), Protocol::V5, "outbox.store = \"disk\"")
        .handler("relay", "relay.wasm", keys)
        .subscription("plant", "in/#", 1, "relay", "");
    let mut daemon = Daemon::launch(&config);
    daemon.wait_broker("plant");
    let mut peer = cloud.accept(false);
    plant.client(Protocol::V5).publish_all(&[Message::new("in/a", "no"), Message::new("in/a", "yes")]);
    for refused in [true, false] {
        let Request::Publish(message, id) = peer.request() else { panic!("only publishes are expected") };
        assert_eq!(message.text(), if refused { "no" } else { "yes" });
        if refused { peer.refuse(id, NOT_AUTHORISED) } else { peer.acknowledge(id) }
    }
    let metrics = daemon.wait_metrics("both are over", |metrics| outbox(metrics, "messages") == 0.0);
    assert_eq!(metrics.finished("plant", "handled"), 2.0, "they were safe");
    // What is on its way to the disk has its room already.
    wait::until("it is kept", || match daemon.json(&["dead-letters", "list"])["dead-letters"].as_array() {
        Some(letters) if letters.len() == 1 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let list = |daemon: &Daemon| {
        let listed = daemon.json(&["dead-letters", "list"]);
        let letters = listed["dead-letters"].as_array().unwrap_or_else(|| panic!("{listed}")).clone();
        let [letter] = &letters[..] else { panic!("{listed}") };
        let told = ["kind", "handler", "broker", "topic", "reason"]
            .map(|key| letter[key].as_str().unwrap_or_default().to_owned());
        assert_eq!(told, ["publish", "relay", "cloud", "up/in/a", "publish_refused"], "{letter}");
    };
    list(&daemon);
    daemon.terminate();
    drop(peer);
    daemon.launch_again();
    list(&daemon);
    assert_eq!(listed(&daemon)["messages"], 0);
}
