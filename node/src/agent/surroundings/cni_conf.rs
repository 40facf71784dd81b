//! Which CNI configuration the container runtime takes: the first by name, whosever it is.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::super::findings::{Finding, Findings};
use crate::persist::aside;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(10);

/// Type of our plugin.
const PLUGIN: &str = "margay";

/// Looks from time to time, for ever.
pub(super) async fn watch(dir: PathBuf, findings: Findings) {
    loop {
        let folder = dir.clone();
        let files = aside(move || read(&folder)).await;
        findings.set("cni configuration", finding(&dir, files));
        tokio::time::sleep(INTERVAL).await;
    }
}

/// A file of the folder: its name, and what it says or why that is not known.
type File = (String, Result<String, String>);

/// The files that a runtime looks at, in its order.
fn read(dir: &Path) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if [".conf", ".conflist", ".json"].iter().any(|end| name.ends_with(end)) {
            let text = std::fs::read_to_string(dir.join(&name)).map_err(|error| error.to_string());
            files.push((name, text));
        }
    }
    files.sort();
    Ok(files)
}

fn finding(dir: &Path, files: io::Result<Vec<File>>) -> Option<Finding> {
    let dir = dir.display();
    let missing = |why: String| {
        Some(Finding {
            reason: "CNIConfigurationMissing",
            message: format!(
                "{why}: the runtime does not attach pods to Margay; run `margay-node install-cni` on the node, as the \
                 DaemonSet's init container does"
            ),
        })
    };
    let files = match files {
        Ok(files) => files,
        Err(error) => return missing(format!("{dir} cannot be read ({error})")),
    };
    let files: Vec<_> = files.iter().map(|(name, text)| (name, plugins(text))).collect();
    let is_ours = |plugins: &Result<Vec<String>, String>| {
        let plugins = plugins.as_deref().unwrap_or_default();
        plugins.iter().any(|plugin| plugin == PLUGIN)
    };
    let Some((ours, _)) = files.iter().find(|(_, plugins)| is_ours(plugins)) else {
        return missing(format!("{dir} has no configuration of plugin {PLUGIN}"));
    };
    let (first, theirs) = files.first().filter(|(name, _)| name != ours)?;
    let what = match theirs {
        Ok(plugins) => format!(
            "the runtime takes {dir}/{first} (of {}) before {ours}: new pods are not attached to Margay",
            plugins.join(", ")
        ),
        Err(why) => format!(
            "{dir}/{first} stands before {ours} and cannot be read ({why}): the runtime may take no configuration at all"
        ),
    };
    Some(Finding {
        reason: "OtherCNIFirst",
        message: format!("{what}; remove that file and what put it there, then restart the pods that it attached"),
    })
}

/// Types of the plugins that a configuration names.
fn plugins(text: &Result<String, String>) -> Result<Vec<String>, String> {
    let text = text.as_ref().map_err(Clone::clone)?;
    let conf: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let plugin = |conf: &Value| conf["type"].as_str().map(str::to_owned);
    let plugins: Vec<_> = match conf["plugins"].as_array() {
        Some(list) => list.iter().filter_map(plugin).collect(),
        None => plugin(&conf).into_iter().collect(),
    };
    if plugins.is_empty() {
        return Err("it names no plugin".to_owned());
    }
    Ok(plugins)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = r#"{"cniVersion": "1.0.0", "name": "k", "plugins": [{"type": "margay"}, {"type": "portmap"}]}"#;

    fn folder(files: &[(&str, &str)]) -> Option<Finding> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        finding(Path::new("/etc/cni/net.d"), read(dir.path()))
    }

    #[test]
    fn ours_alone_or_first_is_fine() {
        let theirs = r#"{"name": "b", "type": "bridge"}"#;
        assert_eq!(folder(&[("10-margay.conflist", OURS)]), None);
        assert_eq!(
            folder(&[("10-margay.conflist", OURS), ("87-podman.conf", theirs)]),
            None
        );
        assert_eq!(
            folder(&[
                ("10-margay.conflist", OURS),
                ("05-old.conflist.bak", theirs),
                ("00-readme", "x")
            ]),
            None,
            "runtimes look at no other endings"
        );
    }

    #[test]
    fn another_that_sorts_before_ours_is_named() {
        let cilium = r#"{"name": "cilium", "plugins": [{"type": "cilium-cni"}]}"#;
        let found = folder(&[("10-margay.conflist", OURS), ("05-cilium.conflist", cilium)]).unwrap();
        assert_eq!(found.reason, "OtherCNIFirst");
        assert!(
            found.message.starts_with(
                "the runtime takes /etc/cni/net.d/05-cilium.conflist (of cilium-cni) before 10-margay.conflist"
            ),
            "{}",
            found.message
        );
        let single = folder(&[("10-margay.conflist", OURS), ("05-b.conf", r#"{"type": "bridge"}"#)]).unwrap();
        assert!(single.message.contains("(of bridge)"), "{}", single.message);
    }

    #[test]
    fn one_that_cannot_be_read_is_named_too() {
        let found = folder(&[("10-margay.conflist", OURS), ("05-half.conflist", "{\"name\": ")]).unwrap();
        assert!(
            found.message.contains("05-half.conflist stands before"),
            "{}",
            found.message
        );
    }

    #[test]
    fn none_of_ours_is_a_fault() {
        let found = folder(&[("05-b.conf", r#"{"type": "bridge"}"#)]).unwrap();
        assert_eq!(found.reason, "CNIConfigurationMissing");
        let nowhere = finding(Path::new("/nonexistent"), read(Path::new("/nonexistent"))).unwrap();
        assert!(
            nowhere.message.contains("/nonexistent cannot be read"),
            "{}",
            nowhere.message
        );
    }
}
