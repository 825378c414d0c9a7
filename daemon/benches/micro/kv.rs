//! What it costs a call to remember: a warm call that publishes what it got, against one that reads a number in its kv, adds one,
//! writes it back and publishes it too. The disk, which many calls share, is not part of it.

use std::path::PathBuf;
use std::time::Instant;

use criterion::Criterion;
use tidegate::benchmarks::Handler;

/// Measures both.
pub fn bench(criterion: &mut Criterion) {
    let plugins = std::env::var_os("TIDEGATE_PLUGINS").map(|folder| PathBuf::from(folder).join("test"));
    let plugins = plugins.expect("TIDEGATE_PLUGINS names the folder of the built handlers: use `cargo xtask bench`");
    let mut group = criterion.benchmark_group("kv");
    for (name, mode, grant) in
        [("warm call without", "echo", ""), ("warm call with get and set", "count", ", kv = \"64KiB\"")]
    {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let configuration = folder.path().join("tidegate.toml");
        let text = format!(
            "plugins-dir = {plugins:?}\n[brokers.local]\naddress = \"127.0.0.1\"\n\
             [handlers.guest]\nplugin = \"misbehave.wasm\"\nconfig = {{ mode = \"{mode}\" }}\n\
             allow = {{ publish = [\"local:out/#\"]{grant} }}\n"
        );
        std::fs::write(&configuration, text).expect("the folder is ours");
        let mut handler = Handler::start(&configuration).expect("the handler starts");
        let mut counted = 0;
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|calls| {
                let start = Instant::now();
                let last = handler.calls("in/a", b"x", calls).expect("every call publishes");
                let took = start.elapsed();
                counted += calls;
                assert_eq!(&last[..], if mode == "count" { format!("{counted} x") } else { "x".to_owned() }.as_bytes());
                took
            });
        });
    }
    group.finish();
}
