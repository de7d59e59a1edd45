//! ImageNet as it is handed out: the classes of images for validation, and names that say what an archive is.

mod matlab;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::tar::{self, Index};
use super::{Class, Contents, Error, Item, Options, kind};
use crate::Escaped;

/// Names of the files that tell classes, the likeliest first.
const NAMES: [&str; 6] = [
    "ILSVRC2012_devkit_t12.tar.gz",
    "ILSVRC2012_devkit_t12.tar",
    "imagenet_2012_validation_synset_labels.txt",
    "LOC_val_solution.csv",
    "valprep.sh",
    "ILSVRC2012_validation_synset_labels.txt",
];

/// Largest file of labels that is read; the largest known has 3 MB.
const MOST: u64 = 64 << 20;

/// Names of images for validation, without their numbers.
const VAL: &str = "ILSVRC2012_val_";

/// Reads the classes of the images for validation: for each name without extension the WordNet id.
///
/// The file is one of the development kit `ILSVRC2012_devkit_t12.tar.gz`, a list of 50,000 ids in the images' order,
/// Kaggle's `LOC_val_solution.csv`, or the script `valprep.sh`. Its content decides which.
///
/// # Errors
/// If the file cannot be read, is none of these, or contradicts itself.
pub fn val_classes(path: &Path) -> Result<HashMap<String, String>, Error> {
    let open = || File::open(path).map_err(Error::io(path, "open"));
    let mut start = Vec::new();
    open()?
        .take(kind::HEAD as u64)
        .read_to_end(&mut start)
        .map_err(Error::io(path, "read"))?;
    let is_packed = start.starts_with(&[0x1f, 0x8b]);
    if is_packed || start.get(257..262) == Some(b"ustar") {
        return devkit(path);
    }
    let mut bytes = Vec::new();
    open()?
        .take(MOST + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::io(path, "read"))?;
    if bytes.len() as u64 > MOST {
        return Err(Error::damaged(path)("too large for a list of labels"));
    }
    let text = std::str::from_utf8(&bytes).map_err(Error::damaged(path))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let classes = if text.starts_with("ImageId") {
        kaggle(text)
    } else if text.lines().next().is_some_and(|line| is_wnid(line.trim())) {
        list(text)
    } else {
        script(text)
    };
    classes.map_err(Error::damaged(path))
}

/// Tells if some images for validation have no class.
pub(super) fn lacks_labels(contents: &Contents) -> bool {
    let is_val = |item: &Item| item.split == "val" && name(&item.path).starts_with(VAL);
    contents
        .items
        .iter()
        .any(|item| item.class.is_none() && is_val(item))
}

/// Gives the images of split `val` that have no class theirs, says where it is from, and returns how many got one.
pub(super) fn label(contents: &mut Contents, known: &HashMap<String, String>, from: &Path) -> u64 {
    let (mut labelled, mut unknown) = (0, 0);
    let of_val = contents.items.iter_mut().filter(|item| item.split == "val");
    for item in of_val.filter(|item| item.class.is_none()) {
        let name = name(&item.path);
        let stem = name.split_once('.').map_or(name, |(stem, _)| stem);
        item.class = known.get(stem).cloned().map(Class::Name);
        *if item.class.is_some() {
            &mut labelled
        } else {
            &mut unknown
        } += 1;
    }
    if labelled > 0 {
        let from = Escaped::new(from);
        contents
            .remarks
            .push(format!("classes of split val are those of {from}"));
        if unknown > 0 {
            let remark = format!(
                "{from} tells the class of {labelled} images of split val, but not of {unknown}"
            );
            contents.remarks.push(remark);
        }
    }
    labelled
}

/// Returns the last name of a path.
fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Looks for a file of classes in a folder, by the names that such files have.
pub fn find_beside(folder: &Path) -> Option<PathBuf> {
    let mut paths = NAMES.iter().map(|name| folder.join(name));
    paths.find(|path| path.is_file())
}

/// Tells if files are the training set without its folders: all called like `n01440764_10026.JPEG`.
pub(super) fn is_flat_train<'a>(mut paths: impl Iterator<Item = &'a str>) -> bool {
    let mut some = false;
    paths.all(|path| {
        some = true;
        class_of(path).is_some()
    }) && some
}

/// Returns the class that the name of a file for training begins with, if it lies in no folder.
pub(super) fn class_of(path: &str) -> Option<String> {
    let (stem, extension) = path.rsplit_once('.')?;
    let (wnid, number) = stem.split_once('_')?;
    let fits = is_wnid(wnid) && is_number(number) && extension.eq_ignore_ascii_case("jpeg");
    fits.then(|| wnid.to_owned())
}

/// Returns the split that files are of whose names say so, all the same.
pub(super) fn split_of<'a>(paths: impl Iterator<Item = &'a str>) -> Option<&'static str> {
    let mut found = None;
    for path in paths {
        let name = name(path);
        let split = ["val", "test"].into_iter().find(|split| {
            let rest = name.strip_prefix("ILSVRC2012_");
            let rest = rest.and_then(|rest| rest.strip_prefix(split)?.strip_prefix('_'));
            rest.and_then(|rest| rest.split_once('.'))
                .is_some_and(|(number, _)| number.len() == 8 && is_number(number))
        })?;
        if *found.get_or_insert(split) != split {
            return None;
        }
    }
    found
}

/// Tells if a text is a WordNet id: `n` and eight digits.
fn is_wnid(text: &str) -> bool {
    text.strip_prefix('n')
        .is_some_and(|digits| digits.len() == 8 && is_number(digits))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the name without extension of the image with a number from 1.
fn stem(number: usize) -> String {
    format!("{VAL}{number:08}")
}

/// Reads the development kit: numbers of classes in the images' order, and a table of what they mean.
fn devkit(path: &Path) -> Result<HashMap<String, String>, Error> {
    let archive = tar::container::open(path)?;
    let mut truth = None;
    let mut synsets = None;
    for member in Index::read(&*archive, path, &Options::default())?.files {
        let name = member.path.as_str();
        let is_truth = name.ends_with("ILSVRC2012_validation_ground_truth.txt");
        let is_table = name.ends_with("data/meta.mat") || name == "meta.mat";
        if !is_truth && !is_table {
            continue;
        }
        if member.size > MOST {
            return Err(Error::damaged(&path.join(name))(
                "too large for a list of labels",
            ));
        }
        let bytes = archive.read(member.position, member.size as usize);
        let bytes = bytes.map_err(Error::io(path, "read"))?;
        if is_truth {
            truth = Some(bytes);
        } else {
            synsets = Some(matlab::synsets(&bytes).map_err(Error::damaged(&path.join(name)))?);
        }
    }
    let (Some(truth), Some(synsets)) = (truth, synsets) else {
        return Err(Error::damaged(path)(
            "no ILSVRC2012_validation_ground_truth.txt and meta.mat in it",
        ));
    };
    let text = String::from_utf8_lossy(&truth).into_owned();
    numbered(&text, &synsets).map_err(Error::damaged(path))
}

/// Gives every line's image the class that the line's number means.
fn numbered(text: &str, synsets: &HashMap<u32, String>) -> Result<HashMap<String, String>, String> {
    let mut classes = HashMap::new();
    for (number, line) in (1..).zip(text.trim_end().lines()) {
        let wnid = line.trim().parse().ok().and_then(|id| synsets.get(&id));
        let wnid =
            wnid.ok_or_else(|| format!("line {number} of the classes: no class \"{line}\""))?;
        classes.insert(stem(number), wnid.clone());
    }
    Ok(classes)
}

/// Reads one WordNet id a line, in the images' order.
fn list(text: &str) -> Result<HashMap<String, String>, String> {
    let lines = (1..).zip(text.trim_end().lines().map(str::trim));
    lines
        .map(|(number, line)| match is_wnid(line) {
            true => Ok((stem(number), line.to_owned())),
            false => Err(format!("line {number}: \"{line}\" is no WordNet id")),
        })
        .collect()
}

/// Reads Kaggle's table: the image, then for each box its class and four numbers.
fn kaggle(text: &str) -> Result<HashMap<String, String>, String> {
    let mut classes = HashMap::new();
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .from_reader(text.as_bytes());
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        let image = record.get(0).unwrap_or_default();
        let mut words = record.get(1).unwrap_or_default().split_ascii_whitespace();
        let wnid = words.next().filter(|wnid| is_wnid(wnid));
        let wnid = wnid.ok_or_else(|| format!("line {line}: no WordNet id"))?;
        insert(&mut classes, image, wnid).map_err(|reason| format!("line {line}: {reason}"))?;
    }
    Ok(classes)
}

/// Reads the lines `mv IMAGE FOLDER` of a script, which is never run.
fn script(text: &str) -> Result<HashMap<String, String>, String> {
    let mut classes = HashMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let ["mv", .., image, folder] = words[..] else {
            continue;
        };
        let image = image.rsplit('/').next().unwrap_or(image);
        let folder = folder.trim_end_matches('/');
        let wnid = folder.rsplit('/').next().unwrap_or(folder);
        if image.starts_with(VAL) && is_wnid(wnid) {
            insert(&mut classes, image, wnid)
                .map_err(|reason| format!("line {number}: {reason}"))?;
        }
    }
    if classes.is_empty() {
        return Err("no file of classes for ImageNet's validation images that is known".to_owned());
    }
    Ok(classes)
}

/// Adds the class of an image, which may have no other.
fn insert(classes: &mut HashMap<String, String>, image: &str, wnid: &str) -> Result<(), String> {
    let stem = image.split_once('.').map_or(image, |(stem, _)| stem);
    match classes.insert(stem.to_owned(), wnid.to_owned()) {
        Some(other) if other != wnid => {
            Err(format!("{stem} is of class {wnid} and of class {other}"))
        }
        _ => Ok(()),
    }
}
