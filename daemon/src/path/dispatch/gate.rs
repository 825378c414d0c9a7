//! Whether a handler's messages are called, parked, or wait until those that are parked have gone before them.
//!
//! Pure: the time is told; no I/O, no lock. Owns what waits for one handler: what may be called (`lanes.rs`), and what waits behind
//! the gate. Whoever writes the park takes from there; whoever reads it brings what it read. The order of a topic is that of the
//! numbers under which its messages are parked: a message gets its number when it is first called or parked, and keeps it, so
//! that one which was in a call when the gate closed still stands before those that came after it.

use std::time::Instant;

use super::lanes::{Lanes, Limits, Place, Verdict};
use crate::message::BrokerId;

/// What becomes of messages that come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are called.
    Open,
    /// They are parked, and so are those that waited: the handler is paused or quarantined.
    Parking,
    /// Those that are parked are called, in order; what comes waits behind them.
    Replaying,
}

/// What is known of a message beside itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ticket {
    /// Its place in the park, also while it is not there: in the order of its topic.
    pub(super) number: Option<u64>,
    /// It was read from the park, where it stays until it has ended.
    pub(super) replayed: bool,
    /// Its call tells whether the quarantine ends.
    pub(super) trial: bool,
}

/// A job with its ticket.
pub(super) struct Held<J> {
    pub(super) ticket: Ticket,
    pub(super) job: J,
}

/// What waits for one handler.
pub(super) struct Gate<J> {
    mode: Mode,
    /// What may be called. While parking only a trial.
    lanes: Lanes<Held<J>>,
    /// What came while the gate was not open, and what waited when it closed; in one shard, since nothing is called from here.
    behind: Lanes<Held<J>>,
}

impl<J> Gate<J> {
    /// Nothing waits.
    pub(super) fn new(shards: usize, limits: Limits, mode: Mode) -> Gate<J> {
        Gate { mode, lanes: Lanes::new(shards, limits), behind: Lanes::new(1, limits) }
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Messages that wait to be called, or behind the gate.
    pub(super) fn len(&self) -> usize {
        self.lanes.len() + self.behind.len()
    }

    /// Messages that wait behind the gate.
    #[cfg(test)]
    pub(super) fn behind(&self) -> usize {
        self.behind.len()
    }

    /// Messages that may be called.
    pub(super) fn callable(&self) -> usize {
        self.lanes.len()
    }

    /// Messages that wait to be called again.
    pub(super) fn put_off_count(&self) -> usize {
        self.lanes.put_off_count()
    }

    /// When something may start that may not yet, because it was put off.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        self.lanes.next_due(now)
    }

    /// A job comes. Gives back what has to go for want of room, which can be the job itself.
    pub(super) fn push(&mut self, place: Place, job: J) -> Vec<J> {
        let held = Held { ticket: Ticket::default(), job };
        let dropped = match self.mode {
            Mode::Open => self.lanes.push(place, held),
            Mode::Parking | Mode::Replaying => self.behind.push(behind(place), held),
        };
        dropped.into_iter().map(|held| held.job).collect()
    }

    /// The next job of a shard that may start, see [`Lanes::take`]. `number` makes the number of a job that has none.
    pub(super) fn take(
        &mut self,
        shard: usize,
        now: Instant,
        mut verdict: impl FnMut(&J) -> Verdict,
        discarded: &mut Vec<J>,
        number: impl FnOnce() -> u64,
    ) -> Option<Held<J>> {
        let mut gone = Vec::new();
        let found = self.lanes.take(shard, now, |held| verdict(&held.job), &mut gone);
        discarded.extend(gone.into_iter().map(|held| held.job));
        found.map(|mut held| {
            held.ticket.number.get_or_insert_with(number);
            held
        })
    }

    /// The job that was taken last from this shard failed and is to be called again, not before `due`. While parking it is
    /// parked instead: what stays in the park is given back.
    pub(super) fn put_off(&mut self, shard: usize, place: Place, held: Held<J>, due: Instant) -> Option<Held<J>> {
        match self.mode {
            Mode::Open | Mode::Replaying => {
                self.lanes.put_off(shard, held, due);
                None
            }
            Mode::Parking => self.back(place, held),
        }
    }

    /// A job that was called elsewhere comes before all that wait. As [`Self::put_off`] while parking.
    pub(super) fn put_first(&mut self, place: Place, held: Held<J>) -> Option<Held<J>> {
        match self.mode {
            Mode::Open | Mode::Replaying => {
                self.lanes.prepend(std::iter::once((place, held)));
                None
            }
            Mode::Parking => self.back(place, held),
        }
    }

    fn back(&mut self, place: Place, held: Held<J>) -> Option<Held<J>> {
        if held.ticket.replayed {
            return Some(held);
        }
        self.behind.prepend(std::iter::once((behind(place), held)));
        None
    }

    /// From now on messages are parked, those that wait too. Gives back what stays in the park.
    pub(super) fn park(&mut self, place: impl Fn(&J) -> Place) -> Vec<Held<J>> {
        self.mode = Mode::Parking;
        let (stay, go): (Vec<_>, Vec<_>) = self.lanes.clear().into_iter().partition(|held| held.ticket.replayed);
        self.behind.prepend(go.into_iter().map(|held| (behind(place(&held.job)), held)));
        stay
    }

    /// The next job to be parked; none while nothing may be. `verdict` as in [`Self::take`]: what is to run is parked.
    pub(super) fn take_to_park(
        &mut self,
        now: Instant,
        mut verdict: impl FnMut(&J) -> Verdict,
        discarded: &mut Vec<J>,
    ) -> Option<Held<J>> {
        if self.mode != Mode::Parking {
            return None;
        }
        let mut gone = Vec::new();
        let found = self.behind.take(0, now, |held| verdict(&held.job), &mut gone);
        discarded.extend(gone.into_iter().map(|held| held.job));
        found
    }

    /// A job that was to be parked is not: it is the next one again.
    pub(super) fn not_parked(&mut self, place: Place, held: Held<J>) {
        self.behind.prepend(std::iter::once((behind(place), held)));
    }

    /// From now on what is parked is called. What has a number and is not parked goes first.
    pub(super) fn replay(&mut self, place: impl Fn(&J) -> Place) {
        self.mode = Mode::Replaying;
        let (first, rest): (Vec<_>, Vec<_>) =
            self.behind.clear().into_iter().partition(|held| held.ticket.number.is_some());
        self.lanes.append(first.into_iter().map(|held| (place(&held.job), held)));
        self.behind.append(rest.into_iter().map(|held| (behind(place(&held.job)), held)));
    }

    /// Whether a job of this topic waits behind the gate that stands before those of its topic which are parked.
    pub(super) fn stands_before(&self, topic: u64) -> bool {
        self.behind.holds(topic, |held| held.ticket.number.is_some())
    }

    /// A job that was read from the park, where it has this number; whatever room there is.
    pub(super) fn replayed(&mut self, place: Place, number: u64, job: J, trial: bool) {
        let ticket = Ticket { number: Some(number), replayed: true, trial };
        self.lanes.append(std::iter::once((place, Held { ticket, job })));
    }

    /// Nothing is parked that has not been brought: what waits behind may be called too.
    pub(super) fn open(&mut self, place: impl Fn(&J) -> Place) {
        self.mode = Mode::Open;
        let behind = self.behind.clear();
        self.lanes.append(behind.into_iter().map(|held| (place(&held.job), held)));
    }

    /// Takes out what waits of a broker's messages and `goes` names; the rest stays in order.
    pub(super) fn discard(&mut self, broker: BrokerId, goes: impl Fn(&J) -> bool) -> Vec<J> {
        let mut gone = self.lanes.discard(broker, |held| goes(&held.job));
        gone.extend(self.behind.discard(broker, |held| goes(&held.job)));
        gone.into_iter().map(|held| held.job).collect()
    }

    /// Takes everything out, in order.
    pub(super) fn clear(&mut self) -> Vec<Held<J>> {
        let mut all = self.lanes.clear();
        all.extend(self.behind.clear());
        all
    }

    /// Moves everything into the gate of a handler that takes this one's place, before what came there already. That one's mode
    /// follows from this one's, and from whether it is to park. Gives back what stays in the park.
    pub(super) fn hand_over(&mut self, to: &mut Gate<J>, parks: bool, place: impl Fn(&J) -> Place) -> Vec<Held<J>> {
        let came = to.clear();
        let parked = self.mode == Mode::Parking;
        // What has a number and is not parked goes first, as when the gate is no longer shut.
        let (first, waiting): (Vec<_>, Vec<_>) =
            self.behind.clear().into_iter().partition(|held| parked && held.ticket.number.is_some());
        let callable = first.into_iter().chain(self.lanes.clear());
        to.mode = if self.mode == Mode::Open { Mode::Open } else { Mode::Replaying };
        to.lanes.append(callable.map(|held| (place(&held.job), held)));
        let waiting = waiting.into_iter().chain(came);
        match to.mode {
            Mode::Open => to.lanes.append(waiting.map(|held| (place(&held.job), held))),
            Mode::Parking | Mode::Replaying => {
                to.behind.append(waiting.map(|held| (behind(place(&held.job)), held)));
            }
        }
        if parks { to.park(place) } else { Vec::new() }
    }
}

/// The place behind the gate.
fn behind(place: Place) -> Place {
    Place { shard: 0, ..place }
}

#[cfg(test)]
mod tests;
