//! When schedules are due: clocks that are set and that drift, summer time, and what is missed.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// 2023-11-14T22:13:20Z.
const START: u64 = 1_700_000_000;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Both clocks, which can be moved apart.
#[derive(Clone, Copy)]
struct Clocks(Now);

impl Clocks {
    fn new() -> Clocks {
        Clocks(Now { mono: Instant::now() + Duration::from_secs(1_000_000), wall: at(START) })
    }

    fn pass(&mut self, time: Duration) -> Now {
        self.0 = Now { mono: self.0.mono + time, wall: self.0.wall + time };
        self.0
    }

    fn set(&mut self, wall: SystemTime) -> Now {
        self.0.wall = wall;
        self.0
    }
}

fn every(clocks: &Clocks, period: Duration, jitter: Duration) -> Course {
    Course::begin(Timing::Every(period), jitter, clocks.0, 0.5)
}

fn cron(clocks: &Clocks, pattern: &str) -> Course {
    let timing = CronTiming::new(pattern, "UTC").expect("is a pattern");
    Course::begin(Timing::Cron(Box::new(timing)), Duration::ZERO, clocks.0, 0.5)
}

fn none() -> Due {
    Due { run: None, missed: 0 }
}

#[test]
fn every_counts_from_the_start_and_does_not_drift() {
    let mut clocks = Clocks::new();
    let mut course = every(&clocks, 10 * SECOND, Duration::ZERO);
    assert_eq!(course.wait(clocks.0), Some(10 * SECOND));
    assert_eq!(course.look(clocks.pass(10 * SECOND - Duration::from_nanos(1)), 0.5), none());
    // Looked at three seconds late: the run was due before, and the next one is not put off.
    let now = clocks.pass(3 * SECOND + Duration::from_nanos(1));
    assert_eq!(course.look(now, 0.5), Due { run: Some(at(START + 10)), missed: 0 });
    assert_eq!(course.wait(now), Some(7 * SECOND));
    assert_eq!(course.look(clocks.pass(7 * SECOND), 0.5), Due { run: Some(at(START + 20)), missed: 0 });
}

#[test]
fn of_what_every_missed_the_newest_runs() {
    let mut clocks = Clocks::new();
    let mut course = every(&clocks, 10 * SECOND, Duration::ZERO);
    assert_eq!(course.look(clocks.pass(45 * SECOND), 0.5), Due { run: Some(at(START + 40)), missed: 3 });
    assert_eq!(course.wait(clocks.0), Some(5 * SECOND));
    let years = Duration::from_secs(10 * 365 * 86_400);
    assert_eq!(course.look(clocks.pass(years), 0.5).missed, MOST_MISSED);
    assert!(course.wait(clocks.0).expect("goes on") <= 10 * SECOND);
}

#[test]
fn every_does_not_mind_the_wall_clock() {
    let mut clocks = Clocks::new();
    let mut course = every(&clocks, 10 * SECOND, Duration::ZERO);
    assert_eq!(course.look(clocks.set(at(START + 1_000_000)), 0.5), none());
    assert_eq!(course.look(clocks.set(at(5)), 0.5), none());
    assert_eq!(course.wait(clocks.0), Some(10 * SECOND));
    assert_eq!(course.begins(clocks.0), Some(at(15)));
    assert_eq!(course.look(clocks.pass(10 * SECOND), 0.5), Due { run: Some(at(15)), missed: 0 });
}

#[test]
fn cron_follows_the_wall_clock() {
    let mut clocks = Clocks::new();
    let mut course = cron(&clocks, "*/30 * * * * *");
    assert_eq!(course.begins(clocks.0), Some(at(START + 10)));
    assert_eq!(course.look(clocks.pass(9 * SECOND), 0.5), none());
    assert_eq!(course.look(clocks.pass(2 * SECOND), 0.5), Due { run: Some(at(START + 10)), missed: 0 });
    // The daemon was frozen, or the clock set forward: the newest runs.
    assert_eq!(course.look(clocks.set(at(START + 110)), 0.5), Due { run: Some(at(START + 100)), missed: 2 });
    let far = course.look(clocks.set(at(START + 10_000_010)), 0.5);
    assert_eq!(far, Due { run: Some(at(START + 10_000_000)), missed: MOST_MISSED });
    assert_eq!(course.wait(clocks.0), Some(20 * SECOND));
}

#[test]
fn a_clock_that_is_set_back_a_little_makes_nothing_due_twice() {
    let mut clocks = Clocks::new();
    let mut course = cron(&clocks, "*/30 * * * * *");
    assert_eq!(course.look(clocks.pass(10 * SECOND), 0.5).run, Some(at(START + 10)));
    assert_eq!(course.look(clocks.set(at(START)), 0.5), none());
    assert_eq!(course.look(clocks.pass(10 * SECOND), 0.5), none(), "it ran already");
    assert_eq!(course.look(clocks.pass(30 * SECOND), 0.5).run, Some(at(START + 40)));
}

#[test]
fn a_clock_that_is_set_back_far_is_followed_at_once() {
    let mut clocks = Clocks::new();
    let mut course = cron(&clocks, "*/30 * * * * *");
    assert_eq!(course.look(clocks.pass(10 * SECOND), 0.5).run, Some(at(START + 10)));
    // A year in small steps is far, too.
    assert_eq!(course.look(clocks.set(at(START - 200)), 0.5), none());
    assert_eq!(course.look(clocks.set(at(START - 400)), 0.5), none());
    assert_eq!(course.wait(clocks.0), Some(20 * SECOND), "it has begun anew");
    assert_eq!(course.look(clocks.pass(20 * SECOND), 0.5).run, Some(at(START - 380)));
}

/// When a pattern is due from a local time on in a place with summer time, as local times with their offset.
fn due_from(pattern: &str, local: &str, count: usize) -> Vec<String> {
    let riga = TimeZone::get("Europe/Riga").expect("is known");
    let timing = CronTiming::new(pattern, "Europe/Riga").expect("is a pattern");
    let mut time: SystemTime = local.parse::<Timestamp>().expect("is a time").into();
    let mut found = Vec::new();
    for _ in 0..count {
        time = timing.after(time).expect("comes");
        let zoned = Timestamp::try_from(time).expect("is in range").to_zoned(riga.clone());
        found.push(zoned.strftime("%d %H:%M%:z").to_string());
    }
    found
}

#[test]
fn where_the_clock_goes_forward_what_falls_into_the_gap_runs_right_after_it() {
    // On 2026-03-29 at 03:00 it is 04:00.
    let found = due_from("0 30 3 * * *", "2026-03-28T00:00:00Z", 3);
    assert_eq!(found, ["28 03:30+02:00", "29 04:00+03:00", "30 03:30+03:00"]);
    let found = due_from("0 */30 * * * *", "2026-03-29T00:20:00Z", 3);
    assert_eq!(found, ["29 02:30+02:00", "29 04:00+03:00", "29 04:30+03:00"]);
}

#[test]
fn where_the_clock_goes_back_a_time_of_day_runs_once_and_an_interval_goes_on() {
    // On 2026-10-25 at 04:00 it is 03:00.
    let found = due_from("0 30 3 * * *", "2026-10-24T12:00:00Z", 2);
    assert_eq!(found, ["25 03:30+03:00", "26 03:30+02:00"]);
    let found = due_from("0 */30 * * * *", "2026-10-25T00:20:00Z", 5);
    assert_eq!(found, ["25 03:30+03:00", "25 03:00+02:00", "25 03:30+02:00", "25 04:00+02:00", "25 04:30+02:00"]);
}

#[test]
fn patterns_have_six_fields_or_five() {
    let check = |pattern: &str, expected: Result<u64, &str>| {
        let found = CronTiming::new(pattern, "UTC");
        let found = found.map(|timing| timing.after(at(START)).expect("comes"));
        assert_eq!(found, expected.map(at).map_err(str::to_owned), "{pattern}");
    };
    check("30 * * * * *", Ok(START + 10));
    check("*/5 * * * *", Ok(START + 100));
    check("@daily", Ok(START + 6_400));
    check("0 0 0 30 2 *", Err("never comes: no day matches it"));
    check("", Err("not a cron pattern: CronPattern cannot be an empty string"));
    for pattern in ["* * *", "61 * * * * *", "x * * * * *", "* * * * * * 2030"] {
        let error = CronTiming::new(pattern, "UTC").expect_err(pattern);
        assert!(error.starts_with("not a cron pattern: ") && !error.contains('\n'), "{pattern}: {error}");
    }
    assert!(!CronTiming::knows("Europe/Atlantis") && CronTiming::knows("Europe/Riga"));
}

#[test]
fn timings_are_told_as_they_are_configured() {
    assert_eq!(Timing::Every(90 * SECOND).to_string(), "every 1m30s");
    let cron = CronTiming::new("0 */5 * * * *", "Europe/Riga").expect("is a pattern");
    assert_eq!(Timing::Cron(Box::new(cron)).to_string(), "cron 0 */5 * * * * (Europe/Riga)");
}

#[test]
fn jitter_puts_off_a_run_and_not_those_that_follow() {
    let mut clocks = Clocks::new();
    let mut course = Course::begin(Timing::Every(10 * SECOND), 4 * SECOND, clocks.0, 0.5);
    assert_eq!(course.wait(clocks.0), Some(12 * SECOND));
    assert_eq!(course.look(clocks.pass(11 * SECOND), 0.0), none());
    assert_eq!(course.look(clocks.pass(SECOND), 0.0), Due { run: Some(at(START + 10)), missed: 0 });
    assert_eq!(course.wait(clocks.0), Some(8 * SECOND), "without chance on the grid");

    let pattern = CronTiming::new("*/10 * * * * *", "UTC").expect("is a pattern");
    let mut course = Course::begin(Timing::Cron(Box::new(pattern)), 60 * SECOND, clocks.set(at(START)), 0.5);
    assert_eq!(course.wait(clocks.0), Some(15 * SECOND), "it ends before the next run");
    assert_eq!(course.look(clocks.pass(15 * SECOND), 0.0), Due { run: Some(at(START + 10)), missed: 0 });
    assert_eq!(course.wait(clocks.0), Some(5 * SECOND));
}

proptest! {
    /// However late somebody looks, and whatever the wall clock does: all that was due ran or was missed, each on the grid.
    #[test]
    fn every_loses_and_invents_nothing(
        period in 1_u64..100,
        looks in prop::collection::vec((0_u64..500, 0_u64..2_000_000_000), 1..50),
    ) {
        let mut clocks = Clocks::new();
        let start = clocks.0.mono;
        let mut course = every(&clocks, Duration::from_secs(period), Duration::ZERO);
        let mut count = 0;
        for (pass, wall) in looks {
            clocks.pass(Duration::from_secs(pass));
            let now = clocks.set(at(wall));
            let due = course.look(now, 0.5);
            if let Some(run) = due.run {
                count += due.missed + 1;
                let grid = now.wall.duration_since(run).unwrap_or_default();
                let elapsed = now.mono - start;
                // Before the epoch of the wall clock nothing can be told.
                prop_assert_eq!((elapsed - grid).as_secs() % period, 0);
            }
            let elapsed = (clocks.0.mono - start).as_secs();
            prop_assert_eq!(count, elapsed / period);
            prop_assert_eq!(course.wait(now), Some(Duration::from_secs(period - elapsed % period)));
        }
    }

    /// While the clock is not set back: all that was due ran or was missed, each when the clock matched.
    #[test]
    fn cron_loses_and_invents_nothing(
        step in prop::sample::select(vec![1_u64, 2, 5, 10, 15, 30]),
        looks in prop::collection::vec(0_u64..900, 1..30),
    ) {
        let mut clocks = Clocks::new();
        let mut course = cron(&clocks, &format!("*/{step} * * * * *"));
        let mut count = 0;
        for pass in looks {
            let now = clocks.pass(Duration::from_secs(pass));
            let due = course.look(now, 0.5);
            let seconds = now.wall.duration_since(at(0)).expect("is later").as_secs();
            if let Some(run) = due.run {
                count += due.missed + 1;
                prop_assert_eq!(run, at(seconds / step * step));
            }
            prop_assert_eq!(count, seconds / step - START / step);
        }
    }

    /// Whatever the clocks do, a look never panics, and the same instant is never due twice within a small step back.
    #[test]
    fn a_step_back_makes_nothing_due_twice(steps in prop::collection::vec(-200_i64..200, 1..60)) {
        let mut clocks = Clocks::new();
        let mut course = cron(&clocks, "*/20 * * * * *");
        let (mut wall, mut latest, mut last) = (START as i64, START as i64, None);
        for step in steps {
            // Never further back than what is a small step.
            wall = (wall + step).max(latest - 300);
            latest = latest.max(wall);
            let due = course.look(clocks.set(at(wall as u64)), 0.5);
            if let Some(run) = due.run {
                prop_assert!(last.is_none_or(|last| run > last));
                last = Some(run);
            }
        }
    }
}
