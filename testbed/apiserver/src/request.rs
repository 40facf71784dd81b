//! A request taken apart: path, query, and what the client accepts.

use std::collections::BTreeMap;

use http::{HeaderMap, header};

use super::status::{ApiError, Result};

/// The resource part of a path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: Option<String>,
    pub(crate) plural: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

impl Target {
    /// `None` when the path is not one of a resource.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let parts: Vec<String> = path.split('/').filter(|p| !p.is_empty()).map(decode).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            // These two words name what is below a Namespace object itself.
            ["namespaces", _, "status" | "finalize"] => (None, rest),
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            _ => (None, rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (*plural, None, None),
            [plural, name] => (*plural, Some(*name), None),
            [plural, name, subresource, ..] => (*plural, Some(*name), Some(*subresource)),
            [] => return None,
        };
        let own = |s: &str| s.to_owned();
        Some(Self {
            group: own(group),
            version: own(version),
            namespace: namespace.map(own),
            plural: own(plural),
            name: name.map(own),
            subresource: subresource.map(own),
        })
    }
}

/// Query parameters; the first of each name counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let mut map = BTreeMap::new();
        for pair in text.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            map.entry(decode(&name.replace('+', " ")))
                .or_insert_with(|| decode(&value.replace('+', " ")));
        }
        Self(map)
    }

    /// `None` also when it is empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1" | "True" | "t"))
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>> {
        let wrong = |v| ApiError::bad_request(format!("{name}: Invalid value: \"{v}\": must be a number"));
        self.get(name).map(|v| v.parse().map_err(|_| wrong(v))).transpose()
    }
}

/// How the client wants objects shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Plain,
    /// `as=PartialObjectMetadata` or its list.
    Metadata,
    /// `as=Table`, in `meta.k8s.io/v1` or the older `v1beta1`.
    Table {
        beta: bool,
    },
    /// `as=APIGroupDiscoveryList`, version 2.
    Discovery,
}

/// The first shape of the `Accept` header that this server speaks.
pub(crate) fn shape(headers: &HeaderMap) -> Result<Shape> {
    let Some(accept) = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok()) else {
        return Ok(Shape::Plain);
    };
    let clause = |clause: &str| {
        let mut parts = clause.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let parameters: BTreeMap<&str, &str> = parts.filter_map(|p| p.split_once('=')).collect();
        match (media, parameters.get("as").copied(), parameters.get("v").copied()) {
            ("application/json" | "application/*" | "*/*", None, _) => Some(Shape::Plain),
            ("application/json", Some("Table"), Some(v @ ("v1" | "v1beta1"))) => Some(Shape::Table { beta: v != "v1" }),
            ("application/json", Some("PartialObjectMetadata" | "PartialObjectMetadataList"), _) => {
                Some(Shape::Metadata)
            }
            ("application/json", Some("APIGroupDiscoveryList"), Some("v2")) => Some(Shape::Discovery),
            _ => None,
        }
    };
    accept.split(',').find_map(clause).ok_or_else(|| {
        let why = "only the following media types are accepted: application/json (the lab's API server does not speak \
                   protobuf or YAML in answers)";
        ApiError::new(406, "NotAcceptable", why).with_details(serde_json::json!({}))
    })
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_their_resource() {
        let show = |path| {
            let t = Target::parse(path).unwrap_or_default();
            let dash = |v: Option<String>| v.unwrap_or("-".into());
            format!(
                "{}|{}|{}|{}|{}|{}",
                t.group,
                t.version,
                dash(t.namespace),
                t.plural,
                dash(t.name),
                dash(t.subresource)
            )
        };
        assert_eq!(show("/api/v1/pods"), "|v1|-|pods|-|-");
        assert_eq!(show("/api/v1/namespaces/a"), "|v1|-|namespaces|a|-");
        assert_eq!(show("/api/v1/namespaces/a/status"), "|v1|-|namespaces|a|status");
        assert_eq!(show("/api/v1/namespaces/a/pods/p/binding"), "|v1|a|pods|p|binding");
        assert_eq!(show("/apis/x.y/v3/ippools/my%20pool"), "x.y|v3|-|ippools|my pool|-");
        assert_eq!(Target::parse("/apis/x.y"), None);
    }

    #[test]
    fn the_first_known_clause_of_accept_wins() {
        let of = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().expect("header"));
            shape(&headers)
        };
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(of(kubectl), Ok(Shape::Table { beta: false }));
        assert_eq!(
            of("application/vnd.kubernetes.protobuf,application/json"),
            Ok(Shape::Plain)
        );
        assert_eq!(
            of("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"),
            Ok(Shape::Discovery)
        );
        assert!(of("application/vnd.kubernetes.protobuf").is_err());
    }
}
