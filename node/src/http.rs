//! `/healthz`, `/readyz` and `/metrics` over TCP, at addresses that may change while the agent runs.

mod bounded;

use std::future::{Future, IntoFuture};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use socket2::{Domain, Socket, Type};
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
        let listener = match listen(wanted) {
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

/// `[::]` is for both families, whatever bindv6only says on the host, and for IPv4 alone where the kernel has no IPv6.
fn listen(wanted: SocketAddr) -> io::Result<TcpListener> {
    let any = wanted.ip() == Ipv6Addr::UNSPECIFIED;
    let bind = |address: SocketAddr| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if any && address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    match bind(wanted) {
        Err(error) if any && error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32) => {
            bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, wanted.port())))
        }
        bound => bound,
    }
}

const BACKLOG: i32 = 1024;
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
    async fn any_address_is_of_both_families() {
        let health = Health::default();
        let port = free_address().port();
        let (_address, receiver) = watch::channel(Some(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))));
        let server = tokio::spawn(serve("health", health_router(health.clone()), receiver, health));
        for host in ["127.0.0.1", "::1"] {
            let at = SocketAddr::new(host.parse().unwrap(), port);
            assert!(get_soon(at, "/healthz").await.starts_with("HTTP/1.1 200"), "{at}");
        }
        server.abort();
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
        for count in 0..200 {
            let mut stream = TcpStream::connect(at).await.unwrap();
            if count % 2 == 0 {
                stream.write_all(b"GET /readyz HTTP/1.1\r\n").await.unwrap();
            }
            silent.push(stream);
        }
        // As long as kubelet waits for a probe.
        let answer = tokio::time::timeout(Duration::from_secs(1), get(at, "/readyz")).await;
        let answer = answer.expect("an answer in time").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // Those that came first made room.
        for stream in &mut silent[..200 - bounded::MOST] {
            let mut rest = Vec::new();
            let gone = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await;
            let _ = gone.expect("the oldest stays");
        }
        server.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_sent_away() {
        let health = Health::default();
        let at = free_address();
        let (_address, receiver) = watch::channel(Some(at));
        let server = tokio::spawn(serve("health", health_router(health.clone()), receiver, health));
        get_soon(at, "/readyz").await;
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(b"GET /readyz HTTP/1.1\r\n").await.unwrap();
        let mut rest = Vec::new();
        let gone = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut rest)).await;
        let _ = gone.expect("it stays");
        server.abort();
    }
}
