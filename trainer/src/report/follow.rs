//! A run's log, read to its end, and on from there when it has grown.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use shardtool::regular;

use super::columns::Columns;
use super::{Error, log_of, named};
use crate::observe::OfficialRow;

/// The longest line that is looked at; rows have about 500 bytes.
const LONGEST_LINE: u64 = 1 << 16;

/// The log of a run.
#[derive(Debug)]
pub(super) struct Followed {
    path: PathBuf,
    /// Device and number of the file, by which another one under its name is noticed.
    identity: (u64, u64),
    /// Where the first line stands that was not read.
    at: u64,
    official: Vec<OfficialRow>,
    pub(super) columns: Columns,
    /// Lines that are no rows.
    pub(super) foreign: u64,
    /// Times that the log was read from its beginning.
    pub(super) readings: u64,
}

impl Followed {
    /// Finds the log of a run directory, or takes a path to a log; nothing is read yet.
    pub(super) fn find(run: &Path) -> Result<Followed, Error> {
        Ok(Followed {
            path: log_of(run)?,
            identity: (0, 0),
            at: 0,
            official: Vec::new(),
            columns: Columns::default(),
            foreign: 0,
            readings: 0,
        })
    }

    /// Reads what is new. A file that was replaced or has become shorter is read from its beginning.
    pub(super) fn read(&mut self) -> Result<(), Error> {
        let read = self.read_on();
        named(&self.path, read)
    }

    fn read_on(&mut self) -> io::Result<()> {
        let mut file = regular::open(&self.path)?;
        let found = file.metadata()?;
        let identity = (found.dev(), found.ino());
        if self.readings == 0 || identity != self.identity || found.len() < self.at {
            self.identity = identity;
            self.readings += 1;
            self.at = 0;
            self.foreign = 0;
            self.official.clear();
            self.columns = Columns::default();
        }
        file.seek(SeekFrom::Start(self.at))?;
        // No further than it was long: one that grows faster than it is read has an end all the same.
        let mut lines = BufReader::new(file.take(found.len() - self.at));
        let (mut line, known) = (Vec::new(), self.official.len());
        loop {
            line.clear();
            let read = (&mut lines)
                .take(LONGEST_LINE)
                .read_until(b'\n', &mut line)?;
            let is_whole = line.ends_with(b"\n");
            if is_whole {
                self.at += read as u64;
                self.take(&line);
            } else if read as u64 == LONGEST_LINE {
                self.foreign += 1;
                self.at += read as u64 + skip_line(&mut lines)?;
            } else {
                break; // the end, or a row that is being written
            }
        }
        if self.official.len() > known {
            self.columns.replace(&self.official);
        }
        // Who has steps that came again has to forget them: as of another log.
        if std::mem::take(&mut self.columns.have_come_again) {
            self.readings += 1;
        }
        Ok(())
    }

    /// Takes a line.
    fn take(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim().trim_start_matches('\u{feff}');
        let row = match text.starts_with('{') {
            true => serde_json::from_str::<Value>(text).ok(),
            false => None,
        };
        let is_row = if let Some(row) = row {
            self.columns.add(row)
        } else if let Some(row) = OfficialRow::parse(text) {
            self.official.push(row);
            true
        } else {
            text.is_empty() || OfficialRow::is_header(text)
        };
        self.foreign += u64::from(!is_row);
    }
}

/// Reads the next line into `line`; of one that is too long to be a row, the beginning. Tells whether there is one.
pub(super) fn next_line(lines: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let read = lines.take(LONGEST_LINE).read_until(b'\n', line)?;
    if read as u64 == LONGEST_LINE && !line.ends_with(b"\n") {
        skip_line(lines)?;
    }
    Ok(read > 0)
}

/// Passes by the rest of a line, and returns its length.
fn skip_line(lines: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = lines.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |end| end + 1);
        skipped += used as u64;
        lines.consume(used);
        if end.is_some() || used == 0 {
            return Ok(skipped);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;

    use super::*;

    fn row(step: u64) -> String {
        format!(
            "{{\"step\":{step},\"epoch\":1,\"itr\":{step},\"loss\":0.5,\"step_ms\":1,\"wait_ms\":0}}\n"
        )
    }

    #[test]
    fn a_log_is_read_on_from_where_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jepa_r0.jsonl");
        let long = "x".repeat(200_000);
        let torn = "{\"step\":2,\"epo";
        fs::write(
            &path,
            format!("{}nonsense\n{long}\n{}{torn}", row(0), row(1)),
        )
        .unwrap();
        let mut log = Followed::find(folder.path()).unwrap();
        log.read().unwrap();
        assert_eq!((&log.columns.steps[..], log.foreign), (&[0, 1][..], 2));
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(&row(2).as_bytes()[torn.len()..]).unwrap();
        log.read().unwrap();
        assert_eq!((&log.columns.steps[..], log.foreign), (&[0, 1, 2][..], 2));
        // A run that goes on leaves another, shorter file.
        fs::remove_file(&path).unwrap();
        fs::write(&path, row(0)).unwrap();
        log.read().unwrap();
        assert_eq!((&log.columns.steps[..], log.readings), (&[0][..], 2));
    }

    #[test]
    fn an_official_log_grows_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jepa_r0.csv");
        let header = "epoch,itr,loss,mask-A,mask-B,time (ms)\n";
        fs::write(&path, format!("{header}1,0,0.5,1,1,20\n1,1,0.4,1,1,20\n")).unwrap();
        let mut log = Followed::find(&path).unwrap();
        log.read().unwrap();
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"2,0,0.3,1,1,20\n").unwrap();
        log.read().unwrap();
        assert_eq!(log.columns.steps, [0, 1, 2]);
        assert_eq!(log.columns.named["loss"], [0.5, 0.4, 0.3]);
    }

    #[test]
    fn no_pipe_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jepa_r0.jsonl");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let error = Followed::find(&path).unwrap().read().unwrap_err();
        assert!(error.to_string().contains("a named pipe"), "{error}");
    }
}
