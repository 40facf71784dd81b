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
    let mut election = Election::new(LeaseConfig {
        namespace: options.namespace.clone(),
        name: "margay-controller".to_owned(),
        identity: options.identity.clone(),
        duration: LEASE,
    });
    let (until, reign) = watch::channel(None);
    let reign = Reign {
        until: reign,
        health: health.clone(),
    };
    let jobs = Jobs::new(&options, api.clone());
    // Side by side: a long round of jobs must not cost the lease.
    tokio::select! {
        () = renew(&mut election, &api, &options, &health, until) => {}
        () = work(jobs, &options, reign) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    if let Err(error) = election.resign(&api).await {
        tracing::warn!(%error, "lease not given up; it expires by itself");
    }
    Ok(())
}

/// Keeps the lease, and tells until when.
async fn renew(
    election: &mut Election,
    api: &Api,
    options: &Options,
    health: &Health,
    until: watch::Sender<Option<Instant>>,
) {
    let mut tick = tokio::time::interval((LEASE / 3).min(options.interval));
    let mut led = false;
    loop {
        tick.tick().await;
        health.beat("lease", PATIENCE);
        let condition = match election.round(api).await {
            Ok(()) => Condition::Ready(String::new()),
            Err(ApiError::NotFound(text)) => Condition::NotReady(format!(
                "{text}: the Lease cannot be kept in namespace {}; apply deploy/margay.yaml or give --namespace",
                options.namespace
            )),
            Err(error) => Condition::NotReady(error.to_string()),
        };
        health.set("datastore", condition);
        until.send_replace(election.held_until());
        let leads = election.leads(Instant::now());
        if std::mem::replace(&mut led, leads) != leads {
            tracing::info!(identity = %options.identity, leads, "leadership");
        }
        let role = if leads { "leads" } else { "stands by" };
        health.set("role", Condition::Ready(role.to_owned()));
    }
}

/// Does the jobs while this replica leads.
async fn work(mut jobs: Jobs, options: &Options, mut reign: Reign) {
    loop {
        reign.alive();
        if reign.leads() {
            let failed = jobs.round(&reign).await;
            let failed: Vec<_> = failed.iter().map(|error| format!("{error:#}")).collect();
            for error in &failed {
                tracing::warn!(%error, "job not finished; tried again");
            }
            reign.tell(&failed);
            let lost = reign
                .until
                .wait_for(|until| until.is_none_or(|until| Instant::now() >= until));
            let _ = tokio::time::timeout(options.interval, lost).await;
        } else {
            reign.health.forget(JOBS);
            // Observations of an earlier reign are stale.
            jobs.deleted = DeletedNodes::new(options.leak_grace);
            let _ = tokio::time::timeout(options.interval, reign.until.changed()).await;
        }
    }
}

/// A part that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// The part of readiness that says what became of the jobs.
const JOBS: &str = "jobs";

/// Whether this replica leads, for those who are at work for long.
#[derive(Debug, Clone)]
struct Reign {
    until: watch::Receiver<Option<Instant>>,
    health: Health,
}

impl Reign {
    fn leads(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Says what became of a round. A job that fails is tried again, which a restart would not do better.
    fn tell(&self, failed: &[String]) {
        let condition = if failed.is_empty() {
            Condition::Ready(String::new())
        } else {
            Condition::Degraded(failed.join("; "))
        };
        self.health.set(JOBS, condition);
    }

    /// Says that the jobs do not hang.
    fn alive(&self) {
        self.health.beat("controller", PATIENCE);
    }
}

#[derive(Debug)]
struct Jobs {
    api: Api,
    allocator: Allocator<KubeStore>,
    deleted: DeletedNodes,
    collector: Collector,
    events: EventWriter,
    told: Standing,
    collect_at: Instant,
}

impl Jobs {
    fn new(options: &Options, api: Api) -> Self {
        Self {
            allocator: Allocator::new(KubeStore::reading_settings(api.clone()), "margay-controller"),
            deleted: DeletedNodes::new(options.leak_grace),
            collector: Collector::default(),
            collect_at: Instant::now(),
            events: EventWriter::start(api.clone(), "margay-controller", options.identity.clone()),
            told: Standing::default(),
            api,
        }
    }

    /// Every job once; none waits for another that fails. What failed.
    async fn round(&mut self, reign: &Reign) -> Vec<anyhow::Error> {
        let information = cluster_information(&self.api).await;
        let pools = pools::report(&self.api, &self.events, &mut self.told, reign).await;
        let deleted = self.deleted.round(&self.api, &self.allocator, reign).await;
        let leftovers = self.collect(reign).await;
        [
            information.context("ClusterInformation default"),
            pools.context("status of IPPools"),
            deleted.context("deleted nodes"),
            leftovers.context("IPAM leftovers"),
        ]
        .into_iter()
        .filter_map(Result::err)
        .collect()
    }

    async fn collect(&mut self, reign: &Reign) -> anyhow::Result<()> {
        if Instant::now() < self.collect_at || !reign.leads() {
            return Ok(());
        }
        self.collect_at = Instant::now() + Duration::from_secs(60);
        let collected = self.collector.pass(&self.allocator).await?;
        for handle in &collected.handles_removed {
            tracing::info!(%handle, "IPAM handle removed: in two passes it had no address");
        }
        for handle in &collected.handles_restored {
            tracing::info!(%handle, "IPAM handle restored: addresses name it");
        }
        for block in &collected.blocks_removed {
            tracing::info!(%block, "IPAM block removed: empty, and nobody's");
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

#[cfg(test)]
mod tests;
