//! Why the running gateway does not do what an operator asks.
//!
//! Made by `control/live`; told by the admin plane as a problem document (RFC 9457) and by the command line.

use std::fmt;

/// What kind of refusal it is; each is a problem type of the HTTP API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// There is no such broker, subscription, handler, schedule, dead letter or key.
    NotFound,
    /// It exists already.
    Exists,
    /// What is asked for is not valid, or contradicts the rest of the configuration.
    Invalid,
    /// It stands in a file of the configuration, and is changed there.
    InFile,
    /// Something else depends on it.
    InUse,
    /// The broker is not connected, and was not to be.
    NotConnected,
    /// The broker is connected already, and must not be.
    Connected,
    /// The connection cannot be made.
    CannotConnect,
    /// The broker says no.
    RefusedByBroker,
    /// The broker has not answered in time.
    NoAnswer,
    /// What it is about was changed or removed while it was done.
    Changed,
    /// A queue of requests is full.
    Busy,
    /// The outbox of the broker is full, and rejects what comes.
    OutboxFull,
    /// It was taken in, and dropped before the broker had it.
    Dropped,
    /// It is being done already.
    UnderWay,
    /// The handler may not remember more.
    Quota,
    /// Only a restart can make it.
    NeedsRestart,
    /// The plugin does not load or start.
    Plugin,
    /// What must be kept cannot be written.
    Storage,
    /// The daemon is stopping.
    Stopping,
}

/// A refusal in plain words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its kind.
    pub kind: RefusalKind,
    /// What is in the way: lower case, no full stop.
    pub detail: String,
    /// What to do; may be empty where the detail says all.
    pub remedy: String,
    /// Everything that is wrong with the configuration that would result, a line each, where that is more than one thing.
    pub problems: Vec<String>,
}

impl Refusal {
    /// A refusal without configuration problems.
    pub fn new(kind: RefusalKind, detail: impl Into<String>, remedy: impl Into<String>) -> Refusal {
        Refusal { kind, detail: detail.into(), remedy: remedy.into(), problems: Vec::new() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

impl std::error::Error for Refusal {}
