//! `margayctl policy eval`: verdicts from manifests alone, or from what a cluster's API server holds.

use anyhow::{Context, anyhow};
use margay_api::slim::Metadata;
use margay_felix::verdict::{Cluster, Connection, Decision, Direction, EvaluateError, Peer, Verdict, evaluate};
use serde_json::{Map, Value, json};

use super::connections::{self, Line};
use super::stored;
use crate::cli::{Eval, Target};
use crate::manifests;
use crate::output::{Format, Output, Table};

/// Pods that are named in place of one that is not there.
const MOST_PODS: usize = 10;

/// Judges every connection, or none: a fault anywhere is the only answer.
pub(crate) async fn eval(eval: &Eval, target: &Target, format: Format) -> anyhow::Result<Output> {
    let lines = || match (&eval.connections, &eval.from, &eval.to) {
        (None, Some(from), Some(to)) => connections::one(from, to, eval.port.as_deref()).map(|line| vec![line]),
        (Some(path), ..) => connections::load(path),
        (None, ..) => Ok(Vec::new()),
    };
    let (cluster, mut warnings, lines, place) = if eval.manifests.is_empty() {
        let lines = lines()?;
        let connections: Vec<&Connection> = lines.iter().map(|line| &line.connection).collect();
        let stored = stored::load(target, &connections).await?;
        (stored.cluster, stored.warnings, lines, "the cluster has")
    } else {
        let state = manifests::load(&eval.manifests)?;
        (state.cluster, state.warnings, lines()?, "the manifests have")
    };
    warnings.extend(connections::warnings(&lines));
    let verdicts = lines
        .iter()
        .map(|line| {
            let verdict = evaluate(&cluster, &line.connection);
            verdict
                .map_err(|error| explain(&cluster, error, place))
                .with_context(|| line.place.clone())
        })
        .collect::<Result<Vec<_>, _>>()?;
    let text = match format {
        Format::Json => json_lines(&lines, &verdicts),
        Format::Table => table(&lines, &verdicts),
    };
    Ok(Output {
        text,
        warnings,
        complete: true,
    })
}

/// Says which pods there are when one is not: `place` has them.
fn explain(cluster: &Cluster, error: EvaluateError, place: &str) -> anyhow::Error {
    let EvaluateError::UnknownPod(Peer::Pod { namespace, name }) = &error else {
        return error.into();
    };
    let pods = cluster.pods.iter().map(|pod| &pod.metadata);
    let mut near: Vec<String> = pods
        .filter(|pod| pod.namespace == *namespace || pod.name == *name)
        .map(Metadata::full_name)
        .collect();
    let more = near.len().saturating_sub(MOST_PODS);
    near.truncate(MOST_PODS);
    match (near.as_slice(), more) {
        ([], _) => anyhow!("{error}: {place} none in namespace {namespace}"),
        (near, 0) => anyhow!("{error}: {place} {}", near.join(", ")),
        (near, more) => anyhow!("{error}: {place} {} and {more} more there", near.join(", ")),
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
