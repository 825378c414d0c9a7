//! Generated from `wit/`: the records that cross the boundary, the traits of the host functions, the exports' handles.
//!
//! The world is the largest one; which of its exports a component has, `exports.rs` finds out.
//! Exports are async so that the epoch can suspend a guest; imports only touch memory, so they stay sync. Records that go
//! to the guest borrow: a payload is copied once, into the guest's memory.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "full-handler",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { "tidegate:handler/random": trappable },
    exports: { default: async },
});
