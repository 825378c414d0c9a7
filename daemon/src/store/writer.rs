//! The thread that writes: what was submitted, in the order of coming, as much in one transaction as waits.
//!
//! Fed through [`Queue`]; the lock is held for a few memory operations. What waits is bounded by whoever submits it.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::file::File;
use super::row::Row;

/// How long rows that may be written later wait for others to be written with.
const LATER: Duration = Duration::from_millis(50);

/// Rows that one transaction takes, and a submission more: those that come after wait for the next one.
const MOST_ROWS: usize = 4096;

/// What runs once rows are synced.
pub(super) type Done = Box<dyn FnOnce() + Send>;

struct Submission {
    rows: Vec<Row>,
    done: Done,
}

#[derive(Default)]
struct Waiting {
    submissions: std::collections::VecDeque<Submission>,
    later: Vec<Row>,
    /// When the oldest of `later` is written at the latest.
    due: Option<Instant>,
    closed: bool,
}

/// What waits to be written.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Told when something was submitted. The writer alone waits for it.
    came: Condvar,
}

/// What is written in one transaction.
struct Group {
    submissions: Vec<Submission>,
    later: Vec<Row>,
}

impl Queue {
    pub(super) fn submit(&self, rows: Vec<Row>, done: Done) {
        let submission = Submission { rows, done };
        let mut waiting = self.lock();
        if waiting.closed {
            // Dropped once the lock is released: what it holds may want to submit something.
            drop(waiting);
            return;
        }
        waiting.submissions.push_back(submission);
        drop(waiting);
        self.came.notify_one();
    }

    pub(super) fn submit_later(&self, rows: impl IntoIterator<Item = Row>) {
        let mut waiting = self.lock();
        waiting.later.extend(rows);
        let first = waiting.due.is_none() && !waiting.later.is_empty();
        if first {
            waiting.due = Some(Instant::now() + LATER);
            drop(waiting);
            self.came.notify_one();
        }
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.came.notify_one();
    }

    /// What is to be written next; waits for it. None once it is closed and nothing waits.
    fn next(&self) -> Option<Group> {
        let mut waiting = self.lock();
        loop {
            let now = Instant::now();
            let due = waiting.due.is_some_and(|due| due <= now);
            if !waiting.submissions.is_empty() || due || (waiting.closed && !waiting.later.is_empty()) {
                return Some(waiting.take());
            }
            if waiting.closed {
                return None;
            }
            waiting = match waiting.due {
                Some(due) => self
                    .came
                    .wait_timeout(waiting, due - now)
                    .map_or_else(|poisoned| poisoned.into_inner().0, |(w, _)| w),
                None => self.came.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn take(&mut self) -> Group {
        let later = std::mem::take(&mut self.later);
        self.due = None;
        let (mut rows, mut submissions) = (later.len(), Vec::new());
        while rows < MOST_ROWS
            && let Some(submission) = self.submissions.pop_front()
        {
            rows += submission.rows.len();
            submissions.push(submission);
        }
        Group { submissions, later }
    }
}

/// Begins to write.
pub(super) fn start(file: Arc<File>, queue: Arc<Queue>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("store".to_owned()).spawn(move || {
        while let Some(group) = queue.next() {
            let rows = group.submissions.iter().flat_map(|submission| &submission.rows).chain(&group.later);
            if let Err(error) = file.write(rows) {
                tracing::error!(error = &error as &dyn std::error::Error, "the store cannot be written");
                return;
            }
            group.submissions.into_iter().for_each(|submission| (submission.done)());
        }
    })
}
