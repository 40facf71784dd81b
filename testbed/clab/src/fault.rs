//! Faults of a topology file, worded for the person who wrote it.

use std::fmt;
use std::path::PathBuf;

use crate::yaml::Mark;

/// One thing that is wrong with a topology file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line (from 1), 0 when the fault belongs to no line.
    pub line: u64,
    /// Column (from 1), 0 when the fault belongs to no line.
    pub column: u64,
    /// Path of the field, e.g. `topology.nodes.tor1.kind`.
    pub field: String,
    /// What is wrong, and the way out.
    pub message: String,
}

/// Every fault of one file, in the order of its lines. Nothing has been created when this is returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// The file as the user named it.
    pub file: PathBuf,
    /// At least one fault.
    pub faults: Vec<Fault>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", self.file.display())?;
            if fault.line > 0 {
                write!(f, ":{}:{}", fault.line, fault.column)?;
            }
            if !fault.field.is_empty() {
                write!(f, ": {}", fault.field)?;
            }
            write!(f, ": {}", fault.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// Gathers faults and warnings while a file is read.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) faults: Vec<Fault>,
    pub(crate) warnings: Vec<String>,
}

impl Findings {
    /// Notes a fault of the value at `mark`.
    pub(crate) fn fault(&mut self, mark: Mark, field: impl Into<String>, message: impl Into<String>) {
        self.faults.push(Fault {
            line: mark.line,
            column: mark.column,
            field: field.into(),
            message: message.into(),
        });
    }

    /// Notes something that does no harm but will not have the effect its writer may expect.
    pub(crate) fn warn(&mut self, mark: Mark, field: &str, message: &str) {
        self.warnings.push(format!("line {}: {field}: {message}", mark.line));
    }
}
