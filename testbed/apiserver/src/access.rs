//! From a request to what it wants to do, and to a refusal in words. The parts are those of Kubernetes' `RequestInfo`.

use http::Method;
use serde_json::{Value, json};

use super::{
    identity::Identity,
    rbac::{self, Action, Decision, ResourceAction},
    registry::Registry,
    request::{Query, Target},
    selector::FieldSelector,
    status::{ApiError, Result, qualified},
};

/// Refuses what the stored roles do not allow.
pub(crate) fn check(registry: &Registry, who: &Identity, action: &Action) -> Result<()> {
    let decision = decide(registry, who, action);
    if decision.allowed {
        return Ok(());
    }
    Err(refusal(who, action, &decision))
}

/// Whether the stored roles allow it.
pub(crate) fn decide(registry: &Registry, who: &Identity, action: &Action) -> Decision {
    let namespace = match action {
        Action::Resource(action) if !who.is_master() => action.namespace.as_str(),
        Action::Resource(_) | Action::Path { .. } => "",
    };
    rbac::decide(&registry.policy(namespace), who, action)
}

/// What a request wants; `path` is without its query.
pub(crate) fn action(method: &Method, path: &str, query: &Query) -> Action {
    let Some(target) = Target::parse(path) else {
        return Action::Path {
            verb: method.as_str().to_lowercase(),
            path: path.to_owned(),
        };
    };
    let one = target.name.is_some();
    let mut name = target.name.unwrap_or_default();
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if one => "delete",
        Method::DELETE => "deletecollection",
        _ if one => "get",
        _ if query.flag("watch") => "watch",
        _ => "list",
    };
    if matches!(verb, "list" | "watch") {
        // A role for one object by its name is enough to watch that one.
        name = FieldSelector::exact_name(query.get("fieldSelector").unwrap_or_default()).unwrap_or_default();
    }
    // A namespace lies in itself.
    let namespace = match target.plural.as_str() {
        "namespaces" if target.group.is_empty() => Some(name.clone()),
        _ => target.namespace,
    };
    Action::Resource(ResourceAction {
        verb: verb.to_owned(),
        group: target.group,
        resource: target.plural,
        subresource: target.subresource.unwrap_or_default(),
        namespace: namespace.unwrap_or_default(),
        name,
    })
}

/// The answer to whoever may not do it.
fn refusal(who: &Identity, action: &Action, decision: &Decision) -> ApiError {
    let because = match decision.reason.as_str() {
        "" => String::new(),
        reason => format!(": {reason}"),
    };
    match action {
        Action::Path { verb, path } => {
            let why = format!("forbidden: User {:?} cannot {verb} path {path:?}{because}", who.name);
            ApiError::new(403, "Forbidden", why).with_details(json!({}))
        }
        Action::Resource(wanted) => {
            let whole = match wanted.subresource.as_str() {
                "" => wanted.resource.clone(),
                sub => format!("{}/{sub}", wanted.resource),
            };
            let place = match wanted.namespace.as_str() {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace {namespace:?}"),
            };
            let name = match wanted.name.as_str() {
                "" => String::new(),
                name => format!(" {name:?}"),
            };
            let what = qualified(&wanted.resource, &wanted.group);
            let why = format!(
                "{what}{name} is forbidden: User {:?} cannot {} resource {whole:?} in API group {:?} {place}{because}",
                who.name, wanted.verb, wanted.group
            );
            let details = json!({"name": wanted.name, "group": wanted.group, "kind": wanted.resource});
            ApiError::new(403, "Forbidden", why).with_details(details)
        }
    }
}

/// What a SelfSubjectAccessReview asks for.
pub(crate) fn asked(review: &Value) -> Action {
    let spec = &review["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let path = &spec["nonResourceAttributes"];
    if path.is_object() {
        return Action::Path {
            verb: text(&path["verb"]),
            path: text(&path["path"]),
        };
    }
    let part = |name: &str| text(&spec["resourceAttributes"][name]);
    Action::Resource(ResourceAction {
        verb: part("verb"),
        group: part("group"),
        resource: part("resource"),
        subresource: part("subresource"),
        namespace: part("namespace"),
        name: part("name"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(method: Method, path: &str) -> String {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let nothing = Decision {
            allowed: false,
            reason: String::new(),
        };
        let action = action(&method, path, &Query::parse(query));
        refusal(&Identity::service_account("n", "a"), &action, &nothing).message
    }

    #[test]
    fn a_refusal_repeats_what_was_wanted() {
        let start = "is forbidden: User \"system:serviceaccount:n:a\" cannot";
        for (method, path, expected) in [
            (
                Method::GET,
                "/api/v1/pods",
                format!("pods {start} list resource \"pods\" in API group \"\" at the cluster scope"),
            ),
            (
                Method::GET,
                "/apis/g.io/v1/namespaces/n/things/t/status",
                format!(
                    "things.g.io \"t\" {start} get resource \"things/status\" in API group \"g.io\" in the namespace \"n\""
                ),
            ),
            (
                Method::GET,
                "/api/v1/namespaces/n/pods?watch=1&fieldSelector=metadata.name%3Dp",
                format!("pods \"p\" {start} watch resource \"pods\" in API group \"\" in the namespace \"n\""),
            ),
            (
                Method::DELETE,
                "/api/v1/namespaces/n/pods",
                format!("pods {start} deletecollection resource \"pods\" in API group \"\" in the namespace \"n\""),
            ),
            (
                Method::GET,
                "/api/v1/namespaces/n",
                format!(
                    "namespaces \"n\" {start} get resource \"namespaces\" in API group \"\" in the namespace \"n\""
                ),
            ),
            (
                Method::GET,
                "/metrics",
                "forbidden: User \"system:serviceaccount:n:a\" cannot get path \"/metrics\"".to_owned(),
            ),
        ] {
            assert_eq!(said(method, path), expected);
        }
    }
}
