//! `margayctl ipam`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use margay_api::control::IpamBlock;

use crate::fleet::Fleet;
use crate::known::{Known, Pool};
use crate::output::{Format, Output, Table, ago};

/// Blocks, and who has which address.
pub(super) fn ipam(fleet: &Fleet, format: Format, now: Timestamp) -> Output {
    let mut output = fleet.output(format, true, |fleet| {
        let pools = pools(fleet).map_or(String::new(), |pools| format!("Pools\n{pools}\n"));
        format!("{pools}Blocks\n{}\nAddresses\n{}", blocks(fleet), addresses(fleet, now))
    });
    output
        .warnings
        .extend(fleet.known().map(Known::faults).unwrap_or_default());
    output
}

/// Pools and how full they are, where the API server told.
pub(super) fn pools(fleet: &Fleet) -> Option<Table<6>> {
    let mut table = Table::new(["POOL", "CIDR", "USED", "SIZE", "BLOCKS", "NOTE"]);
    for pool in fleet.known()?.pools.as_deref().ok()? {
        table.row([
            pool.name.clone(),
            pool.cidr.clone(),
            format!("{} ({})", pool.used, percent(pool)),
            pool.size.to_string(),
            pool.blocks.to_string(),
            if pool.disabled { "disabled" } else { "" }.to_owned(),
        ]);
    }
    Some(table)
}

/// How much of a pool is given out.
pub(super) fn percent(pool: &Pool) -> String {
    let used = u128::from(pool.used);
    match used.saturating_mul(100).checked_div(pool.size) {
        None => "0 %".to_owned(),
        Some(0) if used > 0 => "under 1 %".to_owned(),
        Some(percent) => format!("{percent} %"),
    }
}

pub(super) fn blocks(fleet: &Fleet) -> Table<6> {
    let gone = fleet.known().map(Known::gone).unwrap_or_default();
    let mut table = Table::new(["BLOCK", "OWNER", "POOL", "USED", "FREE", "BORROWED"]);
    for block in merged(fleet) {
        let owner = owner(block);
        table.row([
            block.cidr.clone(),
            if gone.contains_key(owner) {
                format!("{owner} (gone)")
            } else {
                owner.to_owned()
            },
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

/// Each block once, in order of its CIDR: its owner's word counts before that of a node that borrowed from it, and that of
/// an agent before the API server's.
pub(super) fn merged(fleet: &Fleet) -> impl Iterator<Item = &IpamBlock> {
    let mut blocks: BTreeMap<_, &IpamBlock> = BTreeMap::new();
    for (node, report) in fleet.reports() {
        for block in &report.blocks {
            let place = blocks.entry(order(&block.cidr)).or_insert(block);
            if owner(block) == node {
                *place = block;
            }
        }
    }
    let stored = fleet.known().and_then(|known| known.blocks.as_deref().ok());
    for block in stored.unwrap_or_default() {
        blocks.entry(order(&block.cidr)).or_insert(block);
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
