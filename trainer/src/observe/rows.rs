//! A file with a row per step, which no failure of a disk and no hand of a user takes out of step with the run.
//!
//! * A row that cannot be written, on a full disk say, never ends a run: it waits in memory until it can be, and its
//!   absence is said once.
//! * A file that was deleted, moved or replaced in mid-run is noticed before the next row, and written again under its
//!   name with all its rows, from the descriptor that still leads to them. What took its place is kept.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use shardtool::{Escaped, disk};

use super::cut::{Line, cut};

/// Limit of the bytes of rows that wait for a disk; beyond it, new ones are lost. A row has about 300.
const LONGEST_WAIT: usize = 64 << 20;

/// A file that grows row by row.
#[derive(Debug)]
pub(super) struct Rows {
    path: PathBuf,
    header: &'static str,
    file: File,
    /// Device and number of the file, by which another one under its name is noticed.
    identity: (u64, u64),
    /// Bytes of the file as this process left it.
    length: u64,
    /// Rows that could not be written yet.
    waiting: Vec<u8>,
    is_failing: bool,
    /// Says that the file has not the name any more, which has been said.
    is_lost: bool,
}

impl Rows {
    /// Opens `path` for appending, after cutting the lines that `judge` does not keep.
    ///
    /// `header` is what the file begins with; `judge` makes what judges its lines, from the first on.
    pub(super) fn open<J: FnMut(&str) -> Line>(
        path: PathBuf,
        header: &'static str,
        judge: impl Fn() -> J,
    ) -> Result<Rows, super::Error> {
        let opened = cut(&path, header, judge).and_then(|()| opened(&path));
        let (file, found) = opened.map_err(|cause| super::Error::log(&path, cause))?;
        Ok(Rows {
            path,
            header,
            identity: (found.dev(), found.ino()),
            length: found.len(),
            file,
            waiting: Vec::new(),
            is_failing: false,
            is_lost: false,
        })
    }

    /// Appends a row, in one write where all goes well: a reader that follows the file sees whole rows.
    pub(super) fn append(&mut self, row: &str) {
        if self.waiting.len() < LONGEST_WAIT {
            self.waiting.extend_from_slice(row.as_bytes());
        }
        self.settle();
    }

    /// Sees to it that the file has its name and all rows.
    pub(super) fn settle(&mut self) {
        self.look();
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

    /// Says at the end of a run what could not be written.
    pub(super) fn finish(&mut self) {
        self.settle();
        if !self.waiting.is_empty() {
            let rows = self.waiting.iter().filter(|byte| **byte == b'\n').count();
            tracing::error!(
                "{}: the last {rows} row(s) could not be written",
                Escaped::new(&self.path)
            );
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
                Ok(written) => {
                    self.length += written as u64;
                    drop(self.waiting.drain(..written));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Notices what became of the file since the last row.
    fn look(&mut self) {
        let outcome = match fs::symlink_metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == self.identity => {
                self.is_lost = false;
                self.compare(&found)
            }
            Ok(_) => self.replaced(),
            Err(error) if error.kind() == ErrorKind::NotFound => self.restore().inspect(|()| {
                self.say("was deleted or moved; it is written again, with all its rows")
            }),
            // Writing will say what is wrong.
            Err(_) => Ok(()),
        };
        if let Err(error) = outcome
            && !self.is_lost
        {
            self.is_lost = true;
            self.say(&format!(
                "was deleted, moved or replaced, and cannot be written again: {error}; it is tried again with each row"
            ));
        }
    }

    /// Goes on behind what another program has made of the file.
    fn compare(&mut self, found: &Metadata) -> io::Result<()> {
        let length = found.len();
        if length == self.length {
            return Ok(());
        }
        self.say("was changed by another program; rows are appended to what is there");
        self.length = length;
        let mut last = [b'\n'];
        if length == 0 {
            self.waiting.splice(0..0, self.header.bytes());
        } else if self.file.read_at(&mut last, length - 1).is_ok() && last != [b'\n'] {
            self.waiting.insert(0, b'\n');
        }
        Ok(())
    }

    /// Puts aside what took the file's place, and writes the file again; or goes on with it where the old one cannot
    /// be reached any more, as when a file system was mounted again.
    fn replaced(&mut self) -> io::Result<()> {
        if self.length > 0 && self.file.read_at(&mut [0], 0).is_err() {
            let (file, found) = opened(&self.path)?;
            self.take(file, &found);
            self.say("cannot be reached as before, and was opened again");
            return Ok(());
        }
        let aside = disk::set_aside(&self.path, "other")?;
        self.restore()?;
        self.say(&format!(
            "was replaced by another program; what it left is now called {}",
            Escaped::new(&aside)
        ));
        Ok(())
    }

    /// Writes the file again under its name, from the descriptor of the old one.
    fn restore(&mut self) -> io::Result<()> {
        let old = &self.file;
        disk::write_with(&self.path, |out| {
            let (mut at, mut bytes) = (0, vec![0; 1 << 16]);
            loop {
                match old.read_at(&mut bytes, at)? {
                    0 => return Ok(()),
                    read => {
                        out.write_all(&bytes[..read])?;
                        at += read as u64;
                    }
                }
            }
        })?;
        let (file, found) = opened(&self.path)?;
        self.take(file, &found);
        Ok(())
    }

    fn take(&mut self, file: File, found: &Metadata) {
        self.file = file;
        self.identity = (found.dev(), found.ino());
        self.length = found.len();
        self.is_lost = false;
    }

    fn say(&self, what: &str) {
        tracing::warn!("{}: {what}", Escaped::new(&self.path));
    }
}

/// Opens a log for appending and for reading what it holds; not through a link.
fn opened(path: &Path) -> io::Result<(File, Metadata)> {
    let file = File::options()
        .read(true)
        .append(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("no file any more"));
    }
    Ok((file, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns rows in a directory of their own, with a first one written.
    fn begun() -> (tempfile::TempDir, PathBuf, Rows) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        let mut rows = Rows::open(path.clone(), "header\n", || |_: &str| Line::Keep).unwrap();
        rows.append("first\n");
        (folder, path, rows)
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_row_that_cannot_be_written_waits() {
        let (_folder, path, mut rows) = begun();
        let full = File::options().append(true).open("/dev/full").unwrap();
        let whole = std::mem::replace(&mut rows.file, full);
        rows.append("second\n");
        rows.append("third\n");
        rows.file = whole;
        rows.finish();
        assert_eq!(read(&path), "header\nfirst\nsecond\nthird\n");
    }

    #[test]
    fn a_deleted_or_moved_file_is_written_again_with_all_rows() {
        let (folder, path, mut rows) = begun();
        fs::remove_file(&path).unwrap();
        rows.append("second\n");
        assert_eq!(read(&path), "header\nfirst\nsecond\n");
        let moved = folder.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        rows.append("third\n");
        assert_eq!(read(&path), "header\nfirst\nsecond\nthird\n");
        assert_eq!(read(&moved), "header\nfirst\nsecond\n");
    }

    #[test]
    fn a_file_whose_directory_is_gone_is_written_again_when_there_is_one() {
        let (folder, path, mut rows) = begun();
        fs::remove_file(&path).unwrap();
        fs::remove_dir(folder.path()).unwrap();
        rows.append("second\n");
        assert!(!path.exists());
        fs::create_dir(folder.path()).unwrap();
        rows.settle();
        assert_eq!(read(&path), "header\nfirst\nsecond\n");
    }

    #[test]
    fn what_took_the_files_place_is_kept() {
        let (folder, path, mut rows) = begun();
        let victim = folder.path().join("victim");
        fs::write(&victim, "edited\n").unwrap();
        fs::rename(&victim, &path).unwrap();
        rows.append("second\n");
        assert_eq!(read(&path), "header\nfirst\nsecond\n");
        assert_eq!(read(&folder.path().join("rows.other")), "edited\n");
        // A link is nothing to write through either.
        fs::write(&victim, "precious\n").unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        rows.append("third\n");
        assert_eq!(read(&victim), "precious\n");
        assert_eq!(read(&path), "header\nfirst\nsecond\nthird\n");
    }

    #[test]
    fn rows_go_on_behind_what_another_program_made_of_the_file() {
        let (_folder, path, mut rows) = begun();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(9).unwrap();
        rows.append("second\n");
        assert_eq!(read(&path), "header\nfi\nsecond\n");
        file.set_len(0).unwrap();
        rows.append("third\n");
        assert_eq!(read(&path), "header\nthird\n");
    }
}
