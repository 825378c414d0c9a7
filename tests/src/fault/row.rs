//! The frame of a row: how large it is, what its chance is, and what it tells at its end.
//!
//! Two environment variables steer it: `TIDEGATE_FAULT_SIZE`, by which all counts are multiplied (1 unless given; rows on the
//! disk are smaller then), and
//! `TIDEGATE_FAULT_SEED`, which a failed row prints and which makes its faults fall as they did then; the rest is the machine's
//! timing.

use std::env;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use super::{On, Random, Verdict};

/// Multiplies all counts of a row.
const SIZE: &str = "TIDEGATE_FAULT_SIZE";

/// Repeats a row's chance.
const SEED: &str = "TIDEGATE_FAULT_SEED";

/// A row that runs. Dropping it while its test fails prints how it is repeated.
pub struct Row {
    name: String,
    size: Option<usize>,
    on: On,
    seed: u64,
    random: Random,
    since: Instant,
}

impl Row {
    /// Begins a row of this name, which is a part of its test's: what is given to `cargo xtask test --` runs it again.
    ///
    /// # Panics
    /// An environment variable of the bench is no number.
    pub fn begin(name: &str, on: On) -> Row {
        let seed = variable(SEED).unwrap_or_else(Random::seed);
        let size = variable(SIZE);
        assert!(size != Some(0), "{SIZE} must be at least 1");
        Row { name: name.to_owned(), size, on, seed, random: Random::new(seed), since: Instant::now() }
    }

    /// What it runs on.
    pub fn on(&self) -> On {
        self.on
    }

    /// So many in the smallest size, and in larger ones that many times the size. On the disk a part of it, unless a size is
    /// asked for or it is to run in full.
    pub fn scaled(&self, count: usize) -> usize {
        self.size.map_or_else(|| count.div_ceil(self.on.divisor()), |size| count * size)
    }

    /// The row's chance.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// How long it runs.
    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// Tells on standard output how it went, with what was broken in a few words: `10 kills`.
    #[expect(clippy::print_stdout, reason = "a row's figures are for who runs it")]
    pub fn report(&self, verdict: &Verdict, broken: &str) {
        let thread = thread::current();
        // That of a test is the test's, with its protocol; all run in `main` where one may run at a time.
        let name = thread.name().filter(|name| name.contains(&self.name)).unwrap_or(&self.name);
        println!("{name}: {verdict}; {broken}; {:.1} s in all, seed {}", self.elapsed().as_secs_f64(), self.seed);
    }
}

impl Drop for Row {
    #[expect(clippy::print_stderr, reason = "the report of a failed test")]
    fn drop(&mut self) {
        if thread::panicking() {
            let Row { name, size, seed, .. } = self;
            let size = size.map_or_else(String::new, |size| format!("{SIZE}={size} "));
            eprintln!("\nthe same faults again: {SEED}={seed} {size}cargo xtask test -- {name}\n");
        }
    }
}

fn variable<N: FromStr>(name: &str) -> Option<N> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}
