//! A pod's network: its namespace, attached by CNI.

use k8s_openapi::api::core::v1 as core;
use tracing::{debug, info};

use super::Worker;
use crate::kubelet::checkpoint::Sandbox;
use crate::kubelet::container::Waiting;
use crate::kubelet::{cni, sandbox};

impl Worker {
    /// Makes the pod's network namespace and attaches it. A try that failed is undone first.
    pub(super) async fn attach(&mut self, spec: &core::PodSpec) {
        if let Err(error) = self.try_attach().await {
            debug!(pod = self.name(), %error, "no network yet");
            for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
                let waiting = Waiting {
                    reason: "ContainerCreating",
                    message: error.to_string(),
                };
                self.live.waiting.insert(container.name.clone(), waiting);
            }
            self.network.failed();
        } else {
            self.live.waiting.clear();
        }
    }

    async fn try_attach(&mut self) -> anyhow::Result<()> {
        self.detach().await?;
        let config = cni::first_config(&self.context.cni)?;
        let id = fresh_id()?;
        let netns = self.context.netns_dir.join(format!("pod-{}", &id[..16]));
        // On disk first: a runner that dies from here on finds what to undo.
        self.checkpoint.sandbox = Some(Sandbox {
            id: id.clone(),
            netns,
            config: config.clone(),
            result: None,
        });
        self.checkpoint.save(&self.context.pods_dir)?;
        sandbox::create(&self.context.netns_dir, &id)?;
        let result = cni::add(&self.context.cni, &config, &self.attachment()).await?;
        if let Some(sandbox) = &mut self.checkpoint.sandbox {
            sandbox.result = Some(result.clone());
        }
        self.checkpoint.save(&self.context.pods_dir)?;
        // Other runtimes ask at any time; here a fault of CHECK is seen at once.
        cni::check(&self.context.cni, &config, &result, &self.attachment()).await?;
        info!(pod = self.name(), ips = self.checkpoint.ips().join(","), "attached");
        Ok(())
    }

    /// DEL and the end of the network namespace, when there is one; then DEL once more, as runtimes do that cannot know
    /// whether the first one came to its end.
    pub(super) async fn detach(&mut self) -> anyhow::Result<()> {
        let Some(sandbox) = self.checkpoint.sandbox.clone() else {
            return Ok(());
        };
        let (dirs, attachment) = (&self.context.cni, self.attachment());
        cni::del(dirs, &sandbox.config, sandbox.result.as_ref(), &attachment).await?;
        sandbox::delete(&sandbox.netns)?;
        cni::del(dirs, &sandbox.config, sandbox.result.as_ref(), &attachment).await?;
        self.checkpoint.sandbox = None;
        self.checkpoint.save(&self.context.pods_dir)?;
        Ok(())
    }

    fn attachment(&self) -> cni::Attachment {
        let sandbox = self.checkpoint.sandbox.as_ref();
        cni::Attachment {
            id: sandbox.map(|s| s.id.clone()).unwrap_or_default(),
            netns: sandbox.map(|s| s.netns.clone()).unwrap_or_default(),
            namespace: self.checkpoint.namespace.clone(),
            name: self.checkpoint.name.clone(),
            uid: self.checkpoint.uid.clone(),
        }
    }
}

fn fresh_id() -> std::io::Result<String> {
    use std::io::Read;
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}
