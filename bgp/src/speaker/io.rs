//! Sockets: listening, dialling, reading, writing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tracing::warn;

use super::core::Event;
use crate::config::PeerConfig;
use crate::session::ConnectionId;

/// Chunks (each some messages) that may wait for a peer to read.
pub(super) const WRITER_QUEUE: usize = 32;

/// How long an attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A peer that takes nothing for this long is dead (RFC 9687 suggests eight minutes).
const SEND_HOLD_TIME: Duration = Duration::from_secs(480);

/// How long the last words to a peer may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A connection's tasks.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: IpAddr,
    pub(super) local: SocketAddr,
    pub(super) queue: mpsc::Sender<Vec<Bytes>>,
    writer: JoinHandle<()>,
    reader: Reader,
}

/// The reading task; it ends with its owner.
#[derive(Debug)]
struct Reader(AbortHandle);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Link {
    pub(super) fn start(
        id: ConnectionId,
        stream: TcpStream,
        peer: IpAddr,
        events: &mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        let (read, write) = stream.into_split();
        let (queue, chunks) = mpsc::channel(WRITER_QUEUE);
        let reader = tokio::spawn(read_all(id, read, events.clone())).abort_handle();
        let writer = tokio::spawn(write_all(id, write, chunks, events.clone()));
        Ok(Link {
            peer,
            local,
            queue,
            writer,
            reader: Reader(reader),
        })
    }

    /// Reads no more, and lets the writer finish what is queued and close; the task ends then.
    pub(super) fn finish(self) -> JoinHandle<()> {
        let Link {
            writer, queue, reader, ..
        } = self;
        drop((queue, reader));
        writer
    }
}

async fn read_all(id: ConnectionId, mut socket: OwnedReadHalf, events: mpsc::Sender<Event>) {
    let error = loop {
        let mut buffer = BytesMut::with_capacity(64 * 1024);
        match socket.read_buf(&mut buffer).await {
            Ok(0) => break "the peer closed it".to_owned(),
            Ok(_) => {
                if events.send(Event::Data(id, buffer.freeze())).await.is_err() {
                    return;
                }
            }
            Err(error) => break error.to_string(),
        }
    };
    let _ = events.send(Event::Closed(id, error)).await;
}

async fn write_all(
    id: ConnectionId,
    mut socket: OwnedWriteHalf,
    mut chunks: mpsc::Receiver<Vec<Bytes>>,
    events: mpsc::Sender<Event>,
) {
    let mut out = BytesMut::new();
    while let Some(chunk) = chunks.recv().await {
        chunk.iter().for_each(|message| out.extend_from_slice(message));
        while out.len() < 256 * 1024 {
            let Ok(chunk) = chunks.try_recv() else { break };
            chunk.iter().for_each(|message| out.extend_from_slice(message));
        }
        let limit = if chunks.is_closed() { LAST_WORDS } else { SEND_HOLD_TIME };
        let error = match tokio::time::timeout(limit, socket.write_all(&out)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the peer has stopped reading (send hold timer, RFC 9687)".to_owned()),
        };
        out.clear();
        if let Some(error) = error {
            let _ = events.send(Event::Closed(id, error)).await;
            return;
        }
        if !chunks.is_closed() && events.send(Event::Writable).await.is_err() {
            return;
        }
    }
    let _ = socket.shutdown().await;
}

/// A listening socket; IPv6 ones leave IPv4 alone.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}

pub(super) async fn accept_all(listener: TcpListener, events: mpsc::Sender<Event>) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                if events.send(Event::Accepted(stream, from)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                warn!(%error, "cannot accept a BGP connection");
                // Out of descriptors, most likely: trying at once would only spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Connects to a peer and reports the outcome under `attempt`.
pub(super) async fn dial(peer: PeerConfig, hops: Option<u32>, attempt: u64, events: mpsc::Sender<Event>) {
    let result = match tokio::time::timeout(CONNECT_TIMEOUT, connect(&peer, hops)).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!(
                "no answer from {} port {} within {} s",
                peer.address,
                peer.port,
                CONNECT_TIMEOUT.as_secs()
            ),
        )),
    };
    let _ = events.send(Event::Dialled(peer.address, attempt, result)).await;
}

async fn connect(peer: &PeerConfig, hops: Option<u32>) -> io::Result<TcpStream> {
    let target = SocketAddr::new(peer.address, peer.port);
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(local) = peer.local_address {
        socket.bind(&SocketAddr::new(local, 0).into())?;
    }
    if let Some(hops) = hops {
        set_hops(&socket, peer.address, hops)?;
    }
    TcpSocket::from_std_stream(socket.into()).connect(target).await
}

/// Limits how far packets travel, on either kind of socket.
pub(super) fn set_hops(socket: &Socket, peer: IpAddr, hops: u32) -> io::Result<()> {
    match peer {
        IpAddr::V4(_) => socket.set_ttl_v4(hops),
        IpAddr::V6(_) => socket.set_unicast_hops_v6(hops),
    }
}

/// The same for an accepted connection.
pub(super) fn set_stream_hops(stream: &TcpStream, peer: IpAddr, hops: u32) -> io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    match peer {
        IpAddr::V4(_) => socket.set_ttl_v4(hops),
        IpAddr::V6(_) => socket.set_unicast_hops_v6(hops),
    }
}
