//! The configuration read again while the daemon runs: what differs changes, everything else stays as it is, and a configuration with
//! a mistake changes nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};
use tidegate_tests::config::ECHO;
use tidegate_tests::mosquitto::Options;
use tidegate_tests::native::{HEAD, library};
use tidegate_tests::versions::{NAMED, ORIGINAL, guest};
use tidegate_tests::{Client, Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols, ports, wait};

on_both_protocols!(
    only_what_differs_changes,
    what_a_handlers_last_call_publishes_reaches_a_broker_that_is_removed,
    the_dead_letter_of_a_handlers_last_call_reaches_a_broker_that_is_removed,
    a_changed_handler_serves_while_another_broker_is_waited_for,
);

/// A broker that logs each packet.
fn broker() -> Mosquitto {
    Mosquitto::telling()
}

/// How often a broker has logged this of a client.
#[track_caller]
fn logged(broker: &Mosquitto, words: &str) -> usize {
    broker.log_until_now().iter().filter(|line| line.contains(words)).count()
}

/// The names of a list of a reload's answer, with what becomes of each.
fn changes(answer: &Value, list: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let all = answer[list].as_array().expect("a list").iter();
    all.map(|one| (text(&one["name"]), text(&one["change"]))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, change)| ((*name).to_owned(), (*change).to_owned())).collect()
}

/// Writes another configuration and has it read by command; what has changed.
#[track_caller]
fn reload_with(daemon: &Daemon, config: &Config) -> Value {
    daemon.home().configure(config, daemon.admin());
    daemon.json(&["reload"])
}

/// Writes another configuration that must be refused; why.
#[track_caller]
fn refused_with(daemon: &Daemon, config: &Config) -> String {
    daemon.home().configure(config, daemon.admin());
    daemon.refused(&["reload"])
}

/// Rejects the first two runs of each instance.
const TWICE: &str = "mode = \"reject\", attempts = 2";

/// A schedule that only a command runs.
fn never(name: &str, handler: &str) -> String {
    format!("[[schedules]]\nname = \"{name}\"\ncron = \"0 0 0 29 2 *\"\non-schedule = \"{handler}\"\n")
}

fn only_what_differs_changes(protocol: Protocol) {
    let (plant, cloud) = (broker(), broker());
    let config = |cloud_keys: &str, echo_keys: &str, topics: [&str; 2], schedules: &str| {
        let config = Config::new()
            .broker("plant", plant.port(), protocol, "client-id = \"gateway-plant\"")
            .broker("cloud", cloud.port(), protocol, &format!("client-id = \"gateway-cloud\"\n{cloud_keys}"))
            .guest("keeps", "plant", TWICE, "instances = 1\ndefault-broker = \"plant\"")
            .guest("echo", "plant", ECHO, &format!("instances = 1\n{echo_keys}"))
            .table(never("twice", "keeps"))
            .table(schedules);
        topics.iter().fold(config, |config, topic| config.subscription("plant", topic, 1, "echo", ""))
    };
    let beat = |name: &str| {
        format!(
            "[[schedules]]\nname = \"{name}\"\nevery = \"1s\"\npublish = {{ broker = \"plant\", topic = \"{name}\", message = \"x\" }}\n"
        )
    };
    let mut daemon = Daemon::start(&config("", "", ["in/#", "old/#"], &beat("gone")));
    // What this instance has in memory tells it from another.
    let runs = |code: i32| assert_eq!(daemon.ask(&["schedules", "run", "twice"]).code, Some(code));
    runs(1);
    runs(1);
    let before = plant.log_until_now().len();
    let answer = reload_with(&daemon, &config("keep-alive = 30", "queue = 9", ["in/#", "new/#"], &beat("comes")));
    assert_eq!(changes(&answer, "brokers"), pairs(&[("cloud", "reconnected")]));
    assert_eq!(changes(&answer, "handlers"), pairs(&[("echo", "changed")]));
    assert_eq!(changes(&answer, "subscriptions"), pairs(&[("plant:new/#", "added"), ("plant:old/#", "removed")]));
    assert_eq!(changes(&answer, "schedules"), pairs(&[("comes", "added"), ("gone", "removed")]));
    assert_eq!(answer["brokers"][0]["forced-by"], json!(["keep-alive"]));
    assert_eq!(answer["settings"], json!([]));
    runs(0);

    daemon.wait_recorded("plant", &[("in/#", "granted"), ("new/#", "granted")]);
    daemon.wait_broker("cloud");
    let connects = |broker: &Mosquitto, client: &str| logged(broker, &format!(" as {client} "));
    assert_eq!(connects(&plant, "gateway-plant"), 1, "{:#?}", plant.log());
    assert_eq!(connects(&cloud, "gateway-cloud"), 2, "{:#?}", cloud.log());
    // One for what is new, and one for what is not wanted any more.
    wait::until("the old filter is given back", || match logged(&plant, "Received UNSUBSCRIBE from gateway-plant") {
        1 => Ok(()),
        other => Err(other),
    });
    let log = &plant.log_until_now()[before..];
    let later = |words: &str| log.iter().filter(|line| line.contains(words)).count();
    assert_eq!(later("Received SUBSCRIBE from gateway-plant"), 1, "{log:#?}");
    assert!(later("new/#") > 0 && later("in/#") == 0, "{log:#?}");

    let client = plant.client(protocol);
    client.subscribe("out/#", 1);
    let sent = [Message::new("old/x", "no"), Message::new("in/x", "1"), Message::new("new/x", "2")];
    client.publish_all(&sent);
    let came: Vec<_> = client.collect(2).iter().map(Message::text).map(str::to_owned).collect();
    assert_eq!(came, ["1", "2"]);
    assert_eq!(daemon.settle("plant", 2).finished("plant", "handled"), 2.0);
    let client = plant.client(protocol);
    client.subscribe("comes", 0);
    client.collect(1);

    let nothing = daemon.done(&["reload"]);
    assert_eq!(nothing, "the configuration is reloaded: nothing has changed\n");
    assert_eq!(daemon.done(&["reload", "--dry-run"]), "nothing would change\n");
    daemon.terminate();
}

/// A call holds the message for so long: longer than a reload takes until it changes something, on a machine that is loaded besides.
const HOLD: u64 = 6_000;

/// A handler whose call is under way when `change` is made, and what collects from the broker that `change` removes.
#[track_caller]
fn while_a_call_is_under_way(
    protocol: Protocol,
    handler: impl Fn(Config, &str) -> Config,
    collects: &str,
    under_way: impl Fn(&Daemon),
) -> (Daemon, Client, [Mosquitto; 2]) {
    let (plant, cloud) = (broker(), broker());
    let with_plant = Config::new().broker("plant", plant.port(), protocol, "");
    let with_both = with_plant.clone().broker("cloud", cloud.port(), protocol, "");
    let subscribed = |config: Config| config.subscription("plant", "in/#", 1, "holds", "");
    let daemon = Daemon::start(&subscribed(handler(with_both, "cloud")));
    let collector = cloud.client(protocol);
    collector.subscribe(collects, 1);
    plant.client(protocol).publish(&Message::new("in/a", "one"));
    under_way(&daemon);
    let answer = reload_with(&daemon, &subscribed(handler(with_plant, "plant")));
    assert_eq!(changes(&answer, "brokers"), pairs(&[("cloud", "removed")]));
    assert_eq!(changes(&answer, "handlers"), pairs(&[("holds", "changed")]));
    (daemon, collector, [plant, cloud])
}

fn what_a_handlers_last_call_publishes_reaches_a_broker_that_is_removed(protocol: Protocol) {
    let holds = |config: Config, broker: &str| {
        let guest = format!("mode = \"hold\", ms = {HOLD}, broker = \"{broker}\"");
        config.guest("holds", broker, &guest, "instances = 1\ncall-deadline = \"1m\"")
    };
    let under_way = |daemon: &Daemon| {
        daemon.wait_event("holding", &[]);
    };
    let (daemon, collector, _brokers) = while_a_call_is_under_way(protocol, holds, "out/#", under_way);
    assert_eq!(collector.collect(1)[0].text(), "one");
    let metrics = daemon.settle("plant", 1);
    assert_eq!((metrics.finished("plant", "handled"), metrics.finished("plant", "dropped_purged")), (1.0, 0.0));
}

fn the_dead_letter_of_a_handlers_last_call_reaches_a_broker_that_is_removed(protocol: Protocol) {
    let holds = |config: Config, broker: &str| {
        let keys = format!(
            "instances = 1\nretry.max = 0\ncall-deadline = \"{HOLD}ms\"\ndead-letter = {{ broker = \"{broker}\", topic = \"dead\" }}"
        );
        config.guest("holds", "plant", "mode = \"loop\"", &keys)
    };
    let under_way = |daemon: &Daemon| {
        daemon.wait_metrics("the message is taken in", |metrics| metrics.received("plant") == 1.0);
        wait::until("it is called", || match daemon.metrics().sum("tidegate_handler_queue_messages", &[]) {
            0.0 => Ok(()),
            waiting => Err(waiting),
        });
    };
    let (daemon, collector, _brokers) = while_a_call_is_under_way(protocol, holds, "dead", under_way);
    assert_eq!(collector.collect(1)[0].topic, "dead");
    let metrics = daemon.settle("plant", 1);
    assert_eq!((metrics.finished("plant", "dead_letter"), metrics.finished("plant", "dropped_failed")), (1.0, 0.0));
}

/// One reload changes a handler of `plant`, and connects `cloud` anew, whose message in hand waits for a broker that is away.
fn a_changed_handler_serves_while_another_broker_is_waited_for(protocol: Protocol) {
    let (plant, cloud, away) = (broker(), broker(), ports::free());
    let config = |guest: &str, keys: &str| {
        Config::new()
            .top("shutdown-grace = \"1h\"")
            .broker("plant", plant.port(), protocol, "")
            .broker("cloud", cloud.port(), protocol, &format!("client-id = \"gateway-cloud\"\n{keys}"))
            .broker("away", away, protocol, "")
            .guest("echo", "plant", guest, "instances = 1")
            .guest("bridge", "away", "mode = \"echo\", broker = \"away\"", "")
            .subscription("plant", "in/#", 1, "echo", "")
            .subscription("cloud", "in/#", 1, "bridge", "")
    };
    let daemon = Daemon::launch(&config(ECHO, ""));
    daemon.wait_broker("plant");
    daemon.wait_broker("cloud");
    cloud.client(protocol).publish(&Message::new("in/b", "waits"));
    daemon.wait_shown("away", "has a message waiting", |shown| shown["outbox"]["messages"] == 1);
    let client = plant.client(protocol);
    client.subscribe("out/#", 1);

    daemon.home().configure(&config(NAMED, "keep-alive = 30"), daemon.admin());
    let mut reload = daemon.begin(&["reload"]);
    wait::until("the changed handler handles a message", || {
        client.publish(&Message::new("in/a", "x"));
        match client.collect(1)[0].text() {
            text if text == format!("x {ORIGINAL}") => Ok(()),
            text => Err(text.to_owned()),
        }
    });
    assert_eq!(reload.ended(), None, "cloud is waited for");

    let _away = Mosquitto::on(away, Options::default());
    assert_eq!(reload.wait(wait::PATIENCE).code(), Some(0), "{:?}", reload.lines());
    daemon.wait_broker("cloud");
    assert_eq!(logged(&cloud, " as gateway-cloud "), 2, "{:#?}", cloud.log());
    assert_eq!(daemon.settle("cloud", 1).finished("cloud", "handled"), 1.0);
}

/// Leads to the daemon also where its file does not.
const SOCKET: [&str; 2] = ["--socket", "state/admin.sock"];

/// What runs, as an operator sees it.
fn seen(daemon: &Daemon) -> Value {
    let json = |command: &[&str]| daemon.json(&[command, &SOCKET].concat());
    let lists = ["brokers", "subscriptions", "handlers", "schedules"].map(|list| {
        let mut all = json(&[list, "list"]);
        let names = all.as_array_mut().expect("a list").iter_mut();
        names
            .map(|one| [one["name"].take(), one["port"].take(), one["topic"].take(), one["queue"].take()])
            .collect::<Vec<_>>()
    });
    json!([lists, json(&["config", "show"]), json(&["recv", "list"])])
}

#[test]
fn a_reload_that_fails_changes_nothing_and_says_why() {
    let broker = broker();
    let config = |port: u16, topic: &str, plugin: &str, rest: &str| {
        Config::new()
            .broker("plant", port, Protocol::V5, "client-id = \"gateway\"")
            .guest("echo", "plant", ECHO, "instances = 1")
            .subscription("plant", topic, 1, "echo", "")
            .table(format!("[handlers.second]\nplugin = \"{plugin}\"\ncall-deadline = \"20s\"\n"))
            .table(rest)
    };
    let good = |topic: &str| config(broker.port(), topic, "misbehave.wasm", "");
    let daemon =
        Daemon::start(&config(broker.port(), "in/#", "misbehave.wasm", "[handlers.second.config]\nmode = \"echo\"\n"));
    broker.client(Protocol::V5).publish(&Message::new("in/a", "kept"));
    daemon.wait_received(&[("in/a", "kept")]);
    let (before, metrics) = (seen(&daemon), daemon.metrics());
    let started = metrics.sum("tidegate_config_last_reload_success_timestamp_seconds", &[]);
    let successful = |daemon: &Daemon| daemon.metrics().sum("tidegate_config_last_reload_successful", &[]);
    assert!(started > 0.0 && successful(&daemon) == 1.0);
    daemon.home().write("plugins/bad.wasm", "no plugin");
    let file = daemon.home().path().join("tidegate.toml");
    let unchanged = |told: &str, expected: &[&str]| {
        for words in expected {
            assert!(told.contains(words), "{words:?} is not in {told}");
        }
        assert_eq!(seen(&daemon), before);
        assert_eq!(successful(&daemon), 0.0);
        let ready = daemon.get("/readyz");
        assert!(ready.status == 200 && ready.body.starts_with("ready\n"), "{}", ready.body);
        let status = [&["status"][..], &SOCKET].concat();
        let last = &daemon.json(&status)["last-reload"];
        assert_eq!(last["successful"], false);
        for told in [ready.body, daemon.done(&status), last.to_string().replace("\\\"", "\"")] {
            assert!(told.contains(expected[0]), "{:?} is not in {told}", expected[0]);
        }
    };
    // All of it is told, and none of it done: everything else of this one would be good.
    let told = refused_with(
        &daemon,
        &config(1, "elsewhere/#", "misbehave.wasm", "[brokers.second]\nprot = 1\naddress = \"tcp://x\"\n"),
    );
    unchanged(&told, &["brokers.second.prot: unknown key", "brokers.second.address = \"tcp://x\""]);
    let told = refused_with(&daemon, &config(1, "elsewhere/#", "bad.wasm", "").top("recv-buffer = 0"));
    unchanged(&told, &["handlers.second.plugin = \"bad.wasm\": ", "tidegate.toml:"]);
    let told = refused_with(&daemon, &good("elsewhere/#").top("native-plugin-dir = 1"));
    unchanged(&told, &["native-plugin-dir: unknown key"]);
    // Half of a file, by SIGHUP.
    let whole = fs::read_to_string(&file).expect("is there");
    daemon.home().write("tidegate.toml", &whole[..whole.find("protocol").expect("has one") + 12]);
    daemon.signal("HUP");
    let event = daemon.wait_event(
        "the configuration is not reloaded, and nothing has changed",
        &[("trigger", "SIGHUP"), ("refusal", "not valid TOML")],
    );
    unchanged(&event.to_string(), &["not valid TOML"]);
    fs::remove_file(&file).expect("is there");
    unchanged(&daemon.ask(&["reload", "--socket", "state/admin.sock"]).stderr, &["cannot be read: it does not exist"]);
    // What needs a restart is no half change either.
    daemon
        .home()
        .configure(&good("elsewhere/#").admin("token-file = \"token\"").top("recv-buffer = 7"), daemon.admin());
    let told = daemon.refused(&["reload", "--socket", "state/admin.sock"]);
    unchanged(&told, &["admin.token-file = \"token\": cannot change while the daemon runs", "restart the daemon"]);

    let answer = reload_with(&daemon, &good("other/#").table("[handlers.second.config]\nmode = \"echo\"\n"));
    assert_eq!(changes(&answer, "subscriptions"), pairs(&[("plant:other/#", "added"), ("plant:in/#", "removed")]));
    assert_eq!(successful(&daemon), 1.0);
    // Once the broker has granted what is new.
    wait::until("it is ready", || match daemon.get("/readyz").body {
        ready if ready == "ready\n" => Ok(()),
        other => Err(other),
    });
    assert_eq!(daemon.json(&["status"])["last-reload"]["successful"], true);
    let success = daemon.metrics().sum("tidegate_config_last_reload_success_timestamp_seconds", &[]);
    assert!(success >= started, "{success} is after {started}");
    assert_eq!(logged(&broker, " as gateway "), 1, "it is connected as before");
}

#[test]
fn a_dry_run_tells_the_same_as_the_reload_and_changes_nothing() {
    let broker = broker();
    let config = |keys: &str| Config::new().broker("plant", broker.port(), Protocol::V5, keys);
    let daemon = Daemon::start(&config("username = \"u\"\npassword = \"hunter2\""));
    daemon.home().configure(&config("username = \"u\"\npassword = \"hunter3\"").top("recv-buffer = 9"), daemon.admin());
    let table = "WHAT     NAME         CHANGE       KEYS\nsetting  recv-buffer  changed      -\n\
                 broker   plant        reconnected  password\n";
    let told = daemon.done(&["reload", "--dry-run"]);
    assert_eq!(told, format!("{table}\nthis would change; nothing has changed yet\n"));
    let settings = daemon.json(&["config", "show"]).to_string();
    assert!(!settings.contains("recv-buffer") && daemon.json(&["status"])["last-reload"].is_null(), "{settings}");
    let mut would = daemon.json(&["reload", "--dry-run"]);
    assert_eq!(daemon.done(&["reload", "--dry-run"]), told);
    would["dry-run"] = false.into();
    assert_eq!(daemon.json(&["reload"]), would);
    assert!(daemon.json(&["config", "show"]).to_string().contains("recv-buffer"));
    assert!(!daemon.log().iter().any(|line| line.contains("hunter")), "a secret is in the log");
}

/// What is kept of plugins, by path.
fn kept(daemon: &Daemon) -> BTreeMap<PathBuf, Vec<u8>> {
    let handlers = fs::read_dir(daemon.home().path().join("state/plugins")).expect("is there");
    let files = handlers.flat_map(|handler| fs::read_dir(handler.expect("is there").path()).expect("is a folder"));
    let paths = files.map(|file| file.expect("is there").path());
    paths.map(|path| (path.clone(), fs::read(path).expect("is a file"))).collect()
}

#[test]
fn what_is_kept_of_plugins_changes_with_what_runs_and_not_before() {
    let broker = broker();
    let config = |plugin: &str, rest: &str| {
        let guest = "config = { mode = \"echo\" }\ninstances = 1\ncall-deadline = \"20s\"";
        let config = Config::new().broker("plant", broker.port(), Protocol::V5, "");
        config.table(format!("[handlers.echo]\nplugin = \"{plugin}\"\n{guest}\n")).table(rest)
    };
    let daemon = Daemon::start(&config("misbehave.wasm", "").guest("same", "plant", ECHO, ""));
    let other = guest("other");
    daemon.home().write("plugins/other.wasm", &other);
    daemon.home().write("plugins/bad.wasm", "no plugin");
    let before = kept(&daemon);
    assert_eq!(before.len(), 4, "a version and a record of each of two handlers");
    daemon.home().configure(&config("other.wasm", ""), daemon.admin());
    daemon.done(&["reload", "--dry-run"]);
    assert!(kept(&daemon) == before, "a dry run keeps nothing");
    refused_with(&daemon, &config("other.wasm", "[handlers.bad]\nplugin = \"bad.wasm\"\n"));
    assert!(kept(&daemon) == before, "what is refused keeps nothing");
    reload_with(&daemon, &config("other.wasm", ""));
    wait::until("what does not run any more is not kept either", || match kept(&daemon) {
        copies if copies.len() == 2 && copies.values().any(|bytes| *bytes == other) => Ok(()),
        copies => Err(format!("{:?}", copies.keys())),
    });
}

#[test]
fn settings_of_the_daemon_change_at_once() {
    let broker = broker();
    let config = |top: &str| {
        Config::new()
            .top(top)
            .broker("plant", broker.port(), Protocol::V5, "")
            .guest("echo", "plant", "mode = \"hold\", ms = 60000", "call-deadline = \"5m\"")
            .subscription("plant", "in/#", 1, "echo", "")
    };
    let mut daemon = Daemon::start(&config("recv-buffer = 100\nshutdown-grace = \"1h\""));
    let client = broker.client(Protocol::V5);
    client.publish_all(&(0..5).map(|n| Message::new("in/a", format!("{n}"))).collect::<Vec<_>>());
    wait::until("five are kept", || match daemon.received().len() {
        5 => Ok(()),
        other => Err(other),
    });
    let answer = reload_with(&daemon, &config("recv-buffer = 2\nshutdown-grace = \"500ms\""));
    assert_eq!(answer["settings"], json!(["shutdown-grace", "recv-buffer"]));
    let kept: Vec<_> = daemon.received().into_iter().map(|(_, data)| data).collect();
    assert_eq!(kept, ["3", "4"]);
    // With an hour this would not end.
    daemon.terminate();
    assert!(!daemon.log_lines(&["stopped at the end of shutdown-grace"]).is_empty(), "a call was under way");
}

#[test]
fn the_level_of_the_log_changes_at_once() {
    let daemon = Daemon::start(&Config::new());
    let text = fs::read_to_string(daemon.home().path().join("tidegate.toml")).expect("is there");
    let level = |level: &str| {
        daemon.home().write("tidegate.toml", text.replace("level = \"debug\"", &format!("level = \"{level}\"")));
        assert_eq!(daemon.json(&["reload"])["settings"], json!(["log.level"]));
    };
    let said = || daemon.log_lines(&["configuration reloaded"]).len();
    level("error");
    assert_eq!(daemon.done(&["reload"]), "the configuration is reloaded: nothing has changed\n");
    level("info");
    wait::until("it is said again", || if said() == 1 { Ok(()) } else { Err(said()) });
}

#[test]
fn a_value_from_outside_counts_at_a_reload_and_at_no_command() {
    let broker = broker();
    let config = Config::new().broker("plant", broker.port(), Protocol::V5, "client-id = \"${file:client}\"");
    let home_file = |daemon: &Daemon, text: &str| daemon.home().write("client", text);
    let daemon = {
        let mut config = config.clone();
        config.tables = config.tables.replace("${file:client}", "${env:NONE}");
        let config = config.variable("NONE", "gateway-one");
        Daemon::start(&config)
    };
    home_file(&daemon, "gateway-one\n");
    let answer = reload_with(&daemon, &config);
    assert_eq!(answer["brokers"], json!([]), "it stands for the same");
    home_file(&daemon, "gateway-two\n");
    daemon.done(&["subscribe", "--broker", "plant", "--topic", "t"]);
    assert_eq!(logged(&broker, " as gateway-two "), 0);
    let answer = daemon.json(&["reload"]);
    let keys = json!(["client-id"]);
    assert_eq!((&answer["brokers"][0]["change"], &answer["brokers"][0]["keys"]), (&json!("reconnected"), &keys));
    daemon.wait_broker("plant");
    assert_eq!((logged(&broker, " as gateway-one "), logged(&broker, " as gateway-two ")), (1, 1));
}

#[test]
fn files_that_change_are_read_again_where_they_are_watched() {
    let broker = broker();
    let config =
        |top: &str| Config::new().top(top).broker("plant", broker.port(), Protocol::V5, "client-id = \"gateway\"");
    let daemon = Daemon::start(&config("watch-config = true"));
    let file = daemon.home().path().join("tidegate.toml");
    let subscription = |topic: &str| format!("[[subscriptions]]\nbroker = \"plant\"\ntopic = \"{topic}\"\n");
    let has = |name: &str| {
        wait::until(format!("{name} is subscribed"), || {
            let all = daemon.json(&["subscriptions", "list"]);
            let granted = |one: &Value| one["name"] == name && one["state"] == "granted";
            if all.as_array().expect("a list").iter().any(granted) { Ok(()) } else { Err(all.to_string()) }
        });
    };
    let reloads = || daemon.log_lines(&["configuration reloaded"]).len();
    // Written in its place, in two steps, and open meanwhile.
    let whole = fs::read_to_string(&file).expect("is there");
    let (half, rest) = whole.split_at(whole.len() / 2);
    let mut written = File::create(&file).expect("is ours");
    written.write_all(half.as_bytes()).expect("is ours");
    written.write_all(format!("{rest}{}", subscription("one")).as_bytes()).expect("is ours");
    drop(written);
    has("plant:one");
    wait::until("half of it was never read", || match reloads() {
        1 => Ok(()),
        other => Err(other),
    });
    // Put in its place.
    daemon.home().write("next.toml", format!("{whole}{}", subscription("two")));
    fs::rename(daemon.home().path().join("next.toml"), &file).expect("is ours");
    has("plant:two");
    // Beside it, in a folder that was not there.
    daemon.home().write("conf.d/three.toml", subscription("three"));
    has("plant:three");
    daemon.home().write("conf.d/three.toml", "x");
    daemon.wait_event("the configuration is not reloaded, and nothing has changed", &[("trigger", "watch-config")]);
    wait::until_true("the page tells it", || {
        daemon.get("/readyz").body.contains("the last reload of the configuration failed")
    });
    daemon.home().write("conf.d/three.toml", subscription("three"));
    wait::until("the failure is over", || match daemon.get("/readyz").body.as_str() {
        "ready\n" => Ok(()),
        other => Err(other.to_owned()),
    });
    // Until it is not wanted any more, at once.
    fs::write(&file, whole.replace("watch-config = true", "")).expect("is ours");
    wait::until("it is read", || match daemon.json(&["config", "show"]).to_string() {
        shown if !shown.contains("watch-config") => Ok(()),
        shown => Err(shown),
    });
    daemon.home().write("conf.d/three.toml", subscription("four"));
    assert_eq!(daemon.json(&["reload"])["subscriptions"].as_array().map(Vec::len), Some(2), "nobody else has read it");
    assert_eq!(logged(&broker, " as gateway "), 1);
}

#[test]
fn what_was_added_by_command_and_contradicts_the_files_is_told() {
    let broker = broker();
    let daemon = Daemon::start(&Config::new());
    let port = broker.port().to_string();
    daemon.done(&["brokers", "add", "plant", "--address", "127.0.0.1", "--port", &port]);
    daemon.done(&["subscribe", "--broker", "plant", "--topic", "t"]);
    let told = refused_with(&daemon, &Config::new().broker("plant", broker.port(), Protocol::V5, ""));
    let remedy = "it was added by command: remove it with `tidegate brokers remove plant`";
    assert!(told.contains("brokers.plant: also defined at ") && told.contains(remedy), "{told}");
    // What was added stays through a reload of the files.
    assert_eq!(reload_with(&daemon, &Config::new().top("recv-buffer = 5"))["brokers"], json!([]));
    daemon.wait_granted("plant:t");
}

#[test]
fn a_broker_that_is_away_is_not_removed_while_something_waits_for_it() {
    let plant = broker();
    let without = Config::new().broker("plant", plant.port(), Protocol::V5, "");
    let with = without
        .clone()
        .broker("away", 1, Protocol::V5, "auto-connect = false")
        .guest("echo", "away", "mode = \"echo\", broker = \"away\"", "")
        .subscription("plant", "in/#", 1, "echo", "");
    let daemon = Daemon::start(&with);
    plant.client(Protocol::V5).publish(&Message::new("in/a", "x"));
    daemon.wait_shown("away", "has a message waiting", |shown| shown["outbox"]["messages"] == 1);
    let told = refused_with(&daemon, &without);
    let why = "the broker away stands in no file any more, is not connected, and 1 messages wait in memory";
    assert!(told.contains(why) && told.contains("`tidegate outbox purge away`"), "{told}");
    assert_eq!(daemon.broker("away")["outbox"]["messages"], 1);
    daemon.done(&["outbox", "purge", "away"]);
    let answer = reload_with(&daemon, &without);
    assert_eq!(changes(&answer, "brokers"), pairs(&[("away", "removed")]));
    assert_eq!(changes(&answer, "handlers"), pairs(&[("echo", "removed")]));
}

/// A native plugin whose instances start once `go` is there; then it does nothing. It says that it waits by the file `begun`.
fn starts_late(daemon: &Daemon) -> Vec<u8> {
    let [begun, go] = ["begun", "go"].map(|name| daemon.home().path().join(name).display().to_string());
    library(&format!(
        "#define _GNU_SOURCE\n#include <fcntl.h>\n#include <unistd.h>\n{HEAD}\
         static tg_status create(tg_call *call, void **state) {{\n\
             (void)call; (void)state;\n\
             if (close(open(\"{begun}\", O_WRONLY | O_CREAT, 0600)) != 0) return TG_REJECT;\n\
             while (access(\"{go}\", F_OK) != 0) usleep(1000);\n\
             return TG_OK;\n}}\n\
         static tg_status on_message(void *state, tg_call *call, const tg_message *message) {{\n\
             (void)state; (void)call; (void)message;\nreturn TG_OK;\n}}\n\
         static const tg_plugin plugin = {{ sizeof(tg_plugin), TG_MINOR, TG_LITERAL(\"late\"), TG_LITERAL(\"1\"),\n\
             create, on_message, NULL, NULL }};\n\
         TG_EXPORT const tg_plugin *tidegate_plugin_v1(const tg_host *table);\n\
         TG_EXPORT const tg_plugin *tidegate_plugin_v1(const tg_host *table) {{ host = table; return &plugin; }}\n"
    ))
}

/// The answer holds for when it is made, and not for when it was asked.
#[test]
fn a_broker_that_is_lost_while_a_reload_is_prepared_is_not_removed_while_something_waits_for_it() {
    let (plant, mut away) = (broker(), broker());
    let without = Config::new().top("native = true").broker("plant", plant.port(), Protocol::V5, "");
    let with = without
        .clone()
        .broker("away", away.port(), Protocol::V5, "")
        .guest("echo", "away", "mode = \"echo\", broker = \"away\"", "")
        .subscription("plant", "in/#", 1, "echo", "");
    let daemon = Daemon::start(&with);
    daemon.home().install("late.so", &starts_late(&daemon));
    let late = "[handlers.late]\nplugin = \"late.so\"\ninstances = 1\ncall-deadline = \"10m\"\n";
    daemon.home().configure(&without.table(late), daemon.admin());
    let mut reload = daemon.begin(&["reload"]);
    wait::until_true("it is being prepared", || daemon.home().path().join("begun").exists());
    away.kill();
    daemon.wait_connected("away", false);
    plant.client(Protocol::V5).publish(&Message::new("in/a", "x"));
    daemon.wait_shown("away", "has a message waiting", |shown| shown["outbox"]["messages"] == 1);
    daemon.home().write("go", "");
    let (code, told) = (reload.wait(wait::PATIENCE).code(), reload.lines().join("\n"));
    let why = "the broker away stands in no file any more, is not connected, and 1 messages wait in memory";
    assert!(code == Some(4) && told.contains(why), "{code:?} {told}");
    away.restart();
    daemon.wait_connected("away", true);
    assert_eq!(daemon.settle("plant", 1).finished("plant", "handled"), 1.0);
}
