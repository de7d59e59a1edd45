//! TFRecord files of `tf.train.Example` messages, with the keys of TensorFlow Datasets or of TF-slim.
//!
//! A record is a length (u64), its checksum, the message, and its checksum; the checksums are masked CRC-32C. Listing
//! jumps over the images; a message's checksum is looked at when its image is read. A file is opened for each read:
//! datasets have more files than a process may hold open.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::records::{self, Records, invalid};
use super::{Class, Contents, Error, Files, Item, Options, Part, SourceFile, folder};

/// Bytes before a message, and behind it.
const HEAD: u64 = 12;
const TAIL: u64 = 4;

/// Bytes of text that are looked at: keys, classes and file names are shorter.
const MOST_TEXT: u64 = 4096;

/// File with the class names of a dataset of TensorFlow Datasets, one in a line.
const CLASSES_FILE: &str = "label.labels.txt";

/// Opens files, in the order of their names.
///
/// `image`, `label` and `file_name` are TensorFlow Datasets' keys; `image/encoded`, `image/class/label` (where 0 is
/// the background, so no class, and the first class is 1), `image/class/synset` and `image/filename` are TF-slim's.
///
/// # Errors
/// If a file cannot be read, is compressed, is cut short, or no record has an image.
pub fn open(paths: &[PathBuf], options: &Options) -> Result<Part, Error> {
    let mut listing = Listing::default();
    let mut contents = Contents {
        name: records::name(paths),
        classes: options.classes.clone(),
        is_ordered: true,
        ..Contents::default()
    };
    let sorted = records::sorted(paths);
    for (container, (path, name)) in (0..).zip(&sorted) {
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        let meta = file.metadata().map_err(Error::io(path, "open"))?;
        contents.newest = contents.newest.max(Some(folder::changed(&meta)));
        let window = Window::new(&file, meta.len());
        let split = records::split(path, options);
        let found = listing.file(window, &split, name, container);
        found.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => Error::damaged(path)(error),
            _ => Error::io(path, "read")(error),
        })?;
    }
    if let ([_, ..], [(path, _), ..]) = (&listing.records.items[..], &sorted[..])
        && !listing.has_images
    {
        return Err(Error::Unknown {
            path: path.clone(),
            reason: "no record has an image under the key image or image/encoded".to_owned(),
        });
    }
    if contents.classes.is_none() && !listing.has_names {
        contents.classes = sorted.first().and_then(|(path, _)| class_names(path));
    }
    if listing.background > 0 {
        contents.remarks.push(format!(
            "{} records have label 0, which is TF-slim's background, and so no class",
            listing.background
        ));
    }
    (contents.items, contents.labels) = listing.records.finish(super::first(paths))?;
    Ok(Part {
        contents,
        files: Box::new(TfRecords {
            paths: sorted.into_iter().map(|(path, _)| path).collect(),
        }),
    })
}

/// Returns the names of classes that lie beside a file, if they do.
fn class_names(path: &Path) -> Option<Vec<String>> {
    let bytes = folder::head(&path.with_file_name(CLASSES_FILE), 1 << 24).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    Some(text.lines().map(str::to_owned).collect())
}

/// Reads records; an item's position is that of its record's first byte.
struct TfRecords {
    paths: Vec<PathBuf>,
}

impl Files for TfRecords {
    fn read(&self, file: &SourceFile) -> io::Result<Vec<u8>> {
        let path = self.paths.get(file.container as usize);
        let from = File::open(path.ok_or_else(|| invalid("no such file"))?)?;
        let length = length_of_record(&records::read_range(&from, file.position, HEAD)?)?;
        let mut message = records::read_range(&from, file.position + HEAD, length)?;
        let tail = records::read_range(&from, file.position + HEAD + length, TAIL)?;
        let (got, expected) = (masked_crc(&message), number(&tail));
        if got != expected {
            return Err(invalid(format!(
                "checksum {got:08x} where the record says {expected:08x}"
            )));
        }
        let range = example(&mut message.as_slice(), 0..length)?.image;
        let Range { start, end } = range.ok_or_else(|| invalid("no image in it"))?;
        message.truncate(end as usize);
        message.drain(..start as usize);
        Ok(message)
    }
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

/// Tells if a file begins like one of records: a length and its checksum.
pub fn is_file(head: &[u8]) -> bool {
    head.len() >= 12 && masked_crc(&head[..8]) == number(&head[8..])
}

/// Tells if a file is called like one of records: `x.tfrecord`, `train-00000-of-01024`.
pub fn is_named(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_numbered = name.rsplit_once("-of-").is_some_and(|(before, count)| {
        is_number(count)
            && before
                .rsplit_once('-')
                .is_some_and(|(_, number)| is_number(number))
    });
    is_numbered || name.contains(".tfrecord")
}

/// Returns the number in the first 4 bytes.
fn number(bytes: &[u8]) -> u32 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Returns the length that stands before a message.
fn length_of_record(head: &[u8]) -> io::Result<u64> {
    let length = head
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let (got, expected) = (masked_crc(&head[..8]), number(&head[8..]));
    if got != expected {
        return Err(invalid(format!(
            "its length has checksum {got:08x} where {expected:08x} stands"
        )));
    }
    Ok(length)
}

/// What was found in files.
#[derive(Default)]
struct Listing {
    records: Records,
    has_images: bool,
    has_names: bool,
    /// Records of TF-slim with label 0.
    background: u64,
}

impl Listing {
    /// Lists the records of a file.
    fn file(
        &mut self,
        mut window: Window<'_>,
        split: &str,
        name: &str,
        container: u32,
    ) -> io::Result<()> {
        let (mut at, mut count) = (0, 0);
        while at < window.length {
            let wrong = |reason: &str| invalid(format!("record {count} at offset {at}: {reason}"));
            if window.length - at < HEAD + TAIL {
                return Err(wrong("the file ends in it"));
            }
            let head = window.get(at, HEAD)?;
            let is_packed = at == 0 && (head.starts_with(&[0x1f, 0x8b]) || head[0] == 0x78);
            let length = length_of_record(head).map_err(|error| match is_packed {
                true => invalid("compressed by gzip or zlib, or no TFRecord: unpack it first"),
                false => wrong(&error.to_string()),
            })?;
            if length > window.length - at - HEAD - TAIL {
                return Err(wrong("the file ends in it"));
            }
            let start = at + HEAD;
            let found = example(&mut window, start..start + length);
            let found = match found {
                Err(error) if error.kind() != io::ErrorKind::InvalidData => return Err(error),
                found => found.map_err(|error| error.to_string()),
            };
            self.add(found, split, format!("{name}/{count}"), container, at);
            at = start + length + TAIL;
            count += 1;
        }
        Ok(())
    }

    fn add(
        &mut self,
        found: Result<Example, String>,
        split: &str,
        path: String,
        container: u32,
        position: u64,
    ) {
        let (found, mut fault) = match found {
            Ok(found) => (found, None),
            Err(reason) => (Example::default(), Some(reason)),
        };
        self.has_images |= found.image.is_some();
        if found.image.is_none() && fault.is_none() {
            fault = Some("no image in it".to_owned());
        }
        let number = match (found.label, found.slim_label) {
            (None, Some(0)) => {
                self.background += u64::from(found.synset.is_none());
                None
            }
            (None, Some(label)) if label > 0 => Some(label - 1),
            (label, slim_label) => label.or(slim_label),
        };
        let class = match found.synset {
            Some(synset) => Some(Class::Name(synset)),
            None => number.and_then(|number| {
                let class = records::class(number);
                class.unwrap_or_else(|reason| {
                    fault = fault.take().or(Some(reason));
                    None
                })
            }),
        };
        self.has_names |= matches!(class, Some(Class::Name(_)));
        let item = Item {
            split: split.to_owned(),
            path,
            class,
            size: found.image.map_or(0, |range| range.end - range.start),
            fault,
            container,
            position,
        };
        self.records.add(item, found.name, Vec::new());
    }
}

/// Bytes that are looked at here and there.
trait Bytes {
    /// Returns the bytes at an offset; fewer where they end.
    fn get(&mut self, at: u64, length: u64) -> io::Result<&[u8]>;
}

impl Bytes for &[u8] {
    fn get(&mut self, at: u64, length: u64) -> io::Result<&[u8]> {
        let start = (at as usize).min(self.len());
        let end = start.saturating_add(length as usize).min(self.len());
        Ok(&self[start..end])
    }
}

/// A file of which a few kilobytes at a time are held.
struct Window<'a> {
    file: &'a File,
    length: u64,
    start: u64,
    held: Vec<u8>,
}

impl Window<'_> {
    fn new(file: &File, length: u64) -> Window<'_> {
        Window {
            file,
            length,
            start: 0,
            held: Vec::new(),
        }
    }
}

impl Bytes for Window<'_> {
    fn get(&mut self, at: u64, length: u64) -> io::Result<&[u8]> {
        let length = length.min(MOST_TEXT).min(self.length.saturating_sub(at));
        if at < self.start || at + length > self.start + self.held.len() as u64 {
            self.start = at;
            self.held = records::read_range(
                self.file,
                at,
                (2 * MOST_TEXT).min(self.length - at.min(self.length)),
            )?;
        }
        let start = (at - self.start) as usize;
        Ok(&self.held[start..start + length as usize])
    }
}

/// What an Example message says of an image.
#[derive(Debug, Default, PartialEq)]
struct Example {
    image: Option<Range<u64>>,
    label: Option<i64>,
    slim_label: Option<i64>,
    synset: Option<String>,
    name: Option<String>,
}

/// Walks through a message: `Example { Features { map<string, Feature> } }`.
fn example(bytes: &mut impl Bytes, whole: Range<u64>) -> io::Result<Example> {
    let mut found = Example::default();
    let mut outer = Fields(whole);
    while let Some((number, Value::Range(features))) = outer.next_range(bytes)? {
        let mut entries = Fields(if number == 1 { features } else { 0..0 });
        while let Some((number, Value::Range(entry))) = entries.next_range(bytes)? {
            if number == 1 {
                found.entry(bytes, entry)?;
            }
        }
    }
    Ok(found)
}

impl Example {
    /// Takes an entry of the map: field 1 is the key, field 2 the feature.
    fn entry(&mut self, bytes: &mut impl Bytes, entry: Range<u64>) -> io::Result<()> {
        let (mut key, mut feature) = (String::new(), 0..0);
        let mut fields = Fields(entry);
        while let Some((number, Value::Range(range))) = fields.next_range(bytes)? {
            match number {
                1 => key = text(bytes, range)?.unwrap_or_default(),
                2 => feature = range,
                _ => {}
            }
        }
        match key.as_str() {
            "image/encoded" => self.image = first(bytes, feature, 1)?.and_then(Value::range),
            "image" if self.image.is_none() => {
                self.image = first(bytes, feature, 1)?.and_then(Value::range)
            }
            "label" => {
                self.label = first(bytes, feature.clone(), 3)?.and_then(Value::number);
                if self.label.is_none() && self.synset.is_none() {
                    self.synset = words(bytes, feature)?;
                }
            }
            "image/class/label" => {
                self.slim_label = first(bytes, feature, 3)?.and_then(Value::number)
            }
            "image/class/synset" => self.synset = words(bytes, feature)?,
            "file_name" | "image/filename" => self.name = words(bytes, feature)?,
            _ => {}
        }
        Ok(())
    }
}

/// Returns the text that a feature holds, if it holds some.
fn words(bytes: &mut impl Bytes, feature: Range<u64>) -> io::Result<Option<String>> {
    let range = first(bytes, feature, 1)?.and_then(Value::range);
    let text = range.map(|range| text(bytes, range)).transpose()?.flatten();
    Ok(text.filter(|text| !text.is_empty()))
}

fn text(bytes: &mut impl Bytes, range: Range<u64>) -> io::Result<Option<String>> {
    let length = range.end - range.start;
    if length > MOST_TEXT {
        return Ok(None);
    }
    Ok(String::from_utf8(bytes.get(range.start, length)?.to_vec()).ok())
}

/// Returns the first value of a feature's list, which is field `kind`: 1 for bytes, 3 for whole numbers.
fn first(bytes: &mut impl Bytes, feature: Range<u64>, kind: u64) -> io::Result<Option<Value>> {
    let mut lists = Fields(feature);
    let mut last = None;
    while let Some((number, Value::Range(list))) = lists.next_range(bytes)? {
        last = (number == kind).then_some(list).or(last);
    }
    let mut values = Fields(last.unwrap_or(0..0));
    while let Some((number, value)) = values.next(bytes)? {
        match value {
            _ if number != 1 => {}
            // Numbers are packed into one field as a rule.
            Value::Range(range) if kind == 3 => {
                if !range.is_empty() {
                    let number = Fields(range).varint(bytes)?;
                    return Ok(Some(Value::Number(number)));
                }
            }
            value => return Ok(Some(value)),
        }
    }
    Ok(None)
}

/// The value of a field.
#[derive(Debug)]
enum Value {
    Number(u64),
    Range(Range<u64>),
}

impl Value {
    fn number(self) -> Option<i64> {
        match self {
            Value::Number(number) => Some(number as i64),
            Value::Range(_) => None,
        }
    }

    fn range(self) -> Option<Range<u64>> {
        match self {
            Value::Range(range) => Some(range),
            Value::Number(_) => None,
        }
    }
}

/// The fields of a message in a range of bytes.
struct Fields(Range<u64>);

impl Fields {
    /// Returns the number and value of the next field.
    fn next(&mut self, bytes: &mut impl Bytes) -> io::Result<Option<(u64, Value)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint(bytes)?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint(bytes)?),
            1 => Value::Range(self.take(8)?),
            2 => {
                let length = self.varint(bytes)?;
                Value::Range(self.take(length)?)
            }
            5 => Value::Range(self.take(4)?),
            other => return Err(invalid(format!("a field of type {other} in its message"))),
        };
        // Only fields with a length are taken for ranges by others.
        let number = if matches!(tag & 7, 1 | 5) {
            u64::MAX
        } else {
            tag >> 3
        };
        Ok(Some((number, value)))
    }

    /// Returns the next field that is a range.
    fn next_range(&mut self, bytes: &mut impl Bytes) -> io::Result<Option<(u64, Value)>> {
        loop {
            match self.next(bytes)? {
                Some((_, Value::Number(_))) => {}
                other => return Ok(other),
            }
        }
    }

    fn take(&mut self, length: u64) -> io::Result<Range<u64>> {
        let start = self.0.start;
        if length > self.0.end - start {
            return Err(invalid("a field of its message ends behind it"));
        }
        self.0.start += length;
        Ok(start..start + length)
    }

    fn varint(&mut self, bytes: &mut impl Bytes) -> io::Result<u64> {
        let held = bytes.get(self.0.start, (self.0.end - self.0.start).min(10))?;
        let mut value = 0;
        for (at, byte) in held.iter().enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.0.start += at as u64 + 1;
                return Ok(value);
            }
        }
        Err(invalid("a number of its message does not end"))
    }
}

#[cfg(test)]
mod tests;
