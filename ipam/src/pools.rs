//! Which pools may be used.

use ipnetwork::IpNetwork;
use margay_api::selector::Selector;
use margay_api::v3::{AllowedUse, AssignmentMode};
use margay_api::validate::{self, PoolRef};

use crate::error::{Error, Family, PoolState};
use crate::store::{Pool, Settings};

/// A pool that may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Usable {
    pub(crate) name: String,
    pub(crate) network: IpNetwork,
    /// Prefix length of its blocks.
    pub(crate) block_prefix: u8,
}

/// Pools of a family that give addresses to pods of the node, by name; those named, in their order, when any is.
pub(crate) fn usable(settings: &Settings, node: &str, family: Family, named: &[String]) -> Result<Vec<Usable>, Error> {
    let judged = judge(settings, family);
    if !named.is_empty() {
        return named
            .iter()
            .map(|name| match judged.iter().find(|(pool, _)| pool.name == *name) {
                Some((_, Verdict::Usable(usable) | Verdict::OnlyByName(usable))) => Ok(usable.clone()),
                Some((_, Verdict::Refused(reason))) => Err(Error::PoolRefused {
                    pool: name.clone(),
                    reason: format!("it {reason}"),
                }),
                None => Err(Error::PoolRefused {
                    pool: name.clone(),
                    reason: format!("no {family} pool has that name"),
                }),
            })
            .collect();
    }
    let (mut usable, mut others) = (Vec::new(), Vec::new());
    for (pool, verdict) in judged {
        match verdict {
            Verdict::Usable(found) => usable.push(found),
            Verdict::OnlyByName(_) => {
                others.push(PoolState {
                    pool: pool.name.clone(),
                    state: "is only for pods that name it".to_owned(),
                });
            }
            Verdict::Refused(state) => others.push(PoolState {
                pool: pool.name.clone(),
                state,
            }),
        }
    }
    if usable.is_empty() {
        Err(Error::NoPool {
            family,
            node: node.to_owned(),
            pools: others,
        })
    } else {
        Ok(usable)
    }
}

/// The pool an address lies in, when addresses of it may be asked for.
pub(crate) fn containing(settings: &Settings, address: std::net::IpAddr) -> Result<Usable, Error> {
    let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
    let refused = |reason| Error::Refused { address, reason };
    for (pool, verdict) in judge(settings, family) {
        match verdict {
            Verdict::Usable(usable) | Verdict::OnlyByName(usable) if usable.network.contains(address) => {
                return Ok(usable);
            }
            Verdict::Refused(reason) if pool.spec.network().is_ok_and(|network| network.contains(address)) => {
                return Err(refused(format!("it is in IPPool {}, which {reason}", pool.name)));
            }
            _ => {}
        }
    }
    Err(refused("it is in no IPPool".to_owned()))
}

/// Whether pods of the node that name no pool get addresses of the family.
///
/// # Errors
/// [`Error::NoPool`] says of each pool of the family why it gives none.
pub fn automatic(settings: &Settings, node: &str, family: Family) -> Result<(), Error> {
    usable(settings, node, family, &[]).map(|_| ())
}

enum Verdict {
    Usable(Usable),
    OnlyByName(Usable),
    Refused(String),
}

fn judge(settings: &Settings, family: Family) -> Vec<(&Pool, Verdict)> {
    let refs = settings.pools.iter().map(|pool| PoolRef {
        name: &pool.name,
        created: pool.created.as_deref(),
        spec: &pool.spec,
    });
    let overlapping = validate::overlapping_pools(refs);
    let mut pools: Vec<&Pool> = settings.pools.iter().collect();
    pools.sort_by(|a, b| a.name.cmp(&b.name));
    let judge = |pool: &Pool| {
        let Ok(network) = pool.spec.network() else {
            return Verdict::Refused("has no valid cidr".to_owned());
        };
        if let Some(violation) = validate::ip_pool(&pool.spec).first() {
            return Verdict::Refused(format!("is not valid: {violation}"));
        }
        if let Some(violation) = overlapping.get(&pool.name) {
            return Verdict::Refused(format!("is not used: {}", violation.message));
        }
        if pool.spec.is_disabled() {
            return Verdict::Refused("is disabled".to_owned());
        }
        if !pool.spec.allows(AllowedUse::Workload) {
            return Verdict::Refused("is not for workloads (allowedUses)".to_owned());
        }
        let selector = Selector::parse(pool.spec.node_selector.as_deref().unwrap_or_default());
        if !selector.is_ok_and(|selector| selector.matches(&settings.node_labels)) {
            return Verdict::Refused("does not select the node (nodeSelector)".to_owned());
        }
        let usable = Usable {
            name: pool.name.clone(),
            network,
            block_prefix: pool.spec.block_prefix(),
        };
        match pool.spec.assignment_mode.unwrap_or_default() {
            AssignmentMode::Automatic => Verdict::Usable(usable),
            AssignmentMode::Manual => Verdict::OnlyByName(usable),
        }
    };
    let of_family = |pool: &&Pool| match pool.spec.network() {
        Ok(network) => Family::of(network) == family,
        Err(_) => pool.spec.cidr.contains(':') == (family == Family::V6),
    };
    pools
        .into_iter()
        .filter(of_family)
        .map(|pool| (pool, judge(pool)))
        .collect()
}
