//! `margayctl policy eval`: verdicts from manifests alone.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use margay_api::slim::Metadata;
use margay_felix::verdict::{Cluster, Decision, Direction, EvaluateError, Peer, Verdict, evaluate};
use serde_json::{Map, Value, json};

use super::connections::{self, Line};
use crate::manifests;
use crate::output::{Format, Output, Table};

/// Judges every connection, or none: a fault anywhere is the only answer.
pub(crate) fn eval(manifests: &[PathBuf], connections: &Path, format: Format) -> anyhow::Result<Output> {
    let state = manifests::load(manifests)?;
    let lines = connections::load(connections)?;
    let verdicts = lines
        .iter()
        .map(|line| {
            let verdict = evaluate(&state.cluster, &line.connection);
            verdict
                .map_err(|error| explain(&state.cluster, error))
                .with_context(|| line.place.clone())
        })
        .collect::<Result<Vec<_>, _>>()?;
    let text = match format {
        Format::Json => json_lines(&lines, &verdicts),
        Format::Table => table(&lines, &verdicts),
    };
    Ok(Output {
        text,
        warnings: [state.warnings, connections::warnings(&lines)].concat(),
        complete: true,
    })
}

/// Says which pods there are when one is not.
fn explain(cluster: &Cluster, error: EvaluateError) -> anyhow::Error {
    let EvaluateError::UnknownPod(Peer::Pod { namespace, name }) = &error else {
        return error.into();
    };
    let pods = cluster.pods.iter().map(|pod| &pod.metadata);
    let near: Vec<String> = pods
        .filter(|pod| pod.namespace == *namespace || pod.name == *name)
        .map(Metadata::full_name)
        .collect();
    if near.is_empty() {
        anyhow!("{error}: the manifests have none in namespace {namespace}")
    } else {
        anyhow!("{error}: the manifests have {}", near.join(", "))
    }
}

fn json_lines(lines: &[Line], verdicts: &[Verdict]) -> String {
    lines
        .iter()
        .zip(verdicts)
        .map(|(line, verdict)| {
            let mut answer = line.fields.clone();
            answer.extend(fields(verdict));
            format!("{}\n", Value::Object(answer))
        })
        .collect()
}

fn fields(verdict: &Verdict) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("verdict".to_owned(), word(verdict.allow).into());
    fields.insert("egress".to_owned(), decision(&verdict.egress, Direction::Egress));
    fields.insert("ingress".to_owned(), decision(&verdict.ingress, Direction::Ingress));
    fields
}

/// `rule` is a path into the policy's spec; null where no rule but the policies' presence, or absence, decided.
fn decision(decision: &Decision, direction: Direction) -> Value {
    json!({
        "verdict": word(decision.allows()),
        "policy": decision.policy().map(ToString::to_string),
        "rule": decision.rule().map(|rule| format!("{direction}[{}]", rule.index)),
        "reason": decision.to_string(),
    })
}

fn table(lines: &[Line], verdicts: &[Verdict]) -> String {
    let mut table = Table::new(["FROM", "TO", "PORT", "VERDICT", "EGRESS", "INGRESS"]);
    for (line, verdict) in lines.iter().zip(verdicts) {
        table.row([
            line.connection.from.to_string(),
            line.connection.to.to_string(),
            line.connection.protocol.to_string(),
            word(verdict.allow).to_owned(),
            verdict.egress.to_string(),
            verdict.ingress.to_string(),
        ]);
    }
    table.to_string()
}

fn word(allow: bool) -> &'static str {
    if allow { "allow" } else { "deny" }
}
