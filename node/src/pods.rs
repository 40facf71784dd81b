//! The pods bound to this node, for those who wait for one.

use std::collections::HashMap;
use std::time::Duration;

use margay_api::slim::Pod;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::agent::policy_feed::is_incarnation;
use crate::kube::watch::ObjectKey;

/// Shared board of pods. The agent writes, CNI requests wait.
#[derive(Debug)]
pub struct PodBoard {
    pods: Mutex<HashMap<ObjectKey, Pod>>,
    version: watch::Sender<u64>,
}

impl Default for PodBoard {
    fn default() -> Self {
        Self {
            pods: Mutex::default(),
            version: watch::Sender::new(0),
        }
    }
}

impl PodBoard {
    /// Sets or removes a pod and wakes those who wait.
    pub fn set(&self, key: &ObjectKey, pod: Option<Pod>) {
        match pod {
            Some(pod) => drop(self.pods.lock().insert(key.clone(), pod)),
            None => drop(self.pods.lock().remove(key)),
        }
        self.version.send_modify(|version| *version += 1);
    }

    /// Whether there is a pod of that name on this node.
    pub fn knows(&self, key: &ObjectKey) -> bool {
        self.pods.lock().contains_key(key)
    }

    /// Waits until the pod is known in the incarnation that the runtime means.
    ///
    /// # Errors
    /// After `timeout`, with what was found instead.
    pub async fn wait(&self, key: &ObjectKey, runtime_uid: &str, timeout: Duration) -> Result<Pod, String> {
        let deadline = Instant::now() + timeout;
        let mut changes = self.version.subscribe();
        loop {
            changes.mark_unchanged();
            let found = self.pods.lock().get(key).cloned();
            let instead = match found {
                Some(pod) if is_incarnation(&pod, runtime_uid) => return Ok(pod),
                Some(pod) => format!(
                    "the API server knows pod {key} with UID {}, the runtime means {runtime_uid}",
                    pod.metadata.uid
                ),
                None => format!("the API server has not told of pod {key} on this node"),
            };
            match tokio::time::timeout_at(deadline, changes.changed()).await {
                Ok(Ok(())) => {}
                _ => return Err(instead),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn pod(uid: &str) -> (ObjectKey, Pod) {
        let mut pod = Pod::default();
        pod.metadata.uid = uid.into();
        (
            ObjectKey {
                namespace: "shop".into(),
                name: "a".into(),
            },
            pod,
        )
    }

    #[tokio::test]
    async fn a_pod_that_comes_later_is_waited_for() {
        let board = Arc::new(PodBoard::default());
        let (key, first) = pod("u1");
        board.set(&key, Some(first));
        let waiting = {
            let (board, key) = (board.clone(), key.clone());
            tokio::spawn(async move { board.wait(&key, "u2", Duration::from_secs(30)).await })
        };
        board.set(&key, Some(pod("u2").1));
        assert_eq!(waiting.await.unwrap().unwrap().metadata.uid, "u2");
    }

    #[tokio::test(start_paused = true)]
    async fn the_reason_says_what_was_found_instead() {
        let board = PodBoard::default();
        let (key, first) = pod("u1");
        let error = board.wait(&key, "u2", Duration::from_secs(1)).await.unwrap_err();
        assert!(error.contains("has not told of pod shop/a"), "{error}");
        board.set(&key, Some(first));
        let error = board.wait(&key, "u2", Duration::from_secs(1)).await.unwrap_err();
        assert!(error.contains("with UID u1, the runtime means u2"), "{error}");
    }
}
