//! Puts the CNI plugin and its configuration where the container runtime looks for them.

mod versions;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::cni_server::is_label_sequence;
use crate::persist::replace_file;

use versions::{Versions, decide, served_by};

/// What to install, and where.
#[derive(Debug, Clone)]
pub struct Install {
    /// The plugin's binary.
    pub plugin: PathBuf,
    /// The runtime's folder of plugins: `/opt/cni/bin`.
    pub bin_dir: PathBuf,
    /// The runtime's folder of configurations: `/etc/cni/net.d`.
    pub conf_dir: PathBuf,
    /// Name of the configuration file; the runtime takes the first by name.
    pub conf_name: String,
    /// Name of the network.
    pub network: String,
    /// The one version of the CNI specification to write; `None` for 1.0.0, and an offer of later ones to runtimes that
    /// can choose.
    pub cni_version: Option<String>,
    /// The agent's socket as the plugin will see it.
    pub socket: PathBuf,
    /// The agent's state directory as the plugin will see it.
    pub state_dir: PathBuf,
    /// Chain `portmap` where it is in `bin_dir`.
    pub portmap: bool,
    /// Further plugins to chain, by name; they must be in `bin_dir`.
    pub chain: Vec<String>,
}

/// Name of the plugin among the runtime's.
pub(crate) const PLUGIN: &str = "margay";

/// Name of the configuration where none is asked for.
pub const DEFAULT_CONF_NAME: &str = "10-margay.conflist";

/// The plugin behind `hostPort`.
const PORTMAP: &str = "portmap";

/// Installs: the binary first, then the configuration, each in one step, so that a runtime never sees one that cannot
/// work. Running it again is fine.
pub fn install(what: &Install) -> anyhow::Result<()> {
    if what.conf_name.contains('/') || !what.conf_name.ends_with(".conflist") {
        bail!(
            "--conf-name {:?} must be a file name ending in .conflist",
            what.conf_name
        );
    }
    if !is_label_sequence(&what.network) {
        bail!(
            "--network {:?} would be part of objects' names: use letters and digits, with '-' and '.' only between them",
            what.network
        );
    }
    let plugin = std::fs::read(&what.plugin)
        .with_context(|| format!("cannot read the plugin {}; give --plugin FILE", what.plugin.display()))?;
    let chained = chained(what)?;
    let versions = decide(what.cni_version.as_deref(), &chained)?;
    let path = what.conf_dir.join(&what.conf_name);
    refuse_foreign(&path)?;
    for dir in [&what.bin_dir, &what.conf_dir] {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let target = what.bin_dir.join(PLUGIN);
    // A running plugin keeps its inode; an equal file is left alone so that nothing is written without need.
    if std::fs::read(&target).ok().as_deref() != Some(&plugin) || !executable(&target) {
        replace_file(&target, &plugin, 0o755).with_context(|| format!("cannot install {}", target.display()))?;
    }
    let conflist =
        serde_json::to_vec_pretty(&conflist(what, &versions, &chained)).context("cannot encode the configuration")?;
    replace_file(&path, &conflist, 0o644).with_context(|| format!("cannot install {}", path.display()))?;
    tracing::info!(plugin = %target.display(), configuration = %path.display(), cni_version = versions.version, "CNI installed");
    Ok(())
}

/// The plugins that follow ours, with the versions that they serve.
fn chained(what: &Install) -> anyhow::Result<Vec<(String, Vec<String>)>> {
    let mut chained = Vec::new();
    if what.portmap && !what.chain.iter().any(|name| name == PORTMAP) && what.bin_dir.join(PORTMAP).exists() {
        match served_by(&what.bin_dir.join(PORTMAP)) {
            Ok(served) => chained.push((PORTMAP.to_owned(), served)),
            // Nobody asked for it by name: pods without a hostPort must not wait for its repair.
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "portmap is there and does not run: hostPort will not work"
            ),
        }
    }
    for name in &what.chain {
        let served = served_by(&what.bin_dir.join(name))
            .with_context(|| format!("chained plugin {name} does not say which CNI versions it serves"))?;
        chained.push((name.clone(), served));
    }
    Ok(chained)
}

/// Another network's configuration of the same name stays: whoever wrote it may still need it.
fn refuse_foreign(path: &Path) -> anyhow::Result<()> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    if !is_ours(&bytes) && !bytes.is_empty() {
        bail!(
            "{} is there and is not Margay's: remove it, or give another name with --conf-name",
            path.display()
        );
    }
    Ok(())
}

/// Whether a configuration is one that [`install`] wrote.
pub(crate) fn is_ours(conflist: &[u8]) -> bool {
    serde_json::from_slice::<Value>(conflist).is_ok_and(|found| found["plugins"][0]["type"] == PLUGIN)
}

fn conflist(what: &Install, versions: &Versions, chained: &[(String, Vec<String>)]) -> Value {
    let mut plugins =
        vec![json!({ "type": PLUGIN, "socket": what.socket, "stateDir": what.state_dir.join("cni-dels") })];
    plugins.extend(chained.iter().map(|(name, _)| match name.as_str() {
        PORTMAP => json!({ "type": "portmap", "snat": true, "capabilities": { "portMappings": true } }),
        "bandwidth" => json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } }),
        other => json!({ "type": other }),
    }));
    let mut conflist = json!({ "cniVersion": versions.version, "name": what.network, "plugins": plugins });
    if !versions.choice.is_empty() {
        conflist["cniVersions"] = json!(versions.choice);
    }
    conflist
}

fn executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o111 == 0o111)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(dir: &Path) -> Install {
        let plugin = dir.join("margay-cni");
        std::fs::write(&plugin, "binary").unwrap();
        Install {
            plugin,
            bin_dir: dir.join("bin"),
            conf_dir: dir.join("net.d"),
            conf_name: "10-margay.conflist".into(),
            network: "k8s-pod-network".into(),
            cni_version: None,
            socket: "/run/margay/cni.sock".into(),
            state_dir: "/srv/margay".into(),
            portmap: true,
            chain: Vec::new(),
        }
    }

    fn installed(dir: &Path) -> Value {
        serde_json::from_slice(&std::fs::read(dir.join("net.d/10-margay.conflist")).unwrap()).unwrap()
    }

    #[test]
    fn installs_twice_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        install(&setup(dir.path())).unwrap();
        install(&setup(dir.path())).unwrap();
        assert!(executable(&dir.path().join("bin/margay")));
        assert_eq!(
            installed(dir.path()),
            json!({"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "k8s-pod-network",
            "plugins": [
                {"type": "margay", "socket": "/run/margay/cni.sock", "stateDir": "/srv/margay/cni-dels"}
            ]})
        );
        assert_eq!(std::fs::read_dir(dir.path().join("bin")).unwrap().count(), 1);
        assert_eq!(std::fs::read_dir(dir.path().join("net.d")).unwrap().count(), 1);
    }

    fn plugin(dir: &Path, name: &str, versions: &str) {
        let bin = dir.join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        let script = format!("#!/bin/sh\necho '{{\"cniVersion\":\"1.0.0\",\"supportedVersions\":{versions}}}'\n");
        std::fs::write(bin.join(name), script).unwrap();
        std::fs::set_permissions(bin.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn portmap_is_chained_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        plugin(dir.path(), "portmap", r#"["0.4.0","1.0.0"]"#);
        install(&setup(dir.path())).unwrap();
        let conflist = installed(dir.path());
        assert_eq!(conflist["cniVersion"], "1.0.0");
        assert_eq!(conflist["cniVersions"], Value::Null, "portmap does not serve 1.1.0");
        assert_eq!(
            conflist["plugins"][1],
            json!({"type": "portmap", "snat": true, "capabilities": {"portMappings": true}})
        );
        install(&Install {
            portmap: false,
            ..setup(dir.path())
        })
        .unwrap();
        assert_eq!(installed(dir.path())["plugins"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn a_portmap_that_does_not_run_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("bin")).unwrap();
        std::fs::write(dir.path().join("bin/portmap"), "of another machine").unwrap();
        install(&setup(dir.path())).unwrap();
        assert_eq!(installed(dir.path())["plugins"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn bandwidth_is_chained_when_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        plugin(dir.path(), "portmap", r#"["1.0.0","1.1.0"]"#);
        plugin(dir.path(), "bandwidth", r#"["1.0.0","1.1.0"]"#);
        install(&Install {
            chain: vec!["bandwidth".into()],
            ..setup(dir.path())
        })
        .unwrap();
        let conflist = installed(dir.path());
        assert_eq!(conflist["plugins"][1]["type"], "portmap");
        assert_eq!(conflist["plugins"][2]["capabilities"]["bandwidth"], true);
        assert_eq!(conflist["cniVersions"], json!(["1.0.0", "1.1.0"]));
    }

    #[test]
    fn a_configuration_of_another_network_stays() {
        let dir = tempfile::tempdir().unwrap();
        let theirs = r#"{"cniVersion":"0.3.1","name":"theirs","plugins":[{"type":"calico"}]}"#;
        let path = dir.path().join("net.d/10-margay.conflist");
        std::fs::create_dir(dir.path().join("net.d")).unwrap();
        std::fs::write(&path, theirs).unwrap();
        let error = install(&setup(dir.path())).unwrap_err().to_string();
        assert!(error.contains("is not Margay's"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), theirs);
        assert!(!dir.path().join("bin").exists());
    }

    #[test]
    fn bad_input_installs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for broken in [
            Install {
                conf_name: "../x.conflist".into(),
                ..setup(dir.path())
            },
            Install {
                cni_version: Some("9.9.9".into()),
                ..setup(dir.path())
            },
            Install {
                plugin: dir.path().join("absent"),
                ..setup(dir.path())
            },
            Install {
                network: "pod_network".into(),
                ..setup(dir.path())
            },
            Install {
                chain: vec!["absent".into()],
                ..setup(dir.path())
            },
        ] {
            let error = format!("{:#}", install(&broken).unwrap_err());
            assert!(!error.is_empty());
            assert!(!dir.path().join("net.d").exists(), "{error}");
        }
    }
}
