//! What a process uses: processor time and memory, as Linux tells it in `/proc`.

use std::fs;

use anyhow::{Context, Result};

/// Processor time of all living threads of a process, in nanoseconds. The scheduler's own count: `/proc/PID/stat` has the
/// same in steps of ten milliseconds. What a thread used that has ended meanwhile is missing; nobody measured here ends
/// threads under load.
///
/// # Errors
/// The process is gone.
pub fn processor_time(process: u32) -> Result<u64> {
    let folder = format!("/proc/{process}/task");
    let mut total = 0;
    for thread in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))? {
        // A thread may end between the listing and the look.
        if let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) {
            total += first_number(&text).with_context(|| format!("{folder}/*/schedstat is not as expected"))?;
        }
    }
    Ok(total)
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// Resident memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// The most so far.
    pub peak: u64,
}

/// The memory of a process.
///
/// # Errors
/// The process is gone.
pub fn memory(process: u32) -> Result<Memory> {
    let file = format!("/proc/{process}/status");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    memory_of(&text).with_context(|| format!("{file} does not tell the memory"))
}

fn memory_of(status: &str) -> Option<Memory> {
    let kibibytes = |name| first_number(status.lines().find_map(|line| line.strip_prefix(name))?);
    Some(Memory { resident: kibibytes("VmRSS:")? * 1024, peak: kibibytes("VmHWM:")? * 1024 })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn memory_is_read_from_the_status() {
        let status = "Name:\tx\nVmHWM:\t    3000 kB\nVmRSS:\t    2000 kB\n";
        assert_eq!(memory_of(status), Some(Memory { resident: 2_048_000, peak: 3_072_000 }));
        assert_eq!(memory_of("Name:\tx\n"), None);
    }

    #[test]
    fn a_busy_process_uses_processor_time() {
        let own = std::process::id();
        let before = processor_time(own).expect("we live");
        let end = Instant::now() + Duration::from_secs(5);
        // A loaded machine gives less than the time that passes.
        while processor_time(own).expect("we live") < before + 20_000_000 {
            assert!(Instant::now() < end, "20 ms of work were not counted within 5 s");
        }
        assert!(memory(own).expect("we live").resident > 1 << 16);
    }
}
