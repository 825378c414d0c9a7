//! Native plugins: the samples at work, what is refused with which words, code that hangs, and new versions.

use serde_json::json;
use tidegate_tests::gate::{AT_W, ECHO, Gate};
use tidegate_tests::metrics::Metrics;
use tidegate_tests::native::{HEAD, entry, library, plugin};
use tidegate_tests::versions::version;
use tidegate_tests::{Config, Daemon, Home, Message, Mosquitto, Protocol, on_both_protocols, ports};

const REFUSED: &str = "a new version of the handler's plugin is refused, the handler keeps the one that runs";

const REFUSED_AT_START: &str =
    "the handler's plugin file is refused, it runs the copy of the version that it ran before";

on_both_protocols!(the_sample_in_c_counts, the_sample_in_rust_keeps_a_journal,);

fn the_sample_in_c_counts(protocol: Protocol) {
    let broker = Mosquitto::start();
    let config = Config::new()
        .top("native = true")
        .broker("plant", broker.port(), protocol, "")
        .handler("counter", "native-c.so", "instances = 2\nallow = { publish = [\"plant:count/#\"], kv = \"64KiB\" }")
        .subscription("plant", "in/#", 1, "counter", "");
    let mut daemon = Daemon::start(&config);
    let collector = broker.client(protocol);
    collector.subscribe("count/#", 1);
    let publisher = broker.client(protocol);
    let messages: Vec<_> = (0..30).map(|number| Message::new(format!("in/{}", number % 3), "x")).collect();
    publisher.publish_all(&messages);
    let came = collector.collect(30);
    for topic in 0..3 {
        let of = format!("count/in/{topic}");
        let counts: Vec<_> = came.iter().filter(|message| message.topic == of).map(Message::text).collect();
        assert_eq!(counts, ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"], "in order, each once");
    }
    daemon.settle("plant", 30);
    daemon.terminate();
    daemon.restart();
    publisher.publish(&Message::new("in/0", "x"));
    assert_eq!(collector.collect(1)[0].text(), "11");
}

fn the_sample_in_rust_keeps_a_journal(protocol: Protocol) {
    let broker = Mosquitto::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("journal");
    let keys = format!(
        "instances = 1\ndefault-broker = \"plant\"\nallow = {{ publish = [\"plant:journal\"] }}\nconfig = {{ file = \"{}\" }}",
        file.display()
    );
    let config = Config::new()
        .top("native = true")
        .broker("plant", broker.port(), protocol, "")
        .handler("journal", "native-rust.so", &keys)
        .subscription("plant", "in/#", 1, "journal", "")
        .table("[[schedules]]\nname = \"size\"\nevery = \"1h\"\non-schedule = \"journal\"");
    let daemon = Daemon::start(&config);
    let collector = broker.client(protocol);
    collector.subscribe("journal", 1);
    broker.client(protocol).publish_all(&["one", "two"].map(|payload| Message::new("in/a", payload)));
    daemon.settle("plant", 2);
    let lines = std::fs::read_to_string(&file).expect("was written");
    let texts: Vec<_> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("is JSON")["text"].clone())
        .collect();
    assert_eq!(texts, ["one", "two"]);
    daemon.done(&["schedules", "run", "size"]);
    assert_eq!(collector.collect(1)[0].json()["bytes"], lines.len());
}

/// A handler whose plugin is a file of the test's own.
fn made(file: &str, top: &str) -> Config {
    Config::new()
        .top(top)
        .broker("plant", 1883, Protocol::V5, "auto-connect = false")
        .table(format!("[handlers.made]\nplugin = \"{file}\""))
        .subscription("plant", "in/#", 1, "made", "")
}

/// `check` and `run` refuse the plugin at its line, in these words.
#[track_caller]
fn refused_as(file: &str, top: &str, content: &[u8], words: &str) {
    let home = Home::new(&made(file, top), ports::free());
    home.install(file, content);
    let ran = home.run(&["check", "tidegate.toml"]);
    let said: Vec<_> = ran.stderr.lines().filter(|line| !line.starts_with("warning: ")).collect();
    let start = format!(".plugin = \"{file}\": ");
    assert!(said.len() == 1 && said[0].starts_with("tidegate.toml:") && said[0].contains(&start), "{ran:?}");
    assert!(said[0].contains(words), "{} lacks {words}", said[0]);
    assert_eq!(ran.code, Some(1));
    let ran = home.run(&["run", "-c", "tidegate.toml"]);
    assert_eq!(ran.code, Some(1), "a daemon does not start with it");
    assert!(ran.stderr.contains(words), "{ran:?}");
}

#[track_caller]
fn refused(content: &[u8], words: &str) {
    refused_as("made.so", "native = true", content, words);
}

/// A plugin that does nothing.
fn idle() -> Vec<u8> {
    library(&plugin("return TG_OK;"))
}

#[test]
fn native_plugins_need_permission() {
    let words = "native plugins are not permitted: they run with the daemon's rights, and without limits; \
                 use a WebAssembly component (.wasm), or set native = true";
    refused_as("made.so", "", &idle(), words);
}

#[test]
fn native_code_does_not_pass_for_a_component() {
    refused_as(
        "made.wasm",
        "native = true",
        &idle(),
        "is native code (ELF), not a WebAssembly component; build the handler for wasm32-wasip2, or name it NAME.so",
    );
    let component = std::fs::read(tidegate_tests::daemon::built_plugin("celsius.wasm")).expect("is built");
    refused(
        &component,
        "is a WebAssembly component with the name of a native plugin; give it a name that ends in .wasm",
    );
    refused(
        b"#!/bin/sh\n",
        "is not a native plugin: it does not begin with the bytes 7f 45 4c 46 (ELF); build it as a shared library",
    );
}

/// Also where another handler runs the same bytes under a name that permits it, so that nothing need be loaded.
#[test]
fn native_code_that_runs_already_does_not_pass_for_a_component() {
    let broker = Mosquitto::start();
    let config = Config::new()
        .top("native = true")
        .broker("plant", broker.port(), Protocol::V5, "")
        .table("[handlers.native]\nplugin = \"made.so\"")
        .handler("other", "celsius.wasm", "")
        .subscription("plant", "in/#", 1, "other", "");
    let library = idle();
    let admin = ports::free();
    let home = Home::new(&config, admin);
    home.install("made.so", &library);
    let mut daemon = Daemon::of(home, admin);
    daemon.wait_ready();
    let component = std::fs::read(tidegate_tests::daemon::built_plugin("celsius.wasm")).expect("is built");
    let refused = |daemon: &Daemon, message: &str, [handler, running]: [&str; 2], file: &[u8], words: &str| {
        let event = daemon.wait_event(message, &[("handler", handler), ("version", &version(file))]);
        assert!(event["reason"].as_str().is_some_and(|reason| reason.starts_with(words)), "{event}");
        let shown = daemon.json(&["handlers", "list", handler]);
        assert_eq!((&shown["version"], &shown["file"]["state"]), (&json!(running), &json!("refused")), "{shown}");
    };
    let as_component = "it is native code (ELF), not a WebAssembly component; ";
    let as_native = "it is a WebAssembly component with the name of a native plugin; ";
    let (native, wasm) = (version(&library), version(&component));

    daemon.home().install("celsius.wasm", &library);
    refused(&daemon, REFUSED, ["other", &wasm], &library, as_component);
    daemon.terminate();
    daemon.restart();
    refused(&daemon, REFUSED_AT_START, ["other", &wasm], &library, as_component);

    daemon.home().install("made.so", &component);
    refused(&daemon, REFUSED, ["native", &native], &component, as_native);
}

#[test]
fn a_library_that_is_no_plugin_is_told() {
    refused(
        &library("int answer(void);\nint answer(void) { return 42; }\n"),
        "is a shared library, but not a plugin: it does not export tidegate_plugin_v1; build it with tidegate.h or tidegate-native",
    );
    let handle = "static tg_status handle(void *state, tg_call *call, const tg_message *message) {\n\
                  (void)state; (void)call; (void)message; return TG_OK; }\n";
    refused(
        &library(&format!("{HEAD}{handle}{}", entry("tidegate_plugin_v2", "handle"))),
        "is built for version 2 of the native interface, and this daemon has version 1; build it with the header or SDK of this release",
    );
    refused(
        &library(&format!("{HEAD}{}", entry("tidegate_plugin_v1", "NULL"))),
        "has neither on_message nor on_schedule, as a handler must; set one of them in its tg_plugin",
    );
    let refuses =
        "TG_EXPORT const tg_plugin *tidegate_plugin_v1(const tg_host *table) { host = table; return NULL; }\n";
    refused(&library(&format!("{HEAD}{refuses}")), "refuses to be loaded: its entry point returned a null pointer");
    let small = "static const tg_plugin plugin = { 8, 0, { NULL, 0 }, { NULL, 0 }, NULL, NULL, NULL, NULL };\n\
                 TG_EXPORT const tg_plugin *tidegate_plugin_v1(const tg_host *table) { host = table; return &plugin; }\n";
    refused(
        &library(&format!("{HEAD}{small}")),
        "breaks the rules of tidegate.h: its tg_plugin says that its size is 8 bytes, less than ",
    );
    refused(
        &library(&format!("void missing_function(void);\n{}", plugin("missing_function(); return TG_OK;"))),
        "cannot be loaded: undefined symbol: missing_function",
    );
}

#[test]
fn a_library_of_another_machine_or_a_part_of_one_is_told() {
    let whole = idle();
    let mut other = whole.clone();
    // e_machine: none that anybody has built a daemon for.
    other[18..20].copy_from_slice(&[43, 0]);
    refused(&other, "is built for a 64-bit machine with the ELF number 43, and this machine runs ");
    refused(&whole[..40], "is damaged or incomplete: it ends before its contents; copy it again");
    refused(&whole[..8], "is damaged or incomplete: it ends within its header; copy it again");
    let mut program = whole;
    program[16..18].copy_from_slice(&[2, 0]);
    refused(&program, "is a program, not a shared library; link it with -shared");
}

/// What a crash costs is the process that `check` and the daemon have load a library first.
#[test]
fn a_library_that_crashes_while_it_is_loaded_is_told_at_its_line() {
    let crashes = "__attribute__((constructor)) static void begin(void) { _exit(9); }";
    refused(
        &library(&format!("#include <unistd.h>\n{}\n{crashes}\n", plugin("return TG_OK;"))),
        "cannot be loaded: its initialisers ended the process that tried it first, with exit status 9",
    );
}

fn stuck(metrics: &Metrics) -> f64 {
    metrics.sum("tidegate_handler_threads_stuck", &[("handler", "slow")])
}

#[test]
fn a_call_that_hangs_is_left_behind_counted_and_its_handler_quarantined_at_once() {
    let broker = Mosquitto::start();
    let gate = Gate::new();
    let keys = "instances = 1\ncall-deadline = \"3s\"\nretry = { max = 0 }\nquarantine = { after = 9, for = \"1s\" }\n\
                allow = { publish = [\"plant:out/#\"] }";
    let config = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "")
        .native("slow", gate.plugin("", &format!("{AT_W}{ECHO}")), keys)
        .guest("echo", "plant", "mode = \"echo\"", "")
        .subscription("plant", "in/#", 1, "slow", "")
        .subscription("plant", "echo/#", 1, "echo", "");
    let mut daemon = Daemon::start(&config);
    let collector = broker.client(Protocol::V5);
    collector.subscribe("out/#", 1);
    let publisher = broker.client(Protocol::V5);
    publisher.publish(&Message::new("in/a", "wait"));
    let words =
        "the call took longer than call-deadline = 3s, and native code cannot be stopped: its thread is left behind";
    daemon.wait_event(
        "the handler is quarantined: a call of it hangs; its messages are parked until one of them is tried",
        &[("handler", "slow"), ("wait", "1s"), ("error", words)],
    );
    assert_eq!(stuck(&daemon.metrics()), 1.0);
    // Others go on, and what comes for it waits for the trial, which another instance makes while the thread still hangs.
    publisher.publish(&Message::new("echo/a", "x"));
    assert_eq!(collector.collect(1)[0].topic, "out/echo/a");
    publisher.publish(&Message::new("in/b", "trial"));
    assert_eq!(collector.collect(1)[0].text(), "trial");
    assert_eq!(stuck(&daemon.metrics()), 1.0, "the thread still hangs");
    daemon.wait_event("the handler's quarantine ends: the call that was tried succeeded", &[("handler", "slow")]);
    // It comes back: what it publishes is too late, and does not come.
    gate.open();
    daemon.wait_metrics("the thread has come back", |metrics| stuck(metrics) == 0.0);
    publisher.publish(&Message::new("in/c", "after"));
    assert_eq!(collector.collect(1)[0].text(), "after");
    assert_eq!(collector.rest().len(), 0);
    assert_eq!(daemon.metrics().calls("slow", "deadline"), 1.0);
    daemon.terminate();
}

#[test]
fn a_daemon_stops_although_a_call_hangs() {
    let broker = Mosquitto::start();
    let config = Config::new()
        .top("native = true\nshutdown-grace = \"1s\"")
        .broker("plant", broker.port(), Protocol::V5, "")
        .handler(
            "slow",
            "conformance.so",
            "instances = 1\ncall-deadline = \"1h\"\nallow = { publish = [\"plant:report\"] }",
        )
        .subscription("plant", "in/#", 1, "slow", "");
    let mut daemon = Daemon::start(&config);
    broker.client(Protocol::V5).publish(&Message::new(
        "in/a",
        json!([{ "do": "log", "level": "info", "text": "hangs" }, { "do": "spin", "ms": 3_600_000 }]).to_string(),
    ));
    daemon.wait_event("hangs", &[("handler", "slow")]);
    daemon.terminate();
}

#[test]
fn a_new_version_of_a_library_runs_its_own_code() {
    let version = |number: u32| {
        library(&plugin(&format!(
            "static int calls; char text[16];\n\
             text[0] = '{number}'; text[1] = '.'; text[2] = (char)('0' + ++calls);\n\
             tg_outgoing out = tg_publish_to(tg_text(\"out/version\"), tg_of(text, 3));\n\
             return tg_check(host, call, host->publish(call, &out));"
        )))
    };
    let broker = Mosquitto::start();
    let config = Config::new()
        .top("native = true")
        .broker("plant", broker.port(), Protocol::V5, "")
        .table("[handlers.made]\nplugin = \"made.so\"\ncall-deadline = \"20s\"\ninstances = 1\nallow = { publish = [\"plant:out/#\"] }")
        .subscription("plant", "in/#", 1, "made", "");
    let (admin, first) = (ports::free(), version(1));
    let home = Home::new(&config, admin);
    home.install("made.so", &first);
    let daemon = Daemon::of(home, admin);
    daemon.wait_ready();
    let collector = broker.client(Protocol::V5);
    collector.subscribe("out/#", 1);
    let publisher = broker.client(Protocol::V5);
    let says = |expected: &str| {
        publisher.publish(&Message::new("in/a", "x"));
        assert_eq!(collector.collect(1)[0].text(), expected);
    };
    says("1.1");
    says("1.2");
    daemon.home().install("made.so", &version(2));
    daemon.done(&["handlers", "reload", "made"]);
    says("2.1");
    // One that is none leaves the other running.
    let plain = library("int answer(void);\nint answer(void) { return 42; }\n");
    daemon.home().install("made.so", &plain);
    let refused = daemon.refused(&["handlers", "reload", "made"]);
    assert!(refused.contains("is a shared library, but not a plugin"), "{refused}");
    says("2.2");
    // The first is still in the process, with all that it remembers in its memory.
    daemon.home().install("made.so", &first);
    daemon.done(&["handlers", "reload", "made"]);
    says("1.3");
    let copies = std::fs::read_dir(daemon.home().path().join("state/native")).expect("is there");
    assert_eq!(copies.count(), 0, "no copy is left");
}
