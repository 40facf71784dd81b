//! What an attachment needs of the rest of the agent, as traits: so that its tests need no cluster and no kernel.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use margay_ipam::block::Allocation;

use crate::endpoints::EndpointRecord;

/// A wish for addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// What releases them.
    pub handle: String,
    /// Who gets them: `pod`, `namespace`, `node`, `timestamp`.
    pub attributes: BTreeMap<String, String>,
    /// These addresses and no others; empty for any, one of each family that there are pools of.
    pub addresses: Vec<IpAddr>,
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// Not now: the API server is away or pools are exhausted. The text says what would help.
    #[error("{0}")]
    TryLater(String),
    /// Never: the address asked for is taken or in no pool.
    #[error("{0}")]
    Refused(String),
}

/// Gives out and takes back addresses.
pub trait Addresses: Send + Sync + 'static {
    /// All that was wished for, or nothing.
    fn assign(&self, wish: &Assignment) -> impl Future<Output = Result<Vec<IpAddr>, AssignError>> + Send;
    /// Mends what a crash left half done; then, all that is held in this node's name.
    fn recover(&self) -> impl Future<Output = Result<Vec<Allocation>, String>> + Send;
    /// Takes back one address if it still is held as it was seen.
    fn release_one(&self, held: &Allocation) -> impl Future<Output = Result<(), String>> + Send;
    /// Takes back everything a handle holds; nothing to take back is fine.
    fn release(&self, handle: &str) -> impl Future<Output = Result<(), String>> + Send;
}

/// Enforces policy on attachments.
pub trait Policy: Send + Sync + 'static {
    /// The set of attachments has changed; on return the policy engine has been told.
    fn changed(&self) -> impl Future<Output = ()> + Send;
    /// Waits until the kernel enforces the policy of this attachment.
    fn wait_programmed(
        &self,
        record: &EndpointRecord,
        timeout: Duration,
    ) -> impl Future<Output = Result<(), String>> + Send;
}

/// The node's links.
pub trait Links: Send + Sync + 'static {
    /// Deletes a link; one that is not there is fine.
    fn delete(&self, name: &str) -> impl Future<Output = Result<(), String>> + Send;
    /// Makes the node forget the connections of the addresses' former holders: rules let through what is remembered.
    fn forget_connections(&self, addresses: &[IpAddr]) -> impl Future<Output = Result<(), String>> + Send;
    /// MTU for new pods, in bytes.
    fn pod_mtu(&self) -> u32;
    /// Prefix of host interfaces; waits until it is known.
    fn interface_prefix(&self) -> impl Future<Output = String> + Send;
}
