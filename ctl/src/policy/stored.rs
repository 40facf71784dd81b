//! What a cluster's API server holds of what decides.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use margay_api::{slim, validate};
use margay_felix::verdict::{Cluster, Connection, Peer};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api_server::{ApiError, ApiServer, Resource};
use crate::cli::Target;
use crate::transport;

const NAMESPACES: Resource = Resource {
    group: "/api/v1",
    plural: "namespaces",
};
const NODES: Resource = Resource {
    group: "/api/v1",
    plural: "nodes",
};
const PODS: Resource = Resource {
    group: "/api/v1",
    plural: "pods",
};
const POLICIES: Resource = Resource {
    group: "/apis/networking.k8s.io/v1",
    plural: "networkpolicies",
};
const SERVICES: Resource = Resource {
    group: "/api/v1",
    plural: "services",
};
/// How long the API server may take for one answer beyond what an agent may.
const MARGIN: Duration = Duration::from_secs(25);

/// The objects read, and what a user should know about them.
pub(super) struct Stored {
    pub(super) cluster: Cluster,
    pub(super) warnings: Vec<String>,
}

/// Reads what decides about these connections.
pub(super) async fn load(target: &Target, connections: &[&Connection]) -> anyhow::Result<Stored> {
    let target = transport::with_kubeconfig_of_lab(target)?;
    let patience = Duration::from_secs(target.timeout) + MARGIN;
    let api = ApiServer::connect(&target, patience).await;
    let api = api.context("without --manifests a cluster's API server is asked")?;
    let addresses: Vec<IpAddr> = connections.iter().filter_map(|one| address(&one.to)).collect();
    let (namespaces, nodes, pods, policies, services) = tokio::join!(
        list(&api, NAMESPACES),
        list(&api, NODES),
        list(&api, PODS),
        list(&api, POLICIES),
        async {
            if addresses.is_empty() {
                return Ok(Vec::new());
            }
            list(&api, SERVICES).await
        },
    );
    let mut warnings = Vec::new();
    let nodes = nodes.unwrap_or_else(|error| {
        warnings.push(format!("{error}: nodes count as outside the cluster"));
        Vec::new()
    });
    let cluster = Cluster {
        namespaces: objects("Namespace", namespaces?)?,
        nodes: objects("Node", nodes)?,
        pods: objects("Pod", pods?)?,
        policies: objects("NetworkPolicy", policies?)?
            .into_iter()
            .map(slim::NetworkPolicy::defaulted)
            .collect(),
    };
    let concerned = concerned(&cluster, connections);
    let policies = cluster.policies.iter();
    let policies = policies.filter(|policy| concerned.contains(policy.metadata.namespace.as_str()));
    warnings.extend(policies.flat_map(oddities));
    // Who may not list Services has no answer here, and loses a hint only.
    let services: Vec<slim::Service> = objects("Service", services.unwrap_or_default())?;
    warnings.extend(addresses.iter().filter_map(|address| service_hint(&services, *address)));
    Ok(Stored { cluster, warnings })
}

async fn list(api: &ApiServer, resource: Resource) -> anyhow::Result<Vec<Value>> {
    let listed: Result<Vec<Value>, ApiError> = api.list(resource, None, None).await;
    listed.map_err(|error| anyhow!("{} cannot be listed: {error}", resource.plural))
}

/// Reads each object, or says which field keeps it from being one.
fn objects<T: DeserializeOwned>(kind: &str, items: Vec<Value>) -> anyhow::Result<Vec<T>> {
    let object = |item: Value| {
        serde_path_to_error::deserialize(&item).map_err(|error| {
            let text = |field: &str| item["metadata"][field].as_str().unwrap_or_default().to_owned();
            let metadata = slim::Metadata {
                name: text("name"),
                namespace: text("namespace"),
                ..slim::Metadata::default()
            };
            let path = error.path().to_string();
            anyhow!("{kind} {}: {path}: {}", metadata.full_name(), error.into_inner())
        })
    };
    items.into_iter().map(object).collect()
}

/// The namespaces of the pods at the connections' ends: other policies select none of them.
fn concerned<'a>(cluster: &'a Cluster, connections: &'a [&Connection]) -> BTreeSet<&'a str> {
    let ends = connections.iter().flat_map(|one| [&one.from, &one.to]);
    let namespaces = ends.flat_map(|end| match end {
        Peer::Pod { namespace, .. } => vec![namespace.as_str()],
        Peer::Address(address) => {
            let pods = cluster.pods.iter().filter(|pod| pod.ips().contains(address));
            pods.map(|pod| pod.metadata.namespace.as_str()).collect()
        }
    });
    namespaces.collect()
}

/// What a user should know of a policy that is stored: the agents say the same.
fn oddities(policy: &slim::NetworkPolicy) -> Vec<String> {
    let name = policy.metadata.full_name();
    let faults = validate::network_policy(policy).into_iter();
    let faults = faults.map(|fault| format!("{}: {}; the policy allows nothing", fault.field, fault.message));
    let odd = validate::network_policy_warnings(policy)
        .into_iter()
        .map(|odd| odd.to_string());
    faults
        .chain(odd)
        .map(|text| format!("NetworkPolicy {name}: {text}"))
        .collect()
}

/// A word for those who ask about a Service: policy is about the pods behind it.
fn service_hint(services: &[slim::Service], address: IpAddr) -> Option<String> {
    let has = |service: &&slim::Service| {
        let mut addresses = service.spec.cluster_ips.iter();
        addresses.any(|text| text.parse() == Ok(address))
    };
    let name = services.iter().find(has)?.metadata.full_name();
    Some(format!(
        "{address} is Service {name}, and judged here as an address outside the cluster: policy is about the pods behind it, \
         so name one of these"
    ))
}

fn address(peer: &Peer) -> Option<IpAddr> {
    match peer {
        Peer::Address(address) => Some(*address),
        Peer::Pod { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_that_cannot_be_read_is_named_with_its_field() {
        let pods = vec![
            json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": {"hostNetwork": true}}),
            json!({"metadata": {"namespace": "shop", "name": "odd"}, "spec": {"hostNetwork": "yes"}}),
        ];
        assert_eq!(objects::<slim::Pod>("Pod", pods[..1].to_vec()).expect("a pod").len(), 1);
        let error = objects::<slim::Pod>("Pod", pods).expect_err("no pod").to_string();
        assert!(
            error.starts_with("Pod shop/odd: spec.hostNetwork: invalid type"),
            "{error}"
        );
    }

    #[test]
    fn a_stored_policy_that_is_faulty_is_told() {
        let policy = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "p"},
            "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 70000}]}]},
        }));
        let told = oddities(&policy.expect("a policy"));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].starts_with("NetworkPolicy shop/p: spec.ingress[0].ports[0].port: "),
            "{told:?}"
        );
        assert!(told[0].ends_with("the policy allows nothing"), "{told:?}");
    }

    #[test]
    fn the_address_of_a_service_is_told() {
        let services: Vec<slim::Service> = serde_json::from_value(json!([
            {"metadata": {"namespace": "kube-system", "name": "dns"}, "spec": {"clusterIPs": ["10.96.0.10", "fd00::a"]}},
            {"metadata": {"namespace": "shop", "name": "headless"}, "spec": {"clusterIPs": ["None"]}},
        ]))
        .expect("services");
        let hint = |address: &str| service_hint(&services, address.parse().expect("an address"));
        assert!(hint("fd00::a").is_some_and(|hint| hint.starts_with("fd00::a is Service kube-system/dns, ")));
        assert_eq!(hint("10.96.0.11"), None);
    }
}
