//! What was found out about files and not yet taken: of each file the last.
//!
//! Fed by `looks.rs`; feeds [`super::Seen`]'s readers. Bounded by the number of files that are wanted. What does not hold any more, since
//! the file changes again, is taken back.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Seen;

#[derive(Default)]
struct Waiting {
    /// In the order of their last report.
    reports: Vec<Seen>,
    closed: bool,
}

/// What waits to be taken.
#[derive(Default)]
pub(super) struct Reports {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

impl Reports {
    /// Adds one; it replaces an earlier one of the same file.
    pub(super) fn put(&self, seen: Seen) {
        let mut waiting = self.lock();
        waiting.reports.retain(|earlier| earlier.path() != seen.path());
        waiting.reports.push(seen);
        drop(waiting);
        self.changed.notify_one();
    }

    /// Takes back those that do not hold any more, and gives their paths.
    pub(super) fn take_back(&self, obsolete: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
        let gone = self.lock().reports.extract_if(.., |seen| obsolete(seen.path())).collect::<Vec<_>>();
        gone.iter().map(|seen| seen.path().to_owned()).collect()
    }

    /// Nothing more comes.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.reports.clear();
        drop(waiting);
        self.changed.notify_one();
    }

    /// Waits for reports, and takes all of them. None: nothing more comes. Cancel safe. For one who waits at a time.
    pub(super) async fn next(&self) -> Option<Vec<Seen>> {
        loop {
            {
                let mut waiting = self.lock();
                if waiting.closed {
                    return None;
                }
                if !waiting.reports.is_empty() {
                    return Some(std::mem::take(&mut waiting.reports));
                }
            }
            self.changed.notified().await;
        }
    }

    /// Whether something is to be told of a file.
    #[cfg(test)]
    pub(super) fn has(&self, path: &Path) -> bool {
        self.lock().reports.iter().any(|seen| seen.path() == path)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_each_file_the_last_report_is_given_and_none_that_was_taken_back() {
        let reports = Reports::default();
        for path in ["a", "b", "a", "c"] {
            reports.put(Seen::Gone(path.into()));
        }
        assert_eq!(reports.take_back(|path| path == "c"), [PathBuf::from("c")]);
        let seen = reports.next().await.expect("goes on");
        assert_eq!(seen.iter().map(Seen::path).collect::<Vec<_>>(), ["b", "a"].map(Path::new));
        reports.put(Seen::Gone("d".into()));
        reports.close();
        assert!(reports.next().await.is_none(), "closed");
    }
}
