//! The data of one store: what an instance's host functions work on.
//!
//! Owned by the store; written by the instance before and after a call, and by host functions during it.

use std::sync::Arc;
use std::time::Instant;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::console::Console;
use super::limits::Limits;
use super::wasi;
use crate::path::handler::host::{CallState, Host, Origin};
use crate::telemetry::trace::Trace;

/// The data of one store.
pub(super) struct State {
    pub(super) call: CallState,
    pub(super) limits: Limits,
    pub(super) console: Arc<Console>,
    /// When the call in progress is stopped.
    pub(super) deadline: Instant,
    /// Made by the first WASI call: guests that import none of it need not pay for it.
    wasi: Option<Box<(WasiCtx, ResourceTable)>>,
}

impl State {
    /// The data of a new store, before any call.
    pub(super) fn new(host: Arc<Host>, deadline: Instant) -> State {
        State {
            limits: Limits::new(host.max_memory),
            console: Arc::new(Console::new(Arc::clone(&host))),
            deadline,
            wasi: None,
            call: CallState::new(host),
        }
    }

    /// Prepares for a call.
    pub(super) fn begin_call(&mut self, origin: Origin, deadline: Instant, trace: Option<Arc<Trace>>) {
        self.call.begin(origin, trace);
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
