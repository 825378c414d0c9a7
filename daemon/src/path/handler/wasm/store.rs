//! An instance's store, which takes its memory with it without holding up the thread that drops it.
//!
//! Owns: where a store ends. Giving 64 MiB back to the kernel takes milliseconds, which the messages of all handlers would wait on a
//! runtime's thread whenever an instance that used that much is replaced; what a guest that failed leaves ends where its like run.

use std::ops::{Deref, DerefMut};

use tokio::runtime::Handle;
use wasmtime::Store;

use super::aside;
use super::load::Plugin;
use super::state::State;

/// Linear memory, in bytes, from which on a store ends on a thread for what blocks: less is given back in a few microseconds.
const LARGE: usize = 4 * 1024 * 1024;

/// A store.
pub(super) struct OwnStore {
    /// Taken when dropped.
    store: Option<Store<State>>,
    plugin: Plugin,
}

impl OwnStore {
    pub(super) fn new(store: Store<State>, plugin: Plugin) -> OwnStore {
        OwnStore { store: Some(store), plugin }
    }
}

impl Deref for OwnStore {
    type Target = Store<State>;

    fn deref(&self) -> &Store<State> {
        self.store.as_ref().expect("it is taken when dropped")
    }
}

impl DerefMut for OwnStore {
    fn deref_mut(&mut self) -> &mut Store<State> {
        self.store.as_mut().expect("it is taken when dropped")
    }
}

impl Drop for OwnStore {
    fn drop(&mut self) {
        let Some(store) = self.store.take() else { return };
        if let Some(aside) = self.plugin.aside() {
            return aside::end(&aside, store);
        }
        let runtime = Handle::try_current().ok().filter(|_| store.data().limits.memory() >= LARGE);
        if let Some(runtime) = runtime {
            // Nobody waits for it: a runtime that ends drops it there.
            drop(runtime.spawn_blocking(move || drop(store)));
        }
    }
}
