//! Files that change while the daemon runs: plugins, and the configuration.
//!
//! Owns: a thread that looks at the files that are wanted, as soon as the system tells of a change (`notify`, on their directories, as
//! files are replaced), and every now and then whatever it tells: file systems without events, lost events and directories that come and
//! go need nothing more. Feeds whoever reloads with files that have settled and files that went, of each the last state, never one that is
//! being changed. It opens no file, and does not know what is inside.
//!
//! `inbox` (events, wishes) → `looks` (the thread) → `settle` (decides) → `reports`.

mod inbox;
mod looks;
mod reports;
mod settle;

use std::collections::BTreeSet;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::inbox::Inbox;
use self::looks::Looks;
use self::reports::Reports;
use self::settle::Stamp;
pub use self::settle::Terms;

/// How long is waited for plugins.
pub const PLUGINS: Terms = Terms {
    look: Duration::from_secs(2),
    closed: Duration::from_millis(250),
    unknown: Duration::from_secs(2),
    writing: Duration::from_secs(10),
    restless: Duration::from_secs(10),
    together: false,
};

/// How long is waited for the configuration's files, which count as one: none is told of while another changes.
pub const CONFIGURATION: Terms = Terms { together: true, ..PLUGINS };

/// What is to be watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// These files, there or not.
    pub files: BTreeSet<PathBuf>,
    /// All files of these folders, there or not, with these extensions.
    pub folders: Vec<(PathBuf, &'static str)>,
}

impl Wanted {
    /// Whether a file of one of the folders is wanted for that.
    fn is_in_folder(&self, path: &Path) -> bool {
        let extension = path.extension();
        self.folders.iter().any(|(folder, wanted)| {
            path.parent() == Some(folder) && extension.is_some_and(|extension| extension == *wanted)
        })
    }
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is there, and whoever wrote it is done.
    Settled(Settled),
    /// It is not there, or not any more.
    Gone(PathBuf),
}

impl Seen {
    /// Of which file.
    pub fn path(&self) -> &Path {
        match self {
            Seen::Settled(settled) => &settled.path,
            Seen::Gone(path) => path,
        }
    }
}

/// A file that has settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// As it was wanted.
    pub path: PathBuf,
    stamp: Stamp,
}

impl Settled {
    /// Whether the file is still as it was when it had settled. What was read of it in between is a whole only then; otherwise it is told
    /// of again. Blocks for a look at it.
    pub fn holds(&self) -> bool {
        self.path.metadata().is_ok_and(|metadata| looks::stamp(&metadata) == self.stamp)
    }
}

/// A running watch. Ends when it is dropped.
pub struct Watch {
    inbox: Arc<Inbox>,
    reports: Arc<Reports>,
}

/// What a watch sees.
pub struct Sight {
    reports: Arc<Reports>,
}

impl Watch {
    /// Starts to watch. `key` is the configuration's word for what is watched, for the log. Of each file that is wanted the first state is
    /// told too, where it is there or not: it may have changed since it was read.
    ///
    /// # Errors
    /// The system permits no further thread. Where it only tells of no events, the log says so, and looks find what changes.
    pub fn start(key: &'static str, terms: Terms, wanted: Wanted) -> io::Result<(Watch, Sight)> {
        Watch::run(key, terms, wanted, true)
    }

    /// As [`Self::start`]; without `events`, as if the system told of none.
    fn run(key: &'static str, terms: Terms, wanted: Wanted, events: bool) -> io::Result<(Watch, Sight)> {
        let (inbox, reports) = (Arc::new(Inbox::default()), Arc::new(Reports::default()));
        inbox.want(wanted);
        // It is not joined: a look at a network's file system may take for ever, and the daemon's end must not.
        std::thread::Builder::new().name(format!("watch {key}")).spawn({
            let (inbox, reports) = (Arc::clone(&inbox), Arc::clone(&reports));
            move || {
                let looks = || Looks::new(key, terms, Arc::clone(&inbox), Arc::clone(&reports), events);
                // Otherwise nothing would be reloaded any more, and nobody would know.
                while panic::catch_unwind(AssertUnwindSafe(|| looks().run())).is_err() {
                    tracing::error!(watch = key, "looking for files that change panicked, it begins anew");
                    std::thread::sleep(terms.look);
                }
            }
        })?;
        Ok((Watch { inbox, reports: Arc::clone(&reports) }, Sight { reports }))
    }

    /// Exactly these are wanted from now on. Of those that were not before, the first state is told too.
    pub fn want(&self, wanted: Wanted) {
        self.inbox.want(wanted);
    }

    /// Of these files the state is told again, though they were wanted before: somebody else has read them, and they may have changed
    /// since. Nothing of those that are not wanted.
    pub fn tell_again(&self, files: BTreeSet<PathBuf>) {
        self.inbox.tell_again(files);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.inbox.stop();
        self.reports.close();
    }
}

impl Sight {
    /// Waits until something is to be told, and takes all of it: at least one, and each file once. What a file is told as holds until it
    /// changes again, and then it is told again. None once the watch has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Vec<Seen>> {
        self.reports.next().await
    }
}

#[cfg(test)]
mod tests;
