//! The log with everything: `<write_tag>_r0.jsonl`, a [`Record`] per line, with when it was.

use std::fs::File;
use std::io;
use std::path::Path;

use super::cut::Line;
use super::moment::Row;
use super::rows::Rows;
use super::{Error, Record, path_of};

/// The JSON lines of a run.
#[derive(Debug)]
pub(super) struct Jsonl(Rows);

impl Jsonl {
    /// Opens the log in `folder` for appending, after cutting the rows of step `first` and later.
    pub(super) fn open(folder: &Path, tag: &str, first: u64) -> Result<Jsonl, Error> {
        let judge = move |line: &str| match serde_json::from_str::<Record>(line) {
            Ok(record) if record.step < first => Line::Keep,
            Ok(_) => Line::Drop,
            Err(_) => Line::Foreign,
        };
        Ok(Jsonl(Rows::open(
            path_of(folder, tag, "jsonl"),
            "",
            || judge,
        )?))
    }

    /// Appends the row of a step.
    pub(super) fn write(&mut self, row: &Row) {
        let row = serde_json::to_string(row).expect("a record of numbers always serialises");
        self.0.append(&(row + "\n"));
    }

    /// Returns the file of rows.
    pub(super) fn rows(&mut self) -> &mut Rows {
        &mut self.0
    }

    /// Returns a handle to the file.
    pub(super) fn file(&self) -> io::Result<File> {
        self.0.file()
    }
}
