//! An instance, and the threads that it runs on.
//!
//! Lent to one of a handler's runners at a time. Its calls run on the runner's thread, which is a session's: a message changes no thread.
//! Those of a plugin whose guests fail again and again run aside (`aside.rs`), with all that its instances begin and end with. It decides nothing else.

use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::runtime::Handle;

use super::aside;
use super::instance::Instance;
use super::load::Plugin;
use crate::message::Message;
use crate::path::handler::Publish;
use crate::path::handler::call::{Call, CallError, Run, StartError, Trigger};
use crate::path::handler::host::Host;
use crate::path::kv::Transaction;
use crate::telemetry::trace::Trace;

/// An instance where it runs.
pub struct PlacedInstance {
    /// None while it is called aside, and after a call that was dropped.
    instance: Option<Box<Instance>>,
    plugin: Plugin,
}

impl PlacedInstance {
    /// Makes an instance and runs the guest's `init`, as [`Instance::start`].
    ///
    /// # Errors
    /// As there.
    pub async fn start(plugin: &Plugin, host: Arc<Host>) -> Result<PlacedInstance, StartError> {
        let started = match plugin.aside() {
            None => Instance::start(plugin, host).await,
            Some(aside) => {
                let plugin = plugin.clone();
                aside::done(&aside, async move { Instance::start(&plugin, host).await }).await
            }
        };
        if let Err(StartError::Trap(_) | StartError::Memory(_) | StartError::Limit(_)) = &started {
            plugin.probation().failed();
        }
        Ok(PlacedInstance { instance: Some(Box::new(started?)), plugin: plugin.clone() })
    }

    /// Has the guest handle a message, as [`Instance::call`].
    ///
    /// # Errors
    /// As there.
    pub async fn call(&mut self, call: Call<'_>) -> Result<Vec<Publish>, CallError> {
        let called = match self.plugin.aside() {
            None => self.instance().call(call).await,
            Some(aside) => {
                let call = OwnedCall::of(call);
                self.lent(&aside, |mut instance| async move { (instance.call(call.call()).await, instance) }).await
            }
        };
        self.seen(called)
    }

    /// Has the guest do what a schedule asks for, as [`Instance::run`].
    ///
    /// # Errors
    /// As there.
    pub async fn run(&mut self, run: Run<'_>) -> Result<Vec<Publish>, CallError> {
        let called = match self.plugin.aside() {
            None => self.instance().run(run).await,
            Some(aside) => {
                let run = OwnedRun::of(run);
                self.lent(&aside, |mut instance| async move { (instance.run(run.run()).await, instance) }).await
            }
        };
        self.seen(called)
    }

    /// Takes out what the last call read and wrote, as [`Instance::take_kv`].
    pub fn take_kv(&mut self) -> Transaction {
        self.instance().take_kv()
    }

    fn instance(&mut self) -> &mut Instance {
        self.instance.as_mut().expect("after a call that was dropped there is none")
    }

    /// What comes of work with the instance, which is done aside.
    async fn lent<T, W>(&mut self, aside: &Handle, work: impl FnOnce(Box<Instance>) -> W) -> T
    where
        T: Send + 'static,
        W: Future<Output = (T, Box<Instance>)> + Send + 'static,
    {
        let instance = self.instance.take().expect("after a call that was dropped there is none");
        let (done, instance) = aside::done(aside, work(instance)).await;
        self.instance = Some(instance);
        done
    }

    /// Whether guests fail decides where the next call is made.
    fn seen(&self, called: Result<Vec<Publish>, CallError>) -> Result<Vec<Publish>, CallError> {
        match &called {
            Err(CallError::Trap(_) | CallError::Memory(_) | CallError::Limit(_)) => self.plugin.probation().failed(),
            // Its machine may be busy; with less of it, the next call would be late too.
            Err(CallError::Deadline(_) | CallError::Stuck(_) | CallError::Unavailable(_)) => {}
            Ok(_) | Err(CallError::Reject(_) | CallError::Retry { .. } | CallError::NoRoom(_)) => {
                self.plugin.probation().worked();
            }
        }
        called
    }
}

/// A [`Call`] that may change its thread.
struct OwnedCall {
    message: Arc<Message>,
    subscription: String,
    captures: Vec<String>,
    attempt: u32,
    trace: Option<Arc<Trace>>,
}

impl OwnedCall {
    fn of(call: Call<'_>) -> OwnedCall {
        OwnedCall {
            message: Arc::clone(call.message),
            subscription: call.subscription.to_owned(),
            captures: call.captures.to_vec(),
            attempt: call.attempt,
            trace: call.trace.cloned(),
        }
    }

    fn call(&self) -> Call<'_> {
        Call {
            message: &self.message,
            subscription: &self.subscription,
            captures: &self.captures,
            attempt: self.attempt,
            trace: self.trace.as_ref(),
        }
    }
}

/// A [`Run`] that may change its thread.
struct OwnedRun {
    trigger: Trigger,
    name: String,
    due: SystemTime,
}

impl OwnedRun {
    fn of(run: Run<'_>) -> OwnedRun {
        OwnedRun { trigger: run.trigger, name: run.name.to_owned(), due: run.due }
    }

    fn run(&self) -> Run<'_> {
        Run { trigger: self.trigger, name: &self.name, due: self.due }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, UNIX_EPOCH};

    use tokio::runtime::{Builder, Runtime};
    use tokio::time::timeout;

    use super::*;
    use crate::message::BrokerId;
    use crate::path::handler::host::testing::handler;
    use crate::path::handler::wasm::testing::{PUBLISH, RESULT, component, load};

    /// Publishes the payload; traps where there is none, and never returns where it is one byte.
    fn moody() -> Plugin {
        let body = format!(
            r#"{PUBLISH}
            (func $handle (param $message i32) (result i32) (local $len i32)
                (local.set $len (i32.load offset=28 (local.get $message)))
                (if (i32.eqz (local.get $len)) (then unreachable))
                (if (i32.eq (local.get $len) (i32.const 1)) (then (loop $ever (br $ever))))
                (drop (call $publish-bytes (i32.load offset=24 (local.get $message)) (local.get $len)))
                (i32.const {RESULT}))
            (func $run (param i32 i32 i32 i64) (result i32)
                (drop (call $publish-bytes (local.get 1) (local.get 2)))
                (i32.const {RESULT}))"#
        );
        load(&component(&body)).expect("is a handler")
    }

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_time().build().expect("a runtime")
    }

    async fn started(plugin: &Plugin) -> PlacedInstance {
        let handler = handler().allow(&["1:out/+"]).default_broker(BrokerId(1));
        let host = handler.deadline(Duration::from_secs(3600)).host();
        PlacedInstance::start(plugin, Arc::new(host)).await.expect("starts")
    }

    async fn call(instance: &mut PlacedInstance, payload: &'static str) -> Result<Vec<String>, CallError> {
        let message = Arc::new(Message { broker: BrokerId(1), ..Message::testing("in/a", payload) });
        let call = Call { message: &message, subscription: "all", captures: &[], attempt: 1, trace: None };
        instance.call(call).await.map(|publishes| publishes.iter().map(text).collect())
    }

    fn text(publish: &Publish) -> String {
        String::from_utf8_lossy(&publish.message.payload).into_owned()
    }

    /// Has a guest fail, each time in a new instance, until its plugin is on probation.
    async fn failed(plugin: &Plugin) {
        while plugin.aside().is_none() {
            assert!(matches!(call(&mut started(plugin).await, "").await, Err(CallError::Trap(_))));
        }
    }

    #[test]
    fn calls_aside_are_those_of_the_sessions_threads() {
        runtime().block_on(async {
            let plugin = moody();
            let mut here = started(&plugin).await;
            let (worked, ran) =
                (call(&mut here, "21.5").await, Run { trigger: Trigger::Schedule, name: "stats", due: UNIX_EPOCH });
            assert_eq!(worked, Ok(vec!["21.5".to_owned()]));
            let trapped = call(&mut started(&plugin).await, "").await;
            failed(&plugin).await;

            let mut aside = started(&plugin).await;
            assert_eq!(call(&mut aside, "21.5").await, worked);
            let publishes = aside.run(ran).await.expect("returns ok");
            assert_eq!(publishes.iter().map(text).collect::<Vec<_>>(), ["stats"]);
            assert_eq!(call(&mut aside, "").await, trapped);
            assert_eq!(call(&mut here, "21.5").await, worked, "an instance may come from the other side");
        });
    }

    #[test]
    fn who_works_again_comes_back() {
        runtime().block_on(async {
            let plugin = moody();
            failed(&plugin).await;
            let mut instance = started(&plugin).await;
            let mut calls = 0;
            while plugin.aside().is_some() {
                call(&mut instance, "21.5").await.expect("works");
                calls += 1;
                assert!(calls < 1000, "for ever");
            }
            assert!(calls > 0);
        });
    }

    /// It holds no thread, and no memory, for longer.
    #[test]
    fn a_call_that_is_dropped_ends_aside() {
        runtime().block_on(async {
            let plugin = moody();
            failed(&plugin).await;
            let mut instance = started(&plugin).await;
            let aside = plugin.aside().expect("it is on probation");
            timeout(Duration::from_millis(20), call(&mut instance, "x")).await.expect_err("it never returns");
            drop(instance);
            let begun = Instant::now();
            while aside.metrics().num_alive_tasks() > 0 {
                assert!(begun.elapsed() < Duration::from_secs(30), "it goes on");
                tokio::task::yield_now().await;
            }
        });
    }
}
