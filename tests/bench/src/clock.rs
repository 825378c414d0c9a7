//! The one clock of the load generator and the receiver, and when each reading was sent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::readings::TOPICS;

/// Monotonic nanoseconds since the start of the benchmark.
#[derive(Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// It begins now.
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Nanoseconds since its start.
    pub fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Readings of a topic whose times are remembered: a power of two, and more than are ever on their way at once.
const REMEMBERED: u64 = 1 << 16;

/// When each reading was sent. The handler does not pass on the time that a reading carries; the generator and the receiver
/// live in one process and share it here instead. Written by the topic's publisher before the message leaves.
pub struct SendTimes(Vec<AtomicU64>);

impl SendTimes {
    /// Nothing was sent yet.
    pub fn new() -> SendTimes {
        SendTimes((0..TOPICS as u64 * REMEMBERED).map(|_| AtomicU64::new(0)).collect())
    }

    /// A reading is sent at this time.
    pub fn set(&self, topic: usize, reading: u64, time: u64) {
        self.0[place(topic, reading)].store(time, Ordering::Release);
    }

    /// When a reading was sent.
    pub fn get(&self, topic: usize, reading: u64) -> u64 {
        self.0[place(topic, reading)].load(Ordering::Acquire)
    }
}

fn place(topic: usize, reading: u64) -> usize {
    topic * REMEMBERED as usize + (reading % REMEMBERED) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_topic_remembers_its_own() {
        let times = SendTimes::new();
        for topic in 0..TOPICS {
            times.set(topic, 5, topic as u64);
            times.set(topic, REMEMBERED - 1, 100);
        }
        assert!((0..TOPICS).all(|topic| times.get(topic, 5) == topic as u64));
    }
}
