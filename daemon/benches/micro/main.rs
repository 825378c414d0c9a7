//! What the parts cost that every message passes: the trie, a handler's call with and without its kv, and in a native plugin, the acknowledgement ring, the outbox,
//! the messages kept for `tidegate recv`.
//!
//! Run by `cargo xtask bench --only micro`, which builds the handler first. A file a part; whole processes are measured by
//! `tests/bench`.

mod call;
mod kv;
mod native;
mod outbox;
mod received;
mod ring;
mod trie;

use std::process::ExitCode;

use criterion::{Criterion, criterion_group};

criterion_group!(
    parts,
    trie::bench,
    call::bench,
    native::bench,
    kv::bench,
    ring::bench,
    outbox::bench,
    received::bench
);

fn main() -> ExitCode {
    // What loads a native plugin has its own program load it first, in a process of its own.
    if std::env::args().nth(1).is_some_and(|command| command == "load-native") {
        return tidegate::main();
    }
    parts();
    Criterion::default().configure_from_args().final_summary();
    ExitCode::SUCCESS
}
