//! What guests write to stdout and stderr, line by line.
//!
//! Owns: the unfinished line of each stream, and what the guest complained of last in the present call, which tells why
//! it aborted. Fed by the WASI output streams of one instance, and by its log lines of level error; feeds the handler's
//! log.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::Level;

use crate::path::handler::host::{Host, Line};
use crate::printable::printable;

/// Bytes of a line. A longer one is told in pieces of this size.
pub(super) const MAX_LINE_BYTES: usize = 1024;

/// Complaints kept for the text of a trap.
const MAX_LAST_LINES: usize = 8;

/// A standard stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// Logged as info.
    Stdout,
    /// Logged as warn.
    Stderr,
}

/// Both output streams of one instance.
pub(super) struct Console {
    host: Arc<Host>,
    /// Whether anything was written since the last call ended. Written by the streams, cleared when a call ends.
    touched: AtomicBool,
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// Lines of stderr and log lines of level error, at most [`MAX_LAST_LINES`].
    last: VecDeque<String>,
}

impl Console {
    /// Nothing written yet.
    pub(super) fn new(host: Arc<Host>) -> Console {
        Console { host, touched: AtomicBool::new(false), lines: Mutex::default() }
    }

    /// Takes what a guest writes; complete lines are logged.
    pub(super) fn write(&self, stream: Stream, mut bytes: &[u8]) {
        self.touched.store(true, Ordering::Relaxed);
        let mut lines = self.lock();
        while !bytes.is_empty() {
            let partial = lines.partial(stream);
            let room = MAX_LINE_BYTES - partial.len();
            let end = bytes.iter().position(|&byte| byte == b'\n').filter(|&end| end <= room);
            partial.extend_from_slice(&bytes[..end.unwrap_or(bytes.len().min(room))]);
            // The line's end itself is not kept.
            let taken = end.map_or(bytes.len().min(room), |end| end + 1);
            bytes = &bytes[taken..];
            if end.is_some() || lines.partial(stream).len() == MAX_LINE_BYTES {
                self.finish_line(&mut lines, stream);
            }
        }
    }

    /// Logs unfinished lines and forgets the last ones, so that the next call begins anew.
    pub(super) fn end_call(&self) {
        if self.touched.swap(false, Ordering::Relaxed) {
            let mut lines = self.lock();
            self.finish_lines(&mut lines);
            lines.last.clear();
        }
    }

    /// Keeps a complaint that came another way than through stderr.
    pub(super) fn remember(&self, complaint: &str) {
        self.touched.store(true, Ordering::Relaxed);
        self.lock().remember(complaint);
    }

    /// Why the guest gave up, in its own words: a Rust panic with its place, or else its last complaint.
    pub(super) fn last_words(&self) -> Option<String> {
        let mut lines = self.lock();
        self.finish_lines(&mut lines);
        last_words(lines.last.make_contiguous())
    }

    fn finish_lines(&self, lines: &mut Lines) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !lines.partial(stream).is_empty() {
                self.finish_line(lines, stream);
            }
        }
    }

    fn finish_line(&self, lines: &mut Lines, stream: Stream) {
        let bytes = std::mem::take(lines.partial(stream));
        let text = String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(&bytes));
        if text.is_empty() {
            return;
        }
        let (level, name) = match stream {
            Stream::Stdout => (Level::INFO, "stdout"),
            Stream::Stderr => (Level::WARN, "stderr"),
        };
        self.host.log.line(&Line { level, message: &text, fields: &[], stream: Some(name) });
        if stream == Stream::Stderr {
            lines.remember(&text);
        }
    }

    /// The lines are whole even if a thread that held them panicked.
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn partial(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn remember(&mut self, complaint: &str) {
        if self.last.len() == MAX_LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(printable(complaint, MAX_LINE_BYTES).into_owned());
    }
}

/// Picks the reason out of the last lines.
fn last_words(lines: &[String]) -> Option<String> {
    // Rust: "thread 'main' panicked at src/lib.rs:5:9:", the message, and a hint about backtraces.
    if let Some(place) = lines.iter().rposition(|line| line.contains("panicked at ")) {
        let panicked = &lines[place][lines[place].find("panicked at ").unwrap_or_default()..];
        return Some(match lines.get(place + 1).filter(|line| !is_hint(line)) {
            Some(message) => format!("{panicked} {message}"),
            None => panicked.to_owned(),
        });
    }
    lines.iter().rev().find(|line| !is_hint(line)).cloned()
}

fn is_hint(line: &str) -> bool {
    line.starts_with("note: run with `RUST_BACKTRACE")
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::path::handler::host::testing::handler;

    /// What is written to stderr in pieces, and the last lines that result.
    fn check(pieces: &[&[u8]], expected: &[&str]) {
        let console = Console::new(Arc::new(handler().host()));
        for piece in pieces {
            console.write(Stream::Stderr, piece);
        }
        let mut lines = console.lock();
        console.finish_lines(&mut lines);
        assert_eq!(lines.last.make_contiguous(), expected);
    }

    #[test]
    fn pieces_become_lines() {
        check(&[], &[]);
        check(&[b"a"], &["a"]);
        check(&[b"a", b"b\n", b"\n\nc\r\nd"], &["ab", "c", "d"]);
        check(&[b"bad \xff \x1b[0m\n"], &["bad \u{fffd} \\u{1b}[0m"]);
    }

    #[test]
    fn lines_are_bounded_in_length_and_number() {
        let full = "x".repeat(MAX_LINE_BYTES);
        check(&[full.as_bytes()], &[&full]);
        check(&[full.as_bytes(), b"\n"], &[&full]);
        check(&[full.as_bytes(), b"y\nz"], &[&full, "y", "z"]);
        check(&[b"1\n2\n3\n4\n5\n6\n7\n8\n9\n"], &["2", "3", "4", "5", "6", "7", "8", "9"]);
    }

    #[test]
    fn a_call_forgets_the_lines_of_the_one_before() {
        let console = Console::new(Arc::new(handler().host()));
        console.write(Stream::Stderr, b"out of luck");
        assert_eq!(console.last_words().as_deref(), Some("out of luck"));
        console.end_call();
        assert_eq!(console.last_words(), None);
    }

    #[test]
    fn a_panic_is_told_with_its_place() {
        let words = |lines: &[&str]| last_words(&lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>());
        let hint = "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace";
        assert_eq!(words(&[]), None);
        assert_eq!(words(&["Traceback", "ValueError: no"]).as_deref(), Some("ValueError: no"));
        assert_eq!(
            words(&["x", "thread '<unnamed>' panicked at src/lib.rs:5:9:", "no unit", hint]).as_deref(),
            Some("panicked at src/lib.rs:5:9: no unit"),
        );
        assert_eq!(
            words(&["thread 'main' panicked at src/lib.rs:5:9:", hint]).as_deref(),
            Some("panicked at src/lib.rs:5:9:")
        );
    }

    /// All at once: lines without their ends, those too long in pieces, without empty ones.
    fn naive(bytes: &[u8]) -> Vec<String> {
        let lines = bytes.split(|&byte| byte == b'\n').flat_map(|line| line.chunks(MAX_LINE_BYTES));
        let mut texts: Vec<String> = lines.map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        texts.drain(..texts.len().saturating_sub(MAX_LAST_LINES));
        texts
    }

    proptest! {
        #[test]
        fn how_the_guest_cuts_its_writes_does_not_matter(
            bytes in vec(prop_oneof![8 => Just(b'a'), 1 => Just(b'\n')], 0..40),
            long in 0_usize..3,
            cuts in vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut bytes = bytes;
            bytes.extend(std::iter::repeat_n(b'x', long * (MAX_LINE_BYTES - 7)));
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();

            let console = Console::new(Arc::new(handler().host()));
            cuts.windows(2).for_each(|cut| console.write(Stream::Stderr, &bytes[cut[0]..cut[1]]));
            let mut lines = console.lock();
            console.finish_lines(&mut lines);
            prop_assert_eq!(lines.last.make_contiguous(), naive(&bytes));
        }
    }
}
