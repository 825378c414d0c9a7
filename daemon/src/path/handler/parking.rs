//! The task that keeps a handler's park: it parks what is to be parked, and brings back what is to be called.
//!
//! Owns nothing: what to do next is asked of the handler's queue (`path/dispatch/parking.rs`). It waits for that to change, for the
//! end of a quarantine, and for the disk. Dropped, it leaves everything as it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::path::dispatch::{After, HandlerQueue};
use crate::path::park::Park;

/// How long it waits where the disk cannot be read, or something is in the way.
const LATER: Duration = Duration::from_millis(500);

/// Keeps the park of a handler for as long as it is polled.
pub(super) async fn keep(queue: Arc<HandlerQueue>, park: Arc<Park>) {
    let mut stopped = false;
    loop {
        queue.park_waiting();
        match bring(&queue, &park).await {
            After::More => continue,
            After::Nothing => {}
            After::Later => park.wake(),
        }
        let due = queue.trial_due();
        tokio::select! {
            () = park.woken() => {}
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {}
            () = park.stopping().cancelled(), if !stopped => {
                stopped = true;
                queue.daemon_stops();
            }
        }
    }
}

/// Reads what is to be called next, if anything is.
async fn bring(queue: &Arc<HandlerQueue>, park: &Arc<Park>) -> After {
    let Some(wanted) = queue.wants() else { return After::Nothing };
    let read = {
        let park = Arc::clone(park);
        tokio::task::spawn_blocking(move || park.read(wanted.reading())).await
    };
    let after = match read {
        Ok(Ok(entries)) => queue.bring(wanted, &entries),
        Ok(Err(error)) => {
            tracing::error!(handler = %park.handler(), error = &error as &dyn std::error::Error,
                "what is parked for the handler cannot be read, it is tried again");
            After::Later
        }
        Err(panic) => {
            tracing::error!(handler = %park.handler(), %panic, "reading the park panicked");
            After::Later
        }
    };
    if after == After::Later {
        tokio::time::sleep(LATER).await;
    }
    after
}
