//! What it costs the stream that somebody operates the daemon: the same daemon with and without.
//!
//! Part of the run in `measure.rs`; feeds `contrast.rs`. Both sides take turns, and each repeat begins with the other one.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use tidegate_tests::metrics::Metrics;
use tidegate_tests::{http, ports};

use crate::contrast::{Question, Sample};
use crate::crowd::{Counts, Crowd};
use crate::measure::{FIXED, Measurement, Run, each, mebibytes};
use crate::report::Qos;
use crate::say;
use crate::station::{Seen, Settings, Station, Subject};

/// Messages a second while clients ask.
const BUSY: f64 = 5_000.0;

/// Before the clients come: so long the daemon receives messages, for there to be something to ask for.
const FILLING: Duration = Duration::from_secs(1);

/// How long the last message may take to its end after its result has come.
const PATIENCE: Duration = Duration::from_secs(10);

impl Run {
    /// Measures both sides once.
    ///
    /// # Errors
    /// A program does not start, or ends.
    pub fn operating(&mut self, number: usize) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        let sides = if number % 2 == 1 { [false, true] } else { [true, false] };
        if self.wanted(Measurement::Admin) {
            for burdened in sides {
                say!("[{number}/{}] admin: {}", self.repeats, Question::Admin.columns()[usize::from(burdened)]);
                self.asked(burdened, &mut samples)?;
            }
        }
        if self.wanted(Measurement::Received) {
            self.kept(number, sides, &mut samples)?;
        }
        if self.wanted(Measurement::Disk) {
            self.disk(number, sides, &mut samples)?;
        }
        if self.wanted(Measurement::StartFull) {
            self.start_full(number, sides, &mut samples)?;
        }
        if self.wanted(Measurement::Hostile) {
            self.hostile(number, &mut samples)?;
        }
        if self.wanted(Measurement::Reload) {
            self.reload(number, sides, &mut samples)?;
        }
        Ok(samples)
    }

    /// A stream at QoS 1, while clients of the admin plane ask or do not.
    fn asked(&mut self, burdened: bool, samples: &mut Vec<Sample>) -> Result<()> {
        let admin = ports::free();
        let settings = Settings { admin: Some(admin), ..Settings::default() };
        let mut station = Station::new(Subject::Tidegate, &self.programs, &settings, self.clock)?;
        station.launch()?;
        self.steady_for(&mut station, FILLING, BUSY, Qos::AtLeastOnce)?;
        let before = settled(admin)?;
        let crowd = if burdened { Some(Crowd::start(admin, &station.socket())?) } else { None };
        let (begun, came) = (Instant::now(), crowd.as_ref().map(Crowd::counts));
        let seen = self.steady(&mut station, BUSY, Qos::AtLeastOnce)?;
        let went = crowd.as_ref().map(Crowd::counts);
        let took = begun.elapsed();
        crowd.map_or(Ok(()), Crowd::stop)?;
        let after = settled(admin)?;
        for (what, count) in [("received", after.0 - before.0), ("finished", after.1 - before.1)] {
            if count != seen.results as f64 {
                let column = Question::Admin.columns()[usize::from(burdened)];
                self.violations.push(format!("{column}: {what} {count} messages, and {} results came", seen.results));
            }
        }
        let mut add = |name, title, value| {
            samples.push(Sample { question: Question::Admin, burdened, name, title, qos: Qos::AtLeastOnce, value });
        };
        told(&seen, &mut add);
        if let Some((came, went)) = came.zip(went) {
            seen_by_clients(came, went, took, &mut add);
        }
        station.end();
        Ok(())
    }

    /// Processor time of a message, with and without keeping it.
    fn kept(&mut self, number: usize, sides: [bool; 2], samples: &mut Vec<Sample>) -> Result<()> {
        let mut stations = Vec::new();
        for burdened in sides {
            // What is measured with it is the default.
            let top = if burdened { "" } else { "recv-buffer = 0\n" };
            let settings = Settings { top, ..Settings::default() };
            let mut station = Station::new(Subject::Tidegate, &self.programs, &settings, self.clock)?;
            station.launch()?;
            stations.push((burdened, station));
        }
        for qos in Qos::ALL {
            for (burdened, station) in &mut stations {
                let column = Question::Received.columns()[usize::from(*burdened)];
                say!("[{number}/{}] received, QoS {}: {column}", self.repeats, qos.number());
                let seen = self.steady(station, FIXED, qos)?;
                let mut add = |name, title, value| {
                    let burdened = *burdened;
                    samples.push(Sample { question: Question::Received, burdened, name, title, qos, value });
                };
                if let Some(time) = seen.processor_time {
                    add("cpu_us", "own CPU µs a message at 10,000/s", each(time, seen.results));
                }
                if let Some(memory) = seen.memory {
                    add("memory_loaded_mib", "memory at 10,000/s, MiB", mebibytes(memory.resident));
                }
            }
        }
        stations.iter_mut().for_each(|(_, station)| station.end());
        Ok(())
    }
}

/// What became of the stream.
fn told(seen: &Seen, add: &mut impl FnMut(&'static str, &'static str, f64)) {
    let quantiles = [("latency_p50_ms", "p50 ms at 5,000/s", 0.5), ("latency_p99_ms", "p99 ms at 5,000/s", 0.99)];
    for (name, title, share) in quantiles {
        seen.latencies.quantile(share).into_iter().for_each(|time| add(name, title, time));
    }
    if let Some(time) = seen.processor_time {
        add("cpu_us", "own CPU µs a message", each(time, seen.results));
    }
    if let Some(memory) = seen.memory {
        add("memory_loaded_mib", "memory, MiB", mebibytes(memory.resident));
        add("memory_peak_mib", "most memory so far, MiB", mebibytes(memory.peak));
    }
}

/// That the clients were there.
fn seen_by_clients(came: Counts, went: Counts, took: Duration, add: &mut impl FnMut(&'static str, &'static str, f64)) {
    let rate = |came: u64, went: u64| (went - came) as f64 / took.as_secs_f64();
    add("streams_open", "streams open at the end", went.open as f64);
    add("streams_refused_rate", "streams refused a second", rate(came.refused, went.refused));
    add("answers_rate", "whole answers a second", rate(came.answered, went.answered));
    add("late_rate", "answers that did not begin in time, a second", rate(came.late, went.late));
    add("broken_rate", "connections broken off a second", rate(came.broken, went.broken));
    add("read_kib_rate", "KiB a second that clients took", rate(came.bytes, went.bytes) / 1024.0);
}

/// Messages received and finished, once they are as many.
///
/// # Errors
/// They are not, in time.
pub fn settled(admin: u16) -> Result<(f64, f64)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let page = http::get(admin, "/metrics")?;
        ensure!(page.status == 200, "/metrics answers {}", page.status);
        let metrics = Metrics::parse(&page.body);
        let (received, finished) = (metrics.received("local"), metrics.finished_all("local"));
        if received == finished && metrics.in_progress("local") == 0.0 {
            return Ok((received, finished));
        }
        if Instant::now() > deadline {
            bail!("of {received} messages received only {finished} were finished {PATIENCE:?} after the last result");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
