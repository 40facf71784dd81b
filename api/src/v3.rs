//! `projectcalico.org/v3`: what users write and what the agents keep in the Kubernetes API.
//!
//! Names, defaults and semantics are Calico's, so that manifests and tools for it keep working. Text that a user can get
//! wrong (CIDRs, selectors, addresses) stays text here, so that one bad object never keeps a list from being read;
//! [`crate::validate`] and the accessors turn it into values. [`crate::support`] says which values work today.

#[macro_use]
mod keyword;

mod bgp_configuration;
mod bgp_peer;
mod block_affinity;
mod cluster_information;
mod condition;
mod duration;
mod felix_configuration;
mod ip_pool;
mod ipam_block;
mod ipam_configuration;
mod ipam_handle;
mod port_range;
mod secret;

pub use bgp_configuration::*;
pub use bgp_peer::*;
pub use block_affinity::*;
pub use cluster_information::*;
pub use condition::Condition;
pub use duration::{Duration, ParseDurationError};
pub use felix_configuration::*;
pub use ip_pool::*;
pub use ipam_block::*;
pub use ipam_configuration::*;
pub use ipam_handle::*;
pub use port_range::{ParsePortRangeError, PortRange};
pub use secret::{BgpPassword, SecretKeySelector};

/// The API group.
pub const GROUP: &str = "projectcalico.org";
/// The version within the group.
pub const VERSION: &str = "v3";

keywords! {
    /// A log level.
    LogLevel, anycase {
        /// Normal operation.
        Info = "Info",
        /// Everything.
        Trace = "Trace",
        /// What a developer wants.
        Debug = "Debug",
        /// What an operator should look at.
        Warning = "Warning",
        /// What failed.
        Error = "Error",
        /// What ended the process.
        Fatal = "Fatal",
    }
}

keywords! {
    /// A switch.
    EnabledDisabled, exact {
        /// Off.
        Disabled = "Disabled",
        /// On.
        Enabled = "Enabled",
    }
}
