//! OpenAPI as far as kubectl needs it: which kinds exist, and that the server checks fields and does dry runs.
//!
//! Version 3 (kubectl ≥ 1.27) carries the schemas; version 2 is a protobuf document (gnostic's `openapi.v2.Document`)
//! without definitions, so that older clients leave validation to the server.

use std::sync::Arc;

use serde_json::{Value, json};

use super::catalog::Resource;

/// The media type in which clients ask for version 2.
pub(crate) const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The media type of the answer: an `@` is not allowed in one.
pub(crate) const V2_PROTOBUF_ANSWER: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// `/openapi/v3`: the documents there are.
pub(crate) fn v3_index(resources: &[Arc<Resource>]) -> Value {
    let url = |r: &Arc<Resource>| {
        let root = root(r);
        (
            root.clone(),
            json!({"serverRelativeURL": format!("/openapi/v3/{root}")}),
        )
    };
    json!({"paths": resources.iter().map(url).collect::<serde_json::Map<_, _>>()})
}

/// `/openapi/v3/api/v1` or `/openapi/v3/apis/GROUP/VERSION`.
pub(crate) fn v3(resources: &[Arc<Resource>], document: &str) -> Option<Value> {
    let mine: Vec<_> = resources.iter().filter(|r| root(r) == document).collect();
    let query = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string"}});
    let parameters: Vec<Value> = ["dryRun", "fieldManager", "fieldValidation", "force"].map(query).into();
    let mut paths = serde_json::Map::new();
    let mut schemas = serde_json::Map::new();
    for resource in &mine {
        let gvk = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
        // Strategic merge is left out on purpose: kubectl then takes the merge keys it was built with.
        let content = json!({"application/merge-patch+json": {}, "application/apply-patch+yaml": {}});
        let patch = json!({
            "parameters": parameters, "x-kubernetes-action": "patch", "x-kubernetes-group-version-kind": gvk,
            "requestBody": {"content": content}, "responses": {"200": {"description": "OK"}},
        });
        paths.insert(path(resource), json!({"patch": patch}));
        let mut schema = (*resource.schema).clone();
        schema["x-kubernetes-group-version-kind"] = json!([gvk]);
        schemas.insert(
            format!("{}.{}.{}", resource.group, resource.version, resource.kind),
            schema,
        );
    }
    (!mine.is_empty()).then(|| {
        json!({"openapi": "3.0.0", "info": {"title": "margay-lab", "version": "v1"}, "paths": paths, "components": {"schemas": schemas}})
    })
}

/// `/openapi/v2` as JSON: no definitions either.
pub(crate) fn v2_json() -> Value {
    json!({"swagger": "2.0", "info": {"title": "margay-lab", "version": "v1"}, "paths": {}})
}

/// `/openapi/v2` as protobuf.
pub(crate) fn v2_protobuf(resources: &[Arc<Resource>]) -> Vec<u8> {
    let info = [text(1, "margay-lab"), text(2, "v1")].concat();
    let paths: Vec<u8> = resources
        .iter()
        .flat_map(|r| field(2, &[text(1, &path(r)), field(2, &patch_item(r))].concat()))
        .collect();
    [text(1, "2.0"), field(2, &info), field(8, &paths)].concat()
}

/// PathItem { patch: Operation { parameters, vendor_extension } }.
fn patch_item(resource: &Resource) -> Vec<u8> {
    let parameter = |name: &str| {
        let query = [text(2, "query"), text(4, name), text(6, "string")].concat();
        // ParametersItem.parameter, Parameter.non_body_parameter, NonBodyParameter.query_parameter_sub_schema
        field(8, &field(1, &field(2, &field(3, &query))))
    };
    let gvk = json!({"group": resource.group, "kind": resource.kind, "version": resource.version});
    let extension = [
        text(1, "x-kubernetes-group-version-kind"),
        field(2, &text(2, &gvk.to_string())),
    ]
    .concat();
    let operation = [
        parameter("dryRun"),
        parameter("fieldManager"),
        parameter("fieldValidation"),
        field(13, &extension),
    ];
    field(8, &operation.concat())
}

/// A length-delimited protobuf field.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(content);
    out
}

fn text(number: u8, content: &str) -> Vec<u8> {
    field(number, content.as_bytes())
}

fn root(resource: &Resource) -> String {
    let kind = if resource.group.is_empty() { "api" } else { "apis" };
    format!("{kind}/{}", resource.api_version())
}

fn path(resource: &Resource) -> String {
    let namespace = if resource.namespaced {
        "namespaces/{namespace}/"
    } else {
        ""
    };
    format!("/{}/{namespace}{}/{{name}}", root(resource), resource.plural)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protobuf_lengths_are_varints() {
        assert_eq!(text(1, "ab"), [0x0a, 2, b'a', b'b']);
        let long = field(2, &[0; 300]);
        assert_eq!(long[..3], [0x12, 0xac, 0x02]);
        assert_eq!(long.len(), 303);
    }
}
