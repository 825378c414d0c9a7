//! What one copy of a message says about the filters that brought it, and whether it is the one that counts.
//!
//! Pure, read by the router for every message. A broker may send a message once for each filter that matches it, once with
//! all their identifiers, or once without any (MQTT 5 §3.3.4). Exactly one of the copies is to run: the one that names
//! the filter of the best subscription, and a copy is left to that one only if it is sure to come. It chooses no winner
//! among the subscriptions that run: that is the router's.

use smallvec::SmallVec;

use super::machine::Machine;
use crate::topic::TopicName;

/// One copy of a message as it came.
pub(in crate::path::session) struct Copied<'a> {
    pub(in crate::path::session) topic: &'a TopicName,
    /// Subscription identifiers, if any.
    pub(in crate::path::session) identifiers: &'a [u32],
    /// It is acknowledged.
    pub(in crate::path::session) acknowledged: bool,
    /// The broker has sent it before.
    pub(in crate::path::session) again: bool,
}

/// What a copy tells.
pub struct WireCopy<'a> {
    machine: &'a Machine,
    /// It names no filter at all.
    silent: bool,
    /// The filters that it names, as far as they are known.
    named: SmallVec<[usize; 4]>,
    /// Only filters that serve no subscription any more brought it: no other copy may come.
    orphan: bool,
    /// It runs whatever it names: `changes.rs` tells why.
    exempt: bool,
    again: bool,
}

impl Machine {
    /// Takes note of a copy, and says what it tells.
    pub(in crate::path::session) fn arrived(&mut self, copy: &Copied<'_>) -> WireCopy<'_> {
        // An unknown identifier is that of a filter that was given back, or of a daemon that left no record.
        let known = copy.identifiers.iter().filter_map(|identifier| self.place_of(*identifier));
        let named: SmallVec<[usize; 4]> = known.filter(|at| self.known[*at].filter.matches(copy.topic)).collect();
        let orphan = named.iter().all(|at| !self.known[*at].wire);
        if self.fresh {
            self.changes.forget();
        }
        let before = self.changes.standing();
        let exempt = copy.acknowledged && self.changes.judge(copy.topic, copy.again);
        self.dirty |= before != self.changes.standing();
        self.named(&named);
        WireCopy { machine: self, silent: copy.identifiers.is_empty(), named, orphan, exempt, again: copy.again }
    }
}

impl WireCopy<'_> {
    /// Whether a subscription is one that this copy came for: the broker has granted it, and the copy is of its dispatch
    /// domain. The place counts the broker's subscriptions in the order of the configuration.
    pub fn concerns(&self, subscription: usize) -> bool {
        let at = self.machine.serving[subscription];
        if self.machine.is_lost(subscription) && !self.named.contains(&at) {
            return false;
        }
        self.silent
            || self.orphan
            || match self.machine.known[at].filter.share() {
                // A copy of a shared subscription came to this member of the group alone.
                Some(_) => self.named.contains(&at),
                None => self.named.iter().any(|at| self.machine.known[*at].filter.share().is_none()),
            }
    }

    /// Whether this subscription may be the winner that decides which copy counts: one whose own copy is sure to come.
    /// Where nothing is told, every one.
    pub fn decides(&self, subscription: usize) -> bool {
        let at = self.machine.serving[subscription];
        self.carries(subscription) || self.machine.is_sure(at, self.again)
    }

    /// Whether this copy is the one that this subscription's filter on the wire brought: by identifier on protocol 5,
    /// always where the copy has no identifier.
    pub fn carries(&self, subscription: usize) -> bool {
        self.silent || self.exempt || self.named.contains(&self.machine.serving[subscription])
    }
}
