//! The thread that looks at files, and has the system tell of changes in their directories.
//!
//! Owns: the system's watches, one for each directory that is there, made anew when another directory takes its place. Fed by `inbox.rs`;
//! asks `settle.rs` where to look and what to tell; feeds `reports.rs`. It decides nothing about files.
//!
//! A watch belongs to a directory, not to its path: which one is there is seen by its identity, at every look.

use std::collections::{BTreeSet, HashMap};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use notify::{ErrorKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::inbox::{Inbox, News};
use super::reports::Reports;
use super::settle::{Hint, Settle, Stamp, Terms, Verdict};
use super::{Seen, Settled, Wanted};
use crate::control::config::format_duration;

/// Files that are watched because they were found in a folder; further ones are not.
const MOST_FOUND: usize = 1000;

/// What tells a directory from another at the same path. The inode alone may be used again.
type Identity = (u64, u64, Option<SystemTime>);

/// A directory with files that are wanted.
#[derive(Default)]
struct Directory {
    /// As the system's events name it.
    absolute: PathBuf,
    /// The one that is there.
    there: Option<Identity>,
    /// The system watches the one that is there.
    watched: bool,
    /// That it is watched was said, and by what means.
    said: bool,
    /// What is wrong with its watch was said.
    refused: bool,
    /// A change was found that the system told nothing of, and that was said.
    silent: bool,
}

/// The thread's own.
pub(super) struct Looks {
    key: &'static str,
    terms: Terms,
    inbox: Arc<Inbox>,
    reports: Arc<Reports>,
    /// None where the system permits none.
    watcher: Option<RecommendedWatcher>,
    started: Instant,
    /// When all files are looked at next.
    next: Duration,
    wanted: Wanted,
    settle: Settle,
    /// By their paths as wanted.
    directories: HashMap<PathBuf, Directory>,
    /// The directories may have changed.
    recheck: bool,
    /// Files that cannot be looked at, which was said.
    unreadable: BTreeSet<PathBuf>,
    /// That there are too many files was said.
    too_many: bool,
}

impl Looks {
    /// Looks at nothing yet; what is wanted comes first from the inbox, also where another one took it before and panicked. Without
    /// `events`, as if the system told of none.
    pub(super) fn new(
        key: &'static str,
        terms: Terms,
        inbox: Arc<Inbox>,
        reports: Arc<Reports>,
        events: bool,
    ) -> Looks {
        inbox.begin();
        let mut looks = Looks {
            key,
            terms,
            inbox: Arc::clone(&inbox),
            reports,
            watcher: None,
            started: Instant::now(),
            next: Duration::ZERO,
            wanted: Wanted::default(),
            settle: Settle::new(terms),
            directories: HashMap::new(),
            recheck: true,
            unreadable: BTreeSet::new(),
            too_many: false,
        };
        if events {
            match notify::recommended_watcher(move |event| inbox.event(event)) {
                Ok(watcher) => looks.watcher = Some(watcher),
                Err(error) => looks.refused(None, &error),
            }
        }
        looks
    }

    /// Looks until it is told to end.
    pub(super) fn run(mut self) {
        while let Some(news) = self.inbox.wait(self.wake()) {
            self.take(news);
            self.look(self.started.elapsed());
        }
        self.reports.close();
    }

    fn wake(&self) -> Instant {
        let next = self.settle.next_look().map_or(self.next, |next| next.min(self.next));
        self.started + next
    }

    fn take(&mut self, news: News) {
        let now = self.started.elapsed();
        if let Some(wanted) = news.wanted {
            self.want(wanted, now);
        }
        news.again.iter().for_each(|path| self.settle.tell_again(path, now));
        for (path, hint) in news.hints {
            self.hinted(&path, hint, now);
        }
        if news.lost {
            tracing::debug!(watch = self.key, "events were lost: everything is looked at");
            self.recheck = true;
            self.doubt(|_| true, now);
        }
    }

    fn want(&mut self, wanted: Wanted, now: Duration) {
        self.settle.want(&wanted.files, |path| wanted.is_in_folder(path), now);
        self.reports.take_back(|path| !wanted.files.contains(path) && !wanted.is_in_folder(path));
        let parents = wanted.files.iter().map(|file| file.parent().unwrap_or(Path::new("")));
        let needed: BTreeSet<&Path> =
            parents.chain(wanted.folders.iter().map(|(folder, _)| folder.as_path())).collect();
        let (watcher, unneeded) = (&mut self.watcher, |path: &PathBuf| !needed.contains(path.as_path()));
        for (_, directory) in self.directories.extract_if(|path, _| unneeded(path)) {
            unwatch(watcher, &directory.absolute);
        }
        for path in needed {
            self.directories
                .entry(path.to_owned())
                .or_insert_with(|| Directory { absolute: absolute(path), ..Directory::default() });
        }
        self.unreadable.retain(|path| self.settle.wants(path));
        self.wanted = wanted;
        self.recheck = true;
    }

    /// The system said something about a path.
    fn hinted(&mut self, path: &Path, hint: Hint, now: Duration) {
        if let Some(directory) = self.directories.values_mut().find(|directory| directory.absolute == path) {
            self.recheck = true;
            if matches!(hint, Hint::Renamed | Hint::Closed | Hint::Doubt) {
                // It went or came, and with it went its watch.
                directory.watched = false;
                unwatch(&mut self.watcher, path);
            }
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
        let found = self.directories.iter().find(|(_, directory)| directory.absolute == parent);
        let Some(folder) = found.map(|(folder, _)| folder.clone()) else { return };
        let file = folder.join(name);
        if self.settle.wants(&file) {
            self.settle.told(&file, hint, now);
        } else if self.wanted.is_in_folder(&file) {
            self.recheck = true;
        } else if hint == Hint::Renamed && is_link(path) {
            // One link is switched, through which the others lead: a whole set of files at once.
            let links = self.settle.paths().filter(|file| file.parent() == Some(&folder) && is_link(file));
            for link in links.map(Path::to_owned).collect::<Vec<_>>() {
                self.settle.told(&link, Hint::Renamed, now);
            }
        }
    }

    /// Anything may have happened to these files.
    fn doubt(&mut self, which: impl Fn(&Path) -> bool, now: Duration) {
        for path in self.settle.paths().filter(|path| which(path)).map(Path::to_owned).collect::<Vec<_>>() {
            self.settle.told(&path, Hint::Doubt, now);
        }
    }

    /// Looks at what is to be looked at, and tells what is to be told.
    fn look(&mut self, now: Duration) {
        let all = now >= self.next;
        if all {
            self.next = now + self.terms.look;
        }
        if all || std::mem::take(&mut self.recheck) {
            self.watch_directories(now);
            self.list_folders(now);
        }
        let paths = if all { self.settle.paths().map(Path::to_owned).collect() } else { self.settle.to_look(now) };
        for path in paths {
            self.look_at(&path, now);
        }
        let settle = &self.settle;
        for path in self.reports.take_back(|path| settle.is_changing(path)) {
            self.settle.withdrawn(&path);
        }
        for (path, verdict) in self.settle.verdicts(now) {
            self.tell(path, verdict);
        }
    }

    fn look_at(&mut self, path: &Path, now: Duration) {
        match path.metadata() {
            Ok(metadata) => self.settle.seen(path, Some(stamp(&metadata)), now),
            Err(error) if is_absent(&error) => self.settle.seen(path, None, now),
            Err(error) => {
                self.settle.unseen(path);
                if self.unreadable.insert(path.to_owned()) {
                    let file = path.display();
                    tracing::warn!(%file, %error, "cannot be watched: let the daemon's user look at it");
                }
                return;
            }
        }
        self.unreadable.remove(path);
    }

    fn tell(&mut self, path: PathBuf, verdict: Verdict) {
        match verdict {
            Verdict::Gone => self.reports.put(Seen::Gone(path)),
            Verdict::Restless => {
                let (file, after) = (path.display(), format_duration(self.terms.restless));
                tracing::warn!(%file, after, "is still being changed: it is read once it rests");
            }
            Verdict::Settled { stamp, told } => {
                let directory = self.directories.get_mut(path.parent().unwrap_or(Path::new("")));
                // Where a link leads elsewhere, the system tells nothing either.
                if let Some(directory) = directory.filter(|found| found.watched && !found.silent && !told)
                    && !is_link(&path)
                {
                    directory.silent = true;
                    let (directory, every) = (directory.absolute.display(), format_duration(self.terms.look));
                    tracing::info!(%directory, every, "its file system tells of no changes: they are found by looking");
                }
                self.reports.put(Seen::Settled(Settled { path, stamp }));
            }
        }
    }

    /// Has the system watch the directories that are there now.
    fn watch_directories(&mut self, now: Duration) {
        let (mut changed, mut refusals) = (Vec::new(), Vec::new());
        for (path, directory) in &mut self.directories {
            let there = identity(&directory.absolute);
            let (same, watched) = (there == directory.there, directory.watched);
            if !same && watched {
                unwatch(&mut self.watcher, &directory.absolute);
                directory.watched = false;
            }
            directory.there = there;
            if let Some(watcher) = self.watcher.as_mut().filter(|_| there.is_some() && !directory.watched) {
                match watcher.watch(&directory.absolute, RecursiveMode::NonRecursive) {
                    // Where another one has taken its place meanwhile, the next look sees it.
                    Ok(()) => directory.watched = true,
                    Err(error) => refusals.push((path.clone(), error)),
                }
            }
            // What happened before the system watched, it told nobody.
            if !same || directory.watched != watched {
                changed.push(path.clone());
            }
        }
        for (path, error) in refusals.into_iter().filter(|(_, error)| !matches!(error.kind, ErrorKind::PathNotFound)) {
            if let Some(directory) = self.directories.get_mut(&path)
                && !std::mem::replace(&mut directory.refused, true)
            {
                self.refused(Some(&absolute(&path)), &error);
            }
        }
        for path in changed {
            self.said(&path);
            self.doubt(|file| file.parent().unwrap_or(Path::new("")) == path, now);
        }
    }

    /// Says once that the system tells of changes here.
    fn said(&mut self, path: &Path) {
        let Some(directory) = self.directories.get_mut(path).filter(|found| found.watched && !found.said) else {
            return;
        };
        (directory.said, directory.refused) = (true, false);
        let (watch, every) = (self.key, format_duration(self.terms.look));
        let directory = directory.absolute.display();
        tracing::info!(watch, %directory, every, "the system tells of changes, and they are looked for besides");
    }

    /// The system does not tell of changes: in this directory, or at all.
    fn refused(&self, directory: Option<&Path>, error: &notify::Error) {
        const TOO_MANY_OPEN_FILES: i32 = 24;
        let remedy = match &error.kind {
            ErrorKind::MaxFilesWatch => "raise fs.inotify.max_user_watches",
            ErrorKind::Io(error) if error.raw_os_error() == Some(TOO_MANY_OPEN_FILES) => {
                "raise fs.inotify.max_user_instances, or the limit of open files"
            }
            _ => "none is needed, but what changes is found a little later",
        };
        let (watch, every) = (self.key, format_duration(self.terms.look));
        let directory = directory.map(|directory| directory.display().to_string());
        tracing::warn!(watch, directory, every, %error, remedy, "the system tells of no changes: they are only looked for");
    }

    /// Wants what is in the folders.
    fn list_folders(&mut self, now: Duration) {
        for (folder, extension) in &self.wanted.folders {
            // What cannot be listed is no reason to forget what was found in it.
            for entry in folder.read_dir().into_iter().flatten().flatten() {
                let path = folder.join(entry.file_name());
                let wanted = path.extension().is_some_and(|found| found == *extension);
                let most = self.wanted.files.len() + MOST_FOUND;
                if wanted && !self.settle.found(&path, most, now) && !std::mem::replace(&mut self.too_many, true) {
                    let folder = folder.display();
                    tracing::warn!(%folder, most = MOST_FOUND, "has too many files: further ones are not watched");
                }
            }
        }
    }
}

/// What a look tells.
pub(super) fn stamp(metadata: &Metadata) -> Stamp {
    Stamp {
        length: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
        identity: (metadata.dev(), metadata.ino()),
    }
}

fn identity(directory: &Path) -> Option<Identity> {
    let metadata = directory.metadata().ok().filter(Metadata::is_dir)?;
    Some((metadata.dev(), metadata.ino(), metadata.created().ok()))
}

fn is_link(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink())
}

/// Whether nothing is there, as opposed to something that cannot be seen.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The path as the system's events name it.
fn absolute(directory: &Path) -> PathBuf {
    let directory = if directory == Path::new("") { Path::new(".") } else { directory };
    // Fails only without a working directory, and then looks fail just the same.
    std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned())
}

/// Ends a watch, which the system may have ended before.
fn unwatch(watcher: &mut Option<RecommendedWatcher>, directory: &Path) {
    if let Some(watcher) = watcher {
        // It fails where there is none any more.
        let _ = watcher.unwatch(directory);
    }
}
