//! Guests that do their worst, each against the sentence that tells what it did.
//!
//! Tests alone: the words, the result and what becomes of the call. That neighbours do not notice is held by
//! `tests/scenarios/handler_hostile.rs`.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::testing::{self, PUBLISH, RESULT, component, component_with};
use super::{PlacedInstance, Plugin, WasmEngine};
use crate::message::{BrokerId, Message};
use crate::path::handler::host::testing::{TestHandler, handler};
use crate::path::handler::plugin::PluginFile;
use crate::path::handler::{Call, CallError, CallResult, StartError};

/// One for all: each has threads of its own.
static ENGINE: LazyLock<WasmEngine> = LazyLock::new(testing::engine);

fn load(bytes: &[u8]) -> Plugin {
    ENGINE.load(&PluginFile::new(bytes.to_vec())).expect("is a handler")
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn message() -> Message {
    Message { broker: BrokerId(1), ..Message::testing("a", "21.5") }
}

/// The outcome of an instance's call, or why there is none.
fn called(bytes: &[u8], handler: TestHandler) -> Result<Result<usize, CallError>, StartError> {
    runtime().block_on(async {
        let mut instance = PlacedInstance::start(&load(bytes), Arc::new(handler.host())).await?;
        let message = Arc::new(message());
        let call = Call { message: &message, subscription: "s", captures: &[], attempt: 1, trace: None };
        Ok(instance.call(call).await.map(|publishes| publishes.len()))
    })
}

/// A call of `$handle` with this body fails so, in these words.
#[track_caller]
fn check(before: &str, body: &str, handler: TestHandler, result: CallResult, words: &str) {
    let text = format!("{PUBLISH} {before} (func $handle (param i32) (result i32) {body})");
    let error = called(&component(&text), handler.allow(&["1:#"])).expect("starts").expect_err("fails");
    assert_eq!((error.result(), error.to_string().as_str()), (result, words));
    assert_eq!(error.keeps_instance(), matches!(result, CallResult::Reject | CallResult::Retry));
}

/// No instance of this, in these words.
#[track_caller]
fn check_start(bytes: &[u8], handler: TestHandler, words: &str) {
    assert_eq!(called(bytes, handler).expect_err("does not start").to_string(), words);
}

/// Publishes `$len` bytes and drops the answer.
const TRY: &str = "(drop (call $publish-bytes (i32.const 0x2000) (local.get $len)))";

#[test]
fn recursion_ends_at_the_call_stack() {
    let words = "the handler needs more than 1048576 bytes of call stack, as by endless recursion; no key raises that";
    check("", "(call $handle (local.get 0))", handler(), CallResult::Limit, words);
}

#[test]
fn a_table_bomb_ends_at_its_elements() {
    let words = "the handler needs more than 262144 table elements; no key raises that";
    let bomb =
        "(loop $l (br_if $l (i32.ge_s (table.grow $t (ref.null func) (i32.const 10000)) (i32.const 0)))) (unreachable)";
    check("(table $t 1 funcref)", bomb, handler(), CallResult::Limit, words);
    let at_once = component("(table 300000 funcref)");
    check_start(&at_once, handler(), &format!("the handler does not start: {words}"));
    // One that does with fewer goes on.
    let text = "(table $t 1 funcref) (func $handle (param i32) (result i32)
        (drop (table.grow $t (ref.null func) (i32.const 300000))) (i32.const 0x80))";
    assert_eq!(called(&component(text), handler()), Ok(Ok(0)));
}

#[test]
fn tables_memories_and_core_instances_are_counted() {
    let tables = "(table 1 funcref)".repeat(65);
    check_start(
        &component(&tables),
        handler(),
        "the handler does not start: the handler needs more than 64 tables; no key raises that",
    );
    let memories = "(memory 1)".repeat(9);
    check_start(
        &component(&memories),
        handler(),
        "the handler does not start: the handler needs more than 8 linear memories; no key raises that",
    );
    let bomb = format!("(core module $tiny) {}", "(core instance (instantiate $tiny))".repeat(300));
    check_start(
        &component_with("", &bomb),
        handler(),
        "the handler does not start: the handler needs more than 256 core instances; no key raises that",
    );
}

#[test]
fn a_memory_bomb_ends_at_max_memory() {
    let bomb = "(loop $l (br_if $l (i32.ge_s (memory.grow (i32.const 1)) (i32.const 0)))) (unreachable)";
    let words = "the handler needs more than max-memory = 1048576 bytes";
    check("", bomb, handler(), CallResult::Memory, words);
    let init = format!("(func $init (result i32) {bomb})");
    check_start(&component(&init), handler(), "the handler needs more than max-memory = 1048576 bytes to start");
}

#[test]
fn whoever_publishes_too_much_fails_whatever_it_returns() {
    let many = |end: &str| {
        format!(
            "(local $i i32) (local $len i32) (local.set $i (i32.const 100000))
             (loop $l {TRY} (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
             {end}"
        )
    };
    let words = "the call publishes more than max-publishes = 3 messages";
    for end in [format!("(i32.const {RESULT})"), "(unreachable)".to_owned()] {
        check("", &many(&end), handler().publishes(3, 1000), CallResult::Limit, words);
    }
    let reject =
        "(i32.store (i32.const 0x80) (i32.const 1)) (i32.store (i32.const 0x94) (i32.const 0)) (i32.const 0x80)";
    check("", &many(reject), handler().publishes(3, 1000), CallResult::Limit, words);

    let large = format!("(local $len i32) (local.set $len (i32.const 1000)) {TRY} {TRY} (i32.const {RESULT})");
    for most in [900, 1500] {
        let words = format!("the call publishes more than max-publish-bytes = {most} bytes");
        check("", &large, handler().publishes(3, most), CallResult::Limit, &words);
    }
    let text = format!("{PUBLISH} (func $handle (param i32) (result i32) {large})");
    assert_eq!(called(&component(&text), handler().allow(&["1:#"]).publishes(3, 2010)), Ok(Ok(2)));
}

#[test]
fn what_is_passed_at_once_is_bounded() {
    let pass = |mebibytes: u32| {
        format!(
            "(local $len i32) (drop (memory.grow (i32.const 200))) (local.set $len (i32.const {})) {TRY} (i32.const {RESULT})",
            mebibytes << 20
        )
    };
    let words = "the handler passes more than 4194304 bytes to the daemon at once, which is twice max-publish-bytes or twice \
                 allow.kv, whichever is larger, and 4 MiB at least";
    let roomy = || handler().memory(16 << 20);
    check("", &pass(5), roomy(), CallResult::Limit, words);
    let words = "the call publishes more than max-publish-bytes = 1048576 bytes";
    check("", &pass(3), roomy(), CallResult::Limit, words);
    // The key raises it.
    let words = "the call publishes more than max-publish-bytes = 4194304 bytes";
    check("", &pass(5), roomy().publishes(1, 4 << 20), CallResult::Limit, words);
}

/// Returns an error of so many bytes.
fn long_error(bytes: u32, reason: u32) -> String {
    format!(
        "(drop (memory.grow (i32.const 200))) (i32.store (i32.const 0x80) (i32.const 1))
         (i32.store (i32.const {reason}) (i32.const 0x10000)) (i32.store (i32.const {}) (i32.const {bytes}))
         (memory.fill (i32.const 0x10000) (i32.const 0x78) (i32.const {bytes})) (i32.const 0x80)",
        reason + 4
    )
}

#[test]
fn a_huge_error_is_cut() {
    let roomy = || handler().memory(16 << 20);
    let cut = format!("{}… (2096128 bytes more)", "x".repeat(1024));
    let words = format!("the handler rejected the message: {cut}");
    check("", &long_error(2 << 20, 0x90), roomy(), CallResult::Reject, &words);
    let init = |bytes| component(&format!("(func $init (result i32) {})", long_error(bytes, 0x84)));
    check_start(&init(2 << 20), roomy(), &format!("init refused: {cut}"));
    let words = "the handler does not start: the handler passes more than 4194304 bytes to the daemon at once, which is twice \
                 max-publish-bytes or twice allow.kv, whichever is larger, and 4 MiB at least";
    check_start(&init(8 << 20), roomy(), words);
}

#[test]
fn what_never_ends_is_stopped_wherever_it_is() {
    let hasty = || handler().deadline(Duration::from_millis(50));
    let words = "the call took longer than call-deadline = 50ms";
    check("", "(loop $l (br $l)) (unreachable)", hasty(), CallResult::Deadline, words);
    let words = "init took longer than call-deadline = 50ms";
    for body in
        ["(func $init (result i32) (loop $l (br $l)) (unreachable))", "(func $begin (loop $l (br $l))) (start $begin)"]
    {
        check_start(&component(body), hasty(), words);
    }
}

#[test]
fn text_that_is_not_utf8_is_told_and_a_bad_topic_is_refused() {
    // The topic has these bytes.
    let publish = |topic: &str| {
        format!(
            r#"(data (i32.const 0x600) "{topic}")
            (func $odd (result i32)
                (i32.store (i32.const 0x200) (i32.const 0x600))
                (i32.store (i32.const 0x204) (i32.const 3))
                (call $publish (i32.const 0x200) (i32.const 0x300))
                (i32.load8_u (i32.const 0x304)))"#
        )
    };
    let body = format!("(drop (call $odd)) (i32.const {RESULT})");
    let words = "the handler trapped: it passed text to the daemon that is not UTF-8";
    check(&publish(r"a\ffb"), &body, handler(), CallResult::Trap, words);
    // The second case of the error, invalid-topic; the call goes on.
    let body = format!("(if (i32.ne (call $odd) (i32.const 1)) (then (unreachable))) (i32.const {RESULT})");
    for topic in ["a/#", "+/a", r"a\00b"] {
        let text = format!("{} (func $handle (param i32) (result i32) {body})", publish(topic));
        assert_eq!(called(&component(&text), handler().allow(&["1:#"])), Ok(Ok(0)), "{topic}");
    }
    // A topic longer than MQTT has.
    let huge = format!(
        "(drop (memory.grow (i32.const 2))) (memory.fill (i32.const 0x10000) (i32.const 0x78) (i32.const 70000))
         (i32.store (i32.const 0x200) (i32.const 0x10000)) (i32.store (i32.const 0x204) (i32.const 70000))
         (call $publish (i32.const 0x200) (i32.const 0x300))
         (if (i32.ne (i32.load8_u (i32.const 0x304)) (i32.const 1)) (then (unreachable))) (i32.const {RESULT})"
    );
    let text = format!("(func $handle (param i32) (result i32) {huge})");
    assert_eq!(called(&component(&text), handler().allow(&["1:#"])), Ok(Ok(0)));
}

#[test]
fn a_component_of_the_largest_size_loads_and_a_larger_one_is_told() {
    const MOST: usize = 64 << 20;
    let mut bytes = component("");
    // A custom section takes what is left: its number, its length in five bytes, and its name of one byte.
    let padding = MOST - bytes.len() - 6;
    bytes.push(0);
    bytes.extend((0..5).map(|group| (padding >> (7 * group)) as u8 & 0x7f | if group < 4 { 0x80 } else { 0 }));
    bytes.extend([1, b'x']);
    bytes.resize(MOST, 0);
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("large.wasm");
    std::fs::write(&path, &bytes).expect("writes");
    let file = PluginFile::read(&path).expect("is within the limit");
    let plugin = ENGINE.load(&file).expect("is a handler");
    let started = runtime().block_on(PlacedInstance::start(&plugin, Arc::new(handler().host())));
    assert!(started.is_ok(), "{:?}", started.err());

    bytes.push(0);
    std::fs::write(&path, &bytes).expect("writes");
    let error = PluginFile::read(&path).err().expect("is too large");
    assert_eq!(error.to_string(), "has 67108865 bytes, more than 67108864");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Each damage is refused with a sentence, or it runs, under the limits of all.
    #[test]
    fn a_damaged_component_is_refused_or_runs(
        damages in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        end in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let body = format!(
            "{PUBLISH} (func $handle (param i32) (result i32)
                (drop (call $publish-bytes (i32.const 0x400) (i32.const 3))) (i32.const {RESULT}))"
        );
        let mut bytes = component(&body);
        for (place, byte) in damages {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len() + 1));
        }
        let file = PluginFile::new(bytes);
        // What is no component is told before, by its first bytes.
        match file.kind().and_then(|_| ENGINE.load(&file)) {
            Err(error) => prop_assert!(!error.to_string().contains('\n'), "{error}"),
            Ok(plugin) => {
                let (deadline, begun) = (Duration::from_millis(200), Instant::now());
                let host = Arc::new(handler().allow(&["1:#"]).deadline(deadline).host());
                runtime().block_on(async {
                    let Ok(mut instance) = PlacedInstance::start(&plugin, host).await else { return };
                    let message = Arc::new(message());
                    let call = Call { message: &message, subscription: "s", captures: &[], attempt: 1, trace: None };
                    // Whatever it returns: it came back.
                    let _ = instance.call(call).await;
                });
                prop_assert!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
            }
        }
    }
}
