//! A file that is read and no longer written: what the database writes stays in memory.
//!
//! For the time after the disk has failed. The database opens no file unclean as it is, but repairs it; here the repair, and the
//! little that closing writes, touch nothing of the file.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// Bytes that are kept together.
const BLOCK: u64 = 4096;

/// A file with what was written over it.
#[derive(Debug)]
pub(super) struct Frozen {
    below: Box<dyn StorageBackend>,
    above: Mutex<Above>,
}

#[derive(Debug)]
struct Above {
    len: u64,
    /// How much of the file below is still seen.
    seen: u64,
    blocks: HashMap<u64, Box<[u8]>>,
}

impl Frozen {
    pub(super) fn new(below: Box<dyn StorageBackend>) -> io::Result<Frozen> {
        let len = below.len()?;
        Ok(Frozen { below, above: Mutex::new(Above { len, seen: len, blocks: HashMap::new() }) })
    }

    fn above(&self) -> MutexGuard<'_, Above> {
        self.above.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block as it is below; zeros where nothing is.
    fn block_below(&self, number: u64, seen: u64) -> io::Result<Box<[u8]>> {
        let mut block = vec![0; BLOCK as usize].into_boxed_slice();
        let there = seen.saturating_sub(number * BLOCK).min(BLOCK) as usize;
        if there > 0 {
            self.below.read(number * BLOCK, &mut block[..there])?;
        }
        Ok(block)
    }
}

/// The parts of a range by blocks: the block, where in it, and where in the range.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let end = offset + len as u64;
    (offset / BLOCK..end.div_ceil(BLOCK)).map(move |number| {
        let (from, to) = (offset.max(number * BLOCK), end.min((number + 1) * BLOCK));
        (number, (from % BLOCK) as usize, (from - offset) as usize..(to - offset) as usize)
    })
}

impl StorageBackend for Frozen {
    fn len(&self) -> io::Result<u64> {
        Ok(self.above().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let above = self.above();
        if offset + out.len() as u64 > above.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (number, at, range) in parts(offset, out.len()) {
            let below;
            let block = match above.blocks.get(&number) {
                Some(block) => block,
                None => {
                    below = self.block_below(number, above.seen)?;
                    &below
                }
            };
            let end = at + range.len();
            out[range].copy_from_slice(&block[at..end]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut above = self.above();
        above.len = len;
        above.seen = above.seen.min(len);
        above.blocks.retain(|number, _| number * BLOCK < len);
        if let Some(last) = above.blocks.get_mut(&(len / BLOCK)) {
            last[(len % BLOCK) as usize..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut above = self.above();
        if offset + data.len() as u64 > above.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (number, at, range) in parts(offset, data.len()) {
            if !above.blocks.contains_key(&number) {
                let block = self.block_below(number, above.seen)?;
                above.blocks.insert(number, block);
            }
            if let Some(block) = above.blocks.get_mut(&number) {
                block[at..at + range.len()].copy_from_slice(&data[range]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let data = proptest::collection::vec(any::<u8>(), 0..6000);
        prop_oneof![
            3 => (0..20_000_u64, data).prop_map(|(offset, data)| Step::Write(offset, data)),
            1 => (0..20_000_u64).prop_map(Step::SetLen),
        ]
    }

    proptest! {
        #[test]
        fn reads_as_if_it_were_written_and_leaves_the_file_alone(steps in proptest::collection::vec(step(), 0..20)) {
            let content: Vec<u8> = (0..10_000_u32).map(|byte| byte as u8).collect();
            let below = InMemoryBackend::new();
            below.set_len(10_000).expect("is memory");
            below.write(0, &content).expect("is memory");
            let (frozen, mut model) = (Frozen::new(Box::new(below)).expect("has a length"), content.clone());
            for step in steps {
                match step {
                    Step::Write(offset, data) => {
                        let end = offset as usize + data.len();
                        let fits = end <= model.len();
                        prop_assert_eq!(frozen.write(offset, &data).is_ok(), fits);
                        if fits {
                            model[offset as usize..end].copy_from_slice(&data);
                        }
                    }
                    Step::SetLen(len) => {
                        frozen.set_len(len).expect("takes any");
                        model.resize(len as usize, 0);
                    }
                }
                prop_assert_eq!(frozen.len().expect("has one"), model.len() as u64);
                let mut read = vec![1; model.len()];
                frozen.read(0, &mut read).expect("reads");
                prop_assert_eq!(&read, &model);
                let from = model.len() / 3;
                frozen.read(from as u64, &mut read[from..]).expect("reads");
                prop_assert_eq!(&read, &model);
            }
            let mut left = vec![0; 10_000];
            frozen.below.read(0, &mut left).expect("reads");
            prop_assert_eq!(left, content);
        }
    }
}
