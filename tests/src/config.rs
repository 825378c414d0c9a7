//! A configuration of the daemon, put together from its tables.

use std::fmt::{Display, Write as _};
use std::path::PathBuf;

use crate::client::Protocol;

/// The test guest publishes what it gets to `out/` before the topic, with the same QoS.
pub const ECHO: &str = "mode = \"echo\"";

/// Tables of `tidegate.toml`; [`crate::Home`] adds the folders and the address of the admin server.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Keys before the first table.
    pub top: String,
    /// Further keys of `[admin]`.
    pub admin: String,
    /// Tables.
    pub tables: String,
    /// Names of the plugins that the home gets.
    pub plugins: Vec<String>,
    /// Names and contents of the plugins that the home gets beside those.
    pub made: Vec<(String, Vec<u8>)>,
    /// Environment variables that the daemon gets beside its own.
    pub environment: Vec<(String, String)>,
    /// Where the daemon keeps its state, if not in its home.
    pub state: Option<PathBuf>,
}

impl Config {
    /// Nothing yet.
    pub fn new() -> Config {
        Config::default()
    }

    /// Adds keys before the first table.
    pub fn top(mut self, keys: &str) -> Config {
        writeln!(self.top, "{keys}").expect("a string takes all");
        self
    }

    /// Adds keys to `[admin]`.
    pub fn admin(mut self, keys: &str) -> Config {
        writeln!(self.admin, "{keys}").expect("a string takes all");
        self
    }

    /// Adds a broker on the loopback interface.
    pub fn broker(self, name: &str, port: u16, protocol: Protocol, keys: &str) -> Config {
        self.table(format!(
            "[brokers.{name}]\naddress = \"127.0.0.1\"\nport = {port}\nprotocol = \"{protocol}\"\n{keys}\n"
        ))
    }

    /// Adds a handler; its plugin is copied to the home's folder of plugins.
    pub fn handler(mut self, name: &str, plugin: &str, keys: &str) -> Config {
        self.plugins.push(plugin.to_owned());
        self.table(handler(name, plugin, keys))
    }

    /// Adds a handler of this component.
    pub fn component(mut self, name: &str, component: Vec<u8>, keys: &str) -> Config {
        let plugin = format!("{name}.wasm");
        self.made.push((plugin.clone(), component));
        self.table(handler(name, &plugin, keys))
    }

    /// Permits native plugins, and adds a handler of this one, in bytes: a shared library.
    pub fn native(mut self, name: &str, library: Vec<u8>, keys: &str) -> Config {
        let plugin = format!("{name}.so");
        self.made.push((plugin.clone(), library));
        self.top("native = true").table(handler(name, &plugin, keys))
    }

    /// Adds a handler of the test guest, which may publish to `out/#` of `broker`. What the guest does is in its `config`,
    /// given as the inside of an inline table: [`ECHO`].
    pub fn guest(self, name: &str, broker: &str, config: &str, keys: &str) -> Config {
        let allow = format!("allow = {{ publish = [\"{broker}:out/#\"] }}");
        self.handler(name, "misbehave.wasm", &format!("{allow}\nconfig = {{ {config} }}\n{keys}"))
    }

    /// As [`Config::guest`], of a handler that may remember so much, such as `64KiB`.
    pub fn remembering(self, name: &str, broker: &str, config: &str, kv: &str, keys: &str) -> Config {
        let allow = format!("allow = {{ publish = [\"{broker}:out/#\"], kv = \"{kv}\" }}");
        self.handler(name, "misbehave.wasm", &format!("{allow}\nconfig = {{ {config} }}\n{keys}"))
    }

    /// Adds a subscription that runs a handler.
    pub fn subscription(self, broker: &str, topic: &str, qos: u8, handler: &str, keys: &str) -> Config {
        self.table(format!(
            "[[subscriptions]]\nbroker = \"{broker}\"\ntopic = \"{topic}\"\nqos = {qos}\non-message = \"{handler}\"\n{keys}\n"
        ))
    }

    /// Has the daemon keep its state in this folder.
    pub fn state(self, folder: PathBuf) -> Config {
        Config { state: Some(folder), ..self }
    }

    /// Gives the daemon an environment variable.
    pub fn variable(mut self, name: &str, value: impl Display) -> Config {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds tables as they are.
    pub fn table(mut self, toml: impl Display) -> Config {
        writeln!(self.tables, "{toml}").expect("a string takes all");
        self
    }
}

/// A handler's table. Its calls get the time that they may take on a loaded machine, unless the keys say how long that is.
fn handler(name: &str, plugin: &str, keys: &str) -> String {
    let patience = if keys.contains("call-deadline") { "" } else { "call-deadline = \"20s\"\n" };
    format!("[handlers.{name}]\nplugin = \"{plugin}\"\n{patience}{keys}\n")
}
