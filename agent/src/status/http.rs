//! The loopback pages: `/metrics`, `/healthz`, `/readyz`, `/`.
use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{Html, IntoResponse},
    routing::get,
};
use hark_protocol::topics::Name;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Link, Status, metrics, page};

#[derive(Clone)]
struct Pages {
    status: Arc<Status>,
    gateway: Name,
}

/// Binds the address.
///
/// # Errors
/// What the system says, for example that the port is taken.
pub async fn bind(listen: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(listen).await
}

/// Serves until `stop`.
///
/// # Errors
/// If the listener fails.
pub async fn serve(listener: TcpListener, status: Arc<Status>, gateway: Name, stop: CancellationToken) -> std::io::Result<()> {
    let pages = Router::new()
        .route("/", get(async |State(pages): State<Pages>| Html(page::page(&pages.status, &pages.gateway))))
        .route("/metrics", get(async |State(pages): State<Pages>| metrics_page(&pages)))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async |State(pages): State<Pages>| ready(&pages)))
        .with_state(Pages { status, gateway });
    axum::serve(listener, pages).with_graceful_shutdown(async move { stop.cancelled().await }).await
}

fn metrics_page(pages: &Pages) -> impl IntoResponse + use<> {
    match metrics::scrape(&pages.status) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Ready: the log takes what is appended and every configured source is connected. Kafka may be away for days without making the agent less ready.
fn ready(pages: &Pages) -> impl IntoResponse + use<> {
    let mut waiting: Vec<&str> =
        pages.status.sources.iter().filter(|s| !s.connected.load(std::sync::atomic::Ordering::Relaxed)).map(|s| &*s.name).collect();
    if pages.status.is_stalled() {
        waiting.push("the disk, which takes nothing");
    }
    let kafka = pages.status.link();
    let note = if kafka == Link::Connected { String::new() } else { format!("kafka: {}\n", kafka.as_str()) };
    if waiting.is_empty() {
        (StatusCode::OK, format!("ready\n{note}"))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n{note}", waiting.join(", ")))
    }
}
