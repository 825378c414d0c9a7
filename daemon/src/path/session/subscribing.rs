//! The SUBSCRIBE packets of one connection between their hand-over and their SUBACK.
//!
//! Pure. Fed by the feeder (asked) and the poller (answered).

use std::ops::Range;
use std::time::Instant;

/// One SUBSCRIBE packet: a range of the broker's wire filters.
#[derive(Debug, PartialEq, Eq)]
struct Batch {
    packet: u16,
    filters: Range<usize>,
    since: Instant,
}

/// SUBSCRIBE packets on their way, in the order of asking.
#[derive(Debug, Default)]
pub(super) struct Subscribing {
    pending: Vec<Batch>,
}

impl Subscribing {
    /// Packets that the broker has not answered.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether one of them has this packet identifier.
    pub(super) fn has(&self, packet: u16) -> bool {
        self.pending.iter().any(|batch| batch.packet == packet)
    }

    /// A packet for these wire filters was handed over.
    pub(super) fn asked(&mut self, packet: u16, filters: Range<usize>, now: Instant) {
        self.pending.push(Batch { packet, filters, since: now });
    }

    /// The wire filters that a SUBACK answers, in the order of its reason codes.
    pub(super) fn answered(&mut self, packet: u16) -> Option<Range<usize>> {
        let place = self.pending.iter().position(|batch| batch.packet == packet)?;
        Some(self.pending.remove(place).filters)
    }

    /// Since when the broker owes its oldest answer.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.pending.iter().map(|batch| batch.since).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn answers_find_their_filters_in_any_order() {
        let start = Instant::now();
        let mut subscribing = Subscribing::default();
        subscribing.asked(1, 0..8, start);
        subscribing.asked(2, 8..10, start + Duration::from_secs(1));
        assert_eq!(subscribing.oldest(), Some(start));
        assert_eq!(subscribing.answered(2), Some(8..10));
        assert_eq!(subscribing.answered(2), None);
        assert!(subscribing.has(1) && !subscribing.has(2));
        assert_eq!(subscribing.answered(1), Some(0..8));
        assert_eq!((subscribing.len(), subscribing.oldest()), (0, None));
    }
}
