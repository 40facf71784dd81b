//! Says in an IPPool's status, and as an Event, whether it is used.

use margay_api::slim::Object;
use margay_api::v3::{Condition, IPPoolSpec, IPPoolStatus};
use serde::Deserialize;
use serde_json::json;

use crate::agent::pools;
use crate::agent::table::Table;
use crate::kube::events::{EventWriter, Notice, Standing};
use crate::kube::resource::IP_POOL;
use crate::kube::time::rfc3339_now;
use crate::kube::{Api, ApiError};

#[derive(Debug, Clone, Deserialize)]
struct WithStatus {
    #[serde(flatten)]
    object: Object<IPPoolSpec>,
    #[serde(default)]
    status: IPPoolStatus,
}

/// Compares every pool's condition `Allocatable` with what the agents do, and writes those that differ.
pub(super) async fn report(api: &Api, events: &EventWriter, told: &mut Standing) -> Result<(), ApiError> {
    let all: Vec<WithStatus> = api.list(&IP_POOL, None).await?;
    let table: Table<_> = all.iter().map(|pool| pool.object.clone()).collect();
    let sorted = pools::sort(&table);
    told.update(sorted.faults.iter().cloned(), events);
    for pool in &all {
        let name = &pool.object.metadata.name;
        let fault = sorted.faults.iter().find(|fault| fault.subject.name == *name);
        let Some(condition) = differing(pool, fault) else {
            continue;
        };
        let patch = json!({ "status": { "conditions": [condition] } });
        match api.merge_status(&IP_POOL, name, patch).await {
            Ok(_) | Err(ApiError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The condition to write, unless it is there.
fn differing(pool: &WithStatus, fault: Option<&Notice>) -> Option<Condition> {
    let (status, reason, message) = match fault {
        None if pool.object.spec.is_disabled() => ("False", "PoolDisabled", "spec.disabled is true".to_owned()),
        None => ("True", "PoolUsable", String::new()),
        Some(fault) => ("False", fault.reason, fault.message.clone()),
    };
    let present = pool
        .status
        .conditions
        .iter()
        .find(|condition| condition.r#type == "Allocatable");
    let same = |there: &&Condition| there.status == status && there.reason == reason && there.message == message;
    if present.filter(same).is_some() {
        return None;
    }
    let since = present
        .filter(|there| there.status == status)
        .map(|there| there.last_transition_time.clone());
    Some(Condition {
        r#type: "Allocatable".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since.unwrap_or_else(rfc3339_now),
        ..Condition::default()
    })
}
