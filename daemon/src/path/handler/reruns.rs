//! Calls that another call overtook: it changed what they read before they ended. They run again at once, and after several times
//! while no other call of the handler commits.
//!
//! Owns: the count for one job, and its place at the turnstile. Fed by the job's runner around each run. What conflicts is decided
//! in `path/kv`. A job waits here for the calls of its own handler alone, each bounded by its deadline, and holds its permit of the
//! parallel limit and its instance meanwhile: who runs alone has both already.

use super::host::KvGrant;
use crate::path::kv::{Alone, Pass, Transaction};

/// Times that a call runs again beside others. Then it runs alone: calls that are longer than others would never end.
const BESIDE_OTHERS: u32 = 8;

/// The runs of one job's call.
pub(super) struct Reruns<'a> {
    grant: Option<&'a KvGrant>,
    overtaken: u32,
    alone: Option<Alone<'a>>,
    pass: Option<Pass<'a>>,
}

impl<'a> Reruns<'a> {
    /// Before the first one.
    pub(super) fn of(grant: Option<&'a KvGrant>) -> Reruns<'a> {
        Reruns { grant, overtaken: 0, alone: None, pass: None }
    }

    /// The call is about to run. Cancellation safe.
    pub(super) async fn begin(&mut self) {
        self.pass = None;
        if self.overtaken >= BESIDE_OTHERS
            && self.alone.is_none()
            && let Some(grant) = self.grant
        {
            self.alone = Some(grant.kv.alone().await);
        }
    }

    /// The call has run, and may commit now. Cancellation safe.
    pub(super) async fn end(&mut self, transaction: &Transaction) {
        if self.alone.is_none()
            && !transaction.is_empty()
            && let Some(grant) = self.grant
        {
            self.pass = Some(grant.kv.pass().await);
        }
    }

    /// It was overtaken, and is to run again.
    pub(super) fn overtaken(&mut self) {
        self.overtaken += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Waker};

    use super::*;
    use crate::path::kv::Kv;

    #[tokio::test]
    async fn after_several_times_a_call_runs_alone() {
        let grant = KvGrant { kv: Arc::new(Kv::detached("celsius".into())), quota: 4096 };
        let mut reads = Transaction::default();
        grant.kv.look(|mirror, now| reads.get(mirror, "a", now)).expect("may read");
        let others_may_commit = || pin!(grant.kv.pass()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
        let mut reruns = Reruns::of(Some(&grant));
        for _ in 0..BESIDE_OTHERS {
            reruns.begin().await;
            assert!(others_may_commit());
            reruns.end(&reads).await;
            reruns.overtaken();
        }
        reruns.begin().await;
        assert!(!others_may_commit());
        reruns.end(&reads).await;
        assert!(!others_may_commit());
        drop(reruns);
        assert!(others_may_commit());
    }
}
