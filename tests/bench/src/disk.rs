//! What an outbox on the disk costs: the same daemon with its outbox in memory and on the disk, at QoS 1.
//!
//! Part of the run in `measure.rs`, beside `operating.rs`; feeds `contrast.rs`. Both sides take turns. What the disk itself can do is
//! measured beside: its share of a latency is the machine's, not the daemon's.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::contrast::{Question, Sample};
use crate::measure::{CALM, Run, each, mebibytes, rate};
use crate::report::Qos;
use crate::say;
use crate::station::{Settings, Station, Subject};

/// Messages a second at which processor time is compared: both sides sustain it.
const MODEST: f64 = 2_000.0;

/// Synced writes that tell what the disk can do.
const SYNCS: usize = 50;

const QOS: Qos = Qos::AtLeastOnce;

impl Run {
    /// Measures both sides once.
    ///
    /// # Errors
    /// A program does not start, or ends; the disk cannot be written.
    pub fn disk(&mut self, number: usize, sides: [bool; 2], samples: &mut Vec<Sample>) -> Result<()> {
        let mut stations = Vec::new();
        for burdened in sides {
            let broker = if burdened { "outbox.store = \"disk\"\n" } else { "outbox.store = \"memory\"\n" };
            let settings = Settings { broker, ..Settings::default() };
            let mut station = Station::new(Subject::Tidegate, &self.programs, &settings, self.clock)?;
            station.launch()?;
            stations.push((burdened, station));
        }
        for (burdened, station) in &mut stations {
            let burdened = *burdened;
            let mut add = |name, title, value| {
                samples.push(Sample { question: Question::Disk, burdened, name, title, qos: QOS, value });
            };
            let column = Question::Disk.columns()[usize::from(burdened)];
            say!("[{number}/{}] disk, latency: {column}", self.repeats);
            let seen = self.steady(station, CALM, QOS)?;
            let quantiles =
                [("latency_p50_ms", "p50 ms at 1,000/s", 0.5), ("latency_p99_ms", "p99 ms at 1,000/s", 0.99)];
            for (name, title, share) in quantiles {
                seen.latencies.quantile(share).into_iter().for_each(|time| add(name, title, time));
            }
            if burdened {
                add("sync_ms", "one synced write of 4 KiB, ms", synced_write(station.home())?);
            }
            say!("[{number}/{}] disk, processor: {column}", self.repeats);
            let seen = self.steady(station, MODEST, QOS)?;
            if let Some(time) = seen.processor_time {
                add("cpu_us", "own CPU µs a message at 2,000/s", each(time, seen.results));
            }
            say!("[{number}/{}] disk, highest rate: {column}", self.repeats);
            let from = self.found_on_disk[usize::from(burdened)];
            if let Some((step, seen)) = self.search(station, QOS, from)? {
                self.found_on_disk[usize::from(burdened)] = Some(step);
                add("max_rate", "highest sustained rate, messages/s", rate(step));
                if let Some(time) = seen.processor_time {
                    add("max_rate_cpu_us", "own CPU µs a message there", each(time, seen.results));
                }
                if let Some(memory) = seen.memory {
                    add("max_rate_memory_mib", "memory there, MiB", mebibytes(memory.resident));
                }
            }
        }
        stations.iter_mut().for_each(|(_, station)| station.end());
        Ok(())
    }
}

/// What half of some synced writes took at most, in milliseconds.
fn synced_write(folder: &Path) -> Result<f64> {
    let mut file = File::create(folder.join("synced")).context("the disk cannot be written")?;
    let mut times = Vec::new();
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&[b'x'; 4096]).and_then(|()| file.sync_data()).context("the disk cannot be written")?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[SYNCS / 2])
}
