//! What most rows stand on: a source broker `plant`, a target broker `cloud`, a proxy before each, and between them a daemon
//! whose handler copies `in/#` of the one to `out/` of the other.
//!
//! The sender and the collector are not proxied: what breaks is the daemon's. A row that needs other handlers gives its own
//! tables with [`Setup::tables`].

use std::sync::Arc;

use super::ledger::shown;
use super::{Collector, Direction, Flow, Ledger, On, Pace, Proxy, Row, Sender, Verdict};
use crate::client::message::Message;
use crate::metrics::Metrics;
use crate::mosquitto::Options;
use crate::{Config, Daemon, Mosquitto};

/// Messages of a row in its smallest size.
const MESSAGES: usize = 20_000;

/// Topics of a row.
const TOPICS: usize = 16;

/// Messages of a row that are on their way at the same time, at most: more than the daemon's window, so that it is always full.
pub const AHEAD: usize = 600;

/// For handlers of rows that break other things: a call's deadline is wall clock, and on a machine that is loaded besides a thread
/// may wait for a processor for longer than a second.
pub const PATIENT: &str = "call-deadline = \"1m\"";

/// A row's set-up that is not started yet.
pub struct Setup {
    on: On,
    flow: Flow,
    top: String,
    plant: String,
    cloud: String,
    tables: Option<Box<dyn FnOnce(Config) -> Config>>,
    pace: Option<u32>,
    until: Option<usize>,
    counted: bool,
    others: Vec<String>,
}

impl Setup {
    /// 20,000 messages, times the row's size, over 16 topics. The target's outbox is where the row says.
    pub fn new(row: &Row) -> Setup {
        let flow = Flow::new("in", TOPICS, row.scaled(MESSAGES));
        let (top, plant, cloud) = (String::new(), String::new(), String::new());
        Setup {
            on: row.on(),
            flow,
            top,
            plant,
            cloud,
            tables: None,
            pace: None,
            until: None,
            counted: false,
            others: Vec::new(),
        }
    }

    /// With so many messages, whatever the row's size.
    pub fn messages(self, count: usize) -> Setup {
        Setup { flow: Flow::new("in", TOPICS, count), ..self }
    }

    /// With these keys before the first table of the configuration.
    pub fn top(self, keys: &str) -> Setup {
        Setup { top: keys.to_owned(), ..self }
    }

    /// With these keys of the source broker.
    pub fn plant(self, keys: &str) -> Setup {
        Setup { plant: keys.to_owned(), ..self }
    }

    /// With these keys of the target broker; those of its outbox each on its own, such as `outbox.max-messages = 10`.
    pub fn cloud(self, keys: &str) -> Setup {
        Setup { cloud: keys.to_owned(), ..self }
    }

    /// With other handlers and subscriptions than the relay, added to a configuration that has both brokers. What comes out must
    /// be at `cloud`, at `out/` and the input's topic, with its payload.
    pub fn tables(self, tables: impl FnOnce(Config) -> Config + 'static) -> Setup {
        Setup { tables: Some(Box::new(tables)), ..self }
    }

    /// Sent at this rate, in messages a second, rather than as fast as they come out.
    pub fn rate(self, per_second: u32) -> Setup {
        Setup { pace: Some(per_second), ..self }
    }

    /// Sent as far as this place of the flow, until the sender is told otherwise.
    pub fn until(self, place: usize) -> Setup {
        Setup { until: Some(place), ..self }
    }

    /// With outputs that begin with a count, and a space before their input's payload.
    pub fn counted(self) -> Setup {
        Setup { counted: true, ..self }
    }

    /// With further outputs of each input, which are held as the first are: at `cloud` too, with this before the input's topic.
    pub fn also(mut self, prefix: &str) -> Setup {
        self.others.push(prefix.to_owned());
        self
    }

    /// Starts all of it, the daemon first, and begins to send once it is ready.
    #[track_caller]
    pub fn start(self) -> Bench {
        let Setup { on, flow, top, plant: plant_keys, cloud: cloud_keys, tables, pace, until, counted, others } = self;
        let protocol = on.protocol;
        let start = || Mosquitto::with(Options { persistent: true, ..Options::default() });
        let (plant, cloud) = (start(), start());
        let (to_plant, to_cloud) = (Proxy::start(plant.port(), protocol), Proxy::start(cloud.port(), protocol));
        let config = Config::new().top(&top).broker("plant", to_plant.port(), protocol, &plant_keys).broker(
            "cloud",
            to_cloud.port(),
            protocol,
            &format!("{}{cloud_keys}", on.outbox()),
        );
        let config = match tables {
            Some(tables) => tables(config),
            None => relay(config, ""),
        };
        let ledger = if counted { Ledger::counted(&flow, "out/") } else { Ledger::new(&flow, "out/") };
        let collector = Collector::start(cloud.port(), protocol, &ledger);
        let other = |prefix: &String| {
            let ledger = Ledger::new(&flow, prefix);
            (Collector::start(cloud.port(), protocol, &ledger), ledger)
        };
        let others = others.iter().map(other).collect();
        let daemon = Daemon::start(&config);
        let pace = pace.map_or_else(|| Pace::Ahead(Arc::clone(&ledger), AHEAD), Pace::PerSecond);
        let sender = match until {
            Some(place) => Sender::start_until(place, &flow, plant.port(), protocol, pace),
            None => Sender::start(&flow, plant.port(), protocol, pace),
        };
        Bench { sender, collector, others, daemon, to_plant, to_cloud, plant, cloud, ledger }
    }
}

/// What the relay may do, and does.
const RELAY: &str = "allow = { publish = [\"cloud:out/#\"] }\n\
                     config = { broker = \"cloud\", topic = \"out/{topic}\" }\ninstances = 2";

/// Adds the relay to a configuration that has both brokers: copies `in/#` of `plant` to `out/` of `cloud`. With these further keys.
pub fn relay(config: Config, keys: &str) -> Config {
    let keys = format!("{RELAY}\n{PATIENT}\n{keys}");
    config.handler("relay", "relay.wasm", &keys).subscription("plant", "in/#", 1, "relay", "")
}

/// A row's set-up at work. Its parts are dropped in this order.
pub struct Bench {
    /// Sends to `plant`.
    pub sender: Sender,
    /// Collects from `cloud`.
    pub collector: Collector,
    /// Collect further outputs from `cloud`, each for a ledger of its own.
    pub others: Vec<(Collector, Arc<Ledger>)>,
    /// The daemon.
    pub daemon: Daemon,
    /// Between the daemon and `plant`.
    pub to_plant: Proxy,
    /// Between the daemon and `cloud`.
    pub to_cloud: Proxy,
    /// The source broker.
    pub plant: Mosquitto,
    /// The target broker.
    pub cloud: Mosquitto,
    /// What came out.
    pub ledger: Arc<Ledger>,
}

/// Whether the daemon has nothing left that could come out: what is missing then is lost.
fn nothing_left(metrics: &Metrics) -> bool {
    ["tidegate_messages_in_progress", "tidegate_outbox_messages"].iter().all(|name| metrics.sum(name, &[]) == 0.0)
}

/// Waits until so many inputs have an output.
///
/// # Panics
/// Nothing new came for [`PAUSE`](super::PAUSE): with the ends of messages that the daemon has counted, and its warnings.
#[track_caller]
pub(super) fn reach(daemon: &Daemon, ledger: &Ledger, count: usize) {
    let Err(stuck) = ledger.reach(count) else { return };
    let metrics = daemon.metrics();
    let ends = metrics.page.lines().filter(|line| line.starts_with("tidegate_messages_finished_total"));
    let ends: Vec<_> = ends.filter(|line| !line.ends_with(" 0")).collect();
    let warns = |line: &String| ["\"WARN\"", "\"ERROR\""].iter().any(|level| line.contains(level));
    let warnings: Vec<_> = daemon.log().into_iter().filter(warns).collect();
    let panicked = !daemon.log_lines(&["panicked at"]).is_empty();
    let stuck = if panicked { "the daemon panicked".to_owned() } else { stuck.tell(nothing_left(&metrics)) };
    panic!("{stuck}\nthe daemon counts {ends:#?}\nand said {warnings:#?}");
}

impl Bench {
    /// Has connections made again that do not stand. Those that never last slow the daemon down, up to half a minute between
    /// two; an operator is faster.
    pub fn hurry(&self) {
        for (broker, proxy) in [("plant", &self.to_plant), ("cloud", &self.to_cloud)] {
            if proxy.connected() == 0 {
                // The answer is that of one attempt, which may be broken in its turn.
                self.daemon.ask(&["brokers", "connect", broker]);
            }
        }
    }

    /// Waits until so many inputs have an output; tells what the daemon says of it if they do not come.
    #[track_caller]
    pub fn wait_distinct(&self, count: usize) {
        reach(&self.daemon, &self.ledger, count);
    }

    /// Waits until everything has come out, and holds that the daemon kept its word: each input has its output, in order;
    /// acknowledgements left in order; its counters balance, and are those of the wire; no input has more outputs than the times
    /// that it was sent to the daemon and the further connections over which the daemon sent its output. Reports, with what was
    /// broken in a few words.
    #[track_caller]
    pub fn finish(self, row: &Row, broken: &str) -> Verdict {
        self.finish_after_deaths_of_target(row, broken, 0)
    }

    /// As [`Bench::finish`], where a target broker that died may have sent so many outputs to the collector again: that does not
    /// pass the proxy.
    #[track_caller]
    pub fn finish_after_deaths_of_target(self, row: &Row, broken: &str, again: usize) -> Verdict {
        hold_protocol([&self.to_plant, &self.to_cloud]);
        let ledgers = self.others.iter().map(|(_, ledger)| ledger).chain([&self.ledger]);
        ledgers.for_each(|ledger| reach(&self.daemon, ledger, ledger.flow().count()));
        self.sender.finish();
        self.daemon.wait_metrics("everything reaches its end", |metrics| metrics.in_progress("plant") == 0.0);
        self.daemon.balance();
        // What was published and did not come yet is a duplicate.
        self.daemon.wait_metrics("the outbox is empty", |metrics| {
            metrics.sum("tidegate_outbox_messages", &[("broker", "cloud")]) == 0.0
        });
        let (source, target) = (self.to_plant.passed(Direction::Down), self.to_cloud.passed(Direction::Up));
        hold_counters(&self.daemon, [&self.to_plant, &self.to_cloud], [source.len(), target.len()]);
        let wire = Wire { source, target, on_disk: row.on().on_disk() };
        let verdict = hold_output(self.collector, &self.ledger, &wire, again);
        row.report(&verdict, broken);
        for (collector, ledger) in self.others {
            row.report(&hold_output(collector, &ledger, &wire, again), broken);
        }
        hold_protocol([&self.to_plant, &self.to_cloud]);
        // As the standard library says it; a handler's own panic is a trap.
        let panics = self.daemon.log_lines(&["panicked at"]);
        assert!(panics.is_empty(), "the daemon panicked: {panics:#?}");
        verdict
    }
}

/// What passed the daemon's connections, each with the number of its connection.
struct Wire {
    source: Vec<(usize, Message)>,
    target: Vec<(usize, Message)>,
    /// The target's outbox is on disk.
    on_disk: bool,
}

/// Holds that one output of each input came, in order, and none more often than the wire explains.
#[track_caller]
fn hold_output(collector: Collector, ledger: &Ledger, wire: &Wire, again: usize) -> Verdict {
    collector.drain();
    collector.finish();
    let verdict = ledger.verdict();
    verdict.hold();
    let over = ledger.unexplained(&wire.source, &wire.target, wire.on_disk);
    assert!(over.len() <= again, "{verdict}; {} came more often than they may: {}", over.len(), shown(&over));
    verdict
}

/// Holds the daemon's counters against what passed its connections. What passed the proxy may be lost with its connection, and
/// what a process counted with the process: exact where one connection was made.
#[track_caller]
fn hold_counters(daemon: &Daemon, [plant, cloud]: [&Proxy; 2], [came, left]: [usize; 2]) {
    let (metrics, acknowledged) = (daemon.metrics(), plant.counts().acknowledged);
    let counted = [metrics.received("plant"), metrics.published("cloud")];
    for (what, proxy, counted, passed) in
        [("received", plant, counted[0], came), ("published", cloud, counted[1], left)]
    {
        let passed = passed as f64;
        let holds = if proxy.counts().connections == 1 { counted == passed } else { counted <= passed };
        let may_be_lost = what == "published" && plant.counts().connections > 1 && counted <= passed;
        assert!(holds || may_be_lost, "the daemon counts {counted} {what}, {passed} passed");
    }
    if plant.counts().connections == 1 {
        assert_eq!(metrics.finished_all("plant"), acknowledged as f64, "messages at their end are acknowledged");
    }
}

/// Holds that the daemon acknowledged in order so far [MQTT-4.6.0-2].
#[track_caller]
fn hold_protocol(proxies: [&Proxy; 2]) {
    let violations = proxies.map(Proxy::violations).concat();
    let first = &violations[..violations.len().min(10)];
    assert!(first.is_empty(), "{} violations of the protocol: {first:#?}", violations.len());
}
