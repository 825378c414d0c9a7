//! A trial that comes to its verdict while a change of the configuration is under way: what was to be rolled back does not run, and is
//! not tried anew; what has passed runs.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tidegate_tests::native::{HEAD, library};
use tidegate_tests::versions::{NAMED, ORIGINAL, guest, version};
use tidegate_tests::{Client, Config, Daemon, Home, Message, Mosquitto, Protocol, ports, wait};

const ON_TRIAL: &str = "a new version of the handler's plugin is on trial";

const RELOADED: &str = "configuration reloaded";

/// Leads to the daemon without a look at its configuration, which cannot be read just now.
const SOCKET: [&str; 2] = ["--socket", "state/admin.sock"];

/// A handler of the test guest, all of whose first calls run on a version on trial while there is one.
fn guests(port: u16, canary: &str, keys: &str) -> Config {
    let keys = format!("instances = 2\nreload = {{ canary = {canary} }}\nretry = {{ max = 0 }}\n{keys}");
    Config::new()
        .top("native = true")
        .broker("plant", port, Protocol::V5, "client-id = \"gateway\"")
        .guest("guest", "plant", NAMED, &keys)
        .subscription("plant", "in/#", 1, "guest", "")
}

fn handler(daemon: &Daemon, name: &str) -> Value {
    daemon.json(&[&["handlers", "list", name][..], &SOCKET].concat())
}

/// Replaces the file, and waits until its version is on trial. Its hash.
#[track_caller]
fn put_on_trial(daemon: &Daemon, file: &str, bytes: &[u8]) -> String {
    daemon.home().put_plugin(file, bytes);
    let version = version(bytes);
    daemon.wait_event(ON_TRIAL, &[("version", &version)]);
    version
}

/// Has so many calls run on trial, so that the verdict is there. It waits for the change that is under way.
#[track_caller]
fn come_to_verdict(daemon: &Daemon, client: &Client, calls: usize) {
    client.publish_all(&(0..calls).map(|n| Message::new(format!("in/{}", n % 3), format!("{n}"))).collect::<Vec<_>>());
    client.collect(calls);
    wait::until("the verdict is there", || match &handler(daemon, "guest")["trial"] {
        trial if trial["calls"] == calls => Ok(()),
        other => Err(other.to_string()),
    });
}

/// The version on trial was rolled back once, and is not tried any more.
#[track_caller]
fn is_rolled_back(daemon: &Daemon, name: &str, [running, refused]: [&str; 2], reason: &str) {
    let shown = handler(daemon, name);
    assert_eq!((&shown["version"], &shown["trial"]), (&json!(running), &Value::Null), "{shown}");
    let file = &shown["file"];
    assert_eq!((&file["state"], &file["version"]), (&json!("refused"), &json!(refused)), "{shown}");
    assert!(file["reason"].as_str().is_some_and(|told| told.starts_with(reason)), "{shown}");
    let reloads =
        |result| daemon.metrics().sum("tidegate_handler_reloads_total", &[("handler", name), ("result", result)]);
    assert_eq!((reloads("rolled_back"), reloads("ok")), (1.0, 0.0));
}

/// A file of the configuration whose end is not there yet: a reload waits for it.
struct Unfinished {
    file: File,
    path: PathBuf,
}

impl Unfinished {
    /// Has the configuration read again, and waits until that waits for this file.
    #[track_caller]
    fn read_by(daemon: &Daemon) -> Unfinished {
        let path = daemon.home().path().join("conf.d/unfinished.toml");
        fs::create_dir_all(path.parent().expect("is in a folder")).expect("the folder is ours");
        assert!(Command::new("mkfifo").arg(&path).status().expect("coreutils are installed").success());
        // With both ends open nobody waits for the other end.
        let file = OpenOptions::new().read(true).write(true).open(&path).expect("is ours");
        daemon.signal("HUP");
        let folder = format!("/proc/{}/fd", daemon.id());
        wait::until_true("the daemon reads it", || {
            let opened = fs::read_dir(&folder).expect("the daemon runs").flatten();
            opened.filter_map(|one| fs::read_link(one.path()).ok()).any(|opened| opened == path)
        });
        Unfinished { file, path }
    }

    /// Lets the reload go on, and waits for its end.
    #[track_caller]
    fn finish(mut self, daemon: &Daemon) {
        self.file.write_all(b"\n").expect("somebody reads");
        drop(self.file);
        daemon.wait_event(RELOADED, &[]);
        fs::remove_file(self.path).expect("is ours");
    }
}

/// A handler with a version on trial that comes to its verdict, after so many calls, while a reload that changes the handler is under
/// way before it.
#[track_caller]
fn with_a_change_ahead(broker: &Mosquitto, name: &str, calls: usize, canary: &str, keys: &str) -> (Daemon, String) {
    let daemon = Daemon::start(&guests(broker.port(), "1", ""));
    let client = broker.client(Protocol::V5);
    client.subscribe("out/#", 1);
    let tried = put_on_trial(&daemon, "misbehave.wasm", &guest(name));
    configure(&daemon, &guests(broker.port(), canary, keys), name);
    let unfinished = Unfinished::read_by(&daemon);
    come_to_verdict(&daemon, &client, calls);
    unfinished.finish(&daemon);
    (daemon, tried)
}

/// Writes another configuration, and leaves the plugin as it is.
fn configure(daemon: &Daemon, config: &Config, name: &str) {
    let config = Config { plugins: Vec::new(), ..config.clone() };
    daemon.home().configure(&config, daemon.admin());
    let plugin = fs::read(daemon.home().path().join("plugins/misbehave.wasm")).expect("is there");
    assert_eq!(plugin, guest(name));
}

#[test]
fn a_version_that_is_to_be_rolled_back_is_not_tried_anew_by_a_change_before_that() {
    let broker = Mosquitto::start();
    let original = version(&guest(ORIGINAL));
    for (canary, keys) in [("1", "queue = 9"), ("\"off\"", "")] {
        let (daemon, tried) = with_a_change_ahead(&broker, "trap", 20, canary, keys);
        is_rolled_back(&daemon, "guest", [&original, &tried], "20 of 20 calls on trial failed");
    }
}

#[test]
fn a_version_that_has_passed_runs_after_a_change_before_that() {
    let broker = Mosquitto::start();
    let (daemon, tried) = with_a_change_ahead(&broker, "second", 100, "1", "queue = 9");
    let shown = handler(&daemon, "guest");
    assert_eq!((&shown["version"], &shown["trial"]), (&json!(tried), &Value::Null), "{shown}");
    assert_eq!(shown["file"]["state"], json!("runs"), "{shown}");
}

/// Two files by which a native plugin and a scenario wait for each other.
pub(crate) struct Gate {
    reached: PathBuf,
    open: PathBuf,
}

impl Gate {
    pub(crate) fn of(home: &Home) -> Gate {
        Gate { reached: home.path().join("reached"), open: home.path().join("open") }
    }

    /// The plugin that stands there: in `create`, or in the calls for messages that begin with `w`; those calls reject after that.
    pub(crate) fn library(&self, in_create: bool) -> Vec<u8> {
        let text = |path: &Path| path.to_str().expect("is text").to_owned();
        let (reached, open) = (text(&self.reached), text(&self.open));
        let create = if in_create { "stand();" } else { "" };
        library(&format!(
            "#define _GNU_SOURCE\n#include <fcntl.h>\n#include <stdlib.h>\n#include <time.h>\n#include <unistd.h>\n{HEAD}\n\
             static inline void stand(void) {{\n\
                 int file = open(\"{reached}\", O_WRONLY | O_CREAT | O_APPEND, 0600);\n\
                 if (file < 0 || close(file) != 0) abort();\n\
                 struct timespec pause = {{ 0, 5000000 }};\n\
                 while (access(\"{open}\", F_OK) != 0) nanosleep(&pause, NULL);\n\
             }}\n\
             static tg_status create(tg_call *call, void **state) {{ (void)call; (void)state; {create} return TG_OK; }}\n\
             static tg_status on_message(void *state, tg_call *call, const tg_message *message) {{\n\
                 (void)state;\n\
                 if (message->payload.len > 0 && message->payload.ptr[0] == 'w') stand();\n\
                 return tg_reject(host, call, \"no\");\n\
             }}\n\
             static const tg_plugin plugin = {{ sizeof(tg_plugin), TG_MINOR, TG_LITERAL(\"made\"), TG_LITERAL(\"1\"),\n\
                 create, on_message, NULL, NULL }};\n\
             TG_EXPORT const tg_plugin *tidegate_plugin_v1(const tg_host *table);\n\
             TG_EXPORT const tg_plugin *tidegate_plugin_v1(const tg_host *table) {{ host = table; return &plugin; }}\n"
        ))
    }

    #[track_caller]
    pub(crate) fn wait_reached(&self) {
        wait::until_true("the plugin has come to the gate", || self.reached.exists());
    }

    pub(crate) fn open(&self) {
        fs::write(&self.open, "").expect("the folder is ours");
    }
}

/// The reload has begun to prepare what it changes, and would start the version on trial as the one that runs.
#[test]
fn a_version_that_is_to_be_rolled_back_while_a_change_is_prepared_does_not_run_by_that() {
    let broker = Mosquitto::start();
    let daemon = Daemon::start(&guests(broker.port(), "1", ""));
    let client = broker.client(Protocol::V5);
    client.subscribe("out/#", 1);
    let trap = put_on_trial(&daemon, "misbehave.wasm", &guest("trap"));
    let gate = Gate::of(daemon.home());
    daemon.home().put_plugin("gate.so", &gate.library(true));
    let gated = "[handlers.gated]\nplugin = \"gate.so\"\ncall-deadline = \"1m\"\ninstances = 1\n";
    configure(&daemon, &guests(broker.port(), "\"off\"", "").table(gated), "trap");
    daemon.signal("HUP");
    gate.wait_reached();
    come_to_verdict(&daemon, &client, 20);
    gate.open();
    daemon.wait_event(RELOADED, &[]);
    is_rolled_back(&daemon, "guest", [&version(&guest(ORIGINAL)), &trap], "20 of 20 calls on trial failed");
    assert_eq!(handler(&daemon, "gated")["instances"], json!(1));
}

/// The last call on trial ends when the handler that made it is being replaced.
#[test]
fn a_verdict_of_the_last_call_before_a_change_counts_after_it() {
    let (plant, cloud) = (Mosquitto::start(), Mosquitto::telling());
    let made = |keys: &str| {
        Config::new()
            .top("native = true")
            .broker("plant", plant.port(), Protocol::V5, "client-id = \"gateway\"")
            .table(format!(
                "[handlers.made]\nplugin = \"made.so\"\ncall-deadline = \"1m\"\ninstances = 1\n\
                 reload = {{ canary = 1 }}\nretry = {{ max = 0 }}\n{keys}"
            ))
            .subscription("plant", "in/#", 1, "made", "")
    };
    let (config, admin) = (made(""), ports::free());
    let home = Home::new(&config, admin);
    let works = library(&tidegate_tests::native::plugin("return TG_OK;"));
    home.install("made.so", &works);
    let daemon = Daemon::of(home, admin);
    daemon.wait_ready();
    let gate = Gate::of(daemon.home());
    let rejects = put_on_trial(&daemon, "made.so", &gate.library(false));
    let client = plant.client(Protocol::V5);
    client.publish_all(&(0..19).map(|n| Message::new("in/a", format!("{n}"))).collect::<Vec<_>>());
    client.publish(&Message::new("in/a", "wait"));
    gate.wait_reached();
    assert_eq!(handler(&daemon, "made")["trial"]["calls"], json!(19));
    let changed = made("queue = 9").broker("cloud", cloud.port(), Protocol::V5, "client-id = \"gateway-cloud\"");
    daemon.home().configure(&changed, admin);
    daemon.signal("HUP");
    // Brokers come before handlers: all is prepared, and being made.
    wait::until("the new broker is connected", || {
        let log = cloud.log_until_now();
        if log.iter().any(|line| line.contains(" as gateway-cloud ")) { Ok(()) } else { Err(log.join("\n")) }
    });
    gate.open();
    daemon.wait_event(RELOADED, &[]);
    is_rolled_back(&daemon, "made", [&version(&works), &rejects], "20 of 20 calls on trial failed");
    assert_eq!(daemon.settle("plant", 20).finished("plant", "handled"), 20.0);
}
