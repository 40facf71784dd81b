//! The lab's own paths, for its administrator alone: faults on purpose, and going back to an earlier version.

use http::Method;
use serde_json::{Value, json};

use super::Answer;
use crate::{
    faults,
    http::Shared,
    identity::Identity,
    status::{ApiError, Result},
};

/// Below it lies what Kubernetes does not have.
pub(super) const ROOT: &str = "/margay-lab";

/// `GET`, `POST` and `DELETE /faults` list, add and clear; `POST /cut` cuts all watches; `POST /restore` takes
/// `{"revision": N}`.
pub(super) fn answer(path: &str, method: &Method, body: &Value, who: &Identity, shared: &Shared) -> Result<Answer> {
    if !who.is_master() {
        let why = "only the lab's administrator makes faults";
        return Err(ApiError::new(403, "Forbidden", why));
    }
    let tallies =
        |list: Vec<faults::Tally>| Answer::json(200, json!({"faults": list, "revision": shared.registry.revision()}));
    match (path, method) {
        ("/faults", &Method::GET) => Ok(tallies(shared.faults.list())),
        ("/faults", &Method::DELETE) => Ok(tallies(shared.faults.clear())),
        ("/faults", &Method::POST) => {
            shared.faults.add(faults::parse(body)?);
            Ok(tallies(shared.faults.list()))
        }
        ("/cut", &Method::POST) => {
            shared.cut_watches();
            Ok(tallies(shared.faults.list()))
        }
        ("/restore", &Method::POST) => {
            let revision = body["revision"].as_u64();
            let revision = revision.ok_or_else(|| ApiError::bad_request("revision is missing: a whole number"))?;
            shared.restore(revision)?;
            Ok(tallies(shared.faults.list()))
        }
        _ => Err(ApiError::no_such_path()),
    }
}
