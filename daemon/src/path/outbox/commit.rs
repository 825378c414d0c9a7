//! Rows that are written without a message and without publishes, in the order of what calls write.
//!
//! Fed by operators' changes of what handlers remember.

use tokio::sync::oneshot;

use super::command::PublishEnd;
use super::effects::{Commit, Effects};
use super::owner::Owner;
use super::{Outboxes, Standing};

/// Is told once something is on the disk.
pub struct Durable(oneshot::Receiver<PublishEnd>);

impl Durable {
    /// Waits for it; whether it is. It is not where the daemon stops before. Cancellation safe.
    pub async fn synced(self) -> bool {
        self.0.await.is_ok()
    }
}

impl Outboxes {
    /// Has rows written, after what they rest on. `accepted` is done at once, under a lock, so that it must be short.
    pub fn commit(&self, commit: Box<Commit>, accepted: impl FnOnce()) -> Durable {
        let (told, durable) = oneshot::channel();
        let effects = Effects { publishes: Vec::new(), commit: Some(commit) };
        match self.offer(effects, Owner::Command(told), accepted) {
            Standing::In(_) | Standing::Ended => {}
            Standing::Waits(_) | Standing::Rejected(..) => {
                debug_assert!(false, "without a publish, nothing needs room")
            }
        }
        Durable(durable)
    }
}
