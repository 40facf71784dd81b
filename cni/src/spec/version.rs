//! Versions of the specification.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::protocol::{Failure, code};

/// A version of the CNI specification that this plugin speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CniVersion {
    /// 0.3.1
    V0_3_1,
    /// 0.4.0: CHECK.
    V0_4_0,
    /// 1.0.0: addresses without `version`.
    V1_0_0,
    /// 1.1.0: STATUS, MTU of interfaces.
    V1_1_0,
}

impl CniVersion {
    /// All, the oldest first.
    pub const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// The newest.
    pub const LATEST: Self = Self::V1_1_0;

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The answer to VERSION.
    pub fn document() -> Value {
        json!({
            "cniVersion": Self::LATEST.as_str(),
            "supportedVersions": Self::ALL.map(Self::as_str),
        })
    }
}

impl FromStr for CniVersion {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
            .ok_or_else(|| {
                Failure::new(
                    code::INCOMPATIBLE_VERSION,
                    format!("cniVersion {text:?} in the network configuration is not supported"),
                    format!("Use one of {}.", Self::ALL.map(Self::as_str).join(", ")),
                )
            })
    }
}

impl fmt::Display for CniVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
