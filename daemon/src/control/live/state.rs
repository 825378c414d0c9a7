//! What handlers remember, as an operator sees and changes it.
//!
//! Translates between the API and `path/kv`, which decides; finds the words for what cannot be done.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::edit::unknown_of;
use super::view::time;
use super::{Live, Refusal, RefusalKind};
use crate::control::admin::limits::MOST_PAGE;
use crate::control::admin::received::told;
use crate::control::admin::resource::{KvEntry, KvKey, KvList, KvTotals, KvValue};
use crate::control::config::{format_size, nearest, parse_duration};
use crate::path::kv::{KvItem, KvRefusal, KvUsage, Kvs, MAX_KEY_BYTES};

/// The last moment that RFC 3339 can tell, in milliseconds since the Unix epoch: the end of the year 9999.
const LAST_TOLD: u64 = 253_402_300_799_999;

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
    /// What each handler remembers, by name: those that may remember something, and those that do.
    pub fn kv(&self) -> Vec<KvTotals> {
        let totals = |usage: KvUsage| KvTotals {
            handler: usage.handler.to_string(),
            configured: usage.configured,
            keys: usage.keys as u64,
            bytes: usage.bytes as u64,
            quota: usage.quota.map(|quota| format_size(quota as u64)),
        };
        self.kvs().handlers().into_iter().map(totals).collect()
    }

    /// Keys that a handler remembers, in order.
    ///
    /// # Errors
    /// There is no such handler.
    pub fn kv_list(&self, handler: &str, page: KvPage) -> Result<KvList, Refusal> {
        let KvPage { prefix, after, limit } = page;
        let found = self.kvs().list(handler, &prefix, after.as_deref(), limit + 1);
        let mut items = found.map_err(|refusal| self.not_done(refusal))?;
        let more = items.len() > limit;
        items.truncate(limit);
        let key = |item: KvItem| KvKey {
            key: item.key.to_string(),
            bytes: item.bytes as u64,
            expires: item.expires.map(expiry),
        };
        Ok(KvList { keys: items.into_iter().map(key).collect(), more })
    }

    /// What a handler remembers under a key.
    ///
    /// # Errors
    /// There is no such handler, or no such key.
    pub fn kv_get(&self, handler: &str, key: &str) -> Result<KvEntry, Refusal> {
        let found = self.kvs().get(handler, key).map_err(|refusal| self.not_done(refusal))?;
        let Some(value) = found else { return Err(self.no_key(handler, key)) };
        let (data, encoding) = told(&value.bytes);
        Ok(KvEntry { key: key.to_owned(), value: data, encoding, expires: value.expires.map(expiry) })
    }

    /// Lets a handler remember a value. Returns once it is on the disk.
    ///
    /// # Errors
    /// There is no such handler, it has no grant or no room, or the value is none.
    pub async fn kv_set(&self, set: KvSet) -> Result<(), Refusal> {
        let KvSet { handler, key, value } = set;
        let ttl = value.ttl.as_deref().map(lifetime).transpose()?;
        let value = bytes(value)?;
        let done = self.kvs().set(&self.outboxes, &handler, &key, value, ttl).await;
        done.map_err(|refusal| self.not_done(refusal))
    }

    /// Lets a handler forget a key. Returns once that is on the disk.
    ///
    /// # Errors
    /// There is no such handler, or no such key.
    pub async fn kv_delete(&self, handler: &str, key: &str) -> Result<(), Refusal> {
        if self.kvs().get(handler, key).map_err(|refusal| self.not_done(refusal))?.is_none() {
            return Err(self.no_key(handler, key));
        }
        self.kvs().delete(&self.outboxes, handler, key).await.map_err(|refusal| self.not_done(refusal))
    }

    fn kvs(&self) -> Arc<Kvs> {
        Arc::clone(&self.running().kvs)
    }

    fn no_key(&self, handler: &str, key: &str) -> Refusal {
        // As many as are told at once elsewhere: enough to find a slip in.
        let near = self.kvs().list(handler, "", None, MOST_PAGE).unwrap_or_default();
        let remedy = match nearest(key, near.iter().map(|item| &*item.key)) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("`tidegate kv list {handler}` shows those that there are"),
        };
        Refusal::new(RefusalKind::NotFound, format!("handler {handler} remembers no key {key:?}"), remedy)
    }

    fn not_done(&self, refusal: KvRefusal) -> Refusal {
        match refusal {
            KvRefusal::UnknownHandler(name) => {
                let running = self.running();
                let mut known: Vec<String> =
                    running.handlers.iter().map(|view| view.handler().name.to_string()).collect();
                if known.contains(&name) {
                    return not_granted(&name);
                }
                known.extend(self.kv().into_iter().filter(|one| !one.configured).map(|one| one.handler));
                unknown_of("handler", &name, known.iter().map(String::as_str))
            }
            KvRefusal::NotGranted(handler) => not_granted(&handler),
            KvRefusal::Quota { handler, bytes, quota } => Refusal::new(
                RefusalKind::Quota,
                format!(
                    "handler {handler} remembers {bytes} bytes of its {}, and has no room for this",
                    format_size(quota as u64)
                ),
                format!("delete keys, or raise handlers.{handler}.allow.kv"),
            ),
            KvRefusal::TooLarge { handler, .. } => Refusal::new(
                RefusalKind::Invalid,
                format!(
                    "a key may have {MAX_KEY_BYTES} bytes, and an entry all of what handler {handler} may remember: this is larger"
                ),
                format!("use a shorter key, or raise handlers.{handler}.allow.kv"),
            ),
            KvRefusal::Unavailable(obstacle) => Refusal::new(
                RefusalKind::Storage,
                obstacle,
                "nothing was changed; `tidegate status` tells when it goes on",
            ),
            KvRefusal::Stopping => {
                let detail = "the daemon is stopping, and may not have kept it";
                Refusal::new(RefusalKind::Stopping, detail, "look for it once the daemon is started again")
            }
        }
    }
}

fn not_granted(handler: &str) -> Refusal {
    let remedy = format!("grant it, such as by handlers.{handler}.allow.kv = \"64KiB\"");
    Refusal::new(RefusalKind::Quota, format!("handler {handler} may not remember anything"), remedy)
}

/// When a value is forgotten, in RFC 3339.
fn expiry(millis: u64) -> String {
    time(SystemTime::UNIX_EPOCH + Duration::from_millis(millis.min(LAST_TOLD)))
}

/// For how long a value is remembered.
fn lifetime(text: &str) -> Result<Duration, Refusal> {
    let invalid = |reason: &str| {
        let (detail, remedy) = reason.split_once("; ").unwrap_or((reason, ""));
        Refusal::new(RefusalKind::Invalid, format!("ttl {text:?}: {detail}"), remedy)
    };
    match parse_duration(text) {
        Ok(ttl) if ttl >= Duration::from_millis(1) => Ok(ttl),
        Ok(_) => Err(invalid("nothing is remembered for less than 1ms; use a longer time, or leave it out")),
        Err(reason) => Err(invalid(&reason)),
    }
}

/// The bytes that a request brings.
fn bytes(value: KvValue) -> Result<Bytes, Refusal> {
    let invalid = |detail: String, remedy| Err(Refusal::new(RefusalKind::Invalid, detail, remedy));
    match (value.value, value.value_base64) {
        (Some(text), None) => Ok(Bytes::from(text)),
        (None, Some(text)) => match STANDARD.decode(text) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => {
                invalid(format!("value-base64 is not base64: {error}"), "use the standard alphabet with padding")
            }
        },
        (Some(_), Some(_)) => invalid("both value and value-base64 are given".to_owned(), "give one of the two"),
        (None, None) => invalid("there is no value".to_owned(), "give value, or value-base64"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_a_duration_of_the_configuration() {
        assert_eq!(lifetime("1h 30m"), Ok(Duration::from_secs(5400)));
        let check = |text: &str, detail: &str, remedy: &str| {
            let refusal = lifetime(text).expect_err("is none");
            assert!(refusal.detail == detail && refusal.remedy.starts_with(remedy), "{refusal:?}");
        };
        check("0s", "ttl \"0s\": nothing is remembered for less than 1ms", "use a longer time");
        check("soon", "ttl \"soon\": not a duration", "use a number and a unit");
    }

    #[test]
    fn a_value_comes_as_text_or_as_base64() {
        let given = |text: Option<&str>, base64: Option<&str>| {
            let [value, value_base64] = [text, base64].map(|text| text.map(str::to_owned));
            bytes(KvValue { value, value_base64, ttl: None }).map_err(|refusal| refusal.detail)
        };
        assert_eq!(given(Some("ä"), None), Ok("ä".into()));
        assert_eq!(given(None, Some("AP8=")), Ok(Bytes::from_static(b"\x00\xff")));
        assert_eq!(given(None, None), Err("there is no value".to_owned()));
        assert_eq!(given(Some(""), Some("")), Err("both value and value-base64 are given".to_owned()));
        assert!(given(None, Some("=")).is_err_and(|detail| detail.starts_with("value-base64 is not base64: ")));
    }

    #[test]
    fn every_moment_can_be_told() {
        assert_eq!(expiry(1_700_000_000_120), "2023-11-14T22:13:20.120Z");
        assert_eq!(expiry(u64::MAX), "9999-12-31T23:59:59.999Z");
    }
}
