//! The SUBSCRIBE and UNSUBSCRIBE packets of one connection between their hand-over to rumqttc and the broker's answer.
//!
//! Pure, and built like [`super::inflight`] for the same reason: the packet identifier is known only once rumqttc has
//! written the packet. Fed by the feeder (queued) and the poller (written, acknowledged).

use std::collections::VecDeque;
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
    request: Request,
    since: Instant,
}

/// Packets on their way.
#[derive(Debug, Default)]
pub(super) struct Subscribing {
    /// Not written yet, in the order of hand-over.
    queued: VecDeque<Batch>,
    /// Written and unanswered, in the order of writing.
    pending: Vec<(u16, Batch)>,
}

impl Subscribing {
    /// Packets that the broker has not answered.
    pub(super) fn len(&self) -> usize {
        self.queued.len() + self.pending.len()
    }

    /// A packet was handed over.
    pub(super) fn queued(&mut self, request: Request, now: Instant) {
        self.queued.push_back(Batch { request, since: now });
    }

    /// The next packet was written under this identifier.
    pub(super) fn written(&mut self, packet: u16) {
        if let Some(batch) = self.queued.pop_front() {
            self.pending.push((packet, batch));
        }
    }

    /// What a SUBACK or UNSUBACK answers, with its filters in the order of the reason codes.
    pub(super) fn acknowledged(&mut self, packet: u16) -> Option<Request> {
        let place = self.pending.iter().position(|(pending, _)| *pending == packet)?;
        Some(self.pending.remove(place).1.request)
    }

    /// Since when the broker owes its oldest answer.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.pending.iter().map(|(_, batch)| batch.since).chain(self.queued.iter().map(|batch| batch.since)).min()
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
        subscribing.queued(request("a"), start);
        subscribing.queued(request("b"), start + Duration::from_secs(1));
        subscribing.written(1);
        subscribing.written(2);
        assert_eq!(subscribing.oldest(), Some(start));
        assert_eq!(subscribing.acknowledged(2), Some(request("b")));
        assert_eq!(subscribing.acknowledged(2), None);
        assert_eq!(subscribing.len(), 1);
        assert_eq!(subscribing.acknowledged(1), Some(request("a")));
        assert_eq!((subscribing.len(), subscribing.oldest()), (0, None));
    }
}
