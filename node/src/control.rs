//! The agent's control API: HTTP/1.1 and JSON on a root-only Unix socket. The types are [`margay_api::control`]'s.

use std::future::Future;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use margay_api::control::{ApiError, BgpPeer, BgpRoute, Endpoint, Health, IpamBlock, NodeStatus};

/// What the API shows.
pub trait Source: Send + Sync + 'static {
    /// `/v1/health`.
    fn health(&self) -> Health;
    /// `/v1/status`.
    fn status(&self) -> impl Future<Output = NodeStatus> + Send;
    /// `/v1/bgp/peers`.
    fn bgp_peers(&self) -> impl Future<Output = Result<Vec<BgpPeer>, Unavailable>> + Send;
    /// `/v1/bgp/routes`.
    fn bgp_routes(&self) -> impl Future<Output = Result<Vec<BgpRoute>, Unavailable>> + Send;
    /// `/v1/ipam/blocks`.
    fn ipam_blocks(&self) -> impl Future<Output = Result<Vec<IpamBlock>, Unavailable>> + Send;
    /// `/v1/endpoints`.
    fn endpoints(&self) -> impl Future<Output = Result<Vec<Endpoint>, Unavailable>> + Send;
}

/// A part of the agent that cannot answer now, and why. Status 503.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable(pub String);

/// The routes.
pub fn router<S: Source>(source: Arc<S>) -> Router {
    Router::new()
        .route(
            "/v1/health",
            get(async |State(source): State<Arc<S>>| Json(source.health())),
        )
        .route(
            "/v1/status",
            get(async |State(source): State<Arc<S>>| Json(source.status().await)),
        )
        .route(
            "/v1/bgp/peers",
            get(async |State(source): State<Arc<S>>| answer(source.bgp_peers().await)),
        )
        .route(
            "/v1/bgp/routes",
            get(async |State(source): State<Arc<S>>| answer(source.bgp_routes().await)),
        )
        .route(
            "/v1/ipam/blocks",
            get(async |State(source): State<Arc<S>>| answer(source.ipam_blocks().await)),
        )
        .route(
            "/v1/endpoints",
            get(async |State(source): State<Arc<S>>| answer(source.endpoints().await)),
        )
        .fallback(async |uri: axum::http::Uri| {
            let served = "/v1/health, /v1/status, /v1/bgp/peers, /v1/bgp/routes, /v1/ipam/blocks, /v1/endpoints";
            refusal(
                StatusCode::NOT_FOUND,
                format!("{} is not served; there are {served}", uri.path()),
            )
        })
        .method_not_allowed_fallback(async || {
            refusal(
                StatusCode::METHOD_NOT_ALLOWED,
                "everything here is read with GET".to_owned(),
            )
        })
        .with_state(source)
}

/// Serves until dropped.
pub async fn serve<S: Source>(listener: tokio::net::UnixListener, source: Arc<S>) -> std::io::Result<()> {
    axum::serve(listener, router(source)).await
}

fn answer<T: serde::Serialize>(result: Result<T, Unavailable>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(Unavailable(reason)) => refusal(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

fn refusal(status: StatusCode, message: String) -> Response {
    (status, Json(ApiError { message })).into_response()
}

#[cfg(test)]
mod tests {
    use margay_api::control::{BgpState, Probe};
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    struct Fake;

    impl Source for Fake {
        fn health(&self) -> Health {
            let ready = Probe {
                ok: true,
                text: "ready\n".into(),
            };
            Health {
                ready,
                ..Health::default()
            }
        }
        async fn status(&self) -> NodeStatus {
            NodeStatus {
                node: "node1".into(),
                ready: true,
                ..NodeStatus::default()
            }
        }
        async fn bgp_peers(&self) -> Result<Vec<BgpPeer>, Unavailable> {
            let peer = BgpPeer {
                address: "10.1.1.1".into(),
                state: BgpState::Established,
                ..BgpPeer::default()
            };
            Ok(vec![peer])
        }
        async fn bgp_routes(&self) -> Result<Vec<BgpRoute>, Unavailable> {
            Err(Unavailable("the speaker has not started: no Node object".into()))
        }
        async fn ipam_blocks(&self) -> Result<Vec<IpamBlock>, Unavailable> {
            Ok(Vec::new())
        }
        async fn endpoints(&self) -> Result<Vec<Endpoint>, Unavailable> {
            Ok(vec![Endpoint {
                pod: "checkout".into(),
                ..Endpoint::default()
            }])
        }
    }

    async fn ask(path: &std::path::Path, request: &str) -> (u16, Value) {
        let mut stream = UnixStream::connect(path).await.unwrap();
        let text = format!("{request} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            serde_json::from_str(body).unwrap(),
        )
    }

    #[tokio::test]
    async fn every_path_answers_json() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = crate::cni_server::bind(&path).unwrap();
        let server = tokio::spawn(serve(listener, Arc::new(Fake)));
        let probe = crate::probe::ask(&path, crate::probe::Which::Ready, std::time::Duration::from_secs(10)).await;
        assert_eq!(probe.unwrap().text, "ready\n");
        let (status, body) = ask(&path, "GET /v1/status").await;
        assert_eq!(
            (status, &body["node"], &body["ready"]),
            (200, &json!("node1"), &json!(true))
        );
        let (status, body) = ask(&path, "GET /v1/bgp/peers").await;
        assert_eq!((status, &body[0]["state"]), (200, &json!("Established")));
        let (status, body) = ask(&path, "GET /v1/bgp/routes").await;
        assert_eq!(status, 503);
        assert_eq!(body, json!({"message": "the speaker has not started: no Node object"}));
        assert_eq!(ask(&path, "GET /v1/ipam/blocks").await, (200, json!([])));
        let (status, body) = ask(&path, "GET /v1/endpoints").await;
        assert_eq!((status, &body[0]["pod"]), (200, &json!("checkout")));
        let (status, body) = ask(&path, "GET /v2/status").await;
        assert_eq!(status, 404);
        assert!(
            body["message"]
                .as_str()
                .unwrap()
                .starts_with("/v2/status is not served"),
            "{body}"
        );
        assert_eq!(ask(&path, "DELETE /v1/status").await.0, 405);
        server.abort();
    }
}
