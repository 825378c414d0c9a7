//! Files of plugins that could not be read, such as for want of a file descriptor, and when each is read again.
//!
//! Pure: the time is told. Fed and asked by the reload task (`plugins.rs`), which reads them. It does not know why a file could not be read.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long after it could not be read a file is read again, at the earliest.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// Files that could not be read. A file's time stands, whatever happens to others.
#[derive(Default)]
pub(super) struct Unread(HashMap<PathBuf, Instant>);

impl Unread {
    /// A file could not be read.
    pub(super) fn failed(&mut self, path: &Path, now: Instant) {
        self.0.insert(path.to_owned(), now + READ_AGAIN);
    }

    /// A file could be read, for `all` of its handlers: where it was for one alone, the others are still to learn what it holds.
    pub(super) fn was_read(&mut self, path: &Path, all: bool) {
        if all {
            self.0.remove(path);
        }
    }

    /// When the next is to be read; none where all could be.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }

    /// Takes out those that are to be read now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<PathBuf> {
        self.0.extract_if(|_, again| *again <= now).map(|(path, _)| path).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_read_again_at_its_own_time_whatever_else_happens() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let (a, b, c) = (Path::new("a"), Path::new("b"), Path::new("c"));
        let mut unread = Unread::default();
        assert_eq!((unread.next(), unread.due(at(0))), (None, vec![]));
        unread.failed(a, at(0));
        for second in 1..5 {
            assert_eq!((unread.next(), unread.due(at(second))), (Some(at(5)), vec![]));
            unread.failed(b, at(second));
            unread.failed(c, at(second));
        }
        unread.was_read(b, false);
        unread.was_read(c, true);
        assert_eq!((unread.due(at(5)), unread.next()), (vec![a.to_owned()], Some(at(9))));
        unread.failed(a, at(6));
        assert_eq!((unread.due(at(10)), unread.next()), (vec![b.to_owned()], Some(at(11))));
        assert_eq!((unread.due(at(20)), unread.next()), (vec![a.to_owned()], None));
    }
}
