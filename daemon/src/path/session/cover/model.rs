//! The state machine against a broker that keeps sessions, refuses, forgets and hangs up, and a daemon that crashes.
//!
//! The model's daemon counts a message as handled only when it has acknowledged a copy that ran: what ran before a crash
//! comes again. The model's broker queues, has a send window, and answers SUBSCRIBE past what waits in the queue.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::copies::Copied;
use super::machine::{Batch, Begun, Machine, Offer, Step, WireFilter};
use super::record::{Identity, Record};
use super::set::{Cover, Rules, Wanted};
use crate::control::config::model::Protocol;
use crate::message::Qos;
use crate::topic::testing::{filter, name};
use crate::topic::{Rank, TopicFilter};

/// Ordinary filters, then shared ones, then one that matches none of the topics.
const FILTERS: [&str; 11] =
    ["a/+", "+/b", "a/#", "a/b", "#", "+/c", "a/c", "$share/g/a/+", "$share/g/#", "$share/h/a/b", "z/z"];
const ORDINARY: usize = 7;
const SHARED_TOO: usize = 10;
const UNRELATED: usize = 10;
const TOPICS: [&str; 5] = ["a/b", "a/c", "d/b", "a", "d/e"];

/// How a broker sends a message that several filters of one client match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    CopyEach,
    OneWithAll,
    OneWithout,
}

#[derive(Clone, Debug)]
enum ToBroker {
    Subscribe(Vec<WireFilter>),
    Unsubscribe(Vec<TopicFilter>),
    Ack,
}

#[derive(Clone, Debug)]
enum ToDaemon {
    Subscribed(Vec<TopicFilter>, Vec<Result<Qos, &'static str>>),
    Unsubscribed(Vec<TopicFilter>),
    Publish(Sent),
}

/// One copy of a message.
#[derive(Clone, Debug)]
struct Sent {
    message: usize,
    identifiers: Vec<u32>,
    again: bool,
}

/// What the broker keeps.
#[derive(Debug, Default)]
struct Kept {
    filters: BTreeMap<TopicFilter, Option<u32>>,
    queue: VecDeque<Sent>,
    unacknowledged: VecDeque<Sent>,
}

struct Broker {
    policy: Policy,
    window: usize,
    session: Option<Kept>,
    refused: BTreeSet<TopicFilter>,
    /// Whether a refusal ends an earlier subscription to the same filter.
    drops: bool,
}

/// What a message owes.
#[derive(Debug, Default)]
struct Message {
    topic: &'static str,
    /// The subscriptions that have been wanted and granted all the time since it was published: one call is due for the
    /// ordinary ones together and one for each share.
    due: BTreeSet<TopicFilter>,
    /// Calls by domain: none is the ordinary one.
    handled: BTreeMap<Option<TopicFilter>, usize>,
}

/// An arrived copy whose acknowledgement is not given yet, with the domains that it ran in.
type Open = (usize, Vec<Option<TopicFilter>>);

struct World {
    protocol: Protocol,
    broker: Broker,
    /// The filters and QoS that are wanted.
    wanted: Vec<(usize, Qos)>,
    disk: Option<Record>,
    machine: Machine,
    /// How many daemons there were before.
    salt: u64,
    connected: bool,
    up: VecDeque<ToBroker>,
    down: VecDeque<ToDaemon>,
    open: VecDeque<Open>,
    messages: Vec<Message>,
    /// The broker's session may have filters that no record names.
    unrecorded: bool,
    /// The session was reset, and not begun anew since.
    reset: bool,
    /// Wanted filters that the broker's session has covered: there must be no gap.
    covered: BTreeSet<TopicFilter>,
}

/// What happens.
#[derive(Clone, Debug)]
enum Op {
    Connect,
    Drop,
    Step,
    /// As `Step`, but a record cannot be written: the old one is gone, and the daemon goes on.
    StepUnsaved,
    BrokerTakes,
    DaemonTakes,
    Acknowledge,
    /// Topic, and whether another member of a group gets what is shared.
    Publish(usize, bool),
    /// Another daemon starts, after a crash or a clean stop, with these subscriptions or the same.
    Restart(bool, Option<Vec<(usize, Qos)>>),
    Want(Vec<(usize, Qos)>),
    Refuse(Option<usize>),
    Expire,
    /// The broker is made to forget the session.
    Reset,
}

fn wanted(filters: &[(usize, Qos)]) -> Vec<Wanted> {
    filters.iter().map(|(at, qos)| Wanted { filter: filter(FILTERS[*at]), qos: *qos, acts: true }).collect()
}

fn identity() -> Identity {
    serde_json::from_str(r#"{"address":"a","port":1,"client-id":"c"}"#).expect("is one")
}

impl World {
    fn new(protocol: Protocol, broker: Broker, first: Vec<(usize, Qos)>) -> World {
        World {
            protocol,
            broker,
            machine: Machine::new(protocol, Some(identity()), wanted(&first), 0),
            salt: 0,
            wanted: first,
            disk: None,
            connected: false,
            up: VecDeque::new(),
            down: VecDeque::new(),
            open: VecDeque::new(),
            messages: Vec::new(),
            unrecorded: false,
            reset: false,
            covered: BTreeSet::new(),
        }
    }

    fn identifiers(&self) -> bool {
        self.protocol == Protocol::V5 && self.broker.policy != Policy::OneWithout
    }

    fn filters(&self) -> BTreeSet<TopicFilter> {
        self.wanted.iter().map(|(at, _)| filter(FILTERS[*at])).collect()
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Connect if !self.connected => self.connect(),
            Op::Drop => self.drop_connection(),
            Op::Step | Op::StepUnsaved if self.connected => _ = self.step(matches!(op, Op::Step)),
            Op::BrokerTakes => _ = self.broker_takes(),
            Op::DaemonTakes => _ = self.daemon_takes(),
            Op::Acknowledge => _ = self.acknowledge(),
            Op::Publish(topic, elsewhere) => self.publish(TOPICS[topic], elsewhere),
            Op::Restart(clean, filters) => {
                if clean && let Some(record) = self.machine.unsaved() {
                    self.disk = Some(record);
                }
                self.drop_connection();
                if let Some(filters) = filters {
                    self.change(filters);
                }
                self.salt += 1;
                self.machine = Machine::new(self.protocol, Some(identity()), wanted(&self.wanted), self.salt);
                self.unrecorded |= self.disk.is_none() && self.broker.session.is_some();
                if let Some(record) = &self.disk {
                    let read = Record::parse(&record.text()).expect("what was written is read");
                    assert!(self.machine.restore(&read));
                }
            }
            Op::Want(filters) => {
                self.change(filters);
                self.machine.want(wanted(&self.wanted));
            }
            Op::Refuse(which) => {
                self.broker.refused = which.map(|at| filter(FILTERS[at])).into_iter().collect();
                let refused = &self.broker.refused;
                self.messages.iter_mut().for_each(|message| message.due.retain(|filter| !refused.contains(filter)));
                self.covered.retain(|filter| !refused.contains(filter));
            }
            Op::Expire if !self.connected => self.forget(),
            Op::Reset if !self.connected => {
                self.forget();
                self.machine.was_reset();
                self.disk = None;
                self.reset = true;
            }
            _ => {}
        }
        self.check_gap();
    }

    /// Nothing is left of the broker's session.
    fn forget(&mut self) {
        self.broker.session = None;
        self.unrecorded = false;
        self.covered.clear();
        self.messages.iter_mut().for_each(|message| message.due.clear());
    }

    fn change(&mut self, filters: Vec<(usize, Qos)>) {
        self.wanted = filters;
        let filters = self.filters();
        self.covered.retain(|filter| filters.contains(filter));
        self.messages.iter_mut().for_each(|message| message.due.retain(|filter| filters.contains(filter)));
    }

    fn has(&self, wanted: &TopicFilter) -> bool {
        let covers = |filter: &TopicFilter| {
            filter == wanted || filter.share().is_none() && wanted.share().is_none() && filter.covers(wanted)
        };
        self.broker.session.as_ref().is_some_and(|kept| kept.filters.keys().any(covers))
    }

    /// What was covered and is still wanted stays covered.
    fn check_gap(&mut self) {
        for filter in &self.covered {
            assert!(self.has(filter), "a gap in {filter}");
        }
        if self.connected {
            let granted = (0..self.wanted.len()).filter(|place| self.machine.is_granted(*place));
            let refused = &self.broker.refused;
            let filters = granted.map(|place| filter(FILTERS[self.wanted[place].0]));
            self.covered.extend(filters.filter(|filter| !refused.contains(filter)));
        }
    }

    fn connect(&mut self) {
        if let Some(record) = self.machine.connecting() {
            self.disk = Some(record);
        }
        self.connected = true;
        let session_present = self.broker.session.is_some();
        let kept = self.broker.session.get_or_insert_default();
        let mut again = std::mem::take(&mut kept.unacknowledged);
        again.iter_mut().for_each(|sent| sent.again = true);
        again.append(&mut kept.queue);
        kept.queue = again;
        let offer = Offer { session_present, identifiers: self.identifiers(), shares: true, wildcards: true };
        let begun = self.machine.connected(offer);
        if session_present && self.disk.is_some() {
            assert_eq!(begun, Begun::Resumed);
        }
        if std::mem::take(&mut self.reset) {
            assert_eq!(begun, Begun::New, "a reset is no loss");
        }
        self.send();
    }

    fn drop_connection(&mut self) {
        self.connected = false;
        self.up.clear();
        self.down.clear();
        self.open.clear();
    }

    /// The daemon takes its next step; false when there is none now.
    fn step(&mut self, saved: bool) -> bool {
        let batch = if self.protocol == Protocol::V5 { 1 } else { 2 };
        match self.machine.next(Batch { subscribe: batch, unsubscribe: batch }) {
            Step::Save(record) if saved => self.disk = Some(record),
            Step::Save(_) => {
                self.disk = None;
                self.machine.not_saved();
            }
            Step::Subscribe(filters) => {
                let named = |wire: &WireFilter| {
                    let record = self.disk.iter().flat_map(|record| &record.filters);
                    record.into_iter().any(|entry| entry.filter == wire.filter.as_str())
                };
                assert!(!saved || filters.iter().all(named) || self.disk.is_none(), "asked before it was recorded");
                self.up.push_back(ToBroker::Subscribe(filters));
            }
            Step::Unsubscribe(filters) => self.up.push_back(ToBroker::Unsubscribe(filters)),
            Step::Wait | Step::Done => return false,
        }
        true
    }

    /// The broker sends what its window permits.
    fn send(&mut self) {
        let Some(kept) = self.broker.session.as_mut().filter(|_| self.connected) else { return };
        while kept.unacknowledged.len() < self.broker.window {
            let Some(sent) = kept.queue.pop_front() else { break };
            self.down.push_back(ToDaemon::Publish(sent.clone()));
            kept.unacknowledged.push_back(sent);
        }
    }

    fn broker_takes(&mut self) -> bool {
        let identifiers = self.identifiers();
        let Some(kept) = self.broker.session.as_mut() else { return false };
        let mut gap_of_its_own = false;
        match self.up.pop_front() {
            None => return false,
            Some(ToBroker::Ack) => _ = kept.unacknowledged.pop_front(),
            Some(ToBroker::Subscribe(filters)) => {
                let mut reasons = Vec::new();
                for wire in &filters {
                    if self.broker.refused.contains(&wire.filter) {
                        if self.broker.drops {
                            gap_of_its_own |= kept.filters.remove(&wire.filter).is_some();
                        }
                        reasons.push(Err("refused"));
                    } else {
                        kept.filters.insert(wire.filter.clone(), identifiers.then_some(wire.identifier));
                        reasons.push(Ok(wire.qos));
                    }
                }
                let filters = filters.into_iter().map(|wire| wire.filter).collect();
                self.down.push_back(ToDaemon::Subscribed(filters, reasons));
            }
            Some(ToBroker::Unsubscribe(filters)) => {
                filters.iter().for_each(|filter| _ = kept.filters.remove(filter));
                self.down.push_back(ToDaemon::Unsubscribed(filters));
            }
        }
        if gap_of_its_own {
            let covered = std::mem::take(&mut self.covered);
            self.covered = covered.into_iter().filter(|filter| self.has(filter)).collect();
        }
        self.send();
        true
    }

    fn daemon_takes(&mut self) -> bool {
        match self.down.pop_front() {
            None => return false,
            Some(ToDaemon::Subscribed(filters, reasons)) => self.machine.subscribed(&filters, &reasons),
            Some(ToDaemon::Unsubscribed(filters)) => {
                let reasons = vec![Ok(()); filters.len()];
                self.machine.unsubscribed(&filters, &reasons);
            }
            Some(ToDaemon::Publish(sent)) => {
                let domains = self.route(&sent);
                self.open.push_back((sent.message, domains));
            }
        }
        true
    }

    /// The domains in which a copy runs, as the router decides it.
    fn route(&mut self, sent: &Sent) -> Vec<Option<TopicFilter>> {
        let topic = name(self.messages[sent.message].topic);
        let wanted = wanted(&self.wanted);
        let copied = Copied { topic: &topic, identifiers: &sent.identifiers, acknowledged: true, again: sent.again };
        let copy = self.machine.arrived(&copied);
        let mut places: Vec<usize> =
            (0..wanted.len()).filter(|place| wanted[*place].filter.matches(&topic) && copy.concerns(*place)).collect();
        places.sort_by_key(|place| Rank::of(&wanted[*place].filter));
        let domain = |place: &usize| {
            let filter = &wanted[*place].filter;
            filter.share().is_some().then(|| filter.clone())
        };
        let domains: BTreeSet<Option<TopicFilter>> = places.iter().map(domain).collect();
        let counts = |one: &Option<TopicFilter>| {
            let mut places = places.iter().filter(|place| domain(place) == *one);
            places.find(|place| copy.decides(**place)).is_none_or(|winner| copy.carries(*winner))
        };
        domains.into_iter().filter(counts).collect()
    }

    fn acknowledge(&mut self) -> bool {
        let Some((message, domains)) = self.open.pop_front() else { return false };
        for domain in domains {
            *self.messages[message].handled.entry(domain).or_default() += 1;
        }
        self.up.push_back(ToBroker::Ack);
        true
    }

    fn publish(&mut self, topic: &'static str, elsewhere: bool) {
        let number = self.messages.len();
        let mut message = Message { topic, ..Message::default() };
        let wanted = self.filters();
        if let Some(kept) = &mut self.broker.session {
            let topic = name(topic);
            let matching: Vec<(&TopicFilter, Option<u32>)> =
                kept.filters.iter().filter(|(f, _)| f.matches(&topic)).map(|(f, id)| (f, *id)).collect();
            let ids = |share: bool| {
                let of = matching.iter().filter(move |(f, _)| f.share().is_some() == share);
                of.map(|(_, id)| id.iter().copied().collect::<Vec<u32>>()).collect::<Vec<_>>()
            };
            let mut copies = match (self.broker.policy, ids(false)) {
                (_, ordinary) if ordinary.is_empty() => Vec::new(),
                (Policy::CopyEach, ordinary) => ordinary,
                (Policy::OneWithAll | Policy::OneWithout, ordinary) => vec![ordinary.concat()],
            };
            if !elsewhere {
                copies.extend(ids(true));
            }
            let has = |f: &&TopicFilter| {
                f.matches(&topic)
                    && !self.broker.refused.contains(f)
                    && match f.share() {
                        Some(_) => !elsewhere && matching.iter().any(|(has, _)| has == f),
                        None => matching.iter().any(|(has, _)| has.share().is_none()),
                    }
            };
            message.due = wanted.iter().filter(has).cloned().collect();
            let sent = |identifiers| Sent { message: number, identifiers, again: false };
            kept.queue.extend(copies.into_iter().map(sent));
        }
        self.messages.push(message);
        self.send();
    }

    /// Everything goes its way until nothing moves.
    fn calm(&mut self) {
        for _ in 0..10_000 {
            let moved = [self.step(true), self.broker_takes(), self.daemon_takes(), self.acknowledge()];
            self.check_gap();
            if moved == [false; 4] {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// A connection without disturbance, to its calm end.
    fn quiet_connection(&mut self) {
        self.drop_connection();
        self.connect();
        self.calm();
    }

    /// The broker's session has what is needed and nothing else. `alone`: also what was added for its retained messages.
    fn check_session(&self, alone: bool) {
        let kept = self.broker.session.as_ref().expect("it is connected");
        // On 3.1.1 what the session has is not asked for again, and so not refused.
        let refused: BTreeSet<TopicFilter> =
            self.broker.refused.iter().filter(|filter| self.machine.refuses(filter)).cloned().collect();
        let rules = Rules { refused: &|filter| refused.contains(filter), alone: &|_| false };
        let cover = Cover::of(&wanted(&self.wanted), &rules);
        let needed: BTreeSet<TopicFilter> = cover.wires.into_iter().map(|(filter, _)| filter).collect();
        let has: BTreeSet<TopicFilter> = kept.filters.keys().cloned().collect();
        assert!(has.is_superset(&needed), "missing: {needed:?} of {has:?}");
        let wanted = self.filters();
        let excused = |filter: &&TopicFilter| wanted.contains(filter) && (alone || refused.contains(filter));
        let more: Vec<_> = has.difference(&needed).filter(|filter| !excused(filter)).collect();
        assert!(self.unrecorded || more.is_empty(), "left over: {more:?} beside {needed:?}");
    }

    /// Each message that is due was handled.
    fn check_none_missed(&self) {
        for (number, message) in self.messages.iter().enumerate() {
            let domains: BTreeSet<Option<TopicFilter>> =
                message.due.iter().map(|f| f.share().is_some().then(|| f.clone())).collect();
            for domain in domains {
                assert!(message.handled.contains_key(&domain), "message {number} missed in {domain:?}: {message:?}");
            }
        }
    }

    /// From now on each message is handled once in each domain.
    fn check_steady(&mut self) {
        // In the first round certainty may still be missing.
        self.check_handled(|times| times >= 1);
        self.check_handled(|times| times == 1);
    }

    /// A change that has nothing to do with a message makes it run no second time, nor does a later connection.
    fn check_unrelated_changes(&mut self) {
        for _ in 0..2 {
            let mut filters = self.wanted.clone();
            match filters.iter().position(|(at, _)| *at == UNRELATED) {
                Some(place) => _ = filters.remove(place),
                None => filters.push((UNRELATED, Qos::AtLeastOnce)),
            }
            self.apply(Op::Want(filters));
            self.check_handled(|times| times == 1);
            self.quiet_connection();
            self.check_handled(|times| times == 1);
        }
    }

    /// Of a message's copies one is acknowledged before a change, and the others come after it: it is not missed.
    fn check_changes_between_copies(&mut self, changes: Vec<(Vec<(usize, Qos)>, bool)>) {
        for (filters, reconnects) in changes {
            self.check_handled(|times| times >= 1);
            self.publish("a/b", false);
            while self.open.is_empty() && self.daemon_takes() {}
            self.acknowledge();
            self.broker_takes();
            self.apply(Op::Want(filters));
            if reconnects {
                self.quiet_connection();
            }
            self.calm();
            self.check_none_missed();
        }
    }

    /// How often a message of each topic is handled in each domain from now on.
    fn check_handled(&mut self, right: fn(usize) -> bool) {
        let from = self.messages.len();
        TOPICS.into_iter().for_each(|topic| self.publish(topic, false));
        self.calm();
        for message in &self.messages[from..] {
            let wanted: Vec<_> = self.filters().into_iter().filter(|f| f.matches(&name(message.topic))).collect();
            let granted = wanted.iter().filter(|f| !self.broker.refused.contains(f));
            let domains: BTreeSet<_> = granted.map(|f| f.share().is_some().then(|| f.clone())).collect();
            for domain in domains {
                let times = message.handled.get(&domain).copied().unwrap_or_default();
                assert!(right(times), "{times} times in {domain:?}: {message:?}");
            }
        }
    }
}

fn filters(most: usize) -> impl Strategy<Value = Vec<(usize, Qos)>> {
    let qos = prop::sample::select(vec![Qos::AtMostOnce, Qos::AtLeastOnce]);
    prop::collection::btree_map(0..most, qos, 0..5).prop_map(|map| map.into_iter().collect())
}

fn op(most: usize) -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => Just(Op::Connect),
        1 => Just(Op::Drop),
        8 => Just(Op::Step),
        1 => Just(Op::StepUnsaved),
        8 => Just(Op::BrokerTakes),
        8 => Just(Op::DaemonTakes),
        4 => Just(Op::Acknowledge),
        6 => (0..TOPICS.len(), any::<bool>()).prop_map(|(topic, elsewhere)| Op::Publish(topic, elsewhere)),
        2 => (any::<bool>(), prop::option::of(filters(most))).prop_map(|(clean, filters)| Op::Restart(clean, filters)),
        3 => filters(most).prop_map(Op::Want),
        1 => prop::option::of(0..most).prop_map(Op::Refuse),
        1 => Just(Op::Expire),
        1 => Just(Op::Reset),
    ]
}

/// The broker's protocol, policy, window and whether a refusal drops; the first subscriptions; what happens; and changes
/// after that, with or without a reconnect.
type History = (Protocol, Policy, usize, bool, Vec<(usize, Qos)>, Vec<Op>, Vec<(Vec<(usize, Qos)>, bool)>);

fn history() -> impl Strategy<Value = History> {
    let kinds = prop::sample::select(vec![
        (Protocol::V5, Policy::CopyEach, SHARED_TOO),
        (Protocol::V5, Policy::OneWithAll, SHARED_TOO),
        (Protocol::V5, Policy::OneWithout, ORDINARY),
        (Protocol::V311, Policy::OneWithout, ORDINARY),
    ]);
    kinds.prop_flat_map(|(protocol, policy, most)| {
        let ops = prop::collection::vec(op(most), 0..120);
        let changes = prop::collection::vec((filters(most), any::<bool>()), 0..4);
        (Just(protocol), Just(policy), 1..4_usize, any::<bool>(), filters(most), ops, changes)
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        // As many as PROPTEST_CASES asks for, but never fewer.
        cases: ProptestConfig::default().cases.max(1_000),
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    })]

    /// Whatever happens, no granted topic has a gap while it is wanted, no message that is due is missed; and once the
    /// connection is quiet the session has exactly what it needs, and each message is handled once, whatever else changes.
    #[test]
    fn every_history_ends_well((protocol, policy, window, drops, first, ops, changes) in history()) {
        let broker = Broker { policy, window, session: None, refused: BTreeSet::new(), drops };
        let mut world = World::new(protocol, broker, first);
        ops.into_iter().for_each(|op| world.apply(op));
        world.quiet_connection();
        world.check_session(true);
        world.check_none_missed();
        world.quiet_connection();
        world.check_session(false);
        world.check_steady();
        world.check_unrelated_changes();
        world.check_changes_between_copies(changes);
    }
}
