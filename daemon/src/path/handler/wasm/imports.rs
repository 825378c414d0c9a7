//! The host functions of `wit/handler.wit`.
//!
//! Called by guests, synchronously: each only touches memory. What they may do is decided in [`super::publish`],
//! [`super::kv`], [`super::log`] and [`super::system`].

use std::time::{Duration, SystemTime};

use tracing::Level;
use wasmtime::component::{HasSelf, Linker};

use super::bindings::FullHandler;
use super::bindings::tidegate::handler::{clock, config, kv, log, publisher, random, types};
use super::console::MAX_LINE_BYTES;
use super::convert::{nanos, unix_nanos};
use super::fault::Refusal;
use super::log::{Line, enabled, join};
use super::state::State;

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
        State::publish(self, message, broker.as_deref())
    }
}

impl kv::Host for State {
    fn get(&mut self, key: String) -> Result<Option<Vec<u8>>, kv::KvError> {
        self.kv_get(&key)
    }

    fn set(&mut self, key: String, value: Vec<u8>, ttl_ms: Option<u64>) -> Result<(), kv::KvError> {
        self.kv_set(&key, value, ttl_ms.map(Duration::from_millis))
    }

    fn delete(&mut self, key: String) -> Result<(), kv::KvError> {
        self.kv_delete(&key)
    }

    fn keys(&mut self, prefix: String, after: Option<String>, limit: u32) -> Result<Vec<String>, kv::KvError> {
        self.kv_keys(&prefix, after.as_deref(), limit)
    }
}

impl log::Host for State {
    fn enabled(&mut self, level: log::Level) -> bool {
        enabled(level_from_guest(level))
    }

    fn log(&mut self, level: log::Level, message: String, fields: Vec<(String, String)>) {
        let level = level_from_guest(level);
        self.host.log.line(&Line { level, message: &message, fields: &fields, stream: None });
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
        nanos(self.host.started.elapsed())
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
        self.host.config(&key)
    }

    fn json(&mut self) -> String {
        self.host.config_json().to_owned()
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
