//! What the handler remembers beyond a call: keys with values, the handler's own.
//!
//! All instances of a handler share it, and it survives a restart, a new plugin and a change of the configuration. `allow.kv` of
//! `[handlers.NAME]` grants it and says how large all of it may be.
//!
//! Writes are held back like publishes, and take effect together with them when the call returns `Ok`; an error or a panic drops
//! both. A call reads its own writes. Where another call changed what this one read before it has ended, it is run again at once with
//! the same message: reading a value, changing it and writing it back is safe, however many instances do so.
//!
//! ```
//! use tidegate_sdk::{Message, Outgoing, OrFail, Result, kv, publish};
//!
//! fn handle(message: &Message) -> Result {
//!     let device = message.captures.first().or_reject("the subscription has no wildcard")?;
//!     let key = format!("seen/{device}");
//!     let seen = kv::get_json::<u64>(&key)?.unwrap_or(0) + 1;
//!     kv::set_json(&key, &seen)?;
//!     publish(Outgoing::new(format!("counts/{device}"), seen.to_string()).qos(message.qos))?;
//!     Ok(())
//! }
//! # use tidegate_sdk::testing::{Host, message};
//! # let mut message = message("sensors/7", "");
//! # message.captures = vec!["7".into()];
//! # let host = Host::new().remembers("seen/7", "41");
//! # let outcome = host.call(handle, &message);
//! # assert_eq!(outcome.sent(), [Outgoing::new("counts/7", "42")]);
//! # assert_eq!(outcome.remembered("seen/7"), Some(&b"42"[..]));
//! ```

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{KvError, host};

/// The value of a key.
///
/// # Errors
/// `allow.kv` grants nothing, the key is too long, or the call has used too many keys.
pub fn get(key: &str) -> Result<Option<Vec<u8>>, KvError> {
    host::kv_get(key)
}

/// The value of a key as what its JSON says.
///
/// # Errors
/// As [`get`]; and [`KvError::Json`] where the value is something else.
pub fn get_json<T: DeserializeOwned>(key: &str) -> Result<Option<T>, KvError> {
    let read = |value: Vec<u8>| serde_json::from_slice(&value).map_err(|error| KvError::json(key, &error));
    get(key)?.map(read).transpose()
}

/// Sets a key, until it is set again or deleted.
///
/// # Errors
/// There is no room for it, now or ever; or as [`get`]. In `init` nothing is written.
pub fn set(key: &str, value: impl AsRef<[u8]>) -> Result<(), KvError> {
    host::kv_set(key, value.as_ref(), None)
}

/// Sets a key that is absent again after this time, to the millisecond.
///
/// ```
/// use std::time::Duration;
/// use tidegate_sdk::{Message, Result, kv};
///
/// /// Whether a message with this number came within the last hour.
/// fn is_known(number: &str) -> Result<bool> {
///     let key = format!("number/{number}");
///     let known = kv::get(&key)?.is_some();
///     kv::set_with_ttl(&key, "", Duration::from_secs(3600))?;
///     Ok(known)
/// }
/// # let outcome = tidegate_sdk::testing::Host::new().run(|| [is_known("7").unwrap(), is_known("7").unwrap()]);
/// # assert_eq!(outcome.result, [false, true]);
/// ```
///
/// # Errors
/// As [`set`].
pub fn set_with_ttl(key: &str, value: impl AsRef<[u8]>, time: Duration) -> Result<(), KvError> {
    host::kv_set(key, value.as_ref(), Some(time))
}

/// Sets a key to a value as JSON.
///
/// # Errors
/// As [`set`]; and [`KvError::Json`] where the value has no JSON form.
pub fn set_json(key: &str, value: &(impl Serialize + ?Sized)) -> Result<(), KvError> {
    set(key, serde_json::to_vec(value).map_err(|error| KvError::json(key, &error))?)
}

/// Deletes a key; that it is absent is no error.
///
/// # Errors
/// As [`get`]. In `init` nothing is deleted.
pub fn delete(key: &str) -> Result<(), KvError> {
    host::kv_delete(key)
}

/// The keys that start with `prefix`, in order: the first `limit`, and no more than 1,000.
///
/// # Errors
/// As [`get`].
pub fn keys(prefix: &str, limit: u32) -> Result<Vec<String>, KvError> {
    host::kv_keys(prefix, None, limit)
}

/// As [`keys`], of those that come after a key: the last one of the page before.
///
/// ```
/// use tidegate_sdk::{Result, kv};
///
/// fn count(prefix: &str) -> Result<usize> {
///     let mut page = kv::keys(prefix, 100)?;
///     let mut count = page.len();
///     while let Some(last) = page.last() {
///         page = kv::keys_after(prefix, last, 100)?;
///         count += page.len();
///     }
///     Ok(count)
/// }
/// # let host = tidegate_sdk::testing::Host::new().remembers("a/1", "").remembers("a/2", "").remembers("b", "");
/// # assert_eq!(host.run(|| count("a/")).result, Ok(2));
/// ```
///
/// # Errors
/// As [`get`].
pub fn keys_after(prefix: &str, after: &str, limit: u32) -> Result<Vec<String>, KvError> {
    host::kv_keys(prefix, Some(after), limit)
}
