//! Single packets, and whether they are answered.

use std::io;
use std::net::{IpAddr, SocketAddr};

use margay_netlink::Netns;
use socket2::{Domain, Protocol, Socket, Type};

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    Tcp,
    Udp,
}

/// A packet on its way, and whether anything came back: a closed port says so, which is answer enough.
pub(super) struct Probe {
    socket: Socket,
    pub(super) answered: bool,
}

impl Probe {
    pub(super) fn send(from: &Netns, source: Option<IpAddr>, to: SocketAddr, via: Via) -> Self {
        let socket = from.run(|| {
            let (kind, protocol) = match via {
                Via::Tcp => (Type::STREAM, Protocol::TCP),
                Via::Udp => (Type::DGRAM, Protocol::UDP),
            };
            let socket = Socket::new(Domain::for_address(to), kind, Some(protocol)).unwrap();
            socket.set_nonblocking(true).unwrap();
            if let Some(source) = source {
                socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
            }
            match socket.connect(&to.into()) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(115) => {}
                Err(error) => panic!("connect from {source:?} to {to}: {error}"),
            }
            if via == Via::Udp {
                socket.send(b"margay").unwrap();
            }
            socket
        });
        Self {
            socket: socket.unwrap(),
            answered: false,
        }
    }

    pub(super) fn poll(&mut self) {
        let error = self.socket.take_error().unwrap();
        self.answered |= error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    }
}
