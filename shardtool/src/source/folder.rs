//! A folder of images on disk.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::clevr;
use super::kind::{self, Kind};
use super::layout::{self, ANNOTATIONS, Found, Tree};
use super::{Error, Files, LABELS_FILE, Labels, Note, Options, Part, SourceFile};
use crate::Escaped;

/// Lists a folder.
///
/// # Errors
/// If it is no folder, cannot be listed, or has a faulty `labels.csv` or faulty scenes of CLEVR.
pub fn open(root: &Path, options: &Options) -> Result<Part, Error> {
    if !root.is_dir() {
        return Err(Error::NotAFolder(root.to_owned()));
    }
    let names = list(root).map_err(Error::io(root, "list"))?;
    let full = std::fs::canonicalize(root).map_err(Error::io(root, "open"))?;
    let mut walk = Walk {
        root,
        options,
        tree: Tree::default(),
        above: vec![identity(root).map_err(Error::io(root, "open"))?],
    };
    walk.folder("", names);
    let mut contents = layout::arrange(walk.tree, options, false);
    contents.name = full
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    contents.labels = Labels::read(&root.join(LABELS_FILE))?;
    if contents.labels.is_empty() {
        contents.labels = clevr::labels(root)?;
    }
    Ok(Part {
        contents,
        files: Box::new(Folder {
            root: root.to_owned(),
        }),
    })
}

/// Reads the files of a folder.
struct Folder {
    root: PathBuf,
}

impl Files for Folder {
    fn read(&self, file: &SourceFile) -> io::Result<Vec<u8>> {
        std::fs::read(self.root.join(&file.path))
    }

    fn head(&self, file: &SourceFile, length: usize) -> io::Result<Vec<u8>> {
        head(&self.root.join(&file.path), length)
    }
}

/// Reads the first bytes of a file.
pub(super) fn head(path: &Path, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(length as u64)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A walk through a folder and all below it.
struct Walk<'a> {
    root: &'a Path,
    options: &'a Options,
    tree: Tree,
    /// Device and inode of the folders on the way, which a link must not lead back to.
    above: Vec<(u64, u64)>,
}

impl Walk<'_> {
    /// Looks at everything in the folder at `below`, which is empty or ends with a slash.
    fn folder(&mut self, below: &str, mut names: Vec<OsString>) {
        names.sort();
        for name in names {
            let path = self.root.join(below).join(&name);
            let text = name.to_str();
            let shown = match text {
                Some(name) => format!("{below}{name}"),
                None => format!("{below}{}", Escaped::new(&name)),
            };
            if self.options.excludes(&shown) {
                self.ignore(shown, "excluded");
            } else if text.is_some_and(kind::is_junk) {
                self.ignore(shown, "known not to be meant, by its name");
            } else if below.is_empty() && name == LABELS_FILE {
                self.see(std::fs::metadata(&path).ok().as_ref());
            } else {
                match std::fs::metadata(&path) {
                    Err(error) if kind::named(&shown).is_some() => {
                        self.find(shown, 0, Some(format!("cannot be read: {error}")));
                    }
                    Err(error) => self.leave_out(shown, format!("cannot be looked at: {error}")),
                    Ok(meta) if meta.is_dir() => self.enter(shown, &path, &meta, text.is_some()),
                    Ok(meta) => self.file(shown, &path, &meta, text.is_some()),
                }
            }
        }
    }

    fn enter(&mut self, shown: String, path: &Path, meta: &Metadata, is_utf8: bool) {
        let here = (meta.dev(), meta.ino());
        if self.above.contains(&here) {
            return self.leave_out(shown, "links back to a folder above it".to_owned());
        }
        match list(path) {
            Err(error) => self.leave_out(shown, format!("cannot be listed: {error}")),
            Ok(names) if !is_utf8 => {
                let count = names.len();
                self.leave_out(
                    shown,
                    format!("name is not UTF-8; so {count} entries in it are not looked at"),
                );
            }
            Ok(names) => {
                self.above.push(here);
                self.folder(&format!("{shown}/"), names);
                self.above.pop();
                self.tree.folders.push(shown);
            }
        }
    }

    fn file(&mut self, shown: String, path: &Path, meta: &Metadata, is_utf8: bool) {
        if !meta.is_file() {
            return self.leave_out(shown, "not a regular file".to_owned());
        }
        self.see(Some(meta));
        if kind::named(&shown).is_none() {
            if shown.ends_with(ANNOTATIONS)
                && let Ok(text) = std::fs::read_to_string(path)
            {
                self.tree.annotations.push((shown.clone(), text));
            }
            match head(path, kind::HEAD) {
                Err(error) => {
                    return self.leave_out(shown, format!("cannot be looked at: {error}"));
                }
                Ok(head) => match Kind::of(&head) {
                    Kind::Image(_) => {}
                    kind @ (Kind::Unread(_) | Kind::Archive(_)) => {
                        return self.leave_out(shown, kind.refusal());
                    }
                    kind => return self.ignore(shown, &kind.refusal()),
                },
            }
        }
        self.find(
            shown,
            meta.len(),
            (!is_utf8).then(|| "file name is not UTF-8".to_owned()),
        );
    }

    fn find(&mut self, path: String, size: u64, fault: Option<String>) {
        self.tree.found.push(Found {
            path,
            size,
            fault,
            container: 0,
            position: 0,
        });
    }

    /// Notes when a file was changed, its rights included.
    fn see(&mut self, meta: Option<&Metadata>) {
        self.tree.newest = self.tree.newest.max(meta.map(changed));
    }

    fn ignore(&mut self, path: String, reason: &str) {
        self.tree.ignored.push(Note::new(path, reason));
    }

    fn leave_out(&mut self, path: String, reason: String) {
        self.tree.left_out.push(Note::new(path, reason));
    }
}

/// Returns when a file was changed last, its rights included.
pub(super) fn changed(meta: &Metadata) -> SystemTime {
    let since = Duration::new(meta.ctime().max(0) as u64, meta.ctime_nsec() as u32);
    let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    modified.max(SystemTime::UNIX_EPOCH + since)
}

/// Returns the names in a directory.
fn list(dir: &Path) -> io::Result<Vec<OsString>> {
    std::fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect()
}

/// Returns what tells a directory from every other: device and inode.
fn identity(dir: &Path) -> io::Result<(u64, u64)> {
    let meta = std::fs::metadata(dir)?;
    Ok((meta.dev(), meta.ino()))
}
