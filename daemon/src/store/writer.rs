//! The thread that writes: what was submitted, in the order of coming, as much in one transaction as waits.
//!
//! A transaction costs one sync of the disk, whatever is in it. What becomes of one that fails depends on what failed:
//!
//! - No room: what is to be written waits, in order, and is tried again until there is room; nothing is told as done meanwhile. The
//!   ballast is given up for removals, which go first: they are what makes room, and the file is made smaller after them. It is put
//!   back before the disk counts as good.
//!   A transaction that is tried again may be on the disk already in whole; to write the same rows once more changes nothing.
//! - A sync, whatever its reason: after a failed one the system may take pages for written that are not, and a later sync would tell
//!   that all is well. So nothing is written any more, and nothing told as done, until the daemon is started again and the file checked.
//! - Any other error of the disk, or damage in the file: the same. A disk that fails one write gives no reason to trust the next.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::disk::FaultKind;
use super::file::{File, StoreError};
use super::health::{Health, HealthCell};
use super::opening;
use super::queue::{Group, Queue};
use crate::causes::with_causes;
use crate::telemetry::metrics::StoreMeters;
use crate::telemetry::occasional::Occasional;

/// How long the first wait on a full disk is; each after it is twice as long,
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// up to this while there is no room for the ballast,
const MOST_WAIT: Duration = Duration::from_secs(5);

/// and to this while there is room for it, but not for what waits: such a try writes the ballast and opens the file again.
const MOST_WAIT_AFTER_TRY: Duration = Duration::from_secs(60);

/// How often the log tells that the disk is still full.
const TOLD_EVERY: Duration = Duration::from_secs(300);

/// What it works with.
pub(super) struct Writer {
    pub(super) file: Arc<File>,
    pub(super) queue: Arc<Queue>,
    pub(super) health: Arc<HealthCell>,
    pub(super) meters: Arc<StoreMeters>,
}

/// That nothing more is written: it was closed, or the disk failed.
struct Ended;

impl Writer {
    /// Begins to write.
    pub(super) fn start(self) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            // Either way nothing is written any more, and whoever asks is told why.
            let Err(Ended) = self.run();
        })
    }

    fn run(&self) -> Result<std::convert::Infallible, Ended> {
        let _told = ToldOfPanic(&self.health);
        self.measure();
        self.reserve_first()?;
        loop {
            let group = self.queue.next().ok_or(Ended)?;
            if let Err(error) = self.write(group) {
                self.refused(error)?;
            }
        }
    }

    /// Writes a group and tells of it; has it wait again where that fails.
    fn write(&self, group: Group) -> Result<(), StoreError> {
        let began = Instant::now();
        if let Err(error) = self.file.write(group.rows()) {
            if let StoreError::Disk { kind, .. } = &error {
                self.meters.write_error(*kind);
            }
            self.queue.put_back(group);
            return Err(error);
        }
        self.meters.commit(began.elapsed().as_secs_f64());
        self.measure();
        group.done();
        Ok(())
    }

    fn measure(&self) {
        if let Ok(bytes) = self.file.disk().size() {
            self.meters.file_bytes(bytes);
        }
    }

    /// Has the ballast there before anything is written.
    fn reserve_first(&self) -> Result<(), Ended> {
        match self.file.disk().reserve() {
            Ok(()) => Ok(()),
            Err(source) => self.refused(opening::of_disk(self.file.disk(), FaultKind::of_write(&source), source)),
        }
    }

    /// What becomes of an error: waits for room, or fails for good.
    fn refused(&self, error: StoreError) -> Result<(), Ended> {
        if !error.is_full() {
            return Err(self.fail(&error));
        }
        self.health.set(Health::Full { since: SystemTime::now() });
        self.meters.healthy(false);
        tracing::error!(
            file = %self.file.disk().path().display(), error = &error as &dyn std::error::Error,
            "the disk is full: what is to be kept waits, and no message is acknowledged that it is for; removals go on; free some \
             room, the daemon then goes on by itself"
        );
        let began = Instant::now();
        let ended = self.until_room();
        if ended.is_ok() {
            self.health.set(Health::Good);
            self.meters.healthy(true);
            tracing::info!(
                seconds = began.elapsed().as_secs(),
                "there is room on the disk again, and all that waited is going on"
            );
        }
        ended
    }

    /// Tries until all that waits is written and the ballast is back.
    fn until_room(&self) -> Result<(), Ended> {
        let still = Occasional::every(TOLD_EVERY);
        let _first = still.due();
        let mut wait = FIRST_WAIT;
        loop {
            let most = match self.make_do() {
                Ok(true) => return Ok(()),
                Ok(false) => MOST_WAIT,
                Err(error) if error.is_full() => MOST_WAIT_AFTER_TRY,
                Err(error) => return Err(self.fail(&error)),
            };
            wait = wait.min(most);
            if still.due().is_some() {
                tracing::warn!(rows = self.queue.len(), "the disk is still full");
            }
            if self.queue.closes_within(wait) {
                return Err(Ended);
            }
            wait *= 2;
        }
    }

    /// Writes what there is room for. Whether that was all, and the ballast is there.
    fn make_do(&self) -> Result<bool, StoreError> {
        self.file.recover()?;
        let mut removed = false;
        loop {
            let group = self.queue.removals();
            if group.is_empty() {
                break;
            }
            self.write(group)?;
            removed = true;
        }
        if removed {
            // What is free inside may never have been on the disk: a page that is written there needs room too.
            self.file.shrink()?;
            self.measure();
        }
        let reserved = match self.file.disk().reserve() {
            Ok(()) => true,
            Err(error) if FaultKind::of_write(&error) == FaultKind::Full => false,
            Err(source) => return Err(opening::of_disk(self.file.disk(), FaultKind::Io, source)),
        };
        // Without either the next try would end as the last one did, and cost opening the file again.
        if !removed && !reserved {
            return Ok(false);
        }
        loop {
            let group = self.queue.all();
            if group.is_empty() {
                return Ok(reserved);
            }
            self.write(group)?;
        }
    }

    fn fail(&self, error: &StoreError) -> Ended {
        let why: Arc<str> = with_causes(error).into();
        tracing::error!(
            error = error as &dyn std::error::Error,
            "the store has failed: nothing is written any more, and no message acknowledged that is to be kept, until the daemon is \
             started again"
        );
        match error {
            StoreError::Damaged { path, .. } => opening::check_next_time(path),
            _ => {
                if let Err(error) = self.file.freeze() {
                    tracing::error!(error = &error as &dyn std::error::Error, "the store cannot be read either");
                }
            }
        }
        self.health.set(Health::Failed { since: SystemTime::now(), why });
        self.meters.healthy(false);
        Ended
    }
}

/// Tells that nothing is written any more where the thread panics.
struct ToldOfPanic<'a>(&'a HealthCell);

impl Drop for ToldOfPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let why = "the thread that writes the store has panicked; restart the daemon".into();
            self.0.set(Health::Failed { since: SystemTime::now(), why });
        }
    }
}
