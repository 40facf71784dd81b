//! The semantics of the API: everything between a parsed request and the store. One lock makes each request atomic.

mod bootstrap;
mod create;
mod delete;
mod incoming;
mod random;
mod update;
mod write;

use std::{path::Path, sync::Arc};

pub(crate) use delete::DeleteOptions;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
pub(crate) use write::{Outcome, Validation, Write};

use super::{
    catalog::{Catalog, Origin, Resource},
    crd, events,
    rbac::Policy,
    selector::{FieldSelector, LabelSelector},
    status::{ApiError, Result},
    store::{Store, Subscription},
    tokens::Account,
};

/// The store and what it serves.
#[derive(Debug)]
pub(crate) struct Registry {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    store: Store,
    catalog: Catalog,
}

/// What a list or watch asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// `None` for all namespaces.
    pub(crate) namespace: Option<String>,
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
}

/// One page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) items: Vec<Value>,
    pub(crate) revision: u64,
    /// The token of the next page, and how many objects are left.
    pub(crate) next: Option<(String, usize)>,
}

/// Which page, and of what time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Paging {
    pub(crate) limit: Option<usize>,
    pub(crate) token: Option<String>,
    pub(crate) exact_revision: Option<u64>,
}

impl Registry {
    /// Opens the state, registers stored definitions, makes what every cluster has, and goes on with deletions that a
    /// crash cut short.
    pub(crate) fn open(file: Option<&Path>, history: usize, watch_buffer: usize) -> std::io::Result<Self> {
        let store = Store::open(file, history, watch_buffer)?;
        let mut state = State {
            store,
            catalog: Catalog::new(),
        };
        state.register_definitions();
        let registry = Self {
            state: Mutex::new(state),
        };
        registry.bootstrap().map_err(|e| std::io::Error::other(e.message))?;
        Ok(registry)
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.lock().catalog.find(group, version, plural)
    }

    /// Whether anything is served under this group and version.
    pub(crate) fn serves(&self, group: &str, version: &str) -> bool {
        let state = self.lock();
        state.catalog.all().any(|r| r.group == group && r.version == version)
    }

    /// Everything served, in table order.
    pub(crate) fn resources(&self) -> Vec<Arc<Resource>> {
        self.lock().catalog.all().cloned().collect()
    }

    pub(crate) fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Value> {
        let found = self.lock().store.get(&resource.storage, namespace, name);
        let found = found.ok_or_else(|| ApiError::not_found(&resource.group, &resource.plural, name))?;
        Ok(present(resource, &found))
    }

    pub(crate) fn list(&self, resource: &Resource, filter: &Filter, paging: &Paging) -> Result<Page> {
        let state = self.lock();
        let token = paging.token.as_deref().map(parse_token).transpose()?;
        let at = token.as_ref().map(|t| t.0).or(paging.exact_revision);
        let revision = at.unwrap_or_else(|| state.store.revision());
        let objects = match at {
            Some(revision) if revision > state.store.revision() => {
                return Err(future(revision, state.store.revision()));
            }
            Some(revision) => state.store.list_at(&resource.storage, revision).map_err(|c| {
                ApiError::expired(format!(
                    "The provided continue parameter is too old to display a consistent list result: \
                     revision {revision}, oldest kept {}",
                    c.oldest
                ))
            })?,
            None => state.store.list(&resource.storage),
        };
        drop(state);
        let after = token.map(|t| (t.1, t.2));
        let fresh = |o: &Arc<Value>| {
            after
                .as_ref()
                .is_none_or(|key| key_of(o) > (key.0.as_str(), key.1.as_str()))
        };
        let mut found: Vec<Value> = objects
            .iter()
            .filter(|o| fresh(o))
            .map(|o| present(resource, o))
            .filter(|o| filter.matches(o))
            .collect();
        let mut next = None;
        if let Some(limit) = paging.limit.filter(|l| *l > 0 && *l < found.len()) {
            let left = found.len() - limit;
            found.truncate(limit);
            next = found.last().map(|last| (token_after(revision, last), left));
        }
        Ok(Page {
            items: found,
            revision,
            next,
        })
    }

    /// Subscribes to changes after `since`, or after now with the objects of now.
    pub(crate) fn watch(&self, resource: &Resource, since: Option<u64>) -> Result<(Vec<Arc<Value>>, Subscription)> {
        let mut state = self.lock();
        let now = state.store.revision();
        if let Some(since) = since.filter(|s| *s > now) {
            return Err(future(since, now));
        }
        let objects = if since.is_none() {
            state.store.list(&resource.storage)
        } else {
            Vec::new()
        };
        let subscription = state
            .store
            .watch(&resource.storage, since.unwrap_or(now))
            .map_err(|c| {
                ApiError::expired(format!(
                    "too old resource version: {} ({})",
                    since.unwrap_or(now),
                    c.oldest
                ))
            })?;
        Ok((objects, subscription))
    }

    /// The roles and bindings that count in a namespace; with an empty name, those of the cluster alone.
    pub(crate) fn policy(&self, namespace: &str) -> Policy {
        let state = self.lock();
        let all = |plural: &str| state.store.list(&format!("rbac.authorization.k8s.io/{plural}"));
        let here = |plural: &str| {
            let mut list = all(plural);
            list.retain(|o| o["metadata"]["namespace"] == namespace);
            list
        };
        Policy {
            cluster_roles: all("clusterroles"),
            cluster_bindings: all("clusterrolebindings"),
            roles: here("roles"),
            bindings: here("rolebindings"),
        }
    }

    /// Whether there is such an account.
    pub(crate) fn knows(&self, account: &Account) -> bool {
        let found = self
            .lock()
            .store
            .get("/serviceaccounts", &account.namespace, &account.name);
        found.is_some_and(|o| o["metadata"]["uid"] == account.uid)
    }

    /// Goes back to what was at an earlier revision; `meanwhile` is called when nobody can see it yet.
    pub(crate) fn restore(&self, revision: u64, meanwhile: impl FnOnce()) -> Result<()> {
        let mut state = self.lock();
        let now = state.store.revision();
        if revision > now {
            return Err(future(revision, now));
        }
        meanwhile();
        let gone_back = state.store.restore(revision);
        let gone_back = gone_back.map_err(|e| ApiError::internal(format!("cannot write the state file: {e}")))?;
        gone_back
            .map_err(|c| ApiError::expired(format!("revision {revision} is forgotten, oldest kept {}", c.oldest)))?;
        state.catalog = Catalog::new();
        state.register_definitions();
        Ok(())
    }

    pub(crate) fn revision(&self) -> u64 {
        self.lock().store.revision()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl Filter {
    pub(crate) fn matches(&self, object: &Value) -> bool {
        let here = self
            .namespace
            .as_deref()
            .is_none_or(|n| object["metadata"]["namespace"] == n);
        here && self.labels.matches(object) && self.fields.matches(object)
    }
}

impl State {
    fn register_definitions(&mut self) {
        for definition in self.store.list("apiextensions.k8s.io/customresourcedefinitions") {
            let name = definition["metadata"]["name"].as_str().unwrap_or_default();
            self.catalog.set_custom(name, crd::resources(&definition));
        }
    }

    fn resource(&self, group: &str, kind: &str) -> Result<Arc<Resource>> {
        let found = self.catalog.find_kind(group, kind);
        found.ok_or_else(|| ApiError::internal(format!("{kind} is not in the table of kinds")))
    }
}

/// A stored object as this version of its API shows it.
pub(crate) fn present(resource: &Resource, stored: &Value) -> Value {
    let mut object = stored.clone();
    object["apiVersion"] = resource.api_version().into();
    object["kind"] = resource.kind.clone().into();
    events::to_served(resource, &mut object);
    object
}

fn refuse_absent(resource: &Resource) -> Result<()> {
    if resource.origin != Origin::Absent {
        return Ok(());
    }
    Err(ApiError::not_implemented(format!(
        "the lab's API server does not keep {}: no controller in the lab would act on them. Create pods directly, or set \
         KUBECONFIG to a real cluster",
        resource.plural
    )))
}

fn future(wanted: u64, now: u64) -> ApiError {
    let why = format!("Too large resource version: {wanted}, current: {now}");
    ApiError::new(504, "Timeout", why).with_details(json!({
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}], "retryAfterSeconds": 1,
    }))
}

fn key_of(object: &Value) -> (&str, &str) {
    let part = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
    (part("namespace"), part("name"))
}

fn token_after(revision: u64, last: &Value) -> String {
    use base64::Engine;
    let (namespace, name) = key_of(last);
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json!([revision, namespace, name]).to_string())
}

fn parse_token(token: &str) -> Result<(u64, String, String)> {
    use base64::Engine;
    let wrong = || ApiError::bad_request("continue key is not valid");
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(token)
        .map_err(|_| wrong())?;
    serde_json::from_slice(&bytes).map_err(|_| wrong())
}
