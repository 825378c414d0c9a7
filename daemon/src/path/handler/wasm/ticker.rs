//! The clock that interrupts guests: a thread that advances the engine's epoch every millisecond while calls run.
//!
//! Owns: the thread `epoch`. Fed by [`Ticker::enter`] around every call; feeds the epoch of one engine. It decides
//! nothing about deadlines: each store's own callback does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use wasmtime::{Engine, EngineWeak};

/// Time between two ticks: how long a guest keeps its thread before its neighbours get their turn.
const TICK: Duration = Duration::from_millis(1);

/// Ticks without any call before the thread parks. Waking it costs the next call a system call, so under steady load it
/// stays awake.
const IDLE_TICKS: u32 = 50;

/// One started call in [`Shared::activity`]: counts in the upper half, wrapping, and runs in the lower half.
const STARTED_AND_RUNNING: u64 = (1 << 32) | 1;

/// Advances the epoch of one engine. The thread ends with this value, or with the engine.
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
    /// Taken when dropped.
    join: Option<JoinHandle<()>>,
}

struct Shared {
    /// Lower 32 bits: calls running now. Upper 32 bits: calls ever started, wrapping, so that calls shorter than a tick
    /// count as activity too. Written by every call at its begin and end, read by the thread.
    activity: AtomicU64,
    /// The thread sleeps until it is unparked. Written by the thread, read by every call at its begin.
    parked: AtomicBool,
    /// Written once, when the ticker is dropped.
    stopped: AtomicBool,
}

impl Ticker {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system refuses another thread.
    pub(super) fn start(engine: &Engine) -> io::Result<Ticker> {
        let shared = Arc::new(Shared {
            activity: AtomicU64::new(0),
            parked: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        });
        let join = thread::Builder::new().name("epoch".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            let engine = engine.weak();
            move || shared.run(&engine)
        })?;
        Ok(Ticker { shared, thread: join.thread().clone(), join: Some(join) })
    }

    /// Makes the epoch advance until the returned value is dropped.
    pub(super) fn enter(&self) -> Running<'_> {
        self.shared.activity.fetch_add(STARTED_AND_RUNNING, Ordering::SeqCst);
        if self.shared.parked.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running { shared: &self.shared }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.thread.unpark();
        if let Some(join) = self.join.take() {
            // The thread has nothing that can panic, and nobody could act on it here.
            let _ = join.join();
        }
    }
}

impl Shared {
    fn run(&self, engine: &EngineWeak) {
        let mut seen = 0;
        let mut idle = 0;
        let mut next = Instant::now() + TICK;
        while !self.stopped.load(Ordering::SeqCst) {
            let now = Instant::now();
            if now < next {
                thread::park_timeout(next - now);
                continue;
            }
            // Counted from now: ticks that a loaded machine missed are not made up for.
            next = now + TICK;
            let Some(engine) = engine.upgrade() else { return };
            engine.increment_epoch();
            drop(engine);

            let activity = self.activity.load(Ordering::SeqCst);
            let running = activity & u64::from(u32::MAX);
            idle = if running == 0 && activity == seen { idle + 1 } else { 0 };
            seen = activity;
            if idle >= IDLE_TICKS {
                self.park(seen);
                idle = 0;
                next = Instant::now() + TICK;
            }
        }
    }

    /// Sleeps until a call begins. A call that begins between the check and the sleep leaves its wake-up behind.
    fn park(&self, seen: u64) {
        self.parked.store(true, Ordering::SeqCst);
        while self.activity.load(Ordering::SeqCst) == seen && !self.stopped.load(Ordering::SeqCst) {
            thread::park();
        }
        self.parked.store(false, Ordering::SeqCst);
    }
}

/// A call in progress.
pub(super) struct Running<'a> {
    shared: &'a Shared,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.shared.activity.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(what: &str, mut reached: impl FnMut() -> bool) {
        let limit = Instant::now() + Duration::from_secs(10);
        while !reached() {
            assert!(Instant::now() < limit, "waited too long until {what}");
            thread::yield_now();
        }
    }

    fn ticker() -> (Engine, Ticker) {
        let engine = Engine::new(wasmtime::Config::new().epoch_interruption(true)).expect("an engine");
        let ticker = Ticker::start(&engine).expect("a thread");
        (engine, ticker)
    }

    #[test]
    fn parks_when_idle_and_wakes_for_a_call() {
        let (_engine, ticker) = ticker();
        let parked = || ticker.shared.parked.load(Ordering::SeqCst);
        until("the idle thread is parked", parked);
        let running = ticker.enter();
        until("the call wakes it", || !parked());
        drop(running);
        until("it is parked again", parked);
    }

    #[test]
    fn stays_awake_while_a_call_runs() {
        let (_engine, ticker) = ticker();
        let running = ticker.enter();
        let begin = Instant::now();
        until("several idle periods passed", || {
            assert!(!ticker.shared.parked.load(Ordering::SeqCst), "parked during a call");
            begin.elapsed() > TICK * IDLE_TICKS * 3
        });
        drop(running);
    }

    #[test]
    fn calls_shorter_than_a_tick_keep_it_awake() {
        let (_engine, ticker) = ticker();
        drop(ticker.enter());
        until("the thread is awake", || !ticker.shared.parked.load(Ordering::SeqCst));
        let begin = Instant::now();
        until("several idle periods passed", || {
            drop(ticker.enter());
            assert!(!ticker.shared.parked.load(Ordering::SeqCst), "parked between calls");
            begin.elapsed() > TICK * IDLE_TICKS * 3
        });
    }

    #[test]
    fn ends_when_dropped_awake_or_parked() {
        let (_engine, awake) = ticker();
        drop(awake);
        let (_engine, parked) = ticker();
        until("the idle thread is parked", || parked.shared.parked.load(Ordering::SeqCst));
        drop(parked);
    }

    #[test]
    fn ends_with_its_engine() {
        let (engine, ticker) = ticker();
        drop(engine);
        until("the thread has ended", || ticker.join.as_ref().is_some_and(JoinHandle::is_finished));
    }
}
