//! Puts the CNI plugin and its configuration where the container runtime looks for them.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::cni_server::is_label_sequence;
use crate::persist::replace_file;

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
    /// Version of the CNI specification to write; `None` for the highest that the plugin and all chained ones have.
    pub cni_version: Option<String>,
    /// The agent's socket as the plugin will see it.
    pub socket: PathBuf,
    /// The agent's state directory as the plugin will see it.
    pub state_dir: PathBuf,
    /// Further plugins to chain, by name; they must be in `bin_dir`.
    pub chain: Vec<String>,
}

/// Versions of the CNI specification that the plugin serves, the highest first.
const VERSIONS: [&str; 4] = ["1.1.0", "1.0.0", "0.4.0", "0.3.1"];

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
    let version = version(what)?;
    for dir in [&what.bin_dir, &what.conf_dir] {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let target = what.bin_dir.join("margay");
    // A running plugin keeps its inode; an equal file is left alone so that nothing is written without need.
    if std::fs::read(&target).ok().as_deref() != Some(&plugin) || !executable(&target) {
        replace_file(&target, &plugin, 0o755).with_context(|| format!("cannot install {}", target.display()))?;
    }
    let conflist = serde_json::to_vec_pretty(&conflist(what, &version)).context("cannot encode the configuration")?;
    let path = what.conf_dir.join(&what.conf_name);
    replace_file(&path, &conflist, 0o644).with_context(|| format!("cannot install {}", path.display()))?;
    tracing::info!(plugin = %target.display(), configuration = %path.display(), cni_version = %version, "CNI installed");
    Ok(())
}

fn version(what: &Install) -> anyhow::Result<String> {
    if let Some(wanted) = &what.cni_version {
        if !VERSIONS.contains(&wanted.as_str()) {
            bail!(
                "--cni-version {wanted} is not served; there are {}",
                VERSIONS.join(", ")
            );
        }
        return Ok(wanted.clone());
    }
    let mut common: Vec<&str> = VERSIONS.to_vec();
    for name in &what.chain {
        let served = served_by(&what.bin_dir.join(name))
            .with_context(|| format!("chained plugin {name} does not say which CNI versions it serves"))?;
        common.retain(|version| served.iter().any(|other| other == version));
    }
    match common.first() {
        Some(version) => Ok((*version).to_owned()),
        None => bail!(
            "no CNI version is served by margay and all of {}",
            what.chain.join(", ")
        ),
    }
}

/// Asks a plugin by the specification's VERSION.
fn served_by(plugin: &Path) -> anyhow::Result<Vec<String>> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut child = Command::new(plugin)
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", plugin.display()))?;
    if let Some(mut input) = child.stdin.take() {
        // A plugin that does not read its input is fine.
        let _ = input.write_all(br#"{"cniVersion":"1.0.0"}"#);
    }
    let output = child.wait_with_output()?;
    let answer: Value = serde_json::from_slice(&output.stdout).map_err(io::Error::other)?;
    let versions = answer["supportedVersions"]
        .as_array()
        .context("no supportedVersions in its answer")?;
    Ok(versions
        .iter()
        .filter_map(|version| version.as_str().map(str::to_owned))
        .collect())
}

fn conflist(what: &Install, version: &str) -> Value {
    let mut plugins =
        vec![json!({ "type": "margay", "socket": what.socket, "stateDir": what.state_dir.join("cni-dels") })];
    plugins.extend(what.chain.iter().map(|name| match name.as_str() {
        "portmap" => json!({ "type": "portmap", "snat": true, "capabilities": { "portMappings": true } }),
        "bandwidth" => json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } }),
        other => json!({ "type": other }),
    }));
    json!({ "cniVersion": version, "name": what.network, "plugins": plugins })
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
            json!({"cniVersion": "1.1.0", "name": "k8s-pod-network",
            "plugins": [
                {"type": "margay", "socket": "/run/margay/cni.sock", "stateDir": "/srv/margay/cni-dels"}
            ]})
        );
        assert_eq!(std::fs::read_dir(dir.path().join("bin")).unwrap().count(), 1);
        assert_eq!(std::fs::read_dir(dir.path().join("net.d")).unwrap().count(), 1);
    }

    #[test]
    fn a_chained_plugin_that_knows_less_lowers_the_version() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let script = "#!/bin/sh\necho '{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"0.4.0\",\"1.0.0\"]}'\n";
        std::fs::write(bin.join("portmap"), script).unwrap();
        std::fs::set_permissions(bin.join("portmap"), std::fs::Permissions::from_mode(0o755)).unwrap();
        install(&Install {
            chain: vec!["portmap".into()],
            ..setup(dir.path())
        })
        .unwrap();
        let conflist = installed(dir.path());
        assert_eq!(conflist["cniVersion"], "1.0.0");
        assert_eq!(conflist["plugins"][1]["capabilities"]["portMappings"], true);
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
