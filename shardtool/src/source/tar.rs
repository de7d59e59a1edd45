//! Images in tar archives on disk, read where they lie: nothing is unpacked.
//!
//! One pass over the headers finds all members; then any thread reads any of them. An archive inside an archive is a
//! folder, as in ImageNet's `ILSVRC2012_img_train.tar`.

pub(super) mod container;
mod index;
mod stdin;
#[cfg(test)]
mod tests;
pub(super) mod walk;

use std::path::{Path, PathBuf};

use container::{Container, Containers};
pub(super) use index::Index;
pub(super) use stdin::STDIN;

use super::imagenet;
use super::kind::{self, Kind};
use super::layout::{self, ANNOTATIONS, Found, Tree};
use super::{Class, Error, LABELS_FILE, Labels, Note, Options, Part, folder};
use walk::Member;

/// Largest text file in an archive that is read for what it says of images.
const MOST_TEXT: u64 = 64 << 20;

/// Lists a tar archive.
///
/// # Errors
/// If it cannot be read, is cut or damaged, or has a faulty `labels.csv`.
pub fn open(path: &Path, options: &Options) -> Result<Part, Error> {
    open_all(&[path.to_owned()], options)
}

/// Lists several tar archives as one part. Each is a folder of its own, called like it, if there are several.
///
/// # Errors
/// As for [`open`].
pub fn open_all(paths: &[PathBuf], options: &Options) -> Result<Part, Error> {
    let mut tree = Tree::default();
    let mut labels = Labels::default();
    let mut checksum = None;
    let mut archives: Vec<Box<dyn Container>> = Vec::new();
    for (container, path) in (0..).zip(paths) {
        let archive = if path == Path::new(STDIN) {
            let stdin = stdin::open(&options.scratch)?;
            tree.newest = tree.newest.max(stdin.changed);
            checksum = stdin.checksum;
            Box::new(stdin.file)
        } else {
            let meta = std::fs::metadata(path).map_err(Error::io(path, "open"))?;
            tree.newest = tree.newest.max(Some(folder::changed(&meta)));
            container::open(path)?
        };
        let mut index = Index::read(&*archive, path, options)?;
        let name = name(path);
        if paths.len() > 1 {
            index.move_into(walk::stem(&name).unwrap_or(&name));
        }
        Archive {
            bytes: &*archive,
            path,
            container,
        }
        .look(index, &mut tree, &mut labels)?;
        archives.push(archive);
    }
    let names = || tree.found.iter().map(|found| found.path.as_str());
    let is_flat_train = imagenet::is_flat_train(names());
    let mut options = options.clone();
    if options.split.is_none() {
        options.split = imagenet::split_of(names()).map(str::to_owned);
    }
    let mut contents = layout::arrange(tree, &options, true);
    if is_flat_train {
        for item in &mut contents.items {
            item.class = imagenet::class_of(&item.path).map(Class::Name);
        }
        contents
            .remarks
            .push("classes are what the files' names begin with".to_owned());
    }
    contents.name = paths
        .iter()
        .map(|path| name(path))
        .collect::<Vec<_>>()
        .join("+");
    contents.labels = labels;
    contents.checksum = checksum;
    contents.is_sequential = archives.iter().any(|archive| archive.is_sequential());
    Ok(Part {
        contents,
        files: Box::new(Containers(archives)),
    })
}

/// Returns the name of a file without the path to it.
pub(super) fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Returns the folder that a `labels.csv` is for: that of the archive, or one folder in it that was packed whole.
fn labelled(path: &str) -> Option<&str> {
    let folder = path.strip_suffix(LABELS_FILE)?;
    let is_folder = folder.is_empty() || folder.ends_with('/');
    (is_folder && folder.matches('/').count() < 2).then_some(folder)
}

/// One archive whose members are looked at.
struct Archive<'a> {
    bytes: &'a dyn Container,
    path: &'a Path,
    container: u32,
}

impl Archive<'_> {
    /// Sorts all members into what may be an image and what is none.
    fn look(&self, index: Index, tree: &mut Tree, labels: &mut Labels) -> Result<(), Error> {
        tree.folders.extend(index.folders);
        tree.ignored.extend(index.ignored);
        tree.left_out.extend(index.left_out);
        for member in index.files {
            let path = &member.path;
            if let Some(folder) = labelled(path) {
                self.labels(&member, folder, labels)?;
                continue;
            }
            if kind::named(path).is_none() {
                if path.ends_with(ANNOTATIONS) {
                    let text = String::from_utf8(self.text(&member)?);
                    let text = text.map_err(|_| self.damaged(&member, "not UTF-8"))?;
                    tree.annotations.push((path.clone(), text));
                }
                let length = member.size.min(kind::HEAD as u64) as usize;
                let head = self.bytes.read(member.position, length);
                let head = head.map_err(Error::io(self.path, "read"))?;
                match Kind::of(&head) {
                    Kind::Image(_) => {}
                    kind @ (Kind::Unread(_) | Kind::Archive(_)) => {
                        tree.left_out.push(Note::new(member.path, kind.refusal()));
                        continue;
                    }
                    kind => {
                        tree.ignored.push(Note::new(member.path, kind.refusal()));
                        continue;
                    }
                }
            }
            tree.found.push(Found {
                path: member.path,
                size: member.size,
                fault: None,
                container: self.container,
                position: member.position,
            });
        }
        Ok(())
    }

    /// Adds the further labels of images below `folder`.
    fn labels(&self, member: &Member, folder: &str, labels: &mut Labels) -> Result<(), Error> {
        let path = self.path.join(&member.path);
        let read = Labels::of_folder(&path, &self.text(member)?, folder)?;
        labels.join(read).map_err(Error::damaged(&path))
    }

    /// Reads a small file.
    fn text(&self, member: &Member) -> Result<Vec<u8>, Error> {
        if member.size > MOST_TEXT {
            return Err(self.damaged(member, "too large for a list"));
        }
        let bytes = self.bytes.read(member.position, member.size as usize);
        bytes.map_err(Error::io(self.path, "read"))
    }

    fn damaged(&self, member: &Member, reason: &str) -> Error {
        Error::damaged(&self.path.join(&member.path))(reason)
    }
}
