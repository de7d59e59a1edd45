//! Images read in blocks of rows, which many threads share.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::ByteArrayType;

use super::elsewhere;
use super::table::{Table, guarded, next_rows};
use crate::source::records::{MOST, invalid};
use crate::source::{Files, SourceFile};

/// Rows that are decoded at a time.
pub const BLOCK: usize = 16;

/// Bytes of images that are kept for others who read in order.
pub const CACHED: usize = 256 << 20;

/// Places in files from where reading may go on.
pub const CURSORS: usize = 8;

/// Blocks over which a cursor reads on, rather than jump.
const AHEAD: usize = 8;

/// Some rows' images.
type Block = Vec<Option<Vec<u8>>>;

/// A container, a row group of it, and a block of that.
type Key = (u32, usize, usize);

/// Reads images; an item's position is its row.
#[derive(Default)]
pub struct Tables {
    pub all: Vec<Table>,
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
mod tests {
    use super::*;

    #[test]
    fn few_blocks_are_kept() {
        let mut cache = Cache::default();
        for number in 0..20 {
            cache.insert((0, 0, number), Arc::new(vec![Some(vec![0; CACHED / 8])]));
        }
        let kept = (cache.order.len(), cache.blocks.len(), cache.bytes);
        assert_eq!(kept, (8, 8, CACHED));
    }
}
