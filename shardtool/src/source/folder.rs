//! A folder of images: a sub-folder for each class, or `train/` and `val/` with such sub-folders.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Error, LABELS_FILE, Labels, Listing, Note, Source, SourceFile, SourceSplit, record};

/// File name extensions of images: torchvision's `IMG_EXTENSIONS`.
const EXTENSIONS: [&str; 9] = [
    "jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp",
];

/// A listed folder; `shardtool/README.md` says how it is read.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    listing: Listing,
}

impl Source for Folder {
    fn place(&self) -> &Path {
        &self.root
    }

    fn listing(&self) -> &Listing {
        &self.listing
    }

    fn read(&self, file: &SourceFile) -> io::Result<Vec<u8>> {
        std::fs::read(self.root.join(&file.path))
    }
}

impl Folder {
    /// Lists a folder.
    ///
    /// # Errors
    /// If it is no folder, cannot be listed, contains itself through a link, or has a faulty `labels.csv`.
    pub fn scan(root: &Path) -> Result<Folder, Error> {
        if !root.is_dir() {
            return Err(Error::NotAFolder(root.to_owned()));
        }
        let mut ignored = Vec::new();
        let mut trees = Vec::new();
        if root.join("train").is_dir() {
            for name in ["train", "val"] {
                if root.join(name).is_dir() {
                    trees.push((name, Tree::scan(root, name)?));
                }
            }
            for name in list(root)? {
                if name != "train" && name != "val" && name != LABELS_FILE {
                    ignored.push(note(name, "outside train/ and val/"));
                }
            }
        } else {
            trees.push(("train", Tree::scan(root, "")?));
        }

        let mut names = BTreeSet::new();
        for (_, tree) in &mut trees {
            ignored.append(&mut tree.ignored);
            names.extend(tree.images.iter().filter_map(|image| image.class.clone()));
        }
        // A set of texts is sorted by their bytes, as is a list of file names in Python.
        let classes: Vec<String> = names.into_iter().collect();
        let mut splits = Vec::new();
        for (name, tree) in trees {
            let images = tree.images.into_iter();
            let mut files: Vec<SourceFile> =
                images.map(|image| image.into_file(&classes)).collect();
            files.sort_by(|a, b| (a.class, &a.path).cmp(&(b.class, &b.path)));
            let name = name.to_owned();
            splits.push(SourceSplit { name, files });
        }
        ignored.retain(|note| note.path != LABELS_FILE);
        ignored.sort_by(|a, b| a.path.cmp(&b.path));

        let (labels, labels_bytes) = Labels::read(&root.join(LABELS_FILE))?;
        let full = std::fs::canonicalize(root).map_err(Error::io(root, "open"))?;
        let name = full.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        Ok(Folder {
            root: root.to_owned(),
            listing: Listing {
                record: record(name, &splits, &labels_bytes),
                classes,
                splits,
                labels,
                ignored,
            },
        })
    }
}

/// A file that is taken for an image, before class names have numbers.
struct Candidate {
    path: String,
    class: Option<String>,
    size: u64,
    fault: Option<String>,
}

impl Candidate {
    fn into_file(self, classes: &[String]) -> SourceFile {
        let number = |name: String| classes.binary_search(&name).expect("listed") as u32;
        SourceFile {
            path: self.path,
            class: self.class.map(number),
            size: self.size,
            fault: self.fault,
        }
    }
}

/// The images of one split.
#[derive(Default)]
struct Tree {
    images: Vec<Candidate>,
    ignored: Vec<Note>,
}

impl Tree {
    /// Lists the directory `below` of the source folder.
    fn scan(root: &Path, below: &str) -> Result<Tree, Error> {
        let mut tree = Tree::default();
        let mut flat = Tree::default();
        let mut above = vec![identity(&root.join(below))?];
        for name in list(&root.join(below))? {
            let path = join(below, &name);
            match std::fs::metadata(root.join(&path)) {
                Ok(meta) if meta.is_dir() => {
                    let class = name.to_string_lossy().into_owned();
                    tree.walk(root, &path, &class, &mut above)?;
                }
                meta => flat.add(path, None, meta),
            }
        }
        if tree.images.is_empty() {
            tree.images = flat.images;
        } else {
            for image in flat.images {
                tree.ignored
                    .push(note(image.path, "outside the class folders"));
            }
        }
        tree.ignored.append(&mut flat.ignored);
        Ok(tree)
    }

    /// Lists the class folder `path` and what is below it. `above` are the folders on the way.
    fn walk(
        &mut self,
        root: &Path,
        path: &Path,
        class: &str,
        above: &mut Vec<(u64, u64)>,
    ) -> Result<(), Error> {
        let full = root.join(path);
        let here = identity(&full)?;
        if above.contains(&here) {
            return Err(Error::Loop(full));
        }
        above.push(here);
        for name in list(&full)? {
            let path = path.join(name);
            match std::fs::metadata(root.join(&path)) {
                Ok(meta) if meta.is_dir() => self.walk(root, &path, class, above)?,
                meta => self.add(path, Some(class), meta),
            }
        }
        above.pop();
        Ok(())
    }

    fn add(&mut self, path: impl AsRef<Path>, class: Option<&str>, meta: io::Result<Metadata>) {
        let path = path.as_ref();
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        if !EXTENSIONS.iter().any(|known| extension == *known) {
            self.ignored.push(note(path, "not an image's file name"));
            return;
        }
        let fault = match &meta {
            _ if path.to_str().is_none() => Some("file name is not UTF-8".to_owned()),
            Ok(meta) if meta.is_file() => None,
            Ok(_) => Some("not a regular file".to_owned()),
            Err(error) => Some(format!("cannot be read: {error}")),
        };
        self.images.push(Candidate {
            path: path.to_string_lossy().into_owned(),
            class: class.map(str::to_owned),
            size: meta.map_or(0, |meta| meta.len()),
            fault,
        });
    }
}

/// Returns the names in a directory, without hidden ones.
fn list(dir: &Path) -> Result<Vec<OsString>, Error> {
    let entries = std::fs::read_dir(dir).map_err(Error::io(dir, "list"))?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names = names
        .collect::<Result<Vec<_>, _>>()
        .map_err(Error::io(dir, "list"))?;
    names.retain(|name| !name.as_encoded_bytes().starts_with(b"."));
    Ok(names)
}

fn join(below: &str, name: &OsStr) -> PathBuf {
    match below {
        "" => name.into(),
        _ => Path::new(below).join(name),
    }
}

/// Returns what tells a directory from every other: device and inode.
fn identity(dir: &Path) -> Result<(u64, u64), Error> {
    let meta = std::fs::metadata(dir).map_err(Error::io(dir, "open"))?;
    Ok((meta.dev(), meta.ino()))
}

fn note(path: impl AsRef<Path>, reason: &str) -> Note {
    Note {
        path: path.as_ref().to_string_lossy().into_owned(),
        reason: reason.to_owned(),
    }
}
