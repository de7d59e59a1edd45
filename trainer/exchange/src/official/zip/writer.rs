//! Writing a zip file from front to back.

use std::io::{self, Write};

/// Contents of entries begin at multiples of this, as PyTorch's do, so that it can map them.
const ALIGNMENT: u64 = 64;
/// Extra field of a zip header that only fills; PyTorch's choice.
const PADDING: u16 = 0x4246;
/// Extra field of the 64-bit sizes and offsets.
const WIDE: u16 = 1;
/// Version of the zip format that these files need: 4.5, for 64-bit sizes.
const NEEDED: u16 = 45;

/// A zip file in the making.
///
/// Sizes and offsets beyond 32 bits stand in the format's 64-bit extensions.
pub struct ZipWriter<W> {
    out: W,
    /// Bytes written.
    position: u64,
    /// Directory records of the entries so far.
    directory: Vec<u8>,
    entries: u64,
}

impl<W: Write> ZipWriter<W> {
    /// Begins a file.
    pub fn new(out: W) -> ZipWriter<W> {
        ZipWriter::after(out, 0)
    }

    /// Begins behind the first `position` bytes of a file, which belong to something else.
    pub fn after(out: W, position: u64) -> ZipWriter<W> {
        ZipWriter {
            out,
            position,
            directory: Vec::new(),
            entries: 0,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Stores `content` under `name`.
    ///
    /// # Errors
    /// What the output says.
    pub fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let (start, size) = (self.position, content.len() as u64);
        let crc = crc32fast::hash(content);
        let narrow_size = narrow(size);
        let mut extra = Vec::new();
        if narrow_size == u32::MAX {
            field(
                &mut extra,
                WIDE,
                &[size.to_le_bytes(), size.to_le_bytes()].concat(),
            );
        }
        let unpadded = start + 30 + name.len() as u64 + extra.len() as u64 + 4;
        let padding = unpadded.next_multiple_of(ALIGNMENT) - unpadded;
        field(&mut extra, PADDING, &vec![b'Z'; padding as usize]);

        let mut common = Vec::new(); // what the header and the directory both say
        common.extend(NEEDED.to_le_bytes());
        common.extend(0x0800u16.to_le_bytes()); // names are UTF-8
        common.extend([0; 2]); // stored
        common.extend([0, 0, 0x21, 0]); // midnight of the first day there is, so that equal contents give equal files
        common.extend(crc.to_le_bytes());
        common.extend(narrow_size.to_le_bytes());
        common.extend(narrow_size.to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());

        let mut header = b"PK\x03\x04".to_vec();
        header.extend(&common);
        header.extend((extra.len() as u16).to_le_bytes());
        header.extend(name.bytes());
        header.extend(&extra);
        self.write(&header)?;
        self.write(content)?;

        let mut wide = Vec::new();
        for value in [size, size, start] {
            if narrow(value) == u32::MAX {
                wide.extend(value.to_le_bytes());
            }
        }
        let mut extra = Vec::new();
        if !wide.is_empty() {
            field(&mut extra, WIDE, &wide);
        }
        let directory = &mut self.directory;
        directory.extend(b"PK\x01\x02");
        directory.extend(NEEDED.to_le_bytes()); // made by
        directory.extend(common);
        directory.extend((extra.len() as u16).to_le_bytes());
        directory.extend([0; 10]); // comment, volume, attributes
        directory.extend(narrow(start).to_le_bytes());
        directory.extend(name.bytes());
        directory.extend(extra);
        self.entries += 1;
        Ok(())
    }

    /// Writes the directory and flushes.
    ///
    /// # Errors
    /// What the output says.
    pub fn finish(mut self) -> io::Result<()> {
        let (start, size) = (self.position, self.directory.len() as u64);
        let directory = std::mem::take(&mut self.directory);
        self.write(&directory)?;
        let end = self.position;
        let mut tail = b"PK\x06\x06".to_vec(); // the 64-bit end, as PyTorch writes it whatever the sizes
        tail.extend(44u64.to_le_bytes()); // bytes that follow
        tail.extend([NEEDED.to_le_bytes(), NEEDED.to_le_bytes()].concat());
        tail.extend([0; 8]); // volumes
        for number in [self.entries, self.entries, size, start] {
            tail.extend(number.to_le_bytes());
        }
        tail.extend(b"PK\x06\x07"); // where that is
        tail.extend([0; 4]);
        tail.extend(end.to_le_bytes());
        tail.extend(1u32.to_le_bytes());
        tail.extend(b"PK\x05\x06"); // the end
        tail.extend([0; 4]);
        let entries = u16::try_from(self.entries).unwrap_or(u16::MAX);
        tail.extend([entries.to_le_bytes(), entries.to_le_bytes()].concat());
        tail.extend(narrow(size).to_le_bytes());
        tail.extend(narrow(start).to_le_bytes());
        tail.extend([0; 2]);
        self.write(&tail)?;
        self.out.flush()
    }
}

/// Returns the number as a 32-bit field has it: all ones where it stands elsewhere.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn field(extra: &mut Vec<u8>, id: u16, body: &[u8]) {
    extra.extend(id.to_le_bytes());
    extra.extend((body.len() as u16).to_le_bytes());
    extra.extend(body);
}
