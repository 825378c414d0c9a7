//! When a schedule is due.
//!
//! Pure: the time is told, on both clocks, and so is chance. `every` counts on the monotonic clock from the moment that the schedule
//! began, so that no change of the wall clock moves it and no late run shifts what follows. `cron` follows the wall clock of its
//! time zone. What came due while nobody looked, or while the run before was still under way, is skipped and counted, so that
//! nothing piles up. It runs nothing.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::control::config::format_duration;

/// How far back the wall clock may be set while what was due already is not due again: a larger step corrects a clock that was
/// wrong, and the schedule follows it at once.
const STEP_BACK: Duration = Duration::from_secs(300);

/// What was missed is counted up to here: after a clock was set forward by years, nobody wants the sum.
const MOST_MISSED: u64 = 1_000;

/// When a schedule is due, as configured.
#[derive(Clone, Debug)]
pub enum Timing {
    /// Again and again after so long, at least a second.
    Every(Duration),
    /// Whenever the wall clock matches.
    Cron(Box<CronTiming>),
}

/// A cron pattern and its time zone.
#[derive(Clone)]
pub struct CronTiming {
    cron: Cron,
    zone: TimeZone,
    zone_name: String,
}

impl fmt::Debug for CronTiming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for CronTiming {
    /// As it is configured.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.cron.as_str(), self.zone_name)
    }
}

impl fmt::Display for Timing {
    /// For people: `every 60s`, or the pattern with its time zone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Timing::Every(period) => write!(f, "every {}", format_duration(*period)),
            Timing::Cron(cron) => write!(f, "cron {cron}"),
        }
    }
}

impl CronTiming {
    /// Whether there is a time zone of this name.
    pub fn knows(zone: &str) -> bool {
        TimeZone::get(zone).is_ok()
    }

    /// A pattern of six fields with seconds, or five without.
    ///
    /// # Errors
    /// It is no pattern, it never matches, or the time zone is unknown: a clause for people.
    pub fn new(pattern: &str, zone_name: &str) -> Result<CronTiming, String> {
        let zone = TimeZone::get(zone_name).map_err(|_| format!("no such time zone: {zone_name}"))?;
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron =
            parser.parse(pattern).map_err(|error| format!("not a cron pattern: {}", plain(&error.to_string())))?;
        let timing = CronTiming { cron, zone, zone_name: zone_name.to_owned() };
        // A day such as February 30 never comes, whenever one begins to wait for it.
        match timing.after(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)) {
            Some(_) => Ok(timing),
            None => Err("never comes: no day matches it".to_owned()),
        }
    }

    /// The first instant after this one.
    fn after(&self, time: SystemTime) -> Option<SystemTime> {
        let time = Zoned::new(Timestamp::try_from(time).ok()?, self.zone.clone());
        let next = self.cron.find_next_occurrence(&time, false).ok()?;
        Some(next.timestamp().into())
    }
}

/// The library's sentence as a clause.
fn plain(text: &str) -> String {
    let text = text.trim_end_matches('.');
    let text = ["Invalid pattern: ", "Component error: "]
        .iter()
        .fold(text, |text, start| text.strip_prefix(start).unwrap_or(text));
    let mut letters = text.chars();
    // A word such as CronPattern keeps its form.
    match (letters.next(), text.chars().nth(1)) {
        (Some(first), Some(second)) if second.is_lowercase() && !text.starts_with("Cron") => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

/// A moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Never set.
    pub mono: Instant,
    /// May be set at any time.
    pub wall: SystemTime,
}

impl Now {
    /// This moment.
    pub fn read() -> Now {
        Now { mono: Instant::now(), wall: SystemTime::now() }
    }
}

/// What a look at a schedule finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The run that begins now was due then, without its jitter; none if it is none's turn.
    pub run: Option<SystemTime>,
    /// What came due and is skipped: nobody looked in time.
    pub missed: u64,
}

/// The course of one schedule.
#[derive(Clone, Debug)]
pub struct Course {
    timing: Timing,
    jitter: Duration,
    next: Next,
}

/// What is due next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// On the monotonic clock: without, and with its jitter.
    Mono { due: Instant, begins: Instant },
    /// On the wall clock: without, and with its jitter; and when the clock was read last.
    Wall { due: SystemTime, begins: SystemTime, read: SystemTime },
    /// Never again: the end of the calendar.
    Never,
}

impl Course {
    /// Begins now: the first run of `every` is due after one period. `random` is uniform in 0..1.
    pub fn begin(timing: Timing, jitter: Duration, now: Now, random: f64) -> Course {
        let next = match &timing {
            Timing::Every(period) => mono(now.mono + *period, *period, jitter, random),
            Timing::Cron(cron) => wall(cron, now.wall, now.wall, jitter, random),
        };
        Course { timing, jitter, next }
    }

    /// As configured.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// When the next run begins, jitter included, as seen now: for people, and for who wants to be there. None for never.
    pub fn begins(&self, now: Now) -> Option<SystemTime> {
        match self.next {
            Next::Mono { begins, .. } => Some(now.wall + begins.saturating_duration_since(now.mono)),
            Next::Wall { begins, .. } => Some(begins),
            Next::Never => None,
        }
    }

    /// How long until then, if the wall clock is not set meanwhile.
    pub fn wait(&self, now: Now) -> Option<Duration> {
        match self.next {
            Next::Mono { begins, .. } => Some(begins.saturating_duration_since(now.mono)),
            Next::Wall { begins, .. } => Some(begins.duration_since(now.wall).unwrap_or_default()),
            Next::Never => None,
        }
    }

    /// Whether it follows the wall clock, which may be set while somebody waits.
    pub fn follows_the_wall_clock(&self) -> bool {
        matches!(self.timing, Timing::Cron(_))
    }

    /// Looks whether a run is due. Where several are, the newest one runs and the others are missed. `random` is uniform in 0..1.
    pub fn look(&mut self, now: Now, random: f64) -> Due {
        let nothing = Due { run: None, missed: 0 };
        match (self.next, &self.timing) {
            (Next::Mono { due, begins }, Timing::Every(period)) => {
                if now.mono < begins {
                    return nothing;
                }
                let late = now.mono.saturating_duration_since(due).as_nanos() / period.as_nanos();
                let missed = u64::try_from(late).unwrap_or(u64::MAX);
                let newest = due + times(*period, missed);
                self.next = mono(newest + *period, *period, self.jitter, random);
                let since = now.mono.saturating_duration_since(newest);
                Due { run: Some(now.wall.checked_sub(since).unwrap_or(now.wall)), missed: missed.min(MOST_MISSED) }
            }
            (Next::Wall { due, begins, read }, Timing::Cron(cron)) => {
                if read.duration_since(now.wall).is_ok_and(|back| back > STEP_BACK) {
                    self.next = wall(cron, now.wall, now.wall, self.jitter, random);
                    return nothing;
                }
                if now.wall < begins {
                    // Small steps back add up to none: the latest reading counts.
                    self.next = Next::Wall { due, begins, read: read.max(now.wall) };
                    return nothing;
                }
                let (newest, missed) = newest(cron, due, now.wall);
                self.next = wall(cron, newest, now.wall, self.jitter, random);
                Due { run: Some(newest), missed }
            }
            (Next::Never, _) | (Next::Mono { .. }, Timing::Cron(_)) | (Next::Wall { .. }, Timing::Every(_)) => nothing,
        }
    }
}

/// The newest instant of a pattern that is not after `now`, beginning with `due`, and how many there were before it.
fn newest(cron: &CronTiming, due: SystemTime, now: SystemTime) -> (SystemTime, u64) {
    let (mut newest, mut missed) = (due, 0);
    while let Some(next) = cron.after(newest).filter(|next| *next <= now) {
        if missed == MOST_MISSED {
            // The rest is passed over at once.
            return (cron.before_or_at(now).unwrap_or(next), missed);
        }
        (newest, missed) = (next, missed + 1);
    }
    (newest, missed)
}

impl CronTiming {
    /// The last instant that is not after this one.
    fn before_or_at(&self, time: SystemTime) -> Option<SystemTime> {
        let time = Zoned::new(Timestamp::try_from(time).ok()?, self.zone.clone());
        let last = self.cron.find_previous_occurrence(&time, true).ok()?;
        Some(last.timestamp().into())
    }
}

/// A product that no schedule reaches is the longest one.
fn times(period: Duration, count: u64) -> Duration {
    period.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}

fn mono(due: Instant, period: Duration, jitter: Duration, random: f64) -> Next {
    Next::Mono { due, begins: due + delay(jitter.min(period), random) }
}

/// The run of a pattern that follows `after`. Its jitter ends before the one that follows in turn.
fn wall(cron: &CronTiming, after: SystemTime, read: SystemTime, jitter: Duration, random: f64) -> Next {
    let Some(due) = cron.after(after) else { return Next::Never };
    let room = match jitter.is_zero() {
        true => Duration::ZERO,
        false => cron.after(due).and_then(|next| next.duration_since(due).ok()).unwrap_or(jitter),
    };
    Next::Wall { due, begins: due + delay(jitter.min(room), random), read }
}

/// At random within a bound, which it does not reach.
fn delay(most: Duration, random: f64) -> Duration {
    most.mul_f64(random.clamp(0.0, 0.999_999))
}

#[cfg(test)]
mod tests;
