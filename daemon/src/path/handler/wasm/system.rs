//! The readings of the machine, for handlers that may have them.
//!
//! Called by guests through the interface `system`. The readings are at most a second old, so that a guest that asks for them in
//! a loop costs the machine nothing; taking them reads files that the kernel keeps in memory.

use super::bindings::tidegate::handler::system;
use super::state::State;
use crate::system::Readings;

impl system::Host for State {
    fn read(&mut self) -> Result<system::Readings, String> {
        let name = &self.host.name;
        if !self.host.allow_system {
            return Err(format!(
                "handler \"{name}\" must not read the machine; to permit it, set allow.system = true of [handlers.{name}]"
            ));
        }
        let Readings { model, serial_number, os_version, cpu_load, used_memory, free_memory, uptime } =
            crate::system::read()?;
        Ok(system::Readings {
            model: model.to_string(),
            serial_number: serial_number.to_string(),
            os_version: os_version.to_string(),
            cpu_load,
            used_memory,
            free_memory,
            uptime,
        })
    }
}
