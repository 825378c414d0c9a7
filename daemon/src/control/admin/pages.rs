//! The pages for machines that watch the daemon: `/metrics`, `/healthz`, `/readyz`.
//!
//! Reads meters and the sessions' status; changes nothing.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::problem::HttpError;
use crate::control::live::Obstacle;
use crate::telemetry::metrics::Metrics;

/// What the pages are made from.
pub struct Pages {
    /// Rendered by `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Told by `/readyz`.
    pub obstacles: Box<dyn Fn() -> Vec<Obstacle> + Send + Sync>,
    /// Told there too, below, whatever the answer is.
    pub details: Box<dyn Fn() -> Vec<String> + Send + Sync>,
}

impl Pages {
    /// Their routes.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .with_state(Arc::new(self))
    }
}

async fn metrics(State(pages): State<Arc<Pages>>) -> Response {
    match pages.metrics.render() {
        Ok(page) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be rendered");
            HttpError::Defect("the metrics cannot be rendered".to_owned()).into_response()
        }
    }
}

async fn ready(State(pages): State<Arc<Pages>>) -> Response {
    let obstacles = (pages.obstacles)();
    let details: String = (pages.details)().iter().map(|detail| format!("{detail}\n")).collect();
    if obstacles.is_empty() {
        return format!("ready\n{details}").into_response();
    }
    let page: String = obstacles.iter().map(|obstacle| format!("{obstacle}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, page + &details).into_response()
}
