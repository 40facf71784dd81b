//! The durable records of this node's pod attachments: one file each, written before the runtime is answered.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::persist::{self, Format, PersistError};

const ENDPOINT: Format = Format {
    kind: "endpoint",
    version: 1,
};

/// What identifies an attachment to the runtime: one interface of one container in one network.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttachmentKey {
    /// Name of the network configuration.
    pub network: String,
    /// The sandbox's id.
    pub container: String,
    /// Interface inside the container.
    pub ifname: String,
}

impl std::fmt::Display for AttachmentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.network, self.container, self.ifname)
    }
}

/// An attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// Its identity.
    pub key: AttachmentKey,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// UID as the runtime gave it: for static pods the hash of their configuration; empty when it gave none.
    pub runtime_uid: String,
    /// UID of the Pod object that matched.
    pub pod_uid: String,
    /// Host side interface.
    pub interface: String,
    /// Addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// MTU of the link, in bytes.
    pub mtu: u32,
    /// IPAM handle that releases the addresses.
    pub handle: String,
    /// Path of the container's network namespace.
    pub netns: String,
    /// Rises with every attachment on this node: of two for one pod the higher is the living one.
    pub sequence: u64,
}

impl EndpointRecord {
    /// Its addresses as /32 and /128.
    pub fn host_networks(&self) -> impl Iterator<Item = IpNetwork> + '_ {
        self.addresses.iter().map(|address| IpNetwork::from(*address))
    }
}

/// Records by what identifies them.
pub type Records = BTreeMap<AttachmentKey, EndpointRecord>;

/// All records, in memory and on disk.
#[derive(Debug)]
pub struct EndpointStore {
    dir: PathBuf,
    records: Records,
    /// The highest sequence given so far.
    sequence: u64,
    /// One write at a time, in order.
    disk: Arc<tokio::sync::Mutex<()>>,
}

impl EndpointStore {
    /// Opens the folder, creating it when missing. Files that cannot be used are returned with the reason and left where
    /// they are: their interfaces stay unknown and so pass no traffic.
    pub fn open(dir: &Path) -> Result<(Self, Vec<PersistError>), PersistError> {
        persist::private_dir(dir)?;
        // Drafts of a crash are in nobody's way.
        let _ = persist::sweep(dir);
        let (records, unusable) = Self::read(dir)?;
        Ok((
            Self {
                dir: dir.to_owned(),
                sequence: records.values().map(|record| record.sequence).max().unwrap_or(0),
                records,
                disk: Arc::default(),
            },
            unusable,
        ))
    }

    /// The records in a folder, which need not exist, and why others cannot be used. Nothing is changed.
    pub fn read(dir: &Path) -> Result<(Records, Vec<PersistError>), PersistError> {
        let wrap = |source| PersistError::Io {
            path: dir.to_owned(),
            source,
        };
        let (mut records, mut unusable) = (BTreeMap::new(), Vec::new());
        let entries = match std::fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((records, unusable)),
            entries => entries.map_err(wrap)?,
        };
        for entry in entries {
            let path = entry.map_err(wrap)?.path();
            // What never was renamed into place.
            if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with('.'))
            {
                continue;
            }
            match persist::load::<EndpointRecord>(&path, ENDPOINT) {
                Ok(Some(record)) => _ = records.insert(record.key.clone(), record),
                Ok(None) => {}
                Err(error) => unusable.push(error),
            }
        }
        Ok((records, unusable))
    }

    /// Stores a record under the next sequence; durable on return. Readers are not held up by the disk.
    pub async fn put(store: &Mutex<Self>, mut record: EndpointRecord) -> Result<EndpointRecord, PersistError> {
        let (path, disk) = {
            let mut store = store.lock();
            store.sequence += 1;
            record.sequence = store.sequence;
            (store.path(&record.key), store.disk.clone())
        };
        let turn = disk.lock_owned().await;
        let record = persist::aside(move || {
            let _turn = turn;
            persist::save(&path, ENDPOINT, &record).map(|()| record)
        })
        .await?;
        store.lock().remember(record.clone());
        Ok(record)
    }

    /// The half of [`Self::put`] that is in memory.
    pub(crate) fn remember(&mut self, record: EndpointRecord) {
        self.records.insert(record.key.clone(), record);
    }

    /// Removes a record; durable on return. A missing one is fine. Readers are not held up by the disk.
    pub async fn remove(store: &Mutex<Self>, key: &AttachmentKey) -> Result<Option<EndpointRecord>, PersistError> {
        let (path, disk) = {
            let store = store.lock();
            (store.path(key), store.disk.clone())
        };
        let turn = disk.lock_owned().await;
        persist::aside(move || {
            let _turn = turn;
            persist::remove(&path)
        })
        .await?;
        Ok(store.lock().records.remove(key))
    }

    /// The record of a container's interface. A network that was given another name has its records under the old one.
    pub fn of_container(&self, key: &AttachmentKey) -> Option<&EndpointRecord> {
        let same = |record: &&EndpointRecord| record.key.container == key.container && record.key.ifname == key.ifname;
        self.records.get(key).or_else(|| self.records.values().find(same))
    }

    /// All records.
    pub fn iter(&self) -> impl Iterator<Item = &EndpointRecord> {
        self.records.values()
    }

    fn path(&self, key: &AttachmentKey) -> PathBuf {
        let mut hash = Sha256::new();
        for part in [&key.network, &key.container, &key.ifname] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        let name: String = hash
            .finalize()
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.dir.join(name + ".json")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(container: &str) -> EndpointRecord {
        EndpointRecord {
            key: AttachmentKey {
                network: "margay".into(),
                container: container.into(),
                ifname: "eth0".into(),
            },
            namespace: "shop".into(),
            pod: "checkout".into(),
            runtime_uid: "u".into(),
            pod_uid: "u".into(),
            interface: "mgy0123456789a".into(),
            addresses: vec!["10.244.0.5".parse().unwrap()],
            mtu: 1500,
            handle: format!("margay.{container}"),
            netns: "/run/netns/x".into(),
            sequence: 1,
        }
    }

    #[tokio::test]
    async fn records_survive_reopening_and_their_order_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (store, unusable) = EndpointStore::open(dir.path()).unwrap();
        assert!(unusable.is_empty());
        let store = Mutex::new(store);
        EndpointStore::put(&store, record("c1")).await.unwrap();
        EndpointStore::put(&store, record("c2")).await.unwrap();
        EndpointStore::remove(&store, &record("c1").key).await.unwrap();
        let (store, _) = EndpointStore::open(dir.path()).unwrap();
        let second = EndpointRecord {
            sequence: 2,
            ..record("c2")
        };
        assert_eq!(store.iter().cloned().collect::<Vec<_>>(), [second]);
        let third = EndpointStore::put(&Mutex::new(store), record("c3")).await.unwrap();
        assert_eq!(third.sequence, 3);
    }

    /// A disk that takes its time, played by a holder of the disk's turn.
    #[tokio::test]
    async fn readers_do_not_wait_for_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = Mutex::new(EndpointStore::open(dir.path()).unwrap().0);
        let disk = store.lock().disk.clone();
        let turn = disk.lock().await;
        let mut writing = Box::pin(EndpointStore::put(&store, record("c1")));
        assert!(futures::poll!(writing.as_mut()).is_pending());
        assert!(store.try_lock().is_some_and(|store| store.iter().next().is_none()));
        drop(turn);
        writing.await.unwrap();
        assert_eq!(store.lock().iter().count(), 1);
    }

    #[tokio::test]
    async fn a_damaged_record_is_reported_and_does_not_hide_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let store = Mutex::new(EndpointStore::open(dir.path()).unwrap().0);
        EndpointStore::put(&store, record("c1")).await.unwrap();
        EndpointStore::put(&store, record("c2")).await.unwrap();
        let path = store.lock().path(&record("c1").key);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let (store, unusable) = EndpointStore::open(dir.path()).unwrap();
        assert_eq!(store.iter().count(), 1);
        assert_eq!(unusable.len(), 1);
        assert!(unusable[0].to_string().contains("damaged"), "{}", unusable[0]);
    }

    #[test]
    fn an_unfinished_write_is_swept_away() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".x.json.123.new"), "mar").unwrap();
        let (store, unusable) = EndpointStore::open(dir.path()).unwrap();
        assert!(unusable.is_empty() && store.iter().next().is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
