//! One call's use of what its handler remembers: what it read, and the writes that are held back until it has returned ok.
//!
//! Fed by the guest's calls, each with the mirror as it stands then. At the end, [`Transaction::conflicts`] tells whether the call would
//! have seen the same had it run in this moment as a whole: then its writes may be applied, and all calls together act as if they had run
//! one after the other. Pure: the time is told, and who calls holds the mirror's lock. It deliberately has no undo: what is
//! not applied is dropped.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::mirror::{Mirror, Span, Value, weight};

/// Bytes of the longest key.
pub const MAX_KEY_BYTES: usize = 512;

/// Keys that one `keys` gives; asking for more gives as many.
pub const MAX_KEYS_AT_ONCE: usize = 1_000;

/// Keys that one call may read, list and write, each counted once for each way: what a call makes the daemon remember is bounded.
pub const MAX_TOUCHED_KEYS: usize = 10_000;

/// Why a call's wish is not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvError {
    /// It does not fit now.
    Quota,
    /// It can never fit.
    TooLarge,
    /// The call has touched too many keys.
    TooManyKeys,
}

/// What a call reads and writes.
#[derive(Debug, Default)]
pub struct Transaction {
    reads: BTreeMap<Arc<str>, Seen>,
    spans: Vec<SeenSpan>,
    /// Held back; none removes the key.
    writes: BTreeMap<Arc<str>, Option<Value>>,
    /// See [`MAX_TOUCHED_KEYS`].
    touched: usize,
    /// What the state grows by with these writes, as far as this call has seen it.
    growth: isize,
}

/// A key as the call saw it first. It goes on seeing that.
#[derive(Debug)]
struct Seen {
    /// None where it was absent.
    version: Option<u64>,
    value: Option<Value>,
}

/// The keys that a call was given.
#[derive(Debug)]
struct SeenSpan {
    span: Span,
    keys: Vec<Arc<str>>,
}

impl Transaction {
    /// A key's value: what this call wrote, or else what it saw first, or else the mirror's.
    ///
    /// # Errors
    /// See [`KvError`].
    pub fn get(&mut self, mirror: &Mirror, key: &str, now: u64) -> Result<Option<Bytes>, KvError> {
        if let Some(own) = self.writes.get(key) {
            return Ok(alive(own, now).cloned());
        }
        if let Some(seen) = self.reads.get(key) {
            return Ok(seen.value.as_ref().map(|value| value.bytes.clone()));
        }
        check_key(key)?;
        self.touch(1)?;
        let entry = mirror.get(key, now);
        let seen = Seen { version: entry.map(|entry| entry.version), value: entry.map(|entry| entry.value.clone()) };
        let bytes = seen.value.as_ref().map(|value| value.bytes.clone());
        self.reads.insert(key.into(), seen);
        Ok(bytes)
    }

    /// Sets a key, once the call has returned ok. All of the handler's state may count for `quota` bytes; what does not make it larger
    /// always fits.
    ///
    /// # Errors
    /// See [`KvError`]. Nothing is written then.
    pub fn set(&mut self, mirror: &Mirror, quota: usize, key: &str, value: Value, now: u64) -> Result<(), KvError> {
        check_key(key)?;
        let new = weight(key, value.bytes.len());
        if new > quota {
            return Err(KvError::TooLarge);
        }
        let old = self.weight_now(mirror, key, now);
        let growth = self.growth.saturating_add_unsigned(new).saturating_sub_unsigned(old);
        if !fits(mirror, growth, quota, now) {
            return Err(KvError::Quota);
        }
        self.hold(key, Some(value))?;
        self.growth = growth;
        Ok(())
    }

    /// Removes a key, once the call has returned ok. That it is not there is no error.
    ///
    /// # Errors
    /// See [`KvError`].
    pub fn delete(&mut self, mirror: &Mirror, key: &str, now: u64) -> Result<(), KvError> {
        check_key(key)?;
        let old = self.weight_now(mirror, key, now);
        self.hold(key, None)?;
        self.growth = self.growth.saturating_sub_unsigned(old);
        Ok(())
    }

    /// The keys that start with `prefix` and come after `after`, in order, at most `limit` and [`MAX_KEYS_AT_ONCE`]: those of the
    /// mirror with this call's writes.
    ///
    /// # Errors
    /// See [`KvError`].
    pub fn keys(
        &mut self,
        mirror: &Mirror,
        (prefix, after): (&str, Option<&str>),
        limit: usize,
        now: u64,
    ) -> Result<Vec<Arc<str>>, KvError> {
        let limit = limit.min(MAX_KEYS_AT_ONCE);
        self.touch(1)?;
        let span = Span::new(prefix, after);
        let (mut found, mut seen) = (Vec::new(), Vec::new());
        let mut theirs = mirror.keys(&span, now).peekable();
        let own = self.writes.range::<str, _>((span.start(), Bound::Unbounded));
        let mut own = own.take_while(|(key, _)| span.reaches(key)).peekable();
        while found.len() < limit {
            let next = [theirs.peek().copied(), own.peek().map(|(key, _)| *key)].into_iter().flatten().min();
            let Some(key) = next.map(Arc::clone) else { break };
            if theirs.next_if(|theirs| **theirs == key).is_some() {
                // Also what this call has removed: the walk came by.
                seen.push(Arc::clone(&key));
                if self.touched + seen.len() > MAX_TOUCHED_KEYS {
                    return Err(KvError::TooManyKeys);
                }
            }
            if own.next_if(|(own, _)| **own == key).is_none_or(|(_, value)| alive(value, now).is_some()) {
                found.push(key);
            }
        }
        self.touched += seen.len();
        let span = match found.last() {
            // What comes after the last one was not looked at.
            Some(last) if found.len() == limit => span.clone().up_to(last),
            _ => span.clone(),
        };
        if limit > 0 {
            self.spans.push(SeenSpan { span, keys: seen });
        }
        Ok(found)
    }

    /// Whether what the call saw is not so any more, or what it writes does not fit any more.
    pub fn conflicts(&self, mirror: &Mirror, quota: usize, now: u64) -> bool {
        self.misread(mirror, now) || self.overflows(mirror, quota, now)
    }

    /// Whether what the call saw is not so any more.
    pub fn misread(&self, mirror: &Mirror, now: u64) -> bool {
        let changed = |(key, seen): (&Arc<str>, &Seen)| mirror.get(key, now).map(|entry| entry.version) != seen.version;
        let moved = |seen: &SeenSpan| !mirror.keys(&seen.span, now).eq(&seen.keys);
        self.reads.iter().any(changed) || self.spans.iter().any(moved)
    }

    fn overflows(&self, mirror: &Mirror, quota: usize, now: u64) -> bool {
        let growth = self.writes.iter().fold(0_isize, |growth, (key, value)| {
            growth
                .saturating_add_unsigned(held_weight(key, value))
                .saturating_sub_unsigned(live_weight(mirror, key, now))
        });
        !fits(mirror, growth, quota, now)
    }

    /// The keys that it writes, with their values; none removes the key.
    pub fn writes(&self) -> impl Iterator<Item = (&Arc<str>, Option<&Value>)> {
        self.writes.iter().map(|(key, value)| (key, value.as_ref()))
    }

    /// The keys that it read, those that were absent included.
    pub fn reads(&self) -> impl Iterator<Item = &Arc<str>> {
        self.reads.keys().chain(self.spans.iter().flat_map(|seen| &seen.keys))
    }

    /// Whether it asked which keys there are.
    pub fn lists(&self) -> bool {
        !self.spans.is_empty()
    }

    /// Whether it has neither read nor written.
    pub fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.writes.is_empty() && self.spans.is_empty()
    }

    /// Its writes take effect.
    pub fn apply(self, mirror: &mut Mirror) {
        self.writes.into_iter().for_each(|(key, value)| mirror.write(&key, value));
    }

    /// What a key weighs as this call sees it.
    fn weight_now(&self, mirror: &Mirror, key: &str, now: u64) -> usize {
        self.writes.get(key).map_or_else(|| live_weight(mirror, key, now), |value| held_weight(key, value))
    }

    fn hold(&mut self, key: &str, value: Option<Value>) -> Result<(), KvError> {
        match self.writes.get_mut(key) {
            Some(held) => *held = value,
            None => {
                self.touch(1)?;
                self.writes.insert(key.into(), value);
            }
        }
        Ok(())
    }

    fn touch(&mut self, keys: usize) -> Result<(), KvError> {
        if self.touched + keys > MAX_TOUCHED_KEYS {
            return Err(KvError::TooManyKeys);
        }
        self.touched += keys;
        Ok(())
    }
}

fn check_key(key: &str) -> Result<(), KvError> {
    if key.len() > MAX_KEY_BYTES { Err(KvError::TooLarge) } else { Ok(()) }
}

/// Whether the state may grow by so much. What does not make it larger always fits: the quota may be less than it was.
fn fits(mirror: &Mirror, growth: isize, quota: usize, now: u64) -> bool {
    let within = |bytes: usize| bytes.saturating_add_signed(growth) <= quota;
    // The exact count takes longer the more has expired.
    growth <= 0 || within(mirror.bytes()) || within(mirror.live_bytes(now))
}

/// The value, if it is there at this time.
fn alive(value: &Option<Value>, now: u64) -> Option<&Bytes> {
    value.as_ref().filter(|value| !value.is_expired(now)).map(|value| &value.bytes)
}

fn held_weight(key: &str, value: &Option<Value>) -> usize {
    value.as_ref().map_or(0, |value| weight(key, value.bytes.len()))
}

fn live_weight(mirror: &Mirror, key: &str, now: u64) -> usize {
    mirror.get(key, now).map_or(0, |entry| weight(key, entry.value.bytes.len()))
}

#[cfg(test)]
mod tests;
