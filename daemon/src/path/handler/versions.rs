//! The version of its plugin that a handler runs, one that may be on trial beside it, and the swap to another one.
//!
//! Owns: which version is current, and which is on trial. Written by the change task alone; read by each call. Calls in progress end on
//! the version that they began with.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::plugin::Plugin;
use super::trial::Trial;

/// One version of a handler's plugin.
pub struct Version {
    /// What runs.
    pub plugin: Plugin,
    /// Higher than those of the handler before it; the first is 0.
    pub(super) number: u64,
}

/// The versions of one handler.
pub(super) struct Versions {
    state: Mutex<State>,
    /// The number of the current one, so that each call that ends need not take the lock again. Written with the lock held.
    current: AtomicU64,
}

struct State {
    current: Arc<Version>,
    trial: Option<Arc<Trial>>,
    /// Of the version that comes next.
    next: u64,
}

/// What a call begins with.
pub(super) struct Begun {
    /// The version that runs.
    pub(super) current: Arc<Version>,
    /// The version on trial, if the call runs on that: where it fails, it runs again on the other.
    pub(super) trial: Option<Arc<Trial>>,
}

impl Versions {
    /// The first version.
    pub(super) fn new(plugin: Plugin) -> Versions {
        let current = Arc::new(Version { plugin, number: 0 });
        Versions { current: AtomicU64::new(current.number), state: Mutex::new(State { current, trial: None, next: 1 }) }
    }

    /// The version that runs now.
    pub(super) fn current(&self) -> Arc<Version> {
        Arc::clone(&self.lock().current)
    }

    /// Whether this version of the handler runs now.
    pub(super) fn is_current(&self, version: &Version) -> bool {
        self.current.load(Ordering::Acquire) == version.number
    }

    /// What a call that begins now begins with. Whether it is one that may run on a version on trial is asked only where there is one.
    pub(super) fn begin(&self, may_try: impl FnOnce() -> bool) -> Begun {
        let (current, trial) = {
            let state = self.lock();
            (Arc::clone(&state.current), state.trial.clone())
        };
        Begun { current, trial: trial.filter(|trial| may_try() && trial.chooses()) }
    }

    /// The version on trial.
    pub(super) fn trial(&self) -> Option<Arc<Trial>> {
        self.lock().trial.clone()
    }

    /// A version that is to follow the current one.
    pub(super) fn next(&self, plugin: Plugin) -> Arc<Version> {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        Arc::new(Version { plugin, number })
    }

    /// Calls begin with this version from now on, and none is on trial; the one before.
    pub(super) fn swap(&self, version: Arc<Version>) -> Arc<Version> {
        let (before, trial) = {
            let mut state = self.lock();
            self.current.store(version.number, Ordering::Release);
            (std::mem::replace(&mut state.current, version), state.trial.take())
        };
        // The end of its instances frees memory, which takes time.
        drop(trial);
        before
    }

    /// This version is on trial from now on, in place of any other; or none is.
    pub(super) fn set_trial(&self, trial: Option<Arc<Trial>>) -> Option<Arc<Trial>> {
        std::mem::replace(&mut self.lock().trial, trial)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
