//! For the tests of the folder above: a native plugin without a library, and no room for threads.

use std::ffi::c_void;
use std::sync::Arc;
use std::time::Instant;

use tidegate_abi::{Call, Message, Status};

use super::threads::{MAX_LEFT, MAX_STUCK};
use super::worker::Table;
use super::{Natives, Plugin};
use crate::path::handler::plugin::{PluginFile, PluginHash};

/// A plugin whose calls panic, each of which uses up its instance.
pub(in crate::path::handler) fn panics() -> Plugin {
    unsafe extern "C" fn on_message(_: *mut c_void, _: *mut Call, _: *const Message) -> Status {
        Status::PANIC
    }
    let table = Table { create: None, on_message: Some(on_message), on_schedule: None, destroy: None };
    Plugin::of(table, Arc::new(Natives::passing().expect("there is room for a directory")))
}

/// Leaves no room for a further instance of a plugin, as if too many of its threads hung.
pub(in crate::path::handler) fn hangs(plugin: &Plugin, handler: &Arc<str>) {
    leave(plugin, handler, plugin.version());
}

/// Leaves no room for a further instance of a plugin, as if too many threads of the handler's other versions hung.
pub(in crate::path::handler) fn leave_no_room(plugin: &Plugin, handler: &Arc<str>) {
    (0..MAX_STUCK / MAX_LEFT).for_each(|other| leave(plugin, handler, PluginFile::new(vec![other as u8]).hash()));
}

fn leave(plugin: &Plugin, handler: &Arc<str>, version: PluginHash) {
    let (threads, now) = (plugin.threads(handler), Instant::now());
    for _ in 0..MAX_LEFT {
        let thread = threads.begin(version, now).expect("has room so far");
        threads.is_left_inside(thread, now);
    }
}
