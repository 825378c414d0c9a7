//! How long an answer may take from its beginning to its end.
//!
//! Owns: the time by which a connection's answer must be taken, where there is one. Set by an operation whose answer holds
//! something that others wait for; the connection (`server`) ends when it has come. Whoever takes a little now and then never
//! stands still (`stall`), and would hold it for ever. Knows nothing of what is answered.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// The time of one connection's answers, of which there is one at a time. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct Pace(watch::Sender<Option<Instant>>);

/// While it lives the connection's time runs.
#[derive(Debug)]
pub struct Running(watch::Sender<Option<Instant>>);

impl Pace {
    /// Without a time.
    pub fn new() -> Pace {
        Pace(watch::Sender::new(None))
    }

    /// From now on the answer must be taken within `limit`, until what is returned is dropped.
    pub fn within(&self, limit: Duration) -> Running {
        self.0.send_replace(Some(Instant::now() + limit));
        Running(self.0.clone())
    }

    /// Waits until an answer has not been taken in time. Cancellation safe.
    pub async fn overrun(&self) {
        let mut end = self.0.subscribe();
        loop {
            let limit = *end.borrow_and_update();
            let changed = async { end.changed().await.expect("the sender is ours") };
            match limit {
                None => changed.await,
                Some(limit) => {
                    if timeout_at(limit, changed).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn what_is_taken_in_time_is_not_overrun() {
        let pace = Pace::new();
        assert!(timeout(SHORT, pace.overrun()).await.is_err(), "no time is set");
        let begun = Instant::now();
        let running = pace.within(SHORT);
        pace.overrun().await;
        assert!(begun.elapsed() >= SHORT);
        drop(running);
        assert!(timeout(2 * SHORT, pace.overrun()).await.is_err(), "it has ended");
    }

    #[tokio::test]
    async fn a_time_that_is_set_or_lifted_meanwhile_counts() {
        let pace = Pace::new();
        let other = pace.clone();
        let mut overrun = Box::pin(pace.overrun());
        assert!(timeout(SHORT, &mut overrun).await.is_err(), "no time is set");
        let running = other.within(2 * SHORT);
        assert!(timeout(SHORT, &mut overrun).await.is_err(), "it is not over");
        drop(running);
        assert!(timeout(2 * SHORT, &mut overrun).await.is_err(), "it was lifted");
        let _running = other.within(SHORT);
        overrun.await;
    }
}
