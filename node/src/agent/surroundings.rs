//! What is around the agent and not its own, and what it finds wrong there.

mod aggregation;
mod cni_conf;
mod ipvs;
mod network_condition;

use std::path::PathBuf;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::findings::Findings;
use crate::kube::Api;

/// Where to look.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// This node.
    pub node: String,
    /// The runtime's folder of CNI configurations; nothing where the agent does not see it.
    pub cni_conf_dir: Option<PathBuf>,
}

/// Starts looking. `unavailable` is true while the Node says that it has no network although it has.
pub fn look(
    tasks: &mut JoinSet<()>,
    surroundings: Surroundings,
    api: Api,
    unavailable: watch::Receiver<bool>,
    findings: &Findings,
) {
    tasks.spawn(aggregation::watch(api.clone(), findings.clone()));
    tasks.spawn(network_condition::clear(
        api,
        surroundings.node,
        unavailable,
        findings.clone(),
    ));
    tasks.spawn(ipvs::watch(findings.clone()));
    if let Some(dir) = surroundings.cni_conf_dir {
        tasks.spawn(cni_conf::watch(dir, findings.clone()));
    }
}
