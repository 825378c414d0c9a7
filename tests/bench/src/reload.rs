//! How long a plugin's new version takes from the rename of its file until it runs, with and without messages that come meanwhile.
//!
//! Part of the run in `measure.rs`; feeds `contrast.rs`. Each version is the sample handler with another custom section, so that each is
//! compiled. What a step took is read from the daemon's log; the whole is the bench's own clock.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tidegate_tests::process::Process;
use tidegate_tests::{Mosquitto, http, ports};

use crate::clock::SendTimes;
use crate::contrast::{Question, Sample};
use crate::load::{Load, Spec};
use crate::measure::{CALM, Run};
use crate::readings::{self, TOPICS};
use crate::report::Qos;
use crate::say;
use crate::station::Programs;

/// Versions of a side, in one repeat.
const VERSIONS: u32 = 5;

/// The plugin that changes.
const PLUGIN: &str = "celsius.wasm";

/// How long a version, or a start, may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at the log: what the whole time may be off by.
const PAUSE: Duration = Duration::from_millis(1);

const COMPILED: &str = "a plugin's new version was compiled";

const RUNS: &str = "the handler runs a new version";

impl Run {
    /// Measures both sides once: the mean of some versions.
    ///
    /// # Errors
    /// A program does not start, ends, or does not run a version.
    pub fn reload(&mut self, number: usize, sides: [bool; 2], samples: &mut Vec<Sample>) -> Result<()> {
        for burdened in sides {
            say!("[{number}/{}] reload: {}", self.repeats, Question::Reload.columns()[usize::from(burdened)]);
            let mut place = Place::new(&self.programs)?;
            let times = Arc::new(SendTimes::new());
            let spec = Spec {
                port: place.broker.port(),
                topic: readings::input_topic,
                at_least_once: true,
                rate: CALM,
                first: [0; TOPICS],
            };
            let load = burdened.then(|| Load::start(&spec, self.clock, &times)).transpose()?;
            let mut sum = Took::default();
            for version in 1..=VERSIONS {
                let took = place.replace(number as u32 * VERSIONS + version)?;
                sum.whole += took.whole;
                sum.compile += took.compile;
                sum.swap += took.swap;
            }
            load.map_or(Ok(()), |load| load.stop().map(drop))?;
            let mut add = |name, title, sum: f64| {
                let (question, qos) = (Question::Reload, Qos::AtLeastOnce);
                samples.push(Sample { question, burdened, name, title, qos, value: sum / f64::from(VERSIONS) });
            };
            add("whole_ms", "from the rename until the version runs, ms", sum.whole);
            add("compile_ms", "of that compiling, ms", sum.compile);
            add("swap_ms", "of that from compiled until it runs, ms", sum.swap);
        }
        Ok(())
    }
}

/// What a version took, in milliseconds.
#[derive(Default)]
struct Took {
    whole: f64,
    compile: f64,
    swap: f64,
}

/// A daemon with a folder of plugins of its own, and its broker.
struct Place {
    broker: Mosquitto,
    daemon: Process,
    home: TempDir,
    plugin: Vec<u8>,
}

impl Place {
    fn new(programs: &Programs) -> Result<Place> {
        let (broker, admin) = (Mosquitto::start(), ports::free());
        let home = tempfile::Builder::new().prefix("tidegate-bench-").tempdir()?;
        let source = programs.plugins.join(PLUGIN);
        let plugin = fs::read(&source).with_context(|| format!("{} is not built", source.display()))?;
        fs::create_dir(home.path().join("plugins"))?;
        fs::write(home.path().join("plugins").join(PLUGIN), &plugin)?;
        let file = home.path().join("tidegate.toml");
        let port = broker.port();
        let text = format!(
            "state-dir = \"state\"\nplugins-dir = \"plugins\"\nlog = {{ format = \"json\" }}\n\n\
             [admin]\nlisten = \"127.0.0.1:{admin}\"\n\n\
             [brokers.plant]\naddress = \"127.0.0.1\"\nport = {port}\n\n\
             [[subscriptions]]\nbroker = \"plant\"\ntopic = \"bench/in/+\"\nqos = 1\non-message = \"celsius\"\n\n\
             [handlers.celsius]\nplugin = \"{PLUGIN}\"\nallow = {{ publish = [\"plant:#\"] }}\n"
        );
        fs::write(&file, text)?;
        let mut command = Command::new(&programs.tidegate);
        command.args(["run", "-c"]).arg(file).current_dir(home.path());
        let daemon = Process::start("tidegate", &mut command);
        let mut place = Place { broker, daemon, home, plugin };
        place.wait("/readyz answers 200", || http::get(admin, "/readyz").ok().filter(|page| page.status == 200))?;
        Ok(place)
    }

    /// Puts another version in the place of the file, and waits until it runs.
    fn replace(&mut self, number: u32) -> Result<Took> {
        let (lines, beside) = (self.daemon.lines().len(), self.home.path().join("new.wasm"));
        fs::write(&beside, with_section(&self.plugin, number))?;
        let target: PathBuf = self.home.path().join("plugins").join(PLUGIN);
        let begun = Instant::now();
        fs::rename(beside, target)?;
        loop {
            let events: Vec<Value> =
                self.daemon.lines()[lines..].iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
            let find = |message: &str| events.iter().rfind(|event| event["message"] == message);
            if let (Some(compiled), Some(runs)) = (find(COMPILED), find(RUNS)) {
                let whole = begun.elapsed().as_secs_f64() * 1e3;
                let compile = compiled["milliseconds"].as_f64().context("no compile time in the log")?;
                return Ok(Took { whole, compile, swap: (second(runs)? - second(compiled)?).rem_euclid(60.0) * 1e3 });
            }
            self.goes_on(begun, "the version runs")?;
        }
    }

    fn wait<T>(&mut self, what: &str, mut found: impl FnMut() -> Option<T>) -> Result<T> {
        let begun = Instant::now();
        loop {
            match found() {
                Some(found) => return Ok(found),
                None => self.goes_on(begun, what)?,
            }
        }
    }

    /// Waits for a moment, unless there is nothing to wait for.
    fn goes_on(&mut self, begun: Instant, what: &str) -> Result<()> {
        if let Some(status) = self.daemon.ended() {
            bail!("tidegate ended ({status}): {}", self.daemon.lines().join(" / "));
        }
        ensure!(begun.elapsed() < PATIENCE, "{what}: not so: {}", self.daemon.lines().join(" / "));
        std::thread::sleep(PAUSE);
        Ok(())
    }
}

/// The second within its minute of a line of the log.
fn second(event: &Value) -> Result<f64> {
    let time = event["timestamp"].as_str().context("a line of the log has no timestamp")?;
    let second = time.rsplit(':').next().and_then(|second| second.trim_end_matches('Z').parse().ok());
    second.with_context(|| format!("{time} is no timestamp"))
}

/// The component with a custom section: the same code, and another version.
fn with_section(component: &[u8], number: u32) -> Vec<u8> {
    // A section is its identifier, 0, its length and its content; a custom one begins with its name.
    let content = [&[5][..], b"bench", &number.to_le_bytes()].concat();
    [component, &[0, content.len() as u8], &content].concat()
}
