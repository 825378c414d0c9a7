//! The outbox: publishes of 64 calls taken in, sent, delivered, and the messages that caused them ended.

use criterion::{Criterion, Throughput};
use tidegate::benchmarks::Outbox;

/// As many as are in flight at once.
const CALLS: usize = 64;

/// Measures all of it; the throughput is that of messages.
pub fn bench(criterion: &mut Criterion) {
    let outbox = Outbox::new("bench/in/7/fahrenheit", br#"{"f":70.7}"#).expect("is a topic");
    let mut group = criterion.benchmark_group("outbox");
    group.throughput(Throughput::Elements(CALLS as u64));
    group.bench_function("64 calls of one publish", |bencher| {
        bencher.iter(|| outbox.pass(CALLS).expect("they fit"));
        assert_eq!(outbox.open(), 0, "every message has ended");
    });
    group.finish();
}
