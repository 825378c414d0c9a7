//! The end of a process beside threads that are in native code.
//!
//! Owns: how many of them there are, of all handlers. Fed by each thread that enters a library's code; asked by the commands that load
//! libraries, when they are done. An ordinary end runs the destructors of every library, on the main thread, under whatever still uses
//! what they take down: that would crash.

use std::ffi::c_int;
use std::io::{Write, stdout};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Threads that are, or may be, in a library's code.
static THREADS: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" {
    /// Ends the process at once: `_exit` of POSIX, of the C library that std links.
    safe fn _exit(status: c_int) -> !;
}

/// A thread that is, or may be, in a library's code.
pub(super) struct Entered(());

impl Entered {
    /// Counts until it is dropped.
    pub(super) fn new() -> Entered {
        THREADS.fetch_add(1, Ordering::SeqCst);
        Entered(())
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        THREADS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Ends the process with this status if a thread is in native code still, and then without the destructors of its libraries. Otherwise
/// nothing happens.
pub fn end_if_inside(status: u8) {
    let threads = THREADS.load(Ordering::SeqCst);
    if threads == 0 {
        return;
    }
    tracing::warn!(threads, "native code still runs, the process ends without the destructors of its libraries");
    // Who read it may be gone.
    let _ = stdout().flush();
    end(status);
}

/// Ends the process at once with this status, without the destructors of its libraries.
pub(super) fn end(status: u8) -> ! {
    _exit(status.into())
}
