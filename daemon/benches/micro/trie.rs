//! The trie with 1,000, 100,000 and 1,000,000 filters: how long a topic name takes to be matched, and a filter to be
//! added.

use std::cell::LazyCell;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use tidegate::benchmarks::{Filter, Filters, Name};

const SIZES: [u32; 3] = [1_000, 100_000, 1_000_000];

/// Names that are asked for in turn, so that no cache holds the answer to one.
const NAMES: u32 = 4_096;

/// Filters of a plant: of eight, six name what one sensor measures, one has `+`, and one takes all of a sensor.
fn filter(number: u32) -> Filter {
    let (site, line) = place(number);
    let text = match number % 8 {
        6 => format!("plant/{site}/line/{line}/+/status-{number}"),
        7 => format!("plant/{site}/line/{line}/sensor-{}/#", number - 2),
        _ => format!("plant/{site}/line/{line}/sensor-{number}/temperature"),
    };
    Filter::new(text).expect("is a filter")
}

/// Site and line of a sensor: 64 filters a line, 100 lines a site.
fn place(number: u32) -> (u32, u32) {
    (number / 6_400, number / 64 % 100)
}

/// Names of which each matches one filter, and one in six a second.
fn names(size: u32) -> Vec<Name> {
    let sensors = (0..size).filter(|number| number % 8 < 6);
    let step = (size / NAMES).max(1) as usize;
    let name = |number| {
        let (site, line) = place(number);
        Name::new(format!("plant/{site}/line/{line}/sensor-{number}/temperature")).expect("is a name")
    };
    // Far from each other, in an order that no prefetcher guesses.
    let mut names: Vec<(u64, Name)> = sensors
        .step_by(step)
        .map(|number| (u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15), name(number)))
        .collect();
    names.sort_by_key(|(order, _)| *order);
    names.into_iter().map(|(_, name)| name).collect()
}

fn trie(filters: &[Filter]) -> Filters {
    let mut trie = Filters::new();
    for (value, filter) in (0..).zip(filters) {
        trie.insert(filter, value);
    }
    trie
}

/// Measures matching and adding.
pub fn bench(criterion: &mut Criterion) {
    for size in SIZES {
        // Made when first needed: not at all where criterion is told to measure something else.
        let filters: LazyCell<Vec<Filter>, _> = LazyCell::new(|| (0..size).map(filter).collect());
        let asked = LazyCell::new(|| {
            let (trie, names) = (trie(&filters), names(size));
            let matched = |name| trie.ranked(name).0 >= 1;
            assert!(names.iter().all(matched), "a benchmark of what does not match says nothing");
            (trie, names)
        });
        let mut group = criterion.benchmark_group("trie");
        group.throughput(Throughput::Elements(1));
        group.bench_with_input(BenchmarkId::new("match", size), &size, |bencher, _| {
            let (trie, names) = &*asked;
            let mut next = names.iter().cycle();
            bencher.iter(|| trie.ranked(black_box(next.next().expect("cycles"))));
        });
        group.throughput(Throughput::Elements(u64::from(size)));
        group.sample_size(10);
        group.bench_with_input(BenchmarkId::new("insert all of", size), &size, |bencher, _| {
            let filters: &[Filter] = &filters;
            bencher.iter_with_large_drop(|| trie(black_box(filters)));
        });
        group.finish();
    }
}
