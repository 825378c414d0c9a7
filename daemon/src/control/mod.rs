//! What steers the daemon: its configuration and its admin server.

pub mod admin;
pub mod config;
