//! The writer: payloads go to the file as they come, the index is kept and written last.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::labels::{Label, LabelType, NewColumn};
use super::{
    Codec, FIXED_BYTES, HEADER_LENGTH, MAGIC, MAX_CODEC_DATA, MAX_INDEX_LENGTH, MAX_LABELS,
    MAX_SAMPLES, NO_CLASS, VERSION, at, checksum, fits,
};
use crate::{Error, disk};

/// Index compression: the index is small and written once, so it may cost time.
const INDEX_LEVEL: i32 = 9;

/// A sample to append.
#[derive(Debug, Clone, Copy)]
pub struct NewSample<'a> {
    /// The coded image.
    pub payload: &'a [u8],
    /// How it is coded.
    pub codec: Codec,
    /// Width and height of the image that the payload decodes to.
    pub stored: (u32, u32),
    /// Width and height of the source image.
    pub source: (u32, u32),
    /// Class number, if labelled.
    pub class: Option<u32>,
    /// EXIF orientation, 1 to 8.
    pub orientation: u8,
    /// One value for each label column, in the order given to [`ShardWriter::create`].
    pub labels: &'a [Option<Label<'a>>],
}

/// What became of a finished shard; the manifest lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Number of samples.
    pub samples: u32,
    /// Size of the file.
    pub bytes: u64,
    /// The header's checksum, see [`super::Shard::checksum`].
    pub checksum: u64,
}

/// Writes one shard. The header is written last: a file whose writer died begins with zeros and
/// cannot be taken for a shard.
#[derive(Debug)]
pub struct ShardWriter {
    path: PathBuf,
    file: BufWriter<File>,
    codec_data: Vec<u8>,
    /// Where the next payload goes.
    end: u64,
    samples: u32,
    offsets: Vec<u8>,
    checksums: Vec<u8>,
    lengths: Vec<u8>,
    stored_widths: Vec<u8>,
    stored_heights: Vec<u8>,
    source_widths: Vec<u8>,
    source_heights: Vec<u8>,
    classes: Vec<u8>,
    codecs: Vec<u8>,
    orientations: Vec<u8>,
    columns: Vec<NewColumn>,
}

impl ShardWriter {
    /// Creates the file, replacing one of that name. Column names must be distinct, non-empty and
    /// at most 255 bytes long. The codec data are what `dct` payloads share, empty without any.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(
        path: &Path,
        labels: &[(&str, LabelType)],
        codec_data: &[u8],
    ) -> Result<ShardWriter, Error> {
        if codec_data.len() as u64 > MAX_CODEC_DATA {
            let reason = format!("{} bytes of codec data", codec_data.len());
            return Err(unwritable(path, 0, reason));
        }
        let distinct: std::collections::HashSet<&str> =
            labels.iter().map(|label| label.0).collect();
        let named = distinct.iter().all(|name| (1..=255).contains(&name.len()));
        if !named || distinct.len() != labels.len() || labels.len() > MAX_LABELS as usize {
            let reason = "label columns need distinct names of 1 to 255 bytes, 256 columns at most";
            return Err(unwritable(path, 0, reason.to_owned()));
        }
        let file = disk::create(path).map_err(Error::io(path, "create"))?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        let header = [0; HEADER_LENGTH as usize];
        let write = file
            .write_all(&header)
            .and_then(|()| file.write_all(codec_data));
        write.map_err(Error::io(path, "write"))?;
        Ok(ShardWriter {
            path: path.to_owned(),
            file,
            codec_data: codec_data.to_owned(),
            end: HEADER_LENGTH + codec_data.len() as u64,
            samples: 0,
            offsets: Vec::new(),
            checksums: Vec::new(),
            lengths: Vec::new(),
            stored_widths: Vec::new(),
            stored_heights: Vec::new(),
            source_widths: Vec::new(),
            source_heights: Vec::new(),
            classes: Vec::new(),
            codecs: Vec::new(),
            orientations: Vec::new(),
            columns: labels
                .iter()
                .map(|&(name, kind)| NewColumn::new(name, kind))
                .collect(),
        })
    }

    /// Returns the number of samples so far.
    pub fn samples(&self) -> u32 {
        self.samples
    }

    /// Returns the bytes of header and payloads so far.
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// Tells whether the format's limits leave room for one more sample with these labels.
    pub fn has_room(&self, labels: &[Option<Label<'_>>]) -> bool {
        let columns: usize = self.columns.iter().map(NewColumn::length).sum();
        let added: usize = labels.iter().map(|label| label_length(*label)).sum();
        let fixed = FIXED_BYTES * (u64::from(self.samples) + 1);
        self.samples < MAX_SAMPLES && fixed + (columns + added) as u64 <= MAX_INDEX_LENGTH
    }

    /// Appends a sample.
    ///
    /// # Errors
    /// [`Error::Unwritable`] for what the format cannot hold, or what the system says.
    pub fn append(&mut self, sample: &NewSample<'_>) -> Result<(), Error> {
        self.check(sample)
            .map_err(|reason| unwritable(&self.path, self.samples, reason))?;
        self.file
            .write_all(sample.payload)
            .map_err(Error::io(&self.path, "write"))?;

        let length = sample.payload.len() as u32;
        let class = sample.class.unwrap_or(NO_CLASS);
        self.offsets.extend_from_slice(&self.end.to_le_bytes());
        self.checksums
            .extend_from_slice(&checksum(sample.payload).to_le_bytes());
        self.lengths.extend_from_slice(&length.to_le_bytes());
        for (column, value) in [
            (&mut self.stored_widths, sample.stored.0),
            (&mut self.stored_heights, sample.stored.1),
            (&mut self.source_widths, sample.source.0),
            (&mut self.source_heights, sample.source.1),
            (&mut self.classes, class),
        ] {
            column.extend_from_slice(&value.to_le_bytes());
        }
        self.codecs.push(sample.codec as u8);
        self.orientations.push(sample.orientation);
        for (column, value) in self.columns.iter_mut().zip(sample.labels) {
            column.push(*value);
        }
        self.samples += 1;
        self.end += u64::from(length);
        Ok(())
    }

    /// Says which limit of the format a sample exceeds.
    fn check(&self, sample: &NewSample<'_>) -> Result<(), String> {
        let length = sample.payload.len();
        if length == 0 || u32::try_from(length).is_err() {
            return Err(format!(
                "payload of {length} bytes, 1 to 4294967295 are possible"
            ));
        }
        for (width, height) in [sample.stored, sample.source] {
            if !fits(width, height) {
                return Err(format!("image of {width}x{height} pixels"));
            }
        }
        if sample.class == Some(NO_CLASS) {
            return Err(format!("class {NO_CLASS}"));
        }
        if !(1..=8).contains(&sample.orientation) {
            return Err(format!(
                "orientation {}, 1 to 8 are possible",
                sample.orientation
            ));
        }
        if sample.labels.len() != self.columns.len() {
            let (got, expected) = (sample.labels.len(), self.columns.len());
            return Err(format!("{got} labels for {expected} columns"));
        }
        for (column, value) in self.columns.iter().zip(sample.labels) {
            if value.is_some_and(|value| !column.accepts(value)) {
                return Err(format!("label {value:?} is not of its column's type"));
            }
        }
        if !self.has_room(sample.labels) {
            return Err(format!("the index is full after {} samples", self.samples));
        }
        Ok(())
    }

    /// Writes index and header and waits until the file is on the disk. At least one sample must
    /// have been appended.
    ///
    /// # Errors
    /// What the system says; no shard has the final name then.
    pub fn finish(mut self) -> Result<Written, Error> {
        if self.samples == 0 {
            let reason = "a shard holds at least one sample".to_owned();
            return Err(unwritable(&self.path, 0, reason));
        }
        let mut index = Vec::new();
        index.append(&mut self.offsets);
        index.append(&mut self.checksums);
        index.append(&mut self.lengths);
        index.append(&mut self.stored_widths);
        index.append(&mut self.stored_heights);
        index.append(&mut self.source_widths);
        index.append(&mut self.source_heights);
        index.append(&mut self.classes);
        index.resize(index.len() + 2 * self.samples as usize, 0); // no flag is defined yet
        index.append(&mut self.codecs);
        index.append(&mut self.orientations);
        for column in &self.columns {
            column.write(&mut index);
        }

        let path = self.path;
        let compressed = zstd::bulk::compress(&index, INDEX_LEVEL)
            .map_err(Error::io(&path, "compress the index of"))?;
        let mut header = [0; HEADER_LENGTH as usize];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(at::VERSION, &VERSION.to_le_bytes());
        put(at::SAMPLE_COUNT, &self.samples.to_le_bytes());
        put(at::LABEL_COUNT, &(self.columns.len() as u32).to_le_bytes());
        if !self.codec_data.is_empty() {
            let length = self.codec_data.len() as u64;
            put(at::CODEC_DATA_LENGTH, &length.to_le_bytes());
            put(
                at::CODEC_DATA_CHECKSUM,
                &checksum(&self.codec_data).to_le_bytes(),
            );
        }
        put(at::INDEX_OFFSET, &self.end.to_le_bytes());
        put(at::INDEX_LENGTH, &(compressed.len() as u64).to_le_bytes());
        put(at::INDEX_RAW_LENGTH, &(index.len() as u64).to_le_bytes());
        put(at::INDEX_CHECKSUM, &checksum(&compressed).to_le_bytes());
        let header_checksum = checksum(&header[..at::HEADER_CHECKSUM]);
        header[at::HEADER_CHECKSUM..].copy_from_slice(&header_checksum.to_le_bytes());

        let mut write = || {
            self.file.write_all(&compressed)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&header)?;
            self.file.flush()?;
            disk::sync(self.file.get_ref())
        };
        write().map_err(Error::io(&path, "write"))?;
        Ok(Written {
            samples: self.samples,
            bytes: self.end + compressed.len() as u64,
            checksum: header_checksum,
        })
    }
}

/// Returns the bytes that a label adds to its column.
fn label_length(label: Option<Label<'_>>) -> usize {
    match label {
        Some(Label::Text(text)) => 4 + text.len(),
        _ => 8,
    }
}

fn unwritable(path: &Path, sample: u32, reason: String) -> Error {
    Error::Unwritable {
        path: path.to_owned(),
        sample,
        reason,
    }
}
