//! When files settle, by examples; and whatever happens to them, against a model that writes everything down.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const TERMS: Terms = Terms {
    look: Duration::from_millis(2000),
    closed: Duration::from_millis(250),
    unknown: Duration::from_millis(2000),
    writing: Duration::from_millis(10_000),
    restless: Duration::from_millis(10_000),
    together: false,
};

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The state of a file, by a number.
fn state(number: u64) -> Stamp {
    Stamp { length: number, modified: (0, 0), changed: (0, 0), identity: (0, 0) }
}

/// Files at rest in state 1, told of.
fn resting(names: &[&str], terms: Terms) -> Settle {
    let mut settle = Settle::new(terms);
    let names: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
    settle.want(&names, |_| false, at(0));
    for now in [at(0), terms.unknown] {
        names.iter().for_each(|name| settle.seen(name, Some(state(1)), now));
    }
    assert_eq!(settle.verdicts(terms.unknown).len(), names.len());
    settle
}

/// What happens to the file `a`, which rested until 2 s.
enum Step {
    Told(u64, Hint),
    /// Where a look is asked for, the file is in this state.
    Looks(u64, Option<u64>),
}
use Step::{Looks, Told};

/// Plays steps; each look is made only where one is asked for. What is told, and when.
fn played(steps: &[Step], terms: Terms) -> Vec<(u64, Verdict)> {
    let mut settle = resting(&["a"], terms);
    let mut told = Vec::new();
    for step in steps {
        match step {
            Told(now, hint) => settle.told(Path::new("a"), *hint, at(*now)),
            Looks(now, found) => {
                if !settle.to_look(at(*now)).is_empty() || now % 2000 == 0 {
                    settle.seen(Path::new("a"), found.map(state), at(*now));
                }
                told.extend(settle.verdicts(at(*now)).into_iter().map(|(_, verdict)| (*now, verdict)));
            }
        }
    }
    told
}

#[track_caller]
fn check(steps: &[Step], expected: &[(u64, Option<u64>)]) {
    let verdicts = played(steps, TERMS);
    let plain = |verdict: &Verdict| match verdict {
        Verdict::Settled { stamp, .. } => Some(stamp.length),
        Verdict::Gone => None,
        Verdict::Restless => Some(u64::MAX),
    };
    assert_eq!(verdicts.iter().map(|(now, verdict)| (*now, plain(verdict))).collect::<Vec<_>>(), expected);
}

const RESTLESS: Option<u64> = Some(u64::MAX);

#[test]
fn what_is_renamed_into_place_is_due_at_once() {
    check(&[Told(3000, Hint::Renamed), Looks(3000, Some(2))], &[(3000, Some(2))]);
    // Even if it looks the same.
    check(&[Told(3000, Hint::Renamed), Looks(3000, Some(1))], &[(3000, Some(1))]);
}

#[test]
fn what_is_written_in_place_rests_a_moment_after_it_was_closed() {
    check(
        &[
            Told(3000, Hint::Written),
            Looks(3000, Some(2)),
            Told(3100, Hint::Closed),
            Looks(3100, Some(3)),
            Looks(3349, Some(3)),
            Looks(3350, Some(3)),
        ],
        &[(3350, Some(3))],
    );
}

#[test]
fn a_copy_in_pieces_is_due_after_the_last() {
    let piece = |now, number| [Told(now, Hint::Written), Told(now + 1, Hint::Closed), Looks(now + 1, Some(number))];
    let mut steps: Vec<Step> = (0..8).flat_map(|number| piece(3000 + 200 * number, 2 + number)).collect();
    steps.extend([Looks(4650, Some(9)), Looks(4651, Some(9))]);
    check(&steps, &[(4651, Some(9))]);
}

#[test]
fn what_is_open_for_writing_may_pause_for_long() {
    check(
        &[
            Told(3000, Hint::Written),
            Looks(3000, Some(2)),
            Looks(12_999, Some(2)),
            Told(12_999, Hint::Closed),
            Looks(12_999, Some(2)),
            Looks(13_249, Some(2)),
        ],
        &[(13_249, Some(2))],
    );
    // And is not waited for without end.
    check(&[Told(3000, Hint::Written), Looks(3000, Some(2)), Looks(13_000, Some(2))], &[(13_000, Some(2))]);
}

#[test]
fn what_nothing_is_told_of_is_found_by_looking_twice() {
    check(&[Looks(4000, Some(2)), Looks(5999, Some(2)), Looks(6000, Some(2))], &[(6000, Some(2))]);
    check(
        &[Looks(4000, Some(2)), Looks(6000, Some(3)), Looks(8000, Some(4)), Looks(10_000, Some(4))],
        &[(10_000, Some(4))],
    );
}

#[test]
fn what_is_told_late_counts_as_told() {
    check(
        &[Looks(4000, Some(2)), Told(4001, Hint::Closed), Looks(4001, Some(2)), Looks(4251, Some(2))],
        &[(4251, Some(2))],
    );
    let steps = [Looks(4000, Some(2)), Told(4001, Hint::Closed), Looks(4001, Some(2)), Looks(4251, Some(2))];
    assert_eq!(played(&steps, TERMS), [(4251, Verdict::Settled { stamp: state(2), told: true })]);
    let steps = [Looks(4000, Some(2)), Looks(6000, Some(2))];
    assert_eq!(played(&steps, TERMS), [(6000, Verdict::Settled { stamp: state(2), told: false })]);
}

#[test]
fn what_went_is_told_once_and_again_when_it_comes() {
    check(
        &[
            Told(3000, Hint::Closed),
            Looks(3000, None),
            Looks(3250, None),
            Told(3300, Hint::Doubt),
            Looks(3300, None),
            Looks(5300, None),
            Told(5400, Hint::Renamed),
            Looks(5400, Some(1)),
        ],
        &[(3250, None), (5400, Some(1))],
    );
    // Replaced by deleting and writing anew: it never went.
    check(
        &[
            Told(3000, Hint::Closed),
            Looks(3000, None),
            Told(3100, Hint::Written),
            Looks(3100, Some(2)),
            Told(3200, Hint::Closed),
            Looks(3200, Some(3)),
            Looks(3450, Some(3)),
        ],
        &[(3450, Some(3))],
    );
}

#[test]
fn nothing_is_told_without_a_look() {
    let mut settle = resting(&["a"], TERMS);
    settle.told(Path::new("a"), Hint::Closed, at(3000));
    settle.seen(Path::new("a"), Some(state(2)), at(3000));
    assert_eq!(settle.verdicts(at(9000)), []);
    settle.seen(Path::new("a"), Some(state(3)), at(9000));
    assert_eq!(settle.verdicts(at(9000)), [], "it changed since");
}

#[test]
fn what_reached_nobody_is_told_again() {
    let mut settle = resting(&["a"], TERMS);
    let goes = |settle: &mut Settle, now: u64| {
        settle.told(Path::new("a"), Hint::Closed, at(now));
        let _ = [now, now + 250].map(|now| settle.seen(Path::new("a"), None, at(now)));
        settle.verdicts(at(now + 250))
    };
    let gone = [("a".into(), Verdict::Gone)];
    assert_eq!(goes(&mut settle, 3000), gone);
    assert_eq!(goes(&mut settle, 4000), []);
    settle.withdrawn(Path::new("a"));
    assert_eq!(goes(&mut settle, 5000), gone);
}

#[test]
fn what_somebody_else_wants_to_know_of_is_told_again() {
    let mut settle = resting(&["a", "b"], TERMS);
    let again = |settle: &mut Settle, now: u64, found: Option<Stamp>| {
        settle.tell_again(Path::new("a"), at(now));
        settle.tell_again(Path::new("not wanted"), at(now));
        assert_eq!(settle.to_look(at(now)), [PathBuf::from("a")]);
        let _ = [now, now + 1999].map(|now| settle.seen(Path::new("a"), found, at(now)));
        assert_eq!(settle.verdicts(at(now + 1999)), [], "it may be that somebody writes to it");
        assert_eq!(settle.next_look(), Some(at(now + 2000)));
        settle.seen(Path::new("a"), found, at(now + 2000));
        settle.verdicts(at(now + 2000))
    };
    let settled = |number| [("a".into(), Verdict::Settled { stamp: state(number), told: true })];
    assert_eq!(again(&mut settle, 3000, Some(state(1))), settled(1), "though it is the same");
    assert_eq!(again(&mut settle, 6000, Some(state(2))), settled(2));
    for now in [9000, 12_000] {
        assert_eq!(again(&mut settle, now, None), [("a".into(), Verdict::Gone)]);
    }
    // What is known of its writer stands.
    settle.told(Path::new("b"), Hint::Written, at(15_000));
    settle.tell_again(Path::new("b"), at(15_001));
    let _ = [15_001, 24_999].map(|now| settle.seen(Path::new("b"), Some(state(1)), at(now)));
    assert_eq!(settle.verdicts(at(24_999)), []);
}

#[test]
fn who_sets_times_or_permissions_says_nothing_of_who_writes() {
    check(
        &[
            Told(3000, Hint::Written),
            Looks(3000, Some(2)),
            Told(3100, Hint::Touched),
            Looks(3100, Some(2)),
            Looks(12_000, Some(2)),
        ],
        &[],
    );
    check(&[Told(3000, Hint::Touched), Looks(3000, Some(2)), Looks(3250, Some(2))], &[(3250, Some(2))]);
}

#[test]
fn what_changes_for_ever_is_told_of_once_and_never_due() {
    let steps = (0..200).flat_map(|number| {
        let now = 3000 + 100 * number;
        [Told(now, Hint::Closed), Looks(now, Some(2 + number))]
    });
    check(&steps.collect::<Vec<_>>(), &[(13_000, RESTLESS)]);
}

#[test]
fn of_what_is_wanted_the_first_state_is_told() {
    let mut settle = Settle::new(TERMS);
    settle.want(&[PathBuf::from("a"), PathBuf::from("b")], |_| false, at(0));
    assert_eq!(settle.next_look(), Some(at(0)));
    for now in [0, 1999, 2000] {
        for path in settle.to_look(at(now)) {
            settle.seen(&path, (path == Path::new("a")).then(|| state(1)), at(now));
        }
        let expected = [("a".into(), Verdict::Settled { stamp: state(1), told: true }), ("b".into(), Verdict::Gone)];
        assert_eq!(settle.verdicts(at(now)), if now == 2000 { &expected[..] } else { &[] }, "{now}");
    }
    // Wanted again, and no more: nothing is new.
    settle.want(&[PathBuf::from("b")], |_| false, at(2001));
    assert!(!settle.wants(Path::new("a")));
    assert_eq!((settle.next_look(), settle.verdicts(at(9000))), (None, vec![]));
}

#[test]
fn what_was_found_in_a_folder_is_forgotten_once_it_went() {
    let mut settle = Settle::new(TERMS);
    for (name, room) in [("a", true), ("b", true), ("c", false), ("a", true)] {
        assert_eq!(settle.found(Path::new(name), 2, at(0)), room, "{name}");
    }
    for now in [0, 2000] {
        settle.seen(Path::new("a"), None, at(now));
        settle.seen(Path::new("b"), Some(state(1)), at(now));
    }
    assert_eq!(settle.verdicts(at(2000)).len(), 2);
    assert!(!settle.wants(Path::new("a")) && settle.wants(Path::new("b")));
    settle.want(&[], |path| path == Path::new("b"), at(2000));
    assert!(settle.wants(Path::new("b")) && settle.next_look().is_none());
}

#[test]
fn files_that_count_as_one_are_due_together() {
    let mut settle = resting(&["a", "b", "c"], Terms { together: true, ..TERMS });
    settle.told(Path::new("a"), Hint::Renamed, at(3000));
    settle.seen(Path::new("a"), Some(state(2)), at(3000));
    settle.told(Path::new("b"), Hint::Closed, at(3000));
    settle.seen(Path::new("b"), Some(state(2)), at(3000));
    assert_eq!((settle.verdicts(at(3000)), settle.next_look()), (vec![], Some(at(3250))));
    for path in settle.to_look(at(3250)) {
        settle.seen(&path, Some(state(2)), at(3250));
    }
    let told = settle.verdicts(at(3250));
    assert_eq!(told.iter().map(|(path, _)| path.as_path()).collect::<Vec<_>>(), ["a", "b"].map(Path::new));
}

#[test]
fn what_cannot_be_looked_at_holds_nothing_back_and_is_told_once_it_can() {
    let mut settle = resting(&["a", "b"], Terms { together: true, ..TERMS });
    settle.told(Path::new("a"), Hint::Touched, at(3000));
    settle.unseen(Path::new("a"));
    settle.told(Path::new("b"), Hint::Renamed, at(3000));
    settle.seen(Path::new("b"), Some(state(2)), at(3000));
    assert_eq!(settle.verdicts(at(3000)).len(), 1);
    for now in [4000, 6000] {
        settle.seen(Path::new("a"), Some(state(1)), at(now));
    }
    assert_eq!(settle.verdicts(at(6000)), [("a".into(), Verdict::Settled { stamp: state(1), told: true })]);
}

/// What happens in the model, after so many milliseconds.
#[derive(Clone, Debug)]
enum Event {
    /// A file gets another state, or goes; the system tells of it, rightly, or loses that.
    Change { file: usize, gone: bool, hint: Option<Hint> },
    /// The system tells of a change that was none.
    Told { file: usize, hint: Hint },
    /// All files are looked at.
    LookAtAll,
    /// A file cannot be looked at until the next event.
    Hidden { file: usize },
    /// The system has lost what it had to tell.
    Doubt,
}

fn hints() -> impl Strategy<Value = Hint> {
    prop_oneof![Just(Hint::Renamed), Just(Hint::Closed), Just(Hint::Written), Just(Hint::Touched), Just(Hint::Doubt)]
}

fn events() -> impl Strategy<Value = Vec<(u64, Event)>> {
    let event = prop_oneof![
        4 => (0..3_usize, prop::bool::weighted(0.2), prop::option::weighted(0.8, hints()))
            .prop_map(|(file, gone, hint)| Event::Change { file, gone, hint }),
        1 => (0..3_usize, hints()).prop_map(|(file, hint)| Event::Told { file, hint }),
        2 => Just(Event::LookAtAll),
        1 => (0..3_usize).prop_map(|file| Event::Hidden { file }),
        1 => Just(Event::Doubt),
    ];
    prop::collection::vec((prop_oneof![3 => 0..300_u64, 1 => 0..12_000_u64], event), 1..40)
}

/// A world of three files, and what an onlooker who writes everything down knows of it.
struct World {
    settle: Settle,
    now: u64,
    /// The states that the files have, the highest so far, and who cannot be looked at.
    states: [Option<u64>; 3],
    highest: u64,
    hidden: Option<usize>,
    /// What was found by looks, and when.
    looks: [Vec<(u64, Option<u64>)>; 3],
    /// When what was said of it.
    said: [Vec<(u64, Hint)>; 3],
    /// What was told last.
    told: [Option<Option<u64>>; 3],
    looks_made: usize,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

impl World {
    fn look(&mut self, file: usize) {
        self.looks_made += 1;
        if self.hidden == Some(file) {
            // What was said before is forgotten: whatever is found next counts as new.
            self.said[file].push((self.now, Hint::Doubt));
            return self.settle.unseen(Path::new(NAMES[file]));
        }
        self.settle.seen(Path::new(NAMES[file]), self.states[file].map(state), at(self.now));
        self.looks[file].push((self.now, self.states[file]));
    }

    fn say(&mut self, file: usize, hint: Hint) {
        self.settle.told(Path::new(NAMES[file]), hint, at(self.now));
        self.said[file].push((self.now, hint));
    }

    /// Makes the looks that are asked for, and checks what is told.
    fn turn(&mut self) -> Result<(), TestCaseError> {
        for path in self.settle.to_look(at(self.now)) {
            self.look(NAMES.iter().position(|name| Path::new(name) == path).expect("is one of them"));
        }
        let verdicts = self.settle.verdicts(at(self.now));
        let mut named = BTreeSet::new();
        for (path, verdict) in verdicts {
            prop_assert!(named.insert(path.clone()), "told twice");
            let file = NAMES.iter().position(|name| Path::new(name) == path).expect("is one of them");
            let state = match verdict {
                Verdict::Restless => continue,
                Verdict::Gone => None,
                Verdict::Settled { stamp, .. } => Some(stamp.length),
            };
            self.rested(file, state)?;
            prop_assert!(state.is_some() || self.told[file] != Some(None), "told as gone twice");
            self.told[file] = Some(state);
        }
        prop_assert!(self.settle.next_look().is_none_or(|next| next > at(self.now)), "would look for ever");
        Ok(())
    }

    /// Whether the last look saw this state, and it rested for as long as the last that was said asks for.
    fn rested(&self, file: usize, state: Option<u64>) -> Result<(), TestCaseError> {
        let (looks, said) = (&self.looks[file], self.said[file].last());
        prop_assert_eq!(looks.last(), Some(&(self.now, state)), "not as it was seen just now");
        let since = looks.iter().rev().take_while(|(_, seen)| *seen == state).last().map_or(0, |(now, _)| *now);
        let writer = self.said[file].iter().rev().map(|(_, hint)| *hint).find(|hint| *hint != Hint::Touched);
        let least = match (said.map(|(_, hint)| *hint), writer) {
            (Some(Hint::Renamed), _) | (Some(Hint::Touched), Some(Hint::Renamed)) => 0,
            (Some(Hint::Written), _) => 10_000,
            (Some(Hint::Doubt), _) => 2000,
            (_, _) => 250,
        };
        let quiet = said.map_or(self.now, |(now, _)| self.now - now);
        // What is said of a change comes before the look at it.
        prop_assert!(quiet >= least, "{quiet} ms after something was said");
        let unsaid = said.is_none_or(|(said, _)| *said < since);
        prop_assert!(!unsaid || self.now - since >= 2000, "{} ms after it was found", self.now - since);
        Ok(())
    }

    fn happens(&mut self, event: &Event) {
        self.hidden = None;
        match *event {
            Event::Change { file, gone, hint } => {
                self.highest += 1;
                self.states[file] = (!gone).then_some(self.highest);
                hint.into_iter().for_each(|hint| self.say(file, hint));
            }
            Event::Told { file, hint } => self.say(file, hint),
            Event::LookAtAll => (0..NAMES.len()).for_each(|file| self.look(file)),
            Event::Hidden { file } => self.hidden = Some(file),
            Event::Doubt => (0..NAMES.len()).for_each(|file| self.say(file, Hint::Doubt)),
        }
    }

    /// Goes on until `end`, as the thread does: it looks when it is asked to, and at everything every 2 s.
    fn pass(&mut self, end: u64) -> Result<(), TestCaseError> {
        loop {
            let asked = self.settle.next_look().map_or(u64::MAX, |next| next.as_millis() as u64);
            let next = asked.min((self.now / 2000 + 1) * 2000);
            if next > end {
                self.now = end;
                return Ok(());
            }
            self.now = next;
            if next.is_multiple_of(2000) {
                (0..NAMES.len()).for_each(|file| self.look(file));
            }
            self.turn()?;
        }
    }
}

proptest! {
    #[test]
    fn the_last_state_is_told_and_none_that_does_not_rest(events in events(), together: bool) {
        let mut settle = Settle::new(Terms { together, ..TERMS });
        settle.want(&NAMES.map(PathBuf::from), |_| false, at(0));
        let mut world = World {
            settle,
            now: 0,
            states: [Some(0); 3],
            highest: 0,
            hidden: None,
            looks: Default::default(),
            said: Default::default(),
            told: [None; 3],
            looks_made: 0,
        };
        world.turn()?;
        for (wait, event) in &events {
            world.pass(world.now + wait)?;
            world.happens(event);
            world.turn()?;
        }
        world.hidden = None;
        world.pass(world.now + 30_000)?;
        prop_assert_eq!(world.told, world.states.map(Some), "the last state was not told");
        // Of looks besides those at everything there are few: not one a millisecond.
        let most = 3 * (world.now / 2000 + 2) + 8 * (events.len() as u64 + 3) * 3;
        prop_assert!(world.looks_made as u64 <= most, "{} looks in {} ms", world.looks_made, world.now);
    }
}
