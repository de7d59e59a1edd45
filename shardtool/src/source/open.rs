//! What a SOURCE on the command line is: decided by content, and by name only where content does not tell.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::kind::{self, HEAD, Kind, is_junk};
use super::{
    Contents, Error, Note, Options, Part, Source, folder, imagenet, list, mds, parquet, tar,
    tfrecord, webdataset, zip,
};
use crate::dataset::{Order, is_plain};
use crate::paths;

/// What a dataset is to be built from.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Folders and archives; `SPLIT=` before one says its split, and braces stand for several.
    pub sources: Vec<PathBuf>,
    /// Lists of image files.
    pub lists: Vec<PathBuf>,
    /// Where the classes of ImageNet's images for validation are told.
    pub val_labels: Option<PathBuf>,
    /// How sources are to be understood.
    pub options: Options,
    /// The order of the samples, if the user has said so.
    pub order: Option<Order>,
}

/// Opens all that a request names as one source.
///
/// # Errors
/// If something is not there, is of no kind that images are read from, or is damaged; if parts contradict each other.
pub fn open(request: &Request) -> Result<Source, Error> {
    let options = &request.options;
    let mut parts = Vec::new();
    let mut places = Vec::new();
    for group in groups(&request.sources)? {
        let mut options = options.clone();
        options.split = group.split.or(options.split);
        places.extend(group.paths.iter().cloned());
        let mut part = part(group.kind, &group.paths, &options)?;
        if request.val_labels.is_none() {
            label_by_file_beside(&mut part.contents, group.kind, &group.paths[0])?;
        }
        parts.push(part);
    }
    for path in &request.lists {
        places.push(path.clone());
        parts.push(list::open(path, options)?);
    }
    let mut contents: Vec<&mut Contents> =
        parts.iter_mut().map(|part| &mut part.contents).collect();
    for contents in &mut contents {
        exclude(contents, options);
    }
    if let Some(path) = &request.val_labels {
        let known = imagenet::val_classes(path)?;
        let labelled: u64 = contents
            .iter_mut()
            .map(|contents| imagenet::label(contents, &known, path))
            .sum();
        if labelled == 0 {
            return Err(Error::Classes {
                path: path.clone(),
                reason: "tells the class of no image of split val".to_owned(),
            });
        }
    }
    Source::new(places, parts, request.order)
}

/// A kind of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Folder,
    Tar,
    WebDataset,
    Zip,
    Parquet,
    TfRecord,
    Mds,
}

/// Files of one kind that belong together, and what the user said of them.
#[derive(Debug)]
struct Group {
    kind: What,
    split: Option<String>,
    paths: Vec<PathBuf>,
}

/// Opens a group.
fn part(kind: What, paths: &[PathBuf], options: &Options) -> Result<Part, Error> {
    let path = &paths[0];
    match kind {
        What::Folder => folder::open(path, options),
        What::Tar => tar::open(path, options),
        What::WebDataset => webdataset::open(paths, options),
        What::Zip => zip::open(path, options),
        What::Parquet => parquet::open(paths, options),
        What::TfRecord => tfrecord::open(paths, options),
        What::Mds => mds::open(path, options),
    }
}

/// Labels ImageNet's images for validation by a file that lies beside them, if they have no class and there is one.
fn label_by_file_beside(contents: &mut Contents, kind: What, path: &Path) -> Result<(), Error> {
    let folder = match kind {
        What::Folder => path,
        _ => path.parent().unwrap_or(Path::new("")),
    };
    if imagenet::lacks_labels(contents)
        && let Some(found) = imagenet::find_beside(folder)
    {
        imagenet::label(contents, &imagenet::val_classes(&found)?, &found);
    }
    Ok(())
}

/// Ignores the items that the user has excluded, where the part has not done it: records and lists have names too.
fn exclude(contents: &mut Contents, options: &Options) {
    let ignored = &mut contents.ignored;
    contents.items.retain(|item| {
        let excluded = options.excludes(&item.path);
        if excluded {
            ignored.push(Note::new(item.path.as_str(), "excluded"));
        }
        !excluded
    });
}

/// Sorts what the user named into groups, each of which becomes a part.
fn groups(sources: &[PathBuf]) -> Result<Vec<Group>, Error> {
    let mut groups: Vec<Group> = Vec::new();
    for argument in sources {
        let (split, pattern) = split_of(argument);
        for path in expand(&pattern) {
            let (kind, paths) = what(&path)?;
            let joins = matches!(kind, What::WebDataset | What::Parquet | What::TfRecord);
            match groups
                .last_mut()
                .filter(|last| joins && last.kind == kind && last.split == split)
            {
                Some(last) => last.paths.extend(paths),
                None => groups.push(Group {
                    kind,
                    split: split.clone(),
                    paths,
                }),
            }
        }
    }
    Ok(groups)
}

/// Returns the source that an argument stands for, as [`Request`] takes it: the path is
/// [expanded](paths::expand_argument), after a split as well.
///
/// # Errors
/// If the path cannot be expanded.
pub fn expand_argument(written: &Path) -> Result<PathBuf, paths::Error> {
    let (split, path) = split_of(written);
    let path = paths::expand_argument(path.as_os_str())?;
    Ok(match split {
        Some(split) => {
            let mut whole = OsString::from(split + "=");
            whole.push(path);
            whole.into()
        }
        None => path,
    })
}

/// Splits `val=path` into both; a path that exists is nothing but a path.
fn split_of(argument: &Path) -> (Option<String>, PathBuf) {
    let bytes = argument.as_os_str().as_bytes();
    let equals = bytes.iter().position(|&byte| byte == b'=');
    if let Some(at) = equals.filter(|_| !argument.exists())
        && let Ok(split) = str::from_utf8(&bytes[..at])
        && let path = OsStr::from_bytes(&bytes[at + 1..])
        && is_plain(split)
        && !path.is_empty()
    {
        return (Some(split.to_owned()), path.into());
    }
    (None, argument.to_owned())
}

/// Returns the paths that a pattern with braces stands for.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    match pattern.to_str() {
        Some(text) if text.contains('{') && !pattern.exists() => webdataset::expand(text)
            .into_iter()
            .map(PathBuf::from)
            .collect(),
        _ => vec![pattern.to_owned()],
    }
}

/// Tells what a path leads to, and which files that is.
fn what(path: &Path) -> Result<(What, Vec<PathBuf>), Error> {
    if path == Path::new(tar::STDIN) {
        return Ok((What::Tar, vec![path.to_owned()]));
    }
    let meta = std::fs::metadata(path).map_err(Error::io(path, "open"))?;
    if meta.is_dir() {
        return folder_of(path);
    }
    let mut head = Vec::new();
    let opened = File::open(path).and_then(|file| file.take(HEAD as u64).read_to_end(&mut head));
    opened.map_err(Error::io(path, "read"))?;
    let kind = match Kind::of(&head) {
        Kind::Archive("tar") if webdataset::is_shard(path)? => What::WebDataset,
        Kind::Archive("gzip") if webdataset::is_shard(path).unwrap_or(false) => What::WebDataset,
        Kind::Archive("tar" | "gzip") => What::Tar,
        Kind::Archive("zip") => What::Zip,
        Kind::Archive("parquet") => What::Parquet,
        _ if tfrecord::is_file(&head) => What::TfRecord,
        kind => {
            let is = match kind {
                Kind::Image(name) => format!("a single image ({name})"),
                Kind::Unknown => "a file of an unknown type".to_owned(),
                kind => kind.refusal(),
            };
            let known = "a folder, or an archive of images: tar, zip, parquet, TFRecord, MDS";
            return Err(Error::Unknown {
                path: path.to_owned(),
                reason: format!("{is}; a source is {known}; a list of files goes with --list"),
            });
        }
    };
    Ok((kind, vec![path.to_owned()]))
}

/// Tells what a folder holds: images, or shards of another format.
fn folder_of(path: &Path) -> Result<(What, Vec<PathBuf>), Error> {
    if mds::is_folder(path) {
        return Ok((What::Mds, vec![path.to_owned()]));
    }
    let (mut files, mut folders) = names(path)?;
    let has_images = |files: &[PathBuf]| {
        let name = |path: &Path| path.to_string_lossy().into_owned();
        files.iter().any(|path| kind::named(&name(path)).is_some())
    };
    if !has_images(&files)
        && let [data] = &folders[..]
        && data.ends_with("data")
    {
        (files, folders) = names(data)?;
    }
    // Records lie alone. What is among images or folders is left out there, by name.
    if folders.is_empty() && !has_images(&files) {
        let has_ending =
            |path: &Path, ending: &str| path.extension().is_some_and(|known| known == ending);
        let of = |fits: &dyn Fn(&Path) -> bool| -> Vec<PathBuf> {
            files.iter().filter(|path| fits(path)).cloned().collect()
        };
        let parquet = of(&|path| has_ending(path, "parquet"));
        if !parquet.is_empty() {
            return Ok((What::Parquet, parquet));
        }
        let records = of(&tfrecord::is_named);
        if !records.is_empty() {
            return Ok((What::TfRecord, records));
        }
        let shards = of(&|path| has_ending(path, "tar"));
        if let Some(first) = shards.first()
            && webdataset::is_shard(first)?
        {
            return Ok((What::WebDataset, shards));
        }
    }
    Ok((What::Folder, vec![path.to_owned()]))
}

/// Returns the files and the folders in a folder, sorted, without what is never meant.
fn names(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Error> {
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder, "list"))?;
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io(folder, "list"))?;
        if !entry.file_name().to_str().is_some_and(is_junk) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths.into_iter().partition(|path| !path.is_dir()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_may_stand_before_a_path() {
        let split = |text: &str| split_of(Path::new(text));
        assert_eq!(
            split("val=x/y.tar"),
            (Some("val".to_owned()), "x/y.tar".into())
        );
        for path in ["x/y=z.tar", "=x", "val=", "a/b"] {
            assert_eq!(split(path), (None, path.into()));
        }
        let latin = |bytes| OsStr::from_bytes(bytes);
        assert_eq!(
            split_of(latin(b"val=caf\xe9").as_ref()),
            (Some("val".to_owned()), latin(b"caf\xe9").into())
        );
    }

    #[test]
    fn home_is_expanded_behind_a_split_too() {
        let home = std::env::var("HOME").expect("tests have a home");
        for (written, expected) in [
            ("val=~/x.tar", format!("val={home}/x.tar")),
            ("val=$HOME/{a,b}.tar", format!("val={home}/{{a,b}}.tar")),
            ("~/x=~", format!("{home}/x=~")),
            ("-", "-".to_owned()),
        ] {
            let found = expand_argument(written.as_ref());
            assert_eq!(found, Ok(expected.into()), "{written}");
        }
        assert!(expand_argument("val=~bob/x".as_ref()).is_err());
    }
}
