//! The acknowledgement ring: a window of messages taken in, settled in the worst order, acknowledged.

use criterion::{Criterion, Throughput};
use tidegate::benchmarks::Acknowledgements;

/// The default of `receive-maximum`.
const WINDOW: u16 = 64;

/// Measures a window; the throughput is that of messages.
pub fn bench(criterion: &mut Criterion) {
    let mut ring = Acknowledgements::new(WINDOW);
    let mut group = criterion.benchmark_group("acknowledgement ring");
    group.throughput(Throughput::Elements(u64::from(WINDOW)));
    group.bench_function("window of 64", |bencher| {
        bencher.iter(|| assert_eq!(ring.pass_window(), usize::from(WINDOW)));
    });
    group.finish();
}
