//! What the API server sends, object by object.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::ObjectKey;

#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
pub(super) struct Page<T> {
    #[serde(default)]
    pub(super) metadata: ListMeta,
    #[serde(default = "Vec::new")]
    pub(super) items: Vec<Lenient<T>>,
}

/// `metadata` of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    continue_token: Option<String>,
}

impl ListMeta {
    /// The version of the collection.
    pub(crate) fn version(&self) -> &str {
        &self.resource_version
    }

    /// The token of the next page, if there is one.
    pub(crate) fn more(&self) -> Option<&str> {
        self.continue_token.as_deref().filter(|token| !token.is_empty())
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meta {
    namespace: String,
    name: String,
    pub(crate) resource_version: String,
}

impl Meta {
    pub(crate) fn key(&self) -> ObjectKey {
        ObjectKey {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

/// An object, or why it is none.
#[derive(Debug, Clone)]
pub(crate) struct Lenient<T> {
    pub(crate) meta: Meta,
    pub(crate) object: Result<T, Odd>,
}

/// What does not decode.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Odd {
    pub(crate) why: String,
    pub(crate) value: serde_json::Value,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let meta = value
            .get("metadata")
            .and_then(|meta| Meta::deserialize(meta).ok())
            .unwrap_or_default();
        let object = T::deserialize(&value).map_err(|error| Odd {
            why: error.to_string(),
            value,
        });
        Ok(Self { meta, object })
    }
}
