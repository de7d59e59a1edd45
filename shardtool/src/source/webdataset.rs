//! WebDataset: tar files in which the members of one sample follow each other and share a key.
//!
//! The key is the path up to the first dot of the file name. `n01/7.jpg`, `n01/7.cls` and `n01/7.json` make one
//! sample: an image, its class, further labels. The samples keep the order that they have in the shards.

mod braces;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use braces::expand;

use super::kind::{self, Kind};
use super::tar::container::{self, Container, Containers};
use super::tar::walk::{self, Member};
use super::tar::{Index, name};
use super::{Class, Contents, Error, Item, Labels, Note, Options, Part, folder};
use crate::format::{MAX_LABELS, PATH_COLUMN};

/// Largest file with a class or labels.
const MOST_TEXT: u64 = 1 << 20;

/// How many members are looked at to tell what an archive is.
const FIRST: usize = 64;

/// The column of a sample's text.
const TEXT: &str = "txt";

/// Tells if a tar archive holds samples: an image near its beginning has a class or labels under the same key.
///
/// # Errors
/// If the archive cannot be read, or is damaged there.
pub fn is_shard(path: &Path) -> Result<bool, Error> {
    let archive = container::open(path)?;
    let names = Index::first_names(&*archive, path, FIRST)?;
    let parts: Vec<_> = names.iter().filter_map(|name| split(name)).collect();
    let images = parts
        .iter()
        .filter(|(_, extension)| kind::named(&format!(".{extension}")).is_some());
    let images: HashSet<&str> = images.map(|(key, _)| *key).collect();
    Ok(parts.iter().any(|(key, extension)| {
        images.contains(key) && matches!(*extension, "cls" | "json" | "txt")
    }))
}

/// Lists shards, in this order.
///
/// # Errors
/// If one cannot be read, is cut or damaged, or there are more label columns than a dataset may have.
pub fn open(paths: &[PathBuf], options: &Options) -> Result<Part, Error> {
    let mut contents = Contents {
        name: paths.first().map(|path| name(path)).unwrap_or_default(),
        classes: options.classes.clone(),
        is_ordered: true,
        ..Contents::default()
    };
    let mut archives: Vec<Box<dyn Container>> = Vec::new();
    let mut columns = Columns::default();
    let mut shards = Vec::new();
    for (container, path) in (0..).zip(paths) {
        let archive = container::open(path)?;
        let meta = std::fs::metadata(path).map_err(Error::io(path, "open"))?;
        contents.newest = contents.newest.max(Some(folder::changed(&meta)));
        contents.is_sequential |= archive.is_sequential();
        let index = Index::read(&*archive, path, options)?;
        let name = name(path);
        let mut shard = Shard {
            bytes: &*archive,
            path,
            split: options.split.clone().unwrap_or_else(|| split_of(&name)),
            container,
            name: walk::stem(&name).unwrap_or(&name).to_owned(),
            contents: Contents {
                ignored: index.ignored,
                left_out: index.left_out,
                ..Contents::default()
            },
            rows: Vec::new(),
        };
        for sample in samples(index.files, &mut shard)? {
            shard.sample(sample, &mut columns)?;
        }
        shards.push((shard.name, shard.contents, shard.rows));
        archives.push(archive);
    }
    if columns.names.len() >= MAX_LABELS as usize {
        let path = paths.first().cloned().unwrap_or_default();
        let fault = format!("{} label columns", columns.names.len());
        return Err(Error::damaged(&path)(fault));
    }
    join(shards, columns, &mut contents);
    Ok(Part {
        contents,
        files: Box::new(Containers(archives)),
    })
}

/// Rows of label columns, by path.
type Rows = Vec<(String, Vec<String>)>;

/// Puts what shards hold behind each other. If they use the same keys, these get the shard's name before them.
fn join(shards: Vec<(String, Contents, Rows)>, columns: Columns, contents: &mut Contents) {
    let mut seen = HashSet::new();
    let items = || shards.iter().flat_map(|(_, shard, _)| &shard.items);
    let is_repeated = !items().all(|item| seen.insert(item.path.as_str()));
    let names: HashSet<&str> = shards.iter().map(|(name, _, _)| name.as_str()).collect();
    let is_named = names.len() == shards.len();
    if is_repeated {
        contents
            .remarks
            .push("shards use the same keys, so paths begin with the shard's name".to_owned());
    }
    let mut all = HashMap::new();
    for (number, (name, shard, rows)) in shards.into_iter().enumerate() {
        let prefix = match (is_repeated, is_named) {
            (false, _) => String::new(),
            (true, true) => format!("{name}/"),
            (true, false) => format!("{number:06}/"),
        };
        contents
            .items
            .extend(shard.items.into_iter().map(|item| Item {
                path: format!("{prefix}{}", item.path),
                ..item
            }));
        let place = |notes: Vec<Note>| {
            let notes = notes.into_iter();
            notes
                .map(|note| Note::new(format!("{prefix}{}", note.path), note.reason))
                .collect::<Vec<_>>()
        };
        contents.ignored.extend(place(shard.ignored));
        contents.left_out.extend(place(shard.left_out));
        for (path, mut row) in rows {
            row.resize(columns.names.len(), String::new());
            all.insert(format!("{prefix}{path}"), row);
        }
    }
    if !columns.no_scalars.is_empty() {
        let mut names: Vec<String> = columns.no_scalars.into_iter().collect();
        names.sort();
        contents.remarks.push(format!(
            "fields of .json that are lists or objects are no labels: {}",
            names.join(", ")
        ));
    }
    if !columns.names.is_empty() {
        contents.labels = Labels::from_rows(columns.names, all);
    }
}

/// Splits a path into key and extension; there is none without a dot.
fn split(path: &str) -> Option<(&str, &str)> {
    let start = path.rfind('/').map_or(0, |at| at + 1);
    let dot = start + path[start..].find('.')?;
    (dot > start).then(|| (&path[..dot], &path[dot + 1..]))
}

/// Returns the split that a word of a shard's name says; `train` without one.
fn split_of(name: &str) -> String {
    let words = name.split(|character: char| !character.is_ascii_alphabetic());
    let mut splits = words.filter_map(|word| match &*word.to_ascii_lowercase() {
        "train" | "training" => Some("train"),
        "val" | "valid" | "validation" => Some("val"),
        "test" | "testing" => Some("test"),
        _ => None,
    });
    splits.next().unwrap_or("train").to_owned()
}

/// The members of one key.
struct Sample {
    key: String,
    members: Vec<Member>,
}

/// Groups members by their keys, in the order of the keys' first members.
fn samples(members: Vec<Member>, shard: &mut Shard<'_>) -> Result<Vec<Sample>, Error> {
    let mut samples: Vec<Sample> = Vec::new();
    let mut places = HashMap::new();
    for member in members {
        let Some((key, _)) = split(&member.path) else {
            match shard.kind(&member)? {
                Kind::Other(_) | Kind::Unknown => {
                    shard.ignore(member.path, "belongs to no sample: no extension")
                }
                kind => shard.leave_out(
                    member.path,
                    format!("belongs to no sample: {}", kind.refusal()),
                ),
            }
            continue;
        };
        let place = *places.entry(key.to_owned()).or_insert(samples.len());
        match samples.get_mut(place) {
            Some(sample) => sample.members.push(member),
            None => samples.push(Sample {
                key: key.to_owned(),
                members: vec![member],
            }),
        }
    }
    Ok(samples)
}

/// One shard that is being read.
struct Shard<'a> {
    bytes: &'a dyn Container,
    path: &'a Path,
    split: String,
    container: u32,
    name: String,
    contents: Contents,
    rows: Rows,
}

impl Shard<'_> {
    /// Makes items of a sample's images.
    fn sample(&mut self, sample: Sample, columns: &mut Columns) -> Result<(), Error> {
        let mut images = Vec::new();
        let mut class = None;
        let mut fault = None;
        let mut row = Vec::new();
        for member in sample.members {
            let extension = split(&member.path).map_or("", |(_, extension)| extension);
            let read = match &*extension.to_ascii_lowercase() {
                "cls" => self.text(&member)?.map(|text| class = class_of(&text)),
                "txt" => self
                    .text(&member)?
                    .map(|text| columns.set(&mut row, TEXT.to_owned(), text)),
                "json" => self
                    .text(&member)?
                    .and_then(|text| columns.json(&mut row, &text)),
                _ if kind::named(&member.path).is_some() => {
                    images.push(member);
                    continue;
                }
                _ => {
                    match self.kind(&member)? {
                        Kind::Image(_) => images.push(member),
                        kind @ (Kind::Unread(_) | Kind::Archive(_)) => {
                            self.leave_out(member.path, kind.refusal());
                        }
                        kind => self.ignore(member.path, &kind.refusal()),
                    }
                    continue;
                }
            };
            if let Err(reason) = read {
                fault.get_or_insert(format!("{}: {reason}", member.path));
            }
        }
        if images.is_empty() {
            self.leave_out(sample.key, "a sample without an image".to_owned());
        }
        for image in images {
            if !row.is_empty() {
                self.rows.push((image.path.clone(), row.clone()));
            }
            self.contents.items.push(Item {
                split: self.split.clone(),
                path: image.path,
                class: class.clone(),
                size: image.size,
                fault: fault.clone(),
                container: self.container,
                position: image.position,
            });
        }
        Ok(())
    }

    /// Reads a small text. The inner error is a fault of the text.
    fn text(&self, member: &Member) -> Result<Result<String, String>, Error> {
        if member.size > MOST_TEXT {
            return Ok(Err(format!(
                "{} bytes, the limit is {MOST_TEXT}",
                member.size
            )));
        }
        let bytes = self.bytes.read(member.position, member.size as usize);
        let bytes = bytes.map_err(Error::io(self.path, "read"))?;
        Ok(String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned()))
    }

    fn kind(&self, member: &Member) -> Result<Kind, Error> {
        let length = member.size.min(kind::HEAD as u64) as usize;
        let head = self.bytes.read(member.position, length);
        let head = head.map_err(Error::io(self.path, "read"))?;
        Ok(Kind::of(&head))
    }

    fn ignore(&mut self, path: String, reason: &str) {
        self.contents.ignored.push(Note::new(path, reason));
    }

    fn leave_out(&mut self, path: String, reason: String) {
        self.contents.left_out.push(Note::new(path, reason));
    }
}

/// Returns the class that a `.cls` says: a number or a name; none if it is empty or -1.
fn class_of(text: &str) -> Option<Class> {
    match text.trim() {
        "" | "-1" => None,
        text => Some(match text.parse() {
            Ok(number) => Class::Number(number),
            Err(_) => Class::Name(text.to_owned()),
        }),
    }
}

/// The label columns, in the order in which they were met.
#[derive(Default)]
struct Columns {
    names: Vec<String>,
    places: HashMap<String, usize>,
    /// Fields that are no label.
    no_scalars: HashSet<String>,
}

impl Columns {
    fn set(&mut self, row: &mut Vec<String>, name: String, value: String) {
        let place = *self.places.entry(name.clone()).or_insert(self.names.len());
        if place == self.names.len() {
            self.names.push(name);
        }
        if row.len() <= place {
            row.resize(place + 1, String::new());
        }
        row[place] = value;
    }

    /// Adds the fields of an object. An error says why it is none.
    fn json(&mut self, row: &mut Vec<String>, text: &str) -> Result<(), String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let Value::Object(fields) = value else {
            return Err("not an object".to_owned());
        };
        for (name, value) in fields {
            let value = match value {
                Value::Null => String::new(),
                Value::Bool(value) => value.to_string(),
                Value::Number(value) => value.to_string(),
                Value::String(value) => value,
                Value::Array(_) | Value::Object(_) => {
                    if self.no_scalars.len() < MAX_LABELS as usize {
                        self.no_scalars.insert(name);
                    }
                    continue;
                }
            };
            let name = match &*name {
                PATH_COLUMN | TEXT | "" => format!("json.{name}"),
                _ => name,
            };
            if name.len() > 255 {
                return Err("a field with a name of more than 255 bytes".to_owned());
            }
            if self.names.len() >= MAX_LABELS as usize && !self.places.contains_key(&name) {
                return Err(format!("more than {MAX_LABELS} different fields"));
            }
            self.set(row, name, value);
        }
        Ok(())
    }
}
