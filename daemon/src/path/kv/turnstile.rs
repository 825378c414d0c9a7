//! Who may commit now: every call that has run, or one that runs alone.
//!
//! A call whose reads were overtaken too often runs while nobody else commits, so that it ends. Fed by a handler's runners.
//! Who passes holds it for a moment and waits for nothing meanwhile; who is alone holds it for one call, which its deadline
//! bounds, and waits for that call only. So nobody waits in a circle. It is fair: who comes first is first.

use tokio::sync::{Semaphore, SemaphorePermit};

/// More than will ever pass at once: those who are alone take all.
const PERMITS: u32 = 1 << 16;

/// One handler's.
pub(super) struct Turnstile(Semaphore);

/// A commit may be made.
#[must_use]
pub struct Pass<'a>(#[expect(dead_code, reason = "released when it is dropped")] SemaphorePermit<'a>);

/// Nobody else may commit.
#[must_use]
pub struct Alone<'a>(#[expect(dead_code, reason = "released when it is dropped")] SemaphorePermit<'a>);

impl Default for Turnstile {
    fn default() -> Turnstile {
        Turnstile(Semaphore::new(PERMITS as usize))
    }
}

impl Turnstile {
    pub(super) async fn pass(&self) -> Pass<'_> {
        Pass(self.0.acquire().await.expect("it is never closed"))
    }

    pub(super) async fn alone(&self) -> Alone<'_> {
        Alone(self.0.acquire_many(PERMITS).await.expect("it is never closed"))
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn is_ready<T>(future: impl Future<Output = T>) -> bool {
        matches!(pin!(future).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(_))
    }

    #[test]
    fn many_pass_at_once_and_nobody_beside_one_that_is_alone() {
        let turnstile = Turnstile::default();
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(first) = pin!(turnstile.pass()).poll(&mut context) else { panic!("nobody is there") };
        assert!(is_ready(turnstile.pass()));
        let mut alone = pin!(turnstile.alone());
        assert!(alone.as_mut().poll(&mut context).is_pending());
        // Came later.
        assert!(!is_ready(turnstile.pass()));
        drop(first);
        let Poll::Ready(held) = alone.poll(&mut context) else { panic!("nobody passes any more") };
        assert!(!is_ready(turnstile.pass()) && !is_ready(turnstile.alone()));
        drop(held);
        assert!(is_ready(turnstile.pass()) && is_ready(turnstile.alone()));
    }
}
