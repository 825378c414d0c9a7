//! The fault bench: numbered messages through the real daemon between two real brokers, while something breaks; and a checker
//! that says afterwards whether each input has its output, in order.
//!
//! [`Row`] is the frame of a test (its size, its randomness, its report), [`Bench`] what most rows stand on. A row that needs
//! another set-up puts one together from the parts: [`Flow`] says what is sent, [`Sender`] sends it, [`Proxy`] breaks
//! connections and watches what passes ([`Tap`]), [`Collector`] takes what comes out to the [`Ledger`], which judges. Nothing
//! here asks the daemon whether it did well, but for the balance of its counters at the end.
//!
//! Rows of this kind are the scenarios `fault_*`. They run in their smallest size with the other scenarios, and larger ones in
//! `cargo xtask soak`.

mod bench;
mod bystander;
mod collector;
mod flow;
mod ledger;
mod on;
mod proxy;
mod pump;
mod random;
mod row;
mod sender;
mod silence;
mod tap;

pub use bench::{AHEAD, Bench, PATIENT, Setup, relay};
pub use bystander::Bystander;
pub use collector::Collector;
pub use flow::Flow;
pub use ledger::{Ledger, Verdict};
pub use on::{On, Store};
pub use proxy::{Counts, Cut, Direction, Mode, Proxy};
pub use random::Random;
pub use row::Row;
pub use sender::{Pace, Sender};
pub use silence::{Leg, fall_silent};
pub use tap::Tap;

use std::time::Duration;

/// How long a row waits for what takes the daemon longest: to notice that a connection is of no use any more (keep alive,
/// deadlines), and to make another.
pub const STUCK: Duration = Duration::from_secs(120);

/// How long a stream may bring nothing new while its connections stand, or the backoff lets them be made anew. Longer than the
/// longest backoff, on a machine that is loaded besides.
pub const PAUSE: Duration = Duration::from_secs(60);
