//! The way of a message, in the order of the folders.

pub mod dispatch;
pub mod handler;
pub mod outbox;
pub mod receipt;
pub mod router;
pub mod session;
