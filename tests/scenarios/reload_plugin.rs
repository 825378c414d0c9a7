//! A plugin's file that changes while the daemon runs: the new version takes over and nothing is lost, or the old one goes on, also after
//! a restart.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tidegate_tests::gate::{Gate, REJECT};
use tidegate_tests::metrics::Metrics;
use tidegate_tests::versions::{NAMED, ORIGINAL, guest, hash, version};
use tidegate_tests::{Config, Daemon, Home, Message, Mosquitto, Protocol, on_both_protocols, ports, wait};

on_both_protocols!(
    a_file_that_is_renamed_into_place_runs_from_then_on_and_no_message_is_lost_or_overtaken,
    a_quarantined_handler_is_called_again_with_a_new_version_and_a_paused_one_is_not,
);

const PLUGIN: &str = "misbehave.wasm";

const RUNS: &str = "the handler runs a new version";

const REFUSED: &str = "a new version of the handler's plugin is refused, the handler keeps the one that runs";

const RUNS_UNKEPT: &str = "the version that the handler runs cannot be kept, a restart has the file alone";

const GONE: &str = "the handler's plugin file is gone, the handler keeps the version that runs";

const NOT_KEPT: &str = "a new version of the handler's plugin cannot be kept, the handler keeps the one that runs";

fn config(port: u16, protocol: Protocol, keys: &str) -> Config {
    Config::new()
        .broker("plant", port, protocol, "client-id = \"gateway\"")
        .guest("guest", "plant", NAMED, &format!("instances = 2\n{keys}"))
        .subscription("plant", "in/#", 1, "guest", "")
}

fn handler(daemon: &Daemon, name: &str) -> Value {
    daemon.json(&["handlers", "list", name])
}

fn reloads(metrics: &Metrics, result: &str) -> f64 {
    metrics.sum("tidegate_handler_reloads_total", &[("handler", "guest"), ("result", result)])
}

/// Replaces the file, and waits until its version runs.
#[track_caller]
fn replace(daemon: &Daemon, mark: &str) {
    let bytes = guest(mark);
    daemon.home().put_plugin(PLUGIN, &bytes);
    daemon.wait_event(RUNS, &[("handler", "guest"), ("version", &version(&bytes))]);
}

/// Replaces the file, and waits until its version is refused. The reason.
#[track_caller]
fn replace_in_vain(daemon: &Daemon, bytes: &[u8], message: &str) -> String {
    daemon.home().put_plugin(PLUGIN, bytes);
    let event = daemon.wait_event(message, &[("handler", "guest"), ("version", &version(bytes))]);
    event["reason"].as_str().expect("has a reason").to_owned()
}

/// What the version that runs makes of a message.
#[track_caller]
fn mark(broker: &Mosquitto) -> String {
    let client = broker.client(Protocol::V5);
    client.subscribe("out/in/mark", 1);
    client.publish(&Message::new("in/mark", "x"));
    let told = client.collect(1).remove(0);
    told.text().strip_prefix("x ").expect("echoes").to_owned()
}

fn kept(daemon: &Daemon, handler: &str) -> PathBuf {
    daemon.home().path().join("state/plugins").join(handler)
}

fn a_file_that_is_renamed_into_place_runs_from_then_on_and_no_message_is_lost_or_overtaken(protocol: Protocol) {
    const TOPICS: usize = 3;
    /// On their way at any time: as many as the daemon takes in, and some more.
    const AHEAD: usize = 100;
    const BATCH: usize = 50;
    /// A version that does not run by then never will.
    const MOST: usize = 100_000;
    let broker = Mosquitto::start();
    let slow = Config::new()
        .broker("plant", broker.port(), protocol, "client-id = \"gateway\"")
        .guest("guest", "plant", &format!("{NAMED}, ms = 1"), "instances = 2")
        .subscription("plant", "in/#", 1, "guest", "");
    let daemon = Daemon::start(&slow);
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    let publisher = broker.client(protocol);
    let (mut count, mut came) = (0, Vec::new());
    let mut send = |more: usize| {
        let message = |n: usize| Message::new(format!("in/{}", n % TOPICS), format!("{}", n / TOPICS));
        publisher.publish_all(&(count..count + more).map(message).collect::<Vec<_>>());
        count += more;
        assert!(count < MOST, "the new version does not run");
        count
    };
    send(AHEAD);
    for (before, name) in ["second", "third", "fourth"].into_iter().enumerate() {
        daemon.home().put_plugin(PLUGIN, &guest(name));
        while reloads(&daemon.metrics(), "ok") == before as f64 {
            send(BATCH);
            came.extend(collector.collect(BATCH));
        }
    }
    let count = send(BATCH);
    came.extend(collector.collect(AHEAD + BATCH));
    daemon.settle("plant", count);
    assert_eq!(collector.rest(), [], "nothing comes twice");

    let versions = [ORIGINAL, "second", "third", "fourth"];
    let mut last: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for message in &came {
        let (number, mark) = message.text().split_once(' ').expect("is marked");
        let place = versions.iter().position(|version| *version == mark).expect("is a version");
        let expected = last.get(message.topic.as_str()).map_or((0, 0), |(number, place)| (number + 1, *place));
        let number: usize = number.parse().expect("a number");
        assert!(number == expected.0 && place >= expected.1, "{}: {number} by {mark}, not {expected:?}", message.topic);
        last.insert(&message.topic, (number, place));
    }
    assert_eq!(mark(&broker), "fourth");
    let metrics = daemon.metrics();
    assert_eq!((reloads(&metrics, "ok"), reloads(&metrics, "refused")), (3.0, 0.0));
    assert_eq!(metrics.sum("tidegate_handler_instances", &[("handler", "guest")]), 2.0);
    let shown = handler(&daemon, "guest");
    let running = version(&guest("fourth"));
    assert_eq!((&shown["version"], &shown["file"]["state"]), (&json!(running), &json!("runs")));
    let mut names: Vec<_> = fs::read_dir(kept(&daemon, "guest")).expect("is there").flatten().collect();
    names.sort_by_key(fs::DirEntry::file_name);
    let names: Vec<_> = names.iter().map(|entry| entry.file_name().into_string().expect("text")).collect();
    assert_eq!(names, [hash(&guest("fourth")), "record.json".to_owned()], "old versions are not kept");
}

#[test]
fn a_version_that_is_refused_leaves_the_old_one_also_after_a_kill() {
    let broker = Mosquitto::start();
    let mut daemon = Daemon::start(&config(broker.port(), Protocol::V5, ""));
    replace(&daemon, "second");
    let running = version(&guest("second"));

    let reason = replace_in_vain(&daemon, &guest("refuse"), REFUSED);
    assert_eq!(reason, "init refused: this version refuses to start");
    assert_eq!(mark(&broker), "second");
    let whole = guest("half");
    let reason = replace_in_vain(&daemon, &whole[..whole.len() / 2], REFUSED);
    assert!(reason.starts_with("it is damaged, incomplete or uses WebAssembly features"), "{reason}");
    let reason = replace_in_vain(&daemon, b"not a plugin", REFUSED);
    let refused = version(b"not a plugin");
    assert!(reason.starts_with("it is text, not a WebAssembly component"), "{reason}");
    let shown = handler(&daemon, "guest");
    assert_eq!((&shown["version"], &shown["file"]["state"]), (&json!(running), &json!("refused")), "{shown}");
    assert_eq!((&shown["file"]["version"], &shown["file"]["reason"]), (&json!(refused), &json!(reason)), "{shown}");
    assert_eq!(reloads(&daemon.metrics(), "refused"), 3.0);
    let told = |daemon: &Daemon| {
        let page = daemon.get("/readyz");
        let plugin = daemon.home().path().join("plugins").join(PLUGIN).display().to_string();
        let expected =
            format!("ready\nhandler guest runs version {running}: version {refused} of {plugin} was refused at ");
        assert!(page.status == 200 && page.body.starts_with(&expected) && page.body.contains(&reason), "{}", page.body);
        assert_eq!(page.body.lines().nth(1), daemon.json(&["status"])["details"][0].as_str());
    };
    told(&daemon);
    assert_eq!(mark(&broker), "second");

    daemon.kill();
    daemon.restart();
    told(&daemon);
    assert_eq!(mark(&broker), "second");
    daemon.wait_event(
        "the handler's plugin file is refused, it runs the copy of the version that it ran before",
        &[("handler", "guest"), ("version", &refused)],
    );

    replace(&daemon, "third");
    assert_eq!((mark(&broker).as_str(), daemon.get("/readyz").body.as_str()), ("third", "ready\n"));
}

#[test]
fn a_version_that_one_configuration_refused_runs_with_the_next() {
    let broker = Mosquitto::start();
    let daemon = Daemon::start(&config(broker.port(), Protocol::V5, ""));
    let bytes = guest("refuse");
    replace_in_vain(&daemon, &bytes, REFUSED);
    assert_eq!(mark(&broker), ORIGINAL);
    let mended = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "client-id = \"gateway\"")
        .guest("guest", "plant", "mode = \"version\"", "instances = 2")
        .subscription("plant", "in/#", 1, "guest", "");
    // The file that is there stays.
    daemon.home().configure(&Config { plugins: Vec::new(), ..mended }, daemon.admin());
    daemon.done(&["reload"]);
    assert_eq!((mark(&broker).as_str(), daemon.get("/readyz").body.as_str()), ("refuse", "ready\n"));
    assert_eq!(handler(&daemon, "guest")["version"], json!(version(&bytes)));
}

#[test]
fn a_file_that_is_broken_while_the_daemon_is_down_does_not_keep_it_from_starting() {
    let broker = Mosquitto::start();
    let mut daemon = Daemon::start(&config(broker.port(), Protocol::V5, ""));
    daemon.terminate();
    daemon.home().put_plugin(PLUGIN, &guest("refuse"));
    daemon.restart();
    assert_eq!(mark(&broker), ORIGINAL);
    daemon.wait_event(
        "the handler's plugin file is refused, it runs the copy of the version that it ran before",
        &[("handler", "guest"), ("version", &version(&guest("refuse"))), ("reason", "init refused: ")],
    );
    daemon.terminate();

    // Without its record, the handler has the file alone.
    fs::write(kept(&daemon, "guest").join("record.json"), "{").expect("is ours");
    daemon.home().put_plugin(PLUGIN, &guest("second"));
    daemon.restart();
    assert_eq!(mark(&broker), "second");
    daemon.wait_event("the record of the handler's versions is damaged and set aside, it starts with its file", &[]);
}

#[test]
fn a_file_that_is_deleted_leaves_the_version_that_runs_also_after_a_restart() {
    let broker = Mosquitto::start();
    let mut daemon = Daemon::start(&config(broker.port(), Protocol::V5, ""));
    let plugin = daemon.home().path().join("plugins").join(PLUGIN);
    fs::remove_file(&plugin).expect("is there");
    daemon.wait_event(GONE, &[("handler", "guest")]);
    assert_eq!((mark(&broker).as_str(), &handler(&daemon, "guest")["file"]["state"]), (ORIGINAL, &json!("missing")));
    let said = daemon.refused(&["handlers", "reload", "guest"]);
    assert!(said.contains("keeps running version") && said.contains("misbehave.wasm does not exist"), "{said}");
    assert!(daemon.get("/readyz").body.contains("misbehave.wasm is gone, since "));

    daemon.terminate();
    daemon.restart();
    assert_eq!((mark(&broker).as_str(), &handler(&daemon, "guest")["file"]["state"]), (ORIGINAL, &json!("missing")));
    daemon.home().put_plugin(PLUGIN, &guest(ORIGINAL));
    wait::until("the file is there again", || match &handler(&daemon, "guest")["file"]["state"] {
        state if state == "runs" => Ok(()),
        state => Err(state.to_string()),
    });
    replace(&daemon, "second");
    assert_eq!(mark(&broker), "second");
}

#[test]
fn a_version_that_cannot_be_kept_does_not_run_and_is_tried_again_by_command() {
    let broker = Mosquitto::start();
    let mut daemon = Daemon::start(&config(broker.port(), Protocol::V5, ""));
    let second = guest("second");
    let in_the_way = kept(&daemon, "guest").join(hash(&second));
    fs::create_dir_all(in_the_way.join("x")).expect("is ours");
    replace_in_vain(&daemon, &second, NOT_KEPT);
    assert_eq!((mark(&broker).as_str(), &handler(&daemon, "guest")["file"]["state"]), (ORIGINAL, &json!("not-kept")));
    let said = daemon.refused(&["handlers", "reload", "guest"]);
    assert!(said.contains("cannot be kept for a restart: "), "{said}");
    assert_eq!(reloads(&daemon.metrics(), "failed"), 2.0);

    // What is on the disk is the version that ran.
    daemon.kill();
    let plugin = daemon.home().path().join("plugins").join(PLUGIN);
    fs::remove_file(&plugin).expect("is there");
    daemon.restart();
    assert_eq!(mark(&broker), ORIGINAL);

    daemon.home().put_plugin(PLUGIN, &second);
    daemon.wait_event(NOT_KEPT, &[("handler", "guest")]);
    fs::remove_dir_all(&in_the_way).expect("is ours");
    let (new, old) = (version(&second), version(&guest(ORIGINAL)));
    let said = daemon.done(&["handlers", "reload", "guest"]);
    assert_eq!(said, format!("handler guest runs version {new} in place of {old}\n"));
    assert_eq!(mark(&broker), "second");
    let said = daemon.done(&["handlers", "reload"]);
    assert_eq!(said, format!("handler guest is unchanged: it runs version {new}\n"));
    let told = daemon.json(&["handlers", "reload", "guest"]);
    assert_eq!((&told[0]["before"], &told[0]["version"], &told[1]), (&json!(new), &json!(new), &Value::Null));
    assert_eq!(daemon.get("/readyz").body, "ready\n");
}

/// The handler runs it all the same, since it is what the file holds; a restart without that would go back to the one before.
#[test]
fn a_version_that_a_start_cannot_keep_is_told_and_tried_again_until_it_is_kept() {
    let broker = Mosquitto::start();
    let mut daemon = Daemon::start(&config(broker.port(), Protocol::V5, ""));
    daemon.terminate();
    let second = guest("second");
    let running = version(&second);
    let in_the_way = kept(&daemon, "guest").join(hash(&second));
    fs::create_dir_all(in_the_way.join("x")).expect("is ours");
    daemon.home().put_plugin(PLUGIN, &second);
    daemon.restart();
    daemon.wait_event(RUNS_UNKEPT, &[("handler", "guest"), ("version", &running)]);
    // The first look at the file, which is due by itself.
    daemon.wait_metrics("it is tried again", |metrics| reloads(metrics, "failed") == 1.0);
    let told = || {
        let (page, shown) = (daemon.get("/readyz").body, handler(&daemon, "guest"));
        assert!(page.contains(&format!("runs version {running}: version {running} of ")), "{page}");
        assert!(page.contains(" could not be kept at "), "{page}");
        assert_eq!((&shown["version"], &shown["file"]["state"]), (&json!(running), &json!("not-kept")), "{shown}");
    };
    told();
    let said = daemon.refused(&["handlers", "reload", "guest"]);
    assert!(said.contains("cannot be kept for a restart: "), "{said}");
    told();
    assert_eq!(mark(&broker), "second");

    fs::remove_dir_all(&in_the_way).expect("is ours");
    let said = daemon.done(&["handlers", "reload", "guest"]);
    assert_eq!(said, format!("handler guest is unchanged: it runs version {running}\n"));
    assert_eq!(daemon.get("/readyz").body, "ready\n");
    replace_in_vain(&daemon, b"not a plugin", REFUSED);
    daemon.kill();
    daemon.restart();
    assert_eq!(mark(&broker), "second");
}

#[test]
fn handlers_of_one_file_change_together_as_far_as_they_can() {
    let broker = Mosquitto::start();
    let config = config(broker.port(), Protocol::V5, "")
        .guest("other", "plant", &format!("{NAMED}, ms = 1"), "")
        .guest("echo", "plant", "mode = \"echo\"", "");
    let daemon = Daemon::start(&config);
    replace(&daemon, "second");
    let second = version(&guest("second"));
    for name in ["other", "echo"] {
        daemon.wait_event(RUNS, &[("handler", name), ("version", &second)]);
    }
    // Only the configuration of the others asks the version not to start.
    let refuse = guest("refuse");
    replace_in_vain(&daemon, &refuse, REFUSED);
    daemon.wait_event(REFUSED, &[("handler", "other")]);
    daemon.wait_event(RUNS, &[("handler", "echo"), ("version", &version(&refuse))]);
    assert_eq!(handler(&daemon, "other")["version"], second);
    let ran = daemon.ask(&["handlers", "reload"]);
    let told = format!("handler echo is unchanged: it runs version {}\n", version(&refuse));
    assert_eq!((ran.code, ran.stdout), (Some(4), told), "{}", ran.stderr);
    let said =
        format!("handler guest keeps running version {second}: version {} is refused: init refused", version(&refuse));
    assert!(ran.stderr.contains(&said), "{}", ran.stderr);
}

/// The change reads the file for its handlers, and goes on: what the file becomes meanwhile is seen before they run.
#[test]
fn handlers_that_a_change_brings_run_what_their_file_became_while_it_was_made() {
    let broker = Mosquitto::start();
    let config = || config(broker.port(), Protocol::V5, "").top("native = true");
    let moved = |file: &str| format!("[handlers.moved]\nplugin = \"{file}\"\nconfig = {{ {NAMED} }}\n");
    let daemon = {
        let (config, admin) = (config().table(moved("other.wasm")), ports::free());
        let home = Home::new(&config, admin);
        home.put_plugin("other.wasm", &guest(ORIGINAL));
        let daemon = Daemon::of(home, admin);
        daemon.wait_ready();
        daemon
    };
    let gate = Gate::new();
    daemon.home().put_plugin("gate.so", &gate.plugin("stand();", REJECT));
    let waits = "[handlers.waits]\nplugin = \"gate.so\"\ncall-deadline = \"1m\"\ninstances = 1\n";
    let changed = config().guest("added", "plant", NAMED, "").table(moved(PLUGIN)).table(waits);
    daemon.home().configure(&Config { plugins: Vec::new(), ..changed }, daemon.admin());
    daemon.signal("HUP");
    gate.wait_reached();
    let second = guest("second");
    daemon.home().put_plugin(PLUGIN, &second);
    daemon.wait_event("a plugin's new version was compiled", &[("version", &version(&second))]);
    gate.open();
    for name in ["guest", "added", "moved"] {
        daemon.wait_event(RUNS, &[("handler", name), ("version", &version(&second))]);
        assert_eq!(handler(&daemon, name)["version"], json!(version(&second)));
    }
}

#[test]
fn a_version_without_an_export_that_is_needed_is_refused() {
    let broker = Mosquitto::start();
    let schedule = "[[schedules]]\nname = \"often\"\nevery = \"1h\"\non-schedule = \"guest\"\n";
    let daemon = Daemon::start(&config(broker.port(), Protocol::V5, "").table(schedule));
    let celsius = fs::read(tidegate_tests::daemon::built_plugin("celsius.wasm")).expect("is built");
    let reason = replace_in_vain(&daemon, &celsius, REFUSED);
    let told = "the schedule often runs the handler guest, whose plugin does not export on-schedule; ";
    assert!(reason.starts_with(told), "{reason}");
    assert_eq!(mark(&broker), ORIGINAL);
}

#[test]
fn nothing_is_kept_of_a_handler_that_is_removed() {
    let broker = Mosquitto::start();
    let mut daemon = Daemon::start(&config(broker.port(), Protocol::V5, ""));
    let add = ["handlers", "add", "added", "--plugin", PLUGIN, "--config", "mode=echo", "--call-deadline", "20s"];
    daemon.done(&add);
    assert!(kept(&daemon, "added").is_dir() && kept(&daemon, "guest").is_dir());
    daemon.done(&["handlers", "remove", "added"]);
    wait::until("what was kept is gone", || if kept(&daemon, "added").exists() { Err("it is there") } else { Ok(()) });
    daemon.terminate();
    daemon.restart_with(&Config::new().broker("plant", broker.port(), Protocol::V5, ""));
    assert!(!kept(&daemon, "guest").exists());
}

fn a_quarantined_handler_is_called_again_with_a_new_version_and_a_paused_one_is_not(protocol: Protocol) {
    let broker = Mosquitto::start();
    let keys = "retry = { max = 0 }\nquarantine = { after = 1, for = \"10m\" }";
    let daemon = Daemon::start(&config(broker.port(), protocol, keys));
    let collector = broker.client(protocol);
    collector.subscribe("out/#", 1);
    let publisher = broker.client(protocol);
    replace(&daemon, "trap");
    publisher.publish(&Message::new("in/a", "bad"));
    daemon.wait_metrics("it is quarantined", |metrics| {
        metrics.sum("tidegate_handler_quarantined", &[("handler", "guest")]) == 1.0
    });
    publisher.publish(&Message::new("in/a", "one"));
    daemon.wait_metrics("it is parked", |metrics| metrics.finished("plant", "parked") == 1.0);
    replace(&daemon, "second");
    assert_eq!(collector.collect(1)[0].text(), "one second");
    daemon.wait_event("the handler's quarantine ends: it runs another version", &[("handler", "guest")]);

    daemon.done(&["handlers", "pause", "guest"]);
    replace(&daemon, "third");
    publisher.publish(&Message::new("in/a", "two"));
    daemon.wait_metrics("it is parked", |metrics| metrics.finished("plant", "parked") == 2.0);
    assert_eq!((&handler(&daemon, "guest")["state"], collector.rest()), (&json!("paused"), Vec::new()));
    daemon.done(&["handlers", "resume", "guest"]);
    assert_eq!(collector.collect(1)[0].text(), "two third");
}
