//! Which received routes are candidates at all.

use std::fmt;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::{PeerId, Rib};
use crate::filter::Source;
use crate::wire::PathAttributes;

/// Why a received route is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// Our AS is in its AS_PATH (RFC 4271 section 9.1.2).
    AsLoop,
    /// Our identifier is its ORIGINATOR_ID (RFC 4456 section 8).
    OriginatorLoop,
    /// It is one of the networks that we originate.
    OwnNetwork,
    /// There is no import policy (RFC 8212).
    NoPolicy,
    /// The import filter says so.
    Filter,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rejected::AsLoop => "our AS is in its path",
            Rejected::OriginatorLoop => "we are its originator",
            Rejected::OwnNetwork => "the network is our own",
            Rejected::NoPolicy => "the eBGP peer has no import filter (RFC 8212)",
            Rejected::Filter => "the import filter rejects it",
        })
    }
}

impl Rib {
    pub(super) fn import(
        &mut self,
        id: PeerId,
        prefix: &IpNetwork,
        attributes: &Arc<PathAttributes>,
    ) -> Result<Arc<PathAttributes>, Rejected> {
        if self.originated.contains_key(prefix) {
            return Err(Rejected::OwnNetwork);
        }
        if attributes.as_path.contains(self.config.local_as) {
            return Err(Rejected::AsLoop);
        }
        if attributes.originator_id == Some(self.config.router_id) {
            return Err(Rejected::OriginatorLoop);
        }
        let Some(peer) = self.peers.get(&id) else {
            return Err(Rejected::NoPolicy);
        };
        let ibgp = peer.policy.remote_as == self.config.local_as;
        let Some(filter) = &peer.policy.import else {
            return if ibgp {
                Ok(attributes.clone())
            } else {
                Err(Rejected::NoPolicy)
            };
        };
        let source = if ibgp { Source::Ibgp } else { Source::Ebgp };
        let changes = filter.evaluate(prefix, attributes, source).ok_or(Rejected::Filter)?;
        if changes.is_empty() {
            return Ok(attributes.clone());
        }
        let mut changed = PathAttributes::clone(attributes);
        changes.apply(&mut changed, self.config.local_as);
        Ok(self.attributes.intern(changed))
    }

    /// Judges the received routes of these peers again.
    pub(super) fn import_again(&mut self, of: impl Fn(PeerId) -> bool) {
        let prefixes: Vec<IpNetwork> = self
            .table
            .iter()
            .filter(|(_, e)| e.paths.iter().any(|p| p.peer != PeerId::LOCAL && of(p.peer)))
            .map(|(prefix, _)| *prefix)
            .collect();
        prefixes.into_iter().for_each(|prefix| self.import_prefix_again(prefix));
    }

    /// Judges every received route to one prefix again.
    pub(super) fn import_prefix_again(&mut self, prefix: IpNetwork) {
        let Some(entry) = self.table.get_mut(&prefix) else {
            return;
        };
        let mut paths = std::mem::take(&mut entry.paths);
        for path in paths.iter_mut().filter(|p| p.peer != PeerId::LOCAL) {
            path.accepted = self.import(path.peer, &prefix, &path.received);
        }
        if let Some(entry) = self.table.get_mut(&prefix) {
            entry.paths = paths;
        }
        self.dirty.push(prefix);
    }
}
