//! The host functions of `wit/handler.wit`.
//!
//! Called by guests, synchronously: each only touches memory. What they may do is decided in `host/`; here is
//! only what crosses the boundary.

use std::time::{Duration, SystemTime};

use tracing::Level;
use wasmtime::component::{HasSelf, Linker};

use super::bindings::FullHandler;
use super::bindings::tidegate::handler::{clock, config, kv, log, publisher, random, system, types};
use super::console::MAX_LINE_BYTES;
use super::convert::{kv_error_to_guest, publish_error_to_guest, readings_to_guest, request_from_guest};
use super::fault::Refusal;
use super::state::State;
use crate::path::handler::host::{Line, enabled, join, nanos, unix_nanos};

/// Random bytes that a guest gets at once; asking for more is a trap.
pub(super) const MAX_RANDOM_BYTES: u32 = 64 * 1024;

/// Provides all interfaces of the world, and WASI 0.2.
///
/// # Errors
/// An interface is provided twice: a defect of this file, which a test finds.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    FullHandler::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

impl types::Host for State {}

impl publisher::Host for State {
    fn publish(&mut self, message: types::Outgoing, broker: Option<String>) -> Result<(), publisher::PublishError> {
        self.call.publish(request_from_guest(message), broker.as_deref()).map_err(publish_error_to_guest)
    }
}

impl kv::Host for State {
    fn get(&mut self, key: String) -> Result<Option<Vec<u8>>, kv::KvError> {
        self.call.kv_get(&key).map(|value| value.map(Vec::from)).map_err(kv_error_to_guest)
    }

    fn set(&mut self, key: String, value: Vec<u8>, ttl_ms: Option<u64>) -> Result<(), kv::KvError> {
        self.call.kv_set(&key, value, ttl_ms.map(Duration::from_millis)).map_err(kv_error_to_guest)
    }

    fn delete(&mut self, key: String) -> Result<(), kv::KvError> {
        self.call.kv_delete(&key).map_err(kv_error_to_guest)
    }

    fn keys(&mut self, prefix: String, after: Option<String>, limit: u32) -> Result<Vec<String>, kv::KvError> {
        self.call.kv_keys(&prefix, after.as_deref(), limit).map_err(kv_error_to_guest)
    }
}

impl log::Host for State {
    fn enabled(&mut self, level: log::Level) -> bool {
        enabled(level_from_guest(level))
    }

    fn log(&mut self, level: log::Level, message: String, fields: Vec<(String, String)>) {
        let level = level_from_guest(level);
        self.call.host.log.line(&Line { level, message: &message, fields: &fields, stream: None });
        // The SDKs report a panic this way, before it becomes a trap.
        if level == Level::ERROR {
            let message = &message[..message.floor_char_boundary(MAX_LINE_BYTES)];
            self.console.remember(&format!("{message} {}", join(&fields)));
        }
    }
}

impl clock::Host for State {
    fn wall(&mut self) -> u64 {
        unix_nanos(SystemTime::now())
    }

    fn monotonic(&mut self) -> u64 {
        nanos(self.call.host.started.elapsed())
    }
}

impl random::Host for State {
    fn bytes(&mut self, len: u32) -> wasmtime::Result<Vec<u8>> {
        if len > MAX_RANDOM_BYTES {
            return Err(Refusal::Random { asked: len, most: MAX_RANDOM_BYTES }.into());
        }
        let mut bytes = vec![0; len as usize];
        getrandom::fill(&mut bytes).map_err(Refusal::NoRandom)?;
        Ok(bytes)
    }
}

impl config::Host for State {
    fn get(&mut self, key: String) -> Option<String> {
        self.call.host.config(&key)
    }

    fn json(&mut self) -> String {
        self.call.host.config_json().to_owned()
    }
}

impl system::Host for State {
    fn read(&mut self) -> Result<system::Readings, String> {
        self.call.host.read_system().map(readings_to_guest)
    }
}

fn level_from_guest(level: log::Level) -> Level {
    match level {
        log::Level::Trace => Level::TRACE,
        log::Level::Debug => Level::DEBUG,
        log::Level::Info => Level::INFO,
        log::Level::Warn => Level::WARN,
        log::Level::Error => Level::ERROR,
    }
}
