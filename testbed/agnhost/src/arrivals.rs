//! When the first packet of each sender arrived, by the clock that all nodes of a lab share.

use std::collections::BTreeSet;
use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The first packet of a sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// What the packet says: the sender's name.
    pub name: String,
    /// Microseconds since 1970.
    pub at_us: u64,
}

/// Tells the first packet of every name that arrives on `socket` within `duration`.
///
/// # Errors
/// If the socket fails.
pub fn run(socket: &UdpSocket, duration: Duration, mut tell: impl FnMut(&Arrival)) -> io::Result<()> {
    let mut seen = BTreeSet::new();
    let mut buffer = [0; 512];
    let until = Instant::now() + duration;
    while let Some(left) = until
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        socket.set_read_timeout(Some(left))?;
        let length = match socket.recv_from(&mut buffer) {
            Ok((length, _)) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = String::from_utf8_lossy(&buffer[..length]).trim().to_owned();
        if seen.insert(name.clone()) {
            let at_us = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
            tell(&Arrival { name, at_us });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_packet_of_each_name_is_told_and_no_other() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for name in ["one\n", "two\n", "one\n"] {
            sender.send_to(name.as_bytes(), socket.local_addr().unwrap()).unwrap();
        }
        let mut told = Vec::new();
        run(&socket, Duration::from_millis(200), |arrival| {
            told.push(arrival.name.clone())
        })
        .unwrap();
        assert_eq!(told, ["one", "two"]);
    }
}
