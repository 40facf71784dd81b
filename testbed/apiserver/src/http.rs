//! Connections: accept, TLS, authentication, bounded bodies, and answers.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Either, Full, combinators::MapErr};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{
    access,
    faults::Faults,
    identity::Identity,
    protobuf,
    registry::Registry,
    request::Query,
    router::{self, Answer},
    status::{ApiError, Result},
    time,
    tokens::Tokens,
    watch::WatchBody,
};

/// As the real server's `--max-request-bytes`.
const BODY_LIMIT: usize = 3 * 1024 * 1024;
const DRAIN_LIMIT: usize = 16 * BODY_LIMIT;
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// A connection without a request for this long is closed.
const IDLE_LIMIT: Duration = Duration::from_secs(600);

/// What every connection shares.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) registry: Registry,
    /// The administrator's.
    pub(super) token: String,
    pub(super) tokens: Tokens,
    pub(super) faults: Faults,
    /// Every watch is cut when it changes.
    pub(super) cut: tokio::sync::watch::Sender<u64>,
    pub(super) bookmark_interval: Duration,
}

impl Shared {
    /// Ends the connection of every watch, as a server that goes down does.
    pub(super) fn cut_watches(&self) {
        self.cut.send_modify(|count| *count += 1);
    }

    /// Goes back to what was at an earlier revision, from which versions go on: a datastore put back from a backup.
    /// Watches are cut.
    pub(super) fn restore(&self, revision: u64) -> Result<()> {
        self.registry.restore(revision, || self.cut_watches())
    }
}

/// Accepts until the runtime ends.
pub(super) async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, acceptor.clone(), shared.clone()));
            }
            Err(error) => {
                // Out of file descriptors, most likely: others must close first.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await else {
        return;
    };
    let service = hyper::service::service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(respond(request, &shared).await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(IDLE_LIMIT);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "connection ended");
    }
}

/// Only a watch's body can fail.
type ResponseBody = Either<MapErr<Full<Bytes>, fn(Infallible) -> io::Error>, WatchBody>;

async fn respond(request: Request<Incoming>, shared: &Shared) -> Response<ResponseBody> {
    let line = format!("{} {}", request.method(), request.uri());
    let answer = answer(request, shared).await.unwrap_or_else(Answer::error);
    tracing::debug!(request = line, code = answer.code, "served");
    let body = match answer.watch {
        Some(watch) => Either::Right(watch),
        None => Either::Left(Full::new(answer.body).map_err(never as fn(Infallible) -> io::Error)),
    };
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(answer.code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    if let Some(seconds) = answer.retry_after {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    for warning in answer.warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            headers.append(header::WARNING, value);
        }
    }
    response
}

fn never(error: Infallible) -> io::Error {
    match error {}
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Result<Answer> {
    let who = authenticate(&request, shared)?;
    let (head, body) = request.into_parts();
    let body = read_body(body).await?;
    let query = Query::parse(head.uri.query().unwrap_or_default());
    let action = access::action(&head.method, head.uri.path(), &query);
    let blow = shared.faults.strike(&who, &action);
    tokio::time::sleep(blow.delay).await;
    if let Some(error) = blow.error {
        return router::failed(&action, error);
    }
    access::check(&shared.registry, &who, &action)?;
    let asker = router::Asker {
        who: &who,
        cut_after: blow.cut_after,
    };
    router::route(&head, &parse_body(&head, &body)?, asker, shared)
}

/// A client that is still writing does not see the answer, so what is too long is read on for a while and dropped.
async fn read_body(mut body: Incoming) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| ApiError::bad_request(format!("cannot read the request's body: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length <= BODY_LIMIT {
            bytes.extend_from_slice(&data);
        } else if length > DRAIN_LIMIT {
            break;
        }
    }
    if length > BODY_LIMIT {
        let why = format!("Request entity too large: limit is {BODY_LIMIT}");
        return Err(ApiError::new(413, "RequestEntityTooLarge", why));
    }
    Ok(bytes)
}

/// Who a request's token stands for; who brings none is nobody in particular, and a token that nobody issued is refused.
fn authenticate(request: &Request<Incoming>, shared: &Shared) -> Result<Identity> {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("Bearer "));
    let Some(given) = given.map(str::trim).filter(|t| !t.is_empty()) else {
        return Ok(Identity::anonymous());
    };
    if equal(given, &shared.token) {
        return Ok(Identity::administrator());
    }
    let account = shared.tokens.read(given, time::unix_now());
    match account.filter(|account| shared.registry.knows(account)) {
        Some(account) => Ok(Identity::service_account(&account.namespace, &account.name)),
        None => Err(ApiError::new(401, "Unauthorized", "Unauthorized")),
    }
}

/// Without an early exit, so that the time taken tells nothing of the token.
fn equal(given: &str, token: &str) -> bool {
    let differences = given.bytes().zip(token.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    given.len() == token.len() && differences == 0 && !token.is_empty()
}

/// JSON, protobuf, or YAML where a client says so; `Null` when empty.
fn parse_body(head: &http::request::Parts, bytes: &[u8]) -> Result<Value> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let media = router::content_type(&head.headers);
    if media == "application/vnd.kubernetes.protobuf" {
        return protobuf::decode(bytes);
    }
    let writes = matches!(head.method, Method::POST | Method::PUT);
    if writes && !matches!(media, "application/json" | "application/yaml") {
        let why = "the body of the request was in an unknown format - accepted media types include: application/json, \
                   application/yaml, application/vnd.kubernetes.protobuf";
        return Err(ApiError::new(415, "UnsupportedMediaType", why));
    }
    let json = serde_json::from_slice(bytes);
    if json.is_err() && media.contains("yaml") {
        let text = String::from_utf8_lossy(bytes);
        return serde_saphyr::from_str(&text).map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}")));
    }
    json.map_err(|e| ApiError::bad_request(format!("error decoding JSON: {e}")))
}
