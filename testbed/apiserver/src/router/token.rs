//! `serviceaccounts/token`: a TokenRequest and its answer.

use serde_json::json;

use super::{Answer, call::Call};
use crate::{
    status::{ApiError, FieldError, Result},
    time,
    tokens::{Account, ISSUER},
};

const HOUR: i64 = 3600;
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;

impl Call<'_> {
    pub(super) fn token(&self, name: &str) -> Result<Answer> {
        let account = self.shared.registry.get(&self.resource, self.namespace(), name)?;
        let spec = &self.body["spec"];
        if spec["boundObjectRef"].is_object() || spec["audiences"].as_array().is_some_and(|a| !a.is_empty()) {
            let why = "the lab's API server binds tokens to no object and to no other audience: leave spec.boundObjectRef and \
                       spec.audiences out";
            return Err(ApiError::not_implemented(why));
        }
        let seconds = spec["expirationSeconds"].as_i64().unwrap_or(HOUR);
        let wrong = match seconds {
            ..SHORTEST => "may not specify a duration less than 10 minutes",
            SHORTEST..=LONGEST => "",
            _ => "may not specify a duration larger than 2^32 seconds",
        };
        if !wrong.is_empty() {
            let error = FieldError::invalid("spec.expirationSeconds", &json!(seconds), wrong);
            return Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", "", &[error]));
        }
        let text = |field: &str| account["metadata"][field].as_str().unwrap_or_default().to_owned();
        let whom = Account {
            namespace: text("namespace"),
            name: text("name"),
            uid: text("uid"),
        };
        let now = time::unix_now();
        let token = self.shared.tokens.issue(&whom, now, now + seconds);
        Ok(Answer::json(
            201,
            json!({
                "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
                "metadata": {"name": whom.name, "namespace": whom.namespace, "creationTimestamp": time::format(now)},
                "spec": {"audiences": [ISSUER], "expirationSeconds": seconds, "boundObjectRef": null},
                "status": {"token": token, "expirationTimestamp": time::format(now + seconds)},
            }),
        ))
    }
}
