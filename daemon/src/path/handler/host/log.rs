//! The log lines of one handler: levels, bounds and rate limits.
//!
//! Owns: the two rate limits of a handler, shared by its instances, so that new instances do not begin anew. Fed by the
//! host functions of `log`, by guests' stdout and stderr and by denied publishes; feeds `tracing` under the target
//! `tidegate::handler`.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Level;

use crate::control::config::secret::Secret;
use crate::printable::printable;

/// Under which the guests' lines are filtered.
const TARGET: &str = "tidegate::handler";

/// Lines of a handler's guests that are kept in a second, all instances together. Further ones are counted and dropped.
const LINES_PER_SECOND: u32 = 100;

/// Denied publishes of a handler that are logged in a second. They have a limit of their own, so that a talkative guest
/// cannot hide them.
const DENIALS_PER_SECOND: u32 = 5;

/// Bytes kept of a line's message.
const MAX_MESSAGE_BYTES: usize = 4 * 1024;

/// Bytes kept of a line's fields, all together.
const MAX_FIELDS_BYTES: usize = 4 * 1024;

/// Bytes kept of a name or topic in a line of the daemon.
const MAX_NAME_BYTES: usize = 256;

/// Shorter values are not masked: every other word would be.
const MIN_SECRET_BYTES: usize = 4;

/// The width of a rate limit's window.
const WINDOW: Duration = Duration::from_secs(1);

/// Expands to an event of a level that is known only at run time.
macro_rules! event_at {
    ($level:expr, $($fields:tt)*) => {
        match $level {
            Level::TRACE => tracing::trace!(target: TARGET, $($fields)*),
            Level::DEBUG => tracing::debug!(target: TARGET, $($fields)*),
            Level::INFO => tracing::info!(target: TARGET, $($fields)*),
            Level::WARN => tracing::warn!(target: TARGET, $($fields)*),
            Level::ERROR => tracing::error!(target: TARGET, $($fields)*),
        }
    };
}

/// Whether a line of this level would be kept, the rate limit aside.
pub(in crate::path::handler) fn enabled(level: Level) -> bool {
    match level {
        Level::TRACE => tracing::enabled!(target: TARGET, Level::TRACE),
        Level::DEBUG => tracing::enabled!(target: TARGET, Level::DEBUG),
        Level::INFO => tracing::enabled!(target: TARGET, Level::INFO),
        Level::WARN => tracing::enabled!(target: TARGET, Level::WARN),
        Level::ERROR => tracing::enabled!(target: TARGET, Level::ERROR),
    }
}

/// A line that a guest writes.
pub(in crate::path::handler) struct Line<'a> {
    pub(in crate::path::handler) level: Level,
    pub(in crate::path::handler) message: &'a str,
    /// In order; keys may repeat.
    pub(in crate::path::handler) fields: &'a [(String, String)],
    /// The standard stream that it was written to, if any.
    pub(in crate::path::handler) stream: Option<&'static str>,
}

/// Where one handler's lines go.
pub(in crate::path::handler) struct HandlerLog {
    handler: Arc<str>,
    /// What no line may repeat.
    secrets: Vec<Secret>,
    lines: Mutex<Gate>,
    denials: Mutex<Gate>,
    /// Whether lines were dropped that nobody was told of yet. Written by whoever drops one and by whoever tells.
    dropped: AtomicBool,
}

impl HandlerLog {
    /// The log of the handler with this name, which never repeats these secrets.
    pub(in crate::path::handler) fn new(handler: Arc<str>, secrets: Vec<Secret>) -> HandlerLog {
        let now = Instant::now();
        HandlerLog {
            handler,
            secrets,
            lines: Mutex::new(Gate::new(LINES_PER_SECOND, now)),
            denials: Mutex::new(Gate::new(DENIALS_PER_SECOND, now)),
            dropped: AtomicBool::new(false),
        }
    }

    /// Writes a guest's line, if its level is kept and the rate limit permits.
    pub(in crate::path::handler) fn line(&self, line: &Line<'_>) {
        if !enabled(line.level) || !self.admit(&self.lines) {
            return;
        }
        let fields = (!line.fields.is_empty()).then(|| self.mask(&join(line.fields)).into_owned());
        let fields = fields.map(tracing::field::display);
        event_at!(
            line.level,
            handler = %self.handler,
            stream = line.stream,
            fields,
            "{}",
            printable(&self.mask(line.message), MAX_MESSAGE_BYTES),
        );
    }

    /// The guest's words without what interpolations in its configuration stand for.
    pub(in crate::path::handler) fn mask<'t>(&self, words: &'t str) -> Cow<'t, str> {
        let mut masked = Cow::Borrowed(words);
        for secret in self.secrets.iter().filter(|secret| secret.expose().len() >= MIN_SECRET_BYTES) {
            if masked.contains(secret.expose()) {
                masked = Cow::Owned(masked.replace(secret.expose(), "***"));
            }
        }
        masked
    }

    /// Tells that a publish was denied, and why. `broker` is none where the guest named none.
    pub(in crate::path::handler) fn denied(&self, broker: Option<&str>, topic: &str, reason: &str) {
        if self.admit(&self.denials) {
            let broker = broker.map(|name| printable(name, MAX_NAME_BYTES));
            let topic = printable(topic, MAX_NAME_BYTES);
            tracing::warn!(target: TARGET, handler = %self.handler, broker = broker.as_deref(), %topic, reason, "publish denied");
        }
    }

    /// Tells how many lines were dropped in a window that has ended. Called between calls, so that it is told although
    /// the guest has gone quiet.
    pub(in crate::path::handler) fn tell_dropped(&self) {
        // Almost always false: a call pays one load.
        if self.dropped.load(Ordering::Relaxed) {
            let now = Instant::now();
            for gate in [&self.lines, &self.denials] {
                let dropped = lock(gate).ended(now);
                self.tell(gate, dropped);
            }
        }
    }

    fn admit(&self, gate: &Mutex<Gate>) -> bool {
        let (permitted, dropped) = {
            let mut gate = lock(gate);
            let dropped = gate.ended(Instant::now());
            (gate.admit(), dropped)
        };
        if !permitted {
            self.dropped.store(true, Ordering::Relaxed);
        }
        self.tell(gate, dropped);
        permitted
    }

    fn tell(&self, gate: &Mutex<Gate>, dropped: u64) {
        if dropped > 0 {
            let limit = lock(gate).limit;
            let waiting = lock(&self.lines).dropped > 0 || lock(&self.denials).dropped > 0;
            self.dropped.store(waiting, Ordering::Relaxed);
            tracing::warn!(target: TARGET, handler = %self.handler, dropped,
                limit = %format_args!("{limit} lines a second, which no key raises"), "handler log lines dropped");
        }
    }
}

impl Drop for HandlerLog {
    fn drop(&mut self) {
        for gate in [&self.lines, &self.denials] {
            let dropped = lock(gate).dropped;
            self.tell(gate, dropped);
        }
    }
}

/// A gate's counters are whole even if a thread that held it panicked.
fn lock(gate: &Mutex<Gate>) -> std::sync::MutexGuard<'_, Gate> {
    gate.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `key="value" key="value"`, bounded, with quotes and control characters in values escaped.
pub(in crate::path::handler) fn join(fields: &[(String, String)]) -> String {
    let mut line = String::new();
    for (place, (key, value)) in fields.iter().enumerate() {
        let room = MAX_FIELDS_BYTES.saturating_sub(line.len());
        if room == 0 {
            // Writing to a string cannot fail.
            let _ = write!(line, " … ({} fields more)", fields.len() - place);
            break;
        }
        let separator = if place == 0 { "" } else { " " };
        let kept = &value[..value.floor_char_boundary(room)];
        let cut = if kept.len() < value.len() { "…" } else { "" };
        let _ = write!(line, "{separator}{}={kept:?}{cut}", printable(key, MAX_NAME_BYTES));
    }
    line
}

/// A rate limit by windows of a second.
#[derive(Debug)]
struct Gate {
    limit: u32,
    /// When the present window began.
    begin: Instant,
    /// Lines kept in the present window.
    kept: u32,
    /// Lines dropped in the present window.
    dropped: u64,
}

impl Gate {
    fn new(limit: u32, now: Instant) -> Gate {
        Gate { limit, begin: now, kept: 0, dropped: 0 }
    }

    /// Begins a new window if the present one has ended, and gives the number of lines dropped in that one.
    fn ended(&mut self, now: Instant) -> u64 {
        if now.saturating_duration_since(self.begin) < WINDOW {
            return 0;
        }
        std::mem::replace(self, Gate::new(self.limit, now)).dropped
    }

    /// Counts a line; false if it is to be dropped.
    fn admit(&mut self) -> bool {
        if self.kept < self.limit {
            self.kept += 1;
            true
        } else {
            self.dropped += 1;
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::prelude::*;

    use super::*;

    /// Log lines kept in memory.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Written {
        type Writer = Written;

        fn make_writer(&'a self) -> Written {
            self.clone()
        }
    }

    /// What is written at level info while `act` uses the log of the handler "celsius".
    fn written(act: impl FnOnce(HandlerLog)) -> Vec<String> {
        let written = Written::default();
        // Filtered as the daemon's own lines are.
        let filter = Targets::new().with_target("tidegate", Level::INFO);
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).without_time().with_writer(written.clone());
        let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter));
        tracing::subscriber::with_default(subscriber, || {
            act(HandlerLog::new("celsius".into(), vec![Secret::new("hunter2".to_owned())]))
        });
        let bytes = written.0.lock().expect("not poisoned");
        String::from_utf8_lossy(&bytes).lines().map(|line| line.trim().to_owned()).collect()
    }

    fn line(level: Level, message: &str) -> Line<'_> {
        Line { level, message, fields: &[], stream: None }
    }

    #[test]
    fn a_secret_of_the_configuration_is_not_repeated() {
        let fields = [("token".to_owned(), "hunter2".to_owned())];
        let lines = written(|log| {
            assert_eq!(log.mask("no hunter2 here, no hunter2 there"), "no *** here, no *** there");
            log.line(&Line { fields: &fields, ..line(Level::WARN, "got hunter2") });
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("got ***") && !lines[0].contains("hunter2"), "{lines:?}");
    }

    #[test]
    fn lines_carry_the_handler_and_what_the_guest_gave() {
        let fields = [("unit".to_owned(), "°C".to_owned())];
        let lines = written(|log| {
            log.line(&Line { level: Level::WARN, message: "hot\n", fields: &fields, stream: None });
            log.line(&Line { stream: Some("stdout"), ..line(Level::INFO, "here") });
            log.denied(Some("plant"), "a/b", "handler \"celsius\" must not");
        });
        assert_eq!(
            lines,
            [
                r#"WARN tidegate::handler: hot\n handler=celsius fields=unit="°C""#,
                r#"INFO tidegate::handler: here handler=celsius stream="stdout""#,
                r#"WARN tidegate::handler: publish denied handler=celsius broker="plant" topic=a/b reason="handler \"celsius\" must not""#,
            ]
        );
    }

    #[test]
    fn what_is_dropped_is_told_in_the_end() {
        let lines = written(|log| {
            for _ in 0..1000 {
                log.line(&line(Level::DEBUG, "below the level, so it does not count"));
            }
            for _ in 0..LINES_PER_SECOND {
                log.line(&line(Level::INFO, "kept"));
            }
            let begin = lock(&log.lines).begin;
            for _ in 0..7 {
                log.line(&line(Level::INFO, "dropped"));
            }
            log.tell_dropped();
            log.denied(None, "a", "has a limit of its own");
            // A machine so slow that the window ended meanwhile has proved nothing.
            assert!(begin.elapsed() < WINDOW);
        });
        assert_eq!(lines.iter().filter(|line| line.contains("kept")).count(), LINES_PER_SECOND as usize);
        assert_eq!(
            lines[LINES_PER_SECOND as usize..],
            [
                r#"WARN tidegate::handler: publish denied handler=celsius topic=a reason="has a limit of its own""#,
                "WARN tidegate::handler: handler log lines dropped handler=celsius dropped=7 \
                 limit=100 lines a second, which no key raises",
            ]
        );
    }

    #[test]
    fn the_levels_follow_the_log() {
        written(|_| {
            assert!(enabled(Level::ERROR) && enabled(Level::WARN) && enabled(Level::INFO));
            assert!(!enabled(Level::DEBUG) && !enabled(Level::TRACE));
        });
    }

    /// Lines at these milliseconds against a limit of 2 a second; for each whether it is kept, and how many dropped ones
    /// are told before it.
    fn check(times: &[u64], expected: &[(bool, u64)]) {
        let begin = Instant::now();
        let mut gate = Gate::new(2, begin);
        let seen: Vec<(bool, u64)> = times
            .iter()
            .map(|&ms| {
                let told = gate.ended(begin + Duration::from_millis(ms));
                (gate.admit(), told)
            })
            .collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn past_the_limit_lines_are_dropped_until_the_window_ends() {
        check(&[0, 1, 2, 999], &[(true, 0), (true, 0), (false, 0), (false, 0)]);
        check(
            &[0, 1, 2, 3, 1000, 1001, 1002],
            &[(true, 0), (true, 0), (false, 0), (false, 0), (true, 2), (true, 0), (false, 0)],
        );
        check(&[0, 5000, 5999, 6000], &[(true, 0), (true, 0), (true, 0), (true, 0)]);
    }

    #[test]
    fn fields_are_joined_within_a_bound() {
        let field = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(join(&[field("a", "1"), field("b\n", "x\t\"y")]), "a=\"1\" b\\n=\"x\\t\\\"y\"");
        let many = vec![field("key", &"v".repeat(1000)); 100];
        let line = join(&many);
        assert!(line.len() < MAX_FIELDS_BYTES + 600, "{} bytes", line.len());
        assert!(line.ends_with("fields more)"), "{line}");
    }
}
