//! The asynchronous interface: the synchronous one on tokio's blocking threads.
//!
//! An operation once begun runs to its end even if its future is dropped, so that no answer is ever left unread. Changes
//! have a socket of their own: a dump of a full table delays no change.

use std::sync::{Arc, Mutex, PoisonError};

use crate::addr::Addr;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::link::{self, BridgeSpec, Link, Mac, VethSpec};
use crate::monitor::{Groups, Monitor};
use crate::neigh::Neigh;
use crate::netns::Netns;
use crate::op::Op;
use crate::route::{Route, RouteFilter};

/// A cloneable connection to the kernel in one network namespace. Its calls need a tokio runtime.
#[derive(Debug, Clone)]
pub struct Handle {
    netns: Netns,
    changes: Arc<Mutex<Connection>>,
    dumps: Arc<Mutex<Connection>>,
}

impl Handle {
    /// Connects in the network namespace of the calling thread.
    pub fn new() -> Result<Self> {
        Self::in_netns(&Netns::current()?)
    }

    /// Connects in another network namespace, and keeps it alive.
    pub fn in_netns(netns: &Netns) -> Result<Self> {
        let (changes, dumps) = netns.run(|| Ok((Connection::open()?, Connection::open()?)))??;
        Ok(Self {
            netns: netns.clone(),
            changes: Arc::new(Mutex::new(changes)),
            dumps: Arc::new(Mutex::new(dumps)),
        })
    }

    /// The namespace that this handle works in.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Streams the changes of the given groups from now on. List the objects after this call, not before.
    pub fn monitor(&self, groups: Groups) -> Result<Monitor> {
        Monitor::open_in(&self.netns, groups)
    }

    /// All links.
    pub async fn links(&self) -> Result<Vec<Link>> {
        call(&self.dumps, Connection::links).await
    }

    /// The link of that name; [`Error::NotFound`] if there is none.
    pub async fn link_by_name(&self, name: &str) -> Result<Link> {
        let name = name.to_owned();
        call(&self.changes, move |connection| connection.link_by_name(&name)).await
    }

    /// The link of that number; [`Error::NotFound`] if there is none.
    pub async fn link_by_index(&self, index: u32) -> Result<Link> {
        call(&self.changes, move |connection| connection.link_by_index(index)).await
    }

    /// Makes a pair of interfaces and returns the end in this namespace.
    pub async fn create_veth(&self, spec: VethSpec<'_>) -> Result<Link> {
        let message = link::veth(&spec)?;
        let operation = format!("create veth {} with peer {}", spec.name, spec.peer_name);
        let (name, peer_netns) = (spec.name.to_owned(), spec.peer_netns.cloned());
        call(&self.changes, move |connection| {
            let made = connection.create(operation, &name, message);
            // The message names the namespace by its descriptor, which must be open until now.
            drop(peer_netns);
            made
        })
        .await
    }

    /// Makes a bridge and returns it.
    pub async fn create_bridge(&self, spec: BridgeSpec<'_>) -> Result<Link> {
        let message = link::bridge(&spec)?;
        let name = spec.name.to_owned();
        call(&self.changes, move |connection| {
            connection.create(format!("create bridge {name}"), &name, message)
        })
        .await
    }

    /// Sets a link up or down.
    pub async fn set_up(&self, index: u32, up: bool) -> Result<()> {
        self.apply(Op::SetUp(index, up)).await
    }

    /// Sets a link's Ethernet address.
    pub async fn set_mac(&self, index: u32, mac: Mac) -> Result<()> {
        self.apply(Op::SetMac(index, mac)).await
    }

    /// Sets a link's MTU in bytes.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<()> {
        self.apply(Op::SetMtu(index, mtu)).await
    }

    /// Makes a link a port of a bridge, or of none.
    pub async fn set_master(&self, index: u32, master: Option<u32>) -> Result<()> {
        self.apply(Op::SetMaster(index, master)).await
    }

    /// Moves a link into another namespace, where it is down and may get another number.
    pub async fn move_link(&self, index: u32, netns: &Netns) -> Result<()> {
        let netns = netns.clone();
        call(&self.changes, move |connection| connection.move_link(index, &netns)).await
    }

    /// Deletes a link; of a veth both ends go.
    pub async fn delete_link(&self, index: u32) -> Result<()> {
        self.apply(Op::DeleteLink(index)).await
    }

    /// Deletes a link by name. Says whether there was one.
    pub async fn delete_link_by_name(&self, name: &str) -> Result<bool> {
        let name = name.to_owned();
        call(&self.changes, move |connection| connection.delete_link_by_name(&name)).await
    }

    /// The addresses of all links.
    pub async fn addrs(&self) -> Result<Vec<Addr>> {
        call(&self.dumps, Connection::addrs).await
    }

    /// Adds an address; an error if it is there.
    pub async fn add_addr(&self, addr: Addr) -> Result<()> {
        self.apply(Op::AddAddr(addr)).await
    }

    /// Removes an address.
    pub async fn del_addr(&self, addr: Addr) -> Result<()> {
        self.apply(Op::DeleteAddr(addr)).await
    }

    /// The routes that the filter lets through.
    pub async fn routes(&self, filter: RouteFilter) -> Result<Vec<Route>> {
        call(&self.dumps, move |connection| connection.routes(filter)).await
    }

    /// Adds a route in place of the one with this table, destination and metric.
    pub async fn route_replace(&self, route: Route) -> Result<()> {
        self.apply(Op::ReplaceRoute(route)).await
    }

    /// Removes a route.
    pub async fn route_del(&self, route: Route) -> Result<()> {
        self.apply(Op::DeleteRoute(route)).await
    }

    /// The neighbours on all links; proxies are not among them.
    pub async fn neighs(&self) -> Result<Vec<Neigh>> {
        call(&self.dumps, Connection::neighs).await
    }

    /// Adds a neighbour or changes the one that is there.
    pub async fn neigh_replace(&self, neigh: Neigh) -> Result<()> {
        self.apply(Op::ReplaceNeigh(neigh)).await
    }

    /// Removes a neighbour.
    pub async fn neigh_del(&self, neigh: Neigh) -> Result<()> {
        self.apply(Op::DeleteNeigh(neigh)).await
    }

    /// Makes one change.
    pub async fn apply(&self, op: Op) -> Result<()> {
        call(&self.changes, move |connection| connection.apply(&op)).await
    }

    /// Makes many changes in order, one result for each: see [`Connection::batch`].
    pub async fn batch(&self, ops: Vec<Op>) -> Vec<Result<()>> {
        let count = ops.len();
        let done = call(&self.changes, move |connection| Ok(connection.batch(&ops))).await;
        done.unwrap_or_else(|error| vec![Err(error); count])
    }

    /// Runs `work` in this handle's namespace, on a thread of its own, without blocking the runtime.
    pub async fn run_in_netns<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let netns = self.netns.clone();
        blocking("run in a network namespace", move || netns.run(work)).await
    }
}

async fn call<T: Send + 'static>(
    connection: &Arc<Mutex<Connection>>,
    work: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
) -> Result<T> {
    let connection = Arc::clone(connection);
    blocking("netlink request", move || {
        work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner))
    })
    .await
}

async fn blocking<T: Send + 'static>(operation: &str, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Io {
                operation: operation.to_owned(),
                errno: nix::errno::Errno::ECANCELED,
            }),
        },
    }
}
