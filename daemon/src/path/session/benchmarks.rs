//! What the micro-benchmarks may call of the session: the acknowledgement ring. Used by `crate::benchmarks` alone.

use std::time::Instant;

use super::ring::{AckRing, Admission, Received, Window};
use crate::message::Qos;

/// The acknowledgement ring of one connection.
pub struct Acknowledgements {
    ring: AckRing,
    window: u16,
}

impl Acknowledgements {
    /// Of a connection with this receive maximum.
    pub fn new(window: u16) -> Acknowledgements {
        let limits = Window { messages: usize::from(window), bytes: usize::MAX };
        Acknowledgements { ring: AckRing::new(limits), window }
    }

    /// Takes in a full window, settles it from the last message to the first, and acknowledges all of it. How many
    /// messages were acknowledged.
    pub fn pass_window(&mut self) -> usize {
        let arrived = Instant::now();
        let receive =
            |packet| self.ring.receive(Received { packet, dup: false, qos: Qos::AtLeastOnce, weight: 256 }, arrived);
        let taken: Vec<Admission> = (1..=self.window).map(receive).collect();
        for admission in taken.into_iter().rev() {
            if let Admission::Within(number) | Admission::Beyond(number) = admission {
                self.ring.settle(number);
            }
        }
        let mut acknowledged = 0;
        while self.ring.release().is_some() {
            self.ring.leave(1);
            acknowledged += 1;
        }
        acknowledged
    }
}
