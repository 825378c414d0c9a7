//! What one handler remembers, in memory: its keys in order, their values, when each expires, and a version for each.
//!
//! Fed with what the store holds at the start, and with the writes of calls that were accepted; read by the transactions of
//! calls. Pure: the time is told, in milliseconds since the Unix epoch. It knows no call, no quota and no disk.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// Bytes that an entry counts for beside its key and its value: what its places in the tables cost, about.
pub const ENTRY_OVERHEAD_BYTES: usize = 128;

/// A value and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// As the handler set it.
    pub bytes: Bytes,
    /// From when on it is absent, in milliseconds since the Unix epoch; never where there is none.
    pub expires: Option<u64>,
}

impl Value {
    /// One that is set now.
    pub fn new(bytes: Bytes, ttl: Option<Duration>, now: u64) -> Value {
        let millis = |ttl: Duration| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Value { bytes, expires: ttl.map(|ttl| now.saturating_add(millis(ttl))) }
    }

    /// Whether it is absent at this time.
    pub fn is_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// Bytes that a key with a value of this length counts for.
pub fn weight(key: &str, value_bytes: usize) -> usize {
    key.len().saturating_add(value_bytes).saturating_add(ENTRY_OVERHEAD_BYTES)
}

/// A key's value as it stands.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it holds.
    pub value: Value,
    /// Which write made it. Never used again, also not for another key.
    pub version: u64,
}

/// The keys between two bounds: all that start with a prefix, or a part of them.
#[derive(Clone, Debug)]
pub struct Span {
    prefix: Box<str>,
    after: Option<Box<str>>,
    /// The last key that belongs to it; all to the prefix's end where there is none.
    last: Option<Box<str>>,
}

impl Span {
    /// The keys that start with `prefix` and come after `after`.
    pub fn new(prefix: &str, after: Option<&str>) -> Span {
        Span { prefix: prefix.into(), after: after.map(Into::into), last: None }
    }

    /// Those of them up to this one.
    pub fn up_to(mut self, last: &str) -> Span {
        self.last = Some(last.into());
        self
    }

    /// From where a walk through all keys has to begin.
    pub fn start(&self) -> Bound<&str> {
        match &self.after {
            // Equal to the prefix, it is one of the keys that are passed over.
            Some(after) if **after >= *self.prefix => Bound::Excluded(after),
            _ => Bound::Included(&self.prefix),
        }
    }

    /// Whether a walk that began at [`Self::start`] is still inside at this key.
    pub fn reaches(&self, key: &str) -> bool {
        key.starts_with(&*self.prefix) && self.last.as_ref().is_none_or(|last| *key <= **last)
    }
}

/// All keys of one handler.
#[derive(Debug, Default)]
pub struct Mirror {
    entries: BTreeMap<Arc<str>, Entry>,
    /// The keys that expire, by when.
    expiring: BTreeSet<(u64, Arc<str>)>,
    /// As [`weight`] counts them.
    bytes: usize,
    /// Of the newest write.
    version: u64,
}

impl Mirror {
    /// A key's value at this time.
    pub fn get(&self, key: &str, now: u64) -> Option<&Entry> {
        self.entries.get(key).filter(|entry| !entry.value.is_expired(now))
    }

    /// Whether there is a trace of this key, be it expired.
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// The keys of a span that are there at this time, in order.
    pub fn keys<'a>(&'a self, span: &'a Span, now: u64) -> impl Iterator<Item = &'a Arc<str>> {
        self.span(span, now).map(|(key, _)| key)
    }

    /// The entries of a span that are there at this time, in the order of their keys.
    pub fn span<'a>(&'a self, span: &'a Span, now: u64) -> impl Iterator<Item = (&'a Arc<str>, &'a Entry)> {
        let walk = self.entries.range::<str, _>((span.start(), Bound::Unbounded));
        walk.take_while(|(key, _)| span.reaches(key)).filter(move |(_, entry)| !entry.value.is_expired(now))
    }

    /// Sets a key, or removes it where there is no value.
    pub fn write(&mut self, key: &Arc<str>, value: Option<Value>) {
        self.version += 1;
        if let Some((known, old)) = self.entries.remove_entry(key) {
            self.bytes -= weight(&known, old.value.bytes.len());
            if let Some(expires) = old.value.expires {
                self.expiring.remove(&(expires, known));
            }
        }
        let Some(value) = value else { return };
        self.bytes += weight(key, value.bytes.len());
        if let Some(expires) = value.expires {
            self.expiring.insert((expires, Arc::clone(key)));
        }
        self.entries.insert(Arc::clone(key), Entry { value, version: self.version });
    }

    /// Forgets up to so many of the keys that have expired: which.
    pub fn expire(&mut self, now: u64, most: usize) -> Vec<Arc<str>> {
        let due = self.expiring.iter().take_while(|(expires, _)| *expires <= now);
        let due: Vec<Arc<str>> = due.take(most).map(|(_, key)| Arc::clone(key)).collect();
        due.iter().for_each(|key| self.write(key, None));
        due
    }

    /// Keys, expired ones that are not forgotten yet included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// What all keys count for, expired ones that are not forgotten yet included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of keys that are there at this time.
    pub fn live_keys(&self, now: u64) -> usize {
        self.len() - self.expiring.iter().take_while(|(expires, _)| *expires <= now).count()
    }

    /// What the keys that are there at this time count for.
    pub fn live_bytes(&self, now: u64) -> usize {
        let expired = self.expiring.iter().take_while(|(expires, _)| *expires <= now);
        let weight = |(_, key): &(u64, Arc<str>)| weight(key, self.entries[key].value.bytes.len());
        self.bytes - expired.map(weight).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, expires: Option<u64>) -> Option<Value> {
        Some(Value { bytes: Bytes::copy_from_slice(text.as_bytes()), expires })
    }

    fn mirror(keys: &[(&str, Option<u64>)]) -> Mirror {
        let mut mirror = Mirror::default();
        keys.iter().for_each(|(key, expires)| mirror.write(&Arc::from(*key), value("v", *expires)));
        mirror
    }

    #[test]
    fn keys_come_in_order_within_their_span() {
        let mirror = mirror(&[("b", None), ("a/2", None), ("a", None), ("a/1", None), ("a/10", None), ("a0", None)]);
        let check = |span: Span, expected: &[&str]| {
            let keys: Vec<&str> = mirror.keys(&span, 0).map(|key| &**key).collect();
            assert_eq!(keys, expected, "{span:?}");
        };
        check(Span::new("", None), &["a", "a/1", "a/10", "a/2", "a0", "b"]);
        check(Span::new("a/", None), &["a/1", "a/10", "a/2"]);
        check(Span::new("a/", Some("a/1")), &["a/10", "a/2"]);
        check(Span::new("a/", Some("a/15")), &["a/2"]);
        check(Span::new("a/", Some("A")), &["a/1", "a/10", "a/2"]);
        check(Span::new("a/", Some("b")), &[]);
        check(Span::new("a", Some("a")), &["a/1", "a/10", "a/2", "a0"]);
        check(Span::new("a", None).up_to("a/10"), &["a", "a/1", "a/10"]);
        check(Span::new("c", None), &[]);
    }

    #[test]
    fn an_expired_key_is_absent_at_once_and_forgotten_later() {
        let mut mirror = mirror(&[("a", Some(10)), ("b", Some(11)), ("c", None)]);
        let all = Span::new("", None);
        let each = weight("a", 1);
        assert!(mirror.get("a", 9).is_some());
        assert!(mirror.get("a", 10).is_none());
        assert_eq!(mirror.keys(&all, 10).count(), 2);
        assert_eq!((mirror.len(), mirror.bytes(), mirror.live_bytes(10)), (3, 3 * each, 2 * each));
        assert_eq!(mirror.expire(99, 1), [Arc::from("a")]);
        assert_eq!(mirror.expire(99, 9), [Arc::from("b")]);
        assert!(mirror.expire(99, 9).is_empty());
        assert_eq!((mirror.len(), mirror.bytes(), mirror.live_bytes(99)), (1, each, each));
    }

    #[test]
    fn a_key_that_is_set_anew_expires_with_its_last_value() {
        let mut mirror = mirror(&[("a", Some(10))]);
        mirror.write(&Arc::from("a"), value("longer", Some(20)));
        assert_eq!(mirror.expire(15, 9), [] as [Arc<str>; 0]);
        mirror.write(&Arc::from("a"), value("for ever", None));
        assert!(mirror.expire(u64::MAX, 9).is_empty());
        assert_eq!(mirror.bytes(), weight("a", 8));
        mirror.write(&Arc::from("a"), None);
        assert_eq!((mirror.len(), mirror.bytes()), (0, 0));
    }

    #[test]
    fn no_two_writes_have_the_same_version() {
        let mut mirror = mirror(&[("a", None), ("b", None)]);
        let version = |mirror: &Mirror, key| mirror.get(key, 0).map(|entry| entry.version);
        let before = version(&mirror, "a");
        mirror.write(&Arc::from("a"), None);
        mirror.write(&Arc::from("a"), value("v", None));
        assert_ne!(version(&mirror, "a"), before);
        assert_ne!(version(&mirror, "a"), version(&mirror, "b"));
    }
}
