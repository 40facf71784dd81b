//! The few jobs that a cluster needs once: one replica leads, the others wait.
//!
//! - A Node is deleted: after a grace period, and after asking the API server itself once more, its addresses, blocks and
//!   claims are released. Each release is a log line.
//! - ClusterInformation `default` exists, so that tools find a cluster GUID.
//! - Leftovers of crashes in IPAM (handles without addresses, empty blocks of nobody) are mended after two observations.
//! - Pools that count as absent say so in their status.

mod nodes;
mod pools;

use std::time::{Duration, Instant};

use anyhow::Context;
use margay_ipam::Allocator;
use margay_ipam::gc::Collector;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::health::{Condition, Health};
use crate::http;
use crate::kube::events::{EventWriter, Standing};
use crate::kube::ipam_store::KubeStore;
use crate::kube::lease::{Election, LeaseConfig};
use crate::kube::resource::CLUSTER_INFORMATION;
use crate::kube::{Api, ApiError};
use nodes::DeletedNodes;

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Options {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Unique among replicas.
    pub identity: String,
    /// How long a node must be gone before its addresses are released.
    pub leak_grace: Duration,
    /// Time between two looks at the cluster.
    pub interval: Duration,
    /// Address of `/healthz` and `/readyz`.
    pub health: Option<std::net::SocketAddr>,
}

/// A lease that is not renewed for so long is anybody's.
const LEASE: Duration = Duration::from_secs(15);

/// Runs until `stop` is set.
pub async fn run(options: Options, api: Api, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let health = Health::default();
    let (_address, address) = watch::channel(options.health);
    tokio::spawn(http::serve(
        "health server",
        http::health_router(health.clone()),
        address,
        health.clone(),
    ));
    let events = EventWriter::start(api.clone(), "margay-controller", options.identity.clone());
    let mut election = Election::new(LeaseConfig {
        namespace: options.namespace.clone(),
        name: "margay-controller".to_owned(),
        identity: options.identity.clone(),
        duration: LEASE,
    });
    let mut jobs = Jobs {
        allocator: Allocator::new(KubeStore::reading_settings(api.clone()), "margay-controller"),
        deleted: DeletedNodes::new(options.leak_grace),
        collector: Collector::default(),
        next: Instant::now(),
        collect_at: Instant::now(),
        events,
        told: Standing::default(),
        api: api.clone(),
    };
    let mut led = false;
    let mut tick = tokio::time::interval((LEASE / 3).min(options.interval));
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = stop.changed() => break,
        }
        health.beat("controller", Duration::from_secs(300));
        if let Err(error) = election.round(&api).await {
            let why = match error {
                ApiError::NotFound(text) => format!(
                    "{text}: the Lease cannot be kept in namespace {}; apply deploy/namespace.yaml or give --namespace",
                    options.namespace
                ),
                other => other.to_string(),
            };
            health.set("datastore", Condition::NotReady(why));
        } else {
            health.set("datastore", Condition::Ready(String::new()));
        }
        let leads = election.leads(Instant::now());
        if leads != led {
            tracing::info!(identity = %options.identity, leads, "leadership");
            led = leads;
            // Observations of an earlier reign are stale.
            jobs.deleted = DeletedNodes::new(options.leak_grace);
        }
        health.set(
            "role",
            Condition::Ready(if leads { "leads" } else { "stands by" }.to_owned()),
        );
        if leads && Instant::now() >= jobs.next {
            jobs.next = Instant::now() + options.interval;
            if let Err(error) = jobs.round().await {
                tracing::warn!(error = format!("{error:#}"), "round not finished; tried again");
            }
        }
    }
    if let Err(error) = election.resign(&api).await {
        tracing::warn!(%error, "lease not given up; it expires by itself");
    }
    Ok(())
}

#[derive(Debug)]
struct Jobs {
    api: Api,
    allocator: Allocator<KubeStore>,
    deleted: DeletedNodes,
    collector: Collector,
    events: EventWriter,
    told: Standing,
    next: Instant,
    collect_at: Instant,
}

impl Jobs {
    async fn round(&mut self) -> anyhow::Result<()> {
        cluster_information(&self.api)
            .await
            .context("ClusterInformation default")?;
        pools::report(&self.api, &self.events, &mut self.told)
            .await
            .context("status of IPPools")?;
        self.deleted
            .round(&self.api, &self.allocator)
            .await
            .context("deleted nodes")?;
        if Instant::now() >= self.collect_at {
            self.collect_at = Instant::now() + Duration::from_secs(60);
            let collected = self.collector.pass(&self.allocator).await.context("IPAM leftovers")?;
            for handle in &collected.handles_removed {
                tracing::info!(%handle, "IPAM handle removed: in two passes it had no address");
            }
            for handle in &collected.handles_restored {
                tracing::info!(%handle, "IPAM handle restored: addresses name it");
            }
            for block in &collected.blocks_removed {
                tracing::info!(%block, "IPAM block removed: empty, and nobody's");
            }
        }
        Ok(())
    }
}

/// Creates it when it is missing; what others wrote stays.
async fn cluster_information(api: &Api) -> Result<(), ApiError> {
    match api.get::<Value>(&CLUSTER_INFORMATION, None, "default").await {
        Err(ApiError::NotFound(_)) => {}
        found => return found.map(|_| ()),
    }
    let body = json!({
        "apiVersion": CLUSTER_INFORMATION.api_version(),
        "kind": CLUSTER_INFORMATION.kind,
        "metadata": { "name": "default" },
        "spec": { "clusterGUID": guid(), "clusterType": "k8s,bgp,kdd", "datastoreReady": true },
    });
    match api.create::<Value>(&CLUSTER_INFORMATION, None, &body).await {
        Ok(_) => {
            tracing::info!("ClusterInformation default created");
            Ok(())
        }
        Err(ApiError::AlreadyExists(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// 32 random hex digits: the kernel's random UUID without its dashes.
fn guid() -> String {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    uuid.trim().replace('-', "")
}
