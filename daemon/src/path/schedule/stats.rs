//! `payload = { builtin = "system-stats" }`: readings of the machine as the script in RouterOS' documentation publishes them.
//!
//! Pure: readings in, JSON out. The keys, their order and their types are those of that script; where it interpolates
//! `uptime`, the form is RouterOS' own.

use serde::Serialize;

use crate::system::Readings;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;

/// In the order of the script.
#[derive(Serialize)]
struct Stats<'a> {
    model: &'a str,
    sn: &'a str,
    /// Where the script has RouterOS' version, that of the operating system.
    ros: &'a str,
    /// Percent.
    cpu: u8,
    /// Bytes.
    umem: u64,
    /// Bytes.
    fmem: u64,
    uptime: String,
}

/// Compact JSON.
pub(super) fn json(readings: &Readings) -> String {
    let stats = Stats {
        model: &readings.model,
        sn: &readings.serial_number,
        ros: &readings.os_version,
        cpu: readings.cpu_load,
        umem: readings.used_memory,
        fmem: readings.free_memory,
        uptime: routeros_duration(readings.uptime),
    };
    serde_json::to_string(&stats).expect("strings and numbers become JSON")
}

/// Seconds as RouterOS writes a time: `1w2d03:04:05`. Weeks and days that are none are left out.
fn routeros_duration(seconds: u64) -> String {
    let mut text = String::new();
    for (unit, length) in [("w", WEEK), ("d", DAY)] {
        let count = seconds % if unit == "d" { WEEK } else { u64::MAX } / length;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
        }
    }
    let (hours, minutes, seconds) = (seconds % DAY / HOUR, seconds % HOUR / MINUTE, seconds % MINUTE);
    text.push_str(&format!("{hours:02}:{minutes:02}:{seconds:02}"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_routeros_does() {
        let check = |seconds: u64, expected: &str| assert_eq!(routeros_duration(seconds), expected, "{seconds}");
        check(0, "00:00:00");
        check(5, "00:00:05");
        check(DAY - 1, "23:59:59");
        check(DAY, "1d00:00:00");
        check(WEEK - 1, "6d23:59:59");
        check(WEEK, "1w00:00:00");
        check(WEEK + 2 * DAY + 3 * HOUR + 4 * MINUTE + 5, "1w2d03:04:05");
        check(53 * WEEK + 6 * DAY, "53w6d00:00:00");
    }

    #[test]
    fn keys_order_and_types_are_those_of_the_script() {
        let readings = Readings {
            model: "RB924i-2nD-BT5&BG77".into(),
            serial_number: "unknown".into(),
            os_version: "Linux \"1\"".into(),
            cpu_load: 13,
            used_memory: 47_476_736,
            free_memory: 19_632_128,
            uptime: WEEK,
        };
        assert_eq!(
            json(&readings),
            r#"{"model":"RB924i-2nD-BT5&BG77","sn":"unknown","ros":"Linux \"1\"","cpu":13,"umem":47476736,"fmem":19632128,"uptime":"1w00:00:00"}"#
        );
    }
}
