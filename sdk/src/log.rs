//! Lines in the daemon's log, with the handler's name added there.
//!
//! Use the macros [`error!`](crate::error!), [`warn!`](crate::warn), [`info!`](crate::info), [`debug!`](crate::debug) and
//! [`trace!`](crate::trace): they format nothing unless the line would be kept. Fields come first, each `name = value` with a
//! value that is [`Display`](std::fmt::Display), then `;` and the text.
//!
//! ```
//! # use tidegate_sdk::{info, warn};
//! # let (topic, limit) = ("a/b", 30.0);
//! info!("ready");
//! warn!(topic, limit; "over the limit");
//! warn!(topic = topic, limit = limit * 2.0; "far over the limit of {limit}");
//! ```
//!
//! Write constant text and put what varies into fields: such lines can be counted and searched. Lines past the handler's
//! rate limit are counted and dropped.

use crate::host;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Each step.
    Trace,
    /// For finding a fault.
    Debug,
    /// Things that happen seldom, and should.
    Info,
    /// Wrong, and mended.
    Warn,
    /// Wrong, and not mended.
    Error,
}

/// Whether a line of this level would be kept.
pub fn enabled(level: Level) -> bool {
    host::log_enabled(level)
}

/// Writes a line; the macros of this crate come here.
pub fn write(level: Level, message: &str, fields: &[(String, String)]) {
    host::log(level, message, fields);
}

/// Writes a line of the given [`Level`], formatted only if it would be kept. See [`log`](mod@crate::log).
#[macro_export]
macro_rules! log {
    ($level:expr, $($name:ident $(= $value:expr)?),+ ; $($text:tt)+) => {
        if $crate::log::enabled($level) {
            let fields = [$((
                ::std::string::String::from(::core::stringify!($name)),
                ::std::string::ToString::to_string(&$crate::log!(@value $name $(= $value)?)),
            )),+];
            $crate::log::write($level, &::std::format!($($text)+), &fields);
        }
    };
    (@value $name:ident = $value:expr) => { $value };
    (@value $name:ident) => { $name };
    ($level:expr, $($text:tt)+) => {
        if $crate::log::enabled($level) {
            $crate::log::write($level, &::std::format!($($text)+), &[]);
        }
    };
}

/// Writes a line of level error: something was lost, or a person is needed. See [`log`](mod@crate::log).
#[macro_export]
macro_rules! error {
    ($($line:tt)+) => { $crate::log!($crate::log::Level::Error, $($line)+) };
}

/// Writes a line of level warn: something went wrong and was mended. See [`log`](mod@crate::log).
#[macro_export]
macro_rules! warn {
    ($($line:tt)+) => { $crate::log!($crate::log::Level::Warn, $($line)+) };
}

/// Writes a line of level info: things that happen seldom, and should. See [`log`](mod@crate::log).
#[macro_export]
macro_rules! info {
    ($($line:tt)+) => { $crate::log!($crate::log::Level::Info, $($line)+) };
}

/// Writes a line of level debug: for finding a fault. See [`log`](mod@crate::log).
#[macro_export]
macro_rules! debug {
    ($($line:tt)+) => { $crate::log!($crate::log::Level::Debug, $($line)+) };
}

/// Writes a line of level trace: each step. See [`log`](mod@crate::log).
#[macro_export]
macro_rules! trace {
    ($($line:tt)+) => { $crate::log!($crate::log::Level::Trace, $($line)+) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Host, LogLine};

    /// Level, text, and fields by name and value.
    type Line<'a> = (Level, &'a str, &'a [(&'a str, &'a str)]);

    fn check(host: Host, write: impl FnOnce(), expected: &[Line<'_>]) {
        let lines = host.run(write).logs;
        let expected = expected.iter().map(|(level, message, fields)| LogLine {
            level: *level,
            message: (*message).into(),
            fields: fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        });
        assert_eq!(lines, expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_line_has_its_text_and_its_fields_in_order() {
        let (c, d) = (3, 4);
        check(Host::new(), || info!("ready"), &[(Level::Info, "ready", &[])]);
        check(Host::new(), || warn!("{c} of {}", 5), &[(Level::Warn, "3 of 5", &[])]);
        check(Host::new(), || error!(c, e = d + 1; "no"), &[(Level::Error, "no", &[("c", "3"), ("e", "5")])]);
        check(Host::new(), || debug!(d; "d is {d}"), &[(Level::Debug, "d is 4", &[("d", "4")])]);
    }

    #[test]
    fn a_line_that_would_not_be_kept_is_not_formatted() {
        struct Untouched;
        impl std::fmt::Display for Untouched {
            fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                panic!("formatted")
            }
        }
        let host = Host::new().log_level(Level::Info);
        check(host, || trace!(field = Untouched; "{Untouched}"), &[]);
    }
}
