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

use criterion::{criterion_group, criterion_main};

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
criterion_main!(parts);
