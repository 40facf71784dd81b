//! The agent's own parts as the CNI server sees them.

use std::net::IpAddr;
use std::time::Duration;

use margay_felix::dataplane::forget_connections;
use margay_felix::engine::Handle as PolicyEngine;
use margay_netlink::Handle as Netlink;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::core::Command;
use super::policy_feed::endpoint_id;
use super::settings::Settings;
use crate::cni_server::{Links, Policy};
use crate::endpoints::EndpointRecord;
use crate::host::HostState;

/// [`Policy`] by the core and the policy engine.
#[derive(Debug)]
pub struct CorePolicy {
    /// To the core.
    pub commands: mpsc::Sender<Command>,
    /// The engine, while it runs.
    pub engine: watch::Receiver<Option<PolicyEngine>>,
}

impl Policy for CorePolicy {
    async fn changed(&self) {
        let (done, told) = oneshot::channel();
        if self.commands.send(Command::RecordsChanged(done)).await.is_ok() {
            // An error means that the agent stops; then nobody waits for the answer either.
            let _ = told.await;
        }
    }

    async fn wait_programmed(&self, record: &EndpointRecord, timeout: Duration) -> Result<(), String> {
        let deadline = Instant::now() + timeout;
        let mut engines = self.engine.clone();
        let engine = match tokio::time::timeout_at(deadline, engines.wait_for(Option::is_some)).await {
            Ok(Ok(engine)) => engine.clone(),
            _ => None,
        };
        let Some(engine) = engine else {
            return Err("the policy engine waits for the cluster's state".to_owned());
        };
        let id = endpoint_id(record);
        let left = deadline.saturating_duration_since(Instant::now());
        engine.wait_programmed(&id, left).await.map_err(|error| error.reason)
    }
}

/// [`Links`] by netlink.
#[derive(Debug)]
pub struct HostLinks {
    /// The host's namespace.
    pub netlink: Netlink,
    /// What the host side is.
    pub host: watch::Receiver<HostState>,
    /// The settings in force.
    pub settings: watch::Receiver<Option<Settings>>,
}

impl Links for HostLinks {
    async fn delete(&self, name: &str) -> Result<(), String> {
        match self.netlink.delete_link_by_name(name).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn forget_connections(&self, addresses: &[IpAddr]) -> Result<(), String> {
        let addresses = addresses.to_vec();
        let forgotten = self.netlink.run_in_netns(move || forget_connections(&addresses)).await;
        match forgotten {
            Ok(Ok(0)) => Ok(()),
            Ok(Ok(count)) => {
                tracing::info!(count, "connections of the addresses' former holders forgotten");
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn pod_mtu(&self) -> u32 {
        match self.host.borrow().pod_mtu {
            0 => 1500,
            mtu => mtu,
        }
    }

    async fn interface_prefix(&self) -> String {
        let mut settings = self.settings.clone();
        let known = settings.wait_for(Option::is_some).await;
        let prefix = known
            .ok()
            .and_then(|settings| settings.as_ref().map(|s| s.interface_prefix.clone()));
        prefix.unwrap_or_else(|| margay_cni::naming::DEFAULT_PREFIX.to_owned())
    }
}
