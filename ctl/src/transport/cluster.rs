//! The agents of a cluster: the API server runs this very program, as the image has it, in the agents' pods.

mod agents;

use std::time::Duration;

use anyhow::{Context, bail};
use futures::stream::{self, StreamExt};
use serde_json::Value;
use tokio::time::timeout;

use super::{Answer, raw};
use crate::api_server::{ApiError, ApiServer, Ended, Resource};
use crate::cli::{DEFAULT_NAMESPACE, Target};
use crate::known::Known;

use agents::Agent;

const PODS: Resource = Resource {
    group: "/api/v1",
    plural: "pods",
};
/// What the DaemonSet's pods have, and nothing else.
const LABELS: &str = "app.kubernetes.io/name=margay-node";
const CONTAINER: &str = "margay-node";
/// What the API server and the kubelet may take beyond the agent's own time, so that the agent's own words arrive.
const MARGIN: Duration = Duration::from_secs(5);
/// Agents that are asked at one time: each costs the API server two connections.
const AT_ONCE: usize = 64;

/// A cluster in which Margay is installed.
#[derive(Debug)]
pub(crate) struct Cluster {
    api: ApiServer,
    namespace: String,
    /// The only nodes to ask; all when empty.
    only: Vec<String>,
    /// Seconds that each agent may take.
    seconds: u64,
}

impl Cluster {
    /// The cluster that the user named, or the current one.
    pub(super) async fn connect(target: &Target) -> anyhow::Result<Self> {
        let patience = Duration::from_secs(target.timeout) + MARGIN;
        Ok(Self {
            api: ApiServer::connect(target, patience).await?,
            namespace: target.namespace().to_owned(),
            only: target.nodes.clone(),
            seconds: target.timeout,
        })
    }

    /// Whom it asks.
    pub(super) fn name(&self) -> String {
        format!("{}, namespace {}", self.api.context(), self.namespace)
    }

    /// What no living agent knows.
    pub(super) async fn know(&self) -> Known {
        Known::of(&self.api, &self.namespace, &self.only).await
    }

    /// Asks every agent; fails only where none can be asked.
    pub(super) async fn fetch(&self, paths: &[&str]) -> anyhow::Result<Vec<Answer<Vec<Value>>>> {
        let pods = self.api.list(PODS, Some(&self.namespace), Some(LABELS)).await;
        let pods: Vec<agents::Pod> = pods.context("the agents' pods cannot be listed")?;
        if pods.is_empty() {
            bail!("{}", self.elsewhere().await);
        }
        let agents = agents::agents(&pods, &self.only);
        let asked = stream::iter(&agents)
            .map(|agent| self.ask(agent, paths))
            .buffered(AT_ONCE);
        let asked: Vec<_> = asked.collect().await;
        let mut answers = Vec::with_capacity(asked.len());
        for (agent, result) in agents.iter().zip(asked) {
            let result = match result {
                // It holds for the namespace, and so for every node.
                Err(error @ ApiError::Forbidden(_)) => {
                    return Err(error).context("no command can be run in agents' pods");
                }
                result => result.map_err(|error| error.to_string()),
            };
            answers.push(Answer {
                node: agent.node.clone(),
                result,
            });
        }
        Ok(answers)
    }

    async fn ask(&self, agent: &Agent, paths: &[&str]) -> Result<Vec<Value>, ApiError> {
        let pod = agent.pod.as_ref().map_err(|reason| ApiError::Other(reason.clone()))?;
        let mut command = vec!["margayctl".to_owned()];
        command.extend(raw::arguments(self.seconds, paths));
        let patience = Duration::from_secs(self.seconds) + MARGIN;
        let run = self.api.exec(&self.namespace, pod, CONTAINER, &command);
        match timeout(patience, run).await {
            Ok(Ok(ended)) => told(&ended, paths.len()).map_err(|why| ApiError::Other(format!("pod {pod}: {why:#}"))),
            Ok(Err(ApiError::NotFound(_))) => Err(ApiError::Other(format!("pod {pod} has just gone: ask again"))),
            Ok(Err(ApiError::Failed { message, .. })) => {
                Err(ApiError::Other(format!("pod {pod} cannot be reached: {message}")))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ApiError::Other(format!(
                "no answer from pod {pod} within {} s: kubectl get node {} says whether the node is up",
                patience.as_secs(),
                agent.node
            ))),
        }
    }

    /// What to say when the namespace has no agent: where there are some, if that can be told.
    async fn elsewhere(&self) -> String {
        let namespace = &self.namespace;
        let none = format!(
            "no agent's pod ({LABELS}) is in namespace {namespace} of {}",
            self.api.context()
        );
        let everywhere = self.api.list(PODS, None, Some(LABELS)).await;
        let pods: Vec<agents::Pod> = everywhere.unwrap_or_default();
        let mut namespaces: Vec<&str> = pods.iter().map(|pod| pod.metadata.namespace.as_str()).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        match namespaces.as_slice() {
            [] if namespace == DEFAULT_NAMESPACE => {
                format!("{none}: deploy/README.md says how Margay is installed; -n names another namespace")
            }
            [] => format!("{none}: -n names Margay's, which is {DEFAULT_NAMESPACE} unless somebody chose another"),
            there => format!("{none}; there are some in {}: name it with -n", there.join(", ")),
        }
    }
}

fn told(ended: &Ended, count: usize) -> anyhow::Result<Vec<Value>> {
    match &ended.failure {
        None => raw::answers(&ended.stdout, count),
        Some(failure) => bail!("{}", raw::reason(&ended.stderr).unwrap_or_else(|| failure.clone())),
    }
}
