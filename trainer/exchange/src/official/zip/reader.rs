//! Reading a zip file out of a slice.
//!
//! Only what PyTorch's files need is understood; compression, encryption, comments and several volumes are errors.
//! Every entry is checked to lie inside the file and apart from the others, so reading all of them reads no byte twice.

use shardtool::Escaped;

use crate::official::fault::{Cause, Fault};

/// Most entries of a file; the largest official model has under 3,000.
const MAX_ENTRIES: u64 = 1 << 20;

/// A stored file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Name, folders included.
    pub name: &'a str,
    /// Where the content begins in the file.
    pub offset: u64,
    /// The content.
    pub content: &'a [u8],
    /// Checksum (CRC-32) that its content should have.
    pub crc: u32,
}

/// Returns the entries of the zip file `file`, in the order of its directory.
///
/// # Errors
/// [`Cause::Foreign`] if it is none, or only the beginning of one; [`Cause::Malformed`] where it breaks a rule.
pub fn read(file: &[u8]) -> Result<Vec<Entry<'_>>, Fault> {
    let directory = Directory::find(file)?;
    let mut entries = Vec::new();
    let mut reader = Reader {
        file,
        at: directory.offset,
    };
    let mut extents = Vec::new();
    for _ in 0..directory.entries {
        let (entry, start) = reader.entry(directory.offset)?;
        extents.push((start, entry.offset + entry.content.len() as u64));
        entries.push(entry);
    }
    if reader.at != directory.end {
        return Err(Fault::new(
            reader.at,
            "the zip directory has another size than it says",
        ));
    }
    extents.sort_unstable();
    if let Some(pair) = extents.windows(2).find(|pair| pair[0].1 > pair[1].0) {
        return Err(Fault::new(pair[1].0, "zip entries that overlap"));
    }
    Ok(entries)
}

/// The place of the list of entries.
struct Directory {
    entries: u64,
    offset: u64,
    end: u64,
}

impl Directory {
    const END: u64 = 22;
    const LOCATOR: u64 = 20;

    fn find(file: &[u8]) -> Result<Directory, Fault> {
        let length = file.len() as u64;
        let truncated = || {
            let cause = "a zip file without its directory at the end: was it copied only in part?";
            Fault::new(length, Cause::Foreign(cause))
        };
        let end = length.checked_sub(Self::END).ok_or_else(truncated)?;
        let mut reader = Reader { file, at: end };
        if reader.bytes()? != *b"PK\x05\x06" {
            return Err(truncated());
        }
        let [disk, first_disk, here, entries] =
            [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
        let (size, offset) = (reader.u32()?, reader.u32()?);
        let mut found = Directory {
            entries: entries.into(),
            offset: offset.into(),
            end: u64::from(offset) + u64::from(size),
        };
        let mut limit = end;
        let narrow = entries == u16::MAX || size == u32::MAX || offset == u32::MAX;
        let locator = end.checked_sub(Self::LOCATOR);
        let locator = locator.filter(|&at| file[at as usize..].starts_with(b"PK\x06\x07"));
        if let Some(at) = locator {
            let mut reader = Reader { file, at: at + 8 };
            let at = reader.u64()?;
            let mut reader = Reader { file, at };
            if reader.bytes()? != *b"PK\x06\x06" {
                return Err(Fault::new(
                    at,
                    "no 64-bit zip directory where one should be",
                ));
            }
            reader.at = at + 32;
            let (entries, size, offset) = (reader.u64()?, reader.u64()?, reader.u64()?);
            let end = offset.checked_add(size);
            found = Directory {
                entries,
                offset,
                end: end
                    .ok_or_else(|| Fault::new(at, "a zip directory beyond the end of the file"))?,
            };
            limit = at;
        } else if narrow {
            return Err(Fault::new(end, "the zip directory lacks its 64-bit part"));
        } else if (disk, first_disk) != (0, 0) || here != entries {
            return Err(Fault::new(end, "a zip file of several volumes"));
        }
        if found.end > limit {
            return Err(Fault::new(
                end,
                "a zip directory beyond the end of the file",
            ));
        }
        if found.entries > MAX_ENTRIES {
            let count = found.entries;
            let cause = Cause::TooMuch(format!("a zip file of {count} entries"));
            return Err(Fault::new(end, cause));
        }
        Ok(found)
    }
}

/// A reader of numbers and strings from some place on.
struct Reader<'a> {
    file: &'a [u8],
    at: u64,
}

impl<'a> Reader<'a> {
    fn slice(&mut self, length: u64) -> Result<&'a [u8], Fault> {
        let end = self.at.checked_add(length);
        let end = end.filter(|&end| end <= self.file.len() as u64);
        let end = end.ok_or_else(|| Fault::new(self.at, "the zip file breaks off"))?;
        let slice = &self.file[self.at as usize..end as usize];
        self.at = end;
        Ok(slice)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        Ok(self
            .slice(N as u64)?
            .try_into()
            .expect("a slice of N bytes"))
    }

    fn u16(&mut self) -> Result<u16, Fault> {
        Ok(u16::from_le_bytes(self.bytes()?))
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    /// Returns the entry whose record in the directory begins here, and where its local header begins.
    ///
    /// `limit` is where the directory begins, which no content may reach.
    fn entry(&mut self, limit: u64) -> Result<(Entry<'a>, u64), Fault> {
        let start = self.at;
        if self.bytes()? != *b"PK\x01\x02" {
            return Err(Fault::new(
                start,
                "no zip directory record where one should be",
            ));
        }
        self.at = start + 8;
        let (flags, method) = (self.u16()?, self.u16()?);
        self.at = start + 16;
        let (crc, packed, size) = (self.u32()?, self.u32()?, self.u32()?);
        let (name, extra, comment) = (self.u16()?, self.u16()?, self.u16()?);
        self.at = start + 42;
        let local = self.u32()?;
        let raw_name = self.slice(name.into())?;
        let name = std::str::from_utf8(raw_name)
            .map_err(|_| Fault::new(start, "a zip entry whose name is not UTF-8"))?;
        let extra = self.slice(extra.into())?;
        self.slice(comment.into())?;

        let fault = |cause: &str| {
            Fault::new(
                start,
                format!("zip entry `{}`: {cause}", Escaped::new(name)),
            )
        };
        if flags & 1 != 0 {
            return Err(fault("encrypted"));
        }
        if method != 0 {
            return Err(fault("compressed, which `torch.save` never does"));
        }
        let mut wide = Wide::find(extra);
        let mut widen = |narrow: u32| match narrow {
            u32::MAX => wide.next().ok_or_else(|| fault("lacks its 64-bit size")),
            narrow => Ok(narrow.into()),
        };
        let size = widen(size)?;
        let packed = widen(packed)?;
        let local = widen(local)?;
        if packed != size {
            return Err(fault("stored, but of two sizes"));
        }

        let mut header = Reader {
            file: self.file,
            at: local,
        };
        if header.bytes()? != *b"PK\x03\x04" {
            return Err(fault(&format!("no header at byte {local}")));
        }
        header.at = local + 26;
        let (name_here, extra_here) = (header.u16()?, header.u16()?);
        if header.slice(name_here.into())? != raw_name {
            return Err(fault("its header has another name"));
        }
        header.slice(extra_here.into())?;
        let offset = header.at;
        if offset.checked_add(size).is_none_or(|end| end > limit) {
            return Err(fault(&format!(
                "its {size} bytes at byte {offset} reach into the zip directory"
            )));
        }
        let content = header.slice(size)?;
        let entry = Entry {
            name,
            offset,
            content,
            crc,
        };
        Ok((entry, local))
    }
}

/// The numbers of the 64-bit extension, in order.
struct Wide<'a>(&'a [u8]);

impl<'a> Wide<'a> {
    const ID: u16 = 1;

    fn find(mut extra: &'a [u8]) -> Wide<'a> {
        while let [a, b, c, d, rest @ ..] = extra {
            let (id, length) = (u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d]));
            let Some(body) = rest.get(..length.into()) else {
                break;
            };
            if id == Self::ID {
                return Wide(body);
            }
            extra = &rest[length.into()..];
        }
        Wide(&[])
    }

    fn next(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }
}
