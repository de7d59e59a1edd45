//! Parquet files of images, as Hugging Face's `datasets` writes them.
//!
//! Listing reads all columns but the images. Images are read in blocks of [`BLOCK`] rows: threads that read in order
//! decode each block once. At most [`CACHED`] bytes of blocks are kept, and [`CURSORS`] places in files with one page
//! of images each; a page is what the file's writer made it, as a rule 1 MiB to one row group.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::column::page::PageReader;
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{
    BoolType, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type,
};
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::ColumnDescriptor;
use serde_json::Value;

use super::records::{self, MOST, Records, Section, invalid};
use super::{Class, Contents, Error, Files, Item, Options, Part, SourceFile, folder};
use crate::panics;

/// Rows that are decoded at a time.
const BLOCK: usize = 16;

/// Bytes of images that are kept for others who read in order.
const CACHED: usize = 256 << 20;

/// Places in files from where reading may go on.
const CURSORS: usize = 8;

/// Blocks over which a cursor reads on, rather than jump.
const AHEAD: usize = 8;

/// Bytes of the columns beside the images that one source may have.
const MOST_TEXT: usize = 4 << 30;

/// Bytes of images in a page from which on reading in any order but the file's own is slow.
const LARGE: u64 = 8 << 20;

const IMAGES: [&str; 5] = ["image", "img", "jpg", "jpeg", "png"];
const LABELS: [&str; 5] = ["label", "fine_label", "labels", "class", "cls"];

/// Opens files, in the order of their names.
///
/// The images are the column that the files' `huggingface` metadata call so, else one with `bytes` in it, or of bytes
/// and called `image`, `img`, `jpg`, `jpeg`, `png` or `bytes`. Classes are its `ClassLabel`, or a column called
/// `label`, `fine_label`, `labels`, `class` or `cls`. Other columns of numbers and texts become labels.
///
/// # Errors
/// If a file cannot be read, is damaged, has no images, or other class names than another.
pub fn open(paths: &[PathBuf], options: &Options) -> Result<Part, Error> {
    let mut contents = Contents {
        name: records::name(paths),
        is_ordered: true,
        ..Contents::default()
    };
    let mut records = Records::default();
    let mut tables = Tables::default();
    let mut text = 0;
    for (container, (path, name)) in (0..).zip(records::sorted(paths)) {
        let file = File::open(&path).map_err(Error::io(&path, "open"))?;
        let meta = file.metadata().map_err(Error::io(&path, "open"))?;
        contents.newest = contents.newest.max(Some(folder::changed(&meta)));
        let table = guarded(|| Table::open(&path, file)).map_err(Error::damaged(&path))?;
        let (columns, names) = Columns::find(&table).map_err(|reason| Error::Unknown {
            path: path.clone(),
            reason,
        })?;
        if contents.classes.is_none() {
            contents.classes = names;
        } else if names.is_some() && names != contents.classes {
            return Err(Error::damaged(&path)(
                "its classes have other names than another file's",
            ));
        }
        for column in &columns.unread {
            let remark = format!("column \"{column}\" is not read");
            if !contents.remarks.contains(&remark) {
                contents.remarks.push(remark);
            }
        }
        let table = Table {
            image: columns.image,
            ..table
        };
        if container == 0 {
            // The first page stands for all.
            let page = guarded(|| table.first_page()).map_err(Error::damaged(&path))?;
            if page > LARGE {
                contents.remarks.push(format!(
                    "its pages have {} MB of images: any order but their own reads one for each image",
                    page >> 20
                ));
            }
        }
        let split = records::split(&path, options);
        let listed =
            guarded(|| table.list(&columns, &split, &name, container, &mut records, &mut text));
        listed.map_err(Error::damaged(&path))?;
        tables.all.push(table);
    }
    if options.classes.is_some() {
        contents.classes.clone_from(&options.classes);
    }
    (contents.items, contents.labels) = records.finish(super::first(paths))?;
    Ok(Part {
        contents,
        files: Box::new(tables),
    })
}

/// Calls what may panic on damaged bytes, as the library does not promise otherwise.
fn guarded<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|panic| Err(invalid(panics::message(&*panic))))
}

/// A file whose parts many threads read; the library's own way moves a common position.
struct Chunks(Arc<File>);

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.0.metadata().map_or(0, |meta| meta.len())
    }
}

impl ChunkReader for Chunks {
    type T = BufReader<Section<Arc<File>>>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(BufReader::new(Section {
            file: self.0.clone(),
            at: start,
            end: u64::MAX,
        }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        Ok(records::read_range(&self.0, start, length as u64)?.into())
    }
}

/// A file and its metadata.
struct Table {
    path: PathBuf,
    meta: ParquetMetaData,
    /// The number of the first row of each row group, and that of all rows.
    starts: Vec<u64>,
    /// Number of the column of images.
    image: usize,
}

impl Table {
    fn open(path: &Path, file: File) -> io::Result<Table> {
        let length = file.metadata()?.len();
        let meta = ParquetMetaDataReader::new().parse_and_finish(&Chunks(Arc::new(file)))?;
        let mut starts = vec![0];
        for group in meta.row_groups() {
            let rows =
                u64::try_from(group.num_rows()).map_err(|_| invalid("fewer rows than none"))?;
            let all = starts.last().copied().unwrap_or(0_u64).checked_add(rows);
            // An image takes a byte or more; so no count of rows takes memory that the file has not.
            let all = all.filter(|all| *all <= length);
            starts.push(all.ok_or_else(|| invalid("more rows than bytes"))?);
        }
        Ok(Table {
            path: path.to_owned(),
            meta,
            starts,
            image: 0,
        })
    }

    /// Returns about how many bytes the first page of images has.
    fn first_page(&self) -> io::Result<u64> {
        let Some(group) = self.meta.row_groups().first() else {
            return Ok(0);
        };
        let (chunk, rows) = (group.column(self.image), self.starts[1]);
        let file = Arc::new(Chunks(Arc::new(File::open(&self.path)?)));
        let mut pages = SerializedPageReader::new(file, chunk, rows as usize, None)?;
        let mut page = pages.peek_next_page()?;
        if page.as_ref().is_some_and(|page| page.is_dict) {
            pages.skip_next_page()?;
            page = pages.peek_next_page()?;
        }
        let levels = page
            .and_then(|page| page.num_levels.or(page.num_rows))
            .unwrap_or(0);
        let size = u64::try_from(chunk.uncompressed_size()).unwrap_or(0);
        Ok((size / rows.max(1)).saturating_mul(levels as u64))
    }

    fn columns(&self) -> impl Iterator<Item = (usize, &ColumnDescriptor)> {
        let schema = self.meta.file_metadata().schema_descr();
        schema.columns().iter().map(|column| &**column).enumerate()
    }

    /// Opens a column of a row group.
    fn reader<T: DataType>(
        &self,
        file: &Arc<File>,
        group: usize,
        column: usize,
    ) -> io::Result<ColumnReaderImpl<T>> {
        let group = self.meta.row_group(group);
        let chunk = group.column(column);
        let rows = group.num_rows() as usize;
        let pages = SerializedPageReader::new(Arc::new(Chunks(file.clone())), chunk, rows, None)?;
        Ok(ColumnReaderImpl::new(
            chunk.column_descr_ptr(),
            Box::new(pages),
        ))
    }

    /// Reads a column of a row group.
    fn read<T: DataType>(
        &self,
        file: &Arc<File>,
        group: usize,
        column: usize,
    ) -> io::Result<Vec<Option<T::T>>> {
        let rows = (self.starts[group + 1] - self.starts[group]) as usize;
        let mut reader = self.reader::<T>(file, group, column)?;
        next_rows(
            &mut reader,
            rows,
            self.meta.row_group(group).column(column).column_descr(),
        )
    }

    /// Reads a column of numbers or texts as texts; an empty one is missing.
    fn read_text(
        &self,
        file: &Arc<File>,
        group: usize,
        column: usize,
    ) -> io::Result<Vec<Option<String>>> {
        fn shown<T: ToString>(values: Vec<Option<T>>) -> Vec<Option<String>> {
            values
                .into_iter()
                .map(|value| value.map(|value| value.to_string()))
                .collect()
        }
        let chunk = self.meta.row_group(group).column(column);
        // The format has signed numbers alone, and says beside them which are not.
        let is_unsigned = matches!(
            chunk.column_descr().converted_type(),
            ConvertedType::UINT_8
                | ConvertedType::UINT_16
                | ConvertedType::UINT_32
                | ConvertedType::UINT_64
        );
        Ok(match chunk.column_type() {
            Type::INT32 if is_unsigned => {
                let values = self.read::<Int32Type>(file, group, column)?;
                shown(
                    values
                        .into_iter()
                        .map(|value| value.map(|value| value as u32))
                        .collect(),
                )
            }
            Type::INT64 if is_unsigned => {
                let values = self.read::<Int64Type>(file, group, column)?;
                shown(
                    values
                        .into_iter()
                        .map(|value| value.map(|value| value as u64))
                        .collect(),
                )
            }
            Type::BOOLEAN => shown(self.read::<BoolType>(file, group, column)?),
            Type::INT32 => shown(self.read::<Int32Type>(file, group, column)?),
            Type::INT64 => shown(self.read::<Int64Type>(file, group, column)?),
            Type::FLOAT => shown(self.read::<FloatType>(file, group, column)?),
            Type::DOUBLE => shown(self.read::<DoubleType>(file, group, column)?),
            _ => {
                let values = self.read::<ByteArrayType>(file, group, column)?;
                let text = |value: Option<parquet::data_type::ByteArray>| {
                    value.map(|value| String::from_utf8_lossy(value.data()).into_owned())
                };
                values.into_iter().map(text).collect()
            }
        })
    }

    /// Lists all rows.
    fn list(
        &self,
        columns: &Columns,
        split: &str,
        name: &str,
        container: u32,
        records: &mut Records,
        text: &mut usize,
    ) -> io::Result<()> {
        let file = Arc::new(File::open(&self.path)?);
        for group in 0..self.starts.len() - 1 {
            let mut read = |column: usize| -> io::Result<Vec<Option<String>>> {
                let values = self.read_text(&file, group, column)?;
                *text += values.iter().flatten().map(String::len).sum::<usize>();
                if *text > MOST_TEXT {
                    return Err(invalid(format!("more than {MOST_TEXT} bytes of labels")));
                }
                Ok(values)
            };
            let mut labels = columns
                .label
                .as_ref()
                .map(|label| read(label.at))
                .transpose()?
                .unwrap_or_default();
            let mut said = columns.said.map(&mut read).transpose()?.unwrap_or_default();
            let mut further = Vec::new();
            for column in &columns.further {
                further.push((&column.name, read(column.at)?));
            }
            let rows = self.starts[group + 1] - self.starts[group];
            let chunk = self.meta.row_group(group).column(self.image);
            let size = u64::try_from(chunk.uncompressed_size()).unwrap_or(0) / rows.max(1);
            let nulls = chunk
                .statistics()
                .and_then(|statistics| statistics.null_count_opt());
            let is_elsewhere = nulls.is_some_and(|nulls| nulls >= rows);
            for row in 0..rows {
                let at = row as usize;
                let position = self.starts[group] + row;
                let said = said.get_mut(at).and_then(Option::take);
                let mut fault = is_elsewhere.then(|| elsewhere(said.as_deref()));
                let label = labels.get_mut(at).and_then(Option::take);
                let is_number = columns.label.as_ref().is_some_and(|label| label.is_number);
                let class = match label {
                    Some(label) if is_number => {
                        let class = records::class(label.parse().unwrap_or(i64::MAX));
                        class.unwrap_or_else(|reason| {
                            fault = fault.take().or(Some(reason));
                            None
                        })
                    }
                    label => label.filter(|label| !label.is_empty()).map(Class::Name),
                };
                let item = Item {
                    split: split.to_owned(),
                    path: format!("{name}/{position}"),
                    class,
                    size,
                    fault,
                    container,
                    position,
                };
                let mut cells = Vec::new();
                for (name, values) in &mut further {
                    if let Some(value) = values.get_mut(at).and_then(Option::take) {
                        cells.push(((*name).clone(), value));
                    }
                }
                records.add(item, said, cells);
            }
        }
        Ok(())
    }
}

/// Says that a row has no bytes.
fn elsewhere(path: Option<&str>) -> String {
    match path {
        Some(path) => format!("no bytes in the row: the image lies elsewhere, in {path}"),
        None => "no bytes in the row".to_owned(),
    }
}

/// Reads the next rows of a column that is not repeated.
fn next_rows<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    rows: usize,
    column: &ColumnDescriptor,
) -> io::Result<Vec<Option<T::T>>> {
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let (read, _, _) = reader.read_records(rows, Some(&mut levels), None, &mut values)?;
    if read != rows {
        return Err(invalid(format!(
            "column {} ends {} rows early",
            column.path(),
            rows - read
        )));
    }
    let highest = column.max_def_level();
    if highest == 0 {
        return Ok(values.into_iter().map(Some).collect());
    }
    let mut values = values.into_iter();
    let mut value = |level: i16| {
        if level == highest {
            values.next()
        } else {
            None
        }
    };
    Ok(levels.into_iter().map(&mut value).collect())
}

/// What the columns of a file are.
struct Columns {
    image: usize,
    label: Option<Column>,
    /// The column of paths that belongs to the images.
    said: Option<usize>,
    further: Vec<Column>,
    unread: Vec<String>,
}

struct Column {
    name: String,
    at: usize,
    is_number: bool,
}

impl Columns {
    /// Finds the columns, and the names of classes. An error says what is missing.
    fn find(table: &Table) -> Result<(Columns, Option<Vec<String>>), String> {
        let features = Features::of(table);
        let leaf = |path: &[&str], of: &[Type]| {
            let mut columns = table.columns();
            let found = columns
                .find(|(_, column)| column.path().parts() == path && column.max_rep_level() == 0);
            found
                .filter(|(_, column)| of.contains(&column.physical_type()))
                .map(|(at, _)| at)
        };
        let is_bytes = [Type::BYTE_ARRAY];
        let mut groups: Vec<&str> = Vec::new();
        for (_, column) in table.columns() {
            if let [group, leaf] = column.path().parts()
                && leaf == "bytes"
                && column.max_rep_level() == 0
            {
                groups.push(group);
            }
        }
        let told = preferred(&IMAGES, features.images.iter().map(String::as_str));
        let name = told.or_else(|| preferred(&IMAGES, groups.iter().copied()));
        let of_group = name.and_then(|name| {
            leaf(&[name, "bytes"], &is_bytes).or_else(|| leaf(&[name], &is_bytes))
        });
        let plain = || {
            IMAGES
                .iter()
                .chain(&["bytes"])
                .find_map(|name| leaf(&[name], &is_bytes))
        };
        let image = of_group.or_else(plain).ok_or("no column of images in it")?;
        let said = name.and_then(|name| leaf(&[name, "path"], &is_bytes));

        let scalar = |at: usize, column: &ColumnDescriptor| {
            let name = match column.path().parts() {
                [name] if column.max_rep_level() == 0 => name.clone(),
                _ => return None,
            };
            let is_number = match column.physical_type() {
                Type::INT32 | Type::INT64 => true,
                Type::BOOLEAN | Type::FLOAT | Type::DOUBLE => false,
                Type::BYTE_ARRAY if is_text(column) => false,
                _ => return None,
            };
            Some(Column {
                name,
                at,
                is_number,
            })
        };
        let label_type = [Type::INT32, Type::INT64, Type::BYTE_ARRAY];
        let told = preferred(
            &LABELS,
            features.classes.iter().map(|(name, _)| name.as_str()),
        );
        let named = told.and_then(|name| leaf(&[name], &label_type));
        let called = || LABELS.iter().find_map(|name| leaf(&[name], &label_type));
        let label_at = named.or_else(called);
        let names = told.filter(|_| named.is_some()).and_then(|told| {
            let found = features.classes.iter().find(|(name, _)| name == told);
            found.and_then(|(_, names)| names.clone())
        });
        let mut columns = Columns {
            image,
            label: None,
            said,
            further: Vec::new(),
            unread: Vec::new(),
        };
        for (at, column) in table.columns() {
            match scalar(at, column) {
                _ if at == image || Some(at) == said => {}
                Some(column) if Some(at) == label_at => columns.label = Some(column),
                Some(column) if records::is_label(&column.name) => columns.further.push(column),
                _ => columns.unread.push(column.path().string()),
            }
        }
        Ok((columns, names))
    }
}

/// Returns the first of the known names that is there, else the first that is there.
fn preferred<'a>(
    known: &[&str],
    mut there: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let found = known
        .iter()
        .find_map(|known| there.clone().find(|name| name == known));
    found.or_else(|| there.next())
}

fn is_text(column: &ColumnDescriptor) -> bool {
    column.converted_type() == ConvertedType::UTF8
        || matches!(column.logical_type_ref(), Some(LogicalType::String))
}

/// What Hugging Face's metadata say of the columns.
#[derive(Default)]
struct Features {
    images: Vec<String>,
    /// Columns of classes, and their classes' names.
    classes: Vec<(String, Option<Vec<String>>)>,
}

impl Features {
    fn of(table: &Table) -> Features {
        let mut found = Features::default();
        let pairs = table.meta.file_metadata().key_value_metadata();
        let pair = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == "huggingface"));
        let text = pair.and_then(|pair| pair.value.as_deref());
        let value: Option<Value> = text.and_then(|text| serde_json::from_str(text).ok());
        let features = value
            .as_ref()
            .and_then(|value| value["info"]["features"].as_object());
        for (name, feature) in features.into_iter().flatten() {
            match feature["_type"].as_str() {
                Some("Image") => found.images.push(name.clone()),
                Some("ClassLabel") => {
                    let names = feature["names"].as_array().map(|names| {
                        let text = |name: &Value| {
                            name.as_str()
                                .map_or_else(|| name.to_string(), str::to_owned)
                        };
                        names.iter().map(text).collect()
                    });
                    found.classes.push((name.clone(), names));
                }
                _ => {}
            }
        }
        found
    }
}

/// Some rows' images.
type Block = Vec<Option<Vec<u8>>>;

/// A container, a row group of it, and a block of that.
type Key = (u32, usize, usize);

/// Reads images; an item's position is its row.
#[derive(Default)]
struct Tables {
    all: Vec<Table>,
    cache: Mutex<Cache>,
    /// Where reading may go on in a row group, the latest last.
    cursors: Mutex<VecDeque<((u32, usize), SharedCursor)>>,
}

type SharedCursor = Arc<Mutex<Option<Cursor>>>;

/// A place in the column of images of a row group.
struct Cursor {
    reader: ColumnReaderImpl<ByteArrayType>,
    /// The block that is decoded next.
    next: usize,
}

/// The blocks that were decoded last.
#[derive(Default)]
struct Cache {
    blocks: HashMap<Key, Arc<Block>>,
    /// Their keys and sizes, the latest last.
    order: VecDeque<(Key, usize)>,
    bytes: usize,
}

impl Cache {
    fn insert(&mut self, key: Key, block: Arc<Block>) {
        let size = block.iter().flatten().map(Vec::len).sum();
        if self.blocks.insert(key, block).is_none() {
            self.order.push_back((key, size));
            self.bytes += size;
        }
        while self.bytes > CACHED && self.order.len() > 1 {
            if let Some((key, size)) = self.order.pop_front() {
                self.blocks.remove(&key);
                self.bytes -= size;
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Files for Tables {
    fn read(&self, file: &SourceFile) -> io::Result<Vec<u8>> {
        let table = self
            .all
            .get(file.container as usize)
            .ok_or_else(|| invalid("no such file"))?;
        let group = table
            .starts
            .partition_point(|start| *start <= file.position)
            - 1;
        if group + 1 >= table.starts.len() {
            return Err(invalid("no such row"));
        }
        let row = (file.position - table.starts[group]) as usize;
        let block = self.block(table, (file.container, group, row / BLOCK))?;
        let image = block.get(row % BLOCK).cloned().flatten();
        image.ok_or_else(|| invalid(elsewhere(None)))
    }
}

impl Tables {
    fn cached(&self, key: Key) -> Option<Arc<Block>> {
        lock(&self.cache).blocks.get(&key).cloned()
    }

    fn block(&self, table: &Table, key: Key) -> io::Result<Arc<Block>> {
        if let Some(block) = self.cached(key) {
            return Ok(block);
        }
        let cursor = self.cursor((key.0, key.1));
        let mut cursor = lock(&cursor);
        // Whoever held the cursor may have come by the block.
        if let Some(block) = self.cached(key) {
            return Ok(block);
        }
        let held = cursor.take().filter(|held| held.next <= key.2);
        let (block, moved) = guarded(|| self.decode(table, key, held))?;
        *cursor = Some(moved);
        Ok(block)
    }

    fn cursor(&self, key: (u32, usize)) -> SharedCursor {
        let mut cursors = lock(&self.cursors);
        if let Some((_, cursor)) = cursors.iter().find(|(have, _)| *have == key) {
            return cursor.clone();
        }
        let cursor = SharedCursor::default();
        cursors.push_back((key, cursor.clone()));
        if cursors.len() > CURSORS {
            cursors.pop_front();
        }
        cursor
    }

    /// Decodes a block, and those before it that a cursor comes by.
    fn decode(
        &self,
        table: &Table,
        key: Key,
        held: Option<Cursor>,
    ) -> io::Result<(Arc<Block>, Cursor)> {
        let (container, group, wanted) = key;
        let rows = (table.starts[group + 1] - table.starts[group]) as usize;
        let mut cursor = match held {
            Some(held) => held,
            None => Cursor {
                reader: table.reader(&Arc::new(File::open(&table.path)?), group, table.image)?,
                next: 0,
            },
        };
        if wanted - cursor.next > AHEAD {
            let jump = (wanted - cursor.next) * BLOCK;
            if cursor.reader.skip_records(jump)? != jump {
                return Err(invalid("its row group ends before the row"));
            }
            cursor.next = wanted;
        }
        let column = table
            .meta
            .row_group(group)
            .column(table.image)
            .column_descr();
        loop {
            let length = BLOCK.min(rows - cursor.next * BLOCK);
            let values = next_rows(&mut cursor.reader, length, column)?;
            let bytes: usize = values.iter().flatten().map(|value| value.len()).sum();
            if bytes as u64 > MOST {
                return Err(invalid(format!(
                    "{BLOCK} rows of {bytes} bytes, more than {MOST}"
                )));
            }
            let copied = |value: parquet::data_type::ByteArray| value.data().to_vec();
            let block: Block = values.into_iter().map(|value| value.map(copied)).collect();
            let block = Arc::new(block);
            let number = cursor.next;
            cursor.next += 1;
            lock(&self.cache).insert((container, group, number), block.clone());
            if number == wanted {
                return Ok((block, cursor));
            }
        }
    }
}

#[cfg(test)]
mod tests;
