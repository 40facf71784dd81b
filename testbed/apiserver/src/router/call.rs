//! One request on a known resource: which of the registry's operations it is.

use std::sync::Arc;

use http::{Method, header, request::Parts};
use serde_json::{Value, json};

use super::{Answer, Asker, content_type, options};
use crate::{
    access,
    catalog::Resource,
    http::Shared,
    rbac::{Action, ResourceAction},
    registry::{DeleteOptions, Outcome, Write},
    request::{Query, Target},
    status::{ApiError, Result, without_empty},
};

/// One request on a known resource.
pub(super) struct Call<'a> {
    pub(super) resource: Arc<Resource>,
    pub(super) target: Target,
    pub(super) query: Query,
    pub(super) head: &'a Parts,
    pub(super) body: &'a Value,
    pub(super) asker: Asker<'a>,
    pub(super) shared: &'a Shared,
}

impl Call<'_> {
    pub(super) fn run(&self) -> Result<Answer> {
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
            ("token", &Method::POST) if self.resource.is_core("ServiceAccount") => self.token(name),
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

    fn written(&self, result: Result<Outcome>) -> Result<Answer> {
        let outcome = result?;
        let code = if outcome.created { 201 } else { 200 };
        self.show(code, outcome.object, outcome.warnings)
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
            no_creation: self.no_creation(media),
        })
    }

    /// Who applies may patch; what is not there yet has to be created, which is another right.
    fn no_creation(&self, media: &str) -> Option<ApiError> {
        if !media.starts_with("application/apply-patch") {
            return None;
        }
        let create = Action::Resource(ResourceAction {
            verb: "create".to_owned(),
            group: self.target.group.clone(),
            resource: self.target.plural.clone(),
            subresource: self.target.subresource.clone().unwrap_or_default(),
            namespace: self.namespace().to_owned(),
            name: self.target.name.clone().unwrap_or_default(),
        });
        access::check(&self.shared.registry, self.asker.who, &create).err()
    }

    pub(super) fn namespace(&self) -> &str {
        self.target.namespace.as_deref().unwrap_or_default()
    }
}
