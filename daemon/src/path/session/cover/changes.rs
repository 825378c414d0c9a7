//! Messages of which some copies were judged before a change of the subscriptions, and some after.
//!
//! Pure. A copy that was left to another one is acknowledged. If then another subscription decides, or by another filter,
//! that other copy would be left to the first in turn, and the message be missed: so it runs. Such a copy is the first to
//! come after the change, since a session's copies of one message stand together in its queue; and where it is not
//! acknowledged before the connection ends, the first of a later connection, and the broker says that it comes again
//! (MQTT 5 §4.4, §4.6). Told by `machine/plan.rs` what decides, by `copies.rs` of each copy that is to be acknowledged. It
//! decides nothing about topics that no changed filter matches.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::record::Change;
use crate::topic::{TopicFilter, TopicName};

/// More changed filters count as every filter.
const MOST: usize = 256;

/// The filter of each subscription that runs something, and the identifier of the one on the wire that serves it. Shared
/// ones are not among them: no copy of theirs is left to another.
pub(super) type Deciding = HashMap<TopicFilter, u32>;

/// Topics, by filters that match them.
#[derive(Debug, Default)]
struct Topics {
    filters: BTreeSet<TopicFilter>,
    every: bool,
}

impl Topics {
    fn every() -> Topics {
        Topics { filters: BTreeSet::new(), every: true }
    }

    fn is_empty(&self) -> bool {
        !self.every && self.filters.is_empty()
    }

    fn has(&self, topic: &TopicName) -> bool {
        self.every || self.filters.iter().any(|filter| filter.matches(topic))
    }

    fn add(&mut self, more: Topics) {
        self.filters.extend(more.filters);
        self.every |= more.every || self.filters.len() > MOST;
        if self.every {
            self.filters.clear();
        }
    }
}

/// What changed while copies may be under way.
#[derive(Debug, Default)]
pub(super) struct Changes {
    deciding: Deciding,
    /// What decided when the last copy came, if that was something else.
    judged: Option<Deciding>,
    /// Identifiers of which it was sure, at any time, that each message comes in a copy that names them: to these alone are
    /// copies left. Those that the session has no more are forgotten.
    sure: HashSet<u32>,
    /// Changed since the last copy came, beside what `judged` tells: an earlier daemon took that copy.
    recent: Topics,
    /// Changed before the last copy came: the message that both judged may come again.
    earlier: Topics,
    /// A copy has come on this connection.
    begun: bool,
}

impl Changes {
    /// This decides from now on. `known`: whether the session has an identifier, or is to have it.
    pub(super) fn decide(&mut self, deciding: Deciding, known: impl Fn(u32) -> bool) {
        if deciding == self.deciding {
            return;
        }
        let before = std::mem::replace(&mut self.deciding, deciding);
        let judged = self.judged.take().unwrap_or(before);
        // What was taken back before a copy came has judged none.
        self.judged = Some(judged).filter(|judged| *judged != self.deciding);
        let judged: HashSet<u32> = self.judged.iter().flat_map(HashMap::values).copied().collect();
        self.sure.retain(|identifier| known(*identifier) || judged.contains(identifier));
    }

    /// From now on each message that this identifier's filter brings comes in a copy that names it.
    pub(super) fn sure(&mut self, identifier: u32) {
        self.sure.insert(identifier);
    }

    /// No copy that may be under way was judged yet.
    pub(super) fn forget(&mut self) {
        self.judged = None;
        (self.recent, self.earlier) = (Topics::default(), Topics::default());
    }

    /// An earlier daemon judged by other subscriptions, or with a change of its own. `unlike`: filters that it may have
    /// had copies of, which decide nothing now.
    pub(super) fn restore(&mut self, change: Change, unlike: BTreeSet<TopicFilter>) {
        self.forget();
        match change {
            Change::Unseen => self.recent = Topics::every(),
            Change::Seen => self.earlier = Topics::every(),
            Change::None => {}
        }
        self.recent.add(Topics { filters: unlike, every: false });
    }

    /// A connection was accepted.
    pub(super) fn connected(&mut self) {
        self.begun = false;
    }

    /// Takes note of a copy that is to be acknowledged; whether it runs whatever it names. `again`: the broker has sent it
    /// before.
    pub(super) fn judge(&mut self, topic: &TopicName, again: bool) -> bool {
        let first = !std::mem::replace(&mut self.begun, true);
        if first && !again {
            // What comes again comes first, so all that earlier connections brought is acknowledged.
            self.earlier = Topics::default();
        }
        let mut recent = std::mem::take(&mut self.recent);
        if let Some(judged) = self.judged.take() {
            recent.add(Topics { filters: self.unlike(&judged), every: false });
        }
        let exempt = recent.has(topic) || first && self.earlier.has(topic);
        self.earlier.add(recent);
        exempt
    }

    /// The filters whose copies were or are left to others otherwise than by what decided then.
    fn unlike(&self, judged: &Deciding) -> BTreeSet<TopicFilter> {
        let differs =
            |other: &Deciding, filter: &TopicFilter, by: &u32| self.sure.contains(by) && other.get(filter) != Some(by);
        let before = judged.iter().filter(|(filter, by)| differs(&self.deciding, filter, by));
        let now = self.deciding.iter().filter(|(filter, by)| differs(judged, filter, by));
        before.chain(now).map(|(filter, _)| filter.clone()).collect()
    }

    /// What a later daemon has to know.
    pub(super) fn standing(&self) -> Change {
        let changed = self.judged.as_ref().is_some_and(|judged| !self.unlike(judged).is_empty());
        if changed || !self.recent.is_empty() {
            Change::Unseen
        } else if !self.earlier.is_empty() {
            Change::Seen
        } else {
            Change::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::testing::{filter, name};

    fn deciding(served: &[(&str, u32)]) -> Deciding {
        served.iter().map(|(text, by)| (filter(text), *by)).collect()
    }

    impl Changes {
        fn change(&mut self, served: &[(&str, u32)]) {
            self.decide(deciding(served), |identifier| identifier <= 3);
        }
    }

    /// After the first copy, with `a/b` alone.
    fn steady() -> Changes {
        let mut changes = Changes::default();
        changes.change(&[("a/b", 1)]);
        changes.forget();
        changes.sure(1);
        changes.connected();
        assert!(!changes.judge(&name("a/b"), false));
        changes
    }

    /// Which of these copies run whatever they name: their topics, and whether they come again. A stroke is a new
    /// connection.
    #[track_caller]
    fn check(changes: &mut Changes, copies: &[(&str, bool)], expected: &[bool]) {
        let judged: Vec<bool> = copies
            .iter()
            .filter_map(|(topic, again)| match *topic {
                "|" => {
                    changes.connected();
                    None
                }
                topic => Some(changes.judge(&name(topic), *again)),
            })
            .collect();
        assert_eq!(judged, expected);
    }

    #[test]
    fn the_first_copy_after_a_change_that_concerns_it_runs() {
        let mut changes = steady();
        changes.change(&[("a/b", 2), ("a/#", 2)]);
        changes.sure(2);
        assert_eq!(changes.standing(), Change::Unseen);
        check(&mut changes, &[("a/b", false), ("a/b", false)], &[true, false]);
        changes.change(&[("a/b", 2)]);
        check(&mut changes, &[("b", false), ("a/b", false)], &[false, false]);
        // What is another filter's business does not count, nor what was taken back.
        changes.change(&[("a/b", 2), ("z", 3)]);
        check(&mut changes, &[("a/b", false)], &[false]);
        changes.change(&[("a/b", 3), ("z", 3)]);
        changes.change(&[("a/b", 2), ("z", 3)]);
        check(&mut changes, &[("a/b", false)], &[false]);
    }

    #[test]
    fn a_filter_that_no_copy_was_left_to_changes_nothing() {
        let mut changes = steady();
        changes.change(&[("a/b", 1), ("a/+", 2)]);
        check(&mut changes, &[("a/b", false)], &[false]);
        changes.change(&[("a/b", 1), ("a/+", 3)]);
        check(&mut changes, &[("a/b", false)], &[false]);
        changes.sure(3);
        changes.change(&[("a/b", 1)]);
        check(&mut changes, &[("a/b", false)], &[true]);
    }

    #[test]
    fn what_comes_again_runs_until_a_connection_begins_without() {
        let mut changes = steady();
        changes.change(&[("a/b", 2)]);
        check(
            &mut changes,
            &[("|", false), ("a/b", false), ("|", false), ("a/b", true), ("a/b", true)],
            &[true, true, false],
        );
        check(&mut changes, &[("|", false), ("c", true), ("|", false), ("a/b", true)], &[false, true]);
        assert_eq!(changes.standing(), Change::Seen);
        check(&mut changes, &[("|", false), ("a/b", false), ("|", false), ("a/b", true)], &[false, false]);
        assert_eq!(changes.standing(), Change::None);
    }

    #[test]
    fn what_an_earlier_daemon_judged_is_told_by_its_record() {
        let mut changes = steady();
        changes.restore(Change::Unseen, BTreeSet::new());
        check(&mut changes, &[("|", false), ("a/b", false), ("a/b", false)], &[true, false]);
        changes.restore(Change::Seen, BTreeSet::new());
        check(&mut changes, &[("|", false), ("a/b", true), ("|", false), ("a/b", false)], &[true, false]);
        changes.restore(Change::None, BTreeSet::from([filter("a/+")]));
        check(&mut changes, &[("|", false), ("a/b", false), ("a/b", false)], &[true, false]);
    }

    #[test]
    fn many_changes_take_bounded_room_and_count_as_every_topic() {
        let mut changes = steady();
        for number in 0..1_000 {
            changes.change(&[("a/b", 1), (&format!("z/{number}"), 1)]);
            assert!(!changes.judge(&name("a/b"), false));
            assert!(changes.earlier.filters.len() <= MOST);
        }
        check(&mut changes, &[("a/b", false), ("|", false), ("a/b", true)], &[false, true]);
    }
}
