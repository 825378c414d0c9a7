//! For the tests of the folder above: a native plugin without a library, and no room for threads.

use std::ffi::c_void;
use std::sync::Arc;
use std::time::Instant;

use tidegate_abi::{Call, Message, Status};

use super::threads::MAX_LEFT;
use super::worker::Table;
use super::{Natives, Plugin};

/// A plugin whose calls panic, each of which uses up its instance.
pub(in crate::path::handler) fn panics() -> Plugin {
    unsafe extern "C" fn on_message(_: *mut c_void, _: *mut Call, _: *const Message) -> Status {
        Status::PANIC
    }
    let table = Table { create: None, on_message: Some(on_message), on_schedule: None, destroy: None };
    Plugin::of(table, Arc::new(Natives::passing().expect("there is room for a directory")))
}

/// Leaves no room for a further instance of a plugin, as if too many threads of the handler's hung.
pub(in crate::path::handler) fn leave_no_room(plugin: &Plugin, handler: &Arc<str>) {
    let (threads, now) = (plugin.threads(handler), Instant::now());
    for _ in 0..MAX_LEFT {
        let thread = threads.begin(plugin.version(), now).expect("has room so far");
        threads.is_left_inside(thread, now);
    }
}
