//! Go writes `null` where a list or map is nil; every such field must read as its default.

use serde::{Deserialize, Deserializer};

/// Reads a value, or its default from `null`. For `#[serde(default, deserialize_with = …)]`.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Whether a value equals its default, so that it can be left out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
