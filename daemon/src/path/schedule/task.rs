//! The task that looks at the clock, and makes what is due.
//!
//! It sleeps until something is due, at most a few seconds while anything follows the wall clock. Runs are futures of their own:
//! it waits for none of them, and joins them.

use std::future::pending;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::run::make;
use super::schedules::Schedules;
use super::timing::Now;

/// Makes runs until `stop`; then waits for those that are under way. What is not done by the time that handlers and outboxes end
/// is cut short.
pub async fn run(schedules: Arc<Schedules>, stop: CancellationToken) {
    let mut runs = JoinSet::new();
    while !stop.is_cancelled() {
        let (starts, wait) = schedules.look(Now::read());
        for start in starts {
            runs.spawn(make(Arc::clone(&schedules), start, stop.clone()));
        }
        let due = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = schedules.changed.notified() => {}
            Some(ended) = runs.join_next() => told(ended),
            () = due => {}
        }
    }
    schedules.stop();
    while let Some(ended) = runs.join_next().await {
        told(ended);
    }
}

fn told(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "the run of a schedule panicked");
    }
}
