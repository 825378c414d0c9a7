//! Instances of plugins whose callbacks are functions of this file: what the dynamic linker has to do with it, the scenarios show.

use std::ffi::c_void;
use std::ptr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use tidegate_abi::{ANY_DELAY, Bytes, Call, FOREVER, Message, MessageView, Outgoing, Readings, Run, RunView, Status};

use super::functions::HOST;
use super::worker::Table;
use super::*;
use crate::message::{self, BrokerId, Properties, Qos};
use crate::path::handler::call::{self, CallError, StartError, Trigger};
use crate::path::handler::host::testing::{TestHandler, handler};
use crate::path::handler::{Limit, Publish};
use crate::topic::TopicName;

/// Long enough for any machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A deadline that is reached soon.
const SOON: Duration = Duration::from_millis(50);

/// A deadline that an instance starts within, on any machine, and that is reached all the same.
const LATER: Duration = Duration::from_secs(2);

type OnMessage = unsafe extern "C" fn(*mut c_void, *mut Call, *const Message) -> Status;

const NOTHING: Table = Table { create: None, on_message: None, on_schedule: None, destroy: None };

fn handling(on_message: OnMessage) -> Table {
    Table { on_message: Some(on_message), ..NOTHING }
}

fn plugin(table: Table) -> Plugin {
    Plugin::of(table, Arc::new(Natives::passing().expect("there is room for a directory")))
}

fn message() -> message::Message {
    message::Message {
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

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(test)
}

async fn call_with(instance: &mut Instance, message: message::Message) -> Result<Vec<Publish>, CallError> {
    let captures = ["7".to_owned(), String::new()];
    let message = Arc::new(message);
    let call =
        call::Call { message: &message, subscription: "temperatures", captures: &captures, attempt: 3, trace: None };
    instance.call(call).await
}

async fn call(instance: &mut Instance) -> Result<Vec<Publish>, CallError> {
    call_with(instance, message()).await
}

async fn start(table: Table, handler: TestHandler) -> Result<Instance, StartError> {
    Instance::start(&plugin(table), Arc::new(handler.host())).await
}

/// The result of one call, by how many messages it published.
fn check(on_message: OnMessage, handler: TestHandler, expected: Result<usize, CallError>) {
    run(async {
        let mut instance = start(handling(on_message), handler).await.expect("starts");
        assert_eq!(call(&mut instance).await.map(|publishes| publishes.len()), expected);
    });
}

/// Waits for something that a thread does.
#[track_caller]
fn wait(mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "it did not come");
        std::thread::yield_now();
    }
}

fn outgoing(topic: &str, payload: &[u8]) -> Outgoing {
    Outgoing {
        size: size_of::<Outgoing>() as u32,
        qos: 1,
        retain: 1,
        reserved: [0; 2],
        topic: Bytes::of_text(topic),
        payload: Bytes::of(payload),
        broker: Bytes::ABSENT,
        properties: ptr::null(),
    }
}

/// Calls a host function.
macro_rules! host {
    ($function:ident($($argument:expr),*)) => {{
        let function = HOST.$function.expect("the table is whole");
        // SAFETY: what is passed lives until the function returns, or is what a test wants to have refused.
        unsafe { function($($argument),*) }
    }};
}

fn publish(call: *mut Call, payload: &[u8]) -> Status {
    let message = outgoing("out/a", payload);
    host!(publish(call, &raw const message))
}

/// The words of the last refusal.
fn last_error(call: *mut Call) -> String {
    let words = host!(last_error(call));
    // SAFETY: the host owns them, and no other function is called meanwhile.
    unsafe { words.text() }.expect("is text").to_owned()
}

#[test]
fn the_plugin_gets_the_message() {
    unsafe extern "C" fn on_message(state: *mut c_void, call: *mut Call, message: *const Message) -> Status {
        assert!(state.is_null(), "there is no create");
        // SAFETY: as the header promises.
        let view = unsafe { MessageView::of(message) }.expect("is sound");
        let seen = format!("{view:?} {:?}", view.captures.clone().collect::<Vec<_>>());
        publish(call, seen.as_bytes())
    }
    run(async {
        let mut instance = start(handling(on_message), handler().allow(&["1:out/+"])).await.expect("starts");
        let properties = Properties {
            content_type: Some("text/plain".to_owned()),
            correlation_data: Some(b"\0\x01"[..].into()),
            message_expiry: Some(9),
            user: vec![("k".to_owned(), "v".to_owned())],
            ..Properties::default()
        };
        let whole = message::Message { properties: Some(Box::new(properties)), ..message() };
        let publishes = call_with(&mut instance, whole).await.expect("returns ok");
        let [Publish { broker: BrokerId(1), message: sent }] = publishes.as_slice() else { panic!("{publishes:?}") };
        assert_eq!((sent.topic.as_str(), sent.qos, sent.retain), ("out/a", Qos::AtLeastOnce, true));
        let seen = String::from_utf8_lossy(&sent.payload);
        for part in [
            r#"broker: "cloud", subscription: "temperatures", topic: "sensors/7/temperature", payload: [50, 49, 46, 53]"#,
            "qos: 1, retain: true, dup: false, received: 1700000000123456789, attempt: 3",
            r#"content_type: Some("text/plain"), response_topic: None, correlation_data: Some([0, 1]), message_expiry: Some(9)"#,
            r#"[Ok("7"), Ok("")]"#,
        ] {
            assert!(seen.contains(part), "{seen} lacks {part}");
        }
        let publishes = call(&mut instance).await.expect("returns ok");
        let seen = String::from_utf8_lossy(&publishes[0].message.payload);
        assert!(seen.contains("properties: None"), "{seen}");
    });
}

#[test]
fn the_plugin_runs_on_a_schedule_and_on_silence() {
    unsafe extern "C" fn on_schedule(_: *mut c_void, call: *mut Call, run: *const Run) -> Status {
        // SAFETY: as the header promises.
        let RunView { trigger, due, name } = unsafe { RunView::of(run) }.expect("is sound");
        publish(call, format!("{trigger} {due} {name}").as_bytes())
    }
    run(async {
        let table = Table { on_schedule: Some(on_schedule), ..NOTHING };
        let handler = handler().allow(&["0:out/+", "1:out/+"]).default_broker(BrokerId(1));
        let mut instance = start(table, handler).await.expect("starts");
        let due = std::time::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
        for (trigger, number, broker) in [(Trigger::Schedule, 0, 1), (Trigger::Silence(BrokerId(0)), 1, 0)] {
            let publishes = instance.run(call::Run { trigger, name: "stats", due }).await.expect("returns ok");
            assert_eq!(publishes[0].broker, BrokerId(broker));
            let expected = format!("{number} 1700000000123456789 stats");
            assert_eq!(publishes[0].message.payload, expected.as_bytes());
        }
        let unasked = Err(CallError::Trap("its plugin does not export on_message".to_owned()));
        assert_eq!(call(&mut instance).await, unasked);
    });
}

fn say(call: *mut Call, words: &str, after: u64) {
    host!(set_error(call, Bytes::of_text(words), after));
}

#[test]
fn how_a_callback_ends_is_told_in_its_words() {
    /// What `status` says.
    macro_rules! returns {
        ($status:expr, $said:expr, $expected:expr) => {{
            unsafe extern "C" fn on_message(_: *mut c_void, call: *mut Call, _: *const Message) -> Status {
                assert_eq!(publish(call, b"dropped"), Status::OK);
                let said: &[(&str, u64)] = &$said;
                said.iter().for_each(|(words, after)| say(call, words, *after));
                $status
            }
            check(on_message, handler().allow(&["1:#"]), $expected);
        }};
    }
    let retry = |reason: &str, after| Err(CallError::Retry { reason: reason.to_owned(), after });
    let trap = |reason: &str| Err(CallError::Trap(reason.to_owned()));
    returns!(Status::OK, [("forgotten", 7)], Ok(1));
    returns!(
        Status::REJECT,
        [("first", ANY_DELAY), ("no\nunit", ANY_DELAY)],
        Err(CallError::Reject("no\\nunit".to_owned()))
    );
    returns!(Status::REJECT, [], Err(CallError::Reject("it gives no reason".to_owned())));
    returns!(Status::RETRY, [("later", 1500)], retry("later", Some(Duration::from_millis(1500))));
    returns!(Status::RETRY, [("later", ANY_DELAY)], retry("later", None));
    returns!(Status::RETRY, [("later", u64::MAX - 1)], retry("later", Some(Duration::from_millis(u64::MAX - 1))));
    returns!(Status::PANIC, [("src/lib.rs:5: no unit", ANY_DELAY)], trap("it panicked: src/lib.rs:5: no unit"));
    returns!(Status::PANIC, [], trap("it panicked"));
    returns!(Status(77), [], trap("it returned the status 77, which is none that a callback may return"));
    returns!(Status::QUOTA, [], trap("it returned the status 19, which is none that a callback may return"));
}

#[test]
fn words_of_one_call_are_not_those_of_the_next() {
    unsafe extern "C" fn on_message(_: *mut c_void, call: *mut Call, message: *const Message) -> Status {
        // SAFETY: as the header promises.
        if unsafe { MessageView::of(message) }.expect("is sound").payload == b"say" {
            say(call, "said", 5);
        }
        Status::RETRY
    }
    run(async {
        let mut instance = start(handling(on_message), handler()).await.expect("starts");
        let saying = message::Message { payload: "say".into(), ..message() };
        let expected = |reason: &str, after| Err(CallError::Retry { reason: reason.to_owned(), after });
        assert_eq!(call_with(&mut instance, saying).await, expected("said", Some(Duration::from_millis(5))));
        assert_eq!(call(&mut instance).await, expected("it gives no reason", None));
    });
}

#[test]
fn what_a_plugin_must_not_pass_is_refused_in_words() {
    unsafe extern "C" fn on_message(_: *mut c_void, call: *mut Call, _: *const Message) -> Status {
        let refused = |message: &Outgoing, status: Status, words: &str| {
            assert_eq!(host!(publish(call, ptr::from_ref(message))), status);
            assert_eq!(last_error(call), words);
        };
        let good = outgoing("out/a", b"x");
        assert_eq!(host!(publish(call, ptr::null())), Status::INVALID);
        assert_eq!(last_error(call), "the message, or a part of it, is a null pointer");
        let part = |words: &str| format!("the message, or a part of it, {words}");
        refused(&Outgoing { size: 8, ..good }, Status::INVALID, &part("says that its size is 8 bytes, less than 64"));
        refused(
            &Outgoing { topic: Bytes::of(b"out/\xff"), ..good },
            Status::INVALID,
            &part("is not UTF-8 from byte 4 on"),
        );
        refused(
            &Outgoing { payload: Bytes { ptr: ptr::null(), len: 3 }, ..good },
            Status::INVALID,
            &part("is a null pointer"),
        );
        refused(
            &Outgoing { reserved: [0, 1], ..good },
            Status::INVALID,
            &part("has something other than zero in what is reserved"),
        );
        let properties = tidegate_abi::Properties { reserved: [1, 0, 0, 0, 0, 0], ..NO_PROPERTIES };
        refused(
            &Outgoing { properties: &raw const properties, ..good },
            Status::INVALID,
            &part("has something other than zero in what is reserved"),
        );
        refused(&Outgoing { qos: 3, ..good }, Status::INVALID, "the quality of service is 3; it is 0, 1 or 2");
        refused(
            &Outgoing { broker: Bytes::of_text("mill"), ..good },
            Status::UNKNOWN_BROKER,
            "no broker \"mill\" is configured; add it, or use another",
        );
        refused(
            &Outgoing { topic: Bytes::of_text("a/+"), ..good },
            Status::INVALID_TOPIC,
            "the topic has the wildcard '+' at byte 2, which only a topic filter may have (MQTT 5 §4.7.1)",
        );
        assert_eq!(host!(publish(call, &raw const good)), Status::DENIED);
        assert!(last_error(call).starts_with("handler \"celsius\" must not publish to \"cloud:out/a\""));
        let mut value = Bytes::ABSENT;
        assert_eq!(host!(kv_get(call, Bytes::of(b"\xff"), &raw mut value)), Status::INVALID);
        assert_eq!(last_error(call), "key is not UTF-8 from byte 0 on");
        assert_eq!(host!(config_get(call, Bytes::of_text("unit"), ptr::null_mut())), Status::INVALID);
        assert_eq!(last_error(call), "value is a null pointer");
        assert_eq!(host!(system_read(call, ptr::null_mut())), Status::DENIED);
        assert!(last_error(call).contains("allow.system = true"));
        Status::OK
    }
    check(on_message, handler().allow(&["1:other"]).config(r#"{"unit":"F"}"#), Ok(0));
}

#[test]
fn what_was_lent_stays_until_the_callback_returns() {
    unsafe extern "C" fn on_message(_: *mut c_void, call: *mut Call, _: *const Message) -> Status {
        let set = |key: &str, value: &[u8]| host!(kv_set(call, Bytes::of_text(key), Bytes::of(value), FOREVER));
        let get = |key: &str| {
            let mut value = Bytes::ABSENT;
            (host!(kv_get(call, Bytes::of_text(key), &raw mut value)), value)
        };
        assert_eq!([set("a", b"one"), set("b", b""), set("c", &[b'x'; 4096])], [Status::OK; 3]);
        let values = ["a", "b", "c", "absent"].map(get);
        let (mut keys, mut count) = (ptr::null(), 0);
        let all = host!(kv_keys(call, Bytes::of_text(""), Bytes::ABSENT, 10, &raw mut keys, &raw mut count));
        let (mut later, mut one) = (ptr::null(), 0);
        let after = host!(kv_keys(call, Bytes::of_text(""), Bytes::of_text("b"), 10, &raw mut later, &raw mut one));
        let mut unit = Bytes::ABSENT;
        let config = host!(config_get(call, Bytes::of_text("unit"), &raw mut unit));
        let mut readings = Readings { size: size_of::<Readings>() as u32, ..NO_READINGS };
        let read = host!(system_read(call, &raw mut readings));
        assert_eq!([all, after, config, read], [Status::OK; 4]);
        assert_eq!(host!(kv_delete(call, Bytes::of_text("a"))), Status::OK);
        assert_eq!(get("a").0, Status::NOT_FOUND);
        // SAFETY: all of it was lent until this callback returns.
        let seen = values.map(|(status, value)| (status, unsafe { value.get_or_absent() }.expect("is sound")));
        let long = [b'x'; 4096];
        let found: [Option<&[u8]>; 4] = [Some(b"one"), Some(b""), Some(&long), None];
        assert_eq!(seen.map(|(_, value)| value), found);
        assert_eq!(seen.map(|(status, _)| status), [Status::OK, Status::OK, Status::OK, Status::NOT_FOUND]);
        let texts = |list, count| {
            // SAFETY: as above.
            let texts = unsafe { tidegate_abi::Texts::of(list, count) }.expect("is sound");
            texts.collect::<Result<Vec<_>, _>>().expect("are texts")
        };
        assert_eq!(texts(keys, count), ["a", "b", "c"]);
        assert_eq!(texts(later, one), ["c"]);
        // SAFETY: as above.
        assert_eq!(unsafe { unit.text() }, Ok("F"));
        let json = host!(config_json(call));
        // SAFETY: as above.
        assert_eq!(unsafe { json.text() }, Ok(r#"{"unit":"F"}"#));
        // SAFETY: as above.
        assert!(!unsafe { readings.os_version.text() }.expect("is text").is_empty() && readings.uptime > 0);
        Status::OK
    }
    check(on_message, handler().kv(1 << 20).system().config(r#"{"unit":"F"}"#), Ok(0));
}

const NO_PROPERTIES: tidegate_abi::Properties = tidegate_abi::Properties {
    size: size_of::<tidegate_abi::Properties>() as u32,
    message_expiry: 0,
    has_message_expiry: 0,
    utf8_payload: 0,
    reserved: [0; 6],
    content_type: Bytes::ABSENT,
    response_topic: Bytes::ABSENT,
    correlation_data: Bytes::ABSENT,
    user: ptr::null(),
    user_count: 0,
};

const NO_READINGS: Readings = Readings {
    size: 0,
    cpu_load: 0,
    used_memory: 0,
    free_memory: 0,
    uptime: 0,
    model: Bytes::ABSENT,
    serial_number: Bytes::ABSENT,
    os_version: Bytes::ABSENT,
};

#[test]
fn a_call_belongs_to_its_thread_and_its_time() {
    static KEPT: Mutex<Option<usize>> = Mutex::new(None);
    unsafe extern "C" fn on_message(_: *mut c_void, call: *mut Call, _: *const Message) -> Status {
        let address = call as usize;
        let elsewhere = std::thread::spawn(move || publish(address as *mut Call, b"from elsewhere"));
        assert_eq!(elsewhere.join().expect("does not panic"), Status::INVALID);
        assert_eq!(publish(ptr::null_mut(), b"x"), Status::INVALID);
        assert_eq!(publish(ptr::dangling_mut(), b"x"), Status::INVALID);
        *KEPT.lock().expect("is whole") = Some(address);
        publish(call, b"x")
    }
    unsafe extern "C" fn destroy(_: *mut c_void) {
        let kept = KEPT.lock().expect("is whole").take().expect("was called");
        assert_eq!(publish(kept as *mut Call, b"too late"), Status::INVALID);
        *KEPT.lock().expect("is whole") = Some(0);
    }
    run(async {
        let table = Table { destroy: Some(destroy), ..handling(on_message) };
        let mut instance = start(table, handler().allow(&["1:#"])).await.expect("starts");
        assert_eq!(call(&mut instance).await.map(|publishes| publishes.len()), Ok(1));
        drop(instance);
        wait(|| *KEPT.lock().expect("is whole") == Some(0));
    });
}

/// A state of its own for each instance, on a thread of its own.
#[test]
fn a_state_lives_from_create_to_destroy_on_one_thread() {
    static SEEN: Mutex<Vec<(&str, std::thread::ThreadId, usize)>> = Mutex::new(Vec::new());
    fn saw(what: &'static str, state: usize) {
        SEEN.lock().expect("is whole").push((what, std::thread::current().id(), state));
    }
    unsafe extern "C" fn create(call: *mut Call, state: *mut *mut c_void) -> Status {
        assert_eq!(publish(call, b"x"), Status::DENIED);
        assert_eq!(last_error(call), "handler \"celsius\" must not publish in init; publish when a message is handled");
        assert_eq!(host!(kv_set(call, Bytes::of_text("k"), Bytes::of(b"v"), FOREVER)), Status::OTHER);
        saw("create", 0xabc0);
        // SAFETY: the header has a place there.
        unsafe { state.write(ptr::without_provenance_mut(0xabc0)) };
        Status::OK
    }
    unsafe extern "C" fn on_message(state: *mut c_void, _: *mut Call, _: *const Message) -> Status {
        saw("message", state.addr());
        Status::OK
    }
    unsafe extern "C" fn destroy(state: *mut c_void) {
        saw("destroy", state.addr());
    }
    run(async {
        let table = Table { create: Some(create), destroy: Some(destroy), ..handling(on_message) };
        let mut instance = start(table, handler().allow(&["1:#"]).kv(1 << 10)).await.expect("starts");
        assert_eq!(call(&mut instance).await, Ok(Vec::new()));
        drop(instance);
        wait(|| SEEN.lock().expect("is whole").len() == 3);
        let seen = SEEN.lock().expect("is whole");
        assert_eq!(
            seen.iter().map(|(what, _, state)| (*what, *state)).collect::<Vec<_>>(),
            [("create", 0xabc0), ("message", 0xabc0), ("destroy", 0xabc0)]
        );
        assert!(seen.iter().all(|(_, thread, _)| *thread == seen[0].1 && *thread != std::thread::current().id()));
    });
}

#[test]
fn create_may_refuse_and_then_nothing_is_destroyed() {
    unsafe extern "C" fn refuses(call: *mut Call, _: *mut *mut c_void) -> Status {
        say(call, "no unit", ANY_DELAY);
        Status::REJECT
    }
    unsafe extern "C" fn panics(call: *mut Call, _: *mut *mut c_void) -> Status {
        say(call, "oh", ANY_DELAY);
        Status::PANIC
    }
    unsafe extern "C" fn destroy(_: *mut c_void) {
        std::process::abort();
    }
    unsafe extern "C" fn on_message(_: *mut c_void, _: *mut Call, _: *const Message) -> Status {
        Status::OK
    }
    run(async {
        let table = |create| Table { create: Some(create), destroy: Some(destroy), ..handling(on_message) };
        let error = start(table(refuses), handler()).await.err();
        assert_eq!(error, Some(StartError::Refused("no unit".to_owned())));
        let error = start(table(panics), handler()).await.err();
        assert_eq!(error, Some(StartError::Trap("it panicked: oh".to_owned())));
    });
}

/// Where a plugin hangs until it is let go, and where it tells what happened then.
struct Gate {
    go: Mutex<Option<Receiver<()>>>,
    told: Mutex<Option<Sender<String>>>,
}

impl Gate {
    const fn new() -> Gate {
        Gate { go: Mutex::new(None), told: Mutex::new(None) }
    }

    /// What lets go, and what hears.
    fn set(&self) -> (Sender<()>, Receiver<String>) {
        let ((go, waits), (tells, told)) = (channel(), channel());
        *self.go.lock().expect("is whole") = Some(waits);
        *self.told.lock().expect("is whole") = Some(tells);
        (go, told)
    }

    fn hang(&self) {
        // Dropped, it lets go too.
        let _ = self.go.lock().expect("is whole").as_ref().expect("is set").recv_timeout(PATIENCE);
    }

    fn tell(&self, what: String) {
        // A test that has ended hears nothing.
        let _ = self.told.lock().expect("is whole").as_ref().expect("is set").send(what);
    }
}

fn gauge() -> IntGauge {
    IntGauge::new("stuck", "threads").expect("is a metric")
}

#[test]
fn a_call_past_its_deadline_is_left_behind_without_effects() {
    static GATE: Gate = Gate::new();
    unsafe extern "C" fn on_message(_: *mut c_void, call: *mut Call, message: *const Message) -> Status {
        assert_eq!(publish(call, b"before"), Status::OK);
        GATE.hang();
        let late = publish(call, b"late");
        GATE.tell(format!("{late:?} {}", last_error(call)));
        // SAFETY: what it was given stays until it returns.
        let view = unsafe { MessageView::of(message) }.expect("is still there");
        GATE.tell(view.topic.to_owned());
        Status::OK
    }
    unsafe extern "C" fn destroy(_: *mut c_void) {
        GATE.tell("destroyed".to_owned());
    }
    let (go, told) = GATE.set();
    let stuck = gauge();
    run(async {
        let plugin = plugin(Table { destroy: Some(destroy), ..handling(on_message) });
        let host = handler().allow(&["1:#"]).deadline(LATER).host().counting_threads(stuck.clone());
        let host = Arc::new(host);
        let mut instance = Instance::start(&plugin, Arc::clone(&host)).await.expect("starts");
        let begin = Instant::now();
        assert_eq!(call(&mut instance).await, Err(CallError::Stuck(LATER)));
        assert!(begin.elapsed() >= LATER);
        assert_eq!(stuck.get(), 1);
        assert!(instance.take_kv().is_empty());
        let again = Err(CallError::Trap("it was called again after it had failed".to_owned()));
        assert_eq!(call(&mut instance).await, again);
        drop(instance);
        assert_eq!(stuck.get(), 1, "counted once");
        // Another one takes its place at once.
        let other = Instance::start(&plugin, host).await.expect("starts");
        go.send(()).expect("somebody hangs");
        let late = told.recv_timeout(PATIENCE).expect("comes back");
        assert_eq!(late, "Status(24) the call is over: its deadline has passed, or its callback has returned");
        assert_eq!(told.recv_timeout(PATIENCE).as_deref(), Ok("sensors/7/temperature"));
        assert_eq!(told.recv_timeout(PATIENCE).as_deref(), Ok("destroyed"));
        wait(|| stuck.get() == 0);
        drop(other);
        assert_eq!(told.recv_timeout(PATIENCE).as_deref(), Ok("destroyed"));
    });
}

#[test]
fn a_call_that_is_dropped_is_left_behind_too() {
    static GATE: Gate = Gate::new();
    unsafe extern "C" fn on_message(_: *mut c_void, call: *mut Call, _: *const Message) -> Status {
        GATE.tell("called".to_owned());
        GATE.hang();
        GATE.tell(format!("{:?}", publish(call, b"late")));
        Status::OK
    }
    let (go, told) = GATE.set();
    let stuck = gauge();
    run(async {
        let host = Arc::new(handler().allow(&["1:#"]).host().counting_threads(stuck.clone()));
        let plugin = plugin(handling(on_message));
        let threads = plugin.threads(&host.name);
        let mut instance = Instance::start(&plugin, host).await.expect("starts");
        let unfinished = tokio::time::timeout(SOON, call(&mut instance)).await;
        assert!(unfinished.is_err(), "ended by itself");
        assert_eq!(told.recv_timeout(PATIENCE).as_deref(), Ok("called"));
        drop(instance);
        assert_eq!(stuck.get(), 0, "its deadline has not passed");
        assert_eq!(threads.stuck(Instant::now() + PATIENCE), 1);
        go.send(()).expect("somebody hangs");
        assert_eq!(told.recv_timeout(PATIENCE).as_deref(), Ok("Status(24)"));
        wait(|| threads.stuck(Instant::now() + PATIENCE) == 0);
    });
}

#[test]
fn with_too_many_threads_that_hang_no_other_begins() {
    static GATE: Gate = Gate::new();
    unsafe extern "C" fn create(_: *mut Call, _: *mut *mut c_void) -> Status {
        GATE.hang();
        Status::OK
    }
    unsafe extern "C" fn on_message(_: *mut c_void, _: *mut Call, _: *const Message) -> Status {
        Status::OK
    }
    let (go, _told) = GATE.set();
    let stuck = gauge();
    run(async {
        let plugin = plugin(Table { create: Some(create), ..handling(on_message) });
        let limit = Duration::from_millis(5);
        let host = || Arc::new(handler().deadline(limit).host().counting_threads(stuck.clone()));
        for hanging in 1..=16 {
            assert_eq!(Instance::start(&plugin, host()).await.err(), Some(StartError::Stuck(limit)));
            assert_eq!(stuck.get(), hanging);
        }
        let words = "16 threads of it hang in native code, which nothing can stop; restart the daemon";
        let error = Instance::start(&plugin, host()).await.err();
        assert_eq!(error, Some(StartError::LeftBehind(words.to_owned())));
        assert!(!error.expect("is refused").blames_the_version());
        drop(go);
        wait(|| stuck.get() == 0);
        Instance::start(&plugin, host()).await.expect("begins again");
    });
}

#[test]
fn a_destroy_that_hangs_is_counted() {
    static GATE: Gate = Gate::new();
    unsafe extern "C" fn on_message(_: *mut c_void, _: *mut Call, _: *const Message) -> Status {
        Status::OK
    }
    unsafe extern "C" fn destroy(_: *mut c_void) {
        GATE.hang();
    }
    let (go, _told) = GATE.set();
    let stuck = gauge();
    run(async {
        let plugin = plugin(Table { destroy: Some(destroy), ..handling(on_message) });
        let host = Arc::new(handler().deadline(LATER).host().counting_threads(stuck.clone()));
        drop(Instance::start(&plugin, Arc::clone(&host)).await.expect("starts"));
        assert_eq!(stuck.get(), 0, "it has as long as a call");
        let told = async {
            while stuck.get() == 0 {
                tokio::time::sleep(SOON / 10).await;
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("is counted, though nobody asks");
        drop(go);
        wait(|| stuck.get() == 0);
    });
}

/// An instance for each call, whose ends take a while: as many begin as end.
#[test]
fn who_begins_waits_for_those_that_are_about_to_end() {
    static GATE: Gate = Gate::new();
    unsafe extern "C" fn on_message(_: *mut c_void, _: *mut Call, _: *const Message) -> Status {
        Status::OK
    }
    unsafe extern "C" fn destroy(_: *mut c_void) {
        GATE.hang();
    }
    let (go, _told) = GATE.set();
    run(async {
        let plugin = plugin(Table { destroy: Some(destroy), ..handling(on_message) });
        let host = Arc::new(handler().host());
        for _ in 0..16 {
            drop(Instance::start(&plugin, Arc::clone(&host)).await.expect("starts"));
        }
        let waits = tokio::time::timeout(SOON, Instance::start(&plugin, Arc::clone(&host))).await;
        assert!(waits.is_err(), "there is no room");
        go.send(()).expect("somebody hangs");
        let begins = tokio::time::timeout(PATIENCE, Instance::start(&plugin, host)).await;
        drop(begins.expect("there is room").expect("starts"));
        drop(go);
    });
}

#[test]
fn a_key_that_is_not_there_leaves_the_words_of_the_last_failure() {
    unsafe extern "C" fn on_message(_: *mut c_void, call: *mut Call, _: *const Message) -> Status {
        let fails = |size: usize| {
            assert_eq!(host!(kv_set(call, Bytes::of_text("k"), Bytes::of(&vec![0; size]), FOREVER)), Status::TOO_LARGE);
        };
        let mut value = Bytes::ABSENT;
        let mut absent = || host!(kv_get(call, Bytes::of_text("absent"), &raw mut value));
        assert_eq!(absent(), Status::NOT_FOUND);
        assert_eq!(last_error(call), "", "nothing has failed");
        fails(2000);
        let words = host!(last_error(call));
        assert_eq!(absent(), Status::NOT_FOUND);
        assert!(last_error(call).starts_with("the key is longer than 512 bytes"));
        assert_eq!(publish(call, b"x"), Status::DENIED);
        assert!(last_error(call).starts_with("handler \"celsius\" must not publish to"));
        // SAFETY: it was lent until this callback returns.
        let words = unsafe { words.text() }.expect("is still there");
        assert!(words.starts_with("the key is longer than 512 bytes"), "{words}");
        Status::OK
    }
    check(on_message, handler().kv(1 << 10), Ok(0));
}

#[test]
fn the_limits_of_a_call_hold() {
    unsafe extern "C" fn on_message(_: *mut c_void, call: *mut Call, _: *const Message) -> Status {
        assert_eq!(publish(call, &[0; 200]), Status::TOO_LARGE);
        assert_eq!(publish(call, &[0; 80]), Status::OK);
        assert_eq!(publish(call, &[0; 80]), Status::QUOTA);
        assert!(last_error(call).starts_with("the call reaches max-publishes = 3 of [handlers.celsius] or "));
        let set = |value: &[u8]| host!(kv_set(call, Bytes::of_text("k"), Bytes::of(value), FOREVER));
        assert_eq!(set(&[0; 2000]), Status::TOO_LARGE);
        assert_eq!(set(&[0; 100]), Status::OK);
        assert_eq!(host!(kv_set(call, Bytes::of_text("l"), Bytes::of(&[0; 800]), FOREVER)), Status::QUOTA);
        assert_eq!(
            last_error(call),
            "there is no room for it within allow.kv = 1024 bytes of [handlers.celsius]; delete keys, or raise it"
        );
        Status::OK
    }
    let expected = Err(CallError::Limit(Limit::PublishBytes(100)));
    check(on_message, handler().allow(&["1:#"]).publishes(3, 100).kv(1 << 10), expected);
}
