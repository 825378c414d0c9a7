//! What stands behind the outboxes' lock: the outboxes, and for each broker who waits for it and what holds it back.
//!
//! Every method is a few memory operations. The time is told, but for what is written to the disk (`keep.rs`). Used by `mod.rs`
//! alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::sync::{Notify, oneshot};

use super::NoRoom;
use super::admission::{Admission, BatchId, Change, DropReason, Dropped, Full, Offered};
use super::command::PublishEnd;
use super::condemned::Condemned;
use super::effects::Effects;
use super::journal::Journal;
use super::keep::Before;
use super::news::{News, Voice};
use super::owner::Owner;
use super::queue::EntryId;
use crate::message::{BrokerId, Outgoing};
use crate::telemetry::metrics::BrokerMeters;

/// How long a connection stands before a suspect is sent on it: what ends sooner ends for another reason, such as a birth
/// message that the broker does not permit.
const PROOF: Duration = Duration::from_secs(1);

/// How long an outbox waits after its broker did not take an entry for now: so long at first, twice as long each time.
const POSTPONED: Duration = Duration::from_secs(1);

/// The longest such wait.
const POSTPONED_LONGEST: Duration = Duration::from_secs(30);

/// All that is behind the lock.
pub(super) struct State {
    pub(super) admission: Admission<Owner>,
    /// Where what must survive the daemon is written.
    pub(super) journal: Journal,
    /// Of brokers that were never there: what the disk has for them.
    pub(super) found: HashMap<Arc<str>, Before>,
    /// What is to be said with the next step.
    pub(super) unsaid: Vec<News>,
    /// Told when part of an outbox is to be read from the disk. `loader.rs` is the only one that waits for it.
    pub(super) low: Arc<Notify>,
    /// Who waits for admission. Written by `offer`, released at admission or when the waiter gives up.
    pub(super) waiters: HashMap<BatchId, oneshot::Sender<()>>,
    /// By broker; also of brokers that are gone or yet to come.
    pub(super) sides: Vec<Side>,
    /// Told when something becomes too old before [`Self::alarm`]. `expiry.rs` is the only one that waits for it.
    pub(super) sooner: Arc<Notify>,
    /// When `expiry.rs` looks again by itself. Written by it, and by whoever tells it to look sooner.
    pub(super) alarm: Option<Instant>,
}

/// One broker's side of the outboxes.
pub(super) struct Side {
    /// The broker's name, also once it is gone: what the disk has of it stands under that. Empty before it ever came.
    pub(super) group: Arc<str>,
    /// Numbers from this one on were never used, as the disk has it.
    pub(super) marked: u64,
    /// Written by its session.
    pub(super) hold: Hold,
    /// Written when something is given up.
    pub(super) condemned: Condemned,
    /// None while the broker is not there.
    pub(super) meters: Option<Arc<BrokerMeters>>,
    /// What its outbox has to say.
    pub(super) voice: Voice,
    /// Told whenever something unsent may have appeared. The feeder of the broker is the only one that waits for it.
    pub(super) unsent: Arc<Notify>,
    /// Told whenever something was offered.
    pub(super) offers: Arc<Notify>,
    /// The offers that were told.
    told: u64,
}

impl Default for Side {
    fn default() -> Side {
        Side {
            group: "".into(),
            marked: 0,
            hold: Hold::No,
            condemned: Condemned::default(),
            meters: None,
            voice: Voice::default(),
            unsent: Arc::default(),
            offers: Arc::default(),
            told: 0,
        }
    }
}

/// What is decided of an offer.
pub(super) enum Decided {
    In(BatchId),
    Waits(BatchId, oneshot::Receiver<()>),
    /// None of its brokers is there.
    Purged(Owner),
    Rejected(Owner, NoRoom),
}

/// What stands next in an outbox.
pub(super) enum Next {
    Send(EntryId, Arc<Outgoing>),
    /// It is a copy of what was given up.
    Drop(EntryId),
}

/// Whether an outbox holds back what it could give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    No,
    /// The connection is new: on a trial, from the first attempt to send on.
    OnTrial,
    Until(Instant),
}

impl State {
    /// Of no broker; the disk has this from before.
    pub(super) fn new(journal: Journal, found: HashMap<Arc<str>, Before>) -> State {
        State {
            admission: Admission::new(journal.store().is_some()),
            journal,
            found,
            unsaid: Vec::new(),
            low: Arc::default(),
            waiters: HashMap::new(),
            sides: Vec::new(),
            sooner: Arc::default(),
            alarm: None,
        }
    }

    /// A broker's side, also where the broker is not there.
    pub(super) fn side(&mut self, broker: BrokerId) -> &mut Side {
        if self.sides.len() <= broker.index() {
            self.sides.resize_with(broker.index() + 1, Side::default);
        }
        &mut self.sides[broker.index()]
    }

    /// Offers what a call did, at least something. `accepted` is done unless they are rejected, before anything of them can leave.
    pub(super) fn offer(
        &mut self,
        effects: Effects,
        owner: Owner,
        accepted: impl FnOnce(),
        changes: &mut Vec<Change<Owner>>,
    ) -> Decided {
        let watched = owner.trace().map(|trace| (Arc::clone(trace), effects.publishes.len()));
        if self.admission.ages(&effects.publishes) {
            self.admission.tell_time(Instant::now());
        }
        let terms = owner.terms();
        let offered = self.admission.offer(effects, terms, owner, changes);
        let (owner, Full { broker, limit }) = match offered {
            Offered::Rejected(owner, full) => (owner, full),
            Offered::Taken(batch) => {
                accepted();
                if watched.is_some() {
                    self.tell_admitted(batch);
                }
                return Decided::In(batch);
            }
            Offered::Waits(batch) => {
                accepted();
                if let Some((trace, publishes)) = watched {
                    trace.waits_for_room(publishes);
                }
                let (sender, admitted) = oneshot::channel();
                self.waiters.insert(batch, sender);
                return Decided::Waits(batch, admitted);
            }
            Offered::Purged(owner) => {
                accepted();
                return Decided::Purged(owner);
            }
        };
        let full = NoRoom { broker: Arc::clone(self.side(broker).voice.name()), limit };
        if let Some((trace, publishes)) = watched {
            trace.no_room(publishes, &full);
        }
        Decided::Rejected(owner, full)
    }

    /// Whether the next entry is held back at this time.
    fn is_held(&mut self, broker: BrokerId, now: Instant) -> bool {
        let on_trial = self.admission.outbox(broker).is_on_trial();
        let hold = &mut self.side(broker).hold;
        if *hold == Hold::OnTrial && on_trial {
            *hold = Hold::Until(now + PROOF);
        }
        let held = matches!(*hold, Hold::Until(until) if now < until);
        if !held {
            *hold = Hold::No;
        }
        held
    }

    /// What stands next in a broker's outbox, which counts as sent from now on; none while it is held back.
    pub(super) fn next(&mut self, broker: BrokerId, now: Instant) -> Option<Next> {
        if self.is_held(broker, now) {
            return None;
        }
        let (entry, message) = self.admission.outbox(broker).take_next()?;
        let condemned = &mut self.sides[broker.index()].condemned;
        if condemned.is_empty() {
            return Some(Next::Send(entry, message));
        }
        let cause = self.admission.tag(broker, entry).and_then(Owner::cause);
        let drop = cause.is_some_and(|cause| condemned.has(cause, &message.topic, now));
        Some(if drop { Next::Drop(entry) } else { Next::Send(entry, message) })
    }

    /// Whether the broker's feeder has to wait, and until when where that is known.
    pub(super) fn waits(&mut self, broker: BrokerId, now: Instant) -> Wait {
        match (self.admission.outbox(broker).has_unsent(), self.side(broker).hold) {
            (false, _) => Wait::ForUnsent(Arc::clone(&self.side(broker).unsent)),
            (true, Hold::Until(until)) if now < until => Wait::Until(until),
            (true, _) => Wait::No,
        }
    }

    /// Releases who waited for what was admitted, counts what was dropped, and tells what changed. What is to be said.
    pub(super) fn apply(&mut self, changes: &[Change<Owner>]) -> Vec<News> {
        let mut dropped: SmallVec<[(BrokerId, DropReason, u64); 2]> = SmallVec::new();
        let mut news = std::mem::take(&mut self.unsaid);
        for (place, change) in changes.iter().enumerate() {
            match change {
                Change::Admitted(batch) => self.admitted(*batch),
                Change::Full(Full { broker, limit }) => news.extend(self.side(*broker).voice.full(*limit)),
                Change::Dropped { broker, batch, message, dropped: how } => {
                    self.tell_dropped(*batch, (*broker, message), *how, &changes[place + 1..]);
                    match dropped.iter_mut().find(|(known, reason, _)| (*known, *reason) == (*broker, how.reason)) {
                        Some((.., count)) => *count += 1,
                        None => dropped.push((*broker, how.reason, 1)),
                    }
                }
                Change::Ended { .. } => {}
            }
        }
        for (broker, reason, count) in dropped {
            let limits = self.admission.limits(broker);
            let side = self.side(broker);
            if let Some(meters) = &side.meters {
                meters.outbox.dropped(reason, count);
            }
            news.extend(side.voice.dropped(reason, count, limits));
        }
        self.refresh();
        news
    }

    fn admitted(&mut self, batch: BatchId) {
        if let Some(waiter) = self.waiters.remove(&batch) {
            self.tell_admitted(batch);
            // An error means that the waiter is giving up at this moment: its publishes are admitted all the same.
            let _ = waiter.send(());
        }
    }

    /// Tells who watches the message of a batch that an outbox dropped a publish of it. `later` is what followed from that:
    /// where the batch has ended, it is there.
    fn tell_dropped(
        &self,
        batch: Option<BatchId>,
        (broker, message): (BrokerId, &Outgoing),
        dropped: Dropped,
        later: &[Change<Owner>],
    ) {
        let Some(batch) = batch else { return };
        let ended = || {
            later.iter().find_map(|change| match change {
                Change::Ended { batch: ended, tag, .. } if *ended == batch => Some(tag),
                _ => None,
            })
        };
        let owner = self.admission.batch(batch).map(|(_, owner)| owner).or_else(ended);
        if let Some(trace) = owner.and_then(Owner::trace) {
            trace.published(broker, message, &PublishEnd::Dropped(dropped));
        }
    }

    /// Tells who watches the message of a batch that it is in the outboxes. Under the lock, so that nothing of it leaves before.
    pub(super) fn tell_admitted(&self, batch: BatchId) {
        if let Some((publishes, owner)) = self.admission.batch(batch)
            && let Some(trace) = owner.trace()
        {
            trace.admitted(publishes);
        }
    }

    /// Tells who watches the message of an entry how the entry ends now. Under the lock, so that the message ends after it.
    pub(super) fn tell_end(&mut self, broker: BrokerId, entry: EntryId, end: &PublishEnd) {
        let Some(trace) = self.admission.tag(broker, entry).and_then(Owner::trace).cloned() else { return };
        if let Some(message) = self.admission.outbox(broker).message(entry) {
            trace.published(broker, message, end);
        }
    }

    /// The broker does not take an entry for now. Whether that was not so before.
    pub(super) fn postponed(
        &mut self,
        broker: BrokerId,
        entry: EntryId,
        now: Instant,
        changes: &mut Vec<Change<Owner>>,
    ) -> bool {
        if matches!(self.side(broker).hold, Hold::Until(until) if now < until) {
            // Sent with the one that began the wait, which is still the first.
            self.admission.put_back(broker, entry, changes);
            return false;
        }
        let times = self.admission.postpone(broker, entry, changes);
        let wait = POSTPONED_LONGEST.min(POSTPONED * (1 << (times - 1).min(5)));
        let side = self.side(broker);
        side.hold = Hold::Until(now + wait);
        // Who waits for something unsent learns of the wait.
        side.unsent.notify_one();
        times == 1
    }

    /// Sets the gauges of the brokers for which something changed, and wakes who waits for it.
    pub(super) fn refresh(&mut self) {
        for broker in self.admission.changed() {
            let offered = self.admission.offered(broker);
            let waiting = self.admission.waiting(broker);
            let expiry = self.admission.next_expiry(broker);
            let outbox = self.admission.outbox(broker);
            let (messages, bytes, unsent) = (outbox.messages(), outbox.bytes(), outbox.has_unsent());
            let side = self.side(broker);
            if let Some(meters) = &side.meters {
                meters.outbox.messages.set(messages as i64);
                meters.outbox.bytes.set(bytes as i64);
                meters.outbox.waiting.set(waiting as i64);
            }
            if unsent {
                side.unsent.notify_one();
            }
            if side.told != offered {
                side.told = offered;
                side.offers.notify_waiters();
            }
            if self.admission.wants_load(broker) {
                self.low.notify_one();
            }
            if let Some(expiry) = expiry.filter(|expiry| self.alarm.is_none_or(|alarm| *expiry < alarm)) {
                self.alarm = Some(expiry);
                self.sooner.notify_one();
            }
        }
    }
}

/// What the feeder waits for.
pub(super) enum Wait {
    No,
    ForUnsent(Arc<Notify>),
    Until(Instant),
}
