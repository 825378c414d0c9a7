//! Which of the exports of `wit/handler.wit` a component has, and the handles by which they are called.
//!
//! Made by [`super::verify`] of a component whose exports have the right types; [`super::instance`] makes instances of it. It
//! calls nothing.

use wasmtime::component::InstancePre;
use wasmtime::{AsContextMut, Store};

use super::bindings::exports::tidegate::handler::{lifecycle, on_message, on_schedule};
use super::state::State;
use crate::path::handler::plugin::Exports;

/// A component whose imports are resolved, with the places of its exports.
pub(super) struct Linked {
    component: InstancePre<State>,
    lifecycle: lifecycle::GuestIndices,
    on_message: Option<on_message::GuestIndices>,
    on_schedule: Option<on_schedule::GuestIndices>,
}

/// The exports of one instance.
pub(super) struct Guest {
    pub(super) lifecycle: lifecycle::Guest,
    pub(super) on_message: Option<on_message::Guest>,
    pub(super) on_schedule: Option<on_schedule::Guest>,
}

impl Linked {
    /// Finds the exports that are there.
    ///
    /// # Errors
    /// One of them is not there after all.
    pub(super) fn new(component: InstancePre<State>, exports: Exports) -> wasmtime::Result<Linked> {
        Ok(Linked {
            lifecycle: lifecycle::GuestIndices::new(&component)?,
            on_message: exports.on_message.then(|| on_message::GuestIndices::new(&component)).transpose()?,
            on_schedule: exports.on_schedule.then(|| on_schedule::GuestIndices::new(&component)).transpose()?,
            component,
        })
    }

    /// What it can be called for.
    pub(super) fn exports(&self) -> Exports {
        Exports { on_message: self.on_message.is_some(), on_schedule: self.on_schedule.is_some() }
    }

    /// The engine that it was compiled for.
    pub(super) fn engine(&self) -> &wasmtime::Engine {
        self.component.engine()
    }

    /// Makes an instance. Cancel safe: the store is of no use afterwards.
    ///
    /// # Errors
    /// Its start section fails, or the store is out of something.
    pub(super) async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Guest> {
        let instance = self.component.instantiate_async(store.as_context_mut()).await?;
        let on_message = self.on_message.as_ref().map(|indices| indices.load(&mut *store, &instance));
        let on_schedule = self.on_schedule.as_ref().map(|indices| indices.load(&mut *store, &instance));
        Ok(Guest {
            lifecycle: self.lifecycle.load(&mut *store, &instance)?,
            on_message: on_message.transpose()?,
            on_schedule: on_schedule.transpose()?,
        })
    }
}
