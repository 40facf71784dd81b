//! What stands in place of a NetworkPolicy that is not understood.

use margay_api::slim::{LabelSelector, Metadata, NetworkPolicy, NetworkPolicySpec, PolicyType};
use serde::Deserialize;
use serde_json::Value;

/// In place of a policy that is not understood: one that allows nothing to what it selects, as far as that can be told.
/// Without any policy in its place, everything would be allowed.
pub(super) fn closed_policy(value: &Value) -> Option<NetworkPolicy> {
    let field = |name: &str| value.pointer(&format!("/spec/{name}"));
    let types = field("policyTypes").and_then(|types| Vec::deserialize(types).ok());
    Some(NetworkPolicy {
        metadata: Metadata::deserialize(value.get("metadata")?).ok()?,
        spec: NetworkPolicySpec {
            pod_selector: field("podSelector")
                .and_then(|selector| LabelSelector::deserialize(selector).ok())
                .unwrap_or_default(),
            policy_types: types.unwrap_or_else(|| vec![PolicyType::Ingress, PolicyType::Egress]),
            ..NetworkPolicySpec::default()
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_that_is_not_understood_allows_nothing() {
        let value = |spec: Value| json!({"metadata": {"namespace": "shop", "name": "p", "uid": "u"}, "spec": spec});
        let odd = value(
            json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"protocol": "QUIC", "port": 443}]}]}),
        );
        assert!(NetworkPolicy::deserialize(&odd).is_err());
        let closed = closed_policy(&odd).unwrap();
        assert_eq!(closed.metadata.full_name(), "shop/p");
        assert_eq!(closed.spec.pod_selector.match_labels["app"], "db");
        assert_eq!(closed.spec.policy_types, [PolicyType::Ingress]);
        assert!(closed.spec.ingress.is_empty());
        let odder = value(json!({"podSelector": 5, "policyTypes": ["Sideways"], "ingress": [{}]}));
        let closed = closed_policy(&odder).unwrap();
        assert_eq!(closed.spec.pod_selector, LabelSelector::default());
        assert_eq!(closed.spec.policy_types, [PolicyType::Ingress, PolicyType::Egress]);
    }
}
