//! What the daemon and its native plugins agree on: `sdk/c/tidegate.h` in Rust.
//!
//! Owns: the types and constants of the C ABI, version 1, and the only reading of what the other side points to. Used by the daemon, which
//! calls plugins, and by `tidegate-native`, which is called. What each function means, who owns which memory and which thread calls
//! is said in the header, once; a test compares both field by field. It deliberately decides nothing: what a handler may do is the daemon's.
//!
//! Evolution: a major version is an entry point of its own ([`ENTRY`]). Within it, fields are appended only, whole multiples of 8 bytes at a
//! time, and the `size` that every growing struct begins with says how much of it its maker knew: the rest reads as zero. Structs have no
//! padding between fields, and what is `reserved` is zero. [`Bytes`] and [`Pair`] are elements of arrays and never grow.

#![no_std]
#![allow(unsafe_code)]
#![deny(clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

mod read;
mod view;

use core::ffi::{CStr, c_char, c_void};
use core::fmt;
use core::marker::{PhantomData, PhantomPinned};
use core::ptr;

pub use read::{Fault, Grows, read, slice, write};
pub use view::{MessageView, OutgoingView, Pairs, PropertiesView, ReadingsView, RunView, Texts};

/// The version of the ABI: another one has another entry point.
pub const MAJOR: u32 = 1;

/// How often fields were appended.
pub const MINOR: u32 = 0;

/// How the names of entry points begin; the major version follows.
pub const ENTRY_PREFIX: &str = "tidegate_plugin_v";

/// The name of the entry point of this major version.
pub const ENTRY: &CStr = c"tidegate_plugin_v1";

/// `tidegate_plugin_v1`: what a library exports. Gives a table that lives as long as the process, or null.
pub type Entry = unsafe extern "C" fn(host: *const Host) -> *const Plugin;

/// Where [`Host::kv_set`] sets a key for ever.
pub const FOREVER: u64 = u64::MAX;

/// Where [`Host::set_error`] leaves it to the daemon when a message is tried again.
pub const ANY_DELAY: u64 = u64::MAX;

/// How a call ended: `tg_status`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Status(pub i32);

impl Status {
    /// It did what was asked.
    pub const OK: Status = Status(0);

    /// Returned by a plugin: the same message or run may work later.
    pub const RETRY: Status = Status(1);
    /// Returned by a plugin: it will never work.
    pub const REJECT: Status = Status(2);
    /// Returned by a plugin: its code has failed, and its state must not be used again.
    pub const PANIC: Status = Status(3);

    /// Returned by the daemon: the handler's grants do not permit it, or the call is `create`.
    pub const DENIED: Status = Status(16);
    /// Returned by the daemon: not a topic name.
    pub const INVALID_TOPIC: Status = Status(17);
    /// Returned by the daemon: it can never fit.
    pub const TOO_LARGE: Status = Status(18);
    /// Returned by the daemon: there is no room for it now, or in this call.
    pub const QUOTA: Status = Status(19);
    /// Returned by the daemon: no broker is configured with this name.
    pub const UNKNOWN_BROKER: Status = Status(20);
    /// Returned by the daemon: too much waits for this broker already. Reserved.
    pub const OUTBOX_FULL: Status = Status(21);
    /// Returned by the daemon: there is no such key.
    pub const NOT_FOUND: Status = Status(22);
    /// Returned by the daemon: its store has failed.
    pub const UNAVAILABLE: Status = Status(23);
    /// Returned by the daemon: what it was given is not what the header asks for.
    pub const INVALID: Status = Status(24);
    /// Returned by the daemon: something else, in words.
    pub const OTHER: Status = Status(25);
}

/// QoS 0 (MQTT 5 §4.3.1).
pub const AT_MOST_ONCE: u8 = 0;
/// QoS 1 (MQTT 5 §4.3.2).
pub const AT_LEAST_ONCE: u8 = 1;
/// QoS 2 (MQTT 5 §4.3.3).
pub const EXACTLY_ONCE: u8 = 2;

/// The level of a log line: each step.
pub const LOG_TRACE: u32 = 0;
/// The level of a log line: for finding a fault.
pub const LOG_DEBUG: u32 = 1;
/// The level of a log line: what happens seldom, and should.
pub const LOG_INFO: u32 = 2;
/// The level of a log line: wrong, and mended.
pub const LOG_WARN: u32 = 3;
/// The level of a log line: wrong, and not mended. Numbers above count as this one.
pub const LOG_ERROR: u32 = 4;

/// What made a run due: a `[[schedules]]`.
pub const SCHEDULE: u32 = 0;
/// What made a run due: nothing came for a subscription for as long as its `silence` says.
pub const SILENCE: u32 = 1;

/// A call in progress, known to the daemon alone: `tg_call`.
#[repr(C)]
pub struct Call {
    opaque: [u8; 0],
    /// Neither sent to another thread nor moved nor made by others.
    pinned: PhantomData<(*mut u8, PhantomPinned)>,
}

/// Bytes that somebody else owns: `tg_bytes`. As text they are UTF-8 without a zero byte at their end. A null pointer is an absent value
/// where one may be absent, else an empty one.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Bytes {
    /// Where they begin. Where there are none it is not read, and may be anything.
    pub ptr: *const c_char,
    /// How many.
    pub len: usize,
}

impl Bytes {
    /// No value.
    pub const ABSENT: Bytes = Bytes { ptr: ptr::null(), len: 0 };

    /// These bytes, for as long as they live.
    pub const fn of(bytes: &[u8]) -> Bytes {
        Bytes { ptr: bytes.as_ptr().cast(), len: bytes.len() }
    }

    /// This text, for as long as it lives.
    pub const fn of_text(text: &str) -> Bytes {
        Bytes::of(text.as_bytes())
    }

    /// This text, or no value.
    pub fn of_text_or_absent(text: Option<&str>) -> Bytes {
        text.map_or(Bytes::ABSENT, Bytes::of_text)
    }

    /// These bytes, or no value.
    pub fn or_absent(bytes: Option<&[u8]>) -> Bytes {
        bytes.map_or(Bytes::ABSENT, Bytes::of)
    }

    /// Whether it is no value.
    pub fn is_absent(self) -> bool {
        self.ptr.is_null()
    }
}

impl fmt::Debug for Bytes {
    /// Where and how many, not what: that may be gone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:p}", self.len, self.ptr)
    }
}

/// Two texts, such as a user property (MQTT 5 §3.3.2.3.7) or the field of a log line: `tg_pair`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// The name.
    pub key: Bytes,
    /// What it stands for.
    pub value: Bytes,
}

/// The MQTT 5 properties of a message: `tg_properties`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Properties {
    /// The size of this struct, as its maker knew it.
    pub size: u32,
    /// Seconds, where [`Self::has_message_expiry`] is not 0.
    pub message_expiry: u32,
    /// Whether there is a message expiry.
    pub has_message_expiry: u8,
    /// Whether the payload is declared to be UTF-8.
    pub utf8_payload: u8,
    /// Zero.
    pub reserved: [u8; 6],
    /// Text, or absent.
    pub content_type: Bytes,
    /// Text, or absent.
    pub response_topic: Bytes,
    /// Or absent.
    pub correlation_data: Bytes,
    /// In order; keys may repeat.
    pub user: *const Pair,
    /// How many.
    pub user_count: usize,
}

/// A message that matched a subscription of the handler: `tg_message`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// The size of this struct, as its maker knew it.
    pub size: u32,
    /// Which try of this message it is, from 1.
    pub attempt: u32,
    /// Nanoseconds since the Unix epoch.
    pub received: u64,
    /// As received on the wire.
    pub qos: u8,
    /// A retained message that the broker replayed.
    pub retain: u8,
    /// The broker may have sent it before.
    pub dup: u8,
    /// Zero.
    pub reserved: [u8; 5],
    /// The name of the broker that it came from. Text.
    pub broker: Bytes,
    /// The name of the subscription that won. Text.
    pub subscription: Bytes,
    /// Text.
    pub topic: Bytes,
    /// Any bytes.
    pub payload: Bytes,
    /// What the subscription's wildcards matched, in order. Texts.
    pub captures: *const Bytes,
    /// How many.
    pub capture_count: usize,
    /// Null on a 3.1.1 session.
    pub properties: *const Properties,
}

/// A message to publish: `tg_outgoing`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    /// The size of this struct, as its maker knew it.
    pub size: u32,
    /// The quality of service.
    pub qos: u8,
    /// Whether the broker keeps it for later subscribers.
    pub retain: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// Text.
    pub topic: Bytes,
    /// Any bytes.
    pub payload: Bytes,
    /// The name of a configured broker, or absent.
    pub broker: Bytes,
    /// Or null.
    pub properties: *const Properties,
}

/// What a handler runs for without a message: `tg_run`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The size of this struct, as its maker knew it.
    pub size: u32,
    /// [`SCHEDULE`] or [`SILENCE`].
    pub trigger: u32,
    /// Nanoseconds since the Unix epoch.
    pub due: u64,
    /// The name of the schedule, or of the silent subscription. Text.
    pub name: Bytes,
}

/// Readings of the machine: `tg_readings`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Readings {
    /// The size of this struct, as the plugin knows it.
    pub size: u32,
    /// Percent over all cores, since the reading before.
    pub cpu_load: u32,
    /// Bytes.
    pub used_memory: u64,
    /// Bytes.
    pub free_memory: u64,
    /// Seconds since the machine started.
    pub uptime: u64,
    /// Text.
    pub model: Bytes,
    /// Text.
    pub serial_number: Bytes,
    /// Text.
    pub os_version: Bytes,
}

/// What a plugin may ask of the daemon: `tg_host`. Lives as long as the process.
///
/// The first argument of each is the call in progress that the plugin was given, on the thread that it was given to.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// The size of this struct, as the daemon knows it.
    pub size: u32,
    /// [`MINOR`], as the daemon knows it.
    pub minor: u32,
    /// Whether a line of this level would be kept: 0 or 1.
    pub log_enabled: Option<unsafe extern "C" fn(call: *mut Call, level: u32) -> u32>,
    /// Writes a line.
    pub log: Option<
        unsafe extern "C" fn(call: *mut Call, level: u32, message: Bytes, fields: *const Pair, field_count: usize),
    >,
    /// Holds a publish back until the call has returned [`Status::OK`].
    pub publish: Option<unsafe extern "C" fn(call: *mut Call, message: *const Outgoing) -> Status>,
    /// The value of a key.
    pub kv_get: Option<unsafe extern "C" fn(call: *mut Call, key: Bytes, value: *mut Bytes) -> Status>,
    /// Sets a key for so many milliseconds, or [`FOREVER`].
    pub kv_set: Option<unsafe extern "C" fn(call: *mut Call, key: Bytes, value: Bytes, ttl_ms: u64) -> Status>,
    /// Deletes a key.
    pub kv_delete: Option<unsafe extern "C" fn(call: *mut Call, key: Bytes) -> Status>,
    /// The keys that start with `prefix` and come after `after`, which may be absent.
    pub kv_keys: Option<
        unsafe extern "C" fn(
            call: *mut Call,
            prefix: Bytes,
            after: Bytes,
            limit: u32,
            keys: *mut *const Bytes,
            key_count: *mut usize,
        ) -> Status,
    >,
    /// A value of the handler's configuration.
    pub config_get: Option<unsafe extern "C" fn(call: *mut Call, key: Bytes, value: *mut Bytes) -> Status>,
    /// The handler's configuration as JSON.
    pub config_json: Option<unsafe extern "C" fn(call: *mut Call) -> Bytes>,
    /// Readings of the machine.
    pub system_read: Option<unsafe extern "C" fn(call: *mut Call, readings: *mut Readings) -> Status>,
    /// The words of what the call is going to return, and after how many milliseconds it should be tried again, or [`ANY_DELAY`].
    pub set_error: Option<unsafe extern "C" fn(call: *mut Call, words: Bytes, after_ms: u64)>,
    /// Why the last function of this call that did not return [`Status::OK`] did not.
    pub last_error: Option<unsafe extern "C" fn(call: *mut Call) -> Bytes>,
}

/// What the daemon may ask of a plugin: `tg_plugin`. Lives as long as the process, and never changes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Plugin {
    /// The size of this struct, as the plugin knows it.
    pub size: u32,
    /// [`MINOR`], as the plugin knows it.
    pub minor: u32,
    /// For people. Text.
    pub name: Bytes,
    /// For people. Text.
    pub version: Bytes,
    /// Makes the state of an instance, before its first call. May be null: the state is then null.
    pub create: Option<unsafe extern "C" fn(call: *mut Call, state: *mut *mut c_void) -> Status>,
    /// Handles a message. Null if the handler gets none.
    pub on_message:
        Option<unsafe extern "C" fn(state: *mut c_void, call: *mut Call, message: *const Message) -> Status>,
    /// Runs on a schedule and on silence. Null if the handler does not.
    pub on_schedule: Option<unsafe extern "C" fn(state: *mut c_void, call: *mut Call, run: *const Run) -> Status>,
    /// Ends the state of an instance. May be null.
    pub destroy: Option<unsafe extern "C" fn(state: *mut c_void)>,
}
