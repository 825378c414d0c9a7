//! A target that stops: its outbox fills, handlers wait, and the source keeps what it cannot hand over. The source's
//! connection does not suffer.

use std::time::{Duration, Instant};

use tidegate_tests::metrics::Metrics;
use tidegate_tests::numbered::assert_order;
use tidegate_tests::operator::freeze;
use tidegate_tests::{Client, Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols, ports, wait};

on_both_protocols!(
    a_target_that_stops_withholds_the_acknowledgements_of_its_source,
    messages_with_qos_0_are_dropped_by_the_overload_policy,
);

/// Messages that the source's broker may have unacknowledged: also the limit of mosquitto, for 3.1.1.
const WINDOW: usize = 20;

/// Messages that the outbox takes.
const OUTBOX: usize = 5;

/// Copies `up/#` from `plant` to `cloud`, one call at a time.
fn gateway(plant: u16, cloud: u16, protocol: Protocol) -> Config {
    let source = format!("keep-alive = 30\nreceive-maximum = {WINDOW}");
    let keys = "instances = 1\nqueue = 10\nmax-publishes = 1\nallow = { publish = [\"cloud:up/#\"] }\n\
                config = { broker = \"cloud\", topic = \"{topic}\" }";
    Config::new()
        .broker("plant", plant, protocol, &source)
        .broker("cloud", cloud, protocol, &format!("outbox = {{ max-messages = {OUTBOX} }}"))
        .handler("relay", "relay.wasm", keys)
        .subscription("plant", "up/#", 1, "relay", "")
}

/// A gateway between two brokers, of which the target does not go on; what was published to the source meanwhile.
struct Stopped {
    daemon: Daemon,
    plant: Mosquitto,
    cloud: Mosquitto,
    collector: Client,
    sent: Vec<Message>,
}

impl Stopped {
    fn begin(protocol: Protocol) -> Stopped {
        let (plant, cloud) = (Mosquitto::start(), Mosquitto::start());
        let collector = cloud.client(protocol);
        collector.subscribe("up/#", 1);
        let daemon = Daemon::start(&gateway(plant.port(), cloud.port(), protocol));
        freeze(cloud.id(), true);
        let sent: Vec<_> = (0..200).map(|n| Message::new(format!("up/{}", n % 4), format!("{}", n / 4))).collect();
        plant.client(protocol).publish_all(&sent);
        let stopped = Stopped { daemon, plant, cloud, collector, sent };
        stopped.wait_full();
        stopped
    }

    /// As many are taken in as the source may have unacknowledged: in the outbox, in a call that waits, in the queue.
    fn wait_full(&self) -> Metrics {
        self.daemon.wait_metrics(
            "the outbox is full, a call waits, and the source waits for acknowledgements",
            |metrics| {
                metrics.sum("tidegate_outbox_messages", &[("broker", "cloud")]) == OUTBOX as f64
                    && metrics.sum("tidegate_outbox_waiting_calls", &[("broker", "cloud")]) == 1.0
                    && metrics.in_progress("plant") == WINDOW as f64
                    && metrics.finished_all("plant") == 0.0
            },
        )
    }

    fn source_stood(&self) {
        let metrics = self.daemon.metrics();
        assert_eq!(metrics.sum("tidegate_broker_connected", &[("broker", "plant")]), 1.0);
        assert_eq!(metrics.sum("tidegate_broker_disconnects_total", &[("broker", "plant")]), 0.0);
        assert_eq!(metrics.connects("plant", "accepted"), 1.0);
        let lost = |line: &String| line.contains("exceeded timeout");
        assert!(!self.plant.log_until_now().iter().any(lost), "the source's broker heard of it in time");
    }
}

fn a_target_that_stops_withholds_the_acknowledgements_of_its_source(protocol: Protocol) {
    let stopped = Stopped::begin(protocol);
    freeze(stopped.cloud.id(), false);
    let came = stopped.collector.collect(stopped.sent.len());
    let told = |message: &Message| (message.topic.clone(), message.payload.clone());
    assert!(came.iter().map(told).eq(stopped.sent.iter().map(told)), "each once, in order");
    assert_eq!(stopped.collector.rest(), []);
    let metrics = stopped.daemon.settle("plant", stopped.sent.len());
    assert_eq!(metrics.finished("plant", "handled"), stopped.sent.len() as f64);
    stopped.source_stood();
}

/// Longer than the source's keep-alive, and longer than its broker waits for a sign of life.
const FROZEN: Duration = Duration::from_secs(50);

fn stands_through(protocol: Protocol) {
    let begun = Instant::now();
    let mut stopped = Stopped::begin(protocol);
    wait::until_within(FROZEN * 2, "the time of one and a half keep-alives passes", || {
        if begun.elapsed() > FROZEN { Ok(()) } else { Err("not yet") }
    });
    // The target's own connection may have been given up by now; nothing that was taken in is.
    stopped.wait_full();
    stopped.source_stood();
    freeze(stopped.cloud.id(), false);
    let mut missing: Vec<&Message> = stopped.sent.iter().collect();
    let came = stopped.collector.collect_until("everything", |message| {
        missing.retain(|sent| (&sent.topic, &sent.payload) != (&message.topic, &message.payload));
        missing.is_empty()
    });
    assert_order(&came);
    let metrics = stopped.daemon.settle("plant", stopped.sent.len());
    assert_eq!(metrics.finished("plant", "handled"), stopped.sent.len() as f64);
    stopped.source_stood();
    stopped.daemon.terminate();
}

/// The target stands still for longer than the keep-alive of the source.
mod the_source_keeps_its_connection {
    use super::{Protocol, stands_through};

    #[test]
    #[ignore = "long: it takes one and a half keep-alives"]
    fn on_3_1_1() {
        stands_through(Protocol::V311);
    }

    #[test]
    #[ignore = "long: it takes one and a half keep-alives"]
    fn on_5() {
        stands_through(Protocol::V5);
    }
}

fn messages_with_qos_0_are_dropped_by_the_overload_policy(protocol: Protocol) {
    const SENT: usize = 300;
    /// In the outbox, in the call that waits, in the queue.
    const KEPT: usize = OUTBOX + 1 + 10;
    let (plant, cloud_port) = (Mosquitto::start(), ports::free());
    let daemon = Daemon::launch(&gateway(plant.port(), cloud_port, protocol));
    daemon.wait_broker("plant");
    let sent: Vec<_> = (0..SENT).map(|n| Message::new("up/0", format!("{n}")).qos(0)).collect();
    let publisher = plant.client(protocol);
    // One after the other up to where everything is full: a burst may overtake the runner.
    for (place, message) in (1..).zip(&sent[..KEPT]) {
        publisher.publish(message);
        let taken = |metrics: &Metrics| {
            let waits = metrics.sum("tidegate_handler_queue_messages", &[]);
            metrics.calls("relay", "ok") + waits == f64::from(place)
        };
        daemon.wait_metrics("it is taken in", taken);
    }
    publisher.publish_all(&sent[KEPT..]);
    let metrics = daemon.wait_metrics("the rest is dropped", |metrics| {
        metrics.finished("plant", "dropped_overload") == (SENT - KEPT) as f64
    });
    assert_eq!((metrics.in_progress("plant"), metrics.received("plant")), (KEPT as f64, SENT as f64));
    let cloud = Mosquitto::on(cloud_port, Default::default());
    let metrics = daemon.settle("plant", SENT);
    assert_eq!(metrics.finished("plant", "handled"), KEPT as f64);
    assert_eq!(metrics.published("cloud"), KEPT as f64);
    drop(cloud);
}
