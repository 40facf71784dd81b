//! Where a cluster keeps what outlives a node's power: on a disk, since containerd's layers can lie on nothing else.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A cluster's folder.
#[derive(Debug, Clone)]
pub struct Place {
    dir: PathBuf,
}

impl Place {
    /// The folder of the cluster on the lab in `lab_dir`, whether there is one or not. Labs of one name in several
    /// labs' directories have folders of their own.
    pub fn of(lab_dir: &Path) -> Place {
        let cache = std::env::var_os("MARGAY_CACHE").map(PathBuf::from).unwrap_or_else(|| {
            let home = std::env::var_os("HOME").unwrap_or_else(|| "/root".into());
            Path::new(&home).join(".cache/margay")
        });
        let mut hasher = DefaultHasher::new();
        lab_dir.hash(&mut hasher);
        let name = lab_dir.file_name().unwrap_or_default().to_string_lossy();
        Place {
            dir: cache
                .join("kube/labs")
                .join(format!("{name}-{:08x}", hasher.finish() as u32)),
        }
    }

    /// The folder itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the cluster consists of, written when it was brought up.
    pub fn spec_file(&self) -> PathBuf {
        self.dir.join("spec.json")
    }

    /// For kubectl on the host.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// The folder of one node.
    pub fn node(&self, name: &str) -> NodePlace {
        NodePlace {
            dir: self.dir.join("nodes").join(name),
        }
    }

    /// The folders of all nodes that have one.
    pub fn nodes(&self) -> Vec<NodePlace> {
        let entries = fs::read_dir(self.dir.join("nodes")).into_iter().flatten().flatten();
        entries.map(|entry| NodePlace { dir: entry.path() }).collect()
    }
}

/// The folder of one node.
#[derive(Debug, Clone)]
pub struct NodePlace {
    /// Absolute path.
    pub dir: PathBuf,
}

impl NodePlace {
    /// A name that no other node has, of this cluster or another.
    pub fn unique_name(&self) -> String {
        let cluster = self.dir.ancestors().nth(2).unwrap_or(Path::new("/"));
        let [cluster, node] = [cluster, &self.dir].map(|dir| dir.file_name().unwrap_or_default().to_string_lossy());
        format!("margay-lab-{cluster}-{node}")
    }

    /// The node's disk: what it keeps when it is switched off.
    pub fn disk(&self) -> PathBuf {
        self.dir.join("disk")
    }

    /// `path` of the node, on its disk.
    pub fn on_disk(&self, path: &str) -> PathBuf {
        self.disk().join(path.trim_start_matches('/'))
    }

    /// Where the node's root is made; empty for everyone but the node.
    pub fn scratch(&self) -> PathBuf {
        self.dir.join("scratch")
    }

    /// What its first process is told.
    pub fn machine_file(&self) -> PathBuf {
        self.dir.join("machine.json")
    }

    /// Its first process, while it is on.
    pub fn process_file(&self) -> PathBuf {
        self.dir.join("process.json")
    }

    /// Control groups made for it.
    pub fn cgroups_file(&self) -> PathBuf {
        self.dir.join("cgroups")
    }

    /// How its network was before it was first switched on.
    pub fn network_file(&self) -> PathBuf {
        self.dir.join("network.json")
    }

    /// What its first process has to say.
    pub fn console(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    /// The log of one of its services.
    pub fn log(&self, unit: &str) -> PathBuf {
        self.on_disk("/var/log").join(format!("{unit}.log"))
    }

    /// Writes `text` to `path` of the node's disk; only root may read it.
    ///
    /// # Errors
    /// When that fails.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.on_disk(path);
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
            let mut options = fs::OpenOptions::new();
            options.create(true).truncate(true).write(true).mode(0o600);
            std::io::Write::write_all(&mut options.open(&path)?, text.as_bytes())
        };
        write().with_context(|| format!("writing {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_of_one_name_share_nothing() {
        let [one, other] = ["/run/margay-lab/kube", "/tmp/labs/kube"].map(|dir| Place::of(Path::new(dir)));
        assert_ne!(one.dir(), other.dir());
        let names = [&one, &other].map(|place| place.node("node1").unique_name());
        assert_ne!(names[0], names[1]);
        assert_ne!(names[0], one.node("node2").unique_name());
        assert!(names[0].starts_with("margay-lab-kube-"), "{}", names[0]);
    }
}
