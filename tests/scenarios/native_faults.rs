//! Native plugins that hang, crash or end late: what it costs the process that tries them first, the daemon, other versions, and its end.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tidegate_tests::metrics::Metrics;
use tidegate_tests::native::{HEAD, library};
use tidegate_tests::versions::version;
use tidegate_tests::{Config, Daemon, Home, Message, Mosquitto, Protocol, ports, wait};

/// Long enough for any machine.
const PATIENCE: Duration = Duration::from_secs(60);

const RUNS: &str = "the handler runs a new version";

const REFUSED: &str = "a new version of the handler's plugin is refused, the handler keeps the one that runs";

const REFUSED_AT_START: &str =
    "the handler's plugin file is refused, it runs the copy of the version that it ran before";

const KNOWN: &str =
    "the handler's plugin file holds a version that was refused before, it runs the copy of the one before that";

/// The callbacks of a plugin in C. Each has a body; `mark` goes to the topic `out/mark`.
#[derive(Clone, Copy)]
struct Parts<'a> {
    /// Before all else.
    before: &'a str,
    entry: &'a str,
    create: &'a str,
    on_message: &'a str,
    destroy: &'a str,
}

const PARTS: Parts<'static> =
    Parts { before: "", entry: "", create: "return TG_OK;", on_message: "return TG_OK;", destroy: "" };

/// What a plugin publishes that works.
fn says(mark: &str) -> String {
    format!(
        "tg_outgoing out = tg_publish_to(tg_text(\"out/mark\"), tg_text(\"{mark}\"));\n\
         return tg_check(host, call, host->publish(call, &out));"
    )
}

/// Whether the process is the one that loads a version before the daemon does; and what that process is.
const TRIED: &str = r#"
static inline int tried(void) {
    char words[4096];
    int file = open("/proc/self/cmdline", O_RDONLY);
    long len = read(file, words, sizeof words);
    if (file < 0 || len <= 0 || close(file) != 0) abort();
    return memmem(words, (size_t)len, "load-native", 11) != NULL;
}
static inline void tell_process(const char *path) {
    char line[300], target[256];
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600), len = sprintf(line, "%d\n", (int)getpid());
    if (file < 0 || write(file, line, (size_t)len) != len) abort();
    DIR *all = opendir("/proc/self/fd");
    for (struct dirent *one; (one = readdir(all)) != NULL;) {
        int number = atoi(one->d_name);
        if (number <= 2 || number == file || number == dirfd(all)) continue;
        long size = readlinkat(dirfd(all), one->d_name, target, sizeof target);
        len = sprintf(line, "%.*s\n", (int)size, target);
        if (write(file, line, (size_t)len) != len) abort();
    }
    if (write(file, "all\n", 4) != 4 || closedir(all) != 0 || close(file) != 0) abort();
}
"#;

impl Parts<'_> {
    fn library(self) -> Vec<u8> {
        let Parts { before, entry, create, on_message, destroy } = self;
        library(&format!(
            "#define _GNU_SOURCE\n#include <dirent.h>\n#include <fcntl.h>\n#include <signal.h>\n#include <stdio.h>\n#include <stdlib.h>\n\
             #include <string.h>\n#include <time.h>\n#include <unistd.h>\n{HEAD}\n{TRIED}\
             static inline void rest(long ms) {{ struct timespec t = {{ ms / 1000, ms % 1000 * 1000000 }}; nanosleep(&t, NULL); }}\n\
             static inline void note(const char *path) {{\n\
                 int file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);\n\
                 if (file < 0 || write(file, \"x\", 1) != 1 || close(file) != 0) abort();\n\
             }}\n\
             {before}\n\
             static tg_status create(tg_call *call, void **state) {{ (void)call; (void)state;\n{create}\n}}\n\
             static tg_status on_message(void *state, tg_call *call, const tg_message *message) {{\n\
                 (void)state; (void)call; (void)message;\n{on_message}\n}}\n\
             static void destroy(void *state) {{ (void)state;\n{destroy}\n}}\n\
             static const tg_plugin plugin = {{ sizeof(tg_plugin), TG_MINOR, TG_LITERAL(\"made\"), TG_LITERAL(\"1\"),\n\
                 create, on_message, NULL, destroy }};\n\
             TG_EXPORT const tg_plugin *tidegate_plugin_v1(const tg_host *table);\n\
             TG_EXPORT const tg_plugin *tidegate_plugin_v1(const tg_host *table) {{ host = table;\n{entry}\nreturn &plugin; }}\n"
        ))
    }
}

fn marked(mark: &str) -> Vec<u8> {
    Parts { on_message: &says(mark), ..PARTS }.library()
}

fn config(port: u16, top: &str, keys: &str) -> Config {
    let patience = if keys.contains("call-deadline") { "" } else { "call-deadline = \"20s\"\n" };
    Config::new()
        .top(&format!("native = true\n{top}"))
        .broker("plant", port, Protocol::V5, "")
        .table(format!(
            "[handlers.made]\nplugin = \"made.so\"\nallow = {{ publish = [\"plant:out/#\"] }}\n{patience}{keys}"
        ))
        .subscription("plant", "in/#", 1, "made", "")
}

fn start(config: &Config, library: &[u8]) -> Daemon {
    let admin = ports::free();
    let home = Home::new(config, admin);
    home.install("made.so", library);
    let daemon = Daemon::of(home, admin);
    daemon.wait_ready();
    daemon
}

/// What the version that runs publishes.
#[track_caller]
fn mark(broker: &Mosquitto) -> String {
    let client = broker.client(Protocol::V5);
    client.subscribe("out/mark", 1);
    client.publish(&Message::new("in/a", "x"));
    client.collect(1)[0].text().to_owned()
}

/// Replaces the file, and waits until its version runs.
#[track_caller]
fn replace(daemon: &Daemon, library: &[u8]) {
    daemon.home().install("made.so", library);
    daemon.wait_event(RUNS, &[("handler", "made"), ("version", &version(library))]);
}

/// Replaces the file, and waits until its version is refused. The reason.
#[track_caller]
fn replace_in_vain(daemon: &Daemon, library: &[u8]) -> String {
    daemon.home().install("made.so", library);
    let event = daemon.wait_event(REFUSED, &[("handler", "made"), ("version", &version(library))]);
    event["reason"].as_str().expect("has a reason").to_owned()
}

fn stuck(metrics: &Metrics) -> f64 {
    metrics.sum("tidegate_handler_threads_stuck", &[("handler", "made")])
}

fn record(daemon: &Daemon) -> String {
    fs::read_to_string(daemon.home().path().join("state/plugins/made/record.json")).unwrap_or_default()
}

/// How often a plugin has noted something in a file.
fn noted(path: &Path) -> usize {
    fs::read(path).map_or(0, |notes| notes.len())
}

#[test]
fn a_version_whose_start_hangs_costs_one_thread() {
    let broker = Mosquitto::start();
    let daemon = start(&config(broker.port(), "", "instances = 8\ncall-deadline = \"3s\""), &marked("first"));
    let hangs = Parts { create: "for (;;) { rest(1000); }\nreturn TG_OK;", ..PARTS }.library();
    let reason = replace_in_vain(&daemon, &hangs);
    assert!(reason.contains("init took longer than call-deadline = 3s"), "{reason}");
    assert_eq!(stuck(&daemon.metrics()), 1.0);
    replace(&daemon, &marked("second"));
    assert_eq!(mark(&broker), "second");
}

#[test]
fn a_version_that_hangs_on_trial_is_rolled_back_whatever_the_other_makes_of_the_message() {
    let broker = Mosquitto::start();
    let keys = "instances = 1\ncall-deadline = \"3s\"\nretry = { max = 0 }\nreload = { canary = 1.0 }";
    let rejects = Parts { on_message: "return tg_reject(host, call, \"no\");", ..PARTS }.library();
    let daemon = start(&config(broker.port(), "", keys), &rejects);
    let hangs = Parts { on_message: "for (;;) { rest(1000); }\nreturn TG_OK;", ..PARTS }.library();
    daemon.home().install("made.so", &hangs);
    daemon.wait_event("a new version of the handler's plugin is on trial", &[("version", &version(&hangs))]);
    broker.client(Protocol::V5).publish(&Message::new("in/a", "x"));
    let rolled_back =
        "the version of the handler's plugin on trial is rolled back, the handler keeps the one that runs";
    let event = daemon.wait_event(rolled_back, &[("version", &version(&hangs))]);
    let reason = event["reason"].as_str().expect("has a reason");
    assert!(reason.starts_with("a call on trial hangs; the last: "), "{reason}");
}

#[test]
fn an_entry_point_is_called_once() {
    let broker = Mosquitto::start();
    let once = Parts { entry: "static int calls; if (++calls > 1) return NULL;", on_message: &says("first"), ..PARTS };
    let once = once.library();
    let daemon = start(&config(broker.port(), "", "instances = 1"), &once);
    replace(&daemon, &marked("second"));
    replace(&daemon, &once);
    assert_eq!(mark(&broker), "first");
}

/// A constructor with this body.
fn initialiser(body: &str) -> String {
    format!("__attribute__((constructor)) static void begin(void) {{ {body} }}")
}

const HANGS: &str = "for (;;) rest(1000);";

/// Whether a process runs. One that nobody has waited for yet does not.
fn runs(process: &str) -> bool {
    let told = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // After the name, which is in brackets.
    told.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// That a version was refused is seen wherever one looks for it.
#[track_caller]
fn is_shown(daemon: &Daemon, refused: &[u8], reason: &str) {
    let shown = &daemon.json(&["handlers", "list", "made"])["file"];
    let expected = [json!("refused"), json!(version(refused)), json!(reason)];
    assert_eq!(["state", "version", "reason"].map(|key| shown[key].clone()), expected, "{shown}");
    let page = daemon.get("/readyz");
    assert!(page.status == 200 && page.body.contains(reason), "{}", page.body);
}

fn reloads(daemon: &Daemon, result: &str) -> f64 {
    daemon.metrics().sum("tidegate_handler_reloads_total", &[("handler", "made"), ("result", result)])
}

#[test]
fn initialisers_that_hang_cost_a_process_of_their_own() {
    let broker = Mosquitto::start();
    let (folder, keys) = (tempfile::tempdir().expect("a folder"), "instances = 1");
    let told = folder.path().join("told");
    let mut daemon = start(&config(broker.port(), "", keys), &marked("first"));
    let before = initialiser(&format!("tell_process(\"{}\"); {HANGS}", told.display()));
    let hangs = Parts { before: &before, ..PARTS }.library();
    daemon.home().install("made.so", &hangs);
    // But for what this test was given itself by who started it, and hands on.
    let given =
        fs::read_dir("/proc/self/fd").expect("is there").filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    let given: Vec<_> = given.map(|target| target.display().to_string()).collect();
    let lines = || {
        let told = fs::read_to_string(&told).unwrap_or_default();
        told.lines().filter(|line| !given.iter().any(|given| given == line)).map(str::to_owned).collect::<Vec<_>>()
    };
    wait::until_true("it is tried", || lines().last().is_some_and(|line| line == "all"));
    // It has nothing of the daemon's, but where it tells how far it got.
    assert!(lines().len() == 3 && runs(&lines()[0]) && lines()[1].starts_with("pipe:"), "{:?}", lines());
    // Messages and commands go on meanwhile.
    assert_eq!(mark(&broker), "first");
    assert_eq!(daemon.json(&["handlers", "list", "made"])["state"], "open");
    let fields = [("handler", "made"), ("version", &*version(&hangs))];
    let event = daemon.wait_event_within(PATIENCE, REFUSED, &fields);
    let reason = event["reason"].as_str().expect("has a reason");
    assert_eq!(
        reason,
        "it cannot be loaded: its initialisers did not end within 10s in the process that tried it first; \
         `tidegate load-native FILE` shows it"
    );
    is_shown(&daemon, &hangs, reason);
    assert_eq!(reloads(&daemon, "refused"), 1.0);
    wait::until_true("it has ended at its deadline", || !runs(&lines()[0]));
    assert_eq!(mark(&broker), "first");
    replace(&daemon, &marked("second"));
    assert_eq!(mark(&broker), "second");
    assert_eq!(lines().len(), 3, "the daemon ran it too");
    daemon.terminate();
}

#[test]
fn what_crashes_while_it_is_loaded_is_refused_and_the_daemon_goes_on() {
    let broker = Mosquitto::start();
    let mut daemon = start(&config(broker.port(), "", "instances = 1"), &marked("first"));
    let ended =
        |part: &str, how: &str| format!("it cannot be loaded: its {part} ended the process that tried it first, {how}");
    // The runtime of Rust has a handler for the second one, which waits for it to come again.
    let crashes =
        |signal: &str| format!("if (tried()) {{ signal({signal}, SIG_DFL); raise({signal}); }} else abort();");
    let cases = [
        (initialiser(&crashes("SIGABRT")), String::new(), ended("initialisers", "by signal 6 (SIGABRT)")),
        (initialiser("printf(\"loads\\n\"); exit(0);"), String::new(), ended("initialisers", "with exit status 0")),
        (String::new(), crashes("SIGSEGV"), ended("entry point", "by signal 11 (SIGSEGV)")),
        (String::new(), "_exit(7);".to_owned(), ended("entry point", "with exit status 7")),
        (
            String::new(),
            HANGS.to_owned(),
            "it cannot be loaded: its entry point did not end within 10s in the process that tried it first".to_owned(),
        ),
    ];
    for (number, (before, entry, expected)) in cases.iter().enumerate() {
        let refused = Parts { before, entry, ..PARTS }.library();
        daemon.home().install("made.so", &refused);
        let event =
            daemon.wait_event_within(PATIENCE, REFUSED, &[("handler", "made"), ("version", &version(&refused))]);
        let reason = event["reason"].as_str().expect("has a reason");
        assert!(reason.starts_with(expected), "{reason}");
        is_shown(&daemon, &refused, reason);
        assert_eq!((mark(&broker).as_str(), reloads(&daemon, "refused")), ("first", number as f64 + 1.0));
    }
    assert!(!record(&daemon).contains("\"trying\""), "{}", record(&daemon));
    // Found at a start.
    daemon.terminate();
    let other = Parts { before: &cases[0].0, on_message: &says("other"), ..PARTS }.library();
    daemon.home().install("made.so", &other);
    daemon.restart();
    let event = daemon.wait_event(REFUSED_AT_START, &[("handler", "made"), ("version", &version(&other))]);
    let reason = event["reason"].as_str().expect("has a reason");
    assert!(reason.starts_with(&cases[0].2), "{reason}");
    is_shown(&daemon, &other, reason);
    assert_eq!(mark(&broker), "first");
    daemon.terminate();
}

#[test]
fn the_process_that_tries_a_version_ends_with_a_daemon_that_is_killed() {
    let broker = Mosquitto::start();
    let folder = tempfile::tempdir().expect("a folder");
    let told = folder.path().join("told");
    let mut daemon = start(&config(broker.port(), "", "instances = 1"), &marked("first"));
    let before = initialiser(&format!("tell_process(\"{}\"); {HANGS}", told.display()));
    daemon.home().install("made.so", &Parts { before: &before, ..PARTS }.library());
    let process = wait::until("it is tried", || {
        let told = fs::read_to_string(&told).unwrap_or_default();
        told.split_once('\n').map(|(process, _)| process.to_owned()).ok_or("it is not")
    });
    assert!(runs(&process));
    daemon.kill();
    // At its deadline it would end by itself.
    let soon = Duration::from_secs(8);
    wait::until_within(soon, "the process has ended", || if runs(&process) { Err("it runs") } else { Ok(()) });
}

#[test]
fn initialisers_that_hang_in_the_daemon_alone_are_told_and_the_next_one_runs_the_version_before() {
    let broker = Mosquitto::start();
    let mut daemon = start(&config(broker.port(), "", "instances = 1"), &marked("first"));
    let before = initialiser(&format!("if (!tried()) {HANGS}"));
    let hangs = Parts { before: &before, ..PARTS }.library();
    daemon.home().install("made.so", &hangs);
    let told =
        "the initialisers of a native plugin hang: nothing can be loaded or changed any more, restart the daemon";
    daemon.wait_event(told, &[("version", &version(&hangs)), ("path", "plugins/made.so")]);
    daemon.kill();
    daemon.restart();
    assert_eq!(mark(&broker), "first");
    daemon.wait_event(KNOWN, &[("handler", "made"), ("version", &version(&hangs))]);
}

#[test]
fn an_entry_point_that_hangs_in_the_daemon_alone_costs_a_thread() {
    let broker = Mosquitto::start();
    let mut daemon = start(&config(broker.port(), "", "instances = 1"), &marked("first"));
    let entry = format!("if (!tried()) {HANGS}");
    let hangs = Parts { entry: &entry, ..PARTS }.library();
    daemon.home().install("made.so", &hangs);
    let event = daemon.wait_event_within(PATIENCE, REFUSED, &[("handler", "made"), ("version", &version(&hangs))]);
    let reason = event["reason"].as_str().expect("has a reason");
    let words =
        "it cannot be loaded: its entry point did not return within 10s; the thread that runs it is left behind";
    assert!(reason.starts_with(words), "{reason}");
    replace(&daemon, &marked("second"));
    assert_eq!(mark(&broker), "second");
    daemon.terminate();
    daemon.wait_event("native code still runs, the process ends without the destructors of its libraries", &[]);
}

/// A version that ends the daemon when it is loaded, or when an instance of it starts.
fn crashes(with: Parts<'_>) {
    let broker = Mosquitto::start();
    let mut daemon = start(&config(broker.port(), "", "instances = 2"), &marked("first"));
    let crashes = with.library();
    daemon.home().install("made.so", &crashes);
    assert!(!daemon.ended().success(), "the daemon outlives an abort");
    daemon.restart();
    assert_eq!(mark(&broker), "first");
    let event = daemon.wait_event(KNOWN, &[("handler", "made"), ("version", &version(&crashes))]);
    assert_eq!(event["reason"], "the daemon ended while it was loaded and started for the first time");
    replace(&daemon, &marked("second"));
    daemon.terminate();
    daemon.restart();
    assert_eq!(mark(&broker), "second");
    // Found at a start: the first one does not know it, the next one does.
    daemon.terminate();
    let other = Parts { on_message: &says("other"), ..with }.library();
    daemon.home().install("made.so", &other);
    let ended = daemon.home().start(&["run", "-c", "tidegate.toml"]).wait(PATIENCE);
    assert_eq!(ended.code(), None, "the daemon outlives an abort");
    daemon.restart();
    assert_eq!(mark(&broker), "second");
    daemon.terminate();
}

#[test]
fn a_library_whose_initialiser_crashes_in_the_daemon_alone_is_refused_by_the_next_daemon() {
    crashes(Parts { before: &initialiser("if (!tried()) abort();"), ..PARTS });
}

#[test]
fn a_library_whose_create_crashes_is_refused_by_the_next_daemon() {
    crashes(Parts { create: "abort();", ..PARTS });
}

#[test]
fn a_stop_while_a_process_tries_a_library_is_not_blamed_on_it() {
    stopped_while_it_loads("tried()");
}

#[test]
fn a_stop_while_a_library_is_loaded_is_not_blamed_on_it() {
    stopped_while_it_loads("!tried()");
}

/// A stop while an initialiser takes long, where this is true.
fn stopped_while_it_loads(slow: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, open) = (folder.path().join("loads"), folder.path().join("open"));
    let broker = Mosquitto::start();
    let mut daemon = start(&config(broker.port(), "", "instances = 1"), &marked("first"));
    let stands = format!("note(\"{}\"); while (access(\"{}\", F_OK) != 0) rest(5);", file.display(), open.display());
    let before = initialiser(&format!("if ({slow}) {{ {stands} }}"));
    let slow = Parts { before: &before, on_message: &says("slow"), ..PARTS }.library();
    daemon.home().install("made.so", &slow);
    wait::until_true("it loads", || file.exists() && noted(&file) == 1);
    assert!(record(&daemon).contains("\"trying\""), "{}", record(&daemon));
    daemon.signal("TERM");
    daemon.wait_event("stopping: finishing the messages in progress; a second signal ends at once", &[]);
    fs::write(&open, "").expect("the folder is ours");
    assert_eq!(daemon.ended().code(), Some(0));
    assert!(!record(&daemon).contains("\"trying\""), "{}", record(&daemon));
    daemon.restart();
    assert_eq!(mark(&broker), "slow");
}

#[test]
fn every_state_is_destroyed_before_the_process_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("destroyed");
    let destroy = format!("rest(300); note(\"{}\");", file.display());
    let library = Parts { destroy: &destroy, on_message: &says("first"), ..PARTS }.library();
    let broker = Mosquitto::start();
    let mut daemon = start(&config(broker.port(), "", "instances = 3"), &library);
    assert_eq!(mark(&broker), "first");
    daemon.terminate();
    assert_eq!(noted(&file), 3);
    let ran = daemon.home().run(&["check", "tidegate.toml"]);
    assert_eq!((ran.code, noted(&file)), (Some(0), 4), "{ran:?}");
}

#[test]
fn a_process_ends_without_destructors_under_code_that_still_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let (called, ended) = (folder.path().join("called"), folder.path().join("ended"));
    let before = format!("__attribute__((destructor)) static void end(void) {{ note(\"{}\"); }}", ended.display());
    let on_message = format!("note(\"{}\"); for (;;) {{ rest(1000); }}\nreturn TG_OK;", called.display());
    let library = Parts { before: &before, on_message: &on_message, ..PARTS }.library();
    let broker = Mosquitto::start();
    let keys = "instances = 1\ncall-deadline = \"1h\"";
    let mut daemon = start(&config(broker.port(), "", keys), &library);
    daemon.terminate();
    assert_eq!(noted(&ended), 1, "where nothing runs any more, the end is an ordinary one");
    daemon.restart_with(&config(broker.port(), "shutdown-grace = \"1s\"", keys));
    broker.client(Protocol::V5).publish(&Message::new("in/a", "x"));
    wait::until_true("it is called", || noted(&called) == 1);
    daemon.terminate();
    assert_eq!(noted(&ended), 1, "the library's destructor ran under its code");
    daemon.wait_event("native code still runs, the process ends without the destructors of its libraries", &[]);
}
