//! The threads that run guests, apart from all I/O.
//!
//! Each worker is one thread with a single-threaded runtime; an instance's task lives on one worker for good. A guest that
//! uses up its time slices delays its neighbours on the same worker by a tick, and the sessions not at all.

use std::io;
use std::num::NonZeroUsize;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// A fixed set of worker threads. Dropping it ends them after the step that each is in.
pub struct Workers {
    threads: Vec<Option<JoinHandle<()>>>,
    handles: Vec<Handle>,
    stop: CancellationToken,
}

impl Workers {
    /// Starts so many threads.
    ///
    /// # Errors
    /// The system refuses a thread or a runtime.
    pub fn start(count: NonZeroUsize) -> io::Result<Workers> {
        let mut workers = Workers { threads: Vec::new(), handles: Vec::new(), stop: CancellationToken::new() };
        for number in 0..count.get() {
            let runtime = Builder::new_current_thread().enable_time().build()?;
            workers.handles.push(runtime.handle().clone());
            let stop = workers.stop.clone();
            let thread = std::thread::Builder::new().name(format!("handlers-{number}"));
            workers.threads.push(Some(thread.spawn(move || runtime.block_on(stop.cancelled()))?));
        }
        Ok(workers)
    }

    /// The runtime of a worker; numbers beyond the count start again from the first.
    pub fn handle(&self, number: usize) -> &Handle {
        &self.handles[number % self.handles.len()]
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.iter_mut().filter_map(Option::take) {
            if thread.join().is_err() {
                tracing::error!("a handler worker panicked");
            }
        }
    }
}
