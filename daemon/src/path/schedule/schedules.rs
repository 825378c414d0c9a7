//! All schedules and silences: what is due next, what is under way, and what is known of each.
//!
//! Owns them behind one lock that is held for a few memory operations and never across an `.await`. Changed by the gateway's stages
//! with the configuration; looked at by the one task (`task.rs`), which makes the runs; asked by commands.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use super::publish::Aftermath;
use super::record::{LastRun, Record};
use super::silence::{Heard, Silence};
use super::timing::{Course, Now};
use crate::chance;
use crate::control::config::format_duration;
use crate::control::config::model::{Config, OnMessage, ScheduleAction, ScheduledPublish, Subscription};
use crate::message::BrokerId;
use crate::path::dispatch::HandlerQueue;
use crate::path::handler::{CallResult, Trigger};
use crate::path::outbox::Outboxes;
use crate::path::receipt::Progress;
use crate::path::session::{SessionStatus, Standing};
use crate::telemetry::metrics::Metrics;

/// How long the task sleeps at most while something follows the wall clock, which may be set.
const CLOCK_LOOK: Duration = Duration::from_secs(5);

/// All schedules and silences.
pub struct Schedules {
    pub(super) metrics: Arc<Metrics>,
    pub(super) outboxes: Arc<Outboxes>,
    pub(super) progress: Arc<Progress>,
    state: Mutex<State>,
    /// Told when something changed that the task has to look at.
    pub(super) changed: Notify,
}

#[derive(Default)]
struct State {
    /// Schedules in the order of the configuration, then silences.
    entries: Vec<Entry>,
    /// By handler.
    queues: HashMap<Arc<str>, Arc<HandlerQueue>>,
    /// Runs by command that the task has not begun.
    asked: Vec<Start>,
    /// The number of the last run that began.
    runs: u64,
    /// One for each broker of which subscriptions have a `silence`.
    watchers: Vec<AbortOnDropHandle<()>>,
}

struct Entry {
    /// The name for metrics and commands: a schedule's, or `silence:` and a subscription's.
    key: Arc<str>,
    clock: Clock,
    work: Work,
    record: Record,
}

enum Clock {
    Course(Course),
    Silence { silence: Silence, heard: Arc<Heard>, subscription: Arc<Subscription> },
}

/// What a run does.
#[derive(Clone)]
pub(super) enum Work {
    Publish(Arc<ScheduledPublish>),
    Call { handler: Arc<str>, trigger: Trigger, name: Arc<str> },
}

/// A run that is to begin.
pub(super) struct Start {
    pub(super) key: Arc<str>,
    pub(super) run: u64,
    pub(super) work: Work,
    pub(super) due: SystemTime,
    /// When it is due the next time.
    pub(super) until: Option<Instant>,
    pub(super) told: Option<oneshot::Sender<RunReport>>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunReport {
    /// How.
    pub result: CallResult,
    /// Why it failed, in plain words.
    pub error: Option<String>,
}

/// Why a run by command is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRun {
    /// There is no such schedule.
    #[error("there is no schedule \"{0}\"")]
    Unknown(String),
    /// One is enough.
    #[error("a run of the schedule {0} is under way")]
    UnderWay(String),
    /// Its handler is paused, quarantined or ended, the schedule was removed, or the daemon stops.
    #[error(
        "the run of the schedule {0} was not made or was cut short: its handler is paused, in quarantine or was changed, or the daemon stops"
    )]
    CutShort(String),
}

/// One schedule, or the silence of one subscription, as an operator sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleView {
    /// The schedule's name, or `silence:` and the subscription's.
    pub name: Arc<str>,
    /// Of which subscription it is the silence.
    pub silence_of: Option<Arc<str>>,
    /// As it is configured.
    pub timing: String,
    /// When a run begins next, as far as is known now; none is never.
    pub next: Option<SystemTime>,
    /// The last run that ended.
    pub last: Option<LastRun>,
    /// Why that one failed, or what it published is lost.
    pub last_error: Option<Arc<str>>,
    /// Runs that ended.
    pub runs: u64,
    /// Those among them that failed.
    pub failures: u64,
    /// Runs that were not made.
    pub skipped: u64,
}

impl Schedules {
    /// None yet.
    pub fn new(metrics: Arc<Metrics>, outboxes: Arc<Outboxes>, progress: Arc<Progress>) -> Schedules {
        Schedules { metrics, outboxes, progress, state: Mutex::default(), changed: Notify::new() }
    }

    /// What is configured from now on, and where handlers' runs go. What is written as before goes on as before, and what is known
    /// of a schedule stays as long as its name. `changed` names the schedules that are written otherwise.
    pub fn configure(&self, config: &Config, changed: &[Arc<str>], queues: HashMap<Arc<str>, Arc<HandlerQueue>>) {
        let now = Now::read();
        {
            let mut state = self.lock();
            let mut old = std::mem::take(&mut state.entries);
            let mut take = |key: &str| old.iter().position(|entry| *entry.key == *key).map(|at| old.swap_remove(at));
            let mut entries = Vec::new();
            for schedule in &config.schedules {
                let known = take(&schedule.name);
                let work = match &schedule.action {
                    ScheduleAction::Publish(publish) => Work::Publish(Arc::new(publish.clone())),
                    ScheduleAction::Handler(handler) => Work::Call {
                        handler: Arc::clone(handler),
                        trigger: Trigger::Schedule,
                        name: Arc::clone(&schedule.name),
                    },
                };
                let begin = || Course::begin(schedule.timing.clone(), schedule.jitter, now, chance::random());
                let (clock, record) = match known {
                    Some(Entry { clock, record, .. }) if !changed.contains(&schedule.name) => (clock, record),
                    Some(Entry { record, .. }) => (Clock::Course(begin()), record),
                    None => (Clock::Course(begin()), self.record(&schedule.name)),
                };
                entries.push(Entry { key: Arc::clone(&schedule.name), clock, work, record });
            }
            for subscription in config.subscriptions.iter().filter(|subscription| subscription.silence.is_some()) {
                let key: Arc<str> = format!("silence:{}", subscription.name).into();
                let known = take(&key);
                entries.extend(self.silence(key, subscription, known));
            }
            state.entries = entries;
            state.queues = queues;
            for gone in &old {
                self.metrics.forget_schedule(&gone.key);
            }
        }
        self.changed.notify_one();
    }

    fn record(&self, key: &str) -> Record {
        Record::new(self.metrics.schedule(key))
    }

    fn silence(&self, key: Arc<str>, subscription: &Arc<Subscription>, known: Option<Entry>) -> Option<Entry> {
        let (Some(period), Some(OnMessage::Handler(handler))) = (subscription.silence, &subscription.on_message) else {
            return None;
        };
        let work = Work::Call {
            handler: Arc::clone(&handler.name),
            trigger: Trigger::Silence(subscription.broker),
            name: Arc::clone(&subscription.name),
        };
        let anew = || Clock::Silence {
            silence: Silence::new(period),
            heard: Arc::default(),
            subscription: Arc::clone(subscription),
        };
        let (clock, record) = match known {
            // Another topic, broker or time begins anew.
            Some(Entry { clock: Clock::Silence { silence, heard, subscription: before }, record, .. })
                if silence.period() == period
                    && (before.broker, &before.topic) == (subscription.broker, &subscription.topic) =>
            {
                (Clock::Silence { silence, heard, subscription: Arc::clone(subscription) }, record)
            }
            Some(Entry { record, .. }) => (anew(), record),
            None => {
                let record = self.record(&key);
                (anew(), record)
            }
        };
        Some(Entry { key, clock, work, record })
    }

    /// Where the router notes that a message came for this subscription; none where nobody asks.
    pub fn heard(&self, subscription: &Subscription) -> Option<Arc<Heard>> {
        subscription.silence?;
        self.lock().entries.iter().find_map(|entry| match &entry.clock {
            Clock::Silence { heard, subscription: known, .. } if known.name == subscription.name => {
                Some(Arc::clone(heard))
            }
            Clock::Silence { .. } | Clock::Course(_) => None,
        })
    }

    /// The sessions of all brokers: silence counts from the moment that a subscription is granted.
    pub fn watch(self: &Arc<Self>, sessions: impl Iterator<Item = (BrokerId, watch::Receiver<SessionStatus>)>) {
        let watched = |broker: BrokerId| {
            self.lock().entries.iter().any(|entry| match &entry.clock {
                Clock::Silence { subscription, .. } => subscription.broker == broker,
                Clock::Course(_) => false,
            })
        };
        let watchers = sessions
            .filter(|(broker, _)| watched(*broker))
            .map(|(broker, status)| AbortOnDropHandle::new(tokio::spawn(Arc::clone(self).watch_one(broker, status))));
        let watchers: Vec<_> = watchers.collect();
        self.lock().watchers = watchers;
    }

    async fn watch_one(self: Arc<Self>, broker: BrokerId, mut status: watch::Receiver<SessionStatus>) {
        loop {
            let granted: Vec<Arc<str>> = {
                let status = status.borrow_and_update();
                let granted = |(_, standing): &&(Arc<str>, Standing)| matches!(standing, Standing::Granted(_));
                status.subscriptions.iter().filter(granted).map(|(name, _)| Arc::clone(name)).collect()
            };
            self.granted(broker, &granted);
            // The session has ended.
            if status.changed().await.is_err() {
                return;
            }
        }
    }

    fn granted(&self, broker: BrokerId, names: &[Arc<str>]) {
        let now = Instant::now();
        let mut first = false;
        for entry in &mut self.lock().entries {
            if let Clock::Silence { silence, subscription, .. } = &mut entry.clock
                && subscription.broker == broker
                && names.contains(&subscription.name)
            {
                first |= silence.granted(now);
            }
        }
        if first {
            self.changed.notify_one();
        }
    }

    /// What is to begin now, and how long nothing else will be.
    pub(super) fn look(&self, now: Now) -> (Vec<Start>, Option<Duration>) {
        let state = &mut *self.lock();
        let mut starts = std::mem::take(&mut state.asked);
        let mut wait = None;
        for entry in &mut state.entries {
            if let Some(due) = entry.due(now) {
                if entry.record.under_way.is_some() {
                    entry.record.skip(&entry.key, 1);
                } else {
                    starts.push(entry.start(&mut state.runs, due, now, None));
                }
            }
            wait = [wait, entry.wait(now)].into_iter().flatten().min();
        }
        (starts, wait)
    }

    /// Runs a schedule at once, whenever it is due, and waits for the end of the run. Cancellation safe: the run goes on.
    ///
    /// # Errors
    /// There is no such schedule, it is under way, or it was cut short.
    pub async fn run(&self, name: &str) -> Result<RunReport, NotRun> {
        let (sender, told) = oneshot::channel();
        {
            let state = &mut *self.lock();
            let Some(entry) = state.entries.iter_mut().find(|entry| *entry.key == *name) else {
                return Err(NotRun::Unknown(name.to_owned()));
            };
            if entry.record.under_way.is_some() {
                return Err(NotRun::UnderWay(name.to_owned()));
            }
            let now = Now::read();
            let start = entry.start(&mut state.runs, now.wall, now, Some(sender));
            state.asked.push(start);
        }
        self.changed.notify_one();
        told.await.map_err(|_| NotRun::CutShort(name.to_owned()))
    }

    /// All of them: schedules in the order of the configuration, then silences.
    pub fn list(&self) -> Vec<ScheduleView> {
        let now = Now::read();
        self.lock().entries.iter().map(|entry| entry.view(now)).collect()
    }

    /// Where a handler's runs go.
    pub(super) fn queue(&self, handler: &str) -> Option<Arc<HandlerQueue>> {
        self.lock().queues.get(handler).cloned()
    }

    /// A run has ended; without a report it was cut short, which counts as none.
    pub(super) fn ended(&self, key: &str, run: u64, began: SystemTime, report: Option<&RunReport>) {
        let state = &mut *self.lock();
        // A schedule of this name that came later knows nothing of it.
        let entry = state.entries.iter_mut().find(|entry| *entry.key == *key);
        if let Some(entry) = entry.filter(|entry| entry.record.under_way == Some(run)) {
            entry.record.under_way = None;
            if let Some(RunReport { result, error }) = report {
                entry.record.ended(key, began, *result, error.as_deref());
            }
        }
    }

    /// A run is not made, since its handler is paused or quarantined.
    pub(super) fn skipped(&self, key: &str) {
        if let Some(entry) = self.lock().entries.iter_mut().find(|entry| *entry.key == *key) {
            entry.record.skip(key, 1);
        }
    }

    /// What a run published is lost after all.
    pub(super) fn lost(&self, key: &str, why: &str) {
        if let Some(entry) = self.lock().entries.iter_mut().find(|entry| *entry.key == *key) {
            entry.record.lost(why);
        }
    }

    /// What ends with what a run publishes.
    pub(crate) fn aftermath(self: &Arc<Self>, progress: &Arc<Progress>, key: &str) -> Aftermath {
        Aftermath { schedules: Arc::downgrade(self), key: key.into(), _busy: progress.busy() }
    }

    /// What was asked for and has not begun is not made any more.
    pub(super) fn stop(&self) {
        let (asked, watchers) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.asked), std::mem::take(&mut state.watchers))
        };
        drop((asked, watchers));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each step leaves nothing half done that a later holder could see.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// When the run was due that begins now, if one does. What nobody looked at in time is skipped.
    fn due(&mut self, now: Now) -> Option<SystemTime> {
        let (due, missed) = match &mut self.clock {
            Clock::Course(course) => {
                let due = course.look(now, chance::random());
                (due.run, due.missed)
            }
            Clock::Silence { silence, heard, .. } => match silence.look(now.mono, heard.last()) {
                None => (None, 0),
                Some(fallen) => {
                    let since = now.mono.saturating_duration_since(fallen.due);
                    (Some(now.wall.checked_sub(since).unwrap_or(now.wall)), fallen.missed)
                }
            },
        };
        self.record.skip(&self.key, missed);
        due
    }

    /// How long nothing is due, at most.
    fn wait(&self, now: Now) -> Option<Duration> {
        match &self.clock {
            Clock::Course(course) if course.follows_the_wall_clock() => {
                course.wait(now).map(|wait| wait.min(CLOCK_LOOK))
            }
            Clock::Course(course) => course.wait(now),
            Clock::Silence { .. } => self.next(now).map(|next| next.saturating_duration_since(now.mono)),
        }
    }

    /// When it is due next, if the wall clock is not set meanwhile.
    fn next(&self, now: Now) -> Option<Instant> {
        match &self.clock {
            Clock::Course(course) => course.wait(now).and_then(|wait| now.mono.checked_add(wait)),
            Clock::Silence { silence, heard, .. } => silence.due(heard.last()),
        }
    }

    fn start(&mut self, runs: &mut u64, due: SystemTime, now: Now, told: Option<oneshot::Sender<RunReport>>) -> Start {
        *runs += 1;
        self.record.under_way = Some(*runs);
        let (key, work) = (Arc::clone(&self.key), self.work.clone());
        Start { key, run: *runs, work, due, until: self.next(now), told }
    }

    fn view(&self, now: Now) -> ScheduleView {
        let (silence_of, timing, next) = match &self.clock {
            Clock::Course(course) => (None, course.timing().to_string(), course.begins(now)),
            Clock::Silence { silence, subscription, .. } => {
                let next = self.next(now).map(|next| now.wall + next.saturating_duration_since(now.mono));
                let timing = format!("silence {}", format_duration(silence.period()));
                (Some(Arc::clone(&subscription.name)), timing, next)
            }
        };
        ScheduleView {
            name: Arc::clone(&self.key),
            silence_of,
            timing,
            next,
            last: self.record.last.clone(),
            last_error: self.record.last_error.clone(),
            runs: self.record.runs,
            failures: self.record.failures,
            skipped: self.record.skipped,
        }
    }
}
