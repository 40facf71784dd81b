//! Role-based access control: whether stored roles and bindings let somebody do something. Pure.

mod rules;

use std::sync::Arc;

use serde_json::Value;

use super::identity::Identity;

/// What a request wants to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Resource(ResourceAction),
    /// On a path that is no resource's, such as `/version`.
    Path {
        verb: String,
        path: String,
    },
}

/// Parts that a request does not say are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResourceAction {
    /// As in a rule: `get`, `list`, `deletecollection`, …
    pub(crate) verb: String,
    pub(crate) group: String,
    /// The plural name.
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// The stored objects that count: those of the cluster, and those of the namespace in which something is to be done.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    pub(crate) cluster_roles: Vec<Arc<Value>>,
    pub(crate) cluster_bindings: Vec<Arc<Value>>,
    pub(crate) roles: Vec<Arc<Value>>,
    pub(crate) bindings: Vec<Arc<Value>>,
}

/// An answer, with the words of the real server's: which binding allows it, or which role is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) allowed: bool,
    pub(crate) reason: String,
}

/// Whether `who` may do it: whether one rule of one role that is bound to them says so.
pub(crate) fn decide(policy: &Policy, who: &Identity, action: &Action) -> Decision {
    let decision = |allowed, reason: String| Decision { allowed, reason };
    if who.is_master() {
        return decision(true, String::new());
    }
    let mut missing = Vec::new();
    let of_cluster = policy.cluster_bindings.iter().map(|b| (b, ""));
    let of_namespace = policy.bindings.iter().map(|b| (b, text(&b["metadata"]["namespace"])));
    for (binding, namespace) in of_cluster.chain(of_namespace) {
        let subjects = binding["subjects"].as_array().into_iter().flatten();
        let Some(subject) = subjects.into_iter().find(|s| is_meant(s, namespace, who)) else {
            continue;
        };
        let role = &binding["roleRef"];
        let Some(rules) = rules::of_role(policy, role, namespace) else {
            let kind = text(&role["kind"]).to_lowercase();
            missing.push(format!("{kind}.rbac.authorization.k8s.io {} not found", role["name"]));
            continue;
        };
        if rules.iter().any(|rule| rules::allows(rule, namespace, action)) {
            return decision(
                true,
                format!("RBAC: allowed by {}", in_words(binding, namespace, subject)),
            );
        }
    }
    let reason = match missing.as_slice() {
        [] => String::new(),
        [one] => format!("RBAC: {one}"),
        several => format!("RBAC: [{}]", several.join(", ")),
    };
    decision(false, reason)
}

/// Whether a binding's subject is this user; `namespace` is the binding's, empty when it is the cluster's.
fn is_meant(subject: &Value, namespace: &str, who: &Identity) -> bool {
    let name = text(&subject["name"]);
    match text(&subject["kind"]) {
        "User" => who.name == name,
        "Group" => who.groups.iter().any(|g| g == name),
        "ServiceAccount" => {
            let own = subject["namespace"]
                .as_str()
                .filter(|n| !n.is_empty())
                .unwrap_or(namespace);
            !own.is_empty() && who.name == format!("system:serviceaccount:{own}:{name}")
        }
        _ => false,
    }
}

fn in_words(binding: &Value, namespace: &str, subject: &Value) -> String {
    let (name, role) = (text(&binding["metadata"]["name"]), &binding["roleRef"]);
    let kind = if namespace.is_empty() {
        format!("ClusterRoleBinding {name:?}")
    } else {
        format!("RoleBinding {:?}", format!("{name}/{namespace}"))
    };
    let whom = match text(&subject["kind"]) {
        "ServiceAccount" => {
            let own = subject["namespace"]
                .as_str()
                .filter(|n| !n.is_empty())
                .unwrap_or(namespace);
            format!("ServiceAccount {:?}", format!("{}/{own}", text(&subject["name"])))
        }
        other => format!("{other} {}", subject["name"]),
    };
    format!("{kind} of {} {} to {whom}", text(&role["kind"]), role["name"])
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests;
