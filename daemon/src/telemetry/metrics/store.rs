//! What is counted for the store. Written by its writer.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::store::FaultKind;

/// Upper bounds of the buckets of a commit, in seconds: a disk that keeps its promise takes a tenth of a millisecond to tens of
/// them, a bad one seconds.
const SECONDS: [f64; 10] = [0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0];

/// Handles to the store's families, which have no labels that grow.
pub struct StoreMeters {
    healthy: IntGauge,
    write_errors: [IntCounter; FaultKind::ALL.len()],
    set_aside: IntCounter,
    commits: IntCounter,
    commit_seconds: Histogram,
    file_bytes: IntGauge,
    waiting_rows: IntGauge,
}

impl StoreMeters {
    /// Registers the families.
    ///
    /// # Errors
    /// A family is named twice or badly: a defect of this file, which a test finds.
    pub fn new(registry: &Registry) -> Result<StoreMeters, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(name, help).namespace("tidegate");
        let gauge = |name, help| {
            let gauge = IntGauge::with_opts(opts(name, help))?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counter = |name, help| {
            let counter = IntCounter::with_opts(opts(name, help))?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let write_errors = IntCounterVec::new(
            opts("store_write_errors_total", "Writes to the store's file that failed, by kind."),
            &["kind"],
        )?;
        registry.register(Box::new(write_errors.clone()))?;
        let seconds = HistogramOpts::from(opts("store_commit_seconds", "Time in writing and syncing a transaction."));
        let commit_seconds = Histogram::with_opts(seconds.buckets(SECONDS.to_vec()))?;
        registry.register(Box::new(commit_seconds.clone()))?;
        let meters = StoreMeters {
            healthy: gauge("store_healthy", "1 while the store's file can be written.")?,
            write_errors: FaultKind::ALL.map(|kind| write_errors.with_label_values(&[kind.label()])),
            set_aside: counter("store_set_aside_total", "Damaged files that were set aside at the start.")?,
            commits: counter("store_commits_total", "Transactions written and synced.")?,
            commit_seconds,
            file_bytes: gauge("store_file_bytes", "Size of the store's file.")?,
            waiting_rows: gauge("store_waiting_rows", "Changes that wait to be written.")?,
        };
        meters.healthy.set(1);
        Ok(meters)
    }

    /// Whether the file can be written.
    pub fn healthy(&self, healthy: bool) {
        self.healthy.set(healthy.into());
    }

    /// Counts a write that failed.
    pub fn write_error(&self, kind: FaultKind) {
        self.write_errors[kind as usize].inc();
    }

    /// Counts a file that was set aside.
    pub fn set_aside(&self) {
        self.set_aside.inc();
    }

    /// Counts a transaction that took so many seconds.
    pub fn commit(&self, seconds: f64) {
        self.commits.inc();
        self.commit_seconds.observe(seconds);
    }

    /// The file's size.
    pub fn file_bytes(&self, bytes: u64) {
        self.file_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Changes that wait.
    pub fn waiting_rows(&self, rows: usize) {
        self.waiting_rows.set(i64::try_from(rows).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, TextEncoder};

    use super::*;

    #[test]
    fn what_is_counted_stands_under_its_name() {
        let registry = Registry::new();
        let meters = StoreMeters::new(&registry).expect("families are well formed");
        for (count, kind) in (1..).zip(FaultKind::ALL) {
            (0..count).for_each(|_| meters.write_error(kind));
        }
        meters.commit(0.002);
        meters.file_bytes(4096);
        meters.waiting_rows(7);
        meters.set_aside();
        let mut page = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut page).expect("encodes");
        let page = String::from_utf8(page).expect("UTF-8");
        for sample in [
            "tidegate_store_healthy 1\n",
            "tidegate_store_write_errors_total{kind=\"full\"} 1\n",
            "tidegate_store_write_errors_total{kind=\"sync\"} 2\n",
            "tidegate_store_write_errors_total{kind=\"io\"} 3\n",
            "tidegate_store_commits_total 1\n",
            "tidegate_store_commit_seconds_bucket{le=\"0.003\"} 1\n",
            "tidegate_store_file_bytes 4096\n",
            "tidegate_store_waiting_rows 7\n",
            "tidegate_store_set_aside_total 1\n",
        ] {
            assert!(page.contains(sample), "{sample} is not in\n{page}");
        }
    }
}
