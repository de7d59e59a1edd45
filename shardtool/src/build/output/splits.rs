//! The samples of a split, in as many shards as they need.

use super::super::Error;
use super::super::ingest::Ingested;
use super::staging::Staging;
use crate::dataset::ShardRecord;
use crate::format::{LabelType, ShardWriter};
use crate::source::{Joined, SourceFile};

/// Writes the samples of one split.
pub struct SplitWriter<'a> {
    staging: &'a Staging,
    name: &'a str,
    labels: &'a Joined,
    columns: Vec<(String, LabelType)>,
    shard_size: u64,
    codec_data: &'a [u8],
    open: Option<(String, ShardWriter)>,
    /// Number of finished shards.
    finished: usize,
}

impl<'a> SplitWriter<'a> {
    /// Goes on behind the shards that are finished already.
    pub fn new(
        staging: &'a Staging,
        name: &'a str,
        labels: &'a Joined,
        shard_size: u64,
        codec_data: &'a [u8],
        finished: usize,
    ) -> Self {
        let columns = labels.columns().into_iter();
        SplitWriter {
            staging,
            name,
            labels,
            columns: columns.map(|column| (column.name, column.kind)).collect(),
            shard_size,
            codec_data,
            open: None,
            finished,
        }
    }

    /// Appends a sample. Returns the shard before it, if that was full.
    pub fn append(
        &mut self,
        file: &SourceFile,
        image: &Ingested,
    ) -> Result<Option<ShardRecord>, Error> {
        let labels = self.labels.of(file);
        let full = |writer: &ShardWriter| {
            let size = writer.bytes() + image.payload.len() as u64;
            size > self.shard_size || !writer.has_room(&labels)
        };
        let mut closed = None;
        if self.open.as_ref().is_some_and(|(_, writer)| full(writer)) {
            closed = self.close()?;
        }
        if self.open.is_none() {
            let name = format!("{}-{:05}.shard", self.name, self.finished);
            let columns = self.columns.iter();
            let columns: Vec<_> = columns.map(|(name, kind)| (name.as_str(), *kind)).collect();
            let writer =
                ShardWriter::create(&self.staging.dir().join(&name), &columns, self.codec_data)?;
            self.open = Some((name, writer));
        }
        let (_, writer) = self.open.as_mut().expect("opened above");
        writer.append(&image.sample(file.class, &labels))?;
        Ok(closed)
    }

    /// Finishes the shard that is open, if one is.
    pub fn close(&mut self) -> Result<Option<ShardRecord>, Error> {
        let Some((file, writer)) = self.open.take() else {
            return Ok(None);
        };
        let written = writer.finish()?;
        self.finished += 1;
        Ok(Some(ShardRecord {
            file,
            samples: written.samples,
            bytes: written.bytes,
            checksum: written.checksum,
        }))
    }
}
