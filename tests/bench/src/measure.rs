//! The measurements: which loads are run, in which order, and what is taken from each.
//!
//! Fed by the command line; feeds `report.rs`. Within a repeat those who are compared take turns at each measurement, so
//! that whatever else the machine does meets all of them alike.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::clock::Clock;
use crate::full::Depot;
use crate::report::{Figures, Metric, Qos};
use crate::say;
use crate::station::{Phase, Programs, Seen, Settings, Station, Subject};

/// What can be measured alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Measurement {
    /// Time from start to first result, with an empty compile cache and with a filled one.
    Start,
    /// Time of a message from publisher to receiver at 1,000 a second.
    Latency,
    /// Processor time of a message at 10,000 a second.
    Cpu,
    /// Memory, idle and at 10,000 a second.
    Memory,
    /// The highest rate without loss and with 99 % of the results within 50 ms, and processor time there.
    Max,
    /// Latency and memory at 5,000 a second while 500 slow clients ask the admin plane.
    Admin,
    /// Processor time of a message at 10,000 a second with and without keeping it for `tidegate recv`.
    Received,
    /// Latency, processor time and the highest rate at QoS 1 with the outbox in memory and on the disk.
    Disk,
    /// Time from start until everything is ready, and memory, with 1,000,000 publishes on the disk and with none.
    StartFull,
    /// Latency at 1,000 a second while a hostile handler does its worst, or a large plugin is compiled, and while none does.
    Hostile,
    /// Time until a plugin's new version runs, with 1,000 messages a second and with none.
    Reload,
}

impl Measurement {
    /// It compares the daemon with itself.
    fn alone(self) -> bool {
        use Measurement::*;
        matches!(self, Admin | Received | Disk | StartFull | Hostile | Reload)
    }
}

/// The rate at which latency is measured.
pub const CALM: f64 = 1_000.0;

/// The rate at which processor time and memory are measured.
pub const FIXED: f64 = 10_000.0;

/// What 99 % of the results must keep to for a rate to count as sustained.
const SUSTAINED: Duration = Duration::from_millis(50);

/// Rates that are tried differ by this factor.
const STEP: f64 = 1.04;

/// Steps at once while the search looks for a rate that is too high: a factor of 1.6.
const STRIDE: i32 = 12;

/// Without a result for so long at a rate that everybody sustains, what is missing is lost.
const LOST: Duration = Duration::from_secs(10);

/// The same where the rate may be too high: then it is not sustained anyway.
const OVERTAXED: Duration = Duration::from_secs(1);

/// A rate that nothing sustains.
const HOPELESS: f64 = 2_000_000.0;

/// A whole run.
pub struct Run {
    /// What is run.
    pub programs: Programs,
    /// What is measured; everything where it is empty.
    pub only: Vec<Measurement>,
    /// How often.
    pub repeats: usize,
    /// How long each load is measured.
    pub seconds: f64,
    /// The time of all messages.
    pub clock: Clock,
    /// The step of the highest rate that was found before.
    found: BTreeMap<(Subject, Qos), i32>,
    /// The same of each store that an outbox may have.
    pub found_on_disk: [Option<i32>; 2],
    /// A daemon with a full outbox on its disk, for all repeats.
    pub full: Option<Depot>,
    /// What must not happen at a rate that everybody sustains.
    pub violations: Vec<String>,
}

impl Run {
    /// A run that begins now.
    pub fn new(programs: Programs, only: Vec<Measurement>, repeats: usize, seconds: f64) -> Run {
        let (found, found_on_disk, violations) = (BTreeMap::new(), [None; 2], Vec::new());
        Run { programs, only, repeats, seconds, clock: Clock::start(), found, found_on_disk, full: None, violations }
    }

    /// Measures everything once.
    ///
    /// # Errors
    /// A program does not start, or ends.
    pub fn repeat(&mut self, number: usize) -> Result<Figures> {
        let mut figures = Figures::default();
        if !self.only.is_empty() && self.only.iter().all(|measurement| measurement.alone()) {
            return Ok(figures);
        }
        let mut stations = Vec::new();
        for subject in Subject::ALL {
            say!("[{number}/{}] start: {}", self.repeats, subject.label());
            stations.push(self.start(subject, &mut figures)?);
        }
        for measurement in [Measurement::Latency, Measurement::Cpu, Measurement::Memory, Measurement::Max] {
            if !self.wanted(measurement) {
                continue;
            }
            for qos in Qos::ALL {
                for station in &mut stations {
                    let name = measurement.to_possible_value().expect("none is hidden");
                    let (name, subject) = (name.get_name().to_owned(), station.subject.label());
                    say!("[{number}/{}] {name}, QoS {}: {subject}", self.repeats, qos.number());
                    match measurement {
                        Measurement::Latency => self.latency(station, qos, &mut figures)?,
                        Measurement::Cpu => self.processor(station, qos, &mut figures)?,
                        Measurement::Memory => self.memory(station, qos, &mut figures)?,
                        Measurement::Max => self.highest(station, qos, &mut figures)?,
                        // Of this list no other is asked for.
                        _ => {}
                    }
                }
            }
        }
        stations.iter_mut().for_each(Station::end);
        Ok(figures)
    }

    /// Whether this is measured.
    pub fn wanted(&self, measurement: Measurement) -> bool {
        self.only.is_empty() || self.only.contains(&measurement)
    }

    fn window(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    fn start(&self, subject: Subject, figures: &mut Figures) -> Result<Station> {
        let mut station = Station::new(subject, &self.programs, &Settings::default(), self.clock)?;
        let mut launch = |metric| -> Result<()> {
            if let Some(time) = station.launch()? {
                figures.add(metric, subject, time.as_secs_f64() * 1e3);
            }
            Ok(())
        };
        if self.wanted(Measurement::Start) {
            launch(Metric::StartCold)?;
            station.end();
            station.launch()?.into_iter().for_each(|time| {
                figures.add(Metric::StartWarm, subject, time.as_secs_f64() * 1e3);
            });
        } else {
            station.launch()?;
        }
        if self.wanted(Measurement::Memory)
            && let Some(memory) = station.memory()?
        {
            figures.add(Metric::MemoryIdle, subject, mebibytes(memory.resident));
        }
        Ok(station)
    }

    /// A load that everybody sustains.
    ///
    /// # Errors
    /// A process or a connection ended.
    pub fn steady(&mut self, station: &mut Station, rate: f64, qos: Qos) -> Result<Seen> {
        self.steady_for(station, self.window(), rate, qos)
    }

    /// The same for so long.
    ///
    /// # Errors
    /// A process or a connection ended.
    pub fn steady_for(&mut self, station: &mut Station, window: Duration, rate: f64, qos: Qos) -> Result<Seen> {
        let at_least_once = qos == Qos::AtLeastOnce;
        let seen = station.run(&Phase { rate, at_least_once, window, give_up: None, patience: LOST })?;
        if seen.defects.any() {
            let (subject, qos) = (station.subject.label(), qos.number());
            self.violations.push(format!("{subject} at {rate} messages a second, QoS {qos}: {}", seen.defects));
        }
        Ok(seen)
    }

    fn latency(&mut self, station: &mut Station, qos: Qos, figures: &mut Figures) -> Result<()> {
        let seen = self.steady(station, CALM, qos)?;
        for (metric, share) in [(Metric::LatencyHalf(qos), 0.5), (Metric::LatencyMost(qos), 0.99)] {
            seen.latencies.quantile(share).into_iter().for_each(|time| figures.add(metric, station.subject, time));
        }
        Ok(())
    }

    fn processor(&mut self, station: &mut Station, qos: Qos, figures: &mut Figures) -> Result<()> {
        let seen = self.steady(station, FIXED, qos)?;
        if let Some(time) = seen.processor_time {
            figures.add(Metric::Processor(qos), station.subject, each(time, seen.results));
        }
        figures.add(Metric::BrokerProcessor(qos), station.subject, each(seen.broker_time, seen.results));
        Ok(())
    }

    fn memory(&mut self, station: &mut Station, qos: Qos, figures: &mut Figures) -> Result<()> {
        if station.subject == Subject::Broker {
            return Ok(());
        }
        let seen = self.steady(station, FIXED, qos)?;
        if let Some(memory) = seen.memory {
            figures.add(Metric::MemoryLoaded(qos), station.subject, mebibytes(memory.resident));
            figures.add(Metric::MemoryPeak(qos), station.subject, mebibytes(memory.peak));
        }
        Ok(())
    }

    fn highest(&mut self, station: &mut Station, qos: Qos, figures: &mut Figures) -> Result<()> {
        let from = self.found.get(&(station.subject, qos)).copied();
        let Some((step, seen)) = self.search(station, qos, from)? else { return Ok(()) };
        self.found.insert((station.subject, qos), step);
        figures.add(Metric::Highest(qos), station.subject, rate(step));
        if let Some(time) = seen.processor_time {
            figures.add(Metric::HighestProcessor(qos), station.subject, each(time, seen.results));
        }
        Ok(())
    }

    /// Looks for the highest rate in steps: up from where the last repeat found it, or down, until it lies between two
    /// steps. Its step, and what was seen there.
    ///
    /// # Errors
    /// A process or a connection ended.
    pub fn search(&self, station: &mut Station, qos: Qos, from: Option<i32>) -> Result<Option<(i32, Seen)>> {
        let mut step = from.unwrap_or(0);
        let stride = if step == 0 { STRIDE } else { STRIDE / 4 };
        let (mut good, mut bad): (Option<(i32, Seen)>, Option<i32>) = (None, None);
        loop {
            match self.sustained(station, qos, step)? {
                Some(seen) => good = Some((step, seen)),
                None => bad = Some(step),
            }
            step = match (good.as_ref().map(|(step, _)| *step), bad) {
                (Some(good), Some(bad)) if bad - good <= 1 => break,
                (Some(good), Some(bad)) => good + (bad - good) / 2,
                (Some(good), None) if rate(good + stride) > HOPELESS => break,
                (Some(good), None) => good + stride,
                (None, Some(bad)) if rate(bad) < 100.0 => break,
                (None, Some(bad)) => bad - stride,
                (None, None) => unreachable!("a step is either"),
            };
        }
        Ok(good)
    }

    /// What was seen at the rate of a step, if it is sustained; tried twice, since others use the machine too.
    fn sustained(&self, station: &mut Station, qos: Qos, step: i32) -> Result<Option<Seen>> {
        let rate = rate(step);
        let phase = Phase {
            rate,
            at_least_once: qos == Qos::AtLeastOnce,
            window: self.window() / 2,
            // A quarter of a second's messages on their way: 99 % within 50 ms is out of reach.
            give_up: Some((rate / 4.0) as u64 + 100),
            patience: OVERTAXED,
        };
        for _ in 0..2 {
            let seen = station.run(&phase)?;
            let most = seen.latencies.quantile(0.99);
            let in_time = most.is_some_and(|time| time < SUSTAINED.as_secs_f64() * 1e3) && seen.latest < SUSTAINED;
            if in_time && !seen.gave_up && !seen.defects.any() {
                return Ok(Some(seen));
            }
        }
        Ok(None)
    }
}

/// The rate of a step; step 0 is the fixed rate.
pub fn rate(step: i32) -> f64 {
    FIXED * STEP.powi(step)
}

/// Microseconds for each message.
pub fn each(nanoseconds: u64, messages: u64) -> f64 {
    nanoseconds as f64 / 1e3 / messages.max(1) as f64
}

/// Bytes in MiB.
pub fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
