//! Settings in layers: default, cluster-wide, per node; fields that cannot be used are left out and reported. Pure.

use margay_api::slim::Object;
use margay_api::support;
use margay_api::validate::Violation;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::table::Table;
use crate::kube::events::{Notice, Subject};
use crate::kube::resource::ResourceType;

/// The effective settings of `node`: its own object `node.<name>` before `default`, field by field at the top level.
///
/// A field that is wrong, or asks for what does not exist yet, counts as not written: dropping the whole object would
/// change settings that nobody meant to change. Every field of `S` must be skipped when it is `None`.
pub fn effective<S>(
    objects: &Table<Object<S>>,
    resource: ResourceType,
    node: &str,
    validate: impl Fn(&S) -> Vec<Violation>,
) -> (S, Vec<Notice>)
where
    S: Serialize + DeserializeOwned + Default + Clone + PartialEq,
{
    let (mut merged, mut faults) = (Map::new(), Vec::new());
    for object in ["default".to_owned(), format!("node.{node}")]
        .iter()
        .filter_map(|name| objects.named(name))
    {
        let (fields, unusable) = usable(object, resource, &validate);
        merged.extend(fields);
        faults.extend(unusable);
    }
    (read(merged), faults)
}

/// One object's settings, without the fields that cannot be used.
pub fn checked<S>(
    object: &Object<S>,
    resource: ResourceType,
    validate: impl Fn(&S) -> Vec<Violation>,
) -> (S, Vec<Notice>)
where
    S: Serialize + DeserializeOwned + Default,
{
    let (fields, faults) = usable(object, resource, &validate);
    (read(fields), faults)
}

fn usable<S: Serialize>(
    object: &Object<S>,
    resource: ResourceType,
    validate: &impl Fn(&S) -> Vec<Violation>,
) -> (Map<String, Value>, Vec<Notice>) {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(&object.spec) else {
        return Default::default();
    };
    fields.retain(|_, value| !value.is_null());
    let mut violations = validate(&object.spec);
    violations.extend(support::check(resource.kind, &Value::Object(fields.clone())));
    let mut faults = Vec::new();
    for violation in violations {
        let path = violation.field.strip_prefix("spec.").unwrap_or(&violation.field);
        fields.remove(path.split(['.', '[']).next().unwrap_or(path));
        faults.push(Notice {
            subject: Subject {
                resource,
                namespace: String::new(),
                name: object.metadata.name.clone(),
                uid: object.metadata.uid.clone(),
            },
            reason: "FieldIgnored",
            message: format!("{}: {}; the field is ignored", violation.field, violation.message),
            warning: true,
        });
    }
    (fields, faults)
}

/// Each field came from a value of this very type, so this cannot fail.
fn read<S: DeserializeOwned + Default>(fields: Map<String, Value>) -> S {
    serde_json::from_value(Value::Object(fields)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use margay_api::v3::BGPConfigurationSpec;
    use margay_api::validate;
    use serde_json::json;

    use super::*;
    use crate::kube::resource::BGP_CONFIGURATION;

    fn objects(objects: Value) -> Table<Object<BGPConfigurationSpec>> {
        serde_json::from_value::<Vec<_>>(objects).unwrap().into_iter().collect()
    }

    fn merged(table: &Table<Object<BGPConfigurationSpec>>) -> (BGPConfigurationSpec, Vec<Notice>) {
        effective(table, BGP_CONFIGURATION, "n1", validate::bgp_configuration)
    }

    #[test]
    fn the_nearer_layer_wins_field_by_field() {
        let (settings, faults) = merged(&objects(json!([
            {"metadata": {"name": "default"}, "spec": {"asNumber": 64999, "listenPort": 1179}},
            {"metadata": {"name": "node.n1"}, "spec": {"listenPort": 2179}},
            {"metadata": {"name": "node.n2"}, "spec": {"listenPort": 3179}},
        ])));
        assert_eq!((settings.as_number, settings.listen_port), (Some(64999), Some(2179)));
        assert!(faults.is_empty());
        assert_eq!(merged(&objects(json!([]))).0, BGPConfigurationSpec::default());
    }

    #[test]
    fn a_field_that_cannot_be_used_is_left_out_alone() {
        let (settings, faults) = merged(&objects(json!([
            {"metadata": {"name": "default"}, "spec": {"nodeToNodeMeshEnabled": false, "bindMode": "NodeIP"}},
        ])));
        assert_eq!(
            (settings.node_to_node_mesh_enabled, settings.bind_mode),
            (Some(false), None)
        );
        assert_eq!(faults.len(), 1);
        assert!(
            faults[0].message.starts_with("spec.bindMode: "),
            "{}",
            faults[0].message
        );
    }
}
