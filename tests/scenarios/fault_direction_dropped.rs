//! One direction of a connection is thrown away, while the other passes and TCP says that all is well: the daemon or the broker
//! ends the connection, and nothing is lost.

use tidegate_tests::Protocol::{V5, V311};
use tidegate_tests::fault::{Direction, Leg, Mode, On, fall_silent};

const ROW: &str = "fault_direction_dropped";

#[test]
fn a_source_that_is_heard_or_hears_in_one_direction_alone_loses_nothing() {
    let legs = [(Leg::Source, On::memory(V311), Direction::Down), (Leg::Source, On::memory(V5), Direction::Up)];
    fall_silent(ROW, Mode::Discard, legs);
}

#[test]
fn a_target_that_is_heard_or_hears_in_one_direction_alone_loses_nothing() {
    let legs = [(Leg::Target, On::memory(V5), Direction::Down), (Leg::Target, On::memory(V311), Direction::Up)];
    fall_silent(ROW, Mode::Discard, legs);
}

/// The long set's: as an outbox on the disk hears of it, it is a connection that is lost as any other.
#[test]
#[ignore = "long: in the full size"]
fn a_target_that_is_heard_or_hears_in_one_direction_alone_loses_nothing_of_what_waits_on_the_disk() {
    let legs =
        [(Leg::Target, On::disk_in_full(V311), Direction::Down), (Leg::Target, On::disk_in_full(V5), Direction::Up)];
    fall_silent(ROW, Mode::Discard, legs);
}
