//! One file: its metadata, and its columns read.

use std::fs::File;
use std::io::{self, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{ConvertedType, Type};
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

use crate::panics;
use crate::source::records::{self, Section, invalid};

/// Calls what may panic on damaged bytes, as the library does not promise otherwise.
pub fn guarded<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
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
pub struct Table {
    pub path: PathBuf,
    pub meta: ParquetMetaData,
    /// The number of the first row of each row group, and that of all rows.
    pub starts: Vec<u64>,
    /// Number of the column of images.
    pub image: usize,
}

impl Table {
    /// Reads a file's metadata.
    pub fn open(path: &Path, file: File) -> io::Result<Table> {
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
    pub fn first_page(&self) -> io::Result<u64> {
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

    /// Returns all columns with their numbers.
    pub fn columns(&self) -> impl Iterator<Item = (usize, &ColumnDescriptor)> {
        let schema = self.meta.file_metadata().schema_descr();
        schema.columns().iter().map(|column| &**column).enumerate()
    }

    /// Opens a column of a row group.
    pub fn reader<T: DataType>(
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
    pub fn read_text(
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
}

/// Reads the next rows of a column that is not repeated.
pub fn next_rows<T: DataType>(
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
