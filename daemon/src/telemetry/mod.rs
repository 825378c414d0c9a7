//! What the daemon tells about itself: logs, metrics, and the live tap.

pub mod logging;
pub mod metrics;
pub mod occasional;
pub mod tap;
