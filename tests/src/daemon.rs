//! The built binary: as a daemon with a home of its own, and as a command.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::process::Process;
use crate::{http, ports, wait};

/// How long a stop may take: the default of `shutdown-grace`, and a loaded machine.
const STOP: Duration = Duration::from_secs(45);

/// How long a start may take: plugins are compiled, on processors that many others wait for too.
const START: Duration = Duration::from_secs(120);

/// A folder with a configuration, the plugins that it names and the daemon's state. Gone when dropped.
pub struct Home {
    folder: TempDir,
    /// Of the daemon that is started with its configuration.
    environment: Vec<(String, String)>,
}

impl Home {
    /// A folder with `tidegate.toml` as the configuration says, completed with folders, log format and admin address.
    ///
    /// # Panics
    /// A plugin is not built.
    pub fn new(config: &Config, admin: u16) -> Home {
        let home = Home { environment: config.environment.clone(), ..Home::empty() };
        home.configure(config, admin);
        home
    }

    /// Writes another configuration, as [`Home::new`] does.
    ///
    /// # Panics
    /// A plugin is not built.
    pub fn configure(&self, config: &Config, admin: u16) {
        config.plugins.iter().for_each(|plugin| self.plugin(plugin));
        config.made.iter().for_each(|(name, plugin)| self.write(&format!("plugins/{name}"), plugin));
        let folder = self.path().display();
        let state = config.state.clone().unwrap_or_else(|| self.path().join("state"));
        let state = state.display();
        self.write(
            "tidegate.toml",
            format!(
                "state-dir = \"{state}\"\nplugins-dir = \"{folder}/plugins\"\n\
                 log = {{ level = \"debug\", format = \"json\" }}\n{}\n\
                 [admin]\nlisten = \"127.0.0.1:{admin}\"\n{}\n{}",
                config.top, config.admin, config.tables
            ),
        );
    }

    /// A folder with an empty `plugins`.
    pub fn empty() -> Home {
        let folder = tempfile::Builder::new().prefix("tidegate-home-").tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("plugins")).expect("the folder is ours");
        Home { folder, environment: Vec::new() }
    }

    /// Writes a file, with the folders above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let file = self.path().join(name);
        fs::create_dir_all(file.parent().expect("is in a folder")).expect("the folder is ours");
        fs::write(file, content).expect("the folder is ours");
    }

    /// Copies a built plugin to its `plugins`.
    pub fn plugin(&self, name: &str) {
        let source = built_plugin(name);
        let target = self.path().join("plugins").join(name);
        fs::copy(&source, target).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
    }

    /// Puts a plugin with these bytes into its `plugins`, as an operator should: written beside, and renamed.
    pub fn put_plugin(&self, name: &str, bytes: &[u8]) {
        let beside = self.path().join(format!("{name}.new"));
        fs::write(&beside, bytes).expect("the folder is ours");
        fs::rename(beside, self.path().join("plugins").join(name)).expect("the folder is ours");
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Starts `tidegate` with these arguments in the folder. Its temporary files go to `tmp` there.
    pub fn start(&self, arguments: &[&str]) -> Process {
        let temporary = self.path().join("tmp");
        fs::create_dir_all(&temporary).expect("the folder is ours");
        let mut command = Command::new(binary());
        command.args(arguments).current_dir(self.path()).env("TMPDIR", temporary);
        Process::start("tidegate", &mut command)
    }

    /// Runs `tidegate` with these arguments in the folder, to its end.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with_input(arguments, b"")
    }

    /// As [`Home::run`], with these bytes on standard input.
    pub fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = Command::new(binary());
        command.args(arguments).current_dir(self.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", binary().display()));
        // A command that does not read its input, or ends before, is not the harness's business.
        let _ = child.stdin.take().expect("is piped").write_all(input);
        let output = child.wait_with_output().expect("is our child");
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; none after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Both streams.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// A running daemon. Dropping it kills it.
pub struct Daemon {
    process: Process,
    admin: u16,
    home: Home,
}

impl Daemon {
    /// Starts a daemon and waits until it is ready: every broker connected, every subscription granted.
    #[track_caller]
    pub fn start(config: &Config) -> Daemon {
        let daemon = Daemon::launch(config);
        daemon.wait_ready();
        daemon
    }

    /// Starts a daemon and waits until its admin server answers.
    #[track_caller]
    pub fn launch(config: &Config) -> Daemon {
        let admin = ports::free();
        Daemon::of(Home::new(config, admin), admin)
    }

    /// As [`Daemon::launch`], in a folder that has all that it needs.
    #[track_caller]
    pub fn of(home: Home, admin: u16) -> Daemon {
        let process = launch(&home);
        let mut daemon = Daemon { process, admin, home };
        daemon.wait_alive();
        daemon
    }

    /// Where its admin server listens.
    pub fn admin(&self) -> u16 {
        self.admin
    }

    /// Its process identifier.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its folder.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Starts it again after its end, with the same folder.
    #[track_caller]
    pub fn restart(&mut self) {
        self.launch_again();
        self.wait_ready();
    }

    /// As [`Daemon::restart`], without waiting until it is ready.
    #[track_caller]
    pub fn launch_again(&mut self) {
        assert!(self.process.ended().is_some(), "the daemon still runs");
        self.process = launch(&self.home);
        self.wait_alive();
    }

    /// Starts it again after its end, with the same folder and another configuration, and waits until it is ready.
    #[track_caller]
    pub fn restart_with(&mut self, config: &Config) {
        self.home.configure(config, self.admin);
        self.restart();
    }

    /// As [`Daemon::restart_with`], without waiting until it is ready.
    #[track_caller]
    pub fn launch_again_with(&mut self, config: &Config) {
        self.home.configure(config, self.admin);
        self.launch_again();
    }

    /// What is recorded of a broker's session: each filter and whether the broker has it, by text.
    pub fn recorded(&self, broker: &str) -> Vec<(String, String)> {
        let file = self.home.path().join("state/sessions").join(format!("{broker}.json"));
        let Ok(text) = fs::read_to_string(&file) else { return Vec::new() };
        let record: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let filters = record["filters"].as_array().expect("an array").iter();
        filters.map(|entry| (text(&entry["filter"]), text(&entry["presence"]))).collect()
    }

    /// Waits until the record of a broker's session has these filters, and no others.
    #[track_caller]
    pub fn wait_recorded(&self, broker: &str, expected: &[(&str, &str)]) {
        wait::until(format!("the record of {broker} has {expected:?}"), || {
            let found = self.recorded(broker);
            let same = found
                .iter()
                .map(|(filter, presence)| (filter.as_str(), presence.as_str()))
                .eq(expected.iter().copied());
            if same { Ok(()) } else { Err(format!("{found:?}")) }
        });
    }

    #[track_caller]
    fn wait_alive(&mut self) {
        wait::until_within(START, "/healthz answers 200", || {
            if let Some(status) = self.process.ended() {
                panic!("the daemon ended at start: {status}\n{}", self.process.lines().join("\n"));
            }
            expect_status(self.admin, "/healthz", 200)
        });
    }

    /// Waits until `/readyz` answers 200.
    #[track_caller]
    pub fn wait_ready(&self) {
        wait::until_within(START, "/readyz answers 200", || expect_status(self.admin, "/readyz", 200));
    }

    /// Waits until `/readyz` has nothing to say about this broker: it is connected, its subscriptions are granted.
    #[track_caller]
    pub fn wait_broker(&self, broker: &str) {
        let name = format!("broker {broker} ");
        wait::until(format!("/readyz does not mention broker {broker}"), || match self.get("/readyz").body {
            body if body.contains(&name) => Err(body),
            _ => Ok(()),
        });
    }

    /// Waits until `/readyz` answers 503, and returns what it says.
    #[track_caller]
    pub fn wait_not_ready(&self) -> String {
        wait::until("/readyz answers 503", || expect_status(self.admin, "/readyz", 503))
    }

    /// Fetches a page of the admin server.
    #[track_caller]
    pub fn get(&self, path: &str) -> http::Response {
        http::get(self.admin, path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Opens a stream of the admin server: what happens from now on is told.
    #[track_caller]
    pub fn follow(&self, path: &str) -> http::Events {
        http::Events::open(self.admin, path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Scrapes `/metrics`.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        let response = self.get("/metrics");
        assert_eq!(response.status, 200, "{}", response.body);
        Metrics::parse(&response.body)
    }

    /// Waits until a scrape satisfies `condition`, and returns the next one that does: families are gathered one after the other, so
    /// that one scrape may have some of them as they were before.
    #[track_caller]
    pub fn wait_metrics(&self, what: &str, condition: impl Fn(&Metrics) -> bool) -> Metrics {
        let scrape = || {
            let metrics = self.metrics();
            if condition(&metrics) { Ok(metrics) } else { Err(counts(&metrics)) }
        };
        wait::until(what, || scrape().and_then(|_| scrape()))
    }

    /// Waits until `count` messages from `broker` have come and all of them have reached their end, and checks the
    /// balance of every broker.
    #[track_caller]
    pub fn settle(&self, broker: &str, count: usize) -> Metrics {
        let count = count as f64;
        let metrics = self.wait_metrics(&format!("{count} messages from {broker} reach their end"), |metrics| {
            metrics.received(broker) >= count
                && metrics.finished_all(broker) >= count
                && metrics.in_progress(broker) == 0.0
        });
        assert_eq!(metrics.received(broker), count, "messages received from {broker}\n{}", counts(&metrics));
        self.balance()
    }

    /// Checks that received = finished + in progress for every broker, as soon as nothing moves.
    #[track_caller]
    pub fn balance(&self) -> Metrics {
        wait::until("received = finished + in progress", || {
            let metrics = self.metrics();
            let unbalanced = metrics.unbalanced();
            if unbalanced.is_empty() { Ok(metrics) } else { Err(unbalanced.join("; ")) }
        })
    }

    /// The log so far.
    pub fn log(&self) -> Vec<String> {
        self.process.lines()
    }

    /// The log lines that contain each of these words.
    pub fn log_lines(&self, words: &[&str]) -> Vec<String> {
        self.log().into_iter().filter(|line| words.iter().all(|word| line.contains(word))).collect()
    }

    /// Waits for a log line that contains each of these words.
    #[track_caller]
    pub fn wait_log(&self, words: &[&str]) -> String {
        wait::until(format!("a log line with {words:?}"), || {
            self.log_lines(words).into_iter().next().ok_or("no such line")
        })
    }

    /// The lines of the log that are JSON objects: all of them, once the daemon has read its configuration.
    pub fn events(&self) -> Vec<Value> {
        self.log().iter().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect()
    }

    /// The warnings and errors about a broker.
    pub fn warnings(&self, broker: &str) -> Vec<Value> {
        let warns =
            |event: &Value| event["broker"] == broker && (event["level"] == "WARN" || event["level"] == "ERROR");
        self.events().into_iter().filter(warns).collect()
    }

    /// Waits for a log line with this message, and with this text somewhere in each of these fields.
    #[track_caller]
    pub fn wait_event(&self, message: &str, fields: &[(&str, &str)]) -> Value {
        self.wait_event_within(wait::PATIENCE, message, fields)
    }

    /// As [`Daemon::wait_event`], for what takes the daemon longer.
    #[track_caller]
    pub fn wait_event_within(&self, limit: Duration, message: &str, fields: &[(&str, &str)]) -> Value {
        let has =
            |event: &Value, (field, text): &(&str, &str)| event[field].as_str().is_some_and(|has| has.contains(text));
        wait::until_within(limit, format!("a log line \"{message}\" with {fields:?}"), || {
            let mut events = self.events().into_iter().filter(|event| event["message"] == message);
            events.find(|event| fields.iter().all(|field| has(event, field))).ok_or("no such line")
        })
    }

    /// Sends a signal by its name.
    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// Waits until the daemon has ended by itself.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        self.process.wait(STOP)
    }

    /// SIGTERM; checks that it ends with exit code 0 in time.
    #[track_caller]
    pub fn terminate(&mut self) {
        self.signal("TERM");
        let status = self.ended();
        assert_eq!(status.code(), Some(0), "the exit code after SIGTERM");
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

impl Drop for Daemon {
    /// What it has counted belongs to the report of a failed test: no line of the log tells where a message is.
    #[expect(clippy::print_stderr, reason = "the report of a failed test")]
    fn drop(&mut self) {
        if thread::panicking()
            && self.process.ended().is_none()
            && let Ok(response) = http::get(self.admin, "/metrics")
        {
            let shown: String =
                response.body.lines().filter(|line| is_telling(line)).map(|line| format!("{line}\n")).collect();
            eprintln!("--- what tidegate (process {}) has counted:\n{shown}---", self.process.id());
        }
    }
}

fn launch(home: &Home) -> Process {
    let mut command = Command::new(binary());
    command.args(["run", "-c"]).arg(home.path().join("tidegate.toml")).current_dir(home.path());
    command.envs(home.environment.iter().map(|(name, value)| (name, value)));
    Process::start("tidegate", &mut command)
}

/// The body of an answer with this status.
fn expect_status(port: u16, path: &str, status: u16) -> Result<String, String> {
    let response = http::get(port, path).map_err(|error| error.to_string())?;
    if response.status == status { Ok(response.body) } else { Err(format!("{}: {}", response.status, response.body)) }
}

/// The counters of messages, for a failed test.
fn counts(metrics: &Metrics) -> String {
    metrics.page.lines().filter(|line| is_telling(line)).map(|line| format!("\n  {line}")).collect()
}

/// Whether a line of `/metrics` tells of messages, and not of none.
fn is_telling(line: &str) -> bool {
    let families = ["tidegate_messages", "tidegate_handler_", "tidegate_outbox", "tidegate_broker_"];
    families.iter().any(|family| line.starts_with(family)) && !line.ends_with(" 0") && !line.contains("_bucket{")
}

/// `TIDEGATE_BIN`, else the debug build.
///
/// # Panics
/// It is not built.
pub fn binary() -> PathBuf {
    let file = env::var_os("TIDEGATE_BIN").map_or_else(|| target().join("debug/tidegate"), PathBuf::from);
    assert!(file.is_file(), "{} is not built: run `cargo build`, or all tests with `cargo xtask test`", file.display());
    file
}

/// A plugin in `TIDEGATE_PLUGINS`, else in `target/plugins`; guests made for tests are in `test` below.
///
/// # Panics
/// It is not built.
pub fn built_plugin(name: &str) -> PathBuf {
    let folder = env::var_os("TIDEGATE_PLUGINS").map_or_else(|| target().join("plugins"), PathBuf::from);
    let found = [folder.join(name), folder.join("test").join(name)].into_iter().find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is not in {}: run `cargo xtask build-plugins`", folder.display()))
}

/// The workspace's `target`, or where cargo was told to build.
fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("is in the workspace");
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from)
}
