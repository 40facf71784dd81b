//! Objects and lists in the shape that the client asked for.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{Answer, call::Call};
use crate::{
    catalog::Origin,
    request::{Shape, shape},
    status::{ApiError, Result},
    table::{self, Include},
    watch::Render,
};

impl Call<'_> {
    pub(super) fn show(&self, code: u16, object: Value, warnings: Vec<String>) -> Result<Answer> {
        let render = self.render()?;
        Ok(Answer {
            warnings,
            ..Answer::json(code, render(&object))
        })
    }

    /// One object as this client wants it.
    pub(super) fn render(&self) -> Result<Render> {
        let (resource, include) = (self.resource.clone(), self.include()?);
        Ok(match shape(&self.head.headers)? {
            Shape::Plain | Shape::Discovery => Box::new(Value::clone),
            Shape::Metadata => Box::new(|object| table::partial(object, false)),
            Shape::Table { beta } => {
                let first = AtomicBool::new(true);
                Box::new(move |object| {
                    let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                    let mut table = table::table(&resource, std::slice::from_ref(object), metadata, include, beta);
                    // Of a watch's tables only the first says what the columns are.
                    if !first.swap(false, Ordering::Relaxed) {
                        table["columnDefinitions"] = Value::Null;
                    }
                    table
                })
            }
        })
    }

    pub(super) fn shaped_list(&self, items: Vec<Value>, metadata: Value) -> Result<Value> {
        Ok(match shape(&self.head.headers)? {
            Shape::Plain | Shape::Discovery => self.list_of(items, metadata),
            Shape::Metadata => {
                let items: Vec<Value> = items.iter().map(|o| table::partial(o, false)).collect();
                json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
            }
            Shape::Table { beta } => table::table(&self.resource, &items, metadata, self.include()?, beta),
        })
    }

    pub(super) fn list_of(&self, items: Vec<Value>, metadata: Value) -> Value {
        let mut items = items;
        // Items of built-in lists are of one Go type, which says what they are.
        if self.resource.origin != Origin::Custom {
            let fields = items.iter_mut().filter_map(Value::as_object_mut);
            fields.for_each(|o| o.retain(|k, _| k != "apiVersion" && k != "kind"));
        }
        json!({"kind": self.resource.list_kind, "apiVersion": self.resource.api_version(), "metadata": metadata, "items": items})
    }

    fn include(&self) -> Result<Include> {
        match self.query.get("includeObject") {
            None | Some("Metadata") => Ok(Include::Metadata),
            Some("None") => Ok(Include::None),
            Some("Object") => Ok(Include::Object),
            Some(other) => Err(ApiError::bad_request(format!(
                "includeObject: Unsupported value: \"{other}\""
            ))),
        }
    }
}
