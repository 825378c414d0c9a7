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
/// # assert_eq!(error.to_string(), "the handler's config: missing field `limit` at line 1 column 2");
/// ```
///
/// # Errors
/// The table has another shape; as an [`Error`] that is a rejection.
pub fn config<T: DeserializeOwned + 'static>() -> Result<&'static T, ConfigError> {
    let known = READ.with_borrow(|read| read.iter().find_map(|value| value.downcast_ref::<T>()));
    if let Some(value) = known {
        return Ok(value);
    }
    let value: T = serde_json::from_str(&host::config_json())?;
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

/// The handler's configuration is not what it expects.
#[derive(Debug, thiserror::Error)]
#[error("the handler's config: {0}")]
pub struct ConfigError(#[from] serde_json::Error);

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Error {
        reject(error.to_string())
    }
}
