//! The answers of all nodes, as JSON and as types.

use anyhow::{Context, bail};
use margay_api::control::{BgpPeer, BgpRoute, Endpoint, IpamBlock, NodeStatus};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::output::{Format, Output};
use crate::transport::{Answer, Transport};

/// Something to ask an agent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    /// The answer's name in JSON output, and its field in [`Report`].
    key: &'static str,
    path: &'static str,
}

impl Question {
    pub(crate) const STATUS: Self = Self::new("status", "/v1/status");
    pub(crate) const PEERS: Self = Self::new("peers", "/v1/bgp/peers");
    pub(crate) const ROUTES: Self = Self::new("routes", "/v1/bgp/routes");
    pub(crate) const BLOCKS: Self = Self::new("blocks", "/v1/ipam/blocks");
    pub(crate) const ENDPOINTS: Self = Self::new("endpoints", "/v1/endpoints");

    const fn new(key: &'static str, path: &'static str) -> Self {
        Self { key, path }
    }
}

/// What a node said; what it was not asked is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    pub(crate) status: NodeStatus,
    pub(crate) peers: Vec<BgpPeer>,
    pub(crate) routes: Vec<BgpRoute>,
    pub(crate) blocks: Vec<IpamBlock>,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// Every node with its answers, or why it gave none.
#[derive(Debug)]
pub(crate) struct Fleet {
    nodes: Vec<Answer<(Map<String, Value>, Report)>>,
}

impl Fleet {
    /// Asks all agents at once.
    pub(crate) fn ask(transport: &Transport, questions: &[Question]) -> anyhow::Result<Self> {
        let paths: Vec<&str> = questions.iter().map(|question| question.path).collect();
        let answers = block_on(transport.fetch(&paths))?;
        if answers.is_empty() {
            bail!("the lab has no cluster node: none of its nodes has the label margay.io/kubernetes-node: \"true\"");
        }
        let understand = |answer: Answer<Vec<Value>>| Answer {
            node: answer.node,
            result: answer.result.and_then(|values| understand(questions, values)),
        };
        Ok(Self {
            nodes: answers.into_iter().map(understand).collect(),
        })
    }

    /// The nodes that answered, by name.
    pub(crate) fn reports(&self) -> impl Iterator<Item = (&str, &Report)> {
        self.nodes
            .iter()
            .filter_map(|node| Some((node.node.as_str(), &node.result.as_ref().ok()?.1)))
    }

    /// All nodes, those that did not answer with the reason.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&str, Result<&Report, &str>)> {
        self.nodes.iter().map(|node| {
            let result = node.result.as_ref().map(|(_, report)| report).map_err(String::as_str);
            (node.node.as_str(), result)
        })
    }

    /// Prints the answers as they came, or as `table` makes them. Nodes that did not answer are rows of the JSON, and of
    /// tables that list nodes; `explain` warns of them for the others.
    pub(crate) fn output(&self, format: Format, explain: bool, table: impl FnOnce(&Self) -> String) -> Output {
        let failures = self.nodes().filter_map(|(node, result)| Some((node, result.err()?)));
        let warnings = match format {
            Format::Table if explain => failures.map(|(node, reason)| format!("{node}: {reason}")).collect(),
            Format::Table | Format::Json => Vec::new(),
        };
        Output {
            text: match format {
                Format::Json => self.json(),
                Format::Table => table(self),
            },
            warnings,
            complete: self.nodes.iter().all(|node| node.result.is_ok()),
        }
    }

    fn json(&self) -> String {
        let nodes: Vec<Value> = self
            .nodes
            .iter()
            .map(|answer| match &answer.result {
                Ok((fields, _)) => {
                    let mut node = Map::from_iter([("node".to_owned(), Value::from(answer.node.as_str()))]);
                    node.extend(fields.clone());
                    Value::Object(node)
                }
                Err(reason) => json!({"node": answer.node, "error": reason}),
            })
            .collect();
        format!("{:#}\n", json!({ "nodes": nodes }))
    }
}

fn understand(questions: &[Question], values: Vec<Value>) -> Result<(Map<String, Value>, Report), String> {
    let keys = questions.iter().map(|question| question.key.to_owned());
    let fields: Map<String, Value> = keys.zip(values).collect();
    match serde_path_to_error::deserialize(&Value::Object(fields.clone())) {
        Ok(report) => Ok((fields, report)),
        Err(error) => {
            let path = error.path().to_string();
            Err(format!(
                "this margayctl does not understand the agent's answer at {path}: {}",
                error.into_inner()
            ))
        }
    }
}

/// Runs a future to its end on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    Ok(runtime.block_on(future))
}
