//! One running native handler: its calls under a deadline, on a thread of its own.
//!
//! Lent to one of a handler's runners at a time, on the sessions' threads, which never enter the library's code: they hand a call to the
//! instance's thread, and wait. Past the deadline the thread is left behind with all that it was given, and nothing that it does
//! afterwards has an effect. It does not replace itself: after such a call its owner does.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tidegate_abi::Status;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::caller::Effects;
use super::library::Plugin;
use super::life::Life;
use super::process::Entered;
use super::threads::{Full, Threads};
use super::worker::{Job, Returned, Work, Worker};
use crate::path::handler::call::{Call, CallError, Run, StartError, Trigger, not_exported};
use crate::path::handler::host::{CallState, Host, Origin, unix_nanos};
use crate::path::handler::plugin::{Exports, PluginHash};
use crate::path::handler::{Limit, Publish};
use crate::path::kv::Transaction;
use crate::telemetry::trace::Trace;

/// Bytes of the stack of an instance's thread, as a program's main thread has them. What is not used takes no memory.
const STACK: usize = 8 << 20;

/// One instance of a native handler. Lives on a Tokio runtime with a clock. Dropped, its thread destroys the state and ends, or is left
/// behind where it is in a call.
pub struct Instance {
    host: Arc<Host>,
    exports: Exports,
    /// Holds one: the thread takes it before another is made.
    jobs: SyncSender<Job>,
    life: Arc<Life>,
    effects: Effects,
    /// What the last call read and wrote.
    kv: Transaction,
    /// Of the last call.
    deadline: Instant,
}

impl Instance {
    /// Makes an instance: a thread, and `create` on it, within one call deadline. Publishes are denied in it.
    ///
    /// Cancel safe: a start that is dropped leaves at most a thread behind that hangs.
    ///
    /// # Errors
    /// The plugin refuses or fails in one of the ways of a call; or there is no room for a thread.
    pub async fn start(plugin: &Plugin, host: Arc<Host>) -> Result<Instance, StartError> {
        let threads = plugin.threads(&host.name);
        if let Some(gauge) = &host.threads_stuck {
            threads.count_in(gauge.clone());
        }
        let deadline = host.deadline();
        let number = place(&threads, plugin.version(), deadline).await?;
        let (created, made) = oneshot::channel();
        let (jobs, queue) = sync_channel(1);
        let effects: Effects = Arc::new(Mutex::new(Some(CallState::new(Arc::clone(&host)))));
        let life = Arc::new(Life::new(threads, number));
        let worker = Worker {
            table: plugin.table(),
            host: Arc::clone(&host),
            effects: Arc::clone(&effects),
            life: Arc::clone(&life),
            jobs: queue,
            entered: Entered::new(),
        };
        let thread = std::thread::Builder::new().name(format!("native {}", host.name)).stack_size(STACK);
        let mut instance =
            Instance { host, exports: plugin.exports(), jobs, life, effects, kv: Transaction::default(), deadline };
        thread.spawn(move || worker.run(created)).map_err(|error| {
            instance.life.ends();
            StartError::Unavailable(format!("no thread can be made for it: {error}"))
        })?;
        let returned = timeout_at(deadline.into(), made).await;
        // Nothing is published in `init`.
        let _none = instance.take_effects();
        let limit = instance.host.call_deadline;
        let returned = match returned {
            Ok(returned) => returned.map_err(|_| StartError::Trap(THREAD_ENDED.to_owned()))?,
            Err(_) if instance.leave() => return Err(StartError::Stuck(limit)),
            Err(_) => return Err(StartError::Deadline(limit)),
        };
        match instance.ended(returned) {
            Ok(()) => Ok(instance),
            Err(CallError::Trap(reason)) => Err(StartError::Trap(reason)),
            Err(CallError::Reject(reason) | CallError::Retry { reason, .. }) => Err(StartError::Refused(reason)),
            Err(other) => Err(StartError::Trap(other.to_string())),
        }
    }

    /// Takes out what the last call read and wrote, whatever it returned: its writes take effect with its publishes.
    pub fn take_kv(&mut self) -> Transaction {
        std::mem::take(&mut self.kv)
    }

    /// Has the plugin handle a message. Gives the publishes in the order of its calls.
    ///
    /// Not cancel safe: after a call that was dropped, as after an error whose [`CallError::keeps_instance`] is false,
    /// the instance must be dropped too.
    ///
    /// # Errors
    /// The plugin returned another status than ok, or did not return.
    pub async fn call(&mut self, call: Call<'_>) -> Result<Vec<Publish>, CallError> {
        let Call { message, subscription, captures, attempt, trace } = call;
        if !self.exports.on_message {
            return Err(not_exported("on_message"));
        }
        let work = Work::Message {
            message: Arc::clone(message),
            subscription: subscription.to_owned(),
            captures: captures.to_vec(),
            attempt,
        };
        self.make(work, Origin::Broker(message.broker), trace.cloned()).await
    }

    /// Has the plugin do what a schedule asks for. Otherwise as [`Self::call`].
    ///
    /// # Errors
    /// As there.
    pub async fn run(&mut self, run: Run<'_>) -> Result<Vec<Publish>, CallError> {
        if !self.exports.on_schedule {
            return Err(not_exported("on_schedule"));
        }
        let (origin, silence) = match run.trigger {
            Trigger::Schedule => (Origin::Schedule, false),
            Trigger::Silence(broker) => (Origin::Broker(broker), true),
        };
        let work = Work::Run { silence, name: run.name.to_owned(), due: unix_nanos(run.due) };
        self.make(work, origin, None).await
    }

    /// Hands a call to the thread, and waits for it until the deadline.
    async fn make(&mut self, work: Work, origin: Origin, trace: Option<Arc<Trace>>) -> Result<Vec<Publish>, CallError> {
        if self.life.is_over() {
            return Err(CallError::Trap("it was called again after it had failed".to_owned()));
        }
        let deadline = self.host.deadline();
        self.deadline = deadline;
        let mut state = CallState::new(Arc::clone(&self.host));
        state.begin(origin, trace);
        *self.effects.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
        let (returned, answer) = oneshot::channel();
        let sent = self.jobs.try_send(Job { work, returned });
        let returned = match sent {
            Ok(()) => timeout_at(deadline.into(), answer).await,
            // As an answer that never comes.
            Err(_) => Ok(answer.await),
        };
        let publishes = self.take_effects();
        let limit = self.host.call_deadline;
        match returned {
            Ok(Ok(returned)) => {
                let publishes = publishes.map_err(CallError::Limit)?;
                self.ended(returned).map(|()| publishes)
            }
            Ok(Err(_)) => Err(CallError::Trap(THREAD_ENDED.to_owned())),
            Err(_) if self.leave() => Err(CallError::Stuck(limit)),
            Err(_) => Err(CallError::Deadline(limit)),
        }
    }

    /// Takes away what the plugin has done so far: what it does from now on has no effect.
    fn take_effects(&mut self) -> Result<Vec<Publish>, Limit> {
        let state = self.effects.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut state) = state else { return Ok(Vec::new()) };
        self.kv = state.take_kv();
        state.end()
    }

    /// The thread is not waited for any more. Whether it is in a call.
    fn leave(&self) -> bool {
        self.life.is_left(self.deadline, self.host.deadline())
    }

    /// What follows from how a callback returned.
    fn ended(&self, returned: Returned) -> Result<(), CallError> {
        let Returned { status, words } = returned;
        let said = words.said.map(|said| self.host.words(&said)).filter(|said| !said.is_empty());
        let reason = |said: Option<String>| said.unwrap_or_else(|| "it gives no reason".to_owned());
        match status {
            Status::OK => Ok(()),
            Status::REJECT => Err(CallError::Reject(reason(said))),
            Status::RETRY => Err(CallError::Retry { reason: reason(said), after: words.after }),
            Status::PANIC => Err(CallError::Trap(match said {
                Some(said) => format!("it panicked: {said}"),
                None => "it panicked".to_owned(),
            })),
            Status(other) => Err(CallError::Trap(format!(
                "it returned the status {other}, which is none that a callback may return"
            ))),
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.leave();
        // A call that was dropped in the middle has no effects either.
        self.effects.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The daemon's own code on it panicked: a defect.
const THREAD_ENDED: &str = "its thread has ended";

/// A thread's number, once there is room for it. Waits for those that are about to end.
async fn place(threads: &Threads, version: PluginHash, deadline: Instant) -> Result<u64, StartError> {
    loop {
        let next_end = threads.next_end();
        match threads.begin(version, Instant::now()) {
            Ok(number) => return Ok(number),
            Err(Full::Ending) if Instant::now() < deadline => {
                // What has come of it is looked at anew.
                let _ = timeout_at(deadline.into(), next_end).await;
            }
            Err(full @ Full::Version) => return Err(StartError::LeftBehind(full.to_string())),
            Err(full) => return Err(StartError::Unavailable(full.to_string())),
        }
    }
}
