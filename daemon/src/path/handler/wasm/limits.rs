//! What one instance may take of the daemon's memory.
//!
//! Owns: the count of an instance's linear memory and tables. Asked by wasmtime before every growth; read when a call
//! failed, since a guest that was refused memory usually aborts and then looks like any other trap.

use wasmtime::ResourceLimiter;

use crate::path::handler::Limit;
use crate::path::handler::host::Host;

/// Stack that a guest may use, in bytes: enough for the interpreters inside components from Python and JavaScript.
pub(super) const MAX_WASM_STACK: usize = 1024 * 1024;

/// Table elements of an instance, all tables together; each takes 8 bytes. Components from Python have some 20,000.
pub(super) const MAX_TABLE_ELEMENTS: usize = 1 << 18;

/// Core instances of an instance: a component from Python or JavaScript has dozens.
pub(super) const MAX_INSTANCES: usize = 256;

/// Tables of an instance.
pub(super) const MAX_TABLES: usize = 64;

/// Linear memories of an instance, each of which reserves address space.
pub(super) const MAX_MEMORIES: usize = 8;

/// Bytes that one host function may take, or a call return, whatever the keys say: a payload of the usual size in a line of the log.
const MIN_PASSED: usize = 4 * 1024 * 1024;

/// Bytes that a guest may pass to the daemon at once. Copying them holds up the thread, and no tick interrupts it. Twice what is of use, so
/// that what is a little too large is told to the guest.
pub(super) fn most_passed(host: &Host) -> usize {
    let kv = host.kv().map_or(0, |grant| grant.quota);
    MIN_PASSED.max(host.max_publish_bytes.saturating_mul(2)).max(kv.saturating_mul(2))
}

/// The limits of one store, and what it has taken so far.
#[derive(Debug)]
pub(super) struct Limits {
    /// Bytes, all linear memories together.
    max_memory: usize,
    memory: Meter,
    tables: Meter,
    /// Whether memory was refused since [`Limits::begin_call`].
    refused_memory: bool,
    /// Whether table elements were refused since then.
    refused_tables: bool,
}

/// Something that only grows.
#[derive(Debug, Default)]
struct Meter {
    total: usize,
    /// What was permitted last, and is taken back if the growth then fails for another reason.
    last: usize,
}

impl Meter {
    /// Permits the growth if the total stays within the limit.
    fn grow(&mut self, current: usize, desired: usize, limit: usize) -> bool {
        let more = desired.saturating_sub(current);
        let fits = self.total.checked_add(more).is_some_and(|total| total <= limit);
        self.last = if fits { more } else { 0 };
        self.total += self.last;
        fits
    }

    fn failed(&mut self) {
        self.total -= std::mem::take(&mut self.last);
    }
}

impl Limits {
    /// Nothing taken yet.
    pub(super) fn new(max_memory: usize) -> Limits {
        let (memory, tables) = (Meter::default(), Meter::default());
        Limits { max_memory, memory, tables, refused_memory: false, refused_tables: false }
    }

    /// A refusal of an earlier call, which the guest survived, no longer explains a trap.
    pub(super) fn begin_call(&mut self) {
        (self.refused_memory, self.refused_tables) = (false, false);
    }

    /// Bytes of linear memory, all together.
    pub(super) fn memory(&self) -> usize {
        self.memory.total
    }

    /// Whether the guest was refused memory in this call.
    pub(super) fn refused_memory(&self) -> bool {
        self.refused_memory
    }

    /// The limit, if the guest was refused table elements in this call.
    pub(super) fn refused_tables(&self) -> Option<Limit> {
        self.refused_tables.then_some(Limit::TableElements(MAX_TABLE_ELEMENTS))
    }
}

impl ResourceLimiter for Limits {
    // Refused, not trapped: a guest that can do with less memory may go on.
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let fits = self.memory.grow(current, desired, self.max_memory);
        self.refused_memory |= !fits;
        Ok(fits)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory.failed();
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let fits = self.tables.grow(current, desired, MAX_TABLE_ELEMENTS);
        self.refused_tables |= !fits;
        Ok(fits)
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.tables.failed();
        Ok(())
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Growths of memory, from and to, against a limit of 100 bytes.
    fn check(growths: &[(usize, usize)], expected: &[bool]) {
        let mut limits = Limits::new(100);
        let permitted: Vec<bool> = growths
            .iter()
            .map(|&(current, desired)| limits.memory_growing(current, desired, None).expect("never traps"))
            .collect();
        assert_eq!(permitted, expected);
        assert_eq!(limits.refused_memory(), expected.contains(&false));
    }

    #[test]
    fn all_memories_count_together() {
        check(&[(0, 100)], &[true]);
        check(&[(0, 101)], &[false]);
        check(&[(0, 40), (0, 40), (40, 60), (40, 41)], &[true, true, true, false]);
        check(&[(0, 90), (90, 110), (90, 100)], &[true, false, true]);
        check(&[(0, usize::MAX), (0, 1)], &[false, true]);
    }

    #[test]
    fn a_growth_that_failed_is_taken_back() {
        let mut limits = Limits::new(100);
        assert!(limits.memory_growing(0, 80, None).expect("never traps"));
        limits.memory_grow_failed(wasmtime::Error::msg("out of address space")).expect("never traps");
        assert!(limits.memory_growing(0, 100, None).expect("never traps"));
        assert!(!limits.refused_memory());
    }

    #[test]
    fn a_refusal_is_told_for_its_own_call_only() {
        let mut limits = Limits::new(100);
        assert!(!limits.memory_growing(0, 200, None).expect("never traps"));
        assert!(limits.refused_memory());
        limits.begin_call();
        assert!(!limits.refused_memory());
    }

    #[test]
    fn tables_have_a_limit_of_their_own() {
        let mut limits = Limits::new(0);
        assert!(limits.table_growing(0, MAX_TABLE_ELEMENTS, None).expect("never traps"));
        assert_eq!(limits.refused_tables(), None);
        assert!(!limits.table_growing(0, 1, None).expect("never traps"));
        assert!(!limits.refused_memory());
        assert_eq!(limits.refused_tables(), Some(Limit::TableElements(MAX_TABLE_ELEMENTS)));
        limits.begin_call();
        assert_eq!(limits.refused_tables(), None);
    }

    proptest! {
        #[test]
        fn the_total_is_that_of_the_memories(growths in vec((0_usize..3, 0_usize..60, any::<bool>()), 0..20)) {
            let mut limits = Limits::new(100);
            let mut memories = [0_usize; 3];
            for (memory, more, fails) in growths {
                let (current, desired) = (memories[memory], memories[memory] + more);
                let fits = memories.iter().sum::<usize>() + more <= 100;
                prop_assert_eq!(limits.memory_growing(current, desired, None).expect("never traps"), fits);
                if fits && fails {
                    limits.memory_grow_failed(wasmtime::Error::msg("no address space")).expect("never traps");
                } else if fits {
                    memories[memory] = desired;
                }
                prop_assert_eq!(limits.memory.total, memories.iter().sum::<usize>());
            }
        }
    }
}
