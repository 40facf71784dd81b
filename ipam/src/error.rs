//! What can go wrong, in words for people.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::store::StoreError;

/// Why an operation did not succeed. Nothing is assigned when one is returned, unless the store left it open whether a
/// write happened ([`StoreError::Unavailable`]): then releasing the handle clears up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No pool may be used.
    #[error("no IPPool gives {family} addresses to pods of node {node}: {}", listed(.pools, "there is none; create one"))]
    NoPool {
        /// The family asked for.
        family: Family,
        /// The node.
        node: String,
        /// Each pool of the family and why it may not be used.
        pools: Vec<PoolState>,
    },
    /// A pool that was asked for by name cannot be used.
    #[error("IPPool {pool} was asked for, but {reason}")]
    PoolRefused {
        /// Its name.
        pool: String,
        /// Why not.
        reason: String,
    },
    /// The pools have no address left.
    #[error(
        "{wanted} {family} address(es) wanted, {found} found: {}; add an IPPool{hint}", listed(.pools, "no pool")
    )]
    Exhausted {
        /// The family asked for.
        family: Family,
        /// How many were asked for.
        wanted: usize,
        /// How many there were.
        found: usize,
        /// Each pool tried and how full it is.
        pools: Vec<PoolState>,
        /// What else would help, beginning with a comma, or nothing.
        hint: String,
    },
    /// The address is given out already.
    #[error("{address} is in use by {holder}")]
    Taken {
        /// The address.
        address: IpAddr,
        /// Who has it.
        holder: String,
    },
    /// The address may not be given out.
    #[error("{address} cannot be assigned: {reason}")]
    Refused {
        /// The address.
        address: IpAddr,
        /// Why not, and the way out.
        reason: String,
    },
    /// Other writers were faster every time.
    #[error("{object} kept changing under {attempts} attempts; try again")]
    Contention {
        /// The object.
        object: String,
        /// How often it was tried.
        attempts: usize,
    },
    /// An object makes no sense.
    #[error("{object}: {message}")]
    Invalid {
        /// The object.
        object: String,
        /// What is wrong with it.
        message: String,
    },
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of a network.
    pub fn of(network: IpNetwork) -> Self {
        if network.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A pool in an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolState {
    /// Its name.
    pub pool: String,
    /// Its state, as "is disabled" or "has 64 of 64 addresses in use".
    pub state: String,
}

fn listed(pools: &[PoolState], none: &str) -> String {
    if pools.is_empty() {
        return none.to_owned();
    }
    let parts: Vec<String> = pools
        .iter()
        .map(|pool| format!("{} {}", pool.pool, pool.state))
        .collect();
    parts.join(", ")
}
