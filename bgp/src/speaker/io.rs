//! Sockets: listening, dialling, reading, writing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use tracing::warn;

use super::Error;
use super::core::Event;
use crate::config::PeerConfig;
use crate::session::ConnectionId;

/// Chunks (each some messages) that may wait for a peer to read.
const WRITER_QUEUE: usize = 32;

/// Places of that queue that only control messages may take.
const RESERVE: usize = 4;

/// Octets that may wait for a peer to read before no more routes are added.
const WRITER_OCTETS: usize = 1024 * 1024;

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
    outbox: Outbox,
    writer: JoinHandle<()>,
    reader: Reader,
}

/// The core's end of a writer's queue; the writer ends when it is dropped.
#[derive(Debug)]
struct Outbox {
    chunks: mpsc::Sender<Vec<Bytes>>,
    /// Octets queued and not written yet.
    octets: Arc<AtomicUsize>,
    /// Closes with the queue, which itself does not tell of that while chunks are left.
    _open: watch::Sender<()>,
}

/// The writer's end.
struct Inbox {
    chunks: mpsc::Receiver<Vec<Bytes>>,
    octets: Arc<AtomicUsize>,
    open: watch::Receiver<()>,
}

impl Outbox {
    fn new() -> (Self, Inbox) {
        let (sender, chunks) = mpsc::channel(WRITER_QUEUE);
        let (open, watching) = watch::channel(());
        let octets = Arc::<AtomicUsize>::default();
        let outbox = Outbox {
            chunks: sender,
            octets: octets.clone(),
            _open: open,
        };
        let inbox = Inbox {
            chunks,
            octets,
            open: watching,
        };
        (outbox, inbox)
    }

    fn has_room(&self) -> bool {
        self.chunks.capacity() > RESERVE && self.octets.load(Ordering::Relaxed) < WRITER_OCTETS
    }

    fn send(&self, chunk: Vec<Bytes>) -> bool {
        let octets = chunk.iter().map(Bytes::len).sum();
        // Before the writer can take it off again.
        self.octets.fetch_add(octets, Ordering::Relaxed);
        let sent = self.chunks.try_send(chunk).is_ok();
        if !sent {
            self.octets.fetch_sub(octets, Ordering::Relaxed);
        }
        sent
    }
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
        let (outbox, inbox) = Outbox::new();
        let reader = tokio::spawn(read_all(id, read, events.clone())).abort_handle();
        let writer = tokio::spawn(write_all(id, write, inbox, events.clone()));
        Ok(Link {
            peer,
            local,
            outbox,
            writer,
            reader: Reader(reader),
        })
    }

    /// Whether routes may be queued.
    pub(super) fn has_room(&self) -> bool {
        self.outbox.has_room()
    }

    /// Queues messages; false when the queue is full or the connection gone.
    pub(super) fn send(&self, messages: Vec<Bytes>) -> bool {
        self.outbox.send(messages)
    }

    /// Reads no more, and lets the writer finish what is queued and close; the task ends then.
    pub(super) fn finish(self) -> JoinHandle<()> {
        let Link {
            writer, outbox, reader, ..
        } = self;
        drop((outbox, reader));
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
    mut socket: impl AsyncWrite + Unpin,
    mut inbox: Inbox,
    events: mpsc::Sender<Event>,
) {
    let mut out = BytesMut::new();
    while let Some(chunk) = inbox.chunks.recv().await {
        chunk.iter().for_each(|message| out.extend_from_slice(message));
        while out.len() < 256 * 1024 {
            let Ok(chunk) = inbox.chunks.try_recv() else { break };
            chunk.iter().for_each(|message| out.extend_from_slice(message));
        }
        let octets = out.len();
        let written = tokio::select! {
            biased;
            written = timeout(SEND_HOLD_TIME, socket.write_all_buf(&mut out)) => written,
            // The queue has been closed: what is left are the last words.
            _ = inbox.open.changed() => break,
        };
        let event = match written {
            Ok(Ok(())) => Event::Writable,
            Ok(Err(error)) => Event::Closed(id, error.to_string()),
            Err(_) => Event::Stalled(id),
        };
        let goes_on = matches!(event, Event::Writable);
        inbox.octets.fetch_sub(octets, Ordering::Relaxed);
        if inbox.open.has_changed().is_err() {
            break;
        }
        if events.send(event).await.is_err() || !goes_on {
            return;
        }
    }
    let rest = async {
        while let Some(chunk) = inbox.chunks.recv().await {
            chunk.iter().for_each(|message| out.extend_from_slice(message));
        }
        socket.write_all_buf(&mut out).await?;
        socket.shutdown().await
    };
    // An error means that there is nobody left to tell.
    let _ = timeout(LAST_WORDS, rest).await;
}

/// A listening socket for each address, or none at all.
pub(super) fn listen_on<'a>(
    addresses: impl IntoIterator<Item = &'a SocketAddr>,
) -> Result<Vec<(SocketAddr, TcpListener)>, Error> {
    let one = |address: &SocketAddr| match listen(*address) {
        Ok(listener) => Ok((*address, listener)),
        Err(error) => Err(Error::Listen {
            address: *address,
            error,
        }),
    };
    addresses.into_iter().map(one).collect()
}

/// A listening socket; IPv6 ones leave IPv4 alone.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
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
    let result = match timeout(CONNECT_TIMEOUT, connect(&peer, hops)).await {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_a_peer_is_counted_in_octets() {
        let (outbox, mut inbox) = Outbox::new();
        let half = vec![Bytes::from(vec![0; 4096]); WRITER_OCTETS / 4096 / 2];
        assert!(outbox.send(half.clone()) && outbox.has_room());
        assert!(outbox.send(half) && !outbox.has_room());
        inbox.chunks.close();
        assert!(!outbox.send(vec![Bytes::from_static(b"late")]));
        assert_eq!(outbox.octets.load(Ordering::Relaxed), WRITER_OCTETS);
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_not_waited_for_when_the_connection_ends() {
        let (outbox, inbox) = Outbox::new();
        let (events, _receiver) = mpsc::channel(1);
        let (ours, _theirs) = tokio::io::duplex(16);
        let writer = tokio::spawn(write_all(ConnectionId(1), ours, inbox, events));
        assert!(outbox.send(vec![Bytes::from(vec![0; 4096])]));
        // The writer is in the midst of it.
        while outbox.chunks.capacity() < WRITER_QUEUE {
            tokio::task::yield_now().await;
        }
        drop(outbox);
        let ended = timeout(Duration::from_secs(20), writer).await;
        assert!(ended.is_ok(), "it waits for the send hold timer");
    }
}
