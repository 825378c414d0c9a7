//! Which settings of the whole daemon two configurations differ in, and which of them a running daemon can take over.
//!
//! Pure. Every field of [`Config`] is looked at by name, so that a new one has its place here or does not compile. The objects of
//! the configuration are `diff.rs`'s.

use super::model::{Admin, Config, LogSettings};
use super::{Loaded, Problem};
use crate::control::config::problem::{Origin, Place};
use crate::telemetry::received::Limits;

/// A setting that is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its key.
    pub key: &'static str,
    /// Whether it holds at once; otherwise only from the next start on.
    pub live: bool,
}

/// The settings in which two configurations differ.
pub fn changed(old: &Config, new: &Config) -> Vec<Changed> {
    let Config {
        state_dir,
        native,
        log,
        shutdown_grace,
        received,
        watch_config,
        admin,
        // `diff.rs` compares these.
        brokers: _,
        subscriptions: _,
        handlers: _,
        schedules: _,
    } = new;
    let LogSettings { level, format } = log;
    let Limits { messages, bytes } = received;
    let Admin { socket, listen, token_file } = admin;
    let all = [
        ("state-dir", *state_dir != old.state_dir, false),
        ("native", *native != old.native, false),
        ("log.level", *level != old.log.level, true),
        ("log.format", *format != old.log.format, false),
        ("shutdown-grace", *shutdown_grace != old.shutdown_grace, true),
        ("recv-buffer", *messages != old.received.messages, true),
        ("recv-bytes", *bytes != old.received.bytes, true),
        ("watch-config", *watch_config != old.watch_config, true),
        ("admin.socket", *socket != old.admin.socket, false),
        ("admin.listen", *listen != old.admin.listen, false),
        ("admin.token-file", *token_file != old.admin.token_file, false),
    ];
    all.into_iter().filter(|(_, differs, _)| *differs).map(|(key, _, live)| Changed { key, live }).collect()
}

/// What keeps a running daemon from taking over a configuration: its settings that need a restart, each where it stands.
pub fn need_restart(old: &Loaded, new: &Loaded) -> Vec<Problem> {
    let fixed = changed(&old.config, &new.config).into_iter().filter(|changed| !changed.live);
    fixed.filter_map(|changed| problem(changed.key, old, new)).collect()
}

fn problem(key: &str, old: &Loaded, new: &Loaded) -> Option<Problem> {
    const WHAT: &str = "cannot change while the daemon runs";
    let find = |loaded: &Loaded| loaded.shown.settings.iter().find(|setting| setting.key == key).cloned();
    let field = key.to_owned();
    match (find(old), find(new)) {
        (before, Some(now)) => {
            let back = match before {
                Some(before) => format!("write {} again", before.value),
                None => "remove it".to_owned(),
            };
            let origin = Origin { place: now.place, field, value: Some(now.value.to_string()) };
            Some(origin.problem(WHAT, format!("restart the daemon, or {back}")))
        }
        (Some(before), None) => {
            let place = Place { file: before.place.file.clone(), position: None };
            let origin = Origin { place, field, value: None };
            let gone = format!("is not set any more (it was {} at {}), and {WHAT}", before.value, before.place);
            Some(origin.problem(gone, "restart the daemon, or set it again"))
        }
        // A default that follows from another key, which is told.
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::control::config::load_text;

    fn load(text: &str) -> Loaded {
        load_text(Path::new("/nowhere/tidegate.toml"), text, "").unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// What is changed live, and what is refused.
    #[track_caller]
    fn check(old: &str, new: &str, live: &[&str], refused: &[&str]) {
        let (old, new) = (load(old), load(new));
        let found = changed(&old.config, &new.config).into_iter().filter(|changed| changed.live);
        assert_eq!(found.map(|changed| changed.key).collect::<Vec<_>>(), live);
        assert_eq!(need_restart(&old, &new).iter().map(Problem::to_string).collect::<Vec<_>>(), refused);
    }

    #[test]
    fn what_can_change_does_and_the_rest_says_that_it_needs_a_restart() {
        check("", "shutdown-grace = \"10s\"\nlog = { level = \"info\" }\nrecv-buffer = 1024\n", &[], &[]);
        let all = "shutdown-grace = \"1s\"\nrecv-buffer = 5\nrecv-bytes = \"1KiB\"\nwatch-config = true\nlog.level = \"warn\"\n";
        check("", all, &["log.level", "shutdown-grace", "recv-buffer", "recv-bytes", "watch-config"], &[]);
        check(
            "state-dir = \"/a\"\nlog.format = \"json\"\n",
            "state-dir = \"/b\"\n",
            &[],
            &[
                "/nowhere/tidegate.toml:1:13: state-dir = \"/b\": cannot change while the daemon runs; restart the daemon, or \
                 write \"/a\" again",
                "/nowhere/tidegate.toml: log.format: is not set any more (it was \"json\" at /nowhere/tidegate.toml:2:14), and \
                 cannot change while the daemon runs; restart the daemon, or set it again",
            ],
        );
        check(
            "",
            "[admin]\nlisten = \"127.0.0.1:1\"\ntoken-file = \"t\"\nsocket = \"/s\"\n",
            &[],
            &[
                "/nowhere/tidegate.toml:4:10: admin.socket = \"/s\": cannot change while the daemon runs; restart the daemon, \
                 or remove it",
                "/nowhere/tidegate.toml:2:10: admin.listen = \"127.0.0.1:1\": cannot change while the daemon runs; restart \
                 the daemon, or remove it",
                "/nowhere/tidegate.toml:3:14: admin.token-file = \"t\": cannot change while the daemon runs; restart the \
                 daemon, or remove it",
            ],
        );
    }
}
