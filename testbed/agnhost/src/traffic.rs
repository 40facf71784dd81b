//! Numbered packets at a steady rate, and which of them came back: how "no packet was lost" is shown.
//!
//! UDP on purpose: TCP would repair a loss by itself and hide it. The far end is any server that speaks agnhost's UDP
//! protocol (`echo TEXT` is answered with `TEXT`).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// How long after the last packet an answer still counts.
const GRACE: Duration = Duration::from_secs(5);
/// How long a single packet's socket waits for the answer while others are sent.
const KEPT: Duration = Duration::from_secs(2);

/// Whether packets share one flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Flow {
    /// One socket for all: after the first packet the connection is tracked as established.
    Established,
    /// A source port of its own for each packet: every packet is a new connection.
    New,
}

/// What was sent and what came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The far end.
    pub target: SocketAddr,
    /// Kind of flow.
    pub flow: Flow,
    /// Packets that the kernel took, of those numbered from 0.
    pub sent: u32,
    /// Packets whose answer came back.
    pub answered: u32,
    /// Runs of numbers without an answer, as (first, last); the first 20.
    pub missing: Vec<(u32, u32)>,
}

/// Sends `rate` packets a second for `duration` and counts the answers.
///
/// # Errors
/// If a socket cannot be made. A packet the kernel refuses to send is missing, but does not count as sent.
pub fn run(target: SocketAddr, flow: Flow, rate: u32, duration: Duration) -> io::Result<Tally> {
    let total = u32::try_from(duration.as_millis() * u128::from(rate) / 1000).unwrap_or(u32::MAX);
    let interval = Duration::from_secs(1) / rate.max(1);
    let mut answered = BTreeSet::new();
    let mut sockets: BTreeMap<u32, (Instant, UdpSocket)> = BTreeMap::new();
    let shared = open(target)?;
    let mut sent = 0;
    let began = Instant::now();
    for number in 0..total {
        let due = began + interval * number;
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            thread::park_timeout(left);
        }
        let text = format!("echo {number}");
        match flow {
            Flow::Established => sent += u32::from(send(&shared, &text)),
            Flow::New => {
                let socket = open(target)?;
                sent += u32::from(send(&socket, &text));
                sockets.insert(number, (Instant::now(), socket));
            }
        }
        collect(&shared, &mut answered);
        // Sockets stay open for their answer, but not for ever: a port is only so many packets away from reuse.
        sockets.retain(|number, (opened, socket)| {
            collect(socket, &mut answered);
            !answered.contains(number) && opened.elapsed() < KEPT
        });
    }
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline && answered.len() < sent as usize {
        collect(&shared, &mut answered);
        for (_, socket) in sockets.values() {
            collect(socket, &mut answered);
        }
        thread::park_timeout(Duration::from_millis(5));
    }
    let count = u32::try_from(answered.len()).unwrap_or(u32::MAX);
    Ok(Tally {
        target,
        flow,
        sent,
        answered: count,
        missing: missing(total, &answered),
    })
}

fn open(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if target.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Whether the kernel took it. An ICMP error about an earlier packet is told once, in place of sending.
fn send(socket: &UdpSocket, text: &str) -> bool {
    let once = || socket.send(text.as_bytes());
    match once() {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => once().is_ok(),
        sent => sent.is_ok(),
    }
}

fn collect(socket: &UdpSocket, answered: &mut BTreeSet<u32>) {
    let mut buffer = [0; 64];
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&buffer[..length]);
                answered.extend(text.trim().parse::<u32>().ok());
            }
            // An ICMP error is reported once and must not end the reading.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(_) => return,
        }
    }
}

fn missing(total: u32, answered: &BTreeSet<u32>) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in (0..total).filter(|number| !answered.contains(number)) {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    runs.truncate(20);
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An echo server that ignores the numbers in `deaf`.
    fn server(deaf: &'static [u32], packets: usize) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 64];
            for _ in 0..packets {
                let (length, from) = socket.recv_from(&mut buffer).unwrap();
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let number = text.strip_prefix("echo ").unwrap();
                if !deaf.contains(&number.parse().unwrap()) {
                    socket.send_to(number.as_bytes(), from).unwrap();
                }
            }
        });
        address
    }

    #[test]
    fn every_answered_packet_is_counted() {
        for flow in [Flow::Established, Flow::New] {
            let tally = run(server(&[], 50), flow, 500, Duration::from_millis(100)).unwrap();
            assert_eq!((tally.sent, tally.answered, tally.missing), (50, 50, vec![]));
        }
    }

    #[test]
    fn lost_packets_are_named() {
        let tally = run(server(&[3, 4, 9], 20), Flow::New, 200, Duration::from_millis(100)).unwrap();
        assert_eq!(
            (tally.sent, tally.answered, tally.missing),
            (20, 17, vec![(3, 4), (9, 9)])
        );
    }

    #[test]
    fn what_the_kernel_refuses_is_not_sent() {
        let unconnected = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(!send(&unconnected, "echo 0"));
        // A refusal by the far end is told to the packet after, which goes out all the same.
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let socket = open(closed).unwrap();
        assert!((0..50).all(|_| send(&socket, "echo 0")));
        let tally = run(closed, Flow::New, 500, Duration::from_millis(100)).unwrap();
        assert_eq!((tally.sent, tally.answered), (50, 0));
    }
}
