//! The state file: one JSON object a line, appended and synced before a change is acknowledged; rewritten whole (beside,
//! then renamed) when the server starts and when it has grown.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

/// One line read back.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) revision: u64,
    pub(super) storage: String,
    pub(super) key: (String, String),
    pub(super) object: Option<Value>,
}

impl Record {
    /// The line of a change, to be written.
    pub(super) fn borrowed(revision: u64, storage: &str, key: &(String, String), object: Option<&Value>) -> Value {
        json!({"rv": revision, "res": storage, "ns": key.0, "name": key.1, "obj": object})
    }

    fn parse(line: &str) -> Option<Self> {
        let mut value: Value = serde_json::from_str(line).ok()?;
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        Some(Self {
            revision: value["rv"].as_u64()?,
            storage: text("res"),
            key: (text("ns"), text("name")),
            object: Some(value["obj"].take()).filter(|o| !o.is_null()),
        })
    }
}

#[derive(Debug)]
pub(super) struct Journal {
    pub(super) path: PathBuf,
    pub(super) records: usize,
    file: File,
    length: u64,
}

impl Journal {
    /// Replaces the file by `records`; a reader sees either the old one or the new one.
    pub(super) fn rewrite(path: &Path, revision: u64, records: impl Iterator<Item = Value>) -> io::Result<Self> {
        let beside = path.with_extension("new");
        let mut text = format!(
            "{}\n",
            Record::borrowed(revision, "", &(String::new(), String::new()), None)
        );
        let mut count = 1;
        for record in records {
            text.push_str(&format!("{record}\n"));
            count += 1;
        }
        let mut file = private(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        let parent = path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()?;
        Ok(Self {
            path: path.to_owned(),
            records: count,
            file,
            length: text.len() as u64,
        })
    }

    /// Appends a line and waits until it is on disk. After an error the file is as it was.
    pub(super) fn append(&mut self, record: &Value) -> io::Result<()> {
        let line = format!("{record}\n");
        let written = self
            .file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            self.file.set_len(self.length)?;
            io::Seek::seek(&mut self.file, io::SeekFrom::Start(self.length))?;
            return Err(error);
        }
        self.length += line.len() as u64;
        self.records += 1;
        Ok(())
    }
}

/// Every record of the file; none when there is no file. A last line cut short by a crash was never acknowledged.
pub(super) fn read(path: &Path) -> io::Result<Vec<Record>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |(number, line): (usize, &str)| {
        Record::parse(line).ok_or_else(|| {
            let why = format!(
                "{}: line {} is damaged: restore the file or remove it to start empty",
                path.display(),
                number + 1
            );
            io::Error::new(io::ErrorKind::InvalidData, why)
        })
    };
    whole.lines().enumerate().map(parse).collect()
}

/// Secrets are in it.
fn private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}
