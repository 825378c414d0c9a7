//! The publishes of one connection between their hand-over to rumqttc and their acknowledgement.
//!
//! Pure. rumqttc assigns a publish its packet identifier only when it writes it, and tells no more than the identifier;
//! so publishes are remembered in the order of their hand-over, which is the order of writing. Fed by the feeder
//! (queued) and the poller (written, acknowledged). What is left at the end of a connection needs no return: the outbox
//! itself knows what it has given out.

use std::collections::{HashMap, VecDeque};

/// rumqttc wrote a publish under an identifier that an unacknowledged one still has, or one that nobody queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mismatch;

/// Publishes on their way. `T` tells what each one is.
#[derive(Debug)]
pub(super) struct Inflight<T> {
    /// With QoS ≥ 1, not written yet, in the order of hand-over.
    queued: VecDeque<T>,
    /// With QoS 0, not written yet. Apart, since QoS 0 is written with the packet identifier 0 whatever stands before it.
    queued_qos0: VecDeque<T>,
    /// Written, not acknowledged. Bounded by the send window.
    by_packet: HashMap<u16, T>,
}

impl<T> Inflight<T> {
    /// Nothing on its way.
    pub(super) fn new() -> Inflight<T> {
        Inflight { queued: VecDeque::new(), queued_qos0: VecDeque::new(), by_packet: HashMap::new() }
    }

    /// Publishes that count against the send window.
    pub(super) fn len(&self) -> usize {
        self.queued.len() + self.queued_qos0.len() + self.by_packet.len()
    }

    /// A publish was handed over.
    pub(super) fn queued(&mut self, qos0: bool, entry: T) {
        if qos0 { self.queued_qos0.push_back(entry) } else { self.queued.push_back(entry) }
    }

    /// A publish was written under this packet identifier, 0 for QoS 0: that one is delivered. `mark` notes it on the
    /// others.
    ///
    /// # Errors
    /// The identifier cannot be right.
    pub(super) fn written(&mut self, packet: u16, mark: impl FnOnce(&mut T)) -> Result<Option<T>, Mismatch> {
        if packet == 0 {
            return self.queued_qos0.pop_front().map(Some).ok_or(Mismatch);
        }
        let mut entry = self.queued.pop_front().ok_or(Mismatch)?;
        mark(&mut entry);
        match self.by_packet.insert(packet, entry) {
            None => Ok(None),
            Some(_) => Err(Mismatch),
        }
    }

    /// The broker acknowledged the publish with this packet identifier; none if it has no such publish.
    pub(super) fn acknowledged(&mut self, packet: u16) -> Option<T> {
        self.by_packet.remove(&packet)
    }

    /// Those that only the broker's acknowledgement is missing for, in no order.
    pub(super) fn unacknowledged(&self) -> impl Iterator<Item = &T> {
        self.by_packet.values()
    }

    /// Those that are not written yet, in no order.
    pub(super) fn unwritten(&self) -> impl Iterator<Item = &T> {
        self.queued.iter().chain(&self.queued_qos0)
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.unwritten().chain(self.by_packet.values())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Queue { qos0: bool },
        Write,
        Acknowledge { pick: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            any::<bool>().prop_map(|qos0| Step::Queue { qos0 }),
            Just(Step::Write),
            any::<usize>().prop_map(|pick| Step::Acknowledge { pick }),
        ]
    }

    proptest! {
        /// The model is the channel into rumqttc with its own numbering: whatever the interleaving, the entry that comes
        /// back is the one that the packet carries, and each comes back once.
        #[test]
        fn every_acknowledgement_finds_its_publish(steps in prop::collection::vec(step(), 0..200)) {
            let mut inflight = Inflight::new();
            let mut channel: VecDeque<(u32, bool)> = VecDeque::new();
            let mut unacknowledged: Vec<(u16, u32)> = Vec::new();
            let (mut next_entry, mut next_packet) = (0_u32, 1_u16);
            let mut ended = Vec::new();
            for step in steps {
                match step {
                    Step::Queue { qos0 } => {
                        inflight.queued(qos0, next_entry);
                        channel.push_back((next_entry, qos0));
                        next_entry += 1;
                    }
                    Step::Write => {
                        let Some((entry, qos0)) = channel.pop_front() else { continue };
                        if qos0 {
                            prop_assert_eq!(inflight.written(0, |_| {}), Ok(Some(entry)));
                            ended.push(entry);
                        } else {
                            prop_assert_eq!(inflight.written(next_packet, |_| {}), Ok(None));
                            unacknowledged.push((next_packet, entry));
                            next_packet += 1;
                        }
                    }
                    Step::Acknowledge { pick } => {
                        if unacknowledged.is_empty() { continue }
                        let (packet, entry) = unacknowledged.remove(pick % unacknowledged.len());
                        prop_assert_eq!(inflight.acknowledged(packet), Some(entry));
                        prop_assert_eq!(inflight.acknowledged(packet), None);
                        ended.push(entry);
                    }
                }
                prop_assert_eq!(inflight.len(), channel.len() + unacknowledged.len());
            }
            let mut all: Vec<u32> = ended.into_iter().chain(inflight.iter().copied()).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..next_entry).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_identifier_that_cannot_be_right_is_noticed() {
        let mut inflight = Inflight::new();
        assert_eq!(inflight.written(1, |_| {}), Err(Mismatch));
        assert_eq!(inflight.written(0, |_| {}), Err(Mismatch));
        inflight.queued(false, 'a');
        inflight.queued(false, 'b');
        assert_eq!(inflight.written(7, |entry| *entry = 'A'), Ok(None));
        assert!(inflight.unacknowledged().eq(&['A']));
        assert_eq!(inflight.written(7, |_| {}), Err(Mismatch));
    }
}
