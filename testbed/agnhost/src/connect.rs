//! `agnhost connect`: can a connection be made? The answers' words are those that Kubernetes' tests look for.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

/// Transport of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// A handshake must succeed.
    Tcp,
    /// A datagram must be answered.
    Udp,
    /// Refused: this machine's agnhost has none.
    Sctp,
}

/// Why no connection was made. Displays as agnhost's one word, then the cause.
#[derive(Debug)]
pub enum ConnectError {
    /// The name has no address.
    Dns(String),
    /// Nobody answered in time.
    Timeout,
    /// The other side, or a router, refused.
    Refused,
    /// Anything else.
    Other(String),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Dns(why) => write!(f, "DNS: {why}"),
            ConnectError::Timeout => f.write_str("TIMEOUT"),
            ConnectError::Refused => f.write_str("REFUSED"),
            ConnectError::Other(why) => write!(f, "OTHER: {why}"),
        }
    }
}

impl std::error::Error for ConnectError {}

/// Tries to reach `target` (`host:port`) within `timeout`.
///
/// # Errors
/// When no connection was made, with the reason.
pub fn connect(target: &str, protocol: Protocol, timeout: Duration) -> Result<(), ConnectError> {
    if protocol == Protocol::Sctp {
        return Err(ConnectError::Other(
            "SCTP is not supported here; use --protocol=tcp or udp".into(),
        ));
    }
    let address: SocketAddr = target
        .to_socket_addrs()
        .map_err(|e| ConnectError::Dns(e.to_string()))?
        .next()
        .ok_or_else(|| ConnectError::Dns(format!("{target} has no address")))?;
    let outcome = match protocol {
        Protocol::Tcp => TcpStream::connect_timeout(&address, timeout).map(drop),
        Protocol::Udp | Protocol::Sctp => datagram(address, timeout),
    };
    outcome.map_err(|e| match e.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ConnectError::Timeout,
        io::ErrorKind::ConnectionRefused => ConnectError::Refused,
        _ => ConnectError::Other(e.to_string()),
    })
}

fn datagram(address: SocketAddr, timeout: Duration) -> io::Result<()> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.send(b"hostname\n")?;
    socket.recv(&mut [0; 1500]).map(drop)
}
