//! The threads of one handler that native code keeps: how many there are, and when there are too many.
//!
//! Pure but for the gauge: the time is told. Shared by all instances that the handler has had, also by those before its configuration
//! changed. Fed by the instances and their threads.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prometheus::IntGauge;

/// Threads of one handler that hang. With so many no further instance begins: they never end by themselves, and each has a stack.
pub(super) const MAX_STUCK: usize = 16;

/// The threads of one handler that its code keeps.
#[derive(Default)]
pub(super) struct Threads {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The number of the next thread.
    next: u64,
    /// Those past their deadline.
    stuck: HashSet<u64>,
    /// Those whose instance has ended, and which have until then to end too.
    leaving: HashMap<u64, Instant>,
    /// Where they are counted. Of the handler that began last.
    gauge: Option<IntGauge>,
}

impl Threads {
    /// They are counted here from now on.
    pub(super) fn count_in(&self, gauge: IntGauge) {
        let mut state = self.lock();
        state.gauge = Some(gauge);
        state.tell();
    }

    /// The number of a new thread.
    pub(super) fn number(&self) -> u64 {
        let mut state = self.lock();
        state.next += 1;
        state.next
    }

    /// How many hang.
    pub(super) fn stuck(&self, now: Instant) -> usize {
        let mut state = self.lock();
        let State { stuck, leaving, .. } = &mut *state;
        stuck.extend(leaving.extract_if(|_, due| *due <= now).map(|(thread, _)| thread));
        state.tell();
        state.stuck.len()
    }

    /// A thread is past the deadline of its call.
    pub(super) fn is_stuck(&self, thread: u64) {
        let mut state = self.lock();
        state.stuck.insert(thread);
        state.tell();
    }

    /// A thread is to end, and is not expected to hang in that until then.
    pub(super) fn leaves(&self, thread: u64, due: Instant) {
        self.lock().leaving.insert(thread, due);
    }

    /// A thread has ended.
    pub(super) fn is_gone(&self, thread: u64) {
        let mut state = self.lock();
        state.leaving.remove(&thread);
        if state.stuck.remove(&thread) {
            state.tell();
        }
    }

    /// The counts are whole even if a thread that held them panicked.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tell(&self) {
        if let Some(gauge) = &self.gauge {
            gauge.set(i64::try_from(self.stuck.len()).unwrap_or(i64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn threads_count_from_their_deadline_until_they_end() {
        let (threads, now) = (Threads::default(), Instant::now());
        let gauge = IntGauge::new("stuck", "threads").expect("is a metric");
        threads.count_in(gauge.clone());
        let [hangs, leaves, late] = [(); 3].map(|()| threads.number());
        let second = Duration::from_secs(1);
        threads.is_stuck(hangs);
        threads.leaves(leaves, now + second);
        threads.leaves(late, now + second);
        assert_eq!((threads.stuck(now), gauge.get()), (1, 1));
        threads.is_gone(leaves);
        assert_eq!((threads.stuck(now + second), gauge.get()), (2, 2));
        threads.is_gone(late);
        threads.is_gone(hangs);
        assert_eq!((threads.stuck(now + second), gauge.get()), (0, 0));
    }

    #[test]
    fn a_new_gauge_is_told_at_once() {
        let threads = Threads::default();
        threads.is_stuck(threads.number());
        let gauge = IntGauge::new("stuck", "threads").expect("is a metric");
        threads.count_in(gauge.clone());
        assert_eq!(gauge.get(), 1);
    }
}
