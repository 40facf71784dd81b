//! The rest of the agent, played.

use super::*;

/// Addresses by counting up, policy and API that can be made to fail.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) held: Mutex<BTreeMap<String, Vec<IpAddr>>>,
    pub(super) next: Mutex<u8>,
    pub(super) policy_fails: Mutex<Option<String>>,
    pub(super) api_fails: Mutex<Option<String>>,
    pub(super) deleted: Mutex<Vec<String>>,
    pub(super) told: Mutex<usize>,
    /// Addresses whose connections were forgotten, with how often the policy engine had been told by then.
    pub(super) forgotten: Mutex<Vec<(Vec<IpAddr>, usize)>>,
    /// What each look at the addresses that are held finds.
    pub(super) looks: Mutex<VecDeque<Vec<Allocation>>>,
    /// Addresses that were taken back one by one.
    pub(super) reclaimed: Mutex<Vec<IpAddr>>,
    /// What never answers.
    pub(super) silent: Mutex<BTreeSet<Part>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Release,
    Prefix,
    Policy,
    Connections,
}

impl World {
    async fn unless_silent(&self, part: Part) {
        if self.silent.lock().contains(&part) {
            std::future::pending().await
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Fake(pub(super) Arc<World>);

impl Addresses for Fake {
    async fn assign(&self, wish: &Assignment) -> Result<Vec<IpAddr>, AssignError> {
        if let Some(error) = self.0.api_fails.lock().clone() {
            return Err(AssignError::TryLater(error));
        }
        let mut held = self.0.held.lock();
        if let Some(taken) = wish
            .addresses
            .iter()
            .find(|a| held.values().flatten().any(|other| other == *a))
        {
            return Err(AssignError::Refused(format!("{taken} belongs to somebody else")));
        }
        let mut next = self.0.next.lock();
        *next += 1;
        let chosen = match wish.addresses.as_slice() {
            [] => vec![IpAddr::from([10, 244, 0, *next])],
            wanted => wanted.to_vec(),
        };
        held.entry(wish.handle.clone()).or_default().extend(&chosen);
        Ok(chosen)
    }

    async fn recover(&self) -> Result<Vec<Allocation>, String> {
        self.0
            .looks
            .lock()
            .pop_front()
            .ok_or_else(|| "no connection".to_owned())
    }

    async fn release_one(&self, held: &Allocation) -> Result<(), String> {
        self.0.reclaimed.lock().push(held.address);
        Ok(())
    }

    async fn release(&self, handle: &str) -> Result<(), String> {
        self.0.unless_silent(Part::Release).await;
        if let Some(error) = self.0.api_fails.lock().clone() {
            return Err(error);
        }
        self.0.held.lock().remove(handle);
        Ok(())
    }
}

impl Policy for Fake {
    async fn changed(&self) {
        self.0.unless_silent(Part::Policy).await;
        *self.0.told.lock() += 1;
    }

    async fn wait_programmed(&self, _: &EndpointRecord, patience: Duration) -> Result<(), String> {
        if patience.is_zero() {
            return Err("no time left".into());
        }
        self.0.policy_fails.lock().clone().map_or(Ok(()), Err)
    }
}

impl Links for Fake {
    async fn delete(&self, name: &str) -> Result<(), String> {
        self.0.deleted.lock().push(name.to_owned());
        Ok(())
    }

    async fn forget_connections(&self, addresses: &[IpAddr]) -> Result<(), String> {
        self.0.unless_silent(Part::Connections).await;
        let told = *self.0.told.lock();
        self.0.forgotten.lock().push((addresses.to_vec(), told));
        Ok(())
    }

    fn pod_mtu(&self) -> u32 {
        1450
    }

    async fn interface_prefix(&self) -> String {
        self.0.unless_silent(Part::Prefix).await;
        "mgy".into()
    }
}
