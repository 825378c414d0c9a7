//! The threads of one handler that are, or may be, in native code: which there are, which hang, and whether one more may begin.
//!
//! Its rules are pure: the time is told. Shared by all instances that the handler has had, also by those before its configuration
//! changed. Fed by the instances and their threads; tells a gauge, also when nothing happens but that time passes, and whoever waits
//! for an end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prometheus::IntGauge;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::{sleep_until, timeout_at};

use crate::path::handler::plugin::PluginHash;

/// Threads of one version that have not ended although their instances have gone. With so many no further instance of it begins: what
/// hangs never ends by itself, and each thread has a stack. So a version has no more threads than instances and these.
pub(super) const MAX_LEFT: usize = 16;

/// Threads of one handler that hang, of all its versions.
pub(super) const MAX_STUCK: usize = 64;

/// The threads of one handler.
#[derive(Default)]
pub(super) struct Threads {
    state: Mutex<State>,
    /// Tells that a thread has ended.
    ended: Notify,
}

#[derive(Default)]
struct State {
    /// The number of the next thread.
    next: u64,
    living: HashMap<u64, Thread>,
    /// Where those that hang are counted. Of the handler that began last.
    gauge: Option<IntGauge>,
    /// Somebody waits for the time at which a thread hangs.
    is_watched: bool,
}

struct Thread {
    version: PluginHash,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    /// An instance has it.
    Wanted,
    /// Its instance has gone. It has until then to destroy the state, and hangs from then on.
    Ending(Instant),
    /// Its instance has gone while it was in a call, whose deadline this is. It hangs from then on.
    Inside(Instant),
}

/// Why no further thread begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    /// Too many of this version hang.
    #[error("{MAX_LEFT} threads of it hang in native code, which nothing can stop; restart the daemon")]
    Version,
    /// Too many of the handler hang.
    #[error("{MAX_STUCK} threads of the handler hang in native code, which nothing can stop; restart the daemon")]
    Handler,
    /// Too many of this version are about to end: there may be room soon.
    #[error("{MAX_LEFT} threads of it have not ended yet in native code; it may start later")]
    Ending,
}

impl Thread {
    fn hangs(&self, now: Instant) -> bool {
        match self.stage {
            Stage::Wanted => false,
            Stage::Ending(due) | Stage::Inside(due) => due <= now,
        }
    }
}

impl Threads {
    /// Those that hang are counted here from now on.
    pub(super) fn count_in(&self, gauge: IntGauge) {
        let mut state = self.lock();
        state.gauge = Some(gauge);
        state.tell(Instant::now());
    }

    /// The number of a new thread of a version. It counts from here on, whoever else begins one at the same time.
    ///
    /// # Errors
    /// There is no room for it.
    pub(super) fn begin(&self, version: PluginHash, now: Instant) -> Result<u64, Full> {
        let mut state = self.lock();
        state.tell(now);
        state.has_room(version, now)?;
        state.next += 1;
        let number = state.next;
        state.living.insert(number, Thread { version, stage: Stage::Wanted });
        Ok(number)
    }

    /// The next end of a thread, from now on.
    pub(super) fn next_end(&self) -> Notified<'_> {
        self.ended.notified()
    }

    /// How many hang.
    #[cfg(test)]
    pub(super) fn stuck(&self, now: Instant) -> usize {
        let state = self.lock();
        state.tell(now);
        state.stuck(now)
    }

    /// The instance of a thread has gone while it was in a call, which it may be in until then.
    pub(super) fn is_left_inside(self: &Arc<Threads>, thread: u64, due: Instant) {
        self.is_left(thread, Stage::Inside(due));
    }

    /// The instance of a thread has gone, and it is to end until then.
    pub(super) fn leaves(self: &Arc<Threads>, thread: u64, due: Instant) {
        self.is_left(thread, Stage::Ending(due));
    }

    /// A thread has ended.
    pub(super) fn is_gone(&self, thread: u64) {
        let mut state = self.lock();
        state.living.remove(&thread);
        state.tell(Instant::now());
        drop(state);
        self.ended.notify_waiters();
    }

    /// Waits until all that are to end have ended, or hang. At most until then. Cancellation safe.
    pub(super) async fn ended(&self, at_most: Instant) {
        loop {
            let next_end = self.next_end();
            let now = Instant::now();
            let Some(due) = self.lock().last_due(now).map(|due| due.min(at_most)).filter(|due| *due > now) else {
                return;
            };
            // What has come of it is looked at anew.
            let _ = timeout_at(due.into(), next_end).await;
        }
    }

    fn is_left(self: &Arc<Threads>, thread: u64, stage: Stage) {
        let mut state = self.lock();
        if let Some(thread) = state.living.get_mut(&thread) {
            thread.stage = stage;
        }
        let now = Instant::now();
        state.tell(now);
        if state.is_watched || state.next_due(now).is_none() {
            return;
        }
        // Where there is no runtime nobody looks at the gauge: it is told when something else happens.
        let Ok(runtime) = Handle::try_current() else { return };
        state.is_watched = true;
        drop(state);
        let threads = Arc::clone(self);
        runtime.spawn(async move {
            while let Some(due) = threads.watched() {
                sleep_until(due.into()).await;
            }
        });
    }

    /// Tells how many hang now; when that may be more, if that is foreseen.
    fn watched(&self) -> Option<Instant> {
        let mut state = self.lock();
        let now = Instant::now();
        state.tell(now);
        let due = state.next_due(now);
        state.is_watched = due.is_some();
        due
    }

    /// The counts are whole even if a thread that held them panicked.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn stuck(&self, now: Instant) -> usize {
        self.living.values().filter(|thread| thread.hangs(now)).count()
    }

    fn has_room(&self, version: PluginHash, now: Instant) -> Result<(), Full> {
        if self.stuck(now) >= MAX_STUCK {
            return Err(Full::Handler);
        }
        let left = |thread: &&Thread| thread.version == version && !matches!(thread.stage, Stage::Wanted);
        let left: Vec<&Thread> = self.living.values().filter(left).collect();
        match left.iter().filter(|thread| thread.hangs(now)).count() {
            stuck if stuck >= MAX_LEFT => Err(Full::Version),
            _ if left.len() >= MAX_LEFT => Err(Full::Ending),
            _ => Ok(()),
        }
    }

    /// When the next thread hangs that does not yet.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        let due = |thread: &Thread| match thread.stage {
            Stage::Wanted => None,
            Stage::Ending(due) | Stage::Inside(due) => Some(due).filter(|due| *due > now),
        };
        self.living.values().filter_map(due).min()
    }

    /// When the last thread that destroys its state is to have ended, those apart that hang.
    fn last_due(&self, now: Instant) -> Option<Instant> {
        let due = |thread: &Thread| match thread.stage {
            Stage::Ending(due) => Some(due).filter(|due| *due > now),
            Stage::Wanted | Stage::Inside(_) => None,
        };
        self.living.values().filter_map(due).max()
    }

    fn tell(&self, now: Instant) {
        if let Some(gauge) = &self.gauge {
            gauge.set(i64::try_from(self.stuck(now)).unwrap_or(i64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::path::handler::plugin::PluginFile;

    const SECOND: Duration = Duration::from_secs(1);

    fn version(number: u8) -> PluginHash {
        PluginFile::new(vec![number]).hash()
    }

    /// With so many threads of a version that hang.
    fn hanging(threads: &Arc<Threads>, of: u8, count: usize) -> Vec<u64> {
        let hang = |_| {
            let now = Instant::now();
            let thread = threads.begin(version(of), now).expect("there is room");
            threads.is_left_inside(thread, now);
            thread
        };
        (0..count).map(hang).collect()
    }

    #[test]
    fn threads_count_from_their_deadline_until_they_end() {
        let (threads, now) = (Arc::new(Threads::default()), Instant::now());
        let gauge = IntGauge::new("stuck", "threads").expect("is a metric");
        threads.count_in(gauge.clone());
        let [wanted, inside, leaves, late] = [(); 4].map(|()| threads.begin(version(1), now).expect("there is room"));
        let due = now + 60 * SECOND;
        threads.is_left_inside(inside, due);
        threads.leaves(leaves, due);
        threads.leaves(late, due);
        assert_eq!((threads.stuck(now), gauge.get()), (0, 0));
        threads.is_gone(leaves);
        assert_eq!((threads.stuck(due), gauge.get()), (2, 2));
        [late, inside, wanted].iter().for_each(|thread| threads.is_gone(*thread));
        assert_eq!((threads.stuck(due), gauge.get()), (0, 0));
    }

    #[test]
    fn what_hangs_of_one_version_keeps_no_other_from_beginning() {
        let threads = Arc::new(Threads::default());
        let begin = |of: u8| threads.begin(version(of), Instant::now());
        let first = hanging(&threads, 1, MAX_LEFT);
        assert_eq!(begin(1), Err(Full::Version));
        (2..5).for_each(|of| drop(hanging(&threads, of, MAX_LEFT)));
        assert_eq!(begin(9), Err(Full::Handler));
        threads.is_gone(first[0]);
        assert!(begin(9).is_ok() && begin(1).is_ok());
    }

    /// However many begin at the same time, which are all wanted, so many have gone at most when one begins.
    #[test]
    fn who_is_about_to_end_counts_too() {
        let (threads, now) = (Arc::new(Threads::default()), Instant::now());
        let begun: Vec<u64> =
            (0..100).map(|_| threads.begin(version(1), now).expect("as many as are wanted")).collect();
        begun[..MAX_LEFT].iter().for_each(|thread| threads.leaves(*thread, now + SECOND));
        assert_eq!(threads.begin(version(1), now), Err(Full::Ending));
        assert!(threads.begin(version(2), now).is_ok());
        assert_eq!(threads.begin(version(1), now + SECOND), Err(Full::Version));
        threads.is_gone(begun[0]);
        assert!(threads.begin(version(1), now).is_ok());
    }

    #[test]
    fn a_new_gauge_is_told_at_once() {
        let threads = Arc::new(Threads::default());
        hanging(&threads, 1, 1);
        let gauge = IntGauge::new("stuck", "threads").expect("is a metric");
        threads.count_in(gauge.clone());
        assert_eq!(gauge.get(), 1);
    }

    #[tokio::test]
    async fn the_gauge_tells_when_time_has_passed_and_nothing_else_happens() {
        let threads = Arc::new(Threads::default());
        let gauge = IntGauge::new("stuck", "threads").expect("is a metric");
        threads.count_in(gauge.clone());
        let now = Instant::now();
        let [soon, later] = [(); 2].map(|()| threads.begin(version(1), now).expect("there is room"));
        threads.leaves(soon, now + SECOND / 100);
        threads.leaves(later, now + SECOND / 20);
        let told = async {
            while gauge.get() < 2 {
                tokio::time::sleep(SECOND / 1000).await;
            }
        };
        tokio::time::timeout(30 * SECOND, told).await.expect("is told");
        assert!(now.elapsed() >= SECOND / 20);
    }

    #[tokio::test]
    async fn who_waits_for_the_end_waits_for_those_that_end_alone() {
        let (threads, now) = (Arc::new(Threads::default()), Instant::now());
        let [_wanted, inside, ends] = [(); 3].map(|()| threads.begin(version(1), now).expect("there is room"));
        threads.is_left_inside(inside, now + 60 * SECOND);
        threads.ended(now + 60 * SECOND).await;
        threads.leaves(ends, now + 60 * SECOND);
        let soon = Instant::now() + SECOND / 100;
        threads.ended(soon).await;
        assert!(Instant::now() >= soon, "it waits as long as it may");
        let ending = Arc::clone(&threads);
        let end = std::thread::spawn(move || ending.is_gone(ends));
        threads.ended(now + 60 * SECOND).await;
        assert!(now.elapsed() < 60 * SECOND);
        end.join().expect("does not panic");
    }
}
