//! A socket that takes or gives nothing for longer than the keep alive, while TCP says that it stands: the daemon gives it up,
//! connects again, loses nothing; and the stream of another broker does not notice.

use tidegate_tests::Protocol::{V5, V311};
use tidegate_tests::fault::{Direction, Leg, Mode, On, fall_silent};

const ROW: &str = "fault_socket_stalled";

#[test]
fn a_source_that_stalls_is_given_up_and_nothing_is_lost() {
    let legs = [(Leg::Source, On::memory(V5), Direction::Down), (Leg::Source, On::memory(V311), Direction::Up)];
    fall_silent(ROW, Mode::Stall, legs);
}

#[test]
fn a_target_that_stalls_is_given_up_and_nothing_is_lost() {
    let legs = [(Leg::Target, On::memory(V311), Direction::Down), (Leg::Target, On::memory(V5), Direction::Up)];
    fall_silent(ROW, Mode::Stall, legs);
}

#[test]
fn a_target_that_stalls_is_given_up_and_nothing_is_lost_of_what_waits_on_the_disk() {
    let legs = [(Leg::Target, On::disk(V5), Direction::Down), (Leg::Target, On::disk(V311), Direction::Up)];
    fall_silent(ROW, Mode::Stall, legs);
}
