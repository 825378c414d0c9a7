//! What steers the daemon: its configuration, how that changes while it runs, and its admin plane.

pub mod admin;
pub mod config;
pub mod live;
pub mod routeros;
#[cfg_attr(not(test), allow(dead_code, reason = "nothing that reloads watches yet"))]
pub mod watch;
