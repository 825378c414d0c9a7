//! The trial of a plugin's new version: which calls run on it, and what follows from how they end.
//!
//! Pure: no clock, no lock, no I/O. Fed by the runners, through `trial.rs`, with each first call of a message or of a run, and with what
//! the calls on trial have shown; gives a verdict once. It deliberately knows nothing of why a call failed, nor what a rollback does.

/// Calls on trial before the share of those that failed counts: one or two failures say nothing of a version.
pub const JUDGED_FROM: u32 = 20;

/// Calls on trial after which the version has passed.
pub const PASSED_AT: u32 = 100;

/// The fractional part of the golden ratio, as a share of 2^64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a call on trial has shown of its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// It returned ok.
    Works,
    /// It failed, and the old version did not fail on the same.
    Fails,
}

/// What follows from the calls so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The trial goes on.
    Continue,
    /// The version has passed: it is to become the active one.
    Promote,
    /// Too many calls failed: it is called no more, and is to be refused.
    RollBack,
}

/// The trial of one version.
#[derive(Clone, Debug)]
pub struct Canary {
    /// Of first calls, as a share of 2^64.
    share: u64,
    /// Of calls on trial.
    max_failures: f64,
    /// Where the last call stood on the circle of 2^64.
    place: u64,
    calls: u32,
    failures: u32,
    verdict: Verdict,
}

impl Canary {
    /// A version that was not called yet. `share` of the first calls run on it, more than 0 and at most 1; of these, no larger share than
    /// `max_failures` may fail, at least 0 and less than 1.
    pub fn new(share: f64, max_failures: f64) -> Canary {
        // A float becomes the nearest integer that there is: all of the circle for 1.
        let share = (share * 2_f64.powi(64)) as u64;
        Canary { share, max_failures, place: GOLDEN.wrapping_neg(), calls: 0, failures: 0, verdict: Verdict::Continue }
    }

    /// Whether the first call that comes now runs on the version on trial. The very first one does.
    ///
    /// Each call stands a golden section further on a circle, and those within the share are chosen. So few calls as many have the right
    /// share among them, and so do those of one topic among several that come in turns: a count that starts over at the share would
    /// choose the same topic each time.
    pub fn chooses(&mut self) -> bool {
        if self.verdict == Verdict::RollBack {
            return false;
        }
        self.place = self.place.wrapping_add(GOLDEN);
        self.place <= self.share
    }

    /// A call on trial has ended, and with it what ran on the old version in its place. What follows, told once.
    pub fn ended(&mut self, shown: Shown) -> Verdict {
        if self.verdict != Verdict::Continue {
            return Verdict::Continue;
        }
        self.calls += 1;
        self.failures += u32::from(shown == Shown::Fails);
        // A quotient, since that of 29 and 100 is the number that 0.29 is, while a product of it need not be 29.
        let failed = f64::from(self.failures) / f64::from(self.calls);
        self.verdict = match self.calls {
            calls if calls >= JUDGED_FROM && failed > self.max_failures => Verdict::RollBack,
            calls if calls >= PASSED_AT => Verdict::Promote,
            _ => Verdict::Continue,
        };
        self.verdict
    }

    /// A call on trial hangs, and cannot be ended: that no share of the calls may do.
    pub fn hangs(&mut self) -> Verdict {
        if self.verdict != Verdict::Continue {
            return Verdict::Continue;
        }
        self.calls += 1;
        self.failures += 1;
        self.verdict = Verdict::RollBack;
        self.verdict
    }

    /// The version that runs is left alone since it fails: the one on trial takes its place, unless it has failed too often so far.
    pub fn is_needed(&mut self) -> Verdict {
        let failed = f64::from(self.failures) / f64::from(self.calls.max(1));
        if self.verdict != Verdict::Continue || failed > self.max_failures {
            return Verdict::Continue;
        }
        self.verdict = Verdict::Promote;
        self.verdict
    }

    /// What followed so far.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Calls on trial that have shown something, [`PASSED_AT`] at most.
    pub fn calls(&self) -> u32 {
        self.calls
    }

    /// Those among them that failed.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The largest share of them that may fail.
    pub fn max_failures(&self) -> f64 {
        self.max_failures
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The verdict of calls of which those at these places, from 1, fail; and after how many calls it came.
    fn judged(max_failures: f64, fail: impl Fn(u32) -> bool) -> (Verdict, u32) {
        let mut canary = Canary::new(1.0, max_failures);
        for call in 1..=PASSED_AT {
            let verdict = canary.ended(if fail(call) { Shown::Fails } else { Shown::Works });
            if verdict != Verdict::Continue {
                return (verdict, call);
            }
        }
        (Verdict::Continue, PASSED_AT)
    }

    #[test]
    fn a_version_is_judged_from_twenty_calls_on_and_passes_at_a_hundred() {
        let check = |max_failures, fail: &dyn Fn(u32) -> bool, expected| {
            assert_eq!(judged(max_failures, fail), expected);
        };
        check(0.05, &|_| false, (Verdict::Promote, 100));
        check(0.05, &|_| true, (Verdict::RollBack, 20));
        // One of 20 is no more than 0.05; two are.
        check(0.05, &|call| call == 1, (Verdict::Promote, 100));
        check(0.05, &|call| call <= 2, (Verdict::RollBack, 20));
        check(0.05, &|call| [1, 21].contains(&call), (Verdict::RollBack, 21));
        check(0.05, &|call| call % 20 == 0, (Verdict::Promote, 100));
        check(0.0, &|call| call == 3, (Verdict::RollBack, 20));
        check(0.0, &|call| call == 100, (Verdict::RollBack, 100));
        // 0.29 × 100 is less than 29, as floats have it.
        check(0.29, &|call| call > 71, (Verdict::Promote, 100));
        check(0.29, &|call| call > 70, (Verdict::RollBack, 99));
    }

    #[test]
    fn nothing_counts_after_the_verdict_and_only_a_rollback_ends_the_calls() {
        for (shown, verdict, chosen) in
            [(Shown::Fails, Verdict::RollBack, false), (Shown::Works, Verdict::Promote, true)]
        {
            let mut canary = Canary::new(1.0, 0.05);
            while canary.verdict() == Verdict::Continue {
                assert!(canary.chooses());
                canary.ended(shown);
            }
            let (calls, failures) = (canary.calls(), canary.failures());
            assert_eq!(canary.ended(Shown::Fails), Verdict::Continue);
            assert_eq!((canary.verdict(), canary.calls(), canary.failures()), (verdict, calls, failures));
            assert_eq!(canary.chooses(), chosen);
        }
    }

    #[test]
    fn one_call_that_hangs_is_enough() {
        let mut canary = Canary::new(0.5, 0.9);
        assert_eq!(canary.hangs(), Verdict::RollBack);
        assert_eq!((canary.verdict(), canary.calls(), canary.failures()), (Verdict::RollBack, 1, 1));
        assert_eq!(canary.hangs(), Verdict::Continue, "told once");
    }

    #[test]
    fn a_version_that_did_not_fail_takes_over_from_one_that_does() {
        let mut canary = Canary::new(0.5, 0.05);
        assert_eq!(canary.is_needed(), Verdict::Promote);
        assert_eq!(canary.is_needed(), Verdict::Continue, "told once");
        let mut canary = Canary::new(0.5, 0.05);
        canary.ended(Shown::Fails);
        assert_eq!((canary.is_needed(), canary.verdict()), (Verdict::Continue, Verdict::Continue));
        (0..19).for_each(|_| _ = canary.ended(Shown::Works));
        assert_eq!(canary.is_needed(), Verdict::Promote);
    }

    #[test]
    fn calls_that_come_in_turns_are_chosen_alike() {
        const ROUNDS: usize = 2_000;
        for topics in 1..=24 {
            let mut canary = Canary::new(0.1, 0.05);
            let mut chosen = vec![0_usize; topics];
            (0..topics * ROUNDS).for_each(|call| chosen[call % topics] += usize::from(canary.chooses()));
            let expected = ROUNDS / 10;
            let alike = expected * 9 / 10..=expected * 11 / 10;
            assert!(chosen.iter().all(|chosen| alike.contains(chosen)), "{topics} topics: {chosen:?}");
        }
    }

    #[test]
    fn the_first_call_is_chosen_and_with_a_share_of_one_all_are() {
        assert!(Canary::new(0.000_001, 0.05).chooses());
        let mut canary = Canary::new(1.0, 0.05);
        assert!((0..10_000).all(|_| canary.chooses()));
    }

    proptest! {
        /// At any time the calls that were chosen are the share of all, give or take a few: the discrepancy of the golden section.
        #[test]
        fn the_share_is_kept_at_any_time(share in 0.000_001..=1.0_f64, calls in 1..5_000_u32) {
            let mut canary = Canary::new(share, 0.05);
            let chosen = (0..calls).filter(|_| canary.chooses()).count() as f64;
            let most = 1.0 + 2.08 * (f64::from(calls) + 1.0).ln();
            prop_assert!((chosen - share * f64::from(calls)).abs() <= most, "{chosen} of {calls} for {share}");
        }

        /// Against the rule as it is told, on the whole list of calls so far.
        #[test]
        fn the_verdict_is_that_of_the_rule(fails in prop::collection::vec(prop::bool::weighted(0.06), 0..130), most in 0.0..1.0_f64, tight: bool) {
            let most = if tight { most / 10.0 } else { most };
            let mut canary = Canary::new(1.0, most);
            let mut over = false;
            for end in 1..=fails.len() {
                let (so_far, failed) = (&fails[..end], fails[..end].iter().filter(|fails| **fails).count());
                let verdict = canary.ended(if so_far[end - 1] { Shown::Fails } else { Shown::Works });
                let too_many = end >= 20 && failed as f64 > most * end as f64 + 1e-9;
                let expected = match (over, too_many, end) {
                    (true, ..) => Verdict::Continue,
                    (false, true, _) => Verdict::RollBack,
                    (false, false, 100) => Verdict::Promote,
                    (false, false, _) => Verdict::Continue,
                };
                prop_assert_eq!(verdict, expected, "after {} calls, {} of which failed", end, failed);
                over |= verdict != Verdict::Continue;
            }
        }
    }
}
