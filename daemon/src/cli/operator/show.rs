//! How values are shown to people, wherever they stand.

use serde_json::Value;

use crate::cli::client::Failure;
use crate::cli::table::{NONE, pairs};
use crate::control::admin::resource::{
    BrokerState, CallFailure, HandlerState, Kept, Origin, PluginFile, PluginFileState, Source, Trial,
};

/// Characters of a plugin's hash that tell it from others.
const SHORT_HASH: usize = 12;

/// As RouterOS says it.
pub fn yes_no(yes: bool) -> String {
    (if yes { "yes" } else { "no" }).to_owned()
}

/// Where an object of the configuration is changed.
pub fn origin(origin: &Origin) -> String {
    match origin.source {
        Source::File => format!("{}:{}", origin.file, origin.line),
        Source::Runtime => "runtime".to_owned(),
    }
}

/// Whether a broker is connected, and why not.
pub fn connected(state: BrokerState, reason: Option<&str>, retry_in: Option<f64>) -> String {
    let state = match state {
        BrokerState::Connected => return yes_no(true),
        BrokerState::Connecting => "connecting",
        BrokerState::Waiting => "the next attempt comes by itself",
        BrokerState::Idle => "on demand",
        BrokerState::Disconnected => "disconnected by hand",
    };
    let reason = reason.filter(|reason| !reason.is_empty());
    let retry = retry_in.map(|seconds| format!("; next attempt in {:.0} s", seconds.ceil())).unwrap_or_default();
    format!("no: {}{retry}", reason.unwrap_or(state))
}

/// Enough of a plugin's hash.
pub fn version(hash: &str) -> String {
    if hash.is_empty() { NONE.to_owned() } else { hash.chars().take(SHORT_HASH).collect() }
}

/// The version that a handler runs, and what its plugin's file holds where that is something else.
pub fn version_of(hash: &str, file: &PluginFile, trial: Option<&Trial>) -> String {
    let other = file.version.as_deref().map(|other| format!(" {}", version(other))).unwrap_or_default();
    if let Some(Trial { version: other, calls, of, failures }) = trial {
        let other = version(other);
        return format!("{} ({other} on trial: {calls} of {of} calls, {failures} failed)", version(hash));
    }
    let file = match file.state {
        PluginFileState::Runs => return version(hash),
        PluginFileState::OnTrial => format!("file{other} on trial"),
        PluginFileState::Missing => "file missing".to_owned(),
        PluginFileState::Refused => format!("file{other} refused"),
        PluginFileState::NotKept => format!("file{other} not kept"),
    };
    format!("{} ({file})", version(hash))
}

/// A handler's last failed call.
pub fn last_failure(failure: Option<&CallFailure>) -> String {
    failure.map_or_else(|| NONE.to_owned(), |failure| format!("{} {}: {}", failure.time, failure.result, failure.error))
}

/// How a handler stands, and how much is kept for it.
pub fn state(state: HandlerState, until: Option<&str>, parked: u64) -> String {
    let until = until.map(|time| format!(" until {time}")).unwrap_or_default();
    let parked = if parked == 0 { String::new() } else { format!(", {parked} parked") };
    format!("{state}{until}{parked}")
}

/// What is kept on the disk.
pub fn kept(kept: Kept) -> String {
    match kept.messages {
        0 => "none".to_owned(),
        messages => format!("{messages}, {} bytes", kept.bytes),
    }
}

/// Seconds, as days, hours, minutes.
pub fn duration(seconds: f64) -> String {
    humantime::format_duration(std::time::Duration::from_secs(seconds.max(0.0) as u64)).to_string()
}

/// All fields of an object, a line each, named by their path; without those that have no value.
pub fn details(object: &Value) -> String {
    let mut lines = Vec::new();
    collect(&mut lines, "", object);
    pairs(lines.iter().map(|(name, value)| (name.as_str(), value.clone())))
}

fn collect(lines: &mut Vec<(String, String)>, path: &str, value: &Value) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect(lines, &path, value);
            }
        }
        Value::String(text) => lines.push((path.to_owned(), text.clone())),
        Value::Bool(yes) => lines.push((path.to_owned(), yes_no(*yes))),
        Value::Array(items) => {
            let items: Vec<String> =
                items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect();
            lines.push((path.to_owned(), items.join(", ")));
        }
        other => lines.push((path.to_owned(), other.to_string())),
    }
}

/// A change that changes nothing.
pub fn nothing_to_set(example: &str) -> Failure {
    Failure::WrongUse(format!("there is nothing to set; give an option, such as {example}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_broker_says_why_it_is_not_connected() {
        use BrokerState::{Connected, Disconnected, Idle, Waiting};
        assert_eq!(connected(Connected, None, None), "yes");
        assert_eq!(connected(Disconnected, None, None), "no: disconnected by hand");
        assert_eq!(connected(Idle, None, None), "no: on demand");
        let refused = connected(Waiting, Some("the connection is refused"), Some(2.2));
        assert_eq!(refused, "no: the connection is refused; next attempt in 3 s");
    }

    #[test]
    fn a_handler_says_how_it_stands() {
        use HandlerState::{Open, Paused, Quarantined};
        assert_eq!(state(Open, None, 0), "open");
        assert_eq!(state(Paused, None, 3), "paused, 3 parked");
        assert_eq!(state(Quarantined, Some("12:00"), 1), "quarantined until 12:00, 1 parked");
        assert_eq!(kept(Kept { messages: 0, bytes: 0 }), "none");
        assert_eq!(kept(Kept { messages: 2, bytes: 30 }), "2, 30 bytes");
    }

    #[test]
    fn a_handler_says_what_is_on_trial() {
        let of = |state, trial: Option<&Trial>| {
            let file = PluginFile { state, version: Some("fedcba9876543210".to_owned()), reason: None, since: None };
            version_of("0123456789abcdef", &file, trial)
        };
        let trial = Trial { version: "fedcba9876543210".to_owned(), calls: 37, of: 100, failures: 1 };
        let on_trial = of(PluginFileState::OnTrial, Some(&trial));
        assert_eq!(on_trial, "0123456789ab (fedcba987654 on trial: 37 of 100 calls, 1 failed)");
        assert_eq!(of(PluginFileState::OnTrial, None), "0123456789ab (file fedcba987654 on trial)");
        assert_eq!(of(PluginFileState::Runs, None), "0123456789ab");
    }

    #[test]
    fn details_are_lines_of_paths() {
        let object = json!({"a": {"b": true, "c": null}, "d": ["x", "y"], "e": 1.5, "f": "t", "g": []});
        assert_eq!(details(&object), "a.b  yes\nd    x, y\ne    1.5\nf    t\ng");
    }

    #[test]
    fn short_forms() {
        assert_eq!(version("0123456789abcdef"), "0123456789ab");
        assert_eq!(version(""), "-");
        assert_eq!(duration(93_784.9), "1day 2h 3m 4s");
        let at = |source| origin(&Origin { source, file: "t.toml".into(), line: 3 });
        assert_eq!((at(Source::File), at(Source::Runtime)), ("t.toml:3".into(), "runtime".into()));
    }
}
