//! Which topic filters serve a broker's subscriptions on the wire.
//!
//! Pure. The ordinary subscriptions are reduced to a minimal cover: a filter that another one covers is not subscribed
//! itself, so that a broker sends one copy of a message rather than one for each subscription. A shared subscription
//! (MQTT 5 §4.8.2) never joins a cover: the broker gives each of its messages to one member of the group, so each filter
//! with its share is a dispatch domain of its own. Fed by `machine.rs`, which says what a broker has refused.

use std::collections::BTreeMap;

use crate::message::Qos;
use crate::topic::{TopicFilter, widest};

/// What one subscription wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its filter, with its share.
    pub filter: TopicFilter,
    /// Its quality of service.
    pub qos: Qos,
    /// Whether it runs anything.
    pub acts: bool,
}

/// The filters on the wire, and which of them serves which subscription.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cover {
    /// By text, so that it does not depend on the order of the configuration. The QoS is the highest of those that a
    /// filter serves, at most 1: a kept session with QoS 2 would owe releases that a new connection knows nothing of.
    pub(super) wires: Vec<(TopicFilter, Qos)>,
    /// For each subscription the wire filter that serves it; none where it is refused.
    pub(super) serving: Vec<Option<usize>>,
}

/// What a cover has to respect besides.
pub(super) struct Rules<'a> {
    /// Filters that the broker does not grant.
    pub(super) refused: &'a dyn Fn(&TopicFilter) -> bool,
    /// Filters that are subscribed though another one covers them.
    pub(super) alone: &'a dyn Fn(&TopicFilter) -> bool,
}

impl Cover {
    /// Reduces what is wanted, given in the order of the subscriptions' places.
    pub(super) fn of(wanted: &[Wanted], rules: &Rules<'_>) -> Cover {
        let asked: Vec<&TopicFilter> = distinct(wanted).into_iter().filter(|filter| !(rules.refused)(filter)).collect();
        let widest = widest(&asked);
        let mut wires: Vec<(TopicFilter, Qos)> = asked
            .iter()
            .zip(&widest)
            .filter(|(filter, widest)| **widest || (rules.alone)(filter))
            .map(|(filter, _)| ((*filter).clone(), Qos::AtMostOnce))
            .collect();
        let places: BTreeMap<TopicFilter, usize> =
            wires.iter().enumerate().map(|(place, (filter, _))| (filter.clone(), place)).collect();
        let mut known: BTreeMap<&TopicFilter, Option<usize>> = BTreeMap::new();
        let mut serving = Vec::with_capacity(wanted.len());
        for one in wanted {
            let wire = *known.entry(&one.filter).or_insert_with(|| {
                let covers = |(wire, _): &(TopicFilter, Qos)| wire.share().is_none() && wire.covers(&one.filter);
                let own = places.get(&one.filter).copied();
                own.or_else(|| if one.filter.share().is_some() { None } else { wires.iter().position(covers) })
            });
            if let Some(wire) = wire {
                wires[wire].1 = wires[wire].1.max(one.qos.min(Qos::AtLeastOnce));
            }
            serving.push(wire);
        }
        Cover { wires, serving }
    }
}

/// Every filter once, by text.
fn distinct(wanted: &[Wanted]) -> Vec<&TopicFilter> {
    let mut filters: Vec<&TopicFilter> = wanted.iter().map(|one| &one.filter).collect();
    filters.sort_unstable();
    filters.dedup();
    filters
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topic::testing::{filter, filter_text};

    fn wanted(subscriptions: &[(&str, Qos)]) -> Vec<Wanted> {
        subscriptions.iter().map(|(text, qos)| Wanted { filter: filter(text), qos: *qos, acts: true }).collect()
    }

    fn cover(wanted: &[Wanted], refused: &[&str], alone: &[&str]) -> Cover {
        let refused = |filter: &TopicFilter| refused.contains(&filter.as_str());
        let alone = |filter: &TopicFilter| alone.contains(&filter.as_str());
        Cover::of(wanted, &Rules { refused: &refused, alone: &alone })
    }

    /// The filters on the wire, and for each subscription the one that serves it.
    #[track_caller]
    fn check(
        subscriptions: &[(&str, Qos)],
        (refused, alone): (&[&str], &[&str]),
        expected: &[(&str, Qos)],
        served_by: &[Option<&str>],
    ) {
        let cover = cover(&wanted(subscriptions), refused, alone);
        let wires: Vec<_> = cover.wires.iter().map(|(filter, qos)| (filter.as_str(), *qos)).collect();
        assert_eq!(wires, expected);
        let serving: Vec<_> = cover.serving.iter().map(|place| place.map(|place| wires[place].0)).collect();
        assert_eq!(serving, served_by);
    }

    #[test]
    fn a_covered_filter_is_served_by_its_cover_at_the_highest_qos() {
        use Qos::{AtLeastOnce, AtMostOnce, ExactlyOnce};
        const NONE: (&[&str], &[&str]) = (&[], &[]);
        check(&[], NONE, &[], &[]);
        check(&[("a/+", AtLeastOnce), ("a/#", AtMostOnce)], NONE, &[("a/#", AtLeastOnce)], &[Some("a/#"), Some("a/#")]);
        check(&[("a/b", ExactlyOnce)], NONE, &[("a/b", AtLeastOnce)], &[Some("a/b")]);
        check(
            &[("+/b", AtMostOnce), ("a/+", AtMostOnce), ("a/b", AtLeastOnce)],
            NONE,
            &[("+/b", AtLeastOnce), ("a/+", AtMostOnce)],
            &[Some("+/b"), Some("a/+"), Some("+/b")],
        );
        check(
            &[("#", AtMostOnce), ("$SYS/#", AtMostOnce), ("+/#", AtMostOnce)],
            NONE,
            &[("#", AtMostOnce), ("$SYS/#", AtMostOnce)],
            &[Some("#"), Some("$SYS/#"), Some("#")],
        );
    }

    #[test]
    fn a_share_joins_no_cover() {
        use Qos::AtMostOnce;
        check(
            &[("$share/g/a/#", AtMostOnce), ("a/+", AtMostOnce), ("$share/g/a/b", AtMostOnce)],
            (&[], &[]),
            &[("$share/g/a/#", AtMostOnce), ("$share/g/a/b", AtMostOnce), ("a/+", AtMostOnce)],
            &[Some("$share/g/a/#"), Some("a/+"), Some("$share/g/a/b")],
        );
    }

    #[test]
    fn what_a_refused_filter_covered_is_subscribed_itself() {
        use Qos::AtMostOnce;
        check(
            &[("#", AtMostOnce), ("a/#", AtMostOnce), ("a/b", AtMostOnce), ("$share/g/a", AtMostOnce)],
            (&["#", "$share/g/a"], &[]),
            &[("a/#", AtMostOnce)],
            &[None, Some("a/#"), Some("a/#"), None],
        );
    }

    #[test]
    fn a_filter_that_is_to_stand_alone_does() {
        use Qos::{AtLeastOnce, AtMostOnce};
        check(
            &[("a/#", AtMostOnce), ("a/b", AtLeastOnce)],
            (&[], &["a/b"]),
            &[("a/#", AtMostOnce), ("a/b", AtLeastOnce)],
            &[Some("a/#"), Some("a/b")],
        );
    }

    proptest! {
        /// No filter on the wire is needless, and each subscription is served by one that covers it in its own domain.
        #[test]
        fn the_cover_is_minimal(texts in prop::collection::vec(filter_text(), 0..10)) {
            let subscriptions: Vec<_> = texts.iter().map(|text| (text.as_str(), Qos::AtMostOnce)).collect();
            let wanted = wanted(&subscriptions);
            let cover = cover(&wanted, &[], &[]);
            for (one, serving) in wanted.iter().zip(&cover.serving) {
                let wire = &cover.wires[serving.expect("nothing is refused")].0;
                prop_assert!(wire == &one.filter || wire.share().is_none() && one.filter.share().is_none());
                prop_assert!(wire.covers(&one.filter));
            }
            for (place, (wire, _)) in cover.wires.iter().enumerate() {
                prop_assert!(cover.serving.contains(&Some(place)));
                for (other, (covering, _)) in cover.wires.iter().enumerate() {
                    let ordinary = wire.share().is_none() && covering.share().is_none();
                    prop_assert!(place == other || !ordinary || !covering.covers(wire));
                }
            }
        }
    }
}
