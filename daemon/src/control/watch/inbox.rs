//! What the thread that looks is told: hints of the system, what is wanted, and that it is to end.
//!
//! Owns: what was told and not yet taken, and what is wanted, which whoever begins to look is told anew. Fed by the events of `notify` and by [`super::Watch`]; feeds `looks.rs`. It is bounded: of
//! each path the last hint counts, and of too many paths only that there were too many; the rest is about files that are wanted. It decides nothing about files.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};

use super::Wanted;
use super::settle::Hint;

/// Paths with hints that wait; beyond, everything is in doubt.
const MOST_PATHS: usize = 1024;

/// What was told since the last time.
#[derive(Default)]
pub(super) struct News {
    /// The last hint of each path.
    pub hints: HashMap<PathBuf, Hint>,
    /// Hints were lost.
    pub lost: bool,
    /// What is wanted from now on.
    pub wanted: Option<Wanted>,
    /// Files that somebody else wants to know of.
    pub again: BTreeSet<PathBuf>,
    /// It is to end.
    stop: bool,
}

impl News {
    fn is_empty(&self) -> bool {
        self.hints.is_empty() && !self.lost && self.wanted.is_none() && self.again.is_empty() && !self.stop
    }
}

#[derive(Default)]
struct Told {
    news: News,
    /// What is wanted, also once that was taken.
    wanted: Wanted,
}

/// What was told and not yet taken.
#[derive(Default)]
pub(super) struct Inbox {
    told: Mutex<Told>,
    changed: Condvar,
}

impl Inbox {
    /// An event of the system, or that it failed to tell.
    pub(super) fn event(&self, event: notify::Result<notify::Event>) {
        let Ok(event) = event else { return self.put(|news| news.lost = true) };
        if event.need_rescan() {
            return self.put(|news| news.lost = true);
        }
        let Some(hint) = hint(event.kind) else { return };
        self.put(|news| event.paths.into_iter().for_each(|path| hinted(news, path, hint)));
    }

    /// These are wanted from now on.
    pub(super) fn want(&self, wanted: Wanted) {
        let mut told = self.lock();
        told.wanted = wanted.clone();
        told.news.wanted = Some(wanted);
        drop(told);
        self.changed.notify_one();
    }

    /// Somebody else wants to know of these files.
    pub(super) fn tell_again(&self, files: BTreeSet<PathBuf>) {
        self.put(|news| news.again.extend(files));
    }

    /// Somebody begins to look, and is told what is wanted. Whoever took that before may have gone without a word.
    pub(super) fn begin(&self) {
        let mut told = self.lock();
        told.news.wanted = Some(told.wanted.clone());
    }

    /// The thread is to end.
    pub(super) fn stop(&self) {
        self.put(|news| news.stop = true);
    }

    fn put(&self, put: impl FnOnce(&mut News)) {
        put(&mut self.lock().news);
        self.changed.notify_one();
    }

    /// Takes what was told, once something is or `until` has come. None: it is to end.
    pub(super) fn wait(&self, until: Instant) -> Option<News> {
        let mut told = self.lock();
        while told.news.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                break;
            }
            told = self.changed.wait_timeout(told, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let news = std::mem::take(&mut told.news);
        (!news.stop).then_some(news)
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds a hint; it replaces an earlier one of the same path, which it is newer than.
fn hinted(news: &mut News, path: PathBuf, hint: Hint) {
    let room = news.hints.len() < MOST_PATHS;
    match news.hints.get_mut(&path) {
        // Tells nothing of who writes.
        Some(_) if hint == Hint::Touched => {}
        Some(known) => *known = hint,
        None if room => drop(news.hints.insert(path, hint)),
        None => news.lost = true,
    }
}

/// What an event says of a file. Nothing where somebody reads it, as the daemon itself does.
fn hint(kind: EventKind) -> Option<Hint> {
    Some(match kind {
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Hint::Renamed,
        // Follows one for each of both names.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => return None,
        EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => Hint::Closed,
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Hint::Closed,
        EventKind::Access(_) => return None,
        EventKind::Modify(ModifyKind::Data(_)) => Hint::Written,
        EventKind::Modify(ModifyKind::Metadata(_)) => Hint::Touched,
        EventKind::Create(_) | EventKind::Modify(_) | EventKind::Any | EventKind::Other => Hint::Doubt,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(inbox: &Inbox, path: &str, kind: EventKind) {
        inbox.event(Ok(notify::Event::new(kind).add_path(path.into())));
    }

    fn taken(inbox: &Inbox) -> News {
        inbox.wait(Instant::now()).expect("goes on")
    }

    #[test]
    fn of_each_path_the_last_hint_counts() {
        let inbox = Inbox::default();
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let touched = EventKind::Modify(ModifyKind::Metadata(notify::event::MetadataKind::Any));
        let opened = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let written = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        for (path, kind) in
            [("a", written), ("a", closed), ("a", touched), ("a", opened), ("b", renamed), ("c", touched)]
        {
            told(&inbox, path, kind);
        }
        told(&inbox, "d", opened);
        let mut hints: Vec<_> = taken(&inbox).hints.into_iter().collect();
        hints.sort_by(|a, b| a.0.cmp(&b.0));
        let expected = [("a", Hint::Closed), ("b", Hint::Renamed), ("c", Hint::Touched)];
        assert_eq!(hints, expected.map(|(path, hint)| (PathBuf::from(path), hint)));
        assert!(taken(&inbox).is_empty());
    }

    #[test]
    fn too_many_paths_and_lost_events_leave_everything_in_doubt() {
        let inbox = Inbox::default();
        for number in 0..2 * MOST_PATHS {
            told(&inbox, &number.to_string(), EventKind::Any);
        }
        let news = taken(&inbox);
        assert_eq!((news.hints.len(), news.lost), (MOST_PATHS, true));
        inbox.event(Ok(notify::Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan)));
        assert!(taken(&inbox).lost);
        inbox.event(Err(notify::Error::generic("queue")));
        assert!(taken(&inbox).lost);
    }

    #[test]
    fn the_end_is_told_before_anything_else() {
        let inbox = Inbox::default();
        told(&inbox, "a", EventKind::Any);
        inbox.stop();
        assert!(inbox.wait(Instant::now() + Duration::from_secs(3600)).is_none());
    }
}
