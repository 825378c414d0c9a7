//! Dead letters as an operator sees them, handles them again or forgets them.

use super::{Live, Refusal};
use crate::control::admin::resource::{DeadLetterCount, DeadLetterList, WholeDeadLetter};

/// Which dead letters are listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterPage {
    /// Those of this handler alone.
    pub handler: Option<String>,
    /// Those with this reason alone.
    pub reason: Option<String>,
    /// Those before this id alone.
    pub before: Option<u64>,
    /// At most so many, the last ones.
    pub last: usize,
}

/// Which dead letters something is done with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Letters {
    /// Those with these ids; each must be there.
    Ids(Vec<u64>),
    /// Those of this handler.
    Handler(String),
    /// All.
    All,
}

impl Live {
    /// Dead letters of the local store, oldest first.
    ///
    /// # Errors
    /// There is no such handler, or the store cannot be read.
    pub async fn dead_letters(&self, _page: LetterPage) -> Result<DeadLetterList, Refusal> {
        Err(super::outbox::not_yet())
    }

    /// One dead letter with its payload.
    ///
    /// # Errors
    /// There is none with this id, or the store cannot be read.
    pub async fn dead_letter(&self, _id: u64) -> Result<WholeDeadLetter, Refusal> {
        Err(super::outbox::not_yet())
    }

    /// Handles dead letters again: so many.
    ///
    /// # Errors
    /// One of them cannot be, or the store cannot be read; then it is begun with none.
    pub async fn retry_dead_letters(&self, _which: Letters) -> Result<DeadLetterCount, Refusal> {
        Err(super::outbox::not_yet())
    }

    /// Forgets dead letters: so many.
    ///
    /// # Errors
    /// One of them is not there, or the store cannot be read; then none is forgotten.
    pub async fn clear_dead_letters(&self, _which: Letters) -> Result<DeadLetterCount, Refusal> {
        Err(super::outbox::not_yet())
    }
}
