//! Objects in the place of others.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Outcome, State, Write, present};
use crate::{
    catalog::{Origin, Resource},
    patch,
    status::{ApiError, Result},
};

impl State {
    /// Stores `new` in the place of `old`. A plain write (not an apply) takes ownership of what it changes.
    pub(super) fn update(
        &mut self,
        write: &Write,
        old: &Arc<Value>,
        mut new: Value,
        mut warnings: Vec<String>,
        plain: bool,
    ) -> Result<Outcome> {
        let resource = &write.resource;
        preconditions(write, old, &new)?;
        keep_system_metadata(old, &mut new);
        if write.subresource == "status" {
            let status = new["status"].take();
            let metadata = new["metadata"].take();
            new = (**old).clone();
            new["status"] = status;
            if resource.origin == Origin::BuiltIn {
                new["metadata"] = metadata;
            } else {
                new["metadata"]["managedFields"] = metadata["managedFields"].clone();
            }
        } else if resource.status {
            new["status"] = old["status"].clone();
        }
        new.as_object_mut()
            .into_iter()
            .for_each(|o| o.retain(|k, v| k != "status" || !v.is_null()));
        self.defaults(resource, &mut new, Some(old))?;
        self.check(resource, &new, Some(old), &write.subresource, &mut warnings)?;
        if resource.generation && spec_of(resource, &new) != spec_of(resource, old) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(1);
            new["metadata"]["generation"] = json!(generation + 1);
        }
        if plain && new != **old {
            patch::apply::record_update(resource, Some(old), &mut new, write.writer());
        }
        if same_but_for_times(&new, old) {
            return Ok(Outcome {
                object: present(resource, old),
                created: false,
                warnings,
            });
        }
        if write.dry_run {
            return Ok(Outcome {
                object: present(resource, &new),
                created: false,
                warnings,
            });
        }
        let stored = if deletion_is_complete(resource, &new) {
            // Watchers see the last state before the removal, as they would with the real server.
            let name = write.name.clone();
            self.remove(resource, &write.namespace, &name)?;
            Arc::new(new)
        } else {
            let ends = !new["metadata"]["deletionTimestamp"].is_null();
            let stored = self.put(resource, new)?;
            if ends {
                self.empty_owner(resource, &write.name)?;
            }
            stored
        };
        Ok(Outcome {
            object: present(resource, &stored),
            created: false,
            warnings,
        })
    }
}

fn preconditions(write: &Write, old: &Value, new: &Value) -> Result<()> {
    let (before, now) = (&old["metadata"], &new["metadata"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (uid, version) = (text(&now["uid"]), text(&now["resourceVersion"]));
    let conflict = |why: &str| {
        Err(ApiError::conflict(
            &write.resource.group,
            &write.resource.plural,
            &write.name,
            why,
        ))
    };
    if !uid.is_empty() && before["uid"] != uid {
        return conflict(&format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            text(&before["uid"])
        ));
    }
    if !version.is_empty() && version != "0" && before["resourceVersion"] != version {
        return conflict("the object has been modified; please apply your changes to the latest version and try again");
    }
    Ok(())
}

fn keep_system_metadata(old: &Value, new: &mut Value) {
    let keep = [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
        "selfLink",
    ];
    for field in keep {
        new["metadata"][field] = old["metadata"][field].clone();
    }
    if new["metadata"]["managedFields"].is_null() {
        new["metadata"]["managedFields"] = old["metadata"]["managedFields"].clone();
    }
}

fn spec_of(resource: &Resource, object: &Value) -> Value {
    let mut rest = object.clone();
    if let Some(map) = rest.as_object_mut() {
        map.retain(|k, _| {
            !matches!(k.as_str(), "metadata" | "apiVersion" | "kind") && (k != "status" || !resource.status)
        });
    }
    rest
}

fn same_but_for_times(new: &Value, old: &Value) -> bool {
    let without = |object: &Value| {
        let mut object = object.clone();
        for entry in object["metadata"]
            .get_mut("managedFields")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            entry.as_object_mut().map(|e| e.remove("time"));
        }
        // A write through another version of a custom resource changes only this.
        object["apiVersion"] = Value::Null;
        object
    };
    without(new) == without(old)
}

/// Deleted, nothing holds it back: no finalizer, and no kubelet that still has to stop it.
pub(super) fn deletion_is_complete(resource: &Resource, object: &Value) -> bool {
    let meta = &object["metadata"];
    let held = meta["finalizers"].as_array().is_some_and(|f| !f.is_empty());
    let waits = resource.is_core("Pod") && meta["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) > 0;
    !meta["deletionTimestamp"].is_null() && !held && !waits && !resource.owns()
}
