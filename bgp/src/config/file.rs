//! The file that `margay-bgpd` reads.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Config, ConfigErrors};
use crate::fib::kernel::KernelConfig;

/// A whole configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The speaker.
    pub bgp: Config,
    /// The kernel's routing table; changing it needs a restart.
    #[serde(default)]
    pub kernel: KernelConfig,
    /// Unix socket that answers `peers`, `routes` and `status` with JSON; changing it needs a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<PathBuf>,
}

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read it: {0}")]
    Read(#[from] std::io::Error),
    /// It is not YAML, or a field is unknown, missing or of the wrong kind.
    #[error("{0}")]
    Syntax(String),
    /// It contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
}

impl File {
    /// Reads and validates a file.
    ///
    /// # Errors
    /// [`FileError`], to be shown after the file's name.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        Self::parse(&std::fs::read_to_string(path)?)
    }

    /// Validates the text of a file.
    ///
    /// # Errors
    /// As [`File::read`].
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let file: File = serde_saphyr::from_str(text).map_err(|e| FileError::Syntax(e.to_string()))?;
        file.bgp.validate()?;
        if matches!(file.kernel.protocol, 0..=4) {
            return Err(FileError::Syntax(format!(
                "kernel.protocol: {} belongs to the kernel and to static routes; use a number from 5 on that no other \
                 daemon uses",
                file.kernel.protocol
            )));
        }
        if file.kernel.metric == 0 {
            let message = "kernel.metric: 0 is the metric of connected networks, which must win; use at least 1";
            return Err(FileError::Syntax(message.to_owned()));
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "
bgp:
  local_as: 65301
  router_id: 10.1.1.2
  listen: ['0.0.0.0:179', '[::]:179']
  networks:
    - prefix: 10.244.1.0/26
      blackhole: true
      communities: ['65301:1', no-export]
  filters:
    fabric:
      rules:
        - prefixes: [{prefix: 0.0.0.0/0, le: 32}, {prefix: '::/0', le: 128}]
          action: accept
    own:
      rules:
        - source: local
          action: accept
  peers:
    - {name: tor1, address: 10.1.1.1, remote_as: 65201, import: fabric, export: own}
    - {address: 'fd00:1::1', remote_as: 65201, families: [ipv6], hold_time: 9}
control: /run/margay/bgp.sock
";

    #[test]
    fn a_file_says_everything_a_speaker_needs() {
        let file = File::parse(SOUND).unwrap();
        assert_eq!(file.bgp.peers.len(), 2);
        assert_eq!(file.bgp.peers[1].hold_time, Some(9));
        assert_eq!(file.bgp.networks[0].communities[0].to_string(), "65301:1");
        assert_eq!(file.kernel, KernelConfig::default());
    }

    #[test]
    fn faults_name_the_field() {
        let cases = [
            (
                SOUND.replace("remote_as: 65201, import", "remote_az: 1, import"),
                "remote_az",
            ),
            (SOUND.replace("local_as: 65301", "local_as: many"), "many"),
            (
                SOUND.replace("10.244.1.0/26", "10.244.1.3/26"),
                "networks[0].prefix: 10.244.1.3/26 has host bits",
            ),
            (
                SOUND.replace("export: own", "export: none"),
                "peers[0].export: there is no filter \"none\"",
            ),
            (
                format!("{SOUND}kernel: {{protocol: 2}}\n"),
                "kernel.protocol: 2 belongs to the kernel",
            ),
        ];
        for (text, expected) in cases {
            let message = File::parse(&text).unwrap_err().to_string();
            assert!(message.contains(expected), "expected \"{expected}\" in: {message}");
        }
    }
}
