//! The operator at the shell: commands of the built `tidegate` that ask a running daemon.
//!
//! They run in the daemon's folder, so that its configuration tells them the socket.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::daemon::{Daemon, Ran};
use crate::process::Process;
use crate::wait;

impl Daemon {
    /// Runs a command to its end.
    #[track_caller]
    pub fn ask(&self, arguments: &[&str]) -> Ran {
        self.home().run(arguments)
    }

    /// As [`Daemon::ask`], with these bytes on standard input.
    #[track_caller]
    pub fn ask_with_input(&self, arguments: &[&str], input: &[u8]) -> Ran {
        self.home().run_with_input(arguments, input)
    }

    /// Runs a command that must be done, and returns its output.
    #[track_caller]
    pub fn done(&self, arguments: &[&str]) -> String {
        let ran = self.ask(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
        ran.stdout
    }

    /// As [`Daemon::done`] with `--json`, and returns the JSON.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.done(&[arguments, &["--json"]].concat());
        serde_json::from_str(&output).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {output}"))
    }

    /// Runs a command that must be refused by the daemon, and returns why.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str]) -> String {
        let ran = self.ask(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(4), ""), "{arguments:?}: {ran:?}");
        ran.stderr
    }

    /// A broker as `brokers list` has it.
    #[track_caller]
    pub fn broker(&self, name: &str) -> Value {
        self.json(&["brokers", "list", name])
    }

    /// Waits until `brokers list` shows this of a broker.
    #[track_caller]
    pub fn wait_shown(&self, broker: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        wait::until(format!("broker {broker} {what}"), || {
            let shown = self.broker(broker);
            if condition(&shown) { Ok(shown) } else { Err(shown.to_string()) }
        })
    }

    /// Waits until a broker is connected, or is not.
    #[track_caller]
    pub fn wait_connected(&self, broker: &str, connected: bool) {
        self.wait_shown(broker, &format!("connected: {connected}"), |shown| shown["connected"] == connected);
    }

    /// Waits until `subscriptions list` shows that the broker has granted a subscription.
    #[track_caller]
    pub fn wait_granted(&self, subscription: &str) {
        wait::until(format!("subscription {subscription} is granted"), || {
            let shown = self.json(&["subscriptions", "list", subscription]);
            if shown["state"] == "granted" { Ok(()) } else { Err(shown.to_string()) }
        });
    }

    /// The messages of `recv list` as topic and data.
    #[track_caller]
    pub fn received(&self) -> Vec<(String, String)> {
        let list = self.json(&["recv", "list"]);
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let messages = list["messages"].as_array().expect("an array").iter();
        messages.map(|message| (text(&message["topic"]), text(&message["data"]))).collect()
    }

    /// Waits until `recv list` has these messages, by topic and data.
    #[track_caller]
    pub fn wait_received(&self, expected: &[(&str, &str)]) {
        wait::until(format!("recv list has {expected:?}"), || {
            let found = self.received();
            let same = found.iter().map(|(topic, data)| (topic.as_str(), data.as_str())).eq(expected.iter().copied());
            if same { Ok(()) } else { Err(format!("{found:?}")) }
        });
    }

    /// Starts a command that goes on until it is ended.
    #[track_caller]
    pub fn begin(&self, arguments: &[&str]) -> Process {
        self.home().start(arguments)
    }
}

/// Stops a process of the scenario's own at once where it is, or lets it go on.
///
/// # Panics
/// It is not there.
pub fn freeze(id: u32, frozen: bool) {
    let signal = if frozen { "STOP" } else { "CONT" };
    let status = Command::new("kill").args(["-s", signal, &id.to_string()]).stdin(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "kill -s {signal} {id}");
}
