//! The container runtime's side of CNI 1.1: configuration lists, and plugins run as the specification says.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A plugin that has not answered by then is killed.
const PLUGIN_LIMIT: Duration = Duration::from_secs(60);

/// Where configuration and plugins are.
#[derive(Debug, Clone)]
pub struct Dirs {
    /// Configuration lists (/etc/cni/net.d).
    pub conf: PathBuf,
    /// Plugins (/opt/cni/bin).
    pub bin: PathBuf,
}

/// Why a plugin did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// There is nothing to configure pods with.
    #[error("no CNI configuration in {}: the network is not installed on this node", .0.display())]
    NoConfig(PathBuf),
    /// A configuration file is unusable.
    #[error("CNI configuration {}: {why}", file.display())]
    BadConfig {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A plugin could not be run.
    #[error("CNI plugin {plugin}: {why}")]
    Run {
        /// Its type.
        plugin: String,
        /// What went wrong.
        why: String,
    },
    /// A plugin answered with an error (CNI spec, section 5).
    #[error("CNI plugin {plugin} failed with code {code}: {message}")]
    Plugin {
        /// Its type.
        plugin: String,
        /// CNI error code; 11 means try again.
        code: u64,
        /// Message and details.
        message: String,
    },
}

/// What an invocation is about.
#[derive(Debug, Clone)]
pub(crate) struct Attachment {
    pub(crate) id: String,
    pub(crate) netns: PathBuf,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// The configuration list that comes first by file name.
pub(crate) fn first_config(dirs: &Dirs) -> Result<Value, CniError> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dirs.conf)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter(|p| {
            p.extension()
                .is_some_and(|e| e == "conflist" || e == "conf" || e == "json")
        })
        .collect();
    files.sort();
    let file = files
        .into_iter()
        .next()
        .ok_or_else(|| CniError::NoConfig(dirs.conf.clone()))?;
    let bad = |why: String| CniError::BadConfig {
        file: file.clone(),
        why,
    };
    let text = std::fs::read(&file).map_err(|e| bad(e.to_string()))?;
    let config: Value = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
    let config = match config.get("plugins") {
        Some(_) => config,
        None => json!({"cniVersion": config["cniVersion"], "name": config["name"], "plugins": [config]}),
    };
    let whole = config["name"].is_string()
        && config["plugins"]
            .as_array()
            .is_some_and(|p| !p.is_empty() && p.iter().all(|p| p["type"].is_string()));
    if whole {
        Ok(config)
    } else {
        Err(bad("it needs a name, and plugins with a type each".into()))
    }
}

/// ADD through every plugin of the list; the last one's result.
pub(crate) async fn add(dirs: &Dirs, config: &Value, at: &Attachment) -> Result<Value, CniError> {
    let mut previous = None;
    for plugin in plugins(config) {
        previous = Some(invoke(dirs, "ADD", config, plugin, previous.as_ref(), at).await?);
    }
    Ok(previous.unwrap_or(Value::Null))
}

/// DEL through every plugin in reverse order.
pub(crate) async fn del(dirs: &Dirs, config: &Value, result: Option<&Value>, at: &Attachment) -> Result<(), CniError> {
    for plugin in plugins(config).rev() {
        invoke(dirs, "DEL", config, plugin, result, at).await?;
    }
    Ok(())
}

/// CHECK through every plugin of the list, unless its version knows none or it says not to. `result` is that of the ADD.
pub(crate) async fn check(dirs: &Dirs, config: &Value, result: &Value, at: &Attachment) -> Result<(), CniError> {
    if !is_checked(config) {
        return Ok(());
    }
    for plugin in plugins(config) {
        invoke(dirs, "CHECK", config, plugin, Some(result), at).await?;
    }
    Ok(())
}

/// CHECK came with version 0.4.0 of the specification.
fn is_checked(config: &Value) -> bool {
    let version = config["cniVersion"].as_str().unwrap_or("0.1.0");
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (0, 4) && config["disableCheck"] != true
}

fn plugins(config: &Value) -> impl DoubleEndedIterator<Item = &Value> {
    config["plugins"].as_array().into_iter().flatten()
}

async fn invoke(
    dirs: &Dirs,
    command: &str,
    config: &Value,
    plugin: &Value,
    previous: Option<&Value>,
    at: &Attachment,
) -> Result<Value, CniError> {
    let kind = plugin["type"].as_str().unwrap_or_default().to_owned();
    let failed = |why: String| CniError::Run {
        plugin: kind.clone(),
        why,
    };
    let mut input = plugin.clone();
    input["name"] = config["name"].clone();
    input["cniVersion"] = config["cniVersion"].clone();
    if let Some(previous) = previous {
        input["prevResult"] = previous.clone();
    }
    let args = format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
        at.namespace, at.name, at.id, at.uid
    );
    let program = dirs.bin.join(&kind);
    let mut child = Command::new(&program)
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", &at.id)
        .env("CNI_NETNS", &at.netns)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_ARGS", args)
        .env("CNI_PATH", &dirs.bin)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| failed(format!("{}: {e}", program.display())))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that ends without reading says why on its standard output.
        let _ = stdin.write_all(input.to_string().as_bytes()).await;
    }
    let out = tokio::time::timeout(PLUGIN_LIMIT, child.wait_with_output())
        .await
        .map_err(|_| failed(format!("no answer to {command} within {} s", PLUGIN_LIMIT.as_secs())))?
        .map_err(|e| failed(e.to_string()))?;
    let answer: Option<Value> = serde_json::from_slice(&out.stdout).ok();
    if out.status.success() {
        return Ok(answer.unwrap_or(Value::Null));
    }
    match answer.filter(|a| a["code"].is_u64()) {
        Some(answer) => {
            let [message, details] = ["msg", "details"].map(|k| answer[k].as_str().unwrap_or_default());
            let message = if details.is_empty() {
                message.to_owned()
            } else {
                format!("{message}: {details}")
            };
            Err(CniError::Plugin {
                plugin: kind,
                code: answer["code"].as_u64().unwrap_or_default(),
                message,
            })
        }
        None => {
            let told = String::from_utf8_lossy(&out.stderr);
            Err(failed(format!("{command} ended with {}: {}", out.status, told.trim())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs(plugin: &str) -> (tempfile::TempDir, Dirs) {
        let dir = tempfile::tempdir().unwrap();
        let dirs = Dirs {
            conf: dir.path().join("net.d"),
            bin: dir.path().join("bin"),
        };
        for d in [&dirs.conf, &dirs.bin] {
            std::fs::create_dir(d).unwrap();
        }
        write_plugin(&dirs, plugin);
        (dir, dirs)
    }

    /// A process of its own writes the file: what another test's thread forks meanwhile would hold it open for writing,
    /// and such a file cannot be run.
    fn write_plugin(dirs: &Dirs, text: &str) {
        let write = r#"printf %s "$1" >"$2" && chmod 755 "$2""#;
        let mut command = std::process::Command::new("sh");
        command.args(["-c", write, "sh", text]).arg(dirs.bin.join("fake"));
        assert!(command.status().unwrap().success());
    }

    fn attachment() -> Attachment {
        Attachment {
            id: "c1".into(),
            netns: "/run/netns/x".into(),
            namespace: "shop".into(),
            name: "web".into(),
            uid: "u1".into(),
        }
    }

    #[tokio::test]
    async fn results_chain_and_errors_keep_their_code() {
        let (_keep, dirs) = dirs(
            "#!/bin/sh\ncat >>\"$CNI_PATH/in\"\necho \"$CNI_COMMAND $CNI_ARGS\" >>\"$CNI_PATH/env\"\necho '{\"ips\":[]}'\n",
        );
        std::fs::write(
            dirs.conf.join("10-x.conflist"),
            r#"{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"fake","a":1},{"type":"fake","b":2}]}"#,
        )
        .unwrap();
        std::fs::write(dirs.conf.join("99-later.conflist"), "{").unwrap();
        let config = first_config(&dirs).unwrap();
        let result = add(&dirs, &config, &attachment()).await.unwrap();
        assert_eq!(result, json!({"ips": []}));
        let seen = std::fs::read_to_string(dirs.bin.join("in")).unwrap();
        let seen: Vec<serde_json::Value> = serde_json::Deserializer::from_str(&seen)
            .into_iter()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(
            seen,
            [
                json!({"a": 1, "cniVersion": "1.1.0", "name": "net", "type": "fake"}),
                json!({"b": 2, "cniVersion": "1.1.0", "name": "net", "prevResult": {"ips": []}, "type": "fake"}),
            ]
        );
        let env = std::fs::read_to_string(dirs.bin.join("env")).unwrap();
        let want =
            "ADD IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u1";
        assert_eq!(env.lines().next().unwrap(), want);
        write_plugin(
            &dirs,
            "#!/bin/sh\necho '{\"code\":11,\"msg\":\"later\",\"details\":\"agent\"}'; exit 1\n",
        );
        let error = add(&dirs, &config, &attachment()).await.unwrap_err();
        assert_eq!(error.to_string(), "CNI plugin fake failed with code 11: later: agent");
    }

    #[rstest::rstest]
    #[case(json!({"cniVersion": "1.1.0"}), true)]
    #[case(json!({"cniVersion": "0.4.0"}), true)]
    #[case(json!({"cniVersion": "0.3.1"}), false)]
    #[case(json!({}), false)]
    #[case(json!({"cniVersion": "1.0.0", "disableCheck": true}), false)]
    fn check_is_asked_where_it_is_known(#[case] config: Value, #[case] want: bool) {
        assert_eq!(is_checked(&config), want);
    }

    #[tokio::test]
    async fn a_check_is_given_the_adds_result_and_its_failure_counts() {
        let (_keep, dirs) = dirs(
            "#!/bin/sh\ncat >\"$CNI_PATH/in\"\n[ $CNI_COMMAND = CHECK ] || exit 0\necho '{\"code\":100,\"msg\":\"gone\"}'; exit 1\n",
        );
        let config = json!({"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "fake"}]});
        let error = check(&dirs, &config, &json!({"ips": [1]}), &attachment())
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "CNI plugin fake failed with code 100: gone");
        let seen: Value = serde_json::from_str(&std::fs::read_to_string(dirs.bin.join("in")).unwrap()).unwrap();
        assert_eq!(seen["prevResult"], json!({"ips": [1]}));
        let unchecked = json!({"cniVersion": "0.3.1", "name": "net", "plugins": [{"type": "fake"}]});
        check(&dirs, &unchecked, &Value::Null, &attachment()).await.unwrap();
    }

    #[test]
    fn without_configuration_pods_wait() {
        let (_keep, dirs) = dirs("");
        assert!(matches!(first_config(&dirs), Err(CniError::NoConfig(_))));
        std::fs::write(dirs.conf.join("10-x.conf"), r#"{"name":"n","type":"fake"}"#).unwrap();
        assert_eq!(first_config(&dirs).unwrap()["plugins"][0]["type"], "fake");
        std::fs::write(dirs.conf.join("05-bad.conflist"), "{}").unwrap();
        assert!(first_config(&dirs).unwrap_err().to_string().contains("05-bad.conflist"));
    }
}
