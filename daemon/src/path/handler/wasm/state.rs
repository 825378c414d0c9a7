//! The data of one store: what an instance's host functions work on.
//!
//! Owned by the store; written by the instance before and after a call, and by host functions during it.

use std::sync::Arc;
use std::time::Instant;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::console::Console;
use super::host::Host;
use super::limits::Limits;
use super::publish::Held;
use super::wasi;
use crate::message::BrokerId;

/// The data of one store.
pub(super) struct State {
    pub(super) host: Arc<Host>,
    pub(super) limits: Limits,
    pub(super) console: Arc<Console>,
    /// The broker whose message is handled; none in `init`.
    pub(super) origin: Option<BrokerId>,
    /// When the call in progress is stopped.
    pub(super) deadline: Instant,
    pub(super) held: Held,
    /// Made by the first WASI call: guests that import none of it need not pay for it.
    wasi: Option<Box<(WasiCtx, ResourceTable)>>,
}

impl State {
    /// The data of a new store, before any call.
    pub(super) fn new(host: Arc<Host>, deadline: Instant) -> State {
        State {
            limits: Limits::new(host.max_memory),
            console: Arc::new(Console::new(Arc::clone(&host))),
            origin: None,
            deadline,
            held: Held::default(),
            wasi: None,
            host,
        }
    }

    /// Prepares for the call of a message from this broker.
    pub(super) fn begin_call(&mut self, origin: BrokerId, deadline: Instant) {
        self.origin = Some(origin);
        self.deadline = deadline;
        self.limits.begin_call();
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let (ctx, table) = &mut **self.wasi.get_or_insert_with(|| Box::new(wasi::context(&self.console)));
        WasiCtxView { ctx, table }
    }
}
