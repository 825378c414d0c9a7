//! The HTTP server for machines that watch the daemon: `/metrics`, `/healthz`, `/readyz`.
//!
//! Reads meters and the sessions' status; changes nothing. It listens on a loopback address only.

pub mod received;
pub mod resource;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::control::live::Live;
use crate::telemetry::metrics::Metrics;

/// What the pages are made from.
pub struct Pages {
    /// Rendered by `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Told by `/readyz`.
    pub live: Live,
}

/// The server, bound and not yet serving.
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

impl Admin {
    /// Takes the address, so that a start fails where it is in use.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(address: SocketAddr) -> io::Result<Admin> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Admin { listener, address })
    }

    /// The bound address, with the port that the system chose where port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then finishes the requests that it has begun.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve(self, pages: Pages, stop: CancellationToken) -> io::Result<()> {
        let app = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .with_state(Arc::new(pages));
        axum::serve(self.listener, app).with_graceful_shutdown(stop.cancelled_owned()).await
    }
}

async fn metrics(State(pages): State<Arc<Pages>>) -> Response {
    match pages.metrics.render() {
        Ok(page) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be rendered\n").into_response()
        }
    }
}

async fn ready(State(pages): State<Arc<Pages>>) -> Response {
    let obstacles = pages.live.obstacles();
    if obstacles.is_empty() {
        return "ready\n".into_response();
    }
    let page: String = obstacles.iter().map(|obstacle| format!("{obstacle}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, page).into_response()
}
