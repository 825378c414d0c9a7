//! One running component: its store, and the calls of its exports under limits.
//!
//! Called where `placed.rs` says, by one at a time. Fed with messages and runs of schedules, one at a time;
//! gives back the publishes that the call held back, or why there are none. It does not replace itself: after a fault its owner does.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout_at;
use wasmtime::{Store, StoreContextMut, UpdateDeadline};

use super::bindings::exports::tidegate::handler::on_message::Failure;
use super::bindings::exports::tidegate::handler::on_schedule;
use super::convert::{Lists, message_to_guest};
use super::exports::Guest;
use super::fault::{DeadlinePassed, Fault};
use super::limits::most_passed;
use super::load::Plugin;
use super::state::State;
use super::store::OwnStore;
use super::ticker::Ticker;
use crate::path::handler::Publish;
use crate::path::handler::call::{Call, CallError, Run, StartError, Trigger, not_exported};
use crate::path::handler::host::{Host, Origin, unix_nanos};
use crate::path::kv::Transaction;
use crate::telemetry::trace::Trace;

/// Handles of resources that a guest may hold.
const MAX_HANDLES: usize = 1024;

/// One instance of a handler. Lives on a Tokio runtime with a clock; guests compute on its threads for up to a
/// millisecond at a time.
pub struct Instance {
    store: OwnStore,
    guest: Guest,
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
        let deadline = host.deadline();
        let store = Store::new(component.engine(), State::new(Arc::clone(&host), deadline));
        let mut store = OwnStore::new(store, plugin.clone());
        store.limiter(|state| &mut state.limits);
        store.epoch_deadline_callback(on_tick);
        store.set_hostcall_fuel(most_passed(&host));
        store.set_max_component_handles(MAX_HANDLES);
        store.set_epoch_deadline(1);

        let running = ticker.enter();
        let started = within(deadline, async {
            let guest = component.instantiate(&mut store).await?;
            let init = guest.lifecycle.call_init(&mut *store).await?;
            Ok((guest, init))
        })
        .await;
        drop(running);
        let started = started.map_err(|error| Fault::new(&error, store.data()));
        store.data().console.end_call();
        let (guest, init) = started?;
        init.map_err(|reason| StartError::Refused(host.words(&reason)))?;
        Ok(Instance { store, guest, host, ticker })
    }

    /// Takes out what the last call read and wrote, whatever it returned: its writes take effect with its publishes.
    pub fn take_kv(&mut self) -> Transaction {
        self.store.data_mut().call.take_kv()
    }

    /// Has the guest handle a message. Gives the publishes in the order of the guest's calls.
    ///
    /// Not cancel safe: after a call that was dropped, as after an error whose [`CallError::keeps_instance`] is false,
    /// the instance must be dropped too.
    ///
    /// # Errors
    /// The guest returned an error, or did not return.
    pub async fn call(&mut self, call: Call<'_>) -> Result<Vec<Publish>, CallError> {
        let Call { message, subscription, captures, attempt, trace } = call;
        let deadline = self.begin(Origin::Broker(message.broker), trace);
        let Some(on_message) = &self.guest.on_message else { return Err(not_exported("on-message")) };
        let lists = Lists::new(&self.host, message, captures);
        let record = message_to_guest(message, &lists, subscription, attempt);
        let running = self.ticker.enter();
        let returned = within(deadline, on_message.call_handle(&mut *self.store, record)).await;
        drop(running);
        self.end(returned)
    }

    /// Has the guest do what a schedule asks for. Otherwise as [`Self::call`].
    ///
    /// # Errors
    /// As there.
    pub async fn run(&mut self, run: Run<'_>) -> Result<Vec<Publish>, CallError> {
        let (origin, trigger) = match run.trigger {
            Trigger::Schedule => (Origin::Schedule, on_schedule::Trigger::Schedule),
            Trigger::Silence(broker) => (Origin::Broker(broker), on_schedule::Trigger::Silence),
        };
        let deadline = self.begin(origin, None);
        let Some(on_schedule) = &self.guest.on_schedule else { return Err(not_exported("on-schedule")) };
        let running = self.ticker.enter();
        let called = on_schedule.call_run(&mut *self.store, trigger, run.name, unix_nanos(run.due));
        let returned = within(deadline, called).await;
        drop(running);
        self.end(returned)
    }

    /// Prepares for a call: its deadline.
    fn begin(&mut self, origin: Origin, trace: Option<&Arc<Trace>>) -> Instant {
        let deadline = self.host.deadline();
        self.store.data_mut().begin_call(origin, deadline, trace.cloned());
        self.store.set_epoch_deadline(1);
        deadline
    }

    /// What follows from how a call returned.
    fn end(&mut self, returned: wasmtime::Result<Result<(), Failure>>) -> Result<Vec<Publish>, CallError> {
        let returned = returned.map_err(|error| Fault::new(&error, self.store.data()));
        let state = self.store.data_mut();
        // Taken whatever the call returned: nothing of it may reach the next one.
        let publishes = state.call.end();
        state.console.end_call();
        match (returned, publishes) {
            (Err(fault), _) => Err(fault.into()),
            // Else what a guest that overlooks a refusal publishes were a part of what it meant to.
            (Ok(_), Err(limit)) => Err(CallError::Limit(limit)),
            (Ok(Ok(())), Ok(publishes)) => Ok(publishes),
            (Ok(Err(failure)), Ok(_)) => Err(returned_error(&self.host, failure)),
        }
    }
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

fn returned_error(host: &Host, failure: Failure) -> CallError {
    match failure {
        Failure::Reject(reason) => CallError::Reject(host.words(&reason)),
        Failure::Retry(later) => {
            CallError::Retry { reason: host.words(&later.reason), after: later.after_ms.map(Duration::from_millis) }
        }
    }
}

impl From<Fault> for CallError {
    fn from(fault: Fault) -> CallError {
        match fault {
            Fault::Deadline(limit) => CallError::Deadline(limit),
            Fault::Memory(limit) => CallError::Memory(limit),
            Fault::Limit(limit) => CallError::Limit(limit),
            Fault::Trap(reason) => CallError::Trap(reason),
        }
    }
}

impl From<Fault> for StartError {
    fn from(fault: Fault) -> StartError {
        match fault {
            Fault::Deadline(limit) => StartError::Deadline(limit),
            Fault::Memory(limit) => StartError::Memory(limit),
            Fault::Limit(limit) => StartError::Limit(limit),
            Fault::Trap(reason) => StartError::Trap(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;
    use crate::brokers::BrokerNames;
    use crate::control::admin::resource::{Step, TraceStep};
    use crate::message::{BrokerId, Message, Properties, Qos};
    use crate::path::handler::host::testing::{TestHandler, handler};
    use crate::path::handler::plugin::Exports;
    use crate::path::handler::wasm::testing::{PUBLISH, REJECT, RESULT, component, load};
    use crate::telemetry::trace::{Tracer, Watched};
    use crate::telemetry::wanted::Wanted;
    use crate::topic::TopicName;

    fn message() -> Message {
        Message {
            broker: BrokerId(1),
            topic: TopicName::new("sensors/7/temperature").expect("is a name"),
            payload: "21.5".into(),
            qos: Qos::AtLeastOnce,
            retain: true,
            dup: false,
            received: std::time::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789),
            arrived: Instant::now(),
            properties: None,
            hops: 0,
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
    }

    fn plugin(body: &str) -> Plugin {
        load(&component(body)).expect("is a handler")
    }

    async fn start(body: &str, handler: TestHandler) -> Result<Instance, StartError> {
        Instance::start(&plugin(body), Arc::new(handler.host())).await
    }

    async fn call_for(
        instance: &mut Instance,
        message: &Arc<Message>,
        trace: Option<&Arc<Trace>>,
    ) -> Result<Vec<Publish>, CallError> {
        let captures = ["7".to_owned()];
        instance.call(Call { message, subscription: "temperatures", captures: &captures, attempt: 3, trace }).await
    }

    async fn call(instance: &mut Instance) -> Result<Vec<Publish>, CallError> {
        call_for(instance, &Arc::new(message()), None).await
    }

    /// A handler that reaches a deadline soon.
    fn hasty() -> TestHandler {
        handler().deadline(Duration::from_millis(50))
    }

    /// The results of the calls of one instance.
    fn check(body: &str, handler: TestHandler, expected: &[Result<usize, CallError>]) {
        runtime().block_on(async {
            let mut instance = start(body, handler).await.expect("starts");
            for (number, expected) in expected.iter().enumerate() {
                let seen = call(&mut instance).await.map(|publishes| publishes.len());
                assert_eq!(&seen, expected, "call {number}");
            }
        });
    }

    fn check_trap(body: &str, expected: &str) {
        check(
            &format!("(func $handle (param i32) (result i32) {body})"),
            handler(),
            &[Err(CallError::Trap(expected.to_owned()))],
        );
    }

    fn check_start(body: &str, handler: TestHandler, expected: StartError) {
        runtime().block_on(async {
            assert_eq!(start(body, handler).await.err(), Some(expected));
        });
    }

    #[test]
    fn the_guest_gets_the_message() {
        // Publishes the record itself, then its payload.
        let body = format!(
            r#"{PUBLISH}
            (func $handle (param $message i32) (result i32)
                (drop (call $publish-bytes (local.get $message) (i32.const 120)))
                (drop (call $publish-bytes (i32.load offset=24 (local.get $message)) (i32.load offset=28 (local.get $message))))
                (i32.const {RESULT}))"#
        );
        runtime().block_on(async {
            let mut instance = start(&body, handler().allow(&["1:out/+"])).await.expect("starts");
            let mut message = message();
            message.properties = Some(Box::new(Properties { message_expiry: Some(9), ..Properties::default() }));
            let message = Arc::new(message);
            let captures = ["7".to_owned(), String::new()];
            let call =
                Call { message: &message, subscription: "temperatures", captures: &captures, attempt: 3, trace: None };
            let publishes = instance.call(call).await.expect("returns ok");
            assert_eq!(publishes.len(), 2);
            let record = &publishes[0].message.payload;
            let number = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().expect("four bytes"));
            // Lengths of broker, subscription, topic and payload.
            assert_eq!([number(4), number(12), number(20), number(28)], [5, 12, 21, 4]);
            // QoS, retain, dup.
            assert_eq!(record[32..35], [1, 1, 0]);
            let received = u64::from_le_bytes(record[40..48].try_into().expect("eight bytes"));
            assert_eq!(received, 1_700_000_000_123_456_789);
            // Attempt, captures, properties with an expiry.
            assert_eq!([number(48), number(56), number(60)], [3, 2, 1]);
            assert_eq!([number(100), number(104)], [1, 9]);
            assert_eq!(&*publishes[1].message.payload, b"21.5");
        });
    }

    /// Publishes the name that it gets, and its trigger.
    fn reporting() -> String {
        format!(
            r#"{PUBLISH}
            (func $run (param $trigger i32) (param $name i32) (param $len i32) (param $due i64) (result i32)
                (drop (call $publish-bytes (local.get $name) (local.get $len)))
                (i32.store8 (i32.const 0x500) (local.get $trigger))
                (i64.store (i32.const 0x508) (local.get $due))
                (drop (call $publish-bytes (i32.const 0x500) (i32.const 16)))
                (i32.const {RESULT}))"#
        )
    }

    #[test]
    fn the_guest_runs_on_a_schedule_and_on_silence() {
        runtime().block_on(async {
            let handler = handler().allow(&["0:out/+", "1:out/+"]).default_broker(BrokerId(1));
            let mut instance = start(&reporting(), handler).await.expect("starts");
            let due = std::time::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
            for (trigger, number, broker) in [(Trigger::Schedule, 0, 1), (Trigger::Silence(BrokerId(0)), 1, 0)] {
                let publishes = instance.run(Run { trigger, name: "stats", due }).await.expect("returns ok");
                assert!(publishes.iter().all(|publish| publish.broker == BrokerId(broker)), "{publishes:?}");
                assert_eq!(&*publishes[0].message.payload, b"stats");
                assert_eq!(publishes[1].message.payload[0], number);
                assert_eq!(publishes[1].message.payload[8..], 1_700_000_000_123_456_789_u64.to_le_bytes());
            }
        });
    }

    #[test]
    fn a_component_tells_what_it_can_be_called_for() {
        let check = |body: &str, on_message, on_schedule| {
            assert_eq!(plugin(body).exports(), Exports { on_message, on_schedule }, "{body}");
        };
        check("", true, false);
        check(&reporting(), false, true);
        check(&format!("{} (func $handle (param i32) (result i32) (i32.const {RESULT}))", reporting()), true, true);
    }

    #[test]
    fn what_is_not_exported_cannot_be_called() {
        runtime().block_on(async {
            let mut instance = start(&reporting(), handler()).await.expect("starts");
            let error = call(&mut instance).await.expect_err("is no call");
            assert_eq!(error, CallError::Trap("its plugin does not export on-message".to_owned()));
            let mut instance = start("", handler()).await.expect("starts");
            let run = Run { trigger: Trigger::Schedule, name: "stats", due: std::time::UNIX_EPOCH };
            let error = instance.run(run).await.expect_err("is no call");
            assert_eq!(error, CallError::Trap("its plugin does not export on-schedule".to_owned()));
        });
    }

    #[test]
    fn the_machine_is_read_by_who_may() {
        // Traps unless the first byte of the result is the expected one.
        let body = |expected: u8| {
            format!(
                r#"(func $handle (param i32) (result i32)
                    (call $read (i32.const 0x300))
                    (if (i32.ne (i32.load8_u (i32.const 0x300)) (i32.const {expected})) (then (unreachable)))
                    (i32.const {RESULT}))"#
            )
        };
        check(&body(1), handler(), &[Ok(0)]);
        check(&body(0), handler().system(), &[Ok(0)]);
    }

    #[test]
    fn publishes_are_given_only_when_the_call_returned_ok() {
        let body = format!(
            r#"{PUBLISH} {REJECT}
            (global $calls (mut i32) (i32.const 0))
            (func $handle (param i32) (result i32)
                (drop (call $publish-bytes (i32.const 0x400) (i32.const 3)))
                (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
                (if (i32.eq (global.get $calls) (i32.const 1)) (then (return (call $reject))))
                (if (i32.eq (global.get $calls) (i32.const 3)) (then (unreachable)))
                (i32.store (i32.const 0x80) (i32.const 0))
                (i32.const {RESULT}))"#
        );
        check(
            &body,
            handler().allow(&["1:out/+"]),
            &[
                Err(CallError::Reject("no".to_owned())),
                Ok(1),
                Err(CallError::Trap("it panicked or aborted".to_owned())),
            ],
        );
    }

    #[test]
    fn a_publish_carries_what_the_guest_set() {
        let body = format!(
            r#"{PUBLISH} (func $handle (param i32) (result i32)
                (drop (call $publish-bytes (i32.const 0x400) (i32.const 3))) (i32.const {RESULT}))"#
        );
        runtime().block_on(async {
            let mut instance = start(&body, handler().allow(&["1:out/+"])).await.expect("starts");
            let publishes = call(&mut instance).await.expect("returns ok");
            assert_eq!(publishes[0].broker, BrokerId(1));
            let sent = &publishes[0].message;
            assert_eq!((sent.topic.as_str(), &*sent.payload), ("out/a", &b"out"[..]));
            assert_eq!((sent.qos, sent.retain, &sent.properties), (Qos::AtLeastOnce, true, &None));
        });
    }

    #[test]
    fn a_denied_publish_does_not_end_the_call() {
        let body = format!(
            r#"{PUBLISH} (func $handle (param i32) (result i32)
                (if (i32.eqz (call $publish-bytes (i32.const 0x400) (i32.const 3))) (then (unreachable)))
                (i32.const {RESULT}))"#
        );
        check(&body, handler().allow(&["0:out/+"]), &[Ok(0), Ok(0)]);
    }

    /// What a watch of one message says of the publishes of a call.
    fn watched(body: &str, handler: TestHandler) -> Vec<Step> {
        let names = BrokerNames::default();
        names.number("plant");
        names.number("cloud");
        let tracer = Tracer::new(names);
        runtime().block_on(async {
            let mut instance = start(body, handler).await.expect("starts");
            let mut watch = tracer.watch(Wanted::default(), Some(1));
            let message = Arc::new(message());
            let trace = tracer.begin(1, &message);
            assert!(trace.is_some());
            let result = call_for(&mut instance, &message, trace.as_ref()).await;
            assert!(matches!(result, Ok(_) | Err(CallError::Limit(_))), "{result:?}");
            drop(trace);
            let all = async {
                let mut steps = Vec::new();
                while let Some(Watched::Step(TraceStep { step, .. })) = watch.next().await {
                    steps.push(step);
                }
                steps
            };
            // Nothing has to be waited for, unless the instance holds on to the message.
            tokio::time::timeout(Duration::ZERO, all).await.expect("the watch ends with the call")
        })
    }

    #[test]
    fn who_watches_a_message_is_told_of_publishes_and_denials() {
        let twice = format!(
            r#"{PUBLISH} (func $handle (param i32) (result i32)
                (drop (call $publish-bytes (i32.const 0x400) (i32.const 3)))
                (drop (call $publish-bytes (i32.const 0x400) (i32.const 9)))
                (i32.const {RESULT}))"#
        );
        let steps = watched(&twice, handler().allow(&["1:out/+"]).publishes(1, 1000));
        let [Step::Received { .. }, held_back, denied] = steps.as_slice() else { panic!("{steps:?}") };
        let held = Step::HeldBack {
            handler: "celsius".into(),
            broker: "cloud".into(),
            topic: "out/a".into(),
            qos: 1,
            retain: true,
            bytes: 3,
        };
        assert_eq!(*held_back, held);
        let quota = "the call reaches max-publishes = 1 of [handlers.celsius] or max-publish-bytes = 1000 of \
                     [handlers.celsius]; publish less, or raise the limit";
        let expected = |reason: &str| Step::Denied {
            handler: "celsius".into(),
            broker: None,
            topic: "out/a".into(),
            reason: reason.to_owned(),
        };
        assert_eq!(*denied, expected(quota));

        let steps = watched(&twice, handler().allow(&["0:out/+"]));
        let reason = "handler \"celsius\" must not publish to \"cloud:out/a\": allow.publish grants \"plant:out/+\"; to \
                      permit it, add \"cloud:out/a\" or a filter that matches to allow.publish of [handlers.celsius]";
        assert_eq!(steps[1..], [expected(reason), expected(reason)]);
    }

    #[test]
    fn who_watches_a_message_is_told_of_few_denials_and_how_many_more() {
        let body = format!(
            r#"{PUBLISH} (func $handle (param i32) (result i32) (local $i i32)
                (loop $l
                    (drop (call $publish-bytes (i32.const 0x400) (i32.const 3)))
                    (local.set $i (i32.add (local.get $i) (i32.const 1)))
                    (br_if $l (i32.lt_s (local.get $i) (i32.const 20))))
                (i32.const {RESULT}))"#
        );
        let steps = watched(&body, handler());
        assert_eq!(steps.iter().filter(|step| matches!(step, Step::Denied { .. })).count(), 16);
        assert_eq!(steps.last(), Some(&Step::DeniedMore { handler: "celsius".into(), publishes: 4 }));
    }

    #[test]
    fn the_guests_own_errors_keep_the_instance() {
        let reject = format!("{REJECT} (func $handle (param i32) (result i32) (call $reject))");
        let expected = CallError::Reject("no".to_owned());
        assert!(expected.keeps_instance());
        check(&reject, handler(), &[Err(expected.clone()), Err(expected)]);

        let retry = r#"
            (data (i32.const 0x100) "later")
            (func $handle (param i32) (result i32)
                (i32.store (i32.const 0x80) (i32.const 1))
                (i32.store (i32.const 0x88) (i32.const 1))
                (i32.store (i32.const 0x90) (i32.const 0x100))
                (i32.store (i32.const 0x94) (i32.const 5))
                (i32.store (i32.const 0x98) (i32.const 1))
                (i64.store (i32.const 0xa0) (i64.const 1500))
                (i32.const 0x80))"#;
        let after = Some(Duration::from_millis(1500));
        check(retry, handler(), &[Err(CallError::Retry { reason: "later".to_owned(), after })]);
    }

    #[test]
    fn traps_are_told_in_words() {
        check_trap("(unreachable)", "it panicked or aborted");
        check_trap("(i32.div_s (i32.const 1) (i32.const 0))", "it divided an integer by zero");
        check_trap(
            "(i32.load (i32.const -4))",
            "it accessed memory out of bounds, as by a bad pointer or endless recursion",
        );
        check_trap(
            "(i32.store (i32.const 0x80) (i32.const 1)) (i32.store (i32.const 0x94) (i32.const -1)) (i32.const 0x80)",
            "it was stopped: string pointer/length out of bounds of memory",
        );
        check_trap("(i32.const 0x81)", "it was stopped: return pointer not aligned");
        check_trap("(call $exit (i32.const 1)) (unreachable)", "it exited with status 1");
        check_trap(
            "(call $random (i32.const 65537) (i32.const 0x300)) (i32.const 0x80)",
            "it asked for 65537 random bytes at once, more than 65536",
        );
    }

    #[test]
    fn an_instance_that_trapped_does_not_run_again() {
        let again = "it was called again after it had trapped".to_owned();
        check(
            "(func $handle (param i32) (result i32) (unreachable))",
            handler(),
            &[Err(CallError::Trap("it panicked or aborted".to_owned())), Err(CallError::Trap(again))],
        );
    }

    #[test]
    fn a_call_that_is_dropped_leaves_nothing_running() {
        for body in ["(loop $l (br $l)) (unreachable)", "(call $sleep (i64.const 3600000000000)) (unreachable)"] {
            let body = format!("(func $handle (param i32) (result i32) {body})");
            runtime().block_on(async {
                let mut instance = start(&body, handler()).await.expect("starts");
                let unfinished = tokio::time::timeout(Duration::from_millis(20), call(&mut instance)).await;
                assert!(unfinished.is_err(), "ended by itself");
                assert_eq!(
                    call(&mut instance).await.err(),
                    Some(CallError::Trap("it was called again after it had trapped".to_owned())),
                );
            });
        }
    }

    #[test]
    fn random_bytes_are_given_up_to_the_limit() {
        let body = format!(
            r#"{PUBLISH} (func $handle (param i32) (result i32)
                (call $random (i32.const 65536) (i32.const 0x80))
                (drop (call $publish-bytes (i32.load (i32.const 0x80)) (i32.load (i32.const 0x84))))
                (i32.const {RESULT2}))"#,
            RESULT2 = 0x1000
        );
        runtime().block_on(async {
            let mut instance = start(&body, handler().allow(&["1:out/+"])).await.expect("starts");
            let publishes = call(&mut instance).await.expect("returns ok");
            let bytes = &publishes[0].message.payload;
            assert_eq!(bytes.len(), 65536);
            assert!(bytes.iter().any(|&byte| byte != bytes[0]), "are not random");
        });
    }

    #[test]
    fn a_guest_that_computes_or_waits_past_its_deadline_is_stopped() {
        let deadline = Duration::from_millis(50);
        for body in ["(loop $l (br $l)) (unreachable)", "(call $sleep (i64.const 3600000000000)) (unreachable)"] {
            let body = format!("(func $handle (param i32) (result i32) {body})");
            let begin = Instant::now();
            check(&body, hasty(), &[Err(CallError::Deadline(deadline))]);
            assert!(begin.elapsed() >= deadline);
        }
        // One that only waits for a while gets its time.
        let patient =
            format!("(func $handle (param i32) (result i32) (call $sleep (i64.const 2000000)) (i32.const {RESULT}))");
        check(&patient, handler(), &[Ok(0), Ok(0)]);
    }

    #[test]
    fn a_guest_that_loops_leaves_its_thread_to_others() {
        let looping = plugin("(func $handle (param i32) (result i32) (loop $l (br $l)) (unreachable))");
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime(), async {
            let host = Arc::new(handler().deadline(Duration::from_millis(200)).host());
            let mut bad = Instance::start(&looping, Arc::clone(&host)).await.expect("starts");
            let mut good = start("", handler()).await.expect("starts");
            let ended = Rc::new(Cell::new(false));
            let task = tokio::task::spawn_local({
                let ended = Rc::clone(&ended);
                async move {
                    let result = call(&mut bad).await;
                    ended.set(true);
                    result
                }
            });
            let mut calls = 0;
            while !ended.get() {
                call(&mut good).await.expect("returns ok");
                calls += 1;
                tokio::task::yield_now().await;
            }
            assert_eq!(task.await.expect("does not panic"), Err(CallError::Deadline(Duration::from_millis(200))));
            // About one in each millisecond; a machine under load makes fewer.
            assert!(calls >= 20, "{calls} calls beside a loop of 200 ms");
        });
    }

    #[test]
    fn a_guest_that_needs_too_much_memory_is_told_so() {
        let most = 4 * 65536;
        let expected = Err(CallError::Memory(most));
        let aborts = "(func $handle (param i32) (result i32)
            (if (i32.lt_s (memory.grow (i32.const 3)) (i32.const 0)) (then (unreachable)))
            (i32.const 0x80))";
        check(aborts, handler().memory(most), &[expected]);
        check(aborts, handler().memory(most + 65536), &[Ok(0)]);
    }

    #[test]
    fn a_guest_that_does_with_less_memory_goes_on() {
        let body = "
            (global $calls (mut i32) (i32.const 0))
            (func $handle (param i32) (result i32)
                (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
                (if (i32.eq (global.get $calls) (i32.const 2)) (then (unreachable)))
                (drop (memory.grow (i32.const 100)))
                (i32.const 0x80))";
        // The second call's trap has nothing to do with memory.
        check(body, handler(), &[Ok(0), Err(CallError::Trap("it panicked or aborted".to_owned()))]);
    }

    #[test]
    fn init_runs_under_the_limits_of_a_call() {
        let init = |body: &str| format!("(func $init (result i32) {body})");
        let deadline = Duration::from_millis(50);
        check_start(&init("(loop $l (br $l)) (unreachable)"), hasty(), StartError::Deadline(deadline));
        check_start(
            &init("(call $sleep (i64.const 3600000000000)) (unreachable)"),
            hasty(),
            StartError::Deadline(deadline),
        );
        check_start("(func $begin (loop $l (br $l))) (start $begin)", hasty(), StartError::Deadline(deadline));
        check_start(&init("(unreachable)"), handler(), StartError::Trap("it panicked or aborted".to_owned()));
        check_start(
            &init("(if (i32.lt_s (memory.grow (i32.const 100)) (i32.const 0)) (then (unreachable))) (i32.const 0x80)"),
            handler(),
            StartError::Memory(1 << 20),
        );
        // It does not even hold what it begins with.
        check_start("", handler().memory(65536), StartError::Memory(65536));
    }

    #[test]
    fn init_may_refuse() {
        let refuses = r#"
            (data (i32.const 0x100) "no unit")
            (func $init (result i32)
                (i32.store (i32.const 0x80) (i32.const 1))
                (i32.store (i32.const 0x84) (i32.const 0x100))
                (i32.store (i32.const 0x88) (i32.const 7))
                (i32.const 0x80))"#;
        check_start(refuses, handler(), StartError::Refused("no unit".to_owned()));
    }

    #[test]
    fn init_must_not_publish() {
        // Traps unless the publish is denied: the first case of its error.
        let body = format!(
            r#"{PUBLISH} (func $init (result i32)
                (if (i32.eqz (call $publish-bytes (i32.const 0x400) (i32.const 3))) (then (unreachable)))
                (if (i32.load8_u (i32.const 0x304)) (then (unreachable)))
                (i32.const {RESULT}))"#
        );
        check(&body, handler().allow(&["0:#", "1:#"]), &[Ok(0)]);
    }
}
