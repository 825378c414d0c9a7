//! What a row runs on: a protocol, a place where publishes wait, a size.
//!
//! [`on_both_stores!`](crate::on_both_stores) makes the tests of a row that runs on all of them.

use crate::client::Protocol;

/// Where publishes wait for a target broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// In memory: an input is acknowledged once its outputs are.
    Memory,
    /// On the disk: an input is acknowledged once its outputs are there.
    Disk,
}

/// What a row runs on.
#[derive(Clone, Copy, Debug)]
pub struct On {
    /// Between the daemon and both brokers.
    pub protocol: Protocol,
    /// Of the target brokers' outboxes.
    pub store: Store,
    /// Smaller than the row's smallest size, so that rows on both stores do not take twice the time.
    part: bool,
}

impl On {
    /// With the outboxes in memory.
    pub const fn memory(protocol: Protocol) -> On {
        On { protocol, store: Store::Memory, part: false }
    }

    /// With the outboxes on the disk; of the ordinary set, which is in a quarter of the size unless another is asked for.
    pub const fn disk(protocol: Protocol) -> On {
        On { protocol, store: Store::Disk, part: true }
    }

    /// With the outboxes on the disk, in the row's own size.
    pub const fn disk_in_full(protocol: Protocol) -> On {
        On { part: false, ..On::disk(protocol) }
    }

    /// Whether the outboxes are on the disk.
    pub fn on_disk(self) -> bool {
        self.store == Store::Disk
    }

    /// What it says of a broker's outbox in the broker's table.
    pub fn outbox(self) -> &'static str {
        match self.store {
            Store::Memory => "",
            Store::Disk => "outbox.store = \"disk\"\n",
        }
    }

    /// By how much a row is smaller than its smallest size.
    pub(super) fn divisor(self) -> usize {
        if self.part { 4 } else { 1 }
    }
}

/// Makes of each function `fn promise(on: On)` the tests `promise::on_3_1_1` and `promise::on_5` with outboxes in memory,
/// `promise::on_disk_3_1_1` and `promise::on_disk_5` with outboxes on the disk, and two of these in the row's full size in the
/// long set.
#[macro_export]
macro_rules! on_both_stores {
    ($($promise:ident),+ $(,)?) => {$(
        mod $promise {
            use $crate::Protocol::{V5, V311};
            use $crate::fault::On;

            #[test]
            fn on_3_1_1() {
                super::$promise(On::memory(V311));
            }
            #[test]
            fn on_5() {
                super::$promise(On::memory(V5));
            }
            $crate::tests_on_disk!($promise);
        }
    )+};
}

/// As [`on_both_stores!`](crate::on_both_stores), without the tests in memory.
#[macro_export]
macro_rules! on_disk {
    ($($promise:ident),+ $(,)?) => {$(
        mod $promise {
            use $crate::Protocol::{V5, V311};
            use $crate::fault::On;

            $crate::tests_on_disk!($promise);
        }
    )+};
}

/// What [`on_both_stores!`](crate::on_both_stores) and [`on_disk!`](crate::on_disk) have in common.
#[doc(hidden)]
#[macro_export]
macro_rules! tests_on_disk {
    ($promise:ident) => {
        #[test]
        fn on_disk_3_1_1() {
            super::$promise(On::disk(V311));
        }
        #[test]
        fn on_disk_5() {
            super::$promise(On::disk(V5));
        }
        #[test]
        #[ignore = "long: in the full size"]
        fn on_disk_in_full_3_1_1() {
            super::$promise(On::disk_in_full(V311));
        }
        #[test]
        #[ignore = "long: in the full size"]
        fn on_disk_in_full_5() {
            super::$promise(On::disk_in_full(V5));
        }
    };
}
