//! When a handler that fails again and again is left alone, and when it is tried again.
//!
//! Pure: the time is told; no I/O, no lock. What counts is whether the handler works, not whether a message is good: a call that
//! ends with ok or with a reject shows that it does, one that traps, runs out of time or memory, or is given up after the handler
//! asked for other attempts, that it does not, and one that hangs in native code needs no others to show it; full outboxes, and a retry that is still to come, show neither. Calls that began
//! before the quarantine tell nothing any more: only the trial counts.

use std::time::{Duration, Instant};

use crate::control::config::model::QuarantinePolicy;

/// The longest time for which a handler is left alone.
const LONGEST: Duration = Duration::from_secs(600);

/// What a call shows of its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It works.
    Works,
    /// It does not.
    Fails,
    /// It does not, and each further call would cost a thread for good.
    Hangs,
    /// Neither.
    None,
}

/// How a handler stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is called; so many calls failed, one after the other.
    Called(u32),
    /// It is left alone until then, for so long.
    Alone { until: Instant, wait: Duration },
    /// One call tells what follows; whether that has begun.
    Trial { wait: Duration, begun: bool },
}

/// What follows from a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing changes.
    Nothing,
    /// So many calls failed: it is left alone for so long.
    Begins(u32, Duration),
    /// One call hangs: it is left alone for so long.
    BeginsAtOnce(Duration),
    /// The trial failed: it is left alone for so long.
    Again(Duration),
    /// The trial succeeded.
    Ends,
}

/// The quarantine of one handler.
#[derive(Clone, Debug)]
pub struct Quarantine {
    /// None where it is off.
    policy: Option<QuarantinePolicy>,
    state: State,
}

impl Quarantine {
    /// Of a handler that has not failed yet.
    pub fn new(policy: Option<QuarantinePolicy>) -> Quarantine {
        Quarantine { policy, state: State::Called(0) }
    }

    /// Whether its messages are to be parked.
    pub fn is_on(&self) -> bool {
        !matches!(self.state, State::Called(_))
    }

    /// Whether a call that succeeds makes a difference.
    pub fn counts(&self) -> bool {
        self.state != State::Called(0)
    }

    /// A call ended.
    pub fn call_ended(&mut self, sign: Sign, trial: bool, now: Instant) -> Verdict {
        let Some(policy) = self.policy else { return Verdict::Nothing };
        match (self.state, sign) {
            (State::Called(_), Sign::Works) => self.state = State::Called(0),
            (State::Called(_), Sign::Hangs) => return Verdict::BeginsAtOnce(self.alone(policy.wait, now)),
            (State::Called(failures), Sign::Fails) if failures + 1 >= policy.after => {
                return Verdict::Begins(failures + 1, self.alone(policy.wait, now));
            }
            (State::Called(failures), Sign::Fails) => self.state = State::Called(failures + 1),
            (State::Trial { begun: true, .. }, Sign::Works) if trial => {
                self.state = State::Called(0);
                return Verdict::Ends;
            }
            // It was asked whether it works, and has not shown that it does.
            (State::Trial { wait, begun: true }, Sign::Fails | Sign::Hangs | Sign::None) if trial => {
                return Verdict::Again(self.alone(wait.saturating_mul(2).min(LONGEST.max(policy.wait)), now));
            }
            (State::Called(_), Sign::None) | (State::Alone { .. } | State::Trial { .. }, _) => {}
        }
        Verdict::Nothing
    }

    fn alone(&mut self, wait: Duration, now: Instant) -> Duration {
        self.state = State::Alone { until: now + wait, wait };
        wait
    }

    /// Until when it is left alone; none where it is not, or where it is to be tried.
    pub fn until(&self) -> Option<Instant> {
        match self.state {
            State::Alone { until, .. } => Some(until),
            State::Called(_) | State::Trial { .. } => None,
        }
    }

    /// Whether a message is to be brought for the trial.
    pub fn wants_trial(&mut self, now: Instant) -> bool {
        if let State::Alone { until, wait } = self.state
            && now >= until
        {
            self.state = State::Trial { wait, begun: false };
        }
        matches!(self.state, State::Trial { begun: false, .. })
    }

    /// A message was brought for the trial: no other is until its call has ended.
    pub fn trial_begins(&mut self) {
        if let State::Trial { begun, .. } = &mut self.state {
            *begun = true;
        }
    }

    /// The message that was brought for the trial is not called.
    pub fn trial_withdrawn(&mut self) {
        if let State::Trial { begun, .. } = &mut self.state {
            *begun = false;
        }
    }

    /// It is over, and what failed is forgotten. Whether it was on.
    pub fn clear(&mut self) -> bool {
        let was_on = self.is_on();
        self.state = State::Called(0);
        was_on
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn quarantine(after: u32, wait: Duration) -> Quarantine {
        Quarantine::new(Some(QuarantinePolicy { after, wait }))
    }

    #[test]
    fn it_begins_with_so_many_failures_in_a_row() {
        let now = Instant::now();
        let mut one = quarantine(3, SECOND);
        for sign in [Sign::Fails, Sign::Fails, Sign::Works, Sign::Fails, Sign::None, Sign::Fails] {
            assert_eq!(one.call_ended(sign, false, now), Verdict::Nothing);
            assert!(!one.is_on());
        }
        assert_eq!(one.call_ended(Sign::Fails, false, now), Verdict::Begins(3, SECOND));
        assert!(one.is_on());
        assert_eq!(one.until(), Some(now + SECOND));
    }

    #[test]
    fn one_call_that_hangs_is_enough() {
        let now = Instant::now();
        let mut one = quarantine(3, SECOND);
        assert_eq!(one.call_ended(Sign::Hangs, false, now), Verdict::BeginsAtOnce(SECOND));
        assert!(one.is_on());
        assert!(one.wants_trial(now + SECOND));
        one.trial_begins();
        assert_eq!(one.call_ended(Sign::Hangs, true, now + SECOND), Verdict::Again(2 * SECOND));
        assert_eq!(Quarantine::new(None).call_ended(Sign::Hangs, false, now), Verdict::Nothing);
    }

    #[test]
    fn where_it_is_off_nothing_counts() {
        let mut off = Quarantine::new(None);
        for _ in 0..100 {
            assert_eq!(off.call_ended(Sign::Fails, false, Instant::now()), Verdict::Nothing);
        }
        assert!(!off.is_on());
    }

    #[test]
    fn the_time_doubles_with_each_trial_that_fails_up_to_ten_minutes() {
        let mut now = Instant::now();
        let mut one = quarantine(1, 30 * SECOND);
        assert_eq!(one.call_ended(Sign::Fails, false, now), Verdict::Begins(1, 30 * SECOND));
        for wait in [60, 120, 240, 480, 600, 600] {
            assert!(!one.wants_trial(one.until().expect("is left alone") - SECOND));
            now = one.until().expect("is left alone");
            assert!(one.wants_trial(now));
            one.trial_begins();
            assert!(!one.wants_trial(now), "one trial at a time");
            assert_eq!(one.call_ended(Sign::Fails, true, now), Verdict::Again(wait * SECOND));
        }
        assert!(one.wants_trial(one.until().expect("is left alone")));
        one.trial_begins();
        assert_eq!(one.call_ended(Sign::Works, true, now), Verdict::Ends);
        assert!(!one.is_on());
        assert_eq!(one.call_ended(Sign::Fails, false, now), Verdict::Begins(1, 30 * SECOND), "from the beginning");
    }

    #[test]
    fn a_trial_that_is_not_called_is_made_with_another_message() {
        let now = Instant::now();
        let mut one = quarantine(1, SECOND);
        one.call_ended(Sign::Fails, false, now);
        assert!(one.wants_trial(now + SECOND));
        one.trial_begins();
        one.trial_withdrawn();
        assert!(one.wants_trial(now + SECOND));
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Call(Sign, bool),
        Wait(u64),
        Begin,
        Withdraw,
        Clear,
    }

    fn event() -> impl Strategy<Value = Event> {
        let sign =
            prop_oneof![4 => Just(Sign::Works), 8 => Just(Sign::Fails), 1 => Just(Sign::Hangs), 4 => Just(Sign::None)];
        prop_oneof![
            6 => (sign, any::<bool>()).prop_map(|(sign, trial)| Event::Call(sign, trial)),
            3 => (0_u64..90).prop_map(Event::Wait),
            3 => Just(Event::Begin),
            1 => Just(Event::Withdraw),
            1 => Just(Event::Clear),
        ]
    }

    proptest! {
        /// It begins only with `after` failures or a call that hangs, ends only with a trial that succeeds or a command, and there is at most one trial
        /// at a time, and none before the time has passed.
        #[test]
        fn there_is_one_way_in_and_two_out(events in prop::collection::vec(event(), 0..200)) {
            let mut now = Instant::now();
            let mut one = quarantine(3, 30 * SECOND);
            let (mut failures, mut on, mut trial) = (0, false, false);
            for event in events {
                match event {
                    Event::Call(sign, of_trial) => {
                        let verdict = one.call_ended(sign, of_trial, now);
                        match (on, sign) {
                            (false, Sign::Works) => failures = 0,
                            (false, Sign::Fails) => failures += 1,
                            (false, Sign::Hangs | Sign::None) | (true, _) => {}
                        }
                        if !on && sign == Sign::Hangs {
                            prop_assert_eq!(verdict, Verdict::BeginsAtOnce(30 * SECOND));
                            (on, trial) = (true, false);
                        } else if !on && failures == 3 {
                            prop_assert_eq!(verdict, Verdict::Begins(3, 30 * SECOND));
                            (on, trial) = (true, false);
                        } else if on && trial && of_trial {
                            let ends = sign == Sign::Works;
                            prop_assert_eq!(verdict == Verdict::Ends, ends);
                            prop_assert_eq!(matches!(verdict, Verdict::Again(_)), !ends);
                            (on, trial, failures) = (!ends, false, 0);
                        } else {
                            prop_assert_eq!(verdict, Verdict::Nothing);
                        }
                    }
                    Event::Wait(seconds) => now += seconds as u32 * SECOND,
                    Event::Begin => {
                        let early = one.until().is_some_and(|until| now < until);
                        let wants = one.wants_trial(now);
                        prop_assert_eq!(wants, on && !trial && !early);
                        if wants {
                            one.trial_begins();
                            trial = true;
                        }
                    }
                    Event::Withdraw => {
                        one.trial_withdrawn();
                        trial = false;
                    }
                    Event::Clear => {
                        prop_assert_eq!(one.clear(), on);
                        (on, trial, failures) = (false, false, 0);
                    }
                }
                prop_assert_eq!(one.is_on(), on);
            }
        }
    }
}
