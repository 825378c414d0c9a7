//! Which files have settled: a changed file is worth reading once its writer is done with it.
//!
//! Pure: told what the system said about a file (hints), what looks at it found (stamps), and the time. Says which files settled, which
//! went, and which change for ever. Fed by `looks.rs`, which performs the looks that it asks for. It knows no events of any library and
//! opens no file.
//!
//! A file that was renamed into place is whole, and due at once. Whoever writes in place tells nothing of the sort: closing is not the
//! end where a file is made of several pieces, so that a closed file must rest for a moment; one that is known to be open for writing may
//! rest for much longer before it counts as forgotten; and where no event told anything, the looks alone must see it rest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a look tells two states of a file apart by. Times are seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// In bytes.
    pub length: u64,
    /// When its content changed.
    pub modified: (i64, i64),
    /// When anything of it changed: who preserves the time of its content (`cp -p`) cannot preserve this one.
    pub changed: (i64, i64),
    /// Device and inode.
    pub identity: (u64, u64),
}

/// What the system said about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// It was renamed into place.
    Renamed,
    /// Whoever wrote to it closed it; or its name went.
    Closed,
    /// Something was written to it.
    Written,
    /// Its permissions or times were changed.
    Touched,
    /// Anything may have happened to it.
    Doubt,
}

/// How long a file that changed must rest, by what is known of its writer. A later one asks for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Writer {
    /// It was written elsewhere.
    Elsewhere,
    /// It has closed the file.
    Closed,
    /// Nothing is known.
    Unknown,
    /// It has the file open.
    Writing,
}

/// How long is waited for what.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Files are looked at so often, whatever the system tells.
    pub look: Duration,
    /// A file that was closed after writing is due once it rested for so long.
    pub closed: Duration,
    /// A file whose writer nothing is known of is due once it rested for so long.
    pub unknown: Duration,
    /// A file that is open for writing is due once it rested for so long.
    pub writing: Duration,
    /// A file that changes for so long is told of.
    pub restless: Duration,
    /// Nothing is due before everything is.
    pub together: bool,
}

impl Terms {
    fn rest(&self, writer: Writer) -> Duration {
        match writer {
            Writer::Elsewhere => Duration::ZERO,
            Writer::Closed => self.closed,
            Writer::Unknown => self.unknown,
            Writer::Writing => self.writing,
        }
    }
}

/// What is to be told of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is there and rests.
    Settled {
        /// As it was when it was looked at last.
        stamp: Stamp,
        /// The system told of the change.
        told: bool,
    },
    /// It is not there.
    Gone,
    /// It has changed for long, and goes on.
    Restless,
}

/// One file.
#[derive(Debug)]
struct File {
    /// Wanted by its own name; otherwise it was found in a folder.
    named: bool,
    /// What the last look found, and when; no stamp where it found nothing.
    looked: Option<(Option<Stamp>, Duration)>,
    /// It was told as gone, and has not been seen since.
    told_gone: bool,
    /// It changes, or has not rested for long enough.
    change: Option<Change>,
}

#[derive(Debug)]
struct Change {
    /// The first of it.
    began: Duration,
    /// The last of it.
    last: Duration,
    writer: Writer,
    /// The system said something that no look has followed yet.
    unlooked: bool,
    /// The system told of it.
    told: bool,
    /// [`Verdict::Restless`] was given.
    restless: bool,
}

impl Change {
    fn new(now: Duration, writer: Writer) -> Change {
        Change { began: now, last: now, writer, unlooked: false, told: false, restless: false }
    }

    /// Of a file of which nothing is known yet.
    fn first(now: Duration) -> Change {
        Change { unlooked: true, told: true, ..Change::new(now, Writer::Unknown) }
    }

    fn due(&self, terms: &Terms) -> Duration {
        if self.unlooked { Duration::ZERO } else { self.last.saturating_add(terms.rest(self.writer)) }
    }
}

/// The files that are wanted. Times are durations since any fixed moment.
pub(super) struct Settle {
    terms: Terms,
    files: BTreeMap<PathBuf, File>,
}

impl Settle {
    /// Of no files.
    pub(super) fn new(terms: Terms) -> Settle {
        Settle { terms, files: BTreeMap::new() }
    }

    /// Exactly these files are wanted by name from now on, and of those that were found the ones to `keep`. Of a file that is new here the
    /// first state is told too: whoever wants it cannot know whether it has changed since he read it.
    pub(super) fn want<'a>(
        &mut self,
        names: impl IntoIterator<Item = &'a PathBuf>,
        keep: impl Fn(&Path) -> bool,
        now: Duration,
    ) {
        self.files.values_mut().for_each(|file| file.named = false);
        for name in names {
            self.file(name, now).named = true;
        }
        self.files.retain(|path, file| file.named || keep(path));
    }

    /// A file was found in a folder whose files are wanted. False where there is no room for it, which is for `most` files.
    pub(super) fn found(&mut self, path: &Path, most: usize, now: Duration) -> bool {
        let room = self.files.contains_key(path) || self.files.len() < most;
        if room {
            self.file(path, now);
        }
        room
    }

    fn file(&mut self, path: &Path, now: Duration) -> &mut File {
        let first = || File { named: false, looked: None, told_gone: false, change: Some(Change::first(now)) };
        self.files.entry(path.to_owned()).or_insert_with(first)
    }

    /// Somebody else wants to know of a file: its state is told again, as if it were new here; of one that changes, once it rests. Nothing
    /// where it is not wanted.
    pub(super) fn tell_again(&mut self, path: &Path, now: Duration) {
        let Some(file) = self.files.get_mut(path) else { return };
        file.told_gone = false;
        file.change.get_or_insert_with(|| Change::first(now));
    }

    /// Whether it is wanted.
    pub(super) fn wants(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    /// All that are wanted.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }

    /// Whether it changes: what was told of it before does not hold any more.
    pub(super) fn is_changing(&self, path: &Path) -> bool {
        self.files.get(path).is_some_and(|file| file.change.is_some())
    }

    /// What was said last about a file has reached nobody.
    pub(super) fn withdrawn(&mut self, path: &Path) {
        if let Some(file) = self.files.get_mut(path) {
            file.told_gone = false;
        }
    }

    /// The system said something about a file. Nothing where it is not wanted.
    pub(super) fn told(&mut self, path: &Path, hint: Hint, now: Duration) {
        let Some(file) = self.files.get_mut(path) else { return };
        let change = file.change.get_or_insert_with(|| Change::new(now, Writer::Closed));
        (change.last, change.unlooked, change.told) = (now, true, true);
        change.writer = match hint {
            Hint::Renamed => Writer::Elsewhere,
            Hint::Closed => Writer::Closed,
            Hint::Written => Writer::Writing,
            Hint::Touched => change.writer,
            Hint::Doubt => Writer::Unknown,
        };
    }

    /// Which files are to be looked at now, besides the looks at all of them that are made every now and then.
    pub(super) fn to_look(&self, now: Duration) -> Vec<PathBuf> {
        let due = |file: &File| file.change.as_ref().is_some_and(|change| change.due(&self.terms) <= now);
        self.files.iter().filter(|(_, file)| due(file)).map(|(path, _)| path.clone()).collect()
    }

    /// A look found this; no stamp: the file is not there.
    pub(super) fn seen(&mut self, path: &Path, found: Option<Stamp>, now: Duration) {
        let Some(file) = self.files.get_mut(path) else { return };
        let before = file.looked.replace((found, now)).map(|(stamp, _)| stamp);
        match &mut file.change {
            Some(change) if change.unlooked => change.unlooked = false,
            Some(change) if before != Some(found) => {
                change.last = now;
                // It may be that the system tells of it in a moment.
                change.writer = change.writer.max(Writer::Unknown);
            }
            None if before != Some(found) => {
                // Of a file that could not be looked at before, nobody knows when it changed.
                file.change = Some(Change { told: before.is_none(), ..Change::new(now, Writer::Unknown) });
            }
            Some(_) | None => {}
        }
    }

    /// A look found out nothing: the next one that does counts as a change.
    pub(super) fn unseen(&mut self, path: &Path) {
        if let Some(file) = self.files.get_mut(path) {
            (file.looked, file.change) = (None, None);
        }
    }

    /// When looks are to be made next; none while everything rests.
    pub(super) fn next_look(&self) -> Option<Duration> {
        let changes = || self.files.values().filter_map(|file| file.change.as_ref());
        let restless =
            changes().filter(|change| !change.restless).map(|change| change.began + self.terms.restless).min();
        let unlooked = changes().filter(|change| change.unlooked).map(|_| Duration::ZERO).next();
        let due = changes().map(|change| change.due(&self.terms));
        let due = if self.terms.together { due.max() } else { due.min() };
        [restless, unlooked, due].into_iter().flatten().min()
    }

    /// What is to be told now, once.
    pub(super) fn verdicts(&mut self, now: Duration) -> Vec<(PathBuf, Verdict)> {
        let terms = self.terms;
        // Seen at rest by a look: time alone tells nothing.
        let rests = |file: &File| match (&file.change, &file.looked) {
            (Some(change), Some((_, at))) => !change.unlooked && change.due(&terms) <= *at,
            (Some(_), None) => false,
            (None, _) => true,
        };
        let held_back = terms.together && !self.files.values().all(rests);
        let mut verdicts = Vec::new();
        for (path, file) in &mut self.files {
            let rests = rests(file);
            let Some(change) = &mut file.change else { continue };
            if rests && !held_back {
                let (told, found) = (change.told, file.looked.and_then(|(found, _)| found));
                file.change = None;
                let told_gone = std::mem::replace(&mut file.told_gone, found.is_none());
                let verdict = found.map_or(Verdict::Gone, |stamp| Verdict::Settled { stamp, told });
                if !(told_gone && found.is_none()) {
                    verdicts.push((path.clone(), verdict));
                }
            } else if change.began + terms.restless <= now && !std::mem::replace(&mut change.restless, true) && !rests {
                verdicts.push((path.clone(), Verdict::Restless));
            }
        }
        // What was found in a folder and went may never come again.
        self.files.retain(|_, file| file.named || file.change.is_some() || !file.told_gone);
        verdicts
    }
}

#[cfg(test)]
mod tests;
