use serde_json::json;

use super::*;

fn objects(list: Value) -> Vec<Arc<Value>> {
    list.as_array().into_iter().flatten().cloned().map(Arc::new).collect()
}

fn policy() -> Policy {
    let labelled =
        |name: &str, labels: Value, rules: Value| json!({"metadata": {"name": name, "labels": labels}, "rules": rules});
    let binding = |name: &str, role: &str, subjects: Value| json!({"metadata": {"name": name}, "roleRef": {"kind": "ClusterRole", "name": role}, "subjects": subjects});
    let agent = json!([{"kind": "ServiceAccount", "namespace": "s", "name": "agent"}]);
    Policy {
        cluster_roles: objects(json!([
            labelled("agent", json!({}), json!([
                {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["list", "watch"]},
                {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
                {"apiGroups": ["g.io"], "resources": ["things"], "resourceNames": ["one"], "verbs": ["get", "list"]},
                {"apiGroups": ["*"], "resources": ["*/scale"], "verbs": ["update"]},
                {"nonResourceURLs": ["/metrics", "/logs/*"], "verbs": ["get"]},
            ])),
            labelled("reader", json!({"to": "sum"}), json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get"]}])),
            {"metadata": {"name": "sum", "labels": {"to": "total"}}, "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]}],
             "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "sum"}}]}},
            {"metadata": {"name": "total", "labels": {"to": "sum"}},
             "aggregationRule": {"clusterRoleSelectors": [{"matchExpressions": [{"key": "to", "operator": "In", "values": ["total"]}]}]}},
        ])),
        cluster_bindings: objects(json!([
            binding("agents", "agent", agent),
            binding("totals", "total", json!([{"kind": "User", "name": "auditor"}])),
            binding(
                "lost",
                "none",
                json!([{"kind": "Group", "name": "system:serviceaccounts:lost"}])
            ),
        ])),
        roles: objects(json!([
            {"metadata": {"name": "edit", "namespace": "n"}, "rules": [
                {"apiGroups": [""], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]},
            ]},
        ])),
        bindings: objects(json!([
            {"metadata": {"name": "edits", "namespace": "n"}, "roleRef": {"kind": "Role", "name": "edit"},
             "subjects": [{"kind": "ServiceAccount", "name": "editor"}, {"kind": "Group", "name": "system:serviceaccounts:team"}]},
            {"metadata": {"name": "reads", "namespace": "n"}, "roleRef": {"kind": "ClusterRole", "name": "reader"},
             "subjects": [{"kind": "ServiceAccount", "name": "viewer"}]},
        ])),
    }
}

/// `VERB GROUP/RESOURCE[/SUBRESOURCE] [NAMESPACE/]NAME`, or `VERB /path`.
fn action(line: &str) -> Action {
    let words: Vec<&str> = line.split(' ').collect();
    if words[1].starts_with('/') && words.len() == 2 {
        return Action::Path {
            verb: words[0].into(),
            path: words[1].into(),
        };
    }
    let mut resource = words[1].split('/');
    let (namespace, name) = words[2].split_once('/').unwrap_or(("", words[2]));
    let mut next = || resource.next().unwrap_or_default().to_owned();
    Action::Resource(ResourceAction {
        verb: words[0].into(),
        group: next(),
        resource: next(),
        subresource: next(),
        namespace: namespace.into(),
        name: name.trim_matches('-').into(),
    })
}

#[test]
fn rules_allow_what_they_say_to_whom_they_are_bound() {
    let policy = policy();
    let account = Identity::service_account;
    let auditor = Identity {
        name: "auditor".into(),
        groups: vec![],
    };
    let cases = [
        (account("s", "agent"), "list /pods n/-", true),
        (account("s", "agent"), "watch /nodes -", true),
        (account("s", "agent"), "get /pods n/a", false),
        (account("s", "agent"), "list /pods/log n/-", false),
        (account("s", "agent"), "patch /nodes/status a", true),
        (account("s", "agent"), "patch /nodes a", false),
        (account("s", "agent"), "get g.io/things one", true),
        (account("s", "agent"), "list g.io/things one", true),
        (account("s", "agent"), "get g.io/things two", false),
        (account("s", "agent"), "list g.io/things -", false),
        (account("s", "agent"), "get other.io/things one", false),
        (account("s", "agent"), "update apps/deployments/scale n/a", true),
        (account("s", "agent"), "update apps/deployments n/a", false),
        (account("s", "agent"), "get /metrics", true),
        (account("s", "agent"), "get /logs/a/b", true),
        (account("s", "agent"), "get /logs", false),
        (account("s", "agent"), "post /metrics", false),
        (account("other", "agent"), "list /pods n/-", false),
        (account("n", "editor"), "delete /secrets n/a", true),
        (account("n", "editor"), "delete apps/deployments n/a", false),
        (account("n", "editor"), "get /metrics", false),
        (account("team", "anyone"), "create /pods n/-", true),
        (account("n", "viewer"), "get apps/deployments n/a", true),
        (account("n", "viewer"), "list /pods n/-", false),
        (auditor.clone(), "get /pods n/a", true),
        (auditor, "list /secrets n/-", false),
        (Identity::anonymous(), "get /pods n/a", false),
        (Identity::administrator(), "delete x.io/y z", true),
    ];
    for (who, line, expected) in cases {
        let decision = decide(&policy, &who, &action(line));
        assert_eq!(decision.allowed, expected, "{}: {line}: {}", who.name, decision.reason);
    }
}

#[test]
fn an_answer_says_which_binding_or_which_missing_role() {
    let policy = policy();
    let says = |who: Identity, line: &str| decide(&policy, &who, &action(line)).reason;
    let account = Identity::service_account;
    assert_eq!(
        says(account("s", "agent"), "list /pods n/-"),
        "RBAC: allowed by ClusterRoleBinding \"agents\" of ClusterRole \"agent\" to ServiceAccount \"agent/s\""
    );
    assert_eq!(
        says(account("n", "editor"), "get /pods n/a"),
        "RBAC: allowed by RoleBinding \"edits/n\" of Role \"edit\" to ServiceAccount \"editor/n\""
    );
    assert_eq!(says(account("n", "viewer"), "list /pods n/-"), "");
    let lost = says(account("lost", "x"), "list /pods n/-");
    assert_eq!(lost, "RBAC: clusterrole.rbac.authorization.k8s.io \"none\" not found");
}
