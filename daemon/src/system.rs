//! What the machine tells of itself: model, serial number, operating system, load, memory, uptime.
//!
//! Owns: the last readings, which are taken anew at most once a second, and the load since the ones before. Read by schedules
//! (`payload = { builtin = "system-stats" }`) and, through the interface `system`, by handlers. Taking them reads files that the
//! kernel keeps in memory, so that nobody waits for a disk. It keeps no history and publishes nothing.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sysinfo::{MemoryRefreshKind, Product, System};

/// How old readings may be.
const AGE: Duration = Duration::from_secs(1);

/// What the machine does not tell.
const UNKNOWN: &str = "unknown";

/// Readings of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readings {
    /// Of the machine: the firmware's name of the product or board; "unknown" where it has none.
    pub model: Arc<str>,
    /// Of the machine; "unknown" where it has none, or the daemon's user may not read it.
    pub serial_number: Arc<str>,
    /// Name and version of the operating system.
    pub os_version: Arc<str>,
    /// Percent over all cores since the readings before, at the first since the machine started.
    pub cpu_load: u8,
    /// Bytes that are not free.
    pub used_memory: u64,
    /// Bytes that programs can have, those that only hold copies of files included.
    pub free_memory: u64,
    /// Seconds since the machine started.
    pub uptime: u64,
}

/// The machine, with what was read of it last.
struct Machine {
    system: System,
    model: Arc<str>,
    serial_number: Arc<str>,
    os_version: Arc<str>,
    last: Option<(Instant, Readings)>,
}

/// There is one machine, whoever asks. None until it is asked for the first time.
static MACHINE: LazyLock<Mutex<Option<Machine>>> = LazyLock::new(Mutex::default);

/// The readings of now; at most [`AGE`] old.
///
/// # Errors
/// The operating system does not tell, in plain words.
pub fn read() -> Result<Readings, String> {
    let mut machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    match &mut *machine {
        Some(machine) => machine.read(Instant::now()),
        empty => empty.insert(Machine::new()?).read(Instant::now()),
    }
}

impl Machine {
    fn new() -> Result<Machine, String> {
        let system = System::new().map_err(|error| untold("its load and memory", &error))?;
        Ok(Machine {
            system,
            model: told(Product::name()),
            serial_number: told(Product::serial_number()),
            os_version: os_version(System::name(), System::os_version()),
            last: None,
        })
    }

    fn read(&mut self, now: Instant) -> Result<Readings, String> {
        if let Some((taken, readings)) = &self.last
            && now.saturating_duration_since(*taken) < AGE
        {
            return Ok(readings.clone());
        }
        self.system.refresh_cpu_usage();
        self.system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let free = self.system.available_memory();
        let readings = Readings {
            model: Arc::clone(&self.model),
            serial_number: Arc::clone(&self.serial_number),
            os_version: Arc::clone(&self.os_version),
            cpu_load: percent(self.system.global_cpu_usage()),
            used_memory: self.system.total_memory().saturating_sub(free),
            free_memory: free,
            uptime: System::uptime().map_err(|error| untold("its uptime", &error))?,
        };
        self.last = Some((now, readings.clone()));
        Ok(readings)
    }
}

fn untold(what: &str, error: &sysinfo::Error) -> String {
    format!("the operating system does not tell {what}: {error}")
}

/// Firmware often has an empty text, or a placeholder, where the maker wrote nothing.
fn told(text: Result<String, sysinfo::Error>) -> Arc<str> {
    let text = text.unwrap_or_default();
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.is_empty() { UNKNOWN.into() } else { words.into() }
}

fn os_version(name: Result<String, sysinfo::Error>, version: Result<String, sysinfo::Error>) -> Arc<str> {
    match (name.ok(), version.ok()) {
        (Some(name), Some(version)) => format!("{name} {version}").into(),
        (Some(one), None) | (None, Some(one)) => one.into(),
        (None, None) => UNKNOWN.into(),
    }
}

/// To the whole percent.
fn percent(load: f32) -> u8 {
    // A load is 0 to 100, and what is no number becomes 0.
    load.round().clamp(0.0, 100.0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_of_this_machine_and_at_most_a_second_old() {
        let mut machine = Machine::new().expect("tells");
        let now = Instant::now();
        let first = machine.read(now).expect("tells");
        assert!(first.free_memory > 0 && first.used_memory > 0 && first.uptime > 0, "{first:?}");
        assert_eq!(first.free_memory + first.used_memory, machine.system.total_memory());
        assert!(first.cpu_load <= 100 && !first.model.is_empty() && !first.serial_number.is_empty());
        machine.model = "another".into();
        assert_eq!(machine.read(now + AGE - Duration::from_millis(1)).expect("tells"), first);
        assert_eq!(&*machine.read(now + AGE).expect("tells").model, "another");
    }

    #[test]
    fn what_is_not_told_is_unknown() {
        assert_eq!(&*told(Err(sysinfo::Error::Other("no".into()))), "unknown");
        assert_eq!(&*told(Ok(" \n".to_owned())), "unknown");
        assert_eq!(&*told(Ok("Raspberry Pi 4\n Model B".to_owned())), "Raspberry Pi 4 Model B");
    }

    #[test]
    fn a_load_is_a_whole_percentage() {
        let check = |load, expected| assert_eq!(percent(load), expected, "{load}");
        check(0.0, 0);
        check(12.5, 13);
        check(99.6, 100);
        check(100.4, 100);
        check(-1.0, 0);
        check(f32::NAN, 0);
    }
}
