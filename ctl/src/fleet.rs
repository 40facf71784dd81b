//! The answers of all nodes, as JSON and as types.

use margay_api::control::{BgpPeer, BgpRoute, Endpoint, IpamBlock, NodeStatus};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::known::Known;
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
    asked: String,
    nodes: Vec<Answer<(Map<String, Value>, Report)>>,
    known: Option<Known>,
}

impl Fleet {
    /// Asks all agents at once; with `know`, the API server too for what it alone knows.
    pub(crate) async fn ask(transport: &Transport, questions: &[Question], know: bool) -> anyhow::Result<Self> {
        let paths: Vec<&str> = questions.iter().map(|question| question.path).collect();
        let known = async { if know { transport.know().await } else { None } };
        let (answers, known) = tokio::join!(transport.fetch(&paths), known);
        Ok(Self::of(transport.name(), questions, answers?, known))
    }

    /// What came of asking: `asked` says whom, for people.
    pub(crate) fn of(
        asked: String,
        questions: &[Question],
        answers: Vec<Answer<Vec<Value>>>,
        known: Option<Known>,
    ) -> Self {
        let understand = |answer: Answer<Vec<Value>>| Answer {
            node: answer.node,
            result: answer.result.and_then(|values| understand(questions, values)),
        };
        Self {
            asked,
            nodes: answers.into_iter().map(understand).collect(),
            known,
        }
    }

    /// Who was asked, for people.
    pub(crate) fn asked(&self) -> &str {
        &self.asked
    }

    /// What the API server knows; nothing where it was not asked.
    pub(crate) fn known(&self) -> Option<&Known> {
        self.known.as_ref()
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
                Format::Json => self.json(Map::new()),
                Format::Table => table(self),
            },
            warnings,
            complete: self.is_complete(),
        }
    }

    /// Whether every agent answered.
    pub(crate) fn is_complete(&self) -> bool {
        self.nodes.iter().all(|node| node.result.is_ok())
    }

    /// The answers as they came, a node each, and what the API server knows, behind `fields`.
    pub(crate) fn json(&self, mut fields: Map<String, Value>) -> String {
        fields.insert("nodes".to_owned(), self.nodes.iter().map(node_json).collect());
        if let Some(known) = &self.known {
            fields.insert("api".to_owned(), known.json());
        }
        format!("{:#}\n", Value::Object(fields))
    }
}

fn node_json(answer: &Answer<(Map<String, Value>, Report)>) -> Value {
    match &answer.result {
        Ok((fields, _)) => {
            let mut node = Map::from_iter([("node".to_owned(), Value::from(answer.node.as_str()))]);
            node.extend(fields.clone());
            Value::Object(node)
        }
        Err(reason) => json!({"node": answer.node, "error": reason}),
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
