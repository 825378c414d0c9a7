//! `schedules`.

use axum::Json;
use axum::extract::State;

use super::{Api, Failed, named};
use crate::control::admin::extract::Name;
use crate::control::admin::resource::{Schedule, ScheduleRun};

/// All schedules, when they are due, and what came of their runs.
#[utoipa::path(get, path = "/api/v1/schedules", responses((status = 200, body = [Schedule])))]
pub(super) async fn list_schedules(State(api): State<Api>) -> Json<Vec<Schedule>> {
    Json(api.operations().schedules())
}

/// One schedule.
#[utoipa::path(
    get,
    path = "/api/v1/schedules/{name}",
    params(("name" = String, Path, description = "The schedule's name, percent-encoded")),
    responses((status = 200, body = Schedule))
)]
pub(super) async fn get_schedule(State(api): State<Api>, Name(name): Name) -> Result<Json<Schedule>, Failed> {
    named(api.operations().schedules(), "schedule", &name, |schedule| &schedule.name).map(Json)
}

/// Runs a schedule at once, whenever it is due, and waits for what comes of it; a run that fails is answered with its error.
#[utoipa::path(
    post,
    path = "/api/v1/schedules/{name}/run",
    params(("name" = String, Path, description = "The schedule's name, percent-encoded")),
    responses((status = 200, body = ScheduleRun))
)]
pub(super) async fn run_schedule(State(api): State<Api>, Name(name): Name) -> Result<Json<ScheduleRun>, Failed> {
    Ok(Json(api.operations().run_schedule(&name).await?))
}
