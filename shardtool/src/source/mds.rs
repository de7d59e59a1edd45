//! Folders of shards in MosaicML's format MDS, version 2, plain or packed by zstd.
//!
//! A folder holds `index.json`, which names the shards and their columns. A shard is a count of samples (u32), a table
//! of their offsets and the end of the last (u32), and the samples: sizes (u32) of the columns whose size varies, then
//! the values of all columns. Of packed shards, at most [`HELD`] are held in memory, beside those being read.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::Deserialize;

use super::records::{self, MOST, Records, invalid};
use super::{Class, Contents, Error, Files, Item, Note, Options, Part, SourceFile, folder};

/// Name of the file that lists a folder's shards.
const INDEX: &str = "index.json";

/// Unpacked shards that are held in memory; each has the size that `index.json` says, 1 GiB at most.
const HELD: usize = 4;

const IMAGES: [&str; 5] = ["image", "jpg", "jpeg", "img", "x"];
const CLASSES: [&str; 4] = ["label", "class", "y", "cls"];
const PATHS: [&str; 4] = ["path", "file_name", "filename", "name"];

/// Tells if a folder is a dataset of this kind: shards are listed in it, or in a folder in it.
pub fn is_folder(path: &Path) -> bool {
    let is_index = |path: PathBuf| {
        let json = std::fs::read(path).ok();
        json.is_some_and(|json| serde_json::from_slice::<Index>(&json).is_ok())
    };
    is_index(path.join(INDEX))
        || folders(path).is_ok_and(|folders| {
            folders
                .iter()
                .any(|(folder, _)| is_index(folder.join(INDEX)))
        })
}

/// Opens a folder with `index.json` in it, or with folders that have one: the splits.
///
/// # Errors
/// If it has none, `index.json` or a shard violates the format, or the columns are not such as can be read.
pub fn open(path: &Path, options: &Options) -> Result<Part, Error> {
    let mut contents = Contents {
        name: records::name(&[path.to_owned()]),
        classes: options.classes.clone(),
        is_ordered: true,
        ..Contents::default()
    };
    let mut records = Records::default();
    let mut shards = Shards::default();
    for (folder, prefix) in folders(path)? {
        let place = folder.join(INDEX);
        let split = records::split(&folder, options);
        let bytes = std::fs::read(&place).map_err(Error::io(&place, "read"))?;
        let index: Index = serde_json::from_slice(&bytes).map_err(Error::damaged(&place))?;
        if index.version != 2 {
            let reason = format!("version {} of MDS, only 2 is read", index.version);
            return Err(Error::Unknown {
                path: place,
                reason,
            });
        }
        for record in index.shards {
            let shard = Shard::new(&folder, record).map_err(|reason| Error::Unknown {
                path: place.clone(),
                reason,
            })?;
            let meta = std::fs::metadata(&shard.path).map_err(Error::io(&shard.path, "open"))?;
            contents.newest = contents.newest.max(Some(folder::changed(&meta)));
            let (container, file) = (shards.all.len() as u32, shard.path.clone());
            let name = format!("{prefix}{}", shard.name);
            for column in &shard.unread {
                let reason = format!("its column \"{column}\" is not read");
                let note = Note::new(&name, reason);
                if !contents.remarks.contains(&note.reason) {
                    contents.remarks.push(note.reason);
                }
            }
            shards.all.push(shard);
            shards
                .list(container, &split, &name, &mut records)
                .map_err(|error| match error.kind() {
                    io::ErrorKind::InvalidData => Error::damaged(&file)(error),
                    _ => Error::io(&file, "read")(error),
                })?;
        }
    }
    if shards.all.iter().any(|shard| shard.is_packed) {
        let remark =
            "shards are packed: any order but their own unpacks one for almost every image";
        contents.remarks.push(remark.to_owned());
    }
    (contents.items, contents.labels) = records.finish(path)?;
    Ok(Part {
        contents,
        files: Box::new(shards),
    })
}

/// Returns the folders with an index, and what the paths of their samples begin with.
fn folders(path: &Path) -> Result<Vec<(PathBuf, String)>, Error> {
    if path.join(INDEX).is_file() {
        return Ok(vec![(path.to_owned(), String::new())]);
    }
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(path).map_err(Error::io(path, "list"))? {
        let entry = entry.map_err(Error::io(path, "list"))?;
        if entry.path().join(INDEX).is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            folders.push((entry.path(), format!("{name}/")));
        }
    }
    folders.sort();
    if folders.is_empty() {
        return Err(Error::Unknown {
            path: path.to_owned(),
            reason: format!("neither it nor a folder in it has {INDEX}"),
        });
    }
    Ok(folders)
}

/// `index.json`.
#[derive(Deserialize)]
struct Index {
    version: u32,
    shards: Vec<ShardRecord>,
}

#[derive(Deserialize)]
struct ShardRecord {
    format: String,
    column_names: Vec<String>,
    column_encodings: Vec<String>,
    /// Bytes of a column's values; none where they vary.
    column_sizes: Vec<Option<u32>>,
    compression: Option<String>,
    raw_data: FileRecord,
    zip_data: Option<FileRecord>,
    samples: u32,
}

#[derive(Deserialize)]
struct FileRecord {
    basename: String,
    bytes: u64,
}

/// A shard and its columns.
struct Shard {
    path: PathBuf,
    /// Its name, without ending.
    name: String,
    is_packed: bool,
    /// Bytes, unpacked.
    bytes: u64,
    samples: u32,
    sizes: Vec<Option<u32>>,
    image: usize,
    label: Option<Column>,
    said: Option<Column>,
    further: Vec<Column>,
    /// Names of the columns that are not understood.
    unread: Vec<String>,
}

/// A column of numbers or texts.
struct Column {
    name: String,
    at: usize,
    encoding: Encoding,
}

#[derive(Clone, Copy, PartialEq)]
enum Encoding {
    /// Whole numbers of some bytes, signed or not.
    Signed(usize),
    Unsigned(usize),
    Text,
}

impl Shard {
    /// Takes what `index.json` says; an error says why it cannot be read.
    fn new(folder: &Path, record: ShardRecord) -> Result<Shard, String> {
        let columns = record.column_names.len();
        if record.format != "mds" {
            return Err(format!("format {:?}, only \"mds\" is read", record.format));
        }
        if record.column_encodings.len() != columns || record.column_sizes.len() != columns {
            return Err("columns have not as many encodings and sizes".to_owned());
        }
        let raw = folder.join(&record.raw_data.basename);
        let (file, is_packed) = match (&record.compression, record.zip_data) {
            (None, _) => (record.raw_data.basename.clone(), false),
            // Whoever has unpacked the shards may have kept both.
            _ if records::is_plain(&record.raw_data.basename) && raw.is_file() => {
                (record.raw_data.basename.clone(), false)
            }
            (Some(method), Some(packed)) if method == "zstd" || method.starts_with("zstd:") => {
                (packed.basename, true)
            }
            (Some(method), _) => {
                return Err(format!("shards packed by {method:?}, only zstd is read"));
            }
        };
        if !records::is_plain(&file) {
            return Err(format!(
                "a shard is called {file:?}, which leads out of the folder"
            ));
        }
        if is_packed && record.raw_data.bytes > MOST {
            return Err(format!(
                "a packed shard of {} bytes, more than {MOST}",
                record.raw_data.bytes
            ));
        }

        let encoding = |at: usize| record.column_encodings[at].as_str();
        let find = |names: &[&str]| {
            let mut found = names
                .iter()
                .map(|name| record.column_names.iter().position(|column| column == name));
            found.find_map(|at| at)
        };
        let by_encoding = || (0..columns).find(|&at| matches!(encoding(at), "jpeg" | "png"));
        let image = find(&IMAGES).or_else(by_encoding);
        let image = image.ok_or_else(|| format!("no column is called {}", IMAGES.join(", ")))?;
        let name = |at: usize| record.column_names[at].clone();
        if !matches!(encoding(image), "bytes" | "jpeg" | "png") {
            return Err(format!(
                "column {:?} has encoding {:?}, not bytes, jpeg or png",
                name(image),
                encoding(image)
            ));
        }
        let column = |at: usize| {
            let encoding = Encoding::of(encoding(at))?;
            let name = name(at);
            Some(Column { name, at, encoding })
        };
        let label_at = find(&CLASSES);
        let label = label_at.map(|at| {
            let said = || {
                format!(
                    "column {:?} has encoding {:?}, not int or str",
                    name(at),
                    encoding(at)
                )
            };
            column(at).ok_or_else(said)
        });
        let said = find(&PATHS)
            .and_then(column)
            .filter(|said| said.encoding == Encoding::Text);
        let others = (0..columns).filter(|&at| at != image && Some(at) != label_at);
        let others = others.filter(|&at| said.as_ref().is_none_or(|said| said.at != at));
        let (further, unread): (Vec<usize>, Vec<usize>) = others
            .partition(|&at| column(at).is_some_and(|column| records::is_label(&column.name)));
        Ok(Shard {
            path: folder.join(&file),
            name: file.split(".mds").next().unwrap_or_default().to_owned(),
            is_packed,
            bytes: record.raw_data.bytes,
            samples: record.samples,
            image,
            label: label.transpose()?,
            said,
            further: further.into_iter().filter_map(column).collect(),
            unread: unread.into_iter().map(name).collect(),
            sizes: record.column_sizes,
        })
    }

    /// Returns where a sample's values lie, column by column.
    fn values(&self, data: &Data, sample: u64) -> io::Result<Vec<Range<u64>>> {
        if sample >= u64::from(self.samples) {
            return Err(invalid(format!("no sample {sample}")));
        }
        let wrong = |reason: &str| invalid(format!("sample {sample}: {reason}"));
        let table = data.get(4 + 4 * sample, 8)?;
        let (begin, end) = (u64::from(number(&table)), u64::from(number(&table[4..])));
        let least = 4 * (u64::from(self.samples) + 2);
        if begin < least || end < begin || end > self.bytes {
            return Err(wrong("its offsets lie outside the shard"));
        }
        let varying = self.sizes.iter().filter(|size| size.is_none()).count();
        if 4 * varying as u64 > end - begin {
            return Err(wrong("it is shorter than the sizes of its columns"));
        }
        let sizes = data.get(begin, 4 * varying as u64)?;
        let mut sizes_left = sizes.chunks(4).map(number);
        let mut at = begin + sizes.len() as u64;
        let mut values = Vec::new();
        for size in &self.sizes {
            let size = size.or_else(|| sizes_left.next()).unwrap_or(0);
            values.push(at..at + u64::from(size));
            at += u64::from(size);
        }
        if at != end {
            return Err(wrong(&format!("its columns end at {at}, it ends at {end}")));
        }
        Ok(values)
    }
}

/// Returns the number in the first 4 bytes.
fn number(bytes: &[u8]) -> u32 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

impl Encoding {
    fn of(name: &str) -> Option<Encoding> {
        Some(match name {
            "str" => Encoding::Text,
            "int" | "int64" => Encoding::Signed(8),
            "int32" => Encoding::Signed(4),
            "int16" => Encoding::Signed(2),
            "int8" => Encoding::Signed(1),
            "uint64" => Encoding::Unsigned(8),
            "uint32" => Encoding::Unsigned(4),
            "uint16" => Encoding::Unsigned(2),
            "uint8" => Encoding::Unsigned(1),
            _ => return None,
        })
    }
}

impl Column {
    /// Returns the column's value as text.
    fn read(&self, data: &Data, values: &[Range<u64>]) -> io::Result<String> {
        const MOST_TEXT: u64 = 1 << 20;
        let range = &values[self.at];
        let length = range.end - range.start;
        let wrong = |reason: &str| invalid(format!("its column \"{}\" {reason}", self.name));
        if length > MOST_TEXT {
            return Err(wrong("is longer than 1 MiB"));
        }
        let bytes = data.get(range.start, length)?;
        let (size, is_signed) = match self.encoding {
            Encoding::Text => return String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8")),
            Encoding::Signed(size) => (size, true),
            Encoding::Unsigned(size) => (size, false),
        };
        if bytes.len() != size {
            return Err(wrong(&format!("has {} bytes, not {size}", bytes.len())));
        }
        let is_negative = is_signed && bytes.last().is_some_and(|last| last & 0x80 != 0);
        let mut wide = [if is_negative { 0xff } else { 0 }; 16];
        wide[..size].copy_from_slice(&bytes);
        Ok(i128::from_le_bytes(wide).to_string())
    }
}

/// The bytes of a shard.
enum Data {
    File(File),
    Held(Arc<Vec<u8>>),
}

impl Data {
    fn get(&self, at: u64, length: u64) -> io::Result<Vec<u8>> {
        match self {
            Data::File(file) => records::read_range(file, at, length),
            Data::Held(bytes) => {
                let range = usize::try_from(at)
                    .ok()
                    .zip(usize::try_from(at.saturating_add(length)).ok());
                let found = range.and_then(|(start, end)| bytes.get(start..end));
                Ok(found
                    .ok_or_else(|| invalid("the shard ends in it"))?
                    .to_vec())
            }
        }
    }
}

/// An unpacked shard, or why it cannot be unpacked; made by the first who needs it.
type Slot = Arc<OnceLock<Result<Arc<Vec<u8>>, String>>>;

/// Reads samples; an item's container is a shard, its position the sample's number.
#[derive(Default)]
struct Shards {
    all: Vec<Shard>,
    /// Unpacked shards by their numbers, the latest last.
    held: Mutex<VecDeque<(u32, Slot)>>,
}

impl Files for Shards {
    fn read(&self, file: &SourceFile) -> io::Result<Vec<u8>> {
        let (shard, data) = self.open(file.container)?;
        let range = shard.values(&data, file.position)?.swap_remove(shard.image);
        data.get(range.start, range.end - range.start)
    }
}

impl Shards {
    fn open(&self, number: u32) -> io::Result<(&Shard, Data)> {
        let shard = self
            .all
            .get(number as usize)
            .ok_or_else(|| invalid("no such shard"))?;
        if !shard.is_packed {
            return Ok((shard, Data::File(File::open(&shard.path)?)));
        }
        let slot = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            let found = held.iter().find(|(have, _)| *have == number);
            match found.map(|(_, slot)| slot.clone()) {
                Some(slot) => slot,
                None => {
                    let slot = Slot::default();
                    held.push_back((number, slot.clone()));
                    if held.len() > HELD {
                        held.pop_front();
                    }
                    slot
                }
            }
        };
        let unpack = || {
            unpack(&shard.path, shard.bytes)
                .map(Arc::new)
                .map_err(|error| error.to_string())
        };
        let bytes = slot.get_or_init(unpack).clone().map_err(invalid)?;
        Ok((shard, Data::Held(bytes)))
    }

    /// Lists the samples of a shard.
    fn list(
        &self,
        container: u32,
        split: &str,
        name: &str,
        records: &mut Records,
    ) -> io::Result<()> {
        let (shard, data) = self.open(container)?;
        let bytes = match &data {
            Data::File(file) => file.metadata()?.len(),
            Data::Held(bytes) => bytes.len() as u64,
        };
        if bytes != shard.bytes {
            return Err(invalid(format!(
                "{bytes} bytes where {INDEX} says {}",
                shard.bytes
            )));
        }
        let samples = number(&data.get(0, 4)?);
        let least = 4 * (u64::from(samples) + 2);
        if samples != shard.samples || least > bytes {
            return Err(invalid(format!(
                "{samples} samples where {INDEX} says {}",
                shard.samples
            )));
        }
        for sample in 0..samples {
            let mut item = Item {
                split: split.to_owned(),
                path: format!("{name}/{sample}"),
                class: None,
                size: 0,
                fault: None,
                container,
                position: u64::from(sample),
            };
            let (mut said, mut columns) = (None, Vec::new());
            match shard.describe(&data, &mut item, &mut columns) {
                Ok(path) => said = path,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    item.fault = Some(error.to_string())
                }
                Err(error) => return Err(error),
            }
            records.add(item, said, columns);
        }
        Ok(())
    }
}

impl Shard {
    /// Fills in what a sample says of its image, and returns the path that it says.
    fn describe(
        &self,
        data: &Data,
        item: &mut Item,
        columns: &mut Vec<(String, String)>,
    ) -> io::Result<Option<String>> {
        let values = self.values(data, item.position)?;
        item.size = values[self.image].end - values[self.image].start;
        if let Some(label) = &self.label {
            let text = label.read(data, &values)?;
            item.class = match label.encoding {
                Encoding::Text => (!text.is_empty()).then_some(Class::Name(text)),
                _ => records::class(text.parse().unwrap_or(i64::MAX)).map_err(invalid)?,
            };
        }
        for column in &self.further {
            columns.push((column.name.clone(), column.read(data, &values)?));
        }
        self.said
            .as_ref()
            .map(|said| said.read(data, &values))
            .transpose()
    }
}

/// Unpacks a shard of known size.
fn unpack(path: &Path, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    zstd::Decoder::new(file)?
        .take(size + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 != size {
        return Err(invalid(format!(
            "it has not the {size} bytes that {INDEX} says, unpacked"
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
