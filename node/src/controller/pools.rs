//! Says in an IPPool's status, and as an Event, whether it is used.

use margay_api::slim::Object;
use margay_api::v3::{Condition, IPPoolSpec, IPPoolStatus};
use serde::Deserialize;
use serde_json::json;

use super::Reign;
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
pub(super) async fn report(api: &Api, events: &EventWriter, told: &mut Standing, reign: &Reign) -> anyhow::Result<()> {
    let all: Vec<WithStatus> = api.list(&IP_POOL, None).await?;
    let table: Table<_> = all.iter().map(|pool| pool.object.clone()).collect();
    let sorted = pools::sort(&table);
    told.update(sorted.faults.iter().cloned(), events);
    let mut failed = Vec::new();
    for pool in &all {
        reign.alive();
        let name = &pool.object.metadata.name;
        let fault = sorted.faults.iter().find(|fault| fault.subject.name == *name);
        let Some(condition) = differing(pool, fault) else {
            continue;
        };
        let patch = json!({ "status": { "conditions": [condition] } });
        match api.merge_status(&IP_POOL, name, patch).await {
            Ok(_) | Err(ApiError::NotFound(_)) => {}
            Err(error) => failed.push(format!("{name}: {error}")),
        }
    }
    anyhow::ensure!(failed.is_empty(), failed.join("; "));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str, created: &str, cidr: &str) -> WithStatus {
        let mut object = Object::<IPPoolSpec>::default();
        object.metadata.name = name.into();
        object.metadata.creation_timestamp = Some(created.into());
        object.spec.cidr = cidr.into();
        WithStatus {
            object,
            status: IPPoolStatus::default(),
        }
    }

    #[test]
    fn a_pool_that_overlaps_an_older_one_says_so_until_it_does_not() {
        let older = pool("older", "2026-01-01T00:00:00Z", "10.244.0.0/16");
        let mut newer = pool("newer", "2026-02-01T00:00:00Z", "10.244.128.0/17");
        let table: Table<_> = [&older, &newer].iter().map(|pool| pool.object.clone()).collect();
        let faults = pools::sort(&table).faults;
        assert_eq!(faults.len(), 1);
        let allocatable = |pool: &WithStatus, fault| differing(pool, fault).map(|c| (c.status, c.reason));
        assert_eq!(allocatable(&older, None), Some(("True".into(), "PoolUsable".into())));

        let mut condition = differing(&newer, faults.first()).unwrap();
        assert_eq!(
            (condition.r#type.as_str(), condition.status.as_str()),
            ("Allocatable", "False")
        );
        assert!(condition.message.contains("older"), "{}", condition.message);
        condition.last_transition_time = "2026-02-01T00:00:05Z".into();
        newer.status.conditions = vec![condition];
        assert!(differing(&newer, faults.first()).is_none(), "it is there already");

        newer.object.spec.disabled = Some(true);
        let disabled = differing(&newer, None).unwrap();
        assert_eq!(
            (disabled.status.as_str(), disabled.reason.as_str()),
            ("False", "PoolDisabled")
        );
        assert_eq!(disabled.last_transition_time, "2026-02-01T00:00:05Z", "it stays False");
        newer.object.spec.disabled = None;
        let usable = differing(&newer, None).unwrap();
        assert_ne!(usable.last_transition_time, "2026-02-01T00:00:05Z");
    }
}
