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

/// Several values in one cell.
fn list<T: ToString>(values: impl IntoIterator<Item = T>) -> String {
    values
        .into_iter()
        .map(|value| value.to_string())
        .collect::<Vec<_>>()
        .join(",")
}
