//! Options of a request, in its query and for deletions in its body. A wrong one is an invalid object of the group
//! `meta.k8s.io`, found before anything else is looked at.

use http::Method;
use serde_json::{Value, json};

use crate::{
    registry::{DeleteOptions, Validation},
    request::Query,
    status::{ApiError, FieldError, Result},
};

/// What every writing request says beside its body.
#[derive(Debug, Clone, Copy)]
pub(super) struct WriteOptions {
    pub(super) dry_run: bool,
    pub(super) validation: Validation,
}

/// Of a request with this method; `media` is the type of its body.
pub(super) fn write(method: &Method, query: &Query, body: &Value, media: &str) -> Result<WriteOptions> {
    let mut errors = Vec::new();
    let dry_run = match query
        .get("dryRun")
        .or(body["dryRun"][0].as_str().filter(|_| *method == Method::DELETE))
    {
        None => false,
        Some("All") => true,
        Some(other) => {
            errors.push(unsupported("dryRun", &json!([other]), &["All"]));
            false
        }
    };
    let validation = match query.get("fieldValidation") {
        None | Some("Warn") => Validation::Warn,
        Some("Strict") => Validation::Strict,
        Some("Ignore") => Validation::Ignore,
        Some(other) => {
            errors.push(unsupported(
                "fieldValidation",
                &json!(other),
                &["", "Ignore", "Strict", "Warn"],
            ));
            Validation::Warn
        }
    };
    let applies = media.starts_with("application/apply-patch");
    if *method == Method::PATCH && applies && query.get("fieldManager").is_none() {
        errors.push(FieldError::required("fieldManager", "is required for apply patch"));
    }
    if *method == Method::PATCH && !applies && query.get("force").is_some() {
        errors.push(FieldError::forbidden(
            "force",
            "may not be specified for non-apply patch",
        ));
    }
    let kind = match *method {
        Method::POST => "CreateOptions",
        Method::PUT => "UpdateOptions",
        Method::DELETE => "DeleteOptions",
        _ => "PatchOptions",
    };
    refuse(kind, errors).map(|()| WriteOptions { dry_run, validation })
}

/// Of a deletion.
pub(super) fn delete(query: &Query, body: &Value) -> Result<DeleteOptions> {
    let policy = query.get("propagationPolicy").or(body["propagationPolicy"].as_str());
    let mut errors = Vec::new();
    if let Some(policy) = policy.filter(|p| !matches!(*p, "Foreground" | "Background" | "Orphan")) {
        let known = ["Foreground", "Background", "Orphan", "nil"];
        errors.push(unsupported("propagationPolicy", &json!(policy), &known));
    }
    if policy.is_some() && (body["orphanDependents"].is_boolean() || query.get("orphanDependents").is_some()) {
        let why = "orphanDependents and deletionPropagation cannot be both set";
        errors.push(FieldError::invalid("propagationPolicy", &json!(policy), why));
    }
    refuse("DeleteOptions", errors)?;
    if policy == Some("Foreground") {
        return Err(ApiError::not_implemented(
            "the lab's API server has no garbage collector: delete dependents yourself, and use propagationPolicy \
             Background or Orphan (kubectl delete --cascade=background)",
        ));
    }
    let text = |name: &str| body["preconditions"][name].as_str().map(str::to_owned);
    let seconds = query.number("gracePeriodSeconds")?;
    Ok(DeleteOptions {
        grace_seconds: seconds
            .and_then(|s| i64::try_from(s).ok())
            .or(body["gracePeriodSeconds"].as_i64()),
        uid: text("uid"),
        resource_version: text("resourceVersion"),
    })
}

/// Of a list or watch.
pub(super) fn list(query: &Query) -> Result<()> {
    let (found, version) = (query.get("resourceVersionMatch"), query.get("resourceVersion"));
    let (watch, paged) = (query.flag("watch"), query.get("continue").is_some());
    let initial = query.get("sendInitialEvents").is_some();
    let mut errors = Vec::new();
    let mut forbid = |field: &str, why: &str| errors.push(FieldError::forbidden(field, why));
    let known: &[&str] = if watch {
        &["NotOlderThan"]
    } else {
        &["Exact", "NotOlderThan", ""]
    };
    if watch && initial {
        if found != Some("NotOlderThan") {
            forbid(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            );
        }
        if paged {
            forbid("continue", "sendInitialEvents is forbidden when continue is provided");
        }
    } else if watch && found.is_some() {
        forbid(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        );
    } else if initial {
        forbid("sendInitialEvents", "sendInitialEvents is forbidden for list");
    }
    if !watch && found.is_some() && version.is_none() {
        forbid(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        );
    }
    if !watch && found.is_some() && paged {
        forbid(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden when continue is provided",
        );
    }
    if let Some(other) = found.filter(|m| !known.contains(m)) {
        errors.push(unsupported("resourceVersionMatch", &json!(other), known));
    }
    if !watch && found == Some("Exact") && version == Some("0") {
        let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
        errors.push(FieldError::forbidden("resourceVersionMatch", why));
    }
    refuse("ListOptions", errors)
}

fn unsupported(field: &str, value: &Value, known: &[&str]) -> FieldError {
    let known: Vec<String> = known.iter().map(|k| (*k).to_owned()).collect();
    FieldError::not_supported(field, value, &known)
}

fn refuse(kind: &str, errors: Vec<FieldError>) -> Result<()> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid("meta.k8s.io", kind, "", &errors))
}
