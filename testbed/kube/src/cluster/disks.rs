//! The disks of a cluster's nodes: configuration, certificates, reference plugins, and a containerd that has the images.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::assets::Assets;
use crate::config::{self, PKI};
use crate::pki::{self, Authority, Identity};
use crate::place::NodePlace;
use crate::spec::{Node, Spec};

/// The distribution's CNI plugins.
const REFERENCE_PLUGINS: &str = "/usr/lib/cni";

/// What all disks of a cluster share.
pub(super) struct Disks<'a> {
    spec: &'a Spec,
    assets: &'a Assets,
    authority: Authority,
    /// For people: may do everything.
    admin: Identity,
    pause: String,
}

impl<'a> Disks<'a> {
    pub(super) fn new(spec: &'a Spec, assets: &'a Assets, lab: &str) -> Result<Disks<'a>> {
        let authority = Authority::new(&format!("margay-lab {lab}"))?;
        let images = assets.images()?;
        Ok(Disks {
            admin: authority.issue("kubernetes-admin", "system:masters", &[])?,
            pause: config::pause(&images)
                .context("no pause image among the pieces; `make kube` again")?
                .to_owned(),
            authority,
            spec,
            assets,
        })
    }

    /// A kubeconfig for people that reaches the API server at `server`.
    pub(super) fn admin(&self, server: &str) -> String {
        config::kubeconfig(server, &self.authority.certificate, &self.admin)
    }

    /// Fills the disk of `node`.
    pub(super) fn make(&self, node: &Node, place: &NodePlace) -> Result<()> {
        let api = self.spec.api();
        let kubeconfig = |identity: &Identity| config::kubeconfig(&api, &self.authority.certificate, identity);
        let addresses = node.addresses.iter().map(IpAddr::to_string);
        let hosts: Vec<String> = addresses.chain([node.name.clone()]).collect();
        let kubelet = self
            .authority
            .issue(&format!("system:node:{}", node.name), "system:nodes", &hosts)?;
        let proxy = self.authority.issue("system:kube-proxy", "", &[])?;
        let etc = |file: &str, text: &str| place.write(&format!("/etc/kubernetes/{file}"), text);
        etc("admin.conf", &self.admin(&api))?;
        etc("containerd.toml", &config::containerd(&self.pause))?;
        etc("kubelet.conf", &kubeconfig(&kubelet))?;
        etc("kubelet.yaml", &format!("{:#}", config::kubelet(self.spec, node)))?;
        etc("kube-proxy.conf", &kubeconfig(&proxy))?;
        etc("kube-proxy.yaml", &format!("{:#}", config::proxy(self.spec, node)))?;
        place.write(&format!("{PKI}/ca.crt"), &self.authority.certificate)?;
        identity(place, "kubelet", &kubelet)?;
        if node.control_plane {
            self.control_plane(node, place, kubeconfig)?;
        }
        plugins(place)?;
        store(&self.assets.containerd(), &place.on_disk("/var/lib/containerd"))
    }

    fn control_plane(&self, node: &Node, place: &NodePlace, kubeconfig: impl Fn(&Identity) -> String) -> Result<()> {
        let authority = &self.authority;
        let served = node.addresses.iter().copied().chain(self.spec.kubernetes());
        for (file, name, group, hosts) in [
            ("apiserver", "kube-apiserver", "", pki::api_hosts(served)),
            (
                "apiserver-kubelet-client",
                "kube-apiserver-kubelet-client",
                "system:masters",
                Vec::new(),
            ),
            ("front-proxy-client", "front-proxy-client", "", Vec::new()),
        ] {
            identity(place, file, &authority.issue(name, group, &hosts)?)?;
        }
        place.write(&format!("{PKI}/ca.key"), &authority.key)?;
        let (private, public) = pki::token_keys()?;
        place.write(&format!("{PKI}/sa.key"), &private)?;
        place.write(&format!("{PKI}/sa.pub"), &public)?;
        for component in ["controller-manager", "scheduler"] {
            let identity = authority.issue(&format!("system:kube-{component}"), "", &[])?;
            place.write(&format!("/etc/kubernetes/{component}.conf"), &kubeconfig(&identity))?;
        }
        Ok(())
    }
}

fn identity(place: &NodePlace, name: &str, identity: &Identity) -> Result<()> {
    place.write(&format!("{PKI}/{name}.crt"), &identity.certificate)?;
    place.write(&format!("{PKI}/{name}.key"), &identity.key)
}

/// The reference plugins, where the packages of Kubernetes put them.
fn plugins(place: &NodePlace) -> Result<()> {
    let target = place.on_disk("/opt/cni/bin");
    fs::create_dir_all(&target)?;
    let entries = fs::read_dir(REFERENCE_PLUGINS)
        .with_context(|| format!("{REFERENCE_PLUGINS}; `scripts/needs kube` installs the reference plugins"))?;
    for entry in entries.flatten() {
        fs::copy(entry.path(), target.join(entry.file_name()))?;
    }
    Ok(())
}

/// A copy of containerd's folder. Layers and blobs are never written in place: they are shared as links, so that a copy
/// takes no time; databases are copied.
fn store(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(Path::new("/")))?;
    let copy = |links: &str| {
        let mut command = Command::new("cp");
        command.args([links, "--"]).args([from, to]).stdin(Stdio::null());
        command.output().context("running cp")
    };
    let mut out = copy("-al")?;
    if !out.status.success() {
        // The pieces lie on another file system than this folder.
        let _ = fs::remove_dir_all(to);
        out = copy("-a")?;
    }
    if !out.status.success() {
        bail!("copying the images: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    for database in [
        "io.containerd.metadata.v1.bolt/meta.db",
        "io.containerd.snapshotter.v1.overlayfs/metadata.db",
    ] {
        let target = to.join(database);
        fs::remove_file(&target).with_context(|| format!("replacing {}", target.display()))?;
        fs::copy(from.join(database), &target).with_context(|| format!("copying {database}"))?;
    }
    Ok(())
}
