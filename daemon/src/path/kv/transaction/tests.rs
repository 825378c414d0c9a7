//! What one call sees and changes, and that calls side by side act as if they ran one after the other.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::path::kv::mirror::ENTRY_OVERHEAD_BYTES;

const QUOTA: usize = 1 << 20;

fn value(text: &str, expires: Option<u64>) -> Value {
    Value { bytes: Bytes::copy_from_slice(text.as_bytes()), expires }
}

fn mirror(entries: &[(&str, &str)]) -> Mirror {
    let mut mirror = Mirror::default();
    entries.iter().for_each(|(key, text)| mirror.write(&Arc::from(*key), Some(value(text, None))));
    mirror
}

fn write(mirror: &mut Mirror, key: &str, text: Option<&str>) {
    mirror.write(&Arc::from(key), text.map(|text| value(text, None)));
}

fn get(call: &mut Transaction, mirror: &Mirror, key: &str) -> Option<String> {
    let bytes = call.get(mirror, key, 0).expect("may read");
    bytes.map(|bytes| String::from_utf8(bytes.to_vec()).expect("is text"))
}

fn set(call: &mut Transaction, mirror: &Mirror, key: &str, text: &str) {
    call.set(mirror, QUOTA, key, value(text, None), 0).expect("fits");
}

fn keys(call: &mut Transaction, mirror: &Mirror, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let keys = call.keys(mirror, (prefix, after), limit, 0).expect("may list");
    keys.iter().map(|key| key.to_string()).collect()
}

#[test]
fn a_call_sees_its_own_writes_and_the_mirror_does_not() {
    let mut mirror = mirror(&[("a", "1"), ("b", "2")]);
    let mut call = Transaction::default();
    set(&mut call, &mirror, "a", "own");
    set(&mut call, &mirror, "c", "new");
    call.delete(&mirror, "b", 0).expect("may delete");
    assert_eq!(get(&mut call, &mirror, "a").as_deref(), Some("own"));
    assert_eq!(get(&mut call, &mirror, "b"), None);
    assert_eq!(keys(&mut call, &mirror, "", None, 10), ["a", "c"]);
    assert_eq!(mirror.get("a", 0).map(|entry| &*entry.value.bytes), Some(&b"1"[..]));
    assert!(!call.conflicts(&mirror, QUOTA, 0));
    call.apply(&mut mirror);
    assert_eq!(mirror.keys(&Span::new("", None), 0).map(|key| &**key).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(mirror.get("a", 0).map(|entry| &*entry.value.bytes), Some(&b"own"[..]));
}

#[test]
fn its_own_writes_expire_too() {
    let mirror = Mirror::default();
    let mut call = Transaction::default();
    call.set(&mirror, QUOTA, "a", value("1", Some(10)), 5).expect("fits");
    assert!(call.get(&mirror, "a", 9).expect("may read").is_some());
    assert!(call.get(&mirror, "a", 10).expect("may read").is_none());
    assert!(call.keys(&mirror, ("", None), 10, 10).expect("may list").is_empty());
}

#[test]
fn keys_come_in_pages() {
    let mirror = mirror(&[("a", ""), ("c", ""), ("d", "")]);
    let mut call = Transaction::default();
    set(&mut call, &mirror, "b", "");
    call.delete(&mirror, "c", 0).expect("may delete");
    assert_eq!(keys(&mut call, &mirror, "", None, 2), ["a", "b"]);
    assert_eq!(keys(&mut call, &mirror, "", Some("b"), 2), ["d"]);
    assert_eq!(keys(&mut call, &mirror, "", Some("d"), 2), [] as [String; 0]);
    assert_eq!(keys(&mut call, &mirror, "", None, 0), [] as [String; 0]);
}

/// What a call that did this is told when another did that in the meantime.
fn check_conflict(call: impl FnOnce(&mut Transaction, &Mirror), other: impl FnOnce(&mut Mirror), expected: bool) {
    let mut mirror = mirror(&[("a", "1"), ("b", "2"), ("c", "3")]);
    let mut transaction = Transaction::default();
    call(&mut transaction, &mirror);
    assert!(!transaction.conflicts(&mirror, QUOTA, 0));
    other(&mut mirror);
    assert_eq!(transaction.conflicts(&mirror, QUOTA, 0), expected);
}

#[test]
fn a_call_conflicts_with_what_changed_what_it_read() {
    let reads_a = |call: &mut Transaction, mirror: &Mirror| _ = get(call, mirror, "a");
    check_conflict(reads_a, |mirror| write(mirror, "a", Some("9")), true);
    check_conflict(reads_a, |mirror| write(mirror, "a", Some("1")), true);
    check_conflict(reads_a, |mirror| write(mirror, "a", None), true);
    check_conflict(reads_a, |mirror| write(mirror, "b", Some("9")), false);
    let reads_nothing_there = |call: &mut Transaction, mirror: &Mirror| _ = get(call, mirror, "x");
    check_conflict(reads_nothing_there, |mirror| write(mirror, "x", Some("9")), true);
    check_conflict(reads_nothing_there, |mirror| write(mirror, "y", Some("9")), false);
    let only_writes = |call: &mut Transaction, mirror: &Mirror| set(call, mirror, "a", "7");
    check_conflict(only_writes, |mirror| write(mirror, "a", Some("9")), false);
}

#[test]
fn a_call_conflicts_with_keys_that_come_and_go_where_it_looked() {
    let first_two = |call: &mut Transaction, mirror: &Mirror| _ = keys(call, mirror, "", None, 2);
    check_conflict(first_two, |mirror| write(mirror, "aa", Some("")), true);
    check_conflict(first_two, |mirror| write(mirror, "b", None), true);
    check_conflict(first_two, |mirror| write(mirror, "c", None), false);
    check_conflict(first_two, |mirror| write(mirror, "bb", Some("")), false);
    check_conflict(first_two, |mirror| write(mirror, "a", Some("9")), false);
    let all = |call: &mut Transaction, mirror: &Mirror| _ = keys(call, mirror, "", Some("a"), 9);
    check_conflict(all, |mirror| write(mirror, "zz", Some("")), true);
    check_conflict(all, |mirror| write(mirror, "a", None), false);
}

#[test]
fn a_key_that_expires_under_a_call_is_a_conflict() {
    let mut mirror = Mirror::default();
    mirror.write(&Arc::from("a"), Some(value("1", Some(10))));
    let mut call = Transaction::default();
    assert!(call.get(&mirror, "a", 9).expect("may read").is_some());
    assert!(!call.conflicts(&mirror, QUOTA, 9));
    assert!(call.conflicts(&mirror, QUOTA, 10));
    // The call goes on seeing what it saw.
    assert!(call.get(&mirror, "a", 10).expect("may read").is_some());
}

#[test]
fn a_read_is_repeated_as_it_was() {
    let mut mirror = mirror(&[("a", "1")]);
    let mut call = Transaction::default();
    assert_eq!(get(&mut call, &mirror, "a").as_deref(), Some("1"));
    write(&mut mirror, "a", Some("2"));
    assert_eq!(get(&mut call, &mirror, "a").as_deref(), Some("1"));
    assert!(call.misread(&mirror, 0));
}

#[test]
fn what_never_fits_is_too_large_and_what_does_not_fit_now_exceeds_the_quota() {
    let mirror = Mirror::default();
    let quota = 2 * weight("a", 10);
    let mut call = Transaction::default();
    let mut set = |key: &str, bytes: usize| call.set(&mirror, quota, key, value(&"x".repeat(bytes), None), 0);
    assert_eq!(set(&"k".repeat(MAX_KEY_BYTES + 1), 0), Err(KvError::TooLarge));
    assert_eq!(set("a", quota - ENTRY_OVERHEAD_BYTES), Err(KvError::TooLarge));
    assert_eq!(set("a", 10), Ok(()));
    assert_eq!(set("b", 11), Err(KvError::Quota));
    assert_eq!(set("b", 10), Ok(()));
    assert_eq!(set("c", 0), Err(KvError::Quota));
    assert_eq!(set("a", 11), Err(KvError::Quota));
    call.delete(&mirror, "b", 0).expect("may delete");
    assert_eq!(call.set(&mirror, quota, "c", value("x", None), 0), Ok(()));
    assert_eq!(call.writes().filter(|(_, value)| value.is_some()).count(), 2);
}

#[test]
fn above_a_lowered_quota_only_what_makes_the_state_larger_is_refused() {
    let mirror = mirror(&[("a", "1234567890"), ("b", "1234567890")]);
    let quota = weight("a", 10);
    let mut call = Transaction::default();
    let mut set = |key: &str, text: &str| call.set(&mirror, quota, key, value(text, None), 0);
    assert_eq!(set("c", ""), Err(KvError::Quota));
    assert_eq!(set("a", "0987654321"), Ok(()));
    assert_eq!(set("a", "1"), Ok(()));
    assert_eq!(set("b", "1234567890!"), Err(KvError::TooLarge));
    assert!(!call.conflicts(&mirror, quota, 0));
}

#[test]
fn expired_keys_do_not_count() {
    let mut mirror = Mirror::default();
    mirror.write(&Arc::from("a"), Some(value("1234567890", Some(10))));
    let quota = weight("a", 10);
    let mut call = Transaction::default();
    assert_eq!(call.set(&mirror, quota, "b", value("1", None), 9), Err(KvError::Quota));
    assert_eq!(call.set(&mirror, quota, "b", value("1", None), 10), Ok(()));
    assert!(!call.conflicts(&mirror, quota, 10));
}

#[test]
fn two_calls_that_fit_alone_and_not_together_conflict() {
    let mut mirror = Mirror::default();
    let quota = weight("a", 10);
    let call = || {
        let mut call = Transaction::default();
        call.set(&mirror, quota, "a", value("1234567890", None), 0).expect("fits");
        call
    };
    let (one, mut other) = (call(), call());
    other.delete(&mirror, "a", 0).expect("may delete");
    other.set(&mirror, quota, "b", value("", None), 0).expect("fits");
    one.apply(&mut mirror);
    // Deletes what the other has set by now: together they fit.
    assert!(!other.conflicts(&mirror, quota, 0));
    let mut third = Transaction::default();
    third.set(&Mirror::default(), quota, "c", value("", None), 0).expect("fits");
    assert!(third.conflicts(&mirror, quota, 0));
    assert!(!third.misread(&mirror, 0));
}

#[test]
fn a_call_touches_a_bounded_number_of_keys() {
    let mut mirror = Mirror::default();
    for number in 0..MAX_TOUCHED_KEYS {
        write(&mut mirror, &format!("{number:05}"), Some(""));
    }
    let mut call = Transaction::default();
    let first = call.keys(&mirror, ("", None), usize::MAX, 0).expect("may list");
    assert_eq!(first.len(), MAX_KEYS_AT_ONCE);
    let mut after = first.last().cloned();
    let mut pages = 1;
    let refused = loop {
        match call.keys(&mirror, ("", after.as_deref()), usize::MAX, 0) {
            Ok(keys) => after = keys.last().cloned(),
            Err(error) => break error,
        }
        pages += 1;
    };
    // The pages themselves count too.
    assert_eq!((pages, refused), (9, KvError::TooManyKeys));
    let mut call = Transaction::default();
    for number in 0..MAX_TOUCHED_KEYS / 2 {
        call.get(&mirror, &format!("r{number}"), 0).expect("may read");
        call.delete(&mirror, &format!("w{number}"), 0).expect("may delete");
    }
    assert_eq!(call.get(&mirror, "one more", 0), Err(KvError::TooManyKeys));
    assert_eq!(call.delete(&mirror, "one more", 0), Err(KvError::TooManyKeys));
    assert_eq!(call.set(&mirror, usize::MAX, "one more", value("", None), 0), Err(KvError::TooManyKeys));
    assert_eq!(call.get(&mirror, "r0", 0), Ok(None), "what was touched before may be touched again");
}

/// What calls do, one step at a time.
#[derive(Clone, Debug)]
enum Step {
    Get(u8),
    Set(u8, Option<u8>),
    Delete(u8),
    Keys { prefix: u8, after: Option<u8>, limit: u8 },
    Commit,
    Time(u8),
}

/// Few, so that calls meet; some are the prefix of others.
const KEYS: [&str; 6] = ["a", "a/1", "a/2", "b", "b/1", ""];

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let key = 0..KEYS.len() as u8;
    let step = prop_oneof![
        4 => key.clone().prop_map(Step::Get),
        4 => (key.clone(), proptest::option::weighted(0.3, 0_u8..6)).prop_map(|(key, ttl)| Step::Set(key, ttl)),
        2 => key.clone().prop_map(Step::Delete),
        2 => (key.clone(), proptest::option::of(key), 0_u8..5)
            .prop_map(|(prefix, after, limit)| Step::Keys { prefix, after, limit }),
        3 => Just(Step::Commit),
        1 => (0_u8..3).prop_map(Step::Time),
    ];
    vec((0_usize..3, step), 0..60)
}

/// A whole state, naively: what the serial execution works on.
type Naive = BTreeMap<String, (u32, Option<u64>)>;

/// What a call did, and what it was told.
#[derive(Clone, Debug)]
enum Did {
    Got(String, Option<u32>, u64),
    Wrote(String, Option<(u32, Option<u64>)>),
    Listed(String, Option<String>, usize, Vec<String>, u64),
}

/// Runs a call alone on the state as it is when it commits: it must be told what it was told.
fn replay(state: &mut Naive, did: &[Did], now: u64) {
    let there = |expires: &Option<u64>, now: u64| expires.is_none_or(|expires| expires > now);
    state.retain(|_, (_, expires)| there(expires, now));
    let mut own: BTreeMap<String, Option<(u32, Option<u64>)>> = BTreeMap::new();
    for did in did {
        let sees = |own: &BTreeMap<String, Option<(u32, Option<u64>)>>, state: &Naive, key: &str, then: u64| match own
            .get(key)
        {
            Some(written) => written.filter(|(_, expires)| there(expires, then)).map(|(number, _)| number),
            None => state.get(key).map(|(number, _)| *number),
        };
        match did {
            Did::Got(key, told, then) => assert_eq!(sees(&own, state, key, *then), *told, "{key}"),
            Did::Wrote(key, written) => _ = own.insert(key.clone(), *written),
            Did::Listed(prefix, after, limit, told, then) => {
                let mut all: Vec<&String> = own.keys().chain(state.keys()).collect();
                all.sort();
                all.dedup();
                let inside =
                    |key: &&&String| key.starts_with(prefix) && after.as_ref().is_none_or(|after| **key > after);
                let found = all.iter().filter(inside).filter(|key| sees(&own, state, key, *then).is_some());
                assert_eq!(
                    &found.take(*limit).map(|key| (**key).clone()).collect::<Vec<_>>(),
                    told,
                    "{prefix} {after:?}"
                );
            }
        }
    }
    for (key, written) in own {
        match written {
            Some(written) => _ = state.insert(key, written),
            None => _ = state.remove(&key),
        }
    }
}

#[derive(Default)]
struct Side {
    call: Transaction,
    did: Vec<Did>,
}

proptest! {
    #[test]
    fn calls_side_by_side_act_as_if_they_ran_one_after_the_other(steps in steps()) {
        let (mut mirror, mut state, mut now, mut number) = (Mirror::default(), Naive::new(), 100_u64, 0_u32);
        let mut sides: [Side; 3] = Default::default();
        let key = |place: u8| KEYS[usize::from(place)].to_owned();
        for (side, step) in steps {
            let Side { call, did } = &mut sides[side];
            match step {
                Step::Get(place) => {
                    let told = call.get(&mirror, &key(place), now).expect("may read");
                    let told = told.map(|bytes| u32::from_le_bytes(bytes[..].try_into().expect("four bytes")));
                    did.push(Did::Got(key(place), told, now));
                }
                Step::Set(place, ttl) => {
                    number += 1;
                    let expires = ttl.map(|ttl| now + u64::from(ttl));
                    let value = Value { bytes: Bytes::copy_from_slice(&number.to_le_bytes()), expires };
                    call.set(&mirror, QUOTA, &key(place), value, now).expect("fits");
                    did.push(Did::Wrote(key(place), Some((number, expires))));
                }
                Step::Delete(place) => {
                    call.delete(&mirror, &key(place), now).expect("may delete");
                    did.push(Did::Wrote(key(place), None));
                }
                Step::Keys { prefix, after, limit } => {
                    let (prefix, after) = (key(prefix), after.map(key));
                    let told = call.keys(&mirror, (&prefix, after.as_deref()), usize::from(limit), now).expect("may list");
                    let told = told.iter().map(|key| key.to_string()).collect();
                    did.push(Did::Listed(prefix, after, usize::from(limit), told, now));
                }
                Step::Commit => {
                    let Side { call, did } = std::mem::take(&mut sides[side]);
                    if !call.conflicts(&mirror, QUOTA, now) {
                        replay(&mut state, &did, now);
                        call.apply(&mut mirror);
                        let seen: Vec<_> = mirror.span(&Span::new("", None), now).map(|(key, entry)| {
                            let number = u32::from_le_bytes(entry.value.bytes[..].try_into().expect("four bytes"));
                            (key.to_string(), (number, entry.value.expires))
                        }).collect();
                        let there = |(_, (_, expires)): &(&String, &(u32, Option<u64>))| expires.is_none_or(|expires| expires > now);
                        prop_assert_eq!(seen, state.iter().filter(there).map(|(key, value)| (key.clone(), *value)).collect::<Vec<_>>());
                    }
                }
                Step::Time(more) => {
                    now += u64::from(more);
                    if more == 2 {
                        mirror.expire(now, 2);
                    }
                }
            }
        }
    }

    #[test]
    fn a_call_that_nobody_disturbs_never_conflicts(steps in steps()) {
        let (mut mirror, mut call) = (Mirror::default(), Transaction::default());
        for (_, step) in steps {
            let key = |place: u8| KEYS[usize::from(place)];
            match step {
                Step::Get(place) => _ = call.get(&mirror, key(place), 0),
                Step::Set(place, _) => call.set(&mirror, QUOTA, key(place), value("x", None), 0).expect("fits"),
                Step::Delete(place) => call.delete(&mirror, key(place), 0).expect("may delete"),
                Step::Keys { prefix, after, limit } => {
                    _ = call.keys(&mirror, (key(prefix), after.map(key)), usize::from(limit), 0);
                }
                Step::Commit | Step::Time(_) => {
                    prop_assert!(!call.conflicts(&mirror, QUOTA, 0));
                    std::mem::take(&mut call).apply(&mut mirror);
                    prop_assert_eq!(mirror.live_bytes(0), mirror.bytes());
                }
            }
        }
    }
}
