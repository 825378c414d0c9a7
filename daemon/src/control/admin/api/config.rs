//! `config`.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, header};

use super::Api;
use crate::control::admin::resource::Settings;

/// The merged configuration: every key that is set, and where. Secrets are masked.
#[utoipa::path(get, path = "/api/v1/config", responses((status = 200, body = Settings)))]
pub(super) async fn config(State(api): State<Api>) -> Json<Settings> {
    Json(Settings { settings: api.operations().settings() })
}

/// The merged configuration as one TOML file. Secrets are masked.
#[utoipa::path(
    get,
    path = "/api/v1/config/export",
    responses((status = 200, body = String, content_type = "application/toml"))
)]
pub(super) async fn export_config(State(api): State<Api>) -> ([(HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, "application/toml")], api.operations().export())
}
