//! DELs that the agent has not heard of yet: one file each, so that a DEL succeeds while the agent is down.
//!
//! The plugin writes them; the agent carries them out when it starts, before it serves, and looks again now and then.
//! A DEL may be carried out twice: it is idempotent.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha1::{Digest, Sha1};

use crate::protocol::{Attachment, Del, Request, frame};

/// Where they are kept.
pub const DEFAULT_DIR: &str = "/var/lib/margay/cni-dels";

/// No plugin lives for so long.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A folder of DELs.
#[derive(Debug, Clone)]
pub struct Queue {
    dir: PathBuf,
}

/// A DEL on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The request as the plugin would have sent it.
    pub del: Del,
    path: PathBuf,
}

/// A file that could not be used, or a folder that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", .path.display())]
pub struct QueueError {
    path: PathBuf,
    source: io::Error,
}

impl Queue {
    /// The queue in a folder, which need not exist yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Adds a DEL; durable on return. The same attachment again replaces the older entry.
    pub fn push(&self, del: &Del) -> Result<(), QueueError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(|e| failed(&self.dir, e))?;
        let path = self.path(&del.attachment);
        // Two plugins may write at once; what is not renamed yet is not looked at.
        let draft = path.with_extension(format!("{}.new", std::process::id()));
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&draft)?;
            file.write_all(&frame::encode_request(&Request::Del(del.clone())))?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|e| failed(&path, e))
    }

    /// What waits, the oldest first, and what cannot be read. A folder that does not exist is an empty queue.
    pub fn pending(&self) -> Result<(Vec<Entry>, Vec<QueueError>), QueueError> {
        let listing = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
            listing => listing.map_err(|e| failed(&self.dir, e))?,
        };
        let (mut entries, mut unusable) = (Vec::new(), Vec::new());
        for item in listing {
            let item = item.map_err(|e| failed(&self.dir, e))?;
            let path = item.path();
            if path.extension().is_none_or(|extension| extension != "del") {
                continue;
            }
            match (read(&path), item.metadata().and_then(|data| data.modified())) {
                (Ok(del), Ok(modified)) => entries.push((modified, Entry { del, path })),
                // Carried out by somebody else in between.
                (Err(error), _) | (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
                (Err(error), _) | (_, Err(error)) => unusable.push(failed(&path, error)),
            }
        }
        entries.sort_by_key(|(modified, _)| *modified);
        Ok((entries.into_iter().map(|(_, entry)| entry).collect(), unusable))
    }

    /// Whether a DEL of this attachment waits: an ADD of it must carry that out first.
    pub fn find(&self, attachment: &Attachment) -> Result<Option<Entry>, QueueError> {
        let path = self.path(attachment);
        match read(&path) {
            Ok(del) => Ok(Some(Entry { del, path })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&path, error)),
        }
    }

    /// Removes an entry that was carried out. Fine if it is gone.
    pub fn done(&self, entry: &Entry) -> Result<(), QueueError> {
        match fs::remove_file(&entry.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&entry.path, error)),
            _ => Ok(()),
        }
    }

    /// Removes drafts that a crash left behind.
    pub fn sweep(&self) -> io::Result<()> {
        let listing = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            listing => listing?,
        };
        for item in listing {
            let path = item?.path();
            let is_draft = path.extension().is_some_and(|extension| extension == "new");
            // Younger ones a plugin may be about to rename.
            let age = |path: &Path| fs::metadata(path)?.modified()?.elapsed().map_err(io::Error::other);
            if is_draft && age(&path).is_ok_and(|age| age > ABANDONED) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn path(&self, attachment: &Attachment) -> PathBuf {
        let Attachment {
            container_id,
            network,
            ifname,
        } = attachment;
        let digest = Sha1::digest(format!("{network}/{container_id}/{ifname}").as_bytes());
        let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(name + ".del")
    }
}

fn read(path: &Path) -> io::Result<Del> {
    let bytes = fs::read(path)?;
    match frame::decode_request(&bytes) {
        Ok((_, Request::Del(del))) => Ok(del),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "holds another request than a DEL",
        )),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

fn failed(path: &Path, source: io::Error) -> QueueError {
    QueueError {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn del(container: &str) -> Del {
        let attachment = Attachment {
            container_id: container.into(),
            network: "margay".into(),
            ifname: "eth0".into(),
        };
        Del {
            attachment,
            netns: Some("/run/netns/x".into()),
            pod: None,
        }
    }

    #[test]
    fn what_is_pushed_is_pending_until_it_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::new(dir.path().join("dels"));
        assert!(queue.pending().unwrap().0.is_empty());
        queue.push(&del("c1")).unwrap();
        queue.push(&del("c2")).unwrap();
        queue.push(&del("c2")).unwrap();
        let (entries, unusable) = queue.pending().unwrap();
        assert!(unusable.is_empty());
        let mut names: Vec<_> = entries
            .iter()
            .map(|entry| entry.del.attachment.container_id.as_str())
            .collect();
        names.sort();
        assert_eq!(names, ["c1", "c2"]);
        let found = queue.find(&del("c1").attachment).unwrap().unwrap();
        assert_eq!(found.del, del("c1"));
        queue.done(&found).unwrap();
        queue.done(&found).unwrap();
        assert!(queue.find(&del("c1").attachment).unwrap().is_none());
    }

    #[test]
    fn damage_is_reported_and_drafts_are_not_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::new(dir.path());
        queue.push(&del("c1")).unwrap();
        fs::write(dir.path().join("0000.del"), "{\"version\":1").unwrap();
        fs::write(dir.path().join("0001.7.new"), "half").unwrap();
        let (entries, unusable) = queue.pending().unwrap();
        assert_eq!((entries.len(), unusable.len()), (1, 1));
        assert!(
            unusable[0]
                .to_string()
                .contains("0000.del: the message is not understood"),
            "{}",
            unusable[0]
        );
    }
    #[test]
    fn abandoned_drafts_are_swept_away() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::new(dir.path());
        queue.push(&del("c1")).unwrap();
        for (name, age) in [("0001.7.new", 7200), ("0002.8.new", 10)] {
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age))
                .unwrap();
        }
        queue.sweep().unwrap();
        assert!(!dir.path().join("0001.7.new").exists() && dir.path().join("0002.8.new").exists());
        assert_eq!(queue.pending().unwrap().0.len(), 1);
        Queue::new(dir.path().join("none")).sweep().unwrap();
    }
}
