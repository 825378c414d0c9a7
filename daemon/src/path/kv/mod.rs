//! What handlers remember.
mod mirror;
mod rows;
mod transaction;
