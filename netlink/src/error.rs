//! What can go wrong, named by operation and object.

use std::io;

use nix::errno::Errno;

/// The result of this crate's calls.
pub type Result<T> = std::result::Result<T, Error>;

/// An operation on a kernel object that failed. Its text names both.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused the operation.
    #[error("{operation}: {}{}", .errno.desc(), detail(.explanation))]
    Kernel {
        /// The operation and its object, for example `replace route 10.0.0.0/24 via 10.1.0.1`.
        operation: String,
        /// The kernel's error number.
        errno: Errno,
        /// The kernel's own words (extended acknowledgement), if it gave any.
        explanation: Option<String>,
    },
    /// Talking to the kernel failed: the outcome of the operation is unknown.
    #[error("{operation}: {}", .errno.desc())]
    Io {
        /// The operation and its object.
        operation: String,
        /// What the system call returned. `ENOBUFS`: answers were lost.
        errno: Errno,
    },
    /// No such object.
    #[error("{object}: not found")]
    NotFound {
        /// The object, for example `link eth7`.
        object: String,
    },
    /// The caller asked for something that cannot be; nothing was sent.
    #[error("{object}: {reason}")]
    Invalid {
        /// The object, for example `link name "a/b"`.
        object: String,
        /// Why, and what would do.
        reason: String,
    },
    /// The kernel's answer is not understood.
    #[error("{operation}: the kernel's answer is not understood: {reason}")]
    Answer {
        /// The operation and its object.
        operation: String,
        /// What was wrong with it.
        reason: String,
    },
}

impl Error {
    /// The error number behind it, if there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel { errno, .. } | Self::Io { errno, .. } => Some(*errno),
            Self::NotFound { .. } | Self::Invalid { .. } | Self::Answer { .. } => None,
        }
    }

    /// The object was not there: deleting it again is no error.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NotFound { .. } => true,
            Self::Kernel { errno, .. } | Self::Io { errno, .. } => {
                matches!(
                    errno,
                    Errno::ENOENT | Errno::ENODEV | Errno::ESRCH | Errno::EADDRNOTAVAIL | Errno::ENXIO
                )
            }
            Self::Invalid { .. } | Self::Answer { .. } => false,
        }
    }

    /// The object was there already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EEXIST)
    }

    pub(crate) fn io(operation: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            operation: operation.into(),
            errno: errno_of(&source),
        }
    }

    pub(crate) fn invalid(object: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid {
            object: object.into(),
            reason: reason.into(),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = error
            .errno()
            .map_or(io::ErrorKind::Other, |e| io::Error::from(e).kind());
        io::Error::new(kind, error)
    }
}

/// The error number of an I/O error; `EIO` for those that never had one.
pub(crate) fn errno_of(source: &io::Error) -> Errno {
    source.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn detail(explanation: &Option<String>) -> String {
    explanation.as_ref().map(|e| format!(" ({e})")).unwrap_or_default()
}
