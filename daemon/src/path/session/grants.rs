//! Which wire filters bring a copy of each message: what decides whether a copy may be left to another one.
//!
//! Pure. A copy that does not carry the winner is dropped only if the winner's own copy is sure to come. A SUBACK alone
//! does not tell that: messages that were queued before the filter was known, in a resumed session or because of a filter
//! that was asked for before, come after it with the identifiers of their time. It tells only in a new session of which no
//! message has come. But a session's queue is in order: once a copy names a filter, all that come later were queued when
//! the broker had it. Fed by the poller; read through `WireCopy`.

use super::wire::WireSet;
use crate::topic::TopicName;

/// What is known of one wire filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grant {
    /// Messages may come that were queued without it.
    Unsure,
    /// Every message that comes was queued when the broker had it.
    Sure,
    /// Its SUBACK refused it.
    Refused,
}

/// The state of every wire filter in the broker's session. It outlives connections, as the session does.
#[derive(Clone, Debug)]
pub(super) struct Grants {
    wires: Vec<Grant>,
    /// The session began with this connection and no message has come: nothing can be queued.
    fresh: bool,
}

impl Grants {
    /// Of a session of which nothing is known.
    pub(super) fn new(wires: usize) -> Grants {
        Grants { wires: vec![Grant::Unsure; wires], fresh: false }
    }

    /// A connection was accepted.
    pub(super) fn connected(&mut self, session_present: bool) {
        self.fresh = !session_present;
        let forgotten = |grant: &&mut Grant| !session_present || **grant == Grant::Refused;
        self.wires.iter_mut().filter(forgotten).for_each(|grant| *grant = Grant::Unsure);
    }

    /// A SUBACK granted a wire filter.
    pub(super) fn granted(&mut self, wire: usize) {
        if self.fresh {
            self.wires[wire] = Grant::Sure;
        }
    }

    /// A SUBACK refused a wire filter.
    pub(super) fn refused(&mut self, wire: usize) {
        self.wires[wire] = Grant::Refused;
    }

    /// A copy of a message to `topic` came with these identifiers.
    pub(super) fn arrived(&mut self, wires: &WireSet, identifiers: &[u32], topic: &TopicName) {
        self.fresh = false;
        for identifier in identifiers {
            if let Some(place) = wires.place_of(*identifier, topic) {
                self.wires[place] = Grant::Sure;
            }
        }
    }

    /// Whether every message that comes and matches this filter comes in a copy that names it.
    pub(super) fn is_sure(&self, wire: usize) -> bool {
        self.wires[wire] == Grant::Sure
    }

    /// Whether the broker has refused this filter.
    pub(super) fn is_refused(&self, wire: usize) -> bool {
        self.wires[wire] == Grant::Refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Qos;
    use crate::topic::TopicFilter;

    #[test]
    fn a_granted_filter_is_sure_at_once_in_a_new_session_only() {
        let mut grants = Grants::new(2);
        grants.connected(false);
        grants.granted(0);
        grants.refused(1);
        assert!(grants.is_sure(0) && grants.is_refused(1));

        grants.connected(true);
        assert!(grants.is_sure(0), "the session is the same");
        assert!(!grants.is_refused(1), "it is asked for again");
        grants.granted(1);
        assert!(!grants.is_sure(1), "older messages may be queued");

        grants.connected(false);
        assert!(!grants.is_sure(0), "the session is gone");
    }

    #[test]
    fn a_filter_is_sure_once_a_copy_names_it() {
        let filters = ["a/+", "+/b"].map(|text| TopicFilter::new(text).expect("valid"));
        let wires = WireSet::new(filters.iter().map(|filter| (filter, Qos::AtLeastOnce)));
        let mut grants = Grants::new(2);
        grants.connected(true);
        let topic = TopicName::new("a/b").expect("valid");
        grants.arrived(&wires, &[wires.filters()[0].identifier, 77], &topic);
        assert!(grants.is_sure(0) && !grants.is_sure(1));
    }

    #[test]
    fn a_filter_that_is_granted_after_a_message_came_is_not_sure() {
        let filters = ["+/b", "a/+"].map(|text| TopicFilter::new(text).expect("valid"));
        let wires = WireSet::new(filters.iter().map(|filter| (filter, Qos::AtLeastOnce)));
        let mut grants = Grants::new(2);
        grants.connected(false);
        grants.granted(0);
        let topic = TopicName::new("a/b").expect("valid");
        grants.arrived(&wires, &[wires.filters()[0].identifier], &topic);
        grants.granted(1);
        assert!(grants.is_sure(0) && !grants.is_sure(1), "more like it may be queued behind it");
    }
}
