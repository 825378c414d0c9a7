//! The daemon as a natively built handler sees it.
//!
//! Owns: who that is. In `cargo test` it is [`crate::testing`]. In a native plugin it is the real one, which the crate `tidegate-native`
//! puts in its place before the plugin's first call. It stands where `wasm.rs` stands in a component.

use std::sync::OnceLock;
use std::time::Duration;

use crate::clock::whole_millis;
use crate::log::Level;
use crate::system::Readings;
use crate::{KvError, Message, Outgoing, PublishError, Result, config, testing};

/// A daemon that is not [`crate::testing`]. Its functions are those of the contract.
pub trait Daemon: Sync {
    /// See [`crate::publish`].
    ///
    /// # Errors
    /// As there.
    fn publish(&self, message: &Outgoing) -> Result<(), PublishError>;
    /// See [`crate::kv::get`].
    ///
    /// # Errors
    /// As there.
    fn kv_get(&self, key: &str) -> Result<Option<Vec<u8>>, KvError>;
    /// See [`crate::kv::set_with_ttl`]; none is for ever.
    ///
    /// # Errors
    /// As there.
    fn kv_set(&self, key: &str, value: &[u8], ttl_ms: Option<u64>) -> Result<(), KvError>;
    /// See [`crate::kv::delete`].
    ///
    /// # Errors
    /// As there.
    fn kv_delete(&self, key: &str) -> Result<(), KvError>;
    /// See [`crate::kv::keys_after`].
    ///
    /// # Errors
    /// As there.
    fn kv_keys(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, KvError>;
    /// See [`crate::log::enabled`].
    fn log_enabled(&self, level: Level) -> bool;
    /// See [`crate::log::write`].
    fn log(&self, level: Level, message: &str, fields: &[(String, String)]);
    /// Nanoseconds since the Unix epoch.
    fn wall_nanos(&self) -> u64;
    /// Nanoseconds that never go back.
    fn monotonic_nanos(&self) -> u64;
    /// See [`crate::random::bytes`].
    fn random_bytes(&self, len: u32) -> Vec<u8>;
    /// The handler's configuration.
    fn config_json(&self) -> String;
    /// See [`crate::system::read`].
    ///
    /// # Errors
    /// As there.
    fn system(&self) -> Result<Readings>;
}

/// Written once, before the first call.
static DAEMON: OnceLock<&'static dyn Daemon> = OnceLock::new();

/// From now on this is the daemon, on all threads. A second one is not taken.
pub fn install(daemon: &'static dyn Daemon) {
    DAEMON.get_or_init(|| daemon);
}

/// A new instance starts on this thread, in a call. The one that was there has ended.
pub fn begin() {
    config::begin(config_json());
}

/// A message with nothing in it.
pub fn blank_message() -> Message {
    testing::message("", "")
}

fn daemon() -> Option<&'static dyn Daemon> {
    DAEMON.get().copied()
}

pub(crate) fn publish(message: Outgoing) -> Result<(), PublishError> {
    match daemon() {
        Some(daemon) => daemon.publish(&message),
        None => testing::publish(message),
    }
}

pub(crate) fn kv_get(key: &str) -> Result<Option<Vec<u8>>, KvError> {
    daemon().map_or_else(|| testing::kv_get(key), |daemon| daemon.kv_get(key))
}

pub(crate) fn kv_set(key: &str, value: &[u8], time: Option<Duration>) -> Result<(), KvError> {
    match daemon() {
        Some(daemon) => daemon.kv_set(key, value, time.map(whole_millis)),
        None => testing::kv_set(key, value, time),
    }
}

pub(crate) fn kv_delete(key: &str) -> Result<(), KvError> {
    daemon().map_or_else(|| testing::kv_delete(key), |daemon| daemon.kv_delete(key))
}

pub(crate) fn kv_keys(prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, KvError> {
    daemon().map_or_else(|| testing::kv_keys(prefix, after, limit), |daemon| daemon.kv_keys(prefix, after, limit))
}

pub(crate) fn log_enabled(level: Level) -> bool {
    daemon().map_or_else(|| testing::log_enabled(level), |daemon| daemon.log_enabled(level))
}

pub(crate) fn log(level: Level, message: &str, fields: &[(String, String)]) {
    match daemon() {
        Some(daemon) => daemon.log(level, message, fields),
        None => testing::log(level, message, fields),
    }
}

pub(crate) fn wall_nanos() -> u64 {
    daemon().map_or_else(testing::wall_nanos, |daemon| daemon.wall_nanos())
}

pub(crate) fn monotonic_nanos() -> u64 {
    daemon().map_or_else(testing::monotonic_nanos, |daemon| daemon.monotonic_nanos())
}

pub(crate) fn random_bytes(len: u32) -> Vec<u8> {
    daemon().map_or_else(|| testing::random_bytes(len), |daemon| daemon.random_bytes(len))
}

pub(crate) fn config_json() -> String {
    daemon().map_or_else(testing::config_json, |daemon| daemon.config_json())
}

pub(crate) fn system() -> Result<Readings> {
    daemon().map_or_else(testing::system, |daemon| daemon.system())
}
