//! The last messages received, of all brokers: what `tidegate recv` shows.
//!
//! Owns one ring behind a lock that is held for a few memory operations and never across an `.await`. Fed by the router with
//! every message that it takes in, whether anything handles it or not; further copies of a message, which overlapping subscriptions
//! bring, are no messages of their own and stay out. Read by the admin plane, which never holds up the path: who follows
//! reads from the same ring, and is told how many messages went before they were read.

mod ring;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

pub use self::ring::{Entry, Limits};
use self::ring::{Gone, Ring};
use super::wanted::Wanted;
use crate::message::Message;

/// Entries that are copied under the lock at once.
const CHUNK: usize = 256;

/// Entries that a follower holds beside the ring.
const AHEAD: usize = 64;

/// Bytes past which a follower takes no further entry out of the ring.
const AHEAD_BYTES: usize = 256 << 10;

/// The last messages received. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct ReceivedRing(Arc<Shared>);

struct Shared {
    ring: Mutex<Ring>,
    /// How many followers there are: without one, nobody is told.
    followers: AtomicUsize,
    /// Told of each message.
    news: Notify,
}

/// What was kept when somebody asked.
#[derive(Debug)]
pub struct Listed {
    /// Oldest first.
    pub entries: Vec<Entry>,
    /// Messages that were received and are not kept: overwritten, cleared, or too large.
    pub gone: u64,
}

impl ReceivedRing {
    /// Without messages.
    pub fn new(limits: Limits) -> ReceivedRing {
        let (followers, news) = (AtomicUsize::new(0), Notify::new());
        ReceivedRing(Arc::new(Shared { ring: Mutex::new(Ring::new(limits)), followers, news }))
    }

    /// Takes in a message that was received now. Its sequence: it counts all messages since the start, from 1.
    pub fn push(&self, message: &Arc<Message>) -> u64 {
        let weight = message.weight();
        let message = Arc::clone(message);
        // Let go of after the lock.
        let mut gone = Gone::new();
        let sequence = self.lock().push(message, weight, &mut gone);
        // The lock has ordered this behind a follower that found nothing new.
        if self.0.followers.load(Ordering::Relaxed) > 0 {
            self.0.news.notify_waiters();
        }
        sequence
    }

    /// The messages that are wanted: all that are kept, or the last so many of them. Cancellation safe.
    ///
    /// What is overwritten while it reads is left out, and not counted as gone.
    pub async fn list(&self, wanted: &Wanted, last: Option<usize>) -> Listed {
        let most = last.unwrap_or(usize::MAX);
        let (mut before, gone) = {
            let ring = self.lock();
            (ring.newest() + 1, ring.gone())
        };
        let mut entries = VecDeque::new();
        // From the newest back, so that the last few of many cost little.
        while entries.len() < most {
            let chunk = self.lock().before(before, CHUNK);
            let Some(oldest) = chunk.first() else { break };
            before = oldest.sequence;
            for entry in chunk.into_iter().rev().filter(|entry| wanted.matches(&entry.message)) {
                if entries.len() < most {
                    entries.push_front(entry);
                }
            }
            tokio::task::yield_now().await;
        }
        Listed { entries: entries.into(), gone }
    }

    /// Forgets all messages; how many that were. The sequence goes on.
    pub fn clear(&self) -> usize {
        let cleared = self.lock().clear();
        cleared.len()
    }

    /// So much is kept from now on; what is more goes, the oldest first.
    pub fn limit(&self, limits: Limits) {
        let gone = self.lock().limit(limits);
        // Let go of after the lock.
        drop(gone);
    }

    /// The messages that are wanted, as they come: from this sequence on, or those alone that are received from now on.
    ///
    /// A sequence that is yet to come was counted by an earlier run of the daemon: all that is kept comes then.
    pub fn follow(&self, from: Option<u64>, wanted: Wanted) -> Follower {
        self.0.followers.fetch_add(1, Ordering::Relaxed);
        let next = self.lock().newest() + 1;
        let next = from.map_or(next, |from| if from > next { 1 } else { from.max(1) });
        Follower { ring: self.clone(), wanted, next, taken: VecDeque::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // A panic under this lock leaves nothing half done that a later holder could see: each step is one call of the core.
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a follower is told.
#[derive(Clone, Debug)]
pub enum Followed {
    /// A message that is wanted.
    Message(Entry),
    /// So many messages were received here and are not kept any more, wanted or not: they came faster than they were read,
    /// were cleared, or are too large to be kept.
    Missed(u64),
}

/// Follows what is received. It takes entries from the ring when it is asked, so that a slow one costs the others nothing.
pub struct Follower {
    ring: ReceivedRing,
    wanted: Wanted,
    /// The sequence that is told of next.
    next: u64,
    /// Taken out of the ring, from `next` on.
    taken: VecDeque<Entry>,
}

impl Follower {
    /// Waits for what comes next, in the order of the sequence. Cancellation safe.
    pub async fn next(&mut self) -> Followed {
        loop {
            if let Some(followed) = self.next_taken() {
                return followed;
            }
            let ring = self.ring.clone();
            let mut news = pin!(ring.0.news.notified());
            news.as_mut().enable();
            let newest = {
                let ring = ring.lock();
                self.taken = ring.from(self.next, AHEAD, AHEAD_BYTES);
                ring.newest()
            };
            if !self.taken.is_empty() {
                // What was taken before may all have been unwanted: others get their turn.
                tokio::task::consume_budget().await;
            } else if newest >= self.next {
                return self.missed(newest + 1);
            } else {
                news.await;
            }
        }
    }

    /// The next that was taken and is wanted, or the gap before it.
    fn next_taken(&mut self) -> Option<Followed> {
        while let Some(entry) = self.taken.pop_front() {
            if entry.sequence > self.next {
                let next = entry.sequence;
                self.taken.push_front(entry);
                return Some(self.missed(next));
            }
            self.next += 1;
            if self.wanted.matches(&entry.message) {
                return Some(Followed::Message(entry));
            }
        }
        None
    }

    fn missed(&mut self, next: u64) -> Followed {
        let missed = next - self.next;
        self.next = next;
        Followed::Missed(missed)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.ring.0.followers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Messages for tests.

    use super::*;
    use crate::message::BrokerId;

    /// From broker 0, with so many bytes.
    pub(crate) fn message(topic: &str, bytes: usize) -> Arc<Message> {
        of_broker(0, topic, bytes)
    }

    /// From this broker, with so many bytes.
    pub(crate) fn of_broker(broker: u32, topic: &str, bytes: usize) -> Arc<Message> {
        Arc::new(Message { broker: BrokerId(broker), ..Message::testing(topic, vec![b'x'; bytes]) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::time::timeout;

    use super::testing::{message, of_broker};
    use super::*;
    use crate::message::BrokerId;
    use crate::topic::TopicFilter;

    fn ring(messages: usize) -> ReceivedRing {
        ReceivedRing::new(Limits { messages, bytes: 8 << 20 })
    }

    fn push(ring: &ReceivedRing, count: usize) {
        (0..count).for_each(|_| {
            ring.push(&message("t", 1));
        });
    }

    fn wanted(broker: Option<u32>, topic: Option<&str>) -> Wanted {
        let topic = topic.map(|topic| TopicFilter::new(topic).expect("valid"));
        Wanted { broker: broker.map(BrokerId), topic }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    fn listed(ring: &ReceivedRing, wanted: &Wanted, last: Option<usize>) -> (Vec<u64>, u64) {
        let listed = run(ring.list(wanted, last));
        (listed.entries.iter().map(|entry| entry.sequence).collect(), listed.gone)
    }

    #[test]
    fn a_list_has_what_is_wanted_oldest_first() {
        let ring = ring(10);
        for (broker, topic) in [(0, "a"), (1, "a"), (0, "b/c"), (0, "$SYS/x"), (1, "b/d")] {
            ring.push(&of_broker(broker, topic, 1));
        }
        let check = |broker, topic, last, expected: &[u64]| {
            assert_eq!(listed(&ring, &wanted(broker, topic), last), (expected.to_vec(), 0));
        };
        check(None, None, None, &[1, 2, 3, 4, 5]);
        check(Some(0), None, None, &[1, 3, 4]);
        check(None, Some("b/+"), None, &[3, 5]);
        check(None, Some("#"), None, &[1, 2, 3, 5]);
        check(None, Some("$SYS/#"), None, &[4]);
        check(Some(1), Some("b/#"), None, &[5]);
        check(Some(2), None, None, &[]);
        check(None, None, Some(2), &[4, 5]);
        check(Some(0), None, Some(2), &[3, 4]);
        check(None, None, Some(0), &[]);
    }

    #[test]
    fn a_long_list_is_whole() {
        let ring = ring(3 * CHUNK + 7);
        push(&ring, 4 * CHUNK);
        let (sequences, gone) = listed(&ring, &Wanted::default(), None);
        assert_eq!(gone, CHUNK as u64 - 7);
        assert_eq!(sequences, (gone + 1..=4 * CHUNK as u64).collect::<Vec<_>>());
        assert_eq!(listed(&ring, &Wanted::default(), Some(CHUNK + 1)).0, sequences[2 * CHUNK + 6..]);
    }

    #[test]
    fn what_is_cleared_is_gone_and_the_sequence_goes_on() {
        let ring = ring(2);
        push(&ring, 3);
        assert_eq!((ring.clear(), ring.clear()), (2, 0));
        assert_eq!(listed(&ring, &Wanted::default(), None), (vec![], 3));
        push(&ring, 1);
        assert_eq!(listed(&ring, &Wanted::default(), None), (vec![4], 3));
    }

    #[test]
    fn a_ring_of_nothing_counts() {
        let ring = ring(0);
        push(&ring, 5);
        assert_eq!(listed(&ring, &Wanted::default(), None), (vec![], 5));
    }

    /// What a follower is told, as (sequence, 0) or (0, missed), until nothing more has come.
    fn told(follower: &mut Follower) -> Vec<(u64, u64)> {
        let mut told = Vec::new();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        loop {
            let next = pin!(follower.next());
            match next.poll(&mut context) {
                std::task::Poll::Ready(Followed::Message(entry)) => told.push((entry.sequence, 0)),
                std::task::Poll::Ready(Followed::Missed(missed)) => told.push((0, missed)),
                std::task::Poll::Pending => return told,
            }
        }
    }

    #[test]
    fn a_follower_begins_where_it_says() {
        let ring = ring(3);
        push(&ring, 5);
        let check = |from, expected: &[(u64, u64)]| {
            assert_eq!(told(&mut ring.follow(from, Wanted::default())), expected, "{from:?}");
        };
        check(None, &[]);
        check(Some(6), &[]);
        check(Some(4), &[(4, 0), (5, 0)]);
        check(Some(2), &[(0, 1), (3, 0), (4, 0), (5, 0)]);
        check(Some(0), &[(0, 2), (3, 0), (4, 0), (5, 0)]);
        // From an earlier run.
        check(Some(7), &[(0, 2), (3, 0), (4, 0), (5, 0)]);
    }

    #[test]
    fn a_follower_gets_what_it_wants_and_is_told_what_it_missed() {
        let ring = ReceivedRing::new(Limits { messages: 3, bytes: 100 });
        let mut follower = ring.follow(None, wanted(None, Some("a")));
        for topic in ["a", "b", "a"] {
            ring.push(&message(topic, 1));
        }
        assert_eq!(told(&mut follower), [(1, 0), (3, 0)]);
        push(&ring, 4);
        ring.push(&message("a", 1));
        assert_eq!(told(&mut follower), [(0, 2), (8, 0)]);
        ring.push(&message("a", 100));
        assert_eq!(told(&mut follower), [(0, 1)], "larger than all that may be kept");
        ring.push(&message("a", 1));
        ring.clear();
        ring.push(&message("a", 1));
        assert_eq!(told(&mut follower), [(0, 1), (11, 0)]);
    }

    #[test]
    fn a_follower_holds_little_beside_the_ring() {
        let ring = ring(1000);
        let mut follower = ring.follow(Some(1), Wanted::default());
        (0..3).for_each(|_| {
            ring.push(&message("t", AHEAD_BYTES));
        });
        push(&ring, 200);
        assert!(matches!(run(follower.next()), Followed::Message(entry) if entry.sequence == 1));
        assert_eq!(follower.taken.len(), 0, "one large message at a time");
        for _ in 0..3 {
            run(follower.next());
        }
        assert_eq!(follower.taken.len(), AHEAD - 1);
        assert_eq!(told(&mut follower).len(), 199);
    }

    #[tokio::test]
    async fn a_follower_that_waits_is_woken() {
        let ring = ring(3);
        let mut follower = ring.follow(None, Wanted::default());
        let waiting = tokio::spawn(async move { follower.next().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        push(&ring, 1);
        let told = timeout(Duration::from_secs(40), waiting).await.expect("is woken").expect("ends");
        assert!(matches!(told, Followed::Message(entry) if entry.sequence == 1));
        assert_eq!(ring.0.followers.load(Ordering::Relaxed), 0);
    }

    proptest! {
        /// However messages and looks alternate: a follower is told of every sequence once, in order, as a message or as missed,
        /// and of a message whenever it is still kept.
        #[test]
        fn a_follower_accounts_for_every_message(
            messages in 0usize..8,
            steps in prop::collection::vec((0usize..12, 1usize..30, any::<bool>()), 1..30),
        ) {
            let ring = ReceivedRing::new(Limits { messages, bytes: 60 });
            let mut follower = ring.follow(None, Wanted::default());
            let (mut next, mut pushed) = (1, 0);
            for (count, bytes, clears) in steps {
                if clears {
                    ring.clear();
                }
                for _ in 0..count {
                    pushed = ring.push(&message("t", bytes));
                }
                let kept = listed(&ring, &Wanted::default(), None).0;
                for (sequence, missed) in told(&mut follower) {
                    if missed > 0 {
                        prop_assert!(!kept.iter().any(|kept| (next..next + missed).contains(kept)));
                        next += missed;
                    } else {
                        prop_assert_eq!(sequence, next);
                        next += 1;
                    }
                }
                prop_assert_eq!(next, pushed + 1);
            }
        }
    }
}
