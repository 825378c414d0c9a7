//! What waits to be written, and what of it goes into the next transaction.
//!
//! In the order of coming. On a full disk removals that rest on nothing go before what came earlier, where they touch nothing of it.
//! The lock is held for a few memory operations. What waits is bounded by whoever submits it: no message is acknowledged whose rows wait,
//! and no broker sends more than its receive maximum of those (MQTT 5 §3.3.4); on 3.1.1 the daemon takes no more in. What no such
//! limit holds, calls for messages with QoS 0 and on schedules that read or write their state, asks [`Queue::is_backed_up`] before.

use std::collections::{HashSet, VecDeque};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::row::{Place, Row};
use crate::telemetry::metrics::StoreMeters;

/// How long rows that may be written later wait for others to be written with.
const LATER: Duration = Duration::from_millis(50);

/// Rows that one transaction takes, and a submission more: those that come after wait for the next one.
const MOST_ROWS: usize = 4096;

/// Bytes of keys and bodies that one transaction takes, and a submission more: it is in memory until it is synced.
const MOST_BYTES: usize = 4 << 20;

/// Submissions and their rows that may wait where more can be kept from coming.
const BACKED_UP: usize = 16 * 1024;

/// Bytes of them.
const BACKED_UP_BYTES: usize = 64 << 20;

/// What runs once rows are synced.
pub(super) type Done = Box<dyn FnOnce() + Send>;

/// Rows that are written together.
pub(super) struct Submission {
    pub(super) rows: Vec<Row>,
    pub(super) done: Done,
    /// It rests on nothing that came before: on a full disk it may go first. Removals alone.
    pub(super) passes: bool,
}

/// What is written in one transaction.
#[derive(Default)]
pub(super) struct Group {
    submissions: Vec<Submission>,
    later: Vec<Row>,
}

#[derive(Default)]
struct Waiting {
    submissions: VecDeque<Submission>,
    later: Vec<Row>,
    /// When the oldest of `later` is written at the latest.
    due: Option<Instant>,
    /// Changes in all of it.
    rows: usize,
    /// Bytes of the submissions.
    bytes: usize,
    closed: bool,
}

/// What waits to be written.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Told when something was submitted. The writer alone waits for it.
    came: Condvar,
    meters: Arc<StoreMeters>,
}

impl Submission {
    fn bytes(&self) -> usize {
        self.rows.iter().map(Row::bytes).sum()
    }
}

impl Group {
    pub(super) fn is_empty(&self) -> bool {
        self.submissions.is_empty() && self.later.is_empty()
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.submissions.iter().flat_map(|submission| &submission.rows).chain(&self.later)
    }

    /// Of its submissions.
    fn bytes(&self) -> usize {
        self.submissions.iter().map(Submission::bytes).sum()
    }

    /// Tells whoever waits that it is synced.
    pub(super) fn done(self) {
        self.submissions.into_iter().for_each(|submission| (submission.done)());
    }
}

impl Queue {
    pub(super) fn new(meters: Arc<StoreMeters>) -> Queue {
        Queue { waiting: Mutex::default(), came: Condvar::new(), meters }
    }

    pub(super) fn submit(&self, submission: Submission) {
        let mut waiting = self.lock();
        if waiting.closed {
            // Dropped once the lock is released: what it holds may want to submit something.
            drop(waiting);
            return;
        }
        waiting.rows += submission.rows.len();
        waiting.bytes += submission.bytes();
        waiting.submissions.push_back(submission);
        self.changed(waiting);
        self.came.notify_one();
    }

    pub(super) fn submit_later(&self, rows: impl IntoIterator<Item = Row>) {
        let mut waiting = self.lock();
        let before = waiting.later.len();
        waiting.later.extend(rows);
        waiting.rows += waiting.later.len() - before;
        let first = waiting.due.is_none() && !waiting.later.is_empty();
        if first {
            waiting.due = Some(Instant::now() + LATER);
        }
        self.changed(waiting);
        if first {
            self.came.notify_one();
        }
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.came.notify_one();
    }

    /// What is to be written next; waits for it. None once it is closed and nothing waits.
    pub(super) fn next(&self) -> Option<Group> {
        let mut waiting = self.lock();
        loop {
            let now = Instant::now();
            let due = waiting.due.is_some_and(|due| due <= now);
            if !waiting.submissions.is_empty() || due || (waiting.closed && !waiting.later.is_empty()) {
                let group = waiting.take();
                self.changed(waiting);
                return Some(group);
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

    /// What waits now, as much as one transaction takes.
    pub(super) fn all(&self) -> Group {
        let mut waiting = self.lock();
        let group = waiting.take();
        self.changed(waiting);
        group
    }

    /// The removals that touch nothing of what came before them and stays.
    pub(super) fn removals(&self) -> Group {
        let mut waiting = self.lock();
        let group = waiting.take_removals();
        self.changed(waiting);
        group
    }

    /// Has a group that was not written wait again, before all else.
    pub(super) fn put_back(&self, group: Group) {
        let mut waiting = self.lock();
        waiting.rows += group.rows().count();
        waiting.bytes += group.bytes();
        group.submissions.into_iter().rev().for_each(|submission| waiting.submissions.push_front(submission));
        let newer = mem::replace(&mut waiting.later, group.later);
        waiting.later.extend(newer);
        if waiting.due.is_none() && !waiting.later.is_empty() {
            waiting.due = Some(Instant::now());
        }
        self.changed(waiting);
    }

    /// Waits so long, or until it is closed. Whether it is.
    pub(super) fn closes_within(&self, time: Duration) -> bool {
        let waiting = self.came.wait_timeout_while(self.lock(), time, |waiting| !waiting.closed);
        waiting.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    /// Drops what waits, for good. How many changes that were.
    pub(super) fn give_up(&self) -> usize {
        let mut waiting = self.lock();
        let rows = mem::take(&mut waiting.rows);
        waiting.bytes = 0;
        let dropped = (mem::take(&mut waiting.submissions), mem::take(&mut waiting.later));
        waiting.due = None;
        self.changed(waiting);
        drop(dropped);
        rows
    }

    /// Whether so much waits that nothing more should come that can be kept from it.
    pub(super) fn is_backed_up(&self) -> bool {
        let waiting = self.lock();
        waiting.submissions.len() + waiting.rows > BACKED_UP || waiting.bytes > BACKED_UP_BYTES
    }

    /// Changes that wait.
    pub(super) fn len(&self) -> usize {
        self.lock().rows
    }

    fn changed(&self, waiting: MutexGuard<'_, Waiting>) {
        self.meters.waiting_rows(waiting.rows);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn take(&mut self) -> Group {
        let later = mem::take(&mut self.later);
        self.due = None;
        let (mut rows, mut bytes) = (later.len(), 0);
        let mut submissions = Vec::new();
        while rows < MOST_ROWS
            && bytes < MOST_BYTES
            && let Some(submission) = self.submissions.pop_front()
        {
            rows += submission.rows.len();
            bytes += submission.bytes();
            submissions.push(submission);
        }
        self.rows -= rows;
        self.bytes -= bytes;
        Group { submissions, later }
    }

    fn take_removals(&mut self) -> Group {
        let mut staying: HashSet<Place> = HashSet::new();
        let (mut group, mut left) = (Group::default(), VecDeque::new());
        for submission in mem::take(&mut self.submissions) {
            let free = |row: &Row| row.is_removal() && !staying.contains(row.place());
            if submission.passes && submission.rows.iter().all(free) {
                group.submissions.push(submission);
            } else {
                staying.extend(submission.rows.iter().map(|row| row.place().clone()));
                left.push_back(submission);
            }
        }
        self.submissions = left;
        let free = |row: &Row| row.is_removal() && !staying.contains(row.place());
        (group.later, self.later) = mem::take(&mut self.later).into_iter().partition(free);
        self.rows -= group.rows().count();
        self.bytes -= group.bytes();
        group
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::store::Table;

    fn queue() -> Queue {
        Queue::new(Arc::new(StoreMeters::new(&Registry::new()).expect("families are well formed")))
    }

    fn put(key: u64, bytes: usize) -> Row {
        let at = Place::numbered(Table::Outbox, "a".into(), key);
        Row::Put { at, weight: 0, body: vec![0; bytes] }
    }

    fn delete(key: u64) -> Row {
        Row::Delete { at: Place::numbered(Table::Outbox, "a".into(), key) }
    }

    fn submit(queue: &Queue, rows: Vec<Row>) {
        let passes = rows.iter().all(Row::is_removal);
        queue.submit(Submission { rows, done: Box::new(|| {}), passes });
    }

    #[test]
    fn removals_that_rest_on_what_waits_do_not_pass_it() {
        let queue = queue();
        submit(&queue, vec![put(1, 1)]);
        for rows in [vec![delete(2)], vec![]] {
            queue.submit(Submission { rows, done: Box::new(|| {}), passes: false });
        }
        submit(&queue, vec![delete(3)]);
        let rows: Vec<_> = queue.removals().rows().cloned().collect();
        assert_eq!((rows, queue.len()), (vec![delete(3)], 2));
    }

    #[test]
    fn it_is_backed_up_by_submissions_without_rows_and_by_bytes() {
        let queue = queue();
        (0..=BACKED_UP).for_each(|_| submit(&queue, Vec::new()));
        assert!(queue.is_backed_up());
        while queue.is_backed_up() {
            drop(queue.all());
        }
        submit(&queue, vec![put(1, BACKED_UP_BYTES)]);
        assert!(queue.is_backed_up());
        let group = queue.all();
        assert!(!queue.is_backed_up());
        queue.put_back(group);
        assert!(queue.is_backed_up());
        queue.give_up();
        assert!(!queue.is_backed_up());
    }

    #[test]
    fn a_transaction_is_bounded_in_rows_and_bytes() {
        let queue = queue();
        (0..2).for_each(|_| submit(&queue, (0..MOST_ROWS as u64 - 1).map(delete).collect()));
        submit(&queue, vec![delete(0)]);
        assert_eq!(queue.next().expect("waits").rows().count(), 2 * (MOST_ROWS - 1));
        assert_eq!(queue.next().expect("waits").rows().count(), 1);
        (0..3).for_each(|key| submit(&queue, vec![put(key, MOST_BYTES / 2)]));
        assert_eq!(queue.next().expect("waits").rows().count(), 2);
        assert_eq!((queue.next().expect("waits").rows().count(), queue.len()), (1, 0));
    }

    #[test]
    fn removals_pass_only_what_they_do_not_touch() {
        let queue = queue();
        submit(&queue, vec![put(1, 1)]);
        submit(&queue, vec![delete(1)]);
        submit(&queue, vec![delete(2), delete(3)]);
        submit(&queue, vec![delete(4), put(5, 1)]);
        submit(&queue, vec![delete(4)]);
        queue.submit_later([delete(1), delete(6)]);
        let rows: Vec<_> = queue.removals().rows().cloned().collect();
        assert_eq!(rows, [delete(2), delete(3), delete(6)]);
        assert!(queue.removals().is_empty());
        assert_eq!(queue.len(), 6);
        let rows: Vec<_> = queue.all().rows().cloned().collect();
        assert_eq!(rows, [put(1, 1), delete(1), delete(4), put(5, 1), delete(4), delete(1)]);
    }

    #[test]
    fn what_is_put_back_comes_first_and_in_its_order() {
        let queue = queue();
        submit(&queue, vec![put(1, 1)]);
        submit(&queue, vec![put(2, 1)]);
        queue.submit_later([delete(7)]);
        let group = queue.all();
        submit(&queue, vec![put(3, 1)]);
        queue.submit_later([delete(8)]);
        queue.put_back(group);
        assert_eq!(queue.len(), 5);
        let rows: Vec<_> = queue.all().rows().cloned().collect();
        assert_eq!(rows, [put(1, 1), put(2, 1), put(3, 1), delete(7), delete(8)]);
        assert_eq!(queue.len(), 0);
    }
}
