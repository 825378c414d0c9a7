//! Handlers that an operator pauses and resumes, and what is parked for them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use super::{Live, Refusal, RefusalKind, Running, unknown};
use crate::control::admin::resource::{HandlerState, Kept};
use crate::control::config::runtime::Section;
use crate::path::dispatch::{HandlerQueue, Standing};
use crate::path::handler::HandlerView;

/// How long a command waits for the disk.
const SYNCED: Duration = Duration::from_secs(10);

impl Live {
    /// Makes a handler pause, also after a restart: its calls end, what waits and what comes is parked. One that is paused stays so.
    ///
    /// # Errors
    /// There is no such handler; or it is paused, and the disk does not know yet.
    pub async fn pause(&self, handler: &str) -> Result<(), Refusal> {
        self.set_paused(handler, true).await
    }

    /// Gives a handler that is paused or quarantined what was parked for it, and then what comes.
    ///
    /// # Errors
    /// There is no such handler; or it goes on, and the disk does not know yet.
    pub async fn resume(&self, handler: &str) -> Result<(), Refusal> {
        self.set_paused(handler, false).await
    }

    async fn set_paused(&self, handler: &str, paused: bool) -> Result<(), Refusal> {
        let running = self.running();
        let view = running.handler(handler)?;
        let Some(park) = view.queue().park() else { return Ok(()) };
        let changes = park.set_paused(paused);
        view.queue().follow_pause();
        if changes {
            let parked = park.held().rows;
            let done = if paused { "handler paused by command" } else { "handler resumed by command" };
            tracing::info!(handler, parked, "{done}");
        }
        let (sender, synced) = oneshot::channel();
        park.remember(move || {
            // Who asked may have gone.
            let _ = sender.send(());
        });
        match tokio::time::timeout(SYNCED, synced).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                let (is, state) = if paused { ("is paused", "paused") } else { ("goes on", "not paused") };
                Err(Refusal::new(
                    RefusalKind::Storage,
                    format!("the handler {is}, but that it is {state} could not be written to the disk within 10 s"),
                    "see the daemon's log; it is written once the disk permits, unless the daemon ends before",
                ))
            }
        }
    }
}

impl Running {
    /// The handler of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn handler(&self, name: &str) -> Result<&HandlerView, Refusal> {
        let found = self.handlers.iter().find(|view| *view.handler().name == *name);
        found.ok_or_else(|| unknown(&self.loaded, Section::Handlers, name))
    }

    /// What is parked, also for handlers that are not configured any more.
    pub(super) fn parked(&self) -> Kept {
        let all = self.parks.held().into_iter();
        all.fold(Kept::default(), |sum, (_, total)| Kept {
            messages: sum.messages + total.rows,
            bytes: sum.bytes + total.weight,
        })
    }

    /// What is parked for handlers that are not configured any more.
    pub(super) fn parked_orphans(&self) -> BTreeMap<String, Kept> {
        let configured = |name: &str| self.handlers.iter().any(|view| *view.handler().name == *name);
        let orphans = self.parks.held().into_iter().filter(|(name, _)| !configured(name));
        orphans.map(|(name, total)| (name.to_string(), Kept { messages: total.rows, bytes: total.weight })).collect()
    }
}

/// How a handler stands.
pub(super) fn state(queue: &HandlerQueue) -> HandlerState {
    match queue.standing() {
        Standing::Open => HandlerState::Open,
        Standing::Paused => HandlerState::Paused,
        Standing::Quarantined(_) => HandlerState::Quarantined,
        Standing::Replaying => HandlerState::Replaying,
    }
}

/// Until when a handler is left alone; none where it is not, or where it is about to be tried.
pub(super) fn quarantined_until(queue: &HandlerQueue) -> Option<SystemTime> {
    match queue.standing() {
        Standing::Quarantined(left) => Some(SystemTime::now() + left?),
        Standing::Open | Standing::Paused | Standing::Replaying => None,
    }
}

/// What is parked for a handler.
pub(super) fn parked(queue: &HandlerQueue) -> Kept {
    let held = queue.park().map(|park| park.held()).unwrap_or_default();
    Kept { messages: held.rows, bytes: held.weight }
}
