//! The runners of one handler: which of them is called when a job comes, and which shard a runner may take.
//!
//! Pure: the time is told. A runner works for any shard that no other works for, so that jobs which come close together are
//! done one after the other on one thread, without waking another. Another is called where that would make a job wait: the
//! runners at work have been at it for long, or a call takes long.

use std::time::{Duration, Instant};

/// How long the runners may be at work before another is called for what comes then: about what it costs to wake one.
const PATIENCE: Duration = Duration::from_micros(100);

/// Jobs that may wait before another runner is called in any case.
const BACKLOG: usize = 64;

/// What a runner does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Duty {
    /// It waits for being called.
    Resting,
    /// It does one job after the other since then.
    Working(Instant),
    /// A job of its takes long, a call or the wait for room: it takes nothing else for a while.
    HeldUp,
}

/// The runners of one handler and their shards. There are as many of both.
#[derive(Debug)]
pub(super) struct Crew {
    runners: Vec<Duty>,
    /// Shards that a runner works for.
    taken: Vec<bool>,
    /// A runner was called and has not looked yet.
    called: bool,
    /// The shard that is looked at first, so that none starves.
    turn: usize,
}

impl Crew {
    /// All rest.
    pub(super) fn new(size: usize) -> Crew {
        Crew { runners: vec![Duty::Resting; size], taken: vec![false; size], called: false, turn: 0 }
    }

    /// A job came into this shard, where `waiting` jobs are in all. Whether to call a runner.
    pub(super) fn job_came(&mut self, shard: usize, waiting: usize, now: Instant) -> bool {
        // Whoever has the shard looks again after its job.
        !self.taken[shard] && self.calls(waiting, now)
    }

    /// A runner looks for jobs, in the shards that are [`Self::free`].
    pub(super) fn looks(&mut self, runner: usize, now: Instant) {
        self.called = false;
        if !matches!(self.runners[runner], Duty::Working(_)) {
            self.runners[runner] = Duty::Working(now);
        }
    }

    /// Whether somebody works for a shard.
    pub(super) fn is_busy(&self) -> bool {
        self.taken.contains(&true)
    }

    /// The shards that nobody works for, in the order in which they are to be looked at.
    pub(super) fn free(&self) -> impl Iterator<Item = usize> {
        let count = self.taken.len();
        (self.turn..self.turn + count).map(move |place| place % count).filter(|shard| !self.taken[*shard])
    }

    /// The runner found a job in this shard and works for it.
    pub(super) fn takes(&mut self, shard: usize) {
        self.taken[shard] = true;
        self.turn = shard + 1;
    }

    /// The runner is done with the job that it had of this shard.
    pub(super) fn releases(&mut self, shard: usize) {
        self.taken[shard] = false;
    }

    /// The runner found nothing and waits for being called.
    pub(super) fn rests(&mut self, runner: usize) {
        self.runners[runner] = Duty::Resting;
    }

    /// The runner's job takes long. Whether to call another one for the `waiting` jobs.
    pub(super) fn held_up(&mut self, runner: usize, waiting: usize, now: Instant) -> bool {
        if self.runners[runner] == Duty::HeldUp {
            return false;
        }
        self.runners[runner] = Duty::HeldUp;
        waiting > 0 && self.calls(waiting, now)
    }

    fn calls(&mut self, waiting: usize, now: Instant) -> bool {
        if self.called || !self.runners.contains(&Duty::Resting) {
            return false;
        }
        let since = self.runners.iter().filter_map(|duty| match duty {
            Duty::Working(since) => Some(*since),
            Duty::Resting | Duty::HeldUp => None,
        });
        // The latest one to begin: the others may be far from done.
        let patience = since.max().is_some_and(|since| now.saturating_duration_since(since) < PATIENCE);
        self.called = !patience || waiting > BACKLOG;
        self.called
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn jobs_that_come_close_together_call_one_runner() {
        let start = Instant::now();
        let mut crew = Crew::new(2);
        assert!(crew.job_came(0, 1, start));
        assert!(!crew.job_came(1, 2, start), "it was called");
        crew.looks(0, start);
        assert_eq!(crew.free().collect::<Vec<_>>(), [0, 1]);
        crew.takes(0);
        assert!(!crew.job_came(1, 2, start + PATIENCE / 2));
        assert!(crew.job_came(1, 2, start + PATIENCE), "it has been at work for long");
        crew.looks(1, start + PATIENCE);
        assert_eq!(crew.free().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn a_backlog_calls_another_runner_at_once() {
        let start = Instant::now();
        let mut crew = Crew::new(2);
        assert!(crew.job_came(0, 1, start));
        crew.looks(0, start);
        crew.takes(0);
        assert!(!crew.job_came(1, BACKLOG, start));
        assert!(crew.job_came(1, BACKLOG + 1, start));
    }

    #[test]
    fn a_job_that_takes_long_calls_another_runner_for_what_waits() {
        let start = Instant::now();
        let mut crew = Crew::new(3);
        assert!(crew.job_came(0, 1, start));
        crew.looks(0, start);
        crew.takes(0);
        assert!(!crew.job_came(1, 1, start));
        assert!(crew.held_up(0, 1, start));
        assert!(!crew.held_up(0, 1, start), "it was called");
        crew.looks(1, start);
        crew.rests(1);
        assert!(!crew.job_came(0, 1, start), "the shard is taken: nobody else could do it");
        assert!(crew.job_came(2, 1, start), "nobody is at work");
    }

    #[derive(Clone, Debug)]
    enum Event {
        Job(usize),
        /// A runner that was called or is at work looks, and takes a job if there is one.
        Look(usize),
        Finish(usize),
        HoldUp(usize),
        Wait,
    }

    const SIZE: usize = 3;

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            3 => (0..SIZE).prop_map(Event::Job),
            4 => (0..SIZE).prop_map(Event::Look),
            3 => (0..SIZE).prop_map(Event::Finish),
            1 => (0..SIZE).prop_map(Event::HoldUp),
            1 => Just(Event::Wait),
        ]
    }

    proptest! {
        /// Whatever happens: a shard has one runner at a time, and whoever is at rest is called, or somebody is going to
        /// look, as long as a job waits that could be done.
        #[test]
        fn no_job_is_forgotten_and_no_shard_has_two_runners(events in prop::collection::vec(event(), 0..200)) {
            let mut now = Instant::now();
            let mut crew = Crew::new(SIZE);
            let mut jobs = [0_usize; SIZE];
            let mut holds: [Option<usize>; SIZE] = [None; SIZE];
            let mut long = [false; SIZE];
            // Resting runners, and whether one of them was woken.
            let mut resting = [true; SIZE];
            let mut woken = false;
            for event in events {
                let waiting = jobs.iter().sum::<usize>();
                match event {
                    Event::Job(shard) => {
                        jobs[shard] += 1;
                        woken |= crew.job_came(shard, waiting + 1, now);
                    }
                    Event::Look(runner) if holds[runner].is_none() => {
                        if resting[runner] {
                            if !woken { continue }
                            woken = false;
                            resting[runner] = false;
                        }
                        crew.looks(runner, now);
                        let found = crew.free().find(|shard| jobs[*shard] > 0);
                        match found {
                            Some(shard) => {
                                prop_assert!(!holds.contains(&Some(shard)));
                                crew.takes(shard);
                                jobs[shard] -= 1;
                                holds[runner] = Some(shard);
                            }
                            None => {
                                crew.rests(runner);
                                resting[runner] = true;
                            }
                        }
                    }
                    Event::Finish(runner) => {
                        if let Some(shard) = holds[runner].take() {
                            crew.releases(shard);
                            long[runner] = false;
                        }
                    }
                    Event::HoldUp(runner) if holds[runner].is_some() => {
                        woken |= crew.held_up(runner, waiting, now);
                        long[runner] = true;
                    }
                    Event::Wait => now += PATIENCE,
                    Event::Look(_) | Event::HoldUp(_) => {}
                }
                let doable = (0..SIZE).any(|shard| jobs[shard] > 0 && !holds.contains(&Some(shard)));
                let looking = (0..SIZE).any(|runner| !resting[runner] && !long[runner]);
                prop_assert!(!doable || woken || looking || !resting.contains(&true), "{crew:?} {jobs:?}");
            }
        }
    }
}
