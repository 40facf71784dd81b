//! From a request to the registry and back to an answer.

mod call;
mod documents;
mod lab;
mod options;
mod reads;
mod shown;
mod token;

use bytes::Bytes;
use call::Call;
use http::{HeaderMap, Method, header, request::Parts};
use serde_json::Value;

use super::{
    http::Shared,
    identity::Identity,
    rbac::Action,
    request::{Query, Target},
    status::{ApiError, Result},
    watch::{self, WatchBody},
};

/// What goes back to the client.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: Bytes,
    pub(crate) warnings: Vec<String>,
    pub(crate) watch: Option<WatchBody>,
    /// Seconds after which the client is to try again.
    pub(crate) retry_after: Option<u64>,
}

/// Who asks, and what a fault does to their watches.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) who: &'a Identity,
    /// See [`watch::Watch::cut_after`](crate::watch::Watch).
    pub(crate) cut_after: Option<usize>,
}

impl Answer {
    pub(crate) fn json(code: u16, value: Value) -> Self {
        Self {
            code,
            content_type: "application/json",
            body: value.to_string().into(),
            warnings: vec![],
            watch: None,
            retry_after: None,
        }
    }

    pub(crate) fn error(error: ApiError) -> Self {
        Self {
            retry_after: error.details.as_ref().and_then(|d| d["retryAfterSeconds"].as_u64()),
            ..Self::json(error.code, error.to_json())
        }
    }

    /// A path below which nothing is served.
    fn nothing_here() -> Self {
        Self {
            content_type: "text/plain; charset=utf-8",
            body: "404 page not found\n".into(),
            ..Self::json(404, Value::Null)
        }
    }

    fn stream(watch: WatchBody) -> Self {
        Self {
            watch: Some(watch),
            ..Self::json(200, Value::Null)
        }
    }
}

/// The media type of a body, without parameters.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("application/json");
    value.split(';').next().unwrap_or_default().trim()
}

/// The answer to a request that a fault hit: of a watch, the error is its only event.
pub(crate) fn failed(action: &Action, error: ApiError) -> Result<Answer> {
    let watches = matches!(action, Action::Resource(action) if action.verb == "watch");
    if watches && error.reason == "Expired" {
        return Ok(Answer::stream(watch::failed(&error)));
    }
    Err(error)
}

pub(crate) fn route(head: &Parts, body: &Value, asker: Asker<'_>, shared: &Shared) -> Result<Answer> {
    let path = head.uri.path().trim_end_matches('/');
    if let Some(path) = path.strip_prefix(lab::ROOT) {
        return lab::answer(path, &head.method, body, asker.who, shared);
    }
    if let Some(answer) = documents::find(path, head, shared)? {
        return Ok(answer);
    }
    if path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" && head.method == Method::POST {
        return documents::access_review(body, asker.who, shared);
    }
    let Some(target) = Target::parse(path).filter(|t| shared.registry.serves(&t.group, &t.version)) else {
        return Ok(Answer::nothing_here());
    };
    let found = shared.registry.find(&target.group, &target.version, &target.plural);
    let resource = found.ok_or_else(ApiError::no_such_path)?;
    let call = Call {
        resource,
        target,
        query: Query::parse(head.uri.query().unwrap_or_default()),
        head,
        body,
        asker,
        shared,
    };
    call.run()
}
