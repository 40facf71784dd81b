//! What of ours is in the packet filters, whichever back end it was written with, and how it goes.

use std::fmt::Display;
use std::path::Path;

use super::Backend;
use super::snapshot::{Snapshot, TableSnapshot};
use super::tools::{ToolError, Tools, tool_name};
use super::write::by_set;
use crate::render::Table;

/// Everything of ours in the packet filters of the thread's network namespace.
#[derive(Debug, Default)]
pub struct Remains {
    tables: Vec<(Tools, Snapshot)>,
    sets: Vec<String>,
    unread: Vec<ToolError>,
}

impl Remains {
    /// Looks. To be called within a tokio runtime.
    pub async fn read() -> Self {
        let mut remains = Self::default();
        for backend in [Backend::Nft, Backend::Legacy] {
            let tools = Tools::new(backend);
            match tools.snapshot_tables().await {
                Ok(snapshot) => {
                    remains.unread.extend(snapshot.unread.values().cloned());
                    remains.tables.push((tools, snapshot));
                }
                // A host without the tools of x_tables that has none of its tables.
                Err(ToolError::Run { .. }) if backend == Backend::Legacy && !has_legacy_tables() => {}
                Err(error) => remains.unread.push(error),
            }
        }
        match Tools::new(Backend::Nft).snapshot_sets().await {
            Ok(snapshot) => remains.sets = snapshot.sets.into_keys().collect(),
            Err(error) => remains.unread.push(error),
        }
        remains
    }

    /// One line for each rule in a built-in chain, each chain and each set, in the order in which they go.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (tools, snapshot) in &self.tables {
            for ((family, table), there) in &snapshot.tables {
                let place = format!("{table}, {}", tool_name(*family, tools.backend()));
                for (builtin, there) in &there.builtins {
                    let hooks = there.hooks.iter();
                    lines.extend(hooks.map(|hook| format!("rule in {builtin} ({place}): {}", hook.spec)));
                }
                lines.extend(there.chains.keys().map(|chain| format!("chain {chain} ({place})")));
            }
        }
        lines.extend(self.sets.iter().map(|set| format!("set {set}")));
        lines
    }

    /// What could not be looked at: something of ours may be there.
    pub fn unread(&self) -> &[ToolError] {
        &self.unread
    }

    /// Takes it away: one transaction a table, then the sets. Where one is refused, all of it that can go goes. Answers what
    /// was refused.
    pub async fn remove(&self) -> Vec<ToolError> {
        let mut refused = Vec::new();
        for (tools, snapshot) in &self.tables {
            for ((family, table), there) in &snapshot.tables {
                let removal = Removal::of(there);
                if removal.is_empty() {
                    continue;
                }
                if tools
                    .restore_table(*family, &removal.at_once(*table), |_| ())
                    .await
                    .is_ok()
                {
                    continue;
                }
                for text in removal.one_by_one(*table) {
                    refused.extend(tools.restore_table(*family, &text, |_| ()).await.err());
                }
            }
        }
        let tools = Tools::new(Backend::Nft);
        let text: String = self.sets.iter().map(|name| format!("destroy {name}\n")).collect();
        if !text.is_empty() && tools.restore_sets(&text).await.is_err() {
            for lines in by_set(&text).values() {
                refused.extend(tools.restore_sets(lines).await.err());
            }
        }
        refused
    }
}

/// How what is ours in a table goes, in lines for `iptables-restore --noflush`.
#[derive(Debug, PartialEq, Eq)]
struct Removal {
    unhook: Vec<String>,
    empty: Vec<String>,
    delete: Vec<String>,
}

impl Removal {
    fn of(there: &TableSnapshot) -> Self {
        let hooks = there.builtins.iter().flat_map(|(builtin, there)| {
            let hooks = there.hooks.iter();
            hooks.map(move |hook| format!("-D {builtin} {}\n", hook.spec))
        });
        let chains = || there.chains.keys();
        Self {
            unhook: hooks.collect(),
            empty: chains().map(|chain| format!(":{chain} - [0:0]\n")).collect(),
            delete: chains().map(|chain| format!("-X {chain}\n")).collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.unhook.is_empty() && self.delete.is_empty()
    }

    fn at_once(&self, table: Table) -> String {
        transaction(
            table,
            self.empty.concat() + &self.unhook.concat() + &self.delete.concat(),
        )
    }

    /// Packets leave our chains before these are emptied.
    fn one_by_one(&self, table: Table) -> impl Iterator<Item = String> {
        let lines = self.unhook.iter().chain(&self.empty).chain(&self.delete);
        lines.map(move |line| transaction(table, line))
    }
}

fn transaction(table: Table, lines: impl Display) -> String {
    format!("*{table}\n{lines}COMMIT\n")
}

/// Whether the kernel has tables of x_tables in this namespace.
fn has_legacy_tables() -> bool {
    let names = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];
    let mut texts = names.iter().map(|path| std::fs::read_to_string(Path::new(path)));
    texts.any(|text| text.is_ok_and(|text| !text.trim().is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::Family;

    const SAVED: &str = "*filter\n:FORWARD ACCEPT [0:0]\n:mgy-FORWARD - [0:0]\n:mgy-wl - [0:0]\n:theirs - [0:0]\n\
        -A FORWARD -m comment --comment \"mgy:0123 a note\" -j mgy-FORWARD\n-A FORWARD -j theirs\n\
        -A mgy-FORWARD -m comment --comment mgy:4567 -j mgy-wl\n-A theirs -j DROP\nCOMMIT\n\
        *raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j DROP\nCOMMIT\n";

    fn remains() -> Remains {
        let mut snapshot = Snapshot::default();
        snapshot.read_tables(Family::V6, SAVED);
        Remains {
            tables: vec![(Tools::new(Backend::Legacy), snapshot)],
            sets: vec!["mgy6-pools".to_owned()],
            unread: Vec::new(),
        }
    }

    #[test]
    fn what_is_ours_and_nothing_else_is_told_in_order() {
        assert_eq!(
            remains().lines(),
            [
                "rule in FORWARD (filter, ip6tables-legacy): -m comment --comment \"mgy:0123 a note\" -j mgy-FORWARD",
                "chain mgy-FORWARD (filter, ip6tables-legacy)",
                "chain mgy-wl (filter, ip6tables-legacy)",
                "set mgy6-pools",
            ]
        );
    }

    #[test]
    fn a_table_goes_at_once_or_rules_first() {
        let remains = remains();
        let tables = &remains.tables[0].1.tables;
        assert!(Removal::of(&tables[&(Family::V6, Table::Raw)]).is_empty());
        let removal = Removal::of(&tables[&(Family::V6, Table::Filter)]);
        let unhook = "-D FORWARD -m comment --comment \"mgy:0123 a note\" -j mgy-FORWARD\n";
        let (empty, delete) = (":mgy-FORWARD - [0:0]\n:mgy-wl - [0:0]\n", "-X mgy-FORWARD\n-X mgy-wl\n");
        assert_eq!(
            removal.at_once(Table::Filter),
            format!("*filter\n{empty}{unhook}{delete}COMMIT\n")
        );
        let each: Vec<_> = removal.one_by_one(Table::Filter).collect();
        assert_eq!(each.len(), 5);
        assert_eq!(each[0], format!("*filter\n{unhook}COMMIT\n"));
        assert_eq!(each[4], "*filter\n-X mgy-wl\nCOMMIT\n");
    }
}
