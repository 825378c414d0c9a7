//! Threads that step back behind those that carry messages.
//!
//! Fed by the threads that compile and those of guests on probation, as they start.

/// How much nicer they are than the daemon: its threads, as busy with messages, have nine tenths of a core. Not 19, which leaves
/// a busy machine's compilation a fiftieth: a reload would take minutes, and so would whoever needs what it holds.
#[cfg(target_os = "linux")]
pub(super) const NICE: i32 = 10;

/// Lowers the calling thread's priority. `doing` is said of it where that fails: "plugins are compiled".
#[cfg(target_os = "linux")]
pub(super) fn step_back(doing: &str) {
    // On Linux "this process" is this thread.
    let lowered = rustix::process::getpriority_process(None)
        .and_then(|own| rustix::process::setpriority_process(None, (own + NICE).min(19)));
    if let Err(error) = lowered {
        tracing::warn!(%error, "{doing} at the priority of everything else");
    }
}

/// Elsewhere the call would mean the whole process.
#[cfg(not(target_os = "linux"))]
pub(super) fn step_back(_: &str) {}
