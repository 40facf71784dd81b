//! One event, two APIs: `events.k8s.io/v1` names the fields of the core `v1` Event differently. The core form is stored.

use serde_json::Value;

use super::catalog::Resource;

const NAMES: [(&str, &str); 7] = [
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// From the form of the request's API to the stored one.
pub(crate) fn to_stored(resource: &Resource, object: &mut Value) {
    if resource.group == "events.k8s.io" {
        rename(object, NAMES.iter().copied());
    }
}

/// From the stored form to that of the request's API.
pub(crate) fn to_served(resource: &Resource, object: &mut Value) {
    if resource.group == "events.k8s.io" {
        rename(object, NAMES.iter().map(|(a, b)| (*b, *a)));
    }
}

fn rename(object: &mut Value, names: impl Iterator<Item = (&'static str, &'static str)>) {
    let Some(map) = object.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
}
