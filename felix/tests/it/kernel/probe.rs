//! Single packets, and whether they are answered.

use std::io;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use margay_netlink::Netns;
use socket2::{Domain, Protocol, Socket, Type};

/// What a packet speaks; ICMP is an echo request, which has no port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    Tcp,
    Udp,
    Icmp,
}

/// A packet on its way, and whether anything came back: a closed port says so, which is answer enough.
pub(super) struct Probe {
    socket: Socket,
    via: Via,
    pub(super) answered: bool,
}

impl Probe {
    pub(super) fn send(from: &Netns, source: Option<IpAddr>, to: SocketAddr, via: Via) -> Self {
        let socket = from.run(|| {
            let (kind, protocol) = match via {
                Via::Tcp => (Type::STREAM, Protocol::TCP),
                Via::Udp => (Type::DGRAM, Protocol::UDP),
                Via::Icmp if to.is_ipv4() => (Type::DGRAM, Protocol::ICMPV4),
                Via::Icmp => (Type::DGRAM, Protocol::ICMPV6),
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
            match via {
                Via::Tcp => {}
                Via::Udp => _ = socket.send(b"margay").unwrap(),
                // The kernel fills in what comes after the type.
                Via::Icmp => {
                    _ = socket
                        .send(&[if to.is_ipv4() { 8 } else { 128 }, 0, 0, 0, 0, 0, 0, 1])
                        .unwrap()
                }
            }
            socket
        });
        Self {
            socket: socket.unwrap(),
            via,
            answered: false,
        }
    }

    pub(super) fn poll(&mut self) {
        if self.via == Via::Icmp {
            self.answered |= (&self.socket).read(&mut [0; 8]).is_ok();
            return;
        }
        let error = self.socket.take_error().unwrap();
        self.answered |= error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    }
}

/// A packet that no rule keeps from arriving. It is sent again until it has: what a link loses that has just come up is no
/// verdict.
#[derive(Debug)]
pub(super) struct Sentinel {
    sender: UdpSocket,
    receiver: UdpSocket,
    sent: Instant,
}

impl Sentinel {
    const AGAIN: Duration = Duration::from_millis(50);

    pub(super) fn send(from: &Netns, source: IpAddr, at: &Netns, to: IpAddr) -> Self {
        let bound = |netns: &Netns, address| {
            netns
                .run(|| UdpSocket::bind(SocketAddr::new(address, 0)).unwrap())
                .unwrap()
        };
        let receiver = bound(at, to);
        receiver.set_nonblocking(true).unwrap();
        let sender = bound(from, source);
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        sender.send(b"sentinel").unwrap();
        let sent = Instant::now();
        Self { sender, receiver, sent }
    }

    pub(super) fn arrived(&mut self) -> bool {
        if self.sent.elapsed() >= Self::AGAIN {
            self.sent = Instant::now();
            // An earlier one may have been refused on the way.
            let _ = self.sender.send(b"sentinel");
        }
        self.receiver.recv(&mut [0; 8]).is_ok()
    }
}
