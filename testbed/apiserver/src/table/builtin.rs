//! Columns and cells of the built-in kinds, as the real server's printers have them.

use serde_json::{Value, json};

use crate::time;

/// Names and priorities.
pub(super) fn columns(kind: &str) -> impl Iterator<Item = (&'static str, i64)> {
    let text = match kind {
        "Pod" => "Name,Ready,Status,Restarts,Age,*IP,*Node,*Nominated Node,*Readiness Gates",
        "Node" => {
            "Name,Status,Roles,Age,Version,*Internal-IP,*External-IP,*OS-Image,*Kernel-Version,*Container-Runtime"
        }
        "Namespace" => "Name,Status,Age",
        "Service" => "Name,Type,Cluster-IP,External-IP,Port(s),Age,*Selector",
        "Endpoints" => "Name,Endpoints,Age",
        "EndpointSlice" => "Name,AddressType,Ports,Endpoints,Age",
        "NetworkPolicy" => "Name,Pod-Selector,Age",
        "ServiceAccount" => "Name,Secrets,Age",
        "Secret" => "Name,Type,Data,Age",
        "ConfigMap" => "Name,Data,Age",
        "Event" => "Last Seen,Type,Reason,Object,*Subobject,*Source,Message,*First Seen,*Count,*Name",
        "Lease" => "Name,Holder,Age",
        "Role" | "ClusterRole" | "CustomResourceDefinition" => "Name,Created At",
        "RoleBinding" | "ClusterRoleBinding" => "Name,Role,Age",
        _ => "Name,Age",
    };
    text.split(',')
        .map(|c| c.strip_prefix('*').map_or((c, 0), |name| (name, 1)))
}

/// The cells of one row.
pub(super) fn cells(kind: &str, object: &Value) -> Vec<Value> {
    let name = || object["metadata"]["name"].clone();
    let age = || json!(time::age(object["metadata"]["creationTimestamp"].as_str()));
    match kind {
        "Pod" => pod(object),
        "Node" => node(object),
        "Namespace" => vec![name(), object["status"]["phase"].clone(), age()],
        "Service" => service(object),
        "Endpoints" => vec![name(), endpoints(object).into(), age()],
        "EndpointSlice" => endpoint_slice(object),
        "NetworkPolicy" => vec![name(), selector(&object["spec"]["podSelector"]).into(), age()],
        "ServiceAccount" => vec![name(), list(&object["secrets"]).len().into(), age()],
        "Secret" => vec![name(), object["type"].clone(), size(&object["data"]).into(), age()],
        "ConfigMap" => vec![
            name(),
            (size(&object["data"]) + size(&object["binaryData"])).into(),
            age(),
        ],
        "Event" => event(object),
        "Lease" => vec![name(), object["spec"]["holderIdentity"].clone(), age()],
        "Role" | "ClusterRole" | "CustomResourceDefinition" => {
            vec![name(), object["metadata"]["creationTimestamp"].clone()]
        }
        "RoleBinding" | "ClusterRoleBinding" => {
            let role = &object["roleRef"];
            vec![
                name(),
                format!("{}/{}", text(&role["kind"]), text(&role["name"])).into(),
                age(),
            ]
        }
        _ => vec![name(), age()],
    }
}

fn pod(pod: &Value) -> Vec<Value> {
    let status = &pod["status"];
    let containers = list(&status["containerStatuses"]);
    let running = |c: &&Value| c["ready"] == true && c["state"]["running"].is_object();
    let ready = containers.iter().filter(running).count();
    let restarts: i64 = containers.iter().filter_map(|c| c["restartCount"].as_i64()).sum();
    let last = containers
        .iter()
        .filter_map(|c| c["lastState"]["terminated"]["finishedAt"].as_str())
        .max();
    let restarts = match last.filter(|_| restarts > 0) {
        Some(when) => format!("{restarts} ({} ago)", time::age(Some(when))),
        None => restarts.to_string(),
    };
    let ip = list(&status["podIPs"]).first().map_or(&status["podIP"], |p| &p["ip"]);
    vec![
        pod["metadata"]["name"].clone(),
        format!("{ready}/{}", list(&pod["spec"]["containers"]).len()).into(),
        pod_reason(pod, containers).into(),
        restarts.into(),
        time::age(pod["metadata"]["creationTimestamp"].as_str()).into(),
        or_none(text(ip)),
        or_none(text(&pod["spec"]["nodeName"])),
        or_none(text(&status["nominatedNodeName"])),
        "<none>".into(),
    ]
}

fn pod_reason(pod: &Value, containers: &[Value]) -> String {
    let status = &pod["status"];
    let mut reason = text(&status["phase"]);
    if !text(&status["reason"]).is_empty() {
        reason = text(&status["reason"]);
    }
    let total = list(&pod["spec"]["initContainers"]).len();
    for (i, container) in list(&status["initContainerStatuses"]).iter().enumerate() {
        let state = &container["state"];
        if state["terminated"]["exitCode"] == 0 || (container["started"] == true && state["running"].is_object()) {
            continue;
        }
        let waiting = text(&state["waiting"]["reason"]);
        return match () {
            () if state["terminated"].is_object() => format!("Init:{}", ended(&state["terminated"])),
            () if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            () => format!("Init:{i}/{total}"),
        };
    }
    for container in containers.iter().rev() {
        let state = &container["state"];
        if !text(&state["waiting"]["reason"]).is_empty() {
            reason = text(&state["waiting"]["reason"]);
        } else if state["terminated"].is_object() {
            reason = ended(&state["terminated"]);
        }
    }
    if reason == "Completed" && containers.iter().any(|c| c["state"]["running"].is_object()) {
        reason = "Running".into();
    }
    if pod["metadata"]["deletionTimestamp"].is_null() {
        reason
    } else {
        "Terminating".into()
    }
}

fn ended(terminated: &Value) -> String {
    match (text(&terminated["reason"]), terminated["signal"].as_i64().unwrap_or(0)) {
        (reason, _) if !reason.is_empty() => reason,
        (_, 0) => format!("ExitCode:{}", terminated["exitCode"]),
        (_, signal) => format!("Signal:{signal}"),
    }
}

fn node(node: &Value) -> Vec<Value> {
    let condition = list(&node["status"]["conditions"])
        .iter()
        .find(|c| c["type"] == "Ready");
    let mut status = match condition.map(|c| c["status"] == "True") {
        Some(true) => "Ready".to_owned(),
        Some(false) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let roles: Vec<&str> = labels
        .filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    let address = |kind: &str| {
        let found = list(&node["status"]["addresses"]).iter().find(|a| a["type"] == kind);
        or_none(found.map_or(String::new(), |a| text(&a["address"])))
    };
    let info = |field: &str| {
        let value = text(&node["status"]["nodeInfo"][field]);
        json!(if value.is_empty() {
            "<unknown>".to_owned()
        } else {
            value
        })
    };
    vec![
        node["metadata"]["name"].clone(),
        status.into(),
        or_none(roles.join(",")),
        time::age(node["metadata"]["creationTimestamp"].as_str()).into(),
        node["status"]["nodeInfo"]["kubeletVersion"].clone(),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn service(service: &Value) -> Vec<Value> {
    let spec = &service["spec"];
    let port = |p: &Value| match p["nodePort"].as_i64() {
        Some(node) => format!("{}:{node}/{}", p["port"], text(&p["protocol"])),
        None => format!("{}/{}", p["port"], text(&p["protocol"])),
    };
    let ports: Vec<String> = list(&spec["ports"]).iter().map(port).collect();
    vec![
        service["metadata"]["name"].clone(),
        spec["type"].clone(),
        or_none(text(&spec["clusterIP"])),
        or_none(
            list(&spec["externalIPs"])
                .iter()
                .map(text)
                .collect::<Vec<_>>()
                .join(","),
        ),
        or_none(ports.join(",")),
        time::age(service["metadata"]["creationTimestamp"].as_str()).into(),
        or_none(labels(&spec["selector"])),
    ]
}

fn endpoints(object: &Value) -> String {
    let mut all = Vec::new();
    for subset in list(&object["subsets"]) {
        for address in list(&subset["addresses"]) {
            let ports = list(&subset["ports"]);
            all.extend(ports.iter().map(|p| format!("{}:{}", text(&address["ip"]), p["port"])));
            if ports.is_empty() {
                all.push(text(&address["ip"]));
            }
        }
    }
    some_of(&all)
}

fn endpoint_slice(slice: &Value) -> Vec<Value> {
    let ports: Vec<String> = list(&slice["ports"]).iter().map(|p| p["port"].to_string()).collect();
    let addresses: Vec<String> = list(&slice["endpoints"])
        .iter()
        .flat_map(|e| list(&e["addresses"]))
        .map(text)
        .collect();
    vec![
        slice["metadata"]["name"].clone(),
        slice["addressType"].clone(),
        if ports.is_empty() {
            "<unset>".into()
        } else {
            ports.join(",").into()
        },
        if addresses.is_empty() {
            "<unset>".into()
        } else {
            some_of(&addresses).into()
        },
        time::age(slice["metadata"]["creationTimestamp"].as_str()).into(),
    ]
}

fn event(event: &Value) -> Vec<Value> {
    let of = |core: &'static str, new: &'static str| {
        if event[core].is_null() {
            &event[new]
        } else {
            &event[core]
        }
    };
    let object = of("involvedObject", "regarding");
    let place = format!("{}/{}", text(&object["kind"]).to_lowercase(), text(&object["name"]));
    let when = |field: &Value| field.as_str().or(event["eventTime"].as_str()).map(str::to_owned);
    let last = when(of("lastTimestamp", "deprecatedLastTimestamp"));
    let first = when(of("firstTimestamp", "deprecatedFirstTimestamp"));
    let component = text(&of("source", "deprecatedSource")["component"]);
    let source = if component.is_empty() {
        text(of("reportingComponent", "reportingController"))
    } else {
        component
    };
    vec![
        time::age(last.as_deref()).into(),
        event["type"].clone(),
        event["reason"].clone(),
        place.into(),
        text(&object["fieldPath"]).into(),
        source.into(),
        text(of("message", "note")).trim().into(),
        time::age(first.as_deref()).into(),
        of("count", "deprecatedCount").as_i64().unwrap_or(1).into(),
        event["metadata"]["name"].clone(),
    ]
}

/// A label selector as `kubectl` writes it.
fn selector(selector: &Value) -> String {
    let mut parts: Vec<String> = Some(labels(&selector["matchLabels"]))
        .filter(|l| !l.is_empty())
        .into_iter()
        .collect();
    for expression in list(&selector["matchExpressions"]) {
        let key = text(&expression["key"]);
        let values = list(&expression["values"])
            .iter()
            .map(text)
            .collect::<Vec<_>>()
            .join(",");
        parts.push(match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("Exists") => key,
            _ => format!("!{key}"),
        });
    }
    if parts.is_empty() {
        "<none>".into()
    } else {
        parts.join(",")
    }
}

fn labels(map: &Value) -> String {
    let pairs = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", text(v)));
    pairs.collect::<Vec<_>>().join(",")
}

fn some_of(all: &[String]) -> String {
    match all.len() {
        0 => "<none>".into(),
        1..=3 => all.join(","),
        more => format!("{} + {} more...", all[..3].join(","), more - 3),
    }
}

fn size(map: &Value) -> usize {
    map.as_object().map_or(0, serde_json::Map::len)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn or_none(text: String) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}
