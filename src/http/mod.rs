//! The process seen from outside: `/metrics`, `/health/live`, `/health/ready`. Only reads; nothing here steers a pipeline.
use std::net::SocketAddr;

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::{HealthBoard, Metrics};

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Anyone who can reach the port could read what is served.
    #[error(
        "refusing to serve on `{0}`, which others can reach, without a token; set STREAMER_HTTP_TOKEN, or listen on 127.0.0.1"
    )]
    TokenRequired(SocketAddr),
    /// The port is taken or the address is not this machine's.
    #[error("cannot listen on `{address}`: {source}; choose another address with --http or STREAMER_HTTP, or `off`")]
    Bind { address: SocketAddr, source: std::io::Error },
}

#[derive(Clone)]
struct Shared {
    metrics: Metrics,
    health: HealthBoard,
    token: Option<String>,
}

/// A server that has its port.
pub struct Server {
    listener: TcpListener,
    router: Router,
}

impl Server {
    /// Takes the port. With a token, every request needs `Authorization: Bearer TOKEN`.
    ///
    /// # Errors
    /// `TokenRequired` for an address that is not loopback, `Bind` when the port cannot be had.
    pub async fn bind(
        address: SocketAddr,
        token: Option<String>,
        metrics: Metrics,
        health: HealthBoard,
    ) -> Result<Self, HttpError> {
        if token.is_none() && !address.ip().is_loopback() {
            return Err(HttpError::TokenRequired(address));
        }
        let listener = TcpListener::bind(address).await.map_err(|source| HttpError::Bind { address, source })?;
        let shared = Shared { metrics, health, token };
        let router = Router::new()
            .route("/metrics", get(metrics_text))
            .route("/health/live", get(|| async { Json(json!({ "live": true })) }))
            .route("/health/ready", get(ready))
            .fallback(|| async { (StatusCode::NOT_FOUND, "try /metrics, /health/live or /health/ready\n") })
            .layer(middleware::from_fn_with_state(shared.clone(), authorize))
            .with_state(shared);
        Ok(Self { listener, router })
    }

    /// The address it listens on; the port is a real one even when 0 was asked for.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let serve = axum::serve(self.listener, self.router).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = serve.await {
            tracing::error!(%error, "the HTTP server has stopped");
        }
    }
}

async fn authorize(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let allowed = shared.token.as_ref().is_none_or(|token| {
        given.and_then(|g| g.strip_prefix(b"Bearer ")).is_some_and(|given| same(given, token.as_bytes()))
    });
    if allowed {
        next.run(request).await
    } else {
        (StatusCode::UNAUTHORIZED, "send `Authorization: Bearer` with the token of STREAMER_HTTP_TOKEN\n")
            .into_response()
    }
}

/// Compares in a time that does not tell how much of the token was right.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |diff, (x, y)| diff | (x ^ y)) == 0
}

async fn metrics_text(State(shared): State<Shared>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], shared.metrics.text())
}

async fn ready(State(shared): State<Shared>) -> impl IntoResponse {
    let report = shared.health.report();
    let faults: Vec<_> =
        report.faults.iter().map(|(component, reason)| json!({ "component": component, "reason": reason })).collect();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let notes: Vec<_> =
        report.notes.iter().map(|(pipeline, note)| json!({ "pipeline": pipeline, "note": note })).collect();
    (status, Json(json!({ "ready": report.ready, "faults": faults, "notes": notes })))
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::gauge::Gauge;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn server(token: Option<&str>) -> (SocketAddr, HealthBoard, CancellationToken) {
        let (health, stop) = (HealthBoard::default(), CancellationToken::new());
        let local = "127.0.0.1:0".parse().unwrap();
        let server = Server::bind(local, token.map(str::to_owned), Metrics::new(), health.clone()).await.unwrap();
        let address = server.address().unwrap();
        tokio::spawn(server.run(stop.clone()));
        (address, health, stop)
    }

    async fn get(address: SocketAddr, path: &str, headers: &str) -> String {
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn readiness_says_what_does_not_work() {
        let (address, health, _stop) = server(None).await;
        let component = health.add("p/output/table", Gauge::default());
        component.fault("clickhouse does not answer");
        let answer = get(address, "/health/ready", "").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("clickhouse does not answer"), "{answer}");
        component.ok();
        assert!(get(address, "/health/ready", "").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/health/live", "").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/metrics", "").await.contains("# EOF"));
        assert!(get(address, "/nothing", "").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn a_token_is_asked_of_every_request() {
        let (address, _, _stop) = server(Some("secret")).await;
        for headers in ["", "Authorization: Bearer wrong!\r\n", "Authorization: secret\r\n"] {
            assert!(get(address, "/metrics", headers).await.starts_with("HTTP/1.1 401"), "{headers}");
        }
        assert!(get(address, "/metrics", "Authorization: Bearer secret\r\n").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn an_open_address_without_a_token_is_refused() {
        let open = "0.0.0.0:0".parse().unwrap();
        let error = Server::bind(open, None, Metrics::new(), HealthBoard::default()).await.err().unwrap();
        assert!(matches!(error, HttpError::TokenRequired(_)));
    }
}
