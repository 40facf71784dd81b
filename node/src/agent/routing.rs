//! The speaker: started as early as possible, changed in place, left so that peers keep forwarding.

use std::path::PathBuf;

use ipnetwork::IpNetwork;
use margay_api::v3::LogLevel;
use margay_bgp::config::Config;
use margay_bgp::fib::Sources;
use margay_bgp::fib::kernel::{KernelConfig, KernelFib};
use margay_bgp::speaker::{Handle, Shutdown, Speaker};
use margay_netlink::Handle as Netlink;
use tokio::sync::watch;

use super::bgp_config::{self, Surroundings};
use super::cluster::Cluster;
use super::saving;
use crate::health::{Condition, Health};
use crate::kube::events::Notice;
use crate::persist::{self, Format};

const BGP_CONFIG: Format = Format {
    kind: "bgp-config",
    version: 1,
};

/// The part of readiness that says why the speaker does not run as the cluster wants; that of its sessions is apart.
const CONFIGURATION: &str = "bgp configuration";

/// Owns the speaker.
#[derive(Debug)]
pub struct Routing {
    netlink: Netlink,
    /// Where the last configuration is kept.
    file: PathBuf,
    /// An earlier agent's routes are in the kernel: packets flow, so what it announced stays announced.
    kernel_kept: bool,
    ipv6: bool,
    /// For others.
    speaker: watch::Sender<Option<Handle>>,
    /// For the routes in the kernel.
    sources: watch::Sender<Sources>,
    applied: Option<Config>,
    /// What is announced, or was by the last agent while packets have gone on flowing.
    shown: Vec<IpNetwork>,
    log_level: Option<LogLevel>,
    announced: bool,
    failed: bool,
}

impl Routing {
    /// Nothing runs yet. `kernel_kept` as [`crate::host::blackholes`] tells.
    pub fn new(
        netlink: Netlink,
        file: PathBuf,
        kernel_kept: bool,
        ipv6: bool,
        speaker: watch::Sender<Option<Handle>>,
    ) -> Self {
        Self {
            netlink,
            file,
            kernel_kept,
            ipv6,
            speaker,
            sources: watch::Sender::default(),
            applied: None,
            shown: Vec::new(),
            log_level: None,
            announced: false,
            failed: false,
        }
    }

    /// Starts with the configuration of the last run: a restarting speaker must be back before its peers lose patience,
    /// which may be before the API server answers. After a reboot nothing is announced until pods can be served.
    pub async fn resume(&mut self, health: &Health) {
        match persist::load::<Config>(&self.file, BGP_CONFIG) {
            Ok(Some(mut config)) => {
                if !self.kernel_kept {
                    config.networks.clear();
                }
                self.shown = config.networks.iter().map(|network| network.prefix).collect();
                tracing::info!(
                    peers = config.peers.len(),
                    networks = config.networks.len(),
                    "BGP resumes"
                );
                if let Err(error) = self.apply(config).await {
                    tracing::warn!(%error, "BGP does not resume from the last configuration");
                }
            }
            Ok(None) => {}
            Err(error) => {
                let why = format!("{error}; BGP starts once the cluster's state is known");
                health.set(saving::part(&self.file), Condition::Degraded(why));
            }
        }
    }

    /// Brings the speaker in line with the cluster. Returns what users must fix.
    pub async fn update(
        &mut self,
        cluster: &Cluster,
        node: &str,
        connected: Vec<IpNetwork>,
        dataplane_ready: bool,
        health: &Health,
    ) -> Vec<Notice> {
        let Some(me) = cluster.nodes.named(node) else {
            let why = format!("there is no Node object {node}; does --node name this node as the cluster does?");
            health.set(CONFIGURATION, Condition::NotReady(why));
            return Vec::new();
        };
        let announce = self.announced || self.kernel_kept || dataplane_ready;
        let plan = bgp_config::plan(
            cluster,
            me,
            &Surroundings {
                connected,
                ipv6: self.ipv6,
                announce,
                shown: std::mem::take(&mut self.shown),
            },
        );
        self.shown = plan.config.networks.iter().map(|network| network.prefix).collect();
        if self.log_level != plan.log_level {
            crate::logging::set_bgp_level(plan.log_level);
            self.log_level = plan.log_level;
        }
        self.announced = announce;
        self.failed = false;
        health.forget(CONFIGURATION);
        if self.applied.as_ref() != Some(&plan.config) {
            match self.apply(plan.config.clone()).await {
                Ok(()) => {
                    let (file, config) = (self.file.clone(), plan.config);
                    let saved = tokio::task::spawn_blocking(move || persist::save(&file, BGP_CONFIG, &config)).await;
                    match saved {
                        Ok(Err(error)) => {
                            let why = format!("not written: {error}; a restarted agent begins with older sessions");
                            health.set(saving::part(&self.file), Condition::Degraded(why));
                        }
                        _ => health.forget(&saving::part(&self.file)),
                    }
                }
                Err(error) => {
                    self.failed = true;
                    health.set(CONFIGURATION, Condition::Degraded(error.to_string()));
                }
            }
        }
        plan.faults
    }

    /// Whether an announcement waits for the dataplane.
    pub fn waits_for_dataplane(&self) -> bool {
        !self.announced
    }

    /// Whether the last attempt failed and another may succeed.
    pub fn wants_retry(&self) -> bool {
        self.failed
    }

    /// Ends the speaker as one that comes back: no word to the peers, routes stay in the kernel.
    pub async fn leave(&mut self) {
        if let Some(speaker) = self.speaker.send_replace(None) {
            speaker.shutdown(Shutdown::Restart).await;
        }
    }

    async fn apply(&mut self, config: Config) -> Result<(), margay_bgp::speaker::Error> {
        let running = self.speaker.borrow().clone();
        self.sources
            .send_if_modified(|sources| std::mem::replace(sources, config.sources) != config.sources);
        match running {
            Some(speaker) => speaker.apply(config.clone()).await?,
            None => {
                let kernel = KernelConfig {
                    protocol: bgp_config::ROUTE_PROTOCOL,
                    ..KernelConfig::default()
                };
                let fib = KernelFib::new(self.netlink.clone(), kernel)
                    .forwarding_kept(self.kernel_kept)
                    .sources(self.sources.subscribe());
                self.speaker
                    .send_replace(Some(Speaker::start(config.clone(), fib).await?));
            }
        }
        tracing::info!(
            local_as = config.local_as, router_id = %config.router_id, peers = config.peers.len(),
            networks = ?config.networks.iter().map(|n| n.prefix.to_string()).collect::<Vec<_>>(), "BGP configured"
        );
        self.applied = Some(config);
        Ok(())
    }
}
