//! Dead letters as an operator sees them, handles them again or forgets them.

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
