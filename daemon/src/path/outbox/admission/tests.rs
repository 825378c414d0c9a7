//! Admission by examples. Whatever happens is in `account.rs`, with the disk in `disk.rs`.

mod account;
mod disk;

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::message::{Outgoing, Qos};
use crate::path::outbox::Touch;
use crate::topic::TopicName;

/// Brokers, where whatever happens is tried.
const BROKERS: u32 = 3;

const LIMITS: OutboxLimits =
    OutboxLimits { store: OutboxStore::Memory, messages: 4, bytes: 1000, max_age: None, when_full: WhenFull::Block };
const DROPS: OutboxLimits = OutboxLimits { when_full: WhenFull::DropOldest, ..LIMITS };
const REJECTS: OutboxLimits = OutboxLimits { when_full: WhenFull::Reject, ..LIMITS };

fn publish(broker: u32, payload: &str) -> Publish {
    let topic = TopicName::new("t").expect("valid");
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    let message = Outgoing { topic, payload, qos: Qos::AtLeastOnce, retain: false, properties: None, hops: None };
    Publish { broker: BrokerId(broker), message }
}

fn batch(brokers: &[u32], payload: &str) -> Vec<Publish> {
    brokers.iter().map(|broker| publish(*broker, payload)).collect()
}

/// The outboxes with the time, which passes by hand, and what followed from the last step.
struct Bench {
    admission: Admission<u32>,
    now: Instant,
    changes: Vec<Change<u32>>,
}

impl Bench {
    fn of(limits: &[OutboxLimits]) -> Bench {
        let mut bench = Bench { admission: Admission::new(false), now: Instant::now(), changes: Vec::new() };
        for (broker, limits) in (0..).zip(limits) {
            bench.limit(broker, *limits);
        }
        bench
    }

    fn limit(&mut self, broker: u32, limits: OutboxLimits) {
        self.step(|admission, now, changes| admission.add(BrokerId(broker), limits, now, changes));
    }

    fn step<R>(&mut self, work: impl FnOnce(&mut Admission<u32>, Instant, &mut Vec<Change<u32>>) -> R) -> R {
        self.changes.clear();
        if self.admission.waiting_may_age() {
            self.admission.tell_time(self.now);
        }
        work(&mut self.admission, self.now, &mut self.changes)
    }

    fn offer(&mut self, brokers: &[u32], tag: u32) -> Offered<u32> {
        self.offer_as(Mode::Rejectable, batch(brokers, &tag.to_string()), tag)
    }

    fn offer_as(&mut self, mode: Mode, publishes: Vec<Publish>, tag: u32) -> Offered<u32> {
        self.step(|admission, now, changes| {
            if admission.ages(&publishes) {
                admission.tell_time(now);
            }
            admission.offer(publishes.into(), Terms { mode, order: None, followed: false }, tag, changes)
        })
    }

    #[track_caller]
    fn taken(&mut self, brokers: &[u32], tag: u32) {
        let offered = self.offer(brokers, tag);
        assert!(matches!(offered, Offered::Taken(_)), "{tag}: {offered:?}");
    }

    #[track_caller]
    fn waits(&mut self, brokers: &[u32], tag: u32) -> BatchId {
        match self.offer(brokers, tag) {
            Offered::Waits(batch) => batch,
            other => panic!("{tag}: {other:?}"),
        }
    }

    #[track_caller]
    fn rejected(&mut self, brokers: &[u32], tag: u32, broker: u32, limit: Limit) {
        let full = Full { broker: BrokerId(broker), limit };
        assert_eq!(self.offer(brokers, tag), Offered::Rejected(tag, full));
    }

    fn send(&mut self, broker: u32) -> Option<EntryId> {
        self.admission.outbox(BrokerId(broker)).take_next().map(|(id, _)| id)
    }

    fn send_all(&mut self, broker: u32) -> Vec<EntryId> {
        std::iter::from_fn(|| self.send(broker)).collect()
    }

    fn end(&mut self, broker: u32, entry: EntryId, end: End) {
        self.step(|admission, _, changes| admission.ended(BrokerId(broker), entry, end, changes));
    }

    fn lose(&mut self, broker: u32) {
        let lost = self.step(|admission, _, changes| admission.connection_lost(BrokerId(broker), None, changes));
        assert!(lost.is_none());
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.step(|admission, now, changes| admission.expire(now, usize::MAX, changes));
    }

    /// The payloads of a broker's outbox, in order; sent and delivered at once.
    fn drain(&mut self, broker: u32) -> Vec<String> {
        let sent = std::iter::from_fn(|| self.admission.outbox(BrokerId(broker)).take_next());
        let sent: Vec<_> = sent.collect();
        let payload = |message: &Outgoing| String::from_utf8(message.payload.to_vec()).expect("a text");
        let payloads = sent.iter().map(|(_, message)| payload(message)).collect();
        sent.iter().for_each(|(entry, _)| self.end(broker, *entry, End::Delivered));
        payloads
    }

    /// What the last step dropped, by payload, and which batches ended by that and how.
    fn dropped(&self) -> (Vec<String>, Vec<(u32, End)>) {
        let payload = |change: &Change<u32>| match change {
            Change::Dropped { message, .. } => Some(String::from_utf8(message.payload.to_vec()).expect("a text")),
            _ => None,
        };
        (self.changes.iter().filter_map(payload).collect(), self.ends())
    }

    fn ends(&self) -> Vec<(u32, End)> {
        let ended = |change: &Change<u32>| match change {
            Change::Ended { tag, worst, .. } => Some((*tag, *worst)),
            _ => None,
        };
        self.changes.iter().filter_map(ended).collect()
    }

    fn admitted(&self) -> Vec<BatchId> {
        let admitted = |change: &Change<u32>| match change {
            Change::Admitted(batch) => Some(*batch),
            _ => None,
        };
        self.changes.iter().filter_map(admitted).collect()
    }
}

#[test]
fn a_batch_is_taken_whole_or_not_at_all() {
    let mut bench = Bench::of(&[LIMITS; 2]);
    bench.taken(&[0, 0, 0], 1);
    bench.waits(&[1, 0, 0], 2);
    assert_eq!(bench.admission.outbox(BrokerId(1)).messages(), 0);
    let full = Full { broker: BrokerId(0), limit: Limit::Messages(4) };
    assert_eq!(bench.changes, [Change::Full(full)]);
}

#[test]
fn a_full_outbox_does_not_hold_back_other_brokers() {
    let mut bench = Bench::of(&[LIMITS; 2]);
    bench.taken(&[0; 4], 1);
    bench.waits(&[0], 2);
    bench.taken(&[1], 3);
}

#[test]
fn each_broker_has_limits_of_its_own() {
    let mut bench = Bench::of(&[OutboxLimits { messages: 1, ..LIMITS }, OutboxLimits { bytes: 9, ..LIMITS }, LIMITS]);
    bench.taken(&[0], 1);
    bench.waits(&[0], 2);
    bench.taken(&[1], 3);
    let offered = bench.offer_as(Mode::Rejectable, vec![publish(1, "12345678")], 4);
    assert!(matches!(offered, Offered::Waits(_)));
    let full = Full { broker: BrokerId(1), limit: Limit::Bytes(9) };
    assert_eq!(bench.changes, [Change::Full(full)]);
    bench.taken(&[2; 4], 5);
    assert_eq!([0, 1, 2].map(|broker| bench.admission.waiting(BrokerId(broker))), [1, 1, 0]);
}

#[test]
fn an_empty_outbox_takes_any_one_batch() {
    for limits in [LIMITS, DROPS, REJECTS] {
        let mut bench = Bench::of(&[limits]);
        bench.taken(&[0; 9], 1);
        let after = bench.offer(&[0], 2);
        match limits.when_full {
            WhenFull::Block => assert!(matches!(after, Offered::Waits(_))),
            WhenFull::DropOldest => assert!(matches!(after, Offered::Taken(_))),
            WhenFull::Reject => assert!(matches!(after, Offered::Rejected(..))),
        }
    }
}

#[test]
fn later_batches_do_not_overtake_one_that_waits_for_the_same_broker() {
    let mut bench = Bench::of(&[LIMITS; 2]);
    bench.taken(&[0; 3], 1);
    bench.waits(&[0, 0, 1], 2);
    bench.waits(&[0], 3);
    assert_eq!(bench.changes, [], "there is room for one");
    bench.waits(&[1], 4);
}

#[test]
fn a_withdrawn_batch_lets_the_next_in() {
    let mut bench = Bench::of(&[LIMITS]);
    bench.taken(&[0; 3], 1);
    let (second, third) = (bench.waits(&[0; 2], 2), bench.waits(&[0], 3));
    assert_eq!(bench.step(|admission, _, changes| admission.withdraw(second, changes)), [(second, 2)]);
    assert_eq!(bench.changes, [Change::Admitted(third)]);
    assert_eq!(bench.admission.waiting(BrokerId(0)), 0);
}

#[test]
fn a_batch_ends_when_its_last_publish_does_and_remembers_a_refusal() {
    let mut bench = Bench::of(&[LIMITS; 2]);
    bench.taken(&[0, 1], 7);
    let (first, second) = (bench.send_all(0)[0], bench.send_all(1)[0]);
    bench.end(0, first, End::Refused);
    assert_eq!(bench.changes, []);
    bench.end(1, second, End::Delivered);
    assert_eq!(bench.ends(), [(7, End::Refused)]);
}

#[test]
fn what_is_for_a_broker_that_is_not_there_is_purged_and_the_rest_goes_on() {
    let mut bench = Bench::of(&[LIMITS]);
    assert_eq!(bench.offer(&[7, 9], 1), Offered::Purged(1));
    bench.taken(&[7, 0], 2);
    let entry = bench.send_all(0)[0];
    bench.end(0, entry, End::Delivered);
    assert_eq!(bench.ends(), [(2, End::Purged)]);
    assert_eq!((bench.admission.offered(BrokerId(0)), bench.admission.offered(BrokerId(7))), (1, 0));
}

#[test]
fn a_removed_broker_takes_along_what_waits_and_frees_others() {
    let mut bench = Bench::of(&[LIMITS; 2]);
    bench.taken(&[0; 4], 1);
    bench.taken(&[1; 3], 2);
    let (third, fourth) = (bench.waits(&[0, 1], 3), bench.waits(&[0], 4));
    assert_eq!(bench.step(|admission, _, changes| admission.remove(BrokerId(0), changes)), 6);
    assert_eq!(bench.ends(), [(1, End::Purged), (4, End::Purged)]);
    assert_eq!(bench.admitted(), [fourth, third]);
    let mut ends = Vec::new();
    for entry in bench.send_all(1) {
        bench.end(1, entry, End::Delivered);
        ends.extend(bench.ends());
    }
    assert_eq!(ends, [(2, End::Delivered), (3, End::Purged)]);
}

#[test]
fn an_entry_of_a_removed_broker_is_none_of_the_new_one() {
    let mut bench = Bench::of(&[LIMITS]);
    bench.taken(&[0], 1);
    let old = bench.send_all(0)[0];
    bench.step(|admission, _, changes| admission.remove(BrokerId(0), changes));
    bench.limit(0, LIMITS);
    bench.taken(&[0], 2);
    bench.end(0, old, End::Delivered);
    assert_eq!(bench.changes, []);
    assert_eq!(bench.admission.outbox(BrokerId(0)).messages(), 1);
}

#[test]
fn the_oldest_make_way_where_that_is_configured() {
    let mut bench = Bench::of(&[DROPS]);
    (1..=4).for_each(|tag| bench.taken(&[0], tag));
    let _on_its_way = bench.send(0).expect("the first");
    bench.taken(&[0, 0], 5);
    let dropped = |tags: &[u32]| {
        let payloads: Vec<_> = tags.iter().map(u32::to_string).collect();
        (payloads, tags.iter().map(|tag| (*tag, End::Displaced)).collect::<Vec<_>>())
    };
    assert_eq!(bench.dropped(), dropped(&[2, 3]), "and not the one that is on its way");
    bench.lose(0);
    assert_eq!(bench.drain(0), ["1", "4", "5", "5"], "the rest in order");
}

#[test]
fn bytes_make_way_too() {
    let mut bench = Bench::of(&[OutboxLimits { bytes: 30, messages: 99, ..DROPS }]);
    let text = |length: usize| vec![publish(0, &"x".repeat(length))];
    // Each weighs a byte more, of its topic.
    (1..=3).for_each(|tag| assert!(matches!(bench.offer_as(Mode::Rejectable, text(9), tag), Offered::Taken(_))));
    assert!(matches!(bench.offer_as(Mode::Rejectable, text(10), 4), Offered::Taken(_)));
    assert_eq!(bench.ends(), [(1, End::Displaced), (2, End::Displaced)]);
    assert_eq!(bench.admission.outbox(BrokerId(0)).bytes(), 21);
    assert!(matches!(bench.offer_as(Mode::Rejectable, text(99), 5), Offered::Taken(_)), "more than all of it");
    assert_eq!(bench.ends(), [(3, End::Displaced), (4, End::Displaced)]);
}

#[test]
fn who_finds_everything_on_its_way_waits_until_something_can_go() {
    let mut bench = Bench::of(&[DROPS]);
    (1..=4).for_each(|tag| bench.taken(&[0], tag));
    let sent = bench.send_all(0);
    let fifth = bench.waits(&[0], 5);
    bench.end(0, sent[0], End::Delivered);
    assert_eq!((bench.admitted(), bench.dropped().0.len()), (vec![fifth], 0));
    bench.send(0).expect("the fifth");
    let sixth = bench.waits(&[0], 6);
    bench.lose(0);
    assert_eq!(bench.admitted(), [sixth], "what was on its way is not any more");
    assert_eq!(bench.dropped(), (vec!["2".to_owned()], vec![(2, End::Displaced)]));
    let tried = bench.changes.iter().any(|change| matches!(change, Change::Dropped { dropped, .. } if dropped.tried));
    assert!(tried, "its broker may have it");
}

#[test]
fn nothing_makes_way_for_a_batch_that_has_to_wait_elsewhere() {
    let mut bench = Bench::of(&[DROPS, LIMITS]);
    (1..=4).for_each(|tag| bench.taken(&[0], tag));
    bench.taken(&[1; 4], 5);
    let sixth = bench.waits(&[0, 1], 6);
    assert!(bench.dropped().0.is_empty());
    bench.waits(&[0], 7);
    assert!(bench.dropped().0.is_empty(), "it would overtake");
    let entry = bench.send(1).expect("something is unsent");
    bench.end(1, entry, End::Delivered);
    assert_eq!(bench.admitted()[0], sixth);
    assert_eq!(bench.dropped().0, ["1", "2"], "for it, and for the one behind it");
}

#[test]
fn a_batch_that_loses_one_publish_ends_with_its_last_one() {
    let mut bench = Bench::of(&[DROPS, LIMITS]);
    bench.taken(&[0, 1], 1);
    bench.taken(&[0; 4], 2);
    assert_eq!(bench.dropped(), (vec!["1".to_owned()], vec![]));
    let entry = bench.send(1).expect("is unsent");
    bench.end(1, entry, End::Delivered);
    assert_eq!(bench.ends(), [(1, End::Displaced)]);
}

#[test]
fn an_outbox_that_rejects_says_which_limit_is_reached() {
    let mut bench = Bench::of(&[REJECTS, LIMITS]);
    bench.taken(&[0; 4], 1);
    bench.rejected(&[1, 0], 2, 0, Limit::Messages(4));
    assert_eq!(bench.admission.outbox(BrokerId(1)).messages(), 0, "all or none");
    assert_eq!(bench.admission.waiting(BrokerId(0)), 0);
    // What would have to wait behind others is rejected, wherever it would.
    let entry = bench.send(0).expect("is unsent");
    bench.end(0, entry, End::Delivered);
    bench.taken(&[1; 3], 3);
    bench.waits(&[1; 2], 4);
    bench.rejected(&[0, 1], 5, 1, Limit::Others);
}

#[test]
fn what_nobody_can_make_again_waits_also_where_others_are_rejected() {
    let mut bench = Bench::of(&[REJECTS]);
    bench.taken(&[0; 4], 1);
    let offered = bench.offer_as(Mode::Patient, batch(&[0], "letter"), 2);
    let Offered::Waits(letter) = offered else { panic!("{offered:?}") };
    bench.rejected(&[0], 3, 0, Limit::Messages(4));
    let entry = bench.send(0).expect("is unsent");
    bench.end(0, entry, End::Delivered);
    assert_eq!(bench.admitted(), [letter]);
    let mut bench = Bench::of(&[DROPS]);
    bench.taken(&[0; 4], 1);
    assert!(matches!(bench.offer_as(Mode::Patient, batch(&[0], "letter"), 2), Offered::Taken(_)));
}

/// A broker that was disconnected by hand is connected for what is offered later, also where its full outbox takes nothing.
#[test]
fn what_is_rejected_because_of_what_is_in_counts_as_something_to_publish() {
    let mut bench = Bench::of(&[REJECTS, LIMITS]);
    bench.taken(&[0; 4], 1);
    let newest = bench.admission.newest();
    bench.rejected(&[0, 1], 2, 0, Limit::Messages(4));
    assert!(bench.admission.newest_open(BrokerId(0)) > newest);
    assert_eq!([0, 1].map(|broker| bench.admission.offered(BrokerId(broker))), [2, 0]);
    assert_eq!(bench.admission.newest_open(BrokerId(1)), 0);
    bench.drain(0);
    assert_eq!(bench.admission.newest_open(BrokerId(0)), 0, "there is nothing left to publish");
}

#[test]
fn limits_change_and_drop_nothing() {
    let mut bench = Bench::of(&[LIMITS]);
    bench.taken(&[0; 4], 1);
    let (second, third) = (bench.waits(&[0; 2], 2), bench.waits(&[0; 2], 3));
    bench.limit(0, OutboxLimits { messages: 6, ..LIMITS });
    assert_eq!(bench.admitted(), [second]);
    bench.limit(0, OutboxLimits { messages: 2, ..LIMITS });
    assert_eq!((bench.admitted(), bench.admission.outbox(BrokerId(0)).messages()), (vec![], 6));
    for left in (2..6).rev() {
        assert!(bench.admitted().is_empty(), "{left}");
        let entry = bench.send(0).expect("is unsent");
        bench.end(0, entry, End::Delivered);
    }
    assert!(bench.admitted().is_empty());
    bench.limit(0, OutboxLimits { messages: 3, ..DROPS });
    assert_eq!((bench.admitted(), bench.dropped().0.len()), (vec![third], 1), "under the new policy");
}

const SECOND: Duration = Duration::from_secs(1);

fn aging(seconds: u32) -> OutboxLimits {
    OutboxLimits { max_age: Some(SECOND * seconds), ..LIMITS }
}

#[test]
fn what_is_too_old_goes_and_makes_room() {
    let mut bench = Bench::of(&[aging(10), LIMITS]);
    bench.taken(&[0], 1);
    bench.pass(SECOND * 5);
    (2..=4).for_each(|tag| bench.taken(&[0, 1], tag));
    let fifth = bench.waits(&[0], 5);
    let first = bench.admission.first_expiry().expect("the first");
    assert_eq!(first, bench.now + SECOND * 5);
    bench.pass(SECOND * 5 - Duration::from_millis(1));
    assert_eq!(bench.changes, []);
    bench.pass(Duration::from_millis(1));
    assert_eq!((bench.dropped(), bench.admitted()), ((vec!["1".to_owned()], vec![(1, End::Expired)]), vec![fifth]));
    bench.pass(SECOND * 5);
    assert_eq!((bench.dropped().0, bench.ends()), (["2", "3", "4"].map(str::to_owned).to_vec(), vec![]));
    assert_eq!(
        bench.admission.first_expiry(),
        Some(bench.now + SECOND * 5),
        "the fifth is as old as its stay in the outbox"
    );
    assert_eq!(bench.drain(1), ["2", "3", "4"], "elsewhere nothing ages");
}

#[test]
fn what_is_on_its_way_is_never_too_old_until_it_is_unsent_again() {
    let mut bench = Bench::of(&[aging(10)]);
    bench.taken(&[0, 0], 1);
    bench.taken(&[0], 2);
    let sent = [bench.send(0), bench.send(0)].map(|sent| sent.expect("is unsent"));
    bench.pass(SECOND * 11);
    assert_eq!(bench.ends(), [(2, End::Expired)]);
    assert_eq!(bench.admission.first_expiry(), None);
    bench.end(0, sent[0], End::Delivered);
    bench.lose(0);
    assert!(bench.admission.first_expiry().is_some_and(|expiry| expiry <= bench.now));
    bench.pass(Duration::ZERO);
    assert_eq!(bench.ends(), [(1, End::Expired)]);
    assert!(matches!(&bench.changes[0], Change::Dropped { dropped, .. } if dropped.tried), "its broker may have it");
}

#[test]
fn a_max_age_that_is_set_later_counts_from_then_on() {
    let mut bench = Bench::of(&[LIMITS]);
    bench.taken(&[0], 1);
    bench.pass(SECOND * 100);
    bench.limit(0, aging(10));
    bench.pass(SECOND * 9);
    assert_eq!(bench.changes, []);
    bench.pass(SECOND);
    assert_eq!(bench.ends(), [(1, End::Expired)]);
    bench.taken(&[0], 2);
    bench.limit(0, LIMITS);
    bench.pass(SECOND * 100);
    assert_eq!((bench.changes.len(), bench.admission.first_expiry()), (0, None), "and until it is taken away");
}

/// A broker that is away holds back who publishes there, and nobody's message fails for it that publishes elsewhere alone.
#[test]
fn an_outbox_with_room_rejects_nothing_because_of_another_outbox() {
    let mut bench = Bench::of(&[LIMITS, REJECTS]);
    bench.taken(&[0; 4], 1);
    bench.rejected(&[0, 1], 2, 0, Limit::Messages(4));
    bench.taken(&[1], 3);
    bench.waits(&[0], 4);
    bench.rejected(&[1, 0], 5, 0, Limit::Messages(4));
    bench.taken(&[1; 3], 6);
}

/// What comes in when a lost connection makes room is new in the outbox, however long it waited for that.
#[test]
fn what_waited_for_room_is_not_too_old_when_it_comes_in_after_a_lost_connection() {
    let max_age = Some(Duration::from_secs(5));
    let mut bench = Bench::of(&[OutboxLimits { max_age, ..DROPS }]);
    bench.taken(&[0; 4], 1);
    bench.send_all(0);
    bench.waits(&[0], 2);
    // Nothing is unsent, so that no time is told.
    bench.now += Duration::from_secs(60);
    bench.lose(0);
    assert_eq!(bench.admission.outbox(BrokerId(0)).messages(), 4, "one made way");
    bench.pass(Duration::ZERO);
    assert_eq!(bench.drain(0), ["2"], "it was in for no time at all");
}
