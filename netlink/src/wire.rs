//! Messages over the socket: pipelined changes and dumps.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

/// Messages a system call. Even if each of them fails, the answers fit the default receive buffer.
const CHUNK_MESSAGES: usize = 128;
/// Bytes a system call, well below the default send buffer.
const CHUNK_BYTES: usize = 64 * 1024;
/// The kernel's dump messages are at most 32 KB.
const RECEIVE_BYTES: usize = 64 * 1024;
/// A dump that raced with changes is repeated this often.
const DUMP_ATTEMPTS: usize = 10;

/// A rtnetlink socket.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// The kernel's refusal.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) errno: Errno,
    pub(crate) explanation: Option<String>,
}

/// What became of one message.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) refusal: Option<Refusal>,
    pub(crate) answers: Vec<RouteNetlinkMessage>,
}

impl Wire {
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        socket.set_netlink_get_strict_chk(true)?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE_BYTES),
        })
    }

    /// Sends all, in order, and says what became of each. An `Err` leaves the outcome of some of them unknown.
    pub(crate) fn exchange(&mut self, messages: Vec<(RouteNetlinkMessage, u16)>) -> io::Result<Vec<Reply>> {
        let mut replies = Vec::with_capacity(messages.len());
        let mut messages = messages.into_iter().peekable();
        while messages.peek().is_some() {
            let first = self.sequence.wrapping_add(1);
            let mut bytes = Vec::new();
            let mut last_flags_at = 0;
            let mut count = 0;
            while count < CHUNK_MESSAGES && bytes.len() < CHUNK_BYTES {
                let Some((message, flags)) = messages.next() else { break };
                last_flags_at = bytes.len() + FLAGS_OFFSET;
                self.encode(message, flags, &mut bytes);
                count += 1;
            }
            // Only the last one is acknowledged: the others speak up when they fail, and answers come in order.
            let flags = u16::from_ne_bytes([bytes[last_flags_at], bytes[last_flags_at + 1]]) | NLM_F_ACK;
            bytes[last_flags_at..last_flags_at + 2].copy_from_slice(&flags.to_ne_bytes());
            self.socket.send(&bytes, 0)?;
            self.collect(first, count, &mut replies)?;
        }
        Ok(replies)
    }

    /// Asks for a list. The outer error is the socket's, the inner one the kernel's.
    pub(crate) fn dump(
        &mut self,
        request: &RouteNetlinkMessage,
    ) -> io::Result<Result<Vec<RouteNetlinkMessage>, Refusal>> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut bytes = Vec::new();
            self.encode(request.clone(), NLM_F_DUMP, &mut bytes);
            self.socket.send(&bytes, 0)?;
            let mut interrupted = false;
            let mut found = Vec::new();
            let refusal = self.receive(|header, payload| {
                interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                match payload {
                    NetlinkPayload::Done(done) if done.code < 0 => Some(Some(Refusal {
                        errno: Errno::from_raw(-done.code),
                        explanation: None,
                    })),
                    NetlinkPayload::Done(_) => Some(None),
                    NetlinkPayload::Error(error) => Some(Some(Refusal {
                        errno: Errno::from_raw(-error.raw_code()),
                        explanation: explanation(header.flags, &error.header),
                    })),
                    NetlinkPayload::InnerMessage(message) => {
                        found.push(message);
                        None
                    }
                    _ => None,
                }
            })?;
            match refusal {
                Some(refusal) => return Ok(Err(refusal)),
                None if interrupted => {}
                None => return Ok(Ok(found)),
            }
        }
        Err(io::Error::from(Errno::EINTR))
    }

    fn encode(&mut self, message: RouteNetlinkMessage, flags: u16, bytes: &mut Vec<u8>) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut bytes[start..]);
    }

    fn collect(&mut self, first: u32, count: usize, replies: &mut Vec<Reply>) -> io::Result<()> {
        let base = replies.len();
        replies.resize_with(base + count, Reply::default);
        let own = &mut replies[base..];
        // `receive` accepts only the current sequence number, which is the last message's; here any of the chunk will do.
        self.receive_from(first, |header, payload| {
            let position = header.sequence_number.wrapping_sub(first) as usize;
            match payload {
                NetlinkPayload::Error(error) => {
                    if error.code.is_some() {
                        own[position].refusal = Some(Refusal {
                            errno: Errno::from_raw(-error.raw_code()),
                            explanation: explanation(header.flags, &error.header),
                        });
                    }
                    (position + 1 == count).then_some(())
                }
                NetlinkPayload::InnerMessage(message) => {
                    own[position].answers.push(message);
                    None
                }
                _ => None,
            }
        })
    }

    fn receive<T>(
        &mut self,
        handle: impl FnMut(NetlinkHeader, NetlinkPayload<RouteNetlinkMessage>) -> Option<T>,
    ) -> io::Result<T> {
        self.receive_from(self.sequence, handle)
    }

    /// Reads until `handle` has its result. Messages older than `first` belong to exchanges given up.
    fn receive_from<T>(
        &mut self,
        first: u32,
        mut handle: impl FnMut(NetlinkHeader, NetlinkPayload<RouteNetlinkMessage>) -> Option<T>,
    ) -> io::Result<T> {
        let expected = self.sequence.wrapping_sub(first);
        let mut result = None;
        while result.is_none() {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            each(&self.buffer, |header, payload| {
                if result.is_none() && header.sequence_number.wrapping_sub(first) <= expected {
                    result = handle(header, payload);
                }
            });
        }
        result.ok_or_else(|| io::Error::from(Errno::EIO))
    }
}

/// Goes through the messages of one datagram. What cannot be decoded is left out, with a trace.
pub(crate) fn each(mut bytes: &[u8], mut handle: impl FnMut(NetlinkHeader, NetlinkPayload<RouteNetlinkMessage>)) {
    while let Some(length) = bytes.first_chunk::<4>().map(|raw| u32::from_ne_bytes(*raw) as usize) {
        if length < HEADER_BYTES || length > bytes.len() {
            return;
        }
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes[..length]) {
            Ok(message) => {
                let (header, payload) = message.into_parts();
                handle(header, payload);
            }
            Err(error) => tracing::debug!(%error, length, "netlink message not understood"),
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

const HEADER_BYTES: usize = 16;
const FLAGS_OFFSET: usize = 6;

/// The kernel's own words in an extended acknowledgement (`NLMSGERR_ATTR_MSG`), which follow the capped request header.
fn explanation(flags: u16, payload: &[u8]) -> Option<String> {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let mut rest = payload.get(HEADER_BYTES..)?;
    while let Some([l0, l1, t0, t1]) = rest.first_chunk::<4>().copied() {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(4..length)?;
        if u16::from_ne_bytes([t0, t1]) == NLMSGERR_ATTR_MSG {
            return Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}
