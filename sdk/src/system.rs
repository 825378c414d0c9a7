//! The machine that the daemon runs on, for handlers that may read it.

use crate::{Result, host};

/// Readings of the machine, at most a second old.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readings {
    /// The model; "unknown" where the machine does not tell.
    pub model: String,
    /// The serial number; "unknown" where the machine does not tell, or not to the daemon's user.
    pub serial_number: String,
    /// Name and version of the operating system.
    pub os_version: String,
    /// Percent over all cores, since the reading before.
    pub cpu_load: u8,
    /// Bytes.
    pub used_memory: u64,
    /// Bytes; with those used they are all of the memory.
    pub free_memory: u64,
    /// Seconds since the machine started.
    pub uptime: u64,
}

/// The readings of now.
///
/// # Errors
/// A rejection, where the handler is not granted `allow.system = true`.
///
/// ```
/// use tidegate_sdk::{Outgoing, Result, Run, publish, system};
///
/// fn report(_: &Run) -> Result {
///     let readings = system::read()?;
///     publish(Outgoing::new("gateway/load", readings.cpu_load.to_string()))?;
///     Ok(())
/// }
/// # let host = tidegate_sdk::testing::Host::new();
/// # let run = tidegate_sdk::testing::scheduled("load");
/// # assert!(host.run(|| report(&run)).result.is_err());
/// # let host = host.system(&tidegate_sdk::testing::readings());
/// # assert_eq!(host.run(|| report(&run)).publishes, [Outgoing::new("gateway/load", "7")]);
/// ```
pub fn read() -> Result<Readings> {
    host::system()
}
