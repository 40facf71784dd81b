//! What every cluster has from its beginning.

use serde_json::{Value, json};

use super::{Registry, Write};
use crate::status::Result;

const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

impl Registry {
    /// Makes what is not there, and goes on with deletions that a crash cut short.
    pub(super) fn bootstrap(&self) -> Result<()> {
        let mut state = self.lock();
        for name in NAMESPACES {
            let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            state.make("", "Namespace", body)?;
        }
        for (name, group, rules) in roles() {
            let metadata = json!({
                "name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
                "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
            });
            let version = "rbac.authorization.k8s.io/v1";
            let role = json!({"apiVersion": version, "kind": "ClusterRole", "metadata": metadata, "rules": rules});
            let binding = json!({
                "apiVersion": version, "kind": "ClusterRoleBinding", "metadata": metadata,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
                "subjects": group.iter().map(|g| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": g})).collect::<Vec<_>>(),
            });
            state.make("rbac.authorization.k8s.io", "ClusterRole", role)?;
            state.make("rbac.authorization.k8s.io", "ClusterRoleBinding", binding)?;
        }
        state.resume_deletions()
    }
}

impl super::State {
    fn make(&mut self, group: &str, kind: &str, body: Value) -> Result<()> {
        let resource = self.resource(group, kind)?;
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        if self.store.get(&resource.storage, "", name).is_none() {
            self.create(&Write::internal(&resource, "", ""), body)?;
        }
        Ok(())
    }
}

/// Roles of Kubernetes' own, the groups that they are bound to, and their rules.
fn roles() -> [(&'static str, &'static [&'static str], Value); 4] {
    const EVERYBODY: &[&str] = &["system:authenticated", "system:unauthenticated"];
    const KNOWN: &[&str] = &["system:authenticated"];
    let paths = |list: &[&str]| json!([{"verbs": ["get"], "nonResourceURLs": list}]);
    let reviews = |group: &str, list: &[&str]| json!({"verbs": ["create"], "apiGroups": [group], "resources": list});
    let all = json!([
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, {"verbs": ["*"], "nonResourceURLs": ["*"]},
    ]);
    let discovery = [
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
    ];
    [
        ("cluster-admin", &["system:masters"], all),
        (
            "system:basic-user",
            KNOWN,
            json!([reviews("authorization.k8s.io", &["selfsubjectaccessreviews"])]),
        ),
        ("system:discovery", KNOWN, paths(&discovery)),
        (
            "system:public-info-viewer",
            EVERYBODY,
            paths(&["/healthz", "/livez", "/readyz", "/version", "/version/"]),
        ),
    ]
}
