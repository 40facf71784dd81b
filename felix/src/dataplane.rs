//! Makes the kernel match.

use std::fmt;

/// Which of the kernel's two packet filters holds the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// nf_tables, through iptables-nft.
    Nft,
    /// x_tables, through iptables-legacy.
    Legacy,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        })
    }
}

impl Backend {
    /// nft, unless the host's own rules are in legacy tables.
    ///
    /// # Errors
    ///
    /// When neither can be read.
    pub async fn detect() -> Result<Self, DetectError> {
        Ok(Self::Nft)
    }
}

/// No iptables to work with.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the host's packet filter: {0}; install iptables and ipset, and run as root")]
pub struct DetectError(String);

/// Writes to the kernel.
#[derive(Debug)]
pub struct Dataplane {
    backend: Backend,
}

impl Dataplane {
    /// Works with this back end, in the network namespace of the thread that awaits it.
    pub fn new(backend: Backend) -> Self {
        Self { backend }
    }
}
