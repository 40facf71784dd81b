//! Typed requests without typed resources: paths and JSON, so that objects decode straight into slim types.

use std::path::Path;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use http::Response;
use http::header::RETRY_AFTER;
use kube::Client;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::params::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::request::Request;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower::BoxError;
use tower::util::AndThenLayer;

use super::error::{ApiError, Refusal};
use super::resource::{NODE, ResourceType};

/// Where the API server is and who we are to it.
#[derive(Debug, Clone, Default)]
pub struct ApiAddress<'a> {
    /// A kubeconfig file; `None` means the service account mounted into the pod.
    pub kubeconfig: Option<&'a Path>,
    /// `https://host:port` to use instead of what the configuration says. The agent must reach the API server
    /// directly: the Service address works only once kube-proxy and the pod network do.
    pub server: Option<&'a str>,
    /// Sent as User-Agent part in logs and used as field manager.
    pub manager: &'static str,
}

/// A connection to the API server. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    client: Client,
    manager: &'static str,
}

impl Api {
    /// Reads the configuration; opens no connection yet.
    pub async fn connect(address: &ApiAddress<'_>) -> Result<Self, ApiError> {
        let mut config = match address.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path)
                    .map_err(|e| ApiError::Invalid(format!("kubeconfig {}: {e}", path.display())))?;
                kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                    .await
                    .map_err(|e| ApiError::Invalid(format!("kubeconfig {}: {e}", path.display())))?
            }
            None => kube::Config::incluster().map_err(|e| {
                ApiError::Invalid(format!(
                    "not running in a pod with a service account ({e}); give --kubeconfig FILE"
                ))
            })?,
        };
        if let Some(server) = address.server {
            config.cluster_url = server
                .parse()
                .map_err(|e| ApiError::Invalid(format!("API server address {server:?} is not a URL: {e}")))?;
        }
        config.connect_timeout = Some(Duration::from_secs(5));
        config.write_timeout = Some(Duration::from_secs(10));
        // Its pauses inside a request are long and silent. Callers have pauses of their own, and say why they wait.
        config.default_retry = false;
        let client = ClientBuilder::try_from(config)?
            .with_layer(&AndThenLayer::new(refused))
            .build();
        Ok(Self {
            client,
            manager: address.manager,
        })
    }

    /// Reads one object.
    pub async fn get<T: DeserializeOwned>(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<T, ApiError> {
        let request = Request::new(resource.path(namespace)).get(name, &GetParams::default());
        self.send(request).await
    }

    /// Creates an object; `body` carries apiVersion, kind and metadata.
    pub async fn create<T: DeserializeOwned>(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        let params = PostParams {
            field_manager: Some(self.manager.to_owned()),
            ..PostParams::default()
        };
        self.send(Request::new(resource.path(namespace)).create(&params, encode(body)?))
            .await
    }

    /// Replaces an object if its resourceVersion still is the one in `body`.
    pub async fn replace<T: DeserializeOwned>(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        name: &str,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        let params = PostParams {
            field_manager: Some(self.manager.to_owned()),
            ..PostParams::default()
        };
        self.send(Request::new(resource.path(namespace)).replace(name, &params, encode(body)?))
            .await
    }

    /// Merge-patches an object.
    pub async fn merge(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        name: &str,
        patch: serde_json::Value,
    ) -> Result<serde_json::Value, ApiError> {
        let params = PatchParams {
            field_manager: Some(self.manager.to_owned()),
            ..PatchParams::default()
        };
        self.send(Request::new(resource.path(namespace)).patch(name, &params, &Patch::Merge(patch)))
            .await
    }

    /// Merge-patches the status of a cluster-wide object.
    pub async fn merge_status(
        &self,
        resource: &ResourceType,
        name: &str,
        patch: serde_json::Value,
    ) -> Result<serde_json::Value, ApiError> {
        let params = PatchParams {
            field_manager: Some(self.manager.to_owned()),
            ..PatchParams::default()
        };
        let request =
            Request::new(resource.path(None)).patch_subresource("status", name, &params, &Patch::Merge(patch));
        self.send(request).await
    }

    /// Sets one condition of a Node, by its type, and leaves the others to those who write them.
    pub async fn set_node_condition(&self, node: &str, condition: serde_json::Value) -> Result<(), ApiError> {
        let patch = serde_json::json!({ "status": { "conditions": [condition] } });
        // Only this kind of patch knows that conditions are told apart by their type.
        let patch = Patch::Strategic(patch);
        let request = Request::new(NODE.path(None)).patch_subresource("status", node, &PatchParams::default(), &patch);
        self.send::<serde::de::IgnoredAny>(request).await?;
        Ok(())
    }

    /// Deletes an object; with `uid` or `resource_version`, only if it still is that one.
    pub async fn delete(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        name: &str,
        uid: Option<&str>,
        resource_version: Option<&str>,
    ) -> Result<(), ApiError> {
        let preconditions = (uid.is_some() || resource_version.is_some()).then(|| Preconditions {
            uid: uid.map(str::to_owned),
            resource_version: resource_version.map(str::to_owned),
        });
        let params = DeleteParams {
            preconditions,
            ..DeleteParams::default()
        };
        self.send::<serde_json::Value>(Request::new(resource.path(namespace)).delete(name, &params))
            .await?;
        Ok(())
    }

    /// One page of a collection over all namespaces.
    pub(crate) async fn list_page<L: DeserializeOwned>(
        &self,
        resource: &ResourceType,
        params: &ListParams,
    ) -> Result<L, ApiError> {
        self.send(Request::new(resource.path(None)).list(params)).await
    }

    /// Every object of a collection, over all namespaces; with `labels`, those that this label selector selects.
    pub async fn list<T: DeserializeOwned>(
        &self,
        resource: &ResourceType,
        labels: Option<&str>,
    ) -> Result<Vec<T>, ApiError> {
        #[derive(serde::Deserialize)]
        #[serde(bound = "T: DeserializeOwned")]
        struct Page<T> {
            #[serde(default)]
            metadata: super::watch::ListMeta,
            items: Vec<T>,
        }
        let label_selector = labels.map(str::to_owned);
        let mut params = ListParams {
            label_selector,
            limit: Some(500),
            ..ListParams::default()
        };
        let mut all = Vec::new();
        loop {
            let page: Page<T> = self.list_page(resource, &params).await?;
            all.extend(page.items);
            match page.metadata.more() {
                Some(token) => params.continue_token = Some(token.to_owned()),
                None => return Ok(all),
            }
        }
    }

    /// The underlying client, for streaming.
    pub(crate) fn raw(&self) -> &Client {
        &self.client
    }

    async fn send<T: DeserializeOwned>(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, ApiError> {
        let request = request.map_err(|e| ApiError::Invalid(e.to_string()))?;
        // Every request here has a small answer; a connection that died silently must not hold a CNI call for minutes.
        match tokio::time::timeout(Duration::from_secs(30), self.client.request(request)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(ApiError::Unreachable("no answer within 30 s".to_owned())),
        }
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api")
            .field("manager", &self.manager)
            .finish_non_exhaustive()
    }
}

/// Takes the answers out that say in their head when to come back; all others pass as they are.
async fn refused<B>(answer: Response<B>) -> Result<Response<B>, BoxError>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let code = answer.status().as_u16();
    let told = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let Some(after) = told
        .filter(|_| matches!(code, 429 | 503))
        .and_then(|text| text.parse().ok())
    else {
        return Ok(answer);
    };
    let body = to_bytes(Body::new(answer.into_body()), 64 * 1024)
        .await
        .unwrap_or_default();
    // A Status, or plain words of a proxy or of the server's own admission to its queues.
    let text = match serde_json::from_slice::<kube::core::Status>(&body) {
        Ok(status) => status.message,
        Err(_) => String::from_utf8_lossy(&body).trim().to_owned(),
    };
    Err(Refusal { code, text, after }.into())
}

fn encode(body: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(body).map_err(|e| ApiError::Invalid(format!("cannot encode object: {e}")))
}
