//! A new version of a plugin that runs on a share of the calls first: it takes over once it has passed, or it is rolled back, and no
//! message is lost, doubled or overtaken by that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};
use tidegate_tests::metrics::Metrics;
use tidegate_tests::versions::{NAMED, ORIGINAL, guest, version};
use tidegate_tests::{Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols};

on_both_protocols!(
    a_version_that_passes_its_trial_takes_over_and_no_message_is_lost_or_overtaken,
    a_version_that_fails_on_trial_is_rolled_back_and_no_message_is_lost_or_overtaken,
    what_a_failed_call_on_trial_remembered_and_published_is_undone,
);

const PLUGIN: &str = "misbehave.wasm";

const ON_TRIAL: &str = "a new version of the handler's plugin is on trial";

const RUNS: &str = "the handler runs a new version";

const ROLLED_BACK: &str =
    "the version of the handler's plugin on trial is rolled back, the handler keeps the one that runs";

const REFUSED: &str = "a new version of the handler's plugin is refused, the handler keeps the one that runs";

const ENDS: &str = "the trial ends: the handler's plugin file holds something else";

/// A single failure quarantines the handler, and makes a dead letter.
const STRICT: &str = "retry = { max = 0 }\nquarantine = { after = 1, for = \"10m\" }";

fn config(port: u16, protocol: Protocol, share: &str) -> Config {
    let keys = format!("instances = 2\nreload = {{ canary = {share} }}\n{STRICT}");
    Config::new()
        .broker("plant", port, protocol, "client-id = \"gateway\"")
        .guest("guest", "plant", NAMED, &keys)
        .subscription("plant", "in/#", 1, "guest", "")
}

fn handler(daemon: &Daemon) -> Value {
    daemon.json(&["handlers", "list", "guest"])
}

fn reloads(metrics: &Metrics, result: &str) -> f64 {
    metrics.sum("tidegate_handler_reloads_total", &[("handler", "guest"), ("result", result)])
}

/// Replaces the file, and waits until its version is on trial. Its hash.
#[track_caller]
fn put_on_trial(daemon: &Daemon, name: &str) -> String {
    let bytes = guest(name);
    daemon.home().put_plugin(PLUGIN, &bytes);
    let version = version(&bytes);
    daemon.wait_event(ON_TRIAL, &[("handler", "guest"), ("version", &version)]);
    version
}

/// Numbered messages, and the version that echoed each.
struct Traffic<'a> {
    daemon: &'a Daemon,
    publisher: tidegate_tests::client::Client,
    collector: tidegate_tests::client::Client,
    count: usize,
    came: Vec<Message>,
}

impl<'a> Traffic<'a> {
    const TOPICS: usize = 5;

    fn start(broker: &Mosquitto, daemon: &'a Daemon, protocol: Protocol) -> Traffic<'a> {
        let (publisher, collector) = (broker.client(protocol), broker.client(protocol));
        collector.subscribe("out/#", 1);
        Traffic { daemon, publisher, collector, count: 0, came: Vec::new() }
    }

    /// Publishes so many, and waits for their echoes. The names of the versions that made them.
    #[track_caller]
    fn send(&mut self, more: usize) -> BTreeSet<String> {
        let message = |n: usize| Message::new(format!("in/{}", n % Self::TOPICS), format!("{}", n / Self::TOPICS));
        self.publisher.publish_all(&(self.count..self.count + more).map(message).collect::<Vec<_>>());
        self.count += more;
        let came = self.collector.collect(more);
        let names = came.iter().map(|message| parts(message).1.to_owned()).collect();
        self.came.extend(came);
        names
    }

    /// Every message came once, in the order of its topic, and was handled.
    #[track_caller]
    fn check(&self) {
        let metrics = self.daemon.settle("plant", self.count);
        assert_eq!(metrics.finished("plant", "handled"), self.count as f64);
        assert_eq!(self.collector.rest(), [], "nothing comes twice");
        let mut next: BTreeMap<&str, usize> = BTreeMap::new();
        for message in &self.came {
            let (number, next) = (parts(message).0, next.entry(&message.topic).or_default());
            assert_eq!(number, *next, "{}", message.topic);
            *next += 1;
        }
    }
}

fn parts(message: &Message) -> (usize, &str) {
    let (number, name) = message.text().split_once(' ').expect("tells its version");
    (number.parse().expect("a number"), name)
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn a_version_that_passes_its_trial_takes_over_and_no_message_is_lost_or_overtaken(protocol: Protocol) {
    let broker = Mosquitto::start();
    let daemon = Daemon::start(&config(broker.port(), protocol, "0.5"));
    let mut traffic = Traffic::start(&broker, &daemon, protocol);
    assert_eq!(traffic.send(20), names(&[ORIGINAL]));
    let (original, second) = (version(&guest(ORIGINAL)), put_on_trial(&daemon, "second"));

    assert_eq!(traffic.send(40), names(&[ORIGINAL, "second"]));
    let shown = handler(&daemon);
    assert_eq!((&shown["version"], &shown["file"]["state"]), (&json!(original), &json!("on-trial")), "{shown}");
    let calls = shown["trial"]["calls"].as_u64().expect("a number");
    assert!((18..=22).contains(&calls), "half of 40: {calls}");
    assert_eq!(shown["trial"], json!({ "version": second, "calls": calls, "of": 100, "failures": 0 }));
    let told = format!("({second} on trial: {calls} of 100 calls, 0 failed)");
    for command in [&["handlers", "list"][..], &["status"]] {
        let output = daemon.done(command);
        assert!(output.contains(&told), "{output}");
    }
    let page = daemon.get("/readyz");
    let detail = format!("handler guest runs version {original}: on trial: version {second} of ");
    assert!(page.status == 200 && page.body.contains(&detail), "{}", page.body);
    assert!(page.body.contains(&format!(", {calls} of 100 calls, 0 failed")), "{}", page.body);
    let output = daemon.done(&["handlers", "reload", "guest"]);
    assert_eq!(output, format!("handler guest runs version {original}, and has {second} on trial\n"));
    assert_eq!(reloads(&daemon.metrics(), "ok"), 0.0);

    traffic.send(180);
    daemon.wait_event(RUNS, &[("handler", "guest"), ("version", &second), ("before", &original)]);
    assert_eq!(traffic.send(40), names(&["second"]));
    traffic.check();
    let (shown, metrics) = (handler(&daemon), daemon.metrics());
    assert_eq!((&shown["version"], &shown["file"]["state"]), (&json!(second), &json!("runs")), "{shown}");
    assert_eq!((&shown["trial"], reloads(&metrics, "ok")), (&Value::Null, 1.0));
    assert_eq!(metrics.sum("tidegate_handler_instances", &[("handler", "guest")]), 2.0);
    assert_eq!(daemon.get("/readyz").body, "ready\n");
}

fn a_version_that_fails_on_trial_is_rolled_back_and_no_message_is_lost_or_overtaken(protocol: Protocol) {
    let broker = Mosquitto::telling();
    let mut daemon = Daemon::start(&config(broker.port(), protocol, "0.5"));
    let original = version(&guest(ORIGINAL));
    let mut traffic = Traffic::start(&broker, &daemon, protocol);
    let trap = put_on_trial(&daemon, "trap");
    assert_eq!(traffic.send(400), names(&[ORIGINAL]));
    let event = daemon.wait_event(ROLLED_BACK, &[("handler", "guest"), ("version", &trap), ("running", &original)]);
    let reason = event["reason"].as_str().expect("has a reason").to_owned();
    let told = "20 of 20 calls on trial failed, more than max-failures = 0.05; the last: the handler trapped: ";
    assert!(reason.starts_with(told), "{reason}");
    traffic.check();

    let metrics = daemon.metrics();
    assert_eq!((metrics.calls("guest", "ok"), metrics.calls("guest", "trap")), (400.0, 20.0));
    assert_eq!((reloads(&metrics, "rolled_back"), reloads(&metrics, "refused")), (1.0, 0.0));
    assert_eq!(metrics.sum("tidegate_handler_quarantined", &[("handler", "guest")]), 0.0);
    let shown = handler(&daemon);
    assert_eq!((&shown["version"], &shown["file"]["state"]), (&json!(original), &json!("refused")), "{shown}");
    assert_eq!((&shown["file"]["reason"], &shown["trial"]), (&json!(reason), &Value::Null), "{shown}");
    assert_eq!(metrics.sum("tidegate_handler_instances", &[("handler", "guest")]), 2.0);

    broker.wait_acknowledged();
    daemon.kill();
    daemon.restart();
    assert_eq!(handler(&daemon)["file"]["reason"], json!(reason), "it is not tried again");
    let client = broker.client(protocol);
    client.subscribe("out/#", 1);
    client.publish(&Message::new("in/a", "x"));
    assert_eq!(client.collect(1)[0].text(), format!("x {ORIGINAL}"));
}

/// Each call counts on in what the handler remembers, publishes the sum, and then panics in the version on trial.
fn what_a_failed_call_on_trial_remembered_and_published_is_undone(protocol: Protocol) {
    const COUNT: usize = 60;
    let broker = Mosquitto::start();
    let counts = "mode = \"count\", panics-in = \"trap\"";
    let keys = format!("instances = 1\nreload = {{ canary = 1 }}\n{STRICT}");
    let config = Config::new()
        .broker("plant", broker.port(), protocol, "client-id = \"gateway\"")
        .remembering("guest", "plant", counts, "64KiB", &keys)
        .subscription("plant", "in/#", 1, "guest", "");
    let daemon = Daemon::start(&config);
    put_on_trial(&daemon, "trap");
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    let messages: Vec<_> = (1..=COUNT).map(|n| Message::new("in/a", format!("{n}"))).collect();
    broker.client(protocol).publish_all(&messages);
    let came = collector.collect(COUNT);
    let expected: Vec<_> = (1..=COUNT).map(|n| format!("{n} {n}")).collect();
    assert_eq!(came.iter().map(Message::text).collect::<Vec<_>>(), expected);
    daemon.wait_event(ROLLED_BACK, &[("handler", "guest")]);
    assert_eq!((daemon.metrics().calls("guest", "trap"), collector.rest()), (20.0, Vec::new()));
}

#[test]
fn a_restart_in_the_middle_of_a_trial_begins_it_anew_beside_the_version_that_ran() {
    let broker = Mosquitto::telling();
    let mut daemon = Daemon::start(&config(broker.port(), Protocol::V5, "0.5"));
    let second = put_on_trial(&daemon, "second");
    assert_eq!(Traffic::start(&broker, &daemon, Protocol::V5).send(40), names(&[ORIGINAL, "second"]));
    daemon.settle("plant", 40);
    broker.wait_acknowledged();
    daemon.kill();
    daemon.restart();
    let shown = handler(&daemon);
    assert_eq!(shown["version"], json!(version(&guest(ORIGINAL))));
    assert_eq!(shown["trial"], json!({ "version": second, "calls": 0, "of": 100, "failures": 0 }), "{shown}");
    let mut traffic = Traffic::start(&broker, &daemon, Protocol::V5);
    assert_eq!(traffic.send(220), names(&[ORIGINAL, "second"]));
    daemon.wait_event(RUNS, &[("handler", "guest"), ("version", &second)]);
    traffic.check();
    daemon.terminate();
    daemon.restart();
    assert_eq!((&handler(&daemon)["version"], &handler(&daemon)["trial"]), (&json!(second), &Value::Null));
}

#[test]
fn a_trial_ends_when_its_file_goes_or_holds_another_version() {
    let broker = Mosquitto::start();
    let daemon = Daemon::start(&config(broker.port(), Protocol::V5, "1"));
    let mut traffic = Traffic::start(&broker, &daemon, Protocol::V5);
    let second = put_on_trial(&daemon, "second");
    assert_eq!(traffic.send(10), names(&["second"]));
    let third = put_on_trial(&daemon, "third");
    daemon.wait_event(ENDS, &[("version", &second)]);
    assert_eq!(handler(&daemon)["trial"], json!({ "version": third, "calls": 0, "of": 100, "failures": 0 }));
    assert_eq!(traffic.send(10), names(&["third"]));
    daemon.home().put_plugin(PLUGIN, &guest(ORIGINAL));
    daemon.wait_event(ENDS, &[("version", &third)]);
    assert_eq!(traffic.send(10), names(&[ORIGINAL]));
    let fourth = put_on_trial(&daemon, "fourth");
    fs::remove_file(daemon.home().path().join("plugins").join(PLUGIN)).expect("is ours");
    daemon.wait_event(ENDS, &[("version", &fourth)]);
    assert_eq!(traffic.send(10), names(&[ORIGINAL]));
    traffic.check();
    assert_eq!(
        (&handler(&daemon)["version"], &handler(&daemon)["trial"]),
        (&json!(version(&guest(ORIGINAL))), &Value::Null)
    );
}

/// The configuration goes first, as it does at a start.
#[test]
fn a_version_on_trial_that_lacks_an_export_that_a_change_asks_for_is_refused() {
    let broker = Mosquitto::start();
    let keys = "default-broker = \"plant\"\nreload = { canary = 0.5 }";
    let before = Config::new().broker("plant", broker.port(), Protocol::V5, "").guest("guest", "plant", NAMED, keys);
    let mut daemon = Daemon::start(&before);
    let celsius = fs::read(tidegate_tests::daemon::built_plugin("celsius.wasm")).expect("is built");
    let (original, tried) = (version(&guest(ORIGINAL)), version(&celsius));
    daemon.home().put_plugin(PLUGIN, &celsius);
    daemon.wait_event(ON_TRIAL, &[("handler", "guest"), ("version", &tried)]);

    let schedule = "[[schedules]]\nname = \"often\"\nevery = \"1h\"\non-schedule = \"guest\"\n";
    // The file that is there stays.
    let after = Config { plugins: Vec::new(), ..before.table(schedule) };
    daemon.home().configure(&after, daemon.admin());
    daemon.done(&["reload"]);
    let event = daemon.wait_event(REFUSED, &[("handler", "guest"), ("version", &tried), ("running", &original)]);
    let reason = event["reason"].as_str().expect("has a reason").to_owned();
    let told = "the schedule often runs the handler guest, whose plugin does not export on-schedule; ";
    assert!(reason.starts_with(told), "{reason}");
    let check = |daemon: &Daemon| {
        let shown = handler(daemon);
        assert_eq!((&shown["version"], &shown["trial"]), (&json!(original), &Value::Null), "{shown}");
        let file = &shown["file"];
        assert_eq!(
            (&file["state"], &file["version"], &file["reason"]),
            (&json!("refused"), &json!(tried), &json!(reason))
        );
        daemon.done(&["schedules", "run", "often"]);
    };
    check(&daemon);
    daemon.terminate();
    daemon.restart();
    check(&daemon);
}

/// It has no version that works, and that could run where the new one fails.
#[test]
fn a_quarantined_handler_runs_a_new_version_at_once() {
    let broker = Mosquitto::start();
    let keys = format!("reload = {{ canary = 0.1 }}\n{STRICT}");
    let config = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "client-id = \"gateway\"")
        .guest("guest", "plant", &format!("mode = \"version\", panics-in = \"{ORIGINAL}\""), &keys)
        .subscription("plant", "in/#", 1, "guest", "");
    let daemon = Daemon::start(&config);
    let client = broker.client(Protocol::V5);
    client.subscribe("out/#", 1);
    client.publish(&Message::new("in/a", "bad luck"));
    daemon.wait_metrics("it is quarantined", |metrics| {
        metrics.sum("tidegate_handler_quarantined", &[("handler", "guest")]) == 1.0
    });
    client.publish(&Message::new("in/a", "waits"));
    let mended = guest("mended");
    daemon.home().put_plugin(PLUGIN, &mended);
    daemon.wait_event(RUNS, &[("handler", "guest"), ("version", &version(&mended))]);
    assert_eq!(client.collect(1)[0].text(), "waits mended");
}
