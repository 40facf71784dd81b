//! What commands print: plain tables and JSON, the same on a terminal and in a pipe.

mod time;

use std::fmt;

use clap::ValueEnum;
use comfy_table::presets;

pub(crate) use time::{ago, duration};

/// How to print an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// JSON for programs.
    Json,
}

/// A command's whole answer; nothing is printed before it is complete.
#[derive(Debug)]
pub(crate) struct Output {
    /// For standard output.
    pub(crate) text: String,
    /// For standard error, one line each.
    pub(crate) warnings: Vec<String>,
    /// Whether everything asked for is in it; otherwise the exit status is 1.
    pub(crate) complete: bool,
}

/// Columns without lines between them, as kubectl prints them.
pub(crate) struct Table<const COLUMNS: usize>(comfy_table::Table);

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// A table with these headings.
    pub(crate) fn new(header: [&str; COLUMNS]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_header(header);
        Self(table)
    }

    /// Adds a row. Empty cells become `-`, so that columns can be counted.
    pub(crate) fn row(&mut self, cells: [String; COLUMNS]) {
        self.0
            .add_row(cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }));
    }
}

impl<const COLUMNS: usize> fmt::Display for Table<COLUMNS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.0.lines() {
            writeln!(f, "{}", line.trim())?;
        }
        Ok(())
    }
}
