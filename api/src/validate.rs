//! What a schema cannot say, or says too late: checks whose findings name the field as Kubernetes does.

mod bgp;
mod label_selector;
mod network_policy;
pub(crate) mod resources;

pub use bgp::{is_as_number, is_router_address};
pub use label_selector::{label_selector, label_selector_warnings, sound_selector};
pub use network_policy::{network_policy, network_policy_warnings};
pub use resources::{PoolRef, bgp_configuration, bgp_peer, felix_configuration, ip_pool, overlapping_pools};

use std::fmt;

use serde::de::DeserializeOwned;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Path of the field, as `spec.ingress[0].ports[1].endPort`.
    pub field: String,
    /// What is wrong with it, and the way out.
    pub message: String,
}

impl Violation {
    /// A violation at a path.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Reads a typed value; a value of the wrong type or word becomes a violation that names its field.
///
/// # Errors
/// The first field that does not fit.
pub fn parse<T: DeserializeOwned>(value: &serde_json::Value) -> Result<T, Violation> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        Violation::new(
            if path == "." { String::new() } else { path },
            error.into_inner().to_string(),
        )
    })
}
