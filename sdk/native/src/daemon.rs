//! The SDK's functions, as calls of the daemon's.
//!
//! Owns: their translation. Fed by the handler through the SDK; calls the table that the daemon gave, with the call in progress. Outside of a
//! call there is no daemon to ask: what can return an error does.

use std::io::Write;
use std::ptr;
use std::sync::LazyLock;
use std::time::{Instant, SystemTime};

use tidegate_abi::{self as abi, Bytes, Call, ReadingsView, Status, Texts};
use tidegate_sdk::__private::native::Daemon;

use crate::call::{Functions, current, function};
use crate::convert::{lend, level, pairs};
use crate::log::Level;
use crate::system::Readings;
use crate::{KvError, Outgoing, PublishError, Result, reject};

/// What is said where no call is in progress.
const NO_CALL: &str = "no call is in progress on this thread: only the thread that runs the call may do this";

/// The daemon that loaded this library.
pub(crate) struct Native;

impl Daemon for Native {
    fn publish(&self, message: &Outgoing) -> Result<(), PublishError> {
        let (functions, call) = current().ok_or_else(|| PublishError::Other(NO_CALL.to_owned()))?;
        let publish = function!(functions, publish);
        // SAFETY: the call is in progress on this thread, and the publish is lent until it returns.
        let status = lend(message, |message| unsafe { publish(call, message) });
        let words = || last_error(functions, call);
        match status {
            Status::OK => Ok(()),
            Status::DENIED => Err(PublishError::Denied(words())),
            Status::INVALID_TOPIC => Err(PublishError::InvalidTopic(words())),
            Status::TOO_LARGE => Err(PublishError::TooLarge),
            Status::QUOTA => Err(PublishError::Quota),
            // The SDK says it in its own words.
            Status::UNKNOWN_BROKER => Err(PublishError::UnknownBroker(message.broker.clone().unwrap_or_default())),
            Status::OUTBOX_FULL => Err(PublishError::OutboxFull),
            _ => Err(PublishError::Other(words())),
        }
    }

    fn kv_get(&self, key: &str) -> Result<Option<Vec<u8>>, KvError> {
        let (functions, call) = for_kv()?;
        let get = function!(functions, kv_get);
        let mut value = Bytes::ABSENT;
        // SAFETY: the call is in progress on this thread; the key and the place for the value live until it returns.
        let status = unsafe { get(call, Bytes::of_text(key), &raw mut value) };
        match kv_status(functions, call, status)? {
            Found::Absent => Ok(None),
            // SAFETY: it is valid until the callback returns, and copied at once.
            Found::Done => unsafe { value.get() }.map(|value| Some(value.to_vec())).map_err(kv_fault),
        }
    }

    fn kv_set(&self, key: &str, value: &[u8], ttl_ms: Option<u64>) -> Result<(), KvError> {
        let (functions, call) = for_kv()?;
        let set = function!(functions, kv_set);
        let ttl_ms = ttl_ms.unwrap_or(abi::FOREVER);
        // SAFETY: the call is in progress on this thread; key and value live until it returns.
        let status = unsafe { set(call, Bytes::of_text(key), Bytes::of(value), ttl_ms) };
        kv_status(functions, call, status).map(|_| ())
    }

    fn kv_delete(&self, key: &str) -> Result<(), KvError> {
        let (functions, call) = for_kv()?;
        let delete = function!(functions, kv_delete);
        // SAFETY: the call is in progress on this thread; the key lives until it returns.
        let status = unsafe { delete(call, Bytes::of_text(key)) };
        kv_status(functions, call, status).map(|_| ())
    }

    fn kv_keys(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, KvError> {
        let (functions, call) = for_kv()?;
        let list = function!(functions, kv_keys);
        let (mut keys, mut count) = (ptr::null(), 0);
        let (prefix, after) = (Bytes::of_text(prefix), Bytes::of_text_or_absent(after));
        // SAFETY: the call is in progress on this thread; all that is lent and the places for the answer live until it returns.
        let status = unsafe { list(call, prefix, after, limit, &raw mut keys, &raw mut count) };
        kv_status(functions, call, status)?;
        // SAFETY: they are valid until the callback returns, and copied at once.
        let keys = unsafe { Texts::of(keys, count) }.map_err(kv_fault)?;
        keys.map(|key| key.map(str::to_owned).map_err(kv_fault)).collect()
    }

    fn log_enabled(&self, at: Level) -> bool {
        let Some((functions, call)) = current() else { return at >= Level::Info };
        let enabled = function!(functions, log_enabled);
        // SAFETY: the call is in progress on this thread.
        unsafe { enabled(call, level(at)) != 0 }
    }

    /// Outside of a call the line goes where the daemon's own panics go: to standard error.
    fn log(&self, at: Level, message: &str, fields: &[(String, String)]) {
        let Some((functions, call)) = current() else {
            // There is nobody left to tell where standard error is closed.
            let _ = writeln!(std::io::stderr(), "{at:?}: a native plugin, outside of a call: {message} {fields:?}");
            return;
        };
        let log = function!(functions, log);
        let fields = pairs(fields);
        // SAFETY: the call is in progress on this thread; text and fields live until it returns.
        unsafe { log(call, level(at), Bytes::of_text(message), fields.as_ptr(), fields.len()) };
    }

    fn wall_nanos(&self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn monotonic_nanos(&self) -> u64 {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// # Panics
    /// The operating system gives none, as it does for a component.
    fn random_bytes(&self, len: u32) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        bytes
    }

    /// # Panics
    /// No call is in progress.
    fn config_json(&self) -> String {
        let (functions, call) = current().unwrap_or_else(|| panic!("{NO_CALL}"));
        let json = function!(functions, config_json);
        // SAFETY: the call is in progress on this thread.
        let json = unsafe { json(call) };
        // SAFETY: it is valid until the callback returns, and copied at once.
        let json = unsafe { json.text() };
        json.unwrap_or_else(|fault| panic!("the configuration that the daemon gave {fault}")).to_owned()
    }

    fn system(&self) -> Result<Readings> {
        let (functions, call) = current().ok_or_else(|| reject(NO_CALL))?;
        let read = function!(functions, system_read);
        let mut readings = abi::Readings {
            size: size_of::<abi::Readings>() as u32,
            cpu_load: 0,
            used_memory: 0,
            free_memory: 0,
            uptime: 0,
            model: Bytes::ABSENT,
            serial_number: Bytes::ABSENT,
            os_version: Bytes::ABSENT,
        };
        // SAFETY: the call is in progress on this thread, and there is room for the readings until it returns.
        let status = unsafe { read(call, &raw mut readings) };
        if status != Status::OK {
            return Err(reject(last_error(functions, call)));
        }
        // SAFETY: its texts are valid until the callback returns, and copied at once.
        let view = unsafe { ReadingsView::of(&raw const readings) };
        let view = view.map_err(|fault| reject(format!("the readings that the daemon gave: one {fault}")))?;
        Ok(Readings {
            model: view.model.to_owned(),
            serial_number: view.serial_number.to_owned(),
            os_version: view.os_version.to_owned(),
            cpu_load: u8::try_from(view.cpu_load).unwrap_or(u8::MAX),
            used_memory: view.used_memory,
            free_memory: view.free_memory,
            uptime: view.uptime,
        })
    }
}

/// How a function of kv that did not fail ended.
enum Found {
    Done,
    Absent,
}

fn for_kv() -> Result<(Functions, *mut Call), KvError> {
    current().ok_or_else(|| KvError::Other(NO_CALL.to_owned()))
}

fn kv_status(functions: Functions, call: *mut Call, status: Status) -> Result<Found, KvError> {
    let words = || last_error(functions, call);
    match status {
        Status::OK => Ok(Found::Done),
        Status::NOT_FOUND => Ok(Found::Absent),
        Status::QUOTA => Err(KvError::Quota),
        Status::TOO_LARGE => Err(KvError::TooLarge),
        Status::UNAVAILABLE => Err(KvError::Unavailable(words())),
        _ => Err(KvError::Other(words())),
    }
}

fn kv_fault(fault: abi::Fault) -> KvError {
    KvError::Other(format!("what the daemon gave for kv {fault}"))
}

/// Why the last function failed, in the daemon's words.
fn last_error(functions: Functions, call: *mut Call) -> String {
    let last = function!(functions, last_error);
    // SAFETY: the call is in progress on this thread.
    let words = unsafe { last(call) };
    // SAFETY: they are valid until another function fails, and copied at once.
    let words = unsafe { words.get() }.unwrap_or_default();
    String::from_utf8_lossy(words).into_owned()
}
