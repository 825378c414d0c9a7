//! What the HTTP API says of the merged configuration.
//!
//! Owns field names, as its parent does.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Origin;

/// One key of the merged configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Setting {
    /// Its path, such as `brokers.plant.port`.
    pub key: String,
    /// As written; `***` in place of a secret.
    pub value: serde_json::Value,
    pub origin: Origin,
}

/// The merged configuration.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Settings {
    pub settings: Vec<Setting>,
}
