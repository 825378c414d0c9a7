//! What is counted for handlers: their queues, calls, instances, versions and dead letters.
//!
//! Owns these families and the handles to one handler's children, which its queue and its instances' tasks write. What waits for a paused
//! one is in `park.rs`, what it remembers in `kv.rs`.

use std::sync::Arc;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::families::{Families, forget};
use super::park::{ParkFamilies, ParkMeters};
use crate::path::dead_letter::Reason;
use crate::path::handler::CallResult;

/// The families that have a handler's name as a label, but for what it remembers.
pub(super) struct HandlerFamilies {
    calls: IntCounterVec,
    duration: HistogramVec,
    end_to_end: HistogramVec,
    queue: IntGaugeVec,
    retries: IntCounterVec,
    retrying: IntGaugeVec,
    instances: IntGaugeVec,
    conflicts: IntCounterVec,
    reloads: IntCounterVec,
    threads_stuck: IntGaugeVec,
    dead_letters: IntCounterVec,
    dead_letters_dropped: IntCounterVec,
    park: ParkFamilies,
}

impl HandlerFamilies {
    pub(super) fn new(families: &Families) -> prometheus::Result<HandlerFamilies> {
        Ok(HandlerFamilies {
            calls: families.counter("handler_calls_total", "Handler calls by result.", &["handler", "result"])?,
            duration: families.histogram("handler_duration_seconds", "Time in the handler's call.")?,
            end_to_end: families
                .histogram("end_to_end_seconds", "From a message's arrival until its outcome is safe.")?,
            queue: families.gauge("handler_queue_messages", "Messages waiting for the handler.", &["handler"])?,
            retries: families.counter(
                "handler_retries_total",
                "Calls that failed and are made again.",
                &["handler"],
            )?,
            retrying: families.gauge(
                "handler_retrying_messages",
                "Messages whose call failed and that wait for the next one.",
                &["handler"],
            )?,
            instances: families.gauge("handler_instances", "Instances ready to be called.", &["handler"])?,
            conflicts: families.counter(
                "handler_conflicts_total",
                "Calls that are run again because another call changed what they read.",
                &["handler"],
            )?,
            reloads: families.counter(
                "handler_reloads_total",
                "New versions of the handler's plugin by result.",
                &["handler", "result"],
            )?,
            threads_stuck: families.gauge(
                "handler_threads_stuck",
                "Threads left behind in a native plugin's code, past its call deadline.",
                &["handler"],
            )?,
            dead_letters: families.counter(
                "dead_letters_total",
                "Messages that failed for good and whose dead letter is safe, by reason.",
                &["handler", "reason"],
            )?,
            dead_letters_dropped: families.counter(
                "dead_letters_dropped_total",
                "Messages that failed for good and whose dead letter could not be kept.",
                &["handler"],
            )?,
            park: ParkFamilies::new(families)?,
        })
    }

    pub(super) fn meters(&self, name: &str) -> Arc<HandlerMeters> {
        Arc::new(HandlerMeters {
            calls: CallResult::ALL.map(|result| self.calls.with_label_values(&[name, result.label()])),
            duration: self.duration.with_label_values(&[name]),
            end_to_end: self.end_to_end.with_label_values(&[name]),
            queue: self.queue.with_label_values(&[name]),
            retries: self.retries.with_label_values(&[name]),
            retrying: self.retrying.with_label_values(&[name]),
            instances: self.instances.with_label_values(&[name]),
            conflicts: self.conflicts.with_label_values(&[name]),
            reloads: ReloadResult::ALL.map(|result| self.reloads.with_label_values(&[name, result.label()])),
            threads_stuck: self.threads_stuck.with_label_values(&[name]),
            dead_letters: Reason::ALL.map(|reason| self.dead_letters.with_label_values(&[name, reason.label()])),
            dead_letters_dropped: self.dead_letters_dropped.with_label_values(&[name]),
            park: self.park.meters(name),
        })
    }

    pub(super) fn forget(&self, name: &str) {
        CallResult::ALL.iter().for_each(|result| forget(&self.calls, &[name, result.label()]));
        ReloadResult::ALL.iter().for_each(|result| forget(&self.reloads, &[name, result.label()]));
        Reason::ALL.iter().for_each(|reason| forget(&self.dead_letters, &[name, reason.label()]));
        for family in [&self.duration, &self.end_to_end] {
            forget(family, &[name]);
        }
        for family in [&self.retries, &self.conflicts, &self.dead_letters_dropped] {
            forget(family, &[name]);
        }
        for family in [&self.queue, &self.retrying, &self.instances, &self.threads_stuck] {
            forget(family, &[name]);
        }
        self.park.forget(name);
    }
}

/// What came of a version that a handler was to run, as the metric label `result` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadResult {
    /// It runs.
    Ok,
    /// It does not load, start or export what it is called for.
    Refused,
    /// It failed on trial.
    RolledBack,
    /// It could not be kept for a restart, and does not run for that.
    Failed,
}

impl ReloadResult {
    /// All results, in the order of their declaration.
    pub const ALL: [ReloadResult; 4] =
        [ReloadResult::Ok, ReloadResult::Refused, ReloadResult::RolledBack, ReloadResult::Failed];

    /// The value of the metric label `result`.
    pub fn label(self) -> &'static str {
        match self {
            ReloadResult::Ok => "ok",
            ReloadResult::Refused => "refused",
            ReloadResult::RolledBack => "rolled_back",
            ReloadResult::Failed => "failed",
        }
    }
}

/// What is counted for one handler. Written by its queue and its instances' tasks.
pub struct HandlerMeters {
    /// By [`CallResult`].
    calls: [IntCounter; CallResult::ALL.len()],
    /// Seconds in the call.
    pub duration: Histogram,
    /// Seconds from arrival until the outcome is safe.
    pub end_to_end: Histogram,
    /// Messages waiting.
    pub queue: IntGauge,
    /// Calls that failed and are made again.
    pub retries: IntCounter,
    /// Messages waiting for that.
    pub retrying: IntGauge,
    /// Instances ready to be called.
    pub instances: IntGauge,
    /// Calls that are run again at once, because another changed what they read.
    pub conflicts: IntCounter,
    /// By [`ReloadResult`].
    reloads: [IntCounter; ReloadResult::ALL.len()],
    /// Threads that hang in its native code.
    pub threads_stuck: IntGauge,
    /// What waits for it while it is paused or quarantined.
    pub park: ParkMeters,
    /// By [`Reason`].
    dead_letters: [IntCounter; Reason::ALL.len()],
    /// Those that could not be kept.
    dead_letters_dropped: IntCounter,
}

impl HandlerMeters {
    /// Counts a call.
    pub fn call(&self, result: CallResult) {
        self.calls[result as usize].inc();
    }

    /// Counts a version that the handler was to run.
    pub fn reload(&self, result: ReloadResult) {
        self.reloads[result as usize].inc();
    }

    /// Counts a dead letter that is safe.
    pub fn dead_letter(&self, reason: Reason) {
        self.dead_letters[reason as usize].inc();
    }

    /// Counts a dead letter that could not be kept.
    pub fn dead_letter_dropped(&self) {
        self.dead_letters_dropped.inc();
    }

    /// Dead letters so far by reason, in the order of [`Reason::ALL`].
    pub fn dead_letters(&self) -> [(Reason, u64); Reason::ALL.len()] {
        Reason::ALL.map(|reason| (reason, self.dead_letters[reason as usize].get()))
    }

    /// Dead letters so far that could not be kept.
    pub fn dead_letters_dropped(&self) -> u64 {
        self.dead_letters_dropped.get()
    }

    /// Calls so far by result, in the order of [`CallResult::ALL`].
    pub fn calls(&self) -> [(CallResult, u64); CallResult::ALL.len()] {
        CallResult::ALL.map(|result| (result, self.calls[result as usize].get()))
    }
}
