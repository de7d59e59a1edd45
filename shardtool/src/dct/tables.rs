//! The rANS tables that all payloads of a dataset share, as each of its shards holds them.

use crate::Corrupt;
use crate::rans::{DecodeTable, Frequencies};

/// Most tables in a shard: a stream names its table in a byte.
pub const MAX_TABLES: usize = 256;
/// Bytes of a table in a shard.
const TABLE_BYTES: usize = 512;

/// A shard's tables, ready for decoding.
#[derive(Debug, Clone)]
pub struct Tables(Vec<DecodeTable>);

impl Tables {
    /// Reads a shard's codec data: one zstd frame of 256 u16 for each table.
    ///
    /// # Errors
    /// [`Corrupt::Malformed`] if they are no tables.
    pub fn parse(codec_data: &[u8]) -> Result<Tables, Corrupt> {
        let tables = Tables::frequencies(codec_data)?;
        let tables: Result<_, _> = tables.iter().map(DecodeTable::new).collect();
        tables.map(Tables).map_err(|error| error.to_string().into())
    }

    /// Reads the frequencies of which a shard's tables are made.
    ///
    /// # Errors
    /// [`Corrupt::Malformed`] if they are not of a table's form.
    pub fn frequencies(codec_data: &[u8]) -> Result<Vec<Frequencies>, Corrupt> {
        let frequencies = zstd::bulk::decompress(codec_data, MAX_TABLES * TABLE_BYTES)
            .map_err(|error| error.to_string())?;
        let (tables, rest) = frequencies.as_chunks::<TABLE_BYTES>();
        if tables.is_empty() || !rest.is_empty() {
            return Err(format!("{} bytes of rANS tables", frequencies.len()).into());
        }
        let table = |bytes: &[u8; TABLE_BYTES]| {
            std::array::from_fn(|symbol| {
                u16::from_le_bytes([bytes[2 * symbol], bytes[2 * symbol + 1]])
            })
        };
        Ok(tables.iter().map(table).collect())
    }

    /// Returns the codec data of a shard with these tables.
    pub fn write(frequencies: &[Frequencies]) -> Vec<u8> {
        let bytes = frequencies.as_flattened().iter();
        let bytes: Vec<u8> = bytes
            .flat_map(|frequency| frequency.to_le_bytes())
            .collect();
        zstd::bulk::compress(&bytes, 19).expect("a few kilobytes into memory")
    }

    /// Returns the table of this number.
    pub fn get(&self, number: u8) -> Option<&DecodeTable> {
        self.0.get(usize::from(number))
    }
}
