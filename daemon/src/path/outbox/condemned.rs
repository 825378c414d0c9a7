//! What a broker must not be sent again for a while.
//!
//! Pure: no clock of its own. A message whose publish ended its own broker's connections was never acknowledged there, so
//! each new connection brought it again, and its handler published it anew: the outbox holds as many copies as connections
//! were lost, and giving one of them up would change nothing. They are told by the message that caused them, since a
//! handler may well put the time into what it publishes. Forgotten after a while, for the fault may be mended.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::topic::TopicName;

/// How long a message is remembered that caused a publish which was given up: longer than it takes to come again.
const REMEMBERED: Duration = Duration::from_secs(300);

/// How many are remembered; the oldest is forgotten for a new one.
const CAPACITY: usize = 64;

/// A message that made a handler publish to the broker that it came from, told by a hash of what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause(pub(super) u64);

/// Causes of publishes that were given up, of one broker.
#[derive(Debug, Default)]
pub struct Condemned {
    /// With the topic that was published to, in the order of their end.
    list: VecDeque<(Cause, TopicName, Instant)>,
}

impl Condemned {
    /// A publish to this topic was given up.
    pub fn add(&mut self, cause: Cause, topic: TopicName, now: Instant) {
        if self.list.len() == CAPACITY {
            self.list.pop_front();
        }
        self.list.push_back((cause, topic, now));
    }

    /// Whether there is anything to look up. False is almost always the answer.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether this is a copy of a publish that was given up.
    pub fn has(&mut self, cause: Cause, topic: &TopicName, now: Instant) -> bool {
        while self.list.front().is_some_and(|(.., since)| now.saturating_duration_since(*since) >= REMEMBERED) {
            self.list.pop_front();
        }
        self.list.iter().any(|(other, to, _)| *other == cause && to == topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_known_for_a_while_by_its_cause_and_topic() {
        let topic = |name: &str| TopicName::new(name).expect("valid");
        let start = Instant::now();
        let mut condemned = Condemned::default();
        condemned.add(Cause(1), topic("a"), start);
        assert!(condemned.has(Cause(1), &topic("a"), start));
        assert!(!condemned.has(Cause(1), &topic("b"), start), "another publish of the same call");
        assert!(!condemned.has(Cause(2), &topic("a"), start), "another message");
        assert!(condemned.has(Cause(1), &topic("a"), start + REMEMBERED - Duration::from_secs(1)));
        assert!(!condemned.has(Cause(1), &topic("a"), start + REMEMBERED));
        assert!(condemned.is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let topic = TopicName::new("a").expect("valid");
        let start = Instant::now();
        let mut condemned = Condemned::default();
        (0..=CAPACITY as u64).for_each(|cause| condemned.add(Cause(cause), topic.clone(), start));
        assert!(!condemned.has(Cause(0), &topic, start));
        assert!((1..=CAPACITY as u64).all(|cause| condemned.has(Cause(cause), &topic, start)));
    }
}
