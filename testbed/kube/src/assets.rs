//! The pieces that `make kube` built: programs, images, and a containerd store with the images unpacked.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A folder of pieces.
#[derive(Debug, Clone)]
pub struct Assets {
    dir: PathBuf,
}

impl Assets {
    /// The pieces in `$MARGAY_KUBE_ASSETS`, else those built from this checkout's sources.
    ///
    /// # Errors
    /// When they are not built; the error says how to.
    pub fn find() -> Result<Assets> {
        if let Some(dir) = std::env::var_os("MARGAY_KUBE_ASSETS").filter(|dir| !dir.is_empty()) {
            let dir = PathBuf::from(dir);
            if !dir.join("bin/hyperkube").is_file() {
                bail!(
                    "MARGAY_KUBE_ASSETS={}: there is no bin/hyperkube in it; unset it to use what `make kube` builds",
                    dir.display()
                );
            }
            return Ok(Assets {
                dir: dir.canonicalize()?,
            });
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/kube");
        let out = Command::new(&script)
            .arg("path")
            .output()
            .with_context(|| format!("running {}", script.display()))?;
        if !out.status.success() {
            let told = String::from_utf8_lossy(&out.stderr);
            bail!("{}", told.trim().trim_start_matches("scripts/kube: "));
        }
        Ok(Assets {
            dir: PathBuf::from(String::from_utf8_lossy(&out.stdout).trim()),
        })
    }

    /// Folder of the programs.
    pub fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// The program called `name`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin().join(name)
    }

    /// A manifest of an add-on's own, called `name`.
    pub fn manifest(&self, name: &str) -> PathBuf {
        self.dir.join("manifests").join(name)
    }

    /// A containerd root directory with every image unpacked.
    pub fn containerd(&self) -> PathBuf {
        self.dir.join("containerd")
    }

    /// Names of the images in it.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn images(&self) -> Result<Vec<String>> {
        let path = self.dir.join("images/names");
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}
