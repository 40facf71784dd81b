//! An APIService that hands our API group to another API server: our CRDs are then shadowed.

use std::time::Duration;

use serde::Deserialize;

use super::super::findings::{Finding, Findings};
use crate::kube::Api;
use crate::kube::error::ApiError;
use crate::kube::resource::API_SERVICE;

/// Time between two looks, and up to as much again: many nodes look.
const INTERVAL: Duration = Duration::from_secs(120);

const NAME: &str = "v3.projectcalico.org";

/// The fields that matter.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ApiService {
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    /// Missing where the API server serves the group itself, from CRDs.
    service: Option<Service>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Service {
    namespace: String,
    name: String,
}

/// Looks from time to time, for ever.
pub(super) async fn watch(api: Api, findings: Findings) {
    loop {
        match api.get::<ApiService>(&API_SERVICE, None, NAME).await {
            Ok(object) => findings.set("aggregation", finding(&object)),
            Err(ApiError::NotFound(_)) => findings.set("aggregation", None),
            // An API server that is away, and a missing right to look, are not this fault.
            Err(error) => tracing::debug!(%error, "APIService not read"),
        }
        tokio::time::sleep(INTERVAL + INTERVAL.mul_f32(fastrand::f32())).await;
    }
}

fn finding(object: &ApiService) -> Option<Finding> {
    let service = object.spec.service.as_ref()?;
    Some(Finding {
        reason: "APIGroupShadowed",
        message: format!(
            "APIService {NAME} hands projectcalico.org/v3 to Service {}/{}, most likely Calico's API server: what is kept in \
             Margay's CRDs is not served. Remove that API server, then run `kubectl delete apiservice {NAME}`; Kubernetes \
             makes one for the CRDs by itself",
            service.namespace, service.name
        ),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn found(spec: Value) -> Option<Finding> {
        finding(&serde_json::from_value(json!({"metadata": {"name": NAME}, "spec": spec})).unwrap())
    }

    #[test]
    fn only_a_service_shadows_the_crds() {
        assert_eq!(found(json!({"group": "projectcalico.org", "version": "v3"})), None);
        let told =
            found(json!({"service": {"namespace": "calico-apiserver", "name": "calico-api", "port": 443}})).unwrap();
        assert!(
            told.message.contains("to Service calico-apiserver/calico-api"),
            "{}",
            told.message
        );
    }
}
