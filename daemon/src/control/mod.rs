//! What steers the daemon: its configuration, how that changes while it runs, and its admin plane.

pub mod admin;
pub mod config;
pub mod live;
pub mod routeros;
pub mod watch;
