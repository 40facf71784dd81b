//! The synchronous interface.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::neighbour::NeighbourMessage;

use crate::addr::Addr;
use crate::error::{Error, Result};
use crate::link::{self, BridgeSpec, Link, VethSpec};
use crate::neigh::Neigh;
use crate::netns::Netns;
use crate::op::Op;
use crate::route::{Family, Route, RouteFilter};
use crate::wire::{Refusal, Reply, Wire};

/// A connection to the kernel in one network namespace, for one caller at a time.
#[derive(Debug)]
pub struct Connection {
    wire: Wire,
}

impl Connection {
    /// Connects in the network namespace of the calling thread.
    pub fn open() -> Result<Self> {
        let wire = Wire::open().map_err(|e| Error::io("open a netlink socket", e))?;
        Ok(Self { wire })
    }

    /// Connects in another network namespace; the connection can be used from any thread.
    pub fn open_in(netns: &Netns) -> Result<Self> {
        netns.run(Self::open)?
    }

    /// All links.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let request = RouteNetlinkMessage::GetLink(link::numbered(0));
        Ok(self
            .dump("list links", request)?
            .into_iter()
            .filter_map(new_link)
            .collect())
    }

    /// The link of that name; [`Error::NotFound`] if there is none.
    pub fn link_by_name(&mut self, name: &str) -> Result<Link> {
        link::check_name(name)?;
        self.link(format!("link {name}"), link::named(name))
    }

    /// The link of that number; [`Error::NotFound`] if there is none.
    pub fn link_by_index(&mut self, index: u32) -> Result<Link> {
        self.link(format!("link {index}"), link::numbered(index))
    }

    /// Makes a pair of interfaces and returns the end in this namespace.
    pub fn create_veth(&mut self, spec: &VethSpec<'_>) -> Result<Link> {
        let message = link::veth(spec)?;
        self.create(
            format!("create veth {} with peer {}", spec.name, spec.peer_name),
            spec.name,
            message,
        )
    }

    /// Makes a bridge and returns it.
    pub fn create_bridge(&mut self, spec: &BridgeSpec<'_>) -> Result<Link> {
        let message = link::bridge(spec)?;
        self.create(format!("create bridge {}", spec.name), spec.name, message)
    }

    /// Deletes a link by name. Says whether there was one.
    pub fn delete_link_by_name(&mut self, name: &str) -> Result<bool> {
        link::check_name(name)?;
        let messages = vec![(RouteNetlinkMessage::DelLink(link::named(name)), 0)];
        let operation = format!("delete link {name}");
        match self
            .exchange(&operation, messages)?
            .pop()
            .and_then(|reply| reply.refusal)
        {
            None => Ok(true),
            Some(refusal) => {
                let error = refused(operation, refusal);
                if error.is_not_found() { Ok(false) } else { Err(error) }
            }
        }
    }

    /// Moves a link into another namespace, where it is down and may get another number.
    pub fn move_link(&mut self, index: u32, netns: &Netns) -> Result<()> {
        use std::os::fd::AsRawFd;
        let mut message = link::numbered(index);
        message
            .attributes
            .push(netlink_packet_route::link::LinkAttribute::NetNsFd(netns.as_raw_fd()));
        let operation = format!("move link {index} into another namespace");
        let replies = self.exchange(&operation, vec![(RouteNetlinkMessage::SetLink(message), 0)])?;
        first_refusal(&operation, replies)
    }

    /// The addresses of all links.
    pub fn addrs(&mut self) -> Result<Vec<Addr>> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let found = self.dump("list addresses", request)?;
        Ok(found
            .into_iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewAddress(message) => Addr::from_message(message),
                _ => None,
            })
            .collect())
    }

    /// The routes that the filter lets through.
    pub fn routes(&mut self, filter: RouteFilter) -> Result<Vec<Route>> {
        let families: &[Family] = match filter.family {
            Some(Family::V4) => &[Family::V4],
            Some(Family::V6) => &[Family::V6],
            None => &[Family::V4, Family::V6],
        };
        let mut routes = Vec::new();
        for family in families {
            let request = RouteNetlinkMessage::GetRoute(filter.to_message(*family));
            let found = match self.dump("list routes", request) {
                // A table that has never had a route does not exist.
                Err(error) if error.is_not_found() => continue,
                found => found?,
            };
            routes.extend(
                found
                    .into_iter()
                    .filter_map(|message| match message {
                        RouteNetlinkMessage::NewRoute(message) => Route::from_message(message),
                        _ => None,
                    })
                    .filter(|route| filter.matches(route)),
            );
        }
        Ok(routes)
    }

    /// The neighbours on all links; proxies are not among them.
    pub fn neighs(&mut self) -> Result<Vec<Neigh>> {
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let found = self.dump("list neighbours", request)?;
        Ok(found
            .into_iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewNeighbour(message) => Neigh::from_message(message),
                _ => None,
            })
            .collect())
    }

    /// Makes one change.
    pub fn apply(&mut self, op: &Op) -> Result<()> {
        let operation = op.to_string();
        let replies = self.exchange(&operation, vec![op.to_message()?])?;
        first_refusal(&operation, replies)
    }

    /// Makes many changes in order, without waiting for each: one result for each of them. A change that fails does not
    /// stop those after it; one that is invalid is not sent.
    pub fn batch(&mut self, ops: &[Op]) -> Vec<Result<()>> {
        let mut results: Vec<Result<()>> = Vec::with_capacity(ops.len());
        let mut messages = Vec::with_capacity(ops.len());
        for op in ops {
            match op.to_message() {
                Ok(message) => {
                    messages.push(message);
                    results.push(Ok(()));
                }
                Err(error) => results.push(Err(error)),
            }
        }
        let replies = self.wire.exchange(messages);
        let mut sent = ops.iter().zip(&mut results).filter(|(_, result)| result.is_ok());
        match replies {
            Ok(replies) => {
                for (reply, (op, result)) in replies.into_iter().zip(&mut sent) {
                    if let Some(refusal) = reply.refusal {
                        *result = Err(refused(op.to_string(), refusal));
                    }
                }
            }
            Err(error) => {
                let errno = crate::error::errno_of(&error);
                for (op, result) in sent {
                    *result = Err(Error::Io {
                        operation: op.to_string(),
                        errno,
                    });
                }
            }
        }
        results
    }

    /// Makes many changes like [`Connection::batch`] and returns the first error, if any.
    pub fn apply_all(&mut self, ops: &[Op]) -> Result<()> {
        self.batch(ops).into_iter().collect()
    }

    pub(crate) fn create(
        &mut self,
        operation: String,
        name: &str,
        message: netlink_packet_route::link::LinkMessage,
    ) -> Result<Link> {
        let messages = vec![
            (RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL),
            (RouteNetlinkMessage::GetLink(link::named(name)), 0),
        ];
        let mut replies = self.exchange(&operation, messages)?;
        let made = replies
            .pop()
            .and_then(|reply| reply.answers.into_iter().find_map(new_link));
        first_refusal(&operation, replies)?;
        made.ok_or(Error::NotFound {
            object: format!("link {name}, which was just made,"),
        })
    }

    fn link(&mut self, object: String, request: netlink_packet_route::link::LinkMessage) -> Result<Link> {
        let operation = format!("look up {object}");
        let mut replies = self.exchange(&operation, vec![(RouteNetlinkMessage::GetLink(request), 0)])?;
        let found = replies
            .iter_mut()
            .flat_map(|reply| reply.answers.drain(..))
            .find_map(new_link);
        match (found, first_refusal(&operation, replies)) {
            (Some(link), _) => Ok(link),
            (None, Err(error)) if !error.is_not_found() => Err(error),
            (None, _) => Err(Error::NotFound { object }),
        }
    }

    fn exchange(&mut self, operation: &str, messages: Vec<(RouteNetlinkMessage, u16)>) -> Result<Vec<Reply>> {
        self.wire.exchange(messages).map_err(|e| Error::io(operation, e))
    }

    fn dump(&mut self, operation: &str, request: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
        self.wire
            .dump(&request)
            .map_err(|e| Error::io(operation, e))?
            .map_err(|refusal| refused(operation.into(), refusal))
    }
}

fn new_link(message: RouteNetlinkMessage) -> Option<Link> {
    match message {
        RouteNetlinkMessage::NewLink(message) => Some(Link::from_message(message)),
        _ => None,
    }
}

fn first_refusal(operation: &str, replies: Vec<Reply>) -> Result<()> {
    match replies.into_iter().find_map(|reply| reply.refusal) {
        Some(refusal) => Err(refused(operation.to_owned(), refusal)),
        None => Ok(()),
    }
}

fn refused(operation: String, refusal: Refusal) -> Error {
    Error::Kernel {
        operation,
        errno: refusal.errno,
        explanation: refusal.explanation,
    }
}
