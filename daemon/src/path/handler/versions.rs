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

    /// Calls begin with this version from now on, and none is on trial; the one before. `take_places` puts its instances where calls find
    /// them, before any begins with it, and gives those that were there: otherwise a call would make an instance anew while one is ready.
    pub(super) fn swap<T>(&self, version: Arc<Version>, take_places: impl FnOnce() -> T) -> Arc<Version> {
        let (before, trial, displaced) = {
            let mut state = self.lock();
            // First, so that a call that ends on trial meanwhile puts its instance where the others are.
            self.current.store(version.number, Ordering::Release);
            let displaced = take_places();
            (std::mem::replace(&mut state.current, version), state.trial.take(), displaced)
        };
        // The end of instances frees memory, which takes time.
        drop((trial, displaced));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::handler::wasm::testing::{component, load_file};

    #[test]
    fn no_call_begins_while_instances_take_their_places_and_none_waits_for_the_end_of_those_before() {
        struct Displaced<'a>(&'a Versions);
        impl Drop for Displaced<'_> {
            fn drop(&mut self) {
                assert!(self.0.state.try_lock().is_ok(), "whoever begins would wait");
            }
        }
        let plugin = load_file(&component("")).expect("is a handler");
        let versions = Versions::new(plugin.clone());
        let (first, next) = (versions.current(), versions.next(plugin));
        let before = versions.swap(Arc::clone(&next), || {
            assert!(versions.state.try_lock().is_err(), "a call could begin");
            assert!(versions.is_current(&next), "a call on trial would put its instance where none is looked for");
            Displaced(&versions)
        });
        assert!(Arc::ptr_eq(&before, &first) && Arc::ptr_eq(&versions.current(), &next));
    }
}
