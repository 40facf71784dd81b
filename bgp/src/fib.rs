//! Where chosen routes go, and what the forwarding plane tells about itself.

pub mod kernel;
pub mod memory;

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// A route as the forwarding plane wants it: next hops are on connected networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FibRoute {
    /// Packets are spread over these, at least one, sorted, each once.
    Unicast(SmallVec<[FibHop; 2]>),
    /// Packets are dropped.
    Blackhole,
}

/// One directly reachable next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FibHop {
    /// The neighbour's address.
    pub via: IpAddr,
    /// Index of the interface it is on.
    pub oif: u32,
}

/// Which source address the machine's own packets take on learnt routes, one a family. Where its address is on a loopback
/// and its uplinks have addresses that nobody routes to, an answer finds the way back to no other. An address that
/// the machine does not have is left out, for the kernel would refuse the routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sources {
    /// For IPv4 destinations; by default the kernel's choice, an address of the outgoing interface.
    pub ipv4: Option<Ipv4Addr>,
    /// For IPv6 destinations; by default the kernel's choice (RFC 6724).
    pub ipv6: Option<Ipv6Addr>,
}

impl Sources {
    /// The one for packets to `prefix`.
    pub fn towards(&self, prefix: &IpNetwork) -> Option<IpAddr> {
        match prefix {
            IpNetwork::V4(_) => self.ipv4.map(IpAddr::V4),
            IpNetwork::V6(_) => self.ipv6.map(IpAddr::V6),
        }
    }

    /// Without those that are not among `addresses`.
    fn among(self, addresses: &[LocalAddress]) -> Self {
        let there = |source: IpAddr| addresses.iter().any(|local| local.addr == source);
        Sources {
            ipv4: self.ipv4.filter(|source| there((*source).into())),
            ipv6: self.ipv6.filter(|source| there((*source).into())),
        }
    }
}

/// The wanted state of one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibChange {
    /// The prefix.
    pub prefix: IpNetwork,
    /// What it should be; `None` for no route.
    pub route: Option<FibRoute>,
}

/// A step from the RIB to the forwarding plane.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct FibBatch {
    /// The latest wish for each prefix that changed.
    pub changes: Vec<FibChange>,
    /// Every route wanted is known now: whatever is left of an earlier life may go.
    pub complete: bool,
}

/// What the forwarding plane can reach without BGP.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Topology {
    /// Connected networks and routes of others, default routes left out.
    pub routes: Vec<UnderlayRoute>,
    /// Our own addresses.
    pub addresses: Vec<LocalAddress>,
}

/// A connected network, or a route somebody else has put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnderlayRoute {
    /// Destination.
    pub prefix: IpNetwork,
    /// The gateway; `None` when connected.
    pub via: Option<IpAddr>,
    /// Interface index.
    pub oif: u32,
}

/// An address of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalAddress {
    /// The address.
    pub addr: IpAddr,
    /// Interface index.
    pub oif: u32,
}

/// The speaker's side of a forwarding plane. One task owns it, so its methods need no locks.
pub trait Fib: Send + 'static {
    /// Reads what is there. Called once, before anything else.
    ///
    /// # Errors
    /// When the forwarding plane cannot be read; the speaker does not start.
    fn start(&mut self) -> impl Future<Output = io::Result<Started>> + Send;

    /// Brings the forwarding plane towards these wishes.
    ///
    /// Failures are the implementation's to log and to try again; [`Fib::catch_up`] is its chance.
    fn apply(&mut self, batch: FibBatch) -> impl Future<Output = ()> + Send;

    /// Waits until [`Fib::catch_up`] has something to do. Must be cancel-safe.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;

    /// Repairs foreign changes; the topology if it is another now. Never cancelled.
    fn catch_up(&mut self) -> impl Future<Output = Option<Topology>> + Send;

    /// Removes every route of ours; the speaker leaves for good.
    fn flush(&mut self) -> impl Future<Output = ()> + Send;
}

/// What a forwarding plane has to say at the start.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Started {
    /// Networks and addresses.
    pub topology: Topology,
    /// Routes of an earlier life of this speaker are still forwarding: this is a restart (RFC 4724).
    pub restored: bool,
}
