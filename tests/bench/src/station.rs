//! One of those that are compared, with a broker, a receiver and a load of its own.
//!
//! Owns: the processes, and the numbering of the readings. Fed by `measure.rs` with phases; gives back what was seen in each.
//! It judges nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tidegate_tests::Mosquitto;
use tidegate_tests::process::Process;

use crate::clock::{Clock, SendTimes};
use crate::latency::Latencies;
use crate::load::{Load, Published, Spec};
use crate::process::{self, Memory};
use crate::readings::{self, TOPICS};
use crate::receiver::Receiver;
use crate::tally::Defects;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The minimal program on rumqttc.
    Floor,
    /// The daemon with the sample handler `celsius`.
    Tidegate,
    /// Nothing: the load goes to the receiver.
    Broker,
}

impl Subject {
    /// All of them, in the order of measuring.
    pub const ALL: [Subject; 3] = [Subject::Floor, Subject::Tidegate, Subject::Broker];

    /// Its name in the report.
    pub fn label(self) -> &'static str {
        match self {
            Subject::Floor => "floor",
            Subject::Tidegate => "tidegate",
            Subject::Broker => "broker alone",
        }
    }
}

/// Where the built programs are.
pub struct Programs {
    /// The daemon.
    pub tidegate: PathBuf,
    /// The floor.
    pub floor: PathBuf,
    /// The folder of the built handlers.
    pub plugins: PathBuf,
}

/// How the daemon is run other than by its defaults.
#[derive(Clone, Default)]
pub struct Settings {
    /// Lines at the top of its configuration.
    pub top: &'static str,
    /// Lines of its broker.
    pub broker: &'static str,
    /// The port of its admin plane on 127.0.0.1; off where there is none.
    pub admin: Option<u16>,
    /// Further tables.
    pub tables: String,
    /// Plugins that it has beside the sample handler, in a folder of its own, by their names in the folder of the built ones.
    pub plugins: &'static [&'static str],
}

/// Before the window of a phase: caches fill, and the scheduler settles.
const RAMP: Duration = Duration::from_millis(500);

/// Between two looks at what happens.
const PAUSE: Duration = Duration::from_millis(5);

/// Without a result for so long after a start, none comes any more; one that comes later counts nowhere.
const STRAGGLERS: Duration = Duration::from_secs(1);

/// How long a subject may take from its start to the first result, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages a second while a subject starts: every millisecond one asks whether it is there.
const PROBES: f64 = 1_000.0;

/// A load to be seen through.
#[derive(Clone, Copy)]
pub struct Phase {
    /// Messages a second.
    pub rate: f64,
    /// QoS 1 rather than 0.
    pub at_least_once: bool,
    /// How long is measured.
    pub window: Duration,
    /// Messages on their way at the same time after which the phase is given up.
    pub give_up: Option<u64>,
    /// Without a result for so long, what is missing is lost.
    pub patience: Duration,
}

/// What was seen in a phase.
pub struct Seen {
    /// Results in the whole phase.
    pub results: u64,
    /// Time of each result in the window.
    pub latencies: Latencies,
    /// Processor time of the subject in the whole phase, in nanoseconds; none for the broker alone.
    pub processor_time: Option<u64>,
    /// Processor time of its broker in the whole phase, in nanoseconds.
    pub broker_time: u64,
    /// The subject's memory at the end of the window.
    pub memory: Option<Memory>,
    /// In the whole phase.
    pub defects: Defects,
    /// The longest that a message left after it was due.
    pub latest: Duration,
    /// There were too many messages on their way.
    pub gave_up: bool,
}

/// One that is compared, with everything around it. Dropping it ends all processes.
pub struct Station {
    /// What is compared.
    pub subject: Subject,
    process: Option<Process>,
    command: Option<Command>,
    receiver: Receiver,
    broker: Mosquitto,
    clock: Clock,
    times: Arc<SendTimes>,
    /// Of each topic the number of the next reading.
    next: [u64; TOPICS],
    home: TempDir,
}

impl Station {
    /// Starts a broker and a receiver; the subject is not running yet.
    ///
    /// # Errors
    /// Something does not start.
    pub fn new(subject: Subject, programs: &Programs, settings: &Settings, clock: Clock) -> Result<Station> {
        let broker = Mosquitto::start();
        let home = tempfile::Builder::new().prefix("tidegate-bench-").tempdir()?;
        let command = match subject {
            Subject::Floor => {
                let mut command = Command::new(&programs.floor);
                command.arg(broker.port().to_string());
                Some(command)
            }
            Subject::Tidegate => {
                let file = home.path().join("tidegate.toml");
                let plugins = own_plugins(home.path(), programs, settings)?;
                fs::write(&file, configuration(broker.port(), &plugins, settings))?;
                let mut command = Command::new(&programs.tidegate);
                command.args(["run", "-c"]).arg(file).current_dir(home.path());
                Some(command)
            }
            Subject::Broker => None,
        };
        let kind = if command.is_some() { readings::Result::Converted } else { readings::Result::AsSent };
        let times = Arc::new(SendTimes::new());
        let receiver = Receiver::start(broker.port(), kind, clock, Arc::clone(&times))?;
        let next = [0; TOPICS];
        Ok(Station { subject, process: None, command, receiver, broker, clock, times, next, home })
    }

    /// Starts the subject under a light load. The time from its start to its first result; none for the broker alone.
    ///
    /// # Errors
    /// It ends, or no result comes.
    pub fn launch(&mut self) -> Result<Option<Duration>> {
        if self.command.is_none() {
            return Ok(None);
        }
        {
            let mut observed = self.receiver.observed();
            observed.tally.begin(self.next);
            observed.first_at = None;
        }
        let load = self.load(PROBES, false)?;
        let Some(command) = &mut self.command else { return Ok(None) };
        let started = self.clock.now();
        let mut process = Process::start(self.subject.label(), command);
        let deadline = Instant::now() + PATIENCE;
        let first = loop {
            if let Some(first) = self.receiver.observed().first_at {
                break first;
            }
            if let Some(status) = process.ended() {
                bail!("{} ended ({status}): {}", self.subject.label(), process.lines().join(" / "));
            }
            if Instant::now() > deadline {
                bail!("{} gives no result: {}", self.subject.label(), process.lines().join(" / "));
            }
            self.receiver.check()?;
            std::thread::sleep(PAUSE);
        };
        self.process = Some(process);
        let published = load.stop()?;
        // What was sent before it had subscribed never comes.
        self.settle(&published, STRAGGLERS)?;
        Ok(Some(Duration::from_nanos(first.saturating_sub(started))))
    }

    /// Where its broker listens.
    pub fn port(&self) -> u16 {
        self.broker.port()
    }

    /// The folder that its state is in.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The Unix socket of the daemon's admin plane.
    pub fn socket(&self) -> PathBuf {
        self.home.path().join("state/admin.sock")
    }

    /// Ends the subject as an operator does.
    pub fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal("TERM");
            process.wait(PATIENCE);
        }
    }

    /// The subject's memory; none for the broker alone.
    ///
    /// # Errors
    /// It has ended.
    pub fn memory(&self) -> Result<Option<Memory>> {
        self.process.as_ref().map(|process| process::memory(process.id())).transpose()
    }

    /// Sees a load through.
    ///
    /// # Errors
    /// A process or a connection ended.
    pub fn run(&mut self, phase: &Phase) -> Result<Seen> {
        self.receiver.observed().tally.begin(self.next);
        // From before the first message until after the last result: where the machine makes results late, a shorter time
        // would count work for messages that it does not count.
        let begin = self.times_used()?;
        let load = self.load(phase.rate, phase.at_least_once)?;
        let mut in_time = self.watch(&load, RAMP, phase.give_up)?;
        self.receiver.observed().latencies.clear();
        in_time = in_time && self.watch(&load, phase.window, phase.give_up)?;
        let latencies = self.receiver.observed().latencies.clone();
        let memory = self.memory()?;
        let published = load.stop()?;
        self.settle(&published, phase.patience)?;
        let end = self.times_used()?;
        let (results, defects) = {
            let observed = self.receiver.observed();
            (observed.tally.received(), observed.tally.defects(published.end))
        };
        Ok(Seen {
            results,
            latencies,
            processor_time: end.0.zip(begin.0).map(|(end, begin)| end - begin),
            broker_time: end.1 - begin.1,
            memory,
            defects,
            latest: published.latest,
            gave_up: !in_time,
        })
    }

    fn load(&self, rate: f64, at_least_once: bool) -> Result<Load> {
        let topic = match self.subject {
            Subject::Broker => readings::output_topic,
            Subject::Floor | Subject::Tidegate => readings::input_topic,
        };
        let spec = Spec { port: self.broker.port(), topic, at_least_once, rate, first: self.next };
        Load::start(&spec, self.clock, &self.times)
    }

    /// Lets the load run for a time. False as soon as too many messages are on their way.
    fn watch(&mut self, load: &Load, time: Duration, give_up: Option<u64>) -> Result<bool> {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            std::thread::sleep(left.min(PAUSE));
            self.check()?;
            let received = self.receiver.observed().tally.received();
            if give_up.is_some_and(|most| load.sent().saturating_sub(received) > most) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn check(&mut self) -> Result<()> {
        self.receiver.check()?;
        if let Some(process) = &mut self.process
            && let Some(status) = process.ended()
        {
            bail!("{} ended ({status}): {}", self.subject.label(), process.lines().join(" / "));
        }
        Ok(())
    }

    /// Waits for the results of all that was published, or until none has come for a time.
    fn settle(&mut self, published: &Published, patience: Duration) -> Result<()> {
        self.next = published.end;
        let mut last = (Instant::now(), 0);
        loop {
            self.check()?;
            let (reached, received) = {
                let observed = self.receiver.observed();
                (observed.tally.reached(published.end), observed.tally.received())
            };
            if received != last.1 {
                last = (Instant::now(), received);
            }
            if reached || last.0.elapsed() > patience {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Processor time so far, of the subject and of its broker.
    fn times_used(&self) -> Result<(Option<u64>, u64)> {
        let subject = self.process.as_ref().map(|process| process::processor_time(process.id())).transpose()?;
        Ok((subject, process::processor_time(self.broker.id()).context("the broker ended")?))
    }
}

/// The folder of the daemon's plugins: that of the built ones, or one of its own where it needs more.
fn own_plugins(home: &Path, programs: &Programs, settings: &Settings) -> Result<PathBuf> {
    if settings.plugins.is_empty() {
        return Ok(programs.plugins.clone());
    }
    let folder = home.join("plugins");
    fs::create_dir(&folder)?;
    for plugin in settings.plugins.iter().chain(&["celsius.wasm"]) {
        let built = programs.plugins.join(plugin);
        let name = built.file_name().context("a plugin has a name")?;
        fs::copy(&built, folder.join(name)).with_context(|| format!("{} is not built", built.display()))?;
    }
    Ok(folder)
}

/// The defaults of everything that the comparison does not need: one instance for each core, protocol 5.
fn configuration(port: u16, plugins: &Path, settings: &Settings) -> String {
    let plugins = serde_json::Value::from(plugins.to_string_lossy());
    let admin = settings.admin.map(|admin| format!("[admin]\nlisten = \"127.0.0.1:{admin}\"\n\n"));
    let (top, broker, admin) = (settings.top, settings.broker, admin.unwrap_or_default());
    format!(
        "{top}state-dir = \"state\"\nplugins-dir = {plugins}\n\n{admin}\
         [brokers.local]\naddress = \"127.0.0.1\"\nport = {port}\nclient-id = \"tidegate-bench\"\n{broker}\n\
         [[subscriptions]]\nbroker = \"local\"\ntopic = \"bench/in/+\"\nqos = 1\non-message = \"celsius\"\n\n\
         [handlers.celsius]\nplugin = \"celsius.wasm\"\nallow = {{ publish = [\"local:{}\"] }}\n{}",
        readings::OUTPUT_FILTER,
        settings.tables
    )
}
