//! The API server of a cluster, as margayctl asks it.

mod error;
mod exec;
mod kubeconfig;

use std::fmt;
use std::time::Duration;

use kube::Client;
use kube::core::params::ListParams;
use kube::core::request::Request;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::cli::Target;

pub(crate) use error::ApiError;
pub(crate) use exec::Ended;
pub(crate) use kubeconfig::Context;

/// Objects in one answer to a list.
const PAGE: u32 = 500;
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);

/// A connection to an API server.
pub(crate) struct ApiServer {
    client: Client,
    context: Context,
    /// How long it may take for one answer.
    patience: Duration,
}

/// A kind of objects, by where the API serves it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resource {
    /// The API group's path, as `/api/v1`.
    pub(crate) group: &'static str,
    /// The kind's name in paths, as `pods`.
    pub(crate) plural: &'static str,
}

impl ApiServer {
    /// Reads the configuration that the user named; asks nothing yet.
    pub(crate) async fn connect(target: &Target, patience: Duration) -> anyhow::Result<Self> {
        let (mut config, context) = kubeconfig::load(target).await?;
        config.connect_timeout = Some(CONNECT);
        // Somebody waits for the answer: rather a word now than another try in silence.
        config.default_retry = false;
        let client = Client::try_from(config).map_err(|error| ApiError::of(&error, &context))?;
        Ok(Self {
            client,
            context,
            patience,
        })
    }

    /// Whom it asks, and as whom.
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// All objects of a kind, those of one namespace or of all; with `labels`, those that this label selector selects.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        labels: Option<&str>,
    ) -> Result<Vec<T>, ApiError> {
        let mut params = ListParams {
            limit: Some(PAGE),
            label_selector: labels.map(str::to_owned),
            ..ListParams::default()
        };
        let mut all = Vec::new();
        loop {
            let page: Page<T> = self.page(resource, namespace, &params).await?;
            all.extend(page.items);
            match page.metadata.r#continue.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(all),
            }
        }
    }

    async fn page<T: DeserializeOwned>(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        params: &ListParams,
    ) -> Result<T, ApiError> {
        let request = Request::new(resource.path(namespace))
            .list(params)
            .map_err(|error| ApiError::Other(format!("{}: {error}", resource.plural)))?;
        match timeout(self.patience, self.client.request(request)).await {
            Ok(Ok(page)) => Ok(page),
            Ok(Err(error)) => Err(ApiError::of(&error, &self.context)),
            Err(_) => Err(ApiError::late(&self.context, self.patience)),
        }
    }
}

impl Resource {
    fn path(self, namespace: Option<&str>) -> String {
        let Self { group, plural } = self;
        match namespace {
            Some(namespace) => format!("{group}/namespaces/{namespace}/{plural}"),
            None => format!("{group}/{plural}"),
        }
    }
}

#[derive(Deserialize)]
struct Page<T> {
    #[serde(default)]
    metadata: PageMetadata,
    items: Vec<T>,
}

#[derive(Default, Deserialize)]
struct PageMetadata {
    r#continue: Option<String>,
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServer")
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}
