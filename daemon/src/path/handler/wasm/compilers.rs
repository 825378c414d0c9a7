//! The threads that compile components: as many as there are cores, of low priority.
//!
//! Owns: a pool of their own for wasmtime's parallel compilation, which else takes threads like any other from the messages of all
//! handlers for as long as a large component takes. On an idle machine, as at the daemon's start, they have every core for themselves.
//! Fed by the loading of plugins, which waits for them. It bounds neither the time nor the memory that a component takes to compile:
//! only the size of its file is bounded (`plugin/file.rs`), and what takes long is told.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use super::priority::step_back;

/// Work that is not done by then is told of; and again each time that it has taken twice as long.
const LONG: Duration = Duration::from_secs(10);

/// Threads for work that must not hold up others.
pub(super) struct Compilers {
    pool: ThreadPool,
}

impl Compilers {
    /// Starts the threads.
    ///
    /// # Errors
    /// The operating system refuses them.
    pub(super) fn start() -> Result<Compilers, ThreadPoolBuildError> {
        let named = |number| format!("compiler-{number}");
        let pool =
            ThreadPoolBuilder::new().thread_name(named).start_handler(|_| step_back("plugins are compiled")).build()?;
        Ok(Compilers { pool })
    }

    /// Has the threads do this, and waits for it: blocks. `takes_long` is called meanwhile, on this thread, with the time that it took so far.
    ///
    /// # Panics
    /// The work did.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send, takes_long: impl Fn(Duration)) -> T {
        self.run_within(LONG, work, takes_long)
    }

    fn run_within<T: Send>(&self, long: Duration, work: impl FnOnce() -> T + Send, takes_long: impl Fn(Duration)) -> T {
        let (sender, done) = mpsc::channel();
        let done = self.pool.in_place_scope(|scope| {
            scope.spawn(move |_| {
                // Whoever waits for it is below.
                let _ = sender.send(work());
            });
            let begun = Instant::now();
            let mut patience = long;
            loop {
                match done.recv_timeout(patience) {
                    Ok(done) => return Some(done),
                    Err(RecvTimeoutError::Timeout) => {
                        takes_long(begun.elapsed());
                        patience = begun.elapsed();
                    }
                    Err(RecvTimeoutError::Disconnected) => return None,
                }
            }
        });
        done.expect("work that panicked has its scope panic")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn the_result_comes_back_and_a_panic_too() {
        let compilers = Compilers::start().expect("threads");
        let text = "borrowed".to_owned();
        assert_eq!(compilers.run(|| text.len(), |_| panic!("is quick")), 8);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            compilers.run(
                || {
                    if text.len() == 8 {
                        panic!("no use")
                    }
                },
                |_| {},
            );
        }));
        assert_eq!(panicked.err().and_then(|said| said.downcast_ref::<&str>().copied()), Some("no use"));
    }

    #[test]
    fn what_takes_long_is_told_until_it_ends() {
        let compilers = Compilers::start().expect("threads");
        let (told, enough) = mpsc::channel();
        let seen = Mutex::new(Vec::new());
        let wait = move || enough.recv().is_ok();
        let tell = |took| {
            let mut seen = seen.lock().expect("nothing panics with it");
            seen.push(took);
            if seen.len() == 3 {
                told.send(()).expect("it waits");
            }
        };
        assert!(compilers.run_within(Duration::from_millis(2), wait, tell));
        let seen = seen.into_inner().expect("nothing panics with it");
        assert!(seen.len() >= 3, "{seen:?}");
        assert!(seen.windows(2).all(|pair| pair[1] >= 2 * pair[0]), "{seen:?}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn its_threads_come_last_and_the_caller_does_not() {
        use rayon::prelude::*;

        use super::super::priority::NICE;

        let priority = || rustix::process::getpriority_process(None).expect("a thread has one");
        let before = priority();
        let compilers = Compilers::start().expect("threads");
        // As wasmtime spreads what it compiles.
        let found: Vec<i32> = compilers.run(|| (0..64).into_par_iter().map(|_| priority()).collect(), |_| {});
        assert_eq!(found, vec![(before + NICE).min(19); 64]);
        assert_eq!(priority(), before);
    }
}
