//! What sources without folders have in common: archives and tables of records.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::layout::split_name;
use super::{Class, Error, Item, Labels, Options};
use crate::format::{MAX_LABELS, PATH_COLUMN};

/// Bytes that one image may have at most.
pub const MOST: u64 = 1 << 30;

/// Bytes that the name of an archive's member may have: file systems take no longer path. Names of many folders take
/// time as the square of their length.
pub const MOST_NAME: usize = 4096;

/// Returns the beginning of a name that is too long, to be shown.
pub fn shortened(name: &[u8]) -> String {
    let start = &name[..name.len().min(64)];
    format!("{}…", String::from_utf8_lossy(start))
}

/// Tells if a further column may have this name: a shard's columns have one of 1 to 255 bytes, and paths of their own.
pub fn is_label(name: &str) -> bool {
    name != PATH_COLUMN && (1..=255).contains(&name.len())
}

/// Tells if a path leads to something below where it begins, whatever lies there.
pub fn is_plain(path: &str) -> bool {
    let is_name = |name: &str| !matches!(name, "" | "." | "..");
    path.split('/').all(is_name) && !path.contains('\0')
}

/// Returns the split of a file of records: the user's, else the last that its name says, else its folder's name,
/// else `train`.
pub fn split(path: &Path, options: &Options) -> String {
    if let Some(split) = &options.split {
        return split.clone();
    }
    let text = |path: Option<&Path>| {
        path.and_then(Path::file_name)
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let name = text(Some(path));
    let mut words = name.rsplit(|letter: char| !letter.is_ascii_alphabetic());
    let said = words
        .find_map(split_name)
        .or_else(|| split_name(&text(path.parent())));
    said.unwrap_or("train").to_owned()
}

/// Returns sorted paths and what the records in each are called after: the file's name without a known ending, and
/// its folder's where that alone is not distinct.
pub fn sorted(paths: &[PathBuf]) -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> = paths.to_vec();
    paths.sort();
    let text =
        |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let stem = |path: &Path| {
        let name = text(path.file_name());
        let known = [".parquet", ".tfrecords", ".tfrecord"];
        let stem = known.iter().find_map(|ending| name.strip_suffix(ending));
        stem.unwrap_or(&name).to_owned()
    };
    let in_folder = |path: &Path| {
        let folder = text(path.parent().and_then(Path::file_name));
        format!("{folder}/{}", stem(path))
    };
    let mut names: Vec<String> = paths.iter().map(|path| stem(path)).collect();
    if !are_distinct(&names) {
        names = paths.iter().map(|path| in_folder(path)).collect();
    }
    if !are_distinct(&names) {
        names = (0..)
            .zip(&names)
            .map(|(number, name)| format!("{number}/{name}"))
            .collect();
    }
    paths.into_iter().zip(names).collect()
}

fn are_distinct(names: &[String]) -> bool {
    names.iter().collect::<HashSet<_>>().len() == names.len()
}

/// Returns the name of a source of several files: the only one's, else their folder's.
pub fn name(paths: &[PathBuf]) -> String {
    let named = match paths {
        [only] => Some(only.as_path()),
        _ => paths.first().and_then(|path| path.parent()),
    };
    let full = named.and_then(|path| std::fs::canonicalize(path).ok());
    let name = full.as_deref().and_then(Path::file_name);
    name.unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns the class that a number stands for; -1 is none. An error says why there can be no such class.
pub fn class(number: i64) -> Result<Option<Class>, String> {
    match u32::try_from(number) {
        Ok(number) => Ok(Some(Class::Number(number))),
        Err(_) if number == -1 => Ok(None),
        Err(_) => Err(format!("its class is {number}")),
    }
}

/// A table's records while they are listed: items, the paths they say of themselves, further columns.
#[derive(Default)]
pub struct Records {
    /// The items, with paths that are distinct.
    pub items: Vec<Item>,
    /// For each item, the path that the record itself says.
    pub said: Vec<Option<String>>,
    /// For each item, the columns that are neither image nor class, and have a value.
    pub columns: Vec<Vec<(String, String)>>,
}

impl Records {
    /// Adds a record.
    pub fn add(&mut self, item: Item, said: Option<String>, columns: Vec<(String, String)>) {
        self.items.push(item);
        self.said.push(said);
        self.columns.push(columns);
    }

    /// Returns the items and labels. Items get the paths that the records say, if all do and all are distinct.
    /// `place` is for messages.
    ///
    /// # Errors
    /// If there are more columns than a shard has room for.
    pub fn finish(mut self, place: &Path) -> Result<(Vec<Item>, Labels), Error> {
        let mut seen = HashSet::new();
        let are_plain = self
            .said
            .iter()
            .all(|said| said.as_deref().is_some_and(is_plain));
        let are_good = are_plain && self.said.iter().all(|said| seen.insert(said));
        if are_good {
            for (item, said) in self.items.iter_mut().zip(self.said) {
                item.path = said.unwrap_or_default();
            }
        }
        let names: BTreeSet<String> = self
            .columns
            .iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .collect();
        let names: Vec<String> = names.into_iter().collect();
        if names.len() >= MAX_LABELS as usize {
            let reason = format!("{} label columns", names.len());
            return Err(Error::damaged(place)(reason));
        }
        let mut rows = HashMap::new();
        if !names.is_empty() {
            for (item, columns) in self.items.iter().zip(self.columns) {
                let mut row = vec![String::new(); names.len()];
                for (name, value) in columns {
                    if let Ok(at) = names.binary_search(&name) {
                        row[at] = value;
                    }
                }
                rows.insert(item.path.clone(), row);
            }
        }
        Ok((self.items, Labels::from_rows(names, rows)))
    }
}

/// A range of a file, to read from its beginning.
pub struct Section<F> {
    /// The file, borrowed or shared.
    pub file: F,
    /// Where to read next.
    pub at: u64,
    /// Where the range ends.
    pub end: u64,
}

impl<F: Deref<Target = File>> Read for Section<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_sub(self.at);
        let length = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..length], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Reads a range of a file.
///
/// # Errors
/// If the system refuses, the file ends before it, or it is longer than [`MOST`].
pub fn read_range(file: &File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    if length > MOST {
        return Err(invalid(format!("{length} bytes, more than {MOST}")));
    }
    let mut bytes = Vec::new();
    let end = at.saturating_add(length);
    Section { file, at, end }.read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(invalid(format!(
            "the file ends {} bytes into {length}",
            bytes.len()
        )));
    }
    Ok(bytes)
}

/// Makes an error about bytes that violate their format.
pub fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

#[cfg(test)]
impl Item {
    /// Returns the file that an item becomes in a listing.
    pub fn to_file(&self) -> super::SourceFile {
        super::SourceFile {
            part: 0,
            path: self.path.clone(),
            class: None,
            size: self.size,
            fault: self.fault.clone(),
            container: self.container,
            position: self.position,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_the_split() {
        let of = |path: &str| split(Path::new(path), &Options::default());
        assert_eq!(of("x/train-00000-of-00004-a09b.parquet"), "train");
        assert_eq!(of("x/validation-00000-of-00001.parquet"), "val");
        assert_eq!(of("x/imagenet2012-test.tfrecord-00000-of-01024"), "test");
        assert_eq!(of("test/0000.parquet"), "test");
        assert_eq!(of("my-test/0000.parquet"), "train");
    }

    #[test]
    fn records_are_called_after_what_is_distinct() {
        let of = |paths: [&str; 2]| {
            sorted(&paths.map(PathBuf::from))
                .into_iter()
                .map(|(_, name)| name)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(["b/x.parquet", "a/y"]), ["y", "x"]);
        assert_eq!(of(["b/0.parquet", "a/0.parquet"]), ["a/0", "b/0"]);
        assert_eq!(of(["x/a/0", "y/a/0"]), ["0/a/0", "1/a/0"]);
    }

    #[test]
    fn label_columns_fit_a_shard() {
        let count = |count: u32| {
            let mut records = Records::default();
            let columns = (0..count).map(|number| (number.to_string(), "x".to_owned()));
            let item = Item {
                split: "train".to_owned(),
                path: "0".to_owned(),
                class: None,
                size: 0,
                fault: None,
                container: 0,
                position: 0,
            };
            records.add(item, None, columns.collect());
            let finished = records.finish(Path::new("x"));
            finished.map(|(_, labels)| labels.columns().len())
        };
        assert_eq!(count(255).unwrap(), 256);
        assert!(count(256).is_err());
        assert!(is_label("a") && !is_label("") && !is_label("path") && !is_label(&"a".repeat(256)));
    }

    #[test]
    fn plain_paths_stay_below() {
        assert!(is_plain("a/b.jpg") && is_plain("..a/b..jpg"));
        for path in ["", "/a", "a/../b", "a//b", "..", "a/", "a\0b"] {
            assert!(!is_plain(path), "{path:?}");
        }
    }
}
