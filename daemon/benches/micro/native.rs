//! One call of the same handler in a warm instance, as a component and as a native plugin: an empty list in, one publish out.
//!
//! The handler is that of the conformance tests. A native call goes to the instance's thread and back, which a component's does not.

use std::path::PathBuf;
use std::time::Instant;

use criterion::Criterion;
use tidegate::benchmarks::Handler;

/// Measures both.
pub fn bench(criterion: &mut Criterion) {
    let plugins = std::env::var_os("TIDEGATE_PLUGINS").map(PathBuf::from);
    let plugins =
        plugins.expect("TIDEGATE_PLUGINS names the folder of the built handlers: use `cargo xtask bench`").join("test");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let configuration = folder.path().join("tidegate.toml");
    let mut group = criterion.benchmark_group("warm call of conformance");
    for (kind, plugin) in [("component", "conformance.wasm"), ("native", "conformance.so")] {
        let text = format!(
            "native = true\nplugins-dir = {plugins:?}\n[brokers.local]\naddress = \"127.0.0.1\"\n\
             [handlers.conformance]\nplugin = {plugin:?}\nallow = {{ publish = [\"local:report\"] }}\n"
        );
        std::fs::write(&configuration, text).expect("the folder is ours");
        let mut handler = Handler::start(&configuration).expect("the handler starts");
        group.bench_function(kind, |bencher| {
            bencher.iter_custom(|calls| {
                let start = Instant::now();
                let last = handler.calls("bench/in/7", b"[]", calls).expect("every call publishes");
                let took = start.elapsed();
                assert_eq!(&last[..], b"[]");
                took
            });
        });
    }
    group.finish();
}
