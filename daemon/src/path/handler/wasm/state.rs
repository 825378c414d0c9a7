//! The data of one store: what an instance's host functions work on.
//!
//! Owned by the store; written by the instance before and after a call, and by host functions during it.

use std::sync::Arc;
use std::time::Instant;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::bindings::tidegate::handler::publisher::PublishError;
use super::bindings::tidegate::handler::types;
use super::console::Console;
use super::host::Host;
use super::limits::Limits;
use super::printable::printable;
use super::publish::{Held, MAX_NAME_BYTES};
use super::trace::CallTrace;
use super::wasi;
use crate::message::BrokerId;
use crate::path::kv::Transaction;
use crate::telemetry::trace::Trace;

/// What a call is for: who a publish goes to that names no broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The start of an instance: nothing may be published.
    Init,
    /// A message from this broker, or the silence of a subscription there.
    Broker(BrokerId),
    /// A schedule: the handler's `default-broker`.
    Schedule,
}

/// The data of one store.
pub(super) struct State {
    pub(super) host: Arc<Host>,
    pub(super) limits: Limits,
    pub(super) console: Arc<Console>,
    /// What the call in progress is for.
    pub(super) origin: Origin,
    /// When the call in progress is stopped.
    pub(super) deadline: Instant,
    pub(super) held: Held,
    /// What the call in progress reads and writes.
    pub(super) kv: Transaction,
    /// Of the call in progress, where somebody watches its message.
    trace: Option<CallTrace>,
    /// Made by the first WASI call: guests that import none of it need not pay for it.
    wasi: Option<Box<(WasiCtx, ResourceTable)>>,
}

impl State {
    /// The data of a new store, before any call.
    pub(super) fn new(host: Arc<Host>, deadline: Instant) -> State {
        State {
            limits: Limits::new(host.max_memory),
            console: Arc::new(Console::new(Arc::clone(&host))),
            origin: Origin::Init,
            deadline,
            held: Held::default(),
            kv: Transaction::default(),
            trace: None,
            wasi: None,
            host,
        }
    }

    /// Prepares for a call.
    pub(super) fn begin_call(&mut self, origin: Origin, deadline: Instant, trace: Option<Arc<Trace>>) {
        self.trace = trace.map(CallTrace::new);
        self.origin = origin;
        self.deadline = deadline;
        // `init` may have read.
        self.kv = Transaction::default();
        self.limits.begin_call();
    }

    /// Holds back what the guest publishes, if it may, and tells who watches the message.
    pub(super) fn publish(&mut self, message: types::Outgoing, broker: Option<&str>) -> Result<(), PublishError> {
        let State { host, held, origin, trace, .. } = self;
        let Some(trace) = trace else { return host.hold(held, *origin, message, broker) };
        // The host takes the message; a denial still has to name it.
        let topic = printable(&message.topic, MAX_NAME_BYTES).into_owned();
        let result = host.hold(held, *origin, message, broker);
        match &result {
            Ok(()) => trace.held_back(host, held),
            Err(error) => trace.denied(host, broker, topic, error),
        }
        result
    }

    /// The call has ended: its steps are told.
    pub(super) fn end_trace(&mut self) {
        if let Some(trace) = self.trace.take() {
            trace.end(&self.host);
        }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let (ctx, table) = &mut **self.wasi.get_or_insert_with(|| Box::new(wasi::context(&self.console)));
        WasiCtxView { ctx, table }
    }
}
