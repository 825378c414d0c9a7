//! `outbox`: what waits to be published.

use axum::Json;
use axum::extract::State;

use super::{Api, Failed};
use crate::control::admin::extract::Name;
use crate::control::admin::resource::{OutboxView, Purged};

/// What waits to be published to each broker, in memory and on the disk; those of brokers that were removed stand last.
#[utoipa::path(get, path = "/api/v1/outbox", responses((status = 200, body = [OutboxView])))]
pub(super) async fn list_outboxes(State(api): State<Api>) -> Json<Vec<OutboxView>> {
    Json(api.operations().outboxes())
}

/// Drops what waits to be published to a broker, also one that was removed. What is on its way to a broker that is connected is
/// not dropped.
#[utoipa::path(
    delete,
    path = "/api/v1/outbox/{broker}",
    params(("broker" = String, Path, description = "The broker's name")),
    responses((status = 200, body = Purged))
)]
pub(super) async fn purge_outbox(State(api): State<Api>, Name(broker): Name) -> Result<Json<Purged>, Failed> {
    Ok(Json(api.operations().purge_outbox(&broker).await?))
}
