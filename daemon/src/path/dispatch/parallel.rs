//! How many calls may run for one broker's messages at the same time.
//!
//! A permit is held for the call alone: never across a wait for an outbox, an acknowledgement or a backoff. Handlers whose
//! runners found no permit are woken when one is released.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The parallel limit of one broker.
pub struct ParallelLimit {
    most: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: usize,
    /// The handlers that were refused a permit since the last release, each at most once. Written by `try_acquire`, emptied by
    /// every release.
    refused: Vec<Arc<Notify>>,
}

impl ParallelLimit {
    /// At most so many calls at the same time.
    pub fn new(most: usize) -> Arc<ParallelLimit> {
        Arc::new(ParallelLimit { most, state: Mutex::default() })
    }

    /// A permit, if one is free. Otherwise `waker` is told at the next release.
    pub fn try_acquire(self: &Arc<Self>, waker: &Arc<Notify>) -> Option<Permit> {
        let mut state = self.lock();
        if state.running < self.most {
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
    use super::*;

    #[tokio::test]
    async fn a_release_wakes_whoever_was_refused() {
        let limit = ParallelLimit::new(1);
        let waker = Arc::new(Notify::new());
        let permit = limit.try_acquire(&waker).expect("one is free");
        assert!(limit.try_acquire(&waker).is_none());
        drop(permit);
        waker.notified().await;
        assert!(limit.try_acquire(&waker).is_some());
    }
}
