//! Threads for the guests of plugins that fail again and again.
//!
//! Owns: which plugins those are ([`Probation`], pure), and a runtime for their guests, made when the first is on probation. An instance
//! that is used up takes its memory with it, and the one after it asks for new: both under the one lock of the process's memory, for
//! which a thread waits as long as another holds it, milliseconds on a busy machine. The sessions' threads have the messages of all
//! handlers to carry; these have only those of handlers that fail, and step back behind them. Fed by [`super::PlacedInstance`]; it calls
//! nothing by itself.

use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::task::AbortOnDropHandle;

use super::priority::step_back;

/// What a fault counts against a call that works: a plugin with more faults than one in seventeen calls is on probation for good.
const FAULT: u32 = 16;

/// From this count on guests are on probation: after two faults in a row.
const LIMIT: u32 = 2 * FAULT;

/// Threads, on however few cores.
const LEAST_THREADS: usize = 2;

/// The highest count: after that many calls more than [`LIMIT`] that work, the worst plugin is trusted again.
const MOST: u32 = 10 * FAULT;

/// Whether a plugin's guests fail more than now and then. Written at each fault, and by calls that work until they have made up for it.
#[derive(Debug, Default)]
pub(super) struct Probation {
    count: AtomicU32,
}

impl Probation {
    /// A guest has failed, and used up its instance.
    pub(super) fn failed(&self) {
        self.change(|count| Some((count + FAULT).min(MOST)));
    }

    /// A call left the instance whole.
    pub(super) fn worked(&self) {
        if self.count.load(Ordering::Relaxed) > 0 {
            self.change(|count| count.checked_sub(1));
        }
    }

    /// Whether the next call is made aside.
    pub(super) fn holds(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= LIMIT
    }

    fn change(&self, to: impl FnMut(u32) -> Option<u32>) {
        // None is zero already.
        let _ = self.count.try_update(Ordering::Relaxed, Ordering::Relaxed, to);
    }
}

/// The runtime of guests on probation.
pub(super) struct Aside {
    /// None where the operating system refused its threads. Taken when dropped.
    runtime: OnceLock<Option<Runtime>>,
}

impl Aside {
    /// Without threads until they are needed.
    pub(super) fn new() -> Aside {
        Aside { runtime: OnceLock::new() }
    }

    /// Its runtime. None where the operating system refuses the threads: then guests stay where they are.
    pub(super) fn runtime(&self) -> Option<&Handle> {
        let runtime = self.runtime.get_or_init(|| match start() {
            Ok(runtime) => Some(runtime),
            Err(error) => {
                tracing::warn!(%error, "no threads for the guests of handlers that fail: they share those of the sessions");
                None
            }
        });
        runtime.as_ref().map(Runtime::handle)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(Some(runtime)) = self.runtime.take() {
            // It may be dropped on a thread that must not block, and on one of its own.
            runtime.shutdown_background();
        }
    }
}

/// As many threads as there are cores, and two at least: one guest may hold one for as long as a copy of its memory takes.
fn start() -> io::Result<Runtime> {
    let threads = std::thread::available_parallelism().map_or(LEAST_THREADS, |cores| cores.get().max(LEAST_THREADS));
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads).thread_name("aside").on_thread_start(|| step_back("handlers that fail are called"));
    // Tokio panics where the system refuses a thread, which here means that there is no such runtime.
    catch_unwind(AssertUnwindSafe(|| builder.enable_time().build()))
        .unwrap_or_else(|_| Err(io::Error::other("the system refuses further threads")))
}

/// Does this there. What it has not done is given up when this is dropped.
///
/// # Panics
/// The work did.
pub(super) async fn done<T: Send + 'static>(aside: &Handle, work: impl Future<Output = T> + Send + 'static) -> T {
    match AbortOnDropHandle::new(aside.spawn(gently(work))).await {
        Ok(done) => done,
        Err(error) => resume_unwind(error.into_panic()),
    }
}

/// Has this end there, whenever that is.
pub(super) fn end<T: Send + 'static>(aside: &Handle, ended: T) {
    drop(aside.spawn(gently(async move { drop(ended) })));
}

/// Does the work, and offers the core to others before and after each part of it. The system would let a thread that woke up wait for the
/// rest of this one's slice, some milliseconds, and a part takes about one.
async fn gently<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|context| {
        std::thread::yield_now();
        let polled = work.as_mut().poll(context);
        std::thread::yield_now();
        polled
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The calls of a guest, by whether each works; how many of them were made aside.
    fn aside(probation: &Probation, calls: impl IntoIterator<Item = bool>) -> usize {
        let call = |works: bool| {
            let aside = probation.holds();
            if works {
                probation.worked()
            } else {
                probation.failed()
            }
            usize::from(aside)
        };
        calls.into_iter().map(call).sum()
    }

    #[test]
    fn who_fails_again_and_again_is_on_probation_until_it_works() {
        let probation = Probation::default();
        assert_eq!(aside(&probation, [true; 1000]), 0);
        assert_eq!(aside(&probation, [false; 1000]), 998, "but for the first two");
        let until = (MOST - LIMIT + 1) as usize;
        assert_eq!(aside(&probation, [true; 1000]), until, "then it is trusted again");
        assert_eq!(aside(&probation, [false, true, false]), 0, "and has all its chances");
    }

    #[test]
    fn who_fails_now_and_then_is_not() {
        for every in [20, 50, 1000] {
            assert_eq!(aside(&Probation::default(), (0..10_000).map(|call| call % every != 0)), 0, "one of {every}");
        }
        let often = aside(&Probation::default(), (0..10_000).map(|call| call % 10 != 0));
        assert!(often > 9_000, "one of ten: {often}");
    }
}
