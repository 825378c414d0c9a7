//! The readings of the machine, for handlers that may have them.
//!
//! Asked by guests. The readings are at most a second old, so that a guest that asks for them in
//! a loop costs the machine nothing; taking them reads files that the kernel keeps in memory.

use super::grants::Host;
use crate::system::Readings;

impl Host {
    /// The readings, where `allow.system` grants them.
    ///
    /// # Errors
    /// It does not, or the machine tells nothing: a sentence.
    pub(in crate::path::handler) fn read_system(&self) -> Result<Readings, String> {
        let name = &self.name;
        if !self.allow_system {
            return Err(format!(
                "handler \"{name}\" must not read the machine; to permit it, set allow.system = true of [handlers.{name}]"
            ));
        }
        crate::system::read()
    }
}
