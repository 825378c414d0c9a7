//! `status`.

use axum::Json;
use axum::extract::State;

use super::Api;
use crate::control::admin::resource::Status;

/// Everything at a glance.
#[utoipa::path(get, path = "/api/v1/status", responses((status = 200, body = Status)))]
pub(super) async fn status(State(api): State<Api>) -> Json<Status> {
    Json(api.operations().status())
}
