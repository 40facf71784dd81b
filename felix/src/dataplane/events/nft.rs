//! nf_tables tells who changes what. Changes by others of what is ours are worth a look.

use std::collections::VecDeque;
use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use tokio::io::unix::AsyncFd;

use crate::render::CHAIN_PREFIX;
use crate::sys;

/// The multicast group of nf_tables' changes (`NFNLGRP_NFTABLES`).
const GROUP: u32 = 7;

/// `NFNL_SUBSYS_NFTABLES`, the upper byte of every message's type.
const SUBSYSTEM: u8 = 10;

/// Lower bytes of the types that matter: `NFT_MSG_DELTABLE`, `…NEWCHAIN`, `…DELCHAIN`, `…NEWRULE`, `…DELRULE`.
const DELETE_TABLE: u8 = 2;
const CHAIN: [u8; 2] = [3, 5];
const RULE: [u8; 2] = [6, 8];

/// The attributes that hold a chain's name: `NFTA_CHAIN_NAME` and `NFTA_RULE_CHAIN`.
const CHAIN_NAME: u16 = 3;
const RULE_CHAIN: u16 = 2;

/// Chains of the kernel that we have hooks in.
const HOOKED: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// How many of our own writers are remembered: those whose messages may still be on their way.
const REMEMBERED: usize = 32;

/// Listens in the network namespace in which it was made.
#[derive(Debug)]
pub(in crate::dataplane) struct NftEvents {
    socket: AsyncFd<Socket>,
    own: VecDeque<u32>,
}

impl NftEvents {
    pub(super) fn listen() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.add_membership(GROUP)?;
        socket.set_non_blocking(true)?;
        Ok(Self {
            socket: sys::watch(socket)?,
            own: VecDeque::new(),
        })
    }

    /// What this process changes is not news.
    pub(super) fn ignore(&mut self, process: u32) {
        self.own.push_back(process);
        if self.own.len() > REMEMBERED {
            self.own.pop_front();
        }
    }

    /// Returns once others have changed chains of ours, or such that we have hooks in.
    pub(super) async fn changed_by_others(&mut self) {
        loop {
            let Ok(mut ready) = self.socket.readable().await else {
                return std::future::pending().await;
            };
            match ready.try_io(|socket| socket.get_ref().recv_from_full()) {
                Ok(Ok((messages, _))) if concerns_us(&messages, &self.own) => return,
                // Messages were lost: nobody knows what they said.
                Ok(Err(_)) => return,
                Ok(Ok(_)) | Err(_) => {}
            }
        }
    }
}

/// Whether any of the messages tells of a change to our chains that `own` processes did not make.
fn concerns_us(mut messages: &[u8], own: &VecDeque<u32>) -> bool {
    while let Some((header, _)) = messages.split_first_chunk::<16>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let sender = u32::from_ne_bytes([header[12], header[13], header[14], header[15]]);
        let [kind, subsystem] = u16::from_ne_bytes([header[4], header[5]]).to_le_bytes();
        // The header, and the family, version and generation that follow it.
        let Some(attributes) = messages.get(20..length) else {
            return false;
        };
        if subsystem == SUBSYSTEM && !own.contains(&sender) {
            let name = if CHAIN.contains(&kind) {
                attribute(attributes, CHAIN_NAME)
            } else if RULE.contains(&kind) {
                attribute(attributes, RULE_CHAIN)
            } else {
                None
            };
            let ours = |name: String| name.starts_with(CHAIN_PREFIX) || HOOKED.contains(&name.as_str());
            if kind == DELETE_TABLE || name.is_some_and(ours) {
                return true;
            }
        }
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

/// An attribute's text.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<String> {
    while let Some((header, _)) = attributes.split_first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = attributes.get(4..length)?;
        if u16::from_ne_bytes([header[2], header[3]]) == wanted {
            return Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned());
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, sender: u32, attributes: &[(u16, &str)]) -> Vec<u8> {
        let mut body = vec![2, 0, 0, 0];
        for (kind, text) in attributes {
            let value = [text.as_bytes(), b"\0"].concat();
            body.extend(((value.len() + 4) as u16).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(&value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut message = ((body.len() + 16) as u32).to_ne_bytes().to_vec();
        message.extend(u16::from_le_bytes([kind, SUBSYSTEM]).to_ne_bytes());
        message.extend([0; 6]);
        message.extend(sender.to_ne_bytes());
        message.extend(body);
        message
    }

    #[test]
    fn tells_what_concerns_us() {
        let rule = |sender, chain| message(6, sender, &[(1, "filter"), (RULE_CHAIN, chain)]);
        let chain = |name| message(5, 7, &[(1, "filter"), (CHAIN_NAME, name)]);
        let heard = |messages: &[Vec<u8>]| concerns_us(&messages.concat(), &[40, 41].into());
        assert!(heard(&[rule(7, "mgy-FORWARD")]));
        assert!(heard(&[rule(7, "FORWARD")]));
        assert!(heard(&[
            rule(7, "KUBE-SVC-X"),
            chain("KUBE-SVC-X"),
            chain("mgy-tw-mgy0")
        ]));
        assert!(heard(&[message(DELETE_TABLE, 7, &[(1, "filter")])]));
        assert!(!heard(&[rule(40, "mgy-FORWARD"), rule(41, "FORWARD")]));
        assert!(!heard(&[
            rule(7, "KUBE-SVC-X"),
            chain("DOCKER"),
            message(9, 7, &[(1, "mgy-")])
        ]));
        assert!(!concerns_us(&[1, 2, 3], &VecDeque::new()));
        assert!(!concerns_us(&[0xff; 64], &VecDeque::new()));
        assert!(!concerns_us(&[0; 64], &VecDeque::new()));
    }
}
