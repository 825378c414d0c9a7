//! What a call did: its publishes, and what it writes to the disk with them.
//!
//! Plain data, made by a handler's runner; taken as a whole or not at all.

use std::hash::{DefaultHasher, Hash, Hasher};

use smallvec::SmallVec;

use crate::path::handler::Publish;
use crate::store::Row;

/// All that a call did. It takes effect together.
#[derive(Debug, Default)]
pub struct Effects {
    /// In the order in which they were made.
    pub publishes: Vec<Publish>,
    /// What is written beside them; none where that is nothing, and nothing written by another call was read.
    pub commit: Option<Box<Commit>>,
}

/// What a call writes to the disk beside its publishes, and what that rests on.
#[derive(Debug, Default)]
pub struct Commit {
    /// What is written, in order; may be empty.
    pub rows: Vec<Row>,
    /// What the call read: it is written after those that wrote this before.
    pub reads: SmallVec<[Touch; 4]>,
    /// What the call writes: as what it read, and others wait for it in turn.
    pub writes: SmallVec<[Touch; 4]>,
}

/// Something that calls read and write, by its hash: those of two things that share one wait for each other in vain, no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Touch(u64);

impl Touch {
    /// That of a thing.
    pub fn of(thing: impl Hash) -> Touch {
        let mut hasher = DefaultHasher::new();
        thing.hash(&mut hasher);
        Touch(hasher.finish())
    }
}

impl From<Vec<Publish>> for Effects {
    fn from(publishes: Vec<Publish>) -> Effects {
        Effects { publishes, commit: None }
    }
}
