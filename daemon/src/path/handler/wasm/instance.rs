//! One running component: its store, and the calls of its exports under limits.
//!
//! Owned by a handler's task, on a worker thread that does no I/O. Fed with messages, one at a time; gives back the
//! publishes that the call held back, or why there are none. It does not replace itself: after a fault its owner does.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout_at;
use wasmtime::{Store, StoreContextMut, UpdateDeadline};

use super::bindings::MessageHandler;
use super::bindings::exports::tidegate::handler::on_message::Failure;
use super::convert::{Lists, message_to_guest};
use super::fault::{DeadlinePassed, Fault, MAX_WORDS_BYTES};
use super::host::Host;
use super::load::Plugin;
use super::printable::printable;
use super::state::State;
use super::ticker::Ticker;
use crate::message::Message;
use crate::path::handler::{CallError, Publish};

/// Handles of resources that a guest may hold.
const MAX_HANDLES: usize = 1024;

/// A deadline too far for the clock is this one instead: thirty years.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// One instance of a handler. Lives on a Tokio runtime with a clock; the runtime should run on one thread and do nothing
/// else, since guests compute on it for up to a millisecond at a time.
pub struct Instance {
    store: Store<State>,
    guest: MessageHandler,
    host: Arc<Host>,
    ticker: Arc<Ticker>,
}

impl Instance {
    /// Makes an instance and runs the guest's `init`, all within one call deadline. Publishes are denied in it.
    ///
    /// Cancel safe: a start that is dropped leaves nothing behind.
    ///
    /// # Errors
    /// The guest refuses or fails in one of the ways of a call; the texts leave out the handler's name.
    pub async fn start(plugin: &Plugin, host: Arc<Host>) -> Result<Instance, StartError> {
        let ticker = Arc::clone(plugin.ticker());
        let component = plugin.component();
        let deadline = deadline(host.call_deadline);
        let mut store = Store::new(component.engine(), State::new(Arc::clone(&host), deadline));
        store.limiter(|state| &mut state.limits);
        store.epoch_deadline_callback(on_tick);
        // The guest's memory bounds what it can pass. Less would turn a publish that is told as too large into a trap.
        store.set_hostcall_fuel(host.max_memory);
        store.set_max_component_handles(MAX_HANDLES);
        store.set_epoch_deadline(1);

        let running = ticker.enter();
        let started = within(deadline, async {
            let guest = component.instantiate_async(&mut store).await?;
            let init = guest.tidegate_handler_lifecycle().call_init(&mut store).await?;
            Ok((guest, init))
        })
        .await;
        drop(running);
        let started = started.map_err(|error| Fault::new(&error, store.data()));
        store.data().console.end_call();
        let (guest, init) = started?;
        init.map_err(|reason| StartError::Refused(printable(&reason, MAX_WORDS_BYTES).into_owned()))?;
        Ok(Instance { store, guest, host, ticker })
    }

    /// Has the guest handle a message that this subscription brought: `captures` is what its wildcards matched, and
    /// `attempt` counts from 1. Gives the publishes in the order of the guest's calls.
    ///
    /// Not cancel safe: after a call that was dropped, as after an error whose [`CallError::keeps_instance`] is false,
    /// the instance must be dropped too.
    ///
    /// # Errors
    /// The guest returned an error, or did not return.
    pub async fn call(
        &mut self,
        message: &Message,
        subscription: &str,
        captures: &[String],
        attempt: u32,
    ) -> Result<Vec<Publish>, CallError> {
        let deadline = deadline(self.host.call_deadline);
        self.store.data_mut().begin_call(message.broker, deadline);
        self.store.set_epoch_deadline(1);

        let lists = Lists::new(message, captures);
        let record = message_to_guest(&self.host, message, &lists, subscription, attempt);
        let on_message = self.guest.tidegate_handler_on_message();
        let running = self.ticker.enter();
        let returned = within(deadline, on_message.call_handle(&mut self.store, record)).await;
        drop(running);
        let returned = returned.map_err(|error| Fault::new(&error, self.store.data()));

        let state = self.store.data_mut();
        state.console.end_call();
        state.host.log.tell_dropped();
        match returned {
            Ok(Ok(())) => Ok(state.held.take()),
            Ok(Err(failure)) => {
                state.held.clear();
                Err(failure.into())
            }
            Err(fault) => Err(fault.into()),
        }
    }
}

fn deadline(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit).unwrap_or(now + FAR)
}

/// The deadline also for what the epoch cannot interrupt: a guest that waits in a host call.
async fn within<T>(deadline: Instant, guest: impl Future<Output = wasmtime::Result<T>>) -> wasmtime::Result<T> {
    timeout_at(deadline.into(), guest).await.unwrap_or_else(|_| Err(DeadlinePassed.into()))
}

/// Called when a guest that computes meets a new epoch: its neighbours on the thread get their turn, until its deadline.
fn on_tick(store: StoreContextMut<'_, State>) -> wasmtime::Result<UpdateDeadline> {
    if Instant::now() >= store.data().deadline {
        return Err(DeadlinePassed.into());
    }
    // The engine's own yield would let the guest continue before the runtime has looked at timers and wake-ups.
    Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> CallError {
        let words = |text: &str| printable(text, MAX_WORDS_BYTES).into_owned();
        match failure {
            Failure::Reject(reason) => CallError::Reject(words(&reason)),
            Failure::Retry(later) => {
                CallError::Retry { reason: words(&later.reason), after: later.after_ms.map(Duration::from_millis) }
            }
        }
    }
}

impl From<Fault> for CallError {
    fn from(fault: Fault) -> CallError {
        match fault {
            Fault::Deadline(limit) => CallError::Deadline(limit),
            Fault::Memory(limit) => CallError::Memory(limit),
            Fault::Trap(reason) => CallError::Trap(reason),
        }
    }
}

/// Why there is no instance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// `init` returned an error: its words.
    #[error("init refused: {0}")]
    Refused(String),
    /// The guest trapped, or the daemon could not make the instance. In plain words.
    #[error("the handler does not start: {0}")]
    Trap(String),
    /// The call deadline passed.
    #[error("init took longer than call-deadline = {}", humantime::format_duration(*.0))]
    Deadline(Duration),
    /// The memory limit was reached.
    #[error("the handler needs more than max-memory = {0} bytes to start")]
    Memory(usize),
}

impl From<Fault> for StartError {
    fn from(fault: Fault) -> StartError {
        match fault {
            Fault::Deadline(limit) => StartError::Deadline(limit),
            Fault::Memory(limit) => StartError::Memory(limit),
            Fault::Trap(reason) => StartError::Trap(reason),
        }
    }
}
