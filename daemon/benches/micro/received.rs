//! What it costs to keep a message for `tidegate recv`: the difference between making one that is let go of at once, and one
//! that takes the place of the oldest of 1,024.

use criterion::Criterion;
use tidegate::benchmarks::Received;

/// Measures both.
pub fn bench(criterion: &mut Criterion) {
    let received = Received::new("plant/3/temperature", &[b'x'; 256]).expect("a topic name");
    (0..1024).for_each(|_| {
        received.take_in(true);
    });
    let mut group = criterion.benchmark_group("received");
    group.bench_function("let go of", |bencher| bencher.iter(|| received.take_in(false)));
    group.bench_function("kept", |bencher| bencher.iter(|| received.take_in(true)));
    group.finish();
}
