//! One watch for each resource type, all into one queue.

use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use super::closed_policy::closed_policy;
use super::cluster::ClusterChange;
use super::kinds::{KINDS, Kind};
use super::watch_report::{Seen, WatchReport};
use crate::kube::watch::{Change, Salvage, Scope, WatchState};
use crate::kube::{Api, ResourceType, resource};

/// The state of every watch.
#[derive(Debug)]
pub struct Watches {
    states: Vec<(Kind, watch::Receiver<WatchState>)>,
}

impl Watches {
    /// Starts watching; changes go to `sink` until it is closed.
    pub fn start(api: &Api, sink: &mpsc::Sender<ClusterChange>) -> Self {
        let mut watches = Self { states: Vec::new() };
        watches.add(api, resource::NODE, sink, ClusterChange::Node);
        watches.add(api, resource::NAMESPACE, sink, ClusterChange::Namespace);
        watches.add(
            api,
            resource::CLUSTER_INFORMATION,
            sink,
            ClusterChange::ClusterInformation,
        );
        watches.add(api, resource::IP_POOL, sink, ClusterChange::IpPool);
        watches.add(
            api,
            resource::IPAM_CONFIGURATION,
            sink,
            ClusterChange::IpamConfiguration,
        );
        watches.add(api, resource::IPAM_BLOCK, sink, ClusterChange::IpamBlock);
        watches.add(api, resource::BGP_CONFIGURATION, sink, ClusterChange::BgpConfiguration);
        watches.add(api, resource::BGP_PEER, sink, ClusterChange::BgpPeer);
        watches.add(api, resource::FELIX_CONFIGURATION, sink, |change| {
            ClusterChange::FelixConfiguration(Box::new(change))
        });
        watches.add_salvaging(
            api,
            resource::NETWORK_POLICY,
            sink,
            ClusterChange::NetworkPolicy,
            closed_policy,
        );
        watches.add(api, resource::POD, sink, ClusterChange::Pod);
        watches
    }

    /// How each of them does now.
    pub fn report(&self) -> WatchReport {
        let seen = |(kind, state): &(Kind, watch::Receiver<WatchState>)| {
            let state = state.borrow();
            Seen {
                kind: *kind,
                synced: state.synced,
                trouble: state.error.clone(),
            }
        };
        WatchReport(self.states.iter().map(seen).collect())
    }

    /// Objects that could not be decoded, with the reason.
    pub fn undecodable(&self) -> Vec<String> {
        let texts = |(kind, state): &(Kind, watch::Receiver<WatchState>)| {
            let state = state.borrow();
            let text = |(key, why): &(_, String)| format!("{} {key}: not understood: {why}", kind.resource.kind);
            state.undecodable.iter().map(text).collect::<Vec<_>>()
        };
        self.states.iter().flat_map(texts).collect()
    }

    fn add<T>(
        &mut self,
        api: &Api,
        resource: ResourceType,
        sink: &mpsc::Sender<ClusterChange>,
        wrap: impl Fn(Change<T>) -> ClusterChange + Send + Sync + 'static,
    ) where
        T: DeserializeOwned + Clone + Send + Sync + 'static,
    {
        self.add_salvaging(api, resource, sink, wrap, |_| None);
    }

    fn add_salvaging<T>(
        &mut self,
        api: &Api,
        resource: ResourceType,
        sink: &mpsc::Sender<ClusterChange>,
        wrap: impl Fn(Change<T>) -> ClusterChange + Send + Sync + 'static,
        salvage: Salvage<T>,
    ) where
        T: DeserializeOwned + Clone + Send + Sync + 'static,
    {
        let (state, receiver) = watch::channel(WatchState::default());
        let (api, sink) = (api.clone(), sink.clone());
        tokio::spawn(async move {
            crate::kube::watch::watch::<T, _>(api, resource, Scope::default(), sink, (wrap, salvage), state).await;
        });
        let kind = KINDS.into_iter().find(|kind| kind.resource == resource);
        self.states.extend(kind.map(|kind| (kind, receiver)));
    }
}
