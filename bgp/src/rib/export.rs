//! What each peer is told: export policy, next hop, Adj-RIB-Out, messages.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use ipnetwork::IpNetwork;
use rustc_hash::FxHashMap;

use super::interner::Interner;
use super::peer::{Peer, PeerUp, Sent};
use super::resolver::Resolver;
use super::{Entry, PeerId, Rib, RibConfig};
use crate::filter::Source;
use crate::prefix::Family;
use crate::wire::{Community, Message, NextHop, PathAttributes, Update, update};

impl Rib {
    /// Whether [`Rib::poll_messages`] has something for this peer.
    pub fn has_messages(&self, id: PeerId) -> bool {
        let markers_due = self.deferral.is_none();
        self.peers
            .get(&id)
            .is_some_and(|p| p.up.is_some() && (!p.pending.is_empty() || (markers_due && !p.owed_markers.is_empty())))
    }

    /// The next UPDATEs for a peer, made from at most `budget` prefixes: withdrawals, announcements, End-of-RIB.
    pub fn poll_messages(&mut self, id: PeerId, budget: usize) -> Vec<Bytes> {
        let Rib {
            peers,
            table,
            config,
            attributes,
            resolver,
            deferral,
            ..
        } = self;
        let sources: FxHashMap<PeerId, Source> = peers
            .iter()
            .map(|(id, p)| {
                (
                    *id,
                    if p.policy.remote_as == config.local_as {
                        Source::Ibgp
                    } else {
                        Source::Ebgp
                    },
                )
            })
            .collect();
        let Some(peer) = peers.get_mut(&id) else {
            return Vec::new();
        };
        let Some(up) = peer.up.clone() else { return Vec::new() };
        let mut exporter = Exporter {
            config,
            attributes,
            resolver,
            sources,
            made: FxHashMap::default(),
            local_only: deferral.is_some(),
        };
        let mut withdrawn: [Vec<IpNetwork>; 2] = Default::default();
        let mut announced: FxHashMap<Group, Vec<IpNetwork>> = FxHashMap::default();
        let mut order: Vec<(Group, Sent)> = Vec::new();
        for _ in 0..budget {
            let Some(prefix) = peer.pending.pop() else { break };
            let family = Family::of(&prefix);
            let wanted = table
                .get(&prefix)
                .and_then(|entry| exporter.export(id, peer, &up, &prefix, entry));
            let again = peer.resend.remove(&prefix);
            match (wanted, peer.sent.get(&prefix)) {
                (Some(new), Some(old)) if new == *old && !again => {}
                (Some(new), _) => {
                    let group = Group {
                        attributes: Arc::as_ptr(&new.attributes),
                        next_hop: new.next_hop,
                        family,
                    };
                    let members = announced.entry(group).or_default();
                    if members.is_empty() {
                        order.push((group, new.clone()));
                    }
                    members.push(prefix);
                    peer.sent.insert(prefix, new);
                }
                (None, Some(_)) => {
                    peer.sent.remove(&prefix);
                    withdrawn[family as usize].push(prefix);
                }
                (None, None) => {}
            }
        }
        let mut messages = Vec::new();
        for family in Family::ALL {
            messages.extend(update::pack_withdraw(family, &withdrawn[family as usize], up.options));
        }
        for (group, sent) in order {
            let prefixes = &announced[&group];
            match update::pack_announce(&sent.attributes, sent.next_hop, group.family, prefixes, up.options) {
                Some(packed) => messages.extend(packed),
                // RFC 4271 section 9.2: attributes that do not fit a message mean that the route is not sent.
                None => messages.extend(update::pack_withdraw(group.family, prefixes, up.options)),
            }
        }
        if peer.pending.is_empty() && deferral.is_none() {
            for family in std::mem::take(&mut peer.owed_markers) {
                messages.push(Message::from(Update::marker(family)).encode(up.options));
            }
        }
        messages
    }

    /// The peer asks for everything of a family again (RFC 2918).
    pub fn refresh(&mut self, id: PeerId, family: Family) {
        if let Some(peer) = self.peers.get_mut(&id) {
            // What it has not been told yet is pending anyway.
            let told: Vec<IpNetwork> = peer.sent.keys().filter(|p| Family::of(p) == family).copied().collect();
            told.iter().for_each(|p| peer.queue(*p));
            peer.resend.extend(told);
        }
    }

    /// Looks at every prefix again for this peer.
    pub(super) fn queue_everything(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.no_next_hop.clear();
            self.table.keys().for_each(|p| peer.queue(*p));
        }
    }
}

/// Prefixes that can share messages.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Group {
    attributes: *const PathAttributes,
    next_hop: NextHop,
    family: Family,
}

struct Exporter<'a> {
    config: &'a RibConfig,
    attributes: &'a mut Interner,
    resolver: &'a Resolver,
    sources: FxHashMap<PeerId, Source>,
    /// Exported forms of attribute sets that no filter changes.
    made: FxHashMap<*const PathAttributes, Arc<PathAttributes>>,
    /// Route selection is deferred: only our own networks are certain.
    local_only: bool,
}

impl Exporter<'_> {
    fn export(&mut self, id: PeerId, peer: &mut Peer, up: &PeerUp, prefix: &IpNetwork, entry: &Entry) -> Option<Sent> {
        let family = Family::of(prefix);
        let (from, attributes, next_hop) = entry.told.as_ref()?;
        let local = *from == PeerId::LOCAL;
        if *from == id || !up.families.contains(&family) || (self.local_only && !local) {
            return None;
        }
        let ebgp = peer.policy.remote_as != self.config.local_as;
        let hidden = |c: &Community| match *c {
            Community::NO_ADVERTISE => true,
            Community::NO_EXPORT | Community::NO_EXPORT_SUBCONFED => ebgp,
            _ => false,
        };
        if attributes.communities.iter().any(hidden) {
            return None;
        }
        let source = if local { Source::Local } else { *self.sources.get(from)? };
        if !ebgp && source == Source::Ibgp {
            return None;
        }
        let changes = match &peer.policy.export {
            Some(filter) => Some(filter.evaluate(prefix, attributes, source)?).filter(|c| !c.is_empty()),
            None if ebgp => return None,
            None => None,
        };
        let next_hop = match next_hop {
            // RFC 2545 section 3: a link-local address means nothing on another network.
            Some(learnt)
                if !ebgp && !peer.policy.next_hop_self && learnt.link_local.map(IpAddr::V6) != Some(learnt.addr) =>
            {
                NextHop::from(learnt.addr)
            }
            _ => match self.own_next_hop(peer, up, family) {
                Some(own) => own,
                None => {
                    if !peer.no_next_hop.contains(&family) {
                        peer.no_next_hop.push(family);
                    }
                    return None;
                }
            },
        };
        let exported = match (changes, self.made.get(&Arc::as_ptr(attributes))) {
            (None, Some(made)) => made.clone(),
            (changes, _) => {
                let mut out = PathAttributes::clone(attributes);
                if let Some(changes) = changes {
                    changes.apply(&mut out, self.config.local_as);
                }
                self.rewrite(&mut out, ebgp, local || changes.is_some_and(|c| c.med.is_some()));
                let out = self.attributes.intern(out);
                if changes.is_none() {
                    self.made.insert(Arc::as_ptr(attributes), out.clone());
                }
                out
            }
        };
        Some(Sent {
            attributes: exported,
            next_hop,
        })
    }

    /// RFC 4271 section 5.1: what changes when a route leaves the AS, and what must be there inside it.
    fn rewrite(&self, attributes: &mut PathAttributes, ebgp: bool, keep_med: bool) {
        if ebgp {
            attributes.as_path = attributes.as_path.prepended(self.config.local_as);
            attributes.local_pref = None;
            attributes.originator_id = None;
            attributes.cluster_list.clear();
            // RFC 4360 section 2: this bit keeps a community within its AS.
            attributes.ext_communities.retain(|c| c[0] & 0x40 == 0);
            if !keep_med {
                attributes.med = None;
            }
        } else {
            attributes.local_pref.get_or_insert(super::decision::DEFAULT_LOCAL_PREF);
        }
        attributes.unknown.retain(|u| u.is_transitive());
    }

    fn own_next_hop(&self, peer: &Peer, up: &PeerUp, family: Family) -> Option<NextHop> {
        let configured = match family {
            Family::Ipv4 => peer.policy.next_hop_ipv4.map(IpAddr::V4),
            Family::Ipv6 => peer.policy.next_hop_ipv6.map(IpAddr::V6),
        };
        let session = Some(up.local_addr).filter(|a| Family::of_addr(a) == family);
        configured
            .or(session)
            .or_else(|| self.resolver.sibling(up.local_addr, family))
            .map(NextHop::from)
    }
}
