//! Assigning: own blocks, then new blocks, then single addresses of other blocks.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_api::cidr;
use margay_api::v3::{AllocationAttribute, IPAMBlockSpec};

use super::{ATTEMPTS, Allocator, Assigned, Assignment, Attributes, MAX_BLOCKS, Request, contention};
use crate::error::{Error, Family, PoolState};
use crate::names::{block_name, spread};
use crate::pools::{self, Usable};
use crate::store::{Settings, Store};
use crate::{block, time};

impl<S: Store> Allocator<S> {
    /// Assigns as many addresses of each family as are asked for, or none at all.
    ///
    /// It does not look for what the handle has already: after a crash, release the handle and ask again.
    ///
    /// # Errors
    /// [`Error::NoPool`], [`Error::Exhausted`], … say what would help. After [`Error::Store`] release the handle.
    pub async fn auto_assign(&self, request: Request) -> Result<Assigned, Error> {
        let mut assigned = Assigned::default();
        for (family, count, named) in [
            (Family::V4, request.v4, &request.v4_pools),
            (Family::V6, request.v6, &request.v6_pools),
        ] {
            if count == 0 {
                continue;
            }
            if let Err(error) = self
                .assign_family(&request, family, count, named, &mut assigned.addresses)
                .await
            {
                for assignment in &assigned.addresses {
                    // A store that fails here leaves addresses assigned: that is what the caller must know then.
                    self.release_ip(assignment.address, Some(&request.handle), None).await?;
                }
                return Err(error);
            }
        }
        Ok(assigned)
    }

    /// Assigns one address by name. Asking again with the same handle is no error.
    ///
    /// # Errors
    /// [`Error::Taken`] names the holder; [`Error::Refused`] says why the address cannot be had.
    pub async fn assign_ip(&self, address: IpAddr, handle: &str, attributes: &Attributes) -> Result<Assignment, Error> {
        let settings = self.store.settings(&self.node).await?;
        let pool = pools::containing(&settings, address)?;
        let refused = |reason: String| Error::Refused { address, reason };
        if let Some(reserved) = settings.reserved.iter().find(|reserved| reserved.contains(address)) {
            return Err(refused(format!("{reserved} is reserved")));
        }
        let mut network = cidr::enclosing(address, pool.block_prefix)
            .ok_or_else(|| refused(format!("IPPool {} has no valid blockSize", pool.name)))?;
        let holder = self.holder(handle, attributes);
        let mut counted = false;
        for attempt in 0..ATTEMPTS {
            let name = block_name(network);
            let Some(stored) = self.read::<IPAMBlockSpec>(&name, attempt).await? else {
                // One that the pool made when it had another blockSize.
                let other = self.block_of(address).await?;
                if let Some(other) = other.and_then(|cidr| cidr::parse(&cidr).ok()) {
                    network = other;
                    continue;
                }
                if !settings.config.auto_allocate_blocks {
                    return Err(refused(
                        "its block does not exist, and autoAllocateBlocks is off".to_owned(),
                    ));
                }
                if !self.claim(network).await? && self.read_latest::<IPAMBlockSpec>(&name).await?.is_none() {
                    return Err(refused(format!(
                        "its block {network} would overlap one of another blockSize; ask for none, or for one of a block that exists"
                    )));
                }
                continue;
            };
            let borrowed = block::owner(&stored.spec) != Some(&self.node);
            if borrowed && settings.config.strict_affinity {
                let owner = stored.spec.affinity.as_deref().unwrap_or("nobody");
                return Err(refused(format!(
                    "its block {network} belongs to {owner}, and strictAffinity is on"
                )));
            }
            let mut spec = stored.spec.clone();
            if let Err(error) = block::take_one(&mut spec, address, &holder) {
                let current = block::allocations(&stored.spec)
                    .into_iter()
                    .find(|a| a.address == address);
                if current.is_some_and(|current| current.handle.as_deref() == Some(handle)) {
                    return Ok(Assignment {
                        address,
                        block: network,
                        pool: pool.name,
                        borrowed,
                    });
                }
                if attempt == 0 {
                    continue;
                }
                if counted {
                    self.count_down(handle, &stored.spec.cidr, 1).await?;
                }
                return Err(error);
            }
            if !counted {
                self.count_up(handle, &self.node, &stored.spec.cidr, 1).await?;
                counted = true;
            }
            spec.sequence_number += 1;
            match self.store.update(&stored, spec).await {
                Ok(_) => {
                    return Ok(Assignment {
                        address,
                        block: network,
                        pool: pool.name,
                        borrowed,
                    });
                }
                Err(error) if error.is_race() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(contention(format!("IPAMBlock {}", block_name(network))))
    }

    async fn assign_family(
        &self,
        request: &Request,
        family: Family,
        count: usize,
        named: &[String],
        assigned: &mut Vec<Assignment>,
    ) -> Result<(), Error> {
        let settings = self.store.settings(&self.node).await?;
        let pools = pools::usable(&settings, &self.node, family, named)?;
        let start = assigned.len();
        let missing = |assigned: &[Assignment]| count - (assigned.len() - start);

        let mut own = self.own_blocks(&pools).await?;
        for network in own.clone() {
            if missing(assigned) == 0 {
                return Ok(());
            }
            self.assign_from(network, &pools, missing(assigned), request, &settings, true, assigned)
                .await?;
        }

        let limit = match settings.config.max_blocks_per_host {
            0 => MAX_BLOCKS,
            limit => limit as usize,
        };
        let mut at_limit = false;
        while missing(assigned) > 0 && settings.config.auto_allocate_blocks {
            self.give_up_unselected(&settings, family).await?;
            at_limit = own.len() >= limit;
            if at_limit {
                break;
            }
            let Some(network) = self.claim_any(&pools, &own).await? else {
                break;
            };
            own.push(network);
            self.assign_from(network, &pools, missing(assigned), request, &settings, true, assigned)
                .await?;
        }

        if missing(assigned) > 0 && !settings.config.strict_affinity {
            for network in self.borrowable(&pools).await? {
                if missing(assigned) == 0 {
                    break;
                }
                self.assign_from(network, &pools, missing(assigned), request, &settings, false, assigned)
                    .await?;
            }
        }

        if missing(assigned) == 0 {
            return Ok(());
        }
        let hint = if settings.config.strict_affinity {
            ", or set strictAffinity to false in IPAMConfiguration default"
        } else if at_limit {
            ", or raise maxBlocksPerHost in IPAMConfiguration default"
        } else {
            ""
        };
        Err(self
            .exhausted(&pools, family, count, count - missing(assigned), hint)
            .await?)
    }

    /// Takes up to `wanted` addresses of one block; none when it is gone, full, or not the node's although it must be.
    #[allow(
        clippy::too_many_arguments,
        reason = "one step of assign_family, whose state it shares"
    )]
    async fn assign_from(
        &self,
        network: IpNetwork,
        pools: &[Usable],
        wanted: usize,
        request: &Request,
        settings: &Settings,
        own: bool,
        assigned: &mut Vec<Assignment>,
    ) -> Result<(), Error> {
        let name = block_name(network);
        let cidr = network.to_string();
        let holder = self.holder(&request.handle, &request.attributes);
        let mut counted = 0;
        let mut taken = Vec::new();
        let mut borrowed = !own;
        for attempt in 0..ATTEMPTS {
            let Some(stored) = self.read::<IPAMBlockSpec>(&name, attempt).await? else {
                // Somebody removed the block under a confirmed claim: claim it anew.
                if own && self.claim(network).await? {
                    continue;
                }
                break;
            };
            let ours = block::owner(&stored.spec) == Some(&self.node);
            if own && !ours {
                if attempt == 0 {
                    continue;
                }
                break;
            }
            borrowed = !ours;
            let mut spec = stored.spec.clone();
            let reserved = |address| settings.reserved.iter().any(|reserved| reserved.contains(address));
            let chosen = block::take(&mut spec, wanted, &holder, reserved)?;
            if chosen.is_empty() {
                if attempt == 0 {
                    continue;
                }
                break;
            }
            if chosen.len() > counted {
                self.count_up(&request.handle, &self.node, &cidr, (chosen.len() - counted) as u32)
                    .await?;
                counted = chosen.len();
            }
            spec.sequence_number += 1;
            match self.store.update(&stored, spec).await {
                Ok(_) => {
                    taken = chosen;
                    break;
                }
                Err(error) if error.is_race() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let pool = pools.iter().find(|pool| cidr::contains(pool.network, network));
        let pool = pool.map(|pool| pool.name.clone()).unwrap_or_default();
        let overcount = counted - taken.len();
        assigned.extend(taken.into_iter().map(|address| Assignment {
            address,
            block: network,
            pool: pool.clone(),
            borrowed,
        }));
        if overcount > 0 {
            self.count_down(&request.handle, &cidr, overcount as u32).await?;
        }
        Ok(())
    }

    /// Other blocks of the pools with a free address, in an order of the node's own.
    async fn borrowable(&self, pools: &[Usable]) -> Result<Vec<IpNetwork>, Error> {
        let blocks = self.store.list::<IPAMBlockSpec>(None).await?;
        let mut found: Vec<IpNetwork> = blocks
            .iter()
            .filter(|stored| !stored.spec.unallocated.is_empty() && !stored.spec.deleted)
            .filter(|stored| block::owner(&stored.spec) != Some(&self.node))
            .filter_map(|stored| block::network(&stored.spec).ok())
            .filter(|network| pools.iter().any(|pool| cidr::contains(pool.network, *network)))
            .collect();
        found.sort_by_cached_key(|network| spread(&format!("{} {network}", self.node)));
        Ok(found)
    }

    /// Gives up empty blocks of the node in pools that it may no longer use.
    async fn give_up_unselected(&self, settings: &Settings, family: Family) -> Result<(), Error> {
        let named: Vec<String> = Vec::new();
        let automatic = pools::usable(settings, &self.node, family, &named).unwrap_or_default();
        let by_name = |network: IpNetwork| pools::containing(settings, network.network()).is_ok();
        for affinity in self.affinities(&self.node).await? {
            let Ok(network) = cidr::parse(&affinity.spec.cidr) else {
                continue;
            };
            let usable = automatic.iter().any(|pool| cidr::contains(pool.network, network)) || by_name(network);
            if Family::of(network) == family && !usable {
                self.release_block_of(&self.node, network, false).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn exhausted(
        &self,
        pools: &[Usable],
        family: Family,
        wanted: usize,
        found: usize,
        hint: &str,
    ) -> Result<Error, Error> {
        let blocks = self.store.list::<IPAMBlockSpec>(None).await?;
        let state = |pool: &Usable| {
            let inside = |stored: &IPAMBlockSpec| {
                block::network(stored).is_ok_and(|network| cidr::contains(pool.network, network))
            };
            let used: usize = blocks
                .iter()
                .map(|stored| &stored.spec)
                .filter(|b| inside(b))
                .map(block::used)
                .sum();
            let capacity = cidr::count(pool.network, cidr::width(pool.network.ip())).unwrap_or(u128::MAX);
            PoolState {
                pool: pool.name.clone(),
                state: format!("has {used} of {capacity} addresses in use"),
            }
        };
        let pools = pools.iter().map(state).collect();
        Ok(Error::Exhausted {
            family,
            wanted,
            found,
            pools,
            hint: hint.to_owned(),
        })
    }

    fn holder(&self, handle: &str, attributes: &Attributes) -> AllocationAttribute {
        let mut secondary = attributes.others.clone();
        secondary.insert("node".to_owned(), self.node.clone());
        secondary.insert("timestamp".to_owned(), time::verbose(self.store.now()));
        secondary.extend(attributes.pod.clone().map(|pod| ("pod".to_owned(), pod)));
        secondary.extend(
            attributes
                .namespace
                .clone()
                .map(|namespace| ("namespace".to_owned(), namespace)),
        );
        AllocationAttribute {
            handle_id: Some(handle.to_owned()),
            secondary,
            ..AllocationAttribute::default()
        }
    }
}
