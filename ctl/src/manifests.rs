//! Kubernetes manifests from files and folders, read as the API server would take them.

mod document;
mod read;
mod state;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use state::State;

/// Why manifests were refused; none of them is used then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    /// A path could not be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The path as given, or found in a folder that was given.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A folder holds no manifest.
    #[error("{}: no .yaml, .yml or .json file in this folder", .0.display())]
    Empty(PathBuf),
    /// A document is not what it claims to be.
    #[error("{place}: {message}")]
    Invalid {
        /// Where it stands.
        place: Place,
        /// What is wrong and what would be right.
        message: String,
    },
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file, as the user would name it.
    pub(crate) file: Arc<str>,
    /// The line, from 1.
    pub(crate) line: usize,
}

impl Place {
    /// An error about this place.
    fn invalid(&self, message: impl Into<String>) -> ManifestError {
        ManifestError::Invalid {
            place: self.clone(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Reads every manifest below `paths`; folders are walked, their files taken in order of name.
pub(crate) fn load(paths: &[PathBuf]) -> Result<State, ManifestError> {
    let mut state = State::default();
    for file in read::files(paths)? {
        for document in document::split(&file) {
            state.add(document.parse()?)?;
        }
    }
    state.finish()
}
