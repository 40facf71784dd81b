//! ClusterInformation: the cluster's identity; the one named `default` counts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The cluster's identity and whether its data may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "kube", derive(kube::CustomResource))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "projectcalico.org",
        version = "v3",
        kind = "ClusterInformation",
        plural = "clusterinformations",
        shortname = "clusterinfo",
        shortname = "clusterinfos",
        derive = "PartialEq",
        doc = "The cluster's identity and whether its data may be used; the one named `default` counts."
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterInformationSpec {
    /// The cluster's identity.
    #[serde(rename = "clusterGUID", skip_serializing_if = "Option::is_none")]
    pub cluster_guid: Option<String>,
    /// What kind of cluster it is, words joined by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_type: Option<String>,
    /// Version of the network that last wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calico_version: Option<String>,
    /// While false, agents attach no pods. Missing: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datastore_ready: Option<bool>,
    /// Which product runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}
