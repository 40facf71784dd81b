//! A packet to every address of some networks, over and over: whoever answers could be reached at some moment.
//!
//! What a person would do who waits for a pod to be open before its policy is there.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// What came of it so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep {
    /// Packets that the kernel took.
    pub sent: u64,
    /// Answers, by who gave them.
    pub answered: BTreeMap<IpAddr, u64>,
}

/// Sends an agnhost `echo` to `port` of every address of `networks`, all within each `interval`, for `duration`. Every round
/// has a source port of its own, so that no packet belongs to an earlier connection. `tell` hears the state once a second
/// and at the end.
///
/// # Errors
/// If a socket cannot be made.
pub fn run(
    networks: &[IpNetwork],
    port: u16,
    interval: Duration,
    duration: Duration,
    mut tell: impl FnMut(&Sweep),
) -> io::Result<()> {
    let targets: Vec<SocketAddr> = networks
        .iter()
        .flat_map(IpNetwork::iter)
        .map(|address| SocketAddr::new(address, port))
        .collect();
    let mut state = Sweep::default();
    let mut sockets: Vec<UdpSocket> = Vec::new();
    let (began, mut told) = (Instant::now(), Instant::now());
    for round in 0u32.. {
        let due = began + interval * round;
        if due.duration_since(began) >= duration {
            break;
        }
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            thread::park_timeout(left);
        }
        let socket = UdpSocket::bind::<SocketAddr>(match targets.first() {
            Some(SocketAddr::V6(_)) => ([0u16; 8], 0).into(),
            _ => ([0; 4], 0).into(),
        })?;
        socket.set_nonblocking(true)?;
        for target in &targets {
            state.sent += u64::from(socket.send_to(b"echo open", target).is_ok());
        }
        sockets.push(socket);
        // An answer takes less than this many rounds.
        if sockets.len() > 40 {
            sockets.remove(0);
        }
        collect(&sockets, &mut state);
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            tell(&state);
        }
    }
    collect(&sockets, &mut state);
    tell(&state);
    Ok(())
}

fn collect(sockets: &[UdpSocket], state: &mut Sweep) {
    let mut buffer = [0; 64];
    for socket in sockets {
        // A refusal is an answer of the kernel's and none of a server; it is told once, in place of a packet.
        loop {
            match socket.recv_from(&mut buffer) {
                Ok((_, from)) => *state.answered.entry(from.ip()).or_default() += 1,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(_) => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_is_told_and_who_does_not_is_not() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((length, from)) = server.recv_from(&mut buffer) {
                let _ = server.send_to(&buffer[..length], from);
            }
        });
        let networks = ["127.0.0.0/30".parse().unwrap()];
        let mut last = Sweep::default();
        run(
            &networks,
            port,
            Duration::from_millis(5),
            Duration::from_millis(200),
            |state| last = state.clone(),
        )
        .unwrap();
        assert!(last.sent >= 80, "{last:?}");
        let answered: Vec<String> = last.answered.keys().map(ToString::to_string).collect();
        assert_eq!(answered, ["127.0.0.1"]);
    }
}
