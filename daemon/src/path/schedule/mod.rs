//! Schedules.

pub mod timing;
