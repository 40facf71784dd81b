//! What the real server's defaulting and admission add to built-in objects.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    catalog::Resource,
    status::{ApiError, Result},
};

/// Fills in what the schema's own defaults cannot say. Runs on every write.
pub(crate) fn set_defaults(resource: &Resource, object: &mut Value) {
    match resource.kind.as_str() {
        "Pod" if resource.group.is_empty() => pod(object),
        "Namespace" if resource.group.is_empty() => namespace(object),
        "Secret" if resource.group.is_empty() => secret(object),
        "NetworkPolicy" if resource.group == "networking.k8s.io" => network_policy(object),
        _ => {}
    }
}

/// What a new object must be or get, once.
pub(crate) fn on_create(resource: &Resource, object: &mut Value) -> Result<()> {
    match resource.kind.as_str() {
        "Pod" if resource.group.is_empty() => new_pod(object),
        "Service" if resource.group.is_empty() && object["spec"]["clusterIP"] != "None" => {
            return Err(ApiError::not_implemented(
                "the lab's API server gives services no cluster IP, because nothing in the lab would route it: \
                 set spec.clusterIP: None, or connect to the pods' addresses",
            ));
        }
        "Namespace" if resource.group.is_empty() => object["status"] = json!({"phase": "Active"}),
        _ => {}
    }
    Ok(())
}

fn pod(object: &mut Value) {
    let spec = &mut object["spec"];
    if spec["serviceAccountName"].as_str().is_none_or(str::is_empty) {
        let old_name = spec["serviceAccount"]
            .as_str()
            .filter(|s| !s.is_empty())
            .unwrap_or("default");
        spec["serviceAccountName"] = old_name.into();
    }
    spec["serviceAccount"] = spec["serviceAccountName"].clone();
    if spec["securityContext"].is_null() {
        spec["securityContext"] = json!({});
    }
    let host_network = spec["hostNetwork"] == true;
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if container.is_object() {
                self::container(container, host_network);
            }
        }
    }
}

fn container(container: &mut Value, host_network: bool) {
    if container["imagePullPolicy"].is_null() {
        let image = container["image"].as_str().unwrap_or_default();
        let tag = image.rsplit_once('/').map_or(image, |(_, last)| last);
        let newest = !image.contains('@') && (!tag.contains(':') || tag.ends_with(":latest"));
        container["imagePullPolicy"] = if newest { "Always".into() } else { "IfNotPresent".into() };
    }
    if container["resources"].is_null() {
        container["resources"] = json!({});
    }
    for port in container
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if host_network && port.is_object() && port["hostPort"].is_null() {
            port["hostPort"] = port["containerPort"].clone();
        }
    }
}

fn new_pod(object: &mut Value) {
    let spec = &mut object["spec"];
    spec["priority"] = json!(0);
    spec["preemptionPolicy"] = json!("PreemptLowerPriority");
    let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = |t: &Value| (t["key"] == key || t["key"].is_null()) && t["effect"] != "NoSchedule";
        if !tolerations.iter().any(tolerated) {
            tolerations
                .push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
        }
    }
    spec["tolerations"] = tolerations.into();
    let asks = |list: &str| {
        let containers = spec[list].as_array().map(Vec::as_slice).unwrap_or_default();
        containers.iter().any(|c| {
            ["limits", "requests"]
                .iter()
                .any(|k| c["resources"][*k].as_object().is_some_and(|m| !m.is_empty()))
        })
    };
    let class = if asks("containers") || asks("initContainers") {
        "Burstable"
    } else {
        "BestEffort"
    };
    object["status"] = json!({"phase": "Pending", "qosClass": class});
}

fn namespace(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
    if object["metadata"]["deletionTimestamp"].is_null() {
        object["spec"]["finalizers"] = json!(["kubernetes"]);
    }
}

fn secret(object: &mut Value) {
    let Some(plain) = object.as_object_mut().and_then(|o| o.remove("stringData")) else {
        return;
    };
    for (key, text) in plain.as_object().into_iter().flatten() {
        object["data"][key.as_str()] = STANDARD.encode(text.as_str().unwrap_or_default()).into();
    }
}

fn network_policy(object: &mut Value) {
    let spec = &mut object["spec"];
    if spec["podSelector"].is_null() {
        spec["podSelector"] = json!({});
    }
    if spec["policyTypes"].as_array().is_none_or(Vec::is_empty) {
        let egress = spec["egress"].as_array().is_some_and(|e| !e.is_empty());
        spec["policyTypes"] = if egress {
            json!(["Ingress", "Egress"])
        } else {
            json!(["Ingress"])
        };
    }
}
