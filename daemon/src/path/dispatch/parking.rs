//! A handler's queue while messages are parked and brought back: what the gate decides, done with the park.
//!
//! Fed by commands, by the calls' ends and by the handler's park task (`path/handler/parking.rs`), which asks here what to do
//! next. Nothing here waits: writing is left to the store's thread, reading to the task. Locks are taken in the order queue, park.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::gate::{Held, Mode, Ticket};
use super::lanes::Verdict as Turnstile;
use super::quarantine::{Sign, Verdict};
use super::queue::{Closed, HandlerQueue, Job, State, Turn};
use crate::control::config::format_duration;
use crate::path::kept::{Entry, Full};
use crate::path::park::replay::{Brought, Reading};
use crate::path::park::{Batch, Park, Revived};
use crate::path::receipt::Outcome;
use crate::path::session::Fate;

/// How a handler stands, as an operator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It gets messages as they come.
    Open,
    /// Paused by command.
    Paused,
    /// Left alone since it failed, for so long yet; none where it is about to be tried.
    Quarantined(Option<Duration>),
    /// It gets what was parked.
    Replaying,
}

/// What the park is to be read for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    reading: Reading,
    /// For one message that shows whether the handler works again.
    trial: bool,
}

/// What follows from a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// There may be more to do at once.
    More,
    /// There is nothing to do until the park is woken.
    Nothing,
    /// Something is in the way for a moment.
    Later,
}

impl Wanted {
    /// What to read.
    pub fn reading(&self) -> Reading {
        self.reading
    }
}

impl Turn {
    /// Whether the call tells if the quarantine of the handler ends.
    pub fn decides_quarantine(&self) -> bool {
        self.ticket.trial
    }

    /// The call shows whether the handler works: to be told before what becomes of its message. `error` is what went wrong, in
    /// plain words.
    pub fn shows(&self, sign: Sign, error: impl FnOnce() -> String) {
        // Almost every call works, and nothing follows from that.
        if sign == Sign::Works && !self.queue.ailing.load(Ordering::Relaxed) {
            return;
        }
        let verdict = {
            let mut state = self.queue.lock();
            if state.closed.is_some() {
                return;
            }
            let verdict = state.quarantine.call_ended(sign, self.ticket.trial, Instant::now());
            self.queue.ailing.store(state.quarantine.counts(), Ordering::Relaxed);
            if verdict != Verdict::Nothing {
                self.queue.settle(&mut state);
            }
            verdict
        };
        let handler = &self.queue.handler.name;
        match verdict {
            Verdict::Nothing => {}
            Verdict::Begins(failures, wait) => {
                let (error, wait) = (error(), format_duration(wait));
                tracing::warn!(%handler, failures, error, wait,
                    "the handler is quarantined: call after call failed; its messages are parked until one of them is tried");
            }
            Verdict::BeginsAtOnce(wait) => {
                let (error, wait) = (error(), format_duration(wait));
                tracing::warn!(%handler, error, wait,
                    "the handler is quarantined: a call of it hangs; its messages are parked until one of them is tried");
            }
            Verdict::Again(wait) => {
                let (error, wait) = (error(), format_duration(wait));
                tracing::warn!(%handler, error, wait, "the handler stays quarantined: the call that was tried failed");
            }
            Verdict::Ends => {
                tracing::info!(%handler, "the handler's quarantine ends: the call that was tried succeeded");
            }
        }
    }
}

impl HandlerQueue {
    /// The handler is paused or not, as its park has it: the queue that is used now follows.
    pub fn follow_pause(&self) {
        let ended = {
            let mut state = self.lock();
            if let Some(Closed::Replaced(successor)) = &state.closed {
                let successor = Arc::clone(successor);
                drop(state);
                return successor.follow_pause();
            }
            // Whoever resumes a handler wants it to be called.
            let ended = !self.is_paused_by_command() && state.quarantine.clear();
            self.ailing.store(state.quarantine.counts(), Ordering::Relaxed);
            self.settle(&mut state);
            ended
        };
        if ended {
            tracing::info!(handler = %self.handler.name, "the handler's quarantine ends: it is resumed by command");
        }
    }

    /// Another version of the handler's plugin runs, of which nothing is known yet: a quarantine ends, a pause stays.
    pub fn version_changed(&self) {
        let ended = {
            let mut state = self.lock();
            if let Some(Closed::Replaced(successor)) = &state.closed {
                let successor = Arc::clone(successor);
                drop(state);
                return successor.version_changed();
            }
            let ended = state.quarantine.clear();
            self.ailing.store(state.quarantine.counts(), Ordering::Relaxed);
            self.settle(&mut state);
            ended
        };
        if ended {
            tracing::info!(handler = %self.handler.name, "the handler's quarantine ends: it runs another version");
        }
    }

    /// These brokers are configured that were not before: where parked messages of theirs were passed over when the rest was brought
    /// back, they are looked for again, and go before what comes from now on.
    pub fn look_again(&self, brokers: &HashSet<Arc<str>>) {
        let Some(park) = &self.park else { return };
        // They are passed over under this lock.
        let mut state = self.lock();
        // What ends brings nothing back any more.
        if !park.has_passed_over(brokers) || state.closed.is_some() || park.stopping().is_cancelled() {
            return;
        }
        if state.gate.mode() == Mode::Open && park.held().rows > 0 {
            state.gate.replay(|job| self.place(job));
        }
        // Also what is being read now may have passed them over.
        park.restart();
        park.wake();
    }

    /// How the handler stands.
    pub fn standing(&self) -> Standing {
        let state = self.lock();
        if self.is_paused_by_command() {
            Standing::Paused
        } else if state.quarantine.is_on() {
            let until = state.quarantine.until();
            Standing::Quarantined(until.map(|until| until.saturating_duration_since(Instant::now())))
        } else if state.gate.mode() == Mode::Replaying {
            Standing::Replaying
        } else {
            Standing::Open
        }
    }

    /// The park of the handler.
    pub fn park(&self) -> Option<&Arc<Park>> {
        self.park.as_ref()
    }

    fn is_paused_by_command(&self) -> bool {
        self.park.as_ref().is_some_and(|park| park.is_paused())
    }

    pub(super) fn wake_park(&self) {
        if let Some(park) = &self.park {
            park.wake();
        }
    }

    /// Brings the gate into the mode that follows from pause and quarantine.
    fn settle(&self, state: &mut State) {
        let Some(park) = &self.park else { return };
        let parks = park.is_paused() || state.quarantine.is_on() || state.winding_up;
        match (parks, state.gate.mode()) {
            (true, Mode::Open | Mode::Replaying) => {
                let stay = state.gate.park(|job| self.place(job));
                self.stay(state, stay);
                park.restart();
            }
            (false, Mode::Parking) => {
                state.gate.replay(|job| self.place(job));
                park.reopen();
                self.door.notify_one();
            }
            (true, Mode::Parking) | (false, Mode::Open | Mode::Replaying) => {}
        }
        self.tell(state);
        park.wake();
    }

    /// These stay in the park. Under the lock, so that nobody looks for them before they are let go of.
    pub(super) fn stay(&self, state: &mut State, stay: impl IntoIterator<Item = Held<Job>>) {
        for Held { ticket, job } in stay {
            if ticket.trial {
                state.quarantine.trial_withdrawn();
            }
            if let (Some(park), Some(number)) = (&self.park, ticket.number) {
                park.tried(number, job.tries);
            }
            drop(job);
        }
    }

    /// A turn of a job with this ticket is over.
    pub(super) fn turn_ended(&self, state: &mut State, ticket: Ticket) {
        if ticket.trial {
            // Without effect where its call has shown something.
            state.quarantine.trial_withdrawn();
        }
        // Where it is to be tried, that waits until no call is in progress.
        if state.gate.mode() != Mode::Open {
            self.wake_park();
        }
    }

    /// Messages that wait for parked ones are parked too: somebody ends what brings those back.
    pub(super) fn wind_up(&self, state: &mut State) {
        if state.gate.mode() != Mode::Open {
            state.winding_up = true;
            self.settle(state);
        }
    }

    /// The daemon stops: nothing more is brought back.
    pub fn daemon_stops(&self) {
        self.wind_up(&mut self.lock());
    }

    pub(super) fn hand_over_to(&self, state: &mut State, successor: &HandlerQueue, next: &mut State) {
        let was_parking = state.gate.mode() == Mode::Parking;
        let parks = successor.is_paused_by_command();
        let stay = state.gate.hand_over(&mut next.gate, parks, |job| successor.place(job));
        if let Some(park) = &successor.park {
            if was_parking {
                park.reopen()
            } else {
                park.interrupt()
            }
            successor.stay(next, stay);
        }
        if state.quarantine.clear() {
            tracing::info!(handler = %self.handler.name, "the handler's quarantine ends: it was changed");
        }
    }

    /// Parks what is to be parked, as far as there is room.
    pub fn park_waiting(&self) {
        let Some(park) = &self.park else { return };
        while self.park_some(park) {}
        self.meter(park);
    }

    /// A few messages at a time, so that nobody waits for the lock for long. Whether there may be more.
    fn park_some(&self, park: &Arc<Park>) -> bool {
        let (mut batch, mut discarded, mut full) = (Batch::default(), Vec::new(), None);
        {
            let mut state = self.lock();
            if matches!(state.closed, Some(Closed::Replaced(_))) {
                return false;
            }
            while !batch.is_large() && full.is_none() && park.may_write() {
                let verdict = |job: &Job| match job.part.fate() {
                    Fate::Returned => Turnstile::Discard,
                    Fate::Undecided => Turnstile::Hold,
                    Fate::Open => Turnstile::Run,
                };
                let Some(held) = state.gate.take_to_park(Instant::now(), verdict, &mut discarded) else { break };
                let Held { ticket, job } = held;
                if let Err((job, why)) = park.put(&mut batch, ticket.number, job) {
                    state.gate.not_parked(self.place(&job), Held { ticket, job });
                    full = Some(why);
                }
            }
            if !batch.is_empty() {
                self.tell(&mut state);
            }
        }
        let more = !batch.is_empty() && full.is_none();
        if !batch.is_empty() {
            park.write(batch);
        }
        discarded.into_iter().for_each(|job| job.part.end(Outcome::Returned));
        self.say_full(park, full);
        if self.lock().closed.is_some() {
            // Runners end once nothing waits.
            self.door.notify_one();
        }
        more
    }

    fn say_full(&self, park: &Park, full: Option<Full>) {
        if let Some(full) = full {
            park.say_full(full);
        }
    }

    fn meter(&self, park: &Park) {
        let state = self.lock();
        if matches!(state.closed, Some(Closed::Replaced(_))) {
            return;
        }
        let (held, paused) = (park.held(), park.is_paused());
        self.meters.park.holds(held.rows, held.weight, park.is_full());
        self.meters.park.paused(paused, state.quarantine.is_on());
    }

    /// What to read of the park now.
    pub fn wants(&self) -> Option<Wanted> {
        let park = self.park.as_ref()?;
        let mut state = self.lock();
        if matches!(state.closed, Some(Closed::Replaced(_))) {
            return None;
        }
        match state.gate.mode() {
            Mode::Open => None,
            // What is on its way to the disk would be missed.
            Mode::Replaying => {
                let reading = if park.is_written() { park.reading() } else { None };
                reading.map(|reading| Wanted { reading, trial: false })
            }
            Mode::Parking => {
                let tries = self.wants_trial(&mut state, park);
                let reading = if tries { park.reading() } else { None };
                reading.map(|reading| Wanted { reading, trial: true })
            }
        }
    }

    /// Whether a message is to be brought for a trial. Not while a call is in progress whose message may yet be parked before it.
    fn wants_trial(&self, state: &mut State, park: &Park) -> bool {
        let idle = !state.crew.is_busy() && state.gate.callable() == 0 && park.order_is_written();
        !park.is_paused() && !state.winding_up && state.quarantine.wants_trial(Instant::now()) && idle
    }

    /// When a message is to be tried, where that is not at once.
    pub fn trial_due(&self) -> Option<Instant> {
        let state = self.lock();
        state.quarantine.until().filter(|_| !self.is_paused_by_command() && !state.winding_up)
    }

    /// The park was read.
    pub fn bring(&self, wanted: Wanted, entries: &[Entry]) -> After {
        let Some(park) = &self.park else { return After::Nothing };
        let Wanted { reading, trial } = wanted;
        let (after, called) = {
            let mut state = self.lock();
            let wanted = match state.gate.mode() {
                Mode::Open => false,
                Mode::Replaying => !trial,
                Mode::Parking => trial && self.wants_trial(&mut state, park),
            };
            if !wanted || matches!(state.closed, Some(Closed::Replaced(_))) {
                park.interrupt();
                return After::More;
            }
            let most = if trial { 1 } else { usize::MAX };
            let stands_behind = |entry: &Entry| trial && self.stands_behind(&state, park, entry);
            let takes = |entry: &Entry| park.message(entry).is_some() && !stands_behind(entry);
            match park.found(reading, entries, most, takes) {
                Brought::Stale => (After::More, false),
                Brought::End if trial => {
                    park.restart();
                    (After::Nothing, false)
                }
                Brought::End => {
                    state.gate.open(|job| self.place(job));
                    tracing::info!(handler = %self.handler.name, "the handler has got all that was parked for it");
                    self.tell(&mut state);
                    (After::Nothing, true)
                }
                Brought::Some(numbers) => self.bring_these(&mut state, park, &numbers, entries, trial),
            }
        };
        self.call(called);
        after
    }

    fn bring_these(
        &self,
        state: &mut State,
        park: &Arc<Park>,
        numbers: &[u64],
        entries: &[Entry],
        trial: bool,
    ) -> (After, bool) {
        let mut brought = false;
        for (at, number) in numbers.iter().enumerate() {
            let Ok(place) = entries.binary_search_by_key(number, |entry| entry.id) else { continue };
            match park.revive(&entries[place]) {
                Revived::Job(job) => {
                    if trial {
                        state.quarantine.trial_begins();
                    }
                    state.gate.replayed(self.place(&job), *number, job, trial);
                    brought = true;
                }
                Revived::Busy => {
                    park.not_brought(&numbers[at + 1..]);
                    return (After::Later, brought);
                }
                Revived::Stays => {}
            }
        }
        self.tell(state);
        (After::More, brought)
    }

    /// Whether a message of its topic waits that stands before it and is not parked yet.
    fn stands_behind(&self, state: &State, park: &Park, entry: &Entry) -> bool {
        let Some((message, broker)) = park.message(entry) else { return false };
        state.gate.stands_before(self.topic(broker, &message.topic))
    }
}
