//! TensorBoard's event files: `tensorboard/events.out.tfevents.…` in the run directory, one for each process of a run.
//!
//! A file is a sequence of records: length, its checksum, an `Event` of protocol buffers, its checksum. The first event
//! names the version. The second, in the first file of a run too, says that a session starts at its first step: from
//! the second such event on, TensorBoard forgets what earlier files hold of that step and later ones, which is what a
//! run did beyond its checkpoint. (The very first one it passes by.)
//!
//! As with other logs, nothing here can end a run.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use shardtool::{Escaped, disk};

use super::moment::{now, numbers};

/// The directory of the files in a run directory.
const FOLDER: &str = "tensorboard";
/// Limit of the bytes that wait for a disk; beyond it, new ones are lost. A step has about 700.
const LONGEST_WAIT: usize = 16 << 20;
/// The beginning of their names, before the second of their making.
const PREFIX: &str = "events.out.tfevents.";
/// The files that one process may begin.
const MOST_FILES: u32 = 1000;

/// The event files of a run.
#[derive(Debug)]
pub(super) struct Events {
    folder: PathBuf,
    open: Option<Open>,
    /// Files that this process has begun.
    begun: u32,
    /// Bytes that could not be written yet.
    waiting: Vec<u8>,
    is_failing: bool,
}

/// The file that is written.
#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    /// Device and number of the file, by which it is noticed that its name is gone.
    identity: (u64, u64),
}

impl Events {
    /// Names the files of the run directory `run`; the first step begins one.
    pub(super) fn new(run: &Path) -> Events {
        Events {
            folder: run.join(FOLDER),
            open: None,
            begun: 0,
            waiting: Vec::new(),
            is_failing: false,
        }
    }

    /// Appends the numbers of a row.
    pub(super) fn write(&mut self, step: u64, row: &Value) {
        let outcome = self.settle(step);
        if self.waiting.len() < LONGEST_WAIT {
            let mut summary = Vec::new();
            numbers(row, &mut |name, value| {
                message(&mut summary, 1, &scalar(name, value))
            });
            append(&mut self.waiting, &event(step, 5, &summary));
        }
        let outcome = outcome.and_then(|()| self.write_waiting());
        match outcome {
            Ok(()) => self.is_failing = false,
            Err(error) if !self.is_failing => {
                self.is_failing = true;
                tracing::warn!(
                    "{}: cannot be written: {error}; TensorBoard will lack some steps, and training goes on",
                    Escaped::new(&self.folder)
                );
            }
            Err(_) => {}
        }
    }

    /// Sees to it that there is a file under its name, which begins with `step` if it is new.
    fn settle(&mut self, step: u64) -> io::Result<()> {
        if let Some(open) = &self.open {
            let found = fs::symlink_metadata(&open.path);
            if found.is_ok_and(|found| (found.dev(), found.ino()) == open.identity) {
                return Ok(());
            }
            self.open = None;
        }
        if self.begun >= MOST_FILES {
            return Err(io::Error::other("its files vanish again and again"));
        }
        if disk::is_link(&self.folder) {
            return Err(io::Error::other("a link, through which nothing is written"));
        }
        fs::create_dir_all(&self.folder)?;
        // TensorBoard reads them in the order of their names, whatever became of the clock.
        let second = latest(&self.folder)?.map_or(0, |second| second.saturating_add(1));
        let name = format!(
            "{PREFIX}{:010}.{}.{}.{}",
            second.max(now() as u64),
            plain(&disk::host_name()),
            std::process::id(),
            self.begun
        );
        self.begun += 1;
        let path = self.folder.join(name);
        let file = File::create_new(&path)?;
        let found = file.metadata()?;
        let identity = (found.dev(), found.ino());
        self.open = Some(Open {
            file,
            path,
            identity,
        });
        let mut start = Vec::new();
        append(&mut start, &event(0, 3, b"brain.Event:2"));
        // A `SessionLog` whose `status` is `START`.
        append(&mut start, &event(step, 7, &[1 << 3, 1]));
        // What waited for a file that is gone belongs to no other.
        self.waiting = start;
        Ok(())
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        while !self.waiting.is_empty() {
            match open.file.write(&self.waiting) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Returns the latest second in the names of the files in a directory.
fn latest(folder: &Path) -> io::Result<Option<u64>> {
    let mut latest = None;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let second = name.to_str().and_then(|name| {
            let (second, _) = name.strip_prefix(PREFIX)?.split_once('.')?;
            second.parse::<u64>().ok()
        });
        // A number of more digits is nobody's second.
        latest = latest.max(second.filter(|second| *second < 9_999_999_999));
    }
    Ok(latest)
}

/// Returns a name of letters, digits and dashes, for the name of a file.
fn plain(name: &str) -> String {
    let plain = |letter: char| match letter.is_ascii_alphanumeric() {
        true => letter,
        false => '-',
    };
    name.chars().take(64).map(plain).collect()
}

/// Appends a record: an event with its length and their checksums.
fn append(out: &mut Vec<u8>, event: &[u8]) {
    let length = (event.len() as u64).to_le_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&masked(&length));
    out.extend_from_slice(event);
    out.extend_from_slice(&masked(event));
}

/// Returns the checksum of bytes in the form that such records have.
fn masked(bytes: &[u8]) -> [u8; 4] {
    let sum = crc32c::crc32c(bytes).rotate_right(15);
    sum.wrapping_add(0xa282_ead8).to_le_bytes()
}

/// Returns an `Event` of now, with `content` in the field `number`.
fn event(step: u64, number: u8, content: &[u8]) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend_from_slice(&now().to_le_bytes());
    event.push(2 << 3);
    varint(&mut event, step);
    message(&mut event, number, content);
    event
}

/// Returns a `Summary.Value`: a tag and a number.
fn scalar(tag: &str, value: f64) -> Vec<u8> {
    let mut scalar = Vec::new();
    message(&mut scalar, 1, tag.as_bytes());
    scalar.push(2 << 3 | 5);
    scalar.extend_from_slice(&(value as f32).to_le_bytes());
    scalar
}

/// Appends a field of bytes.
fn message(out: &mut Vec<u8>, number: u8, content: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// Appends a number, seven bits in a byte.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use serde_json::json;

    use super::*;

    fn files(run: &Path) -> Vec<Vec<u8>> {
        let entries = fs::read_dir(run.join(FOLDER)).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    }

    /// Returns the events of a file, whose checksums must be right.
    fn events(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut events = Vec::new();
        while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
            let (sum, rest) = rest.split_at(4);
            assert_eq!(sum, masked(length));
            let (event, rest) = rest.split_at(u64::from_le_bytes(*length) as usize);
            let (sum, rest) = rest.split_at(4);
            assert_eq!(sum, masked(event));
            events.push(event.to_vec());
            bytes = rest;
        }
        events
    }

    /// The bytes that TensorBoard itself wrote of this event, but for the time.
    #[test]
    fn an_event_has_the_bytes_of_the_schema() {
        let event = event(300, 5, &[&[0x0a, 0x0b][..], &scalar("loss", 0.5)].concat());
        assert_eq!(event[0], 9);
        let known = b"\x10\xac\x02\x2a\x0d\x0a\x0b\x0a\x04loss\x15\x00\x00\x00\x3f";
        assert_eq!(&event[9..], known);
        assert_eq!(masked(b""), 0xa282_ead8_u32.to_le_bytes());
    }

    #[test]
    fn each_process_and_each_lost_file_begins_one_with_a_start() {
        let run = tempfile::tempdir().unwrap();
        let mut log = Events::new(run.path());
        log.write(0, &json!({"loss": 0.5}));
        log.write(1, &json!({"loss": 0.25, "signs": {"rank": 3}}));
        let [file] = &files(run.path())[..] else {
            panic!("several files");
        };
        let found = events(file);
        assert_eq!(found.len(), 4);
        assert!(found[0].ends_with(b"brain.Event:2"));
        assert_eq!(found[1][9..], [16, 0, 58, 2, 8, 1]);
        assert!(found[3].windows(10).any(|tag| tag == b"signs/rank"));
        fs::remove_dir_all(run.path().join(FOLDER)).unwrap();
        log.write(2, &json!({"loss": 0.125}));
        let [file] = &files(run.path())[..] else {
            panic!("several files");
        };
        let found = events(file);
        assert_eq!(found[1][9..], [16, 2, 58, 2, 8, 1]);
        assert_eq!(found.len(), 3);
        Events::new(run.path()).write(1, &json!({}));
        let [_, second] = &files(run.path())[..] else {
            panic!("not two files");
        };
        assert_eq!(events(second)[1][9..], [16, 1, 58, 2, 8, 1]);
    }

    #[test]
    fn nothing_is_written_through_a_link_and_a_full_disk_ends_nothing() {
        let (run, victim) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink(victim.path(), run.path().join(FOLDER)).unwrap();
        let mut log = Events::new(run.path());
        log.write(0, &json!({"loss": 0.5}));
        assert_eq!(fs::read_dir(victim.path()).unwrap().count(), 0);
        fs::remove_file(run.path().join(FOLDER)).unwrap();
        log.write(1, &json!({"loss": 0.5}));
        let full = File::options().append(true).open("/dev/full").unwrap();
        let whole = std::mem::replace(&mut log.open.as_mut().unwrap().file, full);
        log.write(2, &json!({"loss": 0.5}));
        log.open.as_mut().unwrap().file = whole;
        log.write(3, &json!({"loss": 0.5}));
        assert_eq!(events(&files(run.path())[0]).len(), 5);
    }
}
