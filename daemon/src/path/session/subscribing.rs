//! The SUBSCRIBE and UNSUBSCRIBE packets of one connection between their hand-over and the broker's answer.
//!
//! Pure. Fed by the feeder (asked) and the poller (answered).

use std::time::Instant;

use super::cover::WireFilter;
use crate::topic::TopicFilter;

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// SUBSCRIBE.
    Subscribe(Vec<WireFilter>),
    /// UNSUBSCRIBE.
    Unsubscribe(Vec<TopicFilter>),
}

/// A packet and when it was handed over.
#[derive(Debug, PartialEq, Eq)]
struct Batch {
    packet: u16,
    request: Request,
    since: Instant,
}

/// Packets on their way, in the order of asking.
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

    /// A packet was handed over.
    pub(super) fn asked(&mut self, packet: u16, request: Request, now: Instant) {
        self.pending.push(Batch { packet, request, since: now });
    }

    /// What a SUBACK or UNSUBACK answers, with its filters in the order of the reason codes.
    pub(super) fn answered(&mut self, packet: u16) -> Option<Request> {
        let place = self.pending.iter().position(|batch| batch.packet == packet)?;
        Some(self.pending.remove(place).request)
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
        let request = |text: &str| Request::Unsubscribe(vec![TopicFilter::new(text).expect("valid")]);
        let mut subscribing = Subscribing::default();
        subscribing.asked(1, request("a"), start);
        subscribing.asked(2, request("b"), start + Duration::from_secs(1));
        assert_eq!(subscribing.oldest(), Some(start));
        assert_eq!(subscribing.answered(2), Some(request("b")));
        assert_eq!(subscribing.answered(2), None);
        assert!(subscribing.has(1) && !subscribing.has(2));
        assert_eq!(subscribing.answered(1), Some(request("a")));
        assert_eq!((subscribing.len(), subscribing.oldest()), (0, None));
    }
}
