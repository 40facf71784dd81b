//! Backups of etcd, by etcd's own tools on the control plane's node, as an operator makes and restores them.

use anyhow::{Result, bail};

use crate::cluster::Cluster;

/// Where etcd keeps its data, on its node.
const DATA: &str = "/var/lib/etcd";

impl Cluster {
    /// Saves what etcd holds in `file` of the control plane's node.
    ///
    /// # Errors
    /// With etcdctl's words.
    pub fn backup(&self, file: &str) -> Result<()> {
        self.on_control_plane(&["etcdctl", "snapshot", "save", file])
    }

    /// Puts back what `backup` saved: stops API server and etcd, replaces etcd's data, starts them. Revisions fall to
    /// those of the backup.
    ///
    /// # Errors
    /// With etcdutl's words; the two are started in any case.
    pub fn restore(&self, file: &str) -> Result<()> {
        let machine = self.machine(&self.spec().control_plane().name)?;
        machine.stop_unit("kube-apiserver")?;
        machine.stop_unit("etcd")?;
        let fresh = format!("{DATA}.restored");
        let restored = self
            .on_control_plane(&["rm", "-rf", &fresh])
            .and_then(|()| {
                // The names must be those that etcd is started with.
                self.on_control_plane(&[
                    "etcdutl",
                    "snapshot",
                    "restore",
                    file,
                    "--data-dir",
                    &fresh,
                    "--name=default",
                    "--initial-cluster=default=http://127.0.0.1:2380",
                    "--initial-advertise-peer-urls=http://127.0.0.1:2380",
                ])
            })
            .and_then(|()| self.on_control_plane(&["rm", "-rf", DATA]))
            .and_then(|()| self.on_control_plane(&["mv", &fresh, DATA]));
        machine.start_unit("etcd")?;
        machine.start_unit("kube-apiserver")?;
        restored?;
        self.await_api()
    }

    fn on_control_plane(&self, argv: &[&str]) -> Result<()> {
        let out = self.machine(&self.spec().control_plane().name)?.exec(argv)?;
        if !out.status.success() {
            bail!("`{}`: {}", argv.join(" "), String::from_utf8_lossy(&out.stderr).trim());
        }
        Ok(())
    }
}
