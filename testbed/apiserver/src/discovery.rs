//! `/version`, `/api`, `/apis` and below, in the old form and in the aggregated one (`apidiscovery.k8s.io/v2`).

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::catalog::Resource;

/// The Kubernetes release whose behaviour is followed.
pub(crate) fn version() -> Value {
    json!({
        "major": "1", "minor": "32", "gitVersion": "v1.32.0+margay-lab", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc", "platform": "linux/amd64",
    })
}

/// `/api`.
pub(crate) fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// `/apis`.
pub(crate) fn groups(resources: &[Arc<Resource>]) -> Value {
    let groups: Vec<Value> = by_group(resources)
        .iter()
        .filter(|(g, _)| !g.is_empty())
        .map(|(g, v)| group_of(g, v))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub(crate) fn group(resources: &[Arc<Resource>], name: &str) -> Option<Value> {
    let groups = by_group(resources);
    let mut group = group_of(name, groups.get(name)?);
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    Some(group)
}

/// `/api/v1` or `/apis/GROUP/VERSION`.
pub(crate) fn resource_list(resources: &[Arc<Resource>], group: &str, version: &str) -> Option<Value> {
    let mut list = Vec::new();
    let mut name = String::new();
    for resource in resources.iter().filter(|r| r.group == group && r.version == version) {
        name = resource.api_version();
        list.push(without_empty_lists(json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": resource.verbs(), "shortNames": resource.short_names,
            "categories": resource.categories,
        })));
        for subresource in resource.subresources() {
            let (kind, verbs) = subresource_of(resource, subresource);
            let path = format!("{}/{subresource}", resource.plural);
            list.push(json!({"name": path, "singularName": "", "namespaced": resource.namespaced, "kind": kind, "verbs": verbs}));
        }
    }
    (!list.is_empty())
        .then(|| json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": list}))
}

/// `/api` (`core`) or `/apis` in one document.
pub(crate) fn aggregated(resources: &[Arc<Resource>], core: bool) -> Value {
    let wanted = by_group(resources).into_iter().filter(|(g, _)| g.is_empty() == core);
    let items: Vec<Value> = wanted
        .map(|(group, versions)| {
            let metadata = if core { json!({}) } else { json!({"name": group}) };
            let versions: Vec<Value> = versions
                .iter()
                .map(|(version, resources)| {
                    let list: Vec<Value> = resources.iter().map(|r| aggregated_resource(r)).collect();
                    json!({"version": version, "resources": list, "freshness": "Current"})
                })
                .collect();
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = |kind: &str| json!({"group": resource.group, "version": resource.version, "kind": kind});
    let subresources: Vec<Value> = resource
        .subresources()
        .into_iter()
        .map(|name| {
            let (own, verbs) = subresource_of(resource, name);
            json!({"subresource": name, "responseKind": kind(own), "verbs": verbs})
        })
        .collect();
    without_empty_lists(json!({
        "resource": resource.plural, "responseKind": kind(&resource.kind), "singularResource": resource.singular,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" }, "verbs": resource.verbs(),
        "shortNames": resource.short_names, "categories": resource.categories, "subresources": subresources,
    }))
}

fn subresource_of<'a>(resource: &'a Resource, name: &str) -> (&'a str, &'static [&'static str]) {
    match name {
        "binding" => ("Binding", &["create"]),
        "token" => ("TokenRequest", &["create"]),
        _ => (&resource.kind, &["get", "patch", "update"]),
    }
}

fn without_empty_lists(mut entry: Value) -> Value {
    if let Some(map) = entry.as_object_mut() {
        map.retain(|_, v| v.as_array().is_none_or(|list| !list.is_empty()));
    }
    entry
}

type Versions<'a> = BTreeMap<&'a str, Vec<&'a Resource>>;

fn by_group(resources: &[Arc<Resource>]) -> BTreeMap<&str, Versions<'_>> {
    let mut groups: BTreeMap<&str, Versions<'_>> = BTreeMap::new();
    for resource in resources {
        groups
            .entry(&resource.group)
            .or_default()
            .entry(&resource.version)
            .or_default()
            .push(resource);
    }
    groups
}

fn group_of(name: &str, versions: &Versions<'_>) -> Value {
    let one = |version: &&str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let all: Vec<Value> = versions.keys().map(one).collect();
    json!({"name": name, "preferredVersion": all.last(), "versions": all})
}
