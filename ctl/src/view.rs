//! Commands that show what agents say.

mod bgp;
mod ipam;
mod status;

use anyhow::anyhow;

use crate::fleet;
use crate::output::Output;
use crate::transport::Transport;

pub(crate) use bgp::{peers, routes};
pub(crate) use ipam::ipam;
pub(crate) use status::status;

/// The local agent's answers as they came, one line each.
pub(crate) fn raw(transport: &Transport, paths: &[String]) -> anyhow::Result<Output> {
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let mut text = String::new();
    for answer in fleet::block_on(transport.fetch(&paths))? {
        for value in answer.result.map_err(|reason| anyhow!(reason))? {
            text.push_str(&format!("{value}\n"));
        }
    }
    Ok(Output {
        text,
        warnings: Vec::new(),
        complete: true,
    })
}

/// The row of a node that did not answer: the column `state` says so, the last one why.
fn unreachable<const N: usize>(node: &str, state: usize, reason: &str) -> [String; N] {
    let mut row = [const { String::new() }; N];
    node.clone_into(&mut row[0]);
    "unreachable".clone_into(&mut row[state]);
    reason.clone_into(&mut row[N - 1]);
    row
}

/// Several values in one cell.
fn list<T: ToString>(values: impl IntoIterator<Item = T>) -> String {
    values
        .into_iter()
        .map(|value| value.to_string())
        .collect::<Vec<_>>()
        .join(",")
}
