//! A store in memory, as well-behaved or as trying as its [`Chaos`] makes it.

use std::any::Any;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Resource, Settings, Store, StoreError, Stored};

/// Objects in memory. Clones share them.
#[derive(Clone, Default)]
pub struct Memory {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    settings: Settings,
    objects: BTreeMap<(&'static str, String), Object>,
    revision: u64,
    chaos: Option<Chaos>,
    writes: u64,
    calls: u64,
    /// Writes on their way, each with the call that it arrives with.
    late: Vec<(u64, Write)>,
}

type Write = Box<dyn FnOnce(&mut State) -> bool + Send>;

/// An object's versions, newest last; `None` while it is gone.
#[derive(Default)]
struct Object {
    versions: Vec<Option<(u64, Arc<dyn Any + Send + Sync>)>>,
    /// Labels follow from the name's parts, so that all versions share them.
    labels: BTreeMap<String, String>,
    /// What it was made with.
    annotations: BTreeMap<String, String>,
}

/// How many versions stale reads reach back.
const REMEMBERED: usize = 4;
/// How many calls a late write takes at most.
const LATEST: u64 = 16;

/// Faults, each with a probability in a thousand per call, drawn from a seed. A crash needs no part here: dropping an
/// operation's future at any poll is one.
#[derive(Clone, Debug, Default)]
pub struct Chaos {
    /// State of the generator.
    pub seed: u64,
    /// The call waits for another poll before it acts, and again before it answers.
    pub delay: u64,
    /// A write fails with `Conflict` although nothing changed.
    pub conflict: u64,
    /// The call fails with `Unavailable` and does nothing.
    pub lost_request: u64,
    /// A write happens and yet fails with `Unavailable`.
    pub lost_answer: u64,
    /// A write fails with `Unavailable` and happens some calls later, if it still can.
    pub late: u64,
    /// `get` or `list` returns earlier versions.
    pub stale: u64,
}

impl Chaos {
    fn draw(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ self.seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn strikes(&mut self, in_a_thousand: u64) -> bool {
        self.draw() % 1000 < in_a_thousand
    }
}

impl Memory {
    /// A store with these settings and nothing else.
    pub fn new(settings: Settings) -> Self {
        let memory = Self::default();
        memory.lock().settings = settings;
        memory
    }

    /// Changes the settings.
    pub fn set_settings(&self, settings: Settings) {
        self.lock().settings = settings;
    }

    /// Begins, or with `None` ends, faults. Late writes arrive now at the latest.
    pub fn set_chaos(&self, chaos: Option<Chaos>) {
        let mut state = self.lock();
        state.chaos = chaos;
        state.arrive(u64::MAX);
    }

    /// Whether a late write is still on its way.
    pub fn is_waiting(&self) -> bool {
        !self.lock().late.is_empty()
    }

    /// Every object of a kind as it really is, by name.
    pub fn snapshot<R: Resource>(&self) -> Vec<Stored<R>> {
        let state = self.lock();
        let of_kind = state.objects.iter().filter(|((kind, _), _)| *kind == R::KIND);
        of_kind
            .filter_map(|((_, name), object)| object.version(name, 0))
            .collect()
    }

    /// How many writes have succeeded.
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn delay(&self) {
        let strikes = self
            .lock()
            .chaos
            .as_mut()
            .is_some_and(|chaos| chaos.strikes(chaos.delay));
        if strikes {
            YieldOnce::default().await;
        }
    }

    /// Runs a write with its faults around it.
    async fn write<T>(
        &self,
        what: &str,
        act: impl FnOnce(&mut State) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.delay().await;
        let (result, lost) = {
            let mut state = self.lock();
            state.call();
            let (mut conflict, mut lost_request, mut lost_answer, mut late) = (false, false, false, None);
            if let Some(chaos) = &mut state.chaos {
                conflict = chaos.strikes(chaos.conflict);
                lost_request = chaos.strikes(chaos.lost_request);
                lost_answer = chaos.strikes(chaos.lost_answer);
                late = chaos.strikes(chaos.late).then(|| 1 + chaos.draw() % LATEST);
            }
            if let Some(calls) = late {
                let due = state.calls + calls;
                state.late.push((due, Box::new(|state| act(state).is_ok())));
                return Err(StoreError::Unavailable("request late".to_owned()));
            }
            if lost_request {
                return Err(StoreError::Unavailable("request lost".to_owned()));
            }
            if conflict {
                return Err(StoreError::Conflict(what.to_owned()));
            }
            let result = act(&mut state);
            state.writes += u64::from(result.is_ok());
            (result, lost_answer)
        };
        self.delay().await;
        if lost {
            Err(StoreError::Unavailable("answer lost".to_owned()))
        } else {
            result
        }
    }

    async fn before_read(&self) -> Result<(), StoreError> {
        self.delay().await;
        let lost = {
            let mut state = self.lock();
            state.call();
            let chaos = state.chaos.as_mut();
            chaos.is_some_and(|chaos| chaos.strikes(chaos.lost_request))
        };
        if lost {
            Err(StoreError::Unavailable("request lost".to_owned()))
        } else {
            Ok(())
        }
    }
}

impl State {
    fn call(&mut self) {
        self.calls += 1;
        self.arrive(self.calls);
    }

    /// Carries out the late writes that arrive with that call or before.
    fn arrive(&mut self, call: u64) {
        let (arrived, late): (Vec<_>, Vec<_>) = std::mem::take(&mut self.late)
            .into_iter()
            .partition(|(due, _)| *due <= call);
        self.late = late;
        for (_, write) in arrived {
            self.writes += u64::from(write(self));
        }
    }

    /// How many versions back the next read looks.
    fn age(&mut self) -> usize {
        let Some(chaos) = &mut self.chaos else { return 0 };
        if chaos.strikes(chaos.stale) {
            1 + chaos.draw() as usize % REMEMBERED
        } else {
            0
        }
    }

    fn put<R: Resource>(&mut self, name: &str, spec: Option<R>) -> Option<Stored<R>> {
        self.revision += 1;
        let revision = self.revision;
        let object = self.objects.entry((R::KIND, name.to_owned())).or_default();
        if let Some(spec) = spec.as_ref().filter(|_| object.versions.is_empty()) {
            object.labels = spec.labels();
        }
        object
            .versions
            .push(spec.map(|spec| (revision, Arc::new(spec) as Arc<dyn Any + Send + Sync>)));
        if object.versions.len() > REMEMBERED + 1 {
            object.versions.remove(0);
        }
        object.version(name, 0)
    }

    fn check<R: Resource>(&self, old: &Stored<R>) -> Result<(), StoreError> {
        let what = || format!("{} {}", R::KIND, old.name);
        let object = self.objects.get(&(R::KIND, old.name.clone()));
        match object.and_then(|object| object.version::<R>(&old.name, 0)) {
            None => Err(StoreError::NotFound(what())),
            Some(current) if current.revision != old.revision => Err(StoreError::Conflict(what())),
            Some(_) => Ok(()),
        }
    }
}

impl Object {
    fn version<R: Resource>(&self, name: &str, age: usize) -> Option<Stored<R>> {
        let index = self.versions.len().checked_sub(age + 1)?;
        let (revision, spec) = self.versions[index].as_ref()?;
        let spec = spec.downcast_ref::<R>().expect("kinds are kept apart").clone();
        Some(Stored {
            name: name.to_owned(),
            revision: revision.to_string(),
            annotations: self.annotations.clone(),
            spec,
        })
    }
}

impl Store for Memory {
    async fn get<R: Resource>(&self, name: &str) -> Result<Option<Stored<R>>, StoreError> {
        self.before_read().await?;
        let found = {
            let mut state = self.lock();
            let age = state.age();
            state
                .objects
                .get(&(R::KIND, name.to_owned()))
                .and_then(|object| object.version(name, age))
        };
        self.delay().await;
        Ok(found)
    }

    async fn get_latest<R: Resource>(&self, name: &str) -> Result<Option<Stored<R>>, StoreError> {
        self.before_read().await?;
        let found = self
            .lock()
            .objects
            .get(&(R::KIND, name.to_owned()))
            .and_then(|object| object.version(name, 0));
        self.delay().await;
        Ok(found)
    }

    async fn list<R: Resource>(&self, label: Option<(&str, &str)>) -> Result<Vec<Stored<R>>, StoreError> {
        self.before_read().await?;
        let found: Vec<Stored<R>> = {
            let mut state = self.lock();
            let age = state.age();
            let of_kind = state.objects.iter().filter(|((kind, _), _)| *kind == R::KIND);
            let labelled = of_kind.filter(|(_, object)| {
                label.is_none_or(|(key, value)| object.labels.get(key).is_some_and(|present| present == value))
            });
            labelled
                .filter_map(|((_, name), object)| object.version(name, age))
                .collect()
        };
        self.delay().await;
        Ok(found)
    }

    async fn create<R: Resource>(&self, spec: R, node: &str) -> Result<Stored<R>, StoreError> {
        let (name, annotations) = (spec.name(), R::annotations(node));
        let what = format!("{} {name}", R::KIND);
        self.write(&what.clone(), move |state| {
            let object = state.objects.get(&(R::KIND, name.clone()));
            if object.and_then(|object| object.version::<R>(&name, 0)).is_some() {
                return Err(StoreError::AlreadyExists(what));
            }
            state.objects.entry((R::KIND, name.clone())).or_default().annotations = annotations;
            Ok(state.put(&name, Some(spec)).expect("just put"))
        })
        .await
    }

    async fn update<R: Resource>(&self, old: &Stored<R>, spec: R) -> Result<Stored<R>, StoreError> {
        let old = old.clone();
        self.write(&format!("{} {}", R::KIND, old.name), move |state| {
            state.check(&old)?;
            Ok(state.put(&old.name, Some(spec)).expect("just put"))
        })
        .await
    }

    async fn delete<R: Resource>(&self, old: &Stored<R>) -> Result<(), StoreError> {
        let old = old.clone();
        self.write(&format!("{} {}", R::KIND, old.name), move |state| {
            state.check(&old)?;
            state.put::<R>(&old.name, None);
            Ok(())
        })
        .await
    }

    async fn settings(&self, _: &str) -> Result<Settings, StoreError> {
        self.before_read().await?;
        Ok(self.lock().settings.clone())
    }

    /// A second a write, so that runs repeat.
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000 + self.lock().writes)
    }
}

#[derive(Default)]
struct YieldOnce {
    yielded: bool,
}

impl Future for YieldOnce {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
