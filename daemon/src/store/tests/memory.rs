//! A disk in memory: it loses what was not synced in a crash, has only so much room, and fails when it is told to.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use redb::StorageBackend;

use super::super::disk::Disk;

const BLOCK: u64 = 4096;
const BALLAST_BLOCKS: u64 = 16;

/// Which operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Read,
    Write,
    SetLen,
    Sync,
}

/// The disk. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<(Mutex<Bytes>, Condvar)>);

#[derive(Debug, Default)]
struct Bytes {
    /// What is read.
    now: Vec<u8>,
    /// What a crash leaves for sure.
    synced: Vec<u8>,
    /// Written since the last sync, in order.
    unsynced: Vec<(u64, Vec<u8>)>,
    /// Blocks that take room.
    blocks: BTreeSet<u64>,
    ballast: u64,
    /// How many blocks there are in all; none: no end of them.
    room: Option<u64>,
    /// After so many operations of this kind it fails with this, from then on.
    fails: Option<(Op, u32, io::ErrorKind)>,
    syncs: u64,
    /// How often it was opened.
    opened: u64,
}

impl Bytes {
    fn fail(&mut self, op: Op) -> io::Result<()> {
        match &mut self.fails {
            Some((failing, 0, kind)) if *failing == op => Err((*kind).into()),
            Some((failing, left, _)) if *failing == op => {
                *left -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn has_room(&self, more: u64) -> bool {
        self.room.is_none_or(|room| self.blocks.len() as u64 + self.ballast + more <= room)
    }
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Bytes> {
        self.0.0.lock().expect("no test panics with it")
    }

    /// From the `after`th operation of this kind on it fails.
    pub fn fail(&self, op: Op, after: u32, kind: io::ErrorKind) {
        self.lock().fails = Some((op, after, kind));
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.lock().fails = None;
    }

    /// There are so many blocks more than are taken.
    pub fn leave_room(&self, blocks: u64) {
        let mut bytes = self.lock();
        bytes.room = Some(bytes.blocks.len() as u64 + bytes.ballast + blocks);
    }

    /// There is no end of room.
    pub fn make_room(&self) {
        self.lock().room = None;
    }

    /// Syncs that succeeded.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Waits until it was opened so often.
    pub fn until_opened(&self, times: u64) {
        drop(self.0.1.wait_while(self.lock(), |bytes| bytes.opened < times).expect("no test panics with it"));
    }

    pub fn opened(&self) -> u64 {
        self.lock().opened
    }

    /// Whether the ballast is there.
    pub fn has_ballast(&self) -> bool {
        self.lock().ballast == BALLAST_BLOCKS
    }

    /// What a crash now leaves: what was synced, and of what was written since whatever `kept` picks.
    pub fn crashed(&self, mut kept: impl FnMut() -> bool) -> Memory {
        let bytes = self.lock();
        let mut left = bytes.synced.clone();
        left.resize(bytes.now.len().max(left.len()), 0);
        for (offset, data) in bytes.unsynced.iter().filter(|_| kept()) {
            let at = *offset as usize;
            left[at..at + data.len()].copy_from_slice(data);
        }
        let bytes = Bytes { now: left.clone(), synced: left, ..Bytes::default() };
        Memory(Arc::new((Mutex::new(bytes), Condvar::new())))
    }

    /// Changes what is stored, behind everyone's back.
    pub fn spoil(&self, spoil: impl FnOnce(&mut Vec<u8>)) {
        spoil(&mut self.lock().now);
    }
}

impl Disk for Memory {
    fn path(&self) -> &Path {
        Path::new("memory")
    }

    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        self.lock().opened += 1;
        self.0.1.notify_all();
        Ok(Box::new(self.clone()))
    }

    fn reserve(&self) -> io::Result<()> {
        let mut bytes = self.lock();
        let more = BALLAST_BLOCKS - bytes.ballast;
        if !bytes.has_room(more) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        bytes.ballast = BALLAST_BLOCKS;
        Ok(())
    }

    fn release(&self) -> io::Result<()> {
        self.lock().ballast = 0;
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.lock().now.len() as u64)
    }
}

impl StorageBackend for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut bytes = self.lock();
        bytes.fail(Op::Read)?;
        let from = offset as usize;
        let found = bytes.now.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut bytes = self.lock();
        bytes.fail(Op::SetLen)?;
        bytes.now.resize(len as usize, 0);
        bytes.blocks.retain(|block| block * BLOCK < len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut bytes = self.lock();
        bytes.fail(Op::Sync)?;
        bytes.synced = bytes.now.clone();
        bytes.unsynced.clear();
        bytes.syncs += 1;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.lock();
        bytes.fail(Op::Write)?;
        let end = offset + data.len() as u64;
        let new: Vec<u64> =
            (offset / BLOCK..end.div_ceil(BLOCK)).filter(|block| !bytes.blocks.contains(block)).collect();
        if !bytes.has_room(new.len() as u64) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        bytes.blocks.extend(new);
        bytes.now[offset as usize..end as usize].copy_from_slice(data);
        bytes.unsynced.push((offset, data.to_vec()));
        Ok(())
    }
}
