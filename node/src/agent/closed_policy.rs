//! What stands in place of a NetworkPolicy that is not understood.

use margay_api::slim::{LabelSelector, Metadata, NetworkPolicy, NetworkPolicySpec, PolicyType, Requirement};
use serde::Deserialize;
use serde_json::Value;

/// In place of a policy that is not understood: one that allows nothing to what it selects, in the directions that it
/// isolates. Without any policy in its place, everything would be allowed.
///
/// What cannot be told is taken for the most: of its selector the parts that are understood select, and a type that is
/// none stands for both directions. `None` when it has no namespace and name, and so is no policy.
pub(super) fn closed_policy(value: &Value) -> Option<NetworkPolicy> {
    let metadata = value.get("metadata")?;
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).map(str::to_owned);
    let spec = present(value.get("spec"));
    Some(NetworkPolicy {
        metadata: Metadata {
            name: text("name")?,
            namespace: text("namespace")?,
            uid: text("uid").unwrap_or_default(),
            ..Metadata::default()
        },
        spec: NetworkPolicySpec {
            pod_selector: understood_selector(spec.and_then(|spec| spec.get("podSelector"))),
            policy_types: directions(spec),
            ..NetworkPolicySpec::default()
        },
    })
}

/// The directions of a policy's `spec`, with what an API server fills in where `policyTypes` is missing or empty: Ingress
/// always, Egress when there is an egress rule.
fn directions(spec: Option<&Value>) -> Vec<PolicyType> {
    let both = vec![PolicyType::Ingress, PolicyType::Egress];
    let Some(spec) = spec else {
        return vec![PolicyType::Ingress];
    };
    let Some(fields) = spec.as_object() else { return both };
    match present(fields.get("policyTypes")) {
        Some(Value::Array(types)) if !types.is_empty() => types
            .iter()
            .map(PolicyType::deserialize)
            .collect::<Result<_, _>>()
            .unwrap_or(both),
        None | Some(Value::Array(_)) => match present(fields.get("egress")) {
            None => vec![PolicyType::Ingress],
            Some(Value::Array(rules)) if rules.is_empty() => vec![PolicyType::Ingress],
            Some(_) => both,
        },
        Some(_) => both,
    }
}

/// The requirements of a label selector that are understood.
fn understood_selector(selector: Option<&Value>) -> LabelSelector {
    let field = |name: &str| selector.and_then(|selector| selector.get(name));
    let labels = field("matchLabels").and_then(Value::as_object).into_iter().flatten();
    let expressions = field("matchExpressions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    LabelSelector {
        match_labels: labels
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect(),
        match_expressions: expressions
            .filter_map(|expression| Requirement::deserialize(expression).ok())
            .collect(),
    }
}

/// A field's value; `null` is none.
fn present(value: Option<&Value>) -> Option<&Value> {
    value.filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn closed(spec: &Value) -> NetworkPolicy {
        let value = json!({"metadata": {"namespace": "shop", "name": "p", "uid": "u"}, "spec": spec});
        assert!(NetworkPolicy::deserialize(&value).is_err(), "{spec} is understood");
        let closed = closed_policy(&value).unwrap_or_else(|| panic!("nothing stands for {spec}"));
        assert_eq!(
            (closed.metadata.full_name(), &*closed.metadata.uid),
            ("shop/p".into(), "u")
        );
        assert!(
            closed.spec.ingress.is_empty() && closed.spec.egress.is_empty(),
            "{spec}"
        );
        closed.defaulted()
    }

    #[test]
    fn it_isolates_in_the_directions_that_the_policy_names() {
        let odd = json!([{"ports": [{"protocol": "QUIC", "port": 443}]}]);
        for (spec, ingress, egress) in [
            // Named.
            (json!({"policyTypes": ["Ingress"], "ingress": odd}), true, false),
            (json!({"policyTypes": ["Ingress"], "egress": odd}), true, false),
            (json!({"policyTypes": ["Egress"], "ingress": odd}), false, true),
            (
                json!({"policyTypes": ["Egress", "Ingress"], "ingress": odd}),
                true,
                true,
            ),
            (
                json!({"policyTypes": ["Egress", "Egress", "Egress"], "ingress": odd}),
                false,
                true,
            ),
            // As an API server fills it in.
            (json!({"ingress": odd}), true, false),
            (json!({"ingress": odd, "egress": null}), true, false),
            (json!({"ingress": odd, "egress": []}), true, false),
            (json!({"ingress": odd, "egress": [{}]}), true, true),
            (json!({"egress": odd}), true, true),
            (json!({"policyTypes": null, "ingress": odd}), true, false),
            (json!({"policyTypes": null, "egress": odd}), true, true),
            (json!({"policyTypes": [], "ingress": odd}), true, false),
            (json!({"policyTypes": [], "egress": odd}), true, true),
            (json!({"policyTypes": [], "egress": [5]}), true, true),
            (json!({"podSelector": 5}), true, false),
            // Not to be told.
            (json!({"egress": {"to": []}}), true, true),
            (json!({"policyTypes": "Ingress"}), true, true),
            (json!({"policyTypes": {"Ingress": true}}), true, true),
            (json!({"policyTypes": ["Sideways"]}), true, true),
            (json!({"policyTypes": ["Ingress", "egress"]}), true, true),
            (json!({"policyTypes": ["Ingress", null]}), true, true),
            (json!("all"), true, true),
        ] {
            let policy = closed(&spec);
            let directions = [PolicyType::Ingress, PolicyType::Egress].map(|direction| policy.applies_to(direction));
            assert_eq!(directions, [ingress, egress], "{spec}");
        }
    }

    #[test]
    fn what_is_understood_of_the_selector_selects() {
        let web = json!({"app": "web"});
        let in_rack = json!({"key": "rack", "operator": "Exists"});
        let like = json!({"key": "tier", "operator": "Like", "values": ["d*"]});
        for (selector, expected) in [
            (json!(5), json!({})),
            (json!({"matchLabels": "app=web"}), json!({})),
            (json!({"matchExpressions": [like]}), json!({})),
            (
                json!({"matchLabels": {"app": "web", "tier": 5}}),
                json!({"matchLabels": web}),
            ),
            (
                json!({"matchLabels": web, "matchExpressions": [like]}),
                json!({"matchLabels": web}),
            ),
            (
                json!({"matchLabels": web, "matchExpressions": "rack"}),
                json!({"matchLabels": web}),
            ),
            (
                json!({"matchLabels": web, "matchExpressions": [like, in_rack, {"key": "x"}]}),
                json!({"matchLabels": web, "matchExpressions": [in_rack]}),
            ),
        ] {
            let policy = closed(&json!({"podSelector": selector}));
            assert_eq!(
                policy.spec.pod_selector,
                LabelSelector::deserialize(expected).unwrap(),
                "{selector}"
            );
        }
        let elsewhere = closed(&json!({"podSelector": {"matchLabels": web}, "ingress": 5}));
        assert_eq!(
            elsewhere.spec.pod_selector,
            LabelSelector::deserialize(json!({"matchLabels": web})).unwrap()
        );
    }

    #[test]
    fn of_its_metadata_only_the_name_has_to_be_understood() {
        let named =
            json!({"metadata": {"namespace": "shop", "name": "p", "labels": ["a"]}, "spec": {"podSelector": {}}});
        assert!(NetworkPolicy::deserialize(&named).is_err());
        let closed = closed_policy(&named).expect("a policy in its place");
        assert_eq!(closed.metadata.full_name(), "shop/p");
        assert_eq!(closed_policy(&json!({"metadata": {"name": "p"}, "spec": 5})), None);
        assert_eq!(closed_policy(&json!({"spec": 5})), None);
    }
}
