//! A listener that no client can wear out: whoever comes is let in, in place of who came first if there are too many, and
//! has so long for each request.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep};

/// Connections at once.
pub(super) const MOST: usize = 128;

/// How long a client may take to send a request, counted from the last answer, and to take in a piece of an answer.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) struct Bounded {
    listener: TcpListener,
    /// Those let in, the oldest first. A probe that waits for a place among clients that say nothing would fail, and the
    /// agent be restarted for it.
    inside: VecDeque<oneshot::Sender<()>>,
}

impl Bounded {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            inside: VecDeque::new(),
        }
    }
}

impl Listener for Bounded {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        self.inside.retain(|client| !client.is_closed());
        if self.inside.len() >= MOST {
            // Dropped, it has the oldest sent away.
            self.inside.pop_front();
        }
        let (place, out) = oneshot::channel();
        self.inside.push_back(place);
        let stream = Stream {
            stream,
            deadline: Box::pin(sleep(PATIENCE)),
            out: Some(out),
        };
        (stream, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

pub(super) struct Stream {
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    /// Ends when another needs the place; nothing once it did.
    out: Option<oneshot::Receiver<()>>,
}

impl Stream {
    /// Ready when the client has to go.
    fn must_go<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let displaced = match &mut self.out {
            Some(out) => Pin::new(out).poll(cx).is_ready(),
            None => true,
        };
        if displaced {
            self.out = None;
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        self.deadline
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.must_go(cx) {
            Poll::Ready(gone) => Poll::Ready(gone),
            Poll::Pending => Pin::new(&mut self.stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Ready(written) => {
                self.deadline.as_mut().reset(Instant::now() + PATIENCE);
                Poll::Ready(written)
            }
            Poll::Pending => self.must_go(cx),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
