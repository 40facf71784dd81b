//! Objects by resource, namespace and name; one revision counter; the recent changes that watches start from.
//!
//! A change is written to the journal before anything sees it, so that what was acknowledged survives a kill.

mod journal;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    path::Path,
    sync::Arc,
};

use journal::{Journal, Record};
use serde_json::Value;
use tokio::sync::mpsc;

/// What happened to one object.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) storage: Arc<str>,
    /// `None` when it was deleted.
    pub(crate) object: Option<Arc<Value>>,
    /// `None` when it was created.
    pub(crate) previous: Option<Arc<Value>>,
}

/// A watch: what happened since its start, then what happens. The channel ends when the watcher is too slow.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) backlog: Vec<Arc<Change>>,
    pub(crate) changes: mpsc::Receiver<Arc<Change>>,
    pub(crate) revision: u64,
}

/// The revision asked for is no longer known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Compacted {
    pub(crate) oldest: u64,
}

type Key = (String, String);

#[derive(Debug)]
pub(crate) struct Store {
    objects: BTreeMap<Arc<str>, BTreeMap<Key, Arc<Value>>>,
    revision: u64,
    history: VecDeque<Arc<Change>>,
    /// Changes up to this revision are forgotten.
    compacted: u64,
    history_limit: usize,
    watch_buffer: usize,
    watchers: Vec<(Arc<str>, mpsc::Sender<Arc<Change>>)>,
    journal: Option<Journal>,
}

impl Store {
    /// Opens the file, or starts empty in memory. `history_limit` changes are kept for watches; a watcher that falls
    /// `watch_buffer` changes behind is dropped.
    pub(crate) fn open(file: Option<&Path>, history_limit: usize, watch_buffer: usize) -> io::Result<Self> {
        let mut store = Self {
            objects: BTreeMap::new(),
            revision: 1,
            history: VecDeque::new(),
            compacted: 1,
            history_limit: history_limit.max(1),
            watch_buffer: watch_buffer.max(1),
            watchers: Vec::new(),
            journal: None,
        };
        if let Some(path) = file {
            for record in journal::read(path)? {
                store.revision = store.revision.max(record.revision);
                let of_kind = store.objects.entry(record.storage.as_str().into()).or_default();
                match record.object {
                    Some(object) => of_kind.insert(record.key, Arc::new(object)),
                    None => of_kind.remove(&record.key),
                };
            }
            store.compacted = store.revision;
            store.journal = Some(Journal::rewrite(path, store.revision, store.records())?);
        }
        Ok(store)
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn get(&self, storage: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.objects
            .get(storage)?
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    /// The objects of a resource by namespace and name.
    pub(crate) fn list(&self, storage: &str) -> Vec<Arc<Value>> {
        self.objects
            .get(storage)
            .map(|m| m.values().cloned().collect())
            .unwrap_or_default()
    }

    /// The objects of a resource as they were at an earlier revision.
    pub(crate) fn list_at(&self, storage: &str, revision: u64) -> Result<Vec<Arc<Value>>, Compacted> {
        if revision < self.compacted {
            return Err(Compacted { oldest: self.compacted });
        }
        let mut then = self.objects.get(storage).cloned().unwrap_or_default();
        for change in self.history.iter().rev().take_while(|c| c.revision > revision) {
            if &*change.storage != storage {
                continue;
            }
            if let Some(key) = change.object.as_ref().or(change.previous.as_ref()).map(|o| key_of(o)) {
                match &change.previous {
                    Some(previous) => then.insert(key, previous.clone()),
                    None => then.remove(&key),
                };
            }
        }
        Ok(then.into_values().collect())
    }

    /// Stores the object under the name in its metadata, with the next revision as its `resourceVersion`.
    pub(crate) fn put(&mut self, storage: &Arc<str>, mut object: Value) -> io::Result<Arc<Value>> {
        let revision = self.revision + 1;
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        let key = key_of(&object);
        let object = Arc::new(object);
        self.write(revision, storage, &key, Some(&object))?;
        let previous = self
            .objects
            .entry(storage.clone())
            .or_default()
            .insert(key, object.clone());
        self.announce(Change {
            revision,
            storage: storage.clone(),
            object: Some(object.clone()),
            previous,
        });
        Ok(object)
    }

    /// Removes an object and answers it with the revision of its deletion.
    pub(crate) fn remove(&mut self, storage: &Arc<str>, namespace: &str, name: &str) -> io::Result<Option<Arc<Value>>> {
        let key = (namespace.to_owned(), name.to_owned());
        if !self.objects.get(storage).is_some_and(|m| m.contains_key(&key)) {
            return Ok(None);
        }
        let revision = self.revision + 1;
        self.write(revision, storage, &key, None)?;
        let Some(previous) = self.objects.get_mut(storage).and_then(|m| m.remove(&key)) else {
            return Ok(None);
        };
        let mut last = (*previous).clone();
        last["metadata"]["resourceVersion"] = revision.to_string().into();
        let last = Arc::new(last);
        self.announce(Change {
            revision,
            storage: storage.clone(),
            object: None,
            previous: Some(previous),
        });
        Ok(Some(last))
    }

    /// Goes back to the objects of an earlier revision, which is the present one then. Watchers lose their channels.
    pub(crate) fn restore(&mut self, revision: u64) -> io::Result<Result<(), Compacted>> {
        let storages: BTreeSet<Arc<str>> = self.history.iter().map(|c| c.storage.clone()).collect();
        let mut objects = self.objects.clone();
        for storage in storages {
            let then = match self.list_at(&storage, revision) {
                Ok(then) => then,
                Err(compacted) => return Ok(Err(compacted)),
            };
            objects.insert(storage, then.into_iter().map(|o| (key_of(&o), o)).collect());
        }
        if revision < self.compacted {
            return Ok(Err(Compacted { oldest: self.compacted }));
        }
        (self.objects, self.revision, self.compacted) = (objects, revision, revision);
        self.history.clear();
        self.watchers.clear();
        if let Some(journal) = self.journal.take() {
            self.journal = Some(Journal::rewrite(&journal.path, revision, self.records())?);
        }
        Ok(Ok(()))
    }

    /// Everything that happens to a resource after `since`.
    pub(crate) fn watch(&mut self, storage: &Arc<str>, since: u64) -> Result<Subscription, Compacted> {
        if since < self.compacted {
            return Err(Compacted { oldest: self.compacted });
        }
        let news = self
            .history
            .iter()
            .filter(|c| c.revision > since && c.storage == *storage);
        let backlog = news.cloned().collect();
        let (sender, changes) = mpsc::channel(self.watch_buffer);
        self.watchers.push((storage.clone(), sender));
        Ok(Subscription {
            backlog,
            changes,
            revision: self.revision,
        })
    }

    fn write(&mut self, revision: u64, storage: &str, key: &Key, object: Option<&Arc<Value>>) -> io::Result<()> {
        let Some(mut journal) = self.journal.take() else {
            return Ok(());
        };
        let live: usize = self.objects.values().map(BTreeMap::len).sum();
        let result = journal.append(&Record::borrowed(revision, storage, key, object.map(|o| &**o)));
        if result.is_ok() && journal.records > 10_000 + 4 * live {
            // The change is already on disk; a failed rewrite leaves the old journal in place and is tried again.
            if let Err(error) = self.shrink(&mut journal, revision, storage, key, object) {
                tracing::warn!(%error, "cannot compact the API server's state file");
            }
        }
        self.journal = Some(journal);
        result
    }

    fn shrink(
        &self,
        journal: &mut Journal,
        revision: u64,
        storage: &str,
        key: &Key,
        object: Option<&Arc<Value>>,
    ) -> io::Result<()> {
        let pending = Record::borrowed(revision, storage, key, object.map(|o| &**o));
        let records = self.records().chain(std::iter::once(pending));
        *journal = Journal::rewrite(&journal.path, revision, records)?;
        Ok(())
    }

    fn records(&self) -> impl Iterator<Item = Value> {
        let all = self
            .objects
            .iter()
            .flat_map(|(s, m)| m.iter().map(move |(k, o)| (s, k, o)));
        all.map(|(storage, key, object)| Record::borrowed(0, storage, key, Some(object)))
    }

    fn announce(&mut self, change: Change) {
        self.revision = change.revision;
        let change = Arc::new(change);
        self.history.push_back(change.clone());
        while self.history.len() > self.history_limit {
            if let Some(old) = self.history.pop_front() {
                self.compacted = old.revision;
            }
        }
        // A full buffer drops the sender, which ends the watch; so does a closed one.
        self.watchers
            .retain(|(storage, sender)| match *storage == change.storage {
                true => sender.try_send(change.clone()).is_ok(),
                false => !sender.is_closed(),
            });
    }
}

fn key_of(object: &Value) -> Key {
    let part = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    (part("namespace"), part("name"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(name: &str, value: i64) -> Value {
        json!({"metadata": {"namespace": "ns", "name": name}, "value": value})
    }

    #[test]
    fn earlier_revisions_can_be_listed_until_compacted() {
        let mut store = Store::open(None, 4, 8).expect("in memory");
        let kind: Arc<str> = "/things".into();
        store.put(&kind, object("a", 1)).expect("put");
        let then = store.revision();
        store.put(&kind, object("b", 1)).expect("put");
        store.put(&kind, object("a", 2)).expect("put");
        store.remove(&kind, "ns", "b").expect("remove");
        let old = store.list_at(&kind, then).expect("kept");
        assert_eq!(old.iter().map(|o| o["value"].as_i64()).collect::<Vec<_>>(), [Some(1)]);
        store.put(&kind, object("c", 1)).expect("put");
        store.put(&kind, object("d", 1)).expect("put");
        assert_eq!(
            store.list_at(&kind, then).expect_err("forgotten"),
            Compacted { oldest: then + 1 }
        );
    }

    #[test]
    fn a_slow_watcher_loses_its_channel_and_others_do_not() {
        let mut store = Store::open(None, 100, 2).expect("in memory");
        let kind: Arc<str> = "/things".into();
        let mut slow = store.watch(&kind, 1).expect("from the start");
        for i in 0..3 {
            store.put(&kind, object("a", i)).expect("put");
        }
        assert!(slow.changes.try_recv().is_ok());
        assert!(slow.changes.try_recv().is_ok());
        assert!(
            slow.changes
                .try_recv()
                .is_err_and(|e| e == mpsc::error::TryRecvError::Disconnected)
        );
        let fresh = store.watch(&kind, 2).expect("kept");
        assert_eq!(fresh.backlog.len(), 2);
    }

    #[test]
    fn a_torn_last_line_is_dropped_and_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("state");
        let kind: Arc<str> = "/things".into();
        let mut store = Store::open(Some(&file), 10, 2).expect("new file");
        store.put(&kind, object("a", 1)).expect("put");
        store.put(&kind, object("b", 1)).expect("put");
        let revision = store.revision();
        drop(store);
        let whole = std::fs::read_to_string(&file).expect("read");
        std::fs::write(&file, format!("{whole}{{\"rv\":9,\"res")).expect("write");
        let store = Store::open(Some(&file), 10, 2).expect("torn tail");
        assert_eq!((store.list(&kind).len(), store.revision()), (2, revision));
        drop(store);
        std::fs::write(&file, whole.replacen("{\"", "{", 2)).expect("write");
        assert!(
            Store::open(Some(&file), 10, 2)
                .expect_err("damaged")
                .to_string()
                .contains("line")
        );
    }
}
