//! For the tests of this folder and the one above: small guests in text.

use super::WasmEngine;
use crate::path::handler::plugin::{LoadError, Loader, Plugin, PluginFile};

/// A guest whose `init` and `handle` return ok.
pub(super) const RETURNS_OK: &str = "";

/// Where guests find, or write, a result.
pub(in crate::path::handler) const RESULT: u32 = 0x80;

/// Publishes `$len` bytes at `$at` to "out/a", with QoS 1 and retain. Gives the place of the result's error, or 0.
pub(in crate::path::handler) const PUBLISH: &str = r#"
    (data (i32.const 0x400) "out/a")
    (func $publish-bytes (param $at i32) (param $len i32) (result i32)
        (i32.store (i32.const 0x200) (i32.const 0x400))
        (i32.store (i32.const 0x204) (i32.const 5))
        (i32.store (i32.const 0x208) (local.get $at))
        (i32.store (i32.const 0x20c) (local.get $len))
        (i32.store (i32.const 0x210) (i32.const 0x0101))
        (call $publish (i32.const 0x200) (i32.const 0x300))
        (select (i32.const 0x304) (i32.const 0) (i32.load8_u (i32.const 0x300))))"#;

/// Returns an error: rejects with "no", which stands at 0x100.
pub(in crate::path::handler) const REJECT: &str = r#"
    (data (i32.const 0x100) "no")
    (func $reject (result i32)
        (i32.store (i32.const 0x80) (i32.const 1))
        (i32.store (i32.const 0x88) (i32.const 0))
        (i32.store (i32.const 0x90) (i32.const 0x100))
        (i32.store (i32.const 0x94) (i32.const 2))
        (i32.const 0x80))"#;

/// An engine without a cache.
pub(super) fn engine() -> WasmEngine {
    WasmEngine::new(None).expect("an engine")
}

/// Loads a component of these bytes.
pub(super) fn load(bytes: &[u8]) -> Result<super::Plugin, LoadError> {
    engine().load(&PluginFile::new(bytes.to_vec()))
}

/// Loads a file of these bytes, of any kind.
pub(in crate::path::handler) fn load_file(bytes: &[u8]) -> Result<Plugin, LoadError> {
    Loader::new(engine()).load(&PluginFile::new(bytes.to_vec()))
}

/// The export of messages, around `$handle`.
const ON_MESSAGE: &str = r#"
  (func $handle (param "message" $message) (result (result (error $failure)))
    (canon lift (core func $guest "handle") (memory $libc "memory") (realloc (func $libc "realloc"))
      (post-return (func $guest "post"))))
  (instance $on-message (export "handle" (func $handle)))
  (export "tidegate:handler/on-message@0.1.0" (instance $on-message))"#;

/// The export of schedules, around `$run`.
const ON_SCHEDULE: &str = r#"
  (type $trigger' (enum "schedule" "silence"))
  (export $trigger "trigger" (type $trigger'))
  (func $run (param "trigger" $trigger) (param "name" string) (param "due" u64) (result (result (error $failure)))
    (canon lift (core func $guest "run") (memory $libc "memory") (realloc (func $libc "realloc"))
      (post-return (func $guest "post"))))
  (instance $on-schedule (export "trigger" (type $trigger)) (export "run" (func $run)))
  (export "tidegate:handler/on-schedule@0.1.0" (instance $on-schedule))"#;

/// A component around the text of a core module's inside: of the world schedule-handler where it defines `$run` alone, of
/// full-handler where it defines `$handle` too, else of message-handler.
///
/// `body` may define `$init`, which returns a pointer to its result, `$handle`, which takes a pointer to the message
/// and returns one to its result, and `$run`, which takes the trigger, the name's place and length, and the due time; without
/// them `init` and `handle` return ok. It may call what `testing.wat` imports. At [`RESULT`] it
/// finds zeros: the result ok.
pub(in crate::path::handler) fn component(body: &str) -> Vec<u8> {
    component_with(body, "")
}

/// As [`component`], with these further definitions beside what is exported.
pub(super) fn component_with(body: &str, definitions: &str) -> Vec<u8> {
    let defines = |name: &str| body.contains(&format!("(func {name} "));
    let unless_defined = |name: &str, default: String| if defines(name) { String::new() } else { default };
    let (mut exports, mut calls) = (String::new(), String::new());
    if defines("$handle") || !defines("$run") {
        exports.push_str(r#"(export "handle" (func $handle))"#);
        calls.push_str(ON_MESSAGE);
    }
    if defines("$run") {
        exports.push_str(r#"(export "run" (func $run))"#);
        calls.push_str(ON_SCHEDULE);
    }
    let init = unless_defined("$init", format!("(func $init (result i32) (i32.const {RESULT}))"));
    let handle = unless_defined("$handle", format!("(func $handle (param i32) (result i32) (i32.const {RESULT}))"));
    let text = include_str!("testing.wat").replace("$BODY$", &format!("{body}\n{init}\n{handle}"));
    let text = text.replace("$EXPORTS$", &exports).replace("$CALLS$", &format!("{calls}\n{definitions}"));
    wat::parse_str(text).expect("is a component")
}
