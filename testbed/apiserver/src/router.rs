//! From a request to the registry and back to an answer.

mod documents;
mod options;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, header, request::Parts};
use serde_json::{Value, json};

use super::{
    catalog::{Origin, Resource},
    discovery,
    http::Shared,
    registry::{DeleteOptions, Filter, Paging, Write},
    request::{Query, Shape, Target, shape},
    selector::{FieldSelector, LabelSelector},
    status::{ApiError, Result, without_empty},
    table::{self, Include},
    watch::{self, Render, Watch, WatchBody},
};

/// Watches end after this long when the client names no time.
const WATCH_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// What goes back to the client.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: Bytes,
    pub(crate) warnings: Vec<String>,
    pub(crate) watch: Option<WatchBody>,
}

impl Answer {
    pub(crate) fn json(code: u16, value: Value) -> Self {
        Self {
            code,
            content_type: "application/json",
            body: value.to_string().into(),
            warnings: vec![],
            watch: None,
        }
    }

    /// A path below which nothing is served.
    fn nothing_here() -> Self {
        Self {
            content_type: "text/plain; charset=utf-8",
            body: "404 page not found\n".into(),
            ..Self::json(404, Value::Null)
        }
    }

    fn stream(watch: WatchBody) -> Self {
        Self {
            watch: Some(watch),
            ..Self::json(200, Value::Null)
        }
    }
}

/// Paths that need no token, as with the real server.
pub(crate) fn public(path: &str) -> Option<Answer> {
    match path {
        "/healthz" | "/livez" | "/readyz" => Some(Answer {
            content_type: "text/plain; charset=utf-8",
            body: "ok".into(),
            ..Answer::json(200, Value::Null)
        }),
        "/version" | "/version/" => Some(Answer::json(200, discovery::version())),
        _ => None,
    }
}

/// The media type of a body, without parameters.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("application/json");
    value.split(';').next().unwrap_or_default().trim()
}

pub(crate) fn route(head: &Parts, body: &Value, shared: &Shared) -> Result<Answer> {
    let path = head.uri.path().trim_end_matches('/');
    if let Some(answer) = documents::find(path, head, shared)? {
        return Ok(answer);
    }
    if path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" && head.method == Method::POST {
        return Ok(Answer::json(201, documents::may_do_everything(body)));
    }
    let Some(target) = Target::parse(path).filter(|t| shared.registry.serves(&t.group, &t.version)) else {
        return Ok(Answer::nothing_here());
    };
    let found = shared.registry.find(&target.group, &target.version, &target.plural);
    let resource = found.ok_or_else(ApiError::no_such_path)?;
    let call = Call {
        resource,
        target,
        query: Query::parse(head.uri.query().unwrap_or_default()),
        head,
        body,
        shared,
    };
    call.run()
}

/// One request on a known resource.
struct Call<'a> {
    resource: Arc<Resource>,
    target: Target,
    query: Query,
    head: &'a Parts,
    body: &'a Value,
    shared: &'a Shared,
}

impl Call<'_> {
    fn run(&self) -> Result<Answer> {
        let name = self.target.name.as_deref();
        self.check_scope()?;
        if let Some(subresource) = self.target.subresource.as_deref() {
            return self.subresource(name.unwrap_or_default(), subresource);
        }
        let registry = &self.shared.registry;
        match (&self.head.method, name) {
            (&Method::GET, None) if self.query.flag("watch") => self.watch(),
            (&Method::GET, Some(name)) => {
                let object = registry.get(&self.resource, self.namespace(), name)?;
                self.show(200, object, Vec::new())
            }
            (&Method::GET, None) => self.list(),
            (&Method::POST, None) => self.written(registry.create(&self.write("")?, self.body.clone())),
            (&Method::PUT, Some(name)) => self.written(registry.replace(&self.write(name)?, self.body.clone())),
            (&Method::PATCH, Some(name)) => self.patch(name),
            (&Method::DELETE, Some(name)) => self.delete(name),
            (&Method::DELETE, None) => {
                let gone = registry.delete_collection(&self.write("")?, &self.filter()?, &self.delete_options()?)?;
                Ok(Answer::json(
                    200,
                    self.list_of(gone, json!({"resourceVersion": registry.revision().to_string()})),
                ))
            }
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    /// A namespace where there is one, and none where there is none; only reads reach over all namespaces.
    fn check_scope(&self) -> Result<()> {
        let everywhere = self.resource.namespaced && self.target.namespace.is_none();
        if !self.resource.namespaced && self.target.namespace.is_some() || everywhere && self.target.name.is_some() {
            return Err(ApiError::no_such_path());
        }
        if everywhere && self.head.method != Method::GET {
            return Err(ApiError::method_not_allowed());
        }
        Ok(())
    }

    fn subresource(&self, name: &str, subresource: &str) -> Result<Answer> {
        let registry = &self.shared.registry;
        match (subresource, &self.head.method) {
            ("status", &Method::GET) if self.resource.status => {
                self.show(200, registry.get(&self.resource, self.namespace(), name)?, Vec::new())
            }
            ("status", &Method::PUT) if self.resource.status => {
                self.written(registry.replace(&self.write(name)?, self.body.clone()))
            }
            ("status", &Method::PATCH) if self.resource.status => self.patch(name),
            ("binding", &Method::POST) if self.resource.is_core("Pod") => {
                registry.bind(&self.write(name)?, self.body)?;
                Ok(Answer::json(
                    201,
                    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
                ))
            }
            ("status", _) => Err(ApiError::no_such_path()),
            _ => Err(ApiError::not_implemented(self.what_to_do_instead(subresource))),
        }
    }

    fn what_to_do_instead(&self, subresource: &str) -> String {
        let path = format!("{}/{subresource}", self.resource.plural);
        let instead = match subresource {
            "exec" | "attach" => "run it with: margay-lab exec --pod NAMESPACE/NAME -- COMMAND",
            "log" => "each container's output is in the lab's state directory, in nodes/NODE/pods/UID/CONTAINER.log",
            "portforward" | "proxy" => {
                "connect to the pod's address from a node of the lab: margay-lab exec NODE -- COMMAND"
            }
            "eviction" => "delete the pod",
            _ => "set KUBECONFIG to a real cluster",
        };
        format!("the lab's API server does not serve {path}: {instead}")
    }

    fn patch(&self, name: &str) -> Result<Answer> {
        let kind = content_type(&self.head.headers);
        self.written(self.shared.registry.patch(&self.write(name)?, kind, self.body))
    }

    fn delete(&self, name: &str) -> Result<Answer> {
        let (object, gone) = self
            .shared
            .registry
            .delete(&self.write(name)?, &self.delete_options()?)?;
        let shows_object = !gone || self.resource.is_core("Pod");
        if shows_object {
            return self.show(200, object, Vec::new());
        }
        let details = json!({
            "name": name, "group": self.resource.group, "kind": self.resource.plural, "uid": object["metadata"]["uid"],
        });
        let details = without_empty(details);
        Ok(Answer::json(
            200,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}),
        ))
    }

    fn delete_options(&self) -> Result<DeleteOptions> {
        options::delete(&self.query, self.body)
    }

    fn list(&self) -> Result<Answer> {
        options::list(&self.query)?;
        let version = self.query.number("resourceVersion")?;
        let exact = self.query.get("resourceVersionMatch") == Some("Exact");
        let paging = Paging {
            limit: self.query.number("limit")?.and_then(|l| usize::try_from(l).ok()),
            token: self.query.get("continue").map(str::to_owned),
            exact_revision: version.filter(|_| exact),
        };
        let page = self.shared.registry.list(&self.resource, &self.filter()?, &paging)?;
        let mut metadata = json!({"resourceVersion": page.revision.to_string()});
        if let Some((token, left)) = page.next {
            metadata["continue"] = token.into();
            let selects = ["labelSelector", "fieldSelector"]
                .iter()
                .any(|s| self.query.get(s).is_some());
            if !selects {
                metadata["remainingItemCount"] = left.into();
            }
        } else if self.resource.origin == Origin::Custom && shape(&self.head.headers)? == Shape::Plain {
            metadata["continue"] = "".into();
        }
        Ok(Answer::json(200, self.shaped_list(page.items, metadata)?))
    }

    fn watch(&self) -> Result<Answer> {
        options::list(&self.query)?;
        let version = self.query.number("resourceVersion");
        // An error without a reason in Kubernetes.
        let version = version.map_err(|e| ApiError::new(500, "", e.message))?;
        let initial = self.query.flag("sendInitialEvents");
        // No version, or "0", starts with what there is now; so does a request for the initial events.
        let since = version.filter(|v| *v != 0 && !initial);
        let seconds = self.query.number("timeoutSeconds")?;
        let request = Watch {
            resource: self.resource.clone(),
            filter: self.filter()?,
            bookmarks: self.query.flag("allowWatchBookmarks"),
            mark_initial: initial && self.query.flag("allowWatchBookmarks"),
            timeout: seconds.map_or(WATCH_TIMEOUT, Duration::from_secs),
            bookmark_interval: self.shared.bookmark_interval,
        };
        let render = self.render()?;
        match self.shared.registry.watch(&self.resource, since) {
            Ok((objects, subscription)) => Ok(Answer::stream(watch::start(request, objects, subscription, render))),
            Err(error) => Ok(Answer::stream(watch::failed(&error))),
        }
    }

    fn written(&self, result: Result<super::registry::Outcome>) -> Result<Answer> {
        let outcome = result?;
        let code = if outcome.created { 201 } else { 200 };
        self.show(code, outcome.object, outcome.warnings)
    }

    fn show(&self, code: u16, object: Value, warnings: Vec<String>) -> Result<Answer> {
        let render = self.render()?;
        Ok(Answer {
            warnings,
            ..Answer::json(code, render(&object))
        })
    }

    /// One object as this client wants it.
    fn render(&self) -> Result<Render> {
        let (resource, include) = (self.resource.clone(), self.include()?);
        Ok(match shape(&self.head.headers)? {
            Shape::Plain | Shape::Discovery => Box::new(Value::clone),
            Shape::Metadata => Box::new(|object| table::partial(object, false)),
            Shape::Table { beta } => {
                let first = AtomicBool::new(true);
                Box::new(move |object| {
                    let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                    let mut table = table::table(&resource, std::slice::from_ref(object), metadata, include, beta);
                    // Of a watch's tables only the first says what the columns are.
                    if !first.swap(false, Ordering::Relaxed) {
                        table["columnDefinitions"] = Value::Null;
                    }
                    table
                })
            }
        })
    }

    fn shaped_list(&self, items: Vec<Value>, metadata: Value) -> Result<Value> {
        Ok(match shape(&self.head.headers)? {
            Shape::Plain | Shape::Discovery => self.list_of(items, metadata),
            Shape::Metadata => {
                let items: Vec<Value> = items.iter().map(|o| table::partial(o, false)).collect();
                json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
            }
            Shape::Table { beta } => table::table(&self.resource, &items, metadata, self.include()?, beta),
        })
    }

    fn list_of(&self, items: Vec<Value>, metadata: Value) -> Value {
        let mut items = items;
        // Items of built-in lists are of one Go type, which says what they are.
        if self.resource.origin != Origin::Custom {
            let fields = items.iter_mut().filter_map(Value::as_object_mut);
            fields.for_each(|o| o.retain(|k, _| k != "apiVersion" && k != "kind"));
        }
        json!({"kind": self.resource.list_kind, "apiVersion": self.resource.api_version(), "metadata": metadata, "items": items})
    }

    fn include(&self) -> Result<Include> {
        match self.query.get("includeObject") {
            None | Some("Metadata") => Ok(Include::Metadata),
            Some("None") => Ok(Include::None),
            Some("Object") => Ok(Include::Object),
            Some(other) => Err(ApiError::bad_request(format!(
                "includeObject: Unsupported value: \"{other}\""
            ))),
        }
    }

    fn filter(&self) -> Result<Filter> {
        Ok(Filter {
            namespace: self.target.namespace.clone(),
            labels: LabelSelector::parse(self.query.get("labelSelector").unwrap_or_default())?,
            fields: FieldSelector::parse(
                self.query.get("fieldSelector").unwrap_or_default(),
                &self.resource.field_labels,
            )?,
        })
    }

    fn write(&self, name: &str) -> Result<Write> {
        let media = content_type(&self.head.headers);
        let options = options::write(&self.head.method, &self.query, self.body, media)?;
        let agent = self
            .head
            .headers
            .get(header::USER_AGENT)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("unknown");
        let manager = self
            .query
            .get("fieldManager")
            .unwrap_or_else(|| agent.split('/').next().unwrap_or_default());
        Ok(Write {
            resource: self.resource.clone(),
            namespace: self.namespace().to_owned(),
            name: name.to_owned(),
            subresource: self.target.subresource.clone().unwrap_or_default(),
            dry_run: options.dry_run,
            manager: manager.to_owned(),
            force: self.query.flag("force"),
            validation: options.validation,
        })
    }

    fn namespace(&self) -> &str {
        self.target.namespace.as_deref().unwrap_or_default()
    }
}
