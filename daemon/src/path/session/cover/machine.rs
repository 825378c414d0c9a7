//! The subscriptions of one broker's session as a state machine: what is wanted, what the broker has, what is under way.
//!
//! Pure. Told what happens (`connected`, `subscribed`, `unsubscribed`, `arrived`, `want`) and asked for the next step.
//! A change is SUBSCRIBE first, its SUBACK, and only then UNSUBSCRIBE of what nobody wants any more, so that a topic that
//! was granted and is still wanted is covered all the while; what the broker refuses leaves what it has in place. Before
//! a packet is sent, the record names its filters. Which copy of a message counts is decided in `copies.rs`,
//! what the session is to have in `machine/plan.rs`.

mod plan;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use sha2::{Digest, Sha256};

use self::plan::{first_identifier, identifier_after};
use super::changes::Changes;
use super::record::{Certainty, Change, Entry, Identity, Presence, Record, VERSION};
use super::set::Wanted;
use crate::control::config::model::Protocol;
use crate::message::Qos;
use crate::path::session::status::Standing;
use crate::topic::TopicFilter;

/// A filter as SUBSCRIBE asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireFilter {
    /// The filter, with its share.
    pub filter: TopicFilter,
    /// At most 1.
    pub qos: Qos,
    /// Its subscription identifier on protocol 5, 1..=268,435,455.
    pub identifier: u32,
    /// The retained messages are wanted if the subscription is new to the broker; protocol 5 only.
    pub replay: bool,
}

/// What the CONNACK says about subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    /// The broker kept the session.
    pub(super) session_present: bool,
    /// It takes subscription identifiers.
    pub(super) identifiers: bool,
    /// It takes shared subscriptions.
    pub(super) shares: bool,
    /// It takes wildcards in filters.
    pub(super) wildcards: bool,
}

/// How a session begins or goes on with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// A new session, as expected.
    New,
    /// A new session, though the broker was to keep the last one.
    Lost,
    /// The session that is known.
    Resumed,
    /// A session that nothing is known of.
    Unknown,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Write the record, then ask again.
    Save(Record),
    /// Send one SUBSCRIBE.
    Subscribe(Vec<WireFilter>),
    /// Send one UNSUBSCRIBE.
    Unsubscribe(Vec<TopicFilter>),
    /// The broker owes answers.
    Wait,
    /// The broker has answered for every subscription, and nothing is left to give back.
    Done,
}

/// How many identifiers a daemon skips at most when it takes a record over.
const GAP: u32 = 1_024;

/// How many filters go into one packet.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// Of SUBSCRIBE.
    pub subscribe: usize,
    /// Of UNSUBSCRIBE.
    pub unsubscribe: usize,
}

/// How a filter stands on the present connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Nothing was sent for it.
    Unasked,
    /// SUBSCRIBE is under way.
    Asked,
    /// The broker has it: at this QoS, as the SUBACK said; where none was asked for, as it was asked for before.
    Granted(Qos),
    /// SUBACK, or the CONNACK, refused it for this reason.
    Refused(&'static str),
    /// UNSUBSCRIBE is under way.
    Leaving,
    /// It was given back, or could not be.
    Left,
}

/// A filter that the session has, had or is to have.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) filter: TopicFilter,
    identifier: u32,
    /// As it is to be asked for, or was.
    qos: Qos,
    /// As the last SUBSCRIBE said.
    sent: Qos,
    /// None if the broker has never had it in this session.
    presence: Option<Presence>,
    /// The broker has granted it in this session, or may have.
    held: bool,
    certainty: Certainty,
    /// A copy has named it on this connection.
    named: bool,
    answer: Answer,
    /// It serves subscriptions.
    pub(super) wire: bool,
}

/// A subscription that the broker refused, or a lower QoS than was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The broker does not grant this filter.
    Refused(TopicFilter, &'static str),
    /// The broker does not give this filter back.
    Kept(TopicFilter, &'static str),
    /// Filter, asked, granted.
    Lowered(TopicFilter, Qos, Qos),
}

/// The state of one session's subscriptions.
pub(super) struct Machine {
    protocol: Protocol,
    /// None where the broker keeps no session: then nothing is recorded.
    session: Option<Identity>,
    /// By place.
    wanted: Vec<Wanted>,
    /// The identifier that is given next, unless it is in use: they rise, and begin anew at 1 after the largest.
    next_identifier: u32,
    /// In the order of first use; what the session neither has nor is to have is left out with each plan.
    pub(super) known: Vec<Known>,
    by_filter: HashMap<TopicFilter, usize>,
    /// Identifiers and their filters, ascending.
    by_identifier: Vec<(u32, usize)>,
    /// The filter that serves each subscription; where it is refused, its own.
    pub(super) serving: Vec<usize>,
    /// Filters of subscriptions that the session has had the retained messages of.
    served: BTreeSet<TopicFilter>,
    /// Filters that are on the wire for their retained messages, though another one covers them.
    alone: BTreeSet<TopicFilter>,
    /// The broker has, or is to have, a session of this daemon.
    began: bool,
    /// The CONNACK of a connection is awaited.
    connecting: bool,
    offer: Option<Offer>,
    /// The session began with this connection and no message has come: nothing can be queued.
    pub(super) fresh: bool,
    /// By which of them a copy counts that others may have been left to.
    pub(super) changes: Changes,
    to_ask: VecDeque<usize>,
    to_leave: VecDeque<usize>,
    /// Filters that the broker owes an answer for.
    open: usize,
    /// The cover must be made anew.
    stale: bool,
    /// The record must be written before a packet is sent.
    intent: bool,
    /// The record is not what was written last.
    pub(super) dirty: bool,
    /// The record could not be written on this connection.
    unwritable: bool,
    news: Vec<News>,
}

impl Machine {
    /// A session of which nothing is known. `salt` is another number for each daemon: without a record, a filter must not
    /// get the identifier that an earlier daemon gave it, for it may have dropped that.
    pub(super) fn new(protocol: Protocol, session: Option<Identity>, wanted: Vec<Wanted>, salt: u64) -> Machine {
        let mut machine = Machine {
            protocol,
            session,
            wanted,
            next_identifier: first_identifier(salt),
            known: Vec::new(),
            by_filter: HashMap::new(),
            by_identifier: Vec::new(),
            serving: Vec::new(),
            served: BTreeSet::new(),
            alone: BTreeSet::new(),
            began: false,
            connecting: false,
            offer: None,
            fresh: false,
            changes: Changes::default(),
            to_ask: VecDeque::new(),
            to_leave: VecDeque::new(),
            open: 0,
            stale: true,
            intent: false,
            dirty: false,
            unwritable: false,
            news: Vec::new(),
        };
        machine.plan();
        machine.changes.forget();
        machine
    }

    /// Takes over what an earlier daemon recorded, before the first connection. False if it is about another session.
    pub(super) fn restore(&mut self, record: &Record) -> bool {
        if self.session.as_ref() != Some(&record.session) {
            return false;
        }
        self.forget();
        self.began = true;
        if let Some(next) = record.next_identifier {
            // Where the file system did not take the last record in time, this one may be older than what was given last.
            self.next_identifier = identifier_after(next, self.next_identifier % GAP);
        }
        for entry in record.filters.iter().filter(|entry| entry.presence != Presence::Removed) {
            let Ok(filter) = TopicFilter::new(entry.filter.as_str()) else { continue };
            let at = self.add(filter, entry.identifier);
            let (presence, certainty) = match entry.presence {
                Presence::Granted if record.connecting => (Presence::Asked, Certainty::Unsure),
                presence if record.connecting => (presence, Certainty::Unsure),
                presence => (presence, entry.certainty),
            };
            let known = &mut self.known[at];
            if entry.certainty != Certainty::Unsure {
                self.changes.sure(entry.identifier);
            }
            known.qos = Qos::from_number(entry.qos).unwrap_or(Qos::AtMostOnce);
            (known.presence, known.certainty) = (Some(presence), certainty);
            // What was asked for twice may have been granted in between.
            known.held = true;
        }
        if !record.connecting {
            self.served = record.served.iter().filter_map(|text| TopicFilter::new(text.as_str()).ok()).collect();
        }
        self.connecting = record.connecting;
        self.plan();
        let same = record.subscriptions == digest(&self.wanted);
        // What was on the wire beside a filter that covers it has decided, too.
        let unlike = self.known.iter().filter(|known| !known.wire).map(|known| known.filter.clone()).collect();
        self.changes.restore(if same { record.change } else { Change::Unseen }, unlike);
        true
    }

    /// Other subscriptions are wanted from now on. Places count anew.
    pub(super) fn want(&mut self, wanted: Vec<Wanted>) {
        if self.wanted == wanted {
            return;
        }
        let before = std::mem::replace(&mut self.wanted, wanted);
        let before: HashSet<&TopicFilter> = before.iter().map(|one| &one.filter).collect();
        for one in self.wanted.iter().filter(|one| !before.contains(&one.filter)) {
            // The broker may grant now what it refused when it was wanted before.
            if let Some(at) = self.by_filter.get(&one.filter).copied().filter(|at| self.is_refused(*at)) {
                self.known[at].answer = Answer::Unasked;
            }
        }
        self.dirty = true;
        self.stand_alone();
        self.plan();
    }

    /// The broker was made to forget the session, between two connections: nothing is left of it, and no loss is to be
    /// told.
    pub(super) fn was_reset(&mut self) {
        self.forget();
        (self.began, self.connecting, self.dirty, self.intent) = (false, false, false, false);
        self.plan();
    }

    /// A connection is about to be made. The record, where it must be written first: should the broker begin a new session
    /// and the daemon crash before it has noted that, what is recorded of the old one must not be taken for true.
    pub(super) fn connecting(&mut self) -> Option<Record> {
        if self.connecting || !self.began {
            return None;
        }
        (self.connecting, self.dirty) = (true, true);
        self.unsaved()
    }

    /// A connection was accepted.
    pub(super) fn connected(&mut self, offer: Offer) -> Begun {
        let begun = match (offer.session_present, self.began) {
            _ if self.session.is_none() => Begun::New,
            (true, true) => Begun::Resumed,
            (true, false) => Begun::Unknown,
            (false, true) => Begun::Lost,
            (false, false) => Begun::New,
        };
        self.began = self.session.is_some();
        self.offer = Some(offer);
        self.fresh = !offer.session_present;
        self.changes.connected();
        self.unwritable = false;
        self.open = 0;
        self.dirty |= begun != Begun::Resumed || self.connecting;
        self.connecting = false;
        if !offer.session_present {
            self.forget();
        }
        for known in &mut self.known {
            // On 3.1.1 every SUBSCRIBE brings the retained messages again (MQTT 3.1.1 §3.8.4 [MQTT-3.8.4-3]), on
            // protocol 5 only that of a new subscription: there it is asked anew, in case the broker has forgotten.
            let has = self.protocol == Protocol::V311 && known.presence == Some(Presence::Granted);
            known.answer = if has { Answer::Granted(known.qos) } else { Answer::Unasked };
            known.named = false;
            known.held |= known.presence == Some(Presence::Asked);
        }
        self.stand_alone();
        self.plan();
        begun
    }

    /// What to do now. A packet that it names counts as sent.
    pub(super) fn next(&mut self, batch: Batch) -> Step {
        if self.offer.is_none() {
            return Step::Wait;
        }
        if self.stale && self.open == 0 && self.to_ask.is_empty() {
            self.plan();
        }
        if !self.to_ask.is_empty() {
            return self.write_ahead().unwrap_or_else(|| self.ask(batch.subscribe));
        }
        if self.to_leave.is_empty() {
            if self.open > 0 {
                return Step::Wait;
            }
            if !self.unwritable {
                self.find_stale();
            }
        }
        if !self.to_leave.is_empty() {
            return self.write_ahead().unwrap_or_else(|| self.leave(batch.unsubscribe));
        }
        self.serve();
        if self.unwritable {
            return Step::Done;
        }
        self.unsaved().map_or(Step::Done, Step::Save)
    }

    /// A SUBACK answered these filters, each with the QoS granted or the reason of the refusal.
    pub(super) fn subscribed(&mut self, filters: &[TopicFilter], reasons: &[Result<Qos, &'static str>]) {
        for (place, filter) in filters.iter().enumerate() {
            let reason = reasons.get(place).copied().unwrap_or(Err("the broker gives no answer for it"));
            let Some(at) = self.by_filter.get(filter).copied() else { continue };
            if self.known[at].answer != Answer::Asked {
                continue;
            }
            self.open -= 1;
            self.dirty = true;
            let known = &mut self.known[at];
            match reason {
                Ok(qos) => {
                    known.answer = Answer::Granted(qos);
                    known.presence = Some(Presence::Granted);
                    known.held = true;
                    if !self.offer.is_some_and(|offer| offer.identifiers) {
                        known.certainty = Certainty::Unsure;
                    } else if self.fresh {
                        known.certainty = Certainty::Always;
                        self.changes.sure(known.identifier);
                    }
                    if qos < known.sent {
                        self.news.push(News::Lowered(filter.clone(), known.sent, qos));
                    }
                    // It is wanted with another one meanwhile.
                    self.stale |= known.wire && known.qos != known.sent;
                }
                Err(reason) => self.refuse(at, reason),
            }
        }
    }

    /// An UNSUBACK answered these filters; on protocol 5 with the reason where the broker keeps one.
    pub(super) fn unsubscribed(&mut self, filters: &[TopicFilter], reasons: &[Result<(), &'static str>]) {
        for (place, filter) in filters.iter().enumerate() {
            let Some(at) = self.by_filter.get(filter).copied() else { continue };
            if self.known[at].answer != Answer::Leaving {
                continue;
            }
            self.open -= 1;
            self.dirty = true;
            let known = &mut self.known[at];
            known.answer = Answer::Left;
            match reasons.get(place).copied().unwrap_or(Ok(())) {
                Ok(()) => known.presence = Some(Presence::Removed),
                Err(reason) => self.news.push(News::Kept(filter.clone(), reason)),
            }
            // It is wanted again meanwhile.
            self.stale |= known.wire;
        }
    }

    /// A copy came that names these filters.
    pub(super) fn named(&mut self, places: &[usize]) {
        self.fresh = false;
        for place in places {
            let known = &mut self.known[*place];
            known.named = true;
            // What was given back may still be named by what was queued before; that tells nothing of what comes later.
            let has = matches!(known.presence, Some(Presence::Asked | Presence::Granted));
            if known.certainty == Certainty::Unsure && has {
                known.certainty = Certainty::Named;
                self.changes.sure(known.identifier);
                self.dirty = true;
            }
        }
    }

    /// What the record would say, if that was not written yet.
    pub(super) fn unsaved(&mut self) -> Option<Record> {
        let session = self.session.clone().filter(|_| self.dirty && self.began)?;
        (self.dirty, self.intent) = (false, false);
        let mut filters: Vec<Entry> = self
            .known
            .iter()
            .filter_map(|known| {
                Some(Entry {
                    filter: known.filter.as_str().to_owned(),
                    identifier: known.identifier,
                    qos: known.qos as u8,
                    presence: known.presence.filter(|presence| *presence != Presence::Removed)?,
                    certainty: known.certainty,
                })
            })
            .collect();
        filters.sort_unstable_by(|a, b| (&a.filter, a.identifier).cmp(&(&b.filter, b.identifier)));
        let served = self.served.iter().map(|filter| filter.as_str().to_owned()).collect();
        Some(Record {
            version: VERSION,
            session,
            connecting: self.connecting,
            subscriptions: digest(&self.wanted),
            change: if self.fresh { Change::None } else { self.changes.standing() },
            next_identifier: Some(self.next_identifier),
            served,
            filters,
        })
    }

    /// The record that was handed out could not be written.
    pub(super) fn not_saved(&mut self) {
        // Tried again at the end of the connection: a full disk must not keep the session from working. Until then nothing
        // is given back, for without a record a later daemon could take it for granted.
        self.dirty = true;
        self.unwritable = true;
        self.to_leave.clear();
    }

    /// What happened since the last call that somebody should know.
    pub(super) fn news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// How the subscriptions stand, by place.
    pub(super) fn standings(&self) -> impl Iterator<Item = Standing> {
        self.serving.iter().enumerate().map(|(place, at)| match self.known[*at].answer {
            Answer::Granted(qos) => Standing::Granted(qos),
            // One whose cover was refused is about to get another.
            Answer::Refused(reason) if self.is_lost(place) => Standing::Refused(reason),
            _ => Standing::Pending,
        })
    }

    /// Whether the broker has granted the filter that serves this subscription.
    #[cfg(test)]
    pub(super) fn is_granted(&self, place: usize) -> bool {
        matches!(self.known[self.serving[place]].answer, Answer::Granted(_))
    }

    /// Whether the broker has refused this filter on this connection.
    #[cfg(test)]
    pub(super) fn refuses(&self, filter: &TopicFilter) -> bool {
        self.by_filter.get(filter).is_some_and(|at| self.is_refused(*at))
    }

    /// Whether copies cannot be told apart though filters overlap: the broker has no subscription identifiers.
    pub(super) fn is_ambiguous(&self) -> bool {
        if self.protocol == Protocol::V311 || self.offer.is_none_or(|offer| offer.identifiers) {
            return false;
        }
        let wires: Vec<&Known> = self.known.iter().filter(|known| known.wire).collect();
        let overlaps =
            |(place, one): (usize, &&Known)| wires[place + 1..].iter().any(|other| one.filter.overlaps(&other.filter));
        wires.iter().enumerate().any(overlaps)
    }

    /// The places of the filters that these identifiers name and that match.
    pub(super) fn place_of(&self, identifier: u32) -> Option<usize> {
        let found = self.by_identifier.binary_search_by_key(&identifier, |(identifier, _)| *identifier).ok()?;
        Some(self.by_identifier[found].1)
    }

    /// Whether the broker has refused this filter on this connection.
    fn is_refused(&self, at: usize) -> bool {
        matches!(self.known[at].answer, Answer::Refused(_))
    }

    /// Whether the broker has refused a subscription's own filter. One whose cover was refused is about to get another.
    pub(super) fn is_lost(&self, place: usize) -> bool {
        let at = self.serving[place];
        self.is_refused(at) && self.known[at].filter == self.wanted[place].filter
    }

    /// Whether every message that comes and matches this filter comes in a copy that names it. `again`: the broker has
    /// sent the message before.
    pub(super) fn is_sure(&self, at: usize, again: bool) -> bool {
        let known = &self.known[at];
        match known.certainty {
            Certainty::Always => true,
            // What it sends again may be older than the copy that told.
            Certainty::Named => known.named || !again,
            Certainty::Unsure => false,
        }
    }

    /// Nothing of the session is left, nor queued.
    fn forget(&mut self) {
        self.known.clear();
        self.by_filter.clear();
        self.by_identifier.clear();
        self.served.clear();
        self.changes.forget();
    }

    fn refuse(&mut self, at: usize, reason: &'static str) {
        let known = &mut self.known[at];
        known.answer = Answer::Refused(reason);
        // Of what it has granted before, it is not known whether a broker drops it then.
        known.presence = known.presence.filter(|_| known.held).map(|_| Presence::Leaving);
        known.certainty = Certainty::Unsure;
        self.stale = true;
        self.news.push(News::Refused(known.filter.clone(), reason));
    }

    /// The record, if it must be written before the next packet.
    fn write_ahead(&mut self) -> Option<Step> {
        if !std::mem::take(&mut self.intent) {
            return None;
        }
        for at in &self.to_ask {
            let known = &mut self.known[*at];
            known.presence = known.presence.or(Some(Presence::Asked));
        }
        for at in &self.to_leave {
            let known = &mut self.known[*at];
            (known.presence, known.certainty) = (Some(Presence::Leaving), Certainty::Unsure);
        }
        self.dirty = true;
        self.unsaved().map(Step::Save)
    }

    fn ask(&mut self, most: usize) -> Step {
        let count = most.max(1).min(self.to_ask.len());
        let mut filters = Vec::with_capacity(count);
        for at in self.to_ask.drain(..count) {
            let known = &mut self.known[at];
            known.answer = Answer::Asked;
            known.sent = known.qos;
            self.open += 1;
            // Where it takes the place of a wider filter, the session has had its retained messages.
            let replay = !self.served.contains(&known.filter);
            let (filter, qos, identifier) = (known.filter.clone(), known.qos, known.identifier);
            filters.push(WireFilter { filter, qos, identifier, replay });
        }
        Step::Subscribe(filters)
    }

    /// Finds what the broker has, or may have, and nothing is served by. What is wanted and refused stays: the broker may
    /// have kept it from before.
    fn find_stale(&mut self) {
        let wanted: HashSet<&TopicFilter> = self.wanted.iter().map(|wanted| &wanted.filter).collect();
        let leaves = |known: &Known| {
            let has = matches!(known.presence, Some(Presence::Asked | Presence::Granted | Presence::Leaving));
            let free = match known.answer {
                Answer::Unasked | Answer::Granted(_) => true,
                Answer::Refused(_) => !wanted.contains(&known.filter),
                Answer::Asked | Answer::Leaving | Answer::Left => false,
            };
            has && free && !known.wire
        };
        self.to_leave = (0..self.known.len()).filter(|at| leaves(&self.known[*at])).collect();
        self.intent |= !self.to_leave.is_empty();
    }

    fn leave(&mut self, most: usize) -> Step {
        let count = most.max(1).min(self.to_leave.len());
        let mut filters = Vec::with_capacity(count);
        for at in self.to_leave.drain(..count) {
            self.known[at].answer = Answer::Leaving;
            self.open += 1;
            filters.push(self.known[at].filter.clone());
        }
        Step::Unsubscribe(filters)
    }

    /// Every subscription has its answer: the retained messages of those that are granted are on their way.
    fn serve(&mut self) {
        let granted = |(place, at): (usize, &usize)| {
            matches!(self.known[*at].answer, Answer::Granted(_)).then(|| self.wanted[place].filter.clone())
        };
        let served: BTreeSet<TopicFilter> = self.serving.iter().enumerate().filter_map(granted).collect();
        if served != self.served {
            self.served = served;
            self.dirty = true;
        }
    }
}

/// What decides which copy of a message counts, in short.
fn digest(wanted: &[Wanted]) -> String {
    let mut deciding: BTreeMap<&TopicFilter, bool> = BTreeMap::new();
    wanted.iter().for_each(|one| *deciding.entry(&one.filter).or_default() |= one.acts);
    let mut hash = Sha256::new();
    for (filter, acts) in deciding {
        hash.update(filter.as_str().as_bytes());
        // No filter holds U+0000.
        hash.update([0, u8::from(acts)]);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
