//! A disk for a daemon's state that fills up when a scenario says so, and has room again.
//!
//! Where this process may mount, as root may, it is a small file system of its own, in memory: a write past its end meets ENOSPC.
//! Elsewhere it is a folder as any other, and the daemon's files may not grow (RLIMIT_FSIZE): a write past their end meets EFBIG.
//! What is within a file can be overwritten either way, as on a full disk.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::Daemon;

/// Bytes of the file system: the compiled plugins, the store and what it keeps for a full disk.
const SIZE: &str = "96m";

/// The file in which the daemon keeps what must survive it.
const STORE: &str = "state.redb";

/// How a disk is made full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// Another file takes all the room of a small file system.
    FileSystem,
    /// The daemon's files may not become longer.
    Limit,
}

/// Room for a daemon's state. Dropping it takes it down; the daemon must have ended.
pub struct Disk {
    folder: TempDir,
    means: Means,
}

impl Disk {
    /// One that is made full by these means if that is permitted here, else by a limit.
    ///
    /// # Panics
    /// There is no temporary folder.
    pub fn new(wanted: Means) -> Disk {
        let folder = tempfile::Builder::new().prefix("tidegate-disk-").tempdir().expect("a temporary folder");
        let mount = || {
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", &format!("size={SIZE},mode=0700"), "tidegate-test"]).arg(folder.path());
            mount.output().is_ok_and(|output| output.status.success())
        };
        let means = if wanted == Means::FileSystem && mount() { Means::FileSystem } else { Means::Limit };
        Disk { folder, means }
    }

    /// How it is made full.
    pub fn means(&self) -> Means {
        self.means
    }

    /// Where the state is: for [`crate::Config::state`].
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Takes all room away from this daemon, which runs.
    pub fn fill(&self, daemon: &Daemon) {
        match self.means {
            Means::FileSystem => fill(&self.filler()),
            Means::Limit => {
                let length = fs::metadata(self.state().join(STORE)).expect("the daemon has made its store").len();
                limit(daemon, &length.to_string());
            }
        }
    }

    /// Gives the room back: to this daemon where it still runs, else to whichever comes.
    pub fn free(&self, daemon: Option<&Daemon>) {
        match (self.means, daemon) {
            (Means::FileSystem, _) => fs::remove_file(self.filler()).expect("it was filled"),
            (Means::Limit, Some(daemon)) => limit(daemon, "unlimited"),
            // A limit ends with its process.
            (Means::Limit, None) => {}
        }
    }

    fn filler(&self) -> PathBuf {
        self.folder.path().join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.means == Means::FileSystem {
            // Where a process still has a file of it open, it goes with that process.
            let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
        }
    }
}

/// Writes until nothing more fits, to the last byte.
fn fill(place: &Path) {
    let mut file = File::create(place).expect("there is room for a name");
    for size in [1 << 16, 1 << 12, 1] {
        let block = vec![b'x'; size];
        loop {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{}: {error}", place.display()),
            }
        }
    }
}

/// The soft limit alone: it can be raised again by whoever may lower it.
fn limit(daemon: &Daemon, length: &str) {
    let status = Command::new("prlimit")
        .args(["--pid", &daemon.id().to_string(), &format!("--fsize={length}:")])
        .status()
        .expect("util-linux has prlimit");
    assert!(status.success(), "prlimit: {status}");
}
