//! The call in progress on this thread.
//!
//! Owns: the handle that the daemon gave for it, for as long as the callback runs; and the daemon's table of functions. Fed by `entry.rs`; read
//! by `daemon.rs`.

use std::cell::Cell;
use std::ptr;
use std::sync::OnceLock;

use tidegate_abi::{Call, Host};

/// The daemon's functions, all of them: [`keep`] checks that.
#[derive(Clone, Copy)]
pub(crate) struct Functions(Host);

/// A function that [`keep`] has seen to be there.
macro_rules! function {
    ($functions:expr, $name:ident) => {
        $functions.table().$name.expect("tables without all functions are not kept")
    };
}
pub(crate) use function;

impl Functions {
    pub(crate) fn table(&self) -> &Host {
        &self.0
    }
}

/// Written once, by the entry point.
static FUNCTIONS: OnceLock<Functions> = OnceLock::new();

thread_local! {
    /// Null between calls; written by [`enter`] and its end.
    static CURRENT: Cell<*mut Call> = const { Cell::new(ptr::null_mut()) };
}

/// Keeps the daemon's table; false if it lacks a function that version 1.0 has.
pub(crate) fn keep(host: Host) -> bool {
    let Host {
        size: _,
        minor: _,
        log_enabled,
        log,
        publish,
        kv_get,
        kv_set,
        kv_delete,
        kv_keys,
        config_get,
        config_json,
        system_read,
        set_error,
        last_error,
    } = host;
    let whole = log_enabled.is_some()
        && log.is_some()
        && publish.is_some()
        && kv_get.is_some()
        && kv_set.is_some()
        && kv_delete.is_some()
        && kv_keys.is_some()
        && config_get.is_some()
        && config_json.is_some()
        && system_read.is_some()
        && set_error.is_some()
        && last_error.is_some();
    if whole {
        FUNCTIONS.get_or_init(|| Functions(host));
    }
    whole
}

/// Runs a callback's work as the call in progress on this thread.
///
/// # Safety
/// The handle is the one that the callback was given, on this thread.
pub(crate) unsafe fn enter<T>(call: *mut Call, work: impl FnOnce() -> T) -> T {
    /// Puts back what was there, also when the work panics.
    struct End(*mut Call);
    impl Drop for End {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _end = End(CURRENT.replace(call));
    work()
}

/// The daemon's functions and the call in progress on this thread, if there is one. Both are valid until the callback returns.
pub(crate) fn current() -> Option<(Functions, *mut Call)> {
    let call = CURRENT.get();
    let functions = FUNCTIONS.get()?;
    (!call.is_null()).then_some((*functions, call))
}
