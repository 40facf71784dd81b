//! A cloud marks its new nodes NetworkUnavailable until somebody says that their network is up, and keeps pods off them.

use std::time::Duration;

use tokio::sync::watch;

use super::super::findings::{Finding, Findings};
use crate::kube::Api;
use crate::kube::time::rfc3339_now;

/// Least time between two attempts.
const PAUSE: Duration = Duration::from_secs(10);

/// Says so, whenever `unavailable` is true, until the sender is gone.
pub(super) async fn clear(api: Api, node: String, mut unavailable: watch::Receiver<bool>, findings: Findings) {
    while unavailable.wait_for(|unavailable| *unavailable).await.is_ok() {
        let now = rfc3339_now();
        let condition = serde_json::json!({
            "type": "NetworkUnavailable",
            "status": "False",
            "reason": "MargayIsUp",
            "message": "Margay is running on this node",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        });
        let finding = match api.set_node_condition(&node, condition).await {
            Ok(()) => {
                tracing::info!("condition NetworkUnavailable cleared");
                None
            }
            Err(error) => Some(Finding {
                reason: "NetworkUnavailableStays",
                message: format!(
                    "the condition NetworkUnavailable keeps pods off the node, and the agent could not clear it: {error}; \
                     deploy/margay.yaml says what it must be allowed"
                ),
            }),
        };
        findings.set("network condition", finding);
        // The cluster's picture of the node comes a moment later.
        tokio::time::sleep(PAUSE).await;
    }
}
