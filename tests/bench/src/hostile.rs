//! What hostile handlers cost their neighbours: the stream's latency while one of them does its worst, against quiet.
//!
//! Part of the run in `measure.rs`, beside `operating.rs`; feeds `contrast.rs`. One daemon has them all; each is called, or a large plugin
//! compiled again and again, for as long as the stream is measured.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use tidegate_tests::component::laborious;
use tidegate_tests::metrics::Metrics;
use tidegate_tests::{Client, Message, Protocol, http, ports};

use crate::contrast::{Question, Sample};
use crate::measure::{CALM, Run, mebibytes};
use crate::operating::settled;
use crate::report::Qos;
use crate::say;
use crate::station::{Settings, Station, Subject};

/// The test handler, from the folder of the built ones.
const GUEST: &str = "test/misbehave.wasm";

/// Between two rounds of messages for the hostile handler: as many of them wait as may.
const ROUND: Duration = Duration::from_millis(20);

/// Messages of a round, each of a topic of its own.
const MESSAGES: usize = 4;

/// Functions of the plugin that is compiled, each of about 1 KiB.
const FUNCTIONS: usize = 2_000;

const QOS: Qos = Qos::AtLeastOnce;

/// A hostile handler, or what else is done beside the stream.
struct Deed {
    /// The handler's name.
    name: &'static str,
    title: &'static str,
    /// None where it is not called.
    called: Option<Called>,
}

/// What a hostile handler is told to do at each call.
struct Called {
    /// Lines of its table.
    keys: &'static str,
    /// How its calls end.
    result: &'static str,
}

const DEEDS: [Deed; 6] = [
    Deed {
        name: "loop",
        title: "p99 ms at 1,000/s beside an endless loop",
        called: Some(Called { keys: r#"config = { mode = "loop" }"#, result: "deadline" }),
    },
    Deed {
        name: "recurse",
        title: "p99 ms at 1,000/s beside endless recursion",
        called: Some(Called { keys: r#"config = { mode = "recurse" }"#, result: "trap" }),
    },
    Deed {
        name: "memory",
        title: "p99 ms at 1,000/s beside a memory bomb of 64 MiB",
        called: Some(Called { keys: r#"config = { mode = "memory" }"#, result: "memory" }),
    },
    Deed {
        name: "publishes",
        title: "p99 ms at 1,000/s beside calls of 100,000 publishes",
        called: Some(Called {
            keys: r#"
allow = { publish = ["local:out/#"] }
config = { mode = "reckless", count = 100000, bytes = 100 }"#,
            result: "limit",
        }),
    },
    Deed {
        name: "log",
        title: "p99 ms at 1,000/s beside calls that log 100 MB",
        called: Some(Called {
            keys: r#"
allow = { publish = ["local:out/#"] }
config = { mode = "shout", count = 100000, bytes = 1000 }"#,
            result: "ok",
        }),
    },
    Deed { name: "compile", title: "p99 ms at 1,000/s beside the compilation of 2 MB", called: None },
];

impl Deed {
    /// Its tables, where it is called. What waits is bounded, so that it ends soon after it was measured.
    fn tables(&self) -> Option<String> {
        let (name, Called { keys, .. }) = (self.name, self.called.as_ref()?);
        Some(format!(
            r#"
[handlers.{name}]
plugin = "misbehave.wasm"
{keys}
queue = {MESSAGES}
retry = {{ max = 0 }}
quarantine = "off"

[[subscriptions]]
broker = "local"
topic = "bad/{name}/+"
on-message = "{name}"
"#
        ))
    }
}

impl Run {
    /// Measures the stream alone, and beside each of them.
    ///
    /// # Errors
    /// A program does not start, or ends; a hostile handler did not do its deed.
    pub fn hostile(&mut self, number: usize, samples: &mut Vec<Sample>) -> Result<()> {
        let admin = ports::free();
        let tables = DEEDS.iter().filter_map(Deed::tables).collect();
        let settings = Settings { admin: Some(admin), tables, plugins: &[GUEST], ..Settings::default() };
        let mut station = Station::new(Subject::Tidegate, &self.programs, &settings, self.clock)?;
        station.launch()?;
        say!("[{number}/{}] hostile: quiet", self.repeats);
        let quiet = self.steady(&mut station, CALM, QOS)?.latencies.quantile(0.99).context("no result came")?;
        for Deed { name, title, called } in DEEDS {
            say!("[{number}/{}] hostile: {name}", self.repeats);
            let result = called.map(|called| called.result);
            let before = result.map(|result| calls(admin, name, result)).transpose()?;
            let doing = Doing::start(name, result.is_some(), &station, &self.programs.tidegate)?;
            let seen = self.steady(&mut station, CALM, QOS)?;
            let rounds = doing.stop()?;
            let beside = seen.latencies.quantile(0.99).context("no result came")?;
            settled(admin)?;
            let done = match result.zip(before) {
                Some((result, before)) => calls(admin, name, result)? - before,
                None => rounds as f64,
            };
            ensure!(done >= 1.0, "{name} was not done while the stream was measured");
            say!("  {done} times");
            for (burdened, value) in [(false, quiet), (true, beside)] {
                samples.push(Sample { question: Question::Hostile, burdened, name, title, qos: QOS, value });
            }
        }
        if let Some(memory) = station.memory()? {
            let (name, title) = ("memory_after_mib", "memory after all of them, MiB");
            let value = mebibytes(memory.resident);
            samples.push(Sample { question: Question::Hostile, burdened: true, name, title, qos: QOS, value });
        }
        station.end();
        Ok(())
    }
}

/// Calls of a handler that ended so.
fn calls(admin: u16, handler: &str, result: &str) -> Result<f64> {
    let page = http::get(admin, "/metrics")?;
    ensure!(page.status == 200, "/metrics answers {}", page.status);
    Ok(Metrics::parse(&page.body).calls(handler, result))
}

/// A deed that is done again and again, on a thread of its own.
struct Doing {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<usize>>,
}

impl Doing {
    fn start(name: &'static str, called: bool, station: &Station, tidegate: &Path) -> Result<Doing> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, port) = (Arc::clone(&stop), station.port());
        let (home, tidegate) = (station.home().to_owned(), tidegate.to_owned());
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || match called {
            true => call(name, port, &stopped),
            false => compile(&home, &tidegate, &stopped),
        })?;
        Ok(Doing { stop, thread })
    }

    /// Ends it; how often it was done.
    fn stop(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("what is done beside the stream panicked"))?
    }
}

/// Has messages wait for a handler.
fn call(name: &str, port: u16, stop: &AtomicBool) -> Result<usize> {
    let client = Client::connect(port, Protocol::V5);
    let messages: Vec<Message> = (0..MESSAGES).map(|n| Message::new(format!("bad/{name}/{n}"), "now").qos(0)).collect();
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        client.publish_all(&messages);
        rounds += 1;
        thread::sleep(ROUND);
    }
    Ok(rounds)
}

/// Has a handler of a new plugin added and removed.
fn compile(home: &Path, tidegate: &PathBuf, stop: &AtomicBool) -> Result<usize> {
    let run = |arguments: &[&str]| -> Result<()> {
        let output =
            Command::new(tidegate).args(arguments).current_dir(home).output().context("tidegate is not there")?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        let plugin = format!("laborious-{rounds}.wasm");
        // By a rename: the folder may be watched.
        let unfinished = home.join("laborious");
        std::fs::write(&unfinished, laborious(FUNCTIONS, rounds as u32))?;
        std::fs::rename(unfinished, home.join("plugins").join(&plugin))?;
        run(&["handlers", "add", "laborious", "--plugin", &plugin])?;
        run(&["handlers", "remove", "laborious"])?;
        rounds += 1;
    }
    Ok(rounds)
}
