//! Dead letters and parked messages as an operator sees them, handles them again or forgets them.

use super::{Live, Refusal};

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
    /// Makes a handler pause.
    ///
    /// # Errors
    /// There is no such handler.
    pub async fn pause(&self, _handler: &str) -> Result<(), Refusal> {
        Err(super::outbox::not_yet())
    }

    /// Gives a handler what was kept for it, and then what comes.
    ///
    /// # Errors
    /// There is no such handler.
    pub async fn resume(&self, _handler: &str) -> Result<(), Refusal> {
        Err(super::outbox::not_yet())
    }
}
