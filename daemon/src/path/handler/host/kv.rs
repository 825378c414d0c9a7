//! What a guest may ask of what its handler remembers: the grant, and the errors in words.
//!
//! Fed by the host functions of `kv`. What a call reads and writes is collected in its transaction (`path/kv`), which the instance gives
//! back with its publishes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::call::{CallState, Origin};
use super::grants::Host;
use crate::control::config::model::Handler;
use crate::path::kv::{self, Kv, Kvs, MAX_TOUCHED_KEYS, Mirror, Transaction, Value};

/// Why a guest's use of its `kv` fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::path::handler) enum KvError {
    /// There is no room for it now.
    Quota,
    /// It can never fit.
    TooLarge,
    /// Nothing more is kept before the next start. In words.
    Unavailable(String),
    /// In words.
    Other(String),
}

/// `allow.kv`, and what it grants.
pub struct KvGrant {
    /// What the handler remembers.
    pub kv: Arc<Kv>,
    /// Bytes that it may count for.
    pub quota: usize,
}

impl KvGrant {
    /// What the configuration grants this handler, if it grants anything.
    pub fn of(handler: &Handler, kvs: &Kvs) -> Option<KvGrant> {
        handler.allow.kv.map(|quota| KvGrant { kv: kvs.of(&handler.name), quota })
    }
}

impl KvGrant {
    /// The same grant once more.
    pub fn share(&self) -> KvGrant {
        KvGrant { kv: Arc::clone(&self.kv), quota: self.quota }
    }

    /// As [`Self::of`], outside of a daemon: what is written is kept nowhere.
    pub fn detached(handler: &Handler) -> Option<KvGrant> {
        handler.allow.kv.map(|quota| KvGrant { kv: Arc::new(Kv::detached(Arc::clone(&handler.name))), quota })
    }
}

impl CallState {
    pub(in crate::path::handler) fn kv_get(&mut self, key: &str) -> Result<Option<Bytes>, KvError> {
        self.read(|transaction, mirror, now| transaction.get(mirror, key, now))
    }

    pub(in crate::path::handler) fn kv_keys(
        &mut self,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, KvError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let keys = self.read(|transaction, mirror, now| transaction.keys(mirror, (prefix, after), limit, now))?;
        Ok(keys.iter().map(|key| key.to_string()).collect())
    }

    pub(in crate::path::handler) fn kv_set(
        &mut self,
        key: &str,
        value: Vec<u8>,
        ttl: Option<Duration>,
    ) -> Result<(), KvError> {
        self.write(|transaction, mirror, quota, now| {
            let value = Value::new(value.into(), ttl, now);
            transaction.set(mirror, quota, key, value, now)
        })
    }

    pub(in crate::path::handler) fn kv_delete(&mut self, key: &str) -> Result<(), KvError> {
        self.write(|transaction, mirror, _, now| transaction.delete(mirror, key, now))
    }

    fn read<T>(
        &mut self,
        read: impl FnOnce(&mut Transaction, &Mirror, u64) -> Result<T, kv::KvError>,
    ) -> Result<T, KvError> {
        let CallState { host, kv, .. } = self;
        let grant = host.kv_grant()?;
        // What rests on what was read waits for it to be written.
        if let Some(reason) = grant.kv.failed() {
            return Err(KvError::Unavailable(reason));
        }
        grant.kv.look(|mirror, now| read(kv, mirror, now)).map_err(|error| host.kv_error(error))
    }

    fn write(
        &mut self,
        write: impl FnOnce(&mut Transaction, &Mirror, usize, u64) -> Result<(), kv::KvError>,
    ) -> Result<(), KvError> {
        let CallState { host, kv, origin, .. } = self;
        let grant = host.kv_grant()?;
        if *origin == Origin::Init {
            let reason = format!("handler \"{}\" must not write to kv in init; write when it is called", host.name);
            return Err(KvError::Other(reason));
        };
        if let Some(reason) = grant.kv.failed() {
            return Err(KvError::Unavailable(reason));
        }
        let wrote = grant.kv.look(|mirror, now| write(kv, mirror, grant.quota, now));
        wrote.map_err(|error| host.kv_error(error))
    }
}

impl Host {
    fn kv_grant(&self) -> Result<&KvGrant, KvError> {
        self.kv.as_ref().ok_or_else(|| {
            KvError::Other(format!(
                "handler \"{handler}\" must not use kv: allow.kv grants nothing; to permit it, add kv = \"64KiB\", or another \
                 size, to allow of [handlers.{handler}]",
                handler = self.name,
            ))
        })
    }

    fn kv_error(&self, error: kv::KvError) -> KvError {
        match error {
            kv::KvError::Quota => KvError::Quota,
            kv::KvError::TooLarge => KvError::TooLarge,
            kv::KvError::TooManyKeys => KvError::Other(format!(
                "a call of handler \"{}\" reads, lists and writes more than {MAX_TOUCHED_KEYS} keys; use fewer keys, or do it in \
                 several calls",
                self.name,
            )),
        }
    }
}
