//! What handlers remember, as an operator sees and changes it.

use super::{Live, Refusal};
use crate::control::admin::resource::{KvEntry, KvList, KvTotals, KvValue};

/// Which keys of a handler are listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvPage {
    /// Those that begin with this.
    pub prefix: String,
    /// Those after this one.
    pub after: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// A value that a handler is to remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvSet {
    /// The handler's name.
    pub handler: String,
    /// The key.
    pub key: String,
    /// The value, and for how long.
    pub value: KvValue,
}

impl Live {
    /// What each handler remembers.
    pub fn kv(&self) -> Vec<KvTotals> {
        Vec::new()
    }

    /// Keys that a handler remembers.
    ///
    /// # Errors
    /// There is no such handler.
    pub fn kv_list(&self, _handler: &str, _page: KvPage) -> Result<KvList, Refusal> {
        Err(super::outbox::not_yet())
    }

    /// What a handler remembers under a key.
    ///
    /// # Errors
    /// There is no such handler, or no such key.
    pub fn kv_get(&self, _handler: &str, _key: &str) -> Result<KvEntry, Refusal> {
        Err(super::outbox::not_yet())
    }

    /// Lets a handler remember a value.
    ///
    /// # Errors
    /// There is no such handler, it has no grant or no room, or the value is none.
    pub async fn kv_set(&self, _set: KvSet) -> Result<(), Refusal> {
        Err(super::outbox::not_yet())
    }

    /// Lets a handler forget a key.
    ///
    /// # Errors
    /// There is no such handler, or no such key.
    pub async fn kv_delete(&self, _handler: &str, _key: &str) -> Result<(), Refusal> {
        Err(super::outbox::not_yet())
    }
}
