//! How many calls may run for one broker's messages at the same time.
//!
//! A permit is held for the call alone: never across a wait for an outbox, an acknowledgement or a backoff. Handlers whose
//! runners found no permit are woken when one is released.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The parallel limit of one broker: one for as long as the broker is there, whose bound may change.
pub struct ParallelLimit {
    state: Mutex<State>,
}

struct State {
    /// None is no limit. Calls are counted all the same, for a limit that is set while they run.
    most: Option<usize>,
    running: usize,
    /// The handlers that were refused a permit since the last release, each at most once. Written by `try_acquire`, emptied by
    /// every release and every change of the limit.
    refused: Vec<Arc<Notify>>,
}

impl ParallelLimit {
    /// At most so many calls at the same time; none is no limit.
    pub fn new(most: Option<usize>) -> Arc<ParallelLimit> {
        Arc::new(ParallelLimit { state: Mutex::new(State { most, running: 0, refused: Vec::new() }) })
    }

    /// From now on at most so many calls at the same time; none is no limit. Calls that run go on: after a lower limit was
    /// set, no more begin until enough of them have ended.
    pub fn set_most(&self, most: Option<usize>) {
        let refused = {
            let mut state = self.lock();
            state.most = most;
            std::mem::take(&mut state.refused)
        };
        refused.iter().for_each(|waker| waker.notify_one());
    }

    /// A permit, if one is free. Otherwise `waker` is told at the next release.
    pub fn try_acquire(self: &Arc<Self>, waker: &Arc<Notify>) -> Option<Permit> {
        let mut state = self.lock();
        if state.most.is_none_or(|most| state.running < most) {
            state.running += 1;
            return Some(Permit { limit: Arc::clone(self) });
        }
        if !state.refused.iter().any(|known| Arc::ptr_eq(known, waker)) {
            state.refused.push(Arc::clone(waker));
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to run one call. Released when dropped.
pub struct Permit {
    limit: Arc<ParallelLimit>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let refused = {
            let mut state = self.limit.lock();
            state.running -= 1;
            std::mem::take(&mut state.refused)
        };
        // All of them: one that has nothing to run any more would swallow the others' turn.
        refused.iter().for_each(|waker| waker.notify_one());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn woken(waker: &Notify) {
        tokio::time::timeout(Duration::from_secs(40), waker.notified()).await.expect("is woken");
    }

    #[tokio::test]
    async fn a_release_wakes_whoever_was_refused() {
        let limit = ParallelLimit::new(Some(1));
        let waker = Arc::new(Notify::new());
        let permit = limit.try_acquire(&waker).expect("one is free");
        assert!(limit.try_acquire(&waker).is_none());
        drop(permit);
        woken(&waker).await;
        assert!(limit.try_acquire(&waker).is_some());
    }

    #[tokio::test]
    async fn a_limit_that_is_raised_wakes_whoever_was_refused_and_a_lower_one_counts_calls_that_run() {
        let limit = ParallelLimit::new(None);
        let waker = Arc::new(Notify::new());
        let acquire = || limit.try_acquire(&waker);
        let mut permits: Vec<Permit> = (0..3).filter_map(|_| acquire()).collect();
        assert_eq!(permits.len(), 3, "no limit");
        limit.set_most(Some(2));
        assert!(acquire().is_none());
        permits.pop();
        woken(&waker).await;
        assert!(acquire().is_none(), "two run");
        limit.set_most(Some(3));
        woken(&waker).await;
        permits.extend(acquire());
        assert!(acquire().is_none());
        limit.set_most(None);
        woken(&waker).await;
        assert!(acquire().is_some());
        assert_eq!(permits.len(), 3);
    }
}
