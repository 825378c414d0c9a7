//! What the session is to be subscribed to: the plan that the machine carries out.
//!
//! Pure. Makes the cover of what is wanted and not refused, gives identifiers, and finds what is to be asked for. Called
//! by `machine.rs` whenever one of these changes. It sends nothing and hears nothing.

use std::collections::{BTreeSet, HashSet};

use sha2::{Digest, Sha256};

use super::{Answer, Known, Machine};
use crate::control::config::model::Protocol;
use crate::message::Qos;
use crate::path::session::cover::record::{Certainty, MAX_IDENTIFIER, Presence};
use crate::path::session::cover::set::{Cover, Rules, Wanted};
use crate::topic::{TopicFilter, TopicName, Trie};

impl Machine {
    /// Chooses the filters that are subscribed for their retained messages: on protocol 5 those of new subscriptions that
    /// a filter covers which the session has already, and which therefore brings none again.
    pub(super) fn stand_alone(&mut self) {
        self.alone.clear();
        if self.protocol == Protocol::V311 || !self.offer.is_some_and(|offer| offer.identifiers) {
            return;
        }
        let mut granted = Trie::new();
        let has = |known: &&Known| known.presence == Some(Presence::Granted) && known.filter.share().is_none();
        self.known.iter().filter(has).for_each(|known| granted.insert(&known.filter, &known.filter));
        let covered = |wanted: &&Wanted| {
            let covers = |filter: &&&TopicFilter| **filter != &wanted.filter && filter.covers(&wanted.filter);
            wanted.filter.share().is_none()
                && !self.served.contains(&wanted.filter)
                // What covers it has its example too: only few are compared.
                && granted.ranked(&example(&wanted.filter)).iter().any(covers)
        };
        self.alone = self.wanted.iter().filter(covered).map(|wanted| wanted.filter.clone()).collect();
    }

    /// Makes the cover of what is wanted and not refused, and what is to be asked for.
    pub(super) fn plan(&mut self) {
        self.stale = false;
        self.leave_out();
        self.refuse_unavailable();
        let refused = |filter: &TopicFilter| self.by_filter.get(filter).is_some_and(|at| self.is_refused(*at));
        let alone = |filter: &TopicFilter| self.alone.contains(filter);
        let Cover { wires, serving } = Cover::of(&self.wanted, &Rules { refused: &refused, alone: &alone });
        self.known.iter_mut().for_each(|known| known.wire = false);
        self.to_ask.clear();
        self.to_leave.clear();
        let mut places = Vec::with_capacity(wires.len());
        for (filter, qos) in wires {
            let at = self.current(&filter);
            let known = &mut self.known[at];
            known.wire = true;
            if known.qos != qos {
                known.qos = qos;
                if matches!(known.answer, Answer::Granted(_)) {
                    known.answer = Answer::Unasked;
                }
                if known.presence == Some(Presence::Granted) {
                    known.presence = Some(Presence::Asked);
                }
            }
            if matches!(known.answer, Answer::Unasked | Answer::Left) {
                known.answer = Answer::Unasked;
                self.intent |= known.presence != Some(Presence::Granted);
                self.to_ask.push_back(at);
            }
            places.push(at);
        }
        let own: Vec<TopicFilter> = self.wanted.iter().map(|wanted| wanted.filter.clone()).collect();
        self.serving = serving
            .into_iter()
            .zip(own)
            .map(|(wire, own)| wire.map_or_else(|| self.place(&own), |wire| places[wire]))
            .collect();
        let chosen = |wanted: &Wanted| wanted.acts && wanted.filter.share().is_none();
        let served = self.wanted.iter().zip(&self.serving).filter(|(wanted, _)| chosen(wanted));
        let deciding = served.map(|(own, at)| (own.filter.clone(), self.known[*at].identifier)).collect();
        let known = |identifier| self.by_identifier.binary_search_by_key(&identifier, |(one, _)| *one).is_ok();
        self.changes.decide(deciding, known);
    }

    /// Leaves out what was given back, and what is neither wanted nor was ever the session's.
    fn leave_out(&mut self) {
        let wanted: HashSet<&TopicFilter> = self.wanted.iter().map(|wanted| &wanted.filter).collect();
        let out = |known: &Known| match (known.answer, known.presence) {
            // The broker owes an answer.
            (Answer::Asked | Answer::Leaving, _) => false,
            (_, presence) => match presence {
                Some(Presence::Removed) => true,
                None => !wanted.contains(&known.filter),
                Some(Presence::Asked | Presence::Granted | Presence::Leaving) => false,
            },
        };
        let before = self.known.len();
        self.known.retain(|known| !out(known));
        if self.known.len() == before {
            return;
        }
        let places = || self.known.iter().enumerate();
        self.by_filter = places().map(|(at, known)| (known.filter.clone(), at)).collect();
        self.by_identifier = places().map(|(at, known)| (known.identifier, at)).collect();
        self.by_identifier.sort_unstable();
    }

    /// Refuses what the CONNACK says is not to be had: to ask for it would be a protocol error (MQTT 5 §3.2.2.3).
    fn refuse_unavailable(&mut self) {
        let Some(offer) = self.offer else { return };
        if offer.shares && offer.wildcards {
            return;
        }
        let filters: BTreeSet<TopicFilter> = self.wanted.iter().map(|wanted| wanted.filter.clone()).collect();
        for filter in filters {
            let reason = if filter.share().is_some() && !offer.shares {
                "the broker has no shared subscriptions"
            } else if filter.has_wildcard() && !offer.wildcards {
                "the broker has no wildcard subscriptions"
            } else {
                continue;
            };
            let at = self.place(&filter);
            if !self.is_refused(at) {
                self.refuse(at, reason);
            }
        }
    }

    /// The place of a filter, added where it is not known.
    fn place(&mut self, filter: &TopicFilter) -> usize {
        match self.by_filter.get(filter) {
            Some(at) => *at,
            None => {
                let identifier = self.unused_identifier();
                self.add(filter.clone(), identifier)
            }
        }
    }

    /// The place of a filter that is to be asked for. Where the broker may have dropped it meanwhile, it gets another
    /// identifier, so that a message of the time before says nothing about those after.
    fn current(&mut self, filter: &TopicFilter) -> usize {
        let at = self.place(filter);
        let known = &mut self.known[at];
        let broken = matches!(known.presence, Some(Presence::Leaving | Presence::Removed));
        if !broken || matches!(known.answer, Answer::Asked | Answer::Leaving) {
            return at;
        }
        let before = known.presence.replace(Presence::Removed);
        known.answer = Answer::Left;
        let identifier = self.unused_identifier();
        let new = self.add(filter.clone(), identifier);
        if before == Some(Presence::Leaving) {
            // The broker may have it still, under the old identifier.
            (self.known[new].presence, self.known[new].held) = (Some(Presence::Asked), true);
        }
        new
    }

    /// Adds a filter, as the current one of its text.
    pub(super) fn add(&mut self, filter: TopicFilter, identifier: u32) -> usize {
        let at = self.known.len();
        self.by_filter.insert(filter.clone(), at);
        let sorted = self.by_identifier.partition_point(|(other, _)| *other < identifier);
        self.by_identifier.insert(sorted, (identifier, at));
        self.known.push(Known {
            filter,
            identifier,
            qos: Qos::AtMostOnce,
            sent: Qos::AtMostOnce,
            presence: None,
            held: false,
            certainty: Certainty::Unsure,
            named: false,
            answer: Answer::Unasked,
            wire: false,
        });
        at
    }

    /// An identifier that no filter of the session has had.
    fn unused_identifier(&mut self) -> u32 {
        loop {
            let identifier = self.next_identifier;
            self.next_identifier = identifier_after(identifier, 1);
            if self.place_of(identifier).is_none() {
                return identifier;
            }
        }
    }
}

/// The first identifier that a daemon gives where it has no record: chance makes it unlike those of which none is left.
pub(super) fn first_identifier(salt: u64) -> u32 {
    let hash = Sha256::digest(salt.to_be_bytes());
    identifier_after(1, u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) >> 4)
}

/// The identifier so many after another one. `more`: at most 268,435,455.
pub(super) fn identifier_after(identifier: u32, more: u32) -> u32 {
    (identifier - 1 + more) % MAX_IDENTIFIER + 1
}

/// A topic name that a filter matches.
fn example(filter: &TopicFilter) -> TopicName {
    let levels: Vec<&str> = filter.levels().map(|level| if matches!(level, "+" | "#") { "x" } else { level }).collect();
    TopicName::new(levels.join("/")).expect("a filter without wildcards is a name, and this one is no longer")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topic::testing::{filter, filter_text};

    proptest! {
        #[test]
        fn what_covers_a_filter_matches_its_example(one in filter_text(), other in filter_text()) {
            let (one, other) = (filter(&one), filter(&other));
            prop_assert!(one.matches(&example(&one)));
            prop_assert!(!other.covers(&one) || other.matches(&example(&one)));
        }
    }
}
