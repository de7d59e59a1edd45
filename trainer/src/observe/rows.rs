//! The files with a row per step: the official CSV, and JSON lines with everything.
//!
//! A row that cannot be written, on a full disk say, never ends a run: it waits in memory until it can be, and its
//! absence is said once.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use shardtool::Escaped;

use super::Record;
use crate::durable;

/// The header of the official log.
const COLUMNS: &str = "epoch,itr,loss,mask-A,mask-B,time (ms)\n";
/// Bytes of rows that may wait for a disk; beyond it, new ones are lost. A row has about 300.
const LONGEST_WAIT: usize = 64 << 20;

/// The two files with a row per step.
#[derive(Debug)]
pub(super) struct Rows {
    csv: Appended,
    json: Appended,
}

impl Rows {
    /// Opens the files for appending, after cutting the rows of step `first` and later, and a torn last line.
    pub(super) fn open(
        folder: &Path,
        tag: &str,
        rank: u32,
        first: u64,
        epoch_len: u64,
    ) -> Result<Rows, super::Error> {
        let csv = folder.join(format!("{tag}_r{rank}.csv"));
        let json = folder.join(format!("{tag}_r{rank}.jsonl"));
        let cut = |path: &Path, fresh: &str, keep: &dyn Fn(&str) -> bool| {
            cut(path, fresh, keep).map_err(|cause| super::Error::log(path, cause))
        };
        cut(&csv, COLUMNS, &|line| {
            csv_step(line, epoch_len).is_some_and(|step| step < first)
        })?;
        cut(&json, "", &|line| {
            serde_json::from_str::<Record>(line).is_ok_and(|record| record.step < first)
        })?;
        Ok(Rows {
            csv: Appended::open(csv)?,
            json: Appended::open(json)?,
        })
    }

    /// Appends the rows of a step.
    pub(super) fn write(&mut self, record: &Record) {
        // The official column is the time of the computation alone.
        let compute_ms = (record.step_ms - record.wait_ms).max(0.0) as u64;
        self.csv.append(format!(
            "{},{},{:.5},{:.5},{:.5},{compute_ms}\n",
            record.epoch, record.itr, record.loss, record.context_len, record.target_len
        ));
        let row = serde_json::to_string(record).expect("a record of numbers always serialises");
        self.json.append(row + "\n");
    }

    /// Returns handles to the files, for synchronising them with the disk.
    pub(super) fn files(&self) -> io::Result<Vec<File>> {
        [&self.csv, &self.json]
            .into_iter()
            .map(|appended| appended.file.try_clone())
            .collect()
    }
}

/// A file that grows row by row.
#[derive(Debug)]
struct Appended {
    path: PathBuf,
    file: File,
    /// What could not be written yet.
    waiting: Vec<u8>,
    is_failing: bool,
}

impl Appended {
    fn open(path: PathBuf) -> Result<Appended, super::Error> {
        let opened = OpenOptions::new().append(true).open(&path);
        let file = opened.map_err(|cause| super::Error::log(&path, cause))?;
        Ok(Appended {
            path,
            file,
            waiting: Vec::new(),
            is_failing: false,
        })
    }

    /// Appends a row, in one write where all goes well: a reader that follows the file sees whole rows.
    fn append(&mut self, row: String) {
        if self.waiting.len() < LONGEST_WAIT {
            self.waiting.extend_from_slice(row.as_bytes());
        }
        match self.write_waiting() {
            Ok(()) if self.is_failing => {
                self.is_failing = false;
                tracing::info!(
                    "{}: rows are written again, none is missing",
                    Escaped::new(&self.path)
                );
            }
            Ok(()) => {}
            Err(error) => {
                if !self.is_failing {
                    self.is_failing = true;
                    tracing::warn!(
                        "{}: a row cannot be written: {error}; rows wait in memory, and training goes on",
                        Escaped::new(&self.path)
                    );
                }
            }
        }
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            match self.file.write(&self.waiting) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                // What a full disk still took is not written twice.
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The 0-based step of a row of the official log.
fn csv_step(line: &str, epoch_len: u64) -> Option<u64> {
    let mut fields = line.split(',');
    let epoch: u64 = fields.next()?.parse().ok()?;
    let itr: u64 = fields.next()?.parse().ok()?;
    Some(epoch.checked_sub(1)? * epoch_len + itr)
}

/// Keeps the whole lines of `path` that `keep` accepts, or writes `fresh` where there is nothing yet.
///
/// The new content is written aside and renamed over, so that a crash here loses nothing. A line that is no text is not
/// accepted either.
fn cut(path: &Path, fresh: &str, keep: impl Fn(&str) -> bool) -> io::Result<()> {
    let old = match std::fs::read(path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let kept = old
        .iter()
        .flat_map(|bytes| bytes.split_inclusive(|&byte| byte == b'\n'));
    let kept = kept.filter(|line| {
        let line = line
            .strip_suffix(b"\n")
            .and_then(|line| str::from_utf8(line).ok());
        line.is_some_and(|line| keep(line.trim_end_matches('\r')))
    });
    let mut new: Vec<u8> = kept.flatten().copied().collect();
    if !new.starts_with(fresh.as_bytes()) {
        new.splice(0..0, fresh.bytes());
    }
    if old.as_deref() != Some(&new) {
        durable::write(path, &new)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn rows_have_the_official_form() {
        let folder = tempfile::tempdir().unwrap();
        let mut rows = Rows::open(folder.path(), "jepa", 0, 0, 5).unwrap();
        rows.write(&record(7));
        let text = std::fs::read_to_string(folder.path().join("jepa_r0.csv")).unwrap();
        assert_eq!(
            text,
            "epoch,itr,loss,mask-A,mask-B,time (ms)\n2,2,7.12346,12.00000,9.50000,20\n"
        );
    }

    #[test]
    fn resuming_cuts_rows_beyond_the_checkpoint_and_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut rows = Rows::open(folder.path(), "jepa", 0, 0, 5).unwrap();
        for step in 0..9 {
            rows.write(&record(step));
        }
        rows.csv.file.write_all(b"2,9,0.1").unwrap();
        rows.json.file.write_all(b"{\"step\":9,\"lo\xff").unwrap();
        drop(rows);
        let mut rows = Rows::open(folder.path(), "jepa", 0, 6, 5).unwrap();
        rows.write(&record(6));
        let csv = std::fs::read_to_string(folder.path().join("jepa_r0.csv")).unwrap();
        assert_eq!(csv.lines().count(), 8, "{csv}");
        assert!(
            csv.ends_with("2,0,5.12346,12.00000,9.50000,20\n2,1,6.12346,12.00000,9.50000,20\n"),
            "{csv}"
        );
        let json = std::fs::read_to_string(folder.path().join("jepa_r0.jsonl")).unwrap();
        let steps: Vec<u64> = json
            .lines()
            .map(|line| serde_json::from_str::<Record>(line).unwrap().step)
            .collect();
        assert_eq!(steps, [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_spreadsheets_line_ends_and_a_foreign_header_cost_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jepa_r0.csv");
        std::fs::write(
            &path,
            "epoch,itr,loss,mask-A,mask-B,time (ms)\r\n1,0,0.5,1.0,1.0,20\r\n",
        )
        .unwrap();
        drop(Rows::open(folder.path(), "jepa", 0, 1, 5).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "epoch,itr,loss,mask-A,mask-B,time (ms)\n1,0,0.5,1.0,1.0,20\r\n"
        );
    }

    #[test]
    fn a_row_that_cannot_be_written_waits() {
        let folder = tempfile::tempdir().unwrap();
        let mut rows = Rows::open(folder.path(), "jepa", 0, 0, 5).unwrap();
        let whole = std::mem::replace(
            &mut rows.json.file,
            OpenOptions::new().append(true).open("/dev/full").unwrap(),
        );
        rows.write(&record(0));
        rows.write(&record(1));
        rows.json.file = whole;
        rows.write(&record(2));
        let json = std::fs::read_to_string(folder.path().join("jepa_r0.jsonl")).unwrap();
        assert_eq!(json.lines().count(), 3, "{json}");
    }
}
