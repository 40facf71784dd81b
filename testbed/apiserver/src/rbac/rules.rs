//! Rules of roles, and what they allow.

use std::sync::Arc;

use serde_json::Value;

use super::{Action, Policy, ResourceAction, text};
use crate::selector::LabelSelector;

/// The rules of the role that a binding refers to; `None` when there is no such role.
pub(super) fn of_role(policy: &Policy, role: &Value, namespace: &str) -> Option<Vec<Value>> {
    let named = |r: &&Arc<Value>| r["metadata"]["name"] == role["name"];
    match text(&role["kind"]) {
        "ClusterRole" => {
            let found = policy.cluster_roles.iter().find(named)?;
            Some(aggregated(policy, found, &mut Vec::new()))
        }
        "Role" if !namespace.is_empty() => policy.roles.iter().find(named).map(|r| own(r)),
        _ => None,
    }
}

/// The rules of a cluster's role: those of the roles that it gathers, or else its own.
fn aggregated<'a>(policy: &'a Policy, role: &'a Value, seen: &mut Vec<&'a str>) -> Vec<Value> {
    let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array();
    let Some(selectors) = selectors else {
        return own(role);
    };
    let name = text(&role["metadata"]["name"]);
    if seen.contains(&name) {
        return Vec::new();
    }
    seen.push(name);
    let selectors: Vec<LabelSelector> = selectors.iter().map(LabelSelector::of_object).collect();
    let gathered = |r: &&Arc<Value>| r["metadata"]["name"] != name && selectors.iter().any(|s| s.matches(r));
    let gathered = policy.cluster_roles.iter().filter(gathered);
    gathered.flat_map(|r| aggregated(policy, r, seen)).collect()
}

fn own(role: &Value) -> Vec<Value> {
    role["rules"].as_array().cloned().unwrap_or_default()
}

/// Whether one rule allows it. Paths are only for who is bound to them in the whole cluster.
pub(super) fn allows(rule: &Value, namespace: &str, action: &Action) -> bool {
    match action {
        Action::Path { verb, path } => {
            let fits = |allowed: &str| match allowed.strip_suffix('*') {
                Some(start) => path.starts_with(start),
                None => allowed == path,
            };
            namespace.is_empty()
                && says(&rule["verbs"], |v| v == "*" || v == verb)
                && says(&rule["nonResourceURLs"], fits)
        }
        Action::Resource(action) => {
            let ResourceAction {
                verb,
                group,
                resource,
                subresource,
                name,
                ..
            } = action;
            let combined = match subresource.as_str() {
                "" => resource.clone(),
                sub => format!("{resource}/{sub}"),
            };
            let any = format!("*/{subresource}");
            let resource_fits = |r: &str| r == "*" || r == combined || !subresource.is_empty() && r == any;
            says(&rule["verbs"], |v| v == "*" || v == verb)
                && says(&rule["apiGroups"], |g| g == "*" || g == group)
                && says(&rule["resources"], resource_fits)
                && (is_empty(&rule["resourceNames"]) || says(&rule["resourceNames"], |n| n == name))
        }
    }
}

fn says(list: &Value, fits: impl Fn(&str) -> bool) -> bool {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .any(fits)
}

fn is_empty(list: &Value) -> bool {
    list.as_array().is_none_or(Vec::is_empty)
}
