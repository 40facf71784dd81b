//! Kubeconfig files: clients from them, and copies that reach the same server from inside the lab.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

/// Name of the extension by which a lab's own kubeconfig is known, wherever it lies.
const MARK: &str = "margay.io/lab";

/// The text of a kubeconfig as that of the lab called `name`.
pub(super) fn marked(text: &str, name: &str) -> String {
    format!(
        "{text}extensions:\n- name: {MARK}\n  extension: {}\n",
        json!({"name": name})
    )
}

/// Whether the file is a lab's own kubeconfig.
pub(super) fn is_marked(path: &Path) -> bool {
    let extensions = read(path)
        .map(|config| config["extensions"].clone())
        .unwrap_or_default();
    let mut names = extensions.as_array().into_iter().flatten().map(|e| &e["name"]);
    names.any(|name| name == MARK)
}

/// A client of the server that the file names.
pub(crate) async fn client(path: &Path) -> Result<Client> {
    // A second caller finds the provider installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let file = Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("using {}", path.display()))?;
    Client::try_from(config).context("making a client")
}

/// Where the current context's server is: host and port.
pub(super) fn server(config: &Value) -> Result<(String, u16)> {
    let url = cluster(config)?["cluster"]["server"]
        .as_str()
        .context("the kubeconfig's cluster has no server")?;
    let Some(rest) = url.strip_prefix("https://") else {
        bail!("the server {url} must be an https URL")
    };
    let authority = rest.split('/').next().unwrap_or(rest);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            (host, port.parse().with_context(|| format!("the port of {url}"))?)
        }
        _ => (authority, 443),
    };
    Ok((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
}

/// Reads a kubeconfig.
pub(super) fn read(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_saphyr::from_str_with_options(&text, margay_clab::yaml::options())
        .with_context(|| format!("reading {}", path.display()))
}

/// The same credentials for the same server, reached at `url`: its certificate is still checked for its own name, and
/// files become part of the text.
pub(super) fn redirected(config: &Value, path: &Path, url: &str) -> Result<Value> {
    let (host, _) = server(config)?;
    let cluster = cluster(config)?.clone();
    let context = current_context(config)?.clone();
    let user = named(config, "users", context["context"]["user"].as_str().unwrap_or_default())?.clone();
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut out = json!({
        "apiVersion": "v1", "kind": "Config", "clusters": [cluster], "users": [user], "contexts": [context],
        "current-context": config["current-context"],
    });
    let own = &mut out["clusters"][0]["cluster"];
    own["server"] = json!(url);
    if own["tls-server-name"].is_null() {
        own["tls-server-name"] = json!(host);
    }
    embed(own, dir, &["certificate-authority"])?;
    embed(&mut out["users"][0]["user"], dir, &["client-certificate", "client-key"])?;
    Ok(out)
}

fn embed(section: &mut Value, dir: &Path, keys: &[&str]) -> Result<()> {
    for key in keys {
        if let Some(file) = section[*key].as_str().map(|f| dir.join(f)) {
            let data = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            section[format!("{key}-data")] = json!(STANDARD.encode(data));
            if let Some(fields) = section.as_object_mut() {
                fields.remove(*key);
            }
        }
    }
    Ok(())
}

fn current_context(config: &Value) -> Result<&Value> {
    named(
        config,
        "contexts",
        config["current-context"].as_str().unwrap_or_default(),
    )
}

fn cluster(config: &Value) -> Result<&Value> {
    named(
        config,
        "clusters",
        current_context(config)?["context"]["cluster"]
            .as_str()
            .unwrap_or_default(),
    )
}

fn named<'a>(config: &'a Value, section: &str, name: &str) -> Result<&'a Value> {
    let all = config[section].as_array();
    all.into_iter()
        .flatten()
        .find(|entry| entry["name"] == name)
        .with_context(|| format!("the kubeconfig has no {name:?} among its {section}; set a current context"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_labs_own_kubeconfig_is_known_wherever_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let text = "apiVersion: v1\nkind: Config\nclusters: []\n";
        fs::write(&path, text).unwrap();
        assert!(!is_marked(&path));
        fs::write(&path, marked(text, "two-racks")).unwrap();
        assert!(is_marked(&path));
        Kubeconfig::read_from(&path).expect("kubectl's and kube's readers take it");
        assert!(!is_marked(&dir.path().join("none")));
    }

    #[test]
    fn a_redirected_kubeconfig_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(dir.path().join("ca.crt"), "CA").unwrap();
        fs::write(
            &path,
            "apiVersion: v1\nkind: Config\ncurrent-context: b\n\
             clusters:\n- {name: x, cluster: {server: 'https://x'}}\n\
             - {name: y, cluster: {server: 'https://k8s.example:6443', certificate-authority: ca.crt}}\n\
             users:\n- {name: u, user: {token: t}}\n\
             contexts:\n- {name: a, context: {cluster: x, user: u}}\n- {name: b, context: {cluster: y, user: u}}\n",
        )
        .unwrap();
        let config = read(&path).unwrap();
        assert_eq!(server(&config).unwrap(), ("k8s.example".to_owned(), 6443));
        let own = redirected(&config, &path, "https://172.20.20.1:6443").unwrap();
        assert_eq!(
            own["clusters"],
            json!([{"name": "y", "cluster": {
                "server": "https://172.20.20.1:6443", "tls-server-name": "k8s.example",
                "certificate-authority-data": "Q0E="}}])
        );
        assert_eq!(own["users"][0]["user"]["token"], "t");
        let bracketed = json!({"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k"}}],
            "clusters": [{"name": "k", "cluster": {"server": "https://[::1]:7/x"}}]});
        assert_eq!(server(&bracketed).unwrap(), ("::1".to_owned(), 7));
    }
}
