//! Random numbers that a seed repeats.
//!
//! Not for anything but tests: SplitMix64, which is ten lines and whose numbers never change with a dependency.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;

/// A source of random numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The source that this seed makes.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A seed that nobody has chosen.
    pub fn seed() -> u64 {
        RandomState::new().build_hasher().finish()
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of a range that is not empty, each as likely as another but for what 2^64 leaves over.
    pub fn below(&mut self, range: Range<u64>) -> u64 {
        range.start + self.bits() % (range.end - range.start)
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let place = self.below(0..choices.len() as u64);
        choices[usize::try_from(place).expect("a place of the slice")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_numbers_and_another_does_not() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            (0..100).map(|_| random.below(10..20)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        assert!((10..20).all(|number| numbers(7).contains(&number)), "{:?}", numbers(7));
    }
}
