//! `config` and `reload`.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, header};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Api, Failed};
use crate::control::admin::extract::Query;
use crate::control::admin::resource::{ReloadReport, Settings};

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

/// How the configuration is read again.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Reloading {
    /// Nothing is changed: the answer is what would be.
    #[serde(default)]
    dry_run: bool,
}

/// Reads the configuration's files again and makes what they say, as SIGHUP does. Whatever is wrong with them, nothing changes.
#[utoipa::path(post, path = "/api/v1/reload", params(Reloading), responses((status = 200, body = ReloadReport)))]
pub(super) async fn reload_configuration(
    State(api): State<Api>,
    Query(Reloading { dry_run }): Query<Reloading>,
) -> Result<Json<ReloadReport>, Failed> {
    Ok(Json(api.operations().reload_configuration(dry_run).await?))
}
