//! `/healthz`, `/readyz` and `/metrics` over TCP, at addresses that may change while the agent runs.

mod bounded;

use std::future::{Future, IntoFuture};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use self::bounded::Bounded;
use crate::health::{Health, Report};

/// The probes of kubelet and people.
pub fn health_router(health: Health) -> Router {
    let (live, ready) = (health.clone(), health);
    Router::new()
        .route("/healthz", get(async move || probe(live.liveness())))
        .route("/readyz", get(async move || probe(ready.readiness())))
}

/// Makes the text of one scrape.
pub type Render = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = String> + Send>> + Send + Sync>;

/// Prometheus' text format.
pub fn metrics_router(render: Render) -> Router {
    let content = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let answer = move || {
        let render = render.clone();
        async move { ([(header::CONTENT_TYPE, content)], render().await) }
    };
    Router::new().route("/metrics", get(answer))
}

/// Serves `router` at the current address, moving with it; `None` stops serving. Ends when the sender is gone.
pub async fn serve(
    what: &'static str,
    router: Router,
    mut address: watch::Receiver<Option<SocketAddr>>,
    health: Health,
) {
    loop {
        let wanted = *address.borrow_and_update();
        let Some(wanted) = wanted else {
            health.forget(what);
            if address.changed().await.is_err() {
                return;
            }
            continue;
        };
        let listener = match TcpListener::bind(wanted).await {
            Ok(listener) => listener,
            Err(error) => {
                let why = format!("cannot listen on {wanted}: {error}; free the port or change it");
                health.set(what, crate::health::Condition::Degraded(why));
                tokio::select! {
                    changed = address.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(RETRY) => {}
                }
                continue;
            }
        };
        health.set(what, crate::health::Condition::Ready(format!("on {wanted}")));
        let moved = async {
            // A value that is sent again unchanged is no reason to drop connections.
            while address.changed().await.is_ok() {
                if *address.borrow() != Some(wanted) {
                    return true;
                }
            }
            false
        };
        tokio::select! {
            result = axum::serve(Bounded::new(listener), router.clone()).into_future() => {
                tracing::warn!(%what, ?result, "server ended");
                tokio::time::sleep(RETRY).await;
            }
            goes_on = moved => if !goes_on { return },
        }
    }
}

const RETRY: Duration = Duration::from_secs(5);

fn probe(report: Report) -> Response {
    let status = if report.ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        report.text,
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::health::Condition;

    async fn get(address: SocketAddr, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let text = format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }

    async fn get_soon(address: SocketAddr, path: &str) -> String {
        for _ in 0..500 {
            if let Some(answer) = get(address, path).await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{address}{path} never answered");
    }

    fn free_address() -> SocketAddr {
        std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
    }

    #[tokio::test]
    async fn readiness_explains_itself_and_the_server_moves() {
        let health = Health::default();
        health.set(
            "dataplane",
            Condition::NotReady("the first snapshot is incomplete".into()),
        );
        let (first, second) = (free_address(), free_address());
        let (address, receiver) = watch::channel(Some(first));
        let server = tokio::spawn(serve("health", health_router(health.clone()), receiver, health.clone()));
        let answer = get_soon(first, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(
            answer.contains("[-] dataplane: the first snapshot is incomplete"),
            "{answer}"
        );
        health.set("dataplane", Condition::Ready("in sync".into()));
        assert!(get_soon(first, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get_soon(first, "/healthz").await.starts_with("HTTP/1.1 200"));
        address.send(Some(second)).unwrap();
        assert!(get_soon(second, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert_eq!(get(first, "/readyz").await, None);
        drop(address);
        server.await.unwrap();
    }

    #[tokio::test]
    async fn silent_clients_do_not_keep_others_out() {
        let health = Health::default();
        health.set("dataplane", Condition::Ready(String::new()));
        let at = free_address();
        let (_address, receiver) = watch::channel(Some(at));
        let server = tokio::spawn(serve("health", health_router(health.clone()), receiver, health));
        assert!(get_soon(at, "/readyz").await.starts_with("HTTP/1.1 200"));
        let mut silent = Vec::new();
        for _ in 0..bounded::MOST {
            let mut stream = TcpStream::connect(at).await.unwrap();
            stream.write_all(b"GET /readyz HTTP/1.1\r\n").await.unwrap();
            silent.push(stream);
        }
        let deadline = Duration::from_secs(30);
        let answer = tokio::time::timeout(deadline, get(at, "/readyz"))
            .await
            .unwrap()
            .unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // It was answered only because the silent ones were sent away.
        for mut stream in silent {
            let mut rest = Vec::new();
            let read = stream.read_to_end(&mut rest);
            let _ = tokio::time::timeout(deadline, read)
                .await
                .expect("a silent client stays");
        }
        server.abort();
    }
}
