//! The publishes of one connection between their hand-over and their end: written at QoS 0, acknowledged above.
//!
//! Pure. Fed by the feeder (handed over) and the poller (written, acknowledged). What is left at the end of a connection
//! needs no return: the outbox itself knows what it has given out.

use std::collections::{HashMap, VecDeque};

use super::outlet::Position;

/// Publishes on their way. `T` tells what each one is.
#[derive(Debug)]
pub(super) struct Inflight<T> {
    /// Handed over and not written yet, in that order; each with the position at which it ends.
    unwritten: VecDeque<(Position, Unwritten<T>)>,
    /// With QoS ≥ 1, not acknowledged. Bounded by the send window.
    by_packet: HashMap<u16, T>,
}

#[derive(Debug)]
enum Unwritten<T> {
    /// With QoS 0: its end is to be written.
    AtMostOnce(T),
    /// With this packet identifier.
    Packet(u16),
}

impl<T> Inflight<T> {
    /// Nothing on its way.
    pub(super) fn new() -> Inflight<T> {
        Inflight { unwritten: VecDeque::new(), by_packet: HashMap::new() }
    }

    /// Publishes that count against the send window: those that the broker has to acknowledge.
    pub(super) fn unacknowledged(&self) -> usize {
        self.by_packet.len()
    }

    /// Whether an unacknowledged publish has this packet identifier.
    pub(super) fn has(&self, packet: u16) -> bool {
        self.by_packet.contains_key(&packet)
    }

    /// A publish with QoS 0 was handed over.
    pub(super) fn handed_over(&mut self, end: Position, entry: T) {
        self.unwritten.push_back((end, Unwritten::AtMostOnce(entry)));
    }

    /// A publish that is to be acknowledged was handed over under an unused packet identifier.
    pub(super) fn handed_over_as(&mut self, end: Position, packet: u16, entry: T) {
        self.unwritten.push_back((end, Unwritten::Packet(packet)));
        self.by_packet.insert(packet, entry);
    }

    /// Everything up to `end` was written: calls `mark` on those that wait for their acknowledgement from now on, and returns
    /// those that need none.
    pub(super) fn written(&mut self, end: Position, mut mark: impl FnMut(&mut T)) -> Vec<T> {
        let mut delivered = Vec::new();
        while let Some((_, publish)) = self.unwritten.pop_front_if(|(position, _)| *position <= end) {
            match publish {
                Unwritten::AtMostOnce(entry) => delivered.push(entry),
                Unwritten::Packet(packet) => {
                    if let Some(entry) = self.by_packet.get_mut(&packet) {
                        mark(entry);
                    }
                }
            }
        }
        delivered
    }

    /// The broker acknowledged the publish with this packet identifier, or refused it; none if it has no such publish.
    pub(super) fn acknowledged(&mut self, packet: u16) -> Option<T> {
        self.by_packet.remove(&packet)
    }

    /// Those with QoS ≥ 1 of which the broker may have seen something, once everything up to `taken` was begun to be written.
    pub(super) fn begun(&self, taken: Position) -> impl Iterator<Item = &T> {
        let not_begun = self.unwritten.iter().filter(move |(position, _)| *position > taken);
        let not_begun: Vec<u16> = not_begun
            .filter_map(|(_, publish)| match publish {
                Unwritten::AtMostOnce(_) => None,
                Unwritten::Packet(packet) => Some(*packet),
            })
            .collect();
        self.by_packet.iter().filter(move |(packet, _)| !not_begun.contains(packet)).map(|(_, entry)| entry)
    }

    /// Whether everything is written, and acknowledged where it is to be.
    pub(super) fn is_empty(&self) -> bool {
        self.unwritten.is_empty() && self.by_packet.is_empty()
    }

    /// Those with QoS ≥ 1, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.by_packet.values()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        HandOver { qos0: bool, size: u64 },
        Write { bytes: u64 },
        Acknowledge { pick: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (any::<bool>(), 1..20_u64).prop_map(|(qos0, size)| Step::HandOver { qos0, size }),
            (0..60_u64).prop_map(|bytes| Step::Write { bytes }),
            any::<usize>().prop_map(|pick| Step::Acknowledge { pick }),
        ]
    }

    proptest! {
        /// The model is the stream of bytes: a publish with QoS 0 comes back once all of it is written and not before, any
        /// other once it is acknowledged, and each comes back once.
        #[test]
        fn every_publish_comes_back_at_its_end(steps in prop::collection::vec(step(), 0..200)) {
            let mut inflight: Inflight<(u32, bool)> = Inflight::new();
            let (mut end, mut written) = (0, 0);
            let mut stream: Vec<(u64, u32)> = Vec::new();
            let mut owed: Vec<(u16, u32)> = Vec::new();
            let (mut next, mut packet) = (0_u32, 0_u16);
            for step in steps {
                match step {
                    Step::HandOver { qos0, size } => {
                        end += size;
                        if qos0 {
                            inflight.handed_over(end, (next, false));
                            stream.push((end, next));
                        } else {
                            packet += 1;
                            inflight.handed_over_as(end, packet, (next, false));
                            owed.push((packet, next));
                        }
                        next += 1;
                    }
                    Step::Write { bytes } => {
                        written = end.min(written + bytes);
                        let back: Vec<u32> = inflight
                            .written(written, |(_, marked)| *marked = true)
                            .into_iter()
                            .map(|(entry, _)| entry)
                            .collect();
                        let due = stream.iter().filter(|(end, _)| *end <= written).map(|(_, entry)| *entry);
                        prop_assert_eq!(back, due.collect::<Vec<_>>());
                        stream.retain(|(end, _)| *end > written);
                    }
                    Step::Acknowledge { pick } => {
                        if owed.is_empty() { continue }
                        let (packet, entry) = owed.remove(pick % owed.len());
                        prop_assert_eq!(inflight.acknowledged(packet).map(|(entry, _)| entry), Some(entry));
                        prop_assert_eq!(inflight.acknowledged(packet), None);
                        prop_assert!(!inflight.has(packet));
                    }
                }
                prop_assert_eq!(inflight.unacknowledged(), owed.len());
            }
            prop_assert_eq!(inflight.begun(0).count(), inflight.iter().filter(|(_, marked)| *marked).count());
            prop_assert_eq!(inflight.begun(end).count(), owed.len());
            inflight.written(end, |(_, marked)| *marked = true);
            prop_assert!(inflight.iter().all(|(_, marked)| *marked));
        }
    }
}
