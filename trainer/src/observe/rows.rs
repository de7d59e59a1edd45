//! A file with a row per step, which no failure of a disk takes out of step with the run.
//!
//! A row that cannot be written, on a full disk say, never ends a run: it waits in memory until it can be, and its
//! absence is said once.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use shardtool::Escaped;

use crate::durable;

/// Limit of the bytes of rows that wait for a disk; beyond it, new ones are lost. A row has about 300.
const LONGEST_WAIT: usize = 64 << 20;

/// A file that grows row by row.
#[derive(Debug)]
pub(super) struct Rows {
    path: PathBuf,
    file: File,
    /// Rows that could not be written yet.
    waiting: Vec<u8>,
    is_failing: bool,
}

impl Rows {
    /// Opens `path` for appending, after cutting the lines that `keep` does not accept.
    ///
    /// `header` is what the file begins with.
    pub(super) fn open(
        path: PathBuf,
        header: &str,
        keep: impl FnMut(&str) -> bool,
    ) -> Result<Rows, super::Error> {
        let opened =
            cut(&path, header, keep).and_then(|()| OpenOptions::new().append(true).open(&path));
        let file = opened.map_err(|cause| super::Error::log(&path, cause))?;
        Ok(Rows {
            path,
            file,
            waiting: Vec::new(),
            is_failing: false,
        })
    }

    /// Appends a row, in one write where all goes well: a reader that follows the file sees whole rows.
    pub(super) fn append(&mut self, row: &str) {
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

    /// Returns a handle to the file, for synchronising it with the disk.
    pub(super) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
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

/// Keeps the whole lines of `path` that `keep` accepts, or writes `header` where there is nothing yet.
///
/// The new content is written aside and renamed over, so that a crash here loses nothing. A line that is no text is not
/// accepted either.
fn cut(path: &Path, header: &str, mut keep: impl FnMut(&str) -> bool) -> io::Result<()> {
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
    if !new.starts_with(header.as_bytes()) {
        new.splice(0..0, header.bytes());
    }
    if old.as_deref() != Some(&new) {
        durable::write(path, &new)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_cannot_be_written_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        let mut rows = Rows::open(path.clone(), "", |_| true).unwrap();
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let whole = std::mem::replace(&mut rows.file, full);
        rows.append("first\n");
        rows.append("second\n");
        rows.file = whole;
        rows.append("third\n");
        assert_eq!(
            std::fs::read_to_string(path).unwrap(),
            "first\nsecond\nthird\n"
        );
    }

    #[test]
    fn a_torn_line_and_one_that_is_no_text_are_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        std::fs::write(&path, b"header\na\nb\xff\nc\r\nd").unwrap();
        drop(
            Rows::open(path.clone(), "header\n", |line| {
                line.len() == 1 || line == "header"
            })
            .unwrap(),
        );
        assert_eq!(std::fs::read(path).unwrap(), b"header\na\nc\r\n");
    }
}
