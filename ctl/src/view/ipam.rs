//! `margayctl ipam`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use margay_api::control::IpamBlock;

use crate::fleet::{Fleet, Question};
use crate::output::{Format, Output, Table, ago};
use crate::transport::Transport;

/// Blocks, and who has which address.
pub(crate) fn ipam(transport: &Transport, format: Format) -> anyhow::Result<Output> {
    let now = Timestamp::now();
    let fleet = Fleet::ask(transport, &[Question::BLOCKS])?;
    Ok(fleet.output(format, true, |fleet| {
        format!("Blocks\n{}\nAddresses\n{}", blocks(fleet), addresses(fleet, now))
    }))
}

pub(super) fn blocks(fleet: &Fleet) -> Table<6> {
    let mut table = Table::new(["BLOCK", "OWNER", "POOL", "USED", "FREE", "BORROWED"]);
    for block in merged(fleet) {
        table.row([
            block.cidr.clone(),
            owner(block).to_owned(),
            block.pool.clone().unwrap_or_default(),
            block.used.to_string(),
            block.capacity.saturating_sub(block.used).to_string(),
            block.borrowed.to_string(),
        ]);
    }
    table
}

fn addresses(fleet: &Fleet, now: Timestamp) -> Table<5> {
    let mut table = Table::new(["ADDRESS", "POD", "NODE", "AGE", "BLOCK"]);
    for block in merged(fleet) {
        for allocation in &block.allocations {
            let holder = allocation.pod.as_ref().or(allocation.handle.as_ref());
            table.row([
                allocation
                    .address
                    .map(|address| address.to_string())
                    .unwrap_or_default(),
                holder.cloned().unwrap_or_default(),
                allocation.node.clone().unwrap_or_default(),
                ago(allocation.since.as_deref(), now),
                block.cidr.clone(),
            ]);
        }
    }
    table
}

/// Each block once, in order of its CIDR: its owner's word counts before that of a node that borrowed from it.
fn merged(fleet: &Fleet) -> impl Iterator<Item = &IpamBlock> {
    let mut blocks: BTreeMap<_, &IpamBlock> = BTreeMap::new();
    for (node, report) in fleet.reports() {
        for block in &report.blocks {
            let place = blocks.entry(order(&block.cidr)).or_insert(block);
            if owner(block) == node {
                *place = block;
            }
        }
    }
    blocks.into_values()
}

/// Sorts CIDRs by address; a text that is none comes last.
fn order(cidr: &str) -> (bool, Option<std::net::IpAddr>, &str) {
    let address = cidr.split('/').next().and_then(|address| address.parse().ok());
    (address.is_none(), address, cidr)
}

fn owner(block: &IpamBlock) -> &str {
    let affinity = block.affinity.as_deref().unwrap_or_default();
    affinity.strip_prefix("host:").unwrap_or(affinity)
}
