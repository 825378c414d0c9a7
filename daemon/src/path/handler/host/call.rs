//! What a call in progress is for, and what it holds back until it has returned ok.
//!
//! Owned by one instance; written by it before and after a call, and by host functions during it.

use std::sync::Arc;

use super::grants::Host;
use super::publish::{Held, MAX_NAME_BYTES, PublishError, PublishRequest};
use super::trace::CallTrace;
use crate::message::BrokerId;
use crate::path::handler::{Limit, Publish};
use crate::path::kv::Transaction;
use crate::printable::printable;
use crate::telemetry::trace::Trace;

/// What a call is for: who a publish goes to that names no broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::path::handler) enum Origin {
    /// The start of an instance: nothing may be published.
    Init,
    /// A message from this broker, or the silence of a subscription there.
    Broker(BrokerId),
    /// A schedule: the handler's `default-broker`.
    Schedule,
}

/// What the host functions of one instance work on.
pub(in crate::path::handler) struct CallState {
    /// The handler's grants.
    pub(in crate::path::handler) host: Arc<Host>,
    /// What the call in progress is for.
    pub(super) origin: Origin,
    pub(super) held: Held,
    /// What the call in progress reads and writes.
    pub(super) kv: Transaction,
    /// Of the call in progress, where somebody watches its message.
    trace: Option<CallTrace>,
}

impl CallState {
    /// Before any call: what is asked now belongs to `init`.
    pub(in crate::path::handler) fn new(host: Arc<Host>) -> CallState {
        CallState { host, origin: Origin::Init, held: Held::default(), kv: Transaction::default(), trace: None }
    }

    /// Prepares for a call.
    pub(in crate::path::handler) fn begin(&mut self, origin: Origin, trace: Option<Arc<Trace>>) {
        self.trace = trace.map(CallTrace::new);
        self.origin = origin;
        // `init` may have read.
        self.kv = Transaction::default();
    }

    /// Holds back what the guest publishes, if it may, and tells who watches the message.
    pub(in crate::path::handler) fn publish(
        &mut self,
        request: PublishRequest,
        broker: Option<&str>,
    ) -> Result<(), PublishError> {
        let CallState { host, held, origin, trace, .. } = self;
        let Some(trace) = trace else { return host.hold(held, *origin, request, broker) };
        // The host takes the message; a denial still has to name it.
        let topic = printable(&request.topic, MAX_NAME_BYTES).into_owned();
        let result = host.hold(held, *origin, request, broker);
        match &result {
            Ok(()) => trace.held_back(host, held),
            Err(error) => trace.denied(host, broker, topic, error),
        }
        result
    }

    /// The limit that a publish of the call in progress went past, if one did.
    pub(in crate::path::handler) fn exceeded(&self) -> Option<Limit> {
        self.held.exceeded()
    }

    /// The call has ended, however: its steps are told, and its publishes given out, in order, so that nothing of it reaches the next.
    ///
    /// # Errors
    /// It wanted to publish more than it may, and has failed, whatever it returned.
    pub(in crate::path::handler) fn end(&mut self) -> Result<Vec<Publish>, Limit> {
        if let Some(trace) = self.trace.take() {
            trace.end(&self.host);
        }
        self.host.log.tell_dropped();
        let exceeded = self.held.exceeded();
        let publishes = self.held.take();
        exceeded.map_or(Ok(publishes), Err)
    }

    /// Takes out what the last call read and wrote, whatever it returned.
    pub(in crate::path::handler) fn take_kv(&mut self) -> Transaction {
        std::mem::take(&mut self.kv)
    }
}
