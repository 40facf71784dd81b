//! `agnhost netexec`: an HTTP and a UDP server that say who asked and who answers.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// A request's head may have this many bytes.
const MAX_HEAD: usize = 64 * 1024;
const IDLE: Duration = Duration::from_secs(30);
/// Datagrams wait in this many bytes while the machine is busy: a lost answer should mean a lost packet.
const UDP_BUFFER: usize = 4 << 20;

/// Sockets that answer. Both take IPv4 and IPv6.
#[derive(Debug, Default)]
pub struct Servers {
    http: Option<TcpListener>,
    udp: Option<UdpSocket>,
}

impl Servers {
    /// Listens on the ports given.
    ///
    /// # Errors
    /// When a port cannot be had; names it.
    pub fn listen(http: Option<u16>, udp: Option<u16>) -> io::Result<Servers> {
        let http = http.map(|port| bind(port, Type::STREAM)).transpose()?;
        if let Some(socket) = &http {
            socket.listen(1024)?;
        }
        let udp = udp.map(|port| bind(port, Type::DGRAM)).transpose()?;
        Ok(Servers {
            http: http.map(Into::into),
            udp: udp.map(Into::into),
        })
    }

    /// Where HTTP is served.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref()?.local_addr().ok()
    }

    /// Where datagrams are answered.
    pub fn udp_addr(&self) -> Option<SocketAddr> {
        self.udp.as_ref()?.local_addr().ok()
    }
}

/// Answers for ever.
///
/// # Errors
/// When a listening socket fails.
pub fn serve(servers: Servers) -> io::Result<()> {
    let udp = servers.udp.map(|socket| thread::spawn(move || serve_udp(&socket)));
    if let Some(listener) = servers.http {
        // A peer may be gone before it is accepted; the listener is fine then.
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(&stream));
        }
    }
    match udp {
        Some(thread) => thread.join().map_err(|_| io::Error::other("the UDP server panicked"))?,
        None => Ok(()),
    }
}

fn bind(port: u16, kind: Type) -> io::Result<Socket> {
    let at = |e: io::Error| io::Error::new(e.kind(), format!("port {port}: {e}"));
    let dual = || {
        let socket = Socket::new(Domain::IPV6, kind, None)?;
        socket.set_only_v6(false)?;
        Ok::<_, io::Error>((socket, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))))
    };
    let (socket, address) = dual()
        .or_else(|_| {
            let socket = Socket::new(Domain::IPV4, kind, None)?;
            Ok((socket, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))))
        })
        .map_err(at)?;
    if kind == Type::STREAM {
        socket.set_reuse_address(true).map_err(at)?;
    } else {
        // The kernel cuts it down to what it allows.
        socket.set_recv_buffer_size(UDP_BUFFER).map_err(at)?;
    }
    socket.bind(&address.into()).map_err(at)?;
    Ok(socket)
}

fn answer(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    let peer = canonical(stream.peer_addr()?);
    let mut reader = BufReader::new(stream);
    loop {
        let Some((target, keep)) = read_head(&mut reader)? else {
            return Ok(());
        };
        let (status, body) = respond(&target, peer);
        let connection = if keep { "keep-alive" } else { "close" };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
            body.len()
        );
        let mut out = stream;
        out.write_all((head + &body).as_bytes())?;
        if !keep {
            return Ok(());
        }
    }
}

/// The request's target and whether the connection goes on; `None` at its end.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<(String, bool)>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().skip(1);
    let target = words.next().unwrap_or("/").to_owned();
    let mut keep = words.next() == Some("HTTP/1.1");
    let mut size = line.len();
    loop {
        line.clear();
        size += reader.read_line(&mut line)?;
        let header = line.trim_end();
        if header.is_empty() {
            return Ok(Some((target, keep)));
        }
        if size > MAX_HEAD {
            return Err(io::Error::other("the request's head is too long"));
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("connection")
        {
            keep = !value.trim().eq_ignore_ascii_case("close");
        }
    }
}

fn respond(target: &str, peer: SocketAddr) -> (&'static str, String) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match path {
        "/clientip" => ("200 OK", peer.to_string()),
        "/hostname" | "/hostName" => ("200 OK", hostname()),
        "/echo" => ("200 OK", parameter(query, "msg")),
        "/healthz" | "/" => ("200 OK", String::new()),
        _ => (
            "404 Not Found",
            format!("no {path} here; try /clientip, /hostname, /echo?msg=, /healthz\n"),
        ),
    }
}

/// Answers datagrams `echo TEXT`, `hostname` and `clientip`.
fn serve_udp(socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = [0; 65536];
    loop {
        let (len, peer) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            // An ICMP error about an earlier answer.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(e) => return Err(e),
        };
        let text = String::from_utf8_lossy(&buffer[..len]);
        let text = text.trim_end();
        let reply = match text.split_once(' ').unwrap_or((text, "")) {
            ("echo", words) => words.to_owned(),
            (word, _) if word.eq_ignore_ascii_case("hostname") => hostname(),
            ("clientip", _) => canonical(peer).to_string(),
            _ => continue,
        };
        // The peer may be unreachable by now, or policy forbids the answer; the next one may not be.
        let _ = socket.send_to(reply.as_bytes(), peer);
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .unwrap_or_default()
        .trim_end()
        .to_owned()
}

fn parameter(query: &str, name: &str) -> String {
    let value = query
        .split('&')
        .find_map(|pair| pair.split_once('=').filter(|(n, _)| *n == name));
    value.map(|(_, v)| percent_decoded(v)).unwrap_or_default()
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        let decoded = match b {
            b'+' => b' ',
            b'%' => {
                let pair = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                std::str::from_utf8(&pair)
                    .ok()
                    .and_then(|p| u8::from_str_radix(p, 16).ok())
                    .unwrap_or(b'?')
            }
            b => b,
        };
        bytes.push(decoded);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConnectError, Protocol, connect};
    use std::io::Read;

    fn start() -> (u16, u16) {
        let servers = Servers::listen(Some(0), Some(0)).unwrap();
        let ports = (servers.http_addr().unwrap().port(), servers.udp_addr().unwrap().port());
        thread::spawn(move || serve(servers));
        ports
    }

    #[test]
    fn answers_say_who_asked() {
        let (port, _) = start();
        for host in ["127.0.0.1", "::1"] {
            let mut stream = TcpStream::connect((host, port)).unwrap();
            let own = stream.local_addr().unwrap().to_string();
            stream
                .write_all(b"GET /clientip HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert_eq!(answer.split_once("\r\n\r\n").unwrap().1, own);
        }
    }

    #[test]
    fn one_connection_takes_many_requests() {
        let (port, _) = start();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream
            .write_all(b"GET /echo?msg=a%20b+c HTTP/1.1\r\n\r\nGET /nowhere HTTP/1.1\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("\r\n\r\na b cHTTP/1.1 404"), "{answer}");
    }

    #[test]
    fn datagrams_are_echoed() {
        let (_, port) = start();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.send(b"echo 17").unwrap();
        let mut buffer = [0; 16];
        let len = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"17");
    }

    #[test]
    fn datagrams_wait_while_the_machine_is_busy() {
        let allowed = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap();
        let allowed: usize = allowed.trim().parse().unwrap();
        let size = bind(0, Type::DGRAM).unwrap().recv_buffer_size().unwrap();
        assert!(size >= UDP_BUFFER.min(allowed), "{size} bytes");
    }

    #[test]
    fn connections_end_in_one_word() {
        let (http, udp) = start();
        let second = Duration::from_secs(5);
        connect(&format!("127.0.0.1:{http}"), Protocol::Tcp, second).unwrap();
        connect(&format!("127.0.0.1:{udp}"), Protocol::Udp, second).unwrap();
        let closed = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        assert!(matches!(
            connect(&closed, Protocol::Tcp, second),
            Err(ConnectError::Refused)
        ));
        let error = connect(&closed, Protocol::Sctp, second).unwrap_err().to_string();
        assert!(error.starts_with("OTHER: SCTP"), "{error}");
    }
}
