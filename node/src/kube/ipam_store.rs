//! Blocks, affinities and handles as custom resources: [`margay_ipam::store::Store`] over the Kubernetes API.
//!
//! Compare-and-swap is the API server's on resourceVersion. Settings come from the agent's watches, so that an
//! assignment costs writes only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use margay_api::slim::{Node, Object};
use margay_api::v3::{IPAMConfigurationSpec, IPPoolSpec};
use margay_ipam::store::{Pool, Resource, Settings, Store, StoreError, Stored};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::client::Api;
use super::error::ApiError;
use super::resource::{self, ResourceType};
use super::watch::{Lenient, Odd};

/// Tells the settings as somebody else keeps them.
#[derive(Clone)]
pub struct SettingsSource(pub Arc<dyn Fn() -> Settings + Send + Sync>);

impl std::fmt::Debug for SettingsSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SettingsSource")
    }
}

/// The store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KubeStore {
    api: Api,
    settings: Option<SettingsSource>,
}

impl KubeStore {
    /// A store whose settings somebody keeps current.
    pub fn new(api: Api, settings: SettingsSource) -> Self {
        Self {
            api,
            settings: Some(settings),
        }
    }

    /// A store that reads settings from the API each time.
    pub fn reading_settings(api: Api) -> Self {
        Self { api, settings: None }
    }
}

impl Store for KubeStore {
    async fn get<R: Resource>(&self, name: &str) -> Result<Option<Stored<R>>, StoreError> {
        match self.api.get::<Lenient<Object<R>>>(&type_of::<R>()?, None, name).await {
            Ok(object) => understood(object).map(Some),
            Err(ApiError::NotFound(_)) => Ok(None),
            Err(error) => Err(failed::<R>(name, error)),
        }
    }

    async fn get_latest<R: Resource>(&self, name: &str) -> Result<Option<Stored<R>>, StoreError> {
        // A GET without resourceVersion is a quorum read.
        self.get(name).await
    }

    async fn list<R: Resource>(&self, label: Option<(&str, &str)>) -> Result<Vec<Stored<R>>, StoreError> {
        let selector = label.map(|(key, value)| format!("{key}={value}"));
        let resource = type_of::<R>()?;
        let objects = self
            .api
            .list::<Lenient<Object<R>>>(&resource, selector.as_deref())
            .await;
        let objects = objects.map_err(|error| failed::<R>("", error))?;
        // One odd object must not keep all others from being used.
        let understood = objects.into_iter().map(understood);
        Ok(understood
            .filter_map(|object| object.inspect_err(|error| tracing::warn!(%error, "left out")).ok())
            .collect())
    }

    async fn create<R: Resource>(&self, spec: R, node: &str) -> Result<Stored<R>, StoreError> {
        let (resource, name) = (type_of::<R>()?, spec.name());
        let annotations = R::annotations(node);
        let body = body(&resource, &name, None, &annotations, &spec);
        let created = self.api.create::<Object<R>>(&resource, None, &body).await;
        created.map(stored).map_err(|error| creating::<R>(&name, error))
    }

    async fn update<R: Resource>(&self, old: &Stored<R>, spec: R) -> Result<Stored<R>, StoreError> {
        let resource = type_of::<R>()?;
        let body = body(&resource, &old.name, Some(&old.revision), &old.annotations, &spec);
        let replaced = self.api.replace::<Object<R>>(&resource, None, &old.name, &body).await;
        replaced.map(stored).map_err(|error| failed::<R>(&old.name, error))
    }

    async fn delete<R: Resource>(&self, old: &Stored<R>) -> Result<(), StoreError> {
        let deleted = self
            .api
            .delete(&type_of::<R>()?, None, &old.name, None, Some(&old.revision))
            .await;
        deleted.map_err(|error| failed::<R>(&old.name, error))
    }

    async fn settings(&self, node: &str) -> Result<Settings, StoreError> {
        match &self.settings {
            Some(current) => Ok(current.0()),
            None => read_settings(&self.api, node).await,
        }
    }

    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// Settings from objects as they were watched or read.
pub fn settings<'a>(
    pools: impl Iterator<Item = &'a Object<IPPoolSpec>>,
    config: IPAMConfigurationSpec,
    node: Option<&Node>,
) -> Settings {
    let pool = |pool: &Object<IPPoolSpec>| Pool {
        name: pool.metadata.name.clone(),
        created: pool.metadata.creation_timestamp.clone(),
        spec: pool.spec.clone(),
    };
    Settings {
        pools: pools.map(pool).collect(),
        config,
        reserved: Vec::new(),
        node_labels: node.map(|node| node.metadata.labels.clone()).unwrap_or_default(),
    }
}

async fn read_settings(api: &Api, node: &str) -> Result<Settings, StoreError> {
    let pools: Vec<Object<IPPoolSpec>> = api.list(&resource::IP_POOL, None).await.map_err(unavailable)?;
    let config: Option<Object<IPAMConfigurationSpec>> = read(api, &resource::IPAM_CONFIGURATION, "default").await?;
    let node: Option<Node> = read(api, &resource::NODE, node).await?;
    let config = config.map(|object| object.spec).unwrap_or_default();
    Ok(settings(pools.iter(), config, node.as_ref()))
}

async fn read<T: DeserializeOwned>(api: &Api, resource: &ResourceType, name: &str) -> Result<Option<T>, StoreError> {
    match api.get(resource, None, name).await {
        Ok(object) => Ok(Some(object)),
        Err(ApiError::NotFound(_)) => Ok(None),
        Err(error) => Err(unavailable(error)),
    }
}

fn unavailable(error: ApiError) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

fn type_of<R: Resource>() -> Result<ResourceType, StoreError> {
    [resource::IPAM_BLOCK, resource::BLOCK_AFFINITY, resource::IPAM_HANDLE]
        .into_iter()
        .find(|resource| resource.kind == R::KIND)
        .ok_or_else(|| StoreError::Unavailable(format!("kind {} is not kept in the API", R::KIND)))
}

fn body<R: Resource>(
    resource: &ResourceType,
    name: &str,
    revision: Option<&str>,
    annotations: &BTreeMap<String, String>,
    spec: &R,
) -> Value {
    let mut metadata = json!({ "name": name });
    if !annotations.is_empty() {
        metadata["annotations"] = json!(annotations);
    }
    let labels: BTreeMap<_, _> = spec.labels();
    if !labels.is_empty() {
        metadata["labels"] = json!(labels);
    }
    if let Some(revision) = revision {
        metadata["resourceVersion"] = revision.into();
    }
    json!({ "apiVersion": resource.api_version(), "kind": resource.kind, "metadata": metadata, "spec": spec })
}

fn stored<R>(object: Object<R>) -> Stored<R> {
    Stored {
        name: object.metadata.name,
        revision: object.metadata.resource_version,
        annotations: object.metadata.annotations,
        spec: object.spec,
    }
}

/// An object, or why it is none. A block that is not understood still counts as somebody's, with no address to give, so that
/// nobody makes it anew; its revision lets no write through.
fn understood<R: Resource>(object: Lenient<Object<R>>) -> Result<Stored<R>, StoreError> {
    let name = object.meta.key().name;
    let Odd { why, value } = match object.object {
        Ok(object) => return Ok(stored(object)),
        Err(odd) => odd,
    };
    let closed = json!({
        "cidr": value.pointer("/spec/cidr"), "affinity": "unreadable", "allocations": [], "unallocated": [], "attributes": [],
    });
    match R::deserialize(&closed) {
        Ok(spec) if R::KIND == "IPAMBlock" => {
            tracing::warn!(object = %format!("{} {name}", R::KIND), %why, "not understood: left alone");
            Ok(Stored {
                name,
                revision: "unreadable".to_owned(),
                annotations: BTreeMap::new(),
                spec,
            })
        }
        _ => Err(StoreError::Refused(format!(
            "{} {name}: not understood: {why}; mend or delete it",
            R::KIND
        ))),
    }
}

fn failed<R: Resource>(name: &str, error: ApiError) -> StoreError {
    let object = format!("{} {name}", R::KIND);
    match error {
        ApiError::NotFound(_) => StoreError::NotFound(object),
        ApiError::AlreadyExists(_) => StoreError::AlreadyExists(object),
        ApiError::Conflict(_) => StoreError::Conflict(object),
        refused @ (ApiError::Forbidden(_) | ApiError::Invalid(_) | ApiError::Malformed(_)) => {
            StoreError::Refused(format!("{object}: {refused}"))
        }
        other => StoreError::Unavailable(format!("{object}: {other}")),
    }
}

/// [`failed`] for an object that need not be there: what is missing is its type.
fn creating<R: Resource>(name: &str, error: ApiError) -> StoreError {
    match (error, type_of::<R>()) {
        (ApiError::NotFound(_), Ok(resource)) => StoreError::Unavailable(format!(
            "the API server does not serve {}; apply deploy/crds",
            resource.full_name()
        )),
        (error, _) => failed::<R>(name, error),
    }
}

#[cfg(test)]
mod tests {
    use margay_api::v3::{BlockAffinitySpec, IPAMBlockSpec, IPAMHandleSpec};

    use super::*;

    #[test]
    fn bodies_are_whole_objects() {
        let affinity = BlockAffinitySpec {
            cidr: "10.244.0.0/26".into(),
            node: "node1".into(),
            ..Default::default()
        };
        let none = BTreeMap::new();
        let body = body(
            &resource::BLOCK_AFFINITY,
            &affinity.name(),
            Some("17"),
            &none,
            &affinity,
        );
        assert_eq!(body["apiVersion"], "projectcalico.org/v3");
        assert_eq!(body["kind"], "BlockAffinity");
        assert_eq!(body["metadata"]["name"], "node1-10-244-0-0-26");
        assert_eq!(body["metadata"]["resourceVersion"], "17");
        assert_eq!(body["metadata"]["labels"]["projectcalico.org/ip-version"], "4");
        assert_eq!(body["spec"]["cidr"], "10.244.0.0/26");
    }

    #[test]
    fn a_handle_names_the_node_it_is_for_and_goes_on_to() {
        let handle = IPAMHandleSpec {
            handle_id: "margay.c1".into(),
            ..Default::default()
        };
        let made = IPAMHandleSpec::annotations("node1");
        let body = body(&resource::IPAM_HANDLE, &handle.name(), None, &made, &handle);
        assert_eq!(body["metadata"]["annotations"], json!({"margay.io/node": "node1"}));
        let read = stored(serde_json::from_value::<Object<IPAMHandleSpec>>(body).unwrap());
        assert_eq!(read.annotations, made);
    }

    #[test]
    fn a_type_that_is_not_served_is_no_race() {
        let error = creating::<IPAMHandleSpec>("margay.c1", ApiError::NotFound("page not found".into()));
        assert!(!error.is_race());
        assert!(
            error
                .to_string()
                .contains("ipamhandles.projectcalico.org; apply deploy/crds"),
            "{error}"
        );
    }

    #[test]
    fn the_kinds_of_refusal_stay_apart() {
        let of = |error| failed::<IPAMHandleSpec>("margay.c1", error);
        assert_eq!(
            of(ApiError::NotFound(String::new())),
            StoreError::NotFound("IPAMHandle margay.c1".into())
        );
        assert!(of(ApiError::AlreadyExists(String::new())).is_race());
        assert!(of(ApiError::Conflict(String::new())).is_race());
        let refused = of(ApiError::Forbidden("no such right".into())).to_string();
        assert!(
            refused.contains("refused") && refused.contains("IPAMHandle margay.c1"),
            "{refused}"
        );
        assert!(matches!(
            of(ApiError::Expired(String::new())),
            StoreError::Unavailable(_)
        ));
        assert!(matches!(
            of(ApiError::Unreachable("x".into())),
            StoreError::Unavailable(_)
        ));
    }

    #[test]
    fn an_odd_object_is_named_and_an_odd_block_stays_somebodys() {
        let read = |value: Value| serde_json::from_value::<Lenient<Object<IPAMBlockSpec>>>(value).unwrap();
        let odd = json!({"metadata": {"name": "10-244-0-0-26", "resourceVersion": "7"}, "spec": {
            "cidr": "10.244.0.0/26", "affinity": "host:n1", "allocations": [null], "unallocated": [0],
            "attributes": [], "sequenceNumber": -1}});
        let stored = understood(read(odd)).unwrap();
        assert_eq!(
            (stored.spec.cidr.as_str(), stored.name.as_str()),
            ("10.244.0.0/26", "10-244-0-0-26")
        );
        assert_eq!(margay_ipam::block::owner(&stored.spec), None);
        assert!(stored.spec.affinity.is_some() && stored.spec.unallocated.is_empty());
        assert_ne!(stored.revision, "7");
        let handle = json!({"metadata": {"name": "margay.c1"}, "spec": {"handleID": 7}});
        let handle = serde_json::from_value::<Lenient<Object<IPAMHandleSpec>>>(handle).unwrap();
        let error = understood(handle).unwrap_err().to_string();
        assert!(error.contains("IPAMHandle margay.c1"), "{error}");
    }
}
