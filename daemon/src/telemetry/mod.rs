//! What the daemon tells about itself: logs, metrics, the messages received, the way of one message, and the
//! live tap.

pub mod logging;
pub mod metrics;
pub mod occasional;
pub mod received;
pub mod tap;
pub mod trace;
pub mod wanted;
