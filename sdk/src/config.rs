//! The handler's `[handlers.NAME.config]` table.
//!
//! Owns: the values that were read, for the life of the instance. Fed by the daemon, which never changes the table under a
//! running instance.

use std::any::Any;
use std::cell::RefCell;

use serde::de::DeserializeOwned;

use crate::{Error, host, reject};

thread_local! {
    /// One entry for each type that was asked for; written once, never released before the instance ends.
    static READ: RefCell<Vec<&'static dyn Any>> = const { RefCell::new(Vec::new()) };
}

/// The handler's configuration, read once per instance.
///
/// Read it in `init` or `state` too: a mistake is then found when the handler is loaded, before any message.
///
/// ```
/// use serde::Deserialize;
/// use tidegate_sdk::{Message, Result, config, testing::{Host, message}};
///
/// #[derive(Deserialize)]
/// #[serde(rename_all = "kebab-case", deny_unknown_fields)]
/// struct Config {
///     limit: f64,
///     #[serde(default)]
///     dry_run: bool,
/// }
///
/// fn init() -> Result {
///     config::<Config>()?;
///     Ok(())
/// }
///
/// fn handle(_: &Message) -> Result {
///     let Config { limit, dry_run } = config()?;
///     # assert!((*limit, *dry_run) == (30.0, false));
///     Ok(())
/// }
///
/// tidegate_sdk::handler!(handle, init = init);
/// # let host = Host::new().config(&tidegate_sdk::serde_json::json!({ "limit": 30.0 }));
/// # host.call(handle, &message("a", "")).result.unwrap();
/// # let error = Host::new().run(init).result.unwrap_err();
/// # assert_eq!(error.to_string(), "the handler's config: missing field `limit`");
/// ```
///
/// # Errors
/// The table has another shape; as an [`Error`] that is a rejection.
pub fn config<T: DeserializeOwned + 'static>() -> Result<&'static T, ConfigError> {
    let known = READ.with_borrow(|read| read.iter().find_map(|value| value.downcast_ref::<T>()));
    if let Some(value) = known {
        return Ok(value);
    }
    // By way of a value: a position in the JSON that the daemon made of the table means nothing to its author.
    let table: serde_json::Value = serde_json::from_str(&host::config_json()).map_err(ConfigError::whole)?;
    let value: T = serde_path_to_error::deserialize(table).map_err(ConfigError::at)?;
    // Instances end with all of their memory, so this is freed when it should be.
    let value: &'static T = Box::leak(Box::new(value));
    READ.with_borrow_mut(|read| read.push(value));
    Ok(value)
}

/// Forgets what was read: a new instance starts.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn forget() {
    READ.with_borrow_mut(Vec::clear);
}

/// A new instance starts on this thread. What was read of the same table stays: natively nothing ends with an instance, and one that
/// fails again and again must not leave more behind each time.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn begin(table: String) {
    thread_local! {
        /// What `READ` was read of.
        static TABLE: RefCell<String> = const { RefCell::new(String::new()) };
    }
    if TABLE.with_borrow(|known| *known != table) {
        TABLE.set(table);
        forget();
    }
}

/// The handler's configuration is not what it expects.
#[derive(Debug, thiserror::Error)]
#[error("the handler's config: {key}{source}")]
pub struct ConfigError {
    /// `KEY: `, or nothing where the mistake is in the table as a whole.
    key: String,
    source: serde_json::Error,
}

impl ConfigError {
    fn whole(source: serde_json::Error) -> ConfigError {
        ConfigError { key: String::new(), source }
    }

    fn at(error: serde_path_to_error::Error<serde_json::Error>) -> ConfigError {
        let path = error.path();
        let key = if path.iter().next().is_some() { format!("{path}: ") } else { String::new() };
        ConfigError { key, source: error.into_inner() }
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Error {
        reject(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::Host;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Config {
        limit: f64,
        #[serde(default)]
        rooms: Vec<String>,
    }

    #[track_caller]
    fn check(table: Value, expected: Result<f64, &str>) {
        let read = Host::new().config(&table).run(|| config::<Config>().map(|config| config.limit)).result;
        let expected = expected.map_err(|error| format!("the handler's config: {error}"));
        assert_eq!(read.map_err(|error| error.to_string()), expected);
    }

    #[test]
    fn a_mistake_is_named_by_its_key() {
        check(json!({ "limit": 3 }), Ok(3.0));
        check(json!({}), Err("missing field `limit`"));
        check(json!({ "limit": "hot" }), Err("limit: invalid type: string \"hot\", expected f64"));
        check(json!({ "limit": 3, "rooms": ["a", 2] }), Err("rooms[1]: invalid type: integer `2`, expected a string"));
        check(json!({ "limit": 3, "room": [] }), Err("room: unknown field `room`, expected `limit` or `rooms`"));
    }

    #[test]
    fn it_is_read_once() {
        let outcome = Host::new()
            .config(&json!({ "limit": 3 }))
            .run(|| std::ptr::eq(config::<Config>().expect("it is sound"), config::<Config>().expect("it is sound")));
        assert!(outcome.result);
    }
}
