//! How the daemon starts with 1,000,000 publishes on its disk: how long until everything is ready, and in how much memory.
//!
//! Part of the run in `measure.rs`; feeds `contrast.rs`. The outbox is filled once, by the daemon itself, while the broker that
//! it is for is away; every repeat then starts on the same state, once as a stop left it and once as a kill did. What leaves
//! while it becomes ready is not missed: it is a share too small to matter, and the counts are checked before each start.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use tempfile::TempDir;
use tidegate_tests::metrics::Metrics;
use tidegate_tests::mosquitto::Options;
use tidegate_tests::process::Process;
use tidegate_tests::{Mosquitto, http, ports};

use crate::clock::SendTimes;
use crate::contrast::{Question, Sample};
use crate::load::{Load, Spec};
use crate::measure::{Run, mebibytes};
use crate::process;
use crate::readings::{self, TOPICS};
use crate::report::Qos;
use crate::say;
use crate::station::Programs;

/// What a full outbox holds at least.
const ENTRIES: f64 = 1_000_000.0;

/// Messages a second that fill it: more than it takes, so that its broker queues the rest.
const FILLING: f64 = 15_000.0;

/// How long nothing new may enter the outbox while it is filled, or a start may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at what happens.
const PAUSE: Duration = Duration::from_millis(2);

/// How a daemon ends before the start that is measured.
#[derive(Clone, Copy)]
enum End {
    Stopped,
    Killed,
}

/// A daemon whose outbox for the broker `sink` is on the disk, and its two brokers.
pub struct Depot {
    source: Mosquitto,
    sink: u16,
    admin: u16,
    command: Command,
    home: TempDir,
}

impl Run {
    /// Measures both sides once. In the first repeat the full one is filled.
    ///
    /// # Errors
    /// A program does not start, ends, or loses what was on its disk.
    pub fn start_full(&mut self, number: usize, sides: [bool; 2], samples: &mut Vec<Sample>) -> Result<()> {
        for burdened in sides {
            let column = Question::StartFull.columns()[usize::from(burdened)];
            let mut depot = match self.full.take().filter(|_| burdened) {
                Some(depot) => depot,
                None => Depot::new(&self.programs)?,
            };
            if burdened && depot.kept()? == 0 {
                say!("[{number}/{}] start-full: filling the outbox", self.repeats);
                depot.fill(self)?;
            }
            for (end, name, title) in [
                (End::Stopped, "start_ready_ms", "start until ready, ms, after a stop"),
                (End::Killed, "start_ready_killed_ms", "start until ready, ms, after a kill"),
            ] {
                say!("[{number}/{}] start-full: {column}, {title}", self.repeats);
                let started = depot.start(end, burdened)?;
                let mut add = |name, title, value| {
                    let (question, qos) = (Question::StartFull, Qos::AtLeastOnce);
                    samples.push(Sample { question, burdened, name, title, qos, value });
                };
                add(name, title, started.ready.as_secs_f64() * 1e3);
                if matches!(end, End::Killed) {
                    add("memory_mib", "memory when ready, MiB", mebibytes(started.memory.resident));
                    add("memory_peak_mib", "most memory until then, MiB", mebibytes(started.memory.peak));
                    add("file_mib", "state.redb, MiB", mebibytes(depot.kept()?));
                }
            }
            if burdened {
                self.full = Some(depot);
            }
        }
        Ok(())
    }
}

/// What was seen of a start.
struct Started {
    ready: Duration,
    memory: process::Memory,
}

impl Depot {
    fn new(programs: &Programs) -> Result<Depot> {
        let (source, sink, admin) = (Mosquitto::start(), ports::free(), ports::free());
        let home = tempfile::Builder::new().prefix("tidegate-bench-").tempdir()?;
        let file = home.path().join("tidegate.toml");
        fs::write(&file, configuration(source.port(), sink, admin, programs))?;
        let mut command = Command::new(&programs.tidegate);
        command.args(["run", "-c"]).arg(file).current_dir(home.path());
        Ok(Depot { source, sink, admin, command, home })
    }

    fn state(&self) -> PathBuf {
        self.home.path().join("state/state.redb")
    }

    /// Bytes of the file; 0 where there is none.
    fn kept(&self) -> Result<u64> {
        let file = self.state();
        if file.exists() { Ok(fs::metadata(file)?.len()) } else { Ok(0) }
    }

    /// Has the daemon take in messages until its outbox is full, while the sink is away.
    fn fill(&mut self, run: &Run) -> Result<()> {
        let mut daemon = self.launch()?;
        self.await_page(&mut daemon, "/readyz", |_, body| !body.contains("broker source "))?;
        let times = Arc::new(SendTimes::new());
        let spec = Spec {
            port: self.source.port(),
            topic: readings::input_topic,
            at_least_once: true,
            rate: FILLING,
            first: [0; TOPICS],
        };
        let load = Load::start(&spec, run.clock, &times)?;
        self.await_waiting(&mut daemon, ENTRIES)?;
        // Nothing is to be left with the source's broker.
        let published: u64 = load.stop()?.end.iter().sum();
        self.await_waiting(&mut daemon, published as f64)?;
        self.end(daemon, End::Stopped)
    }

    /// Has it end as told, and measures the next start, with the sink there.
    fn start(&mut self, end: End, full: bool) -> Result<Started> {
        // Of the same state for both kinds of ends: with the sink away.
        let mut daemon = self.launch()?;
        self.await_page(&mut daemon, "/readyz", |_, body| !body.contains("broker source "))?;
        let waiting = self.waiting(&mut daemon)?;
        ensure!(!full || waiting >= ENTRIES * 0.9, "only {waiting} publishes are left on the disk");
        self.end(daemon, end)?;
        let sink = Mosquitto::on(self.sink, Options::default());
        let begun = Instant::now();
        let mut daemon = self.launch()?;
        self.await_page(&mut daemon, "/readyz", |status, _| status == 200)?;
        let ready = begun.elapsed();
        let memory = process::memory(daemon.id())?;
        // Before it has sent much of what the next start is to find.
        self.end(daemon, End::Killed)?;
        drop(sink);
        Ok(Started { ready, memory })
    }

    fn launch(&mut self) -> Result<Process> {
        Ok(Process::start("tidegate", &mut self.command))
    }

    fn end(&self, mut daemon: Process, end: End) -> Result<()> {
        match end {
            End::Killed => daemon.kill(),
            End::Stopped => {
                daemon.signal("TERM");
                let status = daemon.wait(PATIENCE);
                ensure!(status.success(), "tidegate ended with {status}");
            }
        }
        Ok(())
    }

    /// Publishes in the outbox.
    fn waiting(&self, daemon: &mut Process) -> Result<f64> {
        let page = self.await_page(daemon, "/metrics", |status, _| status == 200)?;
        Ok(Metrics::parse(&page).sum("tidegate_outbox_messages", &[("broker", "sink")]))
    }

    /// Waits until the outbox holds so many publishes.
    fn await_waiting(&self, daemon: &mut Process, count: f64) -> Result<()> {
        let mut moved = (Instant::now(), 0.0);
        loop {
            let waiting = self.waiting(daemon)?;
            if waiting >= count {
                return Ok(());
            }
            if waiting > moved.1 {
                moved = (Instant::now(), waiting);
            }
            ensure!(moved.0.elapsed() < PATIENCE, "the outbox takes nothing more after {waiting} publishes");
            std::thread::sleep(PAUSE * 50);
        }
    }

    /// Waits until a page of the admin server is as wanted.
    fn await_page(&self, daemon: &mut Process, path: &str, wanted: impl Fn(u16, &str) -> bool) -> Result<String> {
        let begun = Instant::now();
        loop {
            // It may not listen yet.
            if let Ok(page) = http::get(self.admin, path)
                && wanted(page.status, &page.body)
            {
                return Ok(page.body);
            }
            if let Some(status) = daemon.ended() {
                bail!("tidegate ended ({status}): {}", daemon.lines().join(" / "));
            }
            ensure!(begun.elapsed() < PATIENCE, "{path} is not as wanted: {}", daemon.lines().join(" / "));
            std::thread::sleep(PAUSE);
        }
    }
}

fn configuration(source: u16, sink: u16, admin: u16, programs: &Programs) -> String {
    let plugins = serde_json::Value::from(programs.plugins.to_string_lossy());
    let broker = |name: &str, port: u16, keys: &str| {
        format!("[brokers.{name}]\naddress = \"127.0.0.1\"\nport = {port}\nclient-id = \"tidegate-{name}\"\n{keys}\n")
    };
    let outbox = "outbox = { store = \"disk\", max-messages = 2_000_000, max-bytes = \"4GiB\" }\n";
    format!(
        "state-dir = \"state\"\nplugins-dir = {plugins}\n\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n\n{}{}\
         [[subscriptions]]\nbroker = \"source\"\ntopic = \"bench/in/+\"\nqos = 1\non-message = \"relay\"\n\n\
         [handlers.relay]\nplugin = \"relay.wasm\"\nallow = {{ publish = [\"sink:out/#\"] }}\n\
         config = {{ broker = \"sink\", topic = \"out/{{topic}}\" }}\n",
        broker("source", source, ""),
        broker("sink", sink, outbox),
    )
}
