//! What changes in the kernel, as a stream.

use std::collections::VecDeque;
use std::io;
use std::ops::BitOr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use tokio::io::unix::AsyncFd;

use crate::addr::Addr;
use crate::error::{Error, Result, errno_of};
use crate::link::Link;
use crate::neigh::Neigh;
use crate::netns::Netns;
use crate::route::Route;
use crate::{sys, wire};

/// A change, or the news that changes were lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A link is new or changed.
    Link(Link),
    /// A link is gone from this namespace.
    LinkGone(Link),
    /// An address is new or changed.
    Addr(Addr),
    /// An address is gone.
    AddrGone(Addr),
    /// A route is new or changed.
    Route(Route),
    /// A route is gone. Routes that vanish with their link are not told one by one: watch links too.
    RouteGone(Route),
    /// A neighbour is new or changed.
    Neigh(Neigh),
    /// A neighbour is gone.
    NeighGone(Neigh),
    /// The kernel dropped events because the reader was too slow: list everything anew.
    Overrun,
}

/// What to watch; combine with `|`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups(u32);

impl Groups {
    /// Links.
    pub const LINKS: Self = Self(0x1);
    /// Neighbours.
    pub const NEIGHS: Self = Self(0x4);
    /// Addresses of both families.
    pub const ADDRS: Self = Self(0x10 | 0x100);
    /// Routes of both families.
    pub const ROUTES: Self = Self(0x40 | 0x400);
}

impl BitOr for Groups {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A stream of [`Event`]s. It ends only when reading fails for good.
#[derive(Debug)]
pub struct Monitor {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
    pending: VecDeque<Event>,
    /// Events were lost, and those still queued are older than what the reader is about to list.
    lossy: bool,
}

impl Monitor {
    /// Starts watching in a namespace. Needs a tokio runtime.
    pub fn open_in(netns: &Netns, groups: Groups) -> Result<Self> {
        let watch = |e| Error::io("watch for changes", e);
        let socket = netns
            .run(|| {
                let mut socket = Socket::new(NETLINK_ROUTE)?;
                socket.bind(&SocketAddr::new(0, groups.0))?;
                socket.set_rx_buf_sz(RECEIVE_BUFFER)?;
                socket.set_non_blocking(true)?;
                io::Result::Ok(socket)
            })?
            .map_err(watch)?;
        let socket = sys::register(socket).map_err(watch)?;
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(64 * 1024),
            pending: VecDeque::new(),
            lossy: false,
        })
    }

    /// The next change; `None` when reading failed for good.
    pub async fn next(&mut self) -> Option<Event> {
        futures::StreamExt::next(self).await
    }
}

impl Stream for Monitor {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = self.get_mut();
        loop {
            if let Some(event) = this.pending.pop_front() {
                return Poll::Ready(Some(event));
            }
            let Ok(mut ready) = ready!(this.socket.poll_read_ready(cx)) else {
                return Poll::Ready(None);
            };
            this.buffer.clear();
            let buffer = &mut this.buffer;
            match ready.try_io(|socket| socket.get_ref().recv(buffer, 0)) {
                // Once it has dropped events the kernel drops in silence until the queue is empty. So the loss is told
                // only then: what the reader lists next cannot be outdated by a change that it does not hear of.
                Err(_would_block) if this.lossy => {
                    this.lossy = false;
                    this.pending.push_back(Event::Overrun);
                }
                Err(_would_block) => {}
                Ok(Ok(_)) if this.lossy => {}
                Ok(Ok(_)) => wire::each(&this.buffer, |_, payload| this.pending.extend(event(payload))),
                Ok(Err(error)) => match errno_of(&error) {
                    Errno::ENOBUFS => this.lossy = true,
                    Errno::EINTR => {}
                    errno => {
                        tracing::error!(%errno, "reading netlink events failed");
                        return Poll::Ready(None);
                    }
                },
            }
        }
    }
}

/// Bytes asked of the kernel for events not read yet; it grants at most `net.core.rmem_max`.
const RECEIVE_BUFFER: u32 = 4 << 20;

fn event(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<Event> {
    match payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(m)) => Some(Event::Link(Link::from_message(m))),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(m)) => Some(Event::LinkGone(Link::from_message(m))),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(m)) => Addr::from_message(m).map(Event::Addr),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(m)) => Addr::from_message(m).map(Event::AddrGone),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(m)) => Route::from_message(m).map(Event::Route),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(m)) => Route::from_message(m).map(Event::RouteGone),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(m)) => Neigh::from_message(m).map(Event::Neigh),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(m)) => {
            Neigh::from_message(m).map(Event::NeighGone)
        }
        _ => None,
    }
}
