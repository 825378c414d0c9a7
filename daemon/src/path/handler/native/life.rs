//! Where the thread of one instance is: in the library's code or not, still wanted or left behind.
//!
//! Shared by an instance and its thread. Whoever comes first decides: a thread that comes back in time is called again, one that comes
//! back after its instance has left it ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::threads::Threads;

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It waits for a call.
    Idle,
    /// It is in the library's code.
    Inside,
    /// Nobody waits for it any more.
    Left,
    /// It has ended.
    Gone,
}

/// The life of one thread.
pub(super) struct Life {
    threads: Arc<Threads>,
    number: u64,
    place: Mutex<Place>,
}

impl Life {
    /// Of the thread with this number, which begins in the library's code.
    pub(super) fn new(threads: Arc<Threads>, number: u64) -> Life {
        Life { number, threads, place: Mutex::new(Place::Inside) }
    }

    /// The thread begins a call. False if nobody waits for it.
    pub(super) fn goes_in(&self) -> bool {
        self.moves(Place::Idle, Place::Inside)
    }

    /// The thread has come back from the library's code. False if nobody waits for it.
    pub(super) fn comes_back(&self) -> bool {
        self.moves(Place::Inside, Place::Idle)
    }

    /// The instance does not wait any more. The thread may be in the call that it is in until `deadline`, or else has until `due` to end.
    /// True if it is in a call.
    pub(super) fn is_left(&self, deadline: Instant, due: Instant) -> bool {
        let mut place = self.lock();
        // Within the lock: the thread's end is told after this.
        match *place {
            Place::Idle => self.threads.leaves(self.number, due),
            Place::Inside => self.threads.is_left_inside(self.number, deadline),
            Place::Left | Place::Gone => return false,
        }
        std::mem::replace(&mut *place, Place::Left) == Place::Inside
    }

    /// Whether nobody waits for the thread.
    pub(super) fn is_over(&self) -> bool {
        matches!(*self.lock(), Place::Left | Place::Gone)
    }

    /// The thread has ended.
    pub(super) fn ends(&self) {
        let mut place = self.lock();
        *place = Place::Gone;
        self.threads.is_gone(self.number);
    }

    fn moves(&self, from: Place, to: Place) -> bool {
        let mut place = self.lock();
        let moves = *place == from;
        if moves {
            *place = to;
        }
        moves
    }

    /// One of four words: whole in any case.
    fn lock(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::path::handler::plugin::PluginFile;

    const SOON: Duration = Duration::from_secs(1);

    fn life() -> (Arc<Threads>, Life) {
        let threads = Arc::new(Threads::default());
        let number = threads.begin(PluginFile::new(Vec::new()).hash(), Instant::now()).expect("there is room");
        (Arc::clone(&threads), Life::new(threads, number))
    }

    #[test]
    fn who_is_left_inside_counts_until_the_end() {
        let ((threads, life), now) = (life(), Instant::now());
        assert!(life.comes_back() && life.goes_in() && !life.is_over());
        assert!(life.is_left(now, now + SOON));
        assert_eq!(threads.stuck(now), 1);
        assert!(!life.comes_back() && life.is_over());
        assert!(!life.is_left(now + SOON, now + SOON), "once is enough");
        life.ends();
        assert_eq!(threads.stuck(now), 0);
    }

    #[test]
    fn who_is_left_inside_before_its_deadline_counts_from_that_on() {
        let ((threads, life), now) = (life(), Instant::now());
        assert!(life.is_left(now + SOON, now));
        assert_eq!((threads.stuck(now), threads.stuck(now + SOON)), (0, 1));
        life.ends();
        assert_eq!(threads.stuck(now + SOON), 0);
    }

    #[test]
    fn who_is_left_while_idle_counts_only_past_the_time_for_its_end() {
        let ((threads, life), now) = (life(), Instant::now());
        assert!(life.comes_back());
        assert!(!life.is_left(now, now + SOON));
        assert!(!life.goes_in());
        assert_eq!((threads.stuck(now), threads.stuck(now + SOON)), (0, 1));
        life.ends();
        assert_eq!(threads.stuck(now + SOON), 0);
    }

    #[test]
    fn who_has_ended_is_not_left() {
        let ((threads, life), now) = (life(), Instant::now());
        life.ends();
        assert!(!life.is_left(now, now));
        assert_eq!(threads.stuck(now), 0);
    }
}
