//! The configuration that the demo runs with, and the plugins that it needs.
//!
//! The text is a real configuration file, loaded like any other; the demo fills in its ports and folders.

use std::env;
use std::path::{Path, PathBuf};

/// The text, with places for [`Values`] in angle brackets.
const TEMPLATE: &str = include_str!("demo.toml");

/// The plugins that the text names.
const PLUGINS: [&str; 4] = ["celsius.wasm", "envelope.wasm", "relay.wasm", "threshold.wasm"];

/// What differs from run to run.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// Where the gateway keeps its state.
    pub state_dir: &'a Path,
    /// Where the plugins are.
    pub plugins_dir: &'a Path,
    /// The port of the broker of the devices.
    pub plant_port: u16,
    /// The port of the broker that gets the alarms.
    pub cloud_port: u16,
    /// The port for metrics and health.
    pub admin_port: u16,
}

impl<'a> Values<'a> {
    /// The values of an installation: the ports that everybody expects.
    pub fn usual(plugins_dir: &'a Path) -> Values<'a> {
        Values {
            state_dir: Path::new("tidegate-state"),
            plugins_dir,
            plant_port: 1883,
            cloud_port: 1884,
            admin_port: 9883,
        }
    }

    /// The configuration file's text.
    pub fn fill_in(&self) -> String {
        TEMPLATE
            .replace("<state-dir>", &quoted(self.state_dir))
            .replace("<plugins-dir>", &quoted(self.plugins_dir))
            .replace("<plant-port>", &self.plant_port.to_string())
            .replace("<cloud-port>", &self.cloud_port.to_string())
            .replace("<admin-port>", &self.admin_port.to_string())
    }
}

/// A path as a TOML string, whose escapes are those of JSON.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}

/// Where `cargo xtask build-plugins` puts plugins, as seen from a binary in `target/release`; otherwise the folder of that
/// name below the current one.
pub fn default_plugins_dir() -> PathBuf {
    let beside_binary = env::current_exe().ok().and_then(|binary| Some(binary.parent()?.parent()?.join("plugins")));
    let candidates = [beside_binary, Some(PathBuf::from("target/plugins"))];
    candidates.into_iter().flatten().find(|folder| folder.is_dir()).unwrap_or_else(|| PathBuf::from("plugins"))
}

/// The plugins that are not in this folder, in alphabetical order.
pub fn missing_plugins(plugins_dir: &Path) -> Vec<&'static str> {
    PLUGINS.into_iter().filter(|plugin| !plugins_dir.join(plugin).is_file()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::config::load;

    fn filled_in() -> toml::Table {
        let usual = Values::usual(Path::new("plugins"));
        let values = Values { state_dir: Path::new("a \"quoted\"\\folder"), ..usual };
        values.fill_in().parse().expect("valid TOML")
    }

    #[test]
    fn every_place_is_filled_in() {
        let table = filled_in();
        assert_eq!(table["state-dir"].as_str(), Some("a \"quoted\"\\folder"));
        assert_eq!(table["plugins-dir"].as_str(), Some("plugins"));
        assert_eq!(table["brokers"]["plant"]["port"].as_integer(), Some(1883));
        assert_eq!(table["brokers"]["cloud"]["port"].as_integer(), Some(1884));
        assert_eq!(table["admin"]["listen"].as_str(), Some("127.0.0.1:9883"));
    }

    #[test]
    fn the_text_is_a_valid_configuration_without_warnings() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("tidegate.toml");
        std::fs::write(&file, Values::usual(Path::new("plugins")).fill_in()).expect("writable");
        let loaded = load(&file).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(loaded.warnings, []);
        assert_eq!(loaded.config.subscriptions.len(), 4);
    }

    #[test]
    fn the_list_of_plugins_is_that_of_the_text() {
        let table = filled_in();
        let mut plugins: Vec<&str> = table["handlers"]
            .as_table()
            .expect("a table")
            .values()
            .filter_map(|handler| handler["plugin"].as_str())
            .collect();
        plugins.sort_unstable();
        assert_eq!(plugins, PLUGINS);
    }

    #[test]
    fn missing_plugins_are_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("relay.wasm"), "").expect("writable");
        assert_eq!(missing_plugins(folder.path()), ["celsius.wasm", "envelope.wasm", "threshold.wasm"]);
    }
}
