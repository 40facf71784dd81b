//! The documents of the CNI specification, versions 0.3.1 to 1.1.0: what the runtime hands over and what it gets back.

pub mod call;
pub mod config;
pub mod result;
pub mod version;

pub use call::{Call, Command};
pub use config::Config;
pub use result::Success;
pub use version::CniVersion;

/// Whether a name is as the specification wants container ids and network names: it starts with a letter or digit and
/// goes on with letters, digits, `_`, `.` and `-`.
pub fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}
