//! When the cluster's state goes to disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::cluster::{SNAPSHOT, Snapshot};
use crate::health::{Condition, Health};
use crate::persist::{self, PersistError};

/// Least time between two snapshots.
const PAUSE: Duration = Duration::from_secs(15);
/// The same where policies, namespaces or pods of this node differ: with an older snapshot an agent that starts without the
/// API server would undo what was in force.
const URGENT_PAUSE: Duration = Duration::from_secs(1);
/// How much the snapshot on disk lacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unsaved {
    /// Nothing.
    #[default]
    Nothing,
    /// Something.
    Something,
    /// Something that decides on this node's packets.
    Urgent,
}

impl Unsaved {
    /// Whether a snapshot is due that long after the last one, if there was one.
    fn is_due(self, since: Option<Duration>) -> bool {
        let pause = match self {
            Self::Nothing => return false,
            Self::Something => PAUSE,
            Self::Urgent => URGENT_PAUSE,
        };
        since.is_none_or(|since| since >= pause)
    }
}

/// Keeps the snapshot on disk.
#[derive(Debug)]
pub struct Saver {
    path: PathBuf,
    health: Health,
    unsaved: Unsaved,
    tried_at: Option<Instant>,
    writing: Option<(Unsaved, JoinHandle<Result<(), PersistError>>)>,
    unusable: bool,
}

impl Saver {
    /// Writes to `path`; tells `health` what fails.
    pub fn new(path: PathBuf, health: Health) -> Self {
        Self {
            path,
            health,
            unsaved: Unsaved::Nothing,
            tried_at: None,
            writing: None,
            unusable: false,
        }
    }

    /// The snapshot on disk lacks something more.
    pub fn note(&mut self, unsaved: Unsaved) {
        self.unsaved = self.unsaved.max(unsaved);
    }

    /// Starts writing if that is due.
    pub async fn tick(&mut self, snapshot: impl FnOnce() -> Snapshot) {
        if self.writing.as_ref().is_some_and(|(_, task)| !task.is_finished()) {
            return;
        }
        self.finish().await;
        if self.unsaved.is_due(self.tried_at.map(|at| at.elapsed())) {
            let (path, snapshot) = (self.path.clone(), snapshot());
            let task = tokio::task::spawn_blocking(move || persist::save(&path, SNAPSHOT, &snapshot));
            self.writing = Some((std::mem::take(&mut self.unsaved), task));
            self.tried_at = Some(Instant::now());
        }
    }

    /// Writes what is not written yet, at the end.
    pub async fn leave(&mut self, snapshot: impl FnOnce() -> Snapshot) {
        self.finish().await;
        if self.unsaved > Unsaved::Nothing {
            self.settle(persist::save(&self.path, SNAPSHOT, &snapshot()), self.unsaved);
        }
    }

    /// What an earlier run left. A file that cannot be used is not looked at again.
    pub fn load(&mut self) -> Option<Snapshot> {
        if self.unusable {
            return None;
        }
        persist::load(&self.path, SNAPSHOT).unwrap_or_else(|error| {
            self.unusable = true;
            let why = format!("{error}; waiting for the API server");
            self.health.set(part(&self.path), Condition::Degraded(why));
            None
        })
    }

    async fn finish(&mut self) {
        if let Some((unsaved, task)) = self.writing.take() {
            // A task that panicked has written nothing either.
            let result = task.await.unwrap_or_else(|error| {
                Err(PersistError::Io {
                    path: self.path.clone(),
                    source: std::io::Error::other(error),
                })
            });
            self.settle(result, unsaved);
        }
    }

    fn settle(&mut self, result: Result<(), PersistError>, unsaved: Unsaved) {
        match result {
            Ok(()) => self.health.forget(&part(&self.path)),
            Err(error) => {
                self.note(unsaved);
                let why = format!("not written: {error}; an agent that starts without the API server knows less");
                self.health.set(part(&self.path), Condition::Degraded(why));
            }
        }
    }
}

/// The part of readiness that says what is wrong with a file of the state directory.
pub fn part(file: &Path) -> String {
    format!("state {}", file.file_name().unwrap_or_default().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::super::cluster::Cluster;
    use super::*;

    #[test]
    fn what_decides_on_packets_is_saved_soon() {
        let due = |unsaved: Unsaved, seconds| unsaved.is_due(Some(Duration::from_secs(seconds)));
        assert!(due(Unsaved::Urgent, 1) && due(Unsaved::Something, 15));
        assert!(!due(Unsaved::Something, 14) && !due(Unsaved::Nothing, 99));
        assert!(Unsaved::Something.is_due(None) && !Unsaved::Nothing.is_due(None));
        assert_eq!(Unsaved::Something.max(Unsaved::Urgent), Unsaved::Urgent);
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let health = Health::default();
        let path = dir.path().join("away/cluster.json");
        let mut saver = Saver::new(path.clone(), health.clone());
        saver.note(Unsaved::Urgent);
        saver.tick(|| Cluster::default().snapshot()).await;
        saver.finish().await;
        let told = health.trouble_with("state cluster.json").unwrap();
        assert!(told.contains("cluster.json: No such file"), "{told}");
        assert_eq!(saver.unsaved, Unsaved::Urgent);
        std::fs::create_dir(dir.path().join("away")).unwrap();
        saver.leave(|| Cluster::default().snapshot()).await;
        assert!(path.exists());
        assert_eq!(health.trouble_with("state cluster.json"), None);
    }

    #[test]
    fn a_damaged_file_is_told_and_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let health = Health::default();
        let path = dir.path().join("cluster.json");
        std::fs::write(&path, "margay").unwrap();
        let mut saver = Saver::new(path.clone(), health.clone());
        assert!(saver.load().is_none());
        let told = health.trouble_with("state cluster.json").unwrap();
        assert!(told.contains("damaged"), "{told}");
        persist::save(&path, SNAPSHOT, &Cluster::default().snapshot()).unwrap();
        assert!(saver.load().is_none(), "read again");
    }
}
