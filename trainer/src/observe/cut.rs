//! What a run finds of its own log when it begins or goes on: rows to keep, rows to do again, and what others left.
//!
//! A log may have been through a crash, a spreadsheet or an editor. No such thing keeps a run from starting, and
//! nothing that is not the run's own is lost: where a line has to go that it did not write, a copy of the file stays.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;

use shardtool::{Escaped, disk};

/// The longest line that is looked at; rows have about 300 bytes.
const LONGEST_LINE: u64 = 1 << 16;

/// What becomes of a line.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    /// It stays as it is.
    Keep,
    /// It stays in this form.
    As(String),
    /// It goes: the run does this step again, or it says nothing.
    Drop,
    /// It goes, and was not written by a run.
    Foreign,
}

/// Leaves in `path` the `header` and the lines that are kept; it need not exist. `judge` makes what judges them.
///
/// The new content is written aside and renamed over, so that a crash here loses nothing. What is no file at all is
/// renamed, and a link is replaced by what it leads to: nothing is ever written through it.
pub(super) fn cut<J: FnMut(&str) -> Line>(
    path: &Path,
    header: &str,
    judge: impl Fn() -> J,
) -> io::Result<()> {
    let is_file = match fs::metadata(path) {
        Ok(found) => found.is_file(),
        Err(_) if fs::symlink_metadata(path).is_err() => {
            return disk::write(path, header.as_bytes());
        }
        Err(_) => false, // a link to nothing
    };
    if !is_file {
        let aside = disk::set_aside(path, "other")?;
        tracing::warn!(
            "{}: is no file; it is now called {}",
            Escaped::new(path),
            Escaped::new(&aside)
        );
        return disk::write(path, header.as_bytes());
    }
    let mut found = Found::default();
    sift(path, header, judge(), &mut io::sink(), &mut found)?;
    if found.foreign > 0 {
        let aside = disk::copy_aside(path, "before")?;
        tracing::warn!(
            "{}: {} line(s) that no run has written are left out; the file as it was is {}",
            Escaped::new(path),
            found.foreign,
            Escaped::new(&aside)
        );
    }
    let is_shared = fs::symlink_metadata(path).is_ok_and(|found| !is_alone(&found));
    if found.is_changed || is_shared {
        let mut found = Found::default();
        disk::write_with(path, |out| {
            let mut out = BufWriter::new(out);
            sift(path, header, judge(), &mut out, &mut found)?;
            out.flush()
        })?;
    }
    Ok(())
}

/// Tells whether a file has one name, which is not a link: what is written to it is written nowhere else.
fn is_alone(found: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    found.is_file() && found.nlink() == 1
}

/// What was found in a log.
#[derive(Debug, Default)]
struct Found {
    /// Lines that no run has written.
    foreign: u64,
    /// Says that the file is not as it should be.
    is_changed: bool,
}

/// Writes the header and the lines to keep.
fn sift(
    path: &Path,
    header: &str,
    mut judge: impl FnMut(&str) -> Line,
    out: &mut dyn Write,
    found: &mut Found,
) -> io::Result<()> {
    let mut lines = BufReader::new(File::open(path)?);
    out.write_all(header.as_bytes())?;
    let mut is_first = true;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut lines)
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        let is_header = is_first && line == header.as_bytes();
        let start = if is_first {
            line.strip_prefix(b"\xef\xbb\xbf")
        } else {
            None
        };
        let is_marked = start.is_some();
        let text = str::from_utf8(start.unwrap_or(&line)).ok();
        is_first = false;
        if is_header {
            continue;
        }
        let judged = match text.and_then(|text| text.strip_suffix('\n')) {
            Some(text) if text.trim_matches(['\r', ',', ';', ' ']).is_empty() => Line::Drop,
            Some(text) => judge(text.trim_end_matches('\r')),
            None if line.ends_with(b"\n") => Line::Foreign,
            // The end of a file that was being written.
            None if read < LONGEST_LINE as usize => Line::Drop,
            None => {
                lines.skip_until(b'\n')?;
                Line::Foreign
            }
        };
        let is_plain = !is_marked && !line.ends_with(b"\r\n");
        found.is_changed |= judged != Line::Keep || !is_plain;
        match judged {
            Line::Keep => {
                let text = text.expect("judged by its text");
                writeln!(out, "{}", text.trim_end_matches(['\r', '\n']))?;
            }
            Line::As(text) => writeln!(out, "{text}")?,
            Line::Drop => {}
            Line::Foreign => found.foreign += 1,
        }
    }
    // Nothing at all is to be given its header.
    found.is_changed |= is_first && !header.is_empty();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Keeps lines of one letter, drops those of two.
    fn judge(line: &str) -> Line {
        match line.len() {
            1 => Line::Keep,
            2 => Line::Drop,
            3 => Line::As(line[..1].to_owned()),
            _ => Line::Foreign,
        }
    }

    /// Returns what becomes of a log with this content, and of the copy of it if there is one.
    fn becomes(content: &[u8]) -> (String, Option<Vec<u8>>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        fs::write(&path, content).unwrap();
        cut(&path, "header\n", || judge).unwrap();
        let copy = fs::read(folder.path().join("rows.before")).ok();
        (fs::read_to_string(path).unwrap(), copy)
    }

    #[test]
    fn what_a_run_wrote_stays_and_what_it_does_again_goes_without_a_copy() {
        for (content, left) in [
            (&b""[..], "header\n"),
            (b"header\n", "header\n"),
            (b"header\na\nb\n", "header\na\nb\n"),
            (b"header\na\nbb\n", "header\na\n"),
            (b"header\na\nfour", "header\na\n"),
            (b"header\na\nb\xff", "header\na\n"),
            (b"\xef\xbb\xbfa\r\nb\r\n\r\n,,,\r\n", "header\na\nb\n"),
            (b"a\nbcd\n", "header\na\nb\n"),
        ] {
            assert_eq!(becomes(content), (left.to_owned(), None), "{content:?}");
        }
    }

    #[test]
    fn a_line_that_no_run_wrote_is_kept_in_a_copy() {
        let long = [vec![b'x'; 3 * LONGEST_LINE as usize], b"\na\n".to_vec()].concat();
        for content in [&b"header\nfour\na\n"[..], b"a\nb\xff\n\0\0\0\0\n", &long] {
            let (left, copy) = becomes(content);
            assert_eq!(left, "header\na\n");
            assert_eq!(copy.as_deref(), Some(content));
        }
    }

    #[test]
    fn no_link_is_written_through_and_no_copy_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let (path, victim) = (folder.path().join("rows"), folder.path().join("victim"));
        for (number, make) in [
            |from: &Path, to: &Path| symlink(from, to),
            |from: &Path, to: &Path| fs::hard_link(from, to),
        ]
        .iter()
        .enumerate()
        {
            fs::write(&victim, "a\nfour\n").unwrap();
            make(&victim, &path).unwrap();
            cut(&path, "", || judge).unwrap();
            fs::write(&path, "b\n").unwrap();
            assert_eq!(fs::read_to_string(&victim).unwrap(), "a\nfour\n");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3 + number);
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn what_is_no_file_gets_another_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        fs::create_dir(&path).unwrap();
        cut(&path, "header\n", || judge).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "header\n");
        assert!(folder.path().join("rows.other").is_dir());
        fs::remove_file(&path).unwrap();
        symlink("nowhere", &path).unwrap();
        cut(&path, "header\n", || judge).unwrap();
        assert!(!folder.path().join("nowhere").exists());
        fs::remove_file(&path).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        cut(&path, "header\n", || judge).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "header\n");
    }
}
