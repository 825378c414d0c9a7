//! Components that were compiled, checked and linked, ready to make instances.
//!
//! Fed by [`super::WasmEngine::load`]; feeds [`super::PlacedInstance::start`]. It runs no guest code.

use std::fmt;
use std::sync::Arc;

use tokio::runtime::Handle;
use wasmtime::component::{Component, Linker};

use super::aside::{Aside, Probation};
use super::exports::Linked;
use super::state::State;
use super::ticker::Ticker;
use super::verify;
use crate::path::handler::plugin::{Exports, LoadError};
use crate::printable::printable;

/// Bytes kept of a reason in wasmtime's words.
const MAX_REASON_BYTES: usize = 1024;

/// A compiled component that has a handler's imports and exports. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    inner: Arc<Inner>,
}

struct Inner {
    component: Linked,
    ticker: Arc<Ticker>,
    aside: Arc<Aside>,
    probation: Probation,
}

impl Plugin {
    /// Compiles and checks a component.
    pub(super) fn load(
        linker: &Linker<State>,
        (ticker, aside): (&Arc<Ticker>, &Arc<Aside>),
        bytes: &[u8],
    ) -> Result<Plugin, LoadError> {
        let component =
            Component::from_binary(linker.engine(), bytes).map_err(|error| LoadError::Invalid(in_one_line(&error)))?;
        // So that the first instance starts as fast as the later ones.
        component.initialize_copy_on_write_image().map_err(|error| LoadError::Prepare(in_one_line(&error)))?;
        let component = verify::link(linker, &component)?;
        let (ticker, aside) = (Arc::clone(ticker), Arc::clone(aside));
        Ok(Plugin { inner: Arc::new(Inner { component, ticker, aside, probation: Probation::default() }) })
    }

    /// What it can be called for.
    pub fn exports(&self) -> Exports {
        self.inner.component.exports()
    }

    /// What instances are made of.
    pub(super) fn component(&self) -> &Linked {
        &self.inner.component
    }

    /// What interrupts its instances.
    pub(super) fn ticker(&self) -> &Arc<Ticker> {
        &self.inner.ticker
    }

    /// How its guests do.
    pub(super) fn probation(&self) -> &Probation {
        &self.inner.probation
    }

    /// Where its guests run, and instances of theirs begin and end, if that is not on the thread that calls them.
    pub(super) fn aside(&self) -> Option<Handle> {
        if self.inner.probation.holds() { self.inner.aside.runtime().cloned() } else { None }
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").finish_non_exhaustive()
    }
}

/// All causes of an error, outermost first.
pub(super) fn in_one_line(error: &wasmtime::Error) -> String {
    printable(&format!("{error:#}"), MAX_REASON_BYTES).into_owned()
}

#[cfg(test)]
mod tests {
    use crate::path::handler::wasm::testing::{self, load};

    fn check(bytes: &[u8], expected: &str) {
        let error = load(bytes).expect_err("is no handler").to_string();
        assert!(error.starts_with(expected), "{error}\nis not\n{expected}");
    }

    #[test]
    fn a_damaged_component_is_told_with_what_is_wrong() {
        let whole = testing::component(testing::RETURNS_OK);
        load(&whole).expect("loads");
        for end in [whole.len() - 1, whole.len() / 2, 9] {
            check(&whole[..end], "is damaged, incomplete or uses WebAssembly features that are not enabled: ");
        }
        let memory64 = wat::parse_str("(component (core module (memory i64 1)))").expect("is a component");
        check(
            &memory64,
            "is damaged, incomplete or uses WebAssembly features that are not enabled: failed to parse WebAssembly \
             module: memory64 must be enabled",
        );
    }
}
