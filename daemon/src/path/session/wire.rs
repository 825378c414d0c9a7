//! Which topic filters a session asks its broker for, and what a received copy says about them.
//!
//! Pure. The subscriptions of one broker are reduced to a minimal cover: a filter that another one covers is not
//! subscribed itself, so that most brokers send one copy of a message rather than one for each subscription. Where
//! filters overlap only in part, copies still multiply on some brokers; then the subscription identifier (MQTT 5
//! §3.8.2.1.2) tells which filter brought a copy. Read by the feeder (what to subscribe) and, through [`WireCopy`], by
//! the router. It chooses no winner: that is the router's.

use sha2::{Digest, Sha256};

use super::grants::Grants;
use crate::message::Qos;
use crate::topic::{TopicFilter, TopicName};

/// Largest subscription identifier (MQTT 5 §3.8.2.1.2).
const MAX_IDENTIFIER: u32 = 268_435_455;

/// A filter that is subscribed at the broker.
#[derive(Debug)]
pub struct WireFilter {
    /// The filter.
    pub filter: TopicFilter,
    /// The highest of its subscriptions, at most QoS 1: a kept session with QoS 2 would owe releases that rumqttc forgets.
    pub qos: Qos,
    /// Its subscription identifier on protocol 5, 1..=268,435,455. Derived from the filter's text so that it means the
    /// same after a restart to the messages that a kept session has queued.
    pub identifier: u32,
    /// The places of the subscriptions that it serves, ascending.
    pub places: Vec<usize>,
}

/// The filters of one broker on the wire. A subscription is named by its place among the broker's subscriptions.
#[derive(Debug)]
pub struct WireSet {
    /// By text, so that their order and identifiers do not depend on the order of the configuration.
    filters: Vec<WireFilter>,
    /// The wire filter of each subscription.
    assigned: Vec<usize>,
    /// Identifiers and their filters, ascending.
    identifiers: Vec<(u32, usize)>,
}

impl WireSet {
    /// Reduces a broker's subscriptions, given in the order of their places.
    pub fn new<'a>(subscriptions: impl IntoIterator<Item = (&'a TopicFilter, Qos)>) -> WireSet {
        let subscriptions: Vec<_> = subscriptions.into_iter().collect();
        let mut distinct: Vec<&TopicFilter> = subscriptions.iter().map(|(filter, _)| *filter).collect();
        distinct.sort_unstable();
        distinct.dedup();
        // Of filters that say the same in other words (`#` and `+/#`) the first stays.
        let absorbs = |a: &TopicFilter, b: &TopicFilter| a != b && a.covers(b) && (a < b || !b.covers(a));
        let covered = |filter: &TopicFilter| distinct.iter().any(|other| absorbs(other, filter));
        let mut filters: Vec<WireFilter> = Vec::new();
        for filter in distinct.iter().copied().filter(|filter| !covered(filter)) {
            let identifier = unused_identifier(filter.as_str(), &filters);
            filters.push(WireFilter { filter: filter.clone(), qos: Qos::AtMostOnce, identifier, places: Vec::new() });
        }
        let mut assigned = Vec::with_capacity(subscriptions.len());
        for (place, (filter, qos)) in subscriptions.into_iter().enumerate() {
            let wire = filters
                .iter()
                .position(|wire| wire.filter == *filter)
                .or_else(|| filters.iter().position(|wire| wire.filter.covers(filter)))
                .expect("covering is transitive, so a covered filter has a cover that is not covered itself");
            filters[wire].qos = filters[wire].qos.max(qos.min(Qos::AtLeastOnce));
            filters[wire].places.push(place);
            assigned.push(wire);
        }
        let mut identifiers: Vec<_> =
            filters.iter().enumerate().map(|(place, wire)| (wire.identifier, place)).collect();
        identifiers.sort_unstable();
        WireSet { filters, assigned, identifiers }
    }

    /// What to subscribe, in a fixed order.
    pub fn filters(&self) -> &[WireFilter] {
        &self.filters
    }

    /// The place of the wire filter with this identifier, if it matches the topic.
    pub(super) fn place_of(&self, identifier: u32, topic: &TopicName) -> Option<usize> {
        let found = self.identifiers.binary_search_by_key(&identifier, |(identifier, _)| *identifier).ok()?;
        let place = self.identifiers[found].1;
        self.filters[place].filter.matches(topic).then_some(place)
    }
}

/// The first identifier from the filter's hash on that no filter before it has.
fn unused_identifier(filter: &str, taken: &[WireFilter]) -> u32 {
    let hash = Sha256::digest(filter.as_bytes());
    let mut identifier = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) >> 4;
    while identifier == 0 || taken.iter().any(|wire| wire.identifier == identifier) {
        identifier = identifier % MAX_IDENTIFIER + 1;
    }
    identifier
}

/// What one copy of a message says about the wire filters that brought it.
#[derive(Clone, Copy)]
pub struct WireCopy<'a> {
    wires: &'a WireSet,
    grants: &'a Grants,
    /// Empty where the copy does not tell what brought it.
    identifiers: &'a [u32],
}

impl<'a> WireCopy<'a> {
    /// A copy of a message to `topic` with these subscription identifiers.
    ///
    /// Identifiers that fit no filter of this topic are left by an earlier configuration: such a copy tells nothing.
    pub(super) fn new(
        wires: &'a WireSet,
        grants: &'a Grants,
        identifiers: &'a [u32],
        topic: &TopicName,
    ) -> WireCopy<'a> {
        let telling = identifiers.iter().any(|identifier| wires.place_of(*identifier, topic).is_some());
        WireCopy { wires, grants, identifiers: if telling { identifiers } else { &[] } }
    }

    /// Whether the broker has granted (not refused) this subscription; the place counts the broker's subscriptions in the
    /// order of the configuration.
    pub fn granted(&self, subscription: usize) -> bool {
        !self.grants.is_refused(self.wires.assigned[subscription]) || self.names(subscription)
    }

    /// Whether this subscription may be the winner that decides which copy counts: one whose own copy is sure to come.
    /// Where nothing is told, every one.
    pub fn decides(&self, subscription: usize) -> bool {
        self.identifiers.is_empty()
            || self.grants.is_sure(self.wires.assigned[subscription])
            || self.names(subscription)
    }

    /// Whether this copy is the one that this subscription's filter on the wire brought: by identifier on protocol 5,
    /// always where the copy has no known identifier.
    pub fn carries(&self, subscription: usize) -> bool {
        self.identifiers.is_empty() || self.names(subscription)
    }

    fn names(&self, subscription: usize) -> bool {
        self.identifiers.contains(&self.wires.filters[self.wires.assigned[subscription]].identifier)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::new(text).expect("valid filter")
    }

    fn set(filters: &[TopicFilter]) -> WireSet {
        WireSet::new(filters.iter().map(|filter| (filter, Qos::AtMostOnce)))
    }

    /// The filters on the wire, and for each subscription the one that serves it.
    fn check(subscriptions: &[(&str, Qos)], expected: &[(&str, Qos)], served_by: &[&str]) {
        let filters: Vec<TopicFilter> = subscriptions.iter().map(|(text, _)| filter(text)).collect();
        let wires = WireSet::new(filters.iter().zip(subscriptions.iter().map(|(_, qos)| *qos)));
        let on_the_wire: Vec<_> = wires.filters().iter().map(|wire| (wire.filter.as_str(), wire.qos)).collect();
        assert_eq!(on_the_wire, expected);
        let serving: Vec<_> = wires.assigned.iter().map(|wire| wires.filters[*wire].filter.as_str()).collect();
        assert_eq!(serving, served_by);
        for wire in wires.filters() {
            let places: Vec<_> =
                (0..served_by.len()).filter(|place| served_by[*place] == wire.filter.as_str()).collect();
            assert_eq!(wire.places, places);
        }
    }

    #[test]
    fn a_covered_filter_is_served_by_its_cover_at_the_highest_qos() {
        use Qos::{AtLeastOnce, AtMostOnce, ExactlyOnce};
        check(&[], &[], &[]);
        check(&[("a/+", AtLeastOnce), ("a/#", AtMostOnce)], &[("a/#", AtLeastOnce)], &["a/#", "a/#"]);
        check(&[("a/b", ExactlyOnce)], &[("a/b", AtLeastOnce)], &["a/b"]);
        check(&[("a/b", AtMostOnce), ("a/b", AtLeastOnce)], &[("a/b", AtLeastOnce)], &["a/b", "a/b"]);
        check(
            &[("+/b", AtMostOnce), ("a/+", AtMostOnce), ("a/b", AtLeastOnce)],
            &[("+/b", AtLeastOnce), ("a/+", AtMostOnce)],
            &["+/b", "a/+", "+/b"],
        );
        check(
            &[("#", AtMostOnce), ("$SYS/#", AtMostOnce), ("+/#", AtMostOnce)],
            &[("#", AtMostOnce), ("$SYS/#", AtMostOnce)],
            &["#", "$SYS/#", "#"],
        );
    }

    #[test]
    fn identifiers_depend_on_the_text_alone() {
        let one = set(&[filter("plant/+/state")]);
        let other = set(&[filter("a"), filter("plant/+/state"), filter("z/#")]);
        assert_eq!(one.filters()[0].identifier, other.filters()[1].identifier);
    }

    #[test]
    fn a_taken_identifier_is_not_given_again() {
        let mut taken = set(&[filter("a")]).filters;
        let first = taken[0].identifier;
        assert_eq!(unused_identifier("a", &taken), first + 1);
        taken[0].identifier = MAX_IDENTIFIER;
        assert_eq!(unused_identifier("a", &taken), first);
    }

    #[test]
    fn identifiers_of_an_earlier_configuration_tell_nothing() {
        let wires = set(&[filter("a/+"), filter("b/+")]);
        let topic = TopicName::new("a/x").expect("valid name");
        let (a, b) = (wires.filters()[0].identifier, wires.filters()[1].identifier);
        let grants = Grants::new(2);
        let carried = |identifiers: &[u32]| {
            let copy = WireCopy::new(&wires, &grants, identifiers, &topic);
            (copy.carries(0), copy.carries(1))
        };
        assert_eq!(carried(&[]), (true, true));
        assert_eq!(carried(&[a]), (true, false));
        assert_eq!(carried(&[a ^ 1]), (true, true));
        assert_eq!(carried(&[b]), (true, true));
        assert_eq!(carried(&[b, a]), (true, true));
    }

    #[test]
    fn only_a_refused_filter_is_not_granted() {
        let wires = set(&[filter("a/+"), filter("a/#"), filter("b")]);
        let mut grants = Grants::new(2);
        grants.refused(0);
        let copy = WireCopy::new(&wires, &grants, &[], &TopicName::new("b").expect("valid name"));
        assert_eq!([copy.granted(0), copy.granted(1), copy.granted(2)], [false, false, true]);
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "", "+", "$s"])
    }

    fn any_filter() -> impl Strategy<Value = TopicFilter> {
        (prop::collection::vec(level(), 1..4), any::<bool>())
            .prop_map(|(mut levels, multi)| {
                if multi {
                    levels.push("#");
                }
                levels.join("/")
            })
            .prop_filter_map("not empty", |text| TopicFilter::new(text).ok())
    }

    fn any_name() -> impl Strategy<Value = TopicName> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", "", "$s", "c"]), 1..5)
            .prop_filter_map("not empty", |levels| TopicName::new(levels.join("/")).ok())
    }

    /// How a broker sends a message that several filters of one client match.
    #[derive(Clone, Copy, Debug)]
    enum Policy {
        CopyEach,
        OneWithAll,
        OneWithout,
    }

    proptest! {
        /// Whatever subscription wins, and whatever the broker's policy for overlapping filters, exactly one of the copies
        /// that arrive carries the winner.
        #[test]
        fn exactly_one_copy_carries_the_winner(
            filters in prop::collection::vec(any_filter(), 1..8),
            topic in any_name(),
            policy in prop::sample::select(vec![Policy::CopyEach, Policy::OneWithAll, Policy::OneWithout]),
        ) {
            let wires = set(&filters);
            let mut grants = Grants::new(wires.filters().len());
            grants.connected(false);
            (0..wires.filters().len()).for_each(|wire| grants.granted(wire));
            let brought_by: Vec<u32> = wires
                .filters()
                .iter()
                .filter(|wire| wire.filter.matches(&topic))
                .map(|wire| wire.identifier)
                .collect();
            let winners: Vec<usize> = (0..filters.len()).filter(|place| filters[*place].matches(&topic)).collect();
            prop_assert_eq!(brought_by.is_empty(), winners.is_empty());
            let copies: Vec<&[u32]> = match policy {
                _ if brought_by.is_empty() => Vec::new(),
                Policy::CopyEach => brought_by.chunks(1).collect(),
                Policy::OneWithAll => vec![&brought_by],
                Policy::OneWithout => vec![&[]],
            };
            for winner in winners {
                let carrying = copies
                    .iter()
                    .filter(|ids| {
                        let copy = WireCopy::new(&wires, &grants, ids, &topic);
                        copy.decides(winner) && copy.carries(winner)
                    })
                    .count();
                prop_assert_eq!(carrying, 1, "{:?} of {:?}", filters[winner], wires);
            }
        }

        /// A resumed session: messages may have been queued before some of the filters were known. Each is run at least
        /// once, and once all its filters have been named, exactly once. The first subscription ranks best.
        #[test]
        fn what_was_queued_before_a_filter_was_known_is_run(
            filters in prop::collection::vec(any_filter(), 1..8),
            topic in any_name(),
            known in prop::collection::vec(any::<bool>(), 8),
        ) {
            let wires = set(&filters);
            let mut grants = Grants::new(wires.filters().len());
            grants.connected(true);
            (0..wires.filters().len()).for_each(|wire| grants.granted(wire));
            let matching: Vec<usize> = (0..filters.len()).filter(|place| filters[*place].matches(&topic)).collect();
            let runs = |grants: &mut Grants, copies: &[u32]| {
                let run = |identifier: &&u32| {
                    let identifiers = [**identifier];
                    grants.arrived(&wires, &identifiers, &topic);
                    let copy = WireCopy::new(&wires, grants, &identifiers, &topic);
                    matching.iter().find(|place| copy.decides(**place)).is_none_or(|winner| copy.carries(*winner))
                };
                copies.iter().filter(run).count()
            };
            let matched = |wire: &&WireFilter| wire.filter.matches(&topic);
            let now: Vec<u32> = wires.filters().iter().filter(matched).map(|wire| wire.identifier).collect();
            let then: Vec<u32> =
                now.iter().zip(&known).filter(|(_, known)| **known).map(|(identifier, _)| *identifier).collect();
            prop_assert!(then.is_empty() || runs(&mut grants, &then) >= 1, "lost: {then:?} of {now:?}");
            prop_assert!(now.is_empty() || runs(&mut grants, &now) >= 1);
            prop_assert!(now.is_empty() || runs(&mut grants, &now) == 1);
        }

        /// No filter on the wire is needless, and each subscription is served by one that covers it.
        #[test]
        fn the_cover_is_minimal(filters in prop::collection::vec(any_filter(), 0..10)) {
            let wires = set(&filters);
            for (place, wire) in wires.assigned.iter().enumerate() {
                prop_assert!(wires.filters[*wire].filter.covers(&filters[place]));
            }
            for (a, wire) in wires.filters.iter().enumerate() {
                prop_assert!(!wire.places.is_empty());
                for (b, other) in wires.filters.iter().enumerate() {
                    prop_assert!(a == b || !other.filter.covers(&wire.filter));
                    prop_assert!(a == b || other.identifier != wire.identifier);
                }
            }
        }
    }
}
